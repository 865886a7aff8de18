"""The fields that the server adds, as lines and as pairs."""

from __future__ import annotations

import pytest

from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http.fields import HAS_DATE, HAS_SERVER

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
OURS = {b"date": DATE.encode(), b"server": b"daphne-ng"}
EXTRA = ((b"X-Frame-Options", b"DENY"), (b"x-served-by", b"a"))


def defaults(
    server: str = "daphne-ng", extra: tuple[tuple[bytes, bytes], ...] = (), date: bool = True
) -> ResponseDefaults:
    made = ResponseDefaults(server, extra, date)
    made.set_date(DATE)
    return made


def lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"\r\n%b: %b" % field for field in fields)


@pytest.mark.parametrize("flags", [0, HAS_DATE, HAS_SERVER, HAS_DATE | HAS_SERVER])
@pytest.mark.parametrize("extra", [(), EXTRA])
@pytest.mark.parametrize("headers", [[], [(b"x-frame-options", b"SAMEORIGIN")]])
def test_lines_and_pairs_say_the_same(flags: int, extra: tuple[tuple[bytes, bytes], ...], headers: list) -> None:
    made = defaults(extra=extra)
    assert made.block_for(flags, headers) == lines(made.fields_for(flags, headers))


def test_what_the_application_has_set_is_left_out() -> None:
    made = defaults(extra=EXTRA)
    assert made.fields_for(0, ()) == [*OURS.items(), *EXTRA]
    assert made.fields_for(HAS_DATE, ()) == [(b"server", b"daphne-ng"), *EXTRA]
    assert made.fields_for(HAS_SERVER, [[b"X-FRAME-OPTIONS", b"SAMEORIGIN"]]) == [(b"date", DATE.encode()), EXTRA[1]]


@pytest.mark.parametrize(
    ("server", "date", "fields"), [("", True, [b"date"]), ("x", False, [b"server"]), ("", False, [])]
)
def test_each_can_be_switched_off(server: str, date: bool, fields: list[bytes]) -> None:
    assert [name for name, _value in defaults(server, date=date).fields_for(0, ())] == fields


def test_the_block_is_ready_where_nothing_depends_on_the_response() -> None:
    made = defaults()
    assert made.plain
    assert made.block == made.block_for(0, ())
    assert not defaults(extra=EXTRA).plain
    assert defaults(extra=EXTRA).block == b""


def test_a_new_date_is_in_the_block_and_makes_another_encoding_due() -> None:
    made = defaults()
    made.encoded = b"an encoding"
    made.set_date("Mon, 07 Nov 1994 00:00:00 GMT")
    assert b"Mon, 07" in made.block
    assert made.encoded is None

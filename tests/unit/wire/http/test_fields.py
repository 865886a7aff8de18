"""What a field means: the grammar at its edges, and the tables that both versions of HTTP build on."""

from __future__ import annotations

import pytest

from daphne_ng.errors import InvalidHeader
from daphne_ng.wire.http.fields import (
    CONFLICTING_LENGTHS,
    HOP_BY_HOP,
    HOST,
    NO_LENGTH,
    NOT_A_LENGTH,
    RESPONSE_FIELDS,
    TOKEN,
    TOO_LONG_A_LENGTH,
    check_trailers,
    connection_options,
    content_length,
    host_memo,
    is_host,
    valid_hosts,
)

TCHARS = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_token_is_made_of_tchars_only() -> None:
    for value in range(256):
        byte = bytes([value])
        assert bool(TOKEN.fullmatch(byte)) is (byte in TCHARS)
    assert not TOKEN.fullmatch(b"")
    assert not TOKEN.fullmatch(b"a\n")


@pytest.mark.parametrize(
    "byte",
    [
        b"/",
        b"?",
        b"#",
        b"@",
        b"\\",
        b" ",
        b"\t",
        b"\n",
        b"\r",
        b"\0",
        b'"',
        b"<",
        b">",
        b"^",
        b"`",
        b"{",
        b"|",
        b"}",
        b"\x7f",
        b"\x80",
    ],
)
def test_characters_that_would_change_a_url_are_in_no_host(byte: bytes) -> None:
    assert not HOST.fullmatch(b"a" + byte + b"b")
    assert not HOST.fullmatch(b"a" + byte)
    assert not HOST.fullmatch(byte)


@pytest.mark.parametrize(
    "host", [b"a:b", b"a:123456", b"a:1:2", b"[::1", b"::1", b"[::1]a", b"[]", b"[g::]", b"a%2", b"a%g0", b"a:80\n"]
)
def test_hosts_that_are_none(host: bytes) -> None:
    assert not HOST.fullmatch(host)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (b"close", {b"close"}),
        (b"Keep-Alive, \tClose ", {b"keep-alive", b"close"}),
        (b"", {b""}),
        (b",,a,", {b"", b"a"}),
        (b"closed", {b"closed"}),
    ],
)
def test_connection_options(value: bytes, options: set[bytes]) -> None:
    assert connection_options(value) == options


@pytest.mark.parametrize(
    ("value", "earlier", "length"),
    [
        (b"0", NO_LENGTH, 0),
        (b"007", NO_LENGTH, 7),
        (b"7", 7, 7),
        (b"9" * 18, NO_LENGTH, 10**18 - 1),
        (b"0" * 19, NO_LENGTH, TOO_LONG_A_LENGTH),
        (b"7", 8, CONFLICTING_LENGTHS),
        (b"7", 0, CONFLICTING_LENGTHS),
        (b"", NO_LENGTH, NOT_A_LENGTH),
        (b"+7", NO_LENGTH, NOT_A_LENGTH),
        (b"-7", NO_LENGTH, NOT_A_LENGTH),
        (b" 7", NO_LENGTH, NOT_A_LENGTH),
        (b"7, 7", NO_LENGTH, NOT_A_LENGTH),
        (b"0x7", NO_LENGTH, NOT_A_LENGTH),
        (b"1_0", NO_LENGTH, NOT_A_LENGTH),
        ("\u0667".encode(), NO_LENGTH, NOT_A_LENGTH),
    ],
)
def test_lengths(value: bytes, earlier: int, length: int) -> None:
    assert content_length(value, earlier) == length


def test_problems_with_a_length_are_below_any_length() -> None:
    assert all(problem < NO_LENGTH for problem in (NOT_A_LENGTH, TOO_LONG_A_LENGTH, CONFLICTING_LENGTHS))


def test_a_host_is_remembered_if_it_is_one_and_short() -> None:
    assert is_host(b"remembered.example")
    assert is_host(b"a" * 100)
    assert not is_host(b"not remembered")
    assert b"remembered.example" in valid_hosts
    assert b"a" * 100 not in valid_hosts
    assert b"not remembered" not in valid_hosts
    assert valid_hosts is host_memo.known


def test_hop_by_hop_fields_of_an_application_are_the_servers_business() -> None:
    assert set(RESPONSE_FIELDS) > HOP_BY_HOP


@pytest.mark.parametrize("name", [b"Content-Length", b"set-cookie", b"TE"])
def test_a_forbidden_trailer_is_named(name: bytes) -> None:
    with pytest.raises(InvalidHeader, match=name.decode()):
        check_trailers([(b"x-checksum", b"1"), (name, b"1")])


def test_other_trailers_pass() -> None:
    check_trailers([(b"x-checksum", b"1"), (b"Server-Timing", b"db")])

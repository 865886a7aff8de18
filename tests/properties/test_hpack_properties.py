"""Header blocks and request heads against the libraries that they stand in for.

hpack is the oracle of both codecs, on whole connections: blocks in a row, with a dynamic table that fills, is resized
and evicts, and with blocks that come again, so that what was remembered is used. h2's validation is the oracle of ours:
whatever it refuses is refused; what is refused beyond it is listed here with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable

import h2.exceptions
import hpack
import pytest
from h2.utilities import CONNECTION_HEADERS, HeaderValidationFlags, validate_headers
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from daphne_ng.config import Config
from daphne_ng.errors import InvalidHeader, WireError
from daphne_ng.wire.http.fields import METHODS, SECRET_FIELDS
from daphne_ng.wire.http2.head import check_request_fields
from daphne_ng.wire.http2.hpack import (
    CUT,
    CompressionError,
    ResponseEncoder,
    _encoded_line,
    encode_fields,
)
from tests.support.h2 import all_said, request_decoder

pytestmark = pytest.mark.once


Field = tuple[bytes, bytes]

# -- header blocks ---------------------------------------------------------------------------------------

NAMES = st.one_of(
    st.sampled_from([b":method", b":path", b":status", b"cookie", b"set-cookie", b"accept-encoding", b"etag", b"x-a"]),
    st.binary(max_size=12),
)
VALUES = st.one_of(
    st.sampled_from([b"GET", b"200", b"/", b"", b"gzip, deflate", b"a=b"]),
    st.text("abcdefgh/=&;,. 0123456789", max_size=60).map(str.encode),
    st.binary(max_size=40),
    st.integers(100, 400).map(lambda size: b"v" * size),
)
FIELDS = st.tuples(NAMES, VALUES)
LISTS = st.lists(FIELDS, max_size=8)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[list[Field], list[bool], int | None, bool]]:
    """Lists of fields in a row: some come again; which are sensitive; a new table size; Huffman code or not."""
    lists = draw(st.lists(LISTS, min_size=1, max_size=4))
    made = []
    for index in draw(st.lists(st.integers(0, len(lists) - 1), min_size=1, max_size=12)):
        fields = lists[index]
        sensitive = draw(st.lists(st.booleans(), min_size=len(fields), max_size=len(fields)))
        size = draw(st.sampled_from([None, None, None, 0, 40, 200, 4096]))
        made.append((fields, sensitive if draw(st.booleans()) else [False] * len(fields), size, draw(st.booleans())))
    return made


@given(conversations())
def test_the_decoder_reads_what_hpack_writes(
    conversation: list[tuple[list[Field], list[bool], int | None, bool]],
) -> None:
    encoder, decoder, oracle = hpack.Encoder(), request_decoder(), hpack.Decoder()
    for fields, sensitive, size, huffman in conversation:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode([(*field, mark) for field, mark in zip(fields, sensitive, strict=True)], huffman=huffman)
        assert list(decoder.decode(block)) == fields
        assert list(oracle.decode(block, raw=True)) == fields
        assert decoder._table == oracle.header_table.dynamic_entries
        assert decoder._table_bytes == oracle.header_table._current_size
        assert decoder.header_table_size == oracle.header_table_size


@given(conversations())
def test_hpack_reads_what_the_encoder_writes(
    conversation: list[tuple[list[Field], list[bool], int | None, bool]],
) -> None:
    encoder, oracle = ResponseEncoder(), hpack.Decoder()
    for fields, _, size, _ in conversation:
        if size is not None:
            encoder.header_table_size = size
            oracle.max_allowed_table_size = size
        plain = b"".join(_encoded_line(*field) for field in fields)
        decoded = list(oracle.decode(encoder.begin_block() + plain, raw=True))
        assert decoded == fields
        assert not any(field[0] in SECRET_FIELDS and field.indexable for field in decoded)
        assert not oracle.header_table.dynamic_entries
        assert list(request_decoder(10**6, 100).decode(plain)) == fields


PIECES = st.one_of(
    # Representations with small indexes and short strings, so that the table is met often.
    st.integers(0xBC, 0xC4).map(lambda octet: bytes((octet,))),
    st.integers(0x80, 0xBB).map(lambda octet: bytes((octet,))),
    st.tuples(
        st.sampled_from([b"\x40", b"\x00", b"\x10", b"\x44", b"\x04", b"\x7e", b"\x7f\x00", b"\x0f\x2f"]), VALUES
    ).map(
        lambda pair: (
            pair[0]
            + (b"\x01a" if pair[0][0] in (0x40, 0, 0x10) else b"")
            + bytes((min(len(pair[1]), 99),))
            + pair[1][:99]
        )
    ),
    st.sampled_from(
        [b"\x20", b"\x3f\xe1\x1f", b"\x3f\x09", b"\x3f\xe2\x1f", b"\xff\x80\x00", b"\xff\x80\x80\x80\x80\x01"]
    ),
    st.binary(min_size=1, max_size=6),
)


@given(st.lists(st.lists(PIECES, max_size=6).map(b"".join), min_size=1, max_size=5), st.data())
@example([b"@\x01a\x01b", b"\xbe", b"\xbe", b"\x20", b"\xbe"], None)
def test_any_octets_mean_to_the_decoder_what_they_mean_to_hpack(
    blocks: list[bytes], data: st.DataObject | None
) -> None:
    decoder, oracle = request_decoder(), hpack.Decoder()
    order = range(len(blocks)) if data is None else data.draw(st.lists(st.integers(0, len(blocks) - 1), max_size=12))
    for index in order:
        block = blocks[index]
        assume(block.count(b"\x20") <= 32)
        try:
            expected = list(oracle.decode(block, raw=True))
        except hpack.HPACKError:
            try:
                decoder.decode(block)
            except CompressionError:
                return
            raise AssertionError(f"{block!r} was accepted") from None
        assert list(decoder.decode(block)) == expected
        assert decoder._table == oracle.header_table.dynamic_entries


@given(conversations(), st.integers(0, 6), st.integers(0, 700))
def test_a_list_that_is_refused_leaves_the_table_in_step(
    conversation: list[tuple[list[Field], list[bool], int | None, bool]], fields_max: int, size_max: int
) -> None:
    encoder, decoder, oracle = hpack.Encoder(), request_decoder(size_max, fields_max), hpack.Decoder()
    for fields, _, size, huffman in conversation:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(fields, huffman)
        oracle.decode(block, raw=True)
        total = sum(len(name) + len(value) + 32 for name, value in fields)
        # RFC 9113 section 8.2.3: all cookies are one field.
        crumbs = max(0, sum(name == b"cookie" for name, _ in fields) - 1)
        if len(fields) - crumbs > 4 * fields_max or total > 4 * size_max:
            with pytest.raises(CompressionError) as caught:
                decoder.decode(block)
            assert caught.value.code == 11
            return
        decoded = decoder.decode(block)
        assert decoder._table == oracle.header_table.dynamic_entries
        if len(fields) - crumbs <= fields_max and total <= size_max:
            assert list(decoded) == fields
        else:
            assert decoded[-1][0] is CUT
            assert list(decoded[:-1]) == fields[: len(decoded) - 1]
            assert len(decoded) - 1 <= fields_max + crumbs
            assert sum(len(name) + len(value) + 32 for name, value in decoded[:-1]) <= size_max


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4))
@example([(b"Upgrade", b"h2c"), (b"a", b" b")])
def test_no_field_of_an_application_becomes_another(pairs: list[Field]) -> None:
    try:
        block, _, _ = encode_fields(pairs)
    except InvalidHeader:
        return
    event("encoded")
    read = list(hpack.Decoder().decode(block, raw=True))
    expected = [(name.lower(), value.strip(b" \t")) for name, value in pairs]
    assert read == [field for field in expected if field[0] not in CONNECTION_HEADERS]
    assume(b"te" not in dict(read))  # of no use in a response, and no harm
    list(validate_headers([(b":status", b"200"), *read], HeaderValidationFlags(False, False, True, False)))


# -- request heads ---------------------------------------------------------------------------------------

PSEUDO_FIELDS = [
    (b":method", [b"GET", b"GET", b"POST", b"OPTIONS", b"CONNECT", b"BREW", b"get", b"", b"G T"]),
    (b":scheme", [b"https", b"https", b"http", b"HTTPS", b"ftp", b"", b"a b"]),
    (b":authority", [b"test", b"test", b"test:80", b"", b"u@test", b"te st", b"TEST"]),
    (b":path", [b"/", b"/", b"/a?b", b"*", b"", b"a", b"/#", b"/\x80", b"/a b", b"/" + b"a" * 8190]),
]
ODD_FIELDS = [
    (b":protocol", b"websocket"), (b":protocol", b""), (b":status", b"200"), (b":x", b"y"), (b":method", b"GET"), (b":", b""),
    (b"host", b"test"), (b"host", b"TEST"), (b"host", b"other"), (b"host", b""), (b"host", b"a/b"),
    (b"connection", b"close"), (b"keep-alive", b"1"), (b"proxy-connection", b"a"), (b"transfer-encoding", b"chunked"),
    (b"upgrade", b"h2c"), (b"te", b"trailers"), (b"te", b"TRAILERS"), (b"te", b"gzip"), (b"te", b""),
    (b"content-length", b"0"), (b"content-length", b"5"), (b"content-length", b"x"), (b"content-length", b"9" * 30),
    (b"cookie", b"a=b"), (b"cookie", b"c"), (b"expect", b"100-continue"), (b"expect", b"a"), (b"priority", b"u=1"),
    (b"x_y", b"z"), (b"_", b"\n"), (b"X", b"y"), (b"x", b"y "), (b"x", b" y"), (b"x", b"\ty"), (b"x", b"y\0"), (b"x", b"a\rb"),
    (b"", b""), (b"a b", b""), (b"a:b", b""), (b"\x7f", b""), (b"a(b)", b""), (b"x", b"a\x01b"), (b"x", b"\xff"), (b"x", b"a\tb"),
    (b"x", b"a\x7f"), (b"daphne-root-path", b"/r"),
]  # fmt: skip


@st.composite
def request_lists(draw: st.DrawFn) -> list[Field]:
    fields = []
    for name, values in PSEUDO_FIELDS:
        if draw(st.integers(0, 15)):
            fields.append((name, values[0] if draw(st.integers(0, 4)) else draw(st.sampled_from(values))))
    if not draw(st.integers(0, 4)):
        fields = draw(st.permutations(fields))
    for odd in draw(st.lists(st.one_of(st.sampled_from(ODD_FIELDS), st.tuples(NAMES, VALUES)), max_size=3)):
        at = len(fields) if draw(st.integers(0, 5)) else draw(st.integers(0, len(fields)))
        fields.insert(at, odd)
    return fields


CONTROLS = frozenset((*range(1, 9), 11, 12, *range(14, 32), 127))
TCHARS = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


# Why we refuse what h2 lets pass.
def reasons(fields: list[Field], ended: bool, extended: bool) -> Iterable[str]:
    pseudo = {name: value for name, value in fields if name[:1] == b":"}
    regular = [(name, value) for name, value in fields if name[:1] != b":"]
    method, scheme, path = (pseudo.get(name, b"") for name in (b":method", b":scheme", b":path"))
    lengths = [value for name, value in regular if name == b"content-length"]
    if any(set(name) - TCHARS for name, _ in regular):
        yield "RFC 9110 section 5.1: a name is a token; HTTP/1.1 answers 400"
    if any(set(value) & CONTROLS for _, value in fields):
        yield "RFC 9110 section 5.5: control characters are invalid in values; HTTP/1.1 answers 400"
    if not method or method.decode("latin-1") not in METHODS.values():
        yield "no method that HTTP/1.1 has: 501, or no token"
    if method == b"CONNECT" and (not extended or b":protocol" not in pseudo):
        yield "CONNECT to another server is not for us; an extended one must have been offered (RFC 8441 section 3)"
    if b":protocol" in pseudo and pseudo[b":protocol"] != b"websocket":
        yield "another protocol than websocket: 501"
    if scheme.lower() not in (b"http", b"https"):
        yield "RFC 9113 section 8.3.1: a scheme must be valid; others than these two are not served"
    if b"" in (pseudo.get(b":authority"), dict(regular).get(b"host")):
        yield "RFC 9113 section 8.3.1: if these fields are present, they MUST NOT be empty"
    if not all(
        set(value) <= set(b"TEStesother0123456789:")
        for value in (pseudo.get(b":authority", b""), dict(regular).get(b"host", b""))
    ):
        yield "RFC 9113 section 8.3.1, RFC 3986 section 3.2.2: an authority without userinfo, and nothing but that"
    if not path.startswith(b"/") and not (path == b"*" and method == b"OPTIONS"):
        yield "RFC 9113 section 8.3.1: a path begins with a slash, or is the asterisk of OPTIONS"
    if set(path) - set(range(33, 127)) or b"#" in path:
        yield "RFC 3986 section 3.3: no blanks, no fragments, nothing beyond ASCII in a path"
    if len(path) > 8190:
        yield "the limit of the request target: 414"
    if any(not value.isdigit() or len(value) > 18 for value in lengths) or len(set(lengths)) > 1:
        yield "RFC 9113 section 8.1.1: a Content-Length is one number (h2 checks it elsewhere, and ends the connection)"
    if ended and any(value != b"0" for value in lengths):
        yield "RFC 9113 section 8.1.1: the body is as long as announced (h2 checks it elsewhere, and ends the connection)"
    if any(name == b"expect" and value.lower() != b"100-continue" for name, value in regular):
        yield "RFC 9110 section 10.1.1: 417"


def is_refused_by_h2(fields: list[Field]) -> bool:
    try:
        list(validate_headers(fields, HeaderValidationFlags(False, False, False, False)))
    except h2.exceptions.ProtocolError:
        return True
    except IndexError:  # an empty name meets a check that comes before the one for empty names
        return True
    return False


@given(request_lists(), st.booleans(), st.booleans())
@example(
    [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"test"), (b":path", b"/"), (b"host", b"TEST")],
    True,
    False,
)
def test_whatever_h2_refuses_is_refused(fields: list[Field], ended: bool, extended: bool) -> None:
    refused = is_refused_by_h2(fields)
    event(f"h2 refuses: {refused}")
    try:
        head = check_request_fields(tuple(fields), Config(), ended, extended)
    except WireError as error:
        event(f"we refuse: {type(error).__name__} {error.status}")
        assert refused or list(reasons(fields, ended, extended)), fields
        return
    event("accepted")
    if refused:
        # The one thing that we let pass beyond h2: RFC 9110 section 4.2.3, "The scheme and host are case-insensitive".
        authority = dict(fields)[b":authority"]
        hosts = [value for name, value in fields if name == b"host"]
        assert len(hosts) == 1 and hosts[0] != authority and hosts[0].lower() == authority.lower()
        assert not is_refused_by_h2([field for field in fields if field[0] != b"host"])
    assert not list(reasons(fields, ended, extended)), fields
    if ended and head.repeatable:
        event("repeatable")
        assert all_said(head.repeated()) == all_said(head)
    # What the application reads is what was sent.
    assert dict(head.headers)[b"host"] == dict(fields).get(b":authority", dict(fields).get(b"host"))
    assert all(name and name[:1] != b":" and b"_" not in name for name, _ in head.headers)
    assert sum(name == b"host" for name, _ in head.headers) == 1
    assert sum(name == b"cookie" for name, _ in head.headers) <= 1

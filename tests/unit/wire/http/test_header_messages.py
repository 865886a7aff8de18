"""What an application is told about a header that cannot be sent: which one it is, whatever the protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from daphne_ng.errors import InvalidHeader
from daphne_ng.wire.http.fields import DROP_LENGTH
from daphne_ng.wire.http1 import writer as h1_writer
from daphne_ng.wire.http2 import hpack


@pytest.mark.parametrize("encode", [h1_writer.encode_fields, hpack.encode_fields], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(
    ("field", "message"),
    [
        ((b"x-a", "*"), "the value of header b'x-a' ('*') must be bytes, not str"),
        ((b"x-a", None), "the value of header b'x-a' (None) must be bytes, not NoneType"),
        ([b"x-a", 5], "the value of header b'x-a' (5) must be bytes, not int"),
        ((b"server", "x"), "the value of header b'server' ('x') must be bytes, not str"),
        ((b"content-length", 5), "the value of header b'content-length' (5) must be bytes, not int"),
        ((b"content-length", None), "the value of header b'content-length' (None) must be bytes, not NoneType"),
        ((b"content-length", "5"), "the value of header b'content-length' ('5') must be bytes, not str"),
        ((b"content-length", b"5 "), "Content-Length b'5 ' is not a length"),
        ((b"set-cookie", "key=1"), "the value of header b'set-cookie' (not shown) must be bytes, not str"),
        ((b"x-a", b"b\r\nc"), r"the value of header b'x-a' (b'b\\r\\nc') holds CR, LF or NUL"),
        (("x-a", b"1"), "header name 'x-a' must be bytes, not str"),
        ((b"x a", b"1"), "header name b'x a' is not a token"),
        ((b"x-a",), "a header must be a pair of bytes, not (b'x-a',)"),
        (b"x-a: 1", "a header must be a pair of bytes, not b'x-a: 1'"),
    ],
)
def test_the_message_names_the_header(encode: Callable[..., Any], field: Any, message: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        encode([(b"content-type", b"text/plain"), field, (b"vary", b"origin")])

    assert str(caught.value) == message


@pytest.mark.parametrize("encode", [h1_writer.encode_fields, hpack.encode_fields], ids=["HTTP/1.1", "HTTP/2"])
def test_the_message_is_bounded(encode: Callable[..., Any]) -> None:
    with pytest.raises(InvalidHeader) as caught:
        encode([(b"x-a", "v" * 100_000)])

    assert len(str(caught.value)) < 300


def test_a_connection_field_that_is_no_bytes_is_refused_like_any_other() -> None:
    with pytest.raises(InvalidHeader, match="the value of header b'connection' \\(None\\) must be bytes, not NoneType"):
        h1_writer.encode_fields([(b"connection", None)])


@pytest.mark.parametrize("encode", [h1_writer.encode_fields, hpack.encode_fields], ids=["HTTP/1.1", "HTTP/2"])
def test_a_length_that_is_left_out_is_checked_all_the_same(encode: Callable[..., Any]) -> None:
    with pytest.raises(InvalidHeader):
        encode([(b"content-length", "5")], DROP_LENGTH)

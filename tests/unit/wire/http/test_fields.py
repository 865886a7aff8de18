"""The grammar at its edges."""

from __future__ import annotations

import pytest

from daphne_ng.wire.http.fields import HOST, TOKEN, connection_options

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

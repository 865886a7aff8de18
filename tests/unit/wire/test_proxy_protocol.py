"""`daphne_ng.wire.proxy_protocol`: both versions of the header, whole, byte by byte, and wrong."""

from __future__ import annotations

import struct

import pytest

from daphne_ng.errors import ProxyHeaderError
from daphne_ng.wire.proxy_protocol import MAX_BYTES, ProxyHeader, _crc32c, parse

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
REQUEST = b"GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n"


def binary(body: bytes, command: int = 0x21, family: int = 0x11, size: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if size is None else size) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_checksum(header: bytes) -> bytes:
    """Append the checksum to a header that has none."""
    body = header[16:] + tlv(3, bytes(4))
    bare = header[:14] + struct.pack("!H", len(body)) + body
    return bare[:-4] + struct.pack("!I", _crc32c(bare))


INET = bytes([192, 168, 0, 1, 192, 168, 0, 11]) + struct.pack("!HH", 56324, 443)
INET_ENDS = (("192.168.0.1", 56324), ("192.168.0.11", 443))
INET6 = bytes.fromhex("20010db8" + "00" * 11 + "01" + "00" * 15 + "01") + struct.pack("!HH", 1, 65535)
INET6_ENDS = (("2001:db8::1", 1), ("::1", 65535))
UNIX = b"/run/proxy.sock".ljust(108, b"\0") + b"\0daphne".ljust(108, b"\0")

# What came, and the ends that it names; None where it names nobody. Then perhaps whether the client spoke TLS.
VALID: dict[str, tuple[bytes, tuple[object, ...] | None]] = {
    "the specification's example": (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", INET_ENDS),
    "the longest TCP4": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        (("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    ),
    "the longest TCP6": (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % ((b"ffff:" * 8)[:-1], (b"FFFF:" * 8)[:-1]),
        (((":ffff" * 8)[1:], 65535), ((":ffff" * 8)[1:], 65535)),
    ),
    "TCP6": (b"PROXY TCP6 2001:DB8::1 ::1 1 65535\r\n", INET6_ENDS),
    "leading zeros in IPv6": (b"PROXY TCP6 2001:0db8:0000::0001 0:0:0:0:0:0:0:1 1 65535\r\n", INET6_ENDS),
    "IPv4 in IPv6, as inet_ntop writes it": (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 0 0\r\n",
        (("::ffff:192.0.2.1", 0), ("::ffff:192.0.2.2", 0)),
    ),
    "UNKNOWN, the short form": (b"PROXY UNKNOWN\r\n", None),
    "UNKNOWN, the worst case": (
        b"PROXY UNKNOWN %b %b 65535 65535\r\n" % ((b"ffff:" * 8)[:-1], (b"ffff:" * 8)[:-1]),
        None,
    ),
    "UNKNOWN with anything": (b"PROXY UNKNOWN \r \n\0 \r\r\n", None),
    "binary IPv4": (binary(INET), INET_ENDS),
    "binary IPv6": (binary(INET6, family=0x21), INET6_ENDS),
    "binary UNIX": (binary(UNIX, family=0x31), (b"/run/proxy.sock", b"\0daphne")),
    "binary UNIX without names": (binary(bytes(216), family=0x31), (b"", b"")),
    "binary UNIX with full paths": (binary(b"/" * 216, family=0x31), (b"/" * 108, b"/" * 108)),
    "LOCAL": (binary(b"", 0x20, 0), None),
    "LOCAL with addresses": (binary(INET, 0x20, 0x11), None),
    "LOCAL with an unknown family and bytes of any kind": (binary(b"\xff" * 7, 0x20, 0xFF), None),
    "UNSPEC": (binary(b"", family=0), None),
    "UNSPEC with bytes of any kind": (binary(b"\xff" * 9, family=0), None),
    "UNSPEC transport": (binary(INET, family=0x10), None),
    "UNSPEC family": (binary(INET, family=0x01), None),
    "TLVs": (binary(INET + tlv(1, b"h2") + tlv(0x04, b"") + tlv(0xEA, b"\1vpce-1")), INET_ENDS),
    "a checksum": (with_checksum(binary(INET + tlv(2, b"example.com"))), INET_ENDS),
    "an AWS load balancer's: a checksum, the name of an endpoint, padding": (
        bytes.fromhex("0d0a0d0a000d0a515549540a21110054ac1f0771ac1f0a1fc8f20050030004e8d6892dea001701")
        + b"vpce-08d2bf15fac5001c9\x04\0\x24"
        + bytes(36),
        (("172.31.7.113", 51442), ("172.31.10.31", 80)),
    ),
    "haproxy's send-proxy-v2-ssl after TLS": (
        binary(INET + tlv(0x20, b"\1\0\0\0\0" + tlv(0x21, b"TLSv1.3"))),
        (*INET_ENDS, True),
    ),
    "haproxy's send-proxy-v2-ssl without TLS": (binary(INET + tlv(0x20, bytes(5))), INET_ENDS),
    "TLS with a certificate, on UNIX": (
        binary(UNIX + tlv(0x20, b"\7\0\0\0\1" + tlv(0x22, b"Ash")), family=0x31),
        (b"/run/proxy.sock", b"\0daphne", True),
    ),
    "TLS among others, with a checksum": (
        with_checksum(binary(INET6 + tlv(0x20, b"\1" + bytes(4)) + tlv(0x20, bytes(5)) + tlv(1, b"h2"), family=0x21)),
        (*INET6_ENDS, True),
    ),
    "bits that say something else": (binary(INET + tlv(0x20, b"\xf8\1\1\1\1")), INET_ENDS),
    "a TLV about TLS that is too short to be one": (binary(INET + tlv(0x20, b"\1\0\0\0")), INET_ENDS),
    "a name that reads like it": (binary(INET + tlv(2, b"\x20\0\5\1\0\0\0\0")), INET_ENDS),
    "LOCAL with TLS": (binary(INET + tlv(0x20, b"\1" + bytes(4)), 0x20), None),
    "the longest": (binary(INET + tlv(4, bytes(MAX_BYTES - 16 - 12 - 3))), INET_ENDS),
}

MALFORMED = "a PROXY line is malformed"
ADDRESS = "a PROXY line has a malformed address, or one of the other family"
NO_HEADER = "the connection does not begin with a PROXY protocol header"
NO_END = "a PROXY line does not end within 107 bytes"
CHECKSUM = "a PROXY header has a malformed checksum"
KIND = "a PROXY header has an unknown address family or transport"
SHORT = "a PROXY header is too short for its addresses"
TLV = "a PROXY header has a TLV that does not fit"

# What came, what is said of it, and after how many bytes at the latest.
WRONG: dict[str, tuple[bytes, str, int]] = {
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", NO_HEADER, 1),
    "HTTP that begins alike": (b"PROPFIND / HTTP/1.1\r\n\r\n", NO_HEADER, 4),
    "TLS": (b"\x16\x03\x01\x02\x00", NO_HEADER, 1),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NO_HEADER, 3),
    "lower case": (b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", NO_HEADER, 1),
    "a blank before": (b" PROXY UNKNOWN\r\n", NO_HEADER, 1),
    "two blanks": (b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", MALFORMED, 7),
    "two blanks inside": (b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", MALFORMED, 37),
    "a blank behind": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", MALFORMED, 37),
    "a tab": (b"PROXY\tTCP4 192.0.2.1 192.0.2.2 1 2\r\n", NO_HEADER, 6),
    "another protocol": (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", MALFORMED, 8),
    "UNKNOWN and more": (b"PROXY UNKNOWNS\r\n", MALFORMED, 14),
    "nothing but the name": (b"PROXY \r\n", MALFORMED, 7),
    "a family and nothing": (b"PROXY TCP4\r\n", MALFORMED, 11),
    "no ports": (b"PROXY TCP4 192.0.2.1 192.0.2.2\r\n", MALFORMED, 32),
    "one port": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", MALFORMED, 34),
    "a bare LF": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", MALFORMED, 35),
    "a bare CR": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rGET", MALFORMED, 36),
    "CR CR LF": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n", MALFORMED, 36),
    "UNKNOWN without an end": (b"PROXY UNKNOWN " + b"x" * 200, NO_END, 107),
    "UNKNOWN one byte too long": (b"PROXY UNKNOWN ".ljust(106) + b"\r\n", NO_END, 107),
    "TCP6 without an end": (b"PROXY TCP6 " + b"1" * 200, NO_END, 107),
    "a leading zero in IPv4": (b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", ADDRESS, 37),
    "three parts of IPv4": (b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", ADDRESS, 34),
    "256 in IPv4": (b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", ADDRESS, 38),
    "IPv6 as TCP4": (b"PROXY TCP4 ::1 ::1 1 2\r\n", ADDRESS, 24),
    "IPv4 as TCP6": (b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", ADDRESS, 36),
    "IPv4 and IPv6": (b"PROXY TCP6 ::1 192.0.2.2 1 2\r\n", ADDRESS, 30),
    "two holes in IPv6": (b"PROXY TCP6 1::2::3 ::1 1 2\r\n", ADDRESS, 28),
    "five digits in IPv6": (b"PROXY TCP6 12345::1 ::1 1 2\r\n", ADDRESS, 29),
    "seven parts of IPv6": (b"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", ADDRESS, 34),
    "a scope": (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", MALFORMED, 19),
    "brackets": (b"PROXY TCP6 [::1] ::1 1 2\r\n", MALFORMED, 12),
    "a host name": (b"PROXY TCP4 localhost 192.0.2.2 1 2\r\n", MALFORMED, 12),
    "a leading zero in a port": (b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", MALFORMED, 37),
    "two zeros for a port": (b"PROXY TCP4 192.0.2.1 192.0.2.2 00 2\r\n", MALFORMED, 37),
    "a sign": (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", MALFORMED, 32),
    "a port too high": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "a PROXY line has a port above 65535", 40),
    "six digits in a port": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 100000\r\n", MALFORMED, 41),
    "a signature cut short": (SIGNATURE[:8] + b"GET / HTTP", NO_HEADER, 9),
    "a signature with a wrong end": (SIGNATURE[:11] + b"\r\x21\x11", NO_HEADER, 12),
    "version 1 in binary": (binary(INET, 0x11), "a PROXY header has an unknown version", 13),
    "version 3": (binary(INET, 0x31), "a PROXY header has an unknown version", 13),
    "an unknown command": (binary(INET, 0x22), "a PROXY header has an unknown command", 13),
    "an unknown family": (binary(INET, family=0x41), KIND, 14),
    "an unknown transport": (binary(INET, family=0x13), KIND, 14),
    "UDP": (binary(INET, family=0x12), "a PROXY header speaks of datagrams", 14),
    "UNIX datagrams": (binary(UNIX, family=0x32), "a PROXY header speaks of datagrams", 14),
    "IPv4 cut short": (binary(INET[:-1]), SHORT, 16),
    "IPv6 cut short": (binary(INET6[:-1], family=0x21), SHORT, 16),
    "UNIX cut short": (binary(UNIX[:-1], family=0x31), SHORT, 16),
    "too long": (binary(b"", size=MAX_BYTES - 15), "a PROXY header is longer than 4096 bytes", 16),
    "LOCAL, too long": (binary(b"", 0x20, 0, size=65535), "a PROXY header is longer than 4096 bytes", 16),
    "a TLV without its length": (binary(INET + b"\x04\0"), TLV, 30),
    "a TLV beyond the end": (binary(INET + b"\x04\0\1"), TLV, 31),
    "the second TLV beyond the end": (binary(INET + tlv(4, b"x") + b"\x04\1\1x"), TLV, 36),
    "a checksum of 2 bytes": (binary(INET + tlv(3, b"\0\0")), CHECKSUM, 33),
    "two checksums": (binary(INET + tlv(3, bytes(4)) * 2), CHECKSUM, 42),
    "a wrong checksum": (with_checksum(binary(INET))[:-1] + b"?", "a PROXY header has a wrong checksum", 35),
    "another address than was summed": (
        with_checksum(binary(INET)).replace(b"\xc0\xa8\0\1", b"\xc0\xa8\0\2"),
        "a PROXY header has a wrong checksum",
        35,
    ),
}


def expected(data: bytes, ends: tuple[object, ...] | None) -> ProxyHeader:
    return ProxyHeader(len(data), *(ends or ()))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VALID)
def test_a_header_is_understood_alone_and_before_anything_that_follows(name: str) -> None:
    data, ends = VALID[name]
    for following in (b"", b"\r\n", REQUEST, data, b"\x16\x03\x01", bytes(MAX_BYTES)):
        assert parse(data + following) == expected(data, ends)


@pytest.mark.parametrize("name", VALID)
def test_no_beginning_of_a_header_is_wrong_or_complete(name: str) -> None:
    data, _ = VALID[name]
    assert [parse(data[:size]) for size in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_header_is_refused_with_the_first_byte_that_shows_it(name: str) -> None:
    data, reason, latest = WRONG[name]
    with pytest.raises(ProxyHeaderError) as refusal:
        parse(data)
    assert str(refusal.value) == reason
    for size in range(latest):
        assert parse(data[:size]) is None
    for size in range(latest, len(data) + 1):
        with pytest.raises(ProxyHeaderError):
            parse(data[:size])


def test_the_checksum_is_castagnolis() -> None:
    # RFC 3720 appendix B.4.
    assert _crc32c(bytes(32)) == 0x8A9136AA
    assert _crc32c(b"\xff" * 32) == 0x62A8AB43
    assert _crc32c(bytes(range(32))) == 0x46DD794E
    assert _crc32c(b"123456789") == 0xE3069283


def test_the_reasons_hold_nothing_that_the_peer_sent() -> None:
    """They go to the log."""
    for data, reason, _ in WRONG.values():
        with pytest.raises(ProxyHeaderError) as refusal:
            parse(data + b"\x1b[2J")
        assert str(refusal.value) == reason

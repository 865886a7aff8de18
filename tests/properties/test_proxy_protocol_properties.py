"""`daphne_ng.wire.proxy_protocol` on headers of every kind, and on bytes that are none."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_ng.errors import ProxyHeaderError
from daphne_ng.wire.proxy_protocol import MAX_BYTES, ProxyHeader, _crc32c, parse

pytestmark = pytest.mark.once


SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

ports = st.integers(0, 65535)
ipv4 = st.ip_addresses(v=4)
ipv6 = st.ip_addresses(v=6) | ipv4.map(lambda address: ipaddress.IPv6Address(f"::ffff:{address}"))
paths = st.binary(min_size=1, max_size=108).filter(lambda path: b"\0" not in path) | st.just(b"")
kinds = st.just(0x20) | st.integers(0, 255).filter(lambda kind: kind != 3)
tlvs = st.lists(st.tuples(kinds, st.binary(max_size=40)), max_size=5)


def text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Write an address as getpeername() does."""
    mapped = getattr(address, "ipv4_mapped", None)
    return f"::ffff:{mapped}" if mapped else str(address)


@st.composite
def lines(draw: st.DrawFn) -> tuple[bytes, ProxyHeader]:
    family = draw(st.sampled_from([ipv4, ipv6]))
    source, destination, source_port, destination_port = draw(st.tuples(family, family, ports, ports))
    name = "TCP4" if source.version == 4 else "TCP6"
    kind = socket.AF_INET if source.version == 4 else socket.AF_INET6
    # As haproxy and nginx write them.
    hosts = [socket.inet_ntop(kind, address.packed) for address in (source, destination)]
    line = f"PROXY {name} {hosts[0]} {hosts[1]} {source_port} {destination_port}\r\n".encode()
    return line, ProxyHeader(len(line), (text(source), source_port), (text(destination), destination_port))


@st.composite
def binaries(draw: st.DrawFn) -> tuple[bytes, ProxyHeader]:
    if draw(st.booleans()):
        family = draw(st.sampled_from([ipv4, ipv6]))
        source, destination, source_port, destination_port = draw(st.tuples(family, family, ports, ports))
        body = source.packed + destination.packed + struct.pack("!HH", source_port, destination_port)
        kind = 0x11 if source.version == 4 else 0x21
        ends: tuple[object, object] = (text(source), source_port), (text(destination), destination_port)
    else:
        ends = draw(st.tuples(paths, paths))
        body = b"".join(path.ljust(108, b"\0") for path in ends)  # type: ignore[attr-defined]
        kind = 0x31
    more = draw(tlvs)
    body += b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in more)
    tls = any(kind == 0x20 and len(value) >= 5 and value[0] & 1 for kind, value in more)
    header = bytearray(SIGNATURE + struct.pack("!BBH", 0x21, kind, len(body)) + body)
    if draw(st.booleans()):
        header += b"\3\0\4\0\0\0\0"
        header[14:16] = struct.pack("!H", len(body) + 7)
        header[-4:] = struct.pack("!I", _crc32c(bytes(header)))
    return bytes(header), ProxyHeader(len(header), *ends, tls)  # type: ignore[arg-type]


@given(lines() | binaries(), st.binary(max_size=300))
def test_what_a_proxy_writes_is_read_whatever_follows(written: tuple[bytes, ProxyHeader], following: bytes) -> None:
    data, header = written
    assert parse(data + following) == header
    assert all(parse(data[:size]) is None for size in range(len(data)))


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE, SIGNATURE + b"\x21\x11\0"]),
    st.binary(max_size=200) | st.text("0123456789abcdefF:. \r\n", max_size=120).map(str.encode),
)
def test_bytes_of_any_kind_are_a_header_or_its_beginning_or_refused(beginning: bytes, more: bytes) -> None:
    data = beginning + more
    verdicts = []
    for size in range(len(data) + 1):
        try:
            verdicts.append(parse(data[:size]))
        except ProxyHeaderError:
            verdicts.append(False)  # type: ignore[arg-type]
    final = verdicts[-1]
    if final:
        # Complete with its last byte, and no more bytes change what it says.
        assert final.size <= MAX_BYTES
        assert verdicts[: final.size] == [None] * final.size
        assert verdicts[final.size :] == [final] * (len(data) + 1 - final.size)
    elif final is None:
        assert verdicts == [None] * len(verdicts)
        assert len(data) < MAX_BYTES
    else:
        # Refused for good.
        first = verdicts.index(False)  # type: ignore[arg-type]
        assert verdicts[first:] == [False] * (len(verdicts) - first)
        assert verdicts[:first] == [None] * first


@given(lines() | binaries(), st.data())
def test_a_flipped_bit_never_gives_an_error_of_another_kind(
    written: tuple[bytes, ProxyHeader], data: st.DataObject
) -> None:
    header = bytearray(written[0])
    bit = data.draw(st.integers(0, len(header) * 8 - 1))
    header[bit // 8] ^= 1 << bit % 8
    try:
        found = parse(bytes(header))
    except ProxyHeaderError:
        return
    assert found is None or found.size <= len(header)

"""The header of the PROXY protocol, versions 1 and 2, as haproxy's ``doc/proxy-protocol.txt`` has it.

A proxy that passes bytes on unread writes it in front of them, to say whose connection it is. `parse` is a pure
function of the bytes that have come so far. Three rules bound it:

1. None means that more is needed, and that *every* byte so far is part of the header. So a reader may take them from
   the socket, and never takes one of what follows.
2. What cannot become a header any more is refused with the first byte that shows it. "The receiver MUST NOT try to
   guess whether the protocol header is present or not."
3. No header is longer than `MAX_BYTES`.

The TLVs behind the addresses in version 2 (names, certificates, vendors' own) are checked for their framing and passed
over, but for two: a receiver that knows the checksum must compare it, and whether the client spoke TLS with the proxy
is the scheme of what follows, which nothing else tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from daphne_ng.errors import ProxyHeaderError

__all__ = ["MAX_BYTES", "Address", "ProxyHeader", "parse"]

MAX_BYTES: Final = 4096
"""Longest header, in bytes. "Both formats are designed to fit in the smallest TCP segment", which is 536 bytes. With
TLVs that hold names from a certificate version 2 may become longer, and its length field would allow 65 KiB. nginx
takes as much as this."""

# "If the CRLF sequence is not found in the first 107 characters, the receiver should declare the line invalid."
_MAX_LINE_BYTES: Final = 107

Address = tuple[str, int] | bytes
"""Host and port, or the path of a UNIX socket: empty if it has no name, with a leading NUL if it is abstract."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says."""

    size: int
    """Its length in bytes. What follows is the connection itself."""
    source: Address | None = None
    """The client of the proxy. None where the header names none (LOCAL, UNKNOWN, UNSPEC): then the ends of the
    connection are those of the socket."""
    destination: Address | None = None
    """What the client connected to. None if and only if `source` is."""
    tls: bool = False
    """Whether it says that the client spoke TLS with the proxy, which ended it. Version 1 cannot say so."""


def parse(data: bytes) -> ProxyHeader | None:
    """Parse the beginning of a connection.

    Args:
        data: All that has come, from the first byte on; it may go beyond the header.

    Returns:
        The header, or None if it is not complete: then all of `data` belongs to it, and the caller must come again
        with more, or give up when there will be none.

    Raises:
        ProxyHeaderError: It is no header, or not a correct one. The connection must be closed.
    """
    if data[:12] == _SIGNATURE[: len(data)]:
        return _parse_binary(data)
    if data[:6] == _LINE_BEGINS[: len(data)]:
        return _parse_line(data)
    raise ProxyHeaderError("the connection does not begin with a PROXY protocol header")


# -- version 1: a line of text -------------------------------------------------------------------------

_LINE_BEGINS: Final = b"PROXY "
# "the receiver must ignore anything presented before the CRLF"
_UNKNOWN: Final = b"PROXY UNKNOWN"
_LINE: Final = re.compile(
    rb"PROXY (?:TCP4|TCP6) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)
_LINE_SO_FAR: Final = re.compile(rb"PROXY (?:TCP4|TCP6) [0-9a-fA-F:. ]*\r?")


def _parse_line(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _MAX_LINE_BYTES)
    if end < 0:
        if len(data) >= _MAX_LINE_BYTES:
            raise ProxyHeaderError(f"a PROXY line does not end within {_MAX_LINE_BYTES} bytes")
        if not _may_become_a_line(data):
            raise ProxyHeaderError("a PROXY line is malformed")
        return None
    line = data[:end]
    size = end + 2
    if line == _UNKNOWN or line.startswith(_UNKNOWN + b" "):
        return ProxyHeader(size)
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProxyHeaderError("a PROXY line is malformed")
    family = IPv4Address if line.startswith(b"PROXY TCP4") else IPv6Address
    source, destination, source_port, destination_port = match.groups()
    return ProxyHeader(
        size,
        (_host(family, source.decode()), _port(source_port)),
        (_host(family, destination.decode()), _port(destination_port)),
    )


def _may_become_a_line(data: bytes) -> bool:
    return (
        b"PROXY TCP4 ".startswith(data)
        or b"PROXY TCP6 ".startswith(data)
        or _UNKNOWN.startswith(data)
        or (data.startswith(_UNKNOWN) and data[len(_UNKNOWN)] in b" \r")
        or _LINE_SO_FAR.fullmatch(data) is not None
    )


def _port(digits: bytes) -> int:
    port = int(digits)
    if port > 65535:
        raise ProxyHeaderError("a PROXY line has a port above 65535")
    return port


# Both classes are as strict as it is asked for: no leading zeros in IPv4, one "::" in IPv6. In IPv6 they also take the
# dotted form at the end. The specification is silent about it, but inet_ntop() writes it, so proxies send it.
def _host(family: type[IPv4Address] | type[IPv6Address], text: str | bytes) -> str:
    try:
        address = family(text)
    except AddressValueError:
        raise ProxyHeaderError("a PROXY line has a malformed address, or one of the other family") from None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    # As getpeername() has it on every system, whatever the version of Python.
    return f"::ffff:{mapped}" if mapped is not None else str(address)


# -- version 2: binary ---------------------------------------------------------------------------------

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED_BYTES: Final = 16
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_UNSPEC: Final = 0
_INET: Final = 1
_INET6: Final = 2
_UNIX: Final = 3
_STREAM: Final = 1
_DGRAM: Final = 2
# Two addresses, and for IP two ports.
_ADDRESS_BYTES: Final = {_INET: 12, _INET6: 36, _UNIX: 216}
_TLV_CHECKSUM: Final = 0x03
_TLV_TLS: Final = 0x20
# "the value is itself a defined like this": one byte of bits, four that tell of the client's certificate, more TLVs.
_TLS_BYTES: Final = 5
# "The PP2_CLIENT_SSL flag indicates that the client connected over SSL/TLS." Proxies send the TLV without it, too.
_TLS_CLIENT: Final = 0x01


def _parse_binary(data: bytes) -> ProxyHeader | None:
    received = len(data)
    if received > 12 and data[12] not in (_LOCAL, _PROXY):
        if data[12] >> 4 != 2:
            raise ProxyHeaderError("a PROXY header has an unknown version")
        raise ProxyHeaderError("a PROXY header has an unknown command")
    # "discard the protocol block including the family which is ignored"
    if received > 13 and data[12] == _PROXY:
        _check_family(data[13])
    if received < _FIXED_BYTES:
        return None
    size = _FIXED_BYTES + int.from_bytes(data[14:16], "big")
    if size > MAX_BYTES:
        raise ProxyHeaderError(f"a PROXY header is longer than {MAX_BYTES} bytes")
    if data[12] == _LOCAL:
        return ProxyHeader(size) if received >= size else None
    family, transport = divmod(data[13], 16)
    address_bytes = _ADDRESS_BYTES[family] if family and transport else 0
    if size < _FIXED_BYTES + address_bytes:
        raise ProxyHeaderError("a PROXY header is too short for its addresses")
    if received < size:
        return None
    if not address_bytes:
        # No addresses are known, so neither is where they end and TLVs begin.
        return ProxyHeader(size)
    addresses = data[_FIXED_BYTES : _FIXED_BYTES + address_bytes]
    tls = _read_tlvs(data[:size], _FIXED_BYTES + address_bytes)
    if family == _UNIX:
        return ProxyHeader(size, _path(addresses[:108]), _path(addresses[108:]), tls)
    width, kind = (4, IPv4Address) if family == _INET else (16, IPv6Address)
    ports = addresses[2 * width :]
    return ProxyHeader(
        size,
        (_host(kind, addresses[:width]), int.from_bytes(ports[:2], "big")),
        (_host(kind, addresses[width : 2 * width]), int.from_bytes(ports[2:], "big")),
        tls,
    )


def _check_family(family_and_transport: int) -> None:
    family, transport = divmod(family_and_transport, 16)
    if family > _UNIX or transport > _DGRAM:
        raise ProxyHeaderError("a PROXY header has an unknown address family or transport")
    if transport == _DGRAM:
        # "For other commands, the receiver is free to accept the connection anyway [...] or to reject the connection."
        # There is no datagram that a stream of HTTP could stand for.
        raise ProxyHeaderError("a PROXY header speaks of datagrams")


def _path(field: bytes) -> bytes:
    if field.startswith(b"\0"):
        return field.rstrip(b"\0")  # abstract, or without a name
    return field.partition(b"\0")[0]


# Check them all, and return whether one says that the client spoke TLS.
def _read_tlvs(header: bytes, position: int) -> bool:
    end = len(header)
    checksum_at = 0
    tls = False
    while position < end:
        value_at = position + 3
        following = value_at + int.from_bytes(header[position + 1 : value_at], "big")
        if following > end:
            raise ProxyHeaderError("a PROXY header has a TLV that does not fit")
        if header[position] == _TLV_CHECKSUM:
            if checksum_at or following - value_at != 4:
                raise ProxyHeaderError("a PROXY header has a malformed checksum")
            checksum_at = value_at
        elif header[position] == _TLV_TLS and following - value_at >= _TLS_BYTES:
            tls = tls or bool(header[value_at] & _TLS_CLIENT)
        position = following
    if checksum_at:
        behind = checksum_at + 4
        bare = b"".join((header[:checksum_at], b"\0\0\0\0", header[behind:]))
        if _crc32c(bare) != int.from_bytes(header[checksum_at:behind], "big"):
            raise ProxyHeaderError("a PROXY header has a wrong checksum")
    return tls


# RFC 4960 appendix B: the polynomial 0x1EDC6F41, here with its bits reversed.
def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC_OF_BYTE: Final = tuple(map(_crc_of_byte, range(256)))


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_OF_BYTE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

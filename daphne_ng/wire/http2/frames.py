"""The vocabulary of HTTP/2 on the wire: types, flags and codes by name, and the frames that the server writes itself.

RFC 9113 sections 4, 6 and 7; RFC 9218 section 7.1. Nothing here knows of a connection.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

__all__ = [
    "ACK",
    "CANCEL",
    "CONTINUATION",
    "DATA",
    "DEFAULT_WINDOW_BYTES",
    "END_HEADERS",
    "END_STREAM",
    "ENHANCE_YOUR_CALM",
    "FRAME_MAX_BYTES",
    "FRAME_SIZE_ERROR",
    "GOAWAY",
    "HEADERS",
    "INADEQUATE_SECURITY",
    "INTERNAL_ERROR",
    "NO_ERROR",
    "PADDED",
    "PING",
    "PRIORITY",
    "PRIORITY_UPDATE",
    "PROTOCOL_ERROR",
    "PUSH_PROMISE",
    "REFUSED_STREAM",
    "RST_STREAM",
    "SETTINGS",
    "STREAM_CLOSED",
    "STREAM_ID_MAX",
    "WINDOW_MAX_BYTES",
    "WINDOW_UPDATE",
    "WITH_PRIORITY",
    "frame_header",
    "goaway_frame",
    "pack_frame_header",
    "ping_frame",
    "unpack_frame_header",
    "unpack_long",
    "window_update_frame",
]

# Error codes (section 7).
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC

# Frame types (sections 6.1 to 6.10, RFC 9218 section 7.1).
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9
PRIORITY_UPDATE: Final = 0x10

# Flags: END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

STREAM_ID_MAX: Final = 2**31 - 1
FRAME_MAX_BYTES: Final = 16384
"""Our SETTINGS_MAX_FRAME_SIZE, the least that there is: larger frames would only make a stream wait for another."""

DEFAULT_WINDOW_BYTES: Final = 65535
"""Every window at first, unless SETTINGS say otherwise (section 6.9.2)."""
WINDOW_MAX_BYTES: Final = 2**31 - 1
"""Section 6.9.1."""

_HEADER: Final = Struct(">HBBBL")
_LONG: Final = Struct(">L")
pack_frame_header: Final = _HEADER.pack
"""The inverse of `unpack_frame_header`, for where a call of `frame_header` would show."""
unpack_frame_header: Final = _HEADER.unpack_from
"""``(length >> 8, length & 255, type, flags, stream with its reserved bit)`` of the frame header at an offset."""
unpack_long: Final = _LONG.unpack_from
"""``(32 bits,)`` at an offset: a stream, a code or an increment."""


def frame_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Encode the header of a frame (section 4.1)."""
    return pack_frame_header(length >> 8, length & 0xFF, kind, flags, stream_id)


def goaway_frame(last_stream_id: int, code: int, detail: str = "") -> bytes:
    """Encode a GOAWAY (section 6.8)."""
    debug = detail.encode("ascii")
    return b"%b%b%b%b" % (
        frame_header(8 + len(debug), GOAWAY, 0, 0),
        _LONG.pack(last_stream_id),
        _LONG.pack(code),
        debug,
    )


def ping_frame(payload: bytes) -> bytes:
    """Encode a PING (section 6.7) with eight bytes of payload."""
    return frame_header(8, PING, 0, 0) + payload


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """Encode a WINDOW_UPDATE (section 6.9)."""
    return frame_header(4, WINDOW_UPDATE, 0, stream_id) + _LONG.pack(increment)

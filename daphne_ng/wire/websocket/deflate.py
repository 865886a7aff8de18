"""permessage-deflate (RFC 7692): what is agreed on, and messages in and out.

Nothing is kept from one message to the next, in either direction: an idle WebSocket holds no window. That costs some
compression, and saves up to 300 KiB for each connection.
"""

from __future__ import annotations

import zlib
from typing import Final

__all__ = ["DeflateAgreement", "Deflater", "agree_on_deflate", "inflate", "is_whole"]

# The bytes that RFC 7692 section 7.2.1 has the sender cut off, the rest of the empty block that ends a message; and
# behind it an empty last block, which zlib finds only if it was between two blocks.
_TAIL: Final = b"\x00\x00\xff\xff\x03\x00"
# The bytes that may be left behind a block that says it is the last one: nothing, or what section 7.2.3.4 has the
# sender add.
_LEFT: Final = (b"", b"\x00")
# Largest message that a Deflater keeps for the next client that is sent the same.
_KEPT_MAX_BYTES: Final = 65536
_MAX_BITS: Final = 15


class DeflateAgreement:
    """What server and client have agreed on.

    Attributes:
        response: Value of Sec-WebSocket-Extensions in the answer.
        server_bits: Window of what the server compresses, 9 to 15.
        client_bits: Window of what the client compresses; 0 if it may be any.
    """

    __slots__ = ("client_bits", "response", "server_bits")

    def __init__(self, response: bytes, server_bits: int, client_bits: int) -> None:
        self.response = response
        self.server_bits = server_bits
        self.client_bits = client_bits


def agree_on_deflate(offers: str, bits: int) -> DeflateAgreement | None:
    """Answer a client's offers: the first one is taken (RFC 7692 section 7).

    Args:
        offers: The valid ones, as `daphne_ng.wire.websocket.handshake.WebSocketRequest.deflate_offers` has them.
        bits: The window that we want, 9 to 15.

    Returns:
        None if there is no offer.
    """
    first = offers.split(",")[0]
    if not first:
        return None
    parameters = dict(part.strip().partition("=")[::2] for part in first.split(";")[1:])
    # Section 7.1.1.2 lets a server ask for client_no_context_takeover whether or not the client has offered it.
    response = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    server_bits = bits
    if "server_max_window_bits" in parameters:
        server_bits = min(bits, int(parameters["server_max_window_bits"]))
        response += f"; server_max_window_bits={server_bits}"
    client_bits = 0
    if "client_max_window_bits" in parameters:
        # Section 7.1.2.2: only a client that offers the parameter knows it. A value is the most it will use.
        client_bits = min(bits, int(parameters["client_max_window_bits"] or _MAX_BITS))
        response += f"; client_max_window_bits={client_bits}"
    return DeflateAgreement(response.encode("ascii"), server_bits, client_bits)


def inflate(payload: bytes, window_bits: int, limit: int) -> bytes | None:
    """Inflate one whole message that was compressed without the context of those before it.

    Args:
        payload: As it was in the frame, unmasked.
        window_bits: The client's window, 8 to 15.
        limit: Most bytes that may come out; 0 for any number.

    Returns:
        The message. None if it is larger, corrupt, or ends before its last byte: not for this function to judge.
    """
    inflater = zlib.decompressobj(-window_bits)
    try:
        message = inflater.decompress(payload, limit + 1 if limit else 0)
        if 0 < limit < len(message) or not is_whole(inflater):
            return None
    except zlib.error:
        return None
    return message


def is_whole(inflater: zlib._Decompress) -> bool:
    """Tell whether what an inflater was given is a whole message; it is of no use afterwards.

    zlib takes the end of its input for a pause. A message cut off in the middle would pass for a shorter one, or take
    the tail for its last bytes.

    Raises:
        zlib.error: It is not.
    """
    if not inflater.eof and (inflater.decompress(_TAIL) or not inflater.eof):
        return False
    return inflater.unused_data in _LEFT


class Deflater:
    """Compresses messages, each on its own (``server_no_context_takeover``), for any number of connections.

    The same message sent to many clients, one after the other, is compressed once.

    Args:
        window_bits: 9 to 15.
        memory_level: 1 to 9.
        level: 1 to 9, or -1 for the library's choice.
    """

    __slots__ = ("_level", "_memory_level", "_message", "_squeezed", "_window_bits")

    def __init__(self, window_bits: int, memory_level: int, level: int = -1) -> None:
        self._level = level
        self._window_bits = window_bits
        self._memory_level = memory_level
        self._message = b""
        self._squeezed = b""

    def deflate(self, message: bytes) -> bytes:
        """Return the payload of a frame that carries `message` compressed."""
        if message == self._message:
            return self._squeezed
        squeezer = zlib.compressobj(self._level, zlib.DEFLATED, -self._window_bits, self._memory_level)
        squeezed = (squeezer.compress(message) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        if len(message) <= _KEPT_MAX_BYTES:
            self._message = message
            self._squeezed = squeezed
        return squeezed

"""permessage-deflate (RFC 7692): what is agreed on, and messages in and out.

Nothing is kept from one message to the next, in either direction: an idle WebSocket holds no window. That costs some
compression, and saves up to 300 KiB for each connection.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Final

__all__ = ["SPEEDUPS", "DeflateAgreement", "Deflater", "agree_on_deflate", "is_whole"]


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


# What the extra ``deflate`` installs. isal compresses only: it inflates fast, but takes codes that zlib refuses.
# zlib-ng inflates only: to be as fast as isal it makes more bytes than zlib.
_ISAL: Final = _library("isal.isal_zlib")
_ZLIB_NG: Final = _library("zlib_ng.zlib_ng")
SPEEDUPS: Final = tuple(name for name, library in (("isal", _ISAL), ("zlib-ng", _ZLIB_NG)) if library is not None)
"""Names of the libraries that do in a third to a half of the time what zlib does, as far as they are installed."""

# The level of zlib's that is asked for -> the one of isal's that makes about as few bytes. There is none that makes as
# few as zlib's from 4 on.
_ISAL_LEVELS: Final = {1: 1, 2: 3, 3: 3}

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


def is_whole(inflater: Any) -> bool:
    """Tell whether what an inflater was given is a whole message; it is of no use afterwards.

    zlib takes the end of its input for a pause. A message cut off in the middle would pass for a shorter one, or take
    the tail for its last bytes.

    Raises:
        zlib.error: It is not. An inflater of another library raises that one's.
    """
    if not inflater.eof and (inflater.decompress(_TAIL) or not inflater.eof):
        return False
    return inflater.unused_data in _LEFT


class Deflater:
    """Compresses and inflates messages, each on its own (``no_context_takeover``), for any number of connections.

    The same message sent to many clients, one after the other, is compressed once.

    Args:
        window_bits: Of what it compresses, 9 to 15.
        memory_level: 1 to 9.
        level: 1 to 9, or -1 for zlib's choice.
        speedups: Whether to use `SPEEDUPS`.
    """

    __slots__ = (
        "_compressobj",
        "_decompressobj",
        "_error",
        "_level",
        "_memory_level",
        "_message",
        "_squeezed",
        "_window_bits",
    )

    def __init__(self, window_bits: int, memory_level: int, level: int = -1, speedups: bool = False) -> None:
        self._compressobj: Callable[..., Any] = zlib.compressobj
        self._level = level
        if speedups and _ISAL is not None and level in _ISAL_LEVELS:
            self._compressobj = _ISAL.compressobj
            self._level = _ISAL_LEVELS[level]
        inflating: Any = _ZLIB_NG if speedups and _ZLIB_NG is not None else zlib
        self._decompressobj: Callable[..., Any] = inflating.decompressobj
        self._error: type[Exception] = inflating.error
        self._window_bits = window_bits
        self._memory_level = memory_level
        self._message = b""
        self._squeezed = b""

    def deflate(self, message: bytes) -> bytes:
        """Return the payload of a frame that carries `message` compressed."""
        if message == self._message:
            return self._squeezed
        squeezer = self._compressobj(self._level, zlib.DEFLATED, -self._window_bits, self._memory_level)
        squeezed: bytes = (squeezer.compress(message) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        if len(message) <= _KEPT_MAX_BYTES:
            self._message = message
            self._squeezed = squeezed
        return squeezed

    def inflate(self, payload: bytes, window_bits: int, limit: int) -> bytes | None:
        """Inflate one whole message that was compressed without the context of those before it.

        Args:
            payload: As it was in the frame, unmasked.
            window_bits: The client's window, 8 to 15.
            limit: Most bytes that may come out; 0 for any number.

        Returns:
            The message. None if it is larger, corrupt, or ends before its last byte: not for this method to judge.
        """
        inflater = self._decompressobj(-window_bits)
        try:
            message: bytes = inflater.decompress(payload, limit + 1 if limit else 0)
            if 0 < limit < len(message) or not is_whole(inflater):
                return None
        except self._error:
            return None
        return message

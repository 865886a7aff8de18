"""Autobahn as the judge of WebSocket frames: the only importer of that library.

Autobahn's `WebSocketServerProtocol` is borrowed by a connection whenever a frame comes that is not ordinary (see
`daphne_ng.wire.websocket.connection`). It never sees a client's request: to open, it is fed a constant one. Its timers
are off, since they know no injected clock; the connection has its own. It never touches the transport: what it sends
goes through the connection's writer, and where it would drop the transport it reports instead.

Importing Autobahn takes some 50 ms and 6 MiB, so this module is imported when a server starts, not before.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from platform import python_implementation
from typing import Any, Final

from autobahn.exception import PayloadExceededError
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.util import encode_truncate
from autobahn.websocket import USES_NVX
from autobahn.websocket.compress import PerMessageDeflateOfferAccept
from autobahn.websocket.xormasker import create_xor_masker  # type: ignore[attr-defined]

from daphne_ng.config import Config
from daphne_ng.pieces import append_piece
from daphne_ng.wire.websocket.deflate import Deflater, is_whole
from daphne_ng.wire.websocket.driver import EngineReports
from daphne_ng.wire.websocket.frames import UNMASK_NATIVE_MIN_BYTES, unmask

__all__ = ["EngineFactory", "native_unmask"]

# Autobahn opens only after a handshake; this is the one it gets. `wire.websocket.handshake` has checked the client's.
_HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_HANDSHAKE_DEFLATE: Final = _HANDSHAKE[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
# Engines that wait to be borrowed. More are needed only while as many clients are in the middle of a long frame.
_FREE_MAX: Final = 32
_REASON_MAX_BYTES: Final = (
    123  # RFC 6455 section 5.5: a control frame's payload is 125 bytes at most, and the code takes two
)


# Autobahn explains itself at every step, in arguments that cost more than the step. What concerns our users is logged
# by us; what is left are its own defects.
class _Log:
    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def debug(self, *args: object, **details: object) -> None:
        pass

    info = warn = trace = debug

    def error(self, text: str = "", **details: Any) -> None:
        self._log.error("Autobahn: %s", text.format(**details))

    failure = critical = error


class _CorruptError(Exception):
    pass


# In place of Autobahn's own, which takes a message that is cut off for a whole one, throws away what follows a last
# block - and keeps it in memory until the message ends -, and holds its window until the next compressed message.
class _Inflater:
    EXTENSION_NAME = "permessage-deflate"

    def __init__(self) -> None:
        self._inflater: Any = None

    def start_decompress_message(self) -> None:
        # With the largest window, which reads every other too.
        self._inflater = zlib.decompressobj(-15)

    def decompress_message_data(self, data: bytes, max_output_len: int | None = None) -> bytes:
        inflater = self._inflater
        try:
            # A byte too many tells more from enough: zlib may hold some back with all of the input used up.
            message: bytes = inflater.decompress(data, 0 if max_output_len is None else max(max_output_len, 0) + 1)
        except zlib.error as error:
            raise _CorruptError(str(error)) from None
        if max_output_len is not None and len(message) > max_output_len:
            raise PayloadExceededError("too large")
        if len(inflater.unused_data) > 1:
            raise _CorruptError("data behind the last block")
        return message

    def end_decompress_message(self) -> None:
        inflater, self._inflater = self._inflater, None
        try:
            whole = is_whole(inflater)
        except zlib.error:
            whole = False
        if not whole:
            raise _CorruptError("it ends too early")


class _Session(WebSocketServerProtocol):
    """Autobahn's side of a WebSocket; implements `WebSocketEngine`.

    Args:
        factory: Autobahn's.
        free: Where it waits to be borrowed again.
    """

    # Autobahn copies its options to every instance that lacks them: here they are on the class, see `EngineFactory`.
    CONFIG_ATTRS: list[str] = []
    peer = ""
    _isMessageCompressed = False

    def __init__(self, factory: WebSocketServerFactory, free: list[_Session]) -> None:
        super().__init__()
        self.factory = factory
        self._free = free
        self._reports: EngineReports | None = None
        self.inside_message = False
        self._connectionMade()

    def open(self, deflate: bool) -> None:
        """Let Autobahn go through its handshake."""
        self._dataReceived(_HANDSHAKE_DEFLATE if deflate else _HANDSHAKE)
        if self.state != self.STATE_OPEN:
            raise RuntimeError(f"Autobahn refused its handshake: {self.wasNotCleanReason}")
        if deflate:
            self._perMessageCompress: Any = _Inflater()

    def engage(self, reports: EngineReports) -> None:
        """Judge for this connection from here on."""
        self._reports = reports

    # -- WebSocketEngine ---------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """See `WebSocketEngine.feed`."""
        self._dataReceived(data)

    def send_close(self, code: int, reason: str) -> None:
        """See `WebSocketEngine.send_close`. Autobahn's ``sendClose`` knows fewer codes than the registry."""
        self.sendCloseFrame(code, encode_truncate(reason, _REASON_MAX_BYTES) if reason else None)

    def give_back(self) -> None:
        """See `WebSocketEngine.give_back`."""
        self._reports = None
        if len(self._free) < _FREE_MAX:
            self._free.append(self)

    def retire(self) -> None:
        """See `WebSocketEngine.retire`."""
        self.state = self.STATE_CLOSED
        self._reports = None
        if self.wasClean and not self.failedByMe and len(self._free) < _FREE_MAX:
            # Nothing but its Close frames is behind it. The engine may still be in the middle of a call, so `reopen`
            # comes later.
            self._free.append(self)

    def reopen(self) -> bool:
        """Go back to the state between two messages, after a clean close. False if there is more to it."""
        frame: Any = self.current_frame
        if frame is not None or self.inside_message or self.data:
            return False
        self.state = self.STATE_OPEN
        self.wasClean = self.closedByMe = False
        self.localCloseCode = self.localCloseReason = self.remoteCloseCode = self.remoteCloseReason = None
        return True

    # -- what Autobahn calls -----------------------------------------------------------------------------

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Write what Autobahn sends: all but the answer to its handshake."""
        if self._reports is not None:
            self._reports.write_control(data)

    def onFrameData(self, payload: bytes) -> Any:
        """Take a piece of a frame.

        Autobahn counts a compressed frame with its length until it has been inflated. What has not come yet must not
        count beside what came out already, or a message would be too large only because its frame came in pieces.
        """
        frame = self.current_frame
        if frame.opcode > 7 or not self._isMessageCompressed:
            return super().onFrameData(payload)
        missing = frame.length - self.current_frame_masker.pointer()
        self.message_data_total_length -= missing
        try:
            judged = super().onFrameData(payload)
        except _CorruptError as error:
            return self._corrupt(error)
        self.message_data_total_length += missing
        return judged

    def onMessageFrameData(self, payload: bytes) -> None:
        """Keep a piece of a data frame. Pieces come as the client cuts them."""
        if not self.failedByMe:
            append_piece(self.frame_data, payload)

    def onMessageFrame(self, payload: Any) -> None:
        """Put a whole frame behind those of its message."""
        if not self.failedByMe:
            for piece in payload:
                append_piece(self.message_data, piece)

    def onFrameEnd(self) -> Any:
        """Take the end of a frame."""
        try:
            return super().onFrameEnd()
        except _CorruptError as error:
            return self._corrupt(error)

    def _corrupt(self, error: _CorruptError) -> bool:
        if not self.failedByMe:
            self._invalid_payload(f"received WebSocket message cannot be decompressed: {error}")
        return False

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Hand on a message that Autobahn has assembled."""
        if self._reports is not None:
            self._reports.message_judged(payload, not isBinary)

    def dropConnection(self, abort: bool = False) -> None:
        """Report that both Close frames are through, instead of dropping the transport."""
        self.state = self.STATE_CLOSED
        if self._reports is not None:
            self._reports.close_judged(self.remoteCloseCode, self.remoteCloseReason)

    def _fail_connection(self, code: int = 1001, reason: str = "") -> None:
        super()._fail_connection(code, reason)
        # Autobahn would go on to look for the client's Close frame in what follows.
        self.state = self.STATE_CLOSED
        if self._reports is not None:
            self._reports.failure_judged(code, reason)


class EngineFactory:
    """Lends engines to the connections of a server; implements `WebSocketEngines`.

    Args:
        config: The settings.
        log: For what Autobahn itself reports as an error.
    """

    def __init__(self, config: Config, log: logging.Logger) -> None:
        # Autobahn asks for a reactor only to start timers with, and those are off.
        self._factory = factory = WebSocketServerFactory(reactor=False)
        factory.setProtocolOptions(
            versions=[13],
            webStatus=False,
            failByDrop=False,
            echoCloseCodeReason=True,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            autoPingInterval=0,
            maxMessagePayloadSize=config.websocket_max_message_size,
            maxFramePayloadSize=config.websocket_max_frame_size,
            perMessageCompressionAccept=_accept_compression,
        )
        options = {name: getattr(factory, name) for name in WebSocketServerProtocol.CONFIG_ATTRS}
        options["perMessageCompressionAccept"] = staticmethod(_accept_compression)
        options["log"] = _Log(log)
        self._session: type[_Session] = type("Session", (_Session,), options)
        self._free_plain: list[_Session] = []
        self._free_deflate: list[_Session] = []
        self._config = config
        self._deflaters: dict[int, Deflater] = {}
        self.unmask = native_unmask
        """See `WebSocketEngines.unmask`."""

    def lend(self, reports: EngineReports) -> _Session:
        """See `WebSocketEngines.lend`."""
        return self._lend(reports, self._free_plain, False)

    def lend_deflate(self, reports: EngineReports) -> _Session:
        """See `WebSocketEngines.lend_deflate`."""
        return self._lend(reports, self._free_deflate, True)

    def deflater(self, window_bits: int) -> Deflater:
        """See `WebSocketEngines.deflater`."""
        deflater = self._deflaters.get(window_bits)
        if deflater is None:
            config = self._config
            deflater = Deflater(
                window_bits,
                config.websocket_compression_memory_level,
                config.websocket_compression_level,
                config.websocket_compression_speedups,
            )
            self._deflaters[window_bits] = deflater
        return deflater

    def _lend(self, reports: EngineReports, free: list[_Session], deflate: bool) -> _Session:
        session = free.pop() if free else None
        if session is None or (session.state != session.STATE_OPEN and not session.reopen()):
            session = self._session(self._factory, free)
            session.open(deflate)
        session.engage(reports)
        return session


# The agreement is the connection's affair. All that Autobahn needs is how to read: with the largest window, which
# reads every other too, and without the context of earlier messages.
def _accept_compression(offers: list[Any]) -> Any:
    return PerMessageDeflateOfferAccept(offers[0], request_no_context_takeover=True, no_context_takeover=True)


# Autobahn's own way to its native masker makes two objects for each payload, which take longer than the masking of
# 4 KiB. The extension beneath is called directly if it is the one that we know.
def _masker() -> Callable[[memoryview, bytes], bytes]:
    try:
        from _nvx_xormasker import lib  # type: ignore[import-not-found]

        new, process, free = lib.nvx_xormask_new, lib.nvx_xormask_process, lib.nvx_xormask_free

        def native(data: memoryview, key: bytes) -> bytes:
            payload = bytes(data)
            masker = new(key)
            # CPython lets an object of bytes be written as long as only its maker knows it, and these are not shared:
            # a memory view of more than one byte always becomes a new object. A second copy would cost as much as the
            # masking.
            process(masker, payload, len(payload))
            free(masker)
            return payload

        sample, key = memoryview(bytes(range(256)) * 3), b"\x01\x80\xff\x7e"
        if python_implementation() == "CPython" and all(
            native(sample[:size], key) == unmask(sample[:size], key) for size in _SIZES
        ):
            return native
    except (ImportError, AttributeError, TypeError):
        pass  # Autobahn was built without it, or has another one now; what follows does the same
    return _autobahn_unmask if USES_NVX else unmask


def _autobahn_unmask(data: memoryview, key: bytes) -> bytes:
    if len(data) < 1400:
        return unmask(data, key)
    return create_xor_masker(key, len(data)).process(data)  # type: ignore[no-any-return]


_SIZES: Final = (UNMASK_NATIVE_MIN_BYTES, 200, 255, 700, 768)

native_unmask = _masker()
"""Applies a masking key, as `daphne_ng.wire.websocket.frames.unmask` does, faster for payloads that are not small.

It is for `UNMASK_NATIVE_MIN_BYTES` and more.
"""

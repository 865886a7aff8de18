"""WebSockets without sockets: frames of a client, a strict driver and sink, and wsproto as the oracle.

`WebSocketServer` holds one `WebSocketConnection` with a real engine on a `RecordingWebSocketDriver`. Tests feed it
frames, move the clock, let the application receive, and read what it wrote through wsproto, which refuses what a client
would refuse.

The fakes are strict: the driver fails the test on a write after the end, on a second close, on a timer that moves the
wrong way; the sink on a message that comes although it has asked for a pause, and on anything after its end.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from daphne_ng.config import Config
from daphne_ng.net.channels.engine import EngineFactory
from daphne_ng.wire.progress import FAREWELL_BYTES
from daphne_ng.wire.websocket.connection import WebSocketConnection
from daphne_ng.wire.websocket.frames import unmask
from daphne_ng.wire.websocket.handshake import Handshake, WebSocketRequest
from tests.support.asgi import request_head

NEVER = float("inf")
LOG = logging.getLogger("tests.websocket")

KEY = bytes.fromhex("37fa213d")  # RFC 6455 section 5.7
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10

DEFLATE = "permessage-deflate; client_max_window_bits"
"""What browsers offer."""


# -- frames of a client ----------------------------------------------------------------------------------


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = KEY,
    width: int | None = None,
    size: int | None = None,
) -> bytes:
    """Write a frame, right or wrong.

    Args:
        opcode: 0 to 15.
        payload: Unmasked.
        fin: Whether it is the last of its message.
        rsv: Any of `RSV1`, `RSV2` and `RSV3`.
        key: The mask; None for an unmasked frame.
        width: Bytes of the extended length: 0, 2 or 8; None for the shortest.
        size: The length to announce, if not that of the payload.
    """
    size = len(payload) if size is None else size
    if width is None:
        width = 0 if size < 126 else 2 if size < 65536 else 8
    short = {0: size, 2: 126, 8: 127}[width]
    head = bytes((0x80 * fin | rsv | opcode, short | (0 if key is None else 0x80)))
    if width:
        head += size.to_bytes(width, "big")
    if key is None:
        return head + payload
    return head + key + unmask(payload, key)


def text(payload: str | bytes, **more: Any) -> bytes:
    """Write a frame of text, which may be no UTF-8."""
    return frame(TEXT, payload.encode() if isinstance(payload, str) else payload, **more)


def binary(payload: bytes = b"", **more: Any) -> bytes:
    """Write a frame of binary data."""
    return frame(BINARY, payload, **more)


def more(payload: bytes = b"", **rest: Any) -> bytes:
    """Write a continuation frame."""
    return frame(CONTINUATION, payload, **rest)


def ping(payload: bytes = b"", **rest: Any) -> bytes:
    """Write a Ping frame."""
    return frame(PING, payload, **rest)


def pong(payload: bytes = b"", **rest: Any) -> bytes:
    """Write a Pong frame."""
    return frame(PONG, payload, **rest)


def close(code: int | None = 1000, reason: str | bytes = b"", **rest: Any) -> bytes:
    """Write a Close frame; without a code it is empty."""
    body = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + body, **rest)


def squeeze(message: bytes, bits: int = 12) -> bytes:
    """Compress a message for a frame (RFC 7692 section 7.2.1)."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return (squeezer.compress(message) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def squeezed(message: str | bytes, **rest: Any) -> bytes:
    """Write a whole message in a compressed frame: text if it is str."""
    if isinstance(message, str):
        return frame(TEXT, squeeze(message.encode()), rsv=RSV1, **rest)
    return frame(BINARY, squeeze(message), rsv=RSV1, **rest)


def fragments(message: str | bytes, ends: Iterable[int], *, compress: bool = False) -> list[bytes]:
    """Write a message in frames that end at those places of its payload, and at its end."""
    payload = message.encode() if isinstance(message, str) else message
    opcode = TEXT if isinstance(message, str) else BINARY
    if compress:
        payload = squeeze(payload)
    places = [0, *sorted(min(end, len(payload)) for end in ends), len(payload)]
    parts = [payload[start:stop] for start, stop in zip(places, places[1:], strict=False)]
    return [
        frame(
            CONTINUATION if index else opcode,
            part,
            fin=index == len(parts) - 1,
            rsv=RSV1 if compress and not index else 0,
        )
        for index, part in enumerate(parts)
    ]


# -- what a server wrote ---------------------------------------------------------------------------------


def client(extensions: bytes = b"") -> Connection:
    """Make a wsproto client that has agreed on `extensions`."""
    agreed = []
    if extensions:
        extension = PerMessageDeflate()
        extension.offer()
        extension.finalize(extensions.decode())
        agreed.append(extension)
    return Connection(ConnectionType.CLIENT, agreed)


def read_frames(data: bytes, extensions: bytes = b"") -> list[tuple[Any, ...]]:
    """Read what a server sent with wsproto, which refuses what is not well-formed.

    Returns:
        Tuples like ``("text", "a")``, ``("binary", b"a")``, ``("ping", b"")``, ``("pong", b"")``,
        ``("close", 1000, "reason")``. Nothing may follow a Close frame.
    """
    oracle = client(extensions)
    oracle.receive_data(data)
    found: list[tuple[Any, ...]] = []
    partial: Any = None
    for event in oracle.events():
        assert not found or found[-1][0] != "close", "a frame after a Close frame"
        if isinstance(event, TextMessage | BytesMessage):
            partial = event.data if partial is None else partial + event.data
            if event.message_finished:
                found.append(("text" if isinstance(event, TextMessage) else "binary", partial))
                found[-1] = (found[-1][0], partial if isinstance(partial, str) else bytes(partial))
                partial = None
        elif isinstance(event, Ping):
            found.append(("ping", bytes(event.payload)))
        elif isinstance(event, Pong):
            found.append(("pong", bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            found.append(("close", int(event.code), event.reason or ""))
        else:
            raise AssertionError(f"the server sent {event!r}")
    assert partial is None
    return found


# -- fakes -----------------------------------------------------------------------------------------------


class RecordingSink:
    """A `WebSocketSink` that keeps what it is told, and fails on what the port's contract forbids.

    Args:
        high: Unread messages at which it asks for a pause.
    """

    def __init__(self, high: float = NEVER) -> None:
        self.high = high
        self.messages: list[bytes | str] = []
        """All that came."""
        self.unread = 0
        self.paused = False
        self.end: tuple[int, str] | None = None
        self.expirations = 0
        self.silent = False
        """The application has closed: it must not hear of anything any more."""
        self.on_message: Callable[[], None] | None = None
        self.on_closed: Callable[[], None] | None = None
        self.on_expired: Callable[[], None] | None = None

    def message_received(self, message: bytes | str, size: int) -> bool:
        assert not self.silent, "a message after close()"
        assert self.end is None, "a message after the end"
        assert not self.paused, "a message although a pause was asked for"
        assert type(message) in (bytes, str)
        assert size == len(message.encode() if isinstance(message, str) else message)
        self.messages.append(message)
        self.unread += 1
        if self.on_message is not None:
            self.on_message()
        self.paused = self.unread >= self.high
        return self.paused

    def closed(self, code: int, reason: str) -> None:
        assert not self.silent, "closed() after close()"
        assert self.end is None, "closed() twice"
        assert 1000 <= code <= 4999
        assert type(reason) is str
        self.end = (code, reason)
        if self.on_closed is not None:
            self.on_closed()

    def expired(self) -> None:
        assert not self.silent
        assert self.end is None, "expired() after the end"
        self.expirations += 1
        if self.on_expired is not None:
            self.on_expired()


class RecordingWebSocketDriver:
    """Implements `WebSocketDriver` on lists. See `WebSocketServer` for how to use it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.gone = False
        self.written: list[bytes] = []
        self.state = "handshake"
        """Then ``accepted`` until it takes over, ``open``, ``half`` (our direction is closed), ``closed`` (both, flushed), ``released``, ``aborted``, or
        ``lost``."""
        self.reading = False  # as it is while an HTTP request is being answered
        self.pauses = 0
        self.resumes = 0
        self.turn_due = False
        """Whether the connection waits for the next turn of the loop."""
        self.timer = NEVER
        self.unsent = 0
        self.queued = 0  # what the kernel has taken and the client has not acknowledged
        self.drops = 0
        self.is_full = False
        self.room_due = False
        """Whether the connection waits until `is_full` is so no more."""
        self.waiter: Any = None
        self.wakes = 0
        """How often those who wait for `writable` were let go."""
        self.failures: list[tuple[int, str]] = []
        self.server: WebSocketServer

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data, "an empty write"
        assert self.state == "open", f"a write when {self.state}"
        self.written.append(data)

    def write_sequence(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def writable(self) -> Any:
        return self.waiter

    def clock(self) -> float:
        return self.now

    @property
    def engines(self) -> EngineFactory:
        return engines(self.server.config)

    def take_over(self) -> None:
        assert self.state == "accepted", f"take_over() when {self.state}"
        self.state = "open"

    def pause_reading(self) -> None:
        assert self.state in ("open", "half"), f"a pause when {self.state}"
        self.reading = False
        self.pauses += 1

    def resume_reading(self) -> None:
        assert self.state in ("open", "half"), f"a resume when {self.state}"
        self.reading = True
        self.resumes += 1

    def full(self) -> bool:
        return self.is_full

    def continue_with_room(self) -> None:
        assert self.state == "open", f"room asked for when {self.state}"
        self.room_due = True

    def continue_soon(self) -> None:
        assert self.state in ("open", "half"), f"a turn of the loop asked for when {self.state}"
        self.turn_due = True

    def peer_gone(self) -> bool:
        return self.gone

    def rearm(self, deadline: float) -> None:
        assert self.state != "lost", "a timer after the end"
        assert deadline < self.timer, "a timer moved later"
        self.timer = self.server.ws.armed_for = deadline

    def close(self) -> None:
        assert self.state in ("open", "half"), f"close() when {self.state}"
        self.state = "closed"

    finish = close

    def wake_senders(self) -> None:
        self.wakes += 1

    def close_writing(self) -> None:
        assert self.state == "open", f"close_writing() when {self.state}"
        self.state = "half"

    def unsent_bytes(self) -> int:
        return self.unsent

    def unacknowledged_bytes(self) -> int:
        return self.unsent + self.queued

    def drop(self) -> None:
        self.drops += 1
        self.abort()

    def release(self) -> None:
        assert self.state == "closed", f"release() when {self.state}"
        assert self.unsent <= FAREWELL_BYTES, "release() before all was sent"
        self.state = "released"

    def break_off(self) -> None:
        self.abort()

    def abort(self) -> None:
        assert self.state in ("open", "half", "closed"), f"abort() when {self.state}"
        self.state = "aborted"

    def failed(self, code: int, reason: str) -> None:
        assert not self.failures, "failed() twice"
        assert reason
        self.failures.append((code, reason))


@lru_cache(maxsize=64)
def engines(config: Config) -> EngineFactory:
    """Make the engines for a configuration."""
    return EngineFactory(config, LOG)


class WebSocketServer:
    """One WebSocket under test, before its handshake is answered. See also `open_websocket`.

    Args:
        config: The settings.
        direct: Whether ordinary messages may bypass the engine.
        deflate: The client's offers of permessage-deflate, None for none.
        high: Unread messages at which the application asks for a pause.
    """

    def __init__(
        self, config: Config | None = None, *, direct: bool = True, deflate: str | None = None, high: float = NEVER
    ) -> None:
        self.config = config or Config()
        self.driver = RecordingWebSocketDriver()
        self.driver.server = self
        self.sink = RecordingSink(high)
        response: Any = object()
        request = WebSocketRequest(request_head(), None, [], deflate or "")
        self.ws = WebSocketConnection(self.config, Handshake(request, response, self._answer), self.driver)
        if not direct:
            # Every frame is left to the engine: what the direct path does must look the same.
            self.ws._direct_max = -1
        self.fields: list[tuple[bytes, bytes]] = []
        """Those with which the handshake was accepted."""
        self._behind = b""
        self._kernel: list[bytes] = []
        self._eof = False
        self.ws.asked(self.sink)

    @property
    def extensions(self) -> bytes:
        """The agreed value of Sec-WebSocket-Extensions, empty without compression."""
        return dict(self.fields).get(b"sec-websocket-extensions", b"")

    def _answer(self, fields: Any) -> bytes:
        assert self.driver.state == "handshake", "accepted twice"
        self.driver.state = "accepted"
        self.fields = list(fields)
        behind, self._behind = self._behind, b""
        return behind

    # What the client does.

    def feed(self, *reads: bytes) -> WebSocketServer:
        """Send; what cannot be delivered now waits in the kernel, as it would for a paused transport."""
        for data in reads:
            if data:
                self._kernel.append(data)
                self._pump()
        return self

    def finish(self) -> WebSocketServer:
        """Close the client's half."""
        self._eof = True
        self._pump()
        return self

    def lose(self) -> WebSocketServer:
        """Break the connection."""
        self.driver.state = "lost"
        self.driver.timer = NEVER
        self.ws.connection_lost()
        return self

    # What the application does.

    def accept(self, behind: bytes = b"") -> WebSocketServer:
        """Complete the handshake; bytes `behind` it have come already."""
        self._behind = behind
        self.ws.accept(None, [])
        self._pump()
        return self

    def take(self) -> WebSocketServer:
        """Receive all that is there."""
        sink = self.sink
        sink.unread = 0
        if sink.paused:
            sink.paused = False
            self.ws.consumed()
            self._pump()
        return self

    def close(self, code: int = 1000, reason: str = "") -> WebSocketServer:
        """Close from the application's side."""
        self.sink.silent = True
        self.ws.close(code, reason)
        self._pump()
        return self

    # Time.

    def advance(self, seconds: float) -> WebSocketServer:
        """Let time pass, or at least a turn of the loop; the timer fires as `DeadlineTimer` does."""
        driver, ws = self.driver, self.ws
        until = driver.now + seconds
        fired = 0
        while driver.timer <= until:
            fired += 1
            assert fired < 100_000, "the timer does not come to rest"
            driver.now = max(driver.now, driver.timer)
            driver.timer = ws.armed_for = NEVER
            ws.deadline_passed(driver.now)
            if driver.state == "lost":
                break
            if ws.deadline < ws.armed_for:
                driver.rearm(ws.deadline)
            self._pump()
        driver.now = until
        self._pump()
        return self

    # What came of it.

    @property
    def reply(self) -> bytes:
        """All that was written after the handshake."""
        return b"".join(self.driver.written)

    @property
    def frames(self) -> list[tuple[Any, ...]]:
        """What was written, as a client reads it."""
        return read_frames(self.reply, self.extensions)

    @property
    def messages(self) -> list[bytes | str]:
        """What the application was given."""
        return self.sink.messages

    @property
    def end(self) -> tuple[int, str] | None:
        """What the application was told of the end."""
        return self.sink.end

    @property
    def code(self) -> int | None:
        """The close code that the application was told."""
        return None if self.sink.end is None else self.sink.end[0]

    @property
    def state(self) -> str:
        """State of the connection, see `RecordingWebSocketDriver.state`."""
        return self.driver.state

    def _pump(self) -> None:
        driver = self.driver
        while True:
            if driver.turn_due or (driver.room_due and not driver.is_full):
                driver.turn_due = driver.room_due = False
                self.ws.continue_reading()
            elif not (driver.reading and driver.state in ("open", "half")):
                break
            elif self._kernel:
                self.ws.receive_data(self._kernel.pop(0))
            elif self._eof:
                self._eof = False
                self.ws.eof_received()
            else:
                break


def open_websocket(
    config: Config | None = None,
    *,
    direct: bool = True,
    deflate: str | None = None,
    high: float = NEVER,
    behind: bytes = b"",
    **settings: Any,
) -> WebSocketServer:
    """Make a WebSocket that has been accepted; see `WebSocketServer`. Settings are fields of the `Config`."""
    server = WebSocketServer(config or Config(**settings), direct=direct, deflate=deflate, high=high)
    return server.accept(behind)

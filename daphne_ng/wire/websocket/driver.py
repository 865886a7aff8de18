"""What a WebSocket connection needs around it: a judge of frames, and the I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from daphne_ng.wire.driver import ConnectionDriver
from daphne_ng.wire.websocket.deflate import Deflater

__all__ = ["EngineReports", "WebSocketDriver", "WebSocketEngine", "WebSocketEngines"]


class EngineReports(Protocol):
    """What an engine tells the connection that has borrowed it; `WebSocketConnection` implements it."""

    def write_control(self, data: bytes) -> None:
        """Write a control frame that the engine has made."""

    def message_judged(self, payload: bytes, text: bool) -> None:
        """Take a message that the engine has assembled; text is valid UTF-8."""

    def close_judged(self, code: int | None, reason: str | None) -> None:
        """Take the client's Close frame; the engine has answered it, if it was not the answer to ours."""

    def failure_judged(self, code: int, reason: str) -> None:
        """Take the engine's verdict that the client broke a rule; it has sent its Close frame."""


class WebSocketEngine(Protocol):
    """The judge of every frame that is not ordinary. It tells its `EngineReports` what it finds."""

    inside_message: bool
    """Whether a fragmented message is under way."""

    def feed(self, data: bytes) -> None:
        """Take bytes of one frame: all of it, or a piece that follows the one before."""

    def send_close(self, code: int, reason: str) -> None:
        """Send a Close frame; `reason` is cut to what fits."""

    def give_back(self) -> None:
        """Take leave of the connection, in the state between two messages."""

    def retire(self) -> None:
        """Take leave of the connection, in any other state."""


class WebSocketEngines(Protocol):
    """What the WebSockets of a server share."""

    unmask: Callable[[memoryview, bytes], bytes]
    """A faster `daphne_ng.wire.websocket.frames.unmask`, for payloads of `UNMASK_NATIVE_MIN_BYTES` and more."""

    def lend(self, reports: EngineReports) -> WebSocketEngine:
        """Lend an engine to a connection without compression."""

    def lend_deflate(self, reports: EngineReports) -> WebSocketEngine:
        """Lend an engine to a connection that has agreed on permessage-deflate."""

    def deflater(self, window_bits: int) -> Deflater:
        """Return the one that compresses for all connections with this window."""


class WebSocketDriver(ConnectionDriver, Protocol):
    """What the connection needs from the I/O around it."""

    write_sequence: Callable[[list[bytes]], None]
    writable: Callable[[], Awaitable[object] | None]

    @property
    def engines(self) -> WebSocketEngines:
        """What the WebSockets of the server share."""

    def take_over(self) -> None:
        """The handshake has been accepted: deliver to `WebSocketConnection.receive_data` what is read from here on.

        Reading may still be paused afterwards.
        """

    def continue_soon(self) -> None:
        """Call `WebSocketConnection.continue_reading` on a later turn of the loop."""

    def continue_with_room(self) -> None:
        """As `continue_soon`, but not while the transport is full."""

    def peer_gone(self) -> bool:
        """Tell whether the connection is known to be broken, without reading.

        A client that has closed its half in good order, behind what it sent, does not count.
        """

    def wake_senders(self) -> None:
        """Let those go on who wait for `writable`: the application's side is over."""

    def failed(self, code: int, reason: str) -> None:
        """The client broke a rule or a limit, and was told so with this close code: for the logs."""

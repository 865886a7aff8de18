"""What a WebSocket connection needs around it: a judge of frames, and the I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from daphne_ng._types import Headers
from daphne_ng.wire.driver import ConnectionDriver

__all__ = ["WebSocketDriver", "WebSocketEngine"]


class WebSocketEngine(Protocol):
    """The judge of every frame that is not ordinary. It reports to the `WebSocketConnection` it serves."""

    inside_message: bool
    """Whether a fragmented message is under way."""

    def feed(self, data: bytes) -> None:
        """Take bytes of one frame: all of it, or a piece that follows the one before."""

    def send_close(self, code: int, reason: str) -> None:
        """Send a Close frame; `reason` is cut to what fits."""

    def give_back(self) -> None:
        """Take leave of the connection, in the state between two messages."""

    def release(self) -> None:
        """Take leave of the connection, in any other state."""


class WebSocketDriver(ConnectionDriver, Protocol):
    """What the connection needs from the I/O around it."""

    write_sequence: Callable[[list[bytes]], None]
    writable: Callable[[], Awaitable[object] | None]

    def switch(self, subprotocol: str | None, headers: Headers) -> None:
        """Answer the handshake and call `WebSocketConnection.opened`.

        Raises:
            InvalidHeader: Nothing was written.
        """

    def go_on_soon(self) -> None:
        """Call `WebSocketConnection.go_on` on a later turn of the loop."""

    def go_on_with_room(self) -> None:
        """Call `WebSocketConnection.go_on` on a later turn of the loop, and not while the transport is full."""

    def peer_gone(self) -> bool:
        """Tell whether the connection is known to be broken, without reading.

        A client that has closed its half in good order, behind what it sent, does not count.
        """

    def wake_senders(self) -> None:
        """Let those go on who wait for `writable`: the application's side is over."""

    def failed(self, code: int, reason: str) -> None:
        """The client broke a rule or a limit, and was told so with this close code: for the logs."""

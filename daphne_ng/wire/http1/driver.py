"""What an HTTP/1.1 connection needs from the I/O around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from daphne_ng.port import RequestSink
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.driver import ConnectionDriver
from daphne_ng.wire.websocket.handshake import WebSocketRequest

__all__ = ["Http1Driver"]


class Http1Driver(ConnectionDriver, Protocol):
    """The I/O around one HTTP/1.1 connection."""

    write_sequence: Callable[[list[bytes]], None]
    writable: Callable[[], Awaitable[object] | None]
    when_flushed: Callable[[Callable[[int], int]], bool]
    """See `ResponsePort.when_flushed`."""

    def begin(self, head: RequestHead) -> RequestSink | None:
        """Start an exchange. None if the driver has answered through the port already."""

    def begin_websocket(self, request: WebSocketRequest) -> RequestSink | None:
        """Start the exchange of a WebSocket handshake. None if the driver has answered through the port already.

        The handshake is answered by `Http1Connection.switch_protocols` or, like any request, by a response. Nothing of
        the sink is called but `RequestSink.disconnected`: there is no body, and the driver measures the time for an
        answer.
        """

    def peer_gone(self) -> bool:
        """Tell whether the client is known to have left, without reading."""

    def begin_soon(self) -> None:
        """Call `Http1Connection.begin_next` on a later turn of the loop, and not while the transport is full."""

    def refused(self, status: int, detail: str, begun: bool) -> None:
        """Log that a request was refused. If its exchange had begun, that keeps the record of it."""

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """See `ResponsePort.send_file`."""

    def shortened(self, missing: int) -> None:
        """Log that the application's body ended so many bytes before its Content-Length."""

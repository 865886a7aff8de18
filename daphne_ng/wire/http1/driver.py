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
    """What the connection needs from the I/O around it."""

    write_sequence: Callable[[list[bytes]], None]
    writable: Callable[[], Awaitable[object] | None]
    when_flushed: Callable[[Callable[[int], int]], bool]
    """See `ResponsePort.when_flushed`."""

    def begin(self, head: RequestHead) -> RequestSink | None:
        """Start an exchange. None if the driver has answered through the port already."""

    def begin_websocket(self, request: WebSocketRequest) -> RequestSink | None:
        """Start the exchange of a WebSocket handshake. None if the driver has answered through the port already.

        It is answered either by `Http1Connection.switch_protocols` or, like any request, by a response. Of the sink,
        nothing is called but `RequestSink.disconnected`: there is no body, and the time for an answer is the driver's
        to measure.
        """

    def peer_gone(self) -> bool:
        """Tell whether the client is known to have left, without reading."""

    def begin_soon(self) -> None:
        """Call `Http1Connection.begin_next` on a later turn of the loop, and not while the transport is full."""

    def refused(self, status: int, detail: str, begun: bool) -> None:
        """A request was refused: for the logs. If its exchange had begun, that keeps the record of it."""

    def shortened(self, missing: int) -> None:
        """The application's body ended before its Content-Length: for the logs."""

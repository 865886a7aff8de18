"""The I/O around an HTTP/2 connection, as the connection sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from daphne_ng.port import RequestSink
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.driver import ConnectionDriver
from daphne_ng.wire.websocket.handshake import WebSocketRequest

__all__ = ["Http2Driver", "TunnelSink"]


# `Http2Stream`, which is given a driver itself.
_Stream = TypeVar("_Stream", contravariant=True)


class Http2Driver(ConnectionDriver, Protocol[_Stream]):
    """The I/O around one connection, as the connection sees it.

    When the transport has drained after `full` was true, the driver calls `Http2Connection.drained`.

    After `Http2Connection.connection_lost` nothing that the connection consists of may hold a bound method of it any
    more (`StreamContext`, `Inbound` and `Sender` do until then; the test in ``tests/unit/net/channels/test_http2.py``
    sees to it), so that connections and their drivers do not wait for the garbage collector.
    """

    new_waiter: Callable[[], Any]
    """Makes something to await that `set_result(None)` completes and `done()` asks about: a future of the loop."""

    def begin(self, head: RequestHead, stream: _Stream) -> RequestSink | None:
        """Start an exchange that answers through `stream`. None if the driver has answered through it already.

        When the application's task has ended, the driver calls `Http2Stream.task_ended`; not where it returned None,
        for then there is no task.
        """

    def begin_websocket(self, request: WebSocketRequest, stream: _Stream) -> TunnelSink | None:
        """Start the exchange of an extended CONNECT (RFC 8441), likewise.

        It is answered either by `Http2Stream.open_tunnel` or, like any request, by a response. `Http2Stream.reset` of
        an opened tunnel says CANCEL to the client (RFC 8441 section 5). Neither the body's time nor the application's
        is measured here, and `RequestSink.expired` is never called.
        """

    def flush_soon(self) -> None:
        """Call `Http2Connection.flush` on a later turn of the loop; called once until then."""

    def take_turn(self) -> bool:
        """Call `Http2Connection.receive_kept`, unless this turn of the loop is used up. Returns whether it did.

        If not, `Http2Connection.flush` is called in one of the next, before what is read there.
        """

    def refused(self, head: RequestHead | None, status: int, detail: str, begun: bool) -> None:
        """A request was refused: for the logs. If its exchange had begun, that keeps the record of it."""

    def failed(self, code: int, detail: str) -> None:
        """The connection was ended with this HTTP/2 error code: for the logs, one line."""

    def stalled(self, stream: _Stream) -> None:
        """A stream is about to be reset, since the client keeps its window closed: for the logs."""

    def shortened(self, missing: int) -> None:
        """The application's body ended before its Content-Length: for the logs."""


class TunnelSink(RequestSink, Protocol):
    """Takes the bytes of a stream that carries another protocol, once its CONNECT has been accepted."""

    def writable_again(self) -> None:
        """There is room in the send buffer of the stream again, after `Http2Stream.send_buffer_full` was true.

        Called from `Http2Connection.flush` or `drained`; sending from within it is allowed.
        """

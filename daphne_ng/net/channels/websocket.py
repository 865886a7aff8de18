"""The I/O around one WebSocket: it takes a transport over from the channel of the handshake.

The answer to the handshake goes straight through `WebSocketConnection.accept`, which calls the protocol that carries
the handshake, and then `WebSocketChannel.take_over`. Whether a connection is a WebSocket now is known in one place: the
channel of `ServerConnection`, and over HTTP/2 the tunnel that has opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daphne_ng._types import Fields
from daphne_ng.net.channels.channel import Channel, DeadlineTimer
from daphne_ng.net.channels.endings import peer_gone
from daphne_ng.net.channels.flow import WriteFlow
from daphne_ng.net.context import ServerContext
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wire.websocket.connection import WebSocketConnection
from daphne_ng.wire.websocket.driver import WebSocketEngines
from daphne_ng.wire.websocket.handshake import Handshake, WebSocketRequest

__all__ = ["WebSocketChannel"]


class WebSocketChannel(Channel):
    """Implements `WebSocketDriver`; until the handshake is answered it is the `RequestSink` of the request.

    Args:
        context: The server.
        transport: The connection's, or a stream that behaves like one.
        info: What is known of the connection.
        flow: The producer that is registered with the transport; None to have one registered.
        handshake: What is to be answered.
        deliver_to: Makes this channel the one that receives, once the handshake has been accepted.
        soon: Calls on a later turn of the loop; without it, the loop's own.
    """

    __deletable__ = ("_timer", "rearm", "receive_data", "ws")  # what `connection_lost` cuts
    __slots__ = ("_deliver_to", "_soon", "_timer", "rearm", "receive_data", "ws")

    def __init__(
        self,
        context: ServerContext,
        transport: Any,
        info: ConnectionInfo,
        flow: WriteFlow | None,
        handshake: Handshake,
        deliver_to: Callable[[WebSocketChannel], None],
        soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        super().__init__(context, transport, info, flow)
        self._deliver_to: Callable[[WebSocketChannel], None] | None = deliver_to
        self.ws = ws = WebSocketConnection(context.config, handshake, self)
        self._soon: Callable[[Callable[[], None]], object] = soon or context.loop.call_soon
        self._timer = DeadlineTimer(context.loop, ws)
        self.rearm: Callable[[float], None] = self._timer.rearm
        self.receive_data: Callable[[bytes], None] = ws.receive_data

    def ask(self, request: WebSocketRequest, task_ended: Callable[[], None] | None = None) -> bool:
        """Ask the application whether it accepts. False if the handshake has been answered without it.

        Args:
            request: The handshake.
            task_ended: See `Exchange.task_ended`.
        """
        exchange = self._context.begin_websocket(request, self._info, self.ws, task_ended)
        if exchange is None:
            return False
        self.ws.asked(exchange)
        if self._context.ending:
            self.ws.shut_down()
        return True

    # -- RequestSink, until the handshake is answered ------------------------------------------------------

    def body_received(self, data: bytes) -> bool:
        """See `RequestSink.body_received`. A handshake with a body has been refused."""
        return False

    def body_ended(self, trailers: Fields) -> None:
        """See `RequestSink.body_ended`."""

    def disconnected(self, reason: str, status: int | None = None) -> None:
        """See `RequestSink.disconnected`."""
        # The connection is about to answer, or to end; this channel has nothing to do with that.
        self.ws.connection_lost()
        self._timer.cancel()

    def expired(self) -> None:
        """See `RequestSink.expired`. The handshake has a time limit of its own."""

    # -- WebSocketDriver -----------------------------------------------------------------------------------

    @property
    def engines(self) -> WebSocketEngines:
        """See `WebSocketDriver.engines`."""
        return self._context.engines

    def take_over(self) -> None:
        """See `WebSocketDriver.take_over`."""
        deliver_to, self._deliver_to = self._deliver_to, None
        assert deliver_to is not None  # a second accept is refused by the exchange
        deliver_to(self)

    def continue_soon(self) -> None:
        """See `WebSocketDriver.continue_soon`."""
        self._soon(self.ws.continue_reading)

    def continue_with_room(self) -> None:
        """See `WebSocketDriver.continue_with_room`."""
        self._with_room(self.ws.continue_reading)

    def wake_senders(self) -> None:
        """See `WebSocketDriver.wake_senders`."""
        self.flow.wake()

    def peer_gone(self) -> bool:
        """See `WebSocketDriver.peer_gone`."""
        return peer_gone(self._transport, half=False)

    def failed(self, code: int, reason: str) -> None:
        """See `WebSocketDriver.failed`."""
        self._context.lines.tell("Closed a WebSocket from %s: %d %s", self._info.client_name, code, reason)

    # -- what the connection reports -----------------------------------------------------------------------

    def eof_received(self) -> None:
        """The client closed its half."""
        self.ws.eof_received()

    def shut_down(self) -> None:
        """Close with 1012, or do so as soon as it is accepted."""
        self.ws.shut_down()

    def connection_lost(self, reason: str) -> None:
        """The transport is gone: end what is under way and give the timer back."""
        self.ws.connection_lost()
        self._timer.cancel()
        self._let_go()
        self._deliver_to = None
        del self.ws, self.rearm, self.receive_data, self._timer

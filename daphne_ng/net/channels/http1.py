"""The I/O around one HTTP/1.1 connection: transport, timer and exchanges for `Http1Connection`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daphne_ng.net.channels.channel import Channel, DeadlineTimer
from daphne_ng.net.channels.flow import socket_transport
from daphne_ng.net.channels.websocket import WebSocketChannel
from daphne_ng.net.context import ServerContext
from daphne_ng.port import RequestSink
from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wire.http1.connection import Http1Connection
from daphne_ng.wire.websocket.handshake import Handshake, WebSocketRequest
from daphne_ng.wording import counted

__all__ = ["Http1Channel"]


class Http1Channel(Channel):
    """Implements `Http1Driver` on a Twisted transport.

    Args:
        context: The server.
        transport: The connection's transport; this channel registers the producer with it.
        info: What the requests of the connection share.
        deliver_to: Hands the connection over to the channel of a WebSocket, once and for all.
    """

    __deletable__ = ("_deliver_to", "_timer", "h1", "rearm", "receive_data")  # what `step_aside` cuts
    __slots__ = ("_deliver_to", "_is_cut", "_timer", "_websocket", "h1", "rearm", "receive_data")

    def __init__(
        self,
        context: ServerContext,
        transport: Any,
        info: ConnectionInfo,
        deliver_to: Callable[[WebSocketChannel], None],
    ) -> None:
        super().__init__(context, transport, info)
        self._deliver_to = deliver_to
        self._is_cut = False
        # The channel of a handshake, while the application is asked whether it accepts. When it has, this one is gone.
        self._websocket: WebSocketChannel | None = None
        self.h1 = h1 = Http1Connection(context.config, context.defaults, self)
        self._timer = DeadlineTimer(context.loop, h1)
        self.rearm: Callable[[float], None] = self._timer.rearm
        self.receive_data: Callable[[bytes], None] = h1.receive_data
        h1.opened()

    # -- Http1Driver -------------------------------------------------------------------------------------

    def begin(self, head: RequestHead) -> RequestSink | None:
        """See `Http1Driver.begin`."""
        return self._context.begin(head, self._info, self.h1.response)

    def begin_websocket(self, request: WebSocketRequest) -> RequestSink | None:
        """See `Http1Driver.begin_websocket`."""
        handshake = Handshake(request, self.h1.response, self.h1.switch_protocols)
        self._websocket = websocket = WebSocketChannel(
            self._context, self._transport, self._info, self.flow, handshake, self._deliver_to
        )
        return websocket if websocket.ask(request) else None

    def begin_soon(self) -> None:
        """See `Http1Driver.begin_soon`."""
        self._with_room(self.h1.begin_next)

    def refused(self, status: int, detail: str, begun: bool) -> None:
        """See `Http1Driver.refused`."""
        self._context.refused(self._info, status, detail, begun=begun)

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """See `Http1Driver.send_file`. Only a transport that owns its socket can: below TLS nothing is to be sent."""
        transport = self._transport
        if socket_transport(transport) is not transport:
            return -1
        send = getattr(transport, "send_file", None)
        return -1 if send is None else int(send(descriptor, offset, count))

    def shortened(self, missing: int) -> None:
        """See `Http1Driver.shortened`."""
        self._context.log.error(
            "The application's body ended %s before its Content-Length; the connection was dropped",
            counted(missing, "byte"),
        )

    # -- what the connection reports ---------------------------------------------------------------------

    def eof_received(self) -> None:
        """The client closed its half."""
        self.h1.eof_received()

    def shut_down(self) -> None:
        """Finish what has begun, then close."""
        if self._websocket is not None:
            self._websocket.shut_down()
        self.h1.shut_down()

    def _cut_off(self, left: int) -> str:
        self._is_cut = True
        head, left = self.h1.cut_off(left)
        self.flow.report(left)
        return "" if head is None else f" of {head.method} {ascii(head.path)[1:-1]}"

    def connection_lost(self, reason: str) -> None:
        """The transport is gone: end what is under way and give the timers back."""
        if self.flow.unflushed and not self._is_cut:
            # The bytes that the kernel had are counted as sent: nobody can tell any more.
            self._cut_off(self.unsent_bytes())
        # First the exchange, so that a send() that is released finds it gone.
        self.h1.connection_lost(reason)
        if self._websocket is not None:
            self._websocket.connection_lost(reason)
        self._let_go()
        self.step_aside()

    def step_aside(self) -> None:
        """Leave the transport to the channel of another protocol. The flow remains registered."""
        self._timer.cancel()
        self.h1.let_go()
        self._websocket = None
        del self.h1, self.rearm, self.receive_data, self._timer, self._deliver_to

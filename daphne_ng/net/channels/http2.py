"""The I/O around one HTTP/2 connection: transport, timer, exchanges and tunnels for `Http2Connection`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from daphne_ng.net.channels.channel import Channel, DeadlineTimer
from daphne_ng.net.channels.flow import WriteFlow
from daphne_ng.net.channels.tunnel import Tunnel, Turns
from daphne_ng.net.context import ServerContext
from daphne_ng.port import RequestSink
from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wire.http2.connection import Http2Connection
from daphne_ng.wire.http2.driver import TunnelSink
from daphne_ng.wire.http2.stream import Http2Stream
from daphne_ng.wire.websocket.handshake import WebSocketRequest
from daphne_ng.wording import counted

__all__ = ["Http2Channel"]


class Http2Channel(Channel):
    """Implements `Http2Driver` on a Twisted transport.

    Who pushes on whom: the transport has one producer, the flow, as with HTTP/1.1. While that is paused the connection
    hands the transport nothing more (`full`), and each stream keeps what its application sends, up to its own high
    mark, at which ``send()`` waits. Once the transport has drained, the connection shares it out (`drained`).

    Args:
        context: The server.
        transport: The connection's transport.
        info: What the requests of the connection share.
        flow: The producer that is registered with the transport.
    """

    __deletable__ = ("_timer", "h2", "rearm")  # what `connection_lost` cuts
    __slots__ = (
        "_flush_handle",
        "_has_refused",
        "_has_stalled",
        "_timer",
        "_tunnels",
        "_turn",
        "_turns",
        "h2",
        "new_waiter",
        "rearm",
    )

    def __init__(self, context: ServerContext, transport: Any, info: ConnectionInfo, flow: WriteFlow) -> None:
        super().__init__(context, transport, info, flow)
        self._flush_handle: asyncio.Handle | None = None
        self._has_refused = False
        self._has_stalled = False
        self._tunnels: set[Tunnel] = set()
        self._turns = Turns(context.loop)
        self.new_waiter: Callable[[], asyncio.Future[None]] = context.loop.create_future
        self.h2 = h2 = Http2Connection(context.config, context.defaults, self)
        flow.drained = h2.drained
        self._timer = DeadlineTimer(context.loop, h2)
        self.rearm: Callable[[float], None] = self._timer.rearm
        self._turn = context.turn
        h2.opened()

    # -- Http2Driver -------------------------------------------------------------------------------------

    def begin(self, head: RequestHead, stream: Http2Stream) -> RequestSink | None:
        """See `Http2Driver.begin`."""
        return self._context.begin(head, self._info, stream, stream.task_ended)

    def begin_websocket(self, request: WebSocketRequest, stream: Http2Stream) -> TunnelSink | None:
        """See `Http2Driver.begin_websocket`."""
        tunnel = Tunnel(self._context, self._transport, self._info, stream, self._tunnels, self._turns)
        return tunnel if tunnel.ask(request) else None

    def flush_soon(self) -> None:
        """See `Http2Driver.flush_soon`."""
        self._flush_handle = self._context.loop.call_soon(self.h2.flush)

    def refused(self, head: RequestHead | None, status: int, detail: str, begun: bool) -> None:
        """See `Http2Driver.refused`."""
        # A stream costs a client little; each with a line of its own would cost us more.
        self._context.refused(self._info, status, detail, head, begun=begun, again=self._has_refused)
        self._has_refused = True

    def failed(self, code: int, detail: str) -> None:
        """See `Http2Driver.failed`."""
        self._context.lines.tell("Ended an HTTP/2 connection from %s: %s (%d)", self._info.client_name, detail, code)

    def stalled(self, stream: Http2Stream) -> None:
        """See `Http2Driver.stalled`."""
        log, config, head = self._context.log, self._context.config, stream.head
        log.log(
            logging.DEBUG if self._has_stalled else logging.INFO,
            "Cut off the response to %s %s of %s: the client opened the window of its stream for less than %g bytes a "
            "second in %g s (--write-min-rate, http2_stall_timeout); %d bytes of the body were sent, %d were waiting",
            head.method,
            ascii(head.path)[1:-1],
            self._info.client_name,
            config.write_min_rate,
            config.http2_stall_timeout,
            stream.body_bytes_sent - stream.buffered,
            stream.buffered,
        )
        self._has_stalled = True

    def shortened(self, missing: int) -> None:
        """See `Http2Driver.shortened`."""
        self._context.log.error(
            "The application's body ended %s before its Content-Length; the stream was reset", counted(missing, "byte")
        )

    def take_turn(self) -> bool:
        """See `Http2Driver.take_turn`."""
        turn = self._turn
        if turn.over:
            turn.wait(self.h2.flush)
            return False
        turn.run(self.h2.receive_kept, b"")
        return True

    # -- what the connection reports ---------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take what one read delivered, or keep it for the next turn of the loop."""
        turn = self._turn
        if turn.over:
            self.h2.receive_later(data)
        else:
            turn.run(self.h2.receive_data, data)

    def eof_received(self) -> None:
        """The client closed its half."""
        self.h2.eof_received()

    def shut_down(self) -> None:
        """Finish what has begun, then close."""
        for tunnel in list(self._tunnels):
            tunnel.shut_down()
        self.h2.shut_down()

    def connection_lost(self, reason: str) -> None:
        """The transport is gone: end what is under way and give the timers back."""
        self.h2.connection_lost(reason)
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        self._timer.cancel()
        self.flow.drained = None
        self._let_go()
        del self.h2, self.rearm, self._timer

"""The I/O around one HTTP/1.1 connection: transport, timer and exchanges for `Http1Connection`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from daphne_ng.asgi.scope import ConnectionInfo
from daphne_ng.net.context import ServerContext
from daphne_ng.net.endings import abort, close_half, peer_gone
from daphne_ng.net.flow import WriteFlow, socket_transport, unsent_bytes
from daphne_ng.port import RequestSink
from daphne_ng.wire.h1 import Http1Connection
from daphne_ng.wire.head import RequestHead

__all__ = ["Http1Channel"]

_NEVER = float("inf")


class Http1Channel:
    """Implements `Http1Driver` on a Twisted transport.

    Args:
        context: The server.
        transport: The connection's transport; this channel registers the producer with it.
        info: What the requests of the connection share.
    """

    __slots__ = (
        "_context",
        "_info",
        "_timer",
        "_transport",
        "clock",
        "flow",
        "h1",
        "writable",
        "write",
        "write_sequence",
    )

    def __init__(self, context: ServerContext, transport: Any, info: ConnectionInfo) -> None:
        self._context = context
        self._transport = transport
        self._info = info
        self._timer: asyncio.TimerHandle | None = None
        self.flow = WriteFlow(transport, context.loop, context.config.write_timeout, self._stalled)
        self.write: Callable[[bytes], None] = transport.write
        self.write_sequence: Callable[[list[bytes]], None] = transport.writeSequence
        self.writable: Callable[[], Awaitable[object] | None] = self.flow.writable
        self.clock = context.clock
        transport.registerProducer(self.flow, True)
        self.h1 = Http1Connection(context.config, context.defaults, self)
        self.h1.opened()

    # -- Http1Driver -------------------------------------------------------------------------------------

    def begin(self, head: RequestHead) -> RequestSink | None:
        """See `Http1Driver.begin`."""
        return self._context.begin(head, self._info, self.h1)

    def pause_reading(self) -> None:
        """See `Http1Driver.pause_reading`."""
        self._transport.pauseProducing()

    def resume_reading(self) -> None:
        """See `Http1Driver.resume_reading`."""
        self._transport.resumeProducing()

    def begin_soon(self) -> None:
        """See `Http1Driver.begin_soon`."""
        self._context.loop.call_soon(self.h1.begin_next)

    def rearm(self, deadline: float) -> None:
        """See `Http1Driver.rearm`."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._context.loop.call_at(deadline, self._deadline_passed)
        self.h1.armed_for = deadline

    def close(self) -> None:
        """See `Http1Driver.close`."""
        # A registered producer would keep the transport from closing once its buffer is empty.
        self._transport.unregisterProducer()
        self.flow.stopProducing()
        self._transport.loseConnection()

    def close_writing(self) -> None:
        """See `Http1Driver.close_writing`."""
        # As in close(): with a registered producer the half is never closed once the buffer is empty.
        self._transport.unregisterProducer()
        self.flow.stopProducing()
        close_half(self._transport)

    def unsent_bytes(self) -> int:
        """See `Http1Driver.unsent_bytes`."""
        return unsent_bytes(self._transport)

    def release(self) -> None:
        """See `Http1Driver.release`."""
        socket_transport(self._transport).loseConnection()

    def abort(self) -> None:
        """See `Http1Driver.abort`."""
        abort(self._transport)

    def peer_gone(self) -> bool:
        """See `Http1Driver.peer_gone`."""
        return peer_gone(self._transport)

    def refused(self, status: int, detail: str, begun: bool) -> None:
        """See `Http1Driver.refused`."""
        self._context.refused(self._info, status, detail, begun=begun)

    def shortened(self, missing: int) -> None:
        """See `Http1Driver.shortened`."""
        self._context.log.error(
            "The application's body ended %d bytes before its Content-Length; the connection was dropped", missing
        )

    # -- timers ------------------------------------------------------------------------------------------

    def _deadline_passed(self) -> None:
        h1 = self.h1
        self._timer = None
        h1.armed_for = _NEVER
        h1.deadline_passed(self.clock())
        if h1.deadline < h1.armed_for:
            self.rearm(h1.deadline)

    def _stalled(self) -> None:
        self._context.log.info(
            "Dropped a connection from %s: the client stopped reading", self._info.client_text or "a local client"
        )
        abort(self._transport)

    def connection_lost(self, reason: str) -> None:
        """The transport is gone: end what is under way and give the timers back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # First the exchange, so that a send() that is released finds it gone.
        self.h1.connection_lost(reason)
        self.flow.stopProducing()

"""The I/O around one WebSocket: it takes a transport over from the channel of the handshake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daphne_ng._types import Headers
from daphne_ng.errors import InvalidHeader
from daphne_ng.net.channels.channel import Channel, DeadlineTimer
from daphne_ng.net.channels.endings import peer_gone
from daphne_ng.net.channels.flow import WriteFlow
from daphne_ng.net.context import ServerContext
from daphne_ng.port import ResponsePort
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wire.websocket.connection import WebSocketConnection
from daphne_ng.wire.websocket.deflate import agree_on_deflate
from daphne_ng.wire.websocket.handshake import WebSocketRequest, accept_key

__all__ = ["WebSocketChannel"]

# Fields of the handshake that are the server's to set. Autobahn, or our writer, does.
_OURS = frozenset(
    (
        b"upgrade",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    )
)


class WebSocketChannel(Channel):
    """Implements `WebSocketDriver`; until the handshake is answered it is the `RequestSink` of the request.

    Args:
        context: The server.
        transport: The connection's, or a stream that behaves like one.
        info: What is known of the connection.
        flow: The producer that is registered with the transport; None to have one registered.
        request: The handshake.
        response: Answers it with an HTTP response.
        switch: Answers it with these fields, makes this channel the one that receives, and returns the bytes that
            came behind the request. Reading may still be paused when it returns.
        soon: Calls on a later turn of the loop; without it, the loop's own.
    """

    __slots__ = ("_request", "_soon", "_switch", "_timer", "rearm", "receive_data", "ws")

    def __init__(
        self,
        context: ServerContext,
        transport: Any,
        info: ConnectionInfo,
        flow: WriteFlow | None,
        request: WebSocketRequest,
        response: ResponsePort,
        switch: Callable[[list[tuple[bytes, bytes]]], bytes],
        soon: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        super().__init__(context, transport, info, flow)
        self._request: WebSocketRequest | None = request
        self._switch: Callable[[list[tuple[bytes, bytes]]], bytes] | None = switch
        self.ws = ws = WebSocketConnection(context.config, response, self)
        self._soon: Callable[[Callable[[], None]], object] = soon or context.loop.call_soon
        self._timer = DeadlineTimer(context.loop, ws)
        self.rearm: Callable[[float], None] = self._timer.rearm
        self.receive_data: Callable[[bytes], None] = ws.receive_data

    def begin(self, task_ended: Callable[[], None] | None = None) -> bool:
        """Ask the application. False if the handshake has been answered without it.

        Args:
            task_ended: See `Exchange.task_ended`.
        """
        assert self._request is not None  # it is kept until the answer
        exchange = self._context.begin_websocket(self._request, self._info, self.ws, task_ended)
        if exchange is None:
            return False
        self.ws.begun(exchange)
        if self._context.ending:
            self.ws.shut_down()
        return True

    # -- RequestSink, until the handshake is answered ------------------------------------------------------

    def body_received(self, data: bytes) -> bool:
        """See `RequestSink.body_received`. A handshake with a body has been refused."""
        return False

    def body_ended(self, trailers: Headers) -> None:
        """See `RequestSink.body_ended`."""

    def disconnected(self, reason: str, status: int | None = None) -> None:
        """See `RequestSink.disconnected`."""
        # The connection is about to answer, or to end; this channel has nothing to do with that.
        self.ws.connection_lost()
        self._timer.cancel()

    def expired(self) -> None:
        """See `RequestSink.expired`. The handshake has a time limit of its own."""

    # -- WebSocketDriver -----------------------------------------------------------------------------------

    def switch(self, subprotocol: str | None, headers: Headers) -> None:
        """See `WebSocketDriver.switch`."""
        context, request, switch = self._context, self._request, self._switch
        assert request is not None  # a second accept is refused by the exchange
        assert switch is not None
        for name, _value in headers:
            if name.lower() in _OURS:
                raise InvalidHeader(f"{name.decode('latin-1')} is the server's to set")
        config = context.config
        agreement = None
        if config.websocket_compression and request.deflate_offers:
            agreement = agree_on_deflate(request.deflate_offers, config.websocket_compression_window_bits)
        fields = []
        if request.key is not None:
            fields.append((b"sec-websocket-accept", accept_key(request.key)))
        if subprotocol is not None:
            fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
        if agreement is not None:
            fields.append((b"sec-websocket-extensions", agreement.response))
        fields += headers
        rest = switch(fields)
        self._request = self._switch = None
        engines = context.engines
        if agreement is None:
            self.ws.opened(engines.lend, rest, context.native_unmask)
        else:
            deflater = context.deflater(agreement.server_bits)
            self.ws.opened(engines.lend_deflate, rest, context.native_unmask, deflater, agreement.client_bits or 15)

    def go_on_soon(self) -> None:
        """See `WebSocketDriver.go_on_soon`."""
        self._soon(self.ws.go_on)

    def go_on_with_room(self) -> None:
        """See `WebSocketDriver.go_on_with_room`."""
        self._with_room(self.ws.go_on)

    def wake_senders(self) -> None:
        """See `WebSocketDriver.wake_senders`."""
        self.flow.wake()

    def peer_gone(self) -> bool:
        """See `WebSocketDriver.peer_gone`."""
        return peer_gone(self._transport, half=False)

    def failed(self, code: int, reason: str) -> None:
        """See `WebSocketDriver.failed`."""
        self._context.lines.tell(
            "Closed a WebSocket from %s: %d %s", self._info.client_text or "a local client", code, reason
        )

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
        self._request = self._switch = None
        del self.ws, self.rearm, self.receive_data, self._timer

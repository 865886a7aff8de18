"""The outer protocol of every connection: it owns the transport for the connection's whole life.

Which protocol is spoken is decided here, and a switch rebinds ``dataReceived`` on the instance. The transport's own
``protocol`` is never exchanged, and no request is ever re-injected into a second parser.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from daphne_ng.asgi.scope import ConnectionInfo
from daphne_ng.net.context import ServerContext
from daphne_ng.net.endings import abort, close_half
from daphne_ng.net.h1 import Http1Channel
from daphne_ng.net.websocket import WebSocketChannel

__all__ = ["OverloadedConnection", "ServerConnection", "connection_info"]


@implementer(IHalfCloseableProtocol)
class ServerConnection(Protocol):
    """One client connection."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._channel: Http1Channel | WebSocketChannel | None = None

    def connectionMade(self) -> None:
        """Start as HTTP/1.1; bytes go straight to the protocol from here on."""
        context = self._context
        transport: Any = self.transport
        context.connections.add(self)
        info = connection_info(transport, context.extensions_http1)
        self.switch(Http1Channel(context, transport, info, self.switch))

    def switch(self, channel: Http1Channel | WebSocketChannel) -> None:
        """Let another protocol speak from here on."""
        self._channel = channel
        # Bound once on the instance: one call less for every read.
        self.dataReceived = channel.receive_data  # type: ignore[method-assign, assignment]

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 (Twisted's signature)
        """The transport is gone."""
        channel = self._channel
        if channel is None:
            return
        channel.connection_lost("the client disconnected")
        self._context.closed(self)
        self._channel = None
        self.transport = None
        del self.dataReceived

    def readConnectionLost(self) -> None:
        """The client closed its half; ours may still be flushing."""
        if self._channel is not None:
            self._channel.eof_received()

    def writeConnectionLost(self) -> None:
        """Our half is closed and flushed; the client's may still deliver."""

    def shut_down(self) -> None:
        """Finish what has begun, then close."""
        if self._channel is not None:
            self._channel.shut_down()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self.transport is not None:
            abort(self.transport)


class OverloadedConnection(Protocol):
    """A connection beyond ``--limit-connections``: told so with 503, and closed."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._timer: Any = None

    def connectionMade(self) -> None:
        """Answer before any request: the client is about to send one."""
        context = self._context
        transport: Any = self.transport
        context.lingering += 1
        text = b"503 Service Unavailable\nThe server is at its limit of connections.\n"
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nretry-after: 1\r\n"
            b"content-length: %d%b\r\nconnection: close\r\n\r\n%b"
            % (len(text), context.defaults.block_for(0, ()), text)
        )
        close_half(transport)
        context.refused(connection_info(transport, {}), 503, "The server is at its limit of connections.")
        self._timer = context.loop.call_later(context.config.drain_timeout, abort, transport)

    def dataReceived(self, data: bytes) -> None:
        """Throw the request away: a reset would destroy the answer."""

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 (Twisted's signature)
        """The client has read the answer, or will not."""
        self._context.lingering -= 1
        self._timer.cancel()


def connection_info(transport: Any, extensions: dict[str, dict[str, Any]]) -> ConnectionInfo:
    """Describe a connection for its scopes and for the logs."""
    peer = transport.getPeer()
    host = transport.getHost()
    client: list[Any] | None = None
    server: list[Any] | None = None
    trusted = False
    if hasattr(peer, "host"):
        client = [str(peer.host), peer.port]
        trusted = _is_loopback(client[0])
    elif isinstance(peer, UNIXAddress):
        trusted = True
    if hasattr(host, "host"):
        server = [str(host.host), host.port]
    elif isinstance(host, UNIXAddress) and host.name:
        server = [host.name.decode("utf-8", "surrogateescape"), None]
    scheme = "https" if ISSLTransport.providedBy(transport) else "http"
    return ConnectionInfo(scheme, client, server, trusted, extensions)


def _is_loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"

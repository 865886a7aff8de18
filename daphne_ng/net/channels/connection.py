"""The outer protocol of every connection: it owns the transport for the connection's whole life.

Which protocol is spoken is decided here, and `ServerConnection.deliver_to` rebinds ``dataReceived`` on the instance.
The transport's own ``protocol`` is never exchanged, and no request is ever re-injected into a second parser.

Every connection starts as HTTP/1.1, whose time limits run from the first moment. It becomes HTTP/2 before that has seen
a byte, or never:

* with TLS, if that was negotiated (ALPN), as soon as the handshake is complete, which has a time limit of its own;
* without, if the first 24 bytes are the preface of HTTP/2 (RFC 9113 section 3.3, "prior knowledge"). As long as what
  has come may become one it is held back. The first byte that differs ends that, and HTTP/1.1 gets all of it.

An Upgrade to ``h2c`` is ignored, as RFC 9113 section 3.1 has it: that token is obsolete.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from daphne_ng.config.trust import TrustedPeers, plain_address
from daphne_ng.net.channels.endings import abort, close_half, is_ending, release, release_or_abort
from daphne_ng.net.channels.flow import unsent_bytes
from daphne_ng.net.channels.http1 import Http1Channel
from daphne_ng.net.channels.http2 import Http2Channel
from daphne_ng.net.channels.websocket import WebSocketChannel
from daphne_ng.net.context import ServerContext
from daphne_ng.net.tls.extension import handshake_complete, handshake_failure, tls_extension
from daphne_ng.port.answers import error_answer
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wire.http.status import status_line
from daphne_ng.wire.http1.writer import encode_fields
from daphne_ng.wire.http2.frames import INADEQUATE_SECURITY, NO_ERROR
from daphne_ng.wire.http2.preface import PREFACE, refusal

__all__ = ["OverloadedConnection", "ServerConnection", "connection_info"]


_TLS_1_2: Final = 0x0303
_ACME: Final = b"acme-tls/1"


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class ServerConnection(Protocol):
    """One client connection."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._channel: Http1Channel | Http2Channel | WebSocketChannel | None = None
        # The info of the connection, as long as it may yet become HTTP/2, or TLS is not up.
        self._undecided: ConnectionInfo | None = None
        # The scheme may be https without: a proxy said so.
        self._tls = False
        self._handshake_timer: asyncio.TimerHandle | None = None
        # The part of the preface that has come.
        self._preface = b""

    def connectionMade(self) -> None:
        """Start as HTTP/1.1."""
        context = self._context
        transport: Any = self.transport
        context.connections.add(self)
        info = connection_info(transport, context.extensions_http1, context.trusted_peers)
        channel = Http1Channel(context, transport, info, self.deliver_to)
        self._tls = ISSLTransport.providedBy(transport)
        if self._tls:
            self._channel = channel
            self._undecided = info
            patience = context.config.tls_handshake_timeout
            if patience:
                self._handshake_timer = context.loop.call_later(patience, self._handshake_too_slow)
        elif context.config.h2c:
            self._channel = channel
            self._undecided = info
        else:
            self.deliver_to(channel)
        if context.ending:
            channel.shut_down()

    def handshakeCompleted(self) -> None:
        """TLS is up: the protocol is known."""
        info = self._undecided
        if info is not None and self._tls:
            self._follow_negotiation(info)

    def dataReceived(self, data: bytes) -> None:
        """Take the first bytes. What follows them goes straight to the protocol that they call for."""
        info = self._undecided
        if info is None:
            return  # the connection was refused, or is gone
        if self._tls:
            # Below a wrapper nobody tells when the handshake is complete.
            self._follow_negotiation(info)
        else:
            if self._preface:
                data = self._preface + data
            if not PREFACE.startswith(data[:24]):
                self._keep_http1()
            elif len(data) < 24:
                self._preface = data
                return
            else:
                self._begin_http2(info)
        self.dataReceived(data)

    def _handshake_too_slow(self) -> None:
        transport: Any = self.transport
        self._handshake_timer = None
        info = self._undecided
        # Below a wrapper it may have been completed long ago; then the time limit of a request runs.
        if info is None or transport is None or handshake_complete(_handle(transport)):
            return
        self._log_handshake("Dropped a connection from %s: the TLS handshake took too long", info)
        abort(transport)

    def _follow_negotiation(self, info: ConnectionInfo) -> None:
        transport: Any = self.transport
        context = self._context
        self._handshake_over()
        protocol = _negotiated(transport)
        info.extensions = {**info.extensions, "tls": tls_extension(_handle(transport))}
        if protocol == _ACME:
            # RFC 8737 section 3: the certificate was the answer, and nothing is said here.
            channel = self._channel
            assert channel is not None  # it is undecided
            self._undecided = None
            channel.close()
        elif protocol != b"h2" or not context.config.http2:
            self._keep_http1()
        elif _older_than_tls_1_2(transport):
            # RFC 9113 section 9.2. Twisted's own contexts refuse such clients; an endpoint may bring its own.
            channel = self._channel
            assert channel is not None  # it is undecided
            self._undecided = None
            channel.write(refusal(INADEQUATE_SECURITY, "HTTP/2 needs TLS 1.2 or later."))
            channel.close()
        else:
            self._begin_http2(info)

    def _keep_http1(self) -> None:
        channel = self._channel
        assert channel is not None  # it is undecided
        self._undecided = None
        self._preface = b""
        self.deliver_to(channel)

    def _begin_http2(self, info: ConnectionInfo) -> None:
        context, channel = self._context, self._channel
        assert isinstance(channel, Http1Channel)  # it is undecided
        self._undecided = None
        self._preface = b""
        tls = info.extensions.get("tls")
        info.extensions = context.extensions_http2 if tls is None else {**context.extensions_http2, "tls": tls}
        following = Http2Channel(context, self.transport, info, channel.flow)
        self.deliver_to(following)
        if context.ending:
            following.shut_down()

    def deliver_to(self, channel: Http1Channel | Http2Channel | WebSocketChannel) -> None:
        """Let this channel speak from here on. HTTP/1.1, with which all begin, steps aside for any other."""
        before, self._channel = self._channel, channel
        if before is not channel and isinstance(before, Http1Channel):
            before.step_aside()
        # Bound once on the instance: one call less for every read.
        self.dataReceived = channel.receive_data  # type: ignore[method-assign, assignment]

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 (Twisted's signature)
        """The transport is gone."""
        channel = self._channel
        if channel is None:
            return
        if self._handshake_timer is not None or self._undecided is not None:
            self._report_handshake(reason)
        channel.connection_lost("the client disconnected")
        self._context.forget(self)
        self._channel = None
        self._undecided = None
        self.transport = None
        vars(self).pop("dataReceived", None)

    def _handshake_over(self) -> None:
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
            self._handshake_timer = None

    def _report_handshake(self, reason: Failure) -> None:
        self._handshake_over()
        info = self._undecided
        failure = handshake_failure(reason.value)
        if info is not None and self._tls and failure:
            self._log_handshake("The TLS handshake with %s failed: %s", info, failure)

    def _log_handshake(self, line: str, info: ConnectionInfo, *more: str) -> None:
        self._context.lines.tell(line, info.client_name, *more)

    def tell(self, line: str, *arguments: object) -> None:
        """Write a line that the client has brought about; for its transport."""
        self._context.lines.tell(line, *arguments)

    def readConnectionLost(self) -> None:
        """The client closed its half; ours may still be flushing."""
        if self._channel is not None:
            self._channel.eof_received()

    def writeConnectionLost(self) -> None:
        """Our half is closed and flushed; the client's may still deliver."""

    def describe(self) -> str:
        """Name the connection in a log line: its protocol, its client, and what waits to be sent."""
        transport, channel = self.transport, self._channel
        if transport is None or channel is None:
            return "Connection, closed"
        protocol = type(channel).__name__.removesuffix("Channel")
        info = connection_info(transport, {}, self._context.trusted_peers)
        client = info.client_name
        return f"Connection {protocol} of {client}: {unsent_bytes(transport)} bytes unsent"

    def shut_down(self) -> None:
        """Finish what has begun, then close."""
        if self._channel is not None:
            self._channel.shut_down()

    def release(self) -> None:
        """Close the socket if all has been sent, and only the client's end is missing. The kernel sees to the rest."""
        transport, channel = cast("Any", self.transport), self._channel
        if (
            transport is not None
            and self._undecided is None
            and not (isinstance(channel, Http1Channel) and channel.h1.discarding)
            and is_ending(transport)
            and not unsent_bytes(transport)
        ):
            release(transport)

    def abort(self) -> None:
        """End the connection now, with a line in the log if something is cut off."""
        transport, context = self.transport, self._context
        if transport is None:
            return
        left = unsent_bytes(transport)
        if left or not is_ending(transport):
            if left:
                client = connection_info(transport, {}, context.trusted_peers).client_name
                line = "Dropped a connection from %s: the server stops, and %d bytes were left for it (close_timeout)"
                context.log.info(line, client, left)
            abort(transport)
        else:
            release(transport)


_AT_THE_LIMIT: Final = "The server is at its limit of connections."


@implementer(IHandshakeListener)
class OverloadedConnection(Protocol):
    """A connection beyond ``--limit-connections``: told so with 503, or with GOAWAY over HTTP/2, and closed."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._timer: Any = None
        self._linger_until = 0.0
        self._answered = False

    def connectionMade(self) -> None:
        """Answer before any request: the client is about to send one."""
        context = self._context
        transport: Any = self.transport
        context.refusing += 1
        context.refused(connection_info(transport, {}, context.trusted_peers), 503, _AT_THE_LIMIT)
        if context.config.http2 and ISSLTransport.providedBy(transport):
            # In which protocol, the handshake will tell.
            config = context.config
            patience = config.tls_handshake_timeout or config.head_timeout or config.drain_timeout
            self._timer = context.loop.call_later(patience, abort, transport)
        else:
            self._answer()

    def handshakeCompleted(self) -> None:
        """TLS is up: the protocol of the answer is known."""
        if not self._answered:
            self._answer()

    def _answer(self) -> None:
        context = self._context
        transport: Any = self.transport
        self._answered = True
        if _negotiated(transport) == b"h2":
            transport.write(refusal(NO_ERROR, _AT_THE_LIMIT))
        else:
            fields, text = error_answer(503, _AT_THE_LIMIT, ((b"retry-after", b"1"),))
            block, _length, _flags = encode_fields([*fields, (b"content-length", b"%d" % len(text))])
            defaults = context.defaults.block_for(0, ())
            transport.write(b"%b%b%b\r\nconnection: close\r\n\r\n%b" % (status_line(503), block, defaults, text))
        close_half(transport)
        self._linger_until = context.clock() + context.config.drain_timeout
        self._wait()

    # Wait for more of the request, or the client's end.
    def _wait(self) -> None:
        context = self._context
        if self._timer is not None:
            self._timer.cancel()
        until = min(context.clock() + context.config.drain_pause_timeout, self._linger_until)
        self._timer = context.loop.call_at(until, release_or_abort, self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Throw the request away: a reset would destroy the answer."""
        if self._answered:
            self._wait()
        else:
            self._answer()

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008 (Twisted's signature)
        """The client has read the answer, or will not."""
        self._context.refusing -= 1
        self._timer.cancel()


def connection_info(
    transport: Any, extensions: dict[str, dict[str, Any]], trusted_peers: TrustedPeers
) -> ConnectionInfo:
    """Describe a connection for its scopes and for the logs."""
    peer = transport.getPeer()
    host = transport.getHost()
    client: list[Any] | None = None
    server: list[Any] | None = None
    if hasattr(peer, "host"):
        client = [plain_address(str(peer.host)), peer.port]
        trusted = client[0] in trusted_peers
    else:
        trusted = trusted_peers.unix if isinstance(peer, UNIXAddress) else trusted_peers.everybody
    if hasattr(host, "host"):
        server = [plain_address(str(host.host)), host.port]
    elif isinstance(host, UNIXAddress) and host.name:
        server = [host.name.decode("utf-8", "surrogateescape"), None]
    # The word of a trusted proxy on its client (`Accepted.client_tls`) is as good as TLS here.
    secure = ISSLTransport.providedBy(transport) or getattr(transport, "client_tls", False)
    scheme = "https" if secure else "http"
    return ConnectionInfo(scheme, client, server, trusted, extensions)


# The protocol that the client and TLS have agreed on, if there is TLS.
def _negotiated(transport: Any) -> bytes | None:
    protocol = getattr(transport, "negotiatedProtocol", None)
    return protocol if isinstance(protocol, bytes) else None


# The connection object of pyOpenSSL, if there is TLS.
def _handle(transport: Any) -> Any:
    return getattr(transport, "getHandle", _nothing)()


def _nothing() -> None:
    return None


def _older_than_tls_1_2(transport: Any) -> bool:
    version = getattr(_handle(transport), "get_protocol_version", None)
    return version is not None and version() < _TLS_1_2

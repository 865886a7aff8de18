"""Connections on a fake transport: what the tests of `daphne_ng.net` share.

`FakeTransport` is strict about what Twisted forbids; `Wire` makes connections of a real `ServerFactory` on it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from zope.interface import alsoProvides

from daphne_ng.asgi.runner import Runner
from daphne_ng.config import Config
from daphne_ng.net.context import ServerContext
from daphne_ng.net.factory import ServerFactory
from tests.support.asgi import LOG, body, settle, start
from tests.support.h2_client import Http2Client

GET = b"GET /path?q HTTP/1.1\r\nHost: test\r\n\r\n"
CLIENT = IPv4Address("TCP", "192.0.2.1", 5000)
HERE = IPv4Address("TCP", "192.0.2.2", 80)


class FakeTransport:
    """What a connection may do to its transport, and nothing else; strict about what Twisted forbids."""

    def __init__(self, peer: Any = CLIENT, host: Any = HERE) -> None:
        self.peer, self.host = peer, host
        self.protocol: Any = None
        self.written = b""
        self.producer: Any = None
        self.reading = True
        self.ended: list[str] = []
        self.unsent_bytes = 0
        self.client_tls = False

    def getPeer(self) -> Any:
        return self.peer

    def getHost(self) -> Any:
        return self.host

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        assert self.ended == [], f"write() after {self.ended}"
        self.written += data

    def writeSequence(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None, "a producer is registered already"
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def loseConnection(self) -> None:
        assert self.producer is None, "with a producer registered Twisted would wait for that one"
        self.ended.append("close")

    def loseWriteConnection(self) -> None:
        self.ended.append("half-close")

    def abortConnection(self) -> None:
        self.ended.append("abort")

    def lost(self) -> None:
        """The connection is gone."""
        self.protocol.connectionLost()


class FakeTLS(FakeTransport):
    """The same with TLS.

    Args:
        negotiated: The protocol that ALPN will bring.
        version: Of TLS, as OpenSSL writes it.
    """

    def __init__(self, negotiated: bytes | None, version: int = 0x0304) -> None:
        super().__init__()
        self._after_handshake = negotiated
        self._finished = False
        self.version = version
        self.negotiatedProtocol: bytes | None = None
        alsoProvides(self, ISSLTransport)

    def getHandle(self) -> Any:
        return self

    def get_protocol_version(self) -> int:
        return self.version

    def get_peer_finished(self) -> bytes | None:
        return b"finished" if self._finished else None

    def shake_hands(self, tell: bool = True) -> None:
        """Complete the handshake; without `tell` as below a wrapper that does not pass it on."""
        self._finished = True
        self.negotiatedProtocol = self._after_handshake
        if tell:
            self.protocol.handshakeCompleted()


class Wire:
    """A context with one application, and connections to it."""

    def __init__(self, application: Any, **settings: Any) -> None:
        self.refused: list[tuple[Any, ...]] = []
        self.runner = Runner(application, Config(**settings), asyncio.get_running_loop(), LOG)
        self.records: list[tuple[int | None, int]] = []
        self.runner.record = lambda exchange: self.records.append((exchange.status, exchange.body_bytes_sent))
        self.context = ServerContext(
            self.runner.config,
            self.runner,
            LOG,
            lambda info, status, detail, head: self.refused.append((info.client_text, status, head and head.path)),
        )
        self.factory = ServerFactory(self.context)

    def connect(self, transport: FakeTransport | None = None) -> Any:
        transport = transport or FakeTransport()
        protocol = self.factory.buildProtocol(transport.peer)
        if protocol is None:
            return None
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport


class Application:
    """Answers with what it is told to, and writes down the scopes."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.events: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await receive()
        await send(start())
        await send(body(b"hello"))


async def silent(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Pipe:
    """The socket of a client whose other end is a fake transport; reading it never waits."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport
        self.taken = 0

    def settimeout(self, seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        self.transport.protocol.dataReceived(data)

    def recv(self, size: int) -> bytes:
        data = self.transport.written[self.taken :]
        self.taken += len(data)
        return data


def dial(transport: FakeTransport, **options: Any) -> Http2Client:
    pipe: Any = Pipe(transport)
    return Http2Client(pipe, **options)


async def exchange(client: Http2Client) -> None:
    """Let both sides say what they have to say."""
    for _ in range(10):
        await settle()
        data = client.socket.recv(65536)
        if not data:
            return
        client.feed(data)

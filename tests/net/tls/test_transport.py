"""`daphne_ng.net.tls.transport` on real sockets, each test on a uvloop loop and on a plain asyncio one.

What is said of ``serve`` is said of Twisted's TLS too: those tests run on both.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import weakref
from importlib import metadata
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet import interfaces
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer
from zope.interface.verify import verifyObject

from daphne_ng.net.channels.endings import abort, close_half, release
from daphne_ng.net.channels.flow import unsent_bytes
from daphne_ng.net.sockets.listening import ListenOptions
from daphne_ng.net.tls import memory as tls_memory
from daphne_ng.net.tls import transport as tls_transport
from daphne_ng.net.tls.transport import TLSServer, TLSUNIXServer
from tests.net.sockets.test_transports import MANY, Producer, Recorder
from tests.support.tls import authority, certificate

HIGH_MARK = 64 * 1024
SMALL = 4096  # bytes of the kernel's buffers where they must fill up soon

VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])


@pytest.fixture(scope="module")
def leaf() -> Any:
    return certificate("localhost")


def server_context(leaf: Any, **settings: Any) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    leaf_certificate, *chain = leaf.cert_chain_pems
    context.use_certificate(certificate_of(leaf_certificate))
    for extra in chain:
        context.add_extra_chain_cert(certificate_of(extra))
    context.use_privatekey(key_of(leaf))
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_id(b"test")
    for name, value in settings.items():
        getattr(context, name)(*value)
    return context


def certificate_of(blob: Any) -> Any:
    return x509.load_pem_x509_certificate(blob.bytes())


def key_of(leaf: Any) -> Any:
    return load_pem_private_key(leaf.private_key_pem.bytes(), None)


class Source:
    """A TLS source with one context."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def context(self) -> SSL.Context:
        return self._context

    getContext = context


class Listening(Recorder):
    """Records the handshake, too."""

    def connectionMade(self) -> None:
        self.handshake = asyncio.get_running_loop().create_future()
        super().connectionMade()

    def handshakeCompleted(self) -> None:
        self.events.append("handshake")
        self.handshake.set_result(None)

    async def until(self, length: int) -> bytes:
        while len(self.data) < length:
            await asyncio.sleep(0.001)
        return self.data


Listening = implementer(interfaces.IHandshakeListener)(Listening)  # type: ignore[misc]


class Client:
    """A TLS client whose every record is sent and received when a test says so."""

    def __init__(self, sock: socket.socket, context: SSL.Context | None = None, **settings: Any) -> None:
        self.sock = sock
        if context is None:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            version = settings.get("version")
            if version:
                context.set_max_proto_version(version)
            if "alpn" in settings:
                context.set_alpn_protos(settings["alpn"])
        self.tls = SSL.Connection(context, None)
        self.tls.set_connect_state()
        self.sending = asyncio.Lock()

    async def flush(self) -> None:
        async with self.sending:
            with contextlib.suppress(SSL.WantReadError):
                while True:
                    await asyncio.get_running_loop().sock_sendall(self.sock, self.tls.bio_read(1 << 16))

    # Take what the server has sent; False at its end.
    async def fill(self) -> bool:
        data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
        if data:
            self.tls.bio_write(data)
        return bool(data)

    async def shake_hands(self, and_send: bytes = b"") -> Client:
        """Shake hands; `and_send` goes out in one piece with the last flight."""
        while True:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                await self.flush()
                if not await self.fill():
                    raise ConnectionError("the server left") from None
            else:
                if and_send:
                    self.tls.send(and_send)
                await self.flush()
                return self

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.tls.send(view[:16384]) :]
            await self.flush()

    async def receive(self, total: int = 1 << 40) -> bytes:
        """Return `total` bytes, or all until close_notify."""
        received = bytearray()
        while len(received) < total:
            try:
                received += self.tls.recv(1 << 16)
            except SSL.WantReadError:
                await self.flush()
                if not await self.fill():
                    raise ConnectionError("truncated") from None
            except SSL.ZeroReturnError:
                break
        return bytes(received)

    async def close(self) -> None:
        self.tls.shutdown()
        await self.flush()

    async def end_of_stream(self) -> None:
        while await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16):
            pass


class Answering:
    """The TLS of a connection, with an answer to everything."""

    def __init__(self, tls: Any) -> None:
        self._tls = tls

    def output(self) -> bytes:
        return b"an answer"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tls, name)


async def talk(serve: Any, reactor: Any) -> tuple[Listening, Client]:
    """Serve a client until its handshake is complete."""
    server = Listening()
    return server, await Client(await serve(reactor, server)).shake_hands()


async def drop(server: Recorder) -> None:
    server.transport.abortConnection()
    await server.lost


@pytest.fixture
def sockets():
    made: list[socket.socket] = []
    yield made
    for sock in made:
        sock.close()


@pytest.fixture(params=["ours", "twisted"])
def serve(request, sockets, leaf):
    """Serve one protocol over TLS, on our transport or on Twisted's, and connect a socket to it."""

    async def serve(reactor: Any, protocol: Any, context: SSL.Context | None = None, **socket_options: int) -> Any:
        context = context or server_context(leaf)
        return await _serve(reactor, protocol, context, sockets, request.param == "ours", **socket_options)

    serve.ours = request.param == "ours"  # type: ignore[attr-defined]
    return serve


@pytest.fixture
def ours(sockets, leaf):
    """As `serve`, on our transport alone."""

    async def serve(reactor: Any, protocol: Any, context: SSL.Context | None = None, **socket_options: int) -> Any:
        return await _serve(reactor, protocol, context or server_context(leaf), sockets, True, **socket_options)

    return serve


async def _serve(
    reactor: Any, protocol: Any, context: SSL.Context, sockets: Any, ours: bool, small: bool = False
) -> socket.socket:
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda address: protocol  # type: ignore[method-assign]
    if ours:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1", options=ListenOptions(tls=Source(context)))
    else:
        options = implementer(interfaces.IOpenSSLContextFactory)(Source)(context)
        port = reactor.listenTCP(0, TLSMemoryBIOFactory(options, False, factory, clock=reactor), interface="127.0.0.1")
    if small:
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    client = socket.socket()
    sockets.append(client)
    if small:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port.getHost().port))
    await protocol.made
    port.stopListening()
    return client


# -- what it is to a protocol ----------------------------------------------------------------------------------


def test_it_is_a_tls_transport(run, ours):
    async def main(reactor):
        server = Listening()
        client = Client(await ours(reactor, server), alpn=[b"x"])
        transport = server.transport
        assert type(transport) is TLSServer
        verifyObject(interfaces.INegotiated, transport)
        assert interfaces.ISSLTransport.providedBy(transport)
        assert transport.negotiatedProtocol is None
        assert transport.TLS
        await client.shake_hands()
        await server.handshake
        assert server.events == ["handshake"]
        assert isinstance(transport.getHandle(), SSL.Connection)
        assert transport.getPeerCertificate() is None
        assert transport.getPeer().port == client.sock.getsockname()[1]
        assert transport.getHost().port == client.sock.getpeername()[1]
        transport.abortConnection()
        await server.lost
        assert transport.getHandle() is None
        assert transport.negotiatedProtocol is None
        assert transport.getPeerCertificate() is None

    run(main)


def test_the_protocol_sees_what_was_negotiated_and_who_the_client_is(run, ours, leaf):
    mine = certificate("client")
    context = server_context(
        leaf,
        set_alpn_select_callback=(lambda connection, offered: offered[-1],),
        set_verify=(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,),
    )
    trusted = crypto.X509.from_cryptography(certificate_of(authority().cert_pem))
    context.get_cert_store().add_cert(trusted)

    async def main(reactor):
        server = Listening()
        client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client_context.set_alpn_protos([b"one", b"two"])
        client_context.use_certificate(certificate_of(mine.cert_chain_pems[0]))
        client_context.use_privatekey(key_of(mine))
        await Client(await ours(reactor, server, context), client_context).shake_hands()
        await server.handshake
        assert server.transport.negotiatedProtocol == b"two"
        shown = server.transport.getPeerCertificate().to_cryptography()
        assert shown == certificate_of(mine.cert_chain_pems[0])
        await drop(server)

    run(main)


@VERSIONS
def test_data_goes_both_ways(run, serve, version):
    async def main(reactor):
        server = Listening()
        client = await Client(await serve(reactor, server), version=version).shake_hands()
        await client.send(b"request")
        assert await server.until(7) == b"request"
        server.transport.write(b"re")
        server.transport.writeSequence([b"spo", b"", b"nse"])
        assert await client.receive(8) == b"response"
        await client.close()
        assert isinstance(await server.lost, ConnectionDone)
        assert server.events == ["handshake", "data", "lost"]

    run(main)


@VERSIONS
def test_large_amounts_go_both_ways_at_once(run, serve, version):
    data = bytes(range(256)) * (MANY // 256)

    async def main(reactor):
        server = Listening()
        client = await Client(await serve(reactor, server), version=version).shake_hands()
        server.transport.write(data)
        server.transport.writeSequence([b"head", data, b"tail", data[: 1 << 17]])
        sending = asyncio.ensure_future(client.send(data))
        received = await client.receive(2 * len(data) + 8 + (1 << 17))
        assert received == data + b"head" + data + b"tail" + data[: 1 << 17]
        await sending
        assert await server.until(len(data)) == data
        await drop(server)

    run(main)


def test_many_small_writes_keep_their_order_also_when_the_kernel_is_full(run, serve):
    async def main(reactor):
        server = Listening()
        client = await Client(await serve(reactor, server, small=True)).shake_hands()
        await server.handshake
        pieces = [b"%06d" % number * (number % 50 + 1) for number in range(3000)]
        for number, piece in enumerate(pieces):
            (server.transport.write if number % 3 else lambda data: server.transport.writeSequence([data]))(piece)
            if number % 500 == 0:
                await asyncio.sleep(0)
        server.transport.loseConnection()
        assert await client.receive() == b"".join(pieces)
        await client.close()
        assert isinstance(await server.lost, ConnectionDone)

    run(main)


def test_with_pyopenssl_alone_it_is_the_same(run, ours, monkeypatch):
    monkeypatch.setattr(tls_transport, "TlsMemory", tls_memory._PublicMemory)

    async def main(reactor):
        server, client = await talk(ours, reactor)
        await client.send(bytes(MANY))
        await server.until(MANY)
        server.transport.write(bytes(MANY))
        server.transport.loseConnection()
        assert len(await client.receive()) == MANY
        await client.close()
        assert isinstance(await server.lost, ConnectionDone)
        assert tls_transport.TlsMemory is tls_memory._PublicMemory

    run(main)


def test_here_the_library_is_called_directly():
    assert tls_memory.TlsMemory is tls_memory._DirectMemory


def test_only_bytes_can_be_written(run, ours):
    async def main(reactor):
        server = Listening()
        await Client(await ours(reactor, server)).shake_hands()
        await server.handshake
        with pytest.raises(TypeError):
            server.transport.write("text")
        with pytest.raises(TypeError):
            server.transport.writeSequence([b"a", "b"])
        server.transport.write(b"")
        server.transport.writeSequence([])
        await drop(server)

    run(main)


def test_it_works_on_unix_sockets(run, leaf, sockets):
    async def main(reactor):
        theirs, mine = socket.socketpair()
        sockets.append(theirs)
        theirs.setblocking(False)
        mine.setblocking(False)
        server = Listening()
        server.makeConnection(TLSUNIXServer(mine, server, None, None, 0, reactor, server_context(leaf)))
        client = await Client(theirs).shake_hands()
        assert interfaces.ISSLTransport.providedBy(server.transport)
        await client.send(b"x" * 100_000)
        assert len(await server.until(100_000)) == 100_000
        server.transport.write(b"y" * 1_000_000)
        assert len(await client.receive(1_000_000)) == 1_000_000
        with pytest.raises(NotImplementedError):
            server.transport.sendFileDescriptor(0)
        await client.close()
        assert isinstance(await server.lost, ConnectionDone)

    run(main)


# -- the handshake ---------------------------------------------------------------------------------------------


def test_what_is_written_before_the_end_of_the_handshake_waits_for_it(run, serve):
    class Early(Listening):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.write(b"one ")
            self.transport.writeSequence([b"two ", b"three "])

        def handshakeCompleted(self) -> None:
            super().handshakeCompleted()
            self.transport.write(b"four")

    async def main(reactor):
        server = Early()
        sock = await serve(reactor, server)
        await asyncio.sleep(0.02)
        client = await Client(sock).shake_hands()
        assert await client.receive(18) == b"one two three four"
        await client.close()
        await server.lost

    run(main)


def test_much_may_be_written_before_the_end_of_the_handshake(run, serve):
    async def main(reactor):
        server = Listening()
        sock = await serve(reactor, server)
        server.transport.write(bytes(MANY))
        client = await Client(sock).shake_hands()
        assert len(await client.receive(MANY)) == MANY
        server.transport.loseConnection()
        assert await client.receive() == b""
        await client.close()
        await server.lost

    run(main)


def test_waiting_for_the_handshake_costs_nothing(run, ours, monkeypatch):
    calls = []
    monkeypatch.setattr(TLSServer, "doWrite", lambda self: calls.append(self))

    async def main(reactor):
        server = Listening()
        await ours(reactor, server)
        server.transport.write(b"early")
        await asyncio.sleep(0.05)
        assert not calls
        await drop(server)

    run(main)


def test_a_handshake_may_come_byte_by_byte(run, serve):
    async def main(reactor):
        server = Listening()
        client = Client(await serve(reactor, server))
        loop = asyncio.get_running_loop()
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        async def flush() -> None:
            with contextlib.suppress(SSL.WantReadError):
                for byte in client.tls.bio_read(1 << 16):
                    await loop.sock_sendall(client.sock, bytes((byte,)))
                    await asyncio.sleep(0)

        client.flush = flush  # type: ignore[method-assign]
        await client.shake_hands()
        await client.send(b"whole")
        assert await server.until(5) == b"whole"
        await client.close()
        await server.lost

    run(main)


def test_data_that_comes_with_the_end_of_the_handshake_is_delivered(run, ours):
    async def main(reactor):
        server = Listening()
        client = Client(await ours(reactor, server), version=SSL.TLS1_3_VERSION)
        await client.shake_hands(and_send=b"at once")
        assert await server.until(7) == b"at once"
        assert server.events == ["handshake", "data"]
        await drop(server)

    run(main)


def test_a_handshake_goes_on_while_reading_is_paused(run, ours):
    class Paused(Listening):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.pauseProducing()

    async def main(reactor):
        server = Paused()
        client = await Client(await ours(reactor, server)).shake_hands()
        await client.send(b"early")
        await server.handshake
        await asyncio.sleep(0.02)
        assert server.events == ["handshake"]
        server.transport.resumeProducing()
        assert server.events == ["handshake"]  # never within the call
        assert await server.until(5) == b"early"
        await drop(server)

    run(main)


def test_what_was_decrypted_already_is_delivered_after_a_pause_in_handshakeCompleted(run, ours):
    class Pausing(Listening):
        def handshakeCompleted(self) -> None:
            super().handshakeCompleted()
            self.transport.pauseProducing()

    async def main(reactor):
        server = Pausing()
        client = Client(await ours(reactor, server), version=SSL.TLS1_3_VERSION)
        await client.shake_hands(and_send=b"together")
        await server.handshake
        await asyncio.sleep(0.02)
        assert server.data == b""
        server.transport.resumeProducing()
        assert server.data == b""
        assert await server.until(8) == b"together"
        await drop(server)

    run(main)


def test_a_client_that_speaks_no_tls_is_told_so(run, serve):
    async def main(reactor):
        server = Listening()
        sock = await serve(reactor, server)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")  # an empty ClientHello
        alert = await loop.sock_recv(sock, 100)
        assert alert[0] == 21  # RFC 8446 section 5.1: alert
        assert await loop.sock_recv(sock, 100) == b""
        sock.close()
        assert isinstance(await server.lost, SSL.Error)
        assert "handshake" not in server.events

    run(main)


@VERSIONS
def test_the_alert_for_a_missing_certificate_arrives_though_the_client_goes_on_talking(run, ours, leaf, version):
    context = server_context(leaf, set_verify=(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,))

    async def main(reactor):
        server = Listening()
        client = Client(await ours(reactor, server, context), version=version)
        with pytest.raises(SSL.Error, match=r"certificate.required|handshake failure"):
            await client.shake_hands()
            for _ in range(20):
                with contextlib.suppress(OSError):
                    await client.send(b"x" * 1000)
                await asyncio.sleep(0.002)
            await client.receive(1)
        client.sock.close()
        assert isinstance(await server.lost, SSL.Error)
        assert server.data == b""

    run(main)


def test_after_an_alert_a_client_that_stays_is_dropped(run, ours, monkeypatch):
    monkeypatch.setattr(tls_transport, "_ALERT_SECONDS", 0.05)

    async def main(reactor):
        server = Listening()
        sock = await ours(reactor, server)
        await asyncio.get_running_loop().sock_sendall(sock, b"no TLS, this")
        assert isinstance(await server.lost, SSL.Error)

    run(main)


@pytest.mark.parametrize("callback", ["alpn", "name"])
def test_a_callback_that_raises_fails_that_handshake_only(run, ours, leaf, callback, capsys, failures):
    if callback == "name" and int(metadata.version("pyopenssl").split(".")[0]) < 26:
        pytest.skip("before release 26, pyOpenSSL goes on after an exception of this callback; ours raise none")

    def fail(*args: Any) -> Any:
        raise ZeroDivisionError

    setting = "set_alpn_select_callback" if callback == "alpn" else "set_tlsext_servername_callback"
    context = server_context(leaf, **{setting: (fail,)})

    async def main(reactor):
        server = Listening()
        client = Client(await ours(reactor, server, context), alpn=[b"x"])
        with pytest.raises(SSL.Error):
            await client.shake_hands()
        client.sock.close()
        assert isinstance(await server.lost, ZeroDivisionError if callback == "alpn" else SSL.Error)
        # pyOpenSSL prints the other one itself.
        assert len(failures) == (callback == "alpn")
        following = Listening()
        if callback == "alpn":
            await Client(await ours(reactor, following, context)).shake_hands()
            await following.handshake
            following.transport.abortConnection()
            await following.lost

    run(main)


def test_a_callback_of_the_context_may_drop_the_connection(run, ours, leaf):
    # As Twisted's own does, when it finds no context for a name.
    context = server_context(
        leaf, set_tlsext_servername_callback=(lambda connection: connection.get_app_data().abortConnection(),)
    )

    async def main(reactor):
        server = Listening()
        client = Client(await ours(reactor, server, context))
        with pytest.raises(ConnectionError):
            await client.shake_hands()
        assert isinstance(await server.lost, ConnectionAborted)

    run(main)


def test_an_exception_of_handshakeCompleted_loses_the_connection(run, ours, failures):
    class Failing(Listening):
        def handshakeCompleted(self) -> None:
            raise ZeroDivisionError

    async def main(reactor):
        server = Failing()
        await Client(await ours(reactor, server)).shake_hands()
        assert isinstance(await server.lost, ZeroDivisionError)
        assert len(failures) == 1

    run(main)


def test_renegotiation_is_refused(run, serve, leaf):
    context = server_context(leaf, set_options=(SSL.OP_NO_RENEGOTIATION,))

    async def main(reactor):
        server = Listening()
        client = await Client(await serve(reactor, server, context), version=SSL.TLS1_2_VERSION).shake_hands()
        assert client.tls.renegotiate()
        with contextlib.suppress(SSL.Error):
            client.tls.do_handshake()
        await client.flush()
        await client.fill()
        with pytest.raises(SSL.Error, match="no renegotiation"):
            client.tls.recv(1)
        assert server.events == ["handshake"]
        client.sock.close()
        await server.lost

    run(main)


# -- reading ---------------------------------------------------------------------------------------------------


def test_nothing_is_delivered_while_reading_is_paused(run, serve):
    async def main(reactor):
        server, client = await talk(serve, reactor)
        await client.send(b"first")
        await server.until(5)
        server.transport.pauseProducing()
        await client.send(b"second")
        await asyncio.sleep(0.02)
        assert server.data == b"first"
        server.transport.resumeProducing()
        assert server.data == b"first"
        assert await server.until(11) == b"firstsecond"
        await client.close()
        await server.lost

    run(main)


def test_an_exception_of_dataReceived_loses_the_connection_after_several_reads_too(run, ours, failures):
    class Failing(Listening):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            if len(self.data) == 3:
                raise ZeroDivisionError

    async def main(reactor):
        server, client = await talk(ours, reactor)
        failing = Failing()
        failing.makeConnection(server.transport)
        server.transport.protocol = failing
        for number in range(3):
            await client.send(b"x")
            await failing.until(number + 1)
        assert isinstance(await failing.lost, ZeroDivisionError)
        assert len(failures) == 1

    run(main)


def test_a_client_that_sends_nothing_but_records_of_a_byte_is_dropped(run, ours, caplog):
    caplog.set_level("INFO", "daphne_ng")

    async def main(reactor):
        server, client = await talk(ours, reactor)
        with contextlib.suppress(OSError):
            for _ in range(40):
                for _ in range(1000):
                    client.tls.send(b"x")
                await client.flush()
        assert isinstance(await server.lost, ConnectionAborted)
        assert "its TLS records hold no data" in caplog.text
        assert 10_000 < len(server.data) < 40_000

    run(main)


def test_a_read_is_delivered_as_one_and_bounded(run, ours):
    sizes: list[int] = []

    class Sizes(Listening):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            sizes.append(len(data))

    async def main(reactor):
        server = Sizes()
        client = await Client(await ours(reactor, server)).shake_hands()
        await client.send(bytes(MANY))
        await server.until(MANY)
        assert max(sizes) <= 160 * 1024
        assert max(sizes) > 17 * 1024  # more than a record
        await drop(server)

    run(main)


def test_data_and_close_notify_in_one_read_are_both_seen(run, serve):
    async def main(reactor):
        server, client = await talk(serve, reactor)
        client.tls.send(b"last words")
        await client.close()
        assert isinstance(await server.lost, ConnectionDone)
        assert server.data == b"last words"

    run(main)


def test_an_exception_of_dataReceived_loses_the_connection(run, ours, failures):
    class Failing(Listening):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError

    async def main(reactor):
        server = Failing()
        client = await Client(await ours(reactor, server)).shake_hands()
        await client.send(b"x")
        assert isinstance(await server.lost, ZeroDivisionError)
        assert len(failures) == 1

    run(main)


def test_a_record_that_was_tampered_with_ends_the_connection_with_an_alert(run, serve):
    async def main(reactor):
        server, client = await talk(serve, reactor)
        await server.handshake
        client.tls.send(b"x" * 100)
        record = bytearray(client.tls.bio_read(1 << 16))
        record[-1] ^= 1
        await asyncio.get_running_loop().sock_sendall(client.sock, record)
        with pytest.raises(SSL.Error, match="bad record mac"):
            await client.receive(1)
        client.sock.close()
        assert isinstance(await server.lost, SSL.Error)
        assert server.data == b""

    run(main)


# -- writing and producers -------------------------------------------------------------------------------------


def test_a_push_producer_is_paused_above_the_mark_and_resumed_when_all_is_out(run, ours):
    async def main(reactor):
        server, producer = Listening(), Producer()
        client = await Client(await ours(reactor, server)).shake_hands()
        await server.handshake
        server.transport.registerProducer(producer, True)
        server.transport.write(bytes(MANY))
        assert producer.events == ["pause"]
        assert unsent_bytes(server.transport) > HIGH_MARK
        assert len(await client.receive(MANY)) == MANY
        await producer.resumed
        assert unsent_bytes(server.transport) == 0
        await drop(server)
        assert producer.events == ["pause", "resume", "stop"]

    run(main)


def test_a_push_producer_can_be_paused_before_the_end_of_the_handshake(run, ours):
    async def main(reactor):
        server, producer = Listening(), Producer()
        sock = await ours(reactor, server)
        server.transport.registerProducer(producer, True)
        server.transport.write(bytes(HIGH_MARK))
        assert producer.events == []
        server.transport.write(b"x")
        assert producer.events == ["pause"]
        client = await Client(sock).shake_hands()
        assert len(await client.receive(HIGH_MARK + 1)) == HIGH_MARK + 1
        await producer.resumed
        await drop(server)

    run(main)


@pytest.mark.parametrize("early", [True, False])
def test_a_pull_producer_is_asked_until_it_has_no_more(run, serve, early):
    @implementer(interfaces.IPullProducer)
    class Pull:
        left = 100

        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def resumeProducing(self) -> None:
            self.transport.write(b"%05d" % self.left * 1000)
            self.left -= 1
            if not self.left:
                self.transport.unregisterProducer()
                self.transport.loseConnection()

        def stopProducing(self) -> None:
            pass

    async def main(reactor):
        server = Listening()
        sock = await serve(reactor, server)
        client = Client(sock)
        if not early:
            await client.shake_hands()
            await server.handshake
        server.transport.registerProducer(Pull(server.transport), False)
        if early:
            await client.shake_hands()
        assert await client.receive() == b"".join(b"%05d" % number * 1000 for number in range(100, 0, -1))
        await client.close()
        await server.lost

    # Twisted's own pulls through the global reactor's cooperator.
    if serve.ours:
        run(main)


def test_progress_of_a_slow_reader_shows_in_what_is_unsent(run, ours):
    async def main(reactor):
        server = Listening()
        client = await Client(await ours(reactor, server, small=True)).shake_hands()
        await server.handshake
        server.transport.write(bytes(MANY))
        seen = {unsent_bytes(server.transport)}
        for _ in range(20):
            await client.fill()
            await asyncio.sleep(0.005)
            seen.add(unsent_bytes(server.transport))
        assert len(seen) > 3
        assert all(0 < count < 1.01 * MANY for count in seen)
        await drop(server)

    run(main)


@pytest.mark.parametrize("refusal", [errno.EPIPE, errno.ECONNRESET])
def test_a_send_that_the_kernel_refuses_loses_the_connection_on_a_later_turn(run, ours, refusal):
    async def main(reactor):
        server = Listening()
        await Client(await ours(reactor, server)).shake_hands()
        await server.handshake

        def refuse(data: Any) -> int:
            raise OSError(refusal, "refused")

        server.transport._pipe.send = refuse
        server.transport.write(b"x")
        server.transport.write(b"y")
        assert not server.lost.done()
        assert isinstance(await server.lost, ConnectionLost)

    run(main)


@pytest.mark.parametrize("busy", [errno.EAGAIN, errno.ENOBUFS])
def test_a_send_that_the_kernel_cannot_take_now_is_tried_again(run, ours, busy):
    async def main(reactor):
        server, client = await talk(ours, reactor)
        await server.handshake
        send = server.transport._pipe.send

        def refuse_once(data: Any) -> int:
            server.transport._pipe.send = send
            raise OSError(busy, "busy")

        server.transport._pipe.send = refuse_once
        server.transport.write(b"one ")
        assert unsent_bytes(server.transport) > 4
        server.transport.write(b"two")
        assert await client.receive(7) == b"one two"
        await drop(server)

    run(main)


def test_sends_may_be_cut_anywhere(run, ours):
    async def main(reactor):
        server, client = await talk(ours, reactor)
        await server.handshake
        send = server.transport._pipe.send
        sizes = iter(range(1, 10**9, 7))
        server.transport._pipe.send = lambda data: send(bytes(data)[: next(sizes)])
        data = bytes(range(256)) * 2000
        server.transport.write(data[:100])
        server.transport.write(data[100:300_000])
        server.transport.writeSequence([data[300_000:300_001], data[300_001:]])
        assert await client.receive(len(data)) == data
        assert unsent_bytes(server.transport) == 0
        assert server.transport._direct
        server.transport.loseConnection()
        assert await client.receive() == b""
        await client.close()
        await server.lost

    run(main)


def test_a_peer_that_asks_and_never_reads_is_dropped(run, ours):
    async def main(reactor):
        server = Listening()
        await Client(await ours(reactor, server)).shake_hands()
        await server.handshake

        def full(data: Any) -> int:
            raise BlockingIOError(errno.EAGAIN, "full")

        server.transport._pipe.send = full
        for _ in range(10_000):
            server.transport.send_control(b"x" * 50)
            if server.transport._aborting:
                break
        assert isinstance(await server.lost, ConnectionAborted)

    run(main)


# -- endings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["loseConnection", "close_half"])
def test_losing_the_connection_flushes_and_goes_on_reading_until_the_peer_has_answered(run, serve, how):
    async def main(reactor):
        server, client = await talk(serve, reactor)
        await server.handshake
        server.transport.write(bytes(MANY))
        if how == "close_half":
            close_half(server.transport)
        else:
            server.transport.loseConnection()
        assert server.transport.disconnecting
        server.transport.write(b"too late")
        server.transport.loseConnection()
        assert len(await client.receive()) == MANY
        await client.send(b"still here")
        assert await server.until(10) == b"still here"
        assert not server.lost.done()
        server.transport.pauseProducing()
        await client.send(b", and here")
        await asyncio.sleep(0.01)
        assert server.data == b"still here"
        server.transport.resumeProducing()
        assert await server.until(20) == b"still here, and here"
        await client.close()
        assert isinstance(await server.lost, ConnectionDone)

    run(main)


@pytest.mark.parametrize("size", [0, MANY])
def test_a_fin_follows_our_close_notify_and_what_comes_is_still_delivered(run, ours, size):
    # Java's client keeps a connection in its pool that has only got a close_notify, and sends its next request there.
    async def main(reactor):
        server, client = await talk(ours, reactor)
        await server.handshake
        server.transport.write(bytes(size))
        server.transport.loseConnection()
        assert len(await client.receive()) == size
        assert not await client.fill(), "the end of the stream, though the client has not answered"
        await client.send(b"still here")
        assert await server.until(10) == b"still here"
        # TLS answers some of what comes. Our direction is closed: that it fails must not end the connection.
        pipe = server.transport._pipe
        pipe.memory = Answering(memory := pipe.memory)
        await client.send(b", and here")
        assert await server.until(20) == b"still here, and here"
        await asyncio.sleep(0.01)
        assert not server.lost.done()
        pipe.memory = memory
        await client.close()
        assert isinstance(await server.lost, ConnectionDone)

    run(main)


def test_the_end_is_said_at_once_though_the_kernel_is_nearly_full(run, ours):
    async def main(reactor):
        server, client = await talk(ours, reactor)
        await server.handshake
        server.transport.write(b"x" * 1000)
        reactor.addWriter = lambda writer: None
        server.transport.loseConnection()
        assert await client.receive() == b"x" * 1000
        del reactor.addWriter
        await client.close()
        await server.lost

    run(main)


def test_what_was_written_is_flushed_after_the_peers_close_notify(run, ours):
    async def main(reactor):
        server, client = await talk(ours, reactor)
        await server.handshake
        producer = Producer()
        server.transport.registerProducer(producer, True)
        server.transport.write(bytes(MANY))
        await client.close()
        await asyncio.sleep(0.05)
        server.transport.write(b"too late")
        assert len(await client.receive()) == MANY
        assert isinstance(await server.lost, ConnectionDone)
        assert producer.events[-1] == "stop"

    run(main)


def test_an_end_without_close_notify_is_not_clean(run, serve):
    async def main(reactor):
        server, client = await talk(serve, reactor)
        await server.handshake
        client.sock.shutdown(socket.SHUT_WR)
        assert isinstance(await server.lost, ConnectionLost)

    run(main)


def test_an_end_without_close_notify_after_ours_is_not_clean_either(run, serve):
    async def main(reactor):
        server, client = await talk(serve, reactor)
        await server.handshake
        server.transport.loseConnection()
        assert await client.receive() == b""
        client.sock.shutdown(socket.SHUT_WR)
        assert isinstance(await server.lost, ConnectionLost)

    run(main)


def test_a_client_that_leaves_during_the_handshake_is_a_lost_connection(run, serve):
    async def main(reactor):
        server = Listening()
        sock = await serve(reactor, server)
        sock.close()
        assert isinstance(await server.lost, ConnectionLost)

    run(main)


def test_the_half_close_of_a_protocol_that_wants_to_know_is_not_used(run, serve):
    @implementer(interfaces.IHalfCloseableProtocol)
    class Half(Listening):
        def readConnectionLost(self) -> None:
            self.events.append("half")

        def writeConnectionLost(self) -> None:
            self.events.append("half")

    async def main(reactor):
        server = Half()
        client = await Client(await serve(reactor, server)).shake_hands()
        await server.handshake
        await client.close()
        await server.lost
        assert server.events == ["handshake", "lost"]

    run(main)


@pytest.mark.parametrize("stage", ["begin", "handshake"])
def test_losing_the_connection_during_the_handshake_aborts_it(run, serve, stage):
    async def main(reactor):
        server = Listening()
        sock = await serve(reactor, server)
        client = Client(sock)
        if stage == "handshake":
            with contextlib.suppress(SSL.WantReadError):
                client.tls.do_handshake()
            await client.flush()
            await client.fill()
        server.transport.loseConnection()
        assert isinstance(await server.lost, ConnectionAborted if serve.ours else ConnectionLost)
        assert server.transport.disconnecting or not server.transport.connected

    run(main)


def test_what_was_written_before_it_is_sent_all_the_same(run, serve):
    async def main(reactor):
        server = Listening()
        sock = await serve(reactor, server)
        server.transport.write(b"answer")
        # Twisted's aggregates small writes, and flushes them first.
        server.transport.loseConnection()
        client = await Client(sock).shake_hands()
        assert await client.receive() == b"answer"
        await client.close()
        assert isinstance(await server.lost, ConnectionDone)

    run(main)


def test_a_producer_may_write_after_loseConnection_until_it_is_unregistered(run, serve):
    async def main(reactor):
        server, producer = Listening(), Producer()
        client = await Client(await serve(reactor, server)).shake_hands()
        await server.handshake
        server.transport.registerProducer(producer, True)
        server.transport.loseConnection()
        server.transport.write(b"one ")
        await asyncio.sleep(0.02)
        server.transport.write(b"two")
        assert await client.receive(7) == b"one two"
        server.transport.unregisterProducer()
        server.transport.write(b"three")
        assert await client.receive() == b""
        await client.close()
        assert isinstance(await server.lost, ConnectionDone)

    run(main)


@pytest.mark.parametrize("how", ["abortConnection", "abort"])
def test_an_abort_resets_and_says_nothing(run, ours, how):
    async def main(reactor):
        server, client = await talk(ours, reactor)
        await client.send(b"x")
        await server.until(1)
        await client.fill()  # the session tickets
        server.transport.write(bytes(MANY))
        abort(server.transport) if how == "abort" else server.transport.abortConnection()
        server.transport.write(b"too late")
        server.transport.abortConnection()
        assert not server.lost.done()
        assert isinstance(await server.lost, ConnectionAborted)
        with pytest.raises((ConnectionResetError, SSL.Error)):
            await client.receive()

    run(main)


def test_release_closes_without_waiting_for_the_peer(run, ours):
    async def main(reactor):
        server, client = await talk(ours, reactor)
        await server.handshake
        server.transport.write(b"all")
        server.transport.loseConnection()
        release(server.transport)
        assert not server.lost.done()
        assert isinstance(await server.lost, ConnectionDone)
        assert await client.receive() == b"all"

    run(main)


def test_a_connection_that_is_lost_is_freed_without_the_garbage_collector(run, ours):
    async def main(reactor):
        server, client = await talk(ours, reactor)
        await client.send(b"x")
        await server.until(1)
        await client.close()
        await server.lost
        transport = weakref.ref(server.transport)
        connection = weakref.ref(client.tls)
        server.transport = server.made = None
        await asyncio.sleep(0.01)
        assert transport() is None
        del client
        assert connection() is None

    gc.collect()
    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()


def test_large_buffers_are_given_back_when_the_connection_is_quiet(run, ours, monkeypatch):
    monkeypatch.setattr(tls_transport, "_SHRINK_SECONDS", 0.02)

    async def main(reactor):
        server, client = await talk(ours, reactor)
        await server.handshake
        for round_number in range(3):
            tls = server.transport._pipe.memory
            sent, received = tls._from, tls._into
            server.transport.write(bytes(MANY))
            await client.receive(MANY)
            await client.send(b"x" * 100_000)
            await server.until(100_000 * (round_number + 1))
            while tls.oversized:
                await asyncio.sleep(0.005)
            assert tls._from is not sent
            assert tls._into is not received
        await drop(server)

    run(main)

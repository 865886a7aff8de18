"""`daphne_ng.net.tls.factories`: what ``listenSSL`` makes of Twisted's context factories, on both kinds of event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as standard_ssl
from typing import Any

import pytest
from OpenSSL import SSL, crypto
from twisted.internet import interfaces, ssl
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from daphne_ng.net.tls.transport import TLSServer
from tests.net.tls.test_transport import Listening, certificate_of, key_of, server_context
from tests.support.tls import authority, certificate

# Twisted hands certificates on as pyOpenSSL's objects.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def leaf() -> Any:
    return certificate("localhost")


@pytest.fixture
def options(leaf):
    return ssl.CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key_of(leaf)),
        certificate=crypto.X509.from_cryptography(certificate_of(leaf.cert_chain_pems[0])),
    )


@implementer(interfaces.IProtocolNegotiationFactory)
class Negotiating(Factory):
    noisy = False

    def __init__(self, protocols: list[bytes]) -> None:
        self.protocols = protocols
        self.made: list[Any] = []

    def buildProtocol(self, address: Any) -> Any:
        self.made.append(Listening())
        return self.made[-1]

    def acceptableProtocols(self) -> list[bytes]:
        return self.protocols


async def exchange(port: Any, **settings: Any) -> tuple[Any, bool]:
    """Connect with the standard library; what was negotiated, and whether a session was resumed."""

    def talk() -> tuple[Any, bool]:
        context = settings.pop("context", None) or client_context(settings.pop("alpn", ()))
        with (
            socket.create_connection(("127.0.0.1", port.getHost().port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=settings.get("session")) as client,
        ):
            client.sendall(b"x")
            client.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                client.recv(1)
            settings["box"].append(client.session) if "box" in settings else None
            return client.selected_alpn_protocol(), client.session_reused

    return await asyncio.get_running_loop().run_in_executor(None, talk)


def client_context(alpn: Any = (), version: Any = None) -> standard_ssl.SSLContext:
    context = standard_ssl.SSLContext(standard_ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if version:
        context.maximum_version = version
    return context


def test_listenSSL_negotiates_for_the_factory_that_listens(run, options):
    async def main(reactor):
        one = Negotiating([b"h2", b"http/1.1"])
        two = Negotiating([b"http/1.1"])
        ports = [reactor.listenSSL(0, factory, options, interface="127.0.0.1") for factory in (one, two)]
        assert all(port._type == "TLS" for port in ports)
        assert await exchange(ports[0], alpn=["http/1.1", "h2"]) == ("h2", False)
        assert await exchange(ports[1], alpn=["h2", "http/1.1"]) == ("http/1.1", False)
        assert await exchange(ports[0]) == (None, False)
        with pytest.raises(standard_ssl.SSLError, match="no application protocol"):
            await exchange(ports[1], alpn=["h2"])
        assert type(one.made[0].transport) is TLSServer
        for factory in (one, two):
            for protocol in factory.made:
                await protocol.lost
        for port in ports:
            await _stopped(port)

    run(main)


@pytest.mark.parametrize("version", [standard_ssl.TLSVersion.TLSv1_2, standard_ssl.TLSVersion.TLSv1_3])
def test_sessions_can_be_resumed(run, options, version):
    async def main(reactor):
        factory = Negotiating([b"http/1.1"])
        port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
        context = client_context(version=version)
        box: list[Any] = []
        assert await exchange(port, context=context, box=box) == (None, False)
        assert await exchange(port, context=context, session=box[0], box=box) == (None, True)
        for protocol in factory.made:
            await protocol.lost
        await _stopped(port)

    run(main)


def test_a_factory_may_return_another_context_later(run, options, leaf):
    @implementer(interfaces.IOpenSSLContextFactory)
    class Changing:
        def __init__(self) -> None:
            self.current = server_context(leaf)

        def getContext(self) -> SSL.Context:
            return self.current

    async def main(reactor):
        contexts = Changing()
        factory = Negotiating([b"http/1.1"])
        port = reactor.listenSSL(0, factory, contexts, interface="127.0.0.1")
        await exchange(port, alpn=["http/1.1"])
        first = contexts.current
        contexts.current = server_context(leaf)
        assert await exchange(port, alpn=["http/1.1"]) == ("http/1.1", False)
        contexts.current = first
        assert await exchange(port, alpn=["http/1.1"]) == ("http/1.1", False)
        for protocol in factory.made:
            await protocol.lost
        await _stopped(port)

    run(main)


@pytest.mark.filterwarnings("ignore:Attempting to mutate a Context:DeprecationWarning")  # pyOpenSSL 25
def test_factories_that_make_connections_stay_on_twisteds_transport(run, options):
    class Maker(ssl.CertificateOptions):
        made = 0

        def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
            Maker.made += 1
            return SSL.Connection(self.getContext(), None)  # the base class has it only since Twisted 26

    maker = implementer(interfaces.IOpenSSLServerConnectionCreator)(Maker)(
        privateKey=options.privateKey, certificate=options.certificate
    )

    async def main(reactor):
        factory = Negotiating([b"http/1.1"])
        port = reactor.listenSSL(0, factory, maker, interface="127.0.0.1")
        assert port._type == "TLS"
        await exchange(port, alpn=["http/1.1"])
        assert Maker.made == 1
        assert not isinstance(factory.made[0].transport, TLSServer)
        await factory.made[0].lost
        await _stopped(port)

    run(main)


def test_a_context_may_serve_on_twisteds_path_too(run, options):
    async def main(reactor):
        one, two = Negotiating([b"h2"]), Negotiating([b"http/1.1"])
        ports = [
            reactor.listenSSL(0, one, options, interface="127.0.0.1"),
            reactor.listenTCP(0, TLSMemoryBIOFactory(options, False, two, clock=reactor), interface="127.0.0.1"),
        ]
        assert await exchange(ports[0], alpn=["http/1.1", "h2"]) == ("h2", False)
        assert await exchange(ports[1], alpn=["http/1.1", "h2"]) == ("http/1.1", False)
        for protocol in (*one.made, *two.made):
            await protocol.lost
        for port in ports:
            await _stopped(port)

    run(main)


def test_a_context_factory_that_does_not_work_is_seen_before_anything_listens(run):
    @implementer(interfaces.IOpenSSLContextFactory)
    class Broken:
        def getContext(self) -> Any:
            raise ZeroDivisionError

    @implementer(interfaces.IOpenSSLContextFactory)
    class Wrong:
        def getContext(self) -> Any:
            return object()

    async def main(reactor):
        with pytest.raises(ZeroDivisionError):
            reactor.listenSSL(0, Negotiating([]), Broken(), interface="127.0.0.1")
        with pytest.raises(TypeError):
            reactor.listenSSL(0, Negotiating([]), Wrong(), interface="127.0.0.1")

    run(main)


async def _stopped(port: Any) -> None:
    stopped = port.stopListening()
    if stopped is not None:
        done = asyncio.get_running_loop().create_future()
        stopped.addCallback(lambda result: done.set_result(None))
        await done

"""The PROXY protocol on real sockets, each test on a uvloop loop and on a plain asyncio one."""

from __future__ import annotations

import array
import asyncio
import datetime as dt
import logging
import os
import socket
import ssl as standard_ssl
import struct
import time
from typing import Any

import pytest
from twisted.internet import ssl
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol

from daphne_ng.net.context import REFUSALS_MAX
from daphne_ng.net.sockets.listening import Accepted, ListenOptions
from daphne_ng.net.sockets.prelude import ProxyProtocol
from tests.support.net import Wire, silent

LINE = b"PROXY TCP4 203.0.113.9 198.51.100.7 4321 443\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
BINARY = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + bytes(15) + b"\1" + bytes(15) + b"\2\0\7\0\x08"
CLIENT, SERVER = IPv4Address("TCP", "203.0.113.9", 4321), IPv4Address("TCP", "198.51.100.7", 443)


class Recorder(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


class Recorders(Factory):
    """Makes protocols and remembers them with the addresses that they were made for."""

    noisy = False

    def __init__(self) -> None:
        self.made: list[Recorder] = []
        self.addresses: list[Any] = []

    def buildProtocol(self, address: Any) -> Recorder:
        self.addresses.append(address)
        self.made.append(Recorder())
        return self.made[-1]

    async def first(self, enough: Any = lambda protocol: True) -> Recorder:
        await until(lambda: self.made and enough(self.made[0]))
        return self.made[0]


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.005)


class Site:
    """A port with a prelude, and clients."""

    def __init__(self, reactor: Any, trusted: str = "127.0.0.1,::1,unix", factory: Any = None, **settings: Any) -> None:
        self.reactor = reactor
        self.loop = asyncio.get_running_loop()
        self.wire = Wire(silent, forwarded_allow_ips=trusted, **settings)
        self.context = self.wire.context
        self.prelude = ProxyProtocol(self.context)
        self.factory = factory or Recorders()
        self.options = ListenOptions(prelude=self.prelude)
        self.clients: list[socket.socket] = []
        self.ports: list[Any] = []

    def tcp(self, host: str = "127.0.0.1") -> Any:
        self.ports.append(self.reactor.listenTCP(0, self.factory, interface=host, options=self.options))
        return self.ports[-1]

    def unix(self, path: Any) -> Any:
        self.ports.append(self.reactor.listenUNIX(str(path), self.factory, options=self.options))
        return self.ports[-1]

    async def client(self, sent: bytes = b"", port: Any = None) -> socket.socket:
        where = (port or (self.ports[0] if self.ports else self.tcp())).getHost()
        if isinstance(where, UNIXAddress):
            family, address = socket.AF_UNIX, where.name
        else:
            family, address = (socket.AF_INET6 if ":" in where.host else socket.AF_INET), (where.host, where.port)
        client = socket.socket(family)
        self.clients.append(client)
        client.setblocking(False)
        await self.loop.sock_connect(client, address)
        if sent:
            client.send(sent)
        return client

    async def closed(self, client: socket.socket) -> bool:
        """Wait until the other side has closed."""
        try:
            return await asyncio.wait_for(self.loop.sock_recv(client, 1), 5) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def on_site(run: Any) -> Any:
    """Run a test with a site, and close everything after it."""

    def on_site(main: Any, **options: Any) -> None:
        async def wrapped(reactor: Any) -> None:
            site = Site(reactor, **options)
            try:
                await main(site)
            finally:
                for client in site.clients:
                    client.close()
                for port in site.ports:
                    await maybeDeferred(port.stopListening).asFuture(site.loop)
            await asyncio.wait_for(until(lambda: not site.context.waiting), 5)
            assert not site.prelude.waiting

        run(wrapped)

    return on_site


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """The log so far: levels and texts."""
    caplog.set_level(logging.DEBUG, "tests.bridge")
    return lambda: [
        (record.levelname, record.getMessage()) for record in caplog.records if record.name == "tests.bridge"
    ]


# -- what a header says ------------------------------------------------------------------------------------


def test_the_ends_are_those_that_the_header_names(on_site: Any) -> None:
    async def main(site: Site) -> None:
        await site.client(LINE + b"and then")
        protocol = await site.factory.first(lambda protocol: protocol.data)
        assert protocol.data == b"and then"
        assert protocol.transport.getPeer() == CLIENT
        assert protocol.transport.getHost() == SERVER
        assert site.factory.addresses == [CLIENT]

    on_site(main)


def test_ipv6_in_the_header_on_ipv6(on_site: Any) -> None:
    async def main(site: Site) -> None:
        await site.client(BINARY, site.tcp("::1"))
        protocol = await site.factory.first()
        assert protocol.transport.getPeer() == IPv6Address("TCP", "::1", 7)
        assert protocol.transport.getHost() == IPv6Address("TCP", "::2", 8)

    on_site(main)


def test_any_family_may_be_named_on_any(on_site: Any, tmp_path: Any) -> None:
    named = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + bytes(108) + b"/run/x".ljust(108, b"\0")

    async def main(site: Site) -> None:
        await site.client(LINE + b"1", site.unix(tmp_path / "socket"))
        protocol = await site.factory.first(lambda protocol: protocol.data)
        assert protocol.data == b"1"
        assert (protocol.transport.getPeer(), protocol.transport.getHost()) == (CLIENT, SERVER)
        await site.client(named, site.tcp())
        await until(lambda: len(site.factory.made) == 2)
        transport = site.factory.made[1].transport
        assert (transport.getPeer(), transport.getHost()) == (UNIXAddress(None), UNIXAddress(b"/run/x"))

    on_site(main)


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"], ids=["LOCAL", "UNKNOWN"])
def test_a_header_that_names_nobody_leaves_the_socket_its_ends(on_site: Any, lines: Any, header: bytes) -> None:
    async def main(site: Site) -> None:
        client = await site.client(header + b"x")
        protocol = await site.factory.first(lambda protocol: protocol.data)
        assert protocol.data == b"x"
        assert (protocol.transport.getPeer().host, protocol.transport.getPeer().port) == client.getsockname()
        assert protocol.transport.getHost() == site.ports[0].getHost()
        assert lines() == []

    on_site(main, trusted="192.0.2.1")


def test_a_header_of_a_stranger_is_removed_and_not_believed(on_site: Any, lines: Any) -> None:
    async def main(site: Site) -> None:
        clients = [await site.client(LINE + b"x") for _ in range(3)]
        await until(lambda: len(site.factory.made) == 3 and all(protocol.data for protocol in site.factory.made))
        ports = {client.getsockname()[1] for client in clients}
        assert {protocol.transport.getPeer().port for protocol in site.factory.made} == ports
        assert {protocol.transport.getPeer().host for protocol in site.factory.made} == {"127.0.0.1"}
        assert {protocol.data for protocol in site.factory.made} == {b"x"}
        ((level, text),) = lines()
        assert level == "WARNING"
        assert "--forwarded-allow-ips" in text

    on_site(main, trusted="192.0.2.1,unix")


def test_who_is_trusted_is_asked_of_the_socket_and_not_of_the_header(on_site: Any) -> None:
    async def main(site: Site) -> None:
        await site.client(b"PROXY TCP4 192.0.2.1 192.0.2.1 1 2\r\n")
        assert (await site.factory.first()).transport.getPeer().host == "127.0.0.1"

    on_site(main, trusted="192.0.2.1")


@pytest.mark.parametrize(("trusted", "host"), [("unix", "203.0.113.9"), ("127.0.0.1", None), ("*", "203.0.113.9")])
def test_peers_of_unix_sockets_are_trusted_by_name(on_site: Any, tmp_path: Any, trusted: str, host: Any) -> None:
    async def main(site: Site) -> None:
        await site.client(LINE, site.unix(tmp_path / "socket"))
        assert getattr((await site.factory.first()).transport.getPeer(), "host", None) == host

    on_site(main, trusted=trusted)


# -- how it comes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [LINE, BINARY], ids=["line", "binary"])
def test_it_may_come_byte_by_byte(on_site: Any, header: bytes) -> None:
    async def main(site: Site) -> None:
        client = await site.client()
        for position in range(len(header)):
            assert not site.factory.made
            client.send(header[position : position + 1])
            await asyncio.sleep(0.001)
        client.send(b"x")
        assert (await site.factory.first(lambda protocol: protocol.data)).data == b"x"

    on_site(main)


@pytest.mark.parametrize("part", [LINE[:1], LINE[:-1], BINARY[:1], BINARY[:15], BINARY[:-1]])
def test_an_incomplete_header_does_not_keep_the_loop_busy(on_site: Any, part: bytes) -> None:
    async def main(site: Site) -> None:
        await site.client(part)
        await until(lambda: site.context.waiting)
        await asyncio.sleep(0.05)
        before = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - before < 0.15

    on_site(main)


@pytest.mark.parametrize("header", [LINE, BINARY, LOCAL, BINARY[:15] + b"\x27" + BINARY[16:] + b"\4\0\0"])
@pytest.mark.parametrize("cut", [0, 1, 5, 15, -1])
def test_not_a_byte_of_what_follows_is_taken(on_site: Any, header: bytes, cut: int) -> None:
    async def main(site: Site) -> None:
        served: list[Accepted] = []
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(header[:cut])
            site.prelude.begin(site.reactor, Accepted(ours, ""), served.append)
            assert not served
            assert site.context.waiting == 1
            theirs.send(header[cut:] + header)
            await until(lambda: served)
            assert site.context.waiting == 0
            assert ours.recv(10_000) == header

    on_site(main)


def test_a_header_that_is_there_already_costs_no_turn_of_the_loop(on_site: Any) -> None:
    async def main(site: Site) -> None:
        served: list[Accepted] = []
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(LINE)
            before = site.reactor.getReaders()
            site.prelude.begin(site.reactor, Accepted(ours, ""), served.append)
            assert [accepted.client for accepted in served] == [CLIENT]
            assert site.reactor.getReaders() == before

    on_site(main)


def test_descriptors_that_come_with_a_header_do_no_harm(on_site: Any, tmp_path: Any) -> None:
    async def main(site: Site) -> None:
        client = await site.client(LINE[:5], site.unix(tmp_path / "socket"))
        with open(os.devnull) as file:
            rights = array.array("i", [file.fileno()])
            for part in (LINE[5:9], LINE[9:] + b"x"):
                client.sendmsg([part], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        client.send(b"y")
        await site.factory.first(lambda protocol: protocol.data == b"xy")

    on_site(main)


def test_a_client_that_has_closed_its_half_is_served(on_site: Any) -> None:
    async def main(site: Site) -> None:
        client = await site.client(LINE + b"all of it")
        client.shutdown(socket.SHUT_WR)
        protocol = await site.factory.first(lambda protocol: protocol.lost)
        assert protocol.data == b"all of it"

    on_site(main)


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attempting to mutate a Context:DeprecationWarning")  # pyOpenSSL 25
def test_tls_begins_after_the_header(on_site: Any, certificate: Any) -> None:
    async def main(site: Site) -> None:
        port = site.reactor.listenSSL(0, site.factory, certificate, interface="127.0.0.1", options=site.options)
        site.ports.append(port)
        client = await site.client()
        context = standard_ssl.SSLContext(standard_ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = standard_ssl.CERT_NONE
        incoming, outgoing = standard_ssl.MemoryBIO(), standard_ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing)
        client.send(LINE[:10])
        written = LINE[10:]  # the rest goes in one packet with the first of TLS
        while not site.factory.made or not site.factory.made[0].data:
            try:
                tls.do_handshake()
                tls.write(b"secret")
            except standard_ssl.SSLWantReadError:
                pass
            written += outgoing.read()
            if written:
                client.send(written)
            written = b""
            try:
                received = client.recv(65536)
                assert received, "closed"
                incoming.write(received)
            except BlockingIOError:
                await asyncio.sleep(0.005)
        assert site.factory.made[0].data.startswith(b"secret")
        assert site.factory.made[0].transport.getPeer() == CLIENT
        assert site.factory.made[0].transport.getHost() == SERVER

    on_site(main)


@pytest.fixture(scope="module")
def certificate() -> Any:
    """A self-signed certificate, as Twisted wants it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from OpenSSL import crypto

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return ssl.CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key), certificate=crypto.X509.from_cryptography(made)
    )


# -- when it does not come ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "the connection does not begin with a PROXY protocol header"),
        (b"\x16\x03\x01", "the connection does not begin with a PROXY protocol header"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", "a PROXY line has a port above 65535"),
        (BINARY[:13] + b"\x22" + BINARY[14:], "a PROXY header speaks of datagrams"),
    ],
)
def test_anything_else_is_closed_with_one_line(on_site: Any, lines: Any, sent: bytes, reason: str) -> None:
    async def main(site: Site) -> None:
        client = await site.client(sent)
        assert await site.closed(client)
        assert not site.factory.made
        assert lines() == [("INFO", f"Closed a connection from 127.0.0.1:{client.getsockname()[1]}: {reason}")]

    on_site(main)


@pytest.mark.parametrize(("sent", "level"), [(b"", "DEBUG"), (LINE[:-1], "INFO"), (BINARY[:16], "INFO")])
@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_a_client_that_leaves_before_is_no_news_unless_it_has_begun(
    on_site: Any, lines: Any, sent: bytes, level: str, how: str
) -> None:
    async def main(site: Site) -> None:
        client = await site.client(sent)
        await until(lambda: site.context.waiting)
        await asyncio.sleep(0.02)
        if how == "half-close":
            client.shutdown(socket.SHUT_WR)
            assert await site.closed(client)
        else:
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        await until(lambda: not site.context.waiting)
        assert not site.factory.made
        assert [line[0] for line in lines()] == [level]

    on_site(main)


def test_it_must_come_in_time_counted_from_the_beginning(on_site: Any, lines: Any) -> None:
    async def main(site: Site) -> None:
        client = await site.client()
        for byte in LINE:
            try:
                client.send(bytes([byte]))
            except ConnectionError:
                break
            await asyncio.sleep(0.02)
        assert await site.closed(client)
        assert not site.factory.made
        assert lines()[0][1].endswith(": no PROXY header within 0.2 s")

    on_site(main, proxy_protocol_timeout=0.2)


def test_the_time_may_be_unlimited(on_site: Any) -> None:
    async def main(site: Site) -> None:
        client = await site.client()
        await until(lambda: site.context.waiting)
        await asyncio.sleep(0.05)
        client.send(LINE)
        await site.factory.first()

    on_site(main, proxy_protocol_timeout=0)


def test_a_connection_with_its_header_has_no_time_limit_left(on_site: Any) -> None:
    async def main(site: Site) -> None:
        await site.client(LINE[:4])
        await until(lambda: site.context.waiting)
        site.clients[0].send(LINE[4:])
        protocol = await site.factory.first()
        await asyncio.sleep(0.6)
        assert not protocol.lost

    on_site(main, proxy_protocol_timeout=0.5)


def test_a_flood_does_not_fill_the_log(on_site: Any, lines: Any) -> None:
    async def main(site: Site) -> None:
        for _ in range(40):
            assert await site.closed(await site.client(b"GET"))
        assert 20 <= [level for level, _ in lines()].count("INFO") < 30
        assert len(lines()) == 40

    on_site(main)


def test_an_error_where_the_protocol_is_made_closes_that_connection_only(on_site: Any, lines: Any) -> None:
    class Broken(Recorders):
        def buildProtocol(self, address: Any) -> Recorder:
            protocol = super().buildProtocol(address)
            if len(self.made) <= 2:
                raise RuntimeError("no")
            return protocol

    async def main(site: Site) -> None:
        assert await site.closed(await site.client(LINE))
        client = await site.client(LINE[:3])
        await until(lambda: site.context.waiting)
        client.send(LINE[3:])
        assert await site.closed(client)
        await site.client(LINE + b"x")
        await until(lambda: site.factory.made[-1].data == b"x")
        assert {level for level, _ in lines()} == {"ERROR"}

    on_site(main, factory=Broken())


# -- limits, and the end -----------------------------------------------------------------------------------


def test_those_that_wait_count_against_the_limit(on_site: Any) -> None:
    async def main(site: Site) -> None:
        site.factory = site.wire.factory
        for _ in range(2):
            await site.client()
        await until(lambda: site.context.waiting == 2)
        assert site.context.full
        refused = await site.client(LINE)
        assert (await site.loop.sock_recv(refused, 100)).startswith(b"HTTP/1.1 503 ")
        refused.close()
        await until(lambda: not site.context.refusing)
        site.clients[0].close()
        await until(lambda: site.context.waiting == 1)
        assert not site.context.full
        await site.client(LINE)
        await until(lambda: len(site.context.connections) == 1)
        assert site.context.full
        for connection in list(site.context.connections):
            connection.abort()
        await until(lambda: not site.context.connections)

    on_site(main, limit_connections=2)


def test_silent_connections_are_bounded(on_site: Any, lines: Any) -> None:
    async def main(site: Site) -> None:
        for _ in range(1 + REFUSALS_MAX):
            await site.client()
        await until(lambda: site.context.waiting == 1 + REFUSALS_MAX)
        assert await site.closed(await site.client())
        assert site.context.waiting == 1 + REFUSALS_MAX
        assert lines()[-1][1].endswith(": the server is at its limit of connections")

    on_site(main, limit_connections=1)


@pytest.mark.parametrize("patience", [0.0, 0.2])
def test_a_port_that_stops_closes_its_own_that_have_not_begun(on_site: Any, tmp_path: Any, patience: float) -> None:
    async def main(site: Site) -> None:
        first, second, third = site.tcp(), site.tcp(), site.unix(tmp_path / "socket")
        clients = [await site.client(LINE[:3], port) for port in (first, second, third)]
        await until(lambda: site.context.waiting == 3)
        began = site.loop.time()
        for port, client in ((first, clients[0]), (third, clients[2])):
            await port.stopListening().asFuture(site.loop)
            assert await site.closed(client)
        assert site.loop.time() - began >= 2 * patience - 0.01  # a clock of milliseconds
        assert site.context.waiting == 1
        clients[1].send(LINE[3:] + b"x")
        assert (await site.factory.first(lambda protocol: protocol.data)).data == b"x"
        assert len(site.factory.made) == 1

    on_site(main, shutdown_idle_timeout=patience)


def test_a_header_that_comes_after_the_port_has_stopped_is_in_time(on_site: Any) -> None:
    async def main(site: Site) -> None:
        port = site.tcp()
        client = await site.client(LINE[:3])
        await until(lambda: site.context.waiting)
        await port.stopListening().asFuture(site.loop)
        everybody = asyncio.ensure_future(site.context.wait_closed(5))
        client.send(LINE[3:] + b"x")
        served = await site.factory.first(lambda protocol: protocol.data)
        assert (served.data, served.transport.getPeer()) == (b"x", CLIENT)
        assert await everybody  # the test's protocol is none that the context knows

    on_site(main)


def test_the_time_that_is_left_is_never_made_longer(on_site: Any) -> None:
    async def main(site: Site) -> None:
        port = site.tcp()
        client = await site.client(LINE[:3])
        await until(lambda: site.context.waiting)
        await port.stopListening().asFuture(site.loop)
        began = site.loop.time()
        assert await site.closed(client)
        assert site.loop.time() - began < 2

    on_site(main, proxy_protocol_timeout=0.2, shutdown_idle_timeout=4.0)


def test_a_reactor_that_stops_disconnects_those_that_wait(run: Any) -> None:
    async def main(reactor: Any) -> None:
        site = Site(reactor)
        client = await site.client(LINE[:3])
        await until(lambda: site.context.waiting)
        await reactor.detach()
        assert site.context.waiting == 0
        assert await site.closed(client)
        client.close()

    run(main)

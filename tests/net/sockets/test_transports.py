"""Our transports and ports on real sockets, each test on a uvloop loop and on a plain asyncio one."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import gc
import os
import socket
import ssl as standard_ssl
import stat
import struct
import weakref
from typing import Any

import pytest
from twisted.internet import interfaces, ssl
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from daphne_ng.net.sockets.ports import TCPPort, UNIXPort
from daphne_ng.net.sockets.transports import TCPServer, UNIXServer

MANY = 8 * 1024 * 1024  # bytes; more than the kernel buffers of a loopback connection take


class Recorder(Protocol):
    """Records what happens to it; futures tell when."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.made = loop.create_future()
        self.lost = loop.create_future()
        self.data = b""
        self.events: list[str] = []

    def connectionMade(self) -> None:
        self.made.set_result(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.events.append("data")

    def connectionLost(self, reason: Any = None) -> None:
        self.events.append("lost")
        self.lost.set_result(reason.value)


@implementer(interfaces.IPushProducer)
class Producer:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.resumed = asyncio.get_running_loop().create_future()

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")
        if not self.resumed.done():
            self.resumed.set_result(None)

    def stopProducing(self) -> None:
        self.events.append("stop")


def factory_of(protocol: Any) -> Any:
    factory = Factory()
    factory.noisy = False
    factory.buildProtocol = lambda address: protocol  # type: ignore[method-assign]
    return factory


clients: list[socket.socket] = []


@pytest.fixture(autouse=True)
def close_clients():
    yield
    while clients:
        clients.pop().close()


def client_of(port: Any) -> socket.socket:
    """Connect, blocking, to a port on loopback."""
    client = socket.create_connection(("127.0.0.1", port.getHost().port))
    clients.append(client)
    return client


class Connection:
    """A client socket and the protocol that serves it."""

    def __init__(self, client: socket.socket, server: Any) -> None:
        clients.append(client)
        self.client = client
        self.client.setblocking(False)
        self.server = server
        self.transport = server.transport

    async def receive(self, total: int) -> bytes:
        loop = asyncio.get_running_loop()
        received = bytearray()
        while len(received) < total:
            data = await loop.sock_recv(self.client, 1 << 20)
            if not data:
                break
            received += data
        return bytes(received)

    async def receive_all(self) -> bytes:
        return await self.receive(1 << 40)

    def reset(self) -> None:
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()


async def connect(reactor: Any, protocol: Any = None, family: int = socket.AF_INET) -> Connection:
    """Listen, connect one client, and hand both ends over."""
    protocol = protocol or Recorder()
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    port = reactor.listenTCP(0, factory_of(protocol), interface=host)
    client = socket.socket(family)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (host, port.getHost().port))
    await protocol.made
    port.stopListening()
    return Connection(client, protocol)


def pair(reactor: Any, protocol: Any, transport_class: Any = UNIXServer) -> Connection:
    """A connected socket pair, one end under our UNIX transport."""
    ours, theirs = socket.socketpair()
    protocol.makeConnection(transport_class(ours, protocol, None, None, 0, reactor))
    return Connection(theirs, protocol)


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- writing


def test_a_write_with_nothing_buffered_is_on_the_wire_before_it_returns(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.write(b"at once")
        assert connection.client.recv(100) == b"at once"
        assert connection.transport not in reactor.getWriters()
        assert connection.transport.unsent_bytes == 0

    run(main)


def test_what_the_kernel_does_not_take_is_buffered_and_arrives_in_order(run):
    async def main(reactor):
        connection = await connect(reactor)
        body = os.urandom(1024) * (MANY // 1024)
        connection.transport.write(body)
        unsent = connection.transport.unsent_bytes
        assert 0 < unsent < MANY
        connection.transport.write(b"second")
        connection.transport.writeSequence([b"th", b"", b"ird"])
        assert connection.transport.unsent_bytes == unsent + 11
        assert await connection.receive(MANY + 11) == body + b"secondthird"
        await turns()
        assert connection.transport.unsent_bytes == 0
        assert connection.transport not in reactor.getWriters()
        connection.transport.write(b"direct again")
        assert connection.client.recv(100) == b"direct again"

    run(main)


def test_the_rest_of_a_large_write_is_not_copied(run):
    async def main(reactor):
        connection = await connect(reactor)
        body = bytes(MANY)
        connection.transport.write(body)
        assert connection.transport.dataBuffer is body
        connection.reset()

    run(main)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1024) * (MANY // 1024))
    with path.open("rb") as opened:
        yield opened


def test_a_file_is_sent_as_far_as_the_kernel_takes_it(run, file):
    async def main(reactor):
        connection = await connect(reactor)
        producer = Producer()
        transport = connection.transport
        transport.registerProducer(producer, True)
        transport.write(b"head")
        offset = 0
        while sent := transport.send_file(file.fileno(), offset, MANY - offset):
            offset += sent
        assert 0 < offset < MANY
        assert producer.events == ["pause"]
        assert transport.unsent_bytes == 0
        transport.write(b"|")  # behind the file, though nothing is buffered
        body = file.read()
        assert await connection.receive(4 + offset + 1) == b"head" + body[:offset] + b"|"
        await producer.resumed
        assert transport not in reactor.getWriters()
        assert transport.send_file(file.fileno(), 10, 5) == 5
        assert await connection.receive(5) == body[10:15]
        connection.reset()

    run(main)


def test_a_file_waits_for_what_was_written_before(run, file):
    async def main(reactor):
        connection = await connect(reactor)
        producer = Producer()
        transport = connection.transport
        transport.registerProducer(producer, True)
        transport.write(bytes(MANY))
        assert transport.send_file(file.fileno(), 0, 5) == 0
        await connection.receive(MANY)
        await producer.resumed
        assert transport.send_file(file.fileno(), 0, 5) == 5
        connection.reset()

    run(main)


def test_a_file_that_cannot_be_sent_is_for_its_reader(run, file):
    async def main(reactor):
        connection = await connect(reactor)
        transport = connection.transport
        assert transport.send_file(file.fileno(), 0, 5) == -1  # nobody would be told to go on
        transport.registerProducer(Producer(), True)
        assert transport.send_file(file.fileno(), MANY, 5) == -1  # the end of the file
        read, write = os.pipe()
        assert transport.send_file(read, 0, 5) == -1
        os.close(read)
        os.close(write)
        transport.TLS = True
        assert transport.send_file(file.fileno(), 0, 5) == -1
        transport.TLS = False
        assert transport.send_file(file.fileno(), 0, 5) == 5
        transport.unregisterProducer()
        transport.loseConnection()
        assert transport.send_file(file.fileno(), 0, 5) == -1
        assert await connection.receive_all() == file.read(5)

    run(main)


def test_a_file_for_a_client_that_has_left_loses_the_connection(run, file):
    async def main(reactor):
        connection = await connect(reactor)
        transport = connection.transport
        transport.registerProducer(Producer(), True)
        connection.reset()
        while transport.send_file(file.fileno(), 0, 5) > 0:
            pass
        assert isinstance(await connection.server.lost, ConnectionLost)
        assert transport.send_file(file.fileno(), 0, 5) == -1

    run(main)


@pytest.mark.parametrize("data", ["text", bytearray(b"x"), memoryview(b"x"), None])
def test_only_bytes_are_written(run, data):
    async def main(reactor):
        connection = await connect(reactor)
        with pytest.raises(TypeError):
            connection.transport.write(data)
        with pytest.raises(TypeError):
            connection.transport.writeSequence([b"ok", data])
        connection.transport.write(b"")
        connection.transport.writeSequence([])
        connection.transport.writeSequence([b"", b""])
        with pytest.raises(BlockingIOError):
            connection.client.recv(1)

    run(main)


@pytest.mark.parametrize(
    "chunks",
    [
        [b"a", b"b", b"c"],
        [b"x" * 20_000, b"y" * 20_000, b"z"],
        [b"%d," % n * 20 for n in range(3000)],
        [b"head", bytes(MANY), b"tail" * 5000],
        [b"p" * 70_000] * 200,
    ],
    ids=["small", "gathered", "more than IOV_MAX", "large in the middle", "several partial"],
)
def test_a_sequence_arrives_whole_and_in_order(run, chunks):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.writeSequence(iter(chunks))
        expected = b"".join(chunks)
        assert await connection.receive(len(expected)) == expected

    run(main)


class RefusingSocket:
    """Stands before a socket: its send fails."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, data: Any) -> int:
        raise OSError(self.number, os.strerror(self.number))


def test_a_refused_send_loses_the_connection_on_the_next_turn_and_only_once(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport._send = RefusingSocket(errno.EPIPE)
        connection.transport.write(b"never")
        connection.transport.write(b"dropped")
        connection.transport.writeSequence([b"dropped", b"too"])
        connection.transport.loseConnection()
        assert connection.server.events == []
        assert isinstance(await connection.server.lost, ConnectionLost)
        assert connection.server.events == ["lost"]

    run(main)


def test_a_send_to_a_peer_that_reset_loses_the_connection_uncleanly(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.pauseProducing()  # so that only the write can see it
        connection.reset()
        await asyncio.sleep(0.05)
        connection.transport.write(b"into the void")
        assert connection.server.events == []
        assert isinstance(await connection.server.lost, ConnectionLost)

    run(main)


def test_no_buffer_space_is_waited_for_and_not_an_error(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport._send = RefusingSocket(errno.ENOBUFS)
        connection.transport.write(b"later")
        assert connection.transport.unsent_bytes == 5
        assert await connection.receive(5) == b"later"

    run(main)


def test_a_refused_gathered_send_loses_the_connection_on_the_next_turn(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.pauseProducing()
        connection.reset()
        await asyncio.sleep(0.05)
        connection.transport.writeSequence([b"x" * 20_000, b"y" * 20_000])
        assert connection.server.events == []
        assert isinstance(await connection.server.lost, ConnectionLost)

    run(main)


# -- producers


def test_a_streaming_producer_is_paused_above_the_mark_and_resumed_when_drained(run):
    async def main(reactor):
        connection = await connect(reactor)
        producer = Producer()
        connection.transport.registerProducer(producer, True)
        connection.transport.write(b"small")
        assert producer.events == []
        connection.transport.write(bytes(MANY))
        assert producer.events == ["pause"]
        await connection.receive(MANY + 5)
        await producer.resumed
        assert producer.events == ["pause", "resume"]
        assert connection.transport.unsent_bytes == 0
        connection.transport.write(b"direct")
        assert connection.client.recv(100) == b"direct"
        connection.transport.unregisterProducer()

    run(main)


def test_what_was_sent_already_does_not_count_against_the_mark(run):
    async def main(reactor):
        connection = await connect(reactor)
        producer = Producer()
        connection.transport.registerProducer(producer, True)
        connection.transport._send = lambda data: len(data) - 10
        connection.transport.write(bytes(100_000))
        assert connection.transport.unsent_bytes == 10
        assert producer.events == []

    run(main)


def test_a_pull_producer_is_asked_again_after_every_write(run):
    @implementer(interfaces.IPullProducer)
    class Pulled:
        left = 5

        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def resumeProducing(self) -> None:
            self.transport.write(b"%d" % self.left)
            self.left -= 1
            if not self.left:
                self.transport.unregisterProducer()
                self.transport.loseConnection()

        def stopProducing(self) -> None:
            pass

    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.registerProducer(Pulled(connection.transport), False)
        assert await connection.receive_all() == b"54321"
        assert isinstance(await connection.server.lost, ConnectionDone)

    run(main)


def test_a_producer_is_stopped_when_the_connection_is_lost(run):
    async def main(reactor):
        connection = await connect(reactor)
        producer = Producer()
        connection.transport.registerProducer(producer, True)
        connection.client.close()
        await connection.server.lost
        assert producer.events == ["stop"]

    run(main)


def test_stop_consuming_drops_the_producer_and_closes(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.registerProducer(Producer(), True)
        connection.transport.write(b"last")
        connection.transport.stopConsuming()
        assert await connection.receive_all() == b"last"
        assert isinstance(await connection.server.lost, ConnectionDone)

    run(main)


def test_an_exception_in_resume_producing_is_logged_once_and_loses_the_connection(run, failures):
    class Broken(Producer):
        def resumeProducing(self) -> None:
            raise ZeroDivisionError

    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.registerProducer(Broken(), True)
        connection.transport.write(bytes(MANY))
        with contextlib.suppress(OSError):
            await connection.receive_all()
        assert isinstance(await connection.server.lost, ZeroDivisionError)
        assert len(failures) == 1

    run(main)


# -- closing


def test_lose_connection_with_nothing_buffered_is_not_synchronous(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.loseConnection()
        assert connection.server.events == []
        assert isinstance(await connection.server.lost, ConnectionDone)
        assert await connection.receive_all() == b""
        connection.transport.write(b"after the end")
        connection.transport.writeSequence([b"after", b"the end"])
        connection.transport.loseConnection()
        connection.transport.abortConnection()
        await turns()
        assert connection.server.events == ["lost"]
        assert connection.transport.unsent_bytes == 0

    run(main)


def test_lose_connection_flushes_what_is_buffered_first(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.write(bytes(MANY))
        connection.transport.loseConnection()
        connection.transport.write(b"written while closing")  # stock Twisted delivers this too
        assert len(await connection.receive_all()) == MANY + 21
        assert isinstance(await connection.server.lost, ConnectionDone)

    run(main)


def test_what_is_written_in_the_turn_of_lose_connection_is_flushed(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.loseConnection()
        connection.transport.write(b"written while closing")
        assert await connection.receive_all() == b"written while closing"
        assert isinstance(await connection.server.lost, ConnectionDone)
        assert connection.server.events == ["lost"]

    run(main)


def test_abort_in_the_turn_of_lose_connection_resets(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.loseConnection()
        connection.transport.abortConnection()
        assert isinstance(await connection.server.lost, ConnectionAborted)
        with pytest.raises(ConnectionResetError):
            await connection.receive_all()

    run(main)


def test_abort_drops_what_is_buffered_and_resets(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.transport.write(bytes(MANY))
        connection.transport.abortConnection()
        connection.transport.write(b"dropped")
        connection.transport.resumeProducing()  # must not read again
        assert connection.transport not in reactor.getReaders()
        assert connection.server.events == []
        assert isinstance(await connection.server.lost, ConnectionAborted)
        with pytest.raises(ConnectionResetError):
            await connection.receive_all()

    run(main)


def test_half_close_flushes_tells_the_protocol_and_goes_on_reading(run):
    @implementer(interfaces.IHalfCloseableProtocol)
    class HalfClosing(Recorder):
        def readConnectionLost(self) -> None:
            self.events.append("read lost")
            self.transport.loseConnection()

        def writeConnectionLost(self) -> None:
            self.events.append("write lost")

    async def main(reactor):
        connection = await connect(reactor, HalfClosing())
        connection.transport.write(bytes(MANY))
        connection.transport.loseWriteConnection()
        assert len(await connection.receive_all()) == MANY
        connection.client.send(b"still heard")
        connection.client.shutdown(socket.SHUT_WR)
        assert isinstance(await connection.server.lost, ConnectionDone)
        assert connection.server.data == b"still heard"
        assert connection.server.events == ["write lost", "data", "read lost", "lost"]

    run(main)


def test_an_end_of_file_that_the_protocol_can_stand_leaves_the_write_side_open(run):
    @implementer(interfaces.IHalfCloseableProtocol)
    class Answering(Recorder):
        def readConnectionLost(self) -> None:
            self.transport.write(b"answer")
            self.transport.loseConnection()

        def writeConnectionLost(self) -> None: ...

    async def main(reactor):
        connection = await connect(reactor, Answering())
        connection.client.shutdown(socket.SHUT_WR)
        assert await connection.receive_all() == b"answer"
        assert isinstance(await connection.server.lost, ConnectionDone)

    run(main)


# -- reading


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_an_exception_in_data_received_is_logged_once_and_loses_the_connection(run, failures, kind):
    class Broken(Recorder):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError

    async def main(reactor):
        connection = await connect(reactor, Broken()) if kind == "tcp" else pair(reactor, Broken())
        connection.client.send(b"boom")
        assert isinstance(await connection.server.lost, ZeroDivisionError)
        await turns()
        assert [failure.type for failure in failures] == [ZeroDivisionError]
        assert connection.transport not in reactor.getReaders()

    run(main)


def test_an_exception_after_the_transport_was_aborted_is_logged_and_loses_it_once(run, failures):
    class Broken(Recorder):
        def dataReceived(self, data: bytes) -> None:
            self.transport.abortConnection()
            raise ZeroDivisionError

    async def main(reactor):
        connection = await connect(reactor, Broken())
        connection.client.send(b"boom")
        await connection.server.lost
        await turns()
        assert connection.server.events == ["lost"]
        assert len(failures) == 1

    run(main)


def test_an_exception_in_connection_lost_is_logged_and_stops_nothing(run, failures):
    class Broken(Recorder):
        def connectionLost(self, reason: Any = None) -> None:
            super().connectionLost(reason)
            raise ZeroDivisionError

    async def main(reactor):
        connection = await connect(reactor, Broken())
        connection.client.close()
        await connection.server.lost
        await turns()
        assert len(failures) == 1

    run(main)


@pytest.mark.parametrize("action", ["loseConnection", "abortConnection"])
def test_nothing_is_delivered_after_the_protocol_closed_in_data_received(run, action):
    class Closing(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            getattr(self.transport, action)()

    async def main(reactor):
        connection = await connect(reactor, Closing())
        connection.client.send(b"x" * 200_000)
        await connection.server.lost
        assert connection.server.events == ["data", "lost"]

    run(main)


def test_a_protocol_that_pauses_in_data_received_gets_the_rest_after_it_resumed(run):
    class Pausing(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.pauseProducing()

    async def main(reactor):
        connection = await connect(reactor, Pausing())
        connection.client.send(b"one")
        await asyncio.sleep(0.02)
        connection.client.send(b"two")
        await asyncio.sleep(0.02)
        assert connection.server.data == b"one"
        connection.transport.resumeProducing()
        await asyncio.sleep(0.02)
        assert connection.server.data == b"onetwo"
        # Paused again, so it is not among the readers that detaching disconnects.
        connection.transport.abortConnection()
        await connection.server.lost

    run(main)


def test_a_reset_is_an_unclean_loss(run):
    async def main(reactor):
        connection = await connect(reactor)
        connection.reset()
        assert isinstance(await connection.server.lost, ConnectionLost)

    run(main)


def test_a_reset_behind_data_is_seen_although_uvloop_stops_watching(run):
    class SlowToStart(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            # Data and reset are both there before the loop looks at the socket.
            self.client.send(b"last words")
            Connection(self.client, self).reset()

    async def main(reactor):
        reactor.dead_poll_sweep_seconds = 0.05
        protocol = SlowToStart()
        port = reactor.listenTCP(0, factory_of(protocol), interface="127.0.0.1")
        protocol.client = client_of(port)
        if reactor._sweep_timer is not None:  # it runs already, with the long interval
            reactor._sweep_timer.cancel()
            reactor._sweep()
        assert isinstance(await protocol.lost, ConnectionLost)
        assert protocol.data == b"last words"

    run(main)


def test_a_lost_transport_is_freed(run):
    async def main(reactor):
        connection = await connect(reactor)
        reference = weakref.ref(connection.transport)
        connection.client.close()
        await connection.server.lost
        await turns()
        connection.server.transport = connection.server = connection.transport = None
        gc.collect()
        assert reference() is None

    run(main)


# -- ports


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_an_accepted_connection_has_our_transport_its_addresses_and_options(run, family):
    async def main(reactor):
        try:
            connection = await connect(reactor, family=family)
        except Exception as refusal:
            if family == socket.AF_INET6 and "listen" in str(refusal):
                pytest.skip("no IPv6 here")
            raise
        transport = connection.transport
        assert type(transport) is TCPServer
        assert (transport.getPeer().host, transport.getPeer().port) == connection.client.getsockname()[:2]
        assert (transport.getHost().host, transport.getHost().port) == connection.client.getpeername()[:2]
        assert transport.getHost() is transport.getHost()
        assert transport.getTcpNoDelay()
        assert transport.getTcpKeepAlive()
        connection.client.close()
        await connection.server.lost
        transport.getHost()

    run(main)


def test_many_clients_are_accepted_in_one_turn_or_one_by_one(run):
    async def main(reactor):
        made: list[Any] = []

        class Counting(Protocol):
            def connectionMade(self) -> None:
                made.append(self.transport)

        port = reactor.listenTCP(0, Factory.forProtocol(Counting), interface="127.0.0.1")
        for _ in range(30):
            client_of(port)
        port.doRead()
        assert len(made) == 30
        port.accepts_per_turn = 1
        client_of(port)
        client_of(port)
        port.doRead()
        assert len(made) == 31

    run(main)


def test_a_protocol_that_fails_while_it_is_connected_costs_its_connection_only(run, failures):
    # Its transport is watched by then. Closed under uvloop, its descriptor's next user would have ended the process.
    class Failing(Protocol):
        def connectionMade(self) -> None:
            raise ZeroDivisionError

    async def main(reactor):
        last = Recorder()
        answers: list[Any] = [*(Failing() for _ in range(5)), last]
        factory = Factory()
        factory.buildProtocol = lambda address: answers.pop(0)  # type: ignore[method-assign]
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        for _ in range(5):
            failed = client_of(port)
            await asyncio.sleep(0.01)
            assert failed.recv(1) == b""
            failed.close()
        client = client_of(port)
        await last.made
        client.send(b"hello")
        while last.data != b"hello":
            await asyncio.sleep(0.001)
        assert not [
            reader for reader in reactor.getReaders() if isinstance(reader, TCPServer) and reader != last.transport
        ]
        assert len(failures) == 5

    run(main)


def test_a_factory_that_fails_or_refuses_costs_its_connection_only(run, failures):
    async def main(reactor):
        answers: list[Any] = [ZeroDivisionError(), None, Recorder()]
        factory = Factory()

        def build(address: Any) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        factory.buildProtocol = build  # type: ignore[method-assign]
        last = answers[-1]
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        failed, refused, _ = client_of(port), client_of(port), client_of(port)
        await last.made
        assert (failed.recv(1), refused.recv(1)) == (b"", b"")
        assert len(failures) == 1

    run(main)


def test_an_adopted_tcp_port_keeps_listening_elsewhere_after_it_was_stopped(run):
    async def main(reactor):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            protocol = Recorder()
            port = reactor.adoptStreamPort(listener.fileno(), socket.AF_INET, factory_of(protocol))
            assert type(port) is TCPPort
            with socket.create_connection(listener.getsockname()):
                transport = await protocol.made
                assert transport.getTcpNoDelay()
                assert transport.getTcpKeepAlive()
            await port.stopListening().asFuture(asyncio.get_running_loop())
            # shutdown() would have ended it for every holder.
            with socket.create_connection(listener.getsockname()):
                assert listener.accept()[0].close() is None

    run(main)


def test_an_adopted_connection_has_our_transport(run):
    async def main(reactor):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            protocol = Recorder()
            transport = reactor.adoptStreamConnection(accepted.fileno(), socket.AF_INET, factory_of(protocol))
            accepted.close()
            assert type(transport) is TCPServer
            transport.write(b"adopted")
            assert client.recv(100) == b"adopted"
            client.close()
            await protocol.lost

    run(main)


# -- UNIX


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "s")


def test_a_unix_port_serves_with_our_transport_and_removes_its_file(run, path):
    async def main(reactor):
        protocol = Recorder()
        port = reactor.listenUNIX(path, factory_of(protocol), mode=0o600)
        assert type(port) is UNIXPort
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            transport = await protocol.made
            assert type(transport) is UNIXServer
            transport.write(b"at once")
            assert client.recv(100) == b"at once"
            assert os.fspath(transport.getHost().name) == os.fsencode(path)
        assert isinstance(await protocol.lost, ConnectionDone)
        await port.stopListening().asFuture(asyncio.get_running_loop())
        assert not os.path.exists(path)

    run(main)


def test_a_unix_port_stops_cleanly_when_its_file_is_gone_and_leaves_that_of_a_successor(run, path):
    async def main(reactor):
        for successor in (False, True):
            port = reactor.listenUNIX(path, factory_of(None))
            os.unlink(path)
            if successor:
                reactor.listenUNIX(path, factory_of(None))
            await port.stopListening().asFuture(asyncio.get_running_loop())
            assert os.path.exists(path) is successor

    run(main)


def test_an_adopted_unix_port_leaves_the_file_its_mode_and_its_backlog_alone(run, path):
    async def main(reactor):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            os.chmod(path, 0o640)
            listener.listen(2)
            protocol = Recorder()
            port = reactor.adoptStreamPort(listener.fileno(), socket.AF_UNIX, factory_of(protocol))
            assert type(port) is UNIXPort
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
            port.stopReading()
            with pytest.raises(BlockingIOError):
                for _ in range(10):
                    clients.append(socket.socket(socket.AF_UNIX))
                    clients[-1].setblocking(False)
                    clients[-1].connect(path)
            assert len(clients) == 4  # a backlog of 2 holds 3
            await port.stopListening().asFuture(asyncio.get_running_loop())
            assert os.path.exists(path)
            with socket.socket(socket.AF_UNIX) as client:
                # Still listening, so not shut down: the queue holds the three from before.
                client.setblocking(False)
                with pytest.raises(BlockingIOError):
                    client.connect(path)

    if os.uname().sysname != "Linux":
        pytest.skip("counts on how Linux counts a backlog")
    run(main)


def test_descriptors_are_passed_both_ways(run):
    @implementer(interfaces.IFileDescriptorReceiver)
    class Receiving(Recorder):
        def fileDescriptorReceived(self, fd: int) -> None:
            self.events.append("descriptor")
            os.close(fd)

    async def main(reactor):
        connection = pair(reactor, Receiving())
        reading, writing = os.pipe()
        connection.transport.write(b"before")
        connection.transport.sendFileDescriptor(writing)
        connection.transport.write(b"with")
        await asyncio.sleep(0.02)
        assert connection.client.recv(6) == b"before"
        data, descriptors, _, _ = socket.recv_fds(connection.client, 100, 4)
        if len(data) < 4:
            data += connection.client.recv(100)
        assert data == b"with"
        os.write(descriptors[0], b"through")
        assert os.read(reading, 100) == b"through"
        connection.transport.write(b"direct")
        assert connection.client.recv(100) == b"direct"
        socket.send_fds(connection.client, [b"x"], [writing])
        await asyncio.sleep(0.02)
        assert connection.server.events == ["descriptor", "data"]
        for fd in (reading, writing, *descriptors):
            os.close(fd)

    run(main)


def test_descriptors_that_nobody_wants_are_closed(run):
    async def main(reactor):
        connection = pair(reactor, Recorder())
        reading, writing = os.pipe()
        connection.client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))])
        os.close(writing)
        await asyncio.sleep(0.02)
        assert connection.server.data == b"x"
        assert os.read(reading, 1) == b""  # every copy of the other end is closed
        os.close(reading)

    run(main)


# -- TLS


@pytest.fixture(scope="module")
def certificate() -> Any:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from OpenSSL import crypto

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return ssl.CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key), certificate=crypto.X509.from_cryptography(made)
    )


class Client(Recorder):
    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(b"hello")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_ports_and_clients_work_without_the_global_reactor(run, certificate):
    async def main(reactor):
        server = Recorder()
        port = reactor.listenSSL(0, factory_of(server), certificate, interface="127.0.0.1")
        assert type(port) is TCPPort
        client = Client()
        client_factory = factory_of(client)
        for name in ("startedConnecting", "clientConnectionLost", "clientConnectionFailed"):
            setattr(client_factory, name, lambda *args: None)
        reactor.connectSSL("127.0.0.1", port.getHost().port, client_factory, ssl.CertificateOptions())
        transport = await server.made
        while server.data != b"hello":
            await asyncio.sleep(0.001)
        transport.write(bytes(MANY))
        transport.loseConnection()
        assert isinstance(await client.lost, ConnectionDone)
        assert len(client.data) == MANY
        await server.lost

    run(main)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_can_start_on_a_live_connection(run, certificate):
    class Starting(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            if data == b"STARTTLS":
                self.transport.write(b"go")
                self.transport.startTLS(certificate)
                assert interfaces.ISSLTransport.providedBy(self.transport)
            else:
                self.transport.writeSequence([b"en", b"crypted"])
                self.transport.loseConnection()

    async def main(reactor):
        connection = await connect(reactor, Starting())
        connection.client.send(b"STARTTLS")
        assert await connection.receive(2) == b"go"
        context = standard_ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = standard_ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(sock=connection.client, ssl=context, server_hostname="localhost")
        writer.write(b"ciphered")
        assert await reader.read() == b"encrypted"
        writer.close()
        with contextlib.suppress(Exception):
            await writer.wait_closed()
        await connection.server.lost
        assert connection.server.data == b"STARTTLSciphered"

    run(main)

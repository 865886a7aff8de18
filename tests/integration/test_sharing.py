"""`daphne_ng.net.sockets.sharing`: sockets are made once, and taken over call by call, whatever the endpoint string.

A supervisor and a worker in one process: `SharedSockets` makes the sockets, duplicates stand for what a process inherits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.internet.protocol import Factory
from twisted.plugin import IPlugin
from zope.interface import implementer

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError, EndpointError
from daphne_ng.net.reactor import DaphneReactor
from daphne_ng.net.sockets.listening import ListenOptions
from daphne_ng.net.sockets.sharing import RecordingReactor, ReplayingReactor, SharedSocket
from daphne_ng.server import Server
from daphne_ng.serving.hooks import ServerHooks
from daphne_ng.supervisor.sockets import SharedSockets

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX alone has workers"),
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),
]
HOST = "127.0.0.1"


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise ValueError("it has none")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dng") as path:
        monkeypatch.chdir(path)
        yield Path(path)


class Worker:
    """Takes over what `SharedSockets` has made, in a thread."""

    def __init__(self, endpoints: list[str], shared: list[SharedSocket], config: Config) -> None:
        inherited = [
            SharedSocket(os.dup(one.fileno) if one.fileno >= 0 else -1, one.family, one.port, one.inherited)
            for one in shared
        ]
        server = Server(application, endpoints, config=config)
        server.hooks = ServerHooks(sockets=inherited)
        self._running = server.run_in_thread()
        self.server = self._running.__enter__()
        self.ports = list(server.listeners)

    def close(self) -> None:
        self._running.__exit__(None, None, None)


def shared_by(endpoints: list[str], **settings: Any) -> tuple[SharedSockets, Worker]:
    config = Config(shutdown_idle_timeout=0.1, forwarded_allow_ips="*", **settings)
    sockets = SharedSockets(endpoints, config)
    return sockets, Worker(endpoints, sockets.shared, config)


def knock(address: Any, before: bytes = b"") -> socket.socket:
    """Send a request, and return the connection."""
    client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    client.settimeout(5)
    try:
        client.connect(address)
        client.sendall(before + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    except BaseException:
        client.close()
        raise
    return client


def answered(client: socket.socket) -> bool:
    with client:
        return client.recv(65536).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "endpoint", [f"tcp:0:interface={HOST}", f"haproxy:tcp:0:interface={HOST}", "unix:s", "haproxy:unix:s"]
)
def test_a_socket_is_made_once_and_taken_over(short: Path, endpoint: str) -> None:
    sockets, worker = shared_by([endpoint])
    try:
        [one] = sockets.shared
        [address] = sockets._recorder.addresses()
        where = (address.host, address.port) if hasattr(address, "port") else address.name.decode()
        assert worker.ports[0].socket.getsockname() == where
        assert worker.ports[0].accepts_per_turn == 1
        assert (one.inherited, worker.ports[0].inherited, worker.ports[0].leaves_queue) == (False, False, True)
        header = b"PROXY UNKNOWN\r\n" if endpoint.startswith("haproxy") else b""
        assert answered(knock(where, header))
    finally:
        worker.close()
        sockets.close()
    assert not (short / "s").exists()


@pytest.mark.parametrize(
    "prefix", ["ssl:0:privateKey={pem}:certKey={pem}", "haproxy:ssl:0:privateKey={pem}:certKey={pem}"]
)
def test_certificates_are_read_where_they_are_used(short: Path, pem: Path, prefix: str) -> None:
    sockets, worker = shared_by([prefix.format(pem=pem) + f":interface={HOST}"])
    try:
        assert worker.ports[0].options.tls is not None
        assert (worker.ports[0].options.prelude is not None) is prefix.startswith("haproxy")
        assert len(sockets.shared) == 1
    finally:
        worker.close()
        sockets.close()


@pytest.mark.parametrize(
    "endpoint", ["tls:tcp:0:interface=127.0.0.1", "haproxy:tls:tcp:0:interface=127.0.0.1", "tls:unix:s"]
)
def test_tls_of_the_settings_is_the_workers_concern(short: Path, pem: Path, endpoint: str) -> None:
    sockets, worker = shared_by([endpoint], ssl_certfile=str(pem), ssl_keyfile=str(pem))
    try:
        assert worker.ports[0].options.tls is not None
    finally:
        worker.close()
        sockets.close()


@pytest.mark.parametrize("form", ["fd:fileno={}", "fd:{}"])
def test_an_inherited_socket_is_handed_down_in_adopted_form(short: Path, form: str) -> None:
    with socket.create_server((HOST, 0)) as listener:
        sockets, worker = shared_by([form.format(os.dup(listener.fileno()))])
        try:
            assert sockets.shared[0].inherited
            assert worker.ports[0].inherited
            assert answered(knock(listener.getsockname()))
        finally:
            worker.close()
            sockets.close()
        # It listens on: nothing was shut down.
        knock(listener.getsockname()).close()


def test_several_endpoints_are_told_apart_by_their_order(short: Path) -> None:
    endpoints = ["unix:a", f"tcp:0:interface={HOST}", f"haproxy:tcp:0:interface={HOST}", "unix:b"]
    sockets, worker = shared_by(endpoints)
    try:
        names = [port.socket.getsockname() for port in worker.ports]
        assert (names[0], names[3]) == ("a", "b")
        assert names[1] != names[2]
        assert worker.ports[2].options.prelude is not None
    finally:
        worker.close()
        sockets.close()


def test_who_waits_is_left_to_the_others_and_the_supervisor_takes_nobody(short: Path) -> None:
    sockets, worker = shared_by(["unix:s"])
    worker.close()
    client = knock("s")
    other = Worker(["unix:s"], sockets.shared, Config())
    sockets.close()
    assert answered(client)
    other.close()


def test_a_worker_leaves_nothing_of_a_socket_open_when_it_stops_listening(short: Path) -> None:
    sockets, worker = shared_by(["unix:s"])
    number = sockets.shared[0].fileno
    inode = os.fstat(number).st_ino
    worker.close()
    sockets.close()
    if os.path.isdir("/proc/self/fd"):
        links = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of listdir() itself
                links.append(os.readlink(f"/proc/self/fd/{name}"))
        assert f"socket:[{inode}]" not in links


def test_the_last_takes_those_who_wait(short: Path) -> None:
    sockets, worker = shared_by(["unix:s"])
    assert worker.server._life is not None
    stuck = worker.server._life.loop.call_soon_threadsafe(time.sleep, 0.3)
    time.sleep(0.1)
    client = knock("s")
    sockets.close()
    worker.ports[0].leaves_queue = False
    worker.close()
    del stuck
    assert answered(client)


def test_with_reuse_port_the_supervisor_keeps_the_address_and_does_not_listen() -> None:
    endpoint = f"tcp:0:interface={HOST}"
    sockets, worker = shared_by([endpoint], reuse_port=True)
    try:
        [one] = sockets.shared
        assert one.fileno == -1
        assert worker.ports[0].socket.getsockname() == (HOST, one.port)
        for _ in range(20):  # all of them come to the one that listens
            assert answered(knock((HOST, one.port)))
        worker.close()
        with pytest.raises(ConnectionRefusedError):
            knock((HOST, one.port))
    finally:
        sockets.close()


# -- automatic certificates ------------------------------------------------------------------------------------


def test_automatic_certificates_are_the_workers_concern(short: Path) -> None:
    sockets, worker = shared_by([f"haproxy:lets:{short}:tcp:0:interface={HOST}"])
    try:
        assert len(sockets.shared) == 1
        assert worker.ports[0].options.tls is not None
    finally:
        worker.close()
        sockets.close()


@pytest.mark.parametrize("reuse_port", [False, True])
@pytest.mark.parametrize("ipv6", [True, False])
def test_the_port_of_http_01_is_made_once_for_all_directories_and_workers(
    short: Path, monkeypatch: pytest.MonkeyPatch, reuse_port: bool, ipv6: bool
) -> None:
    if not ipv6:

        def listen(reactor: Any, port: Any, factory: Any, backlog: int, interface: str, **options: Any) -> Any:
            if ":" in interface:
                raise CannotListenError(interface, port, OSError(97, "Address family not supported by protocol"))
            return theirs(reactor, port, factory, backlog, interface, **options)

        theirs = DaphneReactor.listenTCP
        monkeypatch.setattr(DaphneReactor, "listenTCP", listen)
    for name in ("one", "two"):
        (short / name).mkdir()
    endpoints = ["unix:a", *(f"le:{short / name}:unix:{name[:1]}" for name in ("one", "two"))]
    sockets, worker = shared_by(endpoints, acme_challenge="http-01", acme_http_port=0, reuse_port=reuse_port)
    try:
        assert len(sockets.shared) == 4
        assert [port.socket.getsockname() for port in worker.ports] == ["a", "o", "t"]
        # The sockets are in the order of the calls.
        http = sockets._recorder.addresses()[1]
        with socket.create_connection((HOST, http.port), 5) as client:
            client.sendall(b"GET /x HTTP/1.1\r\nHost: a.example.org\r\n\r\n")
            assert b"Location: https://a.example.org/x" in client.recv(65536)
    finally:
        worker.close()
        sockets.close()


def test_a_port_of_http_01_that_is_in_use_is_named(short: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        config = Config(acme_challenge="http-01", acme_http_port=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match="--acme-http-port: cannot listen on port .*in use"):
            SharedSockets([f"le:{short}:unix:s"], config)


# -- what cannot be shared -------------------------------------------------------------------------------------


@implementer(IPlugin, IStreamServerEndpointStringParser)
class Plugin:
    """Of a third party: ``own:`` listens by itself, ``through:`` through the reactor, ``late:`` some time."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def parseStreamServer(self, reactor: Any, port: str) -> Any:
        prefix = self.prefix

        @implementer(IStreamServerEndpoint)
        class Endpoint:
            def listen(self, factory: Any) -> Any:
                if prefix == "through":
                    return succeed(reactor.listenTCP(int(port), factory, interface=HOST))
                opened.append(socket.create_server((HOST, int(port))))
                return succeed(opened[-1])

        return Endpoint()


opened: list[socket.socket] = []


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    import twisted.internet.endpoints as endpoints

    theirs = endpoints.getPlugins
    ours = [Plugin("own"), Plugin("through")]
    monkeypatch.setattr(
        endpoints,
        "getPlugins",
        lambda interface: [*theirs(interface), *(ours if interface is IStreamServerEndpointStringParser else [])],
    )


@pytest.mark.usefixtures("plugins")
def test_a_plugin_that_listens_through_the_reactor_is_shared() -> None:
    sockets, worker = shared_by(["through:0", "haproxy:through:0"])
    try:
        assert len(sockets.shared) == 2
        assert answered(knock(worker.ports[0].socket.getsockname()))
    finally:
        worker.close()
        sockets.close()


@pytest.mark.usefixtures("plugins")
def test_a_plugin_that_opens_its_own_sockets_is_refused_with_the_reason(short: Path) -> None:
    with pytest.raises(ConfigurationError, match="--workers: endpoint 'own:0' opens its sockets by itself"):
        SharedSockets(["unix:s", "own:0"], Config())
    opened.pop().close()
    assert not (short / "s").exists()


def test_a_port_in_use_is_named_and_nothing_stays_open(short: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface={HOST}"
        with pytest.raises(ConfigurationError, match="the address is already in use"):
            SharedSockets(["unix:s", endpoint], Config())
    assert not (short / "s").exists()


def test_more_calls_than_were_recorded_are_an_error() -> None:
    loop = asyncio.new_event_loop()
    reactor = DaphneReactor(loop)
    face = ReplayingReactor(reactor, ListenOptions(), [])
    with pytest.raises(EndpointError, match="it listens otherwise here"):
        face.listenTCP(0, Factory())
    reactor.close()
    loop.close()


def test_a_face_with_other_options_records_with_the_same_recorder() -> None:
    loop = asyncio.new_event_loop()
    reactor = DaphneReactor(loop)
    recorder = RecordingReactor(reactor, ListenOptions())
    recorder.changed(prelude=object(), backlog=7).listenTCP(0, Factory(), interface=HOST)
    assert recorder.count == 1
    recorder.close()
    recorder.close()
    assert recorder.count == 0
    reactor.close()
    loop.close()

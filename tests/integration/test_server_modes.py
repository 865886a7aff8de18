"""The ways to run a server: as a process, in an asyncio program, on a running reactor, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from twisted.internet import defer

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError, LifespanError, ReactorError
from daphne_ng.net.reactor import DaphneReactor
from daphne_ng.server import Server
from tests.support import asgi_apps
from tests.support.asgi import Client, body, on_sockets, serving, start
from tests.support.processes.serving import SLACK

pytestmark = pytest.mark.once


ROOT = pathlib.Path(__file__).parents[2]
LOCAL = "tcp:0:interface=127.0.0.1"


# -- as a process ------------------------------------------------------------------------------------------


class Process:
    """``python -m daphne_ng``, and what it writes to stderr."""

    def __init__(self, *arguments: str, program: list[str] | None = None, **environment: str) -> None:
        command = program or ["-m", "daphne_ng", "--access-log", os.devnull]
        self.popen = subprocess.Popen(
            [sys.executable, "-W", "error", *command, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self.log = ""
        self.port = 0
        self.clients = contextlib.ExitStack()
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            with self._changed:
                self.log += line
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Wait until a line matches."""
        with self._changed:
            found = self._changed.wait_for(lambda: re.search(pattern, self.log) or not self._reader.is_alive(), timeout)
        match = re.search(pattern, self.log)
        assert found and match, f"no {pattern!r} in:\n{self.log}"
        return match

    def listening(self) -> Process:
        """Wait until it listens."""
        self.port = int(self.wait_for(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])
        return self

    def get(self, path: str) -> http.client.HTTPResponse:
        """Ask, and return when the head of the answer is here."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        self.clients.callback(connection.close)
        connection.request("GET", path)
        return self.clients.enter_context(connection.getresponse())

    def ask(self, path: str) -> socket.socket:
        """Ask and do not wait for the answer."""
        client = self.clients.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=10))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        return client

    def exit_code(self, timeout: float = 30) -> int:
        """Wait for its end."""
        code = self.popen.wait(timeout)
        self._reader.join(5)
        return code


@contextlib.contextmanager
def process(*arguments: str, **more: Any) -> Iterator[Process]:
    """Run a server process, and see that it is gone at the end."""
    running = Process(*arguments, **more)
    try:
        yield running
    except BaseException:
        print(running.log)
        raise
    finally:
        if running.popen.poll() is None:
            running.popen.kill()
        running.popen.wait(10)
        running._reader.join(5)
        running.clients.close()
        assert running.popen.stderr is not None
        running.popen.stderr.close()


APP = "tests.support.asgi_apps:app"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_the_running_requests(number: int) -> None:
    with process("-p", "0", APP) as server:
        server.listening()
        response = server.get("/slow")
        assert response.read(6) == b"begin,"
        began = time.monotonic()
        server.popen.send_signal(number)
        # The listening socket closes at once, while the request runs on.
        while True:
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            except ConnectionError:
                break
            assert time.monotonic() - began < 2.5, "it still listens"
            time.sleep(0.02)
        assert response.read() == b"end"
        assert server.exit_code() == 0
        assert time.monotonic() - began < 5 * SLACK
    assert "pending application instances" not in server.log
    assert "Traceback" not in server.log


def test_idle_connections_do_not_delay_the_end_for_long() -> None:
    with process("-p", "0", APP) as server:
        server.listening()
        assert server.get("/").read() == b"end"  # kept alive by the server
        silent = socket.create_connection(("127.0.0.1", server.port))
        half = socket.create_connection(("127.0.0.1", server.port))
        half.sendall(b"GET / HTTP/1.1\r\nHost:")
        began = time.monotonic()
        server.popen.terminate()
        assert server.exit_code() == 0
        assert time.monotonic() - began < 5 * SLACK
        silent.close()
        half.close()


def test_a_second_signal_hurries() -> None:
    with process("-p", "0", APP) as server:
        client = server.listening().ask("/hang")
        assert server.get("/").read() == b"end"
        server.popen.terminate()
        server.wait_for("Waiting for 1 running request to")
        began = time.monotonic()
        server.popen.terminate()
        assert server.exit_code() == 0
        assert time.monotonic() - began < 5 * SLACK
        assert client.recv(100).startswith(b"HTTP/1.1 503 ")
    assert "Killed 1 pending application instances" in server.log
    assert "Traceback" not in server.log


def test_a_second_signal_hurries_the_lifespan_too() -> None:
    with process("-p", "0", "tests.support.asgi_apps:slow_to_stop") as server:
        server.listening().popen.terminate()
        server.wait_for("stopping")
        began = time.monotonic()
        server.popen.terminate()
        assert server.exit_code() == 0
        assert time.monotonic() - began < 5 * SLACK
    assert "Traceback" not in server.log


def test_the_graceful_timeout_cancels() -> None:
    with process("-p", "0", "--graceful-timeout", "0.3", APP) as server:
        client = server.listening().ask("/hang")
        assert server.get("/").read() == b"end"
        server.popen.terminate()
        assert server.exit_code() == 0
        assert client.recv(100).startswith(b"HTTP/1.1 503 ")
    assert "Killed 1 pending application instances" in server.log


def test_a_thread_that_never_ends_gives_way_to_a_third_signal() -> None:
    """Python waits for the executor's threads at its exit; Twisted's handlers swallowed every signal meanwhile."""
    with process("-p", "0", APP) as server:
        server.listening().ask("/stuck")
        assert server.get("/").read() == b"end"
        server.popen.terminate()
        server.wait_for("Waiting for 1 running request to")
        server.popen.terminate()
        server.wait_for("Killed 1 pending")
        deadline = time.monotonic() + 10
        while server.popen.poll() is None:
            assert time.monotonic() < deadline, "it cannot be ended"
            time.sleep(0.2)
            server.popen.terminate()
        assert server.exit_code() == -signal.SIGTERM


def test_a_port_in_use_is_one_critical_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process("-p", str(port), APP) as server:
            assert server.exit_code() == 1
    critical = [line for line in server.log.splitlines() if "CRITICAL" in line]
    assert len(critical) == 1
    assert critical[0].endswith(
        f"Listen failure: cannot listen on tcp:port={port}:interface=127.0.0.1: the address is already in use"
    )
    assert "Traceback" not in server.log


def test_a_failed_startup_exits_with_3() -> None:
    with process("-p", "0", "tests.support.asgi_apps:failing") as server:
        assert server.exit_code() == 3
    assert "The application's startup failed: the database is away" in server.log
    assert "Listening" not in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize("mode", ["on", "off"])
def test_the_lifespan_switch_reaches_the_server(mode: str) -> None:
    with process("-p", "0", "--lifespan", mode, APP) as server:
        if mode == "on":
            assert server.exit_code() == 3
            assert "--lifespan on" in server.log
        else:
            assert server.listening().get("/").read() == b"end"
            assert "lifespan" not in server.log


def test_a_signal_during_the_startup_ends_it() -> None:
    with process("-p", "0", "tests.support.asgi_apps:slow_to_start") as server:
        server.wait_for("starting")
        began = time.monotonic()
        server.popen.terminate()
        assert server.exit_code() == 0
        assert time.monotonic() - began < 5 * SLACK
    assert "Listening" not in server.log
    assert "Traceback" not in server.log


def test_43_46_the_lifespan_spans_everything() -> None:
    with process("-p", "0", "tests.support.asgi_apps:orderly") as server:
        assert server.listening().get("/").read() == b"from the lifespan"
        server.popen.terminate()
        assert server.exit_code() == 0
    assert "Killed" not in server.log


@pytest.mark.parametrize(
    "application", ["no_such_module:app", "tests.support.asgi_apps:no_such", "tests.support.asgi_apps:sys"]
)
def test_an_application_that_cannot_be_loaded_is_one_line(application: str) -> None:
    with process("-p", "0", application) as server:
        assert server.exit_code() == 1
    assert len(server.log.splitlines()) == 1
    assert server.log.startswith("daphne-ng: error: ")


def test_an_application_that_exits_does_not_end_the_server() -> None:
    with process("-p", "0", APP) as server:
        assert server.listening().get("/exit").status == 500
        assert server.get("/").read() == b"end"


def test_asgi_threads_sizes_the_executor() -> None:
    with process("-p", "0", APP, ASGI_THREADS="3") as server:
        assert server.listening().get("/threads").read() == b"3"


def test_the_flag_wins_over_asgi_threads() -> None:
    with process("-p", "0", "--asgi-threads", "2", APP, ASGI_THREADS="wrong, and not even looked at") as server:
        assert server.listening().get("/threads").read() == b"2"


@on_sockets
async def test_a_host_program_keeps_its_executor_unless_threads_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGI_THREADS", "2")
    loop = asyncio.get_running_loop()
    own = ThreadPoolExecutor(5)
    loop.set_default_executor(own)

    async def threads() -> int:
        barrier = threading.Barrier(8)

        def one() -> int:
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(1.0)
            return threading.get_ident()

        return len(set(await asyncio.gather(*[loop.run_in_executor(None, one) for _ in range(8)])))

    async with Server(asgi_apps.app, [LOCAL]):
        assert await threads() == 5
    async with Server(asgi_apps.app, [LOCAL], config=Config(asgi_threads=3)):
        assert await threads() == 3
    own.shutdown()


def test_wrong_asgi_threads_are_one_line() -> None:
    with process("-p", "0", APP, ASGI_THREADS="many") as server:
        assert server.exit_code() == 1
    assert server.log.splitlines()[-1] == "daphne-ng: error: ASGI_THREADS must be a number of threads, not 'many'"
    assert "Traceback" not in server.log


RUN = """
from daphne_ng.server import Server
from tests.support.asgi_apps import orderly
events = []
server = Server(orderly, ["tcp:0:interface=127.0.0.1"], ready_callable=lambda: (events.append("ready"), server.stop()))
server.run()
events.append("returned")
assert events == ["ready", "returned"], events
assert not server.abort_start and server.exit_code == 0
never = Server(orderly, ["tcp:0:interface=127.0.0.1"], ready_callable=lambda: events.append("wrong"))
never.stop()
never.run()
assert events == ["ready", "returned"], events
"""


def test_run_returns_after_stop_and_at_once_after_an_earlier_stop() -> None:
    with process(program=["-c", RUN]) as server:
        assert server.exit_code() == 0, server.log
    assert "lifespan over" in server.log


FOREIGN = """
import threading
from twisted.internet import selectreactor
selectreactor.install()
from twisted.internet import reactor
from daphne_ng.errors import ReactorError
from daphne_ng.server import Server
def serve():
    try:
        Server(print, ["tcp:0"]).run()
    except ReactorError as error:
        assert "SelectReactor" in str(error)
        seen.append(error)
    reactor.callFromThread(reactor.stop)
seen = []
reactor.callWhenRunning(lambda: threading.Thread(target=serve).start())
reactor.run()
assert seen, "it ran"
"""


def test_a_reactor_that_runs_and_cannot_serve_is_an_error() -> None:
    with process(program=["-c", FOREIGN]) as server:
        assert server.exit_code() == 0, server.log


# -- in an asyncio program -----------------------------------------------------------------------------------


async def hello(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send(start())
    await send(body(b"hello"))


@on_sockets
async def test_async_with_serves_within_the_block() -> None:
    async with serving(hello) as server:
        host, port = server.listening_addresses[0]
        assert host == "127.0.0.1"
        assert len(server.listeners) == 1
        async with Client.to(server) as client:
            assert (await client.get()).body == b"hello"
            assert len(server.connections) == 1
    assert server.connections == set()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)


@on_sockets
async def test_an_exception_in_the_block_passes_and_ends_the_server() -> None:
    with pytest.raises(LookupError):
        async with serving(hello) as server:
            address = server.listening_addresses[0]
            raise LookupError
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


@pytest.mark.parametrize("how", ["stop", "shutdown", "cancel"])
@on_sockets
async def test_serve_ends_by_stop_shutdown_or_cancellation(how: str) -> None:
    ready = asyncio.Event()
    server = Server(hello, [LOCAL], ready_callable=ready.set)
    serve = asyncio.create_task(server.serve())
    await ready.wait()
    async with Client.to(server) as client:
        assert (await client.get()).status == 200
    if how == "stop":
        server.stop()
        await serve
    elif how == "shutdown":
        await server.shutdown()
        await serve
    else:
        serve.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serve
    assert server.listeners == []
    server.stop()
    await server.shutdown()


@on_sockets
async def test_a_server_can_serve_again() -> None:
    server = Server(hello, [LOCAL])
    for _ in range(2):
        async with server:
            assert len(server.listening_addresses) == 1
            async with Client.to(server) as client:
                assert (await client.get()).status == 200


@on_sockets
async def test_two_servers_share_a_loop() -> None:
    async with serving(hello) as one, serving(hello) as two:
        assert one.listening_addresses != two.listening_addresses
        for server in (one, two):
            async with Client.to(server) as client:
                assert (await client.get()).status == 200


@on_sockets
async def test_an_endpoint_that_cannot_listen_raises_and_closes_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(hello, [LOCAL, f"tcp:{port}:interface=127.0.0.1"])
        with pytest.raises(ConfigurationError, match="already in use"):
            async with server:
                pytest.fail("it serves")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*server.listening_addresses[0])


@on_sockets
async def test_a_failed_lifespan_raises() -> None:
    with pytest.raises(LifespanError, match="the database is away"):
        await Server(asgi_apps.failing, [LOCAL]).serve()


@on_sockets
async def test_a_serve_that_is_cancelled_in_the_startup_leaves_nothing_behind() -> None:
    serve = asyncio.create_task(Server(asgi_apps.slow_to_start, [LOCAL]).serve())
    await asyncio.sleep(0.05)
    serve.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serve


@on_sockets
async def test_a_ready_callable_that_raises_ends_the_start() -> None:
    def ready() -> None:
        raise LookupError

    server = Server(hello, [LOCAL], ready_callable=ready)
    with pytest.raises(LookupError):
        await server.serve()
    assert server.listeners == []
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*server.listening_addresses[0])


@on_sockets
async def test_ready_is_called_once_when_every_endpoint_listens() -> None:
    calls: list[int] = []
    server = Server(hello, [LOCAL, LOCAL], ready_callable=lambda: calls.append(len(server.listening_addresses)))
    async with server:
        assert calls == [2]
        assert len(set(server.listening_addresses)) == 2


@on_sockets
async def test_requests_pipelined_behind_cancelled_ones_do_not_begin() -> None:
    """They did, and ran on while the lifespan was shut down."""
    events: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            events.append("lifespan over")
            await send({"type": "lifespan.shutdown.complete"})
            return
        events.append(f"begin {scope['path']}")
        try:
            await asyncio.sleep(1000)
        finally:
            events.append(f"end {scope['path']}")

    records: list[Any] = []

    def log(*call: Any) -> None:
        records.append((call[2]["path"], call[2]["status"], call[2]["time_taken"] < 5))

    async with serving(application, action_logger=log, graceful_timeout=0.1) as server, Client.to(server) as client:
        for path in ("/1", "/2", "/3"):
            client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        while not events:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await server.shutdown()
        assert time.monotonic() - began < 2 * SLACK
        assert [(await client.response()).status for _ in range(3)] == [503] * 3
        assert await client.closed() == b""
    assert events == ["begin /1", "end /1", "lifespan over"]
    assert records == [("/1", 503, True), ("/2", 503, True), ("/3", 503, True)]


# -- on a reactor that runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["finish", "reactor stops"])
@on_sockets
async def test_start_on_a_running_reactor(how: str) -> None:
    loop = asyncio.get_running_loop()
    reactor = DaphneReactor(loop)
    reactor.attach()
    server = Server(hello, [LOCAL])
    await server.start_on(reactor).asFuture(loop)
    async with Client.to(server) as client:
        assert (await client.get()).status == 200
    if how == "finish":
        await server.finish().asFuture(loop)
    await reactor.detach()
    assert server.listeners == []
    await server.finish().asFuture(loop)
    reactor.close()


@on_sockets
async def test_a_start_on_a_reactor_that_fails_leaves_nothing_open() -> None:
    loop = asyncio.get_running_loop()
    reactor = DaphneReactor(loop)
    reactor.attach()

    def ready() -> None:
        raise LookupError

    unlucky = Server(hello, [LOCAL], ready_callable=ready)
    with pytest.raises(LookupError):
        await unlucky.start_on(reactor).asFuture(loop)
    assert unlucky.listeners == []
    with pytest.raises(LifespanError):
        await Server(asgi_apps.failing, [LOCAL]).start_on(reactor).asFuture(loop)
    with pytest.raises(ConfigurationError):
        await Server(hello, ["nonsense:1"]).start_on(reactor).asFuture(loop)
    await reactor.detach()
    reactor.close()


def test_start_on_a_reactor_without_asyncio_is_an_error() -> None:
    with pytest.raises(ReactorError):
        Server(hello, [LOCAL]).start_on(object())


def test_finishing_what_never_started_is_done_at_once() -> None:
    done = Server(hello, [LOCAL]).finish()
    assert isinstance(done, defer.Deferred)
    assert done.called


# -- in a thread -----------------------------------------------------------------------------------------------


def fetch(server: Server, path: str = "/") -> bytes:
    connection = http.client.HTTPConnection(*server.listening_addresses[0], timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_run_in_thread_serves_while_the_block_runs() -> None:
    server = Server(hello, [LOCAL])
    for _ in range(2):
        with server.run_in_thread() as same:
            assert same is server
            assert fetch(server) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            fetch(server)
    assert not [thread for thread in threading.enumerate() if thread.name == "daphne-ng"]


def test_run_in_thread_raises_what_kept_it_from_starting() -> None:
    with pytest.raises(LifespanError), Server(asgi_apps.failing, [LOCAL]).run_in_thread():
        pytest.fail("it serves")
    server = Server(hello, ["nonsense:1"])
    with pytest.raises(ConfigurationError), server.run_in_thread():
        pytest.fail("it serves")


def test_run_in_thread_ends_what_applications_left_running() -> None:
    ended: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def background() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append("background")

        tasks.append(asyncio.create_task(background()))
        await hello(scope, receive, send)

    tasks: list[Any] = []
    with Server(application, [LOCAL], config=Config(lifespan="off")).run_in_thread() as server:
        assert fetch(server) == b"hello"
    assert ended == ["background"]


def test_two_servers_run_in_two_threads() -> None:
    with Server(hello, [LOCAL]).run_in_thread() as one, Server(hello, [LOCAL]).run_in_thread() as two:
        assert fetch(one) == fetch(two) == b"hello"


# -- subclasses --------------------------------------------------------------------------------------------------


@on_sockets
async def test_create_application_may_change_or_replace_the_scope() -> None:
    class Custom(Server):
        def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
            scope["added"] = b"changed, "
            return super().create_application(protocol, {**scope, "replaced": b"replaced"})

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(scope["added"] + scope["replaced"]))

    async with serving(application, server_class=Custom, lifespan="off") as server, Client.to(server) as client:
        assert (await client.get()).body == b"changed, replaced"


@pytest.mark.parametrize("failing", [False, True])
@on_sockets
async def test_a_request_that_create_application_does_not_start_is_answered(
    failing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[dict[str, Any]] = []

    class Custom(Server):
        def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
            if failing:
                raise LookupError("in create_application")

        def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
            calls.append(details)

    async with serving(hello, server_class=Custom) as server, Client.to(server) as client:
        for _ in range(2):
            assert (await client.get()).status == 503
        response = await client.get(method="POST", payload=b"body")
        assert (response.status, response.complete) == (503, True)
        assert b"The server declined the request." in response.body
    assert [details["status"] for details in calls] == [503] * 3
    assert all(0 <= details["time_taken"] < 5 for details in calls)
    assert len([record for record in caplog.records if record.exc_info]) == (3 if failing else 0)


@on_sockets
async def test_log_action_sees_every_request() -> None:
    calls: list[tuple[str, str, dict[str, Any]]] = []

    class Custom(Server):
        def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
            calls.append((protocol, action, details))

    async with serving(hello, server_class=Custom) as server, Client.to(server) as client:
        await client.get("/pfad?q=1", method="POST")
        await client.get("/zwei")
    assert [(protocol, action) for protocol, action, _ in calls] == [("http", "complete")] * 2
    details = calls[0][2]
    assert details.pop("client").startswith("127.0.0.1:")
    assert 0 <= details.pop("time_taken") < 5
    assert details == {"path": "/pfad?q=1", "status": 200, "method": "POST", "size": 5, "http_version": "1.1"}


@on_sockets
async def test_an_access_log_that_fails_harms_no_request(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*call: Any) -> None:
        raise LookupError("disk full")

    async with serving(hello, action_logger=broken) as server, Client.to(server) as client:
        for _ in range(2):
            assert (await client.get()).body == b"hello"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "The access log failed"
    ] * 2


def test_connections_in_the_queue_are_served_when_the_server_stops() -> None:
    with process("-p", "0", APP) as server, contextlib.ExitStack() as clients:
        server.listening()
        server.popen.send_signal(signal.SIGSTOP)
        waiting = []
        for _ in range(250):  # more than are accepted in one turn of the loop
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            waiting.append(client)
        server.popen.terminate()
        server.popen.send_signal(signal.SIGCONT)
        for client in waiting:
            assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        assert server.exit_code() == 0


def test_an_idle_connection_may_ask_once_more_when_the_server_stops() -> None:
    with process("-p", "0", APP) as server:
        client = server.listening().ask("/")
        assert b"end" in client.recv(1000)
        server.popen.terminate()
        with contextlib.suppress(ConnectionError):
            while True:  # until it does not listen any more
                socket.create_connection(("127.0.0.1", server.port), 1).close()
                time.sleep(0.02)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(1000), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nconnection: close\r\n" in answer
        assert server.exit_code() == 0

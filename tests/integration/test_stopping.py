"""The notice before the end: streams that wait for it end by themselves, whoever stops the server, and nothing is cut."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daphne_ng import stopping
from daphne_ng.config import Config
from daphne_ng.net.reactor import DaphneReactor
from daphne_ng.server import Server
from tests.support.asgi import on_sockets
from tests.support.h2_client import Http2Client, connect
from tests.support.processes.serving import APPS, HOST, Running, require_module, serve, wait_for
from tests.support.processes.working import workers

pytestmark = pytest.mark.once

APPLICATION = "stopping_app:application"
STREAMS = 200
# A stream that misses the notice is cut off after these many seconds, and then it is not whole.
GRACE = ("--graceful-timeout", "25")
BEGUN, ENDED = b"data: begun\n\n", b"data: ended\n\n"


class Stream:
    """A response that has begun."""

    def __init__(self, port: int, path: str = "/task") -> None:
        self.connection = http.client.HTTPConnection(HOST, port, timeout=60)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()
        assert self.response.read(len(BEGUN)) == BEGUN

    @property
    def process(self) -> int:
        """Whose it is."""
        return int(self.response.headers["x-process"])

    def ends(self) -> None:
        """Read it to its end, which must be that of a whole response: otherwise this raises IncompleteRead."""
        with contextlib.closing(self.connection):
            assert self.response.read().endswith(ENDED)


@contextlib.contextmanager
def stopped(directory: Path, *options: str, app: str = APPLICATION, **more: Any) -> Iterator[Running]:
    """Serve. When the server has ended, it had nothing to cancel."""
    with serve(app, directory, *GRACE, *options, **more) as running:
        yield running
        running.process.wait(60)
    assert "Killed" not in running.log


def messages(log: str, pid: int | str = r"\d+") -> list[str]:
    """The lifespan messages behind the startup's that a process has got."""
    return re.findall(rf"^(lifespan\.\S+) {pid}$", log, re.MULTILINE)


# -- in one process ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_whoever_waits_for_the_notice_ends_by_itself(tmp_path: Path, number: int) -> None:
    with stopped(tmp_path) as running:
        streams = [Stream(running.port, path) for path in ("/task", "/state", "/thread", "/poll", "/message")]
        running.process.send_signal(number)
        for stream in streams:
            stream.ends()
    assert messages(running.log) == ["lifespan.shutdown.notice", "lifespan.shutdown"]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_streams_of_http_2_end_by_themselves(tmp_path: Path, pem: Path, tls: bool) -> None:
    options = ["--ssl-certfile", str(pem)] if tls else []
    with stopped(tmp_path, *options) as running, Http2Client(connect(running.port, tls=tls)) as client:
        streams = [client.request("/task") for _ in range(50)]
        client.wait(lambda: all(client.responses[stream].body for stream in streams), "50 streams")
        running.process.send_signal(signal.SIGTERM)
        for stream in streams:
            response = client.response(stream)
            assert response.reset is None
            assert response.body.endswith(ENDED)


def test_many_streams_end_at_once_and_a_download_goes_on_to_its_end(tmp_path: Path) -> None:
    with stopped(tmp_path) as running:
        streams = [Stream(running.port) for _ in range(STREAMS)]
        download = http.client.HTTPConnection(HOST, running.port, timeout=60)
        download.request("GET", "/download")
        response = download.getresponse()
        running.process.send_signal(signal.SIGTERM)
        for stream in streams:
            stream.ends()
        with contextlib.closing(download):
            assert response.read() == b"x" * 150_000
    ends = [line for line in running.log.splitlines() if '"GET /' in line]
    assert len(ends) == STREAMS + 1
    assert '"GET /download" 200 150000' in ends[-1]


def test_without_a_grace_period_whoever_waits_still_has_time_for_its_end(tmp_path: Path) -> None:
    with stopped(tmp_path, "--graceful-timeout", "0") as running:
        streams = [Stream(running.port, path) for path in ("/task", "/state")]
        running.process.send_signal(signal.SIGTERM)
        for stream in streams:
            stream.ends()


# -- workers -----------------------------------------------------------------------------------------------------


def test_all_workers_give_notice(tmp_path: Path) -> None:
    with workers(tmp_path, *GRACE, app=APPLICATION) as running:
        streams = [Stream(running.server.port) for _ in range(40)]
        assert {stream.process for stream in streams} == set(running.running)
        running.signal(signal.SIGTERM)
        for stream in streams:
            stream.ends()
        assert running.server.process.wait(60) == 0
    assert "Killed" not in running.log


@pytest.mark.parametrize(
    "options",
    [[], ["--limit-max-requests", "5"], ["--worker-max-age", "4"]],
    ids=["HUP", "requests", "age"],
)
def test_a_worker_that_is_replaced_gives_notice(tmp_path: Path, options: list[str]) -> None:
    with workers(tmp_path, *GRACE, *options, app=APPLICATION) as running:
        stream = Stream(running.server.port)
        first = stream.process
        if "--limit-max-requests" in options:
            served = 1
            while served < 5:  # the other worker takes some, and may be replaced before
                with running.server.client() as client:
                    served += int(client.get("/quick").headers["x-process"]) == first
        elif not options:
            running.signal(signal.SIGHUP)
        stream.ends()
        wait_for(lambda: first not in running.running, "the worker to go")
        assert messages(running.log, first) == ["lifespan.shutdown.notice", "lifespan.shutdown"]
    assert "Killed" not in running.log


def test_a_worker_whose_code_has_changed_gives_notice(tmp_path: Path) -> None:
    code = (APPS / "stopping_app.py").read_text()
    (tmp_path / "mine.py").write_text(code)
    with workers(tmp_path, *GRACE, "--reload", count=0, app="mine:application", imports=tmp_path) as running:
        stream = Stream(running.server.port)
        (tmp_path / "mine.py").write_text(code + "\nNEW = True\n")
        stream.ends()
        wait_for(lambda: stream.process not in running.running, "the first worker to go")
    assert "Killed" not in running.log


# -- frameworks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["starlette", "fastapi", "litestar", "quart", "channels"])
def test_the_frameworks_have_it_and_their_shutdown_comes_behind_it(tmp_path: Path, framework: str) -> None:
    require_module(framework)
    name = "stops_django" if framework == "channels" else f"stops_{framework}"
    with stopped(tmp_path, app=f"{name}:application") as running:
        stream = Stream(running.port, "/events")
        thread = http.client.HTTPConnection(HOST, running.port, timeout=60)
        if framework != "starlette":
            thread.request("GET", "/thread")
        time.sleep(0.5)  # whether the thread waits by then or finds the end there makes no difference
        running.process.send_signal(signal.SIGTERM)
        stream.ends()
        with contextlib.closing(thread):
            if framework != "starlette":
                assert thread.getresponse().read().replace(b" ", b"").strip() == b'{"stopping":true}'
    over = re.findall(r"the (\S+) is over", running.log)
    assert over == (["stream"] if framework == "channels" else ["stream", "lifespan"])


# -- embedded ----------------------------------------------------------------------------------------------------


async def embedded(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": BEGUN, "more_body": True})
    await stopping.wait_stopping()
    await send({"type": "http.response.body", "body": ENDED})


def embedded_server() -> Server:
    return Server(embedded, [f"tcp:0:interface={HOST}"], config=Config(graceful_timeout=25))


def port_of(server: Server) -> int:
    return server.listening_addresses[0][1]


@on_sockets
async def test_a_server_in_an_asyncio_program_gives_notice_of_its_own_end() -> None:
    async with embedded_server() as other:
        async with embedded_server() as server:
            stream, goes_on = await asyncio.gather(
                asyncio.to_thread(Stream, port_of(server)), asyncio.to_thread(Stream, port_of(other))
            )
            assert stopping.is_supported()
            assert not stopping.is_stopping()
        await asyncio.to_thread(stream.ends)
        # Not of the other's, to which the program and one of its requests belong too.
        assert not stopping.is_stopping()
        reading = asyncio.create_task(asyncio.to_thread(goes_on.ends))
        done, _ = await asyncio.wait({reading}, timeout=0.2)
        assert not done
    await reading
    assert stopping.is_stopping()


@on_sockets
async def test_serve_gives_notice_when_it_is_stopped() -> None:
    server = embedded_server()
    serving = asyncio.create_task(server.serve())
    while not server.listening_addresses:
        await asyncio.sleep(0.01)
    stream = await asyncio.to_thread(Stream, port_of(server))
    server.stop()
    await asyncio.to_thread(stream.ends)
    await serving


@on_sockets
async def test_a_server_on_a_reactor_gives_notice() -> None:
    loop = asyncio.get_running_loop()
    reactor = DaphneReactor(loop)
    reactor.attach()
    server = embedded_server()
    await server.start_on(reactor).asFuture(loop)
    stream = await asyncio.to_thread(Stream, port_of(server))
    reading = asyncio.create_task(asyncio.to_thread(stream.ends))
    await server.finish().asFuture(loop)
    await reading
    await reactor.detach()
    reactor.close()


def test_a_server_in_a_thread_gives_notice() -> None:
    server = embedded_server()
    noticed: list[bool] = []
    with server.run_in_thread():
        # One of the program's own.
        waiting = threading.Thread(target=lambda: noticed.append(stopping.wait_stopping_in_thread(60)))
        waiting.start()
        stream = Stream(port_of(server))
        reading = threading.Thread(target=stream.ends)
        reading.start()
    reading.join(60)
    waiting.join(60)
    assert noticed == [True]


# -- another server ----------------------------------------------------------------------------------------------


def test_under_another_server_no_notice_comes_and_nothing_of_ours_is_imported(tmp_path: Path) -> None:
    """Any that imports an application will do: what it imports is the question."""
    program = (
        "import asyncio, sys\n"
        "from daphne_ng import stopping\n"
        "async def main():\n"
        "    return stopping.is_supported(), stopping.is_stopping(), await stopping.wait_stopping(0.05)\n"
        "print(asyncio.run(main()), stopping.wait_stopping_in_thread(0.05))\n"
        "print(sorted(name for name in sys.modules if name.startswith(('daphne_ng', 'twisted'))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "(False, False, False) False\n['daphne_ng', 'daphne_ng.stopping']\n"

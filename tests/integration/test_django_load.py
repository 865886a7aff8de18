"""Django under load: clients that leave, long bodies, threads, and the connections to its database.

What the documentation says of these in ``docs/how-to/django-production.md`` is proven here.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.h2_client import Http2Client, Http2WebSocket
from tests.support.processes.postgres import Connections, postgres
from tests.support.processes.serving import (
    HOST,
    MIB,
    ROOT,
    SLACK,
    MemoryGrowth,
    Running,
    free_port,
    needs_procfs,
    require_program,
    serve,
    wait_for,
)

pytestmark = pytest.mark.once


APPLICATION = "django_load:application"
PIECE = 64 * 1024
FILE_BYTES = 1 << 30
GROWTH_MAX_BYTES = 30 * MIB
# Django's own, where a stream is synchronous.
GATHERS = "StreamingHttpResponse must consume synchronous iterators"


@contextlib.contextmanager
def load(directory: Path, *options: str, **environment: str) -> Iterator[Running]:
    """Serve the project; ``big`` is a file of 1 GiB, which takes no room."""
    with (directory / "big").open("wb") as big:
        big.truncate(FILE_BYTES)
    variables = {f"LOAD_{name.upper()}": value for name, value in environment.items()}
    with serve(APPLICATION, directory, *options, environment={"LOAD_DATA": str(directory), **variables}) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with load(tmp_path_factory.mktemp("load")) as running:
        running.expect(GATHERS)
        yield running


@pytest.fixture(scope="module")
def database() -> Iterator[Path]:
    with postgres() as host:
        yield host


def counts(server: Running) -> dict[str, Any]:
    with server.client() as client:
        return dict(client.get("/counts").json())


# -- clients that leave -----------------------------------------------------------------------------------------


class Leaver:
    """Clients of one kind: each asks for a path, and is gone when it is told.

    Args:
        kind: ``close``, ``reset`` or ``h2``, one stream for each on one connection.
        port: Where.
    """

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.port = port
        self._sockets: list[socket.socket] = []
        self._http2: Http2Client | None = None
        self._streams: list[int] = []

    def ask(self, path: str) -> None:
        """Send one more request."""
        if self.kind == "h2":
            if self._http2 is None:
                self._http2 = Http2Client(socket.create_connection((HOST, self.port)), acknowledge=False)
            self._streams.append(self._http2.request(path))
            return
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # so that no large body fits into the kernel
        connection.connect((HOST, self.port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self._sockets.append(connection)

    def leave(self) -> None:
        """Leave, all at once."""
        if self._http2 is not None:
            for stream in self._streams:
                self._http2.h2.reset_stream(stream, 8)  # CANCEL
            self._http2.flush()
            self._streams.clear()
        for connection in self._sockets:
            if self.kind == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        self._sockets.clear()

    def close(self) -> None:
        """Close the connection of HTTP/2."""
        self.leave()
        if self._http2 is not None:
            self._http2.socket.close()


KINDS = ["close", "reset", "h2"]


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((HOST, port)) == 0


@contextlib.contextmanager
def nginx(directory: Path, upstream: int) -> Iterator[int]:
    """Run nginx in front of a port; yields its own."""
    require_program("nginx")
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {directory / kind};" for kind in kinds)
    (directory / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; {paths}\nserver {{ listen {HOST}:{port}; location / {{\n"
        f"proxy_pass http://{HOST}:{upstream}; proxy_http_version 1.1; proxy_buffering off;\n"
        'proxy_set_header Host $http_host; proxy_set_header Connection "";\n}}}\n',
        "utf-8",
    )
    process = subprocess.Popen(["nginx", "-p", directory, "-c", directory / "nginx.conf"])
    try:
        wait_for(lambda: listens(port), "nginx to listen")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def check_that_views_see_it(server: Running, kind: str, port: int) -> None:
    """Leave views of each kind, and see what they see within a second."""
    for number, path in enumerate(["/events?", "/events?every=0.001&", "/events?every=0.3&", "/poll?"]):
        client = Leaver(kind, port)
        name = f"{kind}-{port}-{number}"
        queries = counts(server).get("queries", 0)
        client.ask(f"{path}name={name}")
        wait_for(lambda: counts(server).get("queries", 0) > queries, "the view to begin")  # noqa: B023
        time.sleep(0.2)
        before = counts(server)
        assert name not in before["ago"]
        client.leave()
        wait_for(lambda: name in counts(server)["ago"], f"the view of {path} to end", seconds=SLACK)  # noqa: B023
        after = counts(server)
        assert after["cancelled"] == before.get("cancelled", 0) + 1
        wait_for(lambda: counts(server)["finished"] == counts(server)["started"], "request_finished", seconds=SLACK)
        client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_is_cancelled_within_a_second_of_its_client_leaving(server: Running, kind: str) -> None:
    check_that_views_see_it(server, kind, server.port)


@pytest.mark.system
@pytest.mark.parametrize("kind", ["close", "reset"])
def test_a_view_behind_nginx_is_cancelled_within_a_second_too(server: Running, kind: str, tmp_path: Path) -> None:
    with nginx(tmp_path, server.port) as port:
        check_that_views_see_it(server, kind, port)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "path", ["/stream?pieces=100000", "/afile?name=big", "/events?every=0.001"], ids=["tight", "file", "events"]
)
def test_what_a_stream_holds_is_given_back_when_its_client_leaves(server: Running, kind: str, path: str) -> None:
    before = counts(server)
    client = Leaver(kind, server.port)
    for _ in range(5):
        client.ask(path)
    wait_for(lambda: counts(server).get("queries", 0) == before.get("queries", 0) + 5, "the views to begin")
    time.sleep(0.3)
    client.leave()
    what = "closed files" if "file" in path else "ended"
    wait_for(lambda: counts(server).get(what, 0) == before.get(what, 0) + 5, "the generators to end", 3 * SLACK)
    wait_for(lambda: counts(server)["sqlite"] == 0, "the connections to be closed", 2 * SLACK)
    after = wait_for(lambda: (now := counts(server))["finished"] == now["started"] and now, "request_finished")
    assert after["started"] - before.get("started", 0) == 5
    client.close()


@pytest.mark.parametrize(("path", "held"), [("/events", 3), ("/events?release=1", 0)], ids=["kept", "given back"])
def test_a_stream_keeps_its_connection_unless_it_gives_it_back(server: Running, path: str, held: int) -> None:
    queries = counts(server).get("queries", 0)
    client = Leaver("h2", server.port)
    for _ in range(3):
        client.ask(path)
    wait_for(lambda: counts(server)["queries"] == queries + 3, "the queries")
    wait_for(lambda: counts(server)["sqlite"] == held, "the connections")
    client.close()
    wait_for(lambda: counts(server)["sqlite"] == 0, "the connections to be closed")


@pytest.mark.parametrize("kind", KINDS)
def test_a_synchronous_view_that_blocks_runs_to_its_end_and_holds_up_nobody(server: Running, kind: str) -> None:
    client = Leaver(kind, server.port)
    before = counts(server)
    ended = before.get("ended", 0)
    for _ in range(3):
        client.ask("/sync?seconds=3")
    wait_for(lambda: counts(server).get("queries", 0) == before.get("queries", 0) + 3, "the views to begin")
    client.leave()
    with server.client() as other:
        for _ in range(5):
            assert other.get("/sync").text == "done"
    assert counts(server)["ended"] == ended + 5  # the others still block
    wait_for(lambda: counts(server)["ended"] == ended + 8, "the views to end")
    wait_for(lambda: counts(server)["sqlite"] == 0, "the connections to be closed", 2 * SLACK)
    wait_for(lambda: (now := counts(server))["finished"] == now["started"], "request_finished")
    client.close()


# -- long bodies ------------------------------------------------------------------------------------------------


def download(server: Running, path: str, pause_at: int = 0) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Read a body whole; at `pause_at` bytes wait until nothing goes on, and take the counts twice."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200
    read = 0
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    buffer = bytearray(1 << 20)
    while count := response.readinto(buffer):
        read += count
        if pause_at and read >= pause_at and not first:
            second = counts(server)
            for _ in range(20):
                first = second
                time.sleep(0.5)
                second = counts(server)
                if first["pieces"] == second["pieces"]:
                    break
    connection.close()
    return read, first, second


@needs_procfs
@pytest.mark.parametrize("path", ["/stream?pieces=1600", "/afile?name=big"], ids=["stream", "file"])
def test_a_client_that_pauses_stops_the_stream_within_bounded_memory(server: Running, path: str) -> None:
    """A mebibyte at a time would be the whole file otherwise."""
    if "file" in path:
        (server.directory / "some").write_bytes(bytes(1600 * PIECE))
        path = "/afile?name=some"
    download(server, path)
    growth = MemoryGrowth(server)
    pieces = counts(server)["pieces"]
    read, first, second = download(server, path, pause_at=10 * MIB)
    assert read == 1600 * PIECE
    assert first["pieces"] == second["pieces"] < pieces + 400  # most of them in the buffers of the kernel
    growth.check(GROWTH_MAX_BYTES)


@pytest.mark.system
@needs_procfs
@pytest.mark.parametrize("path", [f"/stream?pieces={FILE_BYTES // PIECE}", "/afile?name=big"], ids=["stream", "file"])
def test_1_gb_is_streamed_within_bounded_memory(server: Running, path: str) -> None:
    download(server, "/stream?pieces=16")
    growth = MemoryGrowth(server)
    assert download(server, path)[0] == FILE_BYTES
    growth.check(GROWTH_MAX_BYTES)


@pytest.mark.system
@needs_procfs
def test_a_file_response_of_1_gb_arrives_whole(server: Running) -> None:
    """Django gathers what is synchronous before it sends the first byte. The server adds next to nothing to that."""
    growth = MemoryGrowth(server)
    assert download(server, "/file?name=big")[0] == FILE_BYTES
    growth.check(FILE_BYTES + 64 * MIB)


@pytest.mark.system
@needs_procfs
@pytest.mark.parametrize("example", ["django_files", "django_pathsend"])
def test_with_the_middleware_of_the_documentation_it_is_streamed(tmp_path: Path, example: str) -> None:
    (tmp_path / "files.py").write_text(
        f"import pathlib, {example}\n{example}.FILE = pathlib.Path('big')\napplication = {example}.application\n"
    )
    with (tmp_path / "big").open("wb") as big:
        big.truncate(FILE_BYTES)
    examples = ROOT / "docs" / "examples"
    variables = {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, examples, *filter(None, sys.path))))}
    with serve("files:application", tmp_path, environment=variables) as server:
        growth = MemoryGrowth(server)
        assert download(server, "/download")[0] == FILE_BYTES
        growth.check(GROWTH_MAX_BYTES)
        # Who leaves in the middle leaves no open file behind.
        with server.connect(receive_buffer=4096) as client:
            client.sendall(b"GET /download HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
            assert "big" in open_files(server)
        wait_for(lambda: "big" not in open_files(server), "the file to be closed", seconds=10)


def open_files(server: Running) -> set[str]:
    found = set()
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(link.readlink().name)
    return found


def test_a_synchronous_stream_is_gathered_by_django_before_it_is_sent(server: Running) -> None:
    started = time.monotonic()
    with server.client() as client, client.stream("GET", "/sync-stream?pieces=5&every=0.1") as answer:
        size = 0
        first = 0.0
        for part in answer.iter_raw():
            first = first or time.monotonic() - started
            size += len(part)
    assert size == 5 * PIECE
    assert first > 0.4


# -- threads ----------------------------------------------------------------------------------------------------


def test_asgi_threads_bounds_neither_synchronous_views_nor_their_connections(tmp_path: Path) -> None:
    """Each request of Django has a thread of its own; `--limit-concurrency` is what bounds them."""
    with load(tmp_path, "--asgi-threads", "1") as server, ThreadPoolExecutor(6) as pool:
        started = time.monotonic()
        running = [pool.submit(httpx.get, f"{server.url}/sync?seconds=4", trust_env=False) for _ in range(6)]
        now = wait_for(lambda: (now := counts(server)).get("queries") == 6 and now, "the queries")
        assert now["threads"] >= 7
        assert now["sqlite"] == 6
        assert [future.result().text for future in running] == ["done"] * 6
        assert time.monotonic() - started < 12  # one after the other they would take 24
    with load(tmp_path, "--limit-concurrency", "3") as server, ThreadPoolExecutor(6) as pool:
        running = [pool.submit(httpx.get, f"{server.url}/sync?seconds=4", trust_env=False) for _ in range(6)]
        assert sorted(future.result().status_code for future in running) == [200] * 3 + [503] * 3


# -- connections to the database --------------------------------------------------------------------------------

PATHS = ["/poll?", "/events?", "/events?every=0.001&", "/stream?pieces=1000&", "/sync?seconds=0.2&", "/file?name=some&"]
PATHS += ["/afile?name=big&"]


def abandon(server: Running, each: int, watch: Callable[[], int]) -> int:
    """Leave `each` requests of every kind over every protocol, and return the most connections meanwhile."""
    (server.directory / "some").write_bytes(bytes(4 * MIB))
    most = 0
    for kind in KINDS:
        client = Leaver(kind, server.port)
        for path in PATHS:
            queries = counts(server).get("queries", 0)
            for _ in range(each):
                client.ask(path)
            wait_for(lambda: counts(server).get("queries", 0) == queries + each, f"the views of {path}")  # noqa: B023
            time.sleep(0.1)
            most = max(most, watch())
            client.leave()
            time.sleep(0.1)
        client.close()
    return most


def test_no_connection_is_left_behind_by_clients_that_leave(server: Running) -> None:
    before = counts(server)
    abandon(server, 4, lambda: counts(server)["sqlite"])
    now = wait_for(
        lambda: (now := counts(server))["finished"] == now["started"] and now["sqlite"] == 0 and now,
        "the connections to be closed",
        seconds=10,
    )
    assert now["started"] - before.get("started", 0) == 4 * len(PATHS) * len(KINDS)
    assert now["sqlite"] == 0


@pytest.mark.system
@pytest.mark.parametrize("age", ["0", "60", "None"])
def test_postgresql_is_left_by_hundreds_of_aborted_requests(age: str, database: Path, tmp_path: Path) -> None:
    """With ``CONN_MAX_AGE`` a connection goes with the thread of its request, when the garbage collector comes."""
    each = 20
    with load(tmp_path, postgres=str(database), max_age=age) as server, Connections(database, "load") as connections:
        server.expect(GATHERS)
        most = abandon(server, each, connections.count)
        started = counts(server)["started"]
        assert started == each * len(PATHS) * len(KINDS)
        wait_for(lambda: counts(server)["finished"] == started, "request_finished of every one", seconds=10)
        if age == "0":
            assert each <= most <= 2 * each
            wait_for(lambda: connections.count() == 0, "the connections to be closed")
        else:
            print(
                f"CONN_MAX_AGE={age}: {most} connections at most, {connections.count()} left after {started} requests"
            )
            assert most <= 200
            assert connections.count() <= 200
        with server.client() as client:
            assert client.get("/sync").text == "done"


@pytest.mark.system
@pytest.mark.parametrize("age", ["0", "60"])
def test_ordinary_requests_take_few_connections_of_postgresql(age: str, database: Path, tmp_path: Path) -> None:
    with load(tmp_path, postgres=str(database), max_age=age) as server, Connections(database, "load") as connections:
        most = 0
        with server.client() as client:
            for number in range(400):
                assert client.get("/sync" if number % 2 else "/poll?seconds=0").text == "done"
                if number % 5 == 0:
                    most = max(most, connections.count())
        print(f"CONN_MAX_AGE={age}: {most} connections at most")
        assert most <= (3 if age == "0" else 60)
        assert counts(server)["collector"] <= 2000  # Django leaves cycles: Python's own setting


@pytest.mark.system
def test_a_pool_bounds_the_connections(database: Path, tmp_path: Path) -> None:
    pytest.importorskip("psycopg_pool")
    with (
        load(tmp_path, postgres=str(database), pool="4") as server,
        Connections(database, "load") as connections,
        ThreadPoolExecutor(16) as workers,
    ):
        asked = [workers.submit(httpx.get, f"{server.url}/poll?seconds=0", trust_env=False) for _ in range(100)]
        most = 0
        while not all(future.done() for future in asked):
            most = max(most, connections.count())
        assert {future.result().text for future in asked} == {"done"}
        assert 1 <= most <= 4
        abandon(server, 2, connections.count)
        server.expect(GATHERS)
        wait_for(lambda: counts(server)["finished"] == counts(server)["started"], "request_finished", seconds=10)
        assert connections.count() <= 4
        with server.client() as client:
            assert client.get("/sync").text == "done"


@pytest.mark.system
@pytest.mark.parametrize("age", ["0", "60"])
@pytest.mark.parametrize("consumer", ["async", "sync"])
def test_websockets_share_one_connection(consumer: str, age: str, database: Path, tmp_path: Path) -> None:
    """Outside of Django's requests there is one thread for all that is sensitive to it."""
    pytest.importorskip("channels")
    with load(tmp_path, postgres=str(database), max_age=age) as server, Connections(database, "load") as connections:
        url = f"ws://{HOST}:{server.port}/{consumer}"
        most = 0
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                sockets = [stack.enter_context(connect(url, proxy=None)) for _ in range(40)]
                for ws in sockets:
                    ws.send("x")
                most = max(most, connections.count())
                for ws in sockets:
                    assert ws.recv(5) == "x"
                    ws.socket.shutdown(socket.SHUT_RDWR)  # without a Close frame
        with Http2Client(socket.create_connection((HOST, server.port))) as client:
            for _ in range(40):
                ws2 = Http2WebSocket(client, f"/{consumer}")
                ws2.send("x")
                assert ws2.message() == "x"
                client.h2.reset_stream(ws2.stream, 8)
                client.flush()
        wait_for(lambda: counts(server).get("left") == 160, "the consumers to hear of it", seconds=10)
        assert most <= 1
        left = 0 if age == "0" else 1
        wait_for(lambda: connections.count() == left, "the connections to be closed")

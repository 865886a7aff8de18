"""Nothing that one client sends, and no application that never waits, keeps the loop to itself for long.

What is measured is the CPU time of the loop's thread from one turn to the next, so that a busy machine does not count.
The documented bound is 20 ms; the tests allow three times that, for machines that are slower than the one on which it
was found. Before there was a bound, each of these took from 80 to 20 000 ms.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import h2, ws
from tests.support.processes.serving import HOST, Running, serve

pytestmark = pytest.mark.once


BOUND_SECONDS = 0.060
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2.settings((4, 1 << 24)) + h2.settings(ack=True)
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    environment = {"PYTHONDEVMODE": "", "PYTHONMALLOC": ""}
    with serve("turns:application", tmp_path_factory.mktemp("turns"), environment=environment) as running:
        yield running


@contextlib.contextmanager
def connected(server: Running, opening: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection((HOST, server.port), timeout=60) as connection:
        connection.sendall(opening)
        yield connection


def reading(connection: socket.socket) -> threading.Thread:
    def read() -> None:
        with contextlib.suppress(OSError):
            while connection.recv(1 << 20):
                pass

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def many_requests(server: Running) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server, PREFACE)) for _ in range(50)]
        time.sleep(0.5)
        requests = b"".join(h2.headers(1 + 2 * number, h2.fields()) for number in range(100))
        for connection in connections:
            connection.sendall(requests)
        for connection in connections:
            assert connection.recv(1)
        time.sleep(0.5)


def small_data(path: bytes) -> Callable[[Running], None]:
    def attack(server: Running) -> None:
        with connected(server, PREFACE + h2.window_update(0, 1 << 20)) as connection:
            connection.sendall(h2.headers(1, h2.fields(b"POST", path), end=False))
            time.sleep(0.2)
            connection.sendall(h2.data(1, b"x") * 60_000 + h2.data(1, b"", True))
            time.sleep(3)

    return attack


def small_chunks(server: Running) -> None:
    with connected(server, b"POST /wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n") as connection:
        connection.sendall(b"2\r\nab\r\n" * 100_000 + b"0\r\n\r\n")
        assert connection.recv(1)


def pipelined(server: Running) -> None:
    with connected(server) as connection:
        thread = reading(connection)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10_000)
        connection.shutdown(socket.SHUT_WR)
        thread.join(60)


def fragments(server: Running) -> None:
    with connected(server, UPGRADE) as connection:
        connection.recv(4096)
        message = ws.binary(b"a", fin=False) + ws.more(b"a", fin=False) * 900 + ws.more(b"a")
        connection.sendall(message * 10)
        time.sleep(0.5)


def drip(opening: bytes) -> Callable[[Running], None]:
    def attack(server: Running) -> None:
        with connected(server, opening) as connection:
            thread = reading(connection)
            time.sleep(2)
            connection.shutdown(socket.SHUT_RDWR)
            thread.join(60)

    return attack


ATTACKS: dict[str, Callable[[Running], None]] = {
    "5 000 requests at once over HTTP/2": many_requests,
    "DATA of one byte, received at once": small_data(b"/read"),
    "DATA of one byte, received at last": small_data(b"/wait"),
    "chunks of two bytes": small_chunks,
    "pipelined requests": pipelined,
    "fragments of one byte": fragments,
    "an application that sends without waiting": drip(b"GET /drip HTTP/1.1\r\nHost: x\r\n\r\n"),
    "the same over HTTP/2": drip(PREFACE + h2.window_update(0, 1 << 20) + h2.headers(1, h2.fields(b"GET", b"/drip"))),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_turn_of_the_loop_takes_long(server: Running, attack: str) -> None:
    with server.client() as client:
        client.get("/begin")
        ATTACKS[attack](server)
        worst = client.get("/worst").json()
    assert worst < BOUND_SECONDS, f"a turn took {worst * 1000:.1f} ms of CPU"

"""What a client cuts into pieces of a byte or two costs by its bytes: in messages, in memory, and afterwards nothing.

Each attack was quadratic in the number of its frames, or held twenty times what the documentation promises.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.bench import procfs
from tests.support import h2
from tests.support.processes.serving import HOST, MIB, SLACK, Running, needs_procfs, serve, wait_for

pytestmark = needs_procfs

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2.settings((4, 1 << 24)) + h2.settings(ack=True)
CONNECT = [
    (b":method", b"CONNECT"),
    (b":scheme", b"http"),
    (b":authority", b"localhost"),
    (b":path", b"/ws"),
    (b":protocol", b"websocket"),
    (b"sec-websocket-version", b"13"),
]
# What is held and what is lost goes by the connection: a body that one of these leaves behind in each round is seen, and
# each takes 32 000 chunks to be parsed.
CONNECTIONS = 10
STREAMS = 60
# A message that is announced as large, unmasked by a key of zeros.
MESSAGE_HEAD = b"\x82\xff" + struct.pack(">Q", 900_000) + bytes(4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    environment = {"PYTHONDEVMODE": "", "PYTHONMALLOC": ""}
    options = ("--application-close-timeout", "1")
    with serve("pieces:application", tmp_path_factory.mktemp("pieces"), *options, environment=environment) as running:
        running.expect("took too long to shut down")
        yield running


def connect(server: Running, opening: bytes) -> socket.socket:
    connection = socket.create_connection((HOST, server.port), timeout=30)
    connection.sendall(opening)
    return connection


def sockets(server: Running) -> int:
    count = 0
    for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has been closed meanwhile
            count += os.readlink(descriptor).startswith("socket:")
    return count


def chunks(server: Running) -> list[socket.socket]:
    opening = b"POST /hold HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    connections = [connect(server, opening) for _ in range(CONNECTIONS)]
    for connection in connections:
        # A little more than is read, so that the client's end is seen behind what is not.
        connection.sendall(b"2\r\nab\r\n" * 36_000)
    return connections


def frames(server: Running) -> list[socket.socket]:
    connection = connect(server, PREFACE)
    for number in range(STREAMS):
        stream = 1 + 2 * number
        connection.sendall(h2.headers(stream, h2.fields(b"POST", b"/hold"), end=False))
        connection.sendall(h2.data(stream, b"ab") * 8000)
    return [connection]


def tunnels(server: Running) -> list[socket.socket]:
    connection = connect(server, PREFACE)
    for number in range(STREAMS):
        connection.sendall(h2.headers(1 + 2 * number, CONNECT, end=False))
    time.sleep(0.3 * SLACK)
    for number in range(STREAMS):
        connection.sendall(h2.data(1 + 2 * number, MESSAGE_HEAD) + h2.data(1 + 2 * number, b"ab") * 8000)
    return [connection]


# What each attack sends in payload, and may take in memory: twice the documented bound.
ATTACKS: dict[str, tuple[Callable[[Running], list[socket.socket]], int]] = {
    "chunks": (chunks, 2 * CONNECTIONS * (64 + 128) * 1024),
    "frames": (frames, 8 * MIB),
    "tunnels": (tunnels, 8 * MIB),
}


def resident(server: Running) -> int:
    return procfs.memory(server.pid).resident


def settled(server: Running) -> int:
    """Return the resident size when it changes no more."""
    last = [0]

    def still() -> bool:
        size = resident(server)
        same = abs(size - last[0]) < 64 * 1024
        last[0] = size
        time.sleep(0.2)
        return same

    wait_for(still, "the memory to settle", 30 * SLACK)
    return last[0]


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("attack", ATTACKS)
def test_memory_goes_by_bytes_and_is_not_lost_at_the_end(server: Running, attack: str) -> None:
    begin, most = ATTACKS[attack]
    at_first, idle = settled(server), sockets(server)
    after: list[int] = []
    for _ in range(10):
        connections = begin(server)
        held = settled(server) - at_first
        for connection in connections:
            connection.close()
        wait_for(lambda: sockets(server) <= idle, "the connections to end", 30 * SLACK)
        after.append(settled(server))
        print(f"{attack}: {held / MIB:.1f} MiB held, {(after[-1] - at_first) / MIB:.1f} MiB afterwards")
        assert held < most
    assert max(after[2:]) <= max(after[:2]) + MIB, [size // 1024 for size in after]


def read_until(connection: socket.socket, expected: bytes) -> bytes:
    data = b""
    while expected not in data:
        part = connection.recv(65536)
        assert part, "the connection ended"
        data += part
    return data


@pytest.mark.parametrize("count", [30_000, 60_000])
def test_frames_that_wait_are_received_together(server: Running, count: int) -> None:
    with connect(server, PREFACE + h2.window_update(0, 1 << 20)) as connection:
        connection.sendall(h2.headers(1, h2.fields(b"POST", b"/wait"), end=False))
        connection.sendall(h2.data(1, b"x") * count + h2.data(1, b"", True) + h2.ping())
        # The frames are there before the first is received, however slow the machine is.
        read_until(connection, h2.ping(ack=True))
        assert httpx.get(f"{server.url}/release", trust_env=False, timeout=30).text == "in 1 messages"
        data = read_until(connection, b" messages")
    found = re.search(rb"in (\d+) messages", data)
    assert found
    assert int(found[1]) <= 2

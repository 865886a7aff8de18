"""What the server itself adds to memory while much passes through it, and while somebody stops reading."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.serving import HOST, MIB, MemoryGrowth, Running, needs_procfs, serve, wait_for

pytestmark = [needs_procfs, pytest.mark.once]

MOST = 4 * MIB
PIECE = 64 * 1024
TRANSFER_BYTES = 256 * MIB

RECEIVE_BUFFER_BYTES = 256 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    # The allocator of Python's development mode writes to all that it gives out.
    environment = {"PYTHONDEVMODE": "", "PYTHONMALLOC": ""}
    with serve("plain:application", tmp_path_factory.mktemp("memory"), environment=environment) as running:
        with running.client() as client:  # what only the first requests need is not what is measured
            for _ in range(3):
                client.get("/stream?pieces=64")
                client.post("/count", content=b"x" * (4 * MIB))
        yield running


def upload(server: Running, path: str, block: bytes) -> tuple[dict[str, object], str]:
    digest = hashlib.sha256()

    def body() -> Iterator[bytes]:
        for _ in range(TRANSFER_BYTES // len(block)):
            digest.update(block)
            yield block

    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    try:
        connection.request("POST", path, body(), {"Content-Length": str(TRANSFER_BYTES)})
        return json.load(connection.getresponse()), digest.hexdigest()
    finally:
        connection.close()


def pieces_sent(server: Running) -> int:
    with server.client() as client:
        return int(client.get("/sent").json()["pieces"])


def pieces_sent_at_last(server: Running) -> int:
    """Wait until no stream gets on any more."""
    earlier = [-1]

    def unchanged() -> bool:
        earlier.append(pieces_sent(server))
        return earlier[-1] == earlier[-2]

    wait_for(unchanged, "the streams to stand still", seconds=10, interval=0.5)
    return earlier[-1]


def kernel_most() -> int:
    """Return how many bytes the kernel may hold between two sockets of this machine."""
    send_buffer = int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
    return send_buffer + 2 * RECEIVE_BUFFER_BYTES  # the kernel doubles what is asked for


@pytest.mark.parametrize("wait", [0, 1], ids=["read at once", "left unread for a second"])
def test_an_upload_of_256_mib_passes_through(server: Running, block: bytes, wait: int) -> None:
    growth = MemoryGrowth(server)
    seen, digest = upload(server, f"/count?wait={wait}", block)
    assert seen == {"size": TRANSFER_BYTES, "sha256": digest}
    growth.check(MOST)


def test_a_client_that_does_not_read_for_a_while_holds_the_application_back(server: Running) -> None:
    growth = MemoryGrowth(server)
    before = pieces_sent(server)
    pieces = TRANSFER_BYTES // PIECE
    with server.connect(receive_buffer=RECEIVE_BUFFER_BYTES) as connection:
        connection.sendall(b"GET /stream?pieces=%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % pieces)
        wait_for(lambda: pieces_sent(server) > before, "the stream to begin")
        held = pieces_sent_at_last(server) - before
        assert held * PIECE <= kernel_most() + MIB
        response = http.client.HTTPResponse(connection)
        response.begin()
        total, buffer = 0, bytearray(MIB)
        while count := response.readinto(buffer):
            total += count
        assert total == TRANSFER_BYTES
        assert buffer.count(0xDA) == len(buffer)
        response.close()
    assert pieces_sent(server) - before == pieces
    growth.check(MOST)


def test_many_clients_that_do_not_read_cost_little_each(server: Running) -> None:
    count, each = 32, 256 * 1024
    before = pieces_sent(server)
    growth = MemoryGrowth(server)
    connections = [server.connect(receive_buffer=4096) for _ in range(count)]
    for connection in connections:
        connection.sendall(b"GET /stream?pieces=100000 HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: pieces_sent(server) >= before + count, "the streams to begin")
    pieces_sent_at_last(server)
    for connection in connections:
        connection.close()
    growth.check(count * each)
    # The application's send() raises now, and each of its streams ends.
    wait_for(lambda: server.log.count("/stream?pieces=100000") == count, "the streams to end")


@pytest.mark.parametrize("pause", [0, 1], ids=["read at once", "not read for a second"])
def test_a_body_in_one_message_is_not_copied(server: Running, pause: int) -> None:
    size = 64 * MIB
    growth = MemoryGrowth(server)
    with server.connect(receive_buffer=RECEIVE_BUFFER_BYTES) as connection:
        connection.sendall(b"GET /whole?bytes=%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
        time.sleep(pause)
        response = http.client.HTTPResponse(connection)
        response.begin()
        total, buffer = 0, bytearray(MIB)
        while count := response.readinto(buffer):
            total += count
        assert total == size
        response.close()
    # The application's zeros are pages that nobody has written to, which cost nothing: all growth would be a copy.
    growth.check(MOST)


def test_the_measurement_sees_an_application_that_hoards(server: Running) -> None:
    growth = MemoryGrowth(server)
    with server.client() as client:
        client.get(f"/hoard?bytes={16 * MIB}")
    assert growth.peak > 15 * MIB

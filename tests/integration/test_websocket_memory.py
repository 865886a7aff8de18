"""What WebSockets add to the server's memory while one side sends and the other does not take it."""

from __future__ import annotations

import contextlib
import socket
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.processes.serving import HOST, MIB, MemoryGrowth, Running, needs_procfs, serve, wait_for
from tests.support.ws import BINARY, RSV1, frame

pytestmark = [needs_procfs, pytest.mark.once]

MOST = 8 * MIB
"""What is held for one socket - a message in the inbox, one in parts, one read, one write - and what the allocator
keeps of it."""
RECEIVE_BUFFER_BYTES = 256 * 1024
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    # The allocator of Python's development mode writes to all that it gives out.
    environment = {"PYTHONDEVMODE": "", "PYTHONMALLOC": ""}
    directory = tmp_path_factory.mktemp("memory")
    with serve("sockets:application", directory, "--ping-interval", "0", environment=environment) as running:
        for compression in ("deflate", None):  # what only the first sockets need is not what is measured
            with dial(running, "/echo", compression=compression) as ws:
                for _ in range(3):
                    ws.send(bytes(MIB - 100))
                    ws.recv(5)
        yield running


def dial(server: Running, path: str, **more: Any) -> ClientConnection:
    return connect(f"ws://{HOST}:{server.port}{path}", **{"proxy": None, "max_size": None, **more})


@contextlib.contextmanager
def raw(server: Running, path: str, fields: bytes = b"", **more: Any) -> Iterator[socket.socket]:
    with server.connect(30, **more) as connection:
        connection.sendall(
            b"GET %b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%b"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            % (path.encode(), fields)
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        yield connection


def totals(server: Running) -> dict[str, int]:
    with server.client() as client:
        return client.get("/totals").json()  # type: ignore[no-any-return]


def seen(server: Running, name: str) -> Any:
    with server.client() as client:
        return wait_for(lambda: client.get(f"/seen/{name}").json(), f"what {name} saw")


def at_last(server: Running, key: str) -> int:
    """Wait until a total does not change any more."""
    earlier = [-1]

    def unchanged() -> bool:
        earlier.append(totals(server).get(key, 0))
        return earlier[-1] == earlier[-2]

    wait_for(unchanged, f"{key} to stand still", seconds=20, interval=0.4)
    return earlier[-1]


def squeezed_zeros(size: int) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return (squeezer.compress(bytes(size)) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("kind", ["plain", "compressed", "small", "empty", "fragments"])
def test_an_application_that_does_not_receive_holds_its_client_back(server: Running, kind: str) -> None:
    messages = {
        "plain": (frame(BINARY, bytes(MIB)), 1, MIB),
        # A mebibyte each, which come as a kibibyte: a single read brings 64 of them.
        "compressed": (frame(BINARY, squeezed_zeros(MIB), rsv=RSV1) * 64, 64, MIB),
        "small": (frame(BINARY, bytes(100)) * 1000, 1000, 100),
        "empty": (frame(BINARY) * 10_000, 10_000, 0),
        "fragments": (
            frame(BINARY, bytes(MIB // 4), fin=False)
            + frame(0, bytes(MIB // 4), fin=False) * 2
            + frame(0, bytes(MIB // 4)),
            1,
            MIB,
        ),
    }
    data, count, size = messages[kind]
    before = totals(server)
    growth = MemoryGrowth(server)
    with raw(server, f"/deaf?name={kind}", OFFER) as connection:
        assert seen(server, kind) == "deaf"
        connection.settimeout(0.5)
        sent, most = 0, len(data) * 8 if kind == "compressed" else 64 * MIB
        with contextlib.suppress(TimeoutError):
            while sent < most:
                sent += connection.send(data[sent % len(data) :])
        assert sent < 32 * MIB  # what the kernel's buffers hold, and a message or two
        growth.check(MOST)
        # When it does receive, it gets all of it.
        connection.settimeout(30)
        whole = -(-sent // len(data))
        with server.client() as client:
            client.get("/go")
        connection.sendall(data[sent % len(data) :] if sent % len(data) else b"")
        wait_for(lambda: totals(server).get("received", 0) - before.get("received", 0) == whole * count, "the rest", 20)
        assert totals(server).get("bytes", 0) - before.get("bytes", 0) == whole * count * size
        growth.check(MOST)
        connection.sendall(frame(8, b"\x03\xe8"))
        assert connection.recv(10) == b"\x88\x02\x03\xe8"
    assert wait_for(lambda: (last := seen(server, kind)) != "deaf" and last, "the end")["code"] == 1000


@pytest.mark.parametrize("noise", ["&noise=1", ""], ids=["noise", "zeros"])
@pytest.mark.parametrize("fields", [b"", OFFER], ids=["plain", "compressed"])
def test_a_client_that_does_not_read_holds_the_application_back(server: Running, noise: str, fields: bytes) -> None:
    size = 65536
    # Zeros shrink to some hundred bytes, so that it takes many messages to fill the kernel's buffers.
    count = {("", False): 600, ("", True): 20_000}.get((noise, bool(fields)), 300)
    before = totals(server).get("sent", 0)
    growth = MemoryGrowth(server)
    with raw(
        server, f"/flood?count={count}&size={size}{noise}", fields, receive_buffer=RECEIVE_BUFFER_BYTES
    ) as connection:
        held = at_last(server, "sent") - before
        growth.check(MOST)
        if not fields or noise:
            assert held < count
        received = 0

        def read() -> None:
            nonlocal received
            while part := connection.recv(MIB):
                received += len(part)
                if part.endswith(b"\x88\x02\x03\xe8"):
                    return

        reader = threading.Thread(target=read)
        reader.start()
        wait_for(lambda: totals(server)["sent"] - before == count, "the application to send the rest", 30)
        connection.sendall(frame(8, b"\x03\xe8"))
        reader.join(20)
        assert not reader.is_alive()
    growth.check(MOST)


def test_many_clients_that_do_not_read_cost_little_each(server: Running) -> None:
    count, each = 32, 512 * 1024
    growth = MemoryGrowth(server)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(raw(server, "/flood?count=100000&size=65536&noise=1", receive_buffer=4096))
        at_last(server, "sent")
        growth.check(count * each)
    wait_for(lambda: totals(server)["open"] == 0, "the applications to end")


def test_idle_sockets_cost_little_each(server: Running) -> None:
    count, each = 300, 16 * 1024
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(raw(server, "/count", OFFER))
        growth = MemoryGrowth(server)
        for _ in range(count):
            connection = stack.enter_context(raw(server, "/count", OFFER))
            connection.sendall(frame(BINARY, squeezed_zeros(1000), rsv=RSV1) + frame(9, b"x"))
            assert connection.recv(10) == b"\x8a\x01x"
        growth.check(count * each + MIB)
    wait_for(lambda: totals(server)["open"] == 0, "the applications to end")

"""Everything that a WebSocket can go through, at random and for a while, over one server process.

At the end the server must be as it was at the beginning: no connection, no task, no memory more, and no complaint in
its log. ``SOAK_SECONDS`` sets how long (20 by default).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.bench import procfs
from tests.support.processes.serving import HOST, MIB, Running, needs_procfs, serve, wait_for
from tests.support.ws import BINARY, RSV1, close, frame, more, ping, text

pytestmark = [pytest.mark.soak, needs_procfs]

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
CLIENTS = 24
GROWTH_MAX_BYTES = 4 * MIB
"""What the allocator keeps of the round's worst moment; a leak of a kilobyte for each connection would be more."""

HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
OPTIONS = (
    *("--ping-interval", "1", "--ping-timeout", "2", "--write-timeout", "2", "--websocket_connect_timeout", "2"),
    *("--websocket_timeout", "10", "--application-close-timeout", "2"),
)
# What the server says of clients that do not keep to the rules, or of an application that takes its time.
EXPECTED = ("Application did not accept", "Exception inside application: this socket is broken")


class Soaker:
    """One client after the other, each of them with one way to use or misuse a socket."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._random = random.Random(seed)
        self.done: dict[str, int] = {}

    async def run(self, seconds: float) -> None:
        """Go on for so long."""
        deadline = asyncio.get_running_loop().time() + seconds
        ways = [self.talk, self.talk, self.fragments, self.rude, self.half_open, self.http, self.broken, self.unread]
        while asyncio.get_running_loop().time() < deadline:
            way = self._random.choice(ways)
            async with asyncio.timeout(20):
                await way()
            self.done[way.__name__] = self.done.get(way.__name__, 0) + 1

    def _noise(self) -> bytes:
        data = self._random.randbytes(self._random.choice((0, 1, 100, 125, 126, 5_000, 70_000, 300_000)))
        return data if self._random.random() < 0.5 else data[:50] * (len(data) // 50)

    def _connect(self, path: str, **options: Any) -> connect:
        return connect(f"ws://{HOST}:{self._port}{path}", proxy=None, **options)

    @contextlib.asynccontextmanager
    async def _raw(self, path: str, head: str = HANDSHAKE) -> Any:
        reader, writer = await asyncio.open_connection(HOST, self._port, limit=4096)
        try:
            writer.write(head.format(path).encode())
            yield reader, writer
        finally:
            if self._random.random() < 0.3:
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def talk(self) -> None:
        """Echo messages, and close in order."""
        async with self._connect("/echo", compression=self._random.choice(("deflate", None))) as ws:
            for _ in range(self._random.randrange(10)):
                message: str | bytes = self._noise()
                if self._random.random() < 0.3:
                    message = message.hex()[:100_000]  # type: ignore[union-attr]
                await ws.send(message)
                assert await ws.recv() == message
            await ws.close(self._random.choice((1000, 1001, 4000)), "enough")

    async def fragments(self) -> None:
        """Send fragments with pings between them."""
        async with self._connect("/echo", compression=self._random.choice(("deflate", None))) as ws:
            parts = [self._noise() for _ in range(self._random.randrange(1, 5))]
            await asyncio.gather(ws.send(parts), ws.ping())
            if sum(map(len, parts)) <= MIB:
                assert await ws.recv() == b"".join(parts)

    async def rude(self) -> None:
        """Break a rule."""
        wrong = [
            frame(3, b"x"), text(b"\xff"), frame(BINARY, b"x", rsv=0x20), frame(BINARY, b"x", key=None), close(1005),
            more(b"x"), frame(BINARY, b"\xff" * 20, rsv=RSV1), ping(b"x") * 300, frame(BINARY, b"", size=1 << 40),
            frame(BINARY, zlib.compress(bytes(3 * MIB), wbits=-12), rsv=RSV1), text("x", fin=False) * 2,
        ]  # fmt: skip
        async with self._raw("/echo") as (reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(text("hello") + self._random.choice(wrong))
            with contextlib.suppress(OSError):
                while await reader.read(4096):
                    pass

    async def half_open(self) -> None:
        """Leave at any moment: in the handshake, in a frame, in a message, without a word, or go mute."""
        data = frame(BINARY, self._noise() + b"x", fin=False) + more(b"y" * 1000)
        async with self._raw(self._random.choice(("/echo", "/count", "/undecided", "/deny", "/refuse"))) as (_, writer):
            writer.write(data[: self._random.randrange(len(data))])
            await asyncio.sleep(self._random.random() * 0.05)
            if self._random.random() < 0.1:
                writer.write_eof()
                await asyncio.sleep(0.1)

    async def http(self) -> None:
        """Ask in HTTP."""
        async with self._raw("/hello", "GET {0} HTTP/1.1\r\nHost: x\r\n\r\n" * 3) as (reader, _):
            await reader.readuntil(b"plain HTTP\n")

    async def broken(self) -> None:
        """See applications fail, refuse and end."""
        path = self._random.choice(("/fail", "/return", "/close?code=4000", "/deny", "/refuse", "/undecided"))
        with contextlib.suppress(WebSocketException, TimeoutError):
            async with asyncio.timeout(5), self._connect(path) as ws:
                await ws.recv()

    async def unread(self) -> None:
        """Ask for much, read little, and leave."""
        noise = self._random.choice(("", "&noise=1"))
        async with self._raw(f"/flood?count=1000&size=65536{noise}") as (reader, _):
            await reader.read(4096)
            await asyncio.sleep(self._random.random() * 0.3)


async def soak(port: int, seconds: float, seed: int) -> dict[str, int]:
    soakers = [Soaker(port, seed + number) for number in range(CLIENTS)]
    await asyncio.gather(*(soaker.run(seconds) for soaker in soakers))
    done: dict[str, int] = {}
    for soaker in soakers:
        for way, count in soaker.done.items():
            done[way] = done.get(way, 0) + count
    return done


def sockets_of(server: Running) -> int:
    links = (os.readlink(entry) for entry in Path(f"/proc/{server.pid}/fd").iterdir() if entry.is_symlink())
    return sum(link.startswith("socket:") for link in links)


def at_rest(server: Running) -> tuple[int, int]:
    """Wait until no application runs, and return how many tasks and sockets the server has then."""

    def totals() -> dict[str, int]:
        with server.client() as client:
            return client.get("/totals").json()  # type: ignore[no-any-return]

    wait_for(lambda: totals().get("open", 0) == 0, "the applications to end", 30, 0.2)
    tasks = totals()["tasks"]
    time.sleep(0.2)  # so that the connection of this question is gone too
    return tasks, sockets_of(server)


def test_a_server_that_was_treated_badly_is_as_it_was(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    # The allocator of Python's development mode keeps more.
    environment = {"PYTHONDEVMODE": "", "PYTHONMALLOC": ""}
    with serve("sockets:application", tmp_path, *OPTIONS, environment=environment) as server:
        server.expect(*EXPECTED)
        idle = at_rest(server)
        asyncio.run(soak(server.port, min(SECONDS / 2, 10), seed))
        wait_for(lambda: at_rest(server) == idle, "the server to be as it was", 30, 0.5)
        before = procfs.memory(server.pid).resident
        done = asyncio.run(soak(server.port, SECONDS, seed + 1000))
        wait_for(lambda: at_rest(server) == idle, "the server to be as it was", 30, 0.5)
        growth = procfs.memory(server.pid).resident - before
        print(f"{sum(done.values())} sockets and requests: {done}; {growth / MIB:.2f} MiB more than before")
        assert min(done.values()) > 0
        assert growth <= GROWTH_MAX_BYTES

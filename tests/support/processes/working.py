"""Workers of a supervisor, and clients that ask them without a pause and count whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.bench import procfs
from tests.support.h2_client import Http2Client
from tests.support.processes.serving import APPS, HOST, Running, serve, wait_for

APP = "worked:application"
SERVER = (sys.executable, "-m", "daphne_ng")
PATIENCE = 20.0

_READY = re.compile(r"Worker (\d+) \(process (\d+)\) is ready")


class Workers:
    """A supervisor that runs, as its log tells of it."""

    def __init__(self, server: Running) -> None:
        self.server = server

    @property
    def log(self) -> str:
        """What it and its workers have written."""
        return self.server.log

    @property
    def ready(self) -> list[int]:
        """Process ids of all workers that ever became ready, in order."""
        return [int(match[2]) for match in _READY.finditer(self.log)]

    @property
    def running(self) -> list[int]:
        """Process ids of the workers that run now."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def wait_ready(self, number: int, seconds: float = PATIENCE) -> list[int]:
        """Wait until so many workers have ever become ready."""
        return wait_for(lambda: ready if len(ready := self.ready) >= number else None, f"{number} workers", seconds)

    def wait_settled(self, number: int, seconds: float = PATIENCE) -> None:
        """Wait until exactly so many processes run, and all of them are ready."""
        wait_for(
            lambda: len(running := self.running) == number and set(running) <= set(self.ready),
            f"{number} workers to be left",
            seconds,
        )

    def signal(self, number: int) -> None:
        """Send a signal to the supervisor."""
        self.server.process.send_signal(number)

    def roll(self) -> None:
        """Have all workers replaced, and wait until the old ones have gone."""
        before, done = set(self.running), self.log.count("All workers are replaced")
        self.signal(signal.SIGHUP)
        wait_for(lambda: self.log.count("All workers are replaced") > done, "the new workers", PATIENCE)
        wait_for(lambda: not before & set(self.running), "the old workers to go", PATIENCE)

    def fetch(self, path: str = "/") -> str:
        """Return a page, over a connection of its own."""
        with self.server.client() as client:
            return client.get(path, headers={"connection": "close"}).text

    def ask(self, path: str) -> socket.socket:
        """Send a request, and return its connection."""
        connection = self.server.connect()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        return connection

    def descriptors(self) -> int:
        """How many descriptors the supervisor has."""
        return len(list(Path(f"/proc/{self.server.pid}/fd").iterdir()))

    def memory(self) -> int:
        """Resident memory of the supervisor alone, in bytes."""
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return procfs.parse_status(status).resident


@contextlib.contextmanager
def workers(directory: Path, *options: str, count: int | None = 2, **more: Any) -> Iterator[Workers]:
    """Run a supervisor from the time when all its workers are ready; without one for None. See `serve`."""
    listen: Sequence[str] = more.pop("listen", ("-b", HOST, "-p", "0"))
    options = ("--workers", str(count), *options) if count else options
    with serve(more.pop("app", APP), directory, *options, listen=listen, **more) as server:
        running = Workers(server)
        if count is not None:
            running.wait_ready(count or 1)
        yield running


def ends_within(running: Workers, seconds: float, number: int = signal.SIGTERM) -> int:
    """Send a signal, and return the exit code; it must come within so many seconds."""
    running.signal(number)
    try:
        return running.server.process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it runs after {seconds} s:\n{running.log}") from None


def start(directory: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a supervisor that is expected to end at once."""
    variables = os.environ | {"PYTHONPATH": str(APPS)} | environment
    command = [*SERVER, "-b", HOST, "--workers", "2", *options]
    return subprocess.run(
        command, cwd=directory, env=variables, timeout=60, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _trusting(protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


class Load:
    """Clients that ask as long as the ``with`` block runs, in a thread.

    A request is repeated by nobody, and a client goes by what it is told: after ``Connection: close`` or GOAWAY it takes
    another connection. So every failure is a loss.

    Args:
        port: Where.
        kept: Clients of HTTP/1.1 that keep their connection.
        fresh: Clients of HTTP/1.1 with a connection for each request.
        sockets: WebSockets, which are opened again when they are closed with 1012.
        http2: Clients of HTTP/2.
        tls: Whether over TLS.
        preface: What is sent first on every connection, before TLS.
    """

    def __init__(
        self,
        port: int,
        *,
        kept: int = 6,
        fresh: int = 2,
        sockets: int = 6,
        http2: int = 2,
        tls: bool = False,
        preface: bytes = b"",
    ) -> None:
        self.port = port
        self._preface = preface
        self._tls = [_trusting("http/1.1"), _trusting("h2")] if tls else [None, None]
        self.requests = self.messages = self.reopened = 0
        self.echoed_before_close = 0
        """Messages that came back on WebSockets that were then closed with 1012."""
        self.failures: Counter[str] = Counter()
        self.mortal = False
        """Whether the server may end: who then finds nobody, or is reset before the first answer, has lost nothing."""
        self.by_pid: Counter[int] = Counter()
        self._over = False
        self._numbers = kept, fresh, sockets, http2
        self._threads = [threading.Thread(target=lambda: asyncio.run(self._main()))]
        self._threads += [threading.Thread(target=self._ask_http2) for _ in range(http2)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over = True
        for thread in self._threads:
            thread.join()
        print(f"{self.requests} requests, {self.messages} messages, {self.reopened} reopened, {dict(self.failures)}")

    def wait(self, requests: int = 200) -> None:
        """Wait until so many more requests are answered."""
        until = self.requests + requests
        wait_for(lambda: self.requests >= until, f"{requests} requests", PATIENCE)

    async def _main(self) -> None:
        kept, fresh, sockets, _ = self._numbers
        async with asyncio.TaskGroup() as group:
            for _ in range(kept):
                group.create_task(self._ask(True))
            for _ in range(fresh):
                group.create_task(self._ask(False))
            for _ in range(sockets):
                group.create_task(self._talk())

    async def _dial(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (HOST, self.port))
        await loop.sock_sendall(sock, self._preface)
        return sock

    def _named(self) -> dict[str, Any]:
        return {"ssl": self._tls[0], "server_hostname": HOST} if self._tls[0] else {}

    async def _ask(self, keep: bool) -> None:
        close = "" if keep else "Connection: close\r\n"
        head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\n{close}Content-Length: 1000\r\n\r\n".encode()
        while not self._over:
            answered = False
            try:
                reader, writer = await asyncio.open_connection(sock=await self._dial(), **self._named())
                try:
                    kept = True
                    while kept and not self._over:
                        async with asyncio.timeout(PATIENCE):
                            writer.write(head + b"x" * 1000)
                            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                            assert answer.startswith("http/1.1 200"), answer
                            length = re.search(r"content-length: (\d+)", answer)
                            assert length is not None
                            body = await reader.readexactly(int(length[1]))
                        self.by_pid[int(body)] += 1
                        self.requests += 1
                        answered = True
                        kept = "connection: close" not in answer
                        await asyncio.sleep(0.002)
                finally:
                    writer.close()
            except ConnectionError as error:
                if self.mortal and not answered:
                    return
                self.failures[f"HTTP/1.1, kept: {keep}: {error!r}"] += 1
            except Exception as error:
                self.failures[f"HTTP/1.1, kept: {keep}: {error!r}"] += 1

    async def _talk(self) -> None:
        while not self._over:
            number = 0
            try:
                url = f"ws{'s' * bool(self._tls[0])}://{HOST}:{self.port}/ws"
                sock = await self._dial()
                async with connect(url, sock=sock, proxy=None, open_timeout=PATIENCE, **self._named()) as ws:
                    await ws.recv()
                    while not self._over:
                        number += 1
                        async with asyncio.timeout(PATIENCE):
                            await ws.send(str(number))
                            heard = await ws.recv()
                        assert heard == str(number)
                        self.messages += 1
                        await asyncio.sleep(0.005)
            except ConnectionClosed as closed:
                if closed.rcvd is None or closed.rcvd.code != 1012:
                    self.failures[f"WebSocket: {closed!r}"] += 1
                self.reopened += 1
                self.echoed_before_close += max(number - 1, 0)
            except (ConnectionError, InvalidMessage) as error:
                if self.mortal:
                    return
                self.failures[f"WebSocket: {error!r}"] += 1
            except Exception as error:
                self.failures[f"WebSocket: {error!r}"] += 1

    def _ask_http2(self) -> None:
        while not self._over:
            answered = False
            try:
                sock = socket.create_connection((HOST, self.port), PATIENCE)
                sock.sendall(self._preface)
                if self._tls[1] is not None:
                    sock = self._tls[1].wrap_socket(sock, server_hostname=HOST)
                with Http2Client(sock) as client:
                    while not self._over and client.goaway is None and not client.closed:
                        streams = [client.request("/") for _ in range(4)]
                        for stream in streams:
                            response = client.response(stream)
                            assert response.status == 200, response
                            self.requests += 1
                            answered = True
                        time.sleep(0.002)
            except ConnectionError as error:
                if self.mortal and not answered:
                    return
                self.failures[f"HTTP/2: {error!r}"] += 1
            except Exception as error:
                self.failures[f"HTTP/2: {error!r}"] += 1

"""Clients that read slowly, all the time, get everything; those that read next to nothing are ended.

The time limits are scaled down, and longer than any pause between two reads of a client that is to be served. What the
kernel's buffers hold takes such a client several times as long as each of the limits.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from daphne_ng.config import Config
from daphne_ng.server import Server
from tests.support.processes.serving import SLACK, wait_for

pytestmark = pytest.mark.once


# Of one response; the kernel holds up to 4 MB of it.
SIZE = 3_600_000
RATE = 300_000
PART = 65536
LIMITS: dict[str, Any] = {"write_timeout": 2.0, "http2_stall_timeout": 2.0, "close_timeout": 0.2, "drain_timeout": 0.2}


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(SIZE // PART):
            await send({"type": "websocket.send", "bytes": bytes(PART)})
        await send({"type": "websocket.close"})
        return
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % SIZE)]})
    if scope["path"] == "/whole":
        await send({"type": "http.response.body", "body": bytes(SIZE)})
        return
    for start in range(0, SIZE, PART):
        await send({"type": "http.response.body", "body": bytes(min(PART, SIZE - start)), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Served:
    """A server in a thread, on TCP, TLS and a UNIX socket."""

    def __init__(self, pem: Path, directory: Path, **settings: Any) -> None:
        self.unix = str(directory / "slow.sock")
        self.records: list[tuple[Any, ...]] = []
        self.server = Server(
            application,
            [
                "tcp:0:interface=127.0.0.1",
                f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
                f"unix:{self.unix}",
            ],
            config=Config(graceful_timeout=0, lifespan="off", **{**LIMITS, **settings}),
            action_logger=lambda protocol, action, details: self.records.append((protocol, action, dict(details))),
        )

    def connect(self, kind: str, protocols: tuple[str, ...] = (), buffer: int = 65536) -> socket.socket:
        if kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(20 * SLACK)
            sock.connect(self.unix)
            return sock
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(20 * SLACK)
        tcp, tls = (address for address in self.server.listening_addresses if isinstance(address, tuple))
        sock.connect(tls[:2] if kind == "tls" else tcp[:2])
        if kind == "tcp":
            return sock
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context.wrap_socket(sock, suppress_ragged_eofs=False)

    def sizes(self) -> list[int]:
        return [
            details["size"] for protocol, action, details in self.records if (protocol, action) == ("http", "complete")
        ]


@contextlib.contextmanager
def served(pem: Path, directory: Path, **settings: Any) -> Iterator[Served]:
    one = Served(pem, directory, **settings)
    with one.server.run_in_thread():
        yield one


def slowly(client: socket.socket, most: int = SIZE + 10_000, rate: float = RATE) -> bytes:
    """Read at a steady rate, to the end or until there is enough."""
    data, began = bytearray(), time.monotonic()
    while len(data) < most and (piece := client.recv(16384)):
        data += piece
        time.sleep(max(began + len(data) / rate - time.monotonic(), 0))
    return bytes(data)


def http1(at: Served, kind: str, path: str, close: bool) -> int:
    with at.connect(kind) as client:
        client.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (path.encode(), b"Connection: close\r\n" * close))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        # A connection that closes is read to its end, which over TLS must say that it is one.
        return len(slowly(client, SIZE + close))


def websocket(at: Served, kind: str) -> int:
    with at.connect(kind) as client:
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        count = SIZE // PART
        size = count * (PART + 10) + 4  # a head of 10 bytes each, and the Close frame
        data = slowly(client, size + 300).partition(b"\r\n\r\n")[2]
        if data[-4:] == b"\x88\x02\x03\xe8":
            return SIZE + len(data) - size
        return len(data)


def http2(at: Served, window: int) -> int:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    got, ended = 0, False
    with at.connect("tls", ("h2",)) as client:
        connection.initiate_connection()
        connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        connection.increment_flow_control_window(2**30)
        fields = [(":method", "GET"), (":path", "/parts"), (":scheme", "https"), (":authority", "a")]
        connection.send_headers(1, fields, end_stream=True)
        began = time.monotonic()
        while not ended:
            client.sendall(connection.data_to_send())
            data = client.recv(16384)
            if not data:
                break
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    got += len(event.data)
                    if window < 2**20:
                        connection.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    return got
                ended = ended or isinstance(event, h2.events.StreamEnded)
            time.sleep(max(began + got / RATE - time.monotonic(), 0))
    return got


def test_whoever_reads_slowly_all_the_time_gets_everything(
    pem: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with served(pem, tmp_path) as at, ThreadPoolExecutor(20) as pool:
        clients: dict[str, Any] = {
            f"HTTP/1.1 {kind} {path} {'close' if close else 'keep'}": pool.submit(http1, at, kind, path, close)
            for kind in ("tcp", "tls", "unix")
            for path, close in (("/whole", True), ("/whole", False), ("/parts", True), ("/parts", False))
        }
        clients |= {f"WebSocket {kind}": pool.submit(websocket, at, kind) for kind in ("tcp", "tls", "unix")}
        clients |= {f"HTTP/2, windows of {window}": pool.submit(http2, at, window) for window in (65535, 2**30)}
        outcome = {name: client.exception() or client.result() for name, client in clients.items()}
    assert outcome == dict.fromkeys(outcome, SIZE)
    assert "stopped reading" not in caplog.text
    assert "Cut off" not in caplog.text


def test_what_a_client_still_sends_does_not_destroy_its_answer(pem: Path, tmp_path: Path) -> None:
    """The kernel answers what comes for a closed socket with a reset, and forgets what it holds for the client."""
    with served(pem, tmp_path) as at, at.connect("tcp") as client:
        client.sendall(b"GET /whole HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = slowly(client, SIZE // 4, RATE * 2)
        client.sendall(b"\r\n")  # as some clients do
        data += slowly(client, rate=RATE * 2)
    assert len(data.partition(b"\r\n\r\n")[2]) == SIZE


def test_a_client_that_takes_its_answer_is_not_idle(pem: Path, tmp_path: Path) -> None:
    with served(pem, tmp_path, keep_alive_timeout=1.0) as at, at.connect("tcp") as client:
        for _ in range(2):
            client.sendall(b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            assert len(slowly(client, SIZE, RATE * 2)) == SIZE


def drip(at: Served, kind: str, request: bytes, over: threading.Event, interval: float = 1.0) -> None:
    """Ask for much, and take a byte a second of it through the smallest of windows; or nothing."""
    with contextlib.suppress(OSError), at.connect(kind, buffer=1) as client:
        client.sendall(request)
        while not over.wait(interval):
            if interval == 1.0:
                client.recv(1)


def drip_http2(at: Served, over: threading.Event) -> None:
    """Read everything, and open the window of the stream byte by byte."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    with contextlib.suppress(OSError), at.connect("tls", ("h2",)) as client:
        connection.initiate_connection()
        fields = [(":method", "GET"), (":path", "/parts"), (":scheme", "https"), (":authority", "a")]
        connection.send_headers(1, fields, end_stream=True)
        client.settimeout(0.2)
        while not over.is_set():
            client.sendall(connection.data_to_send())
            with contextlib.suppress(TimeoutError):
                for event in connection.receive_data(client.recv(65536)):
                    if isinstance(event, h2.events.StreamReset):
                        return
            connection.increment_flow_control_window(1, 1)


def test_a_byte_a_second_holds_no_connection_for_ever(
    pem: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    over = threading.Event()
    get = b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n"
    upgrade = (
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    requests = [get % (b"whole", b"Connection: close\r\n"), get % (b"whole", b""), get % (b"parts", b""), upgrade]

    def lines() -> list[str]:
        return [line for line in caplog.messages if re.search("stopped reading|Cut off|keeps the window", line)]

    with served(pem, tmp_path, keep_alive_timeout=1.0) as at, ThreadPoolExecutor(20) as pool:
        attackers = [pool.submit(drip, at, kind, request, over) for kind in ("tcp", "tls") for request in requests]
        attackers += [pool.submit(drip, at, "tcp", request, over, 0.1) for request in requests]
        attackers += [pool.submit(drip, at, "unix", request, over) for request in requests]
        attackers.append(pool.submit(drip_http2, at, over))
        try:
            # The timeout, the look before it begins and the one after it ends; an idle connection has its time besides.
            wait_for(lambda: len(lines()) == len(attackers), "all of them to be ended", seconds=6 * SLACK)
        finally:
            over.set()
        # The line about a connection comes before its end does.
        wait_for(lambda: not at.server._life.context.connections, "their connections to be lost", seconds=5 * SLACK)  # type: ignore[union-attr]
    # What is of a response that was cut off is in the access log, and no more.
    assert at.sizes()
    assert sum(size < SIZE for size in at.sizes()) >= len(at.sizes()) - 1
    named = r"\(--write-min-rate, --write-timeout\), and \d+ bytes were left|keeps the window of the connection"
    assert all(re.search(named, line) for line in lines())

"""How connections end on real sockets: with TLS and without, early, late and by force.

Each test is a defect that was found by attacking a running server.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.server import Server

# Twisted hands its ``ssl:`` endpoints' certificates on as pyOpenSSL's objects.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

SIZE = 4_000_000


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    path = scope["path"]
    if path == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if path == "/tasks":
        body = b"%d" % len(asyncio.all_tasks())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/cut":
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await asyncio.sleep(0.1)
        raise ValueError("on purpose")
    await send({"type": "http.response.body", "body": b"x" * SIZE})


@contextlib.contextmanager
def serving(endpoint: str, **settings: Any) -> Iterator[int]:
    server = Server(application, [endpoint], config=Config(graceful_timeout=0, **settings))
    with server.run_in_thread():
        yield server.listening_addresses[0][1]


def connect(port: int, tls: bool, receive_buffer: int = 0) -> socket.socket:
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.settimeout(20)
    raw.connect(("127.0.0.1", port))
    if not tls:
        return raw
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A connection that ends without close_notify is an error, not an end.
    return context.wrap_socket(raw, suppress_ragged_eofs=False)


def read_all(client: socket.socket, rate: float = 0) -> bytes:
    data = bytearray()
    while piece := client.recv(65536):
        data += piece
        if rate:
            time.sleep(len(piece) / rate)
    return bytes(data)


@pytest.fixture(params=["tcp", "tls"])
def endpoint(request: pytest.FixtureRequest, pem: Path) -> tuple[str, bool]:
    if request.param == "tcp":
        return "tcp:0:interface=127.0.0.1", False
    return f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}", True


def test_a_client_that_reads_slowly_gets_all_of_a_large_answer(endpoint: tuple[str, bool]) -> None:
    # 4 MB at 1 MB/s take longer than every one of these limits; each pause of the client is shorter.
    with (
        serving(endpoint[0], write_timeout=2.0, close_timeout=2.0, drain_timeout=1.5) as port,
        connect(port, endpoint[1], 65536) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = read_all(client, rate=1_000_000)
    assert len(data.partition(b"\r\n\r\n")[2]) == SIZE


def test_a_response_that_was_cut_does_not_end_like_a_whole_one(
    endpoint: tuple[str, bool], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(endpoint[0]) as port, connect(port, endpoint[1]) as client:
        client.sendall(b"GET /cut HTTP/1.0\r\n\r\n")
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            read_all(client)
    assert "on purpose" in caplog.text


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GARBAGE\r\n\r\n", b"501"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 100_000, b"413"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
    ],
)
def test_a_refusal_ends_in_order(
    endpoint: tuple[str, bool], request_bytes: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(endpoint[0], body_max_bytes=1000) as port, connect(port, endpoint[1]) as client:
        client.sendall(request_bytes)
        assert read_all(client).startswith(b"HTTP/1.1 " + status)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_clients_that_pipeline_too_much_and_leave_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daphne_ng.wire.http1.read_flow.PROBE_SECONDS", 0.2)
    with serving("tcp:0:interface=127.0.0.1", application_close_timeout=1) as port:
        for _ in range(5):
            client = connect(port, False)
            client.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n" * 40)
            time.sleep(0.05)
            client.close()
        deadline = time.monotonic() + 10
        while True:
            with connect(port, False) as client:
                client.sendall(b"GET /tasks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                tasks = int(read_all(client).rpartition(b"\r\n\r\n")[2])
            if tasks <= 3 or time.monotonic() > deadline:
                break
            time.sleep(0.1)
    assert tasks <= 3  # the server's own, and this request's


def test_nothing_is_read_behind_a_broken_request_while_an_earlier_one_runs() -> None:
    with serving("tcp:0:interface=127.0.0.1", application_close_timeout=1) as port, connect(port, False) as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\r\n\r\n")
        time.sleep(0.2)
        client.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 100_000_000:
                sent += client.send(b"x" * 1_000_000)
    assert sent < 50_000_000  # what the kernel's buffers hold

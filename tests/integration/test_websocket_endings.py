"""How WebSockets end on a real server: when it stops, when a time or a limit is over, and what its access log says."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.processes.serving import HOST, MIB, SLACK, Running, serve, wait_for

pytestmark = pytest.mark.once


APPLICATION = "sockets:application"
HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GOING = "The server is shutting down."


def dial(server: Running, path: str, **more: Any) -> ClientConnection:
    return connect(f"ws://{HOST}:{server.port}{path}", **{"proxy": None, "ping_interval": None, **more})


@contextlib.contextmanager
def raw(server: Running, path: str, answered: bool = True, **more: Any) -> Iterator[socket.socket]:
    """Open a WebSocket of which the test sees and writes every byte."""
    with server.connect(10, **more) as connection:
        connection.sendall(HANDSHAKE.format(path).encode())
        head = b""
        while answered and not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        yield connection


def rest(connection: socket.socket) -> bytes:
    """Read to the end, orderly or not."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def ended(ws: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        while True:
            ws.recv(10)
    return ws.close_code, ws.close_reason


def seen(server: Running, name: str) -> Any:
    with server.client() as client:
        return wait_for(lambda: client.get(f"/seen/{name}").json(), f"what {name} saw")


# -- the server stops ---------------------------------------------------------------------------------------------


def test_every_open_socket_is_told_1012_when_the_server_stops(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path, "--graceful-timeout", "60") as server, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(dial(server, path)) for path in ("/echo", "/count", "/scope") * 4]
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        for ws in sockets:
            assert ended(ws) == (1012, GOING)
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 3 * SLACK
    assert "pending application instances" not in server.log
    assert server.log.count("WSDISCONNECT") == len(sockets)


def test_a_client_that_does_not_answer_the_close_holds_the_server_no_longer_than_the_close_timeout(
    tmp_path: Path,
) -> None:
    with serve(APPLICATION, tmp_path) as server, raw(server, "/count") as connection:
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        data = rest(connection)
        assert data[:4] == b"\x88\x1e\x03\xf4"
        assert data[4:] == GOING.encode()
        assert server.process.wait(30) == 0
        assert 4 < time.monotonic() - began < 5 + 3 * SLACK  # close_timeout is 5 s


def test_a_handshake_that_is_undecided_when_the_server_stops_is_answered(tmp_path: Path) -> None:
    options = ("--graceful-timeout", "0.5", "--websocket_connect_timeout", "60", "--application-close-timeout", "1")
    with serve(APPLICATION, tmp_path, *options) as server:
        with raw(server, "/undecided?name=a", answered=False) as connection:
            assert seen(server, "a") == "asked"
            server.process.send_signal(signal.SIGTERM)
            assert rest(connection).startswith(b"HTTP/1.1 503 ")
            assert server.process.wait(10) == 0


def test_an_application_that_does_not_see_the_end_is_cancelled_when_the_server_stops(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path, "--graceful-timeout", "0.5", "--application-close-timeout", "1") as server:
        with dial(server, "/deaf?name=a") as ws:
            assert seen(server, "a") == "deaf"
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert ended(ws) == (1012, GOING)
            assert server.process.wait(20) == 0
            assert time.monotonic() - began < 1.5 + 2.5 * SLACK
    assert "Killed 1 pending application instances" in server.log


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path) as server:
        with raw(server, "/deaf?name=a"), raw(server, "/count") as silent:
            assert seen(server, "a") == "deaf"
            server.process.send_signal(signal.SIGTERM)
            assert silent.recv(1) == b"\x88"
            server.wait_for_log(r"Waiting for \d running request")
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(10) == 0
            assert time.monotonic() - began < 3


def test_the_client_of_a_stopping_server_still_gets_what_was_sent(tmp_path: Path) -> None:
    count, size = 40, 100_000
    with serve(APPLICATION, tmp_path) as server, dial(server, f"/flood?count={count}&size={size}&noise=1") as ws:
        with server.client() as client:
            wait_for(lambda: client.get("/totals").json().get("sent", 0) > 5, "the application to send")
            sent = client.get("/totals").json()["sent"]
        server.process.send_signal(signal.SIGTERM)
        received = 0
        with pytest.raises(ConnectionClosed):
            while True:
                assert len(ws.recv(10)) == size
                received += 1
        assert ws.close_code == 1012
        assert received >= sent
        assert server.process.wait(10) == 0


def test_a_client_that_does_not_read_does_not_hold_the_stopping_server_for_long(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path, "--ping-interval", "0") as server:
        with raw(server, "/flood?count=100000&size=65536&noise=1", receive_buffer=4096):
            time.sleep(0.5)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 0
            assert time.monotonic() - began < 5 + 3 * SLACK  # close_timeout is 5 s
    assert "pending application instances" not in server.log  # its send() raised


# -- times --------------------------------------------------------------------------------------------------------


def test_an_application_that_does_not_accept_in_time_is_answered_with_403(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path, "--websocket_connect_timeout", "1") as server:
        server.expect("Application did not accept in time: WebSocket /undecided")
        began = time.monotonic()
        with pytest.raises(InvalidStatus) as caught:
            with dial(server, "/undecided?name=a"):
                pass
        assert caught.value.response.status_code == 403
        assert 0.9 < time.monotonic() - began < 1 + 2 * SLACK
        assert wait_for(lambda: seen(server, "a") != "asked" and seen(server, "a"), "the end")["code"] == 1006


def test_the_longest_life_of_a_socket_ends_it(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path, "--websocket_timeout", "1") as server, dial(server, "/echo?name=a") as ws:
        began = time.monotonic()
        ws.send("x")
        assert ws.recv(5) == "x"
        assert ended(ws) == (1000, "The WebSocket has reached its longest life.")
        assert 0.8 < time.monotonic() - began < 1 + 2 * SLACK
        assert seen(server, "a")["code"] == 1000


def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_dropped(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path, "--ping-interval", "1", "--ping-timeout", "2") as server:
        with dial(server, "/echo") as ws, raw(server, "/count?name=mute") as mute:
            began = time.monotonic()
            assert rest(mute) in (b"\x89\x00", b"")  # the reset may overtake the ping
            assert 2.5 < time.monotonic() - began < 3 + 3 * SLACK
            assert seen(server, "mute") == {"code": 1006, "reason": "The client did not answer a ping."}
            time.sleep(max(0, began + 5.5 - time.monotonic()))
            ws.send("still here")
            assert ws.recv(5) == "still here"


def test_a_client_that_does_not_read_is_dropped_after_the_write_timeout(tmp_path: Path) -> None:
    options = ("--write-timeout", "0.5", "--ping-interval", "0")
    with serve(APPLICATION, tmp_path, *options) as server:
        with raw(server, "/flood?count=100000&size=65536&noise=1", receive_buffer=4096):
            server.wait_for_log("the client stopped reading", 10)
            with server.client() as client:
                wait_for(lambda: client.get("/totals").json()["open"] == 0, "the application to end")


# -- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["deflate", None], ids=["compressed", "plain"])
def test_a_small_limit_of_messages_holds_for_every_way_to_exceed_it(tmp_path: Path, compression: Any) -> None:
    with serve(APPLICATION, tmp_path, "--websocket-max-message-size", "1000") as server:
        for message in ("x" * 1001, b"x" * 5000, ["x" * 600, "x" * 600], bytes(300_000)):
            with dial(server, "/echo", compression=compression) as ws:
                ws.send("x" * 1000)
                assert ws.recv(5) == "x" * 1000
                with contextlib.suppress(ConnectionClosed):
                    ws.send(message)
                assert ended(ws)[0] == 1009
    assert server.log.count(": 1009 ") == 4


def test_without_limits_large_messages_pass(tmp_path: Path, block: bytes) -> None:
    options = ("--websocket-max-message-size", "0", "--websocket-max-frame-size", "0")
    with serve(APPLICATION, tmp_path, *options) as server:
        for compression in ("deflate", None):
            with dial(server, "/echo", compression=compression, max_size=None) as ws:
                for message in (block * 8, [block] * 5, bytes(20 * MIB)):
                    ws.send(message)
                    assert ws.recv(20) == (message if isinstance(message, bytes) else b"".join(message))


def test_compression_can_be_switched_off(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path, "--no-websocket-compression") as server, dial(server, "/echo") as ws:
        assert ws.response is not None
        assert "sec-websocket-extensions" not in ws.response.headers
        ws.send("x" * 10_000)
        assert ws.recv(5) == "x" * 10_000


# -- the access log -----------------------------------------------------------------------------------------------


def test_the_access_log_has_daphnes_lines(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with serve(APPLICATION, tmp_path, "--access-log", str(path)) as server:
        with dial(server, "/echo?token=secret"):
            pass
        with pytest.raises(InvalidStatus):
            with dial(server, "/refuse?token=secret"):
                pass
        wait_for(lambda: path.read_text().count("\n") >= 5, "the lines")
    lines = path.read_text().splitlines()
    pattern = re.compile(r'127\.0\.0\.1:\d+ - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d\] "(.*)" - -')
    assert [match[1] for match in map(pattern.fullmatch, lines) if match] == [
        "WSCONNECTING /echo",
        "WSCONNECT /echo",
        "WSDISCONNECT /echo",
        "WSCONNECTING /refuse",
        "WSREJECT /refuse",
    ]


def test_a_broken_application_is_one_traceback(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path) as server:
        server.expect("Exception inside application: this socket is broken")
        with dial(server, "/fail") as ws:
            assert ended(ws) == (1011, "")
        with dial(server, "/return") as ws:
            assert ended(ws) == (1000, "")
    assert server.log.count("Traceback") == 1

"""WebSocket clients that mean harm, on a real server: they cost little, and nobody else is kept waiting."""

from __future__ import annotations

import random
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes.serving import MIB, Running, serve, wait_for
from tests.support.ws import binary, close, fragments, more, ping, pong, squeezed, text

pytestmark = pytest.mark.once


APPLICATION = "attacked:application"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def handshake(path: str, more_fields: str = "", method: str = "GET") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{more_fields}\r\n"
    ).encode()


def open_socket(server: Running, path: str, more_fields: str = "") -> socket.socket:
    connection = server.connect()
    connection.sendall(handshake(path, more_fields))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, head
        head += byte
    assert head.startswith(b"HTTP/1.1 101 "), head
    return connection


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def ask(server: Running, path: str) -> Any:
    with server.client() as client:
        return client.get(path).json()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(APPLICATION, tmp_path_factory.mktemp("attacks")) as running:
        yield running


class TestTheLoop:
    """One client could keep the loop to itself for 40 to 550 ms with a single read's worth of bytes."""

    @pytest.mark.parametrize(
        ("name", "frames"),
        [
            ("bombs", squeezed(b"\0" * MIB)),
            ("fragmented bombs", b"".join(fragments(b"\0" * MIB, [500], compress=True))),
        ],
    )
    def test_each_bomb_has_a_turn_of_its_own(self, server: Running, name: str, frames: bytes) -> None:
        count = 120
        with open_socket(server, f"/ticks?{name.split()[0]}{len(name)}", DEFLATE) as connection:
            connection.sendall(frames * count + text("how many?"))
            connection.recv(2)
            messages, most = map(int, connection.recv(100).split())
        assert messages == count + 1
        assert most <= 2  # one that was waited for, and one that was there

    def test_small_messages_share_turns_but_not_all_one(self, server: Running) -> None:
        count = 40_000
        with open_socket(server, "/ticks?small") as connection:
            connection.sendall(text("") * count + text("how many?"))
            connection.recv(2)
            messages, most = map(int, connection.recv(100).split())
        assert messages == count + 1
        assert most <= 512

    def test_empty_fragments_share_turns_but_not_all_one(self, server: Running) -> None:
        count = 40
        with open_socket(server, "/ticks?fragments") as connection:
            message = text("", fin=False) + more(fin=False) * 1000 + more()
            connection.sendall(message * count + text("how many?"))
            connection.recv(2)
            messages, most = map(int, connection.recv(100).split())
        assert messages == count + 1
        assert most <= 2

    def test_bombs_after_our_close_frame_are_not_inflated(self, server: Running) -> None:
        with open_socket(server, "/close", DEFLATE) as connection:
            connection.sendall(text("close") + squeezed(b"\0" * MIB) * 2000 + close(1000))
            assert read_all(connection) == b"\x88\x02\x03\xe8"


class TestSmuggling:
    """Whatever stands behind an upgrade is not HTTP, whether the upgrade comes about or not."""

    @pytest.mark.parametrize(
        ("name", "request_bytes", "status"),
        [
            ("refused", handshake("/refuse") + SMUGGLED, b"403"),
            ("wrong version", handshake("/refuse").replace(b": 13", b": 12") + SMUGGLED, b"426"),
            ("no key", handshake("/refuse").replace(b"-Key", b"-Kex") + SMUGGLED, b"400"),
            ("a body", handshake("/refuse", f"Content-Length: {len(SMUGGLED)}\r\n") + SMUGGLED * 2, b"400"),
            ("chunks", handshake("/refuse", "Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + SMUGGLED, b"400"),
            ("a POST", handshake("/refuse", method="POST") + SMUGGLED, b"405"),
            ("two upgrades", handshake("/refuse", "Upgrade: h2c\r\n") + SMUGGLED, b"403"),
            ("close", handshake("/refuse", "Connection: close\r\n") + SMUGGLED, b"403"),
            ("a second upgrade", handshake("/refuse") + handshake("/smuggled") + SMUGGLED, b"403"),
        ],
    )
    @pytest.mark.parametrize("cut", [1, len(SMUGGLED), len(SMUGGLED) + 1], ids=["tail", "at", "head"])
    def test_a_request_behind_an_upgrade(
        self, server: Running, name: str, request_bytes: bytes, status: bytes, cut: int
    ) -> None:
        with server.connect() as connection:
            connection.sendall(request_bytes[:-cut])
            time.sleep(0.02)
            connection.sendall(request_bytes[-cut:])
            reply = read_all(connection)
        assert re.findall(rb"^HTTP/1.1 (\d+)", reply, re.MULTILINE) == [status]
        assert "/smuggled" not in ask(server, "/requests")


class TestFloods:
    @pytest.mark.parametrize("frame", [ping(b"x" * 125), pong()], ids=["pings", "pongs"])
    def test_control_frames(self, server: Running, frame: bytes) -> None:
        before = server.log.count("Too many pings or pongs.")
        with open_socket(server, "/") as connection:
            connection.sendall(frame * 1000)
            connection.shutdown(socket.SHUT_WR)
            reply = read_all(connection)
        assert reply.endswith(b"\x03\xf0Too many pings or pongs.")
        assert len(reply) <= 110 * 127 + 40
        assert server.log.count("Too many pings or pongs.") == before + 1

    def test_what_is_sent_before_the_answer(self, server: Running) -> None:
        connection = server.connect(1.0)
        connection.sendall(handshake("/wait?flood"))
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 64 * MIB:
                sent += connection.send(binary(b"x" * 60_000))
        reset(connection)
        server.expect("Application did not accept in time")  # it may be noticed in the same moment
        wait_for(lambda: ask(server, "/ended").get("flood") == "websocket.disconnect", "the end")


class TestLeaving:
    def test_nothing_is_left_of_those_who_left(self, server: Running) -> None:
        chance = random.Random(6455)
        pieces = [
            text("a"),
            text("a", fin=False),
            more(b"b"),
            ping(b"p"),
            squeezed(b"z" * 100_000),
            binary(b"x" * 70_000),
            close(),
            text(b"\xff"),
        ]
        for _ in range(300):
            stream = handshake(chance.choice(["/", "/wait?x", "/close", "/refuse"]), chance.choice(["", DEFLATE]))
            stream += b"".join(chance.choices(pieces, k=chance.randrange(6)))
            connection = server.connect(1.0)
            connection.sendall(stream[: chance.randrange(len(stream)) if chance.random() < 0.5 else len(stream)])
            if chance.random() < 0.5:
                time.sleep(0.005)
            if chance.random() < 0.6:
                reset(connection)
            else:
                connection.close()
        # Engines that wait to be lent again are no leak: there are 32 of each kind at most.
        wait_for(
            lambda: not any(count for kind, count in ask(server, "/alive").items() if kind != "Session"),
            "the connections to be forgotten",
            15.0,
            0.5,
        )
        assert ask(server, "/alive")["Session"] <= 64


def test_only_those_who_break_rules_are_named_and_once_each(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path) as server:
        for wrong in (text(b"\xff"), more(), close(999), ping(b"x" * 126), text("a", fin=False) * 2):
            with open_socket(server, "/") as connection:
                connection.sendall(wrong * 3)
                connection.shutdown(socket.SHUT_WR)
                read_all(connection)
        lines = [line for line in server.log.splitlines() if "Closed a WebSocket from" in line]
        assert len(lines) == 5
        assert all(" INFO " in line for line in lines)

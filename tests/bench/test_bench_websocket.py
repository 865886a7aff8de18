"""The WebSocket load generator."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from .errors import BenchError, UnsupportedError
from .websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Deflate,
    Parser,
    Pool,
    WebSocket,
    client_frame,
    json_messages,
    own_messages,
    plain,
    server_frame,
    visit,
)

pytestmark = pytest.mark.once

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


# -- WebSocket frames -------------------------------------------------------------------------------------------


def test_a_frame_is_masked_as_in_the_example_of_the_rfc() -> None:
    assert client_frame(TEXT, b"Hello") == bytes.fromhex("818537fa213d7f9f4d5158")
    assert client_frame(BINARY, b"", compressed=True) == bytes.fromhex("c28037fa213d")


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_every_length_of_a_frame_is_read_back(size: int) -> None:
    parser = Parser()
    assert list(parser.feed(server_frame(BINARY, bytes(size)))) == [(BINARY, bytes(size))]
    assert parser.between
    assert len(client_frame(BINARY, bytes(size))) == len(server_frame(BINARY, bytes(size))) + 4


def test_fragments_are_joined_and_pings_between_them_kept_apart_at_any_split() -> None:
    data = b"\x01\x02ab" + b"\x89\x01p" + b"\x80\x01c" + server_frame(TEXT, b"d") + b"\x88\x02\x03\xe8"
    parser = Parser()
    found = [message for index in range(len(data)) for message in parser.feed(data[index : index + 1])]
    assert found == [(TEXT, b"abc"), (TEXT, b"d")]
    assert (parser.pings, parser.closed, parser.between) == ([b"p"], b"\x03\xe8", True)


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x80\0\0\0\0",
        b"\x80\x00",
        b"\x01\x00\x81\x00",
        b"\x83\x00",
        b"\xa1\x00",
        b"\x8b\x00",
        b"\x09\x00",
        b"\xc1\x01a",
    ],
    ids=["masked", "no start", "two starts", "opcode", "rsv2", "control opcode", "split ping", "not negotiated"],
)
def test_a_frame_against_the_protocol_is_an_error(data: bytes) -> None:
    with pytest.raises(BenchError):
        list(Parser().feed(data))


def test_the_answer_to_the_offer_of_compression_is_read() -> None:
    assert Deflate.parse("permessage-deflate") == Deflate()
    answer = "permessage-deflate; server_no_context_takeover; client_max_window_bits=12; server_max_window_bits=11"
    assert Deflate.parse(answer) == Deflate(True, 11, 12)


@pytest.mark.parametrize(
    "answer", ["x", "permessage-deflate; x", "permessage-deflate, x", "permessage-deflate; client_max_window_bits=16"]
)
def test_another_answer_to_the_offer_is_an_error(answer: str) -> None:
    with pytest.raises(BenchError):
        Deflate.parse(answer)


@pytest.mark.parametrize("deflate", [Deflate(), Deflate(True, 9, 9)])
def test_compressed_messages_are_read_back_whatever_the_context(deflate: Deflate) -> None:
    parser = Parser(deflate)
    for message in json_messages(4096, 3, deflate):
        frame = server_frame(TEXT, deflate.compress(message.payload))
        assert list(parser.feed(bytes([frame[0] | 0x40]) + frame[1:])) == [(TEXT, message.payload)]
        assert parser.compressed
        assert len(frame) < 2048
    with pytest.raises(BenchError, match="wrong compressed data"):
        list(parser.feed(b"\xc1\x02\xff\xff"))


@pytest.mark.parametrize("size", [64, 512, 4096, 65536])
@pytest.mark.parametrize("deflate", [None, Deflate()], ids=["plain", "deflate"])
def test_every_connection_has_messages_of_its_own(size: int, deflate: Deflate | None) -> None:
    for opcode in (TEXT, BINARY):
        everything = [own_messages(opcode, size, deflate, owner, 3) for owner in range(3)]
        payloads = [message.payload for messages in everything for message in messages]
        assert {len(payload) for payload in payloads} == {size}
        assert len(set(payloads)) == len(payloads) >= 6
        assert deflate is None or len(everything[2]) * size > 32768
    assert len(json.loads(plain(TEXT, size, 1).payload)) == 3


# -- the WebSocket load generator against a server that misbehaves on purpose ----------------------------------------

Script = Callable[[socket.socket], None]


@contextmanager
def websocket_server(script: Script, *, extensions: str = "", status: str = "101 Switching Protocols") -> Iterator[int]:
    """Shake hands on every connection, then run the script on it in a thread, then close it."""
    headers = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    head = f"HTTP/1.1 {status}\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{headers}\r\n"
    threads: list[threading.Thread] = []

    def connection(sock: socket.socket) -> None:
        with sock, suppress(OSError, EOFError):
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(4096)
            assert b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" in data
            sock.sendall(head.encode())
            script(sock)

    def listen() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.settimeout(10)
            threads.append(threading.Thread(target=connection, args=(sock,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=listen)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(10)
            for thread in threads:
                thread.join(10)


def receive_frame(sock: socket.socket) -> tuple[int, bytes]:
    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (more := sock.recv(size - len(data))):
                raise EOFError
            data += more
        return data

    first, size = exactly(2)
    assert size & 0x80, "frames of clients are masked"
    size &= 0x7F
    if size >= 126:
        size = int.from_bytes(exactly(2 if size == 126 else 8), "big")
    key, payload = exactly(4), exactly(size)
    return first & 0x0F, bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def echo_with(answer: Callable[[int, bytes], bytes]) -> Script:
    def script(sock: socket.socket) -> None:
        while True:
            opcode, payload = receive_frame(sock)
            if opcode == CLOSE:
                sock.sendall(server_frame(CLOSE, payload))
                return
            sock.sendall(answer(opcode, payload))

    return script


def ping_pong_with(script: Script, size: int = 64, seconds: float = 0.05) -> int:
    with websocket_server(script) as port, Pool() as pool:
        for tag in range(3):
            pool.add(WebSocket(port, "/echo"), [plain(TEXT, size, tag)])
        return pool.ping_pong(seconds).count


@linux_only
@pytest.mark.parametrize("size", [64, 4096])
def test_echoes_are_counted(size: int) -> None:
    assert ping_pong_with(echo_with(server_frame), size) >= 3


@linux_only
def test_echoes_in_fragments_are_counted() -> None:
    def answer(opcode: int, payload: bytes) -> bytes:
        return bytes([opcode, 10]) + payload[:10] + b"\x89\x00" + b"\x80\x36" + payload[10:]

    def script(sock: socket.socket) -> None:
        # A frame of three parts; the pongs are not answered.
        while True:
            opcode, payload = receive_frame(sock)
            if opcode == TEXT:
                sock.sendall(answer(opcode, payload))
            else:
                assert (opcode, payload) == (PONG, b"")

    assert ping_pong_with(script) >= 3


@linux_only
@pytest.mark.parametrize("delay", [0.0, 0.05], ids=["with the handshake", "later"])
def test_pings_are_answered_with_their_payload_also_in_idle_connections(delay: float) -> None:
    pongs: list[tuple[int, bytes]] = []

    def script(sock: socket.socket) -> None:
        time.sleep(delay)
        sock.sendall(server_frame(PING, b"are you there"))
        pongs.append(receive_frame(sock))
        receive_frame(sock)

    with websocket_server(script) as port, Pool() as pool:
        pool.add(WebSocket(port, "/echo"), [])
        for _ in range(200):
            pool.rest(0.05)
            if pongs:
                break
    assert pongs == [(PONG, b"are you there")]


@linux_only
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda opcode, payload: server_frame(opcode, payload[:-1] + b"x"), "wrong message"),
        (lambda opcode, payload: server_frame(opcode, payload[:-1]), "wrong message"),
        (lambda _opcode, payload: server_frame(BINARY, payload), "wrong message"),
        (lambda opcode, payload: server_frame(opcode, payload) * 2, "nothing asked for"),
        (lambda _opcode, _payload: server_frame(CLOSE, b"\x03\xf3oh"), "closed a WebSocket"),
    ],
    ids=["content", "length", "opcode", "twice", "close"],
)
def test_a_wrong_echo_is_an_error(answer: Callable[[int, bytes], bytes], reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        ping_pong_with(echo_with(answer), seconds=5)


@linux_only
def test_a_connection_that_ends_is_an_error() -> None:
    with pytest.raises(BenchError, match="closed a connection|cannot"):
        ping_pong_with(lambda _sock: None)
    with (
        websocket_server(lambda sock: sock.settimeout(0.01)) as port,
        Pool() as pool,
        pytest.raises(BenchError, match="closed a connection|cannot"),
    ):
        pool.add(WebSocket(port, "/echo"), [])
        pool.rest(5)


@linux_only
def test_visits_are_counted_and_need_the_closing_handshake() -> None:
    with websocket_server(echo_with(server_frame)) as port:
        assert visit(port, "/echo", 0.05, 2).count >= 2
    with (
        websocket_server(lambda sock: receive_frame(sock) and None) as port,
        pytest.raises(BenchError, match="without the closing"),
    ):
        visit(port, "/echo", 0.05, 2)
    with websocket_server(lambda _sock: None, status="403 No") as port, pytest.raises(BenchError, match="not accepted"):
        visit(port, "/echo", 0.05, 2)


def test_a_refused_handshake_is_an_error_and_no_compression_another() -> None:
    with websocket_server(lambda _sock: None, status="403 No") as port, pytest.raises(BenchError, match="status 403"):
        WebSocket(port, "/echo")
    with websocket_server(lambda _sock: None) as port, pytest.raises(UnsupportedError, match="permessage-deflate"):
        WebSocket(port, "/echo", deflate=True)
    with (
        websocket_server(lambda _sock: None, extensions="permessage-deflate") as port,
        pytest.raises(BenchError, match="without an offer"),
    ):
        WebSocket(port, "/echo")

"""Files as bodies: what an exchange makes of pathsend and zerocopysend, on ports that can send files and that cannot."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from daphne_ng.asgi.http import HttpExchange
from daphne_ng.errors import BodyLengthMismatch, ClientDisconnected, UnexpectedMessage
from daphne_ng.files import PIECE_BYTES, SLICE_BYTES
from tests.support.asgi import Bridge, StrictPort, body, request_head, settle, start

SMALL = bytes(range(256)) * 5
LARGE = os.urandom(1000) * 1200  # more than two slices


async def idle(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


# On a real loop: a file system that does not tell what is in memory has the threads read.
def with_exchange(
    test: Callable[[HttpExchange, StrictPort], Coroutine[Any, Any, None]],
    *,
    takes: int | None = None,
    method: str = "GET",
) -> None:
    async def run() -> None:
        bridge = Bridge(idle)
        exchange, port = bridge.begin(request_head(method))
        port.file_takes = takes
        try:
            await test(exchange, port)
        finally:
            exchange.cancel("the test is over")
            await settle()
            bridge.runner.file_readers.close()

    before = len(os.listdir("/dev/fd"))
    asyncio.run(run())
    assert len(os.listdir("/dev/fd")) == before, "a descriptor was left open"


def pathsend(path: Path | str, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(path), **more}


def zerocopy(file: Any, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": file, **more}


def sent(port: StrictPort, path: Path) -> bytes:
    data = path.read_bytes()
    parts = []
    for call in port.calls:
        if call[0] == "file":
            parts.append(data[call[1] : call[1] + call[2]])
        elif call[0] in ("start", "body"):
            parts.append(call[3] if call[0] == "start" else call[1])
    return b"".join(parts)


@pytest.fixture(params=[b"", SMALL, LARGE], ids=["empty", "small", "large"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(request.param)
    return file


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    return file


@pytest.mark.parametrize("takes", [None, 10_000_000, 200_000], ids=["read", "whole", "in parts"])
def test_a_file_is_the_body(path: Path, takes: int | None) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start())
        await exchange.send(pathsend(path))
        assert sent(port, path) == path.read_bytes()
        assert port.state == "ended"
        assert exchange.body_bytes_sent == path.stat().st_size
        with_files = takes is not None and path.stat().st_size > PIECE_BYTES
        assert ("file" in port.names) is with_files
        await exchange.send(pathsend("/nothing"))  # ignored, as all messages are after the end

    with_exchange(test, takes=takes)


def test_a_small_file_is_one_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(SMALL)

    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start())
        await exchange.send(pathsend(tmp_path / "file"))
        assert port.calls == [("start", 200, [], SMALL, True, False)]

    with_exchange(test, takes=10_000_000)


@pytest.mark.parametrize("given", [[], [(b"Content-Length", b"%d" % len(LARGE))]], ids=["none", "the application's"])
def test_a_large_file_has_one_length(large: Path, given: list[tuple[bytes, bytes]]) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start(200, *given))
        await exchange.send(pathsend(large))
        lengths = [value for name, value in port.calls[0][2] if name.lower() == b"content-length"]
        assert lengths == [b"%d" % len(LARGE)]

    with_exchange(test)


@pytest.mark.parametrize(("offset", "count"), [(0, 0), (1000, 100), (5, 1_000_000), (len(LARGE), 0)])
@pytest.mark.parametrize("takes", [None, 300_000])
def test_a_part_of_a_file(large: Path, offset: int, count: int, takes: int | None) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start())
        await exchange.send(pathsend(large, offset=offset, count=count))
        assert sent(port, large) == LARGE[offset : offset + count]

    with_exchange(test, takes=takes)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 304])
def test_nothing_is_read_for_a_response_without_a_body(path: Path, method: str, status: int) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start(status))
        await exchange.send(pathsend(path))
        if method == "HEAD" or status == 304:
            assert sent(port, path) == b""
        lengths = [value for name, value in port.calls[0][2] if name == b"content-length"]
        if method == "HEAD" and status == 200 and path.stat().st_size:
            assert lengths == [b"%d" % path.stat().st_size]
        elif status == 304:
            assert lengths == []

    with_exchange(test, takes=10_000_000, method=method)


def test_a_slow_client_is_waited_for(large: Path) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        port.file_takes = 0
        await exchange.send(start())
        task = asyncio.create_task(exchange.send(pathsend(large)))
        await settle()
        assert port.waiting == 1
        assert port.names == ["start"]
        port.file_takes = SLICE_BYTES
        port.unblock()
        await task
        assert sent(port, large) == LARGE

    with_exchange(test)


def test_other_messages_are_refused_while_a_file_is_sent(large: Path) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        port.file_takes = 0
        await exchange.send(start())
        task = asyncio.create_task(exchange.send(pathsend(large)))
        await settle()
        for message in (body(b"x"), pathsend(large), zerocopy(0), start()):
            with pytest.raises(UnexpectedMessage, match="while a file is being sent"):
                await exchange.send(message)
        port.file_takes = SLICE_BYTES
        port.unblock()
        await task

    with_exchange(test)


def test_a_client_that_leaves_is_an_end(large: Path) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        port.file_takes = 0
        await exchange.send(start())
        task = asyncio.create_task(exchange.send(pathsend(large)))
        await settle()
        port.gone()
        exchange.disconnected("the client left")
        port.unblock()
        await asyncio.wait([task])
        assert task.exception() is None or isinstance(task.exception(), ClientDisconnected)

    with_exchange(test)


def test_a_file_that_becomes_shorter_under_way(large: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        port.file_takes = 0
        await exchange.send(start())
        task = asyncio.create_task(exchange.send(pathsend(large)))
        await settle()
        os.truncate(large, 100_000)
        port.file_takes = SLICE_BYTES
        port.unblock()
        with pytest.raises(ClientDisconnected):
            await task
        assert port.state == "reset"

    with_exchange(test)
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert re.match(
        rf"Cannot send the rest of '{large}': it became {len(LARGE) - 100_000} bytes shorter \(GET /, ", line
    )


def test_a_file_that_grows_is_sent_as_it_was(large: Path) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        port.file_takes = 0
        await exchange.send(start())
        task = asyncio.create_task(exchange.send(pathsend(large)))
        await settle()
        with large.open("ab") as file:
            file.write(b"more")
        port.file_takes = SLICE_BYTES
        port.unblock()
        await task
        assert sent(port, large) == LARGE

    with_exchange(test)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"path": b"/x"}, "'path' of http.response.pathsend must be str, not bytes"),
        ({"path": None}, "must be str, not NoneType"),
        ({"path": "/a\0b"}, "must not have a NUL"),
        ({"offset": -1}, "'offset' of http.response.pathsend must be an int from 0 on, not -1"),
        ({"offset": True}, "not True"),
        ({"count": "1"}, "'count'"),
        ({"offset": len(SMALL) + 1}, f"and .* has {len(SMALL)} bytes"),
        ({"offset": 1, "count": len(SMALL)}, f"has {len(SMALL) - 1} bytes there"),
        ({"path": "/"}, "sends regular files only, and / is none"),
        ({"path": "/dev/null"}, "sends regular files only"),
    ],
)
def test_what_cannot_be_sent_leaves_the_response_unsent(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    (tmp_path / "file").write_bytes(SMALL)

    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start())
        with pytest.raises(UnexpectedMessage, match=words):
            await exchange.send({**pathsend(tmp_path / "file"), **more})
        assert port.calls == []
        await exchange.send(body(b"another"))
        assert port.calls == [("start", 200, [], b"another", True, False)]

    with_exchange(test)


def test_a_relative_path_begins_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(SMALL)
    monkeypatch.chdir(tmp_path)

    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start())
        await exchange.send(pathsend("file"))
        assert sent(port, tmp_path / "file") == SMALL

    with_exchange(test)


def test_a_missing_file_and_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start())
        with pytest.raises(FileNotFoundError, match="nothing"):
            await exchange.send(pathsend(tmp_path / "nothing"))
        with pytest.raises(UnexpectedMessage, match="regular files only"):
            await exchange.send(pathsend(tmp_path / "pipe"))
        assert port.calls == []

    with_exchange(test)


def test_a_file_longer_than_its_content_length_is_cut(large: Path) -> None:
    class Cutting(StrictPort):
        def body(self, data: bytes, end: bool) -> None:
            self.state = "ended"
            raise BodyLengthMismatch("too long")

        def send_file(self, descriptor: int, offset: int, count: int) -> int:
            return -1

    async def run() -> None:
        bridge = Bridge(idle)
        exchange, _port = bridge.begin()
        exchange._port = port = Cutting()
        await exchange.send(start(200, (b"content-length", b"70000")))
        with pytest.raises(BodyLengthMismatch):
            await exchange.send(pathsend(large))
        await exchange.send(body(b"ignored"))
        assert port.state == "ended"
        exchange.cancel("the test is over")
        await settle()
        bridge.runner.file_readers.close()

    asyncio.run(run())


@pytest.mark.parametrize("takes", [None, 10_000_000])
def test_zero_copies_mixed_with_bodies(large: Path, takes: int | None) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start())
        with large.open("rb") as file:
            file.seek(10)
            await exchange.send(body(b"<", more=True))
            await exchange.send(zerocopy(file, count=200_000, more_body=True))
            assert file.tell() == 200_010
            await exchange.send(zerocopy(file.fileno(), offset=0, count=3, more_body=True))
            assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 200_010
            await exchange.send(body(b"|", more=True))
            await exchange.send(zerocopy(file))
            assert file.tell() == len(LARGE)
        assert sent(port, large) == b"<" + LARGE[10:200_010] + LARGE[:3] + b"|" + LARGE[200_010:]
        assert port.state == "ended"

    with_exchange(test, takes=takes)


@pytest.mark.parametrize("file", [None, "x", -1, True, object()])
def test_what_is_no_file(file: Any) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start())
        with pytest.raises(UnexpectedMessage, match="'file' of http.response.zerocopysend must be a file"):
            await exchange.send(zerocopy(file))
        assert port.calls == []

    with_exchange(test)


def test_a_descriptor_that_is_closed_or_no_file() -> None:
    read, write = os.pipe()
    os.close(write)

    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start())
        with pytest.raises(UnexpectedMessage, match="regular files only"):
            await exchange.send(zerocopy(read))
        os.close(read)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await exchange.send(zerocopy(read))
        assert port.calls == []

    async def run() -> None:
        bridge = Bridge(idle)
        exchange, port = bridge.begin()
        await test(exchange, port)
        exchange.cancel("the test is over")
        await settle()

    asyncio.run(run())


def test_trailers_come_after_a_file(large: Path) -> None:
    async def test(exchange: HttpExchange, port: StrictPort) -> None:
        await exchange.send(start(trailers=True))
        await exchange.send(pathsend(large))
        assert sent(port, large) == LARGE
        assert port.state == "started"
        await exchange.send({"type": "http.response.trailers", "headers": [(b"x", b"y")]})
        assert port.calls[-1] == ("trailers", [(b"x", b"y")])
        assert all(name != b"content-length" for name, _value in port.calls[0][2])

    with_exchange(test)


DENIAL = {"type": "websocket.http.response.start", "status": 403, "headers": []}


@pytest.mark.parametrize("trailers", [False, True])
def test_a_file_in_place_of_a_websocket(path: Path, trailers: bool) -> None:
    async def run() -> None:
        bridge = Bridge(idle)
        exchange, port = bridge.begin_websocket()
        await exchange.send({**DENIAL, "trailers": trailers})
        await exchange.send({"type": "websocket.http.response.pathsend", "path": str(path)})
        assert sent(port.response, path) == path.read_bytes()
        lengths = [value for name, value in port.response.calls[0][2] if name == b"content-length"]
        assert lengths == ([] if trailers else [b"%d" % path.stat().st_size])
        assert port.response.state == ("started" if trailers else "ended")
        exchange.cancel("the test is over")
        await settle()
        bridge.runner.file_readers.close()

    asyncio.run(run())


def test_a_descriptor_in_place_of_a_websocket(large: Path) -> None:
    async def run() -> None:
        bridge = Bridge(idle)
        exchange, port = bridge.begin_websocket()
        await exchange.send(DENIAL)
        with large.open("rb") as file:
            file.seek(5)
            part = {"type": "websocket.http.response.zerocopysend", "file": file, "count": 100_000, "more_body": True}
            await exchange.send(part)
            assert file.tell() == 100_005
        await exchange.send({"type": "websocket.http.response.body", "body": b"|"})
        assert sent(port.response, large) == LARGE[5:100_005] + b"|"
        assert port.response.state == "ended"
        exchange.cancel("the test is over")
        await settle()
        bridge.runner.file_readers.close()

    asyncio.run(run())


def test_a_file_in_place_of_a_websocket_becomes_shorter(large: Path) -> None:
    async def run() -> None:
        bridge = Bridge(idle)
        exchange, port = bridge.begin_websocket()
        await exchange.send(DENIAL)
        port.response.block()
        task = asyncio.create_task(exchange.send({"type": "websocket.http.response.pathsend", "path": str(large)}))
        await settle()
        os.truncate(large, 100_000)
        port.response.unblock()
        with pytest.raises(UnexpectedMessage, match=f"large became {len(LARGE) - 100_000} bytes shorter"):
            await task
        exchange.cancel("the test is over")
        await settle()
        assert port.response.state == "reset"
        bridge.runner.file_readers.close()

    asyncio.run(run())

"""WebSocket clients that others wrote, against a server process: websockets, aiohttp, httpx-ws, Socket.IO's, curl."""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import aiohttp
import httpx_ws
import pytest
import socketio
import websockets.asyncio.client
import websockets.exceptions
import websockets.sync.client
from wsproto.events import TextMessage

from tests.support.processes.serving import HOST, Running, require_program, serve, wait_for

COMPRESSION = pytest.mark.parametrize("compression", ["deflate", None], ids=["compressed", "plain"])

# Empty, short, around the lengths where the frame's head grows, one that takes several reads, and one near the limit,
# which noise must not reach when "compressing" it makes it longer.
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 300_000, 1_040_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("sockets:application", tmp_path_factory.mktemp("clients"), "--ping-interval", "0") as running:
        yield running


@pytest.fixture
def url(server: Running) -> str:
    return f"ws://{HOST}:{server.port}"


def seen(server: Running, name: str) -> Any:
    with server.client() as client:
        return wait_for(lambda: client.get(f"/seen/{name}").json(), f"the end of {name}")


def in_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an ordinary test of an ``async def`` one."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return wrapper


# -- websockets -------------------------------------------------------------------------------------------------


def dial(url: str, **more: Any) -> websockets.asyncio.client.connect:
    return websockets.asyncio.client.connect(url, **{"proxy": None, "max_size": 1 << 24, **more})


def dial_sync(url: str, **more: Any) -> websockets.sync.client.ClientConnection:
    return websockets.sync.client.connect(url, **{"proxy": None, "max_size": 1 << 24, **more})


@COMPRESSION
@in_time
async def test_websockets_gets_back_what_it_sends(url: str, compression: Any, block: bytes) -> None:
    async with dial(f"{url}/echo", compression=compression) as ws:
        assert ws.response.headers["x-server"] == "sockets"
        assert ("permessage-deflate" in ws.response.headers.get("sec-websocket-extensions", "")) == bool(compression)
        for size in SIZES:
            await ws.send(block[:size])
            assert await ws.recv() == block[:size]
            text = "é" * (size // 2)
            await ws.send(text)
            assert await ws.recv() == text


@COMPRESSION
@in_time
async def test_websockets_gets_back_many_messages_at_once_in_order(url: str, compression: Any) -> None:
    async with dial(f"{url}/echo", compression=compression) as ws:
        count = 2000

        async def send() -> None:
            for number in range(count):
                await ws.send(str(number) * (number % 200 + 1))

        sending = asyncio.create_task(send())
        for number in range(count):
            assert await ws.recv() == str(number) * (number % 200 + 1)
        await sending


@COMPRESSION
@in_time
async def test_the_fragments_of_websockets_arrive_as_one_message(url: str, compression: Any, block: bytes) -> None:
    async with dial(f"{url}/echo", compression=compression) as ws:
        for parts in (
            ["Straße ", "", "und ", "Weg"],
            [block[:1], block[1:70_000], b"", block[70_000:200_000]],
            ["", ""],
        ):
            await ws.send(parts)
            assert await ws.recv() == type(parts[0])().join(parts)  # type: ignore[arg-type]
        # A ping between two fragments is answered between them.
        part = asyncio.Event()

        async def slowly() -> Any:
            yield "first, "
            await part.wait()
            yield "last"

        sending = asyncio.create_task(ws.send(slowly()))
        await asyncio.sleep(0.05)
        await (await ws.ping(b"between"))
        assert not sending.done()
        part.set()
        assert await ws.recv() == "first, last"
        await sending


@COMPRESSION
@in_time
async def test_the_pings_of_websockets_are_answered(url: str, compression: Any) -> None:
    async with dial(f"{url}/echo", compression=compression) as ws:
        for payload in (b"", b"x", b"y" * 125):
            await (await ws.ping(payload))
        await ws.pong(b"nobody asked")
        await ws.send("still there")
        assert await ws.recv() == "still there"


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "away"), (3000, "r" * 123), (4999, "Grüße"), (1011, "mine")]
)
@in_time
async def test_websockets_and_the_application_tell_each_other_why(
    server: Running, url: str, code: int, reason: str
) -> None:
    name = f"why-{code}"
    async with dial(f"{url}/echo?name={name}") as ws:
        await ws.send("x")
        assert await ws.recv() == "x"
        await ws.close(code, reason)
    assert await asyncio.to_thread(seen, server, name) == {"code": code, "reason": reason}

    async with dial(f"{url}/close?code={code}&reason={reason}") as ws:
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, reason)


@in_time
async def test_websockets_and_the_application_agree_on_a_subprotocol(url: str) -> None:
    async with dial(f"{url}/echo", subprotocols=["chat.v2", "chat.v1"]) as ws:
        assert ws.subprotocol == "chat.v2"
    async with dial(f"{url}/echo?choose=chat.v1", subprotocols=["chat.v2", "chat.v1"]) as ws:
        assert ws.subprotocol == "chat.v1"
    async with dial(f"{url}/echo") as ws:
        assert ws.subprotocol is None


@in_time
async def test_websockets_sees_a_refusal_and_a_denial(url: str) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await dial(f"{url}/refuse")
    assert refused.value.response.status_code == 403
    with pytest.raises(websockets.exceptions.InvalidStatus) as denied:
        await dial(f"{url}/deny")
    assert denied.value.response.status_code == 401
    assert denied.value.response.headers["www-authenticate"] == "Basic"
    assert denied.value.response.body == b"who are you?"


@in_time
async def test_a_message_above_the_limit_ends_in_1009(server: Running, url: str, block: bytes) -> None:
    for compression, data in ((None, block + b"x"), ("deflate", bytes(len(block) + 1)), ("deflate", [block, b"x"])):
        async with dial(f"{url}/echo?name=big", compression=compression) as ws:
            with pytest.raises(websockets.exceptions.ConnectionClosed):
                await ws.send(data)
                await ws.recv()
            assert ws.close_code == 1009
    assert (await asyncio.to_thread(seen, server, "big"))["code"] == 1009


@COMPRESSION
def test_the_synchronous_websockets_gets_back_what_it_sends(url: str, compression: Any, block: bytes) -> None:
    with dial_sync(f"{url}/echo", compression=compression, subprotocols=["one"]) as ws:
        assert ws.subprotocol == "one"
        for size in SIZES:
            ws.send(block[:size])
            assert ws.recv() == block[:size]
        ws.send(["in ", "two ", "or three"])
        assert ws.recv() == "in two or three"
        assert ws.ping(b"there?").wait(5)


def test_the_synchronous_websockets_sees_the_application_close(url: str) -> None:
    with dial_sync(f"{url}/close?code=4001&reason=enough") as ws:
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            ws.recv(5)
        assert (ws.close_code, ws.close_reason) == (4001, "enough")


# -- aiohttp ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [15, 0], ids=["compressed", "plain"])
@in_time
async def test_aiohttp_gets_back_what_it_sends(server: Running, url: str, compress: int, block: bytes) -> None:
    async with aiohttp.ClientSession() as session:
        options: dict[str, Any] = {"compress": compress, "protocols": ["a", "b"], "max_msg_size": 1 << 24}
        async with session.ws_connect(f"{url}/echo?name=aiohttp-{compress}&choose=b", **options) as ws:
            assert ws.protocol == "b"
            assert bool(ws.compress) == bool(compress)
            for size in SIZES:
                await ws.send_bytes(block[:size])
                assert await ws.receive_bytes() == block[:size]
            await ws.send_str("Käse 🧀" * 1000)
            assert await ws.receive_str() == "Käse 🧀" * 1000
            await ws.send_json({"one": [1, None]})
            assert await ws.receive_json() == {"one": [1, None]}
            await ws.ping(b"x")
            await ws.close(code=4010, message=b"see you")
            assert ws.close_code == 4010
    assert await asyncio.to_thread(seen, server, f"aiohttp-{compress}") == {"code": 4010, "reason": "see you"}


@in_time
async def test_aiohttp_sees_the_application_close_refuse_and_deny(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{url}/close?code=4002&reason=done") as ws:
            message = await ws.receive()
            assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4002, "done")
            assert ws.closed
        for path, status in (("refuse", 403), ("deny", 401)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(f"{url}/{path}")
            assert caught.value.status == status
        # The session's HTTP goes on beside it.
        async with session.get(f"http{url[2:]}/hello") as answer:
            assert await answer.text() == "plain HTTP\n"


@in_time
async def test_aiohttp_keeps_its_heartbeat(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{url}/echo", heartbeat=1.0) as ws:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ws.receive(), 2.6)  # its own timeout begins again with every pong
            await ws.send_str("still there")
            assert await ws.receive_str() == "still there"


# -- httpx-ws ---------------------------------------------------------------------------------------------------


def test_httpx_ws_gets_back_what_it_sends(server: Running, block: bytes) -> None:
    with server.client() as client:
        with httpx_ws.connect_ws("/echo?name=httpx", client, subprotocols=["x"]) as ws:
            assert ws.subprotocol == "x"
            for size in SIZES:
                ws.send_bytes(block[:size])
                assert ws.receive_bytes(5) == block[:size]
            ws.send_text("Käse 🧀")
            assert ws.receive_text(5) == "Käse 🧀"
            ws.send(TextMessage("in ", message_finished=False))
            assert ws.ping(b"between").wait(5)
            ws.send(TextMessage("two"))
            assert ws.receive_text(5) == "in two"
            ws.close(4020, "bye")
    assert seen(server, "httpx") == {"code": 4020, "reason": "bye"}


def test_httpx_ws_sees_the_application_close_and_refuse(server: Running) -> None:
    with server.client() as client:
        with httpx_ws.connect_ws("/close?code=4003&reason=done", client) as ws:
            with pytest.raises(httpx_ws.WebSocketDisconnect) as closed:
                ws.receive_text(5)
            assert (closed.value.code, closed.value.reason) == (4003, "done")
        for path, status in (("/refuse", 403), ("/deny", 401)):
            with pytest.raises(httpx_ws.WebSocketUpgradeError) as refused:
                with httpx_ws.connect_ws(path, client):
                    pass
            assert refused.value.response.status_code == status


# -- Socket.IO --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def socketio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("socketio_app:application", tmp_path_factory.mktemp("socketio")) as running:
        yield running


@pytest.mark.parametrize(
    "transports", [["websocket"], ["polling", "websocket"], ["polling"]], ids=["websocket", "upgraded", "polling"]
)
@in_time
async def test_socketio_talks_over_its_transports(
    socketio_server: Running, transports: list[str], block: bytes
) -> None:
    async with aiohttp.ClientSession() as session:
        client = socketio.AsyncClient(reconnection=False, http_session=session)
        said: asyncio.Queue[Any] = asyncio.Queue()
        client.on("said", said.put)
        await client.connect(socketio_server.url, transports=transports)
        try:
            if "websocket" in transports:
                await asyncio.wait_for(until(lambda: client.transport() == "websocket"), 20)
            else:
                assert client.transport() == "polling"
            assert await client.call("repeat", {"text": "Käse 🧀", "data": block[:100_000]}, timeout=20) == {
                "text": "Käse 🧀",
                "data": block[:100_000],
            }
            await client.emit("say", "to all")
            assert await asyncio.wait_for(said.get(), 20) == "to all"
            assert await client.call("transport", timeout=20) == client.transport()
        finally:
            await client.disconnect()


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


# -- plain HTTP beside it, and clients that are no library ------------------------------------------------------


def test_http_and_websockets_share_port_and_path(server: Running, url: str) -> None:
    with dial_sync(f"{url}/echo") as ws, server.client() as client:
        for number in range(3):
            assert client.get("/echo").text == "plain HTTP\n"
            ws.send(str(number))
            assert ws.recv(5) == str(number)
        # A connection that has served HTTP may still be upgraded.
        with httpx_ws.connect_ws("/echo", client) as other:
            other.send_text("upgraded")
            assert other.receive_text(5) == "upgraded"


@pytest.mark.system
def test_curl_gets_http_while_sockets_are_open(server: Running, url: str) -> None:
    command = [require_program("curl"), "--disable", "--noproxy", "*", "--silent", "--show-error", "--max-time", "10"]
    with dial_sync(f"{url}/echo") as ws:
        done = subprocess.run([*command, f"{server.url}/hello"], capture_output=True, text=True, timeout=20, check=True)
        assert done.stdout == "plain HTTP\n"
        ws.send("x")
        assert ws.recv(5) == "x"


@pytest.mark.system
def test_curl_speaks_websocket(url: str) -> None:
    program = require_program("curl")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    protocols = re.search(r"^Protocols: (.*)$", version, re.MULTILINE)
    if protocols is None or "ws" not in protocols[1].split():
        pytest.skip("this curl has no ws://")
    command = [program, "--disable", "--noproxy", "*", "--silent", "--show-error", "--max-time", "10"]
    done = subprocess.run([*command, f"{url}/close?reason=done"], capture_output=True, text=True, timeout=20)
    assert done.returncode in (0, 52), done.stderr  # nothing but a Close frame came


def test_a_hand_written_handshake_with_odd_but_legal_letters_is_accepted(server: Running) -> None:
    with server.connect(5) as connection:
        connection.sendall(
            b"GET /echo HTTP/1.1\r\nHOST: x\r\nUPGRADE: h2c, WebSocket\r\nCONNECTION: keep-alive, UpGrade\r\n"
            b"SEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\nSEC-WEBSOCKET-VERSION: 13\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        connection.sendall(bytes.fromhex("818537fa213d7f9f4d5158"))
        assert connection.recv(100) == b"\x81\x05Hello"


def test_a_client_that_resets_its_connection_is_1006(server: Running, url: str) -> None:
    with server.connect(5) as connection:
        connection.sendall(
            b"GET /echo?name=reset HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert seen(server, "reset") == {"code": 1006, "reason": ""}

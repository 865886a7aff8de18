"""How WebSockets end with TLS in between, and with a client that reads slowly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_sync

from daphne_ng.config import Config
from daphne_ng.server import Server
from tests.support.asgi import on_sockets, serving

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

ACCEPT = {"type": "websocket.accept"}
SIZE, COUNT = 100_000, 40


@pytest.fixture(params=["tcp", "tls"])
def endpoint(request: pytest.FixtureRequest, pem: Path) -> tuple[str, Any]:
    """Where to listen, and what a client needs to trust it."""
    if request.param == "tcp":
        return "tcp:0:interface=127.0.0.1", None
    return f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}", ssl.create_default_context(cafile=str(pem))


@contextlib.asynccontextmanager
async def dial(server: Server, context: Any, path: str = "/", **more: Any) -> AsyncIterator[ClientConnection]:
    port = server.listening_addresses[0][1]
    url = f"{'ws' if context is None else 'wss'}://localhost:{port}{path}"
    options = {"proxy": None, "ping_interval": None, "max_size": None, "ssl": context, "host": "127.0.0.1", **more}
    async with connect(url, **options) as ws:
        yield ws


class Application:
    """Does by path what the tests ask for; `ends` counts those that have ended."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            raise ValueError(scope["type"])
        await receive()
        message = None
        try:
            if scope["path"] == "/deny":
                await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
                await send({"type": "websocket.http.response.body", "body": b"x" * SIZE, "more_body": True})
                await send({"type": "websocket.http.response.body", "body": b"y"})
                return
            await send(ACCEPT)
            if scope["path"] == "/flood":
                for _ in range(COUNT):
                    await send({"type": "websocket.send", "bytes": bytes(SIZE)})
                await send({"type": "websocket.close", "code": 4000, "reason": "that was all"})
            while (message := await receive())["type"] != "websocket.disconnect":
                await send({**message, "type": "websocket.send"})
        finally:
            self.ended.append(message)


def test_a_client_that_reads_slowly_gets_all_that_came_before_the_close(endpoint: tuple[str, Any]) -> None:
    # 4 MB at 1 MB/s take longer than each of these limits; each pause of the client is shorter. Not in one loop with the client: uvloop's TLS loses what it
    # holds for a client that has paused reading when the connection ends.
    config = Config(graceful_timeout=0, write_timeout=2.0, close_timeout=2.0, websocket_compression=False)
    server = Server(Application(), [endpoint[0]], config=config)
    with server.run_in_thread():
        port = server.listening_addresses[0][1]
        url = f"{'ws' if endpoint[1] is None else 'wss'}://localhost:{port}/flood"
        options: dict[str, Any] = {"proxy": None, "ping_interval": None, "max_size": None, "ssl": endpoint[1]}
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        with connect_sync(url, sock=raw, max_queue=1, **options) as ws:
            for _ in range(COUNT):
                assert len(ws.recv(20)) == SIZE
                time.sleep(SIZE / 1_000_000)
            with pytest.raises(ConnectionClosed):
                ws.recv(5)
            assert (ws.close_code, ws.close_reason) == (4000, "that was all")


@on_sockets
async def test_a_server_that_stops_tells_1012(endpoint: tuple[str, Any]) -> None:
    application = Application()
    async with serving(application, endpoint[0]) as server:
        async with contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(dial(server, endpoint[1])) for _ in range(5)]
            await asyncio.wait_for(server.shutdown(), 20)
            for ws in sockets:
                with pytest.raises(ConnectionClosed):
                    await ws.recv()
                assert ws.close_code == 1012
    assert [message["code"] for message in application.ended] == [1012] * 5


@on_sockets
async def test_a_denial_is_whole(endpoint: tuple[str, Any]) -> None:
    async with serving(Application(), endpoint[0]) as server:
        with pytest.raises(InvalidStatus) as denied:
            async with dial(server, endpoint[1], "/deny"):
                pass
        assert denied.value.response.status_code == 418
        assert denied.value.response.body == b"x" * SIZE + b"y"


@pytest.mark.parametrize("how", ["abort", "end"])
@on_sockets
async def test_a_client_that_leaves_without_a_close_frame_is_1006(endpoint: tuple[str, Any], how: str) -> None:
    application = Application()
    async with serving(application, endpoint[0]) as server:
        async with dial(server, endpoint[1]) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
            if how == "abort":
                ws.transport.abort()
            else:
                ws.transport.close()
            async with asyncio.timeout(20):
                while not application.ended or server.connections:
                    await asyncio.sleep(0.01)
    assert application.ended == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@on_sockets
async def test_sockets_beyond_the_limit_of_concurrency_get_503() -> None:
    async with serving(Application(), limit_concurrency=1) as server:
        async with dial(server, None):
            with pytest.raises(InvalidStatus) as refused:
                async with dial(server, None):
                    pass
            assert refused.value.response.status_code == 503
        async with asyncio.timeout(20):
            while server.connections:
                await asyncio.sleep(0.01)
        async with dial(server, None) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"

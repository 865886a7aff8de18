"""A plain ASGI application that does what the path says, for HTTP/2 clients that speak in frames of their own making.

It keeps count of its tasks, so that a test can see what a client has set going, and whether all of it has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Tasks that began, that run, and the most that ever ran at once, by path.
began: Counter[str] = Counter()
running: Counter[str] = Counter()
most: Counter[str] = Counter()
# Those who wait at ``/wait`` and ``/deaf`` for ``/go``.
go = asyncio.Event()


async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Serve one request or WebSocket."""
    if scope["type"] not in ("http", "websocket"):
        raise ValueError(f"{scope['type']} is not served")
    path = scope["path"]
    began[path] += 1
    running[path] += 1
    most[path] = max(most[path], running[path])
    try:
        if scope["type"] == "http":
            await serve_http(scope, receive, send)
        else:
            await serve_websocket(scope, receive, send)
    except OSError:
        pass  # the client left
    finally:
        running[path] -= 1


async def read_body(receive: Receive) -> bytes:
    """Return the whole body of the request.

    Raises:
        ConnectionError: The client left.
    """
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        body += message["body"]
        more = message["more_body"]
    return bytes(body)


async def serve_http(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer."""

    async def start(status: int, *headers: tuple[bytes, bytes], **more: object) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers), **more})

    async def answer(body: bytes, status: int = 200) -> None:
        await start(status, (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.body", "body": body})

    query = dict(parse_qsl(scope["query_string"].decode("ascii")))
    match scope["path"].strip("/").split("/"):
        case ["hello"]:
            await answer(b"Hello, World!\n")
        case ["seen"]:
            body = await read_body(receive)
            seen = {
                "method": scope["method"],
                "path": scope["path"],
                "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
                "body": body[:100].decode("latin-1"),
                "size": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
            }
            await answer(json.dumps(seen).encode())
        case ["sink"]:
            await answer(b"%d\n" % len(await read_body(receive)))
        case ["unread"]:
            await answer(b"not wanted\n", 403)
        case ["wait"]:
            waiting = [asyncio.create_task(go.wait()), asyncio.create_task(gone(receive))]
            _done, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await answer(b"gone\n" if go.is_set() else b"left\n")
        case ["deaf"]:
            await go.wait()
            await answer(b"%d\n" % len(await read_body(receive)))
        case ["go"]:
            go.set()
            await asyncio.sleep(0.05)
            go.clear()
            await answer(b"going\n")
        case ["counts"]:
            counts = {"began": began, "running": running, "most": most}
            await answer(json.dumps(counts).encode())
        case ["bytes", number]:
            await answer(bytes(range(256)) * (int(number) // 256) + bytes(range(int(number) % 256)))
        case ["pieces", number]:
            await start(200)
            for count in range(int(number)):
                # Each of its own, or none of them would cost memory.
                await send({"type": "http.response.body", "body": bytes([count & 255]) * 65536, "more_body": True})
            await send({"type": "http.response.body"})
        case ["status", number]:
            await start(int(number), (b"x-status", number.encode()))
            await send({"type": "http.response.body", "body": b"" if number in ("204", "304") else b"status\n"})
        case ["trailers"]:
            await start(200, trailers=True)
            await send({"type": "http.response.body", "body": b"summed\n"})
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]})
        case ["hints"]:
            await start(200)
            await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
            await send({"type": "http.response.body", "body": b"hinted\n"})
        case ["large-head"]:
            await start(200, *[(b"x-field-%d" % count, b"value " * 150) for count in range(50)])
            await send({"type": "http.response.body", "body": query.get("body", "").encode()})
        case ["old-fields"]:
            await start(200, (b"Connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"X-Upper", b" value "))
            await send({"type": "http.response.body", "body": b"1\r\nx\r\n0\r\n\r\n"})
        case ["fail"]:
            await start(200)
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
            raise RuntimeError("announced")
        case ["long"]:
            await start(200, (b"content-length", b"3"))
            await send({"type": "http.response.body", "body": b"123456"})
        case _:
            await answer(b"no such page\n", 404)


async def gone(receive: Receive) -> None:
    """Wait for the client to leave."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def serve_websocket(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Echo, or refuse."""
    await receive()
    if scope["path"] == "/refuse":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept", "headers": [(b"x-accepted", b"yes")]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})

"""A plain ASGI application of WebSockets: what the tests with foreign clients talk to, and what they ask about it.

What a socket does is its path; HTTP requests ask what happened, or let go what waits.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# What a socket with a ``name`` in its query has seen last, and what all together have done.
seen: dict[str, Any] = {}
totals: Counter[str] = Counter()
# Those who wait for ``/go``.
go = asyncio.Event()


async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Serve one request or socket."""
    if scope["type"] == "http":
        await serve_http(scope, send)
        return
    if scope["type"] != "websocket":
        raise ValueError(f"{scope['type']} is not served")
    query = dict(parse_qsl(scope["query_string"].decode("ascii")))
    totals["open"] += 1
    try:
        await serve_websocket(scope, query, receive, send)
    finally:
        totals["open"] -= 1


async def serve_http(scope: MutableMapping[str, Any], send: Send) -> None:
    """Tell what was seen, how many tasks there are, or anything else in one line."""
    match scope["path"].strip("/").split("/"):
        case ["seen", name]:
            body = json.dumps(seen.get(name))
        case ["totals"]:
            body = json.dumps({**totals, "tasks": len(asyncio.all_tasks())})
        case ["go"]:
            go.set()
            go.clear()
            body = "{}"
        case _:
            body = "plain HTTP\n"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body.encode()})


async def serve_websocket(scope: MutableMapping[str, Any], query: dict[str, str], receive: Receive, send: Send) -> None:
    """Do what the path says."""
    name = query.get("name", "")
    message = await receive()
    assert message == {"type": "websocket.connect"}

    async def accept(**more: Any) -> None:
        await send({"type": "websocket.accept", **more})

    async def until_disconnect() -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            totals["received"] += 1
            totals["bytes"] += len(message.get("bytes") or message.get("text") or b"")
        seen[name] = {"code": message["code"], "reason": message["reason"]}

    match scope["path"].strip("/"):
        case "echo":
            offered = scope["subprotocols"]
            await accept(
                subprotocol=query.get("choose", offered[0] if offered else None), headers=[(b"x-server", b"sockets")]
            )
            while (message := await receive())["type"] == "websocket.receive":
                totals["received"] += 1
                await send({**message, "type": "websocket.send"})
            seen[name] = {"code": message["code"], "reason": message["reason"]}
        case "scope":
            await accept()
            shown = {key: value for key, value in scope.items() if key not in ("headers", "raw_path", "query_string")}
            shown["headers"] = [[field.decode(), value.decode("latin-1")] for field, value in scope["headers"]]
            await send({"type": "websocket.send", "text": json.dumps(shown)})
            await until_disconnect()
        case "close":
            await accept()
            await send(
                {"type": "websocket.close", "code": int(query.get("code", 1000)), "reason": query.get("reason", "")}
            )
            await until_disconnect()
        case "return":
            await accept()
        case "fail":
            await accept()
            raise RuntimeError("this socket is broken")
        case "refuse":
            await send({"type": "websocket.close", "code": 4403, "reason": "nobody hears this"})
        case "deny":
            headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Basic")]
            await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"are you?"})
        case "undecided":
            seen[name] = "asked"
            await until_disconnect()
        case "deaf":  # receives nothing before /go
            await accept()
            seen[name] = "deaf"
            await go.wait()
            await until_disconnect()
        case "count":
            await accept()
            await until_disconnect()
        case "flood":
            # With ?noise they do not compress; else all are one and the same, of zeros.
            await accept()
            size = int(query["size"])
            zeros = bytes(size)
            for _ in range(int(query["count"])):
                data = random.randbytes(size) if "noise" in query else zeros
                await send({"type": "websocket.send", "bytes": data})
                totals["sent"] += 1
            await until_disconnect()
        case other:
            raise ValueError(f"no socket does {other!r}")

"""A plain ASGI application of WebSockets that a malicious client attacks, and that can be asked what has become of it.

What a socket does is its path; what it has seen is kept under its query.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# What belongs to a connection, by the names of the types.
KINDS = ("WebSocketConnection", "WebSocketExchange", "WebSocketChannel", "MessageInbox", "Session")

requests: list[str] = []
ended: dict[str, Any] = {}


async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Serve one request or socket."""
    if scope["type"] == "http":
        await serve_http(scope, send)
    elif scope["type"] == "websocket":
        await serve_websocket(scope, receive, send)
    else:
        raise ValueError(f"{scope['type']} is not served")


async def serve_http(scope: MutableMapping[str, Any], send: Send) -> None:
    """Tell what there is."""
    path = scope["path"]
    if path == "/alive":
        gc.collect()
        found = Counter(type(one).__name__ for one in gc.get_objects())
        body: Any = {kind: found[kind] for kind in KINDS}
    elif path == "/ended":
        body = ended
    elif path == "/requests":
        body = requests
    else:
        requests.append(path)
        body = path
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def serve_websocket(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Behave as the path says."""
    path, name = scope["path"], scope["query_string"].decode("ascii")
    await receive()
    if path == "/refuse":
        await send({"type": "websocket.close"})
        return
    if path == "/wait":
        ended[name] = (await receive())["type"]
        return
    await send({"type": "websocket.accept"})
    if path == "/close":
        await receive()
        await send({"type": "websocket.close"})
        return
    ticker = asyncio.create_task(tick(name)) if path == "/ticks" else None
    messages = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                ended[name] = message["code"]
                return
            messages += 1
            in_turn[name] += 1
            most_in_turn[name] = max(most_in_turn[name], in_turn[name])
            if message.get("text") == "how many?":
                await send({"type": "websocket.send", "text": f"{messages} {most_in_turn[name]}"})
    finally:
        if ticker is not None:
            ticker.cancel()


# Messages received since the turn of the loop began, and the most that there were in any turn.
in_turn: Counter[str] = Counter()
most_in_turn: Counter[str] = Counter()


async def tick(name: str) -> None:
    """Notice the turns of the loop."""
    while True:
        in_turn[name] = 0
        await asyncio.sleep(0)

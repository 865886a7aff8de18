"""Measures how long the loop is kept from its next turn, in the CPU time of its thread."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

START = {"type": "http.response.start", "status": 200, "headers": []}


class Probe:
    """Runs once in every turn of the loop."""

    def __init__(self) -> None:
        self.worst = self.last = 0.0
        self.loop = asyncio.get_running_loop()

    def reset(self) -> None:
        self.worst = 0.0
        self.last = time.thread_time()

    def turn(self) -> None:
        now = time.thread_time()
        self.worst = max(self.worst, now - self.last)
        self.last = now
        self.loop.call_soon(self.turn)


probe: Probe | None = None


async def read_all(receive: Any) -> int:
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return size
        size += len(message["body"])
        if not message["more_body"]:
            return size


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    global probe
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        return
    path = scope["path"]
    body = b"ok"
    if path == "/begin":
        if probe is None:
            probe = Probe()
            probe.turn()
        probe.reset()
    elif path == "/worst":
        assert probe is not None
        body = json.dumps(probe.worst).encode()
    elif path in ("/read", "/wait"):
        if path == "/wait":
            await asyncio.sleep(2)
        body = b"%d" % await read_all(receive)
    elif path == "/drip":
        await send(START)
        for _ in range(100_000):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        body = b""
        await send({"type": "http.response.body", "body": body})
        return
    await send(START)
    await send({"type": "http.response.body", "body": body})

"""Applications that let a client's pieces wait."""

from __future__ import annotations

import asyncio
from typing import Any

released = asyncio.Event()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(3600)
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/hold":
        await asyncio.sleep(3600)
    if scope["path"] == "/release":
        released.set()
    await released.wait()
    more, messages = True, 0
    while more:
        more = (await receive()).get("more_body", False)
        messages += 1
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in %d messages" % messages})
    if scope["path"] == "/wait":
        released.clear()

"""Responses that wait for the notice that the server is stopping, each in another way, and one that does not."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from daphne_ng import stopping

DOWNLOAD_PARTS = 15
PART = b"x" * 10_000


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    assert scope["type"] == "http"
    assert stopping.is_supported()
    path = scope["path"]
    headers = [(b"content-type", b"text/event-stream"), (b"x-process", b"%d" % os.getpid())]
    if path == "/download":
        headers.append((b"content-length", b"%d" % (DOWNLOAD_PARTS * len(PART))))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/quick":
        await send({"type": "http.response.body", "body": b"quick"})
        return
    if path == "/download":
        for left in reversed(range(DOWNLOAD_PARTS)):
            await send({"type": "http.response.body", "body": PART, "more_body": left > 0})
            await asyncio.sleep(0.1)
        return
    await send({"type": "http.response.body", "body": b"data: begun\n\n", "more_body": True})
    match path:
        case "/task":
            while not await stopping.wait_stopping(timeout=0.2):
                await send({"type": "http.response.body", "body": b"data: on\n\n", "more_body": True})
        case "/state":
            await scope["state"]["server_stopping"]
        case "/thread":
            await asyncio.to_thread(stopping.wait_stopping_in_thread, 60)
        case "/poll":
            while not stopping.is_stopping():
                await asyncio.sleep(0.05)
        case "/message":
            await noticed.wait()
    await send({"type": "http.response.body", "body": b"data: ended\n\n"})


noticed = asyncio.Event()


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    background = asyncio.create_task(watch())
    await send({"type": "lifespan.startup.complete", "shutdown_notice": True})
    message = await receive()
    print(message["type"], os.getpid(), flush=True)
    noticed.set()
    await background
    message = await receive()
    print(message["type"], os.getpid(), flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def watch() -> None:
    """Wait as a task that the startup leaves behind."""
    await stopping.wait_stopping()

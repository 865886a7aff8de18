"""Applications for servers that run in a process of their own: ``tests.support.asgi_apps:NAME``."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Does what the path says."""
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    path = scope["path"]
    if path == "/exit":
        sys.exit(7)
    if path == "/hang":
        await asyncio.Event().wait()
    if path == "/stuck":
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    text = b"end"
    if path == "/threads":
        loop: Any = asyncio.get_running_loop()
        text = b"%d" % loop._default_executor._max_workers if getattr(loop, "_default_executor", None) else b"none"
        threads = await asyncio.gather(*[loop.run_in_executor(None, _thread) for _ in range(8)])
        text = b"%d" % len(set(threads))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if path == "/slow":
        await send({"type": "http.response.body", "body": b"begin,", "more_body": True})
        await asyncio.sleep(3)
    await send({"type": "http.response.body", "body": text})


def _thread() -> int:
    import threading

    time.sleep(0.02)
    return threading.get_ident()


async def failing(scope: Any, receive: Any, send: Any) -> None:
    """Its startup fails."""
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})


async def slow_to_start(scope: Any, receive: Any, send: Any) -> None:
    """Its startup takes for ever."""
    assert scope["type"] == "lifespan"
    await receive()
    print("starting", file=sys.stderr, flush=True)
    await asyncio.sleep(1000)


async def slow_to_stop(scope: Any, receive: Any, send: Any) -> None:
    """Its shutdown takes for ever."""
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("stopping", file=sys.stderr, flush=True)
    await asyncio.sleep(1000)


async def orderly(scope: Any, receive: Any, send: Any) -> None:
    """Says on stderr what its lifespan goes through."""
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["answer"] = b"from the lifespan"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("lifespan over", file=sys.stderr, flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["state"]["answer"]})

"""The application: Django for HTTP, an echo for WebSockets, and a lifespan that says so."""

import asyncio
import os
from typing import Any

from django.core.asgi import get_asgi_application

pages = get_asgi_application()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve one connection, or the lifespan."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(scope, receive, send)
    else:
        await pages(scope, receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    """Print what happens."""
    await receive()
    if os.environ.get("PLAYGROUND_STARTUP") == "fails":
        await send({"type": "lifespan.startup.failed", "message": "not today"})
        return
    print("lifespan startup", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send back what comes; refuse, or take for ever to accept, or a second to end, where the path says so."""
    await receive()
    if scope["path"].endswith("/refused"):
        await send({"type": "websocket.close"})
        return
    if scope["path"].endswith("/slow"):
        await receive()
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message.get("text") or "bytes"})
    if scope["path"].endswith("/tidy"):
        await asyncio.sleep(1)
    print("socket", message["code"], flush=True)

"""Tells each client what ASGI's TLS extension says about it."""

from __future__ import annotations

import asyncio
import json
from typing import Any


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    answer = json.dumps(
        {
            "type": scope["type"],
            "scheme": scope["scheme"],
            "http_version": scope["http_version"],
            "tls": scope["extensions"].get("tls"),
        }
    )
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": answer})
        await receive()
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer.encode()})

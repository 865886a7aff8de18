"""Tells what the scope says about the connection, over HTTP and over WebSocket."""

import json
from typing import Any


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] not in ("http", "websocket"):
        raise NotImplementedError
    keys = ("type", "http_version", "scheme", "server", "client")
    told = json.dumps({key: scope[key] for key in keys} | {"tls": "tls" in scope["extensions"]})
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": told})
        await receive()
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": told.encode()})

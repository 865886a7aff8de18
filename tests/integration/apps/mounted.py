"""What an application sees of where a request comes from and of where it is mounted; plain, and with Starlette."""

from __future__ import annotations

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

KEYS = ("type", "http_version", "scheme", "path", "root_path", "client", "server")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the scope, as a page or as the first message."""
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    seen = {key: scope[key] for key in KEYS}
    seen["raw_path"] = scope["raw_path"].decode("ascii")
    seen["headers"] = [[name.decode("ascii"), value.decode("latin-1")] for name, value in scope["headers"]]
    text = json.dumps(seen)
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})


def where(request: Request | WebSocket) -> dict[str, Any]:
    """Tell where Starlette thinks that it is, and what addresses it makes."""
    return {
        "name": request.path_params["name"],
        "url": str(request.url),
        "base": str(request.base_url),
        "page": str(request.url_for("inner:page", name="other")),
        "talk": str(request.url_for("inner:talk", name="other")),
    }


async def page(request: Request) -> Response:
    """Tell it as a page."""
    return JSONResponse(where(request))


async def talk(ws: WebSocket) -> None:
    """Tell it as a message."""
    await ws.accept()
    await ws.send_json(where(ws))
    await ws.close()


routes = [Route("/page/{name}", page, name="page"), WebSocketRoute("/talk/{name}", talk, name="talk")]
starlette = Starlette(routes=[Mount("/inner", routes=routes, name="inner")])

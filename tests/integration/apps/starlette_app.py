"""A Starlette application with a lifespan and everything that depends on the server's part of ASGI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

logger = logging.getLogger(__name__)

# What happened, for the tests to ask: a name and what is known of it.
events: dict[str, str] = {}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Log the start and the end, and give every request the same list."""
    logger.info("the application starts")
    yield {"greeting": "hello", "visitors": []}
    await asyncio.sleep(0.1)
    logger.info("the application has ended, having seen %s", ", ".join(events) or "nothing")


async def state(request: Request) -> Response:
    """Show the lifespan's state; it is shared, what a request sets on it is its own."""
    request.state.visitors.append(request.query_params["name"])
    own = getattr(request.state, "own", None)
    request.state.own = request.query_params["name"]
    return JSONResponse({"greeting": request.state.greeting, "visitors": request.state.visitors, "own": own})


async def seen(request: Request) -> Response:
    """Tell what is known of an event, or null."""
    return JSONResponse(events.get(request.path_params["name"]))


async def background(request: Request) -> Response:
    """Answer, and work on."""

    async def work() -> None:
        events["background"] = "running"
        await asyncio.sleep(2)
        events["background"] = "done"

    return PlainTextResponse("answered", background=BackgroundTask(work))


async def watch(request: Request) -> Response:
    """Ask whether the client is still there until it is not."""
    name = request.query_params["name"]
    body = await request.body()
    events[name] = f"watching after {len(body)} bytes"
    while not await request.is_disconnected():
        await asyncio.sleep(0.02)
    events[name] = "disconnected"
    return Response()


async def upload(request: Request) -> Response:
    """Count a body as it arrives."""
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            events["upload"] = "receiving"
    except ClientDisconnect:
        events["upload"] = f"ClientDisconnect after {size} bytes"
        raise
    return JSONResponse({"size": size})


async def stream(request: Request) -> Response:
    """Stream ``count`` lines, one ``every`` so many seconds; then with ``?fail`` fail, with ``?hang`` fall silent."""
    query = request.query_params
    name = query.get("name", "stream")

    async def lines() -> AsyncIterator[str]:
        try:
            for number in range(int(query.get("count", "3"))):
                yield f"line {number}\n"
                await asyncio.sleep(float(query.get("every", "0")))
            if "fail" in query:
                raise RuntimeError("the stream is broken")
            if "hang" in query:
                await asyncio.Event().wait()
        finally:
            events[name] = "ended"

    return StreamingResponse(lines(), media_type="text/plain")


async def file(request: Request) -> Response:
    """Send a file of the current directory."""
    return FileResponse(Path("noise.bin"), filename="noise.bin")


async def slow(request: Request) -> Response:
    """Take a second."""
    await asyncio.sleep(1)
    events["slow"] = "answered"
    return PlainTextResponse("slow, but sure")


async def broken(request: Request) -> Response:
    """Fail."""
    raise RuntimeError("this endpoint is broken")


class Trailers:
    """Sends trailers, for which Starlette has no response."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send them."""
        assert "http.response.trailers" in scope["extensions"]
        headers = [(b"content-type", b"text/plain"), (b"trailer", b"x-sum")]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
        await send({"type": "http.response.body", "body": b"summed\n"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]})


async def talk(websocket: WebSocket) -> None:
    """Say back what is said, in the way it is asked for; until the client leaves."""
    greeting = websocket.state.greeting
    await websocket.accept(websocket.headers.get("x-choose"), headers=[(b"x-greeting", greeting.encode())])
    name = websocket.query_params.get("name", "talk")
    try:
        async for word in websocket.iter_text():
            if word == "bytes":
                await websocket.send_bytes(b"\x00\xff")
            elif word == "json":
                await websocket.send_json({"word": word})
            elif word == "close":
                await websocket.close(4000, "as you wish")
                return
            elif word == "fail":
                raise RuntimeError("this socket is broken")
            elif word == "flood":
                while True:
                    await websocket.send_bytes(bytes(65536))
            else:
                await websocket.send_text(word)
        events[name] = "left"
    except WebSocketDisconnect as error:
        events[name] = f"WebSocketDisconnect {error.code} {error.reason}"


async def deny(websocket: WebSocket) -> None:
    """Send a response in place of the socket."""
    await websocket.send_denial_response(JSONResponse({"why": "because"}, 451, headers={"X-Denied": "yes"}))


class Loud(WebSocketEndpoint):
    """Starlette's class of handlers."""

    encoding = "json"

    async def on_connect(self, websocket: WebSocket) -> None:
        """Accept."""
        await websocket.accept()

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        """Answer louder."""
        await websocket.send_json({"loud": data["word"].upper()})

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """Note it."""
        events["loud"] = f"closed with {close_code}"


class AddHeader(BaseHTTPMiddleware):
    """Add a header through Starlette's middleware that wraps ``receive`` and ``send``."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        """Add it."""
        response: Response = await call_next(request)
        response.headers["X-Wrapped"] = "yes"
        return response


routes = [
    Route("/state", state),
    Route("/seen/{name}", seen),
    Route("/background", background),
    Route("/watch", watch, methods=["GET", "POST"]),
    Route("/upload", upload, methods=["POST"]),
    Route("/stream", stream),
    Route("/file", file),
    Route("/slow", slow),
    Route("/broken", broken),
    Route("/trailers", Trailers()),
    WebSocketRoute("/talk", talk),
    WebSocketRoute("/deny", deny),
    WebSocketRoute("/loud", Loud),
]
application = Starlette(
    lifespan=lifespan,
    routes=[
        *routes,
        Mount("/wrapped", routes=routes, middleware=[Middleware(AddHeader), Middleware(GZipMiddleware)]),
        Mount("/static", StaticFiles(directory=".")),
    ],
)

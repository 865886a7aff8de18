"""The built-in demo application: one page that shows a connection at work.

``daphne-ng`` serves it when no application is named. It is a plain ASGI 3 application of the standard
library alone, so it runs under any ASGI server:

=========================== =========== ==========================================================
path                        methods     what it does
=========================== =========== ==========================================================
``/``                       GET, HEAD   the page: protocol, addresses, headers, and the three below
``/clock``                  GET, HEAD   server-sent events, one a second
``/upload``                 POST, PUT   counts and hashes the body while it arrives, stores nothing
``/upload/<id>/progress``   GET, HEAD   server-sent events: what ``/upload?id=<id>`` has received so far
``/chat``                   WebSocket   broadcasts what one tab says to every tab
=========================== =========== ==========================================================

Whatever a client controls is HTML-escaped, and the Content-Security-Policy names the one script and the
one style sheet by hash. Whatever a client can make grow has its bound in a constant of its module.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from daphne_ng._types import Receive, Scope, Send
from daphne_ng.demo.chat import Chat
from daphne_ng.demo.exchange import Clock, Exchange
from daphne_ng.demo.page import render_not_found, render_page
from daphne_ng.demo.streams import clock_events, serve_events
from daphne_ng.demo.uploads import Upload, Uploads, progress_events, receive_upload

__all__ = ["Clock", "Demo", "application"]

Handler = Callable[[Exchange, "re.Match[str]"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A path, the methods it knows, and what answers them."""

    path: re.Pattern[str]
    methods: tuple[str, ...]
    handler: Handler


class Demo:
    """The demo as an ASGI application; one instance per process.

    Args:
        clock: Where the time comes from.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.uploads = Uploads(self.clock.monotonic)
        self.chat = Chat(self.clock.now)
        self._routes = (
            Route(re.compile(r"/?"), ("GET", "HEAD"), self._page),
            Route(re.compile(r"/clock"), ("GET", "HEAD"), self._clock),
            Route(re.compile(r"/upload"), ("POST", "PUT"), self._upload),
            Route(re.compile(r"/upload/([\w-]{1,64})/progress", re.ASCII), ("GET", "HEAD"), self._progress),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange, or the lifespan."""
        exchange = Exchange(scope, receive, send)
        match scope["type"]:
            case "http":
                await self._http(exchange)
            case "websocket":
                await self._websocket(exchange)
            case "lifespan":
                await self._lifespan(exchange)
            case other:
                raise ValueError(f"the demo does not serve scopes of type {other!r}")

    async def _http(self, exchange: Exchange) -> None:
        path = _path_in_application(exchange.scope)
        for route in self._routes:
            if found := route.path.fullmatch(path):
                if exchange.scope["method"] in route.methods:
                    await route.handler(exchange, found)
                else:
                    allow = ", ".join(route.methods).encode()
                    await exchange.refuse(HTTPStatus.METHOD_NOT_ALLOWED, (b"allow", allow))
                return
        await exchange.respond(HTTPStatus.NOT_FOUND, "text/html; charset=utf-8", render_not_found(exchange.scope))

    async def _websocket(self, exchange: Exchange) -> None:
        if _path_in_application(exchange.scope) == "/chat":
            await self.chat.serve(exchange)
        else:
            await exchange.receive()
            await exchange.send({"type": "websocket.close"})

    async def _lifespan(self, exchange: Exchange) -> None:
        await exchange.receive()
        self.chat.open()
        await exchange.send({"type": "lifespan.startup.complete"})
        await exchange.receive()
        self.chat.close()
        await exchange.send({"type": "lifespan.shutdown.complete"})

    async def _page(self, exchange: Exchange, _: re.Match[str]) -> None:
        await exchange.respond(HTTPStatus.OK, "text/html; charset=utf-8", render_page(exchange.scope))

    async def _clock(self, exchange: Exchange, _: re.Match[str]) -> None:
        await serve_events(exchange, clock_events(self.clock))

    async def _progress(self, exchange: Exchange, found: re.Match[str]) -> None:
        upload = Upload() if exchange.head_only else self.uploads.watch(found[1])
        await serve_events(exchange, progress_events(self.clock, upload))

    async def _upload(self, exchange: Exchange, _: re.Match[str]) -> None:
        await receive_upload(exchange, self.uploads, self.clock)


def _path_in_application(scope: Scope) -> str:
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root_path) if path.startswith(f"{root_path}/") or path == root_path else path


application = Demo()
"""What ``daphne-ng daphne_ng.demo:application`` serves."""

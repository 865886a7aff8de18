"""One ASGI call as the demo's parts see it, and the time as they see it."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from daphne_ng._types import Receive, Scope, Send
from daphne_ng.demo.page import COMMON_HEADERS

__all__ = ["Clock", "Exchange", "converse", "until_disconnect"]


@dataclass(frozen=True, slots=True)
class Clock:
    """The time as the demo sees it; tests bring their own."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Exchange:
    """The three arguments of an ASGI call."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def head_only(self) -> bool:
        """Whether the response must have no body."""
        return bool(self.scope["method"] == "HEAD")

    @property
    def query(self) -> dict[str, str]:
        """The query string; of a repeated name the last value."""
        return dict(urllib.parse.parse_qsl(self.scope.get("query_string", b"").decode("latin-1")))

    def header(self, name: bytes) -> str | None:
        """Return the first header of this (lowercase) name."""
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key.lower() == name), None)

    async def respond(self, status: HTTPStatus, content_type: str, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Send a whole response, without its body for HEAD."""
        fields = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            *headers,
            *COMMON_HEADERS,
        ]
        await self.send({"type": "http.response.start", "status": status.value, "headers": fields})
        await self.send({"type": "http.response.body", "body": b"" if self.head_only else body})

    async def refuse(self, status: HTTPStatus, *headers: tuple[bytes, bytes]) -> None:
        """Send an error as one line of text."""
        body = f"{status.value} {status.phrase}\n".encode()
        await self.respond(status, "text/plain; charset=utf-8", body, *headers)


async def converse(
    listen: Coroutine[Any, Any, None], speak: Coroutine[Any, Any, None], stop: asyncio.Future[Any]
) -> bool:
    """Listen and speak side by side until either ends or ``stop`` is done, then cancel what is left.

    ``listen`` ends when the peer has left.

    Returns:
        Whether the peer is still there, so that the caller may finish the exchange.
    """
    listener, speaker = asyncio.ensure_future(listen), asyncio.ensure_future(speak)
    try:
        await asyncio.wait({listener, speaker, stop}, return_when=asyncio.FIRST_COMPLETED)
        present = not listener.done()
    finally:
        listener.cancel()
        speaker.cancel()
        outcomes = await asyncio.gather(listener, speaker, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, OSError):  # ASGI 2.4: what send() raises after a disconnect
            present = False
        elif isinstance(outcome, Exception):
            raise outcome
    return present


async def until_disconnect(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass

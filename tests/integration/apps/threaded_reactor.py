"""Uses the reactor from synchronous code, in a thread that crochet starts for it."""

from __future__ import annotations

import asyncio
from typing import Any

import crochet

crochet.setup()

from twisted.internet import reactor  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402


@crochet.wait_for(timeout=10)
def later() -> Any:
    """Wait for Twisted."""
    return deferLater(reactor, 0.01, lambda: b"late")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer from a thread that waits for the reactor's."""
    if scope["type"] != "http":
        raise ValueError("HTTP only")
    body = await asyncio.to_thread(later)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

"""Uses the reactor from synchronous code, in a thread that crochet starts for it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import crochet
from twisted.internet import reactor
from twisted.internet.task import deferLater

# The server is about to start before that thread has begun Twisted's log.
reactor.callFromThread(time.sleep, 0.5)  # type: ignore[attr-defined]
crochet.setup()


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

"""Imports the global reactor when it is imported itself, as many packages for Twisted do, and says what it got."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet import reactor

imported = reactor
called: list[str] = []
imported.callWhenRunning(called.append, "running")


def factory() -> Any:
    """Make the application."""
    return application


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the class of the reactor, the loop, and whether what was called at the import has happened."""
    if scope["type"] != "http":
        raise ValueError("HTTP only")
    loop = asyncio.get_running_loop()
    assert imported._asyncioEventloop is loop
    text = f"{type(imported).__module__}.{type(imported).__name__} {type(loop).__module__} {' '.join(called)}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})

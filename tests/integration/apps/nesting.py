"""Runs a coroutine inside the loop that runs already, as nest_asyncio makes possible."""

from __future__ import annotations

import asyncio
from typing import Any

import nest_asyncio

nest_asyncio.apply()


async def inner() -> bytes:
    """Wait a little."""
    await asyncio.sleep(0.01)
    return b"inner"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what a synchronous call of some library returns."""
    if scope["type"] != "http":
        raise ValueError("HTTP only")
    body = asyncio.get_event_loop().run_until_complete(inner())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

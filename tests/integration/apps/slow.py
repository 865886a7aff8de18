"""Sends a large response in one message."""

from __future__ import annotations

from typing import Any

SIZE = 6_000_000


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    await receive()
    size = 2 if scope["path"] == "/all" else SIZE  # what tells that a proxy is ready
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": bytes(size)})

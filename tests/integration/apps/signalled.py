"""Sets the handlers of signals that the environment names when it is imported, and answers slowly."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

_HANDLERS: dict[str, Any] = {
    "default": signal.SIG_DFL,
    "ignore": signal.SIG_IGN,
    "own": lambda number, frame: print("the application's handler", flush=True),
}

for _name, _kind in (pair.split("=") for pair in os.environ.get("HANDLERS", "").split()):
    signal.signal(getattr(signal, _name), _HANDLERS[_kind])


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Takes half a second, in two parts."""
    if scope["type"] != "http":
        raise ValueError("HTTP only")
    if scope["path"] == "/interrupt":
        raise KeyboardInterrupt
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begin,", "more_body": True})
    await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b"end"})

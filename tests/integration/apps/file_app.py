"""Sends files of the current directory: by pathsend, by zerocopysend between body messages, and by Starlette."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.responses import FileResponse

OCTETS = (b"content-type", b"application/octet-stream")


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer /path/NAME, /zero/NAME and /starlette/NAME."""
    assert scope["type"] == "http"
    _, way, name = scope["path"].split("/")
    path = Path(name).absolute()
    if way == "starlette":

        async def told(message: dict[str, Any]) -> None:
            print("sent by", message["type"], flush=True)
            await send(message)

        await FileResponse(path)(scope, receive, told)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [OCTETS]})
    if way == "path":
        await send({"type": "http.response.pathsend", "path": str(path)})
        return
    with path.open("rb") as file:
        await send({"type": "http.response.body", "body": b"[", "more_body": True})
        await send({"type": "http.response.zerocopysend", "file": file, "count": 10, "more_body": True})
        await send({"type": "http.response.zerocopysend", "file": file, "more_body": True})
    await send({"type": "http.response.body", "body": b"]"})

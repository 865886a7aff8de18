"""Answers before the request has come, in as many ways as there are."""

from __future__ import annotations

from typing import Any


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer as the path says; only ``/all`` reads the request."""
    if scope["type"] != "http":
        raise NotImplementedError
    path, status, body = scope["path"], 403, b"answered early"
    if path == "/raise":
        raise RuntimeError("on purpose")
    if path == "/part":
        await receive()
    elif path == "/all":
        status, size = 200, 0
        while True:
            message = await receive()
            size += len(message["body"])
            if not message["more_body"]:
                break
        body = b"%d" % size
    elif path != "/403":
        status = int(path[1:])
    headers = [(b"content-type", b"text/plain"), (b"location", b"/all")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

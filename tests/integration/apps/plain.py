"""A plain ASGI application: what the memory tests measure, and what curl and wrk ask."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Message = MutableMapping[str, Any]

PIECE = b"\xda" * 65536

# Pieces that send() has taken, over all streams.
sent = 0


async def application(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Serve one request."""
    if scope["type"] != "http":
        raise ValueError(f"only HTTP is served, not {scope['type']}")

    async def start(status: int, *headers: tuple[bytes, bytes], **more: object) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers), **more})

    async def answer(body: bytes, status: int = 200, content_type: bytes = b"text/plain") -> None:
        await start(status, (b"content-type", content_type), (b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.body", "body": body})

    async def answer_json(value: object) -> None:
        await answer(json.dumps(value).encode(), content_type=b"application/json")

    async def count() -> dict[str, int | str]:
        digest, size, more = hashlib.sha256(), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client left")
            digest.update(message["body"])
            size += len(message["body"])
            more = message["more_body"]
        return {"size": size, "sha256": digest.hexdigest()}

    global sent
    query = dict(parse_qsl(scope["query_string"].decode("ascii")))
    match scope["path"].strip("/").split("/"):
        case ["hello"]:
            await answer(b"Hello, World!\n")
        case ["status", number] if int(number) in (204, 304):
            await start(int(number), (b"x-status", number.encode()))
            await send({"type": "http.response.body"})
        case ["status", number]:
            await answer(b"status\n", int(number))
        case ["scope"]:
            await answer_json(
                {
                    "method": scope["method"],
                    "http_version": scope["http_version"],
                    "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
                    "client": scope["client"],
                    "server": scope["server"],
                    "received": await count(),
                }
            )
        case ["count"]:
            # With ?wait the body is left unread for so long.
            await asyncio.sleep(float(query.get("wait", 0)))
            await answer_json(await count())
        case ["unread"]:
            await answer(b"not wanted\n", 403)
        case ["stream"]:
            await start(200, (b"content-type", b"application/octet-stream"))
            for _ in range(int(query["pieces"])):
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
                sent += 1
            await send({"type": "http.response.body"})
        case ["sent"]:
            await answer_json({"pieces": sent})
        case ["trailers"]:
            await start(200, (b"content-type", b"text/plain"), (b"trailer", b"x-sum"), trailers=True)
            await send({"type": "http.response.body", "body": b"summed\n"})
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]})
        case ["whole"]:
            await answer(bytes(int(query["bytes"])))  # zeros that no memory is spent on until somebody copies them
        case ["hoard"]:
            hoard = bytearray(int(query["bytes"]))
            hoard[::4096] = b"\1" * len(hoard[::4096])
            await answer(b"%d\n" % len(hoard))
        case _:
            await answer(b"no such page\n", 404)

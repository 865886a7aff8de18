"""What clients ask that send many frames of their own: gRPC streams, downloads, and requests to be cancelled.

gRPC is spoken in its smallest form: messages of bytes behind their prefix of five, and the status in the trailers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PIECE = bytes(65536)
PAGE = b"""<!doctype html><body>%b<script>onload = async () => {
    const images = [...document.images].filter((image) => image.naturalWidth).length;
    document.title = `${images} images, ${await (await fetch("/cookies")).text()}`;
};</script>"""


async def messages_of(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the messages of a gRPC request."""
    data, more = b"", True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            raise ConnectionError("the client left")
        data += event["body"]
        more = event["more_body"]
        at = 0
        while len(data) - at >= 5:
            end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
            if end > len(data):
                break
            yield data[at + 5 : end]
            at = end
        data = data[at:]


async def grpc(method: str, receive: Receive, send: Send) -> None:
    """Serve one call: ``Stream`` sends as many messages at such a rate as it is told, ``Bidi`` says what it hears."""

    async def say(payload: bytes) -> None:
        await send(
            {"type": "http.response.body", "body": b"\0" + len(payload).to_bytes(4, "big") + payload, "more_body": True}
        )

    headers = [(b"content-type", b"application/grpc")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    if method == "Stream":
        (question,) = [message async for message in messages_of(receive)]
        count, rate = map(int, question.split())
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in range(count):
            await say(b"m" * 100)
            if rate:
                await asyncio.sleep(max(0.0, begun + (number + 1) / rate - loop.time()))
    else:
        async for message in messages_of(receive):
            await say(message)
    await send({"type": "http.response.body", "body": b""})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})


async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Serve one request, or echo on one WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})
        return
    assert scope["type"] == "http"
    path = scope["path"].strip("/").split("/")
    if path[0] == "test.Echo":
        await grpc(path[1], receive, send)
        return
    if path[0] == "hang":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    headers: list[tuple[bytes, bytes]] = []
    body = b""
    if path[0] == "page":
        headers = [(b"content-type", b"text/html")]
        headers += [(b"set-cookie", b"cookie-%d=%d; Path=/" % (number, number)) for number in range(int(path[1]))]
        body = PAGE % (b"".join(b"<img src=/image/%d>" % number for number in range(int(path[2]))))
    elif path[0] == "image":
        headers = [(b"content-type", b"image/svg+xml"), (b"cache-control", b"no-store")]
        body = b'<svg xmlns="http://www.w3.org/2000/svg" width="200" height="200"><!-- %b --></svg>' % (b"x" * 2000)
    elif path[0] == "cookies":
        cookies = dict(scope["headers"]).get(b"cookie", b"")
        body = b"%d cookies, HTTP/%b" % (len(cookies.split(b"; ")), scope["http_version"].encode())
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path[0] == "bytes":
        left = int(path[1])
        while left > 0:
            await send({"type": "http.response.body", "body": PIECE[:left], "more_body": True})
            left -= len(PIECE)
    await send({"type": "http.response.body", "body": body})

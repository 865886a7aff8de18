"""The one ASGI application that every server is measured with: no framework, standard library only.

The harness copies this file alone into an empty directory and starts each server there, so that nothing else of
the checkout is importable by accident.

==========  ============================================================================================
path        behaviour
==========  ============================================================================================
``/``       plaintext ``Hello, World!``
``/echo``   reads the whole body, answers the same bytes with six response headers
``/stream`` `STREAM_BYTES` in pieces of `PIECE_BYTES`, always the same ``bytes`` object
``/fresh``  the same response, but every piece is a new object: a server that queues what its client does not
            read then pays with memory of its own, instead of with references to one constant
``/upload`` reads and counts the body, answers the count in decimal
``/file/…`` one of `FILES` of the directory that the server was started in, by pathsend; 501 if the server has not that
            extension
``/copy/…`` the same file, read by the application and sent as body messages of `PIECE_BYTES`
``/gc``     what the garbage collector did since this was last asked (since the first time: nothing is
            recorded before), as JSON: number, sum of seconds, longest
`PAGES`     as ``/``, under many paths
==========  ============================================================================================

WebSockets:

==========  ============================================================================================
``/echo``   accepts, and sends every message back, text as text and bytes as bytes
``/fan``    accepts, sends ``joined``, and sends every text to all that are connected here, one after the other
==========  ============================================================================================
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

HELLO = b"Hello, World!"
JOINED = "joined"
PIECE_BYTES = 64 * 1024
PIECES = 1024
STREAM_BYTES = PIECE_BYTES * PIECES
PIECE = bytes(range(256)) * (PIECE_BYTES // 256)
FILES = {"1k": 1024, "100k": 100 * 1024, "100m": 100 * 1024 * 1024}
FILES_DIRECTORY = "files"
PAGES = [f"/articles/2026/{number}/a-headline-of-ordinary-length" for number in range(200)]

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Handler = Callable[[Receive, Send], Awaitable[None]]

_HELLO_HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(HELLO))]
_STREAM_HEADERS = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % STREAM_BYTES)]


async def hello(_receive: Receive, send: Send) -> None:
    """Answer the constant text."""
    await send({"type": "http.response.start", "status": 200, "headers": _HELLO_HEADERS})
    await send({"type": "http.response.body", "body": HELLO})


async def echo(receive: Receive, send: Send) -> None:
    """Answer the request's body."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store, max-age=0"),
        (b"vary", b"Accept-Encoding, Cookie"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", b"5f0c4b0e6f3a4f7c9c6f0f5a1d2b3c4d"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(_receive: Receive, send: Send) -> None:
    """Send one constant object again and again: what is measured is the server, not the allocator."""
    await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body"})


async def fresh(_receive: Receive, send: Send) -> None:
    """Send a new object each time."""
    source = bytearray(PIECE)
    await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
    for _ in range(PIECES):
        await send({"type": "http.response.body", "body": bytes(source), "more_body": True})
    await send({"type": "http.response.body"})


async def upload(receive: Receive, send: Send) -> None:
    """Count the body."""
    count = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        count += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = b"%d" % count
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _file_headers(size: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % size)]


def path_sender(name: str) -> Handler:
    """Return what answers a file by its path."""
    path = os.path.join(os.getcwd(), FILES_DIRECTORY, name)
    start = {"type": "http.response.start", "status": 200, "headers": _file_headers(FILES[name])}
    message = {"type": "http.response.pathsend", "path": path}

    async def send_path(_receive: Receive, send: Send) -> None:
        await send(start)
        await send(message)

    return send_path


def copier(name: str) -> Handler:
    """Return what reads a file and answers it in pieces."""
    path = os.path.join(os.getcwd(), FILES_DIRECTORY, name)
    start = {"type": "http.response.start", "status": 200, "headers": _file_headers(FILES[name])}

    async def copy(_receive: Receive, send: Send) -> None:
        await send(start)
        with open(path, "rb", buffering=0) as file:  # noqa: ASYNC230 (as Starlette without its threads: least work)
            while piece := file.read(PIECE_BYTES):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return copy


class Collections:
    """Times every run of the garbage collector."""

    def __init__(self) -> None:
        self._watching = False
        self._began = 0.0
        self._reset()

    def take(self) -> dict[str, float]:
        """Return what has been recorded since the last call, and go on."""
        if not self._watching:
            gc.callbacks.append(self._note)
            self._watching = True
        taken = {"count": self._count, "seconds": self._seconds, "longest": self._longest}
        self._reset()
        return taken

    def _reset(self) -> None:
        self._count = 0
        self._seconds = self._longest = 0.0

    def _note(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        seconds = time.perf_counter() - self._began
        self._count += 1
        self._seconds += seconds
        self._longest = max(self._longest, seconds)


_collections = Collections()


async def collections(_receive: Receive, send: Send) -> None:
    """Answer what the garbage collector did."""
    body = json.dumps(_collections.take()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def not_implemented(_receive: Receive, send: Send) -> None:
    """Answer 501."""
    await send({"type": "http.response.start", "status": 501, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def not_found(_receive: Receive, send: Send) -> None:
    """Answer 404."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def websocket_echo(receive: Receive, send: Send) -> None:
    """Send every message back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


_members: set[Send] = set()


async def websocket_fan(receive: Receive, send: Send) -> None:
    """Send every text to all members."""
    await receive()
    await send({"type": "websocket.accept"})
    _members.add(send)
    try:
        # The client has the handshake before this coroutine runs again: this tells it that it is a member.
        await send({"type": "websocket.send", "text": JOINED})
        while (message := await receive())["type"] == "websocket.receive":
            for member in tuple(_members):
                await member({"type": "websocket.send", "text": message["text"]})
    finally:
        _members.discard(send)


async def websocket_refuse(receive: Receive, send: Send) -> None:
    """Answer 403."""
    await receive()
    await send({"type": "websocket.close"})


_HANDLERS: dict[str, Handler] = {
    "/": hello,
    "/echo": echo,
    "/stream": stream,
    "/fresh": fresh,
    "/upload": upload,
    "/gc": collections,
}
_HANDLERS |= dict.fromkeys(PAGES, hello)
_HANDLERS |= {f"/copy/{name}": copier(name) for name in FILES}
_PATHS = {f"/file/{name}": path_sender(name) for name in FILES}
_WEBSOCKETS: dict[str, Handler] = {"/echo": websocket_echo, "/fan": websocket_fan}


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Serve one ASGI connection.

    Raises:
        NotImplementedError: For scopes other than ``http``, ``websocket`` and ``lifespan``.
    """
    if scope["type"] == "http":
        path = scope["path"]
        if path in _PATHS:
            known = "http.response.pathsend" in (scope.get("extensions") or ())
            await (_PATHS[path] if known else not_implemented)(receive, send)
            return
        await _HANDLERS.get(path, not_found)(receive, send)
    elif scope["type"] == "websocket":
        await _WEBSOCKETS.get(scope["path"], websocket_refuse)(receive, send)
    elif scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    else:
        raise NotImplementedError(scope["type"])

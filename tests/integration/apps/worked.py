"""What the tests of workers serve: who answers, and every way not to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any

if "FAIL_IMPORT" in os.environ or Path("fail-import").exists():
    raise ImportError("on purpose")
if "HELPER" in os.environ:
    os.system("sleep 20 &")
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
if Path("stuck-import").exists():
    time.sleep(600)
if "CLOSE_ALL" in os.environ:
    os.closerange(3, 1000)

GREETING = Path("greeting").read_text() if Path("greeting").exists() else ""
hoard: list[bytes] = []


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await (ponder if scope["path"] == "/slow" else talk)(receive, send)
    else:
        await WAYS.get(scope["path"], who)(scope, receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    if "FAIL_STARTUP" in os.environ:
        await send({"type": "lifespan.startup.failed", "message": "on purpose"})
        return
    print(f"startup {os.getpid()}", file=sys.stderr, flush=True)
    await send({"type": "lifespan.startup.complete"})
    if Path("crash-for-good").exists():
        Path("fail-import").touch()
        asyncio.get_running_loop().call_later(0.3, os._exit, 7)
    await receive()
    print(f"shutdown {os.getpid()}", file=sys.stderr, flush=True)
    if "STUCK_SHUTDOWN" in os.environ:
        await asyncio.Event().wait()
    await send({"type": "lifespan.shutdown.complete"})


# Say who it is, then everything back, and at the end how much that was.
async def talk(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(os.getpid())})
    heard = 0
    while (message := await receive())["type"] == "websocket.receive":
        heard += 1
        await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            await send({"type": "websocket.send", "text": message["text"]})
    if message.get("code") == 1012:
        with open(f"heard-{os.getpid()}", "a") as file:
            file.write(f"{heard}\n")


# Take one message after the other, and long for each; then write down what it was.
async def ponder(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    heard = []
    while (message := await receive())["type"] == "websocket.receive":
        heard.append(message["text"])
        await asyncio.sleep(0.01)
    with open(f"pondered-{os.getpid()}", "a") as file:
        file.write(f"{message['code']} {' '.join(heard)}\n")


async def answer(send: Any, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def who(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, wait for a moment, and say who answers."""
    while (await receive()).get("more_body"):
        pass
    if scope["query_string"]:
        await asyncio.sleep(float(scope["query_string"]))
    await answer(send, f"{os.getpid()}{GREETING}")


async def identity(scope: Any, receive: Any, send: Any) -> None:
    mask = os.umask(0o22)
    os.umask(mask)
    await answer(send, f"{os.getuid()} {os.getgid()} {os.getgroups()} {mask:o} {os.environ.get('HOME')}")


async def block(scope: Any, receive: Any, send: Any) -> None:
    """Block the loop."""
    time.sleep(float(scope["query_string"] or 600))
    await answer(send, "blocked")


async def thread(scope: Any, receive: Any, send: Any) -> None:
    """A sync view that does not end."""
    await asyncio.to_thread(stuck_view)


def stuck_view() -> None:
    time.sleep(600)


async def swallow(scope: Any, receive: Any, send: Any) -> None:
    """Ignore cancellation."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


async def listen(scope: Any, receive: Any, send: Any) -> None:
    """Wait for the client in a task, as frameworks do."""
    await receive()
    await asyncio.create_task(receive())


async def events(scope: Any, receive: Any, send: Any) -> None:
    """Server-sent events without an end."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    while True:
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await asyncio.sleep(0.05)


async def flood(scope: Any, receive: Any, send: Any) -> None:
    """More than a client reads that does not read."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1000):
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})


async def hang_generator(scope: Any, receive: Any, send: Any) -> None:
    """Leave a generator that does not end."""

    async def generate() -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(600)

    generator = generate()
    await anext(generator)
    hoard.append(generator)  # type: ignore[arg-type]
    await answer(send, "left")


async def grow(scope: Any, receive: Any, send: Any) -> None:
    hoard.append(b"x" * 30_000_000)
    await answer(send, str(os.getpid()))


async def fork(scope: Any, receive: Any, send: Any) -> None:
    """Leave a process that lives longer than the server."""
    child = os.fork()
    if child == 0:
        time.sleep(20)
        os._exit(0)
    await answer(send, str(child))


async def die(scope: Any, receive: Any, send: Any) -> None:
    os._exit(9)


WAYS = {
    "/identity": identity,
    "/block": block,
    "/thread": thread,
    "/swallow": swallow,
    "/listen": listen,
    "/events": events,
    "/flood": flood,
    "/generator": hang_generator,
    "/grow": grow,
    "/die": die,
    "/fork": fork,
}

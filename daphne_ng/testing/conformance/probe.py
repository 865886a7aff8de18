"""The application that runs in the server under test: it does what a script says, and notes what happens to it.

It needs the standard library alone, because the server's environment need not have this package: the suite copies the
file into a directory of its own and puts that on the server's path.

Scripts and notes are files in the directory that the environment variable `DIRECTORY` names, because what the
application saw has to arrive even when the connection under test is broken. A request finds its script by the name in
its path (`NAME`). Both are JSON, one note on a line, with the types that JSON has not (`dump`); `plain` says what the
values of notes look like.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

DIRECTORY = "ASGI_CONFORMANCE_DIRECTORY"
NAME = re.compile(r"probe[0-9a-f]{12}")
LONG_BYTES = 512
STEP_SECONDS = 20.0  # no step waits for longer, so that a server can always end

_counter = 0

# What the lifespan does when no script says otherwise.
_LIFESPAN: list[Any] = [
    ("state_set", "shared", ["startup"]),
    ("receive",),
    ("send", {"type": "lifespan.startup.complete"}),
    ("forever", "lifespan.shutdown"),
    ("send", {"type": "lifespan.shutdown.complete"}),
]


def dump(value: Any) -> str:
    """Return plain values as one line of JSON. Bytes, tuples and dicts are objects with one key that says which."""
    return json.dumps(_tagged(value))


def load(text: str) -> Any:
    """Return what `dump` was given."""
    return _untagged(json.loads(text))


def _tagged(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, tuple):
        return {"tuple": [_tagged(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
    if isinstance(value, list):
        return [_tagged(item) for item in value]
    return value


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "bytes":
        return content.encode("latin-1")
    items = _untagged(content)
    return tuple(items) if kind == "tuple" else dict(items)


def plain(value: Any) -> Any:
    """Return a value as `dump` takes it, with each type kept: what is none becomes ``("not plain", type, repr)``.

    Any mapping becomes a dict. A member of an enumeration of integers is taken for its value. Long bytes and
    texts become ``("long", type, length, SHA-256)``.
    """
    kind = type(value)
    if isinstance(value, int) and kind is not bool:
        kind, value = int, int(value)
    if kind in (bytes, str) and len(value) > LONG_BYTES:
        content = value if kind is bytes else value.encode("utf-8", "surrogatepass")
        return ("long", kind.__name__, len(value), hashlib.sha256(content).hexdigest())
    if value is None or kind in (bytes, str, bool, int) or (kind is float and math.isfinite(value)):
        return value
    if kind is list:
        return [plain(item) for item in value]
    if kind is tuple:
        return tuple(plain(item) for item in value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items() if isinstance(key, (str, bytes, int))}
    try:
        return ("not plain", kind.__name__, [plain(item) for item in value])
    except TypeError:
        return ("not plain", kind.__name__, repr(value)[:200])


class Play:
    """One call of the application: its steps, and its notes.

    Args:
        name: Names the files of the script and of the notes.
        scope: ASGI's.
        receive: ASGI's.
        send: ASGI's.
    """

    def __init__(self, name: str, scope: Any, receive: Any, send: Any) -> None:
        self._path = os.path.join(os.environ[DIRECTORY], name)
        self._scope = scope
        self._receive = receive
        self._send = send
        self._tasks: list[asyncio.Task[None]] = []

    def note(self, kind: str, **facts: Any) -> None:
        """Write one line, at once."""
        line = dump({"kind": kind, "at": time.monotonic(), **facts}) + "\n"
        with open(self._path + ".notes", "ab", buffering=0) as file:
            file.write(line.encode("ascii"))

    async def run(self, default: list[Any]) -> None:
        """Take every step of the script; the application ends as the last one says."""
        self.note(
            "scope",
            scope=plain(self._scope),
            is_dict=isinstance(self._scope, dict),
            dicts=[key for key, value in self._scope.items() if isinstance(value, dict)],
            loop=id(asyncio.get_running_loop()),
            thread=threading.get_ident(),
            pid=os.getpid(),
        )
        try:
            await self.steps(self.script(default))
        except BaseException as error:
            self.note("end", raised=_names(error))
            raise
        else:
            self.note("end", raised=None)
        finally:
            for task in self._tasks:
                task.cancel()

    def script(self, default: list[Any]) -> list[Any]:
        """Return the steps that the script has, or the default."""
        try:
            with open(self._path + ".script", encoding="utf-8") as file:
                steps: list[Any] = load(file.read())
        except FileNotFoundError:
            return default
        return steps

    async def steps(self, steps: list[Any]) -> None:
        """Take some steps, one after another."""
        for name, *arguments in steps:
            await getattr(self, f"do_{name}")(*arguments)

    async def do_receive(self, seconds: float = STEP_SECONDS) -> Any:
        """Receive one message; cancel it if none comes in time."""
        try:
            message = await asyncio.wait_for(self._receive(), seconds)
        except asyncio.TimeoutError:  # noqa: UP041 (two classes in Python 3.10, where a server may still run)
            self.note("nothing", seconds=seconds)
            return None
        except Exception as error:
            self.note("receive raised", names=_names(error), text=str(error)[:200])
            return None
        self.note("received", message=plain(message), is_dict=isinstance(message, dict))
        return message

    async def do_until(self, kind: str, seconds: float = STEP_SECONDS) -> None:
        """Receive until a message of this type comes."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            message = await self.do_receive(left)
            if message is None or message["type"] == kind:
                return

    async def do_forever(self, kind: str) -> None:
        """Receive until a message of this type comes, however long that takes."""
        while True:
            message = await self._receive()
            self.note("received", message=plain(message), is_dict=isinstance(message, dict))
            if message["type"] == kind:
                return

    async def do_body(self, seconds: float = STEP_SECONDS) -> None:
        """Receive the body of the request, and note its size and digest."""
        digest, length, parts = hashlib.sha256(), 0, 0
        last: Any = None
        end = time.monotonic() + seconds
        more = True
        while more:
            last = await asyncio.wait_for(self._receive(), max(end - time.monotonic(), 0.001))
            content = last.get("body", b"")
            digest.update(content)
            length += len(content)
            parts += 1
            more = last.get("more_body", False)
        self.note("body", length=length, digest=digest.hexdigest(), parts=parts, last=plain(last))

    async def do_poll(self) -> bool:
        """Receive and cancel at once, as Starlette's ``request.is_disconnected()`` does."""
        task = asyncio.ensure_future(self._receive())
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
        try:
            message = await task
        except asyncio.CancelledError:
            message = None
        except Exception as error:
            self.note("receive raised", names=_names(error), text=str(error)[:200])
            return False
        self.note("polled", message=plain(message))
        return bool(message and message["type"].endswith(".disconnect"))

    async def do_poll_until(self, seconds: float) -> None:
        """Poll until the client is said to have left."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not await self.do_poll():  # noqa: ASYNC110 (it is what is tested)
            await asyncio.sleep(0.02)

    async def do_send(self, message: Any) -> bool:
        """Send one message and note what came of it."""
        try:
            await self._send(message)
        except Exception as error:
            self.note("send raised", type=message.get("type"), names=_names(error), text=str(error)[:200])
            return False
        self.note("sent", type=message.get("type"))
        return True

    async def do_send_bare(self, message: Any) -> None:
        """Send one message; what `send` raises ends the application."""
        await self._send(message)
        self.note("sent", type=message.get("type"))

    async def do_send_through(self, message: Any, seconds: float) -> None:
        """Send one message again and again; what `send` raises ends the application."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                await self._send(message)
            except Exception as error:
                self.note("send raised", type=message.get("type"), names=_names(error), text=str(error)[:200])
                raise
            await asyncio.sleep(0.02)

    async def do_send_until_error(self, message: Any, seconds: float) -> None:
        """Send one message again and again, until `send` raises."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and await self.do_send(message):  # noqa: ASYNC110 (the same)
            await asyncio.sleep(0.02)

    async def do_flood(self, kind: str, size: int, count: int) -> None:
        """Send as much as the server takes, each part with its number in front."""
        for number in range(count):
            part = number.to_bytes(4, "big") + bytes(size - 4)
            key = {"body": part, "more_body": True} if kind.startswith("http") else {"bytes": part}
            if not await self.do_send({"type": kind, **key}):
                return

    async def do_zerocopy(self, path: str, message: dict[str, Any]) -> None:
        """Send a file that is open, and note whether it still is afterwards."""
        with open(path, "rb") as file:  # noqa: ASYNC230 (a small file)
            await self.do_send({"type": "http.response.zerocopysend", "file": file, **message})
            try:
                os.fstat(file.fileno())
            except (OSError, ValueError):
                self.note("file closed")

    async def do_wait(self, event: str, seconds: float = STEP_SECONDS) -> None:
        """Wait until the client's side says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._was_told(event):  # noqa: ASYNC110 (another process says so)
            await asyncio.sleep(0.005)
        self.note("waited", event=event)

    def _was_told(self, event: str) -> bool:
        return os.path.exists(f"{self._path}.{event}")

    async def do_sleep(self, seconds: float) -> None:
        """Do nothing for a while."""
        await asyncio.sleep(seconds)

    async def do_note(self, text: str) -> None:
        """Write a line."""
        self.note(text)

    async def do_listen(self) -> None:
        """Receive in a task of its own until the client has left."""
        self._tasks.append(asyncio.ensure_future(self._listen()))

    async def _listen(self) -> None:
        while True:
            message = await self._receive()
            self.note("heard", message=plain(message))
            if message["type"].endswith(".disconnect"):
                return

    async def do_together(self, *scripts: list[Any]) -> None:
        """Take several lists of steps at once, each in a task of its own."""
        await asyncio.gather(*(asyncio.ensure_future(self.steps(script)) for script in scripts))

    async def do_raise(self, text: str) -> None:
        """End the application by an exception."""
        raise RuntimeError(text)

    async def do_state_set(self, key: str, value: Any) -> None:
        """Put something into the state, if there is one."""
        if "state" in self._scope:
            self._scope["state"][key] = value

    async def do_state_append(self, key: str, value: Any) -> None:
        """Change an object that the state has."""
        self._scope["state"][key].append(value)

    async def do_state_note(self) -> None:
        """Note what the state has."""
        self.note("state", state=plain(self._scope.get("state")))


def _names(error: BaseException) -> list[str]:
    return [f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__]


def _name_in(scope: Any) -> str | None:
    found = NAME.search(scope.get("path") or "")
    return found[0] if found else None


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer requests without a name by 200; play the script of those with one."""
    global _counter
    if scope["type"] == "lifespan":
        _counter += 1
        play = Play(f"lifespan{os.getpid()}n{_counter}", scope, receive, send)
        shared = Play("lifespan", scope, receive, send)
        await play.run(shared.script(_LIFESPAN))
        return
    if scope["type"] not in ("http", "websocket"):
        raise NotImplementedError(scope["type"])
    name = _name_in(scope)
    if name is not None:
        await Play(name, scope, receive, send).run([])
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"probe"})


def legacy(scope: Any) -> Any:
    """The same in two steps, as ASGI 2 had it."""

    async def instance(receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return instance

"""The ASGI application that answers for files, in front of the application that answers for everything else.

Who answers a request is decided in this order, on the path as decoded once, normalised, and without the root path:

1. Proofs of automatic certificates, on the port of their own that they have; no prefix may be theirs.
2. The directory with the longest prefix of the path, if there is such a file in it.
3. The application, which sees the path as it was sent; or 404, as the settings have it.

A WebSocket is the application's in any case.

Files are looked up in threads, so that nothing on the event loop waits for a disk. Small ones stay in memory for as
long as the settings say, and are answered without a thread and without a look at the disk. Large ones are sent from
their descriptors, with the server's own ``http.response.zerocopysend``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from daphne_ng._types import ASGIApplication, Field, Receive, Scope, Send
from daphne_ng.config import Config
from daphne_ng.config.static import split_mount
from daphne_ng.errors import ConfigurationError, UnexpectedMessage
from daphne_ng.port.answers import error_answer
from daphne_ng.static.codings import acceptable
from daphne_ng.static.conditions import FAILED, NOT_MODIFIED, evaluate, range_applies
from daphne_ng.static.lookup import Mount, Redirect, Representation
from daphne_ng.static.paths import Prefixes, normalised, without_root
from daphne_ng.static.ranges import content_range, part_heads, ranges_of

__all__ = ["StaticFiles", "check_directories"]

logger = logging.getLogger("daphne_ng.static")


# The fields of requests that matter here.
_READ_FIELDS: Final = frozenset(
    (
        b"accept-encoding",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"range",
    )
)
_ALLOW: Final[Field] = (b"allow", b"GET, HEAD")
# What a file in memory takes beside its content.
_ENTRY_BYTES: Final = 2048


def check_directories(config: Config) -> None:
    """See that every directory of ``--static`` is there.

    Raises:
        ConfigurationError: Names one that is not, or that cannot be entered.
    """
    for _ in _mounts(config):
        pass


def _mounts(config: Config) -> Iterator[tuple[str, Mount]]:
    for text in config.static:
        prefix, directory = split_mount(text)
        try:
            yield prefix, Mount(prefix, directory, config)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(f"--static: cannot serve the directory {directory!r}: {reason}") from error


class StaticFiles:
    """Answers for files; see the head of this module.

    Args:
        application: Answers for everything else.
        config: The settings.
        clock: Returns seconds.

    Raises:
        ConfigurationError: See `check_directories`.
    """

    def __init__(self, application: ASGIApplication, config: Config, clock: Callable[[], float]) -> None:
        self._application = application
        self._prefixes = Prefixes(_mounts(config))
        self._not_found = config.static_not_found
        self._ranges_max = config.static_max_ranges
        self._kept = _Memory(config.static_cache_bytes, config.static_cache_seconds, clock)
        self._threads = ThreadPoolExecutor(config.static_threads, "static")

    def close(self) -> None:
        """End the threads, when nothing is served any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve a request: the ASGI application. Not a coroutine, so that the application's is awaited by itself."""
        if scope["type"] == "http":
            path = without_root(normalised(scope["path"]), scope["root_path"])
            found = self._prefixes.find(path)
            if found is not None:
                return self._serve(*found, scope, receive, send)
        return self._application(scope, receive, send)

    async def _serve(self, mount: Mount, rest: str, scope: Scope, receive: Receive, send: Send) -> None:
        fields: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _READ_FIELDS:
                fields[name] = fields[name] + b", " + value if name in fields else value
        codings = acceptable(fields.get(b"accept-encoding"))
        key = (mount, rest, codings)
        found: Representation | Redirect | None = self._kept.get(key)
        if found is None:
            found = await self._look(mount, rest, codings)
            if isinstance(found, Representation) and found.body is not None:
                found.close()
                self._kept.put(key, found)
        try:
            if found is None:
                if self._not_found:
                    await _send_error(send, 404)
                else:
                    await self._application(scope, receive, send)
            elif scope["method"] not in ("GET", "HEAD"):
                await _send_error(send, 405, "There is a file, which can be read alone.", [_ALLOW])
            elif isinstance(found, Redirect):
                query = scope["query_string"]
                await _send_error(send, 301, "", [(b"location", found.location + (query and b"?" + query))])
            else:
                await self._respond(found, fields, scope["method"] == "HEAD", send)
        finally:
            if isinstance(found, Representation):
                found.close()

    async def _respond(
        self,
        found: Representation,
        fields: dict[bytes, bytes],
        head_alone: bool,
        send: Send,
    ) -> None:
        size = found.size
        status = 200
        # A request without conditions has nothing here but Accept-Encoding, if anything.
        if len(fields) > (b"accept-encoding" in fields):
            verdict = evaluate(fields, found.validators)
            if verdict == NOT_MODIFIED:
                await send({"type": "http.response.start", "status": 304, "headers": found.shared_fields})
                await send({"type": "http.response.body"})
                return
            if verdict == FAILED:
                await _send_error(send, 412, "The file is another one.", found.shared_fields)
                return
            wanted = fields.get(b"range")
            # RFC 9110 section 14.2: for GET alone.
            if wanted is not None and not head_alone and range_applies(fields.get(b"if-range"), found.validators):
                ranges = ranges_of(wanted, size, self._ranges_max)
                if ranges is not None:
                    await self._respond_in_parts(found, ranges, send)
                    return
        headers = [(b"content-type", found.media_type), (b"content-length", b"%d" % size), *found.fields]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if found.body is not None or head_alone:
            await send({"type": "http.response.body", "body": found.body or b""})
        else:
            await self._send_part(found, 0, size, send)
            # Short of the Content-Length it ends the connection.
            await send({"type": "http.response.body"})

    async def _respond_in_parts(self, found: Representation, ranges: Sequence[tuple[int, int]], send: Send) -> None:
        size = found.size
        if not ranges:
            unsatisfied = (b"content-range", b"bytes */%d" % size)
            await _send_error(send, 416, "The file is shorter.", [*found.shared_fields, unsatisfied])
            return
        if len(ranges) == 1:
            start, end = ranges[0]
            separators = [b"", b""]
            media_type = found.media_type
            extra = [(b"content-range", content_range(start, end, size))]
        else:
            boundary = os.urandom(12).hex().encode("ascii")
            separators = part_heads(ranges, size, found.media_type, boundary)
            media_type = b"multipart/byteranges; boundary=" + boundary
            extra = []
        length = sum(map(len, separators)) + sum(end - start for start, end in ranges)
        headers = [(b"content-type", media_type), (b"content-length", b"%d" % length), *found.fields, *extra]
        await send({"type": "http.response.start", "status": 206, "headers": headers})
        for separator, (start, end) in zip(separators, ranges, strict=False):
            if separator:
                await send({"type": "http.response.body", "body": separator, "more_body": True})
            if not await self._send_part(found, start, end, send):
                await send({"type": "http.response.body"})
                return
        await send({"type": "http.response.body", "body": separators[-1]})

    # Returns whether the file has all of it. One that becomes shorter later is the server's to tell of.
    async def _send_part(self, found: Representation, start: int, end: int, send: Send) -> bool:
        if found.body is not None:
            await send({"type": "http.response.body", "body": found.body[start:end], "more_body": True})
            return True
        part = {"offset": start, "count": end - start, "more_body": True}
        try:
            await send({"type": "http.response.zerocopysend", "file": _Named(found), **part})
        except UnexpectedMessage:
            logger.error("Cannot send the rest of %s: it has become shorter", os.fsdecode(found.path))
            return False
        return True

    # If the task is cancelled, the call goes on in its thread, and what it finds is closed.
    async def _look(self, mount: Mount, rest: str, codings: Sequence[bytes]) -> Representation | Redirect | None:
        future = asyncio.get_running_loop().run_in_executor(self._threads, mount.look, rest, codings)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_close_found)
            raise


def _close_found(done: asyncio.Future[Representation | Redirect | None]) -> None:
    if not done.cancelled() and done.exception() is None:
        _close(done.result())


class _Named:
    """A file with a name, which the server gives to what it says of it."""

    def __init__(self, found: Representation) -> None:
        self._descriptor = found.file.descriptor
        self.name = os.fsdecode(found.path)

    def fileno(self) -> int:
        return self._descriptor


def _close(found: Representation | Redirect | None) -> None:
    if isinstance(found, Representation):
        found.close()


async def _send_error(send: Send, status: int, detail: str = "", headers: Sequence[Field] = ()) -> None:
    fields, text = error_answer(status, detail, headers)
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": text})


class _Memory:
    """Small files, those asked for last, and for how long each is sent without a look at the disk."""

    def __init__(self, max_bytes: int, seconds: float, clock: Callable[[], float]) -> None:
        self._max_bytes = self._room = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._entries: OrderedDict[Any, tuple[Representation, float]] = OrderedDict()

    def get(self, key: Any) -> Representation | None:
        """Return a file that was looked up lately."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry[1]:
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Any, found: Representation) -> None:
        """Keep a file that was just looked up, at the cost of those that were not asked for."""
        if not self._seconds or found.size + _ENTRY_BYTES > self._max_bytes:
            return
        if key in self._entries:
            self._remove(key)
        self._entries[key] = (found, self._clock() + self._seconds)
        self._room -= found.size + _ENTRY_BYTES
        while self._room < 0:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: Any) -> None:
        self._room += _cost(self._entries.pop(key))


def _cost(entry: tuple[Representation, float]) -> int:
    return entry[0].size + _ENTRY_BYTES

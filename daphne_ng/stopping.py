"""The notice before the end: applications learn that their server is stopping, and end long responses by themselves.

A server that stops waits for the requests that run, which for a stream of events would be for ever. So it gives notice
at the beginning of its shutdown, when it has ceased to accept connections and before it cancels anything. A stream or a
long poll that waits for the notice ends its response, and a download that does not know of it goes on::

    from daphne_ng import stopping

    while not await stopping.wait_stopping(timeout=1.0):
        await send_an_event()

Everything public here is stable. Nothing here imports the server or changes anything: where another server serves, no
notice comes, and `is_supported` says so. The functions work in any task and in any thread. Within a request, its
threads and the lifespan they speak of the server that serves it. Elsewhere they speak of the process, which is stopping
when every server that it has started is.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Generator
from typing import Any, Final, TypeVar

__all__ = [
    "STATE_KEY",
    "StopNotice",
    "is_stopping",
    "is_supported",
    "until_stopping",
    "wait_stopping",
    "wait_stopping_in_thread",
]

T = TypeVar("T")

STATE_KEY: Final = "server_stopping"
"""The key of the lifespan ``state`` under which each request has the `StopNotice` of its server."""


class StopNotice:
    """The notice of one server: given once, and awaited by any number of tasks and threads.

    ``await notice`` returns when it is given. ``is_set`` and ``wait`` are those of an `asyncio.Event`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given = threading.Event()
        self._waiters: set[asyncio.Future[None]] = set()

    def is_set(self) -> bool:
        """Tell whether the server is stopping."""
        return self._given.is_set()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server is stopping.

        Args:
            timeout: Seconds; None for any length.

        Returns:
            Whether it is stopping, which is False only after the timeout.
        """
        if self._given.is_set():
            return True
        waiter = self._add_waiter()
        try:
            async with asyncio.timeout(timeout) as limit:
                await waiter
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._discard_waiter(waiter)
        return self._given.is_set()

    def wait_in_thread(self, timeout: float | None = None) -> bool:
        """Block this thread until the server is stopping.

        Args:
            timeout: Seconds; None for any length.

        Returns:
            Whether it is stopping, which is False only after the timeout.

        Raises:
            RuntimeError: An event loop runs in this thread, and would be blocked.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._given.wait(timeout)
        raise RuntimeError("an event loop runs in this thread, and would be blocked: use `await wait_stopping()`")

    async def until(self, items: AsyncIterable[T]) -> AsyncGenerator[T, None]:
        """Yield what ``items`` yields until the server is stopping.

        Where ``items`` waits then for its next item, it is cancelled there, in the same task. An asynchronous generator
        is closed at the end.
        """
        iterator = aiter(items)
        waiter = self._add_waiter()
        limit: asyncio.Timeout | None = None

        def interrupt(waiter: asyncio.Future[None]) -> None:
            if limit is not None and not waiter.cancelled():
                limit.reschedule(waiter.get_loop().time())

        waiter.add_done_callback(interrupt)
        try:
            while not self._given.is_set():
                try:
                    async with asyncio.timeout(None) as limit:
                        item = await anext(iterator)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if limit is None or not limit.expired():
                        raise
                    return
                finally:
                    limit = None
                yield item
        finally:
            self._discard_waiter(waiter)
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()

    def __await__(self) -> Generator[Any, None, bool]:
        """Wait until the server is stopping."""
        return self.wait().__await__()

    def give(self) -> bool:
        """Give the notice, which is for the server to do. Again it does nothing.

        Returns:
            Whether a task waited for it.
        """
        with self._lock:
            self._given.set()
            waiters, self._waiters = self._waiters, set()
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for waiter in waiters:
            by_loop.setdefault(waiter.get_loop(), []).append(waiter)
        for loop, its_waiters in by_loop.items():
            with contextlib.suppress(RuntimeError):  # closed: nobody waits there any more
                loop.call_soon_threadsafe(_wake, its_waiters)
        return bool(waiters)

    # A future of the running loop that the notice completes, or has completed.
    def _add_waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._given.is_set():
                waiter.set_result(None)
            else:
                self._waiters.add(waiter)
        return waiter

    def _discard_waiter(self, waiter: asyncio.Future[None]) -> None:
        waiter.cancel()
        with self._lock:
            self._waiters.discard(waiter)


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


# -- which server ------------------------------------------------------------------------------------------------


class _Process:
    """The servers of this process, for tasks and threads that belong to none of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving: set[StopNotice] = set()
        self.has_served = False
        self.notice = StopNotice()
        """Given when no server is left that is not stopping. A server that starts afterwards brings another one."""

    def enter(self, notice: StopNotice) -> None:
        with self._lock:
            self.has_served = True
            self._serving.add(notice)
            if self.notice.is_set():
                self.notice = StopNotice()

    def leave(self, notice: StopNotice) -> bool:
        with self._lock:
            if notice not in self._serving:
                return False
            self._serving.discard(notice)
            last = None if self._serving else self.notice
        return last is not None and last.give()


_process = _Process()
_of_server: contextvars.ContextVar[StopNotice] = contextvars.ContextVar("daphne_ng.stopping")


def _notice() -> StopNotice:
    return _of_server.get(None) or _process.notice


def is_supported() -> bool:
    """Tell whether a server has started in this process that gives notice. With another server it is False for ever."""
    return _of_server.get(None) is not None or _process.has_served


def is_stopping() -> bool:
    """Tell whether the server is stopping. At once, and in any thread."""
    return _notice().is_set()


async def wait_stopping(timeout: float | None = None) -> bool:
    """Wait until the server is stopping. Any number of tasks may; on an asyncio event loop of any thread.

    Args:
        timeout: Seconds; None for any length. A loop has it in place of `asyncio.sleep`.

    Returns:
        Whether it is stopping, which is False only after the timeout.
    """
    return await _notice().wait(timeout)


def wait_stopping_in_thread(timeout: float | None = None) -> bool:
    """Block this thread until the server is stopping: for views that are no coroutines, and threads of one's own.

    Args:
        timeout: Seconds; None for any length, which under another server is for ever.

    Returns:
        Whether it is stopping, which is False only after the timeout.

    Raises:
        RuntimeError: An event loop runs in this thread, and would be blocked.
    """
    return _notice().wait_in_thread(timeout)


def until_stopping(items: AsyncIterable[T]) -> AsyncGenerator[T, None]:
    """Yield what ``items`` yields until the server is stopping: for a stream that others make.

    Where ``items`` waits then for its next item, it is cancelled there, in the same task. An asynchronous generator is
    closed at the end.
    """
    return _notice().until(items)


# -- for the server ----------------------------------------------------------------------------------------------


def context_of_server(notice: StopNotice) -> contextvars.Context:
    """Return a copy of the current context in which the functions of this module speak of one server."""
    context = contextvars.copy_context()
    context.run(_of_server.set, notice)
    return context


def server_starts(notice: StopNotice) -> None:
    """Count a server among those of the process, until `server_stops`."""
    _process.enter(notice)


def server_stops(notice: StopNotice) -> bool:
    """Give the notice of a server, and that of the process if no other server goes on.

    Returns:
        Whether a task waited for one of them.
    """
    awaited = notice.give()
    return _process.leave(notice) or awaited

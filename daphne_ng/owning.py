"""What a server does to a process or an event loop of its own: threads, garbage, signals, and what is left over."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from daphne_ng.errors import ConfigurationError

__all__ = [
    "HANG_UP",
    "Sweeper",
    "end_tasks",
    "handlers_of_signals",
    "relax_collector",
    "size_executor",
    "threads_asked_for",
]

HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""None on Windows."""

_COLLECT_AFTER = 20_000
_SWEEP_SECONDS = 1.0


def threads_asked_for(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the number in ``ASGI_THREADS``; None without one.

    Raises:
        ConfigurationError: It is no number of threads.
    """
    text = environment.get("ASGI_THREADS")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ConfigurationError(f"ASGI_THREADS must be a number of threads, not {text!r}")
    return int(text)


def size_executor(loop: asyncio.AbstractEventLoop, threads: int | None) -> None:
    """Give a loop a default executor of this many threads; None leaves asyncio's, ``min(32, processors + 4)``.

    What runs in the executor before is finished there.
    """
    if threads is not None:
        loop.set_default_executor(ThreadPoolExecutor(max_workers=threads, thread_name_prefix="asgi"))


def relax_collector() -> None:
    """Let the garbage collector run less often, unless the interpreter's own setting has been changed.

    64 requests that arrive in one turn of the loop make more than the default's 700 objects before the first of them is
    answered, so that the collector would run in every turn, and find nothing: exchanges leave no cycles.
    """
    young, middle, old = gc.get_threshold()
    if young in (700, 2000):
        gc.set_threshold(_COLLECT_AFTER, middle, old)
    gc.collect()
    gc.freeze()


class Sweeper:
    """Collects garbage that should not wait for the relaxed collector, at most once in a second.

    Args:
        loop: Where it runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = False

    def ask(self) -> None:
        """Collect soon."""
        if not self._due:
            self._due = True
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    # The youngest two generations: a full collection may take a second where there are many connections.
    def _sweep(self) -> None:
        self._due = False
        gc.collect(1)


def end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what applications left running, as `asyncio.run` does: it would be destroyed while pending."""
    if loop.is_closed() or loop.is_running():
        return
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    loop.run_until_complete(loop.shutdown_asyncgens())


def handlers_of_signals() -> dict[int, Any]:
    """Return the handlers of the signals that `Server.run` handles; none of them outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = (signal.SIGINT, signal.SIGTERM, HANG_UP)
    found = {number: signal.getsignal(number) for number in numbers if number is not None}
    return {number: handler for number, handler in found.items() if handler is not None}

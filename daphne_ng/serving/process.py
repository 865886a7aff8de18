"""The process and the event loop that a server has to itself: threads, garbage, signals, forks, and the end.

`ForkGuard` and `ExitWatchdog` are for the command line alone, which owns its process; the rest is done for every call
of `daphne_ng.server.Server.run`.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError
from daphne_ng.serving.logconfig import log_end

__all__ = [
    "HANG_UP",
    "ExitWatchdog",
    "ForkGuard",
    "GarbageSweep",
    "end_tasks",
    "handlers_of_signals",
    "max_shutdown_seconds",
    "relax_collector",
    "shutdown_limits",
    "size_executor",
    "take_interrupt",
    "threads_of_environment",
]

logger = logging.getLogger("daphne_ng.owning")

HANG_UP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""None on Windows."""

_COLLECT_AFTER = 20_000
# A collection that frees less than one in so many objects was not worth its time.
_GARBAGE_RATIO = 20
# Django's connections to a database are in cycles, which a collector that runs late would leave open by the hundred.
_KEEPS_CONNECTIONS = "django.db"
_SWEEP_SECONDS = 1.0


class ForkGuard:
    """Takes the server's sockets and signal handlers away from processes that the application forks.

    A process that holds a listening socket keeps the port in use after the server's end, and a process that has the
    server's handlers does not end when `multiprocessing` terminates it.

    Args:
        ports: Returns the listening ports.
    """

    def __init__(self, ports: Callable[[], Iterable[Any]]) -> None:
        self._ports = ports
        self._mask = threading.local()

    def install(self) -> None:
        """Clean every child that is forked from now on. Cannot be taken back."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._block_signals, after_in_parent=self._unblock_signals, after_in_child=self.clean_child
            )

    # A signal to a child that still has the server's handlers would be lost.
    def _block_signals(self) -> None:
        self._mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))

    def _unblock_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask.before)

    def clean_child(self) -> None:
        """Close the sockets and take the handlers back, in a child."""
        for port in self._ports():
            # The socket object closes it: otherwise its finalizer would close that number again, then another file's.
            sock = getattr(port, "socket", None)
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.close()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        if callable(signal.getsignal(signal.SIGINT)):
            # An exception in here would be swallowed by the interpreter, KeyboardInterrupt too.
            waits = signal.SIGINT in signal.sigpending()
            signal.signal(signal.SIGINT, signal.SIG_DFL if waits else signal.default_int_handler)
        self._unblock_signals()


def threads_of_environment(environment: Mapping[str, str]) -> int | None:
    """Return the number of threads that ``ASGI_THREADS`` asks for; None if it is not set.

    Raises:
        ConfigurationError: Its value is no number of threads.
    """
    text = environment.get("ASGI_THREADS")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ConfigurationError(f"ASGI_THREADS must be a number of threads, not {text!r}")
    return int(text)


def size_executor(loop: asyncio.AbstractEventLoop, threads: int | None) -> None:
    """Give a loop a default executor of this many threads; None leaves asyncio's, ``min(32, processors + 4)``.

    Functions that run in the executor before are finished there.
    """
    if threads is not None:
        loop.set_default_executor(ThreadPoolExecutor(max_workers=threads, thread_name_prefix="asgi"))


def relax_collector() -> None:
    """Let the garbage collector run less often, unless the interpreter's own setting has been changed.

    64 requests that arrive in one turn of the loop make more than the default's 700 objects before the first of them is
    answered, so that the collector would run in every turn, and find nothing: exchanges leave no cycles.
    """
    young = gc.get_threshold()[0]
    if young in (700, 2000) and not any(isinstance(callback, RelaxedThreshold) for callback in gc.callbacks):
        gc.callbacks.append(RelaxedThreshold(young))
    gc.collect()
    gc.freeze()


class RelaxedThreshold:
    """A callback of the collector that doubles its threshold after each run that found next to nothing.

    An application that leaves cycles gets the interpreter's own setting back at once. Django does: in them are the
    connections to the database that ``CONN_MAX_AGE`` keeps, one for each request. With its database layer loaded the
    setting stays, since imports alone find nothing, and would double it before the first request.

    Args:
        least: The interpreter's own threshold of the youngest generation, in objects.
    """

    def __init__(self, least: int) -> None:
        self._least = least

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """See `gc.callbacks`."""
        if phase == "stop" and info["generation"] == 0:
            young, middle, old = gc.get_threshold()
            if info["collected"] * _GARBAGE_RATIO > young:
                gc.set_threshold(self._least, middle, old)
            elif young < _COLLECT_AFTER and _KEEPS_CONNECTIONS not in sys.modules:
                gc.set_threshold(min(2 * young, _COLLECT_AFTER), middle, old)


class GarbageSweep:
    """Collects garbage that should not wait for the relaxed collector, at most once in a second.

    Args:
        loop: The event loop that runs the collections.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._scheduled = False

    def schedule(self) -> None:
        """Collect within a second."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    # The youngest two generations: a full collection may take a second where there are many connections.
    def _sweep(self) -> None:
        self._scheduled = False
        gc.collect(1)


def end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that applications left running, as `asyncio.run` does: they would be destroyed while pending."""
    if loop.is_closed() or loop.is_running():
        return
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    # The ``finally`` of a generator may wait for ever.
    closing = loop.create_task(loop.shutdown_asyncgens())
    loop.run_until_complete(asyncio.wait({closing}, timeout=1.0))


def handlers_of_signals() -> dict[int, Any]:
    """Return the handlers of the signals that `Server.run` handles; none of them outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = (signal.SIGINT, signal.SIGTERM, HANG_UP)
    # A handler that was not installed from Python is None, and cannot be put back.
    return {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers if number is not None}


def take_interrupt(*, from_program: bool) -> None:
    """Put Python's own handler of SIGINT in place, where alone Twisted handles that signal.

    SIGINT is ignored in a process that a script has started with ``&``, and an application may have left it to the
    kernel, which would end the process without a drain. A debugger keeps its own handler.

    Args:
        from_program: Whether a handler that the program has set, a function of Python's, gives way too.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGINT)
    debugger = getattr(sys.modules.get("bdb"), "Bdb", ())
    if callable(handler) and (not from_program or isinstance(getattr(handler, "__self__", None), debugger)):
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)


def shutdown_limits(config: Config) -> tuple[float, float]:
    """Return the seconds that applications have to end when the server stops, and those that connections have."""
    application, close = config.shutdown_application_timeout, config.shutdown_close_timeout
    return (
        config.application_close_timeout if application is None else application,
        config.close_timeout if close is None else close,
    )


# A moment for connections that were aborted; the lifespan's task gets two seconds at its end, and tasks and generators
# that are left over get one each.
_LAST_STEPS_SECONDS = 6.0


def max_shutdown_seconds(config: Config) -> float:
    """Return the seconds that a graceful end takes at most: all its limits together; infinity if one is missing."""
    if not config.lifespan_shutdown_timeout:
        return math.inf
    application, close = shutdown_limits(config)
    return config.graceful_timeout + application + 2 * close + config.lifespan_shutdown_timeout + _LAST_STEPS_SECONDS


class ExitWatchdog:
    """Ends a process that does not end by itself: its loop is blocked, or the interpreter waits for a stuck thread.

    The command line alone has one. A program that runs a `Server` may have other things to do.
    """

    def __init__(self) -> None:
        self._ends_at = math.inf
        self.exit_code = 1
        """The exit code of a process that the watchdog ends."""

    def arm(self, seconds: float) -> None:
        """End the process in so many seconds; an earlier end stays. May be called by a signal handler."""
        ends_at = time.monotonic() + seconds
        if ends_at < self._ends_at:
            self._ends_at = ends_at
            # Not of `threading`, whose locks the code under the signal handler may hold.
            _thread.start_new_thread(self._wait, (ends_at, seconds))

    def disarm(self) -> None:
        """Let the process live."""
        self._ends_at = math.inf

    def arm_at_exit(self, seconds: float) -> None:
        """Have the interpreter end within so many seconds once it has begun to, whatever threads there are."""
        self.disarm()
        # Functions registered here run before that of concurrent.futures, which waits for the threads of every
        # executor; functions of atexit run after it. The name is private, and the standard library's use of it as old
        # as Python 3.9.
        register: Any = getattr(threading, "_register_atexit", None)
        if register is not None:
            # A thread waits for the exit from now on: Python 3.12 and later start none at the exit itself.
            ending = _thread.allocate_lock()
            ending.acquire()
            _thread.start_new_thread(self._wait_at_exit, (ending, seconds))
            register(ending.release)

    def _wait_at_exit(self, ending: Any, seconds: float) -> None:
        ending.acquire()
        self._ends_at = time.monotonic() + seconds
        self._wait(self._ends_at, seconds)

    def _wait(self, ends_at: float, seconds: float) -> None:
        time.sleep(seconds)
        if self._ends_at != ends_at:
            return
        # The stuck thread may hold the lock of a log's handler. Where no thread can be started, that has to be risked.
        with contextlib.suppress(RuntimeError):
            _thread.start_new_thread(self._exit_unlogged, ())
        log_end(
            logger,
            logging.CRITICAL,
            f"The process does not end by itself within {seconds:g} s, and is ended. These threads run:",
        )
        frames = sys._current_frames()
        for thread in threading.enumerate():
            if not thread.daemon and thread.ident in frames:
                stack = "".join(traceback.format_stack(frames[thread.ident], limit=12))
                logger.critical("%s:\n%s", thread.name, stack.rstrip())
        os._exit(self.exit_code)

    def _exit_unlogged(self) -> None:
        time.sleep(1.0)
        os._exit(self.exit_code)

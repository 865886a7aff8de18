"""The reactor that `daphne_ng.server.Server.run` runs on, and its handlers of signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import ReactorError
from daphne_ng.net import reactor as reactors
from daphne_ng.serving.process import HANG_UP, handlers_of_signals, max_shutdown_seconds, take_interrupt

__all__ = ["ReactorOfRun", "RunSignals", "await_end", "hand_on", "install_reactor"]

# The reactors that a call of `Server.run` runs, and will stop.
_run: weakref.WeakSet[Any] = weakref.WeakSet()
_choosing = threading.Lock()

# The time after which a reactor in another thread that has ended is noticed, at most.
_CHECK_SECONDS = 1.0
# The time that a command line lives after a second signal, at most.
_HURRIED_SECONDS = 5.0
_ENDING = (signal.SIGINT, signal.SIGTERM)


def install_reactor(config: Config) -> Any:
    """Install the reactor that a server with these settings runs on, before the application is imported.

    Returns:
        The global reactor.

    Raises:
        ConfigurationError: See `daphne_ng.net.reactor.install`.
    """
    return reactors.install(kind=config.loop, stock=config.stock_reactor)


class ReactorOfRun:
    """The reactor of one call of `Server.run`, as a context manager: the global one, ready to run or running already.

    Where another call has that in another thread, it is one of this call's own, which is closed in the end.

    Args:
        config: Says which loop it is to be on.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    def __enter__(self) -> Any:
        """Return it.

        Raises:
            ReactorError: There is none that could be run, or an event loop runs in this thread.
        """
        with contextlib.suppress(RuntimeError):  # no loop runs
            asyncio.get_running_loop()
            raise ReactorError(
                "an event loop runs here already: use `await server.serve()` or server.start_on(reactor)"
            )
        with _choosing:
            installed = reactors.current()
            self._own = installed is not None and installed in _run
            kind = self._config.loop
            reactor = reactors.DaphneReactor(kind=kind) if self._own else install_reactor(self._config)
            self._reactor = reactor
            if not reactors.is_running(reactor):
                reactors.make_ready(reactor, kind)
                _run.add(reactor)
        return reactor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _run.discard(self._reactor)
        if self._own:
            self._reactor.close()


def hand_on(task: asyncio.Task[None], ended: Future[None]) -> None:
    """Pass a task's end on to a future, which a thread waits for in `await_end`."""

    def tell(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    task.add_done_callback(tell)


def await_end(ended: Future[None], reactor: Any) -> None:
    """Wait until `hand_on` tells, whose task runs on a reactor in another thread.

    Raises:
        ReactorError: That reactor does not run any more, so that nobody will tell.
    """
    while not wait([ended], _CHECK_SECONDS).done:
        if not (reactors.is_running(reactor) or ended.done()):
            raise ReactorError("the reactor ended without its shutdown, and with it the server that ran there")
    ended.result()


class RunSignals:
    """Handles SIGINT, SIGTERM and SIGHUP for one call of `Server.run`, and then gives them back.

    Outside the main thread, where Python lets nobody set a handler, it does nothing.

    Args:
        server: The server that runs.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._before = handlers_of_signals() if server.signal_handlers else {}
        self._came = 0

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._before)

    def take(self) -> None:
        """Make the signals this call's. SIGINT and SIGTERM then want the reactor's handlers, or `stop_server`."""
        if self._before:
            take_interrupt(from_program=False)
        if HANG_UP in self._before:
            signal.signal(HANG_UP, lambda number, frame: self._server.reload_certificates())

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        signal.raise_signal(signal.SIGINT)

    def bound(self, reactor: Any) -> None:
        """Have the reactor's handlers, which ask the loop to stop, end a process whose loop does not hear of it."""
        if self._before and self._server.hooks.exit_watchdog is not None:
            for number in _ENDING:
                handler = signal.getsignal(number)
                # Another handler may end nothing: a debugger's.
                if getattr(handler, "__self__", None) is reactor:
                    signal.signal(number, self._bounded(handler))

    def stop_server(self) -> None:
        """Have SIGINT and SIGTERM stop the server alone, whose reactor is somebody else's."""

        def stop(number: int, frame: Any) -> None:
            self.hurry()
            self._server.stop()

        for number in _ENDING if self._before else ():
            if number == signal.SIGTERM or signal.getsignal(number) is signal.default_int_handler:
                signal.signal(number, self._bounded(stop))

    def hurry(self) -> None:
        """Have the next signal hurry, since the end has begun."""
        for number in _ENDING if self._before else ():
            signal.signal(number, self._hurried)

    def give_back(self) -> None:
        """Let the signals be what they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def bound_end(self, seconds: float) -> None:
        """End the process in so many seconds, if it is the command line's."""
        watchdog = self._server.hooks.exit_watchdog
        if watchdog is not None:
            watchdog.exit_code = self._server.exit_code or 1
            watchdog.arm(seconds)

    def _hurried(self, number: int, frame: Any) -> None:
        self._came += 1
        if self._came == 1 and self._server.hooks.sockets is not None:
            # A worker that its supervisor has told to stop: systemd and a terminal tell every process, and are late.
            return
        self.bound_end(_HURRIED_SECONDS)
        self._server.hurry()

    def _bounded(self, handler: Any) -> Callable[[int, Any], None]:
        def handle(number: int, frame: Any) -> None:
            self._came += 1
            self.bound_end(max_shutdown_seconds(self._server.config) if self._came == 1 else _HURRIED_SECONDS)
            handler(number, frame)

        return handle

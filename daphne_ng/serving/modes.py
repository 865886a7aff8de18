"""The ways to run a server's life: with the whole process, beside a reactor, on asyncio's loop, in a thread.

Each brings a reactor and an event loop to a `daphne_ng.serving.life.ServerLife`, and ends when that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from daphne_ng.errors import LifespanError
from daphne_ng.net import reactor as reactors
from daphne_ng.net.sockets.loops import new_event_loop
from daphne_ng.serving.life import LivingServer, ServerLife
from daphne_ng.serving.logconfig import asyncio_debug, configure_twisted_log, log_end
from daphne_ng.serving.process import (
    GarbageSweep,
    end_tasks,
    max_shutdown_seconds,
    relax_collector,
    size_executor,
    threads_of_environment,
)
from daphne_ng.serving.running import RunSignals, await_end, hand_on

__all__ = ["EXIT_LIFESPAN", "Embedding", "Run", "serving_in_thread"]

logger = logging.getLogger("daphne_ng.server")

EXIT_LIFESPAN = 3
"""Exit code when the application's startup failed."""


class RunnableServer(LivingServer, Protocol):
    """The part of `daphne_ng.server.Server` that a `Run` needs."""

    signal_handlers: bool
    verbosity: int


class Run:
    """One call of `Server.run`: the signals, the garbage and the event loop of the process around a server's life.

    Args:
        server: The server; its `abort_start` and `exit_code` tell how the run went.
        reactor: The reactor to run, or to serve beside if it runs already.
        new_life: Called as ``new_life(reactor, generator_abandoned, interrupted)`` on the loop, returns a new life.
    """

    def __init__(self, server: RunnableServer, reactor: Any, new_life: Callable[..., ServerLife]) -> None:
        self._server = server
        self._reactor = reactor
        self._new_life = new_life
        self._loop: asyncio.AbstractEventLoop = reactors.event_loop_of(reactor)
        self._life: ServerLife | None = None
        self._reactor_stops = False

    def run(self) -> None:
        """Serve until stopped."""
        if reactors.is_running(self._reactor):
            self._run_beside()
        else:
            self._run_whole()

    def _prepare(self) -> RunSignals:
        server, loop = self._server, self._loop
        if asyncio_debug(server.verbosity):
            loop.set_debug(True)
        if server.config.asgi_threads is None:
            size_executor(loop, threads_of_environment(os.environ))
        relax_collector()
        signals = RunSignals(server)
        signals.take()
        return signals

    def _end(self, signals: RunSignals) -> None:
        signals.give_back()
        if self._server.hooks.exit_watchdog is not None:
            self._server.hooks.exit_watchdog.disarm()

    async def _start_or_log(self, signals: RunSignals) -> None:
        server = self._server
        try:
            interrupted = signals.interrupt if signals else None
            self._life = self._new_life(self._reactor, GarbageSweep(self._loop).schedule, interrupted)
            await self._life.start()
        except LifespanError as error:
            log_end(logger, logging.ERROR, str(error))
            server.exit_code = EXIT_LIFESPAN
            server.abort_start = True
        except Exception as error:
            log_end(logger, logging.ERROR, "The server could not start", error)
            server.exit_code = 1
            server.abort_start = True

    async def _serve(self, signals: RunSignals) -> None:
        await self._start_or_log(signals)
        if self._life is not None and not self._server.abort_start:
            await self._life.stop_requested.wait()

    async def _finish(self) -> None:
        if self._life is not None:
            await self._life.finish()

    # -- a reactor that nobody runs yet ------------------------------------------------------------------------

    def _run_whole(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        if self._server.abort_start:
            return
        configure_twisted_log(self._server.verbosity)
        signals = self._prepare()
        main = loop.create_task(self._main_whole(signals), name="server")
        try:
            self._reactor.run(installSignalHandlers=bool(signals))
        finally:
            # Twisted leaves its own handlers in place. A thread of the application's that keeps the process now must
            # give way to the next signal.
            self._end(signals)
        end_tasks(loop)
        if main.done() and not main.cancelled():
            main.result()

    async def _main_whole(self, signals: RunSignals) -> None:
        signals.bound(self._reactor)
        # After the first signal Twisted waits for this trigger; a second signal hurries.
        self._reactor.addSystemEventTrigger("before", "shutdown", self._before_shutdown, signals)
        await self._serve(signals)
        if self._reactor.running and not self._reactor_stops:
            self._reactor_stops = True
            self._reactor.stop()

    def _before_shutdown(self, signals: RunSignals) -> Deferred[None]:
        self._reactor_stops = True
        signals.bound_end(max_shutdown_seconds(self._server.config))
        signals.hurry()
        return Deferred.fromFuture(self._loop.create_task(self._finish()))

    # -- a reactor that runs in another thread, and goes on afterwards ---------------------------------------------

    def _run_beside(self) -> None:
        if self._server.abort_start:
            return
        signals = self._prepare()
        signals.stop_server()
        ended: Future[None] = Future()

        async def main() -> None:
            configure_twisted_log(self._server.verbosity)  # here: the reactor's owner may be about to begin that log
            self._reactor.addSystemEventTrigger("before", "shutdown", self._end_beside, ended)
            await self._serve(signals)
            await self._finish()

        self._reactor.callFromThread(lambda: hand_on(self._loop.create_task(main(), name="server"), ended))
        try:
            await_end(ended, self._reactor)
        finally:
            self._end(signals)

    # The loop stops with the reactor. The thread that waits in `run` must have been told by then.
    def _end_beside(self, ended: Future[None]) -> Deferred[None]:
        async def end() -> None:
            await self._finish()
            await asyncio.wrap_future(ended)

        return Deferred.fromFuture(self._loop.create_task(end()))


class Embedding:
    """The reactor of a server inside an asyncio program. Made on the running loop; `leave` when the server has ended.

    The installed reactor serves if it is on this loop, and one of the server's own otherwise.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        installed = reactors.current()
        self._own = installed is None or getattr(installed, "_asyncioEventloop", None) is not loop
        self.reactor: Any = reactors.DaphneReactor(loop) if self._own else installed
        self._attached = not self.reactor.running
        if self._attached:
            self.reactor.attach()

    async def leave(self) -> None:
        """Take the reactor off the loop, if this object has put it there."""
        if self._attached:
            await self.reactor.detach()
            if self._own:
                self.reactor.close()


@contextlib.contextmanager
def serving_in_thread(
    serve: Callable[[Callable[[], object]], Coroutine[Any, Any, None]],
    stop: Callable[[], None],
    loop_kind: str,
    timeout: float,
) -> Iterator[None]:
    """Serve in a thread with a loop of its own while the ``with`` block runs.

    Args:
        serve: Serves until stopped, and calls its argument once it does serve.
        stop: Stops the server; called from another thread.
        loop_kind: See `daphne_ng.config.Config.loop`.
        timeout: Seconds for the start and for the end.

    Raises:
        TimeoutError: The server did not start or end in time.
        Exception: Whatever `serve` raises.
    """
    ready = threading.Event()
    errors: list[BaseException] = []

    def target() -> None:
        loop = new_event_loop(loop_kind)
        try:
            loop.run_until_complete(serve(ready.set))
        except BaseException as error:
            errors.append(error)
        finally:
            end_tasks(loop)
            loop.close()
            ready.set()

    thread = threading.Thread(target=target, name="daphne-ng", daemon=True)
    thread.start()
    if not ready.wait(timeout):
        stop()
        raise TimeoutError("the server did not start in time")
    if errors:
        raise errors[0]
    try:
        yield
    finally:
        stop()
        thread.join(timeout)
    if thread.is_alive():
        raise TimeoutError("the server did not end in time")
    if errors:
        raise errors[0]

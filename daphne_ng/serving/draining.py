"""The end of a server, step by step: one place for all protocols.

Every step has its limit, and a second signal cuts all of them short. Once a second a line in the log says what is
waited for. `daphne_ng.serving.process.max_shutdown_seconds` adds the limits up.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import maybeDeferred

from daphne_ng.asgi.exchange import NOTICE_SECONDS, Exchange
from daphne_ng.asgi.lifespan import Lifespan
from daphne_ng.asgi.runner import Runner
from daphne_ng.config import Config
from daphne_ng.net.context import ServerContext
from daphne_ng.serving.process import shutdown_limits
from daphne_ng.wording import counted

__all__ = ["Drain"]

logger = logging.getLogger("daphne_ng.draining")

_PROGRESS_SECONDS = 1.0
# The limits after a second signal.
_HURRIED_APPLICATIONS_SECONDS = 0.5
_HURRIED_LIFESPAN_SECONDS = 1.0


class Drain:
    """Stops what a server has started.

    Args:
        config: The limits.
        context: Its connections.
        runner: Its applications.
        lifespan: What is shut down last.
        hurry: Set by a second signal.
        decline: Takes a request that is too late, in place of the runner.
        notify: Tells the applications that the server is stopping; returns whether one waited for that.
    """

    def __init__(
        self,
        config: Config,
        context: ServerContext,
        runner: Runner,
        lifespan: Lifespan,
        hurry: asyncio.Event,
        decline: Callable[[Exchange[Any]], None],
        notify: Callable[[], bool],
    ) -> None:
        self._config = config
        self._application_timeout, self._close_timeout = shutdown_limits(config)
        self._context = context
        self._runner = runner
        self._lifespan = lifespan
        self._hurry = hurry
        self._decline = decline
        self._notify = notify
        self._waits_for: Callable[[], str] | None = None
        self._ends_at = 0.0

    async def run(self, ports: list[Any]) -> None:
        """Stop listening on these ports, and let everything end.

        Args:
            ports: Emptied.
        """
        progress = asyncio.create_task(self._tell_progress(), name="drain progress")
        try:
            await self._close_ports(ports)
            await self._end_applications()
            await self._end_connections()
            await self._end_lifespan()
        finally:
            progress.cancel()

    async def _close_ports(self, ports: list[Any]) -> None:
        # All at once: a plugin's may have something to wait for, and wait for ever.
        loop = asyncio.get_running_loop()
        closing = {maybeDeferred(port.stopListening).asFuture(loop): port for port in ports}
        ports.clear()
        if not closing:
            return
        done, late = await asyncio.wait(closing, timeout=self._close_timeout)
        for future in done:
            if not future.cancelled() and future.exception() is not None:
                logger.error("A port could not be closed", exc_info=future.exception())
        for future in late:
            logger.error("A port could not be closed within %g s: %s", self._close_timeout, closing[future])
            future.cancel()

    async def _end_applications(self) -> None:
        config, context, runner = self._config, self._context, self._runner
        context.ending = True
        for connection in list(context.connections):
            connection.shut_down()
        # With their connections told, so that a response that ends now ends its connection too.
        notified = self._notify()
        patience = max(config.graceful_timeout, NOTICE_SECONDS if notified else 0.0)
        if runner.exchanges and config.graceful_timeout:
            logger.info("Waiting for %s to end", counted(len(runner.exchanges), "running request"))
        self._wait_for(lambda: f"{self._requests()} and {self._connections()}", config.graceful_timeout)
        await self._unless_hurried(self._serve_the_last(patience))
        # Requests pipelined behind those that are cancelled now would begin.
        context.start_application = self._decline
        killed = len(runner.exchanges)
        patience = _HURRIED_APPLICATIONS_SECONDS if self._hurry.is_set() else self._application_timeout
        self._wait_for(lambda: f"{self._requests()} to end that were cancelled", patience)
        await self._unless_hurried(runner.cancel_all("the server is shutting down", patience))
        if killed:
            # Daphne's words, also for one.
            logger.info("Killed %i pending application instances", killed)

    # Until no application runs and no connection waits for a last request, which may begin another; at most for the
    # grace period.
    async def _serve_the_last(self, seconds: float) -> None:
        config, context, runner = self._config, self._context, self._runner
        clock = context.clock
        end = clock() + seconds
        while await runner.wait_idle(max(end - clock(), 0.0)):
            patience = min(config.shutdown_idle_timeout, end - clock())
            if patience <= 0 or await context.wait_closed(patience) or not runner.exchanges:
                break

    async def _end_connections(self) -> None:
        self._wait_for(self._connections, self._close_timeout)
        await _first(self._close_the_last(), self._hurry.wait())
        for connection in list(self._context.connections):
            connection.abort()
        await self._context.wait_closed(1.0)

    # Wait until the connections are closed, for the time that they have. A client over TLS that keeps one in a pool may
    # not look at it, and would use up all of that time.
    async def _close_the_last(self) -> None:
        config, context = self._config, self._context
        patience = min(max(config.shutdown_idle_timeout, config.http2_goaway_timeout), self._close_timeout)
        if await context.wait_closed(patience):
            return
        for connection in list(context.connections):
            connection.release()
        await context.wait_closed(self._close_timeout - patience)

    async def _end_lifespan(self) -> None:
        patience = _HURRIED_LIFESPAN_SECONDS if self._hurry.is_set() else self._config.lifespan_shutdown_timeout
        self._wait_for(lambda: "the application's shutdown", patience or math.inf)
        await self._unless_hurried(self._lifespan.shutdown(patience))

    # Wait for a step of the shutdown; a second signal that comes meanwhile ends it.
    async def _unless_hurried(self, step: Coroutine[Any, Any, object]) -> None:
        if self._hurry.is_set():
            await step
        else:
            await _first(step, self._hurry.wait())

    # -- progress ----------------------------------------------------------------------------------------------

    def _wait_for(self, what: Callable[[], str], seconds: float) -> None:
        self._waits_for = what
        self._ends_at = self._context.clock() + seconds

    def _requests(self) -> str:
        return counted(len(self._runner.exchanges), "request")

    def _connections(self) -> str:
        return counted(len(self._context.connections), "connection")

    async def _tell_progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            if self._waits_for is not None:
                left = max(self._ends_at - self._context.clock(), 0.0)
                limit = "without a limit" if left == math.inf else f"{left:.0f} seconds left"
                logger.info("Waiting for %s, %s", self._waits_for(), limit)


# Wait for the first of two coroutines, and end the other.
async def _first(one: Any, other: Any) -> None:
    tasks = {asyncio.ensure_future(one), asyncio.ensure_future(other)}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""Runs the application: one task per exchange, and the set of those that have not ended."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections.abc import Callable
from typing import Any, Final

from daphne_ng._types import ASGIApplication
from daphne_ng.asgi.exchange import NOTICE_SECONDS, Exchange
from daphne_ng.asgi.http import HttpExchange
from daphne_ng.asgi.websocket import WebSocketExchange
from daphne_ng.config import Config
from daphne_ng.files import FileReaders

__all__ = ["Runner"]

# Whether a task makes a name of its number when it is made, and not when it is asked for it: a tenth of what it costs.
_NAMES_AT_ONCE: Final = sys.version_info < (3, 12)
_NAME: Final = "application"


class Runner:
    """What every exchange of a server shares: their `daphne_ng.asgi.exchange.Host`.

    Args:
        application: The ASGI 3 application.
        config: The settings.
        loop: The event loop that runs everything.
        log: Where failures of the application are reported.
    """

    def __init__(
        self, application: ASGIApplication, config: Config, loop: asyncio.AbstractEventLoop, log: logging.Logger
    ) -> None:
        self.application = application
        self.config = config
        self.loop = loop
        self.log = log
        self.state: dict[str, Any] | None = None
        """The lifespan state, if the application has a lifespan."""
        self.tell_of_client: Callable[..., None] = log.info
        """Called with a format and its arguments for a line that any client can bring about."""
        self.record: Callable[[HttpExchange], None] | None = None
        """Called once per exchange, when its response is complete or it was given up."""
        self.record_websocket: Callable[[WebSocketExchange, str], None] | None = None
        """Called as ``(exchange, action)``: ``connecting`` first; ``connected`` if accepted; at the end ``rejected`` or
        ``disconnected``."""
        self.generator_abandoned: Callable[[], None] | None = None
        """Called when a cancellation may have left a generator behind that only the garbage collector ends."""
        self.interrupted: Callable[[], None] | None = None
        """Called when an application raised KeyboardInterrupt, to do what Ctrl-C does. Without it the exception
        goes on to what runs the loop."""
        self.exchanges: set[Exchange[Any]] = set()
        """Exchanges whose application has not ended."""
        self.started = 0
        """How many exchanges have begun."""
        self.idle: asyncio.Event | None = None
        """Set while `wait_idle` waits for `exchanges` to become empty."""
        self.file_readers = FileReaders(loop, config.file_threads)
        """What reads files that are sent."""
        self._time = loop.time
        # Tasks start in this one, not in the current one: an exchange may begin within a call of another application,
        # and what that has set is not for the next request on the connection to see.
        self._context = contextvars.copy_context()

    def start(self, exchange: Exchange[Any]) -> None:
        """Start the application's task."""
        exchange.began_at = self._time()
        self.exchanges.add(exchange)
        self.started += 1
        loop = self.loop
        if _NAMES_AT_ONCE and loop.get_task_factory() is None:
            exchange.task = asyncio.Task(exchange.run(), loop=loop, name=_NAME, context=self._context.copy())
        else:
            exchange.task = loop.create_task(exchange.run(), context=self._context.copy())

    def check_idle(self) -> None:
        """See `Host.check_idle`."""
        if self.idle is not None and not self.exchanges:
            self.idle.set()

    async def wait_idle(self, timeout: float | None) -> bool:
        """Wait until no application runs.

        Args:
            timeout: Seconds, None for ever.

        Returns:
            Whether that came about within the timeout.
        """
        if not self.exchanges:
            return True
        self.idle = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                await self.idle.wait()
        except TimeoutError:
            return False
        finally:
            self.idle = None
        return True

    async def cancel_all(self, reason: str, timeout: float) -> int:
        """Cancel every application that still runs, and wait for them to end.

        Args:
            reason: For the applications' disconnects.
            timeout: Seconds to wait; one that will not end by then is named in the log and left behind.

        Returns:
            How many were cancelled.
        """
        victims = list(self.exchanges)
        for exchange in victims:
            exchange.cancel(reason, min(NOTICE_SECONDS, timeout))
        if victims and not await self.wait_idle(timeout):
            for exchange in self.exchanges:
                self.log.error("Application instance for %s ignores its cancellation", exchange.describe())
        return len(victims)

"""What a server of one process tells systemd; with workers it is the supervisor that tells."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from daphne_ng.supervisor.notify import Notifier

__all__ = ["ServiceReport"]

_PROGRESS_SECONDS = 1.0


class ServiceReport:
    """Follows one server. Make it before the server runs.

    Everything is sent from the event loop: a loop that is blocked sends no sign of life.

    Args:
        server: A `daphne_ng.server.Server`.
        notifier: What sends.
    """

    def __init__(self, server: Any, notifier: Notifier) -> None:
        self._server = server
        self._notifier = notifier
        self._stopping = False
        server.hooks = dataclasses.replace(
            server.hooks, ready=self._ready, stopping=self._begin_to_stop, reloading=self._reload
        )

    def _ready(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._notifier.send("READY=1", "STATUS=Serving")
        if self._notifier.watchdog_seconds:
            self._ping(self._notifier.watchdog_seconds)

    def _ping(self, seconds: float) -> None:
        self._notifier.send("WATCHDOG=1")
        self._loop.call_later(seconds, self._ping, seconds)

    @contextlib.contextmanager
    def _reload(self) -> Iterator[None]:
        if self._stopping:
            yield
            return
        self._notifier.reloading("Reading the certificates again")
        try:
            yield
        finally:
            self._notifier.send("READY=1", "STATUS=Serving")

    def _begin_to_stop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = True
        self._notifier.send("STOPPING=1")
        self._tell_progress()

    def _tell_progress(self) -> None:
        self._notifier.progress(next(self._server.describe()).capitalize())
        self._loop.call_later(_PROGRESS_SECONDS, self._tell_progress)

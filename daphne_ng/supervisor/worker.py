"""A worker's side: it serves as always, on sockets that are there, and reports."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import random
import sys
import threading
import time
import traceback
from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError
from daphne_ng.serving.logconfig import log_end
from daphne_ng.supervisor.inherited import Inherited
from daphne_ng.supervisor.protocol import END, HURRY, Assignment, line

__all__ = ["Worker", "resident_bytes", "run_worker"]

logger = logging.getLogger("daphne_ng.supervisor.worker")

_BEAT_SECONDS = 1.0
_DEVELOPMENT_END_SECONDS = 0.3
# A thread that only waits is not late by so much while the process runs, unless the processor is taken from it.
_STOPPED_SECONDS = 3.0
# How long a worker without a supervisor may be blocked.
_ORPHAN_SECONDS = 5.0


class Worker:
    """Makes a server one of several.

    Args:
        assignment: What the supervisor has told this process.
        config: The settings of the processes are read.
        inherited: Is told when there are ports.
    """

    def __init__(self, assignment: Assignment, config: Config, inherited: Inherited | None = None) -> None:
        self._assignment = assignment
        self._inherited = inherited
        self._config = config
        self._server: Any = None
        self._loop: Any = None
        self._beat_at = time.monotonic()
        self._retiring = False
        self._ended = threading.Event()
        jitter = random.randint(0, config.limit_max_requests_jitter)  # noqa: S311 (no secret)
        self._requests_max = config.limit_max_requests + jitter if config.limit_max_requests else 0
        self._retire_at = time.monotonic() + config.worker_max_age if config.worker_max_age else None
        self._parent = os.getppid()
        for descriptor in (assignment.report, assignment.orders):
            os.set_inheritable(descriptor, False)
            os.set_blocking(descriptor, False)

    def serve(self, server: Any) -> None:
        """Run `server` until it ends."""
        self._server = server
        server.hooks = dataclasses.replace(
            server.hooks,
            sockets=self._assignment.sockets,
            run_id=self._assignment.run,
            ready=self._begin,
            stopping=lambda: self._report("stopping"),
        )
        try:
            server.run()
        finally:
            self._ended.set()

    def _begin(self) -> None:
        import asyncio

        self._loop = loop = asyncio.get_running_loop()
        loop.add_reader(self._assignment.orders, self._obey)
        if self._inherited is not None:
            self._inherited.serves()
        self._beat()
        self._report("ready")
        threading.Thread(target=self._watch, args=(threading.get_ident(),), name="watch", daemon=True).start()

    def _obey(self) -> None:
        try:
            orders = os.read(self._assignment.orders, 64)
        except BlockingIOError:
            return
        server = self._server
        if not orders:
            logger.error("The supervisor has ended: this worker stops")
            self._loop.remove_reader(self._assignment.orders)
        if END in orders:
            for port in server.listeners:
                if not getattr(port, "inherited", True):
                    port.leaves_queue = False
        if HURRY in orders:
            server.hurry()
        else:
            server.stop()
        if END in orders and self._config.reload:
            # A developer who presses Ctrl-C does not want to wait for pages that are open.
            self._loop.call_later(_DEVELOPMENT_END_SECONDS, server.hurry)

    # -- heartbeat -------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._beat_at = now = time.monotonic()
        self._report("beat")
        if not self._retiring:
            reason = self._reason_to_retire(now)
            if reason:
                self._retiring = self._report("retire", reason=reason)
        self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _reason_to_retire(self, now: float) -> str:
        served = self._server.requests_served
        if self._requests_max and served >= self._requests_max:
            return f"it has served {served} requests"
        if self._config.limit_worker_memory:
            resident = resident_bytes()
            if resident >= self._config.limit_worker_memory:
                return f"it holds {resident} bytes of memory"
        if self._retire_at is not None and now >= self._retire_at:
            return f"it is older than {self._config.worker_max_age:g} s"
        return ""

    def _report(self, event: str, **values: Any) -> bool:
        # A supervisor that does not read is as good as gone; the pipe holds thousands of these.
        try:
            os.write(self._assignment.report, line(event, **values))
        except OSError:
            return False
        return True

    # -- a loop that is blocked ------------------------------------------------------------------------------

    # In a thread, which runs while the loop does not.
    def _watch(self, loop_thread: int) -> None:
        limit = self._config.worker_blocked_warning or math.inf
        step = min(limit, _BEAT_SECONDS) / 2
        reported = 0.0
        waits_from, used = time.monotonic(), time.process_time()
        while not self._ended.wait(step):
            stopped = time.monotonic() - waits_from - step
            if stopped > _STOPPED_SECONDS and time.process_time() - used < stopped / 10:
                self._beat_at += stopped  # the whole process was stopped: Ctrl-Z, a container that was frozen
            waits_from, used = time.monotonic(), time.process_time()
            beat_at = self._beat_at
            late = time.monotonic() - beat_at - _BEAT_SECONDS
            if late > _ORPHAN_SECONDS and os.getppid() != self._parent:
                log_end(
                    logger,
                    logging.CRITICAL,
                    "The supervisor has ended, and the event loop is blocked: this worker ends now",
                )
                os._exit(1)
            if late >= limit and reported != beat_at:
                reported = beat_at
                frame = sys._current_frames().get(loop_thread)
                stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
                logger.warning("The event loop has been blocked for %.1f s, here:\n%s", late, stack.rstrip())


def run_worker(server: Any, config: Config, inherited: Inherited) -> None:
    """Serve as the worker that the supervisor has made of this process.

    Raises:
        ConfigurationError: The application has closed what is not its own.
    """
    try:
        worker = Worker(inherited.assignment, config, inherited)
    except OSError as error:
        raise ConfigurationError(f"the application has closed descriptors of the server: {error}") from error
    worker.serve(server)


def resident_bytes() -> int:
    """Return the resident memory of this process; where the system does not tell, the most that it ever was."""
    with contextlib.suppress(OSError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""The ASGI lifespan protocol: one run of the application around everything that the server serves."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from enum import Enum, auto
from typing import Any, Final

from daphne_ng._types import ASGIApplication, Message
from daphne_ng.errors import LifespanError, UnexpectedMessage
from daphne_ng.stopping import STATE_KEY, StopNotice
from daphne_ng.wording import one_line

__all__ = ["Lifespan"]

# The message that asgiref #588 proposes. Starlette takes any second message for the shutdown, so only an application
# that has this key in its ``lifespan.startup.complete`` is sent it.
NOTICE: Final = "lifespan.shutdown.notice"
OPT_IN: Final = "shutdown_notice"


class _Phase(Enum):
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    OVER = auto()


class Lifespan:
    """Starts and ends an application that has a lifespan, and does without one where it has none.

    Args:
        application: The ASGI application.
        mode: ``auto``, ``on`` or ``off``; see ``--lifespan``.
        log: Where its failures are reported.
        notice: What every request has in its ``state``, so that the application can wait for the end of the server.
        context: The context that the application runs in; None for a copy of the current one.

    Call `startup`, and if that returns, `shutdown` once at the end; `notify` before, as soon as the end begins.
    """

    def __init__(
        self,
        application: ASGIApplication,
        mode: str,
        log: logging.Logger,
        notice: StopNotice | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        self._application = application
        self._mode = mode
        self._log = log
        self._notice = notice
        self._context = context
        self._phase = _Phase.STARTING
        self._task: asyncio.Task[None] | None = None
        self._reply: asyncio.Future[str | None] | None = None
        self._received_startup = False
        self._wants_notice = False
        self._notice_due = False
        self._shutdown_due = False
        # Completed when something is due.
        self._due = asyncio.Event()
        self._scope_state: dict[str, Any] = {}
        self.state: dict[str, Any] | None = None
        """What the application put into the scope's ``state``; None if it has no lifespan."""

    async def startup(self, timeout: float) -> None:
        """Run the application's startup.

        Args:
            timeout: Seconds; 0 for any length.

        Raises:
            LifespanError: It failed, took too long, or is required and missing.
        """
        if self._mode == "off":
            self._phase = _Phase.OVER
            return
        loop = asyncio.get_running_loop()
        self._reply = reply = loop.create_future()
        self._task = task = loop.create_task(self._run(), name="lifespan", context=self._context)
        await asyncio.wait({task, reply}, timeout=timeout or None, return_when=asyncio.FIRST_COMPLETED)
        if self._phase is _Phase.OVER:
            return  # shutdown() came first
        if reply.done():
            failure = reply.result()
            if failure is None:
                self._phase = _Phase.RUNNING
                self.state = state = self._scope_state
                # Not before: to the startup the state is an empty namespace (ASGI Lifespan, "Lifespan State").
                if self._notice is not None:
                    state.setdefault(STATE_KEY, self._notice)
                return
            self._phase = _Phase.OVER
            await self._end()
            raise LifespanError(f"The application's startup failed: {failure or 'it gave no reason'}")
        self._phase = _Phase.OVER
        if not task.done():
            await self._end()
            raise LifespanError(
                f"The application's startup took longer than {timeout:g} s (--lifespan-startup-timeout)"
            )
        error = None if task.cancelled() else task.exception()
        if self._mode == "on":
            reason = one_line(error) if error is not None else "it ended without an answer"
            raise LifespanError(f"The application has no lifespan, which --lifespan on requires: {reason}") from error
        # Django and Channels raise for a scope type that they do not know; that is how ASGI wants it.
        if error is not None:
            self._log.info("The application has no lifespan (%s); serving without it", one_line(error))
            self._log.debug("What it raised for the lifespan scope:", exc_info=error)
        else:
            self._log.debug("The application has no lifespan; serving without it")

    def notify(self) -> bool:
        """Tell an application that has asked for it that the server is stopping, while its requests still run.

        Returns:
            Whether it has asked.
        """
        if self._phase is not _Phase.RUNNING or not self._wants_notice or self._shutdown_due:
            return False
        self._notice_due = True
        self._due.set()
        return True

    async def shutdown(self, timeout: float) -> None:
        """Run the application's shutdown, after the last connection has closed. Failures are logged.

        Args:
            timeout: Seconds; 0 for any length.
        """
        task = self._task
        if self._phase is _Phase.STARTING:
            self._phase = _Phase.OVER
            await self._end(0.0)  # the startup was cancelled, or is given up
        if self._phase is not _Phase.RUNNING or task is None:
            return
        if task.done():
            self._phase = _Phase.OVER
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._log.error("The application's lifespan ended early: %s", error, exc_info=error)
            return
        self._phase = _Phase.STOPPING
        self._reply = reply = asyncio.get_running_loop().create_future()
        self._shutdown_due = True
        self._due.set()
        try:
            await asyncio.wait({task, reply}, timeout=timeout or None, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if reply.done():
            failure = reply.result()
            if failure is not None:
                self._log.error("The application's shutdown failed: %s", failure or "it gave no reason")
        elif task.done():
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._log.error("Exception in the application's shutdown: %s", error, exc_info=error)
        else:
            self._log.error("The application's shutdown took longer than %g s (--lifespan-shutdown-timeout)", timeout)
        self._phase = _Phase.OVER
        await self._end()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._scope_state,
            "extensions": {NOTICE: {}},
        }
        await self._application(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._received_startup:
            self._received_startup = True
            return {"type": "lifespan.startup"}
        while True:
            await self._due.wait()
            if self._notice_due:
                self._notice_due = False
                if not self._shutdown_due:
                    self._due.clear()
                return {"type": NOTICE}
            if self._shutdown_due:
                return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            raise UnexpectedMessage("a message must be a dict with a 'type'") from None
        due = {_Phase.STARTING: "startup", _Phase.STOPPING: "shutdown"}.get(self._phase)
        reply = self._reply
        if due is None or kind not in (f"lifespan.{due}.complete", f"lifespan.{due}.failed"):
            raise UnexpectedMessage(f"{kind} is not allowed in lifespan phase {self._phase.name.lower()}")
        assert reply is not None  # set before the phase that allows an answer
        if reply.done():
            raise UnexpectedMessage(f"{kind} was sent already")
        if kind == "lifespan.startup.complete" and message.get(OPT_IN):
            self._wants_notice = True
        reply.set_result(None if kind.endswith("complete") else str(message.get("message", "")))

    # Give the application's task a moment to return, then cancel it.
    async def _end(self, patience: float = 1.0) -> None:
        task = self._task
        if task is None:
            return
        if not task.done() and patience:
            await asyncio.wait({task}, timeout=patience)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
        if task.done() and not task.cancelled():
            task.exception()  # reported by the reply, or irrelevant by now

"""The hooks of a server: what the owner of its process gives it beyond Daphne's constructor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daphne_ng.net.sockets.sharing import SharedSocket
from daphne_ng.serving.process import ExitWatchdog

__all__ = ["ServerHooks"]


@dataclass(frozen=True, slots=True)
class ServerHooks:
    """Set as `daphne_ng.server.Server.hooks` before the server starts; `dataclasses.replace` adds to what is there.

    The functions are called on the server's event loop.
    """

    manages_processes: bool = False
    """Whether the owner carries out the settings of processes, such as ``workers``; a server refuses them otherwise."""
    sockets: Sequence[SharedSocket] | None = None
    """The sockets that the endpoints listen on, if a supervisor has made them; None has the server make its own."""
    run_id: str = ""
    """The same for all workers of one supervisor, and different in its next run; empty without a supervisor."""
    exit_watchdog: ExitWatchdog | None = None
    """Ends the process if its end takes longer than all limits together. A program that goes on has none."""
    listen_failed: Callable[[Exception], None] | None = None
    """Called with the error of an endpoint that cannot be listened on, in place of `Server.listen_error`."""
    ready: Callable[[], object] | None = None
    """Called without arguments once every endpoint listens, before `Server.ready_callable`."""
    stopping: Callable[[], object] | None = None
    """Called without arguments when the server begins to stop."""
    reloading: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    """Returns a context in which the server reads certificates again."""

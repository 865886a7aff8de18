"""SIGINT, SIGTERM and SIGCHLD while a reactor runs on any asyncio loop.

Private names of Twisted that this module relies on: ``ReactorBase._signalsFactory``, which makes the handling of SIGINT
and SIGTERM.
"""

from __future__ import annotations

import contextlib
import signal
from typing import Any

from twisted.internet import process
from twisted.internet.base import ReactorBase

__all__ = ["ReactorSignals"]


class ReactorSignals:
    """Twisted's handling of SIGINT and SIGTERM, and SIGCHLD by a handler in Python.

    Twisted's handling of SIGCHLD owns the wake-up descriptor of the process, which uvloop, and asyncio with a signal
    handler of its own, take over. A handler in Python that wakes the loop works with every loop.

    Args:
        reactor: A reactor on asyncio, Twisted's own or a `DaphneReactor`.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._stopping: Any = ReactorBase._signalsFactory(reactor)
        self._installed = False

    def install(self) -> None:
        """See ``SignalHandling``."""
        self._stopping.install()
        signal.signal(signal.SIGCHLD, self._handle)
        signal.siginterrupt(signal.SIGCHLD, False)
        self._installed = True
        # A process may have exited before the handler was there.
        process.reapAllProcesses()

    def uninstall(self) -> None:
        """See ``SignalHandling``."""
        if self._installed:
            self._installed = False
            self._stopping.uninstall()
            if signal.getsignal(signal.SIGCHLD) == self._handle:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _handle(self, number: int, frame: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._reactor._asyncioEventloop.call_soon_threadsafe(process.reapAllProcesses)

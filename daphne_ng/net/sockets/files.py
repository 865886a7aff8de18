"""Regular files under a reactor: no poller of the kernel takes them.

Private names of Twisted that this module relies on: ``_ContinuousPolling`` with its ``_readers``, ``_writers``,
``_loop``, ``_reactor`` and ``_checkLoop``.
"""

from __future__ import annotations

from twisted.internet.posixbase import _ContinuousPolling

__all__ = ["FilePolling"]


class FilePolling(_ContinuousPolling):
    """Calls the readers and writers of regular files, a thousand times a second.

    Twisted's own class is driven by a ``LoopingCall``, which imports, and so installs, the global reactor.
    """

    _interval_seconds = 0.001

    def _checkLoop(self) -> None:
        if self._readers or self._writers:
            if self._loop is None:
                self._loop = self._reactor.callLater(self._interval_seconds, self._turn)
        elif self._loop is not None:
            self._loop.cancel()
            self._loop = None

    def _turn(self) -> None:
        self._loop = None
        self.iterate()
        self._checkLoop()

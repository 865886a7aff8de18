"""Lines of the log that any client can bring about, as often as it likes: a scanner, or who wants the disk to be full.

A request that is refused costs a client some forty bytes, and has a line of a hundred. So of each kind of line there is
a bucket, and what does not fit is counted. The count is told every ten seconds, with the last of the lines as an
example, and at the end.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from daphne_ng.wire.bucket import TokenBucket

__all__ = ["ClientLines"]

_SUMMARY_SECONDS: Final = 10.0


class ClientLines:
    """Writes such lines at INFO; those that are too many at DEBUG.

    Args:
        log: Where they go.
        loop: Whose time counts.
        burst: How many of a kind at once.
        rate: How many of a kind per second, for ever.
    """

    def __init__(self, log: logging.Logger, loop: asyncio.AbstractEventLoop, burst: int, rate: float) -> None:
        self._log = log
        self._loop = loop
        self._limits = burst, rate
        self._kinds: dict[str, _Kind] = {}
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, text: str, *arguments: object) -> None:
        """Write a line, if there is room for one of its kind.

        Args:
            text: The format, which names the kind: it must be a constant.
            arguments: What is formatted.
        """
        log = self._log
        if not log.isEnabledFor(logging.INFO):
            return
        kind = self._kinds.get(text)
        if kind is None:
            kind = self._kinds[text] = _Kind(TokenBucket(*self._limits))
        if kind.bucket.take(self._loop.time()):
            log.info(text, *arguments)
        elif log.isEnabledFor(logging.DEBUG):
            log.debug(text, *arguments)
        else:
            kind.left_out += 1
            kind.last = arguments
            if self._timer is None:
                self._timer = self._loop.call_later(_SUMMARY_SECONDS, self.sum_up)

    def sum_up(self) -> None:
        """Tell how many lines were left out since the last time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for text, kind in self._kinds.items():
            if kind.left_out:
                self._log.info("Left out %d more lines, the last of which was: %s", kind.left_out, text % kind.last)
                kind.left_out = 0
                kind.last = ()


class _Kind:
    __slots__ = ("bucket", "last", "left_out")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self.left_out = 0
        self.last: tuple[object, ...] = ()

"""Whether a client goes on taking what was written to it: the one rule, for the middle of a response and for its end.

What counts is what the client's side has acknowledged, not what the kernel has taken from us. The kernel takes more
only when a third of its send buffer is free, and that may be megabytes: a client that reads 20 KiB a second, and never
rests, would seem to rest for minutes.

So `Progress` is told how much is *left*, ours and the kernel's together, at intervals much shorter than the timeout,
and counts by how much that fell in between. What is written meanwhile hides some of it; the callers write next to
nothing.

A client has stopped reading if it took less than a floor within the timeout. Without a floor, one byte a minute would
hold a connection, and all that waits on it, for ever.
"""

from __future__ import annotations

from typing import Final

from daphne_ng.config import Config
from daphne_ng.wire.driver import ConnectionDriver

__all__ = ["FAREWELL_BYTES", "Progress", "first_look", "pong_patience", "watched"]

FAREWELL_BYTES: Final = 256
"""No more than this is left by a client that has vanished from an idle connection: a FIN, which counts as one byte, our
close_notify, a GOAWAY or a Close frame. An end does not wait for that. The kernel goes on sending it, and nothing is
cut off that the log should speak of."""

_LOOKS: Final = 4
_LOOK_MAX_SECONDS: Final = 5.0


def first_look(timeout: float) -> float:
    """Return after how many seconds to begin to look."""
    return min(timeout / _LOOKS, _LOOK_MAX_SECONDS) if timeout else _LOOK_MAX_SECONDS


class Progress:
    """Watches a client while something is left for it.

    Args:
        left: Bytes that it has not acknowledged yet.
        now: Seconds.
        timeout: Longest time in which it may take less than the floor; 0 for any.
        rate: The floor, in bytes for each second of the timeout; it is never less than one byte.
    """

    __slots__ = ("_floor", "_since", "_taken", "_timeout", "left")

    def __init__(self, left: int, now: float, timeout: float, rate: float) -> None:
        self.left = left
        """What was left when it was looked at last."""
        self._since = now
        self._taken = 0
        self._timeout = timeout
        self._floor = max(1, int(rate * timeout))

    def look(self, left: int, now: float) -> float:
        """Take what is left now. Returns in how many seconds to look again, or 0 if the client has stopped reading."""
        fallen = self.left - left
        self.left = left
        if fallen > 0:
            self._taken += fallen
        timeout = self._timeout
        if self._taken >= self._floor:
            self._taken = 0
            self._since = now
        wait = first_look(timeout)
        return min(wait, max(self._since + timeout - now, 0.0)) if timeout else wait

    def patience(self, left: int, unsent: int, now: float) -> float:
        """Take what is left before a ping that has no answer yet.

        A client that has vanished takes nothing of what the kernel holds, and all of it is there. As long as the kernel
        does not take all, what is left may grow though the client takes some: how much is not known.

        Args:
            left: As for `look`.
            unsent: How much of that the kernel has not taken.
            now: Seconds.

        Returns:
            In how many seconds to look again, or 0 if the client would have answered.
        """
        if left >= self.left and not unsent:
            return 0.0
        if left > self.left:
            self.left = left
            self._since = now
            self._taken = 0
        return self.look(left, now)


def watched(progress: Progress | None, left: int, now: float, config: Config) -> Progress:
    """Return the watch over a client, or begin one."""
    return Progress(left, now, config.write_timeout, config.write_min_rate) if progress is None else progress


def pong_patience(
    progress: Progress | None, driver: ConnectionDriver, now: float, config: Config
) -> tuple[Progress | None, float]:
    """Return the watch over a client that owes the answer to a ping, and for how many seconds it may still owe it.

    The client may be slow, and still taking what stands before the ping. How long it may leave its side full is the
    write timeout's; but that of the transport is at work only above its high mark.

    Args:
        progress: The watch so far; None when the answer has just become due.
        driver: The I/O around the connection.
        now: Seconds.
        config: Limits and timeouts.
    """
    left = driver.unacknowledged_bytes()
    if not left:
        return progress, 0.0
    if progress is None:
        return watched(None, left, now, config), first_look(config.write_timeout)
    return progress, progress.patience(left, driver.unsent_bytes(), now)

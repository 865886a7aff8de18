"""Whether the client of an open WebSocket is still there: pings, and the longest life.

A ping goes out when the client has been silent for `Config.ping_interval`; it has `Config.ping_timeout` to be heard of
again, and longer while it takes what stands before the ping. A paused connection is not read, so that no answer could
be seen: the system is asked whether the client has left.
"""

from __future__ import annotations

from typing import Final

from daphne_ng.config import Config
from daphne_ng.wire.driver import PROBE_SECONDS
from daphne_ng.wire.ending import NEVER
from daphne_ng.wire.progress import Progress, pong_patience
from daphne_ng.wire.websocket.driver import WebSocketDriver

__all__ = ["LEFT", "LIFE_OVER", "PING", "SILENT", "WAIT", "Liveness"]

# The verdicts of `Liveness.check`.
WAIT: Final = 0  # nothing is due
PING: Final = 1  # a ping is to be sent
LEFT: Final = 2  # the client has left
SILENT: Final = 3  # the client has not answered a ping
LIFE_OVER: Final = 4  # the connection has reached its longest life


class Liveness:
    """The pings of one connection, and its longest life.

    Args:
        config: The timeouts.
        driver: The I/O around the connection.
        now: Seconds; its life begins.
    """

    __slots__ = ("_config", "_driver", "_life_ends_at", "_pinged_at", "_progress", "_sent_at")

    def __init__(self, config: Config, driver: WebSocketDriver, now: float) -> None:
        self._config = config
        self._driver = driver
        self._life_ends_at = now + config.websocket_timeout if config.websocket_timeout > 0 else NEVER
        self._pinged_at = 0.0  # when the ping was sent whose answer is awaited; 0 for none
        self._sent_at = 0.0  # when the last ping was sent, if answers are not awaited
        self._progress: Progress | None = None  # of a client that takes what stands before a ping

    def forget_ping(self) -> None:
        """Await no answer any more: it may have come while the connection was not read."""
        self._pinged_at = 0.0

    def check(self, now: float, heard_at: float, paused: bool) -> int:
        """Return what is to be done: one of `WAIT`, `PING`, `LEFT`, `SILENT`, `LIFE_OVER`.

        After `WAIT` and `PING` the caller asks for the next `deadline`.

        Args:
            now: Seconds.
            heard_at: When the client was heard of last.
            paused: Whether the connection is not read.
        """
        config = self._config
        if now >= self._life_ends_at:
            return LIFE_OVER
        if paused:
            # No event tells that the client has left. And it cannot answer a ping that we would not read.
            return LEFT if self._driver.peer_gone() else WAIT
        if heard_at >= self._pinged_at:
            self._pinged_at = 0.0
        pinged_at = self._pinged_at
        if not pinged_at:
            quiet_since = max(heard_at, self._sent_at)
            if not now >= quiet_since + config.ping_interval > quiet_since:
                return WAIT
            self._progress = None
            if config.ping_timeout:
                self._pinged_at = now
            else:
                self._sent_at = now
            return PING
        if now >= pinged_at + config.ping_timeout > pinged_at:
            self._progress, patience = pong_patience(self._progress, self._driver, now, config)
            if not patience:
                return SILENT
            self._pinged_at = min(now, now + patience - config.ping_timeout)  # an answer comes after it
        return WAIT

    def deadline(self, now: float, heard_at: float, paused: bool) -> float:
        """Return when to `check` next, the arguments being those of that."""
        config, deadline = self._config, self._life_ends_at
        if paused:
            return min(deadline, now + PROBE_SECONDS)
        if self._pinged_at:
            # An answer moves no timer: to look once in an interval is often enough for the next ping to be in time.
            return min(deadline, self._pinged_at + config.ping_timeout, now + config.ping_interval)
        if config.ping_interval:
            return min(deadline, max(heard_at, self._sent_at) + config.ping_interval)
        return deadline

"""Flow control of reading on an HTTP/1.1 connection: what has been read and not taken yet, and when reading pauses.

Reading pauses for three reasons: the application has enough of a body (`ReadFlow.sink_full`), enough requests wait
behind the active one (`ReadFlow.backlogged`), or an error stands behind them and nothing more will be parsed. While
reading is paused no event tells that the client has left. So the client is asked every few seconds, and the pause has a
limit.
"""

from __future__ import annotations

from collections import deque

from daphne_ng.config import Config
from daphne_ng.wire.driver import PROBE_SECONDS
from daphne_ng.wire.ending import NEVER
from daphne_ng.wire.http1.driver import Http1Driver
from daphne_ng.wire.http1.message import Http1Message
from daphne_ng.wire.http1.parser import Http1Parser

__all__ = ["ReadFlow"]


class ReadFlow:
    """The requests that wait, and whether the client is read.

    Args:
        config: Limits and timeouts.
        driver: The I/O around the connection.
        parser: The connection's.
    """

    __slots__ = ("_config", "_driver", "_parser", "_paused_at", "paused", "probe_deadline", "queue", "sink_full")

    def __init__(self, config: Config, driver: Http1Driver, parser: Http1Parser) -> None:
        self._config = config
        self._driver = driver
        self._parser = parser
        self._paused_at = 0.0
        self.queue: deque[Http1Message] = deque()
        """Requests behind the active one, in order: no response overtakes another."""
        self.sink_full = False
        """The application has enough of the active request's body."""
        self.paused = False
        self.probe_deadline = NEVER
        """When to ask next whether the client is still there."""

    def backlogged(self) -> bool:
        """Tell whether enough waits behind the active request: requests, or the body of the last one of them."""
        queue, config = self.queue, self._config
        return bool(queue) and (len(queue) >= config.pipelined_max or queue[-1].body_bytes >= config.inbox_high_bytes)

    def pause(self) -> None:
        """Stop reading, and begin to count the time of the pause."""
        self.paused = True
        self._driver.pause_reading()
        self._paused_at = now = self._driver.clock()
        self.probe_deadline = now + PROBE_SECONDS

    def resume(self) -> bool:
        """Read again, if there is room for more. Returns whether reading has resumed just now."""
        if not self.paused or self.sink_full or self.backlogged():
            return False
        if len(self._parser.rest) >= self._config.inbox_high_bytes:
            return False
        self.end_pause()
        self._driver.resume_reading()
        return True

    def end_pause(self) -> None:
        """Forget the pause; the caller resumes reading."""
        self.paused = False
        self.probe_deadline = NEVER

    def overdue(self, now: float) -> bool:
        """Tell whether the pause is longer than `Config.paused_read_timeout`."""
        limit = self._config.paused_read_timeout
        return limit > 0 and now - self._paused_at >= limit

    def probe_later(self, now: float) -> None:
        """Put off the next probe."""
        self.probe_deadline = now + PROBE_SECONDS

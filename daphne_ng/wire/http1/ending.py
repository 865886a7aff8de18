"""The end of an HTTP/1.1 connection, and the one deadline that everything on it is measured by.

A connection is closed in two stages, as `http1.connection` says: our half, then the whole. Each stage has its time; a
client that keeps taking bytes of a large answer gets more of it. The first stage lasts as long as the client goes on
sending, within bounds: many clients look for an answer only when they have sent all of their request.
"""

from __future__ import annotations

from collections import deque

from daphne_ng.config import Config
from daphne_ng.port import RequestSink
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.http1.driver import Http1Driver
from daphne_ng.wire.http1.parser import Http1Message
from daphne_ng.wire.progress import FAREWELL_BYTES, Progress, watched

__all__ = ["NEVER", "Http1Ending"]

NEVER = float("inf")


class Http1Ending:
    """What `Http1Connection` builds on: how it ends, and when something is due.

    Args:
        config: Limits and timeouts.
        driver: The I/O around it.
    """

    __slots__ = (
        "_active",
        "_body_deadline",
        "_clock",
        "_closed",
        "_closing",
        "_config",
        "_driver",
        "_exchange_deadline",
        "_last",
        "_linger_until",
        "_lingering",
        "_paused",
        "_probe_deadline",
        "_progress",
        "_queue",
        "_sink",
        "armed_for",
        "body_bytes_sent",
        "deadline",
    )

    def __init__(self, config: Config, driver: Http1Driver) -> None:
        self._config = config
        self._driver = driver
        self._clock = driver.clock
        self._queue: deque[Http1Message] = deque()
        self._active: Http1Message | None = None
        self._sink: RequestSink | None = None
        self._last: Http1Message | None = None  # what was answered last, if that ends the connection
        self._paused = False
        self._closing = False  # the next response is the last, and says so
        self._lingering = False  # our half is closed, or all of it: input is thrown away
        self._closed = False  # both directions are closed, or will be once what was written is out
        self._linger_until = 0.0  # when what the client sends is read no longer
        self._progress: Progress | None = None  # of a client for which something is left at the end
        self._body_deadline = NEVER
        self._exchange_deadline = NEVER
        self._probe_deadline = NEVER
        self.body_bytes_sent = 0
        """See `ResponsePort.body_bytes_sent`; of the last response, when it has ended."""
        self.deadline = NEVER
        self.armed_for = NEVER
        """When the driver's timer will fire; the driver keeps it up to date."""

    @property
    def discarding(self) -> bool:
        """Whether what the client sends behind its answer is read and thrown away."""
        return self._lingering and not self._closed

    def cut_off(self, left: int) -> tuple[RequestHead | None, int]:
        """Note that so many bytes of what was written will not reach the client.

        Returns:
            The request whose response that is, if it is known; and how many of the bytes are none of an active one's.
        """
        message = self._active
        if message is None:
            return (self._last.head if self._last is not None else None), left
        sent = self.body_bytes_sent
        self.body_bytes_sent = max(sent - left, 0)
        return message.head, max(left - sent, 0)

    # Close our half, and give the client time to read the answer before the rest of its bytes meet a reset.
    def _linger(self) -> None:
        self._last = self._active or self._last
        self._active = None
        self._sink = None
        self._closing = True
        self._queue.clear()
        if self._lingering:
            return
        self._lingering = True
        self._progress = None
        self._paused = False
        self._probe_deadline = NEVER
        self._driver.close_writing()
        self._driver.resume_reading()
        config, now = self._config, self._clock()
        self._linger_until = now + config.drain_timeout
        self._set_deadline(min(now + config.drain_pause_timeout, self._linger_until))

    # The client went on sending after its answer.
    def _discarded(self) -> None:
        now = self._clock()
        if not self._closed and now < self._linger_until:
            self._set_deadline(min(now + self._config.drain_pause_timeout, self._linger_until))

    # The time for an ending has passed. While something is left for the client, that is a pause like any other: it gets
    # all as long as it takes some. Then the second stage. What is left when it takes none is lost.
    def _end_passed(self, now: float) -> None:
        left = self._driver.unacknowledged_bytes()
        if left > FAREWELL_BYTES:
            progress = self._progress = watched(self._progress, left, now, self._config)
            wait = progress.look(left, now)
            if wait:
                self._set_deadline(now + wait)
            else:
                self._forget()
                self._driver.drop()
        elif not self._closed:
            self._close()
        else:
            self._driver.release()

    def _abort(self) -> None:
        self._forget()
        self._driver.abort()

    # Nothing is waited for any more.
    def _forget(self) -> None:
        self._closing = self._lingering = self._closed = True
        self._queue.clear()
        self.deadline = NEVER

    # Close both directions, what has been written still going out. A client that may still send, and has much to take,
    # would reset the connection with that, so that ours is closed first.
    def _close(self, *, read: bool = False) -> None:
        self._closing = self._lingering = self._closed = True
        self._queue.clear()
        self._progress = None
        if read:
            self._driver.close()
        else:
            self._driver.finish()
        self._set_deadline(self._driver.clock() + self._config.close_timeout)

    # The connection is idle, and its client does not know yet that it is about to end.
    def _await_last(self) -> None:
        patience = self._last_patience
        if patience:
            self._set_deadline(min(self.deadline, self._clock() + patience))
        else:
            self._close()

    @property
    def _last_patience(self) -> float:
        return min(self._config.shutdown_idle_timeout, self._config.graceful_timeout)

    # The time of an idle connection has passed. It is not idle yet while its client takes the last response.
    def _idle_passed(self, now: float) -> None:
        left = 0 if self._closing else self._driver.unacknowledged_bytes()
        if left:
            progress = self._progress = watched(self._progress, left, now, self._config)
            wait = progress.look(left, now)
            if wait:
                self._set_deadline(now + wait)
                return
        elif self._progress is not None and not self._closing:
            self._progress = None
            self._set_deadline(now + self._config.keep_alive_timeout)
            return
        self._close()

    def _update_deadline(self) -> None:
        self._set_deadline(min(self._body_deadline, self._exchange_deadline, self._probe_deadline))

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.armed_for:
            self._driver.rearm(deadline)

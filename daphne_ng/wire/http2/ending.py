"""The end of an HTTP/2 connection, and the one deadline that everything on it is measured by.

It closes as HTTP/1.1 does (`wire.ending`): our half first, behind a GOAWAY, while what the client still sends is read
and thrown away for a moment; then the whole.
"""

from __future__ import annotations

from daphne_ng.config import Config
from daphne_ng.wire.http2.driver import Http2Driver
from daphne_ng.wire.http2.sieve import NEVER
from daphne_ng.wire.progress import FAREWELL_BYTES, Progress, first_look, watched

__all__ = ["Http2Ending"]


class Http2Ending:
    """What `Http2Connection` builds on: how it ends, and when something is due.

    Args:
        config: Limits and timeouts.
        driver: The I/O around it.
    """

    def __init__(self, config: Config, driver: Http2Driver) -> None:
        self._config = config
        self._driver = driver
        self._clock = driver.clock
        self._lingering = False  # our half is closed, or all of it: input is thrown away
        self._closed = False  # both directions are closed, or will be once what was written is out
        self._paused = False
        self._progress: Progress | None = None  # of a client for which something is left at the end, or before idleness
        self._ping_progress: Progress | None = None  # of one that has not answered a ping
        self._idle_deadline = NEVER
        self._end_deadline = NEVER
        self.deadline = NEVER
        """When something must happen next; see `deadline_passed`."""
        self.armed_for = NEVER
        """When the driver's timer will fire; the driver keeps it up to date."""

    # Close our half, and give the client a moment to read the answer before the rest of its bytes meet a reset.
    def _linger(self) -> None:
        if self._lingering:
            return
        self._lingering = True
        self._progress = None
        self._driver.close_writing()
        if self._paused:
            self._paused = False
            self._driver.resume_reading()
        self._end_in(self._config.http2_goaway_timeout)

    # The time for an ending has passed; see `wire.ending`.
    def _end_passed(self, now: float) -> None:
        left = self._driver.unacknowledged_bytes()
        if left > FAREWELL_BYTES:
            progress = self._progress = watched(self._progress, left, now, self._config)
            wait = progress.look(left, now)
            if wait:
                self._end_in(wait)
            else:
                self._forget()
                self._driver.drop()
        elif not self._closed:
            self._close()
        else:
            self._driver.release()

    # Whether the client is not idle yet: it takes the last response.
    def _still_reads(self, now: float) -> bool:
        left = self._driver.unacknowledged_bytes()
        if not left:
            begun = self._progress is not None
            if begun:
                self._rest(now)  # from now on it is
            return begun
        progress = self._progress = watched(self._progress, left, now, self._config)
        wait = progress.look(left, now)
        if wait:
            self._idle_deadline = now + wait
        return bool(wait)

    # For how long yet a client may leave a ping unanswered, since it takes what stands before it; 0 if it does not.
    def _patience(self, now: float) -> float:
        left, progress = self._driver.unacknowledged_bytes(), self._ping_progress
        if not left:
            return 0.0
        if progress is None:
            self._ping_progress = watched(None, left, now, self._config)
            return first_look(self._config.write_timeout)
        return progress.patience(left, self._driver.unsent_bytes(), now)

    # No stream is open: for how long?
    def _rest(self, now: float) -> None:
        self._progress = None  # what an earlier rest has seen is no measure for this one
        if self._config.keep_alive_timeout:
            self._idle_deadline = deadline = now + self._config.keep_alive_timeout
            if deadline < self.deadline:
                self._due_at(deadline)

    # Nothing is waited for any more.
    def _forget(self) -> None:
        self._lingering = self._closed = True
        self.deadline = self._end_deadline = NEVER

    # Close both directions, what has been written still going out.
    def _close(self) -> None:
        self._lingering = self._closed = True
        self._driver.close()
        self._end_in(self._config.close_timeout)

    def _end_in(self, seconds: float) -> None:
        self._end_deadline = self._clock() + seconds
        self.deadline = NEVER  # nothing else counts any more
        self._due_at(self._end_deadline)

    # Something is due at that time. What was due earlier stays due; `deadline_passed` finds out what is.
    def _due_at(self, deadline: float) -> None:
        if deadline < self.deadline:
            self.deadline = deadline
            if deadline < self.armed_for:
                self._driver.rearm(deadline)

"""How a connection ends: one order of phases, one table and one deadline for HTTP/1.1, HTTP/2 and WebSocket.

Theory of operation
-------------------

A connection has a `PhasedConnection.phase`, and only ever moves to the right:

==========  =====================================  ===============================  ===================================
phase       HTTP/1.1                               HTTP/2                           WebSocket
==========  =====================================  ===============================  ===================================
CONNECTING  -                                      -                                the handshake has no answer yet
OPEN        requests are served                    streams are opened               messages come and go
ANNOUNCED   -                                      a first GOAWAY has gone out;     -
                                                   streams are still opened
LAST        the response under way, or the next    GOAWAY has named the last        our Close frame has gone out, the
            one, is the last                       stream                           client's is awaited
LINGERING   our half is closed; what the client sends is read and thrown away
CLOSED      both halves are closed, or will be once everything written is out
GONE        nothing is awaited: dropped, lost, or handed to another protocol
==========  =====================================  ===============================  ===================================

1. Closing has two stages: our half (LINGERING), then the whole (CLOSED). Each has its time, and `deadline` is when that
   is over. A client that keeps taking bytes of a large answer gets more of it.
2. When the time for an ending has passed, `STEPS` says what to do, by the phase and by what the client has taken since
   the last look. A pair that is not in the table ends the connection with a reset.
3. From LINGERING on, `deadline` belongs to the ending alone.
4. Every method here can be called in every phase. A move to the left is none; an ending that has been reached already
   is not reached again.

How a protocol builds on this
-----------------------------

* Derive from ``PhasedConnection[ItsDriver]``, call its ``__init__`` with the phase to begin in, and list none of its
  slots again. Set `PhasedConnection.steps` if the table differs.
* Compare `phase` with a constant where a flag stood: ``phase >= LINGERING`` for "throw away what comes", ``phase >
  OPEN`` for "no longer than this", ``phase >= CLOSED``. Only `_enter` assigns to it, and forgets `_progress`.
* End with `_close_half`, `_close` (with ``read=True`` where nothing more is expected of the client), `_abort` or
  `break_off`; call `_lost` when the transport is gone. Each does its part on the driver and the deadline, and nothing
  on what the protocol owns: sinks, queues and engines are let go by the caller, before.
* In ``deadline_passed``, call `_end_passed` when `phase` says that an ending is under way. If the phase has moved
  afterwards, let go of what is still held.
* An idle connection that is about to be closed asks `_idle_extension` first. A connection that waits for the answer to
  a ping asks `progress.pong_patience`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Generic, TypeVar

from daphne_ng.config import Config
from daphne_ng.wire.driver import ConnectionDriver
from daphne_ng.wire.progress import FAREWELL_BYTES, Progress, watched

__all__ = [
    "ABORT",
    "ANNOUNCED",
    "AWAIT_ANSWER",
    "CLOSE",
    "CLOSED",
    "CONNECTING",
    "DELIVERED",
    "DROP",
    "EMPTY",
    "GONE",
    "LAST",
    "LINGERING",
    "MOVING",
    "NEVER",
    "OPEN",
    "RELEASE",
    "STEPS",
    "STUCK",
    "WAIT",
    "WEBSOCKET_STEPS",
    "PhasedConnection",
]

NEVER: Final = float("inf")

# The phases, as above. Plain integers: HTTP/1.1 compares one several times for each request.
CONNECTING: Final = 0
OPEN: Final = 1
ANNOUNCED: Final = 2
LAST: Final = 3
LINGERING: Final = 4
CLOSED: Final = 5
GONE: Final = 6

# What the client has done with what was written to it. The last FAREWELL_BYTES count as taken.
MOVING: Final = 0  # bytes are left, and it takes enough of them
STUCK: Final = 1  # bytes are left, and it has taken too few within `Config.write_timeout`
DELIVERED: Final = 2  # none are left, but some were at the last look
EMPTY: Final = 3  # none are left

# What to do.
WAIT: Final = 0  # look again soon
AWAIT_ANSWER: Final = 1  # begin the time for the client's answer: only now has it got all
CLOSE: Final = 2  # close both halves, what was written still going out
RELEASE: Final = 3  # close the socket; what the kernel holds still goes out
DROP: Final = 4  # drop the connection, with a line in the log that the client stopped reading
ABORT: Final = 5  # drop the connection

STEPS: Final[Mapping[tuple[int, int], int]] = {
    (LINGERING, MOVING): WAIT,
    (LINGERING, STUCK): DROP,
    (LINGERING, DELIVERED): CLOSE,
    (LINGERING, EMPTY): CLOSE,
    (CLOSED, MOVING): WAIT,
    (CLOSED, STUCK): DROP,
    (CLOSED, DELIVERED): RELEASE,
    (CLOSED, EMPTY): RELEASE,
}

# A Close frame awaits the client's, which has its time from when the client has got ours.
WEBSOCKET_STEPS: Final[Mapping[tuple[int, int], int]] = {
    **STEPS,
    (LAST, MOVING): WAIT,
    (LAST, STUCK): DROP,
    (LAST, DELIVERED): AWAIT_ANSWER,
    (LAST, EMPTY): CLOSE,
    (LINGERING, DELIVERED): AWAIT_ANSWER,
}

_Driver = TypeVar("_Driver", bound=ConnectionDriver)


class PhasedConnection(Generic[_Driver]):
    """The phase of a connection, its one deadline, and the ways in which it ends.

    Args:
        config: Limits and timeouts.
        driver: The I/O around it.
        phase: The phase to begin in.
    """

    __slots__ = ("_clock", "_config", "_driver", "_progress", "armed_for", "deadline", "phase")

    steps: ClassVar[Mapping[tuple[int, int], int]] = STEPS
    """(phase, what the client has done) -> what to do when the time for an ending has passed."""

    def __init__(self, config: Config, driver: _Driver, phase: int = OPEN) -> None:
        self._config = config
        self._driver = driver
        self._clock = driver.clock
        self._progress: Progress | None = None
        self.phase = phase
        """See the table in `daphne_ng.wire.ending`."""
        self.deadline = NEVER
        """When something must happen unless something else happens first."""
        self.armed_for = NEVER
        """When the driver's timer will fire; the driver keeps it up to date."""

    def break_off(self) -> None:
        """See `ResponsePort.break_off`: drop the connection, whose state may be wrong."""
        self._lost()
        self._driver.break_off()

    # Move to a phase, or stay in one that is further to the right. What a watch over the client has seen in another
    # phase is no measure for this one.
    def _enter(self, phase: int) -> None:
        if phase > self.phase:
            self.phase = phase
            self._progress = None

    # Close our half, and give the client until the deadline to read the answer: then the rest of its bytes meets a
    # reset.
    def _close_half(self, deadline: float) -> None:
        if self.phase < LINGERING:
            self._enter(LINGERING)
            self._driver.close_writing()
            self._set_deadline(deadline)

    # Close both halves, what has been written still going out. A client that may still send, and has much to take,
    # would meet a reset: our half is closed first then, unless nothing more is to be read.
    def _close(self, *, read: bool = False) -> None:
        if self.phase < GONE:
            self._enter(CLOSED)
            self._progress = None  # also where the client's end comes behind ours
            if read:
                self._driver.close()
            else:
                self._driver.finish()
            self._set_deadline(self._clock() + self._config.close_timeout)

    # Drop the connection, so that a response that was cut off shows.
    def _abort(self) -> None:
        if self.phase < GONE:
            self._lost()
            self._driver.abort()

    # The transport is gone, or has nothing to do with this connection any more.
    def _lost(self) -> None:
        self._enter(GONE)
        self.deadline = NEVER

    # The time for an ending has passed. While something is left for the client, that is a pause like any other: it gets
    # all as long as it takes some.
    def _end_passed(self, now: float) -> None:
        left = self._driver.unacknowledged_bytes()
        wait = 0.0
        if left > FAREWELL_BYTES:
            wait = self._look(left, now)
            taken = MOVING if wait else STUCK
        else:
            taken = EMPTY if self._progress is None else DELIVERED
        step = self.steps.get((self.phase, taken), ABORT)
        if step == WAIT:
            self._set_deadline(now + wait)
        elif step == AWAIT_ANSWER:
            self._progress = None
            self._set_deadline(now + self._config.close_timeout)
        elif step == CLOSE:
            self._close()
        elif step == RELEASE:
            self._driver.release()
        elif step == DROP:
            self._lost()
            self._driver.drop()
        else:
            self._abort()

    # For how many seconds yet a connection without requests is kept, 0 if it is to be closed now. It is not idle while
    # its client takes the last response, and from then on it has the time of any idle connection.
    def _idle_extension(self, now: float) -> float:
        left = self._driver.unacknowledged_bytes()
        if left:
            return self._look(left, now)
        if self._progress is None:
            return 0.0
        self._progress = None
        return self._config.keep_alive_timeout

    # In how many seconds to look again at a client for which so many bytes are left; 0 if it has stopped reading.
    def _look(self, left: int, now: float) -> float:
        progress = self._progress = watched(self._progress, left, now, self._config)
        return progress.look(left, now)

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.armed_for:
            self._driver.rearm(deadline)

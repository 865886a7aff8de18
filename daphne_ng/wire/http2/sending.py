"""The sender of a connection: it makes frames of what waits in the streams, as windows and transport allow.

What the application sends waits in its stream. `Sender.pump` takes frames from there as the stream's window, the
connection's window and the caller's limit allow:

* With one stream waiting, nothing is decided, and the schedule is not touched.
* With several, the `Schedule` says which is next (`http2.schedule`).
* A stream whose own window is closed does not wait, and delays no other; it comes back when its window opens.

A window that stays closed ends the stream, or the connection (`Config.http2_stall_timeout`). One that is opened byte by
byte must not hold either for ever. So a `Stall` counts only the time in which the window was closed, and forgets it
only when as much was sent as `daphne_ng.wire.progress` asks for in that time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from daphne_ng.wire.ending import NEVER
from daphne_ng.wire.http2.budget import Budget
from daphne_ng.wire.http2.engine import Engine
from daphne_ng.wire.http2.records import StreamRecord, StreamRecords
from daphne_ng.wire.http2.schedule import Schedule
from daphne_ng.wire.http2.states import ENDING, SENT

__all__ = ["SEND_HIGH_BYTES", "SEND_LOW_BYTES", "Sender", "Stall", "do_nothing"]

SEND_HIGH_BYTES: Final = 65536
"""Bytes that may wait in a stream before `writable` asks to wait: one part of the sizes that frameworks send, as h1."""
SEND_LOW_BYTES: Final = 16384
"""Bytes that may be left in a stream when an application that waited goes on."""

# Several streams share the connection in frames of this size: at 10 Mbit/s, one takes 13 ms.
_SHARED_FRAME_BYTES: Final = 16384


class Stall:
    """For how long a window has been closed, all in all, while something waited for it.

    Args:
        floor: Bytes that have to be sent before that is forgotten.
    """

    __slots__ = ("_floor", "_sent", "_spent", "since")

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._sent = 0
        self._spent = 0.0
        self.since = NEVER
        """When it would have begun, had the window been closed from then on; `NEVER` while it is open."""

    def closed(self, now: float) -> None:
        """The window is closed; it may have been so before."""
        if self.since == NEVER:
            self.since = now - self._spent

    def opened(self, now: float) -> None:
        """The window is open."""
        if self.since != NEVER:
            self._spent = now - self.since
            self.since = NEVER

    def sent(self, count: int) -> bool:
        """Note that `count` bytes went out. Returns whether all is forgotten."""
        self._sent += count
        return self._sent >= self._floor


def do_nothing(*_arguments: object) -> None:
    """Stand in for a call to a connection whose transport is gone."""


class SendingStream(Protocol):
    """A stream as the sender knows it."""

    id: int
    record: StreamRecord
    response: int
    """The state of the response half. `ENDING`: when all that waits is sent, the response is."""
    buffered: int
    """Bytes that wait."""
    trailers_due: bytes | None
    urgency: int
    incremental: bool
    stall: Stall | None

    def queue(self, data: bytes) -> None:
        """Let bytes wait."""

    def take(self, length: int) -> list[bytes | memoryview]:
        """Take bytes out of what waits."""

    def last_frame_made(self) -> None:
        """The response is complete."""


class Sender:
    """Sends what waits in the streams of a connection.

    Args:
        engine: Knows the window of the connection.
        records: Makes the frames, and knows the windows of the streams.
        budget: What responses and DATA frames earn the client.
        clock: Seconds.
        full: Whether the transport holds enough.
        floor: See `Stall`.
        wants_flush: Have the output sent at the end of this turn, or on the next.
    """

    __slots__ = (
        "_budget",
        "_clock",
        "_engine",
        "_floor",
        "_full",
        "_joined",
        "_records",
        "_schedule",
        "_waiting",
        "_wants_flush",
        "blocked",
        "starving",
    )

    def __init__(
        self,
        engine: Engine,
        records: StreamRecords,
        budget: Budget,
        clock: Callable[[], float],
        full: Callable[[], bool],
        floor: int,
        wants_flush: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._records = records
        self._budget = budget
        self._clock = clock
        self._full = full
        self._floor = floor
        self._wants_flush = wants_flush
        # Made when first two streams wait. A stream that waits no longer leaves it when its turn comes: mostly it has
        # more to send by then. Streams that have joined since are added before the schedule is asked.
        self._schedule: Schedule | None = None
        self._joined: dict[int, SendingStream] = {}
        # Streams that have something to send, and a window for it as far as is known.
        self._waiting: dict[int, SendingStream] = {}
        self.blocked: dict[int, SendingStream] = {}
        """Streams that have something to send and no window for it."""
        self.starving: Stall | None = None
        """How the connection's window has kept all of them waiting."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits that could be sent."""
        return not self._waiting

    @property
    def waits(self) -> bool:
        """Whether anything waits at all."""
        return bool(self._waiting or self.blocked)

    def send_head(self, stream: SendingStream, block: bytes, end: bool, interim: bool = False) -> None:
        """Send a header block, at once: it is not subject to flow control."""
        record = stream.record
        if record.closed:
            if end:
                stream.response = SENT
            return
        if not interim:
            self._budget.responses += 1
        self._records.send_block(record, block, end, interim)
        if end:
            stream.last_frame_made()
        self._wants_flush()

    def send_whole(self, stream: SendingStream, block: bytes, body: bytes) -> None:
        """Send a whole response, its body in the same write if nothing is in the way."""
        engine, records, budget, record = self._engine, self._records, self._budget, stream.record
        if not self._waiting and not self._full() and records.send_whole(record, block, body):
            budget.responses += 1
            budget.data_frames += 1
            budget.data_bytes += len(body)
            stream.last_frame_made()
            self._wants_flush()
            return
        if record.closed:
            stream.response = SENT
            return
        records.send_block(record, block, False)
        budget.responses += 1
        size = len(body)
        if (
            not self._waiting
            and size <= record.send_window
            and size <= engine.outbound_flow_control_window
            and size <= records.frame_max
            and not self._full()
        ):
            records.send_part(record, [body], size, True)
            budget.data_sent(size)
            stream.last_frame_made()
            self._wants_flush()
        else:
            stream.queue(body)

    def add(self, stream: SendingStream) -> None:
        """Note that a stream has something to send: data, or its end."""
        self._wants_flush()
        stream_id = stream.id
        if stream_id in self.blocked and stream.buffered:
            return
        self.blocked.pop(stream_id, None)
        if stream_id not in self._waiting:
            self._waiting[stream_id] = self._joined[stream_id] = stream

    def remove(self, stream: SendingStream) -> None:
        """Forget a stream."""
        stream_id = stream.id
        self._waiting.pop(stream_id, None)
        self._joined.pop(stream_id, None)
        self.blocked.pop(stream_id, None)
        if not self._waiting:
            self.starving = None  # no stream waits for the connection's window
        if self._schedule is not None:
            self._schedule.remove(stream_id)

    def reprioritized(self, stream: SendingStream) -> None:
        """Note that a stream's priority has changed."""
        if self._schedule is not None:
            self._schedule.remove(stream.id)
        if stream.id in self._waiting:
            self._joined[stream.id] = stream

    def connection_window_opened(self) -> None:
        """Note that the window of the connection may have been opened."""
        if self.starving is not None and self._engine.outbound_flow_control_window > 0:
            self.starving.opened(self._clock())

    def window_opened(self, stream_id: int) -> None:
        """Note that the window of a stream may have been opened."""
        stream = self.blocked.get(stream_id)
        if stream is not None and stream.record.send_window > 0:
            del self.blocked[stream_id]
            if stream.stall is not None:
                stream.stall.opened(self._clock())
            self._waiting[stream_id] = self._joined[stream_id] = stream

    def stalled_since(self) -> float:
        """Return since when a window has been closed that something waits for; `NEVER` if there is none."""
        since = NEVER if self.starving is None else self.starving.since
        for stream in self.blocked.values():
            if stream.stall is not None:
                since = min(since, stream.stall.since)
        return since

    def pump(self, limit: int) -> int:
        """Make frames of what waits, of up to `limit` bytes and one frame more. Returns the bytes of data in them."""
        waiting = self._waiting
        engine, records = self._engine, self._records
        sent = 0
        while waiting and sent < limit:
            if engine.outbound_flow_control_window <= 0 and any(stream.buffered for stream in waiting.values()):
                for stream in [bare for bare in waiting.values() if not bare.buffered]:
                    self._send_frame(stream, 0)
                if self.starving is None:
                    self.starving = Stall(self._floor)
                self.starving.closed(self._clock())
                break
            if len(waiting) == 1:
                stream = next(iter(waiting.values()))
                sent += self._send_frame(stream, records.frame_max)
            else:
                stream = waiting[self._scheduled()]
                sent += self._send_frame(stream, min(records.frame_max, _SHARED_FRAME_BYTES))
        if sent and self.starving is not None and self.starving.sent(sent):
            self.starving = None
        return sent

    # Return the next stream of several.
    def _scheduled(self) -> int:
        schedule, waiting = self._schedule, self._waiting
        if schedule is None:
            schedule = self._schedule = Schedule()
        if self._joined:
            for stream_id, stream in self._joined.items():
                if stream_id in waiting:
                    schedule.add(stream_id, stream.urgency, stream.incremental)
            self._joined.clear()
        while True:
            stream_id = schedule.next()
            if stream_id in waiting:
                return stream_id
            schedule.remove(stream_id)

    # Make one frame. Returns the bytes of data in it.
    def _send_frame(self, stream: SendingStream, frame_max: int) -> int:
        records, record = self._records, stream.record
        buffered = stream.buffered
        length = min(buffered, frame_max)
        if buffered:
            window = min(record.send_window, self._engine.outbound_flow_control_window)
            if window <= 0:
                self._stop_waiting(stream)
                self.blocked[stream.id] = stream
                if stream.stall is None:
                    stream.stall = Stall(self._floor)
                stream.stall.closed(self._clock())
                return 0
            length = min(length, window)
            if stream.stall is not None and (stream.stall.sent(length) or length == buffered):
                stream.stall = None
            # A client that opens its windows byte by byte has not earned an update for each.
            if length == buffered or length >= 256:
                self._budget.data_sent(length)
        last = length == buffered and stream.response == ENDING
        trailers = stream.trailers_due
        if buffered or (last and trailers is None):
            records.send_part(record, stream.take(length), length, last and trailers is None)
        if last and trailers is not None:
            records.send_block(record, trailers, True)
        if length == buffered:
            self._stop_waiting(stream)
        if last:
            self.remove(stream)
            stream.last_frame_made()
        return length

    def let_go(self) -> None:
        """Forget every stream: the connection is gone."""
        self._waiting.clear()
        self._joined.clear()
        self.blocked.clear()
        self._schedule = None
        self._wants_flush = do_nothing

    # A stream has nothing to send, or no window for it.
    def _stop_waiting(self, stream: SendingStream) -> None:
        self._waiting.pop(stream.id, None)
        self._joined.pop(stream.id, None)
        if not self._waiting:
            self.starving = None

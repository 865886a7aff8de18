"""What goes out on the streams of a connection: frames of what waits there, as windows and transport allow.

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
from typing import TYPE_CHECKING

from daphne_ng.wire.http2.schedule import Schedule
from daphne_ng.wire.http2.sieve import NEVER

if TYPE_CHECKING:
    from daphne_ng.wire.http2.engine import Engine
    from daphne_ng.wire.http2.stream import Http2Stream

__all__ = ["SEND_HIGH_BYTES", "SEND_LOW_BYTES", "Sender", "Stall"]

SEND_HIGH_BYTES = 65536
"""What may wait in a stream before `writable` asks to wait: one part of the sizes that frameworks send, as h1."""
SEND_LOW_BYTES = 16384
"""What must be left at most before those who waited go on."""

# Several streams share the connection in frames of this size: at 10 Mbit/s, one takes 13 ms.
_SHARED_FRAME_BYTES = 16384


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
        """So much went out. Returns whether all is forgotten."""
        self._sent += count
        return self._sent >= self._floor


def _nothing(*_arguments: object) -> None: ...


class Sender:
    """What waits to be sent on the streams of a connection.

    Args:
        engine: Makes the frames, and knows the windows.
        clock: Seconds.
        floor: See `Stall`.
        data_sent: Called with the length of each DATA frame that no window cut short.
        finished: Called with each stream whose last frame has been made.
    """

    __slots__ = (
        "_clock",
        "_data_sent",
        "_engine",
        "_finished",
        "_floor",
        "_joined",
        "_schedule",
        "_waiting",
        "blocked",
        "starving",
    )

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], float],
        floor: int,
        data_sent: Callable[[int], None],
        finished: Callable[[Http2Stream], None],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._floor = floor
        self._data_sent = data_sent
        self._finished = finished
        # Made when first two streams wait. Those that wait no longer leave it when it comes to them: mostly they have
        # more to send by then. Those that have joined since are added before it is asked.
        self._schedule: Schedule | None = None
        self._joined: dict[int, Http2Stream] = {}
        # Streams that have something to send, and a window for it as far as is known.
        self._waiting: dict[int, Http2Stream] = {}
        self.blocked: dict[int, Http2Stream] = {}
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

    def add(self, stream: Http2Stream) -> None:
        """Note that a stream has something to send: data, or its end."""
        stream_id = stream.id
        if stream_id in self.blocked and stream.buffered:
            return
        self.blocked.pop(stream_id, None)
        if stream_id not in self._waiting:
            self._waiting[stream_id] = self._joined[stream_id] = stream

    def remove(self, stream: Http2Stream) -> None:
        """Forget a stream."""
        stream_id = stream.id
        self._waiting.pop(stream_id, None)
        self._joined.pop(stream_id, None)
        self.blocked.pop(stream_id, None)
        if not self._waiting:
            self.starving = None  # nobody is
        if self._schedule is not None:
            self._schedule.remove(stream_id)

    def reprioritized(self, stream: Http2Stream) -> None:
        """Note that a stream's priority has changed."""
        if self._schedule is not None:
            self._schedule.remove(stream.id)
        if stream.id in self._waiting:
            self._joined[stream.id] = stream

    def opened(self, *streams: int) -> None:
        """Note that the windows of some streams may have been opened; without any, that of the connection."""
        if not streams and self.starving is not None and self._engine.outbound_flow_control_window > 0:
            self.starving.opened(self._clock())
        for stream_id in streams:
            stream = self.blocked.get(stream_id)
            if stream is not None and stream.h2.outbound_flow_control_window > 0:
                del self.blocked[stream_id]
                if stream.stall is not None:
                    stream.stall.opened(self._clock())
                self._waiting[stream_id] = self._joined[stream_id] = stream

    def pump(self, limit: int) -> int:
        """Make frames of what waits, of up to `limit` bytes and one frame more. Returns the bytes of data in them."""
        waiting = self._waiting
        engine = self._engine
        sent = 0
        while waiting and sent < limit:
            if engine.outbound_flow_control_window <= 0 and any(stream.buffered for stream in waiting.values()):
                for stream in [one for one in waiting.values() if not one.buffered]:
                    self._send_frame(stream, 0)
                if self.starving is None:
                    self.starving = Stall(self._floor)
                self.starving.closed(self._clock())
                break
            if len(waiting) == 1:
                stream = next(iter(waiting.values()))
                sent += self._send_frame(stream, engine.frame_max)
            else:
                stream = waiting[self._scheduled()]
                sent += self._send_frame(stream, min(engine.frame_max, _SHARED_FRAME_BYTES))
        if sent and self.starving is not None and self.starving.sent(sent):
            self.starving = None
        return sent

    # Who is next among several.
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
    def _send_frame(self, stream: Http2Stream, frame_max: int) -> int:
        engine = self._engine
        buffered = stream.buffered
        h2 = stream.h2
        length = min(buffered, frame_max)
        if buffered:
            window = min(h2.outbound_flow_control_window, engine.outbound_flow_control_window)
            if window <= 0:
                self._rest(stream)
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
                self._data_sent(length)
        last = length == buffered and stream.end_due
        trailers = stream.trailers_due
        if buffered or (last and trailers is None):
            engine.send_part(h2, stream.take(length), length, last and trailers is None)
        if last and trailers is not None:
            engine.send_block(h2, trailers, True)
        if length == buffered:
            self._rest(stream)
        if last:
            self.remove(stream)
            self._finished(stream)
        return length

    def let_go(self) -> None:
        """Forget everybody: the connection is gone."""
        self._waiting.clear()
        self._joined.clear()
        self.blocked.clear()
        self._finished = self._data_sent = _nothing
        self._schedule = None

    # A stream has nothing to send, or no window for it.
    def _rest(self, stream: Http2Stream) -> None:
        self._waiting.pop(stream.id, None)
        self._joined.pop(stream.id, None)
        if not self._waiting:
            self.starving = None

"""What every protocol on a transport needs from it: writing, back-pressure, the ways to end, and one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from daphne_ng.net.channels.endings import abort, close_half, finish, peer_gone, release
from daphne_ng.net.channels.flow import WriteFlow, unacknowledged_bytes, unsent_bytes
from daphne_ng.net.context import ServerContext
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wire.ending import NEVER

__all__ = ["Channel", "DeadlineTimer", "Timed"]


class Timed(Protocol):
    """A protocol state that knows when something must happen next."""

    deadline: float
    armed_for: float

    def deadline_passed(self, now: float) -> None:
        """Act on the deadline."""


class DeadlineTimer:
    """The one timer of a connection, re-armed lazily: a deadline that moves away costs nothing.

    Args:
        loop: Whose clock counts.
        subject: What is timed.
    """

    __slots__ = ("_handle", "_loop", "_subject")

    def __init__(self, loop: asyncio.AbstractEventLoop, subject: Timed) -> None:
        self._loop = loop
        self._subject = subject
        self._handle: asyncio.TimerHandle | None = None

    def rearm(self, deadline: float) -> None:
        """Fire at `deadline`, which is earlier than before."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_at(deadline, self._fire)
        self._subject.armed_for = deadline

    def cancel(self) -> None:
        """Give the timer back."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        subject = self._subject
        self._handle = None
        subject.armed_for = NEVER
        subject.deadline_passed(self._loop.time())
        if subject.deadline < subject.armed_for:
            self.rearm(subject.deadline)


class Channel:
    """The I/O around one connection or stream; the common part of the drivers.

    Args:
        context: The server.
        transport: Where the bytes go. The channel registers the producer with it.
        info: What is known of the connection.
        flow: The producer, if one is registered already.
    """

    __slots__ = (
        "_context",
        "_info",
        "_transport",
        "clock",
        "flow",
        "full",
        "when_flushed",
        "writable",
        "write",
        "write_sequence",
    )

    def __init__(
        self, context: ServerContext, transport: Any, info: ConnectionInfo, flow: WriteFlow | None = None
    ) -> None:
        self._context = context
        self._transport = transport
        self._info = info
        if flow is None:
            config = context.config
            flow = WriteFlow(transport, context.loop, config.write_timeout, config.write_min_rate, self.drop)
            transport.registerProducer(flow, True)
        else:
            flow.stalled = self.drop
        self.flow = flow
        self.full: Callable[[], bool] = flow.full
        self.write: Callable[[bytes], None] = transport.write
        self.write_sequence: Callable[[list[bytes]], None] = transport.writeSequence
        self.writable: Callable[[], Awaitable[object] | None] = flow.writable
        self.when_flushed: Callable[[Callable[[int], int]], bool] = flow.when_flushed
        self.clock = context.clock

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`."""
        self._transport.pauseProducing()

    def resume_reading(self) -> None:
        """Deliver again."""
        self._transport.resumeProducing()

    def close(self) -> None:
        """Flush, then close both directions."""
        self._end_flow()
        self._transport.loseConnection()

    def finish(self) -> None:
        """As `close`, but while the client has much to take yet, only our direction."""
        self._end_flow()
        finish(self._transport)

    def close_writing(self) -> None:
        """Flush, then close our direction."""
        self._end_flow()
        close_half(self._transport)

    # Nobody waits for room any more, and nothing that is closed behind what is flushed waits for the producer: with a
    # registered one the transport would close neither the connection nor its half when its buffer is empty.
    def _end_flow(self) -> None:
        self._transport.unregisterProducer()
        self.flow.stopProducing()

    def unacknowledged_bytes(self) -> int:
        """Return how many bytes written the client has not acknowledged yet, as far as the system tells."""
        return unacknowledged_bytes(self._transport)

    def unsent_bytes(self) -> int:
        """Return how many of them the kernel has not taken yet."""
        return unsent_bytes(self._transport)

    def release(self) -> None:
        """Close the socket; what the kernel holds still goes out."""
        release(self._transport)

    def abort(self) -> None:
        """Drop the connection at once, so that what was cut off shows."""
        self._cut_off(self.unacknowledged_bytes())
        abort(self._transport)

    def break_off(self) -> None:
        """Drop the connection at once, with all that it carries besides."""
        # A tunnel has a carrier: its connection.
        abort(getattr(self._transport, "carrier", self._transport))

    def drop(self) -> None:
        """The client has stopped reading: say so in the log, and drop the connection at once."""
        config, left = self._context.config, self.unacknowledged_bytes()
        self._context.lines.tell(
            "Dropped a connection from %s: the client stopped reading; it had taken less than %g bytes a second for "
            "%g s (--write-min-rate, --write-timeout), and %d bytes were left for it%s",
            self._info.client_name,
            config.write_min_rate,
            config.write_timeout,
            left,
            self._cut_off(left),
        )
        abort(self._transport)

    # Note that so many bytes are cut off. Returns a clause for the log that says of what, empty where it is not known.
    def _cut_off(self, left: int) -> str:
        return ""

    def peer_gone(self) -> bool:
        """Tell whether the client is known to have left, without reading."""
        return peer_gone(self._transport)

    # Call on a later turn of the loop, and not while the transport is full.
    def _with_room(self, callback: Callable[[], None]) -> None:
        room = self.flow.writable()
        if room is None:
            self._context.loop.call_soon(callback)
        else:
            room.add_done_callback(lambda _room: callback())

    # The transport is gone. References back to this channel are cut, so that nothing has to wait for the garbage
    # collector, which looks at objects that have lived as long as a WebSocket only now and then.
    def _let_go(self) -> None:
        self.flow.stopProducing()
        self.flow.report(0)
        self.flow.stalled = _nothing


def _nothing() -> None:
    pass

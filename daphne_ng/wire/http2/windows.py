"""The windows through which a client sends (RFC 9113 section 5.2), and when each of them is given back.

A `ReceiveWindow` is what the client may still send, of a stream or of the connection. What was received is *due*: it
will be given back, in one WINDOW_UPDATE for half a window. What the application has not taken, and has no room for, is
*held* until it has. A window that was given back whole without anything being held doubles, up to its limit: so a
stream starts small, and grows with an application that keeps up.

`InboundWindows` has the window of the connection and the rules for all of them. Each DATA frame comes by one of these:

=============  ===============================  ==================================================================
call           the stream's window              the connection's window
=============  ===============================  ==================================================================
`credit`       given back                       given back
`hold`         held until `release`             given back, unless all streams together hold too much: then held
`skip`         -                                given back, behind the back of h2, which has not seen the frame
=============  ===============================  ==================================================================
"""

from __future__ import annotations

from typing import Final, Protocol

from daphne_ng.config import Config
from daphne_ng.wire.http2.engine import Engine
from daphne_ng.wire.http2.frames import DEFAULT_WINDOW_BYTES, window_update_frame
from daphne_ng.wire.http2.records import StreamRecord, StreamRecords
from daphne_ng.wire.http2.states import COMPLETE_HELD, OVER

__all__ = ["InboundWindows", "ReceiveWindow"]

# The connection's window at first. Streams begin with 64 KiB each, so sixteen uploads may begin at once without one
# waiting for another; it grows like theirs, up to what may be buffered.
_FIRST_WINDOW_BYTES: Final = 1024 * 1024
# The window for DATA that was skipped is given back in pieces of this size, a small part of the first window.
_SKIPPED_BYTES: Final = 32768


class ReceiveWindow:
    """One window: how much the peer may send, and how much is to be given back to it.

    Args:
        size: How much it may send at first.
        limit: How large that may grow.
    """

    __slots__ = ("_due", "_limit", "_steady", "held", "size")

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        """The window with nothing due and nothing held."""
        self._limit = max(limit, size)
        self._due = 0
        self._steady = 0
        self.held = 0
        """Bytes that are given back only after `release`."""

    def credit(self, count: int) -> int:
        """Note that `count` bytes came and are not held. Returns the increment to announce now, mostly 0."""
        self._due += count
        self._steady += count
        return self._announced()

    def hold(self, count: int) -> None:
        """Note that `count` bytes came that are to be held."""
        self.held += count
        self._steady = 0

    def release(self) -> int:
        """Let go what is held. Returns the increment to announce now."""
        self._due += self.held
        self.held = 0
        return self._announced()

    # Half a window is always open or on its way, as long as nothing is held.
    def _announced(self) -> int:
        due = self._due
        if due * 2 < self.size:
            return 0
        self._due = 0
        if self._steady >= self.size < self._limit:
            grown = min(self.size * 2, self._limit)
            due += grown - self.size
            self.size = grown
            self._steady = 0
        return due


class ReceivingStream(Protocol):
    """A stream as the windows know it."""

    record: StreamRecord
    request: int
    response: int
    window: ReceiveWindow | None
    """Made here when the first bytes come."""


class InboundWindows:
    """The windows of a connection and of its streams; see the table at the head of the module.

    Args:
        config: How large they may grow, and how much may be held.
        engine: Announces what is given back of the connection's window.
        records: Announces what is given back of a stream's.
    """

    __slots__ = ("_connection", "_engine", "_held_max", "_records", "_size_max", "_skipped", "held")

    def __init__(self, config: Config, engine: Engine, records: StreamRecords) -> None:
        self._engine = engine
        self._records = records
        self._size_max = config.http2_window_max_bytes
        self._held_max = config.http2_connection_buffer_max_bytes
        self._connection = ReceiveWindow(_FIRST_WINDOW_BYTES, self._held_max)
        self._skipped = 0
        self.held = 0
        """Bytes that all streams together hold."""

    def open(self) -> None:
        """Announce the first window of the connection, which every client takes to be 64 KiB."""
        self._engine.open_window(_FIRST_WINDOW_BYTES - DEFAULT_WINDOW_BYTES, None)

    def credit(self, stream: ReceivingStream | None, count: int) -> None:
        """Give back so many bytes of a stream's window and the connection's; without a stream, of the latter."""
        if not count:
            return
        if stream is not None and stream.request < COMPLETE_HELD:
            window = stream.window
            if window is None:
                window = stream.window = ReceiveWindow(DEFAULT_WINDOW_BYTES, self._size_max)
            increment = window.credit(count)
            if increment and not stream.record.closed:
                self._records.open_window(stream.record, increment)
        increment = self._connection.credit(count)
        if increment:
            self._engine.open_window(increment, None)

    def hold(self, stream: ReceivingStream, padding: int, count: int) -> None:
        """Keep back the window of `count` bytes that the application has no room for; for padding there is room."""
        if padding:
            self.credit(stream, padding)
        window = stream.window
        if window is None:
            window = stream.window = ReceiveWindow(DEFAULT_WINDOW_BYTES, self._size_max)
        window.hold(count)
        self.held += count
        if self.held >= self._held_max:
            self._connection.hold(count)
        else:
            increment = self._connection.credit(count)
            if increment:
                self._engine.open_window(increment, None)

    def release(self, stream: ReceivingStream) -> bool:
        """Give back what a stream holds. Returns whether it held anything."""
        window = stream.window
        if window is None or not window.held:
            return False
        self.held -= window.held
        increment = window.release()
        if increment and stream.request < COMPLETE_HELD and stream.response != OVER and not stream.record.closed:
            self._records.open_window(stream.record, increment)
        if self._connection.held and self.held < self._held_max:
            increment = self._connection.release()
            if increment:
                self._engine.open_window(increment, None)
        return True

    def skip(self, count: int) -> None:
        """Give back the connection's window for DATA that h2 has not seen: it must not see the update either."""
        self._skipped += count
        if self._skipped >= _SKIPPED_BYTES:
            self._engine.output.write(window_update_frame(0, self._skipped))
            self._skipped = 0

"""The parts of a connection that its streams work on, and the calls by which they reach it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from daphne_ng.config import Config
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http2.driver import Http2Driver
from daphne_ng.wire.http2.engine import Engine
from daphne_ng.wire.http2.records import StreamRecords
from daphne_ng.wire.http2.sending import Sender, do_nothing
from daphne_ng.wire.http2.sieve import FrameSieve
from daphne_ng.wire.http2.windows import InboundWindows

__all__ = ["StreamContext"]

_Stream = TypeVar("_Stream")


class StreamContext(Generic[_Stream]):
    """The parts of one connection that its streams share, and the calls by which they reach it.

    A stream knows no connection: it works on the engine, the windows, the sender and the driver itself, and has four
    calls for the rest. When the transport is gone `let_go` makes them do nothing, so that no stream keeps a connection.

    Args:
        config: Limits and timeouts.
        defaults: Fields added to every response.
        driver: The I/O around the connection.
        engine: h2, the judge of what is not plain.
        records: Keeps the states of streams on the wire, and makes frames.
        sieve: Keeps away the frames of streams that were reset.
        windows: Gives back what the client has sent.
        sender: Takes what waits in the streams.
        wants_flush: Have the output sent at the end of this turn, or on the next.
        due_at: Have `Http2Stream.expire` called at that time at the latest.
        became_idle: The last stream has closed.
        break_off: See `ResponsePort.break_off`.
    """

    __slots__ = (
        "awaiting_room",
        "became_idle",
        "break_off",
        "budget",
        "clock",
        "config",
        "defaults",
        "driver",
        "due_at",
        "engine",
        "full",
        "open",
        "outlived",
        "records",
        "sender",
        "sieve",
        "wants_flush",
        "windows",
    )

    def __init__(
        self,
        config: Config,
        defaults: ResponseDefaults,
        driver: Http2Driver[Any],
        engine: Engine,
        records: StreamRecords,
        sieve: FrameSieve,
        windows: InboundWindows,
        sender: Sender,
        wants_flush: Callable[[], None],
        due_at: Callable[[float], None],
        became_idle: Callable[[], None],
        break_off: Callable[[], None],
    ) -> None:
        self.config = config
        self.defaults = defaults
        self.driver = driver
        self.clock = driver.clock
        self.full = driver.full
        """Whether the transport holds enough."""
        self.engine = engine
        self.records = records
        self.sieve = sieve
        self.budget = sieve.budget
        self.windows = windows
        self.sender = sender
        self.wants_flush = wants_flush
        self.due_at = due_at
        self.became_idle = became_idle
        self.break_off = break_off
        self.open: dict[int, _Stream] = {}
        """The streams that are not closed, by number, in the order of their requests."""
        self.awaiting_room: dict[int, _Stream] = {}
        """Streams whose application waits until it may send more."""
        self.outlived = 0
        """Streams that were closed before their response was complete, and whose application has not ended yet."""

    def let_go(self) -> None:
        """Forget the connection, whose transport is gone."""
        self.wants_flush = self.due_at = self.became_idle = self.break_off = do_nothing

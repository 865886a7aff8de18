"""From what the sieve and h2 report about a client's frames to streams, and to what they do.

Exchanges begin after all that one read delivered has been worked on: a request that is reset in the same read never
reaches the application. What is wrong with a request ends its stream, and no other; what is wrong with the connection
is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from h2.events import (
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from daphne_ng.errors import WireError
from daphne_ng.wire.http2.context import StreamContext
from daphne_ng.wire.http2.frames import (
    DATA,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    WINDOW_MAX_BYTES,
    frame_header,
    window_update_frame,
)
from daphne_ng.wire.http2.head import Http2Head, MalformedRequest, check_request_fields
from daphne_ng.wire.http2.records import StreamRecord
from daphne_ng.wire.http2.sending import do_nothing
from daphne_ng.wire.http2.sieve import (
    DATA_RECEIVED,
    GOAWAY_RECEIVED,
    PRIORITY_RECEIVED,
    REQUEST,
    SKIPPED_BLOCK,
    SKIPPED_DATA,
    STREAM_FAULT,
    WINDOW_UPDATED,
    ConnectionFault,
)
from daphne_ng.wire.http2.states import COMPLETE_HELD
from daphne_ng.wire.http2.stream import Http2Stream

__all__ = ["EVENTS", "REPORTS", "Inbound"]

# Priorities that came before their requests.
_EARLY_PRIORITIES_MAX: Final = 100


class Inbound:
    """Makes streams of requests, and hands each stream what comes for it.

    Args:
        context: What the streams of the connection share.
        last_request: Called with the request that is the last to be served (`Config.http2_max_requests`).
        ping_answered: Called with the eight bytes of each PING of ours that the client has answered.
    """

    __slots__ = (
        "_config",
        "_context",
        "_decoder",
        "_driver",
        "_engine",
        "_heads",
        "_last_request",
        "_new",
        "_ping_answered",
        "_priorities",
        "_records",
        "_requests",
        "_requests_max",
        "_sieve",
        "client_leaves",
    )

    def __init__(
        self,
        context: StreamContext[Http2Stream],
        last_request: Callable[[], None],
        ping_answered: Callable[[bytes], None],
    ) -> None:
        self._context = context
        self._config = context.config
        self._driver = context.driver
        self._engine = context.engine
        self._decoder = context.engine.block_decoder
        self._heads = self._decoder.heads
        self._records = context.records
        self._sieve = context.sieve
        self._last_request = last_request
        self._ping_answered = ping_answered
        self._requests = 0
        self._requests_max = context.config.http2_max_requests
        self._new: list[Http2Stream] = []  # streams whose exchanges begin when the read has been worked on
        self._priorities: dict[int, bytes] = {}  # streams' priorities that came before their requests
        self.client_leaves = False
        """Whether the client has sent a GOAWAY: it opens no other stream, and those that are open go on."""

    def receive(self, data: bytes, now: float) -> None:
        """Work on what one read delivered.

        Raises:
            ConnectionFault, CompressionError, ProtocolError: The connection must end. (The last is that of h2.)
        """
        sieve = self._sieve
        for item in sieve.feed(data, now):
            if item.__class__ is bytes:
                self._judge(item, now)
            else:
                report, stream_id, value = item
                if report == REQUEST:
                    block, flag = value
                    # A request without a body whose block has come before is checked already.
                    head = self._heads.get(block) if flag else None
                    known = None if head is None else self._records.open_plain(stream_id, True)
                    if head is not None and known is not None:
                        if self._admits(known, now):
                            self._serve(known, head.repeated(), True)
                        continue
                    repeats = flag and self._decoder.knows(block)
                    record, fields = self._records.open(stream_id, block, bool(flag))
                    self._open(record, fields, block if repeats else None, bool(flag), now)
                elif report == DATA_RECEIVED:
                    payload, flag = value
                    self._data_received(stream_id, payload, flag, now)
                else:
                    REPORTS[report](self, stream_id, value, now)
        if sieve.fault is not None:
            raise sieve.fault
        if self._new:
            new, self._new = self._new, []
            for stream in new:
                stream.begin(now)

    def lose_all(self, reason: str) -> None:
        """Close every stream, and tell its exchange why."""
        self._new.clear()
        for stream in list(self._context.open.values()):
            stream.lose(reason)

    def let_go(self) -> None:
        """Forget the connection, whose transport is gone."""
        self._last_request = self._ping_answered = do_nothing

    # -- requests ----------------------------------------------------------------------------------------

    # Serve a request, or refuse it. Its block is given if its head is to be kept for the next one with the same block.
    def _open(self, record: StreamRecord, fields: Any, block: bytes | None, ended: bool, now: float) -> None:
        context, driver = self._context, self._driver
        if record.closed:
            self._records.forget(record)  # it was reset in the same breath
            return
        if not self._admits(record, now):
            return
        try:
            head = check_request_fields(fields, self._config, ended, True)
        except MalformedRequest as malformed:
            self._refuse(record, malformed.code, now)
            driver.refused(None, malformed.status, malformed.detail, False)
            return
        except WireError as error:
            head = Http2Head()
            head.method = "HEAD" if (b":method", b"HEAD") in fields else "GET"
            stream = context.open[record.stream_id] = Http2Stream(context, record, head, ended)
            driver.refused(None, error.status, error.detail, False)
            stream.answer(error)
            return
        if block is not None and record.h2 is None and head.repeatable:
            self._decoder.keep_head(block, head.repeated(), head.cost_bytes)
        self._serve(record, head, ended)

    # Whether one more stream may be open; if not, this one is refused.
    def _admits(self, record: StreamRecord, now: float) -> bool:
        context = self._context
        if len(context.open) + context.outlived < self._config.http2_max_concurrent_streams:
            return True
        self._refuse(record, REFUSED_STREAM, now)
        return False

    def _serve(self, record: StreamRecord, head: Http2Head, ended: bool) -> None:
        stream_id = record.stream_id
        context = self._context
        stream = context.open[stream_id] = Http2Stream(context, record, head, ended)
        if self._priorities:
            value = self._priorities.pop(stream_id, None)
            if value is not None:
                stream.prioritize(value)
        self._new.append(stream)
        self._requests += 1
        if self._requests == self._requests_max:
            self._last_request()

    # Reset a stream that no `Http2Stream` is made for.
    def _refuse(self, record: StreamRecord, code: int, now: float) -> None:
        self._records.send_reset(record, code)
        self._records.forget(record)
        self._sieve.give_up(record.stream_id)
        self._sieve.take_reset(now)

    # -- what h2 reports ---------------------------------------------------------------------------------

    def _judge(self, data: bytes, now: float) -> None:
        events, resets = self._engine.receive(data)
        if resets:
            self._sieve.take_reset(now, resets)
        for event in events:
            kind = event.__class__
            if kind is DataReceived:  # by far the most of them
                stream = self._context.open.get(event.stream_id)
                if stream is not None:
                    ended = event.stream_ended is not None
                    stream.data_received(event.data, event.flow_controlled_length, ended, now)
                else:
                    self._context.windows.credit(None, event.flow_controlled_length)
            else:
                take = EVENTS.get(kind)
                if take is not None:
                    take(self, event, now)

    def _request_received(self, event: Any, now: float) -> None:
        record = self._records.adopt(self._engine.streams[event.stream_id])
        self._open(record, self._engine.fields(event), None, event.stream_ended is not None, now)

    def _trailers_received(self, event: Any, now: float) -> None:
        stream = self._context.open.get(event.stream_id)
        if stream is not None:
            stream.trailers_received(self._engine.fields(event), now)

    def _stream_reset(self, event: Any, now: float) -> None:
        stream = self._context.open.get(event.stream_id)
        if stream is not None:
            if event.remote_reset:
                stream.lose("the client reset the stream")
            else:
                self._sieve.give_up(stream.id)
                stream.lose("the client broke the protocol")

    def _window_updated(self, event: Any, now: float) -> None:
        if event.stream_id:
            self._context.sender.window_opened(event.stream_id)
        else:
            self._context.sender.connection_window_opened()

    def _settings_changed(self, event: Any, now: float) -> None:
        sender = self._context.sender
        for stream_id in list(sender.blocked):
            sender.window_opened(stream_id)

    def _ping_acknowledged(self, event: Any, now: float) -> None:
        self._ping_answered(event.ping_data)

    # -- what the sieve reports --------------------------------------------------------------------------

    def _data_received(self, stream_id: int, payload: bytes, flag: int, now: float) -> None:
        stream = self._context.open.get(stream_id)
        size = len(payload)
        ended = bool(flag)
        if stream is not None and self._records.take_data(stream.record, size, ended):
            stream.data_received(payload, size, ended, now)
        else:
            self._judge(frame_header(size, DATA, flag, stream_id) + payload, now)

    def _window_update_received(self, stream_id: int, value: Any, now: float) -> None:
        context = self._context
        if stream_id:
            stream = context.open.get(stream_id)
            if stream is not None and self._records.take_window_update(stream.record, value):
                context.sender.window_opened(stream_id)
                return
        elif self._engine.outbound_flow_control_window + value <= WINDOW_MAX_BYTES:
            self._engine.outbound_flow_control_window += value
            context.sender.connection_window_opened()
            return
        self._judge(window_update_frame(stream_id, value), now)

    def _data_skipped(self, stream_id: int, value: Any, now: float) -> None:
        self._context.windows.skip(value)

    def _block_skipped(self, stream_id: int, value: Any, now: float) -> None:
        # A block that is skipped costs as much as any, and gets no answer.
        self._sieve.take_reset(now)
        self._engine.block_decoder.decode(value)

    def _fault_found(self, stream_id: int, value: Any, now: float) -> None:
        stream = self._context.open.get(stream_id)
        if stream is None:
            raise ConnectionFault(value, "A frame is wrong, and its stream not open.")
        if value == STREAM_CLOSED and stream.request < COMPLETE_HELD:
            value = PROTOCOL_ERROR  # trailers of an open stream
        self._sieve.take_reset(now)
        self._driver.refused(stream.head, 400, "A frame of the request is wrong.", stream.sink is not None)
        stream.cut(value, "a frame of the request is wrong")

    def _goaway_received(self, stream_id: int, value: Any, now: float) -> None:
        self.client_leaves = True

    def _priority_received(self, stream_id: int, value: Any, now: float) -> None:
        stream = self._context.open.get(stream_id)
        if stream is not None:
            stream.prioritize(value)
            self._context.sender.reprioritized(stream)
        # The sieve may have seen later frames than this one, h2 has not.
        elif stream_id > self._engine.highest_inbound_stream_id and len(self._priorities) < _EARLY_PRIORITIES_MAX:
            self._priorities[stream_id] = value


EVENTS: Final[Mapping[type, Callable[[Inbound, Any, float], None]]] = {
    PingAckReceived: Inbound._ping_acknowledged,
    RemoteSettingsChanged: Inbound._settings_changed,
    RequestReceived: Inbound._request_received,
    StreamReset: Inbound._stream_reset,
    TrailersReceived: Inbound._trailers_received,
    WindowUpdated: Inbound._window_updated,
}
"""Event of h2 -> what it does. Events that are not here, but for `DataReceived`, do nothing."""

REPORTS: Final[Mapping[int, Callable[[Inbound, int, Any, float], None]]] = {
    SKIPPED_DATA: Inbound._data_skipped,
    SKIPPED_BLOCK: Inbound._block_skipped,
    STREAM_FAULT: Inbound._fault_found,
    GOAWAY_RECEIVED: Inbound._goaway_received,
    PRIORITY_RECEIVED: Inbound._priority_received,
    WINDOW_UPDATED: Inbound._window_update_received,
}
"""Report of the sieve -> what it does, but for the two that come most: `REQUEST` and `DATA_RECEIVED`."""

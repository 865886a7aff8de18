"""The records of a connection's streams on the wire, and the plain path beside h2.

Theory of operation
-------------------

h2 takes a good part of a request's time, mostly for what an ordinary request is not. So `StreamRecords` keeps
a *plain* stream itself: its state (RFC 9113 section 5.1), and its two windows. A stream is plain from its HEADERS on,
and as long as nothing but ordinary frames come and go on it: DATA without padding, WINDOW_UPDATE, and the HEADERS and
DATA of responses.

1. h2 is the judge of all else. Whatever does not fit (a frame behind END_STREAM, a window that overflows or is not kept
   to, a stream that is not known) is refused here by a plain no, and goes to h2 as a frame.
2. h2 looks its streams up in a table. When it looks for a plain one, for a frame or a reset, the stream becomes *real*:
   an `H2Stream` in the state, with the windows, that it would have come to by the same frames. It stays so.
3. What belongs to the connection is in one place, and that is h2's: both windows, the highest stream, the settings.
   How the latest streams were closed is in `ClosedStreams`, for both.
4. Without the plain path every stream is real from the start. The frames of responses are made here for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from h2.exceptions import FlowControlError
from h2.stream import H2Stream, StreamClosedBy, StreamInputs

from daphne_ng.wire.http2.engine import Engine
from daphne_ng.wire.http2.frames import (
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW_BYTES,
    END_HEADERS,
    END_STREAM,
    FRAME_MAX_BYTES,
    HEADERS,
    WINDOW_MAX_BYTES,
    frame_header,
    pack_frame_header,
    window_update_frame,
)

__all__ = [
    "CLOSED_BY_CLIENT",
    "CLOSED_BY_US",
    "END_RECEIVED",
    "END_SENT",
    "HALF_CLOSED_LOCAL",
    "HALF_CLOSED_REMOTE",
    "OPEN",
    "RECORD_MOVES",
    "StreamRecord",
    "StreamRecords",
]

# The states of a plain stream, as RFC 9113 section 5.1 names them.
OPEN: Final = 0
HALF_CLOSED_REMOTE: Final = 1  # the client has ended its half
HALF_CLOSED_LOCAL: Final = 2  # we have ended ours
CLOSED_BY_US: Final = 3  # both ends have been sent, ours last
CLOSED_BY_CLIENT: Final = 4  # both ends have been sent, the client's last

# What happens to it.
END_RECEIVED: Final = 0
END_SENT: Final = 1

RECORD_MOVES: Final[Mapping[tuple[int, int], int]] = {
    (OPEN, END_RECEIVED): HALF_CLOSED_REMOTE,
    (OPEN, END_SENT): HALF_CLOSED_LOCAL,
    (HALF_CLOSED_REMOTE, END_SENT): CLOSED_BY_US,
    (HALF_CLOSED_LOCAL, END_RECEIVED): CLOSED_BY_CLIENT,
}
"""(state, what happens) -> the next state. Nothing else can happen: a pair that is not here is an error of ours."""

_ENDS: Final[Mapping[int, tuple[StreamInputs, ...]]] = {
    OPEN: (),
    HALF_CLOSED_REMOTE: (StreamInputs.RECV_END_STREAM,),
    HALF_CLOSED_LOCAL: (StreamInputs.SEND_END_STREAM,),
    CLOSED_BY_US: (StreamInputs.RECV_END_STREAM, StreamInputs.SEND_END_STREAM),
    CLOSED_BY_CLIENT: (StreamInputs.SEND_END_STREAM, StreamInputs.RECV_END_STREAM),
}
_CLOSED_BY: Final[Mapping[int, StreamClosedBy]] = {
    CLOSED_BY_US: StreamClosedBy.SEND_END_STREAM,
    CLOSED_BY_CLIENT: StreamClosedBy.RECV_END_STREAM,
}

# A frame as long as a DATA frame may be, whatever the peer allows: others wait behind it.
_FRAME_MAX_BYTES: Final = 65536


class StreamRecord:
    """A stream on the wire.

    Args:
        stream_id: Its number.
        state: Where it is, as long as it is plain.
        send_window: How much may be sent on it, likewise.
    """

    __slots__ = ("h2", "head_sent", "plain_window", "receive_window", "state", "stream_id")

    def __init__(self, stream_id: int, state: int, send_window: int) -> None:
        self.stream_id = stream_id
        self.h2: H2Stream | None = None
        """The stream in the library, once it is real. The other attributes stand still from then on."""
        self.state = state
        self.head_sent = False
        """Whether the head of the response has been sent."""
        self.plain_window = send_window
        self.receive_window = DEFAULT_WINDOW_BYTES
        """What the client may send."""

    @property
    def closed(self) -> bool:
        """Whether nothing can come or go on it."""
        h2 = self.h2
        return self.state >= CLOSED_BY_US if h2 is None else bool(h2.closed)

    @property
    def send_window(self) -> int:
        """How many bytes its window lets us send. It may be below zero (RFC 9113 section 6.9.2)."""
        h2 = self.h2
        return self.plain_window if h2 is None else int(h2.outbound_flow_control_window)


class StreamRecords:
    """The records of one connection's streams; what is sent on them goes through here.

    Args:
        engine: h2. Its table of streams has to be told of this: see `Engine.watch`.
        plain: Whether streams begin plain.
    """

    __slots__ = (
        "_closed",
        "_decoder",
        "_encoder",
        "_engine",
        "_initial_window",
        "_output",
        "_plain",
        "_receive_window",
        "plain",
    )

    def __init__(self, engine: Engine, plain: bool) -> None:
        self._engine = engine
        self._decoder = engine.block_decoder
        self._encoder = engine.response_encoder
        self._output = engine.output
        self._receive_window: Any = engine.receive_window
        self._closed = engine.closed_streams
        self._plain = plain
        self._initial_window = DEFAULT_WINDOW_BYTES
        self.plain: dict[int, StreamRecord] = {}
        """The streams that are plain and not forgotten, by number."""
        engine.watch(self._made_real, self._windows_changed)

    def let_go(self) -> None:
        """Forget the connection, which is over."""
        self.plain.clear()

    # -- what comes --------------------------------------------------------------------------------------

    def open(self, stream_id: int, block: bytes, ended: bool) -> tuple[StreamRecord, Any]:
        """Open a stream at its HEADERS.

        Args:
            stream_id: A new one, as far as the sieve knows.
            block: Its header block, whole.
            ended: Whether END_STREAM came with it.

        Returns:
            Its record, and its fields as the decoder gives them.

        Raises:
            ProtocolError, CompressionError: The connection must end. (The former is that of h2.)
        """
        engine = self._engine
        highest: int = engine.highest_inbound_stream_id
        if not self._plain or stream_id <= highest or not stream_id & 1:
            h2, fields = engine.open_stream(stream_id, block, ended)
            return self.adopt(h2), fields
        fields = self._decoder.decode(block)
        record = self.open_plain(stream_id, ended)
        assert record is not None  # as was just found
        return record, fields

    def open_plain(self, stream_id: int, ended: bool) -> StreamRecord | None:
        """Open a stream whose header block has been decoded before; None if it is for h2 to judge. See `open`."""
        engine = self._engine
        highest: int = engine.highest_inbound_stream_id
        if not self._plain or stream_id <= highest or not stream_id & 1:
            return None
        if not highest:
            engine.begin_serving()
        engine.highest_inbound_stream_id = stream_id
        record = StreamRecord(stream_id, HALF_CLOSED_REMOTE if ended else OPEN, self._initial_window)
        self.plain[stream_id] = record
        return record

    def adopt(self, h2: H2Stream) -> StreamRecord:
        """Make a record of a stream that h2 has opened."""
        record = StreamRecord(h2.stream_id, OPEN, 0)
        record.h2 = h2
        return record

    def take_data(self, record: StreamRecord, size: int, ended: bool) -> bool:
        """Take a DATA frame without padding into account.

        Returns:
            Whether that is done. If not, the frame is for h2 to judge.
        """
        state = record.state
        window = record.receive_window - size
        if record.h2 is not None or window < 0 or (state != OPEN and state != HALF_CLOSED_LOCAL):
            return False
        connection = self._receive_window
        connection_window: int = connection.current_window_size - size
        if connection_window < 0:
            return False
        connection.current_window_size = connection_window
        record.receive_window = window
        if ended:
            record.state = RECORD_MOVES[state, END_RECEIVED]
        return True

    def take_window_update(self, record: StreamRecord, increment: int) -> bool:
        """Take a WINDOW_UPDATE into account. Returns whether that is done; if not, the frame is for h2 to judge."""
        window = record.plain_window + increment
        if record.h2 is not None or window > WINDOW_MAX_BYTES or record.state >= CLOSED_BY_US:
            return False
        record.plain_window = window
        return True

    # SETTINGS_INITIAL_WINDOW_SIZE has changed: RFC 9113 section 6.9.2 "a receiver MUST adjust the size of all stream
    # flow-control windows that it maintains by the difference between the new value and the old value".
    def _windows_changed(self, initial: int, delta: int) -> None:
        self._initial_window = initial
        for record in self.plain.values():
            window = record.plain_window + delta
            if window > WINDOW_MAX_BYTES:
                raise FlowControlError("A window is larger than any may be.")
            record.plain_window = window

    # -- what goes ---------------------------------------------------------------------------------------

    def send_block(self, record: StreamRecord, block: bytes, end: bool, interim: bool = False) -> None:
        """Send a header block: of a response, an interim one, or trailers."""
        stream_id = record.stream_id
        h2 = record.h2
        if h2 is not None:
            self._engine.ask_block(h2, end, interim)
        else:
            if record.state >= HALF_CLOSED_LOCAL:
                raise _sent_too_late()
            if not interim:
                record.head_sent = True
            if end:
                record.state = RECORD_MOVES[record.state, END_SENT]
        prefix = self._encoder.begin_block()
        if prefix:
            block = prefix + block
        size: int = self._engine.max_outbound_frame_size
        flags = END_STREAM if end else 0
        length = len(block)
        output = self._output
        if length <= size:
            output.write(frame_header(length, HEADERS, flags | END_HEADERS, stream_id) + block)
            return
        output.write(frame_header(size, HEADERS, flags, stream_id) + block[:size])
        for start in range(size, length, size):
            part = block[start : start + size]
            last = END_HEADERS if start + size >= length else 0
            output.write(frame_header(len(part), CONTINUATION, last, stream_id) + part)

    def send_part(self, record: StreamRecord, parts: list[bytes | memoryview], length: int, end: bool) -> None:
        """Send one DATA frame; the caller has looked at the windows and at `frame_max`."""
        engine = self._engine
        h2 = record.h2
        if h2 is not None:
            engine.ask_part(h2, length, end)
        else:
            if record.state >= HALF_CLOSED_LOCAL:
                raise _sent_too_late()
            record.plain_window -= length
            if end:
                record.state = RECORD_MOVES[record.state, END_SENT]
        engine.outbound_flow_control_window -= length
        output = self._output
        output.parts.append(frame_header(length, DATA, END_STREAM if end else 0, record.stream_id))
        output.parts.extend(parts)
        output.size += 9 + length

    def send_whole(self, record: StreamRecord, block: bytes, body: bytes) -> bool:
        """Send a whole response in two frames, if nothing about it is unusual. Returns whether that is done."""
        engine = self._engine
        state = record.state
        length, size = len(block), len(body)
        window = record.plain_window - size
        connection_window: int = engine.outbound_flow_control_window - size
        if (
            record.h2 is not None
            or state >= HALF_CLOSED_LOCAL
            or window < 0
            or connection_window < 0
            or length > FRAME_MAX_BYTES  # which is the least that a client may allow, too
            or size > FRAME_MAX_BYTES
            or self._encoder.prefix
        ):
            return False
        record.head_sent = True
        record.state = RECORD_MOVES[state, END_SENT]
        record.plain_window = window
        engine.outbound_flow_control_window = connection_window
        stream_id = record.stream_id
        output = self._output
        output.parts += (
            pack_frame_header(length >> 8, length & 0xFF, HEADERS, END_HEADERS, stream_id),
            block,
            pack_frame_header(size >> 8, size & 0xFF, DATA, END_STREAM, stream_id),
            body,
        )
        output.size += 18 + length + size
        return True

    @property
    def frame_max(self) -> int:
        """How long a frame may be that we send."""
        size: int = self._engine.max_outbound_frame_size
        return size if size < _FRAME_MAX_BYTES else _FRAME_MAX_BYTES

    def open_window(self, record: StreamRecord, increment: int) -> None:
        """Give back window of a stream that is not closed."""
        if record.h2 is not None:
            self._engine.open_window(increment, record.stream_id)
        else:
            record.receive_window += increment
            self._output.write(window_update_frame(record.stream_id, increment))

    def send_reset(self, record: StreamRecord, code: int) -> bool:
        """Reset a stream, unless it is closed already. Returns whether it was done."""
        if record.closed:
            return False
        self._engine.send_reset(record.stream_id, code)
        return True

    # -- its end -----------------------------------------------------------------------------------------

    def forget(self, record: StreamRecord) -> None:
        """Drop a stream that is closed; what is remembered of it is how it was closed."""
        h2 = record.h2
        if h2 is not None:
            self._engine.forget(h2)
        elif self.plain.pop(record.stream_id, None) is not None:
            self._closed.remember(record.stream_id, _CLOSED_BY.get(record.state))

    # h2 looks for a stream that it does not have.
    def _made_real(self, stream_id: int) -> H2Stream | None:
        record = self.plain.pop(stream_id, None)
        if record is None:
            return None
        record.h2 = self._engine.make_stream(
            stream_id,
            record.receive_window,
            record.plain_window,
            record.head_sent,
            _ENDS[record.state],
        )
        return record.h2


def _sent_too_late() -> AssertionError:
    return AssertionError("a frame behind the end of a response")

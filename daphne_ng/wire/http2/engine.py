"""The h2 library as we use it: judge of what is legal, keeper of stream states and windows.

It never sees the fields of a request. They are decoded and checked by `http2.hpack` and `http2.head`; h2 carries the
list through as one opaque value. What it would find wrong with the fields, such as a content-length at odds with
the DATA, it would answer with the end of the connection, where the end of the stream is called for.

Requests come past its parser of frames, too: `open_stream` takes their header blocks as the sieve found them, and moves
the state machines as the frames would have.

It does not encode what we send either: a response's frames are put together here, from encoded fields and parts of a
body, after its state machine has been asked. Its own output (acknowledgements, resets, window updates) joins them in
order.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import h2
from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy, StreamInputs
from hyperframe.frame import Frame, RstStreamFrame

from daphne_ng.config import Config
from daphne_ng.wire.http2.frames import DEFAULT_WINDOW_BYTES, RST_STREAM
from daphne_ng.wire.http2.hpack import RequestDecoder, ResponseEncoder
from daphne_ng.wire.http2.output import Output

__all__ = ["PRIVATE_NAMES", "TESTED_H2", "ClosedStreams", "Engine", "h2_is_tested"]

TESTED_H2: Final = ((4, 1), (4, 5))
"""The versions of h2 that the plain path (`http2.records`) was tested with: from the first on, below the second."""

PRIVATE_NAMES: Final = (
    "H2Connection._begin_new_stream",
    "H2Connection._closed_streams",
    "H2Connection._data_to_send",
    "H2Connection._flow_control_change_from_settings",
    "H2Connection._frame_dispatch_table",
    "H2Connection._inbound_flow_control_window_manager",
    "H2Connection._prepare_for_sending",
    "H2Connection._receive_frame",
    "H2Connection._stream_is_closed_by_end",
    "H2Connection._stream_is_closed_by_reset",
    "H2Stream._inbound_window_manager",
    "StreamClosedError._events",
)
"""What is used of h2 that it does not promise. There is a test for each, and another that there is no more."""

_RELEASE: Final = re.compile(r"([0-9]+)\.([0-9]+)")

_RECV_HEADERS: Final = StreamInputs.RECV_HEADERS
_RECV_END_STREAM: Final = StreamInputs.RECV_END_STREAM
_SEND_HEADERS: Final = StreamInputs.SEND_HEADERS
_SEND_INFORMATIONAL: Final = StreamInputs.SEND_INFORMATIONAL_HEADERS
_SEND_DATA: Final = StreamInputs.SEND_DATA
_SEND_END_STREAM: Final = StreamInputs.SEND_END_STREAM

_NO_RFC7540_PRIORITIES: Final = 0x9  # RFC 9218 section 2.1

# Closed streams that are remembered, to tell how wrong a late frame is. The 65,536 of h2 would be 5 MB.
_CLOSED_STREAMS_MAX: Final = 100


def h2_is_tested() -> bool:
    """Whether the plain path was tested with the version of h2 that is installed."""
    version = _RELEASE.match(h2.__version__)
    return version is not None and TESTED_H2[0] <= (int(version[1]), int(version[2])) < TESTED_H2[1]


# Stands before the decoder, and hides the fields from h2.
class _OpaqueDecoder:
    def __init__(self, decoder: RequestDecoder) -> None:
        self._decoder = decoder

    def decode(self, data: bytes, raw: bool = True) -> Any:
        return ((b"", self._decoder.decode(data)),)

    # h2 sets this when the client has acknowledged our settings; the decoder has had it from the start.
    max_header_list_size = 0
    max_allowed_table_size = 0


class ClosedStreams:
    """How the latest streams were closed, for h2 to look up: a mapping, as far as it needs one.

    It looks there when a frame is wrong. So that is the slow side, and remembering is not.
    """

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: deque[tuple[int, StreamClosedBy | None]] = deque(maxlen=_CLOSED_STREAMS_MAX)

    def remember(self, stream_id: int, closed_by: StreamClosedBy | None) -> None:
        """Note how a stream was closed. The oldest is forgotten for it."""
        self._latest.append((stream_id, closed_by))

    def __len__(self) -> int:
        return len(self._latest)

    def __contains__(self, stream_id: object) -> bool:
        return any(closed == stream_id for closed, _by in self._latest)

    def __getitem__(self, stream_id: int) -> StreamClosedBy | None:
        for closed, by in self._latest:
            if closed == stream_id:
                return by
        raise KeyError(stream_id)


# The streams of h2. One that is missing is asked for: it may be a plain one.
class _Streams(dict[int, H2Stream]):
    def __init__(self) -> None:
        super().__init__()
        self.made_real: Callable[[int], H2Stream | None] = _none_such

    def __missing__(self, stream_id: int) -> H2Stream:
        stream = self.made_real(stream_id)
        if stream is None:
            raise KeyError(stream_id)
        return stream


def _none_such(_stream_id: int) -> None:
    return None


def _no_windows(_initial: int, _delta: int) -> None:
    pass


class Engine(H2Connection):
    """An h2 connection with our codec, settings and output.

    Args:
        config: Limits.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.block_decoder = RequestDecoder(config.head_max_bytes, config.head_max_fields)
        self.decoder: Any = _OpaqueDecoder(self.block_decoder)
        self.response_encoder = ResponseEncoder()
        self.encoder: Any = self.response_encoder
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: config.http2_max_concurrent_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: config.head_max_bytes,
                SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
                _NO_RFC7540_PRIORITIES: 1,  # type: ignore[dict-item]
            },
        )
        self.output = Output()
        self.receive_window = self._inbound_flow_control_window_manager
        """What the client may send on the connection, as `current_window_size`."""
        self.closed_streams = ClosedStreams()
        self._closed_streams: Any = self.closed_streams
        self._plain_streams = self.streams = _Streams()
        self._windows_changed: Callable[[int, int], None] = _no_windows

    def watch(self, made_real: Callable[[int], H2Stream | None], windows_changed: Callable[[int, int], None]) -> None:
        """Let streams be kept elsewhere.

        Args:
            made_real: Called with the number of a stream that h2 looks for and does not have. Returns what
                `make_stream` has made of it, or None.
            windows_changed: Called when the client has changed SETTINGS_INITIAL_WINDOW_SIZE, with its new value and the
                difference. It may raise a `FlowControlError`.
        """
        self._plain_streams.made_real = made_real
        self._windows_changed = windows_changed

    @property
    def open_inbound_streams(self) -> int:
        """None, for h2: it would count them for each request, and end the connection over one too many."""
        return 0

    def receive(self, data: bytes) -> tuple[list[Any], int]:
        """Hand whole frames to h2.

        Returns:
            Its events, and how many resets it answered with.

        Raises:
            ProtocolError: The connection must end. (That of h2.)
            CompressionError: Likewise.
        """
        events: list[Any] = self.receive_data(data)
        if self._data_to_send:
            return events, self._collect()
        return events, 0

    def open_stream(self, stream_id: int, block: bytes, ended: bool) -> tuple[H2Stream, Any]:
        """Open a stream as `receive` would at its HEADERS, past h2's own parser of frames.

        Args:
            stream_id: A new one.
            block: Its header block, whole.
            ended: Whether END_STREAM came with it.

        Returns:
            The stream, and its fields as the decoder gives them.

        Raises:
            ProtocolError, CompressionError: As `receive`.
        """
        fields = self.block_decoder.decode(block)
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        stream = self._begin_new_stream(stream_id, AllowedStreamIDs.ODD)
        machine = stream.state_machine
        machine.process_input(_RECV_HEADERS)
        if ended:
            machine.process_input(_RECV_END_STREAM)
        return stream, fields

    def begin_serving(self) -> None:
        """Note that the first stream is opened elsewhere."""
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)

    def make_stream(
        self,
        stream_id: int,
        receive_window: int,
        send_window: int,
        head_sent: bool,
        ends: Iterable[StreamInputs],
    ) -> H2Stream:
        """Make a stream that was opened elsewhere, as if all its frames had come and gone through here.

        Args:
            stream_id: One that is not known here.
            receive_window: What the client may still send.
            send_window: What we may.
            head_sent: Whether the head of the response has been sent.
            ends: `RECV_END_STREAM` and `SEND_END_STREAM`, as far as they have been, in their order.
        """
        # How much came is of no interest: h2 sees no Content-Length.
        stream = H2Stream(
            stream_id,
            config=self.config,
            inbound_window_size=DEFAULT_WINDOW_BYTES,
            outbound_window_size=send_window,
        )
        stream.max_outbound_frame_size = self.max_outbound_frame_size
        manager = stream._inbound_window_manager
        manager.current_window_size = receive_window
        manager.max_window_size = max(DEFAULT_WINDOW_BYTES, receive_window)
        machine = stream.state_machine
        machine.process_input(_RECV_HEADERS)
        if head_sent:
            machine.process_input(_SEND_HEADERS)
        for end in ends:
            machine.process_input(end)
        self.streams[stream_id] = stream
        return stream

    def fields(self, event: Any) -> Any:
        """Return the fields of an event as our decoder gave them."""
        return event.headers[0][1]

    # As in h2, but for a textual representation of every frame for a log that is not kept.
    def _receive_frame(self, frame: Frame) -> list[Event]:
        try:
            frames, events = self._frame_dispatch_table[frame.__class__](frame)
        except StreamClosedError as error:
            if not self._stream_is_closed_by_reset(error.stream_id):
                raise
            self._prepare_for_sending([_reset(error.stream_id, error.error_code)])
            return list(error._events)
        except StreamIDTooLowError as error:
            if self._stream_is_closed_by_reset(error.stream_id):
                self._prepare_for_sending([_reset(error.stream_id, ErrorCodes.STREAM_CLOSED)])
                return []
            if self._stream_is_closed_by_end(error.stream_id):
                raise StreamClosedError(error.stream_id) from error
            raise
        if frames:
            self._prepare_for_sending(frames)
        return events  # type: ignore[no-any-return]

    # As in h2, and for the streams that are elsewhere.
    def _flow_control_change_from_settings(self, old_value: int | None, new_value: int) -> None:
        super()._flow_control_change_from_settings(old_value, new_value)
        self._windows_changed(new_value, new_value - (old_value or 0))

    # Move the output of h2 behind ours. Returns how many resets are in it.
    def _collect(self) -> int:
        data = bytes(self._data_to_send)
        self._data_to_send = bytearray()
        self.output.write(data)
        resets = at = 0
        end = len(data)
        while at < end:
            resets += data[at + 3] == RST_STREAM
            at += 9 + int.from_bytes(data[at : at + 3], "big")
        return resets

    # -- sending on a stream of ours ---------------------------------------------------------------------

    def ask_block(self, stream: H2Stream, end: bool, interim: bool) -> None:
        """Have h2 take note of a header block that is sent."""
        machine = stream.state_machine
        machine.process_input(_SEND_INFORMATIONAL if interim else _SEND_HEADERS)
        if end:
            machine.process_input(_SEND_END_STREAM)

    def ask_part(self, stream: H2Stream, length: int, end: bool) -> None:
        """Have h2 take note of a DATA frame that is sent; the window of the connection is for the caller."""
        # Neither state has another one that SEND_DATA leads to; in all others it raises.
        machine = stream.state_machine
        machine.process_input(_SEND_DATA)
        if end:
            machine.process_input(_SEND_END_STREAM)
        stream.outbound_flow_control_window -= length

    def send_reset(self, stream_id: int, code: int) -> None:
        """Reset a stream that is not closed."""
        self.reset_stream(stream_id, code)
        self._collect()

    def open_window(self, increment: int, stream_id: int | None) -> None:
        """Give back window, of a stream or of the connection."""
        self.increment_flow_control_window(increment, stream_id)
        self._collect()

    def let_go(self) -> None:
        """Make an end: nothing is received any more."""
        self._frame_dispatch_table.clear()
        self._plain_streams.made_real = _none_such
        self._windows_changed = _no_windows

    def forget(self, stream: H2Stream) -> None:
        """Drop a stream that is closed; what is remembered of it is how it was closed."""
        stream_id = stream.stream_id
        if self.streams.pop(stream_id, None) is not None:
            self.closed_streams.remember(stream_id, stream.closed_by)


def _reset(stream_id: int, code: int) -> RstStreamFrame:
    frame = RstStreamFrame(stream_id)
    frame.error_code = code
    return frame

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

from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamInputs
from hyperframe.frame import Frame, RstStreamFrame

from daphne_ng.config import Config
from daphne_ng.wire.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    frame_header,
)
from daphne_ng.wire.http2.hpack import RequestDecoder, ResponseEncoder

__all__ = ["Engine"]

_RECV_HEADERS: Final = StreamInputs.RECV_HEADERS
_RECV_END_STREAM: Final = StreamInputs.RECV_END_STREAM
_SEND_HEADERS: Final = StreamInputs.SEND_HEADERS
_SEND_INFORMATIONAL: Final = StreamInputs.SEND_INFORMATIONAL_HEADERS
_SEND_DATA: Final = StreamInputs.SEND_DATA
_SEND_END_STREAM: Final = StreamInputs.SEND_END_STREAM

_NO_RFC7540_PRIORITIES: Final = 0x9  # RFC 9218 section 2.1

# A frame as long as a DATA frame may be, whatever the peer allows: others wait behind it.
_FRAME_MAX_BYTES: Final = 65536


# Stands before the decoder, and hides the fields from h2.
class _OpaqueDecoder:
    def __init__(self, decoder: RequestDecoder) -> None:
        self._decoder = decoder

    def decode(self, data: bytes, raw: bool = True) -> Any:
        return ((b"", self._decoder.decode(data)),)

    # h2 sets this when the client has acknowledged our settings; the decoder has had it from the start.
    max_header_list_size = 0
    max_allowed_table_size = 0


class Engine(H2Connection):
    """An h2 connection with our codec, settings and output.

    Args:
        config: Limits.
    """

    # Closed streams that h2 remembers, to tell how wrong a late frame is. 65,536 would be 5 MB.
    MAX_CLOSED_STREAMS = 100

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
        self.encoder: Any = ResponseEncoder()
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: config.http2_max_concurrent_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: config.head_max_bytes,
                SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
                _NO_RFC7540_PRIORITIES: 1,  # type: ignore[dict-item]
            },
        )
        self.out: list[bytes | memoryview] = []
        """The parts of the output, in order."""
        self.out_bytes = 0

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

    # Move the output of h2 behind ours. Returns how many resets are in it.
    def _collect(self) -> int:
        data = bytes(self._data_to_send)
        self._data_to_send = bytearray()
        self.write(data)
        resets = at = 0
        end = len(data)
        while at < end:
            resets += data[at + 3] == RST_STREAM
            at += 9 + int.from_bytes(data[at : at + 3], "big")
        return resets

    def write(self, data: bytes) -> None:
        """Append bytes to the output."""
        self.out.append(data)
        self.out_bytes += len(data)

    def take_output(self) -> bytes:
        """Take what is to be written."""
        out = self.out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.out_bytes = 0
        return data if type(data) is bytes else bytes(data)

    # -- sending on a stream -----------------------------------------------------------------------------

    def send_block(self, stream: H2Stream, block: bytes, end: bool, interim: bool = False) -> None:
        """Send a header block: of a response, an interim one, or trailers."""
        machine = stream.state_machine
        machine.process_input(_SEND_INFORMATIONAL if interim else _SEND_HEADERS)
        if end:
            machine.process_input(_SEND_END_STREAM)
        prefix = self.encoder.begin_block()
        if prefix:
            block = prefix + block
        size = self.max_outbound_frame_size
        flags = END_STREAM if end else 0
        stream_id = stream.stream_id
        length = len(block)
        if length <= size:
            self.out.append(frame_header(length, HEADERS, flags | END_HEADERS, stream_id) + block)
            self.out_bytes += 9 + length
            return
        self.write(frame_header(size, HEADERS, flags, stream_id) + block[:size])
        for start in range(size, length, size):
            part = block[start : start + size]
            last = END_HEADERS if start + size >= length else 0
            self.write(frame_header(len(part), CONTINUATION, last, stream_id) + part)

    def send_part(self, stream: H2Stream, parts: list[bytes | memoryview], length: int, end: bool) -> None:
        """Send one DATA frame; the caller has looked at the windows and at `frame_max`."""
        # Neither state has another one that SEND_DATA leads to; in all others it raises.
        machine = stream.state_machine
        machine.process_input(_SEND_DATA)
        if end:
            machine.process_input(_SEND_END_STREAM)
        stream.outbound_flow_control_window -= length
        self.outbound_flow_control_window -= length
        out = self.out
        out.append(frame_header(length, DATA, END_STREAM if end else 0, stream.stream_id))
        out.extend(parts)
        self.out_bytes += 9 + length

    @property
    def frame_max(self) -> int:
        """How long a frame may be that we send."""
        return min(self.max_outbound_frame_size, _FRAME_MAX_BYTES)

    def send_reset(self, stream: H2Stream, code: int) -> bool:
        """Reset a stream, unless it is closed already. Returns whether it was done."""
        if stream.closed:
            return False
        self.reset_stream(stream.stream_id, code)
        self._collect()
        return True

    def open_window(self, increment: int, stream_id: int | None) -> None:
        """Give back window, of a stream or of the connection."""
        self.increment_flow_control_window(increment, stream_id)
        self._collect()

    def let_go(self) -> None:
        """Make an end: nothing is received any more."""
        self._frame_dispatch_table.clear()

    def forget(self, stream: H2Stream) -> None:
        """Drop a stream that is closed; what is remembered of it is how it was closed."""
        stream_id = stream.stream_id
        if self.streams.pop(stream_id, None) is not None:
            self._closed_streams[stream_id] = stream.closed_by


def _reset(stream_id: int, code: int) -> RstStreamFrame:
    frame = RstStreamFrame(stream_id)
    frame.error_code = code
    return frame

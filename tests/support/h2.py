"""HTTP/2 without sockets: frames by name, a strict driver with a settable clock, and an h2 client as the oracle.

`Http2Server` holds one `Http2Connection` on a `RecordingHttp2Driver`, and a `Client` that reads every byte the server
writes. Tests let the client send (legal frames through h2, others by the builders below), let turns of the loop pass,
move the clock, and play the exchanges by calling their streams.

The driver is strict: it fails the test on a write after the close, on an exchange that begins inside another's call or
after the end, on a timer in the past, on bytes handed to a full transport. The client is strict, too: h2 raises on
whatever a server must not send.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import hpack

from daphne_ng.config import Config
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http2.connection import Http2Connection
from daphne_ng.wire.http2.engine import Engine
from daphne_ng.wire.http2.hpack import RequestDecoder
from daphne_ng.wire.http2.sieve import REQUEST, FrameSieve
from daphne_ng.wire.http2.states import COMPLETE_HELD, HOLDING
from daphne_ng.wire.http2.stream import Http2Stream
from daphne_ng.wire.websocket.handshake import WebSocketRequest
from tests.support.build import COMPILED, needs_pure
from tests.support.h1 import DATE, NEVER, RecordingSink

HELD = (HOLDING, COMPLETE_HELD)
"""The states of a request whose sink is full."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10
ALTSVC = 0x0A
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(
    7
)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(7, 12)

Fields = list[tuple[bytes, bytes]]

# -- frames ----------------------------------------------------------------------------------------------


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Any frame, right or wrong."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def settings(*pairs: tuple[int, int], ack: bool = False) -> bytes:
    payload = b"".join(struct.pack(">HI", code, value) for code, value in pairs)
    return frame(SETTINGS, ACK if ack else 0, 0, payload)


def fields(
    method: bytes = b"GET", path: bytes = b"/", *more: tuple[bytes, bytes], authority: bytes = b"example.com"
) -> Fields:
    """The fields of a request."""
    return [(b":method", method), (b":scheme", b"https"), (b":authority", authority), (b":path", path), *more]


def block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block that leaves every dynamic table as it is."""
    return b"".join(_literal(name, value) for name, value in headers)


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    out = b"\x7f"
    length -= 127
    while length >= 128:
        out += bytes((length & 127 | 128,))
        length >>= 7
    return out + bytes((length,)) + text


def headers(
    stream: int = 1, names: Iterable[tuple[bytes, bytes]] | None = None, end: bool = True, flags: int = END_HEADERS
) -> bytes:
    """HEADERS, of a plain request unless told otherwise."""
    return frame(HEADERS, flags | (END_STREAM if end else 0), stream, block(fields() if names is None else names))


def data(stream: int = 1, payload: bytes = b"", end: bool = False, padding: int | None = None) -> bytes:
    flags = END_STREAM if end else 0
    if padding is not None:
        flags |= PADDED
        payload = bytes((padding,)) + payload + bytes(padding)
    return frame(DATA, flags, stream, payload)


def rst(stream: int = 1, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def ping(payload: bytes = b"12345678", ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last: int = 0, code: int = NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + debug)


def window_update(stream: int = 0, increment: int = 1) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def priority(stream: int = 1, depends_on: int = 0, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream, struct.pack(">IB", depends_on, weight))


def priority_update(stream: int, value: bytes) -> bytes:
    return frame(PRIORITY_UPDATE, 0, 0, struct.pack(">I", stream) + value)


def continuation(stream: int = 1, payload: bytes = b"", end: bool = False) -> bytes:
    return frame(CONTINUATION, END_HEADERS if end else 0, stream, payload)


def split(wire: bytes) -> list[tuple[int, int, int, bytes]]:
    """Cut bytes into ``(type, flags, stream, payload)``."""
    frames = []
    at = 0
    while at < len(wire):
        length = int.from_bytes(wire[at : at + 3], "big")
        kind, flags = wire[at + 3], wire[at + 4]
        stream = int.from_bytes(wire[at + 5 : at + 9], "big")
        frames.append((kind, flags, stream, wire[at + 9 : at + 9 + length]))
        at += 9 + length
    assert at == len(wire), "a frame is cut off"
    return frames


def all_said(head: RequestHead) -> dict[str, Any]:
    """Return all that a head says, by name."""
    return {name: getattr(head, name, None) for name in dir(head) if name[0] != "_" and name != "repeated"}


def request_decoder(max_header_list_size: int = 65536, max_fields: int = 200) -> RequestDecoder:
    """Make a decoder with the limits that `Config` has by default."""
    return RequestDecoder(max_header_list_size, max_fields)


# -- the second way, to compare with the first ------------------------------------------------------------


@cache
def _frames_for_h2() -> type[FrameSieve]:
    # Made when it is asked for: the class cannot exist beside a compiled sieve.
    class FramesForH2(FrameSieve):
        """A sieve that reports requests as frames, so that the parser of h2 opens their streams."""

        __slots__ = ()

        def feed(self, data: bytes, now: float) -> list[Any]:
            return [_as_frame(item) for item in super().feed(data, now)]

    return FramesForH2


def _as_frame(item: Any) -> Any:
    if isinstance(item, tuple) and item[0] == REQUEST:
        _kind, stream, (block, end) = item
        return frame(HEADERS, END_HEADERS | end, stream, block)
    return item


class ValidatingEngine(Engine):
    """An engine that lets h2 see and check the fields of requests besides."""

    def fields(self, event: Any) -> Any:
        return event.headers


class _DecoderForH2:
    # What h2 calls and sets; our decoder has had its limits from the start.
    max_header_list_size = 0
    max_allowed_table_size = 0

    def __init__(self, decoder: RequestDecoder) -> None:
        self._decoder = decoder

    def decode(self, data: bytes, raw: bool = True) -> Any:
        return self._decoder.decode(data)


# -- a look at the states ---------------------------------------------------------------------------------


class StateRecorder(dict[int, Http2Stream]):
    """Stands in for the open streams of a connection: records how their halves and the connection's phase move.

    Of compiled classes, from which none can inherit, it records only with which halves streams begin.
    """

    def __init__(self, connection: Http2Connection) -> None:
        super().__init__()
        self.request_moves: set[tuple[int, int]] = set()
        self.response_moves: set[tuple[int, int]] = set()
        self.phase_moves: set[tuple[int, int]] = set()
        self.halves: set[tuple[int, int]] = set()
        """``(request, response)`` as they were together."""
        connection._context.open = connection._streams = _recorders[id(connection)] = self
        if not COMPILED:
            connection.__class__ = _RecordedConnection

    def __setitem__(self, number: int, stream: Http2Stream) -> None:
        super().__setitem__(number, stream)
        if not COMPILED:
            stream.__class__ = _RecordedStream
        self.halves.add((stream.request, stream.response))
        _recorders[id(stream)] = self


_recorders: dict[int, StateRecorder] = {}


class _RecordedStream(Http2Stream):
    __slots__ = ()

    def _move(self, half: str, to: int) -> None:
        recorder = _recorders[id(self)]
        moves = recorder.request_moves if half == "request" else recorder.response_moves
        moves.add((getattr(Http2Stream, half).__get__(self), to))
        getattr(Http2Stream, half).__set__(self, to)
        recorder.halves.add((self.request, self.response))

    request = property(  # type: ignore[assignment]
        lambda self: Http2Stream.request.__get__(self), lambda self, to: self._move("request", to)
    )
    response = property(  # type: ignore[assignment]
        lambda self: Http2Stream.response.__get__(self), lambda self, to: self._move("response", to)
    )


class _RecordedConnection(Http2Connection):
    def _enter(self, phase: int) -> None:
        before = self.phase
        super()._enter(phase)
        _recorders[id(self)].phase_moves.add((before, self.phase))


# -- the driver ------------------------------------------------------------------------------------------


class Waiter:
    """What `Http2Driver.new_waiter` makes here."""

    def __init__(self) -> None:
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: None) -> None:
        assert not self._done
        self._done = True

    def __await__(self) -> Any:
        while not self._done:
            yield


class RecordingStreamSink(RecordingSink):
    """A `RecordingSink` that knows its stream, and is a `TunnelSink` besides."""

    def __init__(
        self, head: RequestHead, stream: Http2Stream, high: float, websocket: WebSocketRequest | None = None
    ) -> None:
        super().__init__(head, high)
        self.stream = stream
        self.request = websocket
        self.room = 0

    def writable_again(self) -> None:
        self.room += 1


class RecordingHttp2Driver:
    """Implements `Http2Driver` on lists. See `Http2Server` for how to use it."""

    def __init__(self, inbox_high: float = NEVER) -> None:
        self.now = 1000.0
        self.written: list[bytes] = []
        self.is_full = False
        self.state = "open"
        """As `tests.support.h1.RecordingDriver`."""
        self.reading = True
        self.soon = 0
        self.timer = NEVER
        self.sinks: list[RecordingStreamSink] = []
        self.refusals: list[tuple[int, str]] = []
        self.failures: list[tuple[int, str]] = []
        self.missing: list[int] = []
        self.stalls: list[int] = []
        self.unsent = 0
        self.queued = 0  # what the kernel has taken and the client has not acknowledged
        self.drops = 0
        self.refuse: Callable[[Http2Stream], None] | None = None
        self.h2: Http2Connection
        self.heads_refused: list[RequestHead | None] = []
        self._inbox_high = inbox_high
        self._beginning = False

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data, "an empty write"
        assert self.state == "open", f"a write when {self.state}"
        self.written.append(data)

    def full(self) -> bool:
        return self.is_full

    def clock(self) -> float:
        return self.now

    def new_waiter(self) -> Waiter:
        return Waiter()

    def begin(self, head: RequestHead, stream: Http2Stream) -> RecordingStreamSink | None:
        return self._begin(head, stream, None)

    def begin_websocket(self, request: WebSocketRequest, stream: Http2Stream) -> RecordingStreamSink | None:
        return self._begin(request.head, stream, request)

    def _begin(
        self, head: RequestHead, stream: Http2Stream, request: WebSocketRequest | None
    ) -> RecordingStreamSink | None:
        assert self.state == "open", f"an exchange begins when {self.state}"
        assert not self._beginning, "an exchange begins inside another's beginning"
        self._beginning = True
        try:
            if self.refuse is not None:
                self.refuse(stream)
                return None
            sink = RecordingStreamSink(head, stream, self._inbox_high, request)
            self.sinks.append(sink)
            return sink
        finally:
            self._beginning = False

    def flush_soon(self) -> None:
        assert self.soon == 0, "flush_soon() twice"
        assert self.state == "open"
        self.soon += 1

    def finish(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        assert self.state == "open"
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert self.state in ("open", "half")
        assert not self.reading, "resumed twice"
        self.reading = True

    def rearm(self, deadline: float) -> None:
        assert deadline < self.timer
        assert deadline != NEVER
        self.timer = self.h2.armed_for = deadline

    def close(self) -> None:
        assert self.state in ("open", "half"), f"close() when {self.state}"
        self.state = "closed"

    def close_writing(self) -> None:
        assert self.state == "open"
        self.state = "half"

    def unsent_bytes(self) -> int:
        return self.unsent

    def unacknowledged_bytes(self) -> int:
        return self.unsent + self.queued

    def drop(self) -> None:
        self.drops += 1
        self.abort()

    def release(self) -> None:
        assert self.state == "closed"
        self.state = "released"

    def break_off(self) -> None:
        self.abort()

    def abort(self) -> None:
        assert self.state != "aborted", "aborted twice"
        self.state = "aborted"

    def take_turn(self) -> bool:
        self.h2.receive_kept(b"")
        return True

    def refused(self, head: RequestHead | None, status: int, detail: str, begun: bool) -> None:
        self.refusals.append((status, detail))
        self.heads_refused.append(head)

    def failed(self, code: int, detail: str) -> None:
        assert not self.failures, "failed twice"
        assert detail.isascii()
        self.failures.append((code, detail))

    def stalled(self, stream: Http2Stream) -> None:
        self.stalls.append(stream.id)

    def shortened(self, missing: int) -> None:
        assert missing > 0
        self.missing.append(missing)


# -- the oracle ------------------------------------------------------------------------------------------


class Response:
    """What the client read on one stream."""

    def __init__(self) -> None:
        self.interim: list[int] = []
        self.interim_headers: list[Fields] = []
        self.status: int | None = None
        self.headers: Fields = []
        self.body = b""
        self.trailers: Fields = []
        self.ended = False
        self.reset: int | None = None

    @property
    def complete(self) -> bool:
        """Whole: a reset without an error behind the end takes nothing away."""
        return self.ended and self.reset in (None, NO_ERROR)

    def header(self, name: bytes) -> bytes | None:
        """The only value of that name, None if there is none."""
        values = [value for field, value in self.headers if field == name]
        assert len(values) < 2, f"{name!r} is there {len(values)} times"
        return values[0] if values else None

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body[:80]!r} ended={self.ended} reset={self.reset}>"


class _Unlimited(h2.connection.H2Connection):
    # Servers must bear clients that open more than they may.
    open_outbound_streams = 0  # type: ignore[assignment]


class Client:
    """An h2 client that reads what the server writes and keeps it by stream."""

    def __init__(self, auto_credit: bool = True, **local: int) -> None:
        self.h2 = _Unlimited(h2.config.H2Configuration(client_side=True, header_encoding=None))
        for name, value in local.items():
            self.h2.local_settings[h2.settings.SettingCodes[name.upper()]] = value
        # What is announced counts at once: the server knows nothing else.
        initial = {code: self.h2.local_settings._settings[code][-1] for code in self.h2.local_settings}
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=initial)
        self.h2.max_inbound_frame_size = self.h2.local_settings.max_frame_size
        self.h2.initiate_connection()
        self.auto_credit = auto_credit
        self.responses: dict[int, Response] = {}
        self.frames: list[tuple[int, int, int, bytes]] = []
        """Every frame of the server, as `split` gives it."""
        self.goaways: list[tuple[int, int, bytes]] = []
        """``(last stream, code, debug data)``"""
        self.pings: list[bytes] = []
        self.acked_pings: list[bytes] = []

    def read(self, wire: bytes) -> None:
        for kind, flags, stream, payload in split(wire):
            self.frames.append((kind, flags, stream, payload))
            if kind == GOAWAY:
                # h2 would be dead afterwards.
                last, code = struct.unpack_from(">II", payload)
                self.goaways.append((last, code, payload[8:]))
                continue
            while stream > self.h2.highest_outbound_stream_id:
                self._adopt(self.h2.highest_outbound_stream_id + 2 if self.h2.highest_outbound_stream_id else 1)
            for event in self.h2.receive_data(frame(kind, flags, stream, payload)):
                self._note(event)

    # A stream that was opened behind the back of h2.
    def _adopt(self, stream: int) -> None:
        encoder, out = self.h2.encoder, self.h2.data_to_send()
        self.h2.encoder = hpack.Encoder()
        self.h2.send_headers(stream, fields(b"POST"), end_stream=False)
        self.h2.clear_outbound_data_buffer()
        self.h2._data_to_send += out
        self.h2.encoder = encoder

    def _note(self, event: Any) -> None:
        stream = getattr(event, "stream_id", None)
        response = self.responses.setdefault(stream, Response()) if stream else Response()
        match event:
            case h2.events.InformationalResponseReceived():
                response.interim.append(int(event.headers[0][1]))
                response.interim_headers.append([(bytes(n), bytes(v)) for n, v in event.headers[1:]])
            case h2.events.ResponseReceived():
                assert response.status is None
                response.status = int(event.headers[0][1])
                response.headers = [(bytes(n), bytes(v)) for n, v in event.headers[1:]]
            case h2.events.DataReceived():
                response.body += event.data
                if self.auto_credit and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
            case h2.events.TrailersReceived():
                response.trailers = [(bytes(n), bytes(v)) for n, v in event.headers]
            case h2.events.StreamEnded():
                response.ended = True
            case h2.events.StreamReset():
                response.reset = int(event.error_code)
            case h2.events.PingAckReceived():
                self.acked_pings.append(event.ping_data)
            case h2.events.PingReceived():
                self.pings.append(event.ping_data)

    def frames_of(self, kind: int, stream: int | None = None) -> list[bytes]:
        """Payloads of the server's frames of one type."""
        return [p for k, _f, s, p in self.frames if k == kind and (stream is None or s == stream)]


class Http2Server:
    """One connection under test, and its client.

    Args:
        reply: Called as ``reply(sink)`` on a turn of its own after the body of a request has ended; None to play the
            exchanges by hand.
        inbox_high: Unread bytes at which sinks ask for a pause.
        begin: Let the client send its preface.
        auto_ack: Let the client answer what it reads (SETTINGS, PING, windows) by itself.
        client: Settings of the client, by name.
        config: Fields of the `Config`.
    """

    plain_path = True
    """`Config.http2_plain_path` of servers that are not told."""

    def __init__(
        self,
        reply: Callable[[RecordingStreamSink], None] | None = None,
        *,
        inbox_high: float = NEVER,
        begin: bool = True,
        auto_ack: bool = True,
        auto_credit: bool = True,
        client: dict[str, int] | None = None,
        date: bool = False,
        server_name: str = "",
        extra: tuple[tuple[bytes, bytes], ...] = (),
        **config: Any,
    ) -> None:
        self.config = Config(**{"http2_plain_path": self.plain_path, **config})
        self.defaults = ResponseDefaults(server_name, extra, date)
        if date:
            self.defaults.set_date(DATE)
        self.driver = RecordingHttp2Driver(inbox_high)
        self.h2 = self.driver.h2 = Http2Connection(self.config, self.defaults, self.driver)
        self.client = Client(auto_credit, **(client or {}))
        self.auto_ack = auto_ack and begin
        self._reply = reply
        self._answered = 0
        self._read = 0
        self.encoder = hpack.Encoder()
        self.h2.opened()
        if begin:
            self.sync()

    # -- playing -----------------------------------------------------------------------------------------

    def feed(self, *parts: bytes) -> Http2Server:
        """Deliver reads, with turns of the loop after each; nothing is delivered to a closed connection."""
        for part in parts:
            if self.state in ("closed", "released", "aborted"):
                break
            self.h2.receive_data(part)
            self.turn()
        return self

    def sync(self) -> None:
        """Deliver what the client has to send, and let it read the answers, until both are quiet."""
        for _ in range(100_000):
            self.turn()
            out = self.client.h2.data_to_send()
            if not out:
                return
            self.feed(out)
        raise AssertionError("the two never stop talking")

    def request(self, method: bytes = b"GET", path: bytes = b"/", *more: tuple[bytes, bytes], end: bool = True) -> int:
        """Let the client send a request. Returns its stream."""
        stream = self.client.h2.get_next_available_stream_id()
        self.client.h2.send_headers(stream, fields(method, path, *more), end_stream=end)
        self.sync()
        return stream

    def send(self, stream: int, payload: bytes, end: bool = False) -> None:
        """Let the client send DATA; h2 raises if there is no window for it."""
        for start in range(0, len(payload) or 1, 16384):
            part = payload[start : start + 16384]
            self.client.h2.send_data(stream, part, end_stream=end and start + 16384 >= len(payload))
            self.sync() if self.auto_ack else self.feed(self.client.h2.data_to_send())

    def open_window(self, increment: int, *streams: int) -> None:
        """Let the client open the window of the connection, and those of streams."""
        for stream in (None, *streams):
            self.client.h2.increment_flow_control_window(increment, stream)
        self.sync()

    def turn(self) -> None:
        """Let the loop turn until nothing is left to do without time passing."""
        while True:
            if self.driver.soon:
                self.driver.soon = 0
                self.h2.flush()
            elif self._reply is not None and self._answered < len(self.sinks):
                sink = self.sinks[self._answered]
                if sink.reason is not None or sink.ended:
                    self._answered += 1
                    if sink.reason is None:
                        self._reply(sink)
                    sink.stream.task_ended()
                else:
                    break
            else:
                break
        self.read()

    def read(self) -> None:
        """Let the client read what was written."""
        written = self.driver.written
        while self._read < len(written):
            self._read += 1
            self.client.read(written[self._read - 1])
        if self.auto_ack and self.state == "open":
            out = self.client.h2.data_to_send()
            if out:
                self.h2.receive_data(out)
                self.turn()

    def drain(self) -> None:
        """The transport has room again."""
        self.driver.is_full = False
        self.h2.drained()
        self.turn()

    def advance(self, seconds: float) -> None:
        """Let time pass; the timer fires on its way, as the real driver's does."""
        driver, port = self.driver, self.h2
        until = driver.now + seconds
        for _ in range(1000):
            if driver.timer > until:
                driver.now = until
                return
            driver.now = max(driver.now, driver.timer)
            driver.timer = port.armed_for = NEVER
            port.deadline_passed(driver.now)
            if port.deadline < port.armed_for:
                driver.rearm(port.deadline)
            self.turn()
        raise AssertionError("the timer spins")

    def eof(self) -> None:
        """The client closes its half."""
        self.h2.eof_received()
        self.turn()

    def lose(self, reason: str = "the client disconnected") -> None:
        """The transport reports its end."""
        self.driver.soon = 0
        self.h2.connection_lost(reason)
        self.turn()

    def answer(self, body: bytes = b"ok", *names: tuple[bytes, bytes], status: int = 200) -> None:
        """Answer the latest request in one call, and end its task."""
        sink = self.sink
        sink.stream.start(status, list(names), body, True, False)
        if not sink.ended:
            sink.stream.abandon()
        sink.stream.task_ended()
        self.turn()

    def record_states(self) -> StateRecorder:
        """Have the states recorded from here on."""
        return StateRecorder(self.h2)

    # -- the second way ----------------------------------------------------------------------------------

    def let_h2_open_streams(self) -> Http2Server:
        """Have requests opened by the parser of h2 instead of past it."""
        needs_pure("no interpreted class can inherit from the sieve")
        self.h2._sieve.__class__ = _frames_for_h2()
        return self

    def let_h2_validate(self) -> Http2Server:
        """Have h2 check the fields of requests besides; for that it must open their streams."""
        engine = self.h2._engine
        engine.__class__ = ValidatingEngine
        engine.config.validate_inbound_headers = True
        engine.decoder = _DecoderForH2(engine.block_decoder)
        return self.let_h2_open_streams()

    # -- looking -----------------------------------------------------------------------------------------

    @property
    def sinks(self) -> list[RecordingStreamSink]:
        """One for each exchange, in order."""
        return self.driver.sinks

    @property
    def sink(self) -> RecordingStreamSink:
        """The latest exchange."""
        return self.driver.sinks[-1]

    @property
    def stream(self) -> Http2Stream:
        """The stream of the latest exchange."""
        return self.sink.stream

    @property
    def state(self) -> str:
        """See `RecordingHttp2Driver.state`."""
        return self.driver.state

    def response(self, stream: int = 1) -> Response:
        """What the client has read on a stream."""
        self.turn()
        return self.client.responses.setdefault(stream, Response())

    @property
    def idle(self) -> bool:
        """Whether no request is being served."""
        return not self.h2._streams

    @property
    def failure(self) -> int | None:
        """The code that the connection was ended with."""
        return self.driver.failures[0][0] if self.driver.failures else None


def echo(sink: RecordingStreamSink) -> None:
    """Answer with what was received."""
    head = sink.head
    sink.stream.start(200, [(b"content-type", b"text/plain")], head.method.encode() + b" " + sink.body, True, False)

"""One HTTP/2 connection, server side, without I/O (RFC 9113).

Theory of operation
-------------------

Bytes go in through `Http2Connection.receive_data`. The sieve (`http2.sieve`) cuts them into frames and keeps away what
costs more than it is worth; the engine (`http2.engine`, which is h2) judges the rest and reports events; these make
streams (`http2.stream`), each with an exchange that answers through it. What goes out waits in the streams, and is
taken from there by the sender (`http2.sending`), on one turn of the loop for all.

1. Exchanges begin after all that one read delivered has been worked on: a request that is reset in the same breath
   never reaches the application.
2. What is wrong with a request ends its stream, and no other. What is wrong with the connection ends it: GOAWAY, one
   `failed` for the logs, `disconnected` for every exchange.
3. GOAWAY is ours in both directions. h2 neither sends nor sees one, since it is dead after either.
4. A stream counts against the limit until nothing can come or go on it; if it ended before its response did, until its
   application has ended, too.
5. h2 works on all frames of a read before we see its events. So its stream may be closed already when ours is not: all
   that acts on a stream of h2 looks at that first.
6. While the transport is full nothing is handed to it. What has to be answered all the same (acknowledgements, resets)
   waits, and if that becomes much, reading pauses.
7. `deadline` is no later than the first point in time at which something must happen. `deadline_passed` looks for what
   it was, and for the next.
"""

from __future__ import annotations

from typing import Any

from h2.events import (
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.stream import H2Stream

from daphne_ng.config import Config
from daphne_ng.errors import WireError
from daphne_ng.pieces import append_piece, as_bytes
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http2.driver import Http2Driver
from daphne_ng.wire.http2.frames import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    STREAM_ID_MAX,
    goaway_frame,
    ping_frame,
    window_update_frame,
)
from daphne_ng.wire.http2.head import Http2Head, MalformedRequest, check_request_fields, check_trailer_fields
from daphne_ng.wire.http2.hpack import CompressionError
from daphne_ng.wire.http2.schedule import parse_priority
from daphne_ng.wire.http2.sieve import (
    GOAWAY_RECEIVED,
    NEVER,
    PRIORITY_RECEIVED,
    REQUEST,
    SKIPPED_BLOCK,
    SKIPPED_DATA,
    ConnectionFault,
)
from daphne_ng.wire.http2.stream import Http2Stream
from daphne_ng.wire.http2.streams import DEFAULT_WINDOW_BYTES, FIRST_WINDOW_BYTES, Http2Streams
from daphne_ng.wire.websocket.handshake import from_connect

__all__ = ["Http2Connection", "Http2Driver"]

# Taken from the streams and written at a time; in between the transport is asked whether it is full.
_WRITE_BYTES = 65536
# Answers to control frames that may wait for the transport before reading pauses.
_CONTROL_MAX_BYTES = 65536
# What is due for DATA that was skipped is given back in pieces of this size, a small part of the first window.
_SKIPPED_BYTES = 32768
# Priorities that came before their requests.
_EARLY_PRIORITIES_MAX = 100

_GRACE_PING = b"goodbye?"
_LIFE_PING = b"are you?"


class Http2Connection(Http2Streams):
    """Protocol state of one connection.

    Args:
        config: Limits and timeouts.
        defaults: Fields added to every response; shared by all connections.
        driver: The I/O around it.
    """

    def __init__(self, config: Config, defaults: ResponseDefaults, driver: Http2Driver) -> None:
        super().__init__(config, defaults, driver)
        self._requests = 0
        self._priorities: dict[int, bytes] = {}
        self._choked = False  # the transport is full, and much is to be written that cannot wait in a stream
        self._skipped = 0  # bytes of DATA that h2 has not seen, and whose window is due
        self._closing = False  # shut_down was called
        self._last_said = False  # no further stream will be served, and the client has been told which was the last
        self._peer_leaving = False
        self._asked_at = 0.0
        self._heard_at = 0.0
        self._head_deadline = NEVER
        self._grace_deadline = NEVER
        self._ping_deadline = NEVER

    # -- what the driver reports -------------------------------------------------------------------------

    def opened(self) -> None:
        """Begin: our SETTINGS go out, and the client's preface is due."""
        config, engine = self._config, self._engine
        engine.initiate_connection()
        engine.open_window(FIRST_WINDOW_BYTES - DEFAULT_WINDOW_BYTES, None)
        now = self._heard_at = self._clock()
        if config.head_timeout:
            self._head_deadline = now + config.head_timeout
            self._due_at(self._head_deadline)
        if config.http2_ping_interval:
            self._ping_deadline = now + config.http2_ping_interval
            self._due_at(self._ping_deadline)
        self._rest(now)
        self.flush()

    def receive_data(self, data: bytes) -> None:
        """Take what one read delivered, from the first byte of the client's preface on."""
        if self._lingering:
            return
        now = self._heard_at = self._clock()
        if self._sieve.behind:
            self._sieve.keep(data)
        else:
            self._receive(data, now)

    def wait_with(self, data: bytes) -> None:
        """Take what one read delivered, to be worked on in a later turn of the loop: this one is used up."""
        sieve = self._sieve
        if sieve.begins or self._lingering:
            self.receive_data(data)  # without its preface there is no connection yet
            return
        self._heard_at = self._clock()
        sieve.keep(data)
        if not sieve.behind:
            sieve.behind = True
            self._read_or_wait()
            self._wants_flush()

    def go_on(self, data: bytes) -> None:
        """Work on what has been kept for a turn of its own, behind which comes `data`."""
        self._receive(data, self._clock())

    # Work on what came, and on what others' turns have kept waiting, for one turn.
    # Hot: every read of a connection; a call would cost more than the branches.
    def _receive(self, data: bytes, now: float) -> None:  # noqa: PLR0912
        sieve = self._sieve
        pending = sieve.head_pending
        self._working = True
        try:
            for item in sieve.feed(data, now):
                if item.__class__ is bytes:
                    self._judge(item, now)
                else:
                    kind, stream_id, value = item
                    if kind == REQUEST:
                        h2, fields = self._engine.open_stream(stream_id, *value)
                        self._request_received(h2, fields, bool(value[1]), now)
                    else:
                        self._note(kind, stream_id, value, now)
            if sieve.fault is not None:
                raise sieve.fault
            if self._new:
                self._begin_new(now)
        except (ConnectionFault, CompressionError) as fault:
            self._fail(fault.code, fault.detail)
            return
        except ProtocolError as error:
            # What h2 says holds bytes of the peer's; its class does not.
            self._fail(int(error.error_code), f"The client broke the protocol ({type(error).__name__}).")
            return
        finally:
            self._working = False
        if not sieve.head_pending:
            self._head_deadline = NEVER
        elif (sieve.head_is_new or not pending) and self._config.head_timeout:
            self._head_deadline = now + self._config.head_timeout
            self._due_at(self._head_deadline)
        self._flush()
        if sieve.behind or self._paused:
            self._read_or_wait()
            if sieve.behind:
                self._wants_flush()

    # Reading pauses while the client takes too little, and while there is enough to be worked on.
    def _read_or_wait(self) -> None:
        paused = self._choked or self._sieve.behind
        if paused != self._paused and not self._lingering:
            self._paused = paused
            if paused:
                self._driver.pause_reading()
            else:
                self._driver.resume_reading()

    def flush(self) -> None:
        """Send what the windows and the transport allow. The driver calls it after `Http2Driver.flush_soon`.

        And work on what has come and had to wait for a turn of its own.
        """
        self._flush_due = False
        if self._sieve.behind and not self._lingering:
            if not self._driver.take_turn():
                self._flush_due = True
        else:
            self._flush()

    def _flush(self) -> None:
        if self._lingering:
            return
        driver, engine, sender = self._driver, self._engine, self._sender
        full = driver.full
        while not full():
            if not sender.idle:
                sender.pump(_WRITE_BYTES)
            if not engine.out:
                break
            driver.write(engine.take_output())
        else:
            if engine.out_bytes > _CONTROL_MAX_BYTES and not self._choked:
                self._choked = True
                self._read_or_wait()
        if self._rooms:
            for stream in list(self._rooms.values()):
                if stream.room():
                    self._rooms.pop(stream.id, None)
        if sender.waits and self._config.http2_stall_timeout:
            self._watch_windows()
        if (self._last_said or self._peer_leaving) and not self._streams and not engine.out:
            self._leave()

    def drained(self) -> None:
        """The transport has room again, after `Http2Driver.full` was true."""
        if self._lingering:
            return
        self._flush()
        if self._choked and not self._lingering and not self.full():
            self._choked = False
            self._read_or_wait()

    def eof_received(self) -> None:
        """The client closed its half: nobody is there for the answers that are under way."""
        if self._closed:
            return
        self._lingering = True
        self._lose_all("the client closed its half of the connection")
        self._close()

    def connection_lost(self, reason: str) -> None:
        """The transport is gone."""
        self._lingering = self._closed = True
        self._lose_all(reason)
        self.deadline = self._end_deadline = NEVER
        # They refer back to themselves or to this: nothing should be left for the garbage collector.
        self._sender.let_go()
        self._engine.let_go()

    def shut_down(self) -> None:
        """Serve what has begun, then close."""
        if self._closing or self._lingering:
            return
        self._closing = True
        if self._last_said:
            return
        # RFC 9113 section 6.8: "A server that is attempting to gracefully shut down a connection SHOULD send an initial
        # GOAWAY frame with the last stream identifier set to 2^31-1 and a NO_ERROR code. [...] After allowing time for
        # any in-flight stream creation (at least one round-trip time), the server MAY send another GOAWAY frame with an
        # updated last stream identifier."
        self._engine.write(goaway_frame(STREAM_ID_MAX, NO_ERROR) + ping_frame(_GRACE_PING))
        self._budget.asked += 1
        self._grace_deadline = self._clock() + self._config.http2_goaway_timeout
        self._due_at(self._grace_deadline)
        self._wants_flush()

    # -- time --------------------------------------------------------------------------------------------

    def deadline_passed(self, now: float) -> None:
        """Act on what is due, and find out what is next."""
        if now < self.deadline:
            return
        self.deadline = NEVER
        if self._lingering:
            if now >= self._end_deadline:
                self._end_deadline = NEVER
                self._end_passed(now)
            else:
                self._due_at(self._end_deadline)
            return
        self._working = True
        self._look_at_streams(now)
        self._working = False
        sender, stall = self._sender, self._config.http2_stall_timeout
        if now >= self._head_deadline:
            self._fail(ENHANCE_YOUR_CALM, "The preface or a request head took too long.")
        elif stall and sender.starving is not None and now >= sender.starving.since + stall:
            self._fail(ENHANCE_YOUR_CALM, "The client keeps the window of the connection closed.")
        elif now >= self._ping_deadline and not self._alive(now):
            self._fail(NO_ERROR, "The client did not answer a ping.")
        else:
            if now >= self._grace_deadline or (now >= self._idle_deadline and not self._still_reads(now)):
                self._say_last()
            if not self._streams:
                self._engine.block_decoder.forget()  # it rests, or has rested
            for deadline in (self._head_deadline, self._ping_deadline, self._grace_deadline, self._idle_deadline):
                self._due_at(deadline)
            self._flush()

    # Whether the client shows signs of life, or is asked for one now.
    def _alive(self, now: float) -> bool:
        interval = self._config.http2_ping_interval
        if now - self._heard_at < interval:
            self._ping_deadline = self._heard_at + interval
            return True
        if self._asked_at > self._heard_at:
            wait = self._patience(now)
            self._ping_deadline = now + wait
            return wait > 0
        self._asked_at = now
        self._ping_progress = None
        self._engine.write(ping_frame(_LIFE_PING))
        self._budget.asked += 1
        self._ping_deadline = now + interval
        return True

    def _look_at_streams(self, now: float) -> None:
        stall = self._config.http2_stall_timeout
        for stream in list(self._streams.values()):
            if now >= stream.exchange_deadline:
                stream.exchange_deadline = NEVER
                if stream.sink is not None:
                    stream.sink.expired()
            if now >= stream.body_deadline:
                stream.body_deadline = NEVER
                if stream.dropping:
                    self._reset_politely(stream)
                elif stream.holding:
                    self._fail_stream(stream, WireError(408, "The application left the request body unread."))
                else:
                    self._fail_stream(stream, WireError(408, "The request body took too long."))
            if stall and stream.stall is not None and now >= stream.stall.since + stall and not stream.closed:
                self._driver.stalled(stream)
                self._cut(stream, CANCEL, "the client kept the window of the stream closed")
            if not stream.closed:
                self._due_at(min(stream.exchange_deadline, stream.body_deadline))

    # Something waits for a window: it has until then.
    def _watch_windows(self) -> None:
        sender, stall = self._sender, self._config.http2_stall_timeout
        since = NEVER if sender.starving is None else sender.starving.since
        for stream in sender.blocked.values():
            if stream.stall is not None:
                since = min(since, stream.stall.since)
        self._due_at(since + stall)

    # -- what h2 and the sieve report --------------------------------------------------------------------

    def _judge(self, data: bytes, now: float) -> None:
        events, resets = self._engine.receive(data)
        if resets:
            self._sieve.take_reset(now, resets)
        for event in events:
            kind = event.__class__
            if kind is DataReceived:
                self._data_received(event, now)
            elif kind is WindowUpdated:
                if event.stream_id:
                    self._sender.opened(event.stream_id)
                else:
                    self._sender.opened()
            elif kind is StreamReset:
                self._stream_reset(event)
            elif kind is TrailersReceived:
                self._trailers_received(event, now)
            elif kind is RemoteSettingsChanged:
                self._sender.opened(*self._sender.blocked)
            elif kind is RequestReceived:
                h2 = self._engine.streams[event.stream_id]
                ended = event.stream_ended is not None
                self._request_received(h2, self._engine.fields(event), ended, now)
            elif kind is PingAckReceived and self._closing and event.ping_data == _GRACE_PING:
                self._say_last()

    def _note(self, kind: int, stream_id: int, value: Any, now: float) -> None:
        if kind == SKIPPED_DATA:
            # h2 has not seen the frame, so it must not see the update either.
            self._skipped += value
            if self._skipped >= _SKIPPED_BYTES:
                self._engine.write(window_update_frame(0, self._skipped))
                self._skipped = 0
        elif kind == SKIPPED_BLOCK:
            # It costs as much as any, and nobody gets an answer.
            self._sieve.take_reset(now)
            self._engine.block_decoder.decode(value)
        elif kind == PRIORITY_RECEIVED:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.urgency, stream.incremental = parse_priority(value)
                self._sender.reprioritized(stream)
            # What the sieve has seen may be ahead of this frame, what h2 has seen is not.
            elif stream_id > self._engine.highest_inbound_stream_id and len(self._priorities) < _EARLY_PRIORITIES_MAX:
                self._priorities[stream_id] = value
        elif kind == GOAWAY_RECEIVED:
            # Its streams go on; it will open no other, so that the connection ends with the last of them.
            self._peer_leaving = True
        else:
            stream = self._streams.get(stream_id)
            if stream is None:
                raise ConnectionFault(value, "A frame is wrong, and its stream not open.")
            if value == STREAM_CLOSED and not stream.ended:
                value = PROTOCOL_ERROR  # trailers of an open stream
            self._sieve.take_reset(now)
            self._driver.refused(stream.head, 400, "A frame of the request is wrong.", stream.sink is not None)
            self._cut(stream, value, "a frame of the request is wrong")

    def _request_received(self, h2: H2Stream, fields: Any, ended: bool, now: float) -> None:
        driver = self._driver
        stream_id: int = h2.stream_id
        if h2.closed:
            self._engine.forget(h2)  # it was reset in the same breath
            return
        if len(self._streams) + self._cut_short >= self._config.http2_max_concurrent_streams:
            self._refuse(h2, REFUSED_STREAM, now)
            return
        try:
            head = check_request_fields(fields, self._config, ended, True)
        except MalformedRequest as error:
            self._refuse(h2, error.code, now)
            driver.refused(None, error.status, error.detail, False)
            return
        except WireError as error:
            head = Http2Head()
            head.method = "HEAD" if (b":method", b"HEAD") in fields else "GET"
            stream = self._streams[stream_id] = Http2Stream(self, h2, head, ended)
            driver.refused(None, error.status, error.detail, False)
            self._answer(stream, error)
            return
        stream = self._streams[stream_id] = Http2Stream(self, h2, head, ended)
        self._idle_deadline = NEVER
        if self._priorities:
            value = self._priorities.pop(stream_id, None)
            if value is not None:
                stream.urgency, stream.incremental = parse_priority(value)
        self._new.append(stream)
        self._requests += 1
        if self._requests == self._config.http2_max_requests:
            self.shut_down()

    # Reset a stream that has not become one of ours.
    def _refuse(self, h2: H2Stream, code: int, now: float) -> None:
        self._engine.send_reset(h2, code)
        self._engine.forget(h2)
        self._sieve.give_up(h2.stream_id)
        self._sieve.take_reset(now)

    # Hot: every request; a call would cost more than the branches.
    def _begin_new(self, now: float) -> None:  # noqa: PLR0912
        config, driver = self._config, self._driver
        new, self._new = self._new, []
        for stream in new:
            if stream.closed or stream.responded:
                continue
            head = stream.head
            sink: Any
            if head.websocket:
                try:
                    if stream.ended:
                        raise WireError(400, "A WebSocket handshake leaves its stream open.")
                    request = from_connect(head)
                except WireError as error:
                    self._fail_stream(stream, error)
                    continue
                stream.running = True
                sink = driver.begin_websocket(request, stream)
            else:
                if not stream.ended:
                    if config.body_timeout:
                        stream.body_deadline = now + config.body_timeout
                        self._due_at(stream.body_deadline)
                elif config.http_timeout:
                    stream.exchange_deadline = now + config.http_timeout
                    self._due_at(stream.exchange_deadline)
                stream.running = True
                sink = driver.begin(head, stream)
            if sink is None:
                stream.running = False
                stream.abandon()
            if sink is None or stream.closed or stream.responded:
                continue
            stream.sink = sink
            if stream.early is not None:
                for part in stream.early:
                    if sink.body_received(as_bytes(part)) and not stream.holding:
                        self._begin_holding(stream, now)
                stream.early = None
            if stream.ended and stream.sink is not None:
                sink.body_ended(())

    # Hot: every DATA frame; a call would cost more than the branches.
    def _data_received(self, event: Any, now: float) -> None:  # noqa: PLR0912
        stream = self._streams.get(event.stream_id)
        count = event.flow_controlled_length
        if stream is None:
            self._credit(None, count)
            return
        data = event.data
        ended = event.stream_ended is not None
        head = stream.head
        stream.received_bytes += len(data)
        received = stream.received_bytes
        if head.length_known and (received > head.content_length or (ended and received != head.content_length)):
            self._credit(None, count)
            self._sieve.take_reset(now)
            self._fail_stream(stream, MalformedRequest("The body is not as long as its Content-Length."))
            return
        most = self._config.body_max_bytes
        if most and received > most and not stream.dropping and not head.websocket:
            self._credit(None, count)
            self._fail_stream(stream, WireError(413, "The request body is too large."))
            return
        if stream.dropping:
            stream.body_deadline = min(now + self._config.drain_pause_timeout, stream.drop_until)
            self._credit(stream, count)
        elif data:
            if stream.sink is None:
                if stream.early is None:
                    stream.early = []
                append_piece(stream.early, data)
            else:
                full = stream.sink.body_received(data)
                if stream.closed:
                    self._credit(None, count)
                    return
                if full and not stream.holding and not stream.dropping:
                    self._begin_holding(stream, now)
                elif stream.body_deadline != NEVER and not stream.holding and not stream.dropping:
                    stream.body_deadline = now + self._config.body_timeout
            if stream.holding:
                self._hold(stream, count - len(data), len(data))
            else:
                self._credit(stream, count)
        else:
            self._credit(stream, count)
        if ended:
            self._body_ended(stream, now)

    # The sink is full. From here on it is the application that takes its time.
    def _begin_holding(self, stream: Http2Stream, now: float) -> None:
        stream.holding = True
        if stream.tunnel or stream.head.websocket:
            return
        stream.body_deadline = NEVER
        if self._config.paused_read_timeout and not stream.ended:
            stream.body_deadline = now + self._config.paused_read_timeout
            self._due_at(stream.body_deadline)

    def _trailers_received(self, event: Any, now: float) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        try:
            check_trailer_fields(self._engine.fields(event), self._config)
            if stream.head.length_known and stream.received_bytes != stream.head.content_length:
                raise MalformedRequest("The body is not as long as its Content-Length.")
        except WireError as error:
            self._sieve.take_reset(now)
            self._fail_stream(stream, error)
            return
        self._body_ended(stream, now)

    def _body_ended(self, stream: Http2Stream, now: float) -> None:
        stream.ended = True
        stream.body_deadline = NEVER
        sink = stream.sink
        if sink is not None and (stream.tunnel or not stream.responded):
            if self._config.http_timeout and not stream.head.websocket:
                # From here on it is the application's time.
                stream.exchange_deadline = now + self._config.http_timeout
                self._due_at(stream.exchange_deadline)
            sink.body_ended(())
        if stream.responded and not stream.end_due:
            stream.sink = None
            self._close_stream(stream)

    def _stream_reset(self, event: Any) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            if not event.remote_reset:
                self._sieve.give_up(stream.id)
            self._lose(stream, "the client reset the stream" if event.remote_reset else "the client broke the protocol")

    # -- end of the connection ---------------------------------------------------------------------------

    # No further stream is served: tell which was the last. The connection ends with it.
    def _say_last(self) -> None:
        self._grace_deadline = self._idle_deadline = NEVER
        if self._last_said:
            return
        self._last_said = self._closing = True
        sieve = self._sieve
        sieve.last_id = sieve.highest_id
        self._engine.write(goaway_frame(sieve.highest_id, NO_ERROR))
        self._wants_flush()

    # All is said and done.
    def _leave(self) -> None:
        if not self._last_said:
            self._last_said = True
            self._driver.write(goaway_frame(self._sieve.highest_id, NO_ERROR))
        self._linger()

    # The connection is broken.
    def _fail(self, code: int, detail: str) -> None:
        if self._lingering:
            return
        engine = self._engine
        last = self._sieve.highest_id
        self._driver.failed(code, detail)
        self._working = True
        self._lose_all(detail)
        self._working = False
        engine.clear_outbound_data_buffer()
        engine.write(goaway_frame(last, code, detail))
        self._driver.write(engine.take_output())
        self._linger()

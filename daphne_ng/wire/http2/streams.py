"""What the streams of an HTTP/2 connection share: its windows, its output, and the ways in which they end.

Of a stream that ends before its connection there is nothing to be remembered but that we have reset it, if we have. The
sieve keeps that, and drops what was on its way.
"""

from __future__ import annotations

from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import WireError
from daphne_ng.port.answers import error_answer
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http2.driver import Http2Driver
from daphne_ng.wire.http2.ending import Http2Ending
from daphne_ng.wire.http2.engine import Engine
from daphne_ng.wire.http2.frames import CANCEL, NO_ERROR, PROTOCOL_ERROR
from daphne_ng.wire.http2.head import MalformedRequest
from daphne_ng.wire.http2.sending import Sender
from daphne_ng.wire.http2.sieve import NEVER, FrameSieve
from daphne_ng.wire.http2.stream import Http2Stream
from daphne_ng.wire.http2.windows import ReceiveWindow

__all__ = ["DEFAULT_WINDOW_BYTES", "FIRST_WINDOW_BYTES", "Http2Streams"]

# The connection's window at first. Streams begin with 64 KiB each, so sixteen uploads may begin at once without one
# waiting for another; it grows like theirs, up to what may be buffered.
FIRST_WINDOW_BYTES = 1024 * 1024
DEFAULT_WINDOW_BYTES = 65535  # RFC 9113 section 6.9.2


class Http2Streams(Http2Ending):
    """What `Http2Connection` builds on: its streams, apart from how they begin.

    Args:
        config: Limits and timeouts.
        defaults: Fields added to every response.
        driver: The I/O around it.
    """

    def __init__(self, config: Config, defaults: ResponseDefaults, driver: Http2Driver) -> None:
        super().__init__(config, driver)
        self.defaults = defaults
        """Fields added to every response."""
        self.full = driver.full
        """Whether the transport holds enough."""
        self.shortened = driver.shortened
        """Tell of a body that was shorter than its Content-Length."""
        self._engine = engine = Engine(config)
        self._sieve = sieve = FrameSieve(config)
        self._budget = sieve.budget
        floor = max(1, int(config.write_min_rate * config.http2_stall_timeout))
        self._sender = Sender(engine, driver.clock, floor, sieve.budget.data_sent, self._finished)
        self._streams: dict[int, Http2Stream] = {}
        self._new: list[Http2Stream] = []  # those that begin when the read has been worked on
        self._cut_short = 0  # streams that are closed, and whose application has not ended yet
        self._window = ReceiveWindow(FIRST_WINDOW_BYTES, config.http2_connection_buffer_max_bytes)
        self._held = 0  # bytes that streams hold
        self._rooms: dict[int, Http2Stream] = {}  # streams in which somebody waits for room
        self._working = False  # in a call that flushes at its end
        self._flush_due = False

    # -- inbound windows ---------------------------------------------------------------------------------

    # Give back what a stream received, of its window and the connection's; without a stream, of the latter.
    def _credit(self, stream: Http2Stream | None, count: int) -> None:
        if not count:
            return
        if stream is not None and not stream.ended:
            window = stream.window
            if window is None:
                window = stream.window = ReceiveWindow(DEFAULT_WINDOW_BYTES, self._config.http2_window_max_bytes)
            increment = window.credit(count)
            if increment and not stream.h2.closed:
                self._engine.open_window(increment, stream.id)
        increment = self._window.credit(count)
        if increment:
            self._engine.open_window(increment, None)

    # Keep back the window of what the application has no room for; padding it has.
    def _hold(self, stream: Http2Stream, padding: int, count: int) -> None:
        if padding:
            self._credit(stream, padding)
        window = stream.window
        if window is None:
            window = stream.window = ReceiveWindow(DEFAULT_WINDOW_BYTES, self._config.http2_window_max_bytes)
        window.hold(count)
        self._held += count
        if self._held >= self._config.http2_connection_buffer_max_bytes:
            self._window.hold(count)
        else:
            increment = self._window.credit(count)
            if increment:
                self._engine.open_window(increment, None)

    def _release(self, stream: Http2Stream) -> None:
        window = stream.window
        if window is not None and window.held:
            self._held -= window.held
            increment = window.release()
            if increment and not (stream.ended or stream.closed or stream.h2.closed):
                self._engine.open_window(increment, stream.id)
            if self._window.held and self._held < self._config.http2_connection_buffer_max_bytes:
                increment = self._window.release()
                if increment:
                    self._engine.open_window(increment, None)
            self._wants_flush()

    # -- for the streams ---------------------------------------------------------------------------------

    def send_head(self, stream: Http2Stream, block: bytes, end: bool, interim: bool = False) -> None:
        """Send a header block, at once: it is not subject to flow control."""
        if stream.h2.closed:
            return
        if not interim:
            self._budget.responses += 1
        self._engine.send_block(stream.h2, block, end, interim)
        if end:
            self._finished(stream)
        self._wants_flush()

    def send_response(self, stream: Http2Stream, block: bytes, body: bytes) -> None:
        """Send a whole response, its body in the same write if nothing is in the way."""
        engine, h2 = self._engine, stream.h2
        if h2.closed:
            return
        engine.send_block(h2, block, False)
        self._budget.responses += 1
        size = len(body)
        if (
            self._sender.idle
            and size <= h2.outbound_flow_control_window
            and size <= engine.outbound_flow_control_window
            and size <= engine.frame_max
            and not self.full()
        ):
            engine.send_part(h2, [body], size, True)
            self._budget.data_sent(size)
            self._finished(stream)
            self._wants_flush()
        else:
            stream.end_due = True
            stream.queue(body)

    def queue(self, stream: Http2Stream) -> None:
        """Note that a stream has something to send."""
        self._sender.add(stream)
        self._wants_flush()

    def new_waiter(self, stream: Http2Stream) -> Any:
        """Make something to await, which `Http2Stream.room` completes."""
        self._rooms[stream.id] = stream
        return self._driver.new_waiter()

    def wants_room(self, stream: Http2Stream) -> None:
        """Have `Http2Stream.room` called when there may be room."""
        self._rooms[stream.id] = stream

    def body_wanted(self, stream: Http2Stream) -> None:
        """The application has taken what was held."""
        if not stream.ended and self._config.body_timeout and not stream.head.websocket:
            stream.body_deadline = self._clock() + self._config.body_timeout
            self._due_at(stream.body_deadline)
        self._release(stream)

    def drop_body(self, stream: Http2Stream) -> None:
        """Nobody will read the rest of the request: take it for a while, then reset the stream behind its response.

        Not at once: the client is sending, and some (curl 7.88, httpx 0.28) look for the response only when that is
        over, whatever RFC 9113 section 8.1 says of a reset with NO_ERROR. How long, as on HTTP/1.1.
        """
        stream.dropping = True
        stream.holding = False
        stream.early = None
        if stream.waits_for_continue:
            self._reset_politely(stream)
            return
        config, now = self._config, self._clock()
        stream.drop_until = now + config.drain_timeout
        stream.body_deadline = min(now + config.drain_pause_timeout, stream.drop_until)
        self._due_at(stream.body_deadline)
        self._release(stream)

    def reset_stream(self, stream: Http2Stream, code: int, reason: str) -> None:
        """Reset a stream for its exchange."""
        if not stream.closed:
            self._cut(stream, code, reason)

    def break_off(self) -> None:
        """Drop the connection: the state of a stream, or of what they all share, may be wrong."""
        self._forget()
        self._driver.break_off()

    def task_ended(self, stream: Http2Stream) -> None:
        """The application of a stream has ended."""
        if stream.cut_short and stream.closed:
            self._cut_short -= 1

    # -- ends of streams ---------------------------------------------------------------------------------

    # Answer without the application. The request ends with it.
    def _answer(self, stream: Http2Stream, error: WireError) -> None:
        stream.dropping = True
        stream.early = None
        fields, text = error_answer(error.status, error.detail, error.headers)
        stream.start(error.status, fields, text, True, False)
        if not stream.closed and not stream.ended:
            self.drop_body(stream)

    # A request that the application has begun to read turned out to be broken, late or too large.
    def _fail_stream(self, stream: Http2Stream, error: WireError) -> None:
        sink, stream.sink = stream.sink, None
        malformed = isinstance(error, MalformedRequest)
        answered = not stream.started and not malformed
        if sink is not None:
            stream.cut_short = True
        if answered:
            self._answer(stream, error)
        else:
            self._cut(stream, PROTOCOL_ERROR if malformed else CANCEL, error.detail)
        if sink is not None:
            sink.disconnected(error.detail, error.status if answered else None)
        self._driver.refused(stream.head, error.status, error.detail, sink is not None)

    # Our direction has ended; take the client's word that it ends its own, or not.
    def _finished(self, stream: Http2Stream) -> None:
        if stream.finished():
            self._reset_politely(stream)
        elif stream.ended:
            self._close_stream(stream)

    # RFC 9113 section 8.1: "the server MAY request that the client abort transmission of a request without error by
    # sending a RST_STREAM with an error code of NO_ERROR after sending a complete response".
    def _reset_politely(self, stream: Http2Stream) -> None:
        if not stream.closed and not stream.reset_when_finished():
            self._cut(stream, NO_ERROR, "the rest of the request was not wanted")

    # Reset a stream of ours.
    def _cut(self, stream: Http2Stream, code: int, reason: str) -> None:
        if self._engine.send_reset(stream.h2, code):
            self._sieve.give_up(stream.id)
        self._lose(stream, reason)
        self._wants_flush()

    # A stream is over, and its exchange may not know.
    def _lose(self, stream: Http2Stream, reason: str) -> None:
        if not stream.responded:
            stream.cut_short = True
        sink, stream.sink = stream.sink, None
        self._close_stream(stream)
        if sink is not None:
            sink.disconnected(reason)

    def _close_stream(self, stream: Http2Stream) -> None:
        if stream.closed:
            return
        stream.closed = True
        stream.body_deadline = stream.exchange_deadline = NEVER
        stream.early = None
        del self._streams[stream.id]
        if stream.parts is not None or stream.end_due:
            self._sender.remove(stream)
            stream.parts = None
            if stream.buffered:
                stream.body_bytes_sent -= stream.buffered
                stream.flushed(stream.buffered)
                stream.buffered = 0
        self._engine.forget(stream.h2)
        if stream.running and stream.cut_short:
            self._cut_short += 1
        if stream.window is not None:
            self._release(stream)
        if self._rooms and self._rooms.pop(stream.id, None) is not None:
            stream.room()
        if not self._streams:
            self._rest(self._clock())

    def _lose_all(self, reason: str) -> None:
        self._new.clear()
        for stream in list(self._streams.values()):
            self._lose(stream, reason)

    def _wants_flush(self) -> None:
        if not self._flush_due and not self._working and not self._lingering:
            self._flush_due = True
            self._driver.flush_soon()

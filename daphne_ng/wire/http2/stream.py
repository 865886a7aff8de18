"""One request of an HTTP/2 connection and its response: a stream.

Theory of operation
-------------------

`Http2Stream` is the `ResponsePort` of its exchange, and takes what comes for its request. Each of its halves has a
state (`http2.states`). What streams share is in their `StreamContext`: the engine, the windows, the sender and the
driver. A stream decides itself how it ends, and knows nothing of the connection.

1. A stream is *closed* (`OVER`) when nothing more can come or go on it: both directions have ended, it was reset by
   either side, or its connection is gone. Every method is harmless afterwards.
2. A stream that is closed before its response has ended tells its sink, unless the exchange itself had it reset:
   `disconnected`, once.
3. A part of the body for which the sink has no room is delivered all the same, but the window it took is given back
   only after `consumed`. So the client stops by itself, and no other stream is held up.
4. What the application sends waits in the stream, up to 64 KiB and one part beyond: then `writable` asks to wait.
5. h2 works on several frames before we see its events. So a stream may be closed on the wire already when it is not
   here: a method that acts on its record (`http2.records`) looks at that first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from daphne_ng._types import Headers
from daphne_ng.errors import WireError
from daphne_ng.pieces import append_piece, as_bytes
from daphne_ng.port import RequestSink
from daphne_ng.port.answers import error_answer
from daphne_ng.wire.ending import NEVER
from daphne_ng.wire.http.fields import DROP_LENGTH
from daphne_ng.wire.http.response import END_STREAM, FRAMING, LENGTH, NO_BODY, UNSTARTED, is_bodiless, overlong_body
from daphne_ng.wire.http.status import bodiless_status
from daphne_ng.wire.http2.context import StreamContext
from daphne_ng.wire.http2.driver import TunnelSink
from daphne_ng.wire.http2.frames import CANCEL, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR
from daphne_ng.wire.http2.head import Http2Head, MalformedRequest, check_trailer_fields
from daphne_ng.wire.http2.hpack import encode_fields, encode_status
from daphne_ng.wire.http2.records import StreamRecord
from daphne_ng.wire.http2.response import default_block, length_line, trailer_block
from daphne_ng.wire.http2.schedule import NO_PRIORITY, parse_priority
from daphne_ng.wire.http2.sending import SEND_HIGH_BYTES, SEND_LOW_BYTES, Stall
from daphne_ng.wire.http2.states import (
    ABANDONED,
    AWAITED,
    COMPLETE,
    COMPLETE_HELD,
    CONSUMED,
    DISCARD_OVER,
    DISCARDING,
    END,
    ENDING,
    HOLDING,
    OVER,
    RECEIVING,
    REQUEST_MOVES,
    SENT,
    SINK_FULL,
    STARTED,
    UNWANTED,
)
from daphne_ng.wire.http2.windows import ReceiveWindow
from daphne_ng.wire.websocket.handshake import WebSocketRequest, from_connect

__all__ = ["Http2Stream"]


class Http2Stream:
    """A request being served; implements `ResponsePort` for its exchange.

    Args:
        context: What it shares with the other streams of its connection.
        record: The stream on the wire.
        head: The request.
        ended: The request has no body.
    """

    __slots__ = (
        "_context",
        "_continue_sent",
        "_cut_short",
        "_discard_until",
        "_early",
        "_framing",
        "_remaining",
        "_report",
        "_running",
        "_waiters",
        "_was_full",
        "body_bytes_sent",
        "body_deadline",
        "buffered",
        "exchange_deadline",
        "head",
        "id",
        "incremental",
        "parts",
        "received_bytes",
        "record",
        "request",
        "response",
        "sink",
        "stall",
        "trailers_due",
        "tunnel",
        "urgency",
        "window",
    )

    def __init__(self, context: StreamContext[Http2Stream], record: StreamRecord, head: Http2Head, ended: bool) -> None:
        self._context = context
        self.record = record
        self.id = record.stream_id
        self.head = head
        self.sink: RequestSink | None = None
        """Where the request goes, as long as the exchange wants to know of it."""
        self._running = False  # the application's task has begun and not ended, as far as has been reported
        self._cut_short = False  # the exchange was told of the end before its response was complete
        # the request
        self.request = COMPLETE if ended else RECEIVING  # see `http2.states`, as for `response`
        self._early: list[Any] | None = None  # what came of the body before the exchange began
        self.received_bytes = 0
        self.window: ReceiveWindow | None = None  # from the first bytes on; `InboundWindows` makes it
        self._discard_until = NEVER
        self.body_deadline = NEVER
        """When the next part of the body must have come, or have been read, or is not waited for any more."""
        self.exchange_deadline = NEVER
        # the response
        self.response = AWAITED
        self.tunnel = False  # the stream carries another protocol
        self._framing = UNSTARTED
        self._remaining = 0
        self._continue_sent = False
        self.body_bytes_sent = 0
        """See `ResponsePort.body_bytes_sent`. Counted when the stream takes them, as on HTTP/1.1 the transport does."""
        # what waits to be sent
        self.parts: deque[Any] | None = None
        self.buffered = 0  # bytes of them
        self._report: Callable[[int], int] | None = None  # called when nothing waits here any more
        self.trailers_due: bytes | None = None
        self.stall: Stall | None = None  # how its window has kept it waiting; the sender's
        self._waiters: list[Any] | None = None
        self._was_full = False
        priority = head.priority
        self.urgency, self.incremental = NO_PRIORITY if priority is None else parse_priority(priority)

    # -- ResponsePort ------------------------------------------------------------------------------------

    # Hot: every response; a call would cost more than the branches.
    def start(self, status: int, headers: Headers, body: bytes, end: bool, trailers: bool) -> None:  # noqa: PLR0912
        """See `ResponsePort.start`."""
        fields, length, flags = encode_fields(headers)
        if self.response != AWAITED:
            return
        sender = self._context.sender
        size = len(body)
        remaining = length
        method = self.head.method
        if (length >= 0 or end) and method != "HEAD" and status != 204 and status != 304:
            kind = LENGTH  # FRAMING says the same, and costs more
            if length < 0:
                remaining = size
                fields += length_line(size)
        else:
            kind = FRAMING[is_bodiless(method, status), length >= 0, end, "2"]
            if kind == NO_BODY:
                if status == 204 and length >= 0:
                    # RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any response with a
                    # status code of 1xx (Informational) or 204 (No Content)."
                    fields, length, flags = encode_fields(headers, DROP_LENGTH)
                elif length < 0 and end and size and not bodiless_status(status):
                    fields += length_line(size)
                size = 0
        block = b"".join((encode_status(status), fields, default_block(self._context.defaults, flags, headers)))
        excess = 0
        if kind == LENGTH:
            excess = size - remaining
            if excess > 0:
                body = body[:remaining]
                size = remaining
            remaining -= size
        self._framing = kind
        self._remaining = remaining
        self.body_bytes_sent = size
        whole = (end and not remaining) if kind == LENGTH else end
        if whole and excess <= 0:
            self.response = ENDING
            if size:
                sender.send_whole(self, block, body)
            else:
                sender.send_head(self, block, True)
            self._after_response()
            return
        self.response = STARTED
        sender.send_head(self, block, False)
        if size:
            self.queue(body)
        if excess > 0:
            self._response_ended()
            raise overlong_body(excess)
        if end:
            self._response_ended()

    def body(self, data: bytes, end: bool) -> None:
        """See `ResponsePort.body`."""
        if self.response >= ENDING:
            return
        kind, size = self._framing, len(data)
        if kind != NO_BODY and size:
            if kind == LENGTH:
                excess = size - self._remaining
                if excess > 0:
                    size = self._remaining
                    data = data[:size]
                self._remaining -= size
                self.body_bytes_sent += size
                if size:
                    self.queue(data)
                if excess > 0:
                    self._response_ended()
                    raise overlong_body(excess)
            else:
                self.body_bytes_sent += size
                self.queue(data)
        if end:
            self._response_ended()

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """See `ResponsePort.send_file`. What goes into frames has to be read."""
        return -1

    def trailers(self, headers: Headers) -> None:
        """See `ResponsePort.trailers`."""
        block = trailer_block(headers)
        if self.response >= ENDING:
            return
        if block and self.head.accepts_trailers and self._framing != NO_BODY:
            self.trailers_due = block
        self._response_ended()

    def informational(self, status: int, headers: Headers) -> None:
        """See `ResponsePort.informational`."""
        if self.response != AWAITED:
            return
        if status == 100:
            if not self.head.expects_continue or self._continue_sent:
                return
            self._continue_sent = True
            if self.received_bytes or self.request >= COMPLETE_HELD:
                return  # the client did not wait
        fields, _length, _flags = encode_fields(headers, DROP_LENGTH)
        self._context.sender.send_head(self, encode_status(status) + fields, False, interim=True)

    def reset(self, reason: str) -> None:
        """See `ResponsePort.reset`."""
        self.sink = None
        # RFC 8441 section 5 has a tunnel that is aborted say CANCEL.
        self.cut(CANCEL if self.tunnel else INTERNAL_ERROR, reason)

    def break_off(self) -> None:
        """See `ResponsePort.break_off`."""
        self._context.break_off()

    def consumed(self, count: int) -> None:
        """See `ResponsePort.consumed`."""
        if self.request == HOLDING or self.request == COMPLETE_HELD:
            self.request = REQUEST_MOVES[self.request, CONSUMED]
            if self.response != OVER:
                context = self._context
                if self.request == RECEIVING and context.config.body_timeout and not self.head.websocket:
                    self.body_deadline = context.clock() + context.config.body_timeout
                    context.due_at(self.body_deadline)
                self._release()

    def abandon(self) -> None:
        """See `ResponsePort.abandon`."""
        self.sink = None
        if self.request < DISCARDING and self.response != OVER:
            self._discard()

    def writable(self) -> Awaitable[object] | None:
        """See `ResponsePort.writable`."""
        context = self._context
        if self.response == OVER or (self.buffered < SEND_HIGH_BYTES and not context.full()):
            return None
        context.awaiting_room[self.id] = self
        waiter: Awaitable[object] = context.driver.new_waiter()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        return waiter

    def when_flushed(self, report: Callable[[int], int]) -> bool:
        """See `ResponsePort.when_flushed`. What has left the stream counts as sent."""
        if not self.buffered or self.response == OVER:
            return False
        self._report = report
        return True

    # -- tunnels -----------------------------------------------------------------------------------------

    def open_tunnel(self, headers: Headers) -> bytes:
        """Accept an extended CONNECT (RFC 8441 section 5): answer 200, and leave both directions open.

        Afterwards the bytes of the other protocol go through `send`, `finish` and `reset`, and come through the sink.
        `start`, `body` and `trailers` are not to be called any more.

        Args:
            headers: Fields of the handshake and of the application. A Content-Length is left out.

        Returns:
            Nothing, where `Http1Connection.switch_protocols` returns bytes: here they come through the sink.

        Raises:
            InvalidHeader: Nothing was written; another answer is allowed.
        """
        fields, _length, flags = encode_fields(headers, DROP_LENGTH)
        if self.response != AWAITED:
            return b""
        self.response = STARTED
        self.tunnel = True
        self._framing = END_STREAM
        block = encode_status(200) + fields + default_block(self._context.defaults, flags, headers)
        self._context.sender.send_head(self, block, False)
        return b""

    def send(self, data: bytes) -> None:
        """Send bytes through the tunnel. They wait here as long as the client's windows or the transport ask for it."""
        if data and self.response < ENDING:
            self.body_bytes_sent += len(data)
            self.queue(data)

    def finish(self) -> None:
        """End our direction of the tunnel, when all that was sent has gone out."""
        if self.response < ENDING:
            self._response_ended()

    @property
    def send_buffer_full(self) -> bool:
        """Whether more waits to be sent than should; `TunnelSink.writable_again` tells when that is over."""
        if self.response == OVER or (self.buffered < SEND_HIGH_BYTES and not self._context.full()):
            return False
        if not self._was_full:
            self._was_full = True
            self._context.awaiting_room[self.id] = self
        return True

    def task_ended(self) -> None:
        """Report that the application's task has ended, or never began; the driver calls it once.

        A stream that was closed before its response was complete counts against the limit of concurrent streams until
        then, so that resetting requests does not start any number of tasks.
        """
        if self._running:
            self._running = False
            if self._cut_short and self.response == OVER:
                self._context.outlived -= 1

    # -- what comes of the request ------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Begin the exchange, unless the stream has been closed or answered since its request came."""
        if self.response >= ENDING:
            return
        context, head = self._context, self.head
        sink: RequestSink | None
        if head.websocket:
            request = self._handshake()
            if request is None:
                return
            self._running = True
            sink = context.driver.begin_websocket(request, self)
        else:
            config = context.config
            if self.request < COMPLETE_HELD:
                if config.body_timeout:
                    self.body_deadline = now + config.body_timeout
                    context.due_at(self.body_deadline)
            elif config.http_timeout:
                self.exchange_deadline = now + config.http_timeout
                context.due_at(self.exchange_deadline)
            self._running = True
            sink = context.driver.begin(head, self)
        if sink is None:
            self._running = False
            self.abandon()
            return
        if self.response >= ENDING:
            return
        self.sink = sink
        if self._early is not None:
            self._deliver_early(sink, now)
        if self.request >= COMPLETE_HELD and self.sink is not None:
            sink.body_ended(())

    # Deliver the parts of the body that came before the exchange began.
    def _deliver_early(self, sink: RequestSink, now: float) -> None:
        early, self._early = self._early, None
        for part in early or ():
            if sink.body_received(as_bytes(part)) and (self.request, SINK_FULL) in REQUEST_MOVES:
                self._hold(now)

    # Check an extended CONNECT; None if it was refused.
    def _handshake(self) -> WebSocketRequest | None:
        try:
            if self.request >= COMPLETE_HELD:
                raise WireError(400, "A WebSocket handshake leaves its stream open.")
            return from_connect(self.head)
        except WireError as error:
            self._fail(error)
            return None

    # Once for each DATA frame, where a call for each question would cost more than the answers.
    def data_received(self, data: bytes, count: int, ended: bool, now: float) -> None:  # noqa: PLR0912
        """Take a DATA frame: its data, how much of the windows it took, and whether it ends the request."""
        context, head = self._context, self.head
        self.received_bytes = received = self.received_bytes + len(data)
        if head.length_known and (received > head.content_length or (ended and received != head.content_length)):
            context.windows.credit(None, count)
            context.sieve.take_reset(now)
            self._fail(MalformedRequest("The body is not as long as its Content-Length."))
            return
        most = context.config.body_max_bytes
        if most and received > most and self.request < DISCARDING and not head.websocket:
            context.windows.credit(None, count)
            self._fail(WireError(413, "The request body is too large."))
            if ended:
                self._request_ended(now)
            return
        if self.request >= DISCARDING:
            self.body_deadline = min(now + context.config.drain_pause_timeout, self._discard_until)
        elif data:
            if self.sink is None:
                if self._early is None:
                    self._early = []
                append_piece(self._early, data)
            else:
                full = self.sink.body_received(data)
                if self.response == OVER:
                    context.windows.credit(None, count)
                    return
                if self.request == RECEIVING:
                    if full:
                        self._hold(now)
                    elif self.body_deadline != NEVER:
                        self.body_deadline = now + context.config.body_timeout
        if data and self.request == HOLDING:
            context.windows.hold(self, count - len(data), len(data))
        else:
            context.windows.credit(self, count)
        if ended:
            self._request_ended(now)

    def trailers_received(self, fields: Any, now: float) -> None:
        """Take the trailers of the request, which end it."""
        context = self._context
        try:
            check_trailer_fields(fields, context.config)
            if self.head.length_known and self.received_bytes != self.head.content_length:
                raise MalformedRequest("The body is not as long as its Content-Length.")
        except WireError as error:
            context.sieve.take_reset(now)
            self._fail(error)
            return
        self._request_ended(now)

    def prioritize(self, value: bytes) -> None:
        """Take a new priority (RFC 9218 section 7)."""
        self.urgency, self.incremental = parse_priority(value)

    # The sink is full. Until it has room it is the application's time that runs, not the client's.
    def _hold(self, now: float) -> None:
        self.request = REQUEST_MOVES[self.request, SINK_FULL]
        if self.tunnel or self.head.websocket:
            return
        self.body_deadline = NEVER
        context = self._context
        if context.config.paused_read_timeout and self.request == HOLDING:
            self.body_deadline = now + context.config.paused_read_timeout
            context.due_at(self.body_deadline)

    def _request_ended(self, now: float) -> None:
        self.request = REQUEST_MOVES[self.request, END]
        self.body_deadline = NEVER
        sink = self.sink
        if sink is not None and (self.tunnel or self.response < ENDING):
            context = self._context
            if context.config.http_timeout and not self.head.websocket:
                # The application's time begins when it has the whole request.
                self.exchange_deadline = now + context.config.http_timeout
                context.due_at(self.exchange_deadline)
            sink.body_ended(())
        if self.response >= SENT:
            self.sink = None
            self._close()

    # Nothing will read the rest of the request: take it for a while, then reset the stream behind its response.
    #
    # A reset at once harms clients (curl 7.88, httpx 0.28) that look for the response only when they have sent all,
    # whatever RFC 9113 section 8.1 says of a reset with NO_ERROR. The times are those of HTTP/1.1.
    def _discard(self) -> None:
        self.request = REQUEST_MOVES[self.request, ABANDONED]
        self._early = None
        if self.head.expects_continue and not self._continue_sent and not self.received_bytes:
            # The client has not been told to send its body, and may or may not do so.
            self._discard_over()
            return
        context = self._context
        config, now = context.config, context.clock()
        self._discard_until = now + config.drain_timeout
        self.body_deadline = min(now + config.drain_pause_timeout, self._discard_until)
        context.due_at(self.body_deadline)
        self._release()

    # The time for a body that nothing reads has passed.
    def _discard_over(self) -> None:
        self.request = REQUEST_MOVES[self.request, DISCARD_OVER]
        if self.response != ENDING:
            self._cut_unwanted()

    # RFC 9113 section 8.1: "the server MAY request that the client abort transmission of a request without error by
    # sending a RST_STREAM with an error code of NO_ERROR after sending a complete response".
    def _cut_unwanted(self) -> None:
        self.cut(NO_ERROR, "the rest of the request was not wanted")

    def _release(self) -> None:
        if self._context.windows.release(self):
            self._context.wants_flush()

    # -- what goes out -----------------------------------------------------------------------------------

    def queue(self, data: bytes) -> None:
        """Let bytes wait to be sent."""
        if self.parts is None:
            self.parts = deque()
        append_piece(self.parts, data)
        self.buffered += len(data)
        self._context.sender.add(self)

    def take(self, length: int) -> list[bytes | memoryview]:
        """Take bytes out of what waits, for the `Sender`; as many must be there."""
        parts = self.parts
        self.buffered -= length
        taken: list[bytes | memoryview] = []
        while length:
            assert parts  # or else the count is wrong
            part = parts.popleft()
            size = len(part)
            if size > length:
                view = memoryview(part)
                parts.appendleft(view[length:])
                part = view[:length]
                size = length
            taken.append(part)
            length -= size
        return taken

    def last_frame_made(self) -> None:
        """Note that the last frame of the response has been made."""
        self.response = SENT
        report = self._report
        if report is not None:
            self._report = None
            report(0)
        if self.request == UNWANTED:
            self._cut_unwanted()
        elif self.request >= COMPLETE_HELD:
            self._close()

    def room(self) -> bool:
        """Wake an application that waits to send more, if there is room. Returns whether there was."""
        if self.response != OVER and (self.buffered > SEND_LOW_BYTES or self._context.full()):
            return False
        waiters, self._waiters = self._waiters, None
        if waiters:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if self._was_full:
            self._was_full = False
            if self.sink is not None and self.response != OVER:
                tunnel: TunnelSink = self.sink  # type: ignore[assignment]
                tunnel.writable_again()
        return True

    # The response is complete; its exchange makes no further call but abandon().
    def _response_ended(self) -> None:
        self.response = ENDING
        if self._framing == LENGTH and self._remaining:
            self.trailers_due = None
            self._context.driver.shortened(self._remaining)
            self.reset("the body was shorter than its Content-Length")
            return
        self._context.sender.add(self)
        self._after_response()

    # The rest of the request, after its response: an exchange does not abandon a request that has no body.
    def _after_response(self) -> None:
        self.exchange_deadline = NEVER
        if self.tunnel:
            return
        if self.request >= COMPLETE_HELD:
            self.sink = None
        elif not self.head.content_length and self.response != OVER:
            self.abandon()

    # -- how it ends -------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Act on what is due by now."""
        if now >= self.exchange_deadline:
            self.exchange_deadline = NEVER
            if self.sink is not None:
                self.sink.expired()
        if now >= self.body_deadline:
            self.body_deadline = NEVER
            if self.request >= DISCARDING:
                self._discard_over()
            elif self.request == HOLDING:
                self._fail(WireError(408, "The application left the request body unread."))
            else:
                self._fail(WireError(408, "The request body took too long."))
        context = self._context
        stall = context.config.http2_stall_timeout
        if stall and self.stall is not None and now >= self.stall.since + stall and self.response != OVER:
            context.driver.stalled(self)
            self.cut(CANCEL, "the client kept the window of the stream closed")
        if self.response != OVER:
            context.due_at(min(self.exchange_deadline, self.body_deadline))

    def answer(self, error: WireError) -> None:
        """Answer without the application. The request ends with it."""
        self._early = None
        fields, text = error_answer(error.status, error.detail, error.headers)
        self.start(error.status, fields, text, True, False)
        self.abandon()

    # A request that the application has begun to read turned out to be broken, late or too large.
    def _fail(self, error: WireError) -> None:
        sink, self.sink = self.sink, None
        malformed = isinstance(error, MalformedRequest)
        answered = self.response == AWAITED and not malformed
        if sink is not None:
            self._cut_short = True
        if answered:
            self.answer(error)
        else:
            self.cut(PROTOCOL_ERROR if malformed else CANCEL, error.detail)
        if sink is not None:
            sink.disconnected(error.detail, error.status if answered else None)
        self._context.driver.refused(self.head, error.status, error.detail, sink is not None)

    def cut(self, code: int, reason: str) -> None:
        """Reset the stream."""
        if self.response == OVER:
            return
        context = self._context
        if context.records.send_reset(self.record, code):
            context.sieve.give_up(self.id)
        self.lose(reason)
        context.wants_flush()

    def lose(self, reason: str) -> None:
        """Close the stream, which is over, and tell its exchange, which may not know."""
        if self.response < ENDING:
            self._cut_short = True
        sink, self.sink = self.sink, None
        self._close()
        if sink is not None:
            sink.disconnected(reason)

    def _close(self) -> None:
        waiting = self.parts is not None or self.response == ENDING
        if self.response == OVER:
            return
        self.response = OVER
        self.body_deadline = self.exchange_deadline = NEVER
        self._early = None
        context = self._context
        del context.open[self.id]
        if waiting:
            context.sender.remove(self)
            self.parts = None
            lost, self.buffered = self.buffered, 0
            if lost:
                self.body_bytes_sent -= lost
                report, self._report = self._report, None
                if report is not None:
                    report(lost)
        context.records.forget(self.record)
        if self._running and self._cut_short:
            context.outlived += 1
        if self.window is not None:
            self._release()
        if context.awaiting_room and context.awaiting_room.pop(self.id, None) is not None:
            self.room()
        if not context.open:
            context.became_idle()

"""One request of an HTTP/2 connection and its response: a stream.

Theory of operation
-------------------

`Http2Stream` is the `ResponsePort` of its exchange. It knows the request's body (how much of it came, what of its
window is owed) and the response's (where it ends, how much of it waits to be sent). The connection, `Http2Connection`,
knows frames, time and what streams share; of it a stream calls what has no underscore.

1. A stream is *closed* when nothing more can come or go on it: both directions have ended, it was reset by either side,
   or its connection is gone. Every method is harmless afterwards.
2. Whoever closes it before its response has ended tells the sink, unless it was the exchange itself: `disconnected`,
   once.
3. A part of the body for which the sink has no room is delivered all the same, but the window it took is given back
   only after `consumed`. So the client stops by itself, and no other stream is held up.
4. What the application sends waits in the stream, up to 64 KiB and one part beyond: then `writable` asks to wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from h2.stream import H2Stream

from daphne_ng._types import Headers
from daphne_ng.errors import BodyLengthMismatch
from daphne_ng.pieces import append_piece
from daphne_ng.port import RequestSink
from daphne_ng.wire.http.fields import DROP_LENGTH
from daphne_ng.wire.http2.frames import CANCEL, INTERNAL_ERROR
from daphne_ng.wire.http2.head import Http2Head
from daphne_ng.wire.http2.hpack import encode_fields, encode_status
from daphne_ng.wire.http2.response import default_block, length_line, trailer_block
from daphne_ng.wire.http2.schedule import NO_PRIORITY, parse_priority
from daphne_ng.wire.http2.sending import SEND_HIGH_BYTES, SEND_LOW_BYTES, Stall
from daphne_ng.wire.http2.sieve import NEVER
from daphne_ng.wire.http2.windows import ReceiveWindow

if TYPE_CHECKING:
    from daphne_ng.wire.http2.connection import Http2Connection
    from daphne_ng.wire.http2.driver import TunnelSink

__all__ = ["Http2Stream"]

# How the end of a response body shows, as in h1.
_NO_BODY, _LENGTH, _UNKNOWN = range(3)


class Http2Stream:
    """A request being served; implements `ResponsePort` for its exchange.

    Args:
        connection: Whose stream it is.
        h2: The stream in the library.
        head: The request.
        ended: The request has no body.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_continue_sent",
        "_remaining",
        "_reset_when_finished",
        "_waiters",
        "_was_full",
        "body_bytes_sent",
        "body_deadline",
        "buffered",
        "closed",
        "cut_short",
        "drop_until",
        "dropping",
        "early",
        "end_due",
        "ended",
        "exchange_deadline",
        "h2",
        "head",
        "holding",
        "id",
        "incremental",
        "parts",
        "received_bytes",
        "report",
        "responded",
        "running",
        "sink",
        "stall",
        "started",
        "trailers_due",
        "tunnel",
        "urgency",
        "window",
    )

    def __init__(self, connection: Http2Connection, h2: H2Stream, head: Http2Head, ended: bool) -> None:
        self._connection = connection
        self.h2 = h2
        self.id: int = h2.stream_id
        """Its number."""
        self.head = head
        """The request."""
        self.sink: RequestSink | None = None
        self.running = False
        """Whether the application's task has begun and not ended, as far as has been reported."""
        self.cut_short = False
        """Whether it was closed before its response was complete."""
        self.closed = False
        """Nothing more can come or go."""
        # the request's body
        self.ended = ended
        """Whether it is complete."""
        self.early: list[Any] | None = None
        self.received_bytes = 0
        self.window: ReceiveWindow | None = None
        self.holding = False
        """Whether the sink is full, and the window is held."""
        self.dropping = False
        """Whether nobody will read what still comes."""
        self.drop_until = NEVER
        """Until when it is taken nevertheless."""
        self.body_deadline = NEVER
        self.exchange_deadline = NEVER
        # the response
        self.started = False
        self.responded = False
        """Whether the exchange has ended its response, though it may still wait here."""
        self.tunnel = False
        self._body = _NO_BODY
        self._remaining = 0
        self._continue_sent = False
        self._reset_when_finished = False
        self.body_bytes_sent = 0
        """See `ResponsePort.body_bytes_sent`. Counted when the stream takes them, as on HTTP/1.1 the transport does."""
        # what waits to be sent
        self.parts: deque[Any] | None = None
        self.buffered = 0
        self.report: Callable[[int], int] | None = None
        """Called when nothing waits here any more."""
        self.end_due = False
        self.trailers_due: bytes | None = None
        self.stall: Stall | None = None
        """How its window has kept it waiting."""
        self._waiters: list[Any] | None = None
        self._was_full = False
        priority = head.priority
        self.urgency, self.incremental = NO_PRIORITY if priority is None else parse_priority(priority)

    # -- ResponsePort ------------------------------------------------------------------------------------

    # Hot: every response; a call would cost more than the branches.
    def start(self, status: int, headers: Headers, body: bytes, end: bool, trailers: bool) -> None:  # noqa: PLR0912
        """See `ResponsePort.start`."""
        fields, length, flags = encode_fields(headers)
        if self.closed:
            return
        connection = self._connection
        size = len(body)
        remaining = length
        if status == 204 or status == 304 or self.head.method == "HEAD":
            kind = _NO_BODY
            if status == 204 and length >= 0:
                # RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any response
                # with a status code of 1xx (Informational) or 204 (No Content)."
                fields, length, flags = encode_fields(headers, DROP_LENGTH)
            elif length < 0 and end and size and status != 204 and status != 304:
                fields += length_line(size)
            size = 0
        elif length >= 0:
            kind = _LENGTH
        elif end:
            kind = _LENGTH
            remaining = size
            fields += length_line(size)
        else:
            kind = _UNKNOWN
        block = b"".join((encode_status(status), fields, default_block(connection.defaults, flags, headers)))
        excess = 0
        if kind == _LENGTH:
            excess = size - remaining
            if excess > 0:
                body = body[:remaining]
                size = remaining
            remaining -= size
        self.started = True
        self._body = kind
        self._remaining = remaining
        self.body_bytes_sent = size
        whole = (end and not remaining) if kind == _LENGTH else end
        if whole and excess <= 0:
            self.responded = True
            if size:
                connection.send_response(self, block, body)
            else:
                connection.send_head(self, block, True)
            self._after_response()
            return
        connection.send_head(self, block, False)
        if size:
            self.queue(body)
        if excess > 0:
            self._overlong(excess)
        if end:
            self._response_ended()

    def body(self, data: bytes, end: bool) -> None:
        """See `ResponsePort.body`."""
        if self.closed or self.responded:
            return
        kind = self._body
        if kind != _NO_BODY and data:
            size = len(data)
            if kind == _LENGTH:
                excess = size - self._remaining
                if excess > 0:
                    size = self._remaining
                    data = data[:size]
                self._remaining -= size
                self.body_bytes_sent += size
                if size:
                    self.queue(data)
                if excess > 0:
                    self._overlong(excess)
            else:
                self.body_bytes_sent += size
                self.queue(data)
        if end:
            self._response_ended()

    def trailers(self, headers: Headers) -> None:
        """See `ResponsePort.trailers`."""
        block = trailer_block(headers)
        if self.closed or self.responded:
            return
        if block and self.head.accepts_trailers and self._body != _NO_BODY:
            self.trailers_due = block
        self._response_ended()

    def informational(self, status: int, headers: Headers) -> None:
        """See `ResponsePort.informational`."""
        if self.closed or self.started:
            return
        if status == 100:
            if not self.head.expects_continue or self._continue_sent:
                return
            self._continue_sent = True
            if self.received_bytes or self.ended:
                return  # the client did not wait
        fields, _length, _flags = encode_fields(headers, DROP_LENGTH)
        self._connection.send_head(self, encode_status(status) + fields, False, interim=True)

    def reset(self, reason: str) -> None:
        """See `ResponsePort.reset`."""
        self.sink = None
        # RFC 8441 section 5 has a tunnel that is aborted say CANCEL.
        self._connection.reset_stream(self, CANCEL if self.tunnel else INTERNAL_ERROR, reason)

    def break_off(self) -> None:
        """See `ResponsePort.break_off`."""
        self._connection.break_off()

    def consumed(self, count: int) -> None:
        """See `ResponsePort.consumed`."""
        if self.holding:
            self.holding = False
            if not self.closed:
                self._connection.body_wanted(self)

    def abandon(self) -> None:
        """See `ResponsePort.abandon`."""
        self.sink = None
        if not self.closed and not self.ended and not self.dropping:
            self._connection.drop_body(self)

    def writable(self) -> Awaitable[object] | None:
        """See `ResponsePort.writable`."""
        if self.closed or (self.buffered < SEND_HIGH_BYTES and not self._connection.full()):
            return None
        waiter: Awaitable[object] = self._connection.new_waiter(self)
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        return waiter

    def when_flushed(self, report: Callable[[int], int]) -> bool:
        """See `ResponsePort.when_flushed`. What has left the stream counts as sent."""
        if not self.buffered or self.closed:
            return False
        self.report = report
        return True

    # -- tunnels -----------------------------------------------------------------------------------------

    def open_tunnel(self, headers: Headers) -> bytes:
        """Accept an extended CONNECT (RFC 8441 section 5): answer 200, and leave both directions open.

        Afterwards the bytes of the other protocol go through `send`, `finish` and `reset`, and come through the sink.
        `start`, `body` and `trailers` are not to be called any more.

        Args:
            headers: Fields of the handshake and of the application. A Content-Length is left out.

        Returns:
            Nothing, in place of the bytes that `Http1Connection.switch_protocols` returns: here they come through the
            sink.

        Raises:
            InvalidHeader: Nothing was written; another answer is allowed.
        """
        fields, _length, flags = encode_fields(headers, DROP_LENGTH)
        if self.closed:
            return b""
        self.started = self.tunnel = True
        self._body = _UNKNOWN
        block = encode_status(200) + fields + default_block(self._connection.defaults, flags, headers)
        self._connection.send_head(self, block, False)
        return b""

    def send(self, data: bytes) -> None:
        """Send bytes through the tunnel. They wait here as long as the client's windows or the transport ask for it."""
        if data and not self.closed and not self.responded:
            self.body_bytes_sent += len(data)
            self.queue(data)

    def finish(self) -> None:
        """End our direction of the tunnel, when all that was sent has gone out."""
        if not self.closed and not self.responded:
            self._response_ended()

    @property
    def send_buffer_full(self) -> bool:
        """Whether more waits to be sent than should; `TunnelSink.writable_again` tells when that is over."""
        if self.closed or (self.buffered < SEND_HIGH_BYTES and not self._connection.full()):
            return False
        if not self._was_full:
            self._was_full = True
            self._connection.wants_room(self)
        return True

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait in this stream, without what the transport holds."""
        return self.buffered

    def task_ended(self) -> None:
        """Report that the application's task has ended, or never began; the driver calls it once.

        A stream that was closed before its response was complete counts against the limit of concurrent streams until
        then, so that resetting requests does not start any number of tasks.
        """
        if self.running:
            self.running = False
            self._connection.task_ended(self)

    # -- for the connection ------------------------------------------------------------------------------

    def take(self, length: int) -> list[bytes | memoryview]:
        """Take bytes out of what waits; as many must be there."""
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

    def finished(self) -> bool:
        """Note that the last frame of the response has been made. Returns whether the stream is to be reset now."""
        self.end_due = False
        self.flushed(0)
        return self._reset_when_finished

    def flushed(self, lost: int) -> None:
        """Tell who waits for it that nothing waits here any more, but that so many bytes are lost."""
        report, self.report = self.report, None
        if report is not None:
            report(lost)

    def reset_when_finished(self) -> bool:
        """Have the stream reset when the response is out. Returns False if it is out already."""
        self._reset_when_finished = True
        return self.end_due

    def room(self) -> bool:
        """Wake those who wait, if there is room. Returns whether there was."""
        if not self.closed and (self.buffered > SEND_LOW_BYTES or self._connection.full()):
            return False
        waiters, self._waiters = self._waiters, None
        if waiters:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if self._was_full:
            self._was_full = False
            if self.sink is not None and not self.closed:
                tunnel: TunnelSink = self.sink  # type: ignore[assignment]
                tunnel.writable_again()
        return True

    def queue(self, data: bytes) -> None:
        """Let bytes wait to be sent."""
        if self.parts is None:
            self.parts = deque()
        append_piece(self.parts, data)
        self.buffered += len(data)
        self._connection.queue(self)

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client has been told nothing of its body, and may or may not send it."""
        return self.head.expects_continue and not self._continue_sent and not self.received_bytes

    # -- its own -----------------------------------------------------------------------------------------

    def _overlong(self, excess: int) -> None:
        self._response_ended()
        raise BodyLengthMismatch(f"the body is {excess} bytes longer than its Content-Length; the excess was cut")

    # The response is complete; its exchange makes no further call, but for abandon().
    def _response_ended(self) -> None:
        connection = self._connection
        self.responded = True
        if self._body == _LENGTH and self._remaining:
            self.trailers_due = None
            connection.shortened(self._remaining)
            self.reset("the body was shorter than its Content-Length")
            return
        self.end_due = True
        connection.queue(self)
        self._after_response()

    # What is left of the request after its response. Who has no body to read will not say that it was not read.
    def _after_response(self) -> None:
        self.exchange_deadline = NEVER
        if self.tunnel:
            return
        if self.ended:
            self.sink = None
        elif not self.head.content_length and not self.closed:
            self.abandon()

"""One HTTP/1.1 connection, server side, without I/O (RFC 9112).

Theory of operation
-------------------

Bytes go in through `Http1Connection.receive_data`; the parser turns them into messages. One message at a time is
*active*: it has an exchange (a `RequestSink`), and the exchange answers through the `ResponsePort` that is
`Http1Connection.response`. Messages behind it wait in the queue, in order, so responses cannot overtake each other.

1. An exchange begins after the parser has returned, never inside a callback or inside ``send()``. The next one
   begins on a later turn of the loop, and none while the transport is full: some are answered without an application
   that would wait.
2. An exchange ends for the wire when its response has ended *and* its request has been read or given up.
   What the application does afterwards is its own affair.
3. A request that breaks the protocol is never seen by the application. Its error is answered after the
   responses to the good requests before it, and the connection closes.
4. Whether the connection outlives a response is decided when its head is written, and what the head says is kept. A
   request body that has not ended by then stands in the way, unless its rest is known and short: that is read and
   thrown away if the application does not want it. The application may read on after any head.
5. The connection closes in two stages: our half first, while what the client still sends is read and thrown
   away (a reset would destroy the answer in flight); then the whole.
6. Behind a request that asks for an upgrade to ``websocket`` nothing is HTTP any more. Either `switch_protocols` ends
   the life of this object, with what the client sent on its heels handed over, or the request is answered like any
   other and the connection closes.
7. `deadline` is the one point in time at which something must happen unless something else happens first. The
   driver keeps a timer no later than that and calls `deadline_passed`.

Everything that decides about keeping or closing the connection lives here; how it is closed, in `wire.ending`.
"""

from __future__ import annotations

from daphne_ng._types import Headers
from daphne_ng.config import Config
from daphne_ng.errors import WireError
from daphne_ng.pieces import as_bytes
from daphne_ng.port import RequestSink
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.ending import GONE, LAST, LINGERING, NEVER, OPEN, PhasedConnection
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http.response import UNSTARTED, UNTIL_CLOSE
from daphne_ng.wire.http1.draining import Drain
from daphne_ng.wire.http1.driver import Http1Driver
from daphne_ng.wire.http1.message import Http1Message
from daphne_ng.wire.http1.parser import Http1Parser
from daphne_ng.wire.http1.read_flow import ReadFlow
from daphne_ng.wire.http1.response import Http1Response
from daphne_ng.wire.http1.writer import encode_error, encode_switch
from daphne_ng.wire.websocket.handshake import from_upgrade

__all__ = ["Http1Connection", "Http1Driver"]


class Http1Connection(PhasedConnection[Http1Driver]):
    """Protocol state of one connection: its requests, one after the other, and its end.

    Args:
        config: Limits and timeouts.
        defaults: Fields added to every response; shared by all connections.
        driver: The I/O around it.
    """

    __deletable__ = ("response",)  # what `let_go` cuts
    __slots__ = (
        "_begin_scheduled",
        "_body_deadline",
        "_defaults",
        "_error",
        "_exchange_deadline",
        "_flow",
        "_full",
        "_idle_timeout",
        "_last_request",
        "_messages",
        "_parser",
        "_served",
        "_sink",
        "_wake_after",
        "_write",
        "active",
        "drain",
        "queue",
        "response",
    )

    def __init__(self, config: Config, defaults: ResponseDefaults, driver: Http1Driver) -> None:
        super().__init__(config, driver)
        self._defaults = defaults
        self._write = driver.write
        self._full = driver.full
        self._idle_timeout = config.keep_alive_timeout or NEVER
        # After how long without a request the timer fires: the parser forgets the last one then.
        self._wake_after = min(self._idle_timeout, config.head_memo_timeout or NEVER)
        self._messages: list[Http1Message] = []
        self._parser = Http1Parser(config, self._messages)
        self._flow = ReadFlow(config, driver, self._parser)
        self.queue = self._flow.queue
        """Requests behind the active one."""
        self.drain = Drain(config)
        """What is read in vain."""
        self._error: WireError | None = None
        self._begin_scheduled = False
        self._served = False
        self._body_deadline = NEVER
        self._exchange_deadline = NEVER
        self._last_request: Http1Message | None = None  # the request whose response ends the connection
        self.active: Http1Message | None = None
        """The request that is served, or whose body is still read."""
        self._sink: RequestSink | None = None
        self.response = Http1Response(config, defaults, driver, self)
        """Answers the active request."""

    def opened(self) -> None:
        """Note that the connection is open: the first head is due."""
        self._set_idle_deadline()

    # -- what the driver reports -------------------------------------------------------------------------

    # Hot: every read of a connection; a call would cost more than the branches.
    def receive_data(self, data: bytes) -> None:  # noqa: C901, PLR0912
        """Take what one read delivered. The driver calls it for every read, in order."""
        if self.phase >= LINGERING:
            self._discard()
            return
        if self._error is not None:
            return
        parser = self._parser
        had_head = parser.head_pending
        try:
            parser.feed(data)
        except WireError as error:
            self._error = error
        messages = self._messages
        active = self.active
        if active is None:
            if self._begin_scheduled or (messages and self._full()):
                # An exchange is about to begin, or the client does not take its answers: these requests stand behind.
                self.queue.extend(messages)
                messages.clear()
                self._schedule_next()
            elif messages:
                if len(messages) > 1:
                    self.queue.extend(messages[1:])
                message = messages[0]
                messages.clear()
                self._begin(message)
            elif self._error is not None:
                self._answer_error(self._error)
                return
            elif not had_head and parser.head_pending:
                self._set_deadline(
                    self._driver.clock() + self._config.head_timeout if self._config.head_timeout else NEVER
                )
        else:
            if messages:
                self.queue.extend(messages)
                messages.clear()
            if not active.ended:
                if self._error is not None:
                    self._fail_active(self._error)
                    return
                if self._body_deadline != NEVER and self._sink is not None:
                    self._body_deadline = self._driver.clock() + self._config.body_timeout
                    self._update_deadline()
            elif self._sink is None:
                self.advance()  # the body that was being drained has ended
            elif not active.head.websocket and (
                self._body_deadline != NEVER or (self._config.http_timeout and self._exchange_deadline == NEVER)
            ):
                # The body is complete: the time from here on is the application's.
                self._body_deadline = NEVER
                if self._config.http_timeout:
                    self._exchange_deadline = self._driver.clock() + self._config.http_timeout
                self._update_deadline()
        if parser.wants_pause:
            parser.wants_pause = False
            self._flow.sink_full = True
        if self._flow.sink_full or self._error is not None or (self.queue and self._flow.backlogged()):
            # After an error nothing more will be parsed: it is answered once the good requests before it are.
            self._pause()

    def eof_received(self) -> None:
        """The client closed its half. In mid-request that is a disconnect, as in Daphne."""
        if self.phase == GONE:
            return
        # A body that only the end of the connection ends must not look whole: it may be cut off, not closed.
        cut = self.active is not None and self.response.framing == UNTIL_CLOSE
        self._disconnect("the client closed its half of the connection")
        if cut:
            self._abort()
        else:
            self._close(read=True)

    def connection_lost(self, reason: str) -> None:
        """The transport is gone."""
        self._lost()
        self._disconnect(reason)

    def let_go(self) -> None:
        """Cut what refers back here, so that nothing is left for the garbage collector: no further call will come."""
        self._parser.let_go()
        del self.response

    def deadline_passed(self, now: float) -> None:
        """Act on the deadline, if it has really passed."""
        if now < self.deadline:
            self._parser.forget()  # the timer has come early: see `advance`
            return
        self.deadline = NEVER
        if self.phase >= LINGERING:
            self._end_passed(now)
        elif self.active is None:
            self._request_overdue(now)
        elif now >= self._exchange_deadline and self._sink is not None:
            self._exchange_deadline = NEVER
            self._update_deadline()
            self._sink.expired()
        elif now >= self._flow.probe_deadline:
            self._probe(now)
        elif now >= self._body_deadline:
            self._body_deadline = NEVER
            if self._sink is None:
                self._linger()  # the rest of an unread body took too long
            else:
                self._fail_active(WireError(408, "The request body took too long."))

    # The time has passed in which a request should have come, or begun.
    def _request_overdue(self, now: float) -> None:
        if self.queue:  # the next exchange is about to begin
            if now >= self._flow.probe_deadline:
                self._probe(now)
            else:
                self._update_deadline()
        elif self._parser.head_pending:
            self._answer_error(WireError(408, "The request head took too long."))
        elif self.phase == OPEN and (extension := self._idle_extension(now)):
            self._set_deadline(now + extension)
        else:
            # A 408 here would be taken for the answer to a request that is just under way.
            self._close()

    def shut_down(self) -> None:
        """Serve what has begun, and what a client sends that does not know of the end yet; then close.

        A client that was told nothing may be sending its next request just now, and a POST that is lost cannot be sent
        again. So an idle connection waits for it, for `Config.shutdown_idle_timeout`, and the answer is the last.
        """
        self._enter(LAST)
        if self.phase >= LINGERING:
            return
        if self.active is None:
            if not self.queue:
                self._await_last()
        elif self._sink is None:
            # The response has ended, and has promised to go on: the rest of its request is awaited.
            self._body_deadline = min(self._body_deadline, self._clock() + self.drain.last_request_seconds)
            self._update_deadline()

    def switch_protocols(self, fields: Headers) -> bytes:
        """Answer the upgrade that is active with 101, and leave the connection to the WebSocket.

        Whatever the driver reports here afterwards is ignored, and nothing is asked of it any more; `deadline` is
        never. Reading is left paused if it was: once the caller has taken the bytes, and is ready for more, it calls
        `Http1Driver.resume_reading` in any case.

        Args:
            fields: Those of the handshake, and the application's. Upgrade, Connection and the server's fields are
                added; what would frame a body is left out.

        Returns:
            The bytes that came behind the request: the first ones of the WebSocket.

        Raises:
            InvalidHeader: Nothing was written; another answer is allowed.
        """
        active = self.active
        assert active is not None  # a handshake is answered while it is active, and once
        assert active.head.websocket
        assert self.response.framing == UNSTARTED
        self._write(encode_switch(fields, self._defaults))
        self.active = self._sink = None
        self._lost()
        rest = self._parser.rest
        self._parser.rest = b""
        return rest

    @property
    def idle(self) -> bool:
        """Whether no request is being served."""
        return self.active is None

    @property
    def discarding(self) -> bool:
        """Whether what the client sends behind its answer is read and thrown away."""
        return self.phase == LINGERING

    def cut_off(self, left: int) -> tuple[RequestHead | None, int]:
        """Note that so many bytes of what was written will not reach the client.

        Returns:
            The request whose response that is, if it is known; and how many of the bytes are none of an active one's.
        """
        message = self.active
        if message is None:
            return (self._last_request.head if self._last_request is not None else None), left
        response = self.response
        sent = response.body_bytes_sent
        response.body_bytes_sent = max(sent - left, 0)
        return message.head, max(left - sent, 0)

    # -- for the response --------------------------------------------------------------------------------

    def reset(self) -> None:
        """See `Exchanges.reset`."""
        if self.phase == GONE:
            return
        self._sink = None
        self.queue.clear()
        self._abort()

    def consumed(self) -> None:
        """See `ResponsePort.consumed`."""
        flow = self._flow
        if flow.sink_full:
            flow.sink_full = False
            self._resume()

    def abandon(self) -> None:
        """See `ResponsePort.abandon`."""
        active = self.active
        if active is None or self.phase >= LINGERING:
            return
        self._sink = None
        self._flow.sink_full = False
        active.sink = None
        active.parts = ()
        self._parser.discarding = True
        if not self.response.keep_alive:
            self._linger()
            return
        self._body_deadline = self.drain.body_deadline(self._clock(), self.phase == LAST)
        self._exchange_deadline = NEVER
        self._update_deadline()
        self._resume()

    # -- exchanges ---------------------------------------------------------------------------------------

    def begin_next(self) -> None:
        """Begin the exchange of the first waiting message. The driver calls it after `Http1Driver.begin_soon`."""
        self._begin_scheduled = False
        if self.phase >= LINGERING or self.active is not None:
            return
        if self.queue:
            self._begin(self.queue.popleft())
            self._resume()
        elif self._error is not None:
            self._answer_error(self._error)

    def _begin(self, message: Http1Message) -> None:
        self.active = message
        response = self.response
        response.framing = UNSTARTED
        response.continue_sent = False
        response.keep_alive = keep_alive = message.head.keep_alive
        response.body_bytes_sent = 0
        if not keep_alive and message.head.websocket:
            self._begin_upgrade(message)
            return
        config = self._config
        ended = message.ended
        if ended and not config.http_timeout:
            self._body_deadline = self._exchange_deadline = NEVER
            self.deadline = deadline = self._flow.probe_deadline
            if deadline < self.armed_for:
                self._driver.rearm(deadline)
        else:
            now = self._driver.clock()
            self._exchange_deadline = now + config.http_timeout if config.http_timeout and ended else NEVER
            self._body_deadline = now + config.body_timeout if not ended and config.body_timeout else NEVER
            self._update_deadline()
        if not ended and self._error is not None:
            # The body broke in the very read that brought its head.
            self._fail_active(self._error)
            return
        sink = self._driver.begin(message.head)
        if sink is None or not self._is_active(message):
            if self._is_active(message):
                self.abandon()
            return
        self._sink = sink
        if message.ended:
            if message.parts:
                for part in message.parts:
                    sink.body_received(as_bytes(part))
                message.parts = ()
            sink.body_ended(message.trailers)
            return
        message.sink = sink
        for part in message.parts:
            if sink.body_received(as_bytes(part)):
                self._flow.sink_full = True
        message.parts = ()

    # Asked after a call of the driver, which may have answered. A type checker goes on believing what was known before,
    # and so would compiled code.
    def _is_active(self, message: Http1Message) -> bool:
        return self.active is message

    # The driver measures the time of a handshake: here, nothing but the client's leaving ends the wait for an answer.
    def _begin_upgrade(self, message: Http1Message) -> None:
        self._body_deadline = self._exchange_deadline = NEVER
        self._set_deadline(self._flow.probe_deadline)
        try:
            request = from_upgrade(message.head)
        except WireError as error:
            self._answer_error(error, bodiless=message.head.method == "HEAD")
            return
        sink = self._driver.begin_websocket(request)
        if self.active is not message:
            return  # the driver has answered through the port
        if sink is None:
            self.abandon()
        self._sink = sink

    def advance(self) -> None:
        """See `Exchanges.advance`."""
        active, self.active = self.active, None
        self._sink = None
        self._progress = None  # a watch over the client in an earlier idle time is no measure for this one
        flow = self._flow
        flow.sink_full = False
        self._served = True
        if self.response.keep_alive and self.phase == OPEN and not (self.queue or flow.paused) and self._error is None:
            # No request waits, and no error stands behind.
            self._body_deadline = NEVER
            if self._parser.head_pending:
                self._set_idle_deadline()
            else:
                now = self._clock()
                self.deadline = now + self._idle_timeout
                # The timer may come early, and does for the sake of what the parser remembers.
                if (wake := now + self._wake_after) < self.armed_for:
                    self._driver.rearm(wake)
        elif not self.response.keep_alive:
            self._last_request = active
            if self.queue or self._error is not None or self._parser.head_pending or self._parser.switched:
                self._linger()
            else:
                self._close()
        elif self.queue or self._error is not None:
            self._schedule_next()
        else:
            self._body_deadline = NEVER
            self._set_idle_deadline()
            if flow.paused:
                self._resume()
            if self.phase == LAST:
                self._await_last()  # this response began before, and has told the client nothing

    # Begin the next request on a later turn, once the client has taken enough of its answers.
    def _schedule_next(self) -> None:
        self._body_deadline = self._exchange_deadline = NEVER
        self._set_deadline(self._flow.probe_deadline)
        if not self._begin_scheduled:
            self._begin_scheduled = True
            self._driver.begin_soon()

    def _disconnect(self, reason: str, status: int | None = None) -> None:
        sink = self._sink
        active = self.active
        self.active = None
        self._sink = None
        self.queue.clear()
        if active is not None:
            active.sink = None
            active.parts = ()
        if sink is not None:
            sink.disconnected(reason, status)

    # -- errors and closing ------------------------------------------------------------------------------

    # A message that the application has begun to read turned out to be broken, late or too large.
    def _fail_active(self, error: WireError) -> None:
        self._parser.discarding = True
        started = self.response.framing != UNSTARTED
        active = self.active
        bodiless = active is not None and active.head.method == "HEAD"
        begun = self._sink is not None
        self._disconnect(error.detail, None if started else error.status)
        if started:
            self._driver.refused(error.status, error.detail, begun)
            self._abort()
        else:
            self._answer_error(error, begun, bodiless)

    # Answer in the application's stead, and close.
    def _answer_error(self, error: WireError, begun: bool = False, bodiless: bool = False) -> None:
        self._error = error
        self._write(encode_error(error, self._defaults, bodiless or self._parser.method == b"HEAD"))
        self._driver.refused(error.status, error.detail, begun)
        self._linger()

    # Close our half, and throw away what the client still sends, within bounds.
    def _linger(self) -> None:
        self._last_request = self.active or self._last_request
        self.active = self._sink = None
        self.queue.clear()
        if self.phase < LINGERING:
            self._flow.end_pause()
            self._close_half(self.drain.begin(self._clock()))
            self._driver.resume_reading()

    # The client goes on sending behind its answer: it has more time to read it, within bounds.
    def _discard(self) -> None:
        now = self._clock()
        if self.phase == LINGERING and now < self.drain.until:
            self._set_deadline(self.drain.extended(now))

    # The connection is idle, and its client does not know yet that it is about to end.
    def _await_last(self) -> None:
        seconds = self.drain.last_request_seconds
        if seconds:
            self._set_deadline(min(self.deadline, self._clock() + seconds))
        else:
            self._close()

    # -- reading and time --------------------------------------------------------------------------------

    def _pause(self) -> None:
        flow = self._flow
        if not flow.paused and self.phase < LINGERING:
            flow.pause()
            self._body_deadline = NEVER
            self._update_deadline()

    def _resume(self) -> None:
        if self._error is None and self._flow.resume() and self.active is not None:
            if not self.active.ended and self._sink is not None and self._config.body_timeout:
                self._body_deadline = self._clock() + self._config.body_timeout
            self._update_deadline()

    # While reading is paused no event tells that the client has left: ask, and bound the pause.
    def _probe(self, now: float) -> None:
        active = self.active
        if self._driver.peer_gone():
            self.eof_received()
        elif active is not None and self._flow.overdue(now):
            if active.ended:
                self._fail_active(WireError(400, "Too much was sent behind a request that takes long."))
            else:
                self._fail_active(WireError(408, "The application left the request body unread."))
        else:
            self._flow.probe_later(now)
            self._update_deadline()

    def _set_idle_deadline(self) -> None:
        config = self._config
        timeout = config.keep_alive_timeout if self._served and not self._parser.head_pending else config.head_timeout
        self._set_deadline(self._driver.clock() + timeout if timeout else NEVER)

    def _update_deadline(self) -> None:
        self._set_deadline(min(self._body_deadline, self._exchange_deadline, self._flow.probe_deadline))

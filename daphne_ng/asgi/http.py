"""One HTTP exchange: a run of the application between a `ResponsePort` and ASGI messages.

Written once for every protocol. It knows neither bytes on the wire nor which protocol it serves.

The response goes through the states below in order. ``http.response.start`` is held until the first body event (ASGI
HTTP, "Response Start"), so that a small response is one write and an application can still replace a start that failed.

However the exchange ends - the response is complete, the client left, time is over, the application raised or was
cancelled - there is one disconnect to receive, one record for the access log, and one ended task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from sys import getrecursionlimit, setrecursionlimit
from typing import Any, Final

from daphne_ng._types import Fields, Headers, Message
from daphne_ng.asgi.exchange import (
    BURST_MAX_BYTES,
    DONE,
    MESSAGE_BURST_BYTES,
    NOTICE_SECONDS,
    SPARE_FRAMES,
    Exchange,
    bytes_of_body,
    list_in,
    misplaced,
    send_error,
    sentence_of,
    validated_start,
)
from daphne_ng.asgi.files import has_length, send_rest
from daphne_ng.asgi.inbox import Inbox
from daphne_ng.errors import BodyLengthMismatch, ClientDisconnected, DaphneError, InvalidHeader, UnexpectedMessage
from daphne_ng.files import FILES, FileBody, FileShortened, opened_file, opened_path
from daphne_ng.port import ResponsePort

__all__ = ["HttpExchange"]


# The states of the response:
#
#   state      next message                       then
#   START      http.response.start                HELD
#   HELD       http.response.body                 BODY, TRAILERS or DONE; START if the port refuses the start
#   BODY       http.response.body                 BODY, TRAILERS or DONE
#   FILE       none: a file is being sent         BODY, TRAILERS or DONE
#   TRAILERS   http.response.trailers             TRAILERS or DONE
#   DONE       anything, which is ignored         DONE
#
# http.response.pathsend stands for the only body message, http.response.zerocopysend for any.
# http.response.early_hint may come in HELD and BODY, and changes nothing. `_OTHER_MESSAGES` has what is rare; `send`
# itself has the rest. Plain integers: a look-up of an Enum's member costs a call, and every message has several.
_START: Final = 0
_HELD: Final = 1
_BODY: Final = 2
_FILE: Final = 3
_TRAILERS: Final = 4
_DONE: Final = DONE

# How many messages are ignored after the end, and for how many seconds, while an application that listens has not ended
# the task that sends. One that makes its body without ever waiting would otherwise make all of it.
_LATE_SENDS_MAX: Final = 64
_LATE_SECONDS: Final = 1.0
# A loop may be so busy that the last notice is over before the application's tasks have had their turns: the reader's,
# those of the tasks that wait for it, and theirs.
_NOTICE_TURNS: Final = 16


class HttpExchange(Exchange[ResponsePort]):
    """A request being served; implements `RequestSink`. Its port is a `ResponsePort`."""

    _state = _START
    _status: int | None = None
    _wire_status: int | None = None
    _headers: Headers = ()
    _trailers = False
    _trailer_fields: Headers = ()
    _continued = False
    _recorded = False
    # Body bytes that went out, once the response is complete.
    _size: int | None = None
    # A request without a body needs no inbox until receive() is called.
    _inbox: Inbox | None = None
    _delivered = False
    # Whether receive() was awaited when the exchange was cut off, the task that has got the disconnect from it, and the
    # messages that were ignored since.
    _had_listener = False
    _notified_task: asyncio.Task[Any] | None = None
    _disconnected_at = 0.0
    _late_sends = 0

    # -- RequestSink -------------------------------------------------------------------------------------

    def body_received(self, data: bytes) -> bool:
        """See `RequestSink.body_received`."""
        return self._need_inbox().put(data)

    def body_ended(self, trailers: Fields) -> None:
        """See `RequestSink.body_ended`. ASGI has no message for request trailers."""
        if self.head.content_length:
            self._need_inbox().end()

    def disconnected(self, reason: str, status: int | None = None) -> None:
        """See `RequestSink.disconnected`."""
        self._wire_status = status
        self._leave(reason)
        self._arm_overdue()

    def expired(self) -> None:
        """See `RequestSink.expired`."""
        if self._state < _BODY:
            self._fail(503, "The application did not answer in time.")
        elif self._state != _DONE:
            self._runner.log.warning("Application timed out while sending response to %s", self.describe())
            self._port.reset("the application took too long")
        self._leave("the application took too long")
        self._cancel_task_after(min(NOTICE_SECONDS, self._runner.config.application_close_timeout))

    # -- the application's side --------------------------------------------------------------------------

    # In one piece: another coroutine would cost each part of a body about 0.1 us.
    async def receive(self) -> Message:  # noqa: PLR0912
        """See `Exchange.receive`."""
        inbox = self._inbox
        if self._delivered:
            if inbox is None:
                inbox = self._need_inbox()
            while not inbox.closed:
                await inbox.wait()
            return self._disconnect()
        if self.head.expects_continue and not self._continued and self._gone is None and self._state < _BODY:
            self._continued = True
            try:
                self._port.informational(100, ())
            except BaseException:
                setrecursionlimit(getrecursionlimit() + SPARE_FRAMES)
                self._break_off()
                setrecursionlimit(getrecursionlimit() - SPARE_FRAMES)
                raise
        if inbox is None:
            inbox = self._need_inbox()
        while not inbox.buffered:
            if inbox.ended:
                self._delivered = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if inbox.closed:
                return self._disconnect()
            await inbox.wait()
            if self._is_delivered():  # another reader took the end, or the response is complete
                return await self.receive()
        data, resume = inbox.take()
        if resume and self._gone is None and self._state != _DONE:
            try:
                self._port.consumed(len(data))
            except BaseException:
                setrecursionlimit(getrecursionlimit() + SPARE_FRAMES)
                self._break_off()
                setrecursionlimit(getrecursionlimit() - SPARE_FRAMES)
                raise
        if inbox.ended and not inbox.buffered:
            self._delivered = True
            return {"type": "http.request", "body": data, "more_body": False}
        return {"type": "http.request", "body": data, "more_body": True}

    def _disconnect(self) -> Message:
        self._notified_task = asyncio.current_task()
        self._knows_end = True
        return {"type": "http.disconnect"}

    # In one piece: each message of a response goes through it, and another coroutine would cost about 0.1 us. A call of
    # the port stands in a ``try`` of this very frame: see `Exchange._break_off`.
    async def send(self, message: Message) -> None:  # noqa: C901, PLR0912, PLR0915
        """See `Exchange.send`.

        Raises:
            ClientDisconnected: The exchange is over; nothing can be sent. An application of which another task waited
                in ``receive()`` when that happened is spared it for a moment.
            UnexpectedMessage: ASGI does not allow this message, or not here.
            InvalidHeader: The response cannot be sent with these fields; another start is allowed.
            BodyLengthMismatch: The body was longer than its Content-Length, and was cut.
        """
        if self._gone is not None:
            await self._send_late()
            return
        state = self._state
        if state == _DONE:
            return  # ASGI: "any further messages on the channel will be ignored"
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            raise UnexpectedMessage("a message must be a dict with a 'type'") from None
        if kind == "http.response.start" and state == _START:
            try:
                status = message["status"]
            except KeyError:
                raise UnexpectedMessage("http.response.start has no 'status'") from None
            headers = message.get("headers", ())
            if status.__class__ is not int or not 200 <= status <= 999 or headers.__class__ is not list:
                status, headers = validated_start(kind, status, headers)
            self._status = status
            self._headers = headers
            if message.get("trailers"):
                self._trailers = True
            self._state = _HELD
        elif kind == "http.response.body" and _HELD <= state <= _BODY:
            body = message.get("body", b"")
            if body.__class__ is not bytes:
                body = bytes_of_body(kind, body)
            port = self._port
            waiter = port.writable()
            while waiter is not None:
                await waiter
                if self._is_gone():
                    await self._send_late()
                    return
                state = self._state_now()
                if state > _BODY:
                    return
                if state == _START:
                    raise UnexpectedMessage(f"{kind}: the start of the response, sent meanwhile, was refused")
                waiter = port.writable()
            if state == _BODY:
                # A client that takes everything at once would otherwise keep the loop to itself.
                self._burst += len(body) + MESSAGE_BURST_BYTES
                if self._burst > BURST_MAX_BYTES:
                    self._burst = 0
                    await asyncio.sleep(0)
                    if self._is_gone():
                        await self._send_late()
                        return
                    if self._state_now() != _BODY:
                        return
            # The state first, so that whatever the port reports from here on finds it true.
            if message.get("more_body", False):
                end = False
                self._state = _BODY
            elif self._trailers:
                end = False
                self._state = _TRAILERS
            else:
                end = True
                self._state = _DONE
            try:
                if state == _HELD:
                    port.start(self._status or 0, self._headers, body, end, self._trailers)
                else:
                    port.body(body, end)
                if end:
                    self._completed()
            except InvalidHeader:
                self._state = _START
                self._status = None
                self._trailers = False
                raise
            except BodyLengthMismatch:
                self._state = _DONE
                self._completed()
                raise
            except BaseException:
                setrecursionlimit(getrecursionlimit() + SPARE_FRAMES)
                self._break_off()
                setrecursionlimit(getrecursionlimit() - SPARE_FRAMES)
                raise
        elif (kind == "http.response.pathsend" and state == _HELD) or (
            kind == "http.response.zerocopysend" and _HELD <= state <= _BODY
        ):
            await self._send_file(message, kind)
        else:
            try:
                self._send_other(message, kind)
            except DaphneError:
                raise
            except BaseException:
                setrecursionlimit(getrecursionlimit() + SPARE_FRAMES)
                self._break_off()
                setrecursionlimit(getrecursionlimit() - SPARE_FRAMES)
                raise

    # Nothing can be sent any more. The exception is for an application that knows of the end from nothing else. One
    # that waited for it in another task, as Django's handler does, is about to cancel this one: to it the exception
    # would be a failure, after which Django neither closes the response nor gives the database connection back. Until
    # then nothing is sent, and nothing waits here, so that the cancellation meets what makes the body where it waits.
    async def _send_late(self) -> None:
        if self._had_listener and asyncio.current_task() is not self._notified_task:
            if self._late_sends < _LATE_SENDS_MAX and self._runner.loop.time() < self._disconnected_at + _LATE_SECONDS:
                self._late_sends += 1
                return
            try:
                await asyncio.sleep(NOTICE_SECONDS)
                for _ in range(_NOTICE_TURNS):
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                if self._runner.generator_abandoned is not None:
                    self._runner.generator_abandoned()
                raise
            self._had_listener = False
        self._knows_end = True
        raise ClientDisconnected(self._gone)

    # Asked after an await, which may have changed what was known before it. A type checker goes on believing that, and
    # so would compiled code.
    def _is_gone(self) -> bool:
        return self._gone is not None

    def _is_delivered(self) -> bool:
        return self._delivered

    def _state_now(self) -> int:
        return self._state

    async def _send_file(self, message: Message, kind: str) -> None:
        if not FILES:
            raise misplaced(kind, _WHERE[self._state])
        position: int | None = None
        if kind == "http.response.pathsend":
            file = opened_path(message, self._runner.file_readers)
            more = False
        else:
            file, position = opened_file(message, self._runner.file_readers)
            more = bool(message.get("more_body", False))
        try:
            await self._send_opened(file, kind, more)
            if position is not None:
                file.seek(position)
        finally:
            file.close()

    # A file of one piece goes as a body message does, head and all. Before a larger one the head goes alone.
    async def _send_opened(self, file: FileBody, kind: str, more: bool) -> None:
        state = self._state
        bodiless = self._status == 204 or self._status == 304
        total = file.left
        data = b""
        if bodiless or self.head.method == "HEAD":
            file.took(total)
        else:
            data = await file.begin()
            if self._state_now() != state and not self.is_over():
                raise misplaced(kind, _WHERE[self._state])
        goes_on = file.left > 0
        if (
            len(data) < total
            and state == _HELD
            and not (more or self._trailers or bodiless or has_length(self._headers))
        ):
            self._headers = [*self._headers, (b"content-length", b"%d" % total)]
        await self.send({"type": "http.response.body", "body": data, "more_body": more or goes_on})
        if not goes_on or self.is_over():
            return
        self._state = _FILE
        try:
            whole = await send_rest(self, self._port, file)
        except BodyLengthMismatch:
            self._state = _DONE
            self._completed()
            raise
        except (FileShortened, OSError) as error:
            self._lost_file(file, error)
            raise ClientDisconnected(self._gone) from None
        if not whole:
            if self._gone is not None:
                await self._send_late()
            return
        self._state = _BODY if more else _TRAILERS if self._trailers else _DONE
        if self._state == _DONE:
            try:
                self._port.body(b"", True)
                self._completed()
            except BaseException:
                setrecursionlimit(getrecursionlimit() + SPARE_FRAMES)
                self._break_off()
                setrecursionlimit(getrecursionlimit() - SPARE_FRAMES)
                raise

    # A file cannot be read to the end that the client was told of.
    def _lost_file(self, file: FileBody, error: Exception) -> None:
        reason = f"it became {error} bytes shorter" if isinstance(error, FileShortened) else str(error)
        self._runner.log.error("Cannot send the rest of %s: %s (%s)", ascii(file.name), reason, self.describe())
        self._port.reset("a file could not be read")
        self._leave("a file could not be read")

    def is_over(self) -> bool:
        """See `Exchange.is_over`."""
        return self._gone is not None or self._state == _DONE

    def _send_other(self, message: Message, kind: Any) -> None:
        state = self._state
        if not isinstance(kind, str):
            raise UnexpectedMessage(f"'type' of a message must be str, not {type(kind).__name__}")
        handle = _OTHER_MESSAGES.get((state, kind))
        if handle is None:
            raise misplaced(kind, _WHERE[state])
        handle(self, message)

    def _send_trailers(self, message: Message) -> None:
        fields = [*self._trailer_fields, *list_in(message, "headers")]
        if message.get("more_trailers", False):
            self._trailer_fields = fields
        else:
            self._port.trailers(fields)
            self._state = _DONE
            self._completed()

    def _send_early_hint(self, message: Message) -> None:
        links = list_in(message, "links")
        self._port.informational(103, [(b"link", link) for link in links])

    # ASGI allows a hint until the last body message; on the wire it is too late.
    def _ignore_early_hint(self, message: Message) -> None:
        list_in(message, "links")

    # -- endings -----------------------------------------------------------------------------------------

    # The response went out whole.
    def _completed(self) -> None:
        # ASGI: a disconnect is what receive() gives "after a response has been sent", whatever of the body is unread.
        self._delivered = True
        inbox = self._inbox
        if inbox is not None:
            if not inbox.ended:
                self._port.abandon()
            inbox.close()
        elif self.head.content_length:
            self._port.abandon()
        if self._runner.record is not None and not self._recorded:
            self._size = self._port.body_bytes_sent
            if not self._port.when_flushed(self._flushed):
                self._record()

    # The end of the response, which waited for a slow client, has gone out, but for so many bytes of it and of what
    # came behind it.
    def _flushed(self, lost: int) -> int:
        size = self._size or 0
        self._size = max(size - lost, 0)
        if not self._recorded:
            self._record()
        return max(lost - size, 0)

    # No answer can be given any more.
    def _leave(self, reason: str) -> None:
        if self._gone is None:
            self._gone = reason
            self._cut_off = True
            inbox = self._need_inbox()
            self._had_listener = inbox.awaited
            self._disconnected_at = self._runner.loop.time()
            inbox.close()
            if self._runner.record is not None and not self._recorded and self._size is None:
                self._record()

    def _returned(self) -> None:
        self._runner.log.error("Application returned without completing its response to %s", self.describe())
        self._fail(500)

    # Answer with an error of the server's, or make the truncation show.
    def _fail(self, status: int, detail: str = "") -> None:
        if self._gone is not None or self._state == _DONE:
            return
        if self._state < _BODY:
            self._state = _DONE
            self._status = status
            send_error(self._port, status, detail)
            self._completed()
        else:
            self._port.reset("the application failed")
            self._leave("the application failed")

    def cancel(self, reason: str, notice: float = 0.0) -> None:
        """See `Exchange.cancel`."""
        if self._state == _DONE or self._gone is not None:
            pass
        elif self._state < _BODY:
            self._fail(503, sentence_of(reason))
        else:
            self._port.reset(reason)
        self._leave(reason)
        self._cancel_task_after(notice)

    # -- for the logs ------------------------------------------------------------------------------------

    @property
    def status(self) -> int | None:
        """Status of the response, None before it started."""
        return self._status if self._state >= _BODY else self._wire_status

    @property
    def body_bytes_sent(self) -> int:
        """Body bytes that went out."""
        if self._size is not None:
            return self._size
        return self._port.body_bytes_sent if self._state >= _BODY else 0

    def _title(self) -> str:
        return self.head.method

    def _record(self) -> None:
        self._recorded = True
        record = self._runner.record
        assert record is not None  # asked for by the callers, because most servers' hot path ends there
        record(self)

    def _need_inbox(self) -> Inbox:
        inbox = self._inbox
        if inbox is None:
            config = self._runner.config
            inbox = self._inbox = Inbox(config.inbox_high_bytes, config.inbox_low_bytes, self._runner.loop)
            if not self.head.content_length:
                inbox.ended = True
            if self._state == _DONE:
                inbox.closed = True
        return inbox


# (state, message type) -> what becomes of a message that `send` does not handle itself. Any other is refused.
_OTHER_MESSAGES: Final[dict[tuple[int, str], Callable[[HttpExchange, Message], None]]] = {
    (_HELD, "http.response.early_hint"): HttpExchange._send_early_hint,
    (_BODY, "http.response.early_hint"): HttpExchange._ignore_early_hint,
    (_TRAILERS, "http.response.trailers"): HttpExchange._send_trailers,
}

_WHERE: Final = {
    _START: "before http.response.start",
    _HELD: "after http.response.start, before the first http.response.body",
    _BODY: "while the body is being sent",
    _FILE: "while a file is being sent",
    _TRAILERS: "after the last http.response.body; http.response.trailers is due",
    _DONE: "after the response",
}

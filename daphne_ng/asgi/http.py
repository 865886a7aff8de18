"""One HTTP exchange: a run of the application between a `ResponsePort` and ASGI messages.

Written once for every protocol. It knows neither bytes on the wire nor which protocol it serves.

The response goes through `_State` in order. ``http.response.start`` is held until the first body event (ASGI HTTP,
"Response Start"), so that a small response is one write and an application can still replace a start that failed.

However the exchange ends - the response is complete, the client left, time is over, the application raised or was
cancelled - there is one disconnect to receive, one record for the access log, and one ended task.
"""

from __future__ import annotations

import asyncio
import inspect
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from daphne_ng._types import Headers, Message
from daphne_ng.asgi.inbox import Inbox
from daphne_ng.errors import BodyLengthMismatch, ClientDisconnected, InvalidHeader, UnexpectedMessage
from daphne_ng.port import ResponsePort
from daphne_ng.wire.head import RequestHead

if TYPE_CHECKING:
    from daphne_ng.asgi.runner import Runner
    from daphne_ng.asgi.scope import ConnectionInfo

__all__ = ["HttpExchange"]


class _State(IntEnum):
    START = 0
    HELD = 1
    BODY = 2
    TRAILERS = 3
    DONE = 4


# Body bytes that one exchange may send before others get a turn of the loop.
_BURST_MAX_BYTES = 512 * 1024

_START, _HELD, _BODY, _TRAILERS, _DONE = (int(state) for state in _State)


class HttpExchange:
    """A request being served; implements `RequestSink`.

    Args:
        runner: Whose application runs.
        head: The request.
        info: Its connection.
        port: Where the response goes.
        scope: The ASGI scope.
    """

    # Defaults on the class: most exchanges never touch most of these, and setting them all for each request shows.
    task: asyncio.Task[None] | None = None
    began_at = 0.0
    _state = _START
    _status: int | None = None
    _wire_status: int | None = None
    _headers: Headers = ()
    _trailers = False
    _trailer_fields: Headers = ()
    _gone: str | None = None
    _recorded = False
    _burst = 0
    _overdue_timer: asyncio.TimerHandle | None = None
    # A request without a body needs no inbox until somebody waits for its end.
    _inbox: Inbox | None = None
    _delivered = False

    def __init__(
        self, runner: Runner, head: RequestHead, info: ConnectionInfo, port: ResponsePort, scope: dict[str, Any]
    ) -> None:
        self._runner = runner
        self._port = port
        self.head = head
        self.info = info
        self.scope = scope
        self._continue_wanted = head.expects_continue

    # -- RequestSink -------------------------------------------------------------------------------------

    def body_received(self, data: bytes) -> bool:
        """See `RequestSink.body_received`."""
        return self._need_inbox().put(data)

    def body_ended(self, trailers: Headers) -> None:
        """See `RequestSink.body_ended`. ASGI has no message for request trailers."""
        if self.head.content_length:
            self._need_inbox().end()

    def disconnected(self, reason: str, status: int | None = None) -> None:
        """See `RequestSink.disconnected`."""
        self._wire_status = status
        self._leave(reason)
        timeout = self._runner.config.application_close_timeout
        task = self.task
        if task is not None and not task.done():
            self._overdue_timer = self._runner.loop.call_later(max(timeout, 0), self._overdue)

    def expired(self) -> None:
        """See `RequestSink.expired`."""
        if self._state < _BODY:
            self._fail(503, b"The application did not answer in time.\n")
        elif self._state != _DONE:
            self._runner.log.warning("Application timed out while sending response to %s", self.describe())
            self._port.reset("the application took too long")
        self._leave("the application took too long")
        self._cancel_task()

    # -- the application's side --------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the application to its end. Raises nothing but what must end the process."""
        runner = self._runner
        try:
            await runner.application(self.scope, self.receive, self.send)
        except ClientDisconnected as error:
            if self._gone is None:
                self._failed(error)
        except asyncio.CancelledError as error:
            if self._gone is None:
                self._failed(error)
        except (KeyboardInterrupt, GeneratorExit):
            self._fail(500, b"")
            raise
        except BaseException as error:
            # SystemExit too: one request must not take everybody else's down with it.
            if self._gone is None or not self._is_disconnect(error):
                self._failed(error)
        else:
            if self._state != _DONE and self._gone is None:
                runner.log.error("Application returned without completing its response to %s", self.describe())
                self._fail(500, b"")
        finally:
            self._ended()

    async def receive(self) -> Message:
        """The ``receive`` callable of the application."""
        inbox = self._inbox
        if self._delivered:
            if inbox is None:
                inbox = self._need_inbox()
            while not inbox.closed:
                await inbox.wait()
            return {"type": "http.disconnect"}
        if self._continue_wanted and self._gone is None and self._state < _BODY:
            self._continue_wanted = False
            self._port.informational(100, ())
        if inbox is None:
            inbox = self._need_inbox()
        while not inbox.buffered:
            if inbox.ended:
                self._delivered = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if inbox.closed:
                return {"type": "http.disconnect"}
            await inbox.wait()
            if self._delivered:  # another reader took the end, or the response is complete
                return await self.receive()  # type: ignore[unreachable]
        data, resume = inbox.take()
        if resume and self._gone is None and self._state != _DONE:
            self._port.consumed(len(data))
        if inbox.ended and not inbox.buffered:
            self._delivered = True
            return {"type": "http.request", "body": data, "more_body": False}
        return {"type": "http.request", "body": data, "more_body": True}

    async def send(self, message: Message) -> None:
        """The ``send`` callable of the application.

        Raises:
            ClientDisconnected: The exchange is over; nothing can be sent.
            UnexpectedMessage: ASGI does not allow this message, or not here.
            InvalidHeader: The response cannot be sent with these fields; another start is allowed.
            BodyLengthMismatch: The body was longer than its Content-Length, and was cut.
        """
        if self._gone is not None:
            raise ClientDisconnected(self._gone)
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
                status, headers = _checked_start(status, headers)
            self._status = status
            self._headers = headers
            if message.get("trailers"):
                self._trailers = True
            self._state = _HELD
        elif kind == "http.response.body" and _HELD <= state <= _BODY:
            body = message.get("body", b"")
            if body.__class__ is not bytes:
                body = _as_bytes(body)
            port = self._port
            waiter = port.writable()
            while waiter is not None:
                await waiter
                if self._gone is not None:
                    raise ClientDisconnected(self._gone)
                state = self._state
                if state > _BODY:
                    return
                if state == _START:
                    raise UnexpectedMessage(f"{kind}: the start of the response, sent meanwhile, was refused")
                waiter = port.writable()
            if state == _BODY:
                # A client that takes everything at once would otherwise keep the loop to itself.
                self._burst += len(body)
                if self._burst > _BURST_MAX_BYTES:
                    self._burst = 0
                    await asyncio.sleep(0)
                    if self._gone is not None:
                        raise ClientDisconnected(self._gone)
                    if self._state != _BODY:
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
            except InvalidHeader:
                self._state = _START
                self._status = None
                self._trailers = False
                raise
            except BodyLengthMismatch:
                self._state = _DONE
                self._completed()
                raise
            if end:
                self._completed()
        else:
            self._send_other(message, kind)

    def _send_other(self, message: Message, kind: Any) -> None:
        state = self._state
        if kind == "http.response.trailers" and state == _TRAILERS:
            fields = [*self._trailer_fields, *_listed(message, "headers")]
            if message.get("more_trailers", False):
                self._trailer_fields = fields
            else:
                self._port.trailers(fields)
                self._state = _DONE
                self._completed()
        elif kind == "http.response.early_hint" and state in (_HELD, _BODY):
            links = _listed(message, "links")
            if state == _HELD:
                self._port.informational(103, [(b"link", link) for link in links])
            # Afterwards it is too late for the wire; ASGI allows it until the last body message.
        elif not isinstance(kind, str):
            raise UnexpectedMessage(f"'type' of a message must be str, not {type(kind).__name__}")
        else:
            raise UnexpectedMessage(f"{kind} is not allowed {_WHERE[state]}")

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
            self._record()

    # No answer can be given any more.
    def _leave(self, reason: str) -> None:
        if self._gone is None:
            self._gone = reason
            self._need_inbox().close()
            if self._runner.record is not None and not self._recorded:
                self._record()

    # Answer with an error of our own, or make the truncation show.
    def _fail(self, status: int, detail: bytes) -> None:
        if self._gone is not None or self._state == _DONE:
            return
        if self._state < _BODY:
            self._state = _DONE
            self._status = status
            text = b"%d %s\n%b" % (status, _REASONS[status], detail)
            self._port.start(status, [(b"content-type", b"text/plain; charset=utf-8")], text, True, False)
            self._completed()
        else:
            self._port.reset("the application failed")
            self._leave("the application failed")

    def _failed(self, error: BaseException) -> None:
        self._runner.log.error("Exception inside application: %s", error, exc_info=error)
        self._fail(500, b"")

    # Whether an exception that escaped after the end of the exchange tells of nothing but that end.
    def _is_disconnect(self, error: BaseException) -> bool:
        if isinstance(error, BaseExceptionGroup):
            return all(self._is_disconnect(one) for one in error.exceptions)
        if isinstance(error, ClientDisconnected | asyncio.CancelledError):
            return True
        cause: BaseException | None = error
        while not isinstance(cause, ClientDisconnected):
            if cause is None:
                return False
            cause = cause.__cause__ or cause.__context__
        # Frameworks raise exceptions of their own for it; but a defect in the clean-up would look the same.
        log = self._runner.log
        log.info("Application ended with %s after the end of %s", _one_line(error), self.describe())
        log.debug("What it raised after the disconnect:", exc_info=error)
        return True

    # The application's task has ended, or never will begin.
    def _ended(self) -> None:
        self.task = None
        if self._overdue_timer is not None:
            self._overdue_timer.cancel()
            self._overdue_timer = None
        runner = self._runner
        runner.exchanges.discard(self)
        if runner.idle is not None:
            runner.check_idle()

    def _cancel_task(self) -> None:
        task = self.task
        if task is None:
            return
        task.cancel()
        if inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
            # Cancelled before its first step a task runs nothing, not even a ``finally``.
            self._ended()

    def _overdue(self) -> None:
        self._overdue_timer = None
        task = self.task
        if task is None or task.done():
            return
        self._runner.log.warning(
            "Application instance for %s took too long to shut down and was killed. %s", self.describe(), where(task)
        )
        task.cancel()

    def cancel(self, reason: str) -> None:
        """Give the exchange up.

        Args:
            reason: A clause in ASCII, such as "the server is shutting down"; the client may read it.
        """
        if self._state == _DONE or self._gone is not None:
            pass
        elif self._state < _BODY:
            self._fail(503, b"%b.\n" % (reason[:1].upper() + reason[1:]).encode("ascii"))
        else:
            self._port.reset(reason)
        self._leave(reason)
        self._cancel_task()

    # -- for the logs ------------------------------------------------------------------------------------

    @property
    def status(self) -> int | None:
        """Status of the response, None before it started."""
        return self._status if self._state >= _BODY else self._wire_status

    @property
    def body_bytes_sent(self) -> int:
        """Body bytes that went out."""
        return self._port.body_bytes_sent if self._state >= _BODY else 0

    def describe(self) -> str:
        """Name the request in a log line: method, path and age; safe to print."""
        age = f", {self._runner.loop.time() - self.began_at:.1f} s old" if self.began_at else ""
        return f"{self.head.method} {ascii(self.head.path)[1:-1]}{age}"

    def _record(self) -> None:
        self._recorded = True
        record = self._runner.record
        assert record is not None  # asked for by the callers, because most servers' hot path ends there
        record(self)

    def _need_inbox(self) -> Inbox:
        inbox = self._inbox
        if inbox is None:
            config = self._runner.config
            inbox = self._inbox = Inbox(config.inbox_high_bytes, config.inbox_low_bytes)
            if not self.head.content_length:
                inbox.ended = True
            if self._state == _DONE:
                inbox.closed = True
        return inbox


# A start that is not made of a plain int and a list: say what is wrong with it, or bring it to that form.
def _checked_start(status: Any, headers: Any) -> tuple[int, Headers]:
    if not isinstance(status, int) or isinstance(status, bool):
        raise UnexpectedMessage(f"'status' of http.response.start must be an int, not {type(status).__name__}")
    if not 200 <= status <= 999:
        raise UnexpectedMessage(f"'status' of http.response.start must be from 200 to 999, not {int(status)}")
    try:
        return int(status), list(headers)
    except TypeError:
        raise UnexpectedMessage(
            f"'headers' of http.response.start must be an iterable of pairs, not {type(headers).__name__}"
        ) from None


def _as_bytes(body: Any) -> bytes:
    if not isinstance(body, bytes | bytearray | memoryview):
        raise UnexpectedMessage(f"'body' of http.response.body must be bytes, not {type(body).__name__}")
    return bytes(body)


_REASONS = {500: b"Internal Server Error", 503: b"Service Unavailable"}
_WHERE = {
    _START: "before http.response.start",
    _HELD: "after http.response.start, before the first http.response.body",
    _BODY: "while the body is being sent",
    _TRAILERS: "after the last http.response.body; http.response.trailers is due",
    _DONE: "after the response",
}


def _listed(message: Message, key: str) -> list[Any]:
    value = message.get(key, ())
    try:
        return list(value)
    except TypeError:
        raise UnexpectedMessage(
            f"{key!r} of {message['type']} must be an iterable, not {type(value).__name__}"
        ) from None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def where(task: asyncio.Task[Any]) -> str:
    """Say in one clause where a task waits: the innermost frame of its chain of awaits."""
    frame: Any = None
    awaitable: Any = task.get_coro()
    for _ in range(100):
        inner = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if inner is not None:
            frame = inner
        following = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
        if following is None:
            break
        awaitable = following
    if frame is None:
        return "It waits at an unknown place."
    return f"It waits in {frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})."

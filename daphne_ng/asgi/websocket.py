"""One WebSocket: a run of the application between a `WebSocketPort` and ASGI messages.

Written once for every protocol. It knows neither frames nor which protocol it serves.

It goes through these states::

    CONNECTING --accept--> OPEN ----------------------------+
        |  ^                                                |
        |  +-- its head was refused --+                     |
        |                             |                     |
        +--http.response.start--> DENIAL_HELD --body--> DENIAL --last body--> DENIAL_TRAILERS
        |                             |                     |                        |
        +-----------------------------+---------------------+------------------------+--> DONE

From whichever state it ends - the application, the client or the server closed it, the handshake was refused, the
application raised or was cancelled - it ends in `_over`, once. From there on there is one disconnect to receive, any
number of times, nothing can be sent, and the application's task has `application_close_timeout` to end.

What came before the client's close is delivered before the disconnect. After an end that the server or the application
has made, it is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from sys import getrecursionlimit, setrecursionlimit
from typing import Any, Final

from daphne_ng._types import Headers, Message
from daphne_ng.asgi.exchange import (
    BURST_MAX_BYTES,
    DONE,
    MESSAGE_BURST_BYTES,
    SPARE_FRAMES,
    Exchange,
    Host,
    bytes_of_body,
    list_in,
    misplaced,
    send_error,
    sentence_of,
    validated_start,
)
from daphne_ng.asgi.files import has_length
from daphne_ng.asgi.inbox import MessageInbox
from daphne_ng.errors import BodyLengthMismatch, ClientDisconnected, DaphneError, InvalidHeader, UnexpectedMessage
from daphne_ng.files import FILES, PIECE_BYTES, FileShortened, opened_file, opened_path
from daphne_ng.port import WebSocketPort
from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wording import printable

__all__ = ["WebSocketExchange"]


# The states, which the module's docstring draws. Plain integers: a look-up of an Enum's member costs a call, and every
# message has several.
_CONNECTING: Final = 0
_DENIAL_HELD: Final = 1
_DENIAL: Final = 2
_DENIAL_TRAILERS: Final = 3
_OPEN: Final = 4
_DONE: Final = DONE

# How many messages an application may still send after the end without an exception, until it calls receive() again,
# and how long each of these calls waits, so that no loop can spin. Consumers of Channels take one message after the
# other, and an exception in one keeps them from the last, the disconnect, in whose handler they clean up. Daphne
# ignores all of it.
_LATE_SENDS_MAX: Final = 64
_LATE_SEND_SECONDS: Final = 0.02

# The close codes that the server sends: RFC 6455 section 7.4.1 and the IANA registry.
_NORMAL: Final = 1000
_ABNORMAL: Final = 1006
_INTERNAL_ERROR: Final = 1011
_SERVICE_RESTART: Final = 1012


class WebSocketExchange(Exchange[WebSocketPort]):
    """A WebSocket being served; implements `WebSocketSink`.

    Args:
        runner: Runs the application.
        head: The request that asks for it.
        info: Its connection.
        port: Where the messages go.
        scope: The ASGI scope.
        offered: The subprotocols of the scope as the client has sent them, where that is not the same.
    """

    code: int | None = None
    """The close code that the application is told, None before the end."""
    reason = ""
    """The close reason that the application is told."""
    status: int | None = None
    """Status of the response, if the handshake was answered with one."""
    accepted = False
    """Whether the handshake was completed."""

    _state = _CONNECTING
    _announced = False
    _greeted = False
    _held: tuple[int, Headers] = (0, ())
    _trailers = False
    _trailer_fields: Headers = ()
    # How many sends after the end are ignored: those of an application that is known to call receive().
    _late_sends = _LATE_SENDS_MAX
    _ended_at = 0.0
    # The end of a WebSocket is no accident: applications have code for it, and to lose what that raises would hide a
    # defect that shows nowhere else.
    _late_failure_warns = True

    def __init__(
        self,
        runner: Host,
        head: RequestHead,
        info: ConnectionInfo,
        port: WebSocketPort,
        scope: dict[str, Any],
        offered: Sequence[str] | None = None,
    ) -> None:
        super().__init__(runner, head, info, port, scope)
        config = runner.config
        self._inbox = inbox = MessageInbox(config.inbox_high_bytes, config.inbox_low_bytes, runner.loop)
        # Bound once, for every message goes through them. The first is a method of `WebSocketSink`.
        self.message_received = inbox.put
        self._message = port.message
        self._writable = port.writable
        # The application may change its scope, but not what the client offered.
        names: list[str] = scope["subprotocols"]
        self._offered = dict(zip(names, names if offered is None else offered, strict=True))
        if offered is not None:
            self._offered.update(zip(offered, offered, strict=True))

    # -- WebSocketSink -----------------------------------------------------------------------------------

    def closed(self, code: int, reason: str) -> None:
        """See `WebSocketSink.closed`."""
        if self._gone is None:
            self._cut_off = True
            self._inbox.end()
            self._over(code, reason, f"the WebSocket was closed with code {code}", "disconnected")
            self._arm_overdue()

    def expired(self) -> None:
        """See `WebSocketSink.expired`."""
        if self._gone is None and self._state != _OPEN:
            self._cut_off = True
            self._runner.log.warning("Application did not accept in time: %s", self.describe())
            self._give_up(403, "The application did not accept the WebSocket in time.", "the application was slow")
            self._arm_overdue()

    # -- the application's side --------------------------------------------------------------------------

    def run(self) -> Coroutine[Any, Any, None]:
        """See `Exchange.run`. What is logged of the socket begins with this call, not with its first step."""
        self._record("connecting")
        return super().run()

    async def receive(self) -> Message:
        """See `Exchange.receive`."""
        if not self._greeted:
            self._greeted = True
            return {"type": "websocket.connect"}
        self._late_sends = _LATE_SENDS_MAX
        inbox = self._inbox
        while inbox.handed or not inbox.parts:
            if inbox.handed:
                await asyncio.sleep(0)  # another task of the application has its turn before
                continue
            if inbox.ended:
                self._knows_end = True
                return {"type": "websocket.disconnect", "code": self.code, "reason": self.reason}
            waiter = inbox.waiter()  # not inbox.wait(): that would be another coroutine for each message
            try:
                handed = await waiter
            except BaseException:
                inbox.forget(waiter)
                raise
            if handed is not None:
                inbox.handed = False
                if not inbox.closed:
                    message = handed[0]
                    if message.__class__ is str:
                        return {"type": "websocket.receive", "text": message}
                    return {"type": "websocket.receive", "bytes": message}
        message, resume = inbox.take()
        if resume and self._gone is None:
            try:
                self._port.consumed()
            except BaseException:
                setrecursionlimit(getrecursionlimit() + SPARE_FRAMES)
                self._break_off()
                setrecursionlimit(getrecursionlimit() - SPARE_FRAMES)
                raise
        if message.__class__ is str:
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    # In one piece: each message goes through it, and another coroutine would cost about 0.1 us. A call of the port
    # stands in a ``try`` of this very frame: see `Exchange._break_off`.
    async def send(self, message: Message) -> None:  # noqa: C901, PLR0912, PLR0915
        """See `Exchange.send`.

        Raises:
            ClientDisconnected: The WebSocket is over; nothing can be sent. An application that calls ``receive()``
                is spared it for a while, so that it comes to hear of the end there.
            UnexpectedMessage: ASGI does not allow this message, or not here.
            InvalidHeader: The handshake cannot be answered with these fields; another answer is allowed.
            BodyLengthMismatch: The body of a denial was longer than its Content-Length, and was cut.
        """
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            raise UnexpectedMessage("a message must be a dict with a 'type'") from None
        if kind == "websocket.send" and self._state == _OPEN:
            text = message.get("text")
            payload = message.get("bytes")
            if text.__class__ is str and payload is None:
                is_text = True
                try:
                    payload = text.encode()
                except UnicodeEncodeError:
                    payload = _utf8(text, "'text' of websocket.send")  # raises
            elif payload.__class__ is bytes and text is None:
                is_text = False
            else:
                payload, is_text = _validated_payload(text, payload)
            # A client that takes everything at once would otherwise keep the loop to itself.
            burst = self._burst + len(payload) + MESSAGE_BURST_BYTES
            if burst > BURST_MAX_BYTES:
                burst = 0
                await asyncio.sleep(0)
                if self._state != _OPEN:
                    await self._send_late()
                    return
            self._burst = burst
            waiter = self._writable()
            while waiter is not None:
                await waiter
                if self._state != _OPEN:
                    await self._send_late()
                    return
                waiter = self._writable()
            try:
                self._message(payload, is_text)
            except BaseException:
                setrecursionlimit(getrecursionlimit() + SPARE_FRAMES)
                self._break_off()
                setrecursionlimit(getrecursionlimit() - SPARE_FRAMES)
                raise
        elif kind == "websocket.http.response.body" and _DENIAL_HELD <= self._state <= _DENIAL:
            await self._send_denial(message, kind)
        elif (kind == "websocket.http.response.pathsend" and self._state == _DENIAL_HELD) or (
            kind == "websocket.http.response.zerocopysend" and _DENIAL_HELD <= self._state <= _DENIAL
        ):
            await self._send_file(message, kind)
        elif self._gone is not None and self.status is None and kind in ("websocket.send", "websocket.accept"):
            await self._send_late()
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

    def _disconnected_error(self) -> ClientDisconnected:
        self._knows_end = True
        return ClientDisconnected(self._gone)

    # A message after the end: ignored.
    async def _send_late(self) -> None:
        runner = self._runner
        patience = runner.config.application_close_timeout / 2
        if self._late_sends <= 0 or runner.loop.time() >= self._ended_at + patience:
            raise self._disconnected_error()
        self._late_sends -= 1
        await asyncio.sleep(_LATE_SEND_SECONDS)

    def _send_other(self, message: Message, kind: Any) -> None:
        state = self._state
        if not isinstance(kind, str):
            raise UnexpectedMessage(f"'type' of a message must be str, not {type(kind).__name__}")
        if kind not in _KINDS:
            raise misplaced(kind, "over a WebSocket")
        if self._gone is not None:
            # Consumers close in their disconnect handlers; that is no mistake.
            if kind != "websocket.close":
                raise self._disconnected_error()
            return
        handle = _OTHER_MESSAGES.get((state, kind))
        if handle is None:
            raise misplaced(kind, _WHERE[state])
        handle(self, message)

    def _close_open(self, message: Message) -> None:
        self._close(*_validated_close(message), "the application closed the WebSocket")
        self._arm_overdue()

    # The code goes nowhere, so any will do; Daphne's applications send the status here.
    def _close_unaccepted(self, message: Message) -> None:
        self._refuse(403, "", "the application refused the WebSocket")
        self._arm_overdue()

    def _hold_denial(self, message: Message) -> None:
        kind = message["type"]
        try:
            status = message["status"]
        except KeyError:
            raise UnexpectedMessage(f"{kind} has no 'status'") from None
        self._held = validated_start(kind, status, message.get("headers", ()))
        self._trailers = bool(message.get("trailers", False))
        self._state = _DENIAL_HELD

    def _send_early_hint(self, message: Message) -> None:
        links = list_in(message, "links")
        self._port.response.informational(103, [(b"link", link) for link in links])

    # As of any response: see `HttpExchange`.
    def _ignore_early_hint(self, message: Message) -> None:
        list_in(message, "links")

    def _send_trailers(self, message: Message) -> None:
        fields = [*self._trailer_fields, *list_in(message, "headers")]
        if message.get("more_trailers", False):
            self._trailer_fields = fields
        else:
            self._port.response.trailers(fields)
            self._denied()

    def _accept(self, message: Message) -> None:
        subprotocol = message.get("subprotocol")
        if not subprotocol and (subprotocol is None or isinstance(subprotocol, str)):
            subprotocol = None
        elif not isinstance(subprotocol, str):
            raise UnexpectedMessage(
                f"'subprotocol' of websocket.accept must be str or None, not {type(subprotocol).__name__}"
            )
        elif subprotocol not in self._offered:
            raise UnexpectedMessage(f"the client did not offer the subprotocol {subprotocol!a}")
        else:
            subprotocol = self._offered[subprotocol]
        headers = list_in(message, "headers")
        for field in headers:
            try:
                name, _ = field
            except (TypeError, ValueError):
                raise InvalidHeader(f"a header must be a pair of bytes, not {printable(repr(field))}") from None
            if isinstance(name, bytes) and name.lower() == b"sec-websocket-protocol":
                raise InvalidHeader("the subprotocol goes into 'subprotocol' of websocket.accept, not into a header")
        # The state first, so that whatever the port reports from here on finds it true.
        self._state = _OPEN
        self._late_sends = 0
        self.accepted = True
        try:
            self._port.accept(subprotocol, headers)
        except InvalidHeader:
            self._state = _CONNECTING
            self.accepted = False
            raise
        if self._gone is None:
            self._record("connected")

    # A part of the response that stands in for the handshake.
    async def _send_denial(self, message: Message, kind: str) -> None:
        body = bytes_of_body(kind, message.get("body", b""))
        response = self._port.response
        waiter = response.writable()
        while waiter is not None:
            await waiter
            if self._gone is not None:
                raise self._disconnected_error()
            if not _DENIAL_HELD <= self._state <= _DENIAL:
                raise UnexpectedMessage(f"{kind}: the start of the response, sent meanwhile, was refused")
            waiter = response.writable()
        state = self._state
        end = False
        if message.get("more_body", False):
            self._state = _DENIAL
        elif self._trailers:
            self._state = _DENIAL_TRAILERS
        else:
            end = True
            self._state = _DONE
        try:
            if state == _DENIAL_HELD:
                self.status, headers = self._held
                response.start(self.status, headers, body, end, self._trailers)
            else:
                response.body(body, end)
            if end:
                self._denied()
        except InvalidHeader:
            self._state = _CONNECTING
            self.status = None
            raise
        except BodyLengthMismatch:
            self._denied()
            raise
        except BaseException:
            setrecursionlimit(getrecursionlimit() + SPARE_FRAMES)
            self._break_off()
            setrecursionlimit(getrecursionlimit() - SPARE_FRAMES)
            raise

    # Read in pieces, each of which goes as a body message does: few of these responses have a file.
    async def _send_file(self, message: Message, kind: str) -> None:
        if not FILES:
            raise misplaced(kind, _WHERE[self._state])
        position: int | None = None
        more = False
        if kind == "websocket.http.response.pathsend":
            file = opened_path(message, self._runner.file_readers)
            status, headers = self._held
            if not (self._trailers or has_length(headers)) and status != 204 and status != 304:
                self._held = status, [*headers, (b"content-length", b"%d" % file.left)]
        else:
            file, position = opened_file(message, self._runner.file_readers)
            more = bool(message.get("more_body", False))
        try:
            goes_on = True
            while goes_on:
                piece = await file.read(PIECE_BYTES) if file.left else b""
                if self.is_over():
                    return
                goes_on = file.left > 0
                await self._send_denial({"body": piece, "more_body": goes_on or more}, kind)
            if position is not None:
                file.seek(position)
        except FileShortened as error:
            raise UnexpectedMessage(f"{file.name} became {error} bytes shorter while it was sent") from None
        finally:
            file.close()

    def is_over(self) -> bool:
        """See `Exchange.is_over`."""
        return self._gone is not None or self._state == _DONE

    # -- endings -----------------------------------------------------------------------------------------

    # The end of every exchange. The port hears of it from the caller, afterwards.
    def _over(self, code: int, reason: str, gone: str, action: str) -> None:
        self._gone = gone
        self._ended_at = self._runner.loop.time()
        self._state = _DONE
        self.code = code
        self.reason = reason
        self._record(action)

    # The response in place of the handshake is complete.
    def _denied(self) -> None:
        self._inbox.close()
        self._over(_ABNORMAL, "", "the application denied the WebSocket", "rejected")
        self._arm_overdue()

    # Answer the handshake with a response of our own.
    def _refuse(self, status: int, detail: str, gone: str) -> None:
        self.status = status
        self._inbox.close()
        self._over(_ABNORMAL, "", gone, "rejected")
        send_error(self._port.response, status, detail)

    # Close what is open.
    def _close(self, code: int, reason: str, gone: str) -> None:
        self._inbox.close()
        self._over(code, reason, gone, "disconnected")
        self._port.close(code, reason)

    # Answer the handshake, or make it show that the response to it is not whole.
    def _give_up(self, status: int, detail: str, gone: str) -> None:
        if self._state < _DENIAL:
            self._refuse(status, detail, gone)
        else:
            self._inbox.close()
            self._over(_ABNORMAL, "", gone, "rejected")
            self._port.response.reset(gone)

    def _returned(self) -> None:
        state = self._state
        if state == _OPEN:
            self._close(_NORMAL, "", "the application has ended")
            return
        what = "accepting or closing" if state == _CONNECTING else "completing its response to"
        self._runner.log.error("Application returned without %s %s", what, self.describe())
        self._fail(500)

    def _fail(self, status: int, detail: str = "") -> None:
        if self._gone is not None:
            return
        if self._state == _OPEN:
            self._close(_INTERNAL_ERROR, "", "the application failed")
        else:
            self._give_up(status, detail, "the application failed")

    def cancel(self, reason: str, notice: float = 0.0) -> None:
        """See `Exchange.cancel`."""
        if self._gone is None:
            self._cut_off = True
            if self._state == _OPEN:
                self._close(_SERVICE_RESTART, reason, reason)
            else:
                self._give_up(503, sentence_of(reason), reason)
        self._cancel_task_after(notice)

    # -- for the logs ------------------------------------------------------------------------------------

    @property
    def bytes_received(self) -> int:
        """Payload of the messages received."""
        return self._port.bytes_received

    @property
    def bytes_sent(self) -> int:
        """Payload of the messages sent, or of the response in their place."""
        port = self._port
        return port.bytes_sent if self.status is None else port.response.body_bytes_sent

    def _title(self) -> str:
        return "WebSocket"

    def _record(self, action: str) -> None:
        record = self._runner.record_websocket
        if record is None:
            return
        if not self._announced:
            # The exchange may end before it runs; a reader of the log looks for pairs.
            self._announced = True
            record(self, "connecting")
        if action != "connecting":
            record(self, action)


_KINDS: Final = frozenset(
    (
        "websocket.accept",
        "websocket.send",
        "websocket.close",
        "websocket.http.response.start",
        "websocket.http.response.body",
        "websocket.http.response.early_hint",
        "websocket.http.response.pathsend",
        "websocket.http.response.trailers",
        "websocket.http.response.zerocopysend",
    )
)

# (state, message type) -> what becomes of a message that `send` does not handle itself. Any other is refused.
_OTHER_MESSAGES: Final[dict[tuple[int, str], Callable[[WebSocketExchange, Message], None]]] = {
    (_CONNECTING, "websocket.accept"): WebSocketExchange._accept,
    (_CONNECTING, "websocket.close"): WebSocketExchange._close_unaccepted,
    (_CONNECTING, "websocket.http.response.start"): WebSocketExchange._hold_denial,
    (_DENIAL_HELD, "websocket.http.response.early_hint"): WebSocketExchange._send_early_hint,
    (_DENIAL, "websocket.http.response.early_hint"): WebSocketExchange._ignore_early_hint,
    (_DENIAL_TRAILERS, "websocket.http.response.trailers"): WebSocketExchange._send_trailers,
    (_OPEN, "websocket.close"): WebSocketExchange._close_open,
}

_WHERE: Final = {
    _CONNECTING: "before websocket.accept",
    _DENIAL_HELD: "after websocket.http.response.start; websocket.http.response.body is due",
    _DENIAL: "while the response in place of the WebSocket is being sent",
    _DENIAL_TRAILERS: "after the body; websocket.http.response.trailers is due",
    _OPEN: "after websocket.accept",
    _DONE: "after the end",
}


# Return the payload of a message that is not simply one str or bytes, and whether it is text.
def _validated_payload(text: Any, payload: Any) -> tuple[bytes, bool]:
    if (text is None) == (payload is None):
        raise UnexpectedMessage("websocket.send must have either 'text' or 'bytes', and not both")
    if text is not None:
        if not isinstance(text, str):
            raise UnexpectedMessage(f"'text' of websocket.send must be str, not {type(text).__name__}")
        return _utf8(text, "'text' of websocket.send"), True
    if not isinstance(payload, bytes | bytearray | memoryview):
        raise UnexpectedMessage(f"'bytes' of websocket.send must be bytes, not {type(payload).__name__}")
    return bytes(payload), False


def _utf8(text: str, what: str) -> bytes:
    try:
        return str.encode(text)
    except UnicodeEncodeError:
        raise UnexpectedMessage(f"{what} has no UTF-8: it holds lone surrogates") from None


# Code and reason of a websocket.close.
def _validated_close(message: Message) -> tuple[int, str]:
    code = message.get("code")
    if code is None:
        code = _NORMAL
    if not isinstance(code, int) or isinstance(code, bool):
        raise UnexpectedMessage(f"'code' of websocket.close must be an int, not {type(code).__name__}")
    # RFC 6455 section 7.4: 1004, 1005, 1006 and 1015 must not be sent, the rest below 3000 is reserved.
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise UnexpectedMessage(f"'code' of websocket.close must be one that may be sent, not {int(code)}")
    reason = message.get("reason")
    if reason is None:
        reason = ""
    if not isinstance(reason, str):
        raise UnexpectedMessage(f"'reason' of websocket.close must be str, not {type(reason).__name__}")
    _utf8(reason, "'reason' of websocket.close")
    return int(code), reason

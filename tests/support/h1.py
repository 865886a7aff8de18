"""HTTP/1.1 without sockets: a strict driver with a settable clock, recording exchanges, and h11 as the oracle.

`Http1Server` holds one `Http1Connection` on a `RecordingDriver`. Tests feed it bytes, let turns of the loop pass, move
the clock, and play the exchange by calling the port. With a `Replies` it answers by itself, on a later turn, as the
bridge does.

The driver is strict: it fails the test on a write after the close, on an exchange that begins inside another, on a
timer in the past. Each of those was once a real bug of some server.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import h11

from daphne_ng.config import Config
from daphne_ng.port import RequestSink
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http1.connection import Http1Connection
from daphne_ng.wire.websocket.handshake import WebSocketRequest

NEVER = float("inf")
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"

OK_HEADERS = [(b"content-type", b"text/plain")]


class RecordingSink:
    """A `RequestSink` that keeps what it is told, and fails on what the port's contract forbids.

    With a `websocket` it is that of a handshake, which has neither a body nor a time limit here.
    """

    def __init__(self, head: RequestHead, high: float = NEVER, websocket: WebSocketRequest | None = None) -> None:
        self.head = head
        self.websocket = websocket
        self.body = b""
        self.parts: list[bytes] = []
        self.buffered = 0
        self.trailers: list[tuple[bytes, bytes]] = []
        self.ended = False
        self.reason: str | None = None
        self.expirations = 0
        self._high = high

    def body_received(self, data: bytes) -> bool:
        assert self.websocket is None, "a body of a handshake"
        assert type(data) is bytes
        assert data, "an empty part of a body"
        assert not self.ended, "body after its end"
        assert self.reason is None, "body after the disconnect"
        self.parts.append(data)
        self.body += data
        self.buffered += len(data)
        return self.buffered >= self._high

    def body_ended(self, trailers: Iterable[tuple[bytes, bytes]]) -> None:
        assert self.websocket is None, "the end of the body of a handshake"
        assert not self.ended, "the body ended twice"
        assert self.reason is None, "the body ended after the disconnect"
        self.ended = True
        self.trailers = list(trailers)

    def disconnected(self, reason: str, status: int | None = None) -> None:
        assert self.reason is None, "two disconnects"
        assert status is None or status >= 400
        assert reason
        self.reason = reason

    def expired(self) -> None:
        assert self.websocket is None, "http_timeout of a handshake"
        self.expirations += 1


class RecordingDriver:
    """Implements `Http1Driver` on lists. See `Http1Server` for how to use it."""

    def __init__(self, inbox_high: float = NEVER) -> None:
        self.now = 1000.0
        self.gone = False
        self.written: list[bytes] = []
        self.state = "open"
        """``open``, ``half`` (our direction is closed), ``closed`` (both, flushed) or ``aborted``."""
        self.reading = True
        self.soon = 0
        self.timer = NEVER
        self.sinks: list[RecordingSink] = []
        self.refusals: list[tuple[int, str]] = []
        self.missing: list[int] = []
        self.waiter: Any = None
        self.is_full = False
        self.file_takes = -1
        self.unsent = 0
        self.queued = 0  # what the kernel has taken and the client has not acknowledged
        self.drops = 0
        self.refuse: Callable[[RequestHead], None] | None = None
        self.switched = False
        self.h1: Http1Connection
        self._inbox_high = inbox_high

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data, "an empty write"
        assert not self.switched, "a write as HTTP after the switch"
        assert self.state == "open", f"a write when {self.state}"
        self.written.append(data)

    def write_sequence(self, parts: list[bytes]) -> None:
        for part in parts:
            if part:
                self.write(part)

    def when_flushed(self, report: Callable[[int], int]) -> bool:
        return False

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        sent = min(count, self.file_takes)
        if sent > 0:
            self.write(b"<%d+%d>" % (offset, sent))
        return sent

    def full(self) -> bool:
        return self.is_full

    def writable(self) -> Any:
        return self.waiter

    def clock(self) -> float:
        return self.now

    def begin(self, head: RequestHead) -> RequestSink | None:
        assert self.state == "open", f"an exchange begins when {self.state}"
        if self.refuse is not None:
            self.refuse(head)
            return None
        for earlier in self.sinks:
            assert earlier.reason is None, "an exchange begins after a disconnect"
        sink = RecordingSink(head, self._inbox_high)
        self.sinks.append(sink)
        return sink

    def begin_websocket(self, request: WebSocketRequest) -> RequestSink | None:
        assert self.state == "open", f"an exchange begins when {self.state}"
        if self.refuse is not None:
            self.refuse(request.head)
            return None
        sink = RecordingSink(request.head, websocket=request)
        self.sinks.append(sink)
        return sink

    def pause_reading(self) -> None:
        assert not self.switched
        assert self.state == "open"
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert self.state in ("open", "half")
        self.reading = True

    def begin_soon(self) -> None:
        assert self.soon == 0, "begin_soon() twice"
        self.soon += 1

    def rearm(self, deadline: float) -> None:
        assert not self.switched, "a deadline after the switch"
        assert deadline < self.timer
        assert deadline != NEVER
        self.timer = self.h1.armed_for = deadline

    def close(self) -> None:
        assert not self.switched, "a close as HTTP after the switch"
        assert self.state in ("open", "half"), f"close() when {self.state}"
        self.state = "closed"

    def finish(self) -> None:
        self.close()

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

    def peer_gone(self) -> bool:
        return self.gone

    def refused(self, status: int, detail: str, begun: bool) -> None:
        self.refusals.append((status, detail))

    def shortened(self, missing: int) -> None:
        assert missing > 0
        self.missing.append(missing)


class Replies:
    """An application for `Http1Server`: answers each request once its body has ended.

    The answer repeats what was received, so that bytes taken for the wrong request show. A WebSocket is accepted with the
    first subprotocol, unless its path is ``/denied``.
    """

    def __call__(self, server: Http1Server, sink: RecordingSink) -> None:
        head = sink.head
        if sink.websocket is not None:
            if head.path == "/denied":
                server.port.start(403, OK_HEADERS, b"denied\n", True, False)
            else:
                server.accept()
            return
        text = b"%s %s %s\n%s" % (head.method.encode(), head.target, head.http_version.encode(), sink.body)
        for name, value in sink.trailers:
            text += b"\n%s: %s" % (name, value)
        server.port.start(200, OK_HEADERS, text, True, False)


class Http1Server:
    """One connection under test.

    Args:
        reply: Called as ``reply(server, sink)`` on a turn of its own after the body of a request has ended; None to
            play the exchange by hand.
        inbox_high: Unread bytes at which sinks ask for a pause.
        settings: Fields of the `Config`.
    """

    def __init__(
        self,
        reply: Callable[[Http1Server, RecordingSink], None] | None = None,
        *,
        inbox_high: float = NEVER,
        date: bool = False,
        server_name: str = "",
        extra: tuple[tuple[bytes, bytes], ...] = (),
        **settings: Any,
    ) -> None:
        self.config = Config(**settings)
        self.defaults = ResponseDefaults(server_name, extra, date)
        if date:
            self.defaults.set_date(DATE)
        self.driver = RecordingDriver(inbox_high)
        self.h1 = self.driver.h1 = Http1Connection(self.config, self.defaults, self.driver)
        self.port = self.h1.response
        """What the exchange of the active request calls."""
        self.switched: bytes | None = None
        """What the client sent to the WebSocket, once there is one."""
        self._reply = reply
        self._answered = 0
        self.h1.opened()

    # -- playing -----------------------------------------------------------------------------------------

    def feed(self, *parts: bytes) -> Http1Server:
        """Deliver reads, with turns of the loop after each; nothing is delivered to a closed connection."""
        for part in parts:
            if self.driver.state in ("closed", "released", "aborted"):
                break
            if self.switched is None:
                self.h1.receive_data(part)
                self.turn()
            else:
                self.switched += part
        return self

    def turn(self) -> None:
        """Let the loop turn until nothing is left to do without time passing."""
        while True:
            if self.driver.soon and not self.driver.is_full:
                self.driver.soon = 0
                self.h1.begin_next()
            elif self._reply is not None and self._answered < len(self.sinks):
                sink = self.sinks[self._answered]
                if sink.reason is not None:
                    self._answered += 1
                elif sink.ended or sink.websocket is not None:
                    self._answered += 1
                    self._reply(self, sink)
                else:
                    return
            else:
                return

    def advance(self, seconds: float) -> None:
        """Let time pass; the timer fires on its way, as the real driver's does."""
        driver, h1 = self.driver, self.h1
        until = driver.now + seconds
        for _ in range(1000):
            if driver.timer > until:
                driver.now = until
                return
            driver.now = max(driver.now, driver.timer)
            driver.timer = h1.armed_for = NEVER
            h1.deadline_passed(driver.now)
            if h1.deadline < h1.armed_for:
                driver.rearm(h1.deadline)
            self.turn()
        raise AssertionError("the timer spins")

    def eof(self) -> None:
        """The client closes its half."""
        self.h1.eof_received()
        self.turn()

    def lose(self, reason: str = "the client disconnected") -> None:
        """The transport reports its end."""
        self.h1.connection_lost(reason)
        self.turn()

    def answer(self, body: bytes = b"ok", *headers: tuple[bytes, bytes], status: int = 200) -> None:
        """Answer the active request in one call."""
        self.port.start(status, list(headers), body, True, False)
        if not self.sinks[-1].ended:
            self.port.abandon()
        self.turn()

    def accept(self, *headers: tuple[bytes, bytes]) -> None:
        """Complete the active handshake, with the first subprotocol if there is any."""
        websocket = self.sink.websocket
        assert websocket is not None
        assert websocket.key is not None
        digest = hashlib.sha1(websocket.key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        fields = [(b"sec-websocket-accept", base64.b64encode(digest))]
        fields += [(b"sec-websocket-protocol", name.encode()) for name in websocket.subprotocols[:1]]
        self.switched = self.h1.switch_protocols([*fields, *headers])
        self.driver.switched = True

    # -- looking -----------------------------------------------------------------------------------------

    @property
    def sinks(self) -> list[RecordingSink]:
        """One for each exchange, in order."""
        return self.driver.sinks

    @property
    def sink(self) -> RecordingSink:
        """The latest exchange."""
        return self.driver.sinks[-1]

    @property
    def head(self) -> RequestHead:
        """Head of the latest exchange."""
        return self.sink.head

    @property
    def targets(self) -> list[bytes]:
        """Request targets that the application saw, in order."""
        return [sink.head.target for sink in self.sinks]

    @property
    def state(self) -> str:
        """See `RecordingDriver.state`."""
        return self.driver.state

    @property
    def reply(self) -> bytes:
        """Every byte written."""
        return b"".join(self.driver.written)

    def responses(self, *methods: str) -> list[Response]:
        """Parse what was written with h11. See `read_responses`."""
        given = methods or tuple(sink.head.method for sink in self.sinks)
        return read_responses(self.reply, given, closed=self.state in ("half", "closed", "released"))

    @property
    def statuses(self) -> list[int]:
        """Statuses of all responses, whatever the methods were."""
        methods = [sink.head.method for sink in self.sinks]
        return [
            response.status
            for response in read_responses(self.reply, methods, closed=self.state in ("half", "closed", "released"))
        ]


# -- the oracle ------------------------------------------------------------------------------------------


class Response:
    """What h11 read as one response."""

    def __init__(self) -> None:
        self.interim: list[int] = []
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.closes = False

    def header(self, name: bytes) -> bytes | None:
        """The only value of that name, None if there is none."""
        values = [value for field, value in self.headers if field == name]
        assert len(values) < 2, f"{name!r} is there {len(values)} times"
        return values[0] if values else None

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body!r}{'' if self.complete else ' incomplete'}>"


def read_responses(data: bytes, methods: Iterable[str], *, closed: bool) -> list[Response]:
    """Read responses as a strict client would.

    Args:
        data: What the server wrote.
        methods: Methods of the requests, in order; GET for any response beyond them.
        closed: Whether the connection ends properly after `data`; a reset does not complete a response.

    Raises:
        AssertionError: h11 finds an error, or bytes that belong to no response.
    """
    responses: list[Response] = []
    pending = iter(methods)
    while data:
        # A client of its own for each response: h11 will not send on a connection that the server announced to
        # close, while here the bytes after that announcement are what matters.
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        client.send(h11.Request(method=next(pending, "GET"), target="/", headers=[("host", "test")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        response = Response()
        responses.append(response)
        for event in _events(client, closed):
            if isinstance(event, h11.InformationalResponse):
                response.interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                response.status = event.status_code
                response.reason = bytes(event.reason)
                response.headers = [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, h11.Data):
                response.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                response.trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
                response.complete = True
        response.closes = client.their_state is h11.MUST_CLOSE or client.their_state is h11.CLOSED
        if not response.complete:
            break
        rest, _ = client.trailing_data
        assert not (rest and response.closes), f"bytes after the last response: {rest!r}"
        data = rest
    return responses


def _events(client: h11.Connection, closed: bool) -> Iterator[Any]:
    ended = False
    while True:
        try:
            event = client.next_event()
        except h11.RemoteProtocolError as error:
            if ended:
                return  # cut in the middle of a body: the response stays incomplete
            raise AssertionError(f"h11 refuses the response: {error}") from error
        if event is h11.NEED_DATA:
            if not closed or ended:
                return
            ended = True
            client.receive_data(b"")
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            return
        else:
            yield event
            if isinstance(event, h11.EndOfMessage):
                return


# -- scripts ---------------------------------------------------------------------------------------------


def request(
    target: bytes = b"/",
    *fields: bytes,
    method: bytes = b"GET",
    version: bytes = b"1.1",
    host: bytes | None = b"test",
    body: bytes = b"",
    length: bool = True,
) -> bytes:
    """Make the bytes of a request. Content-Length is added for a body unless `length` is false."""
    lines = [b"%s %s HTTP/%s" % (method, target, version)]
    if host is not None:
        lines.append(b"Host: " + host)
    lines += fields
    if body and length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def upgrade(
    target: bytes = b"/",
    *fields: bytes,
    key: bytes | None = b"dGhlIHNhbXBsZSBub25jZQ==",
    ws_version: bytes | None = b"13",
    **others: Any,
) -> bytes:
    """Make the opening handshake of a WebSocket, with the key of RFC 6455 section 1.3. See `request`."""
    lines = [b"Upgrade: websocket", b"Connection: Upgrade"]
    if key is not None:
        lines.append(b"Sec-WebSocket-Key: " + key)
    if ws_version is not None:
        lines.append(b"Sec-WebSocket-Version: " + ws_version)
    return request(target, *lines, *fields, **others)


def chunked(*parts: bytes, trailers: bytes = b"") -> bytes:
    """Make a chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"


def chunked_request(*parts: bytes, target: bytes = b"/", trailers: bytes = b"") -> bytes:
    """Make a POST with a chunked body."""
    head = request(target, b"Transfer-Encoding: chunked", method=b"POST")
    return head + chunked(*parts, trailers=trailers)


def bytewise(data: bytes) -> list[bytes]:
    """Split into single bytes."""
    return [data[index : index + 1] for index in range(len(data))]


def splits(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield every division into two non-empty parts."""
    for index in range(1, len(data)):
        yield data[:index], data[index:]

"""The built-in demo application: one page that shows a connection at work.

``daphne-ng`` serves it when no application is named. It is a plain ASGI 3 application of the standard
library alone, so it runs under any ASGI server:

=========================== =========== ==========================================================
path                        methods     what it does
=========================== =========== ==========================================================
``/``                       GET, HEAD   the page: protocol, addresses, headers, and the three below
``/clock``                  GET, HEAD   server-sent events, one a second
``/upload``                 POST, PUT   counts and hashes the body while it arrives, stores nothing
``/upload/<id>/progress``   GET, HEAD   server-sent events: what ``/upload?id=<id>`` has received so far
``/chat``                   WebSocket   broadcasts what one tab says to every tab
=========================== =========== ==========================================================

Whatever a client controls is HTML-escaped, and the Content-ServerWrappers-Policy names the one script and the
one style sheet by hash. Whatever a client can make grow has its bound in a constant below.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import html
import json
import re
import time
import urllib.parse
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from importlib import resources
from string import Template
from typing import Any, Literal

from daphne_ng import __version__
from daphne_ng._types import Message, Receive, Scope, Send

__all__ = ["Clock", "Demo", "application"]

# -- bounds ------------------------------------------------------------------------------------------------

CLOCK_TICKS = 3600
"""Ticks before ``/clock`` ends: an hour. The browser then opens a new stream."""
RETRY_MILLISECONDS = 5000
"""How long a browser waits before it opens an event stream that ended again."""

UPLOAD_ENTRIES = 100
"""Uploads whose progress can be asked for; beyond it the one idle longest is forgotten."""
UPLOAD_EXPIRES = 60.0
"""Seconds after which an idle upload is forgotten."""
UPLOAD_SLOW_RATE = 4_000_000
"""Bytes a second that ``/upload?pace=slow`` reads, to make back-pressure visible on a fast link."""
UPLOAD_LONGEST_PAUSE = 1.0
"""Seconds, at most, between two reads of a slow upload, whatever the size of a chunk."""
PROGRESS_INTERVAL = 0.1
"""Seconds between two looks at an upload."""
PROGRESS_WAITING_LOOKS = 300
"""Looks at an upload that does not begin: 30 seconds."""
PROGRESS_LOOKS = 36_000
"""Looks at any upload: an hour."""

CHAT_MEMBERS = 100
"""Open sockets; one more is refused."""
CHAT_HISTORY = 50
"""Messages that a new tab is shown."""
CHAT_OUTBOX = 256
"""Messages waiting for one socket. Above `CHAT_MEMBERS`, for each who comes or goes makes one message."""
CHAT_FRAME_LENGTH = 4096
"""Characters in a WebSocket message: room for the longest text, escaped as JSON six for one."""
CHAT_TEXT_LENGTH = 500
"""Characters in what is said."""
CHAT_NAME_LENGTH = 32
"""Characters in a name; the rest is cut off."""

# RFC 6455 section 7.4.1, and the IANA registry for 1013.
GOING_AWAY = 1001
MESSAGE_TOO_BIG = 1009
TRY_AGAIN_LATER = 1013

# -- the page ----------------------------------------------------------------------------------------------


def _resource(name: str) -> str:
    return resources.files("daphne_ng").joinpath(name).read_text("utf-8")


def _csp_hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


STYLE = _resource("demo.css")
SCRIPT = _resource("demo.js")
PAGE = Template(_resource("demo.html"))
NOT_FOUND_PAGE = Template(
    '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    "<title>Not found - daphne-ng</title>\n<style>$style</style>\n"
    '<main class="lost">\n<p class="eyebrow">404</p>\n<h1>Nothing grows here.</h1>\n'
    "<p>The demo has no <code>$path</code>.</p>\n"
    '<p><a href="$root_path/">Back to the demo</a></p>\n</main>\n</html>\n'
)

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_csp_hash(SCRIPT)}",
        f"style-src {_csp_hash(STYLE)}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

COMMON_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]

EVENT_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back otherwise
    *COMMON_HEADERS,
]

# Shown by length only: the page ends up in screenshots, and HttpOnly cookies should stay out of any document.
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def render_page(scope: Scope) -> bytes:
    """Return the page for this connection, every value from the client escaped."""
    values = {
        "protocol": protocol_name(scope),
        "scheme": scope.get("scheme", "http"),
        "client": address_text(scope.get("client")),
        "server": address_text(scope.get("server")),
        "version": __version__,
    }
    escaped = {name: html.escape(value) for name, value in values.items()}
    page = PAGE.substitute(escaped, headers=_header_rows(scope["headers"]), style=STYLE, script=SCRIPT)
    return page.encode()


def render_not_found(scope: Scope) -> bytes:
    """Return the 404 page, which repeats the path, escaped."""
    path, root_path = html.escape(scope["path"]), html.escape(scope.get("root_path", ""))
    # A percent-encoded path may decode to what UTF-8 cannot write back.
    return NOT_FOUND_PAGE.substitute(path=path, root_path=root_path, style=STYLE).encode("utf-8", "replace")


def _header_rows(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return "\n".join(_header_row(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def _header_row(name: str, value: str) -> str:
    cell = html.escape(value)
    if name.lower() in SECRET_HEADERS:
        cell = f"<em>{len(value)} bytes, not shown</em>"
    return f'<tr><th scope="row">{html.escape(name)}</th><td>{cell}</td></tr>'


def protocol_name(scope: Scope) -> str:
    """Return ``HTTP/1.1`` or ``HTTP/2`` for a scope."""
    return f"HTTP/{scope.get('http_version', '1.1')}"


def address_text(address: tuple[str, int | None] | None) -> str:
    """Return an ASGI ``client`` or ``server`` as text: ``host:port``, a socket's path, or that it is unknown."""
    if not address or not address[0]:
        return "not known"
    host, port = address
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- one exchange ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clock:
    """The time as the demo sees it; tests bring their own."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Exchange:
    """The three arguments of an ASGI call."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def head_only(self) -> bool:
        """Whether the response must have no body."""
        return bool(self.scope["method"] == "HEAD")

    @property
    def query(self) -> dict[str, str]:
        """The query string; of a repeated name the last value."""
        return dict(urllib.parse.parse_qsl(self.scope.get("query_string", b"").decode("latin-1")))

    def header(self, name: bytes) -> str | None:
        """Return the first header of this (lowercase) name."""
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key.lower() == name), None)

    async def respond(self, status: HTTPStatus, content_type: str, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Send a whole response, without its body for HEAD."""
        fields = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            *headers,
            *COMMON_HEADERS,
        ]
        await self.send({"type": "http.response.start", "status": status.value, "headers": fields})
        await self.send({"type": "http.response.body", "body": b"" if self.head_only else body})

    async def refuse(self, status: HTTPStatus, *headers: tuple[bytes, bytes]) -> None:
        """Send an error as one line of text."""
        body = f"{status.value} {status.phrase}\n".encode()
        await self.respond(status, "text/plain; charset=utf-8", body, *headers)


async def converse(
    listen: Coroutine[Any, Any, None], speak: Coroutine[Any, Any, None], stop: asyncio.Future[Any]
) -> bool:
    """Listen and speak side by side until either ends or ``stop`` is done, then cancel what is left.

    ``listen`` ends when the peer has left.

    Returns:
        Whether the peer is still there, so that the caller may finish the exchange.
    """
    listener, speaker = asyncio.ensure_future(listen), asyncio.ensure_future(speak)
    try:
        await asyncio.wait({listener, speaker, stop}, return_when=asyncio.FIRST_COMPLETED)
        present = not listener.done()
    finally:
        listener.cancel()
        speaker.cancel()
        outcomes = await asyncio.gather(listener, speaker, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, OSError):  # ASGI 2.4: what send() raises after a disconnect
            present = False
        elif isinstance(outcome, Exception):
            raise outcome
    return present


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# -- server-sent events ------------------------------------------------------------------------------------


def event(data: object, *, name: str = "message") -> bytes:
    """Return one server-sent event with ``data`` as JSON, which never holds a newline."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class EventStreams:
    """The open event streams, so that a shutdown can end them all at once."""

    def __init__(self) -> None:
        self._stops: set[asyncio.Future[None]] = set()
        self._closed = False

    def open(self) -> None:
        """Serve streams (again)."""
        self._closed = False

    def close(self) -> None:
        """End every stream, and from now on each one as soon as it has begun."""
        self._closed = True
        for stop in self._stops:
            if not stop.done():
                stop.set_result(None)

    async def serve(self, exchange: Exchange, events: AsyncGenerator[bytes, None]) -> None:
        """Answer with ``events`` until they end, the client leaves or `close` is called."""
        await exchange.send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM_HEADERS})
        present = True
        if not exchange.head_only and not self._closed:
            present = await self._run(exchange, events)
        if present:
            await exchange.send({"type": "http.response.body", "body": b""})

    async def _run(self, exchange: Exchange, events: AsyncGenerator[bytes, None]) -> bool:
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stops.add(stop)
        try:
            return await converse(_until_disconnect(exchange.receive), self._pump(exchange.send, events), stop)
        finally:
            self._stops.discard(stop)

    async def _pump(self, send: Send, events: AsyncGenerator[bytes, None]) -> None:
        await send(_part(f"retry: {RETRY_MILLISECONDS}\n\n".encode()))
        async with aclosing(events):
            async for item in events:
                await send(_part(item))


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def clock_events(clock: Clock) -> AsyncGenerator[bytes, None]:
    """Yield the time once a second, `CLOCK_TICKS` times."""
    for tick in range(1, CLOCK_TICKS + 1):
        moment = datetime.fromtimestamp(clock.now(), UTC)
        yield event({"time": moment.isoformat(timespec="milliseconds"), "tick": tick})
        await clock.sleep(1.0)


# -- uploads -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Upload:
    """What is known of one upload. The body itself is never kept."""

    state: Literal["waiting", "receiving", "complete", "aborted"] = "waiting"
    """``waiting``: somebody watches, but the upload has not begun."""
    expected: int | None = None
    """Content-Length in bytes, if there was one."""
    received: int = 0
    """Bytes that ``receive()`` has handed over."""
    chunks: int = 0
    """Messages they came in, empty ones not counted."""
    touched: float = 0.0
    """Monotonic time of the last change."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will change."""
        return self.state in ("complete", "aborted")

    def report(self) -> dict[str, str | int | None]:
        """Return what a progress event says."""
        return {"state": self.state, "bytes": self.received, "total": self.expected, "chunks": self.chunks}


class Uploads:
    """The uploads by id, idle longest first; at most `UPLOAD_ENTRIES`, each for `UPLOAD_EXPIRES` after its last change.

    An upload that is forgotten goes on; only its progress can no longer be asked for.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._entries: OrderedDict[str, Upload] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def watch(self, upload_id: str) -> Upload:
        """Return the upload of this id, which may be still to come."""
        self._expire()
        return self._entries.get(upload_id) or self._add(upload_id)

    def begin(self, upload_id: str) -> Upload | None:
        """Return the upload to count into, or None while another one of this id is running."""
        self._expire()
        upload = self._entries.get(upload_id)
        if upload is not None and upload.state == "receiving":
            return None
        if upload is None or upload.finished:
            upload = self._add(upload_id)
        upload.state = "receiving"
        return upload

    def touch(self, upload_id: str, upload: Upload) -> None:
        """Note a change, so that the upload is not forgotten yet."""
        upload.touched = self._monotonic()
        if self._entries.get(upload_id) is upload:
            self._entries.move_to_end(upload_id)

    def _add(self, upload_id: str) -> Upload:
        self._entries.pop(upload_id, None)
        while len(self._entries) >= UPLOAD_ENTRIES:
            self._entries.popitem(last=False)
        upload = self._entries[upload_id] = Upload(touched=self._monotonic())
        return upload

    def _expire(self) -> None:
        deadline = self._monotonic() - UPLOAD_EXPIRES
        while self._entries and next(iter(self._entries.values())).touched <= deadline:
            self._entries.popitem(last=False)


async def progress_events(clock: Clock, upload: Upload) -> AsyncGenerator[bytes, None]:
    """Yield a report whenever the upload has changed, and a last one named ``end``."""
    reported = None
    for look in range(PROGRESS_LOOKS):
        if upload.finished or (upload.state == "waiting" and look >= PROGRESS_WAITING_LOOKS):
            break
        report = upload.report()
        if report != reported:
            reported = report
            yield event(report, name="progress")
        await clock.sleep(PROGRESS_INTERVAL)
    yield event(upload.report(), name="end")


def _content_length(exchange: Exchange) -> int | None:
    text = exchange.header(b"content-length")
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


# -- chat --------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Member:
    """One open socket of the chat."""

    outbox: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(CHAT_OUTBOX))
    """Messages on their way to the socket."""
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when the server wants the socket closed; the result is the close code."""

    def deliver(self, text: str) -> None:
        """Queue a message. A socket too slow for that is ended; its tab comes back and reads the history."""
        try:
            self.outbox.put_nowait(text)
        except asyncio.QueueFull:
            self.end(TRY_AGAIN_LATER)

    def end(self, code: int) -> None:
        """Have the socket closed with ``code``, if it is not ending already."""
        if not self.ended.done():
            self.ended.set_result(code)


@dataclass(frozen=True, slots=True)
class Post:
    """Something said."""

    name: str
    text: str

    @classmethod
    def parse(cls, frame: str) -> Post | None:
        """Read ``{"name": ..., "text": ...}``; None if it is anything else, or the text is empty or too long."""
        try:
            data = json.loads(frame)
        except (ValueError, RecursionError):  # brackets nested a thousand deep fit into a frame
            return None
        if not isinstance(data, dict):
            return None
        name, text = data.get("name"), data.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            return None
        name, text = " ".join(name.split())[:CHAT_NAME_LENGTH], text.strip()
        return cls(name or "Anonymous", text) if 0 < len(text) <= CHAT_TEXT_LENGTH else None


class Chat:
    """The chat room: what one socket says, every socket hears."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._members: set[Member] = set()
        self._history: deque[dict[str, object]] = deque(maxlen=CHAT_HISTORY)
        self._closed = False

    def open(self) -> None:
        """Admit sockets (again)."""
        self._closed = False

    def close(self) -> None:
        """Close every socket and admit no more."""
        self._closed = True
        for member in self._members:
            member.end(GOING_AWAY)

    async def serve(self, exchange: Exchange) -> None:
        """Speak the WebSocket side of ASGI for one socket, from connect to disconnect."""
        await exchange.receive()  # websocket.connect
        if self._closed or len(self._members) >= CHAT_MEMBERS or not same_origin(exchange):
            await exchange.send({"type": "websocket.close"})
            return
        member = Member()
        self._join(member, protocol_name(exchange.scope))
        try:
            await exchange.send({"type": "websocket.accept"})
            present = await converse(self._listen(exchange, member), self._speak(exchange, member), member.ended)
        finally:
            self._leave(member)
        if present and member.ended.done():
            await exchange.send({"type": "websocket.close", "code": member.ended.result()})

    def _join(self, member: Member, protocol: str) -> None:
        self._members.add(member)
        member.deliver(json.dumps({"type": "welcome", "protocol": protocol, "history": list(self._history)}))
        self._announce()

    def _leave(self, member: Member) -> None:
        self._members.discard(member)
        self._announce()

    def _announce(self) -> None:
        self._broadcast({"type": "online", "count": len(self._members)})

    def _broadcast(self, data: dict[str, object]) -> None:
        text = json.dumps(data)  # in ASCII: a lone surrogate in what a client says stays an escape
        for member in self._members:
            member.deliver(text)

    async def _listen(self, exchange: Exchange, member: Member) -> None:
        while (message := await exchange.receive())["type"] == "websocket.receive":
            self._hear(member, message.get("text") or "", message.get("bytes") or b"")

    def _hear(self, member: Member, text: str, data: bytes) -> None:
        if max(len(text), len(data)) > CHAT_FRAME_LENGTH:
            member.end(MESSAGE_TOO_BIG)
        elif post := Post.parse(text):
            said: dict[str, object] = {"type": "message", "time": self._now(), **dataclasses.asdict(post)}
            self._history.append(said)
            self._broadcast(said)
        else:
            detail = f"A message is JSON with a name and a text of 1 to {CHAT_TEXT_LENGTH} characters."
            member.deliver(json.dumps({"type": "error", "detail": detail}))

    async def _speak(self, exchange: Exchange, member: Member) -> None:
        while True:
            await exchange.send({"type": "websocket.send", "text": await member.outbox.get()})


def same_origin(exchange: Exchange) -> bool:
    """Whether a WebSocket comes from this page's own origin, or from no browser at all.

    Browsers let any page open a socket to any host (RFC 6455 section 10.2); without this check a foreign
    page could read the chat.
    """
    origin = exchange.header(b"origin")
    if origin is None:
        return True
    return origin.partition("://")[2].lower() == (exchange.header(b"host") or "").lower()


# -- the application ---------------------------------------------------------------------------------------

Handler = Callable[[Exchange, "re.Match[str]"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A path, the methods it knows, and what answers them."""

    path: re.Pattern[str]
    methods: tuple[str, ...]
    handler: Handler


class Demo:
    """The demo as an ASGI application; one instance per process.

    Args:
        clock: Where the time comes from.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.streams = EventStreams()
        self.uploads = Uploads(self.clock.monotonic)
        self.chat = Chat(self.clock.now)
        self._routes = (
            Route(re.compile(r"/?"), ("GET", "HEAD"), self._page),
            Route(re.compile(r"/clock"), ("GET", "HEAD"), self._clock),
            Route(re.compile(r"/upload"), ("POST", "PUT"), self._upload),
            Route(re.compile(r"/upload/([\w-]{1,64})/progress", re.ASCII), ("GET", "HEAD"), self._progress),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange, or the lifespan."""
        exchange = Exchange(scope, receive, send)
        match scope["type"]:
            case "http":
                await self._http(exchange)
            case "websocket":
                await self._websocket(exchange)
            case "lifespan":
                await self._lifespan(exchange)
            case other:
                raise ValueError(f"the demo does not serve scopes of type {other!r}")

    async def _http(self, exchange: Exchange) -> None:
        path = _path_in_application(exchange.scope)
        for route in self._routes:
            if found := route.path.fullmatch(path):
                if exchange.scope["method"] in route.methods:
                    await route.handler(exchange, found)
                else:
                    allow = ", ".join(route.methods).encode()
                    await exchange.refuse(HTTPStatus.METHOD_NOT_ALLOWED, (b"allow", allow))
                return
        await exchange.respond(HTTPStatus.NOT_FOUND, "text/html; charset=utf-8", render_not_found(exchange.scope))

    async def _websocket(self, exchange: Exchange) -> None:
        if _path_in_application(exchange.scope) == "/chat":
            await self.chat.serve(exchange)
        else:
            await exchange.receive()
            await exchange.send({"type": "websocket.close"})

    async def _lifespan(self, exchange: Exchange) -> None:
        await exchange.receive()
        self.streams.open()
        self.chat.open()
        await exchange.send({"type": "lifespan.startup.complete"})
        await exchange.receive()
        self.streams.close()
        self.chat.close()
        await exchange.send({"type": "lifespan.shutdown.complete"})

    async def _page(self, exchange: Exchange, _: re.Match[str]) -> None:
        await exchange.respond(HTTPStatus.OK, "text/html; charset=utf-8", render_page(exchange.scope))

    async def _clock(self, exchange: Exchange, _: re.Match[str]) -> None:
        await self.streams.serve(exchange, clock_events(self.clock))

    async def _progress(self, exchange: Exchange, found: re.Match[str]) -> None:
        upload = Upload() if exchange.head_only else self.uploads.watch(found[1])
        await self.streams.serve(exchange, progress_events(self.clock, upload))

    async def _upload(self, exchange: Exchange, _: re.Match[str]) -> None:
        upload_id = exchange.query.get("id", "")
        if not re.fullmatch(r"[\w-]{0,64}", upload_id, re.ASCII):
            await exchange.refuse(HTTPStatus.BAD_REQUEST)
            return
        # Without an id nobody can ask for the progress, so nothing is remembered.
        upload = self.uploads.begin(upload_id) if upload_id else Upload("receiving")
        if upload is None:
            await exchange.refuse(HTTPStatus.CONFLICT)
            return
        try:
            result = await self._count(exchange, upload_id, upload)
        finally:
            upload.state = "aborted" if upload.state == "receiving" else upload.state
        if result is not None:
            await exchange.respond(HTTPStatus.OK, "application/json", json.dumps(result).encode() + b"\n")

    # Reads the body to its end; None if the client left before.
    async def _count(self, exchange: Exchange, upload_id: str, upload: Upload) -> dict[str, str | int | float] | None:
        digest = hashlib.sha256()
        started = self.clock.monotonic()
        slow = exchange.query.get("pace") == "slow"
        upload.expected = _content_length(exchange)
        while (message := await exchange.receive())["type"] == "http.request":
            body = message.get("body", b"")
            digest.update(body)
            upload.received += len(body)
            upload.chunks += bool(body)
            self.uploads.touch(upload_id, upload)
            if not message.get("more_body", False):
                upload.state = "complete"
                seconds = round(self.clock.monotonic() - started, 3)
                return {
                    "bytes": upload.received,
                    "sha256": digest.hexdigest(),
                    "chunks": upload.chunks,
                    "seconds": seconds,
                }
            if slow:
                await self._hold_back(upload.received / UPLOAD_SLOW_RATE - (self.clock.monotonic() - started))
        return None

    async def _hold_back(self, seconds: float) -> None:
        if seconds > 0:
            await self.clock.sleep(min(seconds, UPLOAD_LONGEST_PAUSE))


def _path_in_application(scope: Scope) -> str:
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root_path) if path.startswith(f"{root_path}/") or path == root_path else path


application = Demo()
"""What ``daphne-ng daphne_ng.demo:application`` serves."""

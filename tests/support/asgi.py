"""What the tests of the bridge and the server share: virtual time, a strict port, clients that check what they read.

* `on_loop` runs an ``async def`` test on a loop whose clock jumps to the next timer instead of waiting for it. A
  loop on which nothing can ever happen again raises, where a real one would hang.
* `StrictPort` is a `ResponsePort` that fails the test on any call out of the port's order (see ``daphne_ng.port``);
  that is how Early Hints sent after the head were found. `StrictWebSocketPort` is the same for a `WebSocketPort`.
* `Bridge` holds a `Runner` and starts exchanges, with no socket and no protocol.
* `serving` and `Client` are the same for tests on real sockets; the client parses every answer with h11.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

import h11
import pytest

from daphne_ng.asgi.http import HttpExchange
from daphne_ng.asgi.runner import Runner
from daphne_ng.asgi.scope import http_scope, websocket_scope
from daphne_ng.asgi.websocket import WebSocketExchange
from daphne_ng.config import Config
from daphne_ng.errors import BodyLengthMismatch, InvalidHeader
from daphne_ng.net.reactor import new_event_loop
from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.server import Server

Fields = Iterable[tuple[bytes, bytes]]

LOG = logging.getLogger("tests.bridge")

START = {"type": "http.response.start", "status": 200, "headers": []}


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    """Make an ``http.response.start``."""
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes = b"", more: bool = False) -> dict[str, Any]:
    """Make an ``http.response.body``."""
    return {"type": "http.response.body", "body": data, "more_body": more}


# -- virtual time ----------------------------------------------------------------------------------------


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that never waits: with nothing to do, its clock jumps to the next timer."""

    def __init__(self) -> None:
        self._now = 1000.0
        super().__init__(selectors.SelectSelector())

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and not self._stopping:  # type: ignore[attr-defined]
            due = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
            if not due:
                raise RuntimeError("nothing can ever happen again on this loop")
            self._now = max(self._now, min(due))
        super()._run_once()  # type: ignore[misc]


def run_virtual(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in virtual time. A task left behind fails the test."""
    loop = VirtualTimeLoop()
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: problems.append(context))
    try:
        result = loop.run_until_complete(coroutine)
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        assert not left, f"tasks left running: {left}"
    finally:
        loop.close()
    assert not problems, problems
    return result


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an ordinary test of an ``async def`` one, in virtual time."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        run_virtual(test(*args, **kwargs))

    return wrapper


async def settle(turns: int = 20) -> None:
    """Let every task go as far as it can without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)


# -- the port --------------------------------------------------------------------------------------------


class StrictPort:
    """Records the calls of an exchange, and fails those that the port's contract forbids."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.body_bytes_sent = 0
        self.state = "open"
        self.unflushed = False
        self.report: Callable[[int], int] | None = None
        self.file_takes: int | None = None
        self._length: int | None = None
        self._trailers_due = False
        self._abandoned = False
        self._blocked = False
        self._waiters: list[asyncio.Future[None]] = []

    # What the exchange calls.

    def start(self, status: int, headers: Fields, body: bytes, end: bool, trailers: bool) -> None:
        self._expect("open", "start")
        assert 200 <= status <= 999
        assert type(body) is bytes
        assert not (end and trailers)
        fields = _checked(headers)
        self._length = next((int(value) for name, value in fields if name.lower() == b"content-length"), None)
        self.state = "started"
        self._trailers_due = trailers
        self.calls.append(("start", status, fields, body, end, trailers))
        self._count(body, end)

    def body(self, data: bytes, end: bool) -> None:
        self._expect("started", "body")
        assert type(data) is bytes
        self.calls.append(("body", data, end))
        self._count(data, end)

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        self._expect("started", "send_file")
        assert count > 0
        assert not self._blocked, "send_file() while writable() says that there is no room"
        if self.file_takes is None:
            return -1
        sent = min(count, self.file_takes)
        if not sent:
            self.block()
            return 0
        data = os.pread(descriptor, sent, offset)
        if not data:
            return -1
        self.calls.append(("file", offset, len(data)))
        self.body_bytes_sent += len(data)
        return len(data)

    def trailers(self, headers: Fields) -> None:
        self._expect("started", "trailers")
        assert self._trailers_due, "trailers() without trailers=True in start()"
        self.calls.append(("trailers", _checked(headers)))
        self.state = "ended"

    def informational(self, status: int, headers: Fields) -> None:
        self._expect("open", "informational")
        assert 100 <= status < 200 and status != 101
        self.calls.append(("informational", status, _checked(headers)))

    def reset(self, reason: str) -> None:
        assert self.state in ("open", "started"), f"reset() when {self.state}"
        assert reason
        self.state = "reset"
        self.calls.append(("reset", reason))

    def break_off(self) -> None:
        self.state = "broken off"
        self.calls.append(("break_off",))

    def consumed(self, count: int) -> None:
        assert self.state in ("open", "started"), f"consumed() when {self.state}"
        assert count > 0
        self.calls.append(("consumed", count))

    def abandon(self) -> None:
        assert self.state == "ended", f"abandon() when {self.state}"
        assert not self._abandoned, "abandon() twice"
        self._abandoned = True
        self.calls.append(("abandon",))

    def when_flushed(self, report: Callable[[int], int]) -> bool:
        if not self.unflushed:
            return False
        self.report = report
        return True

    def writable(self) -> Awaitable[object] | None:
        assert self.state in ("open", "started"), f"writable() when {self.state}"
        if not self._blocked:
            return None
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    # What a test does to it.

    def block(self) -> None:
        """The client does not read."""
        self._blocked = True

    def gone(self) -> None:
        """The exchange is over for the wire, as when the client left: every further call is a mistake."""
        if self.state in ("open", "started"):
            self.state = "gone"

    def unblock(self) -> None:
        """The client reads again, or is gone."""
        self._blocked = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return sum(not waiter.done() for waiter in self._waiters)

    @property
    def names(self) -> list[str]:
        """Names of the calls, in order."""
        return [call[0] for call in self.calls]

    @property
    def status(self) -> int | None:
        """Status of the response, None before it started."""
        return next((call[1] for call in self.calls if call[0] == "start"), None)

    @property
    def sent(self) -> bytes:
        """The body sent."""
        parts = {"start": 3, "body": 1}
        return b"".join(call[parts[call[0]]] for call in self.calls if call[0] in parts)

    def _expect(self, state: str, call: str) -> None:
        assert self.state == state, f"{call}() when {self.state}"

    def _count(self, data: bytes, end: bool) -> None:
        self.body_bytes_sent += len(data)
        if self._length is not None and self.body_bytes_sent > self._length:
            self.body_bytes_sent = self._length
            self.state = "ended"
            raise BodyLengthMismatch("too long")
        if end:
            assert not self._trailers_due, "end=True where trailers() is to end the response"
            self.state = "ended"


class StrictWebSocketPort:
    """The same for a WebSocket; plays the part of the protocol too, where a test wants one."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.response = StrictPort()
        self.bytes_received = 0
        self.bytes_sent = 0
        self.state = "connecting"
        self.paused = False
        self._blocked = False
        self._waiters: list[asyncio.Future[None]] = []

    # What the exchange calls.

    def accept(self, subprotocol: str | None, headers: Fields) -> None:
        self._expect("connecting", "accept")
        assert self.response.state == "open", f"accept() with the response {self.response.state}"
        assert subprotocol is None or (type(subprotocol) is str and subprotocol)
        self.calls.append(("accept", subprotocol, _checked(headers)))
        self.state = "open"
        self.response.state = "out of reach after accept"

    def message(self, payload: bytes, text: bool) -> None:
        self._expect("open", "message")
        assert type(payload) is bytes
        assert not self._blocked, "message() although there is no room"
        if text:
            payload.decode()
        self.bytes_sent += len(payload)
        self.calls.append(("message", payload, text))

    def close(self, code: int, reason: str) -> None:
        self._expect("open", "close")
        assert type(code) is int
        assert 1000 <= code <= 4999 and code not in (1004, 1005, 1006, 1015)
        assert type(reason) is str
        self.calls.append(("close", code, reason))
        self.state = "closed"
        self.unblock()

    def consumed(self) -> None:
        self._expect("open", "consumed")
        assert self.paused, "consumed() although no pause was asked for"
        self.paused = False
        self.calls.append(("consumed",))

    def writable(self) -> Awaitable[object] | None:
        self._expect("open", "writable")
        if not self._blocked:
            return None
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    # What a test does to it.

    def deliver(self, exchange: WebSocketExchange, message: bytes | str) -> bool:
        """Hand a message over, as a protocol does. True if reading is paused now."""
        assert self.state == "open"
        assert not self.paused, "the protocol does not read while it is paused"
        size = len(message.encode() if isinstance(message, str) else message)
        self.bytes_received += size
        self.paused = exchange.message_received(message, size)
        return self.paused

    def leave(self, exchange: WebSocketExchange, code: int = 1006, reason: str = "") -> None:
        """The WebSocket is over for the wire: every further call is a mistake."""
        assert self.state in ("connecting", "open")
        assert self.response.state != "ended"
        self.state = "gone"
        self.response.gone()
        exchange.closed(code, reason)
        self.unblock()
        self.response.unblock()

    def block(self) -> None:
        """The client does not read."""
        self._blocked = True

    def unblock(self) -> None:
        """The client reads again, or is gone."""
        self._blocked = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return sum(not waiter.done() for waiter in self._waiters)

    @property
    def names(self) -> list[str]:
        """Names of the calls, in order."""
        return [call[0] for call in self.calls]

    @property
    def sent(self) -> list[bytes | str]:
        """The messages sent."""
        return [call[1].decode() if call[2] else call[1] for call in self.calls if call[0] == "message"]

    def _expect(self, state: str, call: str) -> None:
        assert self.state == state, f"{call}() when {self.state}"


def _checked(headers: Fields) -> list[tuple[bytes, bytes]]:
    fields = []
    for pair in headers:
        try:
            name, value = pair
        except (TypeError, ValueError):
            raise InvalidHeader("not a pair") from None
        if not isinstance(name, bytes) or not isinstance(value, bytes) or b"\n" in name + value:
            raise InvalidHeader("bad field")
        fields.append((name, value))
    return fields


# -- the bridge ------------------------------------------------------------------------------------------


def request_head(method: str = "GET", path: str = "/", *, content_length: int = 0, **more: Any) -> RequestHead:
    """Make a head; `content_length` is -1 for a body of unknown length."""
    head = RequestHead()
    head.method = method
    head.path = path
    head.raw_path = head.target = path.encode("latin-1", "replace")
    head.query_string = b""
    head.headers = [(b"host", b"test")]
    head.http_version = "1.1"
    head.keep_alive = True
    head.content_length = content_length
    head.chunked = content_length < 0
    head.expects_continue = False
    head.accepts_trailers = False
    head.root_path = None
    head.upgrade = None
    for name, value in more.items():
        setattr(head, name, value)
    return head


def connection(**more: Any) -> ConnectionInfo:
    """Make what the requests of a connection share."""
    given: dict[str, Any] = {
        "scheme": "http", "client": ["192.0.2.1", 5000], "server": ["192.0.2.2", 80], "trusted": False,
        "extensions": {"http.response.trailers": {}},
    }  # fmt: skip
    return ConnectionInfo(**{**given, **more})


class Bridge:
    """A runner, and exchanges on strict ports.

    Args:
        application: What runs.
        settings: Fields of the `Config`.
    """

    def __init__(self, application: Callable[..., Any], **settings: Any) -> None:
        self.runner = Runner(application, Config(**settings), asyncio.get_running_loop(), LOG)
        self.records: list[tuple[HttpExchange, int | None, int]] = []
        self.runner.record = lambda exchange: self.records.append((exchange, exchange.status, exchange.body_bytes_sent))
        self.actions: list[str] = []
        self.runner.record_websocket = lambda exchange, action: self.actions.append(action)

    def begin_websocket(
        self, *subprotocols: str, head: RequestHead | None = None, start: bool = True
    ) -> tuple[WebSocketExchange, StrictWebSocketPort]:
        """Make an exchange for a WebSocket, and start it."""
        head = head or request_head()
        info = connection()
        port = StrictWebSocketPort()
        scope = websocket_scope(head, info, "", self.runner.state, subprotocols)
        exchange = WebSocketExchange(self.runner, head, info, port, scope, subprotocols)
        if start:
            self.runner.start(exchange)
        return exchange, port

    def begin(self, head: RequestHead | None = None) -> tuple[HttpExchange, StrictPort]:
        """Start an exchange."""
        head = head or request_head()
        info = connection()
        port = StrictPort()
        exchange = HttpExchange(self.runner, head, info, port, http_scope(head, info, "", self.runner.state))
        self.runner.start(exchange)
        return exchange, port

    async def serve(self, head: RequestHead | None = None, *parts: bytes) -> StrictPort:
        """Run one exchange, with its request body, to the end of its application."""
        exchange, port = self.begin(head)
        for part in parts:
            exchange.body_received(part)
        if parts:
            exchange.body_ended(())
        task = exchange.task
        assert task is not None
        await task
        assert not self.runner.exchanges
        return port


# -- real sockets ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(
    application: Callable[..., Any],
    endpoint: str = "tcp:0:interface=127.0.0.1",
    server_class: type[Server] = Server,
    **more: Any,
) -> AsyncIterator[Server]:
    """Serve on the running loop. Settings go into a `Config`, names of `Server` to its constructor."""
    keywords = {name: more.pop(name) for name in list(more) if name in _SERVER_KEYWORDS}
    server = server_class(application, [endpoint], config=Config(**more), **keywords)
    async with server:
        yield server


_SERVER_KEYWORDS = ("action_logger", "ready_callable", "http_timeout", "application_close_timeout", "root_path")


class Response:
    """One final response, and the interim ones before it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] = []
        self.interim: list[int] = []
        self.complete = False

    def header(self, name: bytes) -> bytes | None:
        """Value of the first field of that name."""
        return next((value for field, value in self.headers if field.lower() == name), None)


class Client:
    """A raw HTTP/1.1 client connection whose answers are parsed by h11, which is strict."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._oracle = h11.Connection(h11.CLIENT)

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, server: Server, **more: Any) -> AsyncIterator[Client]:
        """Connect to a server's first TCP endpoint."""
        reader, writer = await asyncio.open_connection(*server.listening_addresses[0], **more)
        client = cls(reader, writer)
        try:
            yield client
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.writer.write(data)

    async def get(
        self, path: str = "/", *fields: str, method: str = "GET", payload: bytes = b"", version: str = "1.1"
    ) -> Response:
        """Send a request and read its answer."""
        lines = [f"{method} {path} HTTP/{version}", "Host: test", *fields]
        if payload:
            lines.append(f"Content-Length: {len(payload)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + payload)
        return await self.response(method)

    async def response(self, method: str = "GET") -> Response:
        """Read one response."""
        oracle = self._oracle
        if oracle.our_state is h11.DONE and oracle.their_state is h11.DONE:
            oracle.start_next_cycle()
        if oracle.our_state is h11.IDLE:
            oracle.send(h11.Request(method=method, target="/", headers=[("host", "test")]))
            oracle.send(h11.EndOfMessage())
        response = Response()
        while True:
            event = oracle.next_event()
            if event is h11.NEED_DATA:
                oracle.receive_data(await self.reader.read(65536))
            elif isinstance(event, h11.InformationalResponse):
                response.interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                response.status = event.status_code
                response.headers = list(event.headers)
            elif isinstance(event, h11.Data):
                response.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                response.trailers = list(event.headers)
                response.complete = True
                return response
            else:
                raise AssertionError(f"the server sent {event!r}")

    async def closed(self, timeout: float = 20.0) -> bytes:
        """Wait for the server to close; return what it sent until then."""
        async with asyncio.timeout(timeout):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


def own_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return what the application has put into the state of the lifespan; the server's notice must be there too."""
    assert "server_stopping" in state
    return {key: value for key, value in state.items() if key != "server_stopping"}


def on_sockets(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make two tests of an ``async def`` one: on uvloop and on asyncio's loop, with real time and a bound on it."""

    @functools.wraps(test)
    def wrapper(*args: Any, loop_kind: str, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await test(*args, **kwargs)
            current = asyncio.current_task()
            left = [task for task in asyncio.all_tasks() if task is not current]
            assert not left, f"tasks left running: {left}"

        factory = new_event_loop if loop_kind == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())

    signature = inspect.signature(test)
    kind = inspect.Parameter("loop_kind", inspect.Parameter.KEYWORD_ONLY)
    shown: Any = wrapper
    shown.__signature__ = signature.replace(parameters=[*signature.parameters.values(), kind])
    return pytest.mark.parametrize("loop_kind", ["uvloop", "asyncio"])(wrapper)

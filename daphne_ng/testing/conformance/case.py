"""What a check works with: clients on the right carrier, scripts for the application, and its notes."""

from __future__ import annotations

import contextlib
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from daphne_ng.testing.conformance import probe
from daphne_ng.testing.conformance.core import HTTP1, HTTP2, TLS, WEBSOCKET, WEBSOCKET2, Failed, Skipped
from daphne_ng.testing.conformance.exchange import Broken, Exchange, Fields, Response
from daphne_ng.testing.conformance.http1 import Http1Exchange
from daphne_ng.testing.conformance.http2 import Http2Connection
from daphne_ng.testing.conformance.servers import APPLICATION, Address, Launcher, Running
from daphne_ng.testing.conformance.websocket import WebSocketClient

Note = dict[str, Any]
Steps = list[Any]

OK: Steps = [
    ("send", {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}),
    ("send", {"type": "http.response.body", "body": b"ok"}),
]
"""A response that is right."""

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
"""A start without a length."""

ACCEPT: Steps = [("receive",), ("send", {"type": "websocket.accept"})]
"""The beginning of a WebSocket."""


class Limits:
    """How long a check waits.

    Args:
        answer: Seconds for what has to come.
        quiet: Seconds after which nothing is taken to have come.
    """

    def __init__(self, answer: float = 5.0, quiet: float = 0.3) -> None:
        self.answer = answer
        self.quiet = quiet


class Play:
    """One call of the application under test, seen from outside.

    Args:
        directory: Of the server.
        name: In the path of the request.
        limits: How long to wait for notes.
    """

    def __init__(self, directory: Path, name: str, limits: Limits) -> None:
        self._file = directory / name
        self._limits = limits
        self.name = name

    @property
    def target(self) -> bytes:
        """A path that leads to it."""
        return b"/" + self.name.encode()

    def tell(self, event: str) -> None:
        """Let a step ``("wait", event)`` end."""
        self._file.with_name(f"{self.name}.{event}").touch()

    def notes(self, kind: str | None = None) -> list[Note]:
        """Return what was noted so far."""
        return read_notes(self._file.with_name(f"{self.name}.notes"), kind)

    def wait(self, kind: str, count: int = 1, seconds: float | None = None) -> list[Note]:
        """Wait for notes of a kind.

        Raises:
            Failed: There are not so many in time.
        """
        seconds = self._limits.answer if seconds is None else seconds
        deadline = time.monotonic() + seconds
        while len(found := self.notes(kind)) < count:
            if time.monotonic() > deadline:
                others = [self._brief(note) for note in self.notes()]
                raise Failed(
                    f"no note {kind!r} of the application within {seconds:g} s, but {', '.join(others)[-400:]}"
                )
            time.sleep(0.005)
        return found

    def _brief(self, note: Note) -> str:
        detail = note.get("type") or (note.get("message") or {}).get("type") or note.get("names", [""])[0]
        if note["kind"] == "end" and note["raised"]:
            detail = f"by {note['raised'][0]}"
        return f"{note['kind']} {detail}".strip()

    def scope(self) -> dict[str, Any]:
        """Wait for the scope."""
        found: dict[str, Any] = self.wait("scope")[0]["scope"]
        return found

    def need_version(self, minor: int) -> None:
        """Go on only if the server says that it knows version 2.`minor` of the HTTP and WebSocket text.

        Raises:
            Skipped: It knows an older one.
        """
        version = str(self.scope()["asgi"].get("spec_version") or "2.0")
        _, _, found = version.partition(".")
        if found.isdigit() and int(found) < minor:
            raise Skipped(f"since 2.{minor}, and the server says that it knows {version}")

    def end(self) -> Note:
        """Wait for the end of the application."""
        return self.wait("end")[0]

    def message(self, kind: str, note: str = "received") -> dict[str, Any]:
        """Wait for a message of a type that the application received.

        Raises:
            Failed: It did not, in time.
        """
        deadline = time.monotonic() + self._limits.answer
        while True:
            for found in self.notes(note):
                message = found["message"]
                if isinstance(message, dict) and message.get("type") == kind:
                    return message
            if time.monotonic() > deadline:
                others = [self._brief(found) for found in self.notes()]
                raise Failed(f"no {kind} within {self._limits.answer:g} s, but {', '.join(others)[-400:]}")
            time.sleep(0.005)


def read_notes(file: Path, kind: str | None = None) -> list[Note]:
    """Return the notes in a file, of one kind or all; a line that is half written is left out."""
    try:
        *lines, _ = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    notes: list[Note] = [probe.load(line.decode()) for line in lines]
    return [note for note in notes if kind is None or note["kind"] == kind]


class Case:
    """One check on one carrier of one server.

    Args:
        address: Where the server listens.
        directory: Where its application looks for scripts.
        carrier: One of `daphne_ng.testing.conformance.core.CARRIERS`.
        limits: How long to wait.
        launcher: For checks that start servers of their own; None if that cannot be.
        running: The process, for checks that read its output.
    """

    def __init__(
        self,
        address: Address,
        directory: Path,
        carrier: str,
        limits: Limits,
        launcher: Launcher | None = None,
        running: Running | None = None,
    ) -> None:
        self.address = address
        self.directory = directory
        self.carrier = carrier
        self.limits = limits
        self.launcher = launcher
        self.running = running
        self._open: list[Callable[[], None]] = []

    @property
    def is_http2(self) -> bool:
        """Whether the carrier is HTTP/2, or a WebSocket on it."""
        return self.carrier in (HTTP2, WEBSOCKET2)

    @property
    def is_websocket(self) -> bool:
        """Whether the carrier is a WebSocket."""
        return self.carrier in (WEBSOCKET, WEBSOCKET2)

    @property
    def is_tls(self) -> bool:
        """Whether the connections are encrypted."""
        return self.address.site == TLS

    def close(self) -> None:
        """Close every connection that is open."""
        while self._open:
            with contextlib.suppress(OSError):
                self._open.pop()()

    # -- the application -----------------------------------------------------------------------------------------

    def play(self, *steps: Any) -> Play:
        """Write a script for one request."""
        name = "probe" + uuid.uuid4().hex[:12]
        (self.directory / f"{name}.script").write_text(probe.dump(list(steps)), "utf-8")
        return Play(self.directory, name, self.limits)

    # -- clients -------------------------------------------------------------------------------------------------

    def http1(self, *, known: bool = False) -> Http1Exchange:
        """Connect for HTTP/1.1."""
        connection = self.address.connect(self.limits.answer, known=known)
        exchange = Http1Exchange(connection, self.address.authority)
        self._open.append(exchange.close)
        return exchange

    def http2(self) -> Http2Connection:
        """Connect for HTTP/2, over TLS by ALPN and else with prior knowledge.

        Raises:
            Skipped: The server does not speak it.
        """
        connection = self.address.connect(self.limits.answer, ("h2",))
        self._open.append(connection.close)
        if isinstance(connection, ssl.SSLSocket) and connection.selected_alpn_protocol() != "h2":
            raise Skipped("the server does not speak HTTP/2")
        client = Http2Connection(connection, self.address.authority, b"https" if self.is_tls else b"http")
        try:
            client.settle(self.limits.answer)
        except Broken as error:
            raise Skipped("the server does not speak HTTP/2") from error
        return client

    def exchange(self) -> Exchange:
        """Connect for one request on the carrier."""
        return self.http2().stream() if self.is_http2 else self.http1()

    def websocket(self, target: bytes, headers: Fields = ()) -> WebSocketClient:
        """Ask for a WebSocket on the carrier, and do not wait for the answer."""
        if not self.is_http2:
            return WebSocketClient.on_socket(self.http1(), target, headers)
        return WebSocketClient.on_connection(self.http2(), target, headers)

    # -- what most checks do -----------------------------------------------------------------------------------

    def ask(
        self,
        *steps: Any,
        method: str = "GET",
        more: str = "",
        headers: Fields = (),
        body: bytes = b"",
    ) -> tuple[Response, Play]:
        """Send one request and read its whole response.

        Args:
            steps: The script.
            method: Of the request.
            more: Behind the path that leads to the script.
            headers: Beside Host.
            body: Of the request.

        Raises:
            Failed: There was no whole response.
        """
        play = self.play(*steps)
        exchange = self.exchange()
        exchange.request(method, play.target + more.encode(), headers, body)
        return self.whole(exchange), play

    def whole(self, exchange: Exchange) -> Response:
        """Read the whole response.

        Raises:
            Failed: There was none.
        """
        response = self.read(exchange)
        if not response.complete:
            raise Failed(f"the response was cut after {len(response.body)} bytes")
        return response

    def read(self, exchange: Exchange) -> Response:
        """Read the response to its end, whole or not.

        Raises:
            Failed: There was none, or no end.
        """
        try:
            return exchange.read_all(self.limits.answer)
        except Broken as error:
            raise Failed(str(error)) from error
        except TimeoutError:
            got = f"status {exchange.response.status}, {len(exchange.response.body)} bytes of body"
            raise Failed(f"no end of the response within {self.limits.answer:g} s; {got}") from None

    def nothing_behind(self, exchange: Exchange) -> None:
        """Wait a while for what must not come behind a response; the end of the connection may.

        Raises:
            Failed: There is more.
        """
        before = len(exchange.response.body)
        exchange.quiet(self.limits.quiet)
        if isinstance(exchange, Http1Exchange):
            more = bytes(exchange.wire.buffer)
        else:
            more = bytes(exchange.response.body[before:])
        if more:
            raise Failed(f"behind the response comes {more[:40]!r}")

    def open_websocket(self, *steps: Any, more: str = "", headers: Fields = ()) -> tuple[WebSocketClient, Play]:
        """Open a WebSocket whose application accepts and then plays these steps.

        Raises:
            Failed: The handshake was refused.
        """
        play = self.play(*ACCEPT, *steps)
        client = self.websocket(play.target + more.encode(), headers)
        self.shake_hands(client)
        if not client.opened:
            raise Failed(f"status {client.response.status} for a WebSocket that the application accepts")
        return client, play

    def shake_hands(self, client: WebSocketClient) -> Response:
        """Wait for the answer to the handshake.

        Raises:
            Failed: There was none.
        """
        try:
            return client.handshake(self.limits.answer)
        except Broken as error:
            raise Failed(str(error)) from error
        except TimeoutError:
            raise Failed(f"no answer to the handshake within {self.limits.answer:g} s") from None

    def scope(self, *, more: str = "", headers: Fields = (), method: str = "GET") -> dict[str, Any]:
        """Return the scope of a request or WebSocket."""
        return self.visit(more=more, headers=headers, method=method).scope()

    def visit(self, *, more: str = "", headers: Fields = (), method: str = "GET") -> Play:
        """Send a request, or open a WebSocket and close it."""
        if not self.is_websocket:
            return self.ask(*OK, more=more, headers=headers, method=method)[1]
        client, play = self.open_websocket(more=more, headers=headers)
        client.close()
        return play

    @contextlib.contextmanager
    def server(
        self, script: Steps | None = None, application: str = APPLICATION, *, ready: bool = True
    ) -> Iterator[Running]:
        """Start a server of its own with a script for the lifespan.

        Raises:
            Skipped: There is no command line to start one.
        """
        if self.launcher is None:
            raise Skipped("no command line starts this server")
        running = self.launcher.launch(script, application)
        try:
            if ready:
                running.wait_ready(self.launcher.start_seconds)
            yield running
        finally:
            running.end(self.launcher.stop_seconds)

    def on(self, running: Running, carrier: str = HTTP1) -> Case:
        """Return a case for another server; it is closed with this one."""
        case = Case(running.address, running.directory, carrier, self.limits, self.launcher, running)
        self._open.append(case.close)
        return case


def lifespan_notes(directory: Path, kind: str | None = None) -> list[Note]:
    """Return the notes of every lifespan of a server, by its directory."""
    files = sorted(directory.glob("lifespan*.notes"))
    return [note for file in files for note in read_notes(file, kind)]


def long(value: bytes | str) -> Any:
    """Return what the notes have in place of a long value."""
    return probe.plain(value)

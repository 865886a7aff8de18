"""Every `ResponsePort` under the contract suite, each behind the same small harness.

To put another protocol under the contract, add its harness to `WIRES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daphne_ng.port import ResponsePort
from tests.support import h2 as http2
from tests.support.asgi import StrictPort
from tests.support.h1 import Http1Server, RecordingSink, request
from tests.support.h2 import HELD


class Seen:
    """A response as the client reads it."""

    def __init__(self, **fields: Any) -> None:
        self.interim: list[int] = fields.get("interim", [])
        self.status: int | None = fields.get("status")
        self.headers: list[tuple[bytes, bytes]] = fields.get("headers", [])
        self.body: bytes = fields.get("body", b"")
        self.complete: bool = fields.get("complete", False)


class Http1Harness:
    """A request on an HTTP/1 connection.

    Args:
        version: Of the request.
        length: Content-Length of the request, 0 for a request without a body.
        settings: Fields of the `Config`.
    """

    version = b"1.1"

    def __init__(self, length: int = 0, **settings: Any) -> None:
        fields = [b"TE: trailers", b"Connection: keep-alive"]
        if length:
            fields.append(b"Content-Length: %d" % length)
        self.server = Http1Server(inbox_high=100, http1_early_hints=True, **settings)
        self.server.feed(request(b"/", *fields, method=b"POST", version=self.version))
        self.port: ResponsePort = self.server.port
        self.interim_possible = self.version != b"1.0"

    @property
    def sink(self) -> RecordingSink:
        return self.server.sinks[0]

    def deliver(self, body: bytes) -> None:
        """The client sends a part of its body."""
        self.server.feed(body)

    def leave(self) -> None:
        """The client goes away."""
        self.server.lose()

    def break_protocol(self) -> None:
        """The client sends, behind this request, what is none."""
        self.server.feed(b"\0\0\0\0")

    def wait(self, seconds: float) -> None:
        self.server.advance(seconds)

    @property
    def reading(self) -> bool:
        return self.server.driver.reading

    def seen(self) -> Seen:
        responses = self.server.responses("POST")
        if not responses:
            return Seen()
        (response,) = responses
        complete = response.complete and self.server.state != "aborted"
        return Seen(
            interim=response.interim,
            status=response.status,
            headers=response.headers,
            body=response.body,
            complete=complete,
        )


class Http10Harness(Http1Harness):
    """The same on HTTP/1.0, where a streamed body ends with the connection."""

    version = b"1.0"


class Http2Harness:
    """A request on a stream of an HTTP/2 connection."""

    interim_possible = True

    def __init__(self, length: int = 0, **settings: Any) -> None:
        self.server = http2.Http2Server(inbox_high=100, **settings)
        fields = [(b"te", b"trailers")]
        if length:
            fields.append((b"content-length", b"%d" % length))
        self._left = length
        self._stream = self.server.request(b"POST", b"/", *fields, end=not length)
        self.port: ResponsePort = self.server.stream

    @property
    def sink(self) -> RecordingSink:
        return self.server.sinks[0]

    def deliver(self, body: bytes) -> None:
        """The client sends a part of its body."""
        self._left -= len(body)
        self.server.send(self._stream, body, end=not self._left)

    def leave(self) -> None:
        """The client goes away."""
        self.server.lose()

    def break_protocol(self) -> None:
        """The client sends, behind this request, what is none."""
        self.server.feed(http2.headers(self._stream + 2, [(b":method", b"GET"), (b"x", b"no path")]))

    def wait(self, seconds: float) -> None:
        self.server.advance(seconds)

    @property
    def reading(self) -> bool:
        """Whether the stream is given back what it sends."""
        return self.server.stream.request not in HELD

    def seen(self) -> Seen:
        response = self.server.response(self._stream)
        return Seen(
            interim=response.interim,
            status=response.status,
            headers=response.headers,
            body=response.body,
            complete=response.complete,
        )


class RecordingHarness:
    """The fake that the tests of the bridge use: what it accepts must be what the protocols accept."""

    interim_possible = True

    def __init__(self, length: int = 0, **settings: Any) -> None:
        self.recording = StrictPort()
        self.port: ResponsePort = self.recording

    def seen(self) -> Seen:
        calls = self.recording.calls
        start = next((call for call in calls if call[0] == "start"), None)
        return Seen(
            interim=[call[1] for call in calls if call[0] == "informational"],
            status=start[1] if start else None,
            headers=start[2] if start else [],
            body=self.recording.sent[: self.recording.body_bytes_sent],
            complete=self.recording.state == "ended",
        )


WIRES: dict[str, Callable[..., Any]] = {"http/1.1": Http1Harness, "http/1.0": Http10Harness, "http/2": Http2Harness}
PORTS: dict[str, Callable[..., Any]] = {**WIRES, "recording": RecordingHarness}

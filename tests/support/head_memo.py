"""The same bytes for two connections of HTTP/1.1, of which one remembers heads and the other does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daphne_ng.wire.ending import LINGERING
from tests.support.h1 import Http1Server, RecordingSink

HEAD_FIELDS = (
    "method", "target", "path", "raw_path", "query_string", "headers", "http_version", "keep_alive", "content_length",
    "chunked", "expects_continue", "accepts_trailers", "root_path", "upgrade", "websocket",
)  # fmt: skip


class CountingParser:
    """Stands before llhttp, and counts how often it is asked."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self.feeds = 0

    def feed_data(self, data: bytes) -> None:
        self.feeds += 1
        self._parser.feed_data(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def count_feeds(server: Http1Server) -> CountingParser:
    """Count from here on how often a connection asks llhttp. Behind an Upgrade it has another one, which is not counted."""
    parser: Any = server.h1._parser
    counting = parser._parser = CountingParser(parser._parser)
    return counting


def all_of(server: Http1Server) -> dict[str, Any]:
    """Everything that can be seen of a connection, but for its timer."""
    h1, driver = server.h1, server.driver
    parser, flow = h1._parser, h1._flow
    return {
        "requests": [
            (
                *(getattr(sink.head, name) for name in HEAD_FIELDS),
                sink.parts,
                sink.trailers,
                sink.ended,
                sink.reason,
                sink.websocket is None,
            )
            for sink in server.sinks
        ],
        "written": driver.written,
        "refusals": driver.refusals,
        "driver": (driver.state, driver.reading, driver.soon, driver.switched, driver.missing, server.switched),
        "phase": (h1.phase, h1.active is None, h1._sink is None, h1.deadline, h1._begin_scheduled),
        "error": None if h1._error is None else (h1._error.status, h1._error.detail),
        "waiting": [
            (message.head.method, message.head.target, message.head.headers, message.parts, message.ended, message.body_bytes)
            for message in h1.queue
        ],
        "reading": (flow.paused, flow.sink_full, flow.probe_deadline),
        "parser": (parser.head_pending, parser.wants_pause, parser.switched, parser.rest),
        "HEAD": parser.method == b"HEAD",
    }  # fmt: skip


class Twins:
    """Two connections that are given the same, and must be the same after each step.

    Args:
        reply: As of `Http1Server`.
        settings: Fields of the `Config`.
    """

    def __init__(self, reply: Callable[[Http1Server, RecordingSink], None] | None = None, **settings: Any) -> None:
        self.one = Http1Server(reply, **settings)
        self.other = Http1Server(reply, **settings, head_memo_timeout=0)
        self.hits = 0
        """How many reads were taken without llhttp."""

    def feed(self, *parts: bytes) -> Twins:
        """Deliver reads to both, and compare them after each."""
        parser = self.one.h1._parser
        for part in parts:
            known, phase = parser._remembered, self.one.h1.phase
            self.one.feed(part)
            self.other.feed(part)
            # To ask llhttp is to forget, and what is remembered anew is another object.
            self.hits += known is not None and parser._remembered is known and phase < LINGERING
            self.compare()
        return self

    def each(self, act: Callable[[Http1Server], object]) -> None:
        """Let something happen to both, and compare them."""
        act(self.one)
        act(self.other)
        self.compare()

    def compare(self) -> None:
        """Fail on any difference."""
        one, other = all_of(self.one), all_of(self.other)
        assert one == other

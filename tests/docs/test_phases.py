"""The phases of an HTTP/2 connection move as the table in the documentation says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from daphne_ng.wire import ending
from daphne_ng.wire.http2 import states
from tests.support import h2
from tests.support.h2 import Http2Server

CLOSING = (Path(__file__).parents[2] / "docs" / "explanation" / "closing.md").read_text("utf-8")


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first cell is this, its head first."""
    rows = []
    for line in CLOSING[CLOSING.index(f"| {first} |") :].splitlines():
        if not line.startswith("|"):
            break
        rows.append([cell.strip(" `") for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def in_phase(phase: int) -> Http2Server:
    """A connection in that phase; it has an open stream if it may."""
    server = Http2Server(auto_ack=False)
    server.sync()
    server.request(b"POST", end=False)
    if phase in (ending.ANNOUNCED, ending.LAST):
        server.h2.shut_down()
        server.turn()
    if phase == ending.LAST:
        server.feed(h2.ping(b"goodbye?", ack=True))
    if phase == ending.LINGERING:
        server.feed(h2.data(0))
    if phase == ending.CLOSED:
        server.eof()
    if phase == ending.GONE:
        server.lose()
    assert server.h2.phase == phase
    return server


def end_stream(server: Http2Server) -> None:
    for sink in server.sinks:
        if sink.stream.response != states.OVER:
            sink.stream.reset("enough")
    if server.state == "open":
        server.turn()


HAPPENS: dict[str, Callable[[Http2Server], object]] = {
    "The server stops": lambda server: server.h2.shut_down(),
    "The PING is answered": lambda server: server.feed(h2.ping(b"goodbye?", ack=True)),
    "Its time passes": lambda server: server.advance(1.0),
    "The last stream ends": end_stream,
    "A rule is broken": lambda server: server.feed(h2.data(0)),
    "The client closes its half": lambda server: server.eof(),
    "It is lost": lambda server: server.lose(),
}


def test_a_connection_moves_as_the_page_says() -> None:
    head, *rows = table("With a stream open")
    assert [row[0] for row in rows] == ["OPEN", "ANNOUNCED", "LAST", "LINGERING", "CLOSED", "GONE"]
    assert head[1:] == list(HAPPENS)
    for row in rows:
        phase = getattr(ending, row[0])
        for what, cell in zip(head[1:], row[1:], strict=True):
            server = in_phase(phase)
            HAPPENS[what](server)
            expected = getattr(ending, cell) if cell else phase
            assert (row[0], what, server.h2.phase) == (row[0], what, expected)
            assert expected >= phase

"""An HTTP/1.1 connection with everything that can happen to it, one input at a time.

An input is what the client, the clock, the loop, the server, or an exchange that keeps to the contract of
`ResponsePort`, can do. `Play` knows which of them are possible; `State` is what the flags of the connection say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from daphne_ng.errors import BodyLengthMismatch
from daphne_ng.wire import ending
from daphne_ng.wire.ending import GONE, LINGERING, NEVER
from daphne_ng.wire.http.response import UNSTARTED
from tests.support.h1 import OK_HEADERS, Http1Server, RecordingSink, request, upgrade

NAMES = {getattr(ending, name): name for name in ("OPEN", "LAST", "LINGERING", "CLOSED", "GONE")}


class State(NamedTuple):
    """What the flags of a connection say, in words."""

    phase: str
    exchange: str
    """``none``, ``runs``, or ``left``: the response has ended or cannot, and the request is not over."""
    response: str
    """``-``, ``none yet`` or ``begun``."""
    request: str
    """``-``, ``whole`` or ``part``."""
    reading: str
    """``on`` or ``paused``."""
    behind: str
    """What stands behind the active request, or is about to begin: ``-``, ``requests``, ``error``, or both."""


def state_of(server: Http1Server) -> State:
    h1 = server.h1
    active = h1.active
    behind = [name for name, there in (("requests", h1.queue), ("error", h1._error)) if there]
    return State(
        NAMES[h1.phase],
        "none" if active is None else "runs" if h1._sink is not None else "left",
        "-" if active is None else "none yet" if h1.response.framing == UNSTARTED else "begun",
        "-" if active is None else "whole" if active.ended else "part",
        "paused" if h1._flow.paused else "on",
        " and ".join(behind) or "-",
    )


class Play:
    """One connection, and what an exchange may still do on it."""

    def __init__(self) -> None:
        self.server = Http1Server(
            inbox_high=4, pipelined_max=2, head_timeout=20, keep_alive_timeout=20, body_timeout=30, http_timeout=40,
            drain_max_bytes=1000, paused_read_timeout=60, http1_early_hints=True, inbox_high_bytes=2000, inbox_low_bytes=1000,
        )  # fmt: skip
        self.lost = False
        self.begun: RecordingSink | None = None  # whose response has begun
        self.over: RecordingSink | None = None  # whose response has ended
        self.unread: RecordingSink | None = None  # who was told that nobody reads it

    @property
    def sink(self) -> RecordingSink | None:
        """The exchange that may call its port."""
        sinks = self.server.sinks
        if not sinks or sinks[-1].reason is not None or self.server.h1.phase == GONE:
            return None
        return sinks[-1]

    @property
    def driver(self) -> str:
        """See `RecordingDriver.state`; ``lost`` or ``switched`` if the connection is no longer the driver's."""
        driver = self.server.driver
        return "lost" if self.lost else "switched" if driver.switched else driver.state

    @property
    def readable(self) -> bool:
        driver = self.server.driver
        return driver.reading and not self.lost and not driver.switched and driver.state in ("open", "half", "closed")

    # -- inputs: each returns whether it was possible

    def receive(self, data: bytes) -> bool:
        if not self.readable:
            return False
        self.server.h1.receive_data(data)
        return True

    def eof(self) -> bool:
        driver = self.server.driver
        if self.lost or driver.switched or driver.state not in ("open", "half"):
            return False
        self.server.h1.eof_received()
        return True

    def lose(self) -> bool:
        if self.lost or self.server.driver.switched:
            return False
        self.lost = True
        self.server.h1.connection_lost("the client disconnected")
        return True

    def wait(self) -> bool:
        h1, driver = self.server.h1, self.server.driver
        if h1.deadline == NEVER or self.lost:
            return False
        driver.now = max(driver.now, h1.deadline)
        driver.timer = h1.armed_for = NEVER
        h1.deadline_passed(driver.now)
        if h1.deadline < h1.armed_for:
            driver.rearm(h1.deadline)
        return True

    def turn(self) -> bool:
        driver = self.server.driver
        if not driver.soon or driver.is_full:
            return False
        driver.soon = 0
        self.server.h1.begin_next()
        return True

    def fill(self, full: bool) -> bool:
        driver = self.server.driver
        if driver.is_full is full:
            return False
        driver.is_full = full
        driver.queued = 100_000 if full else 0
        return True

    def shut_down(self) -> bool:
        if self.lost:
            return False
        self.server.h1.shut_down()
        return True

    def start(self, body: bytes, end: bool, *fields: tuple[bytes, bytes]) -> bool:
        sink = self.sink
        if sink is None or sink is self.begun:
            return False
        self.begun = sink
        if end:
            self.over = sink
        try:
            self.server.port.start(200, [*OK_HEADERS, *fields], body, end, False)
        except BodyLengthMismatch:
            self.over = sink
        return True

    def body(self, data: bytes, end: bool) -> bool:
        sink = self.sink
        if sink is None or sink is not self.begun or sink is self.over:
            return False
        if end:
            self.over = sink
        try:
            self.server.port.body(data, end)
        except BodyLengthMismatch:
            self.over = sink
        return True

    def reset(self) -> bool:
        sink = self.sink
        if sink is None or sink is self.over:
            return False
        self.over = sink
        self.server.port.reset("the application failed")
        return True

    def consume(self) -> bool:
        sink = self.sink
        if sink is None or sink is self.over or not sink.buffered:
            return False
        count, sink.buffered = sink.buffered, 0
        self.server.port.consumed(count)
        return True

    def abandon(self) -> bool:
        sink = self.sink
        if sink is None or sink is not self.over or sink.ended or sink is self.unread:
            return False
        self.unread = sink
        self.server.port.abandon()
        return True

    def accept(self) -> bool:
        sink = self.sink
        if sink is None or sink.websocket is None or sink is self.begun:
            return False
        self.begun = self.over = sink
        self.server.accept()
        return True


POST = request(b"/", b"Content-Length: 8", method=b"POST")

INPUTS: dict[str, Callable[[Play], bool]] = {
    "a request": lambda play: play.receive(request(b"/")),
    "three requests": lambda play: play.receive(request(b"/") * 3),
    "the head of an upload": lambda play: play.receive(POST),
    "the head of a long upload": lambda play: play.receive(request(b"/", b"Content-Length: 9999", method=b"POST")),
    "four bytes": lambda play: play.receive(b"GET "),
    "a request of HTTP/1.0": lambda play: play.receive(request(b"/", version=b"1.0")),
    "what breaks the protocol": lambda play: play.receive(b"\0\r\n\r\n"),
    "a handshake": lambda play: play.receive(upgrade()),
    "the client closes its half": Play.eof,
    "the connection is lost": Play.lose,
    "time passes": Play.wait,
    "the loop turns": Play.turn,
    "the client takes nothing": lambda play: play.fill(True),
    "the client has taken all": lambda play: play.fill(False),
    "the server stops": Play.shut_down,
    "a whole response": lambda play: play.start(b"ok", True),
    "a response begins": lambda play: play.start(b"ok", False),
    "a response of five bytes begins": lambda play: play.start(b"ok", False, (b"content-length", b"5")),
    "a part": lambda play: play.body(b"abc", False),
    "the last part": lambda play: play.body(b"", True),
    "the application fails": Play.reset,
    "the application receives": Play.consume,
    "the application leaves the body": Play.abandon,
    "the application accepts": Play.accept,
}


def key_of(play: Play) -> tuple[object, ...]:
    """Return all that tells one state from another: what `State` says, and what decides about the inputs."""
    h1, sink, state = play.server.h1, play.sink, state_of(play.server)
    if h1.phase >= LINGERING:
        return (state, play.driver)
    return (
        state,
        h1.active is None or h1.response.keep_alive,
        # whether four bytes end its body
        h1.active is not None and h1.active.head.content_length - h1.active.body_bytes <= 4,
        h1._begin_scheduled,
        len(h1.queue),
        bool(h1._parser.head_pending),
        h1._parser.switched,
        h1._flow.sink_full,
        play.server.driver.is_full,
        sink is not None
        and (sink is play.begun, sink is play.over, sink is play.unread, sink.ended, sink.buffered > 0),
    )

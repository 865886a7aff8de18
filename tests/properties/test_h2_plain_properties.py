"""The plain path of HTTP/2 against h2: whatever a client and an application do, both ways do the same.

Two servers, one with the plain path and one without, are played the same. After every step everything that can be seen
must be equal: the bytes written, what the exchanges were told, what was logged, windows, counts and times. And each
plain stream must be what its twin in h2 is.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import hpack
import pytest
from h2.stream import StreamState
from hypothesis import given, settings
from hypothesis import strategies as st

from daphne_ng.errors import DaphneError
from daphne_ng.wire.http2.records import CLOSED_BY_CLIENT, CLOSED_BY_US, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, OPEN
from daphne_ng.wire.http2.states import OVER
from daphne_ng.wire.http2.stream import Http2Stream
from tests.support import h2
from tests.support.build import attributes_of
from tests.support.h2 import Http2Server, RecordingStreamSink, fields

pytestmark = pytest.mark.once

H2_STATES = {
    OPEN: StreamState.OPEN,
    HALF_CLOSED_REMOTE: StreamState.HALF_CLOSED_REMOTE,
    HALF_CLOSED_LOCAL: StreamState.HALF_CLOSED_LOCAL,
    CLOSED_BY_US: StreamState.CLOSED,
    CLOSED_BY_CLIENT: StreamState.CLOSED,
}


class Deaf(Http2Server):
    """A server whose client reads nothing."""

    def read(self) -> None:
        pass


# -- what a client may send ------------------------------------------------------------------------------

HEADS: list[list[tuple[bytes, bytes]]] = [
    fields(b"POST"),
    fields(),
    fields(b"POST", b"/?a=b", (b"te", b"trailers"), (b"priority", b"u=1, i")),
    fields(b"POST", b"/", (b"content-length", b"20000")),
    fields(b"POST", b"/", (b"expect", b"100-continue")),
    [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *fields()[1:], (b"sec-websocket-version", b"13")],
    fields(b"HEAD"),
    fields(b"POST", b"/", (b"content-length", b"5")),
    fields(b"GET", b"no path"),
    [],
]
WINDOWS = [65535, 300, 1, 0, 100_000, 2**31 - 65536, 2**31 - 65535, 2**31 - 1, 2**31, 2**32 - 1]
SIZES = [5, 0, 300, 9000, 16384, 40_000, 65535, 65536, 16385]
FLAGS = [h2.END_HEADERS, h2.END_HEADERS | h2.WITH_PRIORITY, 0, h2.END_HEADERS | h2.PADDED, 0x2C]
STREAMS = [1, 3, 5, 7, 0, 2, 2**31 - 1]

# Frames by what they do to a stream that the client has opened, and how often.
KINDS = {
    "new": 9,
    "data": 9,
    "update": 4,
    "connection": 2,
    "reset": 1,
    "trailers": 1,
    "settings": 1,
    "late": 0.3,
    "wild": 0.3,
}


class Frames:
    """Makes the frames of one client, with the table of its encoder and the numbers of its streams."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._encoder = hpack.Encoder()
        self._next = 1
        self._open: list[int] = []  # the client has not ended them
        self._ended: list[int] = []

    def some(self) -> bytes:
        """Make a few frames, most of them right."""
        kinds = self._random.choices([*KINDS], [*KINDS.values()], k=self._random.randint(1, 5))
        return b"".join(getattr(self, f"_{kind}")() for kind in kinds)

    def _rarely(self, chance: float = 0.1) -> bool:
        return self._random.random() < chance

    def _new(self) -> bytes:
        stream, self._next = self._next, self._next + 2
        ended = self._rarely(0.4)
        (self._ended if ended else self._open).append(stream)
        head = self._random.choice(HEADS) if self._rarely(0.3) else self._random.choice(HEADS[:3])
        block = self._encoder.encode(head) if self._rarely(0.5) and head else h2.block(head)
        flags = self._random.choice(FLAGS) if self._rarely() else FLAGS[0]
        if flags & h2.WITH_PRIORITY:
            block = b"\0\0\0\0\7" + block
        if flags & h2.PADDED:
            block = b"\2" + block + b"\0\0"
        if flags & h2.END_HEADERS:
            return h2.frame(h2.HEADERS, flags | ended, stream, block)
        half = len(block) // 2
        first = h2.frame(h2.HEADERS, flags | ended, stream, block[:half])
        return first + h2.frame(h2.CONTINUATION, h2.END_HEADERS, stream, block[half:])

    def _data(self) -> bytes:
        if not self._open:
            return b""
        stream = self._random.choice(self._open[-4:])
        ended = self._rarely(0.3)
        if ended:
            self._end(stream)
        size = self._random.choice(SIZES) if self._rarely(0.2) else self._random.choice(SIZES[:5])
        padding = self._random.choice([0, 3]) if self._rarely(0.05) else None
        # Larger ones than a frame may be, but for the one that tests that, are several.
        sizes = [size] if size <= 16385 else [16384] * (size // 16384) + [size % 16384]
        last = len(sizes) - 1
        return b"".join(h2.data(stream, b"d" * n, ended and at == last, padding) for at, n in enumerate(sizes))

    def _end(self, stream: int) -> None:
        if stream in self._open:
            self._open.remove(stream)
            self._ended.append(stream)

    def _increment(self) -> int:
        return int(self._random.choice(WINDOWS) if self._rarely() else self._random.choice(WINDOWS[:3]))

    def _known(self) -> list[int]:
        return self._open[-3:] + self._ended[-3:]

    def _update(self) -> bytes:
        known = self._known()
        return h2.window_update(self._random.choice(known), self._increment()) if known else b""

    def _connection(self) -> bytes:
        return h2.window_update(0, self._increment())

    def _reset(self) -> bytes:
        known = self._known()
        return h2.rst(self._random.choice(known)) if known else b""

    def _trailers(self) -> bytes:
        if not self._open:
            return b""
        stream = self._random.choice(self._open[-4:])
        self._end(stream)
        return h2.headers(stream, [(b"x", b"trailer")], not self._rarely())

    def _settings(self) -> bytes:
        code, value = self._random.choice(
            [
                (4, self._random.choice(WINDOWS[:5])),
                (4, self._random.choice(WINDOWS)),
                (5, self._random.choice([16384, 16385, 100_000, 2**24 - 1])),
                (1, self._random.choice([0, 100, 4096, 70_000])),
            ]
        )
        return h2.settings((code, value))

    # DATA or trailers on a stream that the client has ended.
    def _late(self) -> bytes:
        if not self._ended:
            return b""
        stream = self._random.choice(self._ended[-3:])
        return h2.data(stream, b"late") if self._rarely(0.5) else h2.headers(stream, [(b"x", b"late")])

    # What any client may send at any time, and what none may.
    def _wild(self) -> bytes:
        random = self._random
        stream = random.choice(STREAMS)
        return random.choice(
            [
                lambda: h2.headers(stream, random.choice(HEADS), self._rarely(0.5), random.choice(FLAGS)),
                lambda: h2.data(stream, b"x", self._rarely(0.5), random.choice([None, 0, 3])),
                lambda: h2.rst(stream),
                lambda: h2.window_update(stream, random.choice(WINDOWS)),
                lambda: h2.ping(ack=self._rarely(0.5)),
                lambda: h2.goaway(stream),
                lambda: h2.priority(stream, random.choice(STREAMS)),
                lambda: h2.priority_update(stream, random.choice([b"u=0", b"i", b"\xff"])),
                lambda: h2.continuation(stream, b"x", self._rarely(0.5)),
                lambda: h2.frame(
                    random.randrange(18), random.randrange(256), stream, random.randbytes(random.randrange(9))
                ),
            ]
        )()


# -- what an application may do --------------------------------------------------------------------------

BODIES = [5, 0, 100, 5000, 16384, 70_000, 140_000]
ACTS = ["whole", "whole", "whole", "start", "start", "body", "body", "last", "consumed", "tunnel", "send"]
RARE_ACTS = ["trailers", "interim", "reset", "abandon", "ended", "finish"]


def act(sink: RecordingStreamSink, what: str, size: int) -> str:
    """Let the exchange do something. Returns what it was told that it did wrong."""
    stream = sink.stream
    tunnel = sink.request is not None
    try:
        match what:
            case "whole" if stream.response == 0:
                stream.start(200, [(b"content-type", b"text/plain")], b"w" * size, True, False)
            case "start" if stream.response == 0:
                stream.start(200, [] if size < 1000 else [(b"content-length", b"%d" % size)], b"", False, True)
            case "body" if stream.response == 1 and not stream.tunnel:
                stream.body(b"b" * size, False)
            case "last" if stream.response == 1 and not stream.tunnel:
                stream.body(b"b" * size, True)
            case "trailers" if stream.response == 1 and not stream.tunnel:
                stream.trailers([(b"x-sum", b"1")])
            case "interim":
                stream.informational(103 if size else 100, [(b"link", b"</a>")])
            case "reset":
                stream.reset("enough")
            case "abandon":
                stream.abandon()
            case "consumed":
                sink.buffered = 0
                stream.consumed(1)
            case "ended":
                stream.task_ended()
            case "tunnel" if tunnel and stream.response == 0:
                stream.open_tunnel([])
            case "send" if stream.tunnel:
                stream.send(b"t" * 3000)
            case "finish" if stream.tunnel:
                stream.finish()
    except DaphneError as error:
        return f"{type(error).__name__}: {error}"
    return ""


LIMITS = st.sampled_from(
    [
        {},
        {},
        {"http2_max_concurrent_streams": 2},
        {"http2_reset_burst": 3, "http2_max_concurrent_streams": 3, "http2_reset_rate": 1.0},
        {"http2_control_burst": 2, "http2_control_rate": 1.0},
        {"body_max_bytes": 6},
        {"http2_max_requests": 2},
        {"http2_connection_buffer_max_bytes": 65535},
    ]
)

# -- what must be equal ----------------------------------------------------------------------------------


def seen_of(sink: RecordingStreamSink) -> dict[str, Any]:
    seen = {name: value for name, value in vars(sink).items() if name not in ("head", "stream", "request", "log")}
    return {**seen, "head": attributes_of(sink.head), "stream": seen_of_stream(sink.stream)}


def seen_of_stream(stream: Http2Stream) -> tuple[Any, ...]:
    window = stream.window
    stall = stream.stall
    return (
        stream.id,
        stream.request,
        stream.response,
        stream.buffered,
        stream.body_bytes_sent,
        stream.received_bytes,
        stream.body_deadline,
        stream.exchange_deadline,
        *(() if stream.response == OVER else (stream.record.closed, stream.record.send_window)),
        None if window is None else [getattr(window, name) for name in ("size", "held", "_due", "_steady")],
        None if stall is None else [getattr(stall, name) for name in ("since", "_sent", "_spent")],
    )


def seen(server: Http2Server) -> dict[str, Any]:
    driver, connection = server.driver, server.h2
    engine, budget = connection._engine, connection._budget
    return {
        "written": h2.split(b"".join(driver.written)),
        "sinks": [seen_of(sink) for sink in driver.sinks],
        "driver": [
            driver.state,
            driver.reading,
            driver.timer,
            driver.refusals,
            driver.failures,
            driver.missing,
            driver.stalls,
        ],
        "open": list(connection._streams),
        "phase": connection.phase,
        "deadline": connection.deadline,
        "outlived": connection._context.outlived,
        "held": connection._windows.held,
        "budget": [
            value
            for name, value in attributes_of(budget).items()
            if name not in ("_bucket", "_reset_bucket", "_resets_max")
        ],
        "sieve": [connection._sieve.highest_id, connection._sieve.last_id, list(connection._sieve.given_up)],
        "windows": [engine.outbound_flow_control_window, engine.receive_window.current_window_size],
        "highest": engine.highest_inbound_stream_id,
        "closed": list(engine.closed_streams._latest),
        "frame": engine.max_outbound_frame_size,
        "settings": dict(engine.remote_settings),
        "machine": engine.state_machine.state,
        "waiting": [list(connection._sender._waiting), list(connection._sender.blocked)],
    }


def check_twins(plain: Http2Server, other: Http2Server) -> None:
    """Each stream on the plain path is what it would be in h2."""
    ours, theirs = plain.h2, other.h2._engine
    records = {number: stream.record for number, stream in ours._streams.items()}
    assert ours._records.plain == {number: record for number, record in records.items() if record.h2 is None}
    assert not other.h2._records.plain
    for number, record in ours._records.plain.items():
        twin = theirs.streams[number]
        machine = twin.state_machine
        assert machine.state == H2_STATES[record.state]
        assert bool(machine.headers_sent) == record.head_sent
        assert twin.outbound_flow_control_window == record.plain_window
        assert twin.inbound_flow_control_window == record.receive_window
    assert set(theirs.streams) - set(ours._engine.streams) == set(ours._records.plain)
    for number, stream in ours._engine.streams.items():
        twin = theirs.streams[number]
        assert stream.state_machine.state == twin.state_machine.state
        assert stream.closed_by == twin.closed_by
        assert bool(stream.state_machine.headers_sent) == bool(twin.state_machine.headers_sent)
        assert stream.outbound_flow_control_window == twin.outbound_flow_control_window
        assert stream.inbound_flow_control_window == twin.inbound_flow_control_window
        assert stream.max_outbound_frame_size == twin.max_outbound_frame_size


class Twins:
    """Two servers that are played the same."""

    def __init__(self, **config: Any) -> None:
        self.servers = [
            Deaf(begin=False, inbox_high=10_000, http2_plain_path=plain, **config) for plain in (True, False)
        ]

    def feed(self, wire: bytes, cut: int = 0) -> None:
        """Deliver bytes in reads of about as many bytes as `cut` pieces have."""
        step = len(wire) // (cut + 1) + 1
        for at in range(0, len(wire), step):
            for server in self.servers:
                server.feed(wire[at : at + step])
            self.check()

    def play(self, do: Callable[[Deaf], str | None]) -> None:
        """Let the same happen to both."""
        said = []
        for server in self.servers:
            if server.state in ("open", "half"):
                said.append(do(server))
                server.turn()
        assert said == said[:1] * len(said)
        self.check()

    def act(self, which: int, what: str, size: int) -> None:
        """Let the application of one of the latest exchanges do something."""
        if self.servers[0].sinks:
            self.play(lambda server: act(server.sinks[-5:][which % len(server.sinks[-5:])], what, size))

    def check(self) -> None:
        one, two = map(seen, self.servers)
        for key, value in one.items():
            assert value == two[key], key
        if not self.servers[0].driver.failures:
            check_twins(*self.servers)

    def end(self) -> None:
        for server in self.servers:
            server.lose()
        self.check()
        assert not self.servers[0].h2._records.plain


def fill(server: Deaf) -> None:
    server.driver.is_full = True


def empty(server: Deaf) -> None:
    server.drain()


@given(st.randoms(use_true_random=True), st.integers(1, 60), LIMITS)
def test_both_ways_do_the_same(random: Random, steps: int, limits: dict[str, Any]) -> None:
    twins, frames = Twins(**limits), Frames(random)
    window = random.choice([None, None, 0, 70_000])
    twins.feed(h2.PREFACE + (h2.settings() if window is None else h2.settings((4, window))))
    for _ in range(steps):
        what = random.random()
        if what < 0.5:
            twins.feed(frames.some(), random.choice([0, 0, 1, 2, 20]))
        elif what < 0.9:
            acts = ACTS if random.random() < 0.9 else RARE_ACTS
            twins.act(random.randrange(5), random.choice(acts), random.choice(BODIES))
        elif what < 0.94:
            twins.play(random.choice([fill, empty, empty]))
        elif what < 0.99:
            seconds = random.choice([0.1, 3, 20])
            twins.play(lambda server, seconds=seconds: server.advance(seconds))  # type: ignore[misc]
        else:
            twins.play(lambda server: server.h2.shut_down())
    twins.end()


@settings(max_examples=max(5, settings().max_examples // 20))
@given(st.randoms(use_true_random=True), st.booleans())
def test_both_ways_do_the_same_wherever_a_read_ends(random: Random, answered: bool) -> None:
    frames = Frames(random)
    wire = h2.PREFACE + h2.settings() + frames.some() + frames.some()
    # Within long payloads one place is like another.
    cuts = [cut for cut in range(1, len(wire)) if wire[cut - 1 : cut + 1] != b"dd" or cut % 4999 == 0]
    for cut in cuts:
        twins = Twins()
        for part in (wire[:cut], wire[cut:]):
            twins.feed(part)
            if answered:
                for number in range(len(twins.servers[0].sinks[-5:])):
                    twins.act(number, "whole", 5)
        twins.end()

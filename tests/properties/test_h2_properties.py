"""HTTP/2 under arbitrary input: it never raises, and keeps its bounds; what is sent reads back as it was sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daphne_ng.wire.http2 import states
from daphne_ng.wire.http2.states import AWAITED, ENDING, OVER
from tests.support import h2
from tests.support.build import attributes_of
from tests.support.h2 import HELD, Http2Server, Response, fields

pytestmark = pytest.mark.once


STREAMS = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 2**31 - 1])
KINDS = st.one_of(st.integers(0, 12), st.sampled_from([0x10, 0xFF]))
ANY_FRAME = st.builds(h2.frame, KINDS, st.integers(0, 255), STREAMS, st.binary(max_size=40))
HEADS = [
    fields(),
    fields(b"POST"),
    fields(b"POST", b"/", (b"content-length", b"5")),
    fields(b"POST", b"/", (b"expect", b"100-continue")),
    fields(b"GET", b"/", (b"priority", b"u=1, i")),
    [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *fields()[1:]],
    [(b"x", b"trailer")],
    [],
]
MEANT = st.one_of(
    st.builds(h2.headers, STREAMS, st.sampled_from(HEADS), st.booleans(), st.sampled_from([4, 4, 4, 0, 0x24])),
    st.builds(h2.data, STREAMS, st.binary(max_size=8), st.booleans(), st.sampled_from([None, None, 0, 3])),
    st.builds(h2.rst, STREAMS, st.integers(0, 20)),
    st.builds(h2.ping, ack=st.booleans()),
    st.builds(h2.goaway, STREAMS),
    st.builds(h2.window_update, STREAMS, st.sampled_from([0, 1, 65535, 2**31 - 1])),
    st.builds(h2.priority, STREAMS, STREAMS),
    st.builds(h2.priority_update, STREAMS, st.sampled_from([b"u=0", b"i", b"u=9,,", b"\xff"])),
    st.builds(h2.continuation, STREAMS, st.binary(max_size=8), st.booleans()),
    st.builds(
        lambda code, value: h2.settings((code, value)), st.integers(0, 10), st.sampled_from([0, 1, 16384, 2**32 - 1])
    ),
    st.builds(h2.settings, ack=st.just(True)),
)


class Deaf(Http2Server):
    """A server whose client reads nothing: what it is sent would be no answer to what it knows."""

    def read(self) -> None:
        for part in self.driver.written:
            h2.split(part)  # whole frames at any rate


def answer(sink: h2.RecordingStreamSink) -> None:
    sink.stream.start(200, [(b"content-type", b"text/plain")], b"x" * len(sink.body), False, False)
    sink.stream.body(b"y" * 100, True)


def check(server: Http2Server) -> None:
    connection = server.h2
    assert connection._windows.held >= 0
    assert connection._context.outlived >= 0
    assert connection._windows.held == sum(s.window.held for s in connection._streams.values() if s.window is not None)
    for stream in connection._streams.values():
        assert stream.response != OVER
        assert stream.buffered == sum(len(part) for part in stream.parts or ())
        assert (stream.id in connection._engine.streams) != (stream.id in connection._records.plain)
    assert set(connection._sender._waiting) | set(connection._sender.blocked) <= set(connection._streams)
    if server.state != "open":
        assert not connection._streams
        for sink in server.sinks:
            assert sink.stream.response == OVER
    assert len(connection._engine.streams) + len(connection._records.plain) <= len(connection._streams) + 2


# The moves of a request half, whatever made them.
REQUEST_STEPS = {(state, to) for (state, _happens), to in states.REQUEST_MOVES.items()}


def check_states(recorder: h2.StateRecorder) -> None:
    assert recorder.request_moves <= REQUEST_STEPS
    assert all(before < after for before, after in recorder.response_moves)
    assert all(before <= after for before, after in recorder.phase_moves)
    # A request is discarded or not wanted only behind an answer, and a stream that has both halves is closed.
    for request, response in recorder.halves:
        assert request not in (states.DISCARDING, states.UNWANTED) or response >= ENDING
        assert request != states.UNWANTED or response in (ENDING, states.SENT, OVER)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(ANY_FRAME, MEANT, MEANT), max_size=20), st.integers(0, 60), st.booleans())
def test_frames_right_and_wrong_never_raise(frames: list[bytes], cut: int, begin: bool) -> None:
    server = Deaf(answer, begin=False, inbox_high=4)
    recorder = server.record_states()
    wire = h2.PREFACE + h2.settings() + b"".join(frames) if begin else b"".join(frames)
    step = cut or len(wire) or 1
    for at in range(0, len(wire), step):
        server.feed(wire[at : at + step])
        check(server)
    server.advance(200)
    check(server)
    if server.state == "open":
        server.eof()
    check(server)
    server.lose()
    check(server)
    check_states(recorder)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_never_raise(wire: bytes) -> None:
    server = Deaf(answer, begin=False)
    server.feed(wire)
    server = Deaf(answer, begin=False)
    server.feed(h2.PREFACE + h2.settings(), wire)
    server.advance(100)
    check(server)


def by_stream(server: Http2Server) -> dict[int, list[tuple[int, int, bytes]]]:
    streams: dict[int, list[tuple[int, int, bytes]]] = {}
    for kind, flags, stream, payload in h2.split(b"".join(server.driver.written)):
        streams.setdefault(stream, []).append((kind, flags, payload))
    return streams


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(ANY_FRAME, MEANT, MEANT), max_size=20))
def test_requests_past_the_parser_of_h2_are_those_that_it_would_see(frames: list[bytes]) -> None:
    servers = [Deaf(answer, begin=False), Deaf(answer, begin=False)]
    servers[1].let_h2_open_streams()
    for part in (h2.PREFACE + h2.settings(), *frames):
        for server in servers:
            server.feed(part)
        direct, through = servers
        assert direct.failure == through.failure
        assert by_stream(direct) == by_stream(through)
        assert [attributes_of(sink.head) for sink in direct.sinks] == [
            attributes_of(sink.head) for sink in through.sinks
        ]
        assert direct.driver.refusals == through.driver.refusals


SENDS = st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 200_000).map(lambda n: b"z" * n)), max_size=5)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(SENDS, st.booleans(), st.booleans(), st.sampled_from([None, b"u=0", b"u=5, i", b"i"])),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([0, 1, 100, 65535, 1_000_000]),
    st.sampled_from([16384, 100_000]),
    st.data(),
)
def test_what_is_sent_reads_back(
    bodies: list[tuple[list[bytes], bool, bool, bytes | None]], window: int, frame: int, draw: Any
) -> None:
    server = Http2Server(client={"initial_window_size": window, "max_frame_size": frame}, auto_credit=False)
    plans = []
    for parts, length, trailers, priority in bodies:
        names = [(b"te", b"trailers")] + ([(b"priority", priority)] if priority else [])
        stream = server.request(b"GET", b"/", *names)
        plans.append((stream, server.stream, parts, trailers))
        headers = [(b"content-length", b"%d" % sum(map(len, parts)))] if length else []
        server.stream.start(200, headers, b"", False, trailers)
    pending = [(plan[1], part) for plan in plans for part in plan[2]]
    # In order for each stream, in any order among them.
    order = draw.draw(st.permutations(range(len(pending)))) if len(pending) < 8 else range(len(pending))
    queues = {id(plan[1]): list(plan[2]) for plan in plans}
    for index in order:
        port, _part = pending[index]
        port.body(queues[id(port)].pop(0), False)
        if index % 2:
            server.turn()
    for _stream, port, _parts, trailers in plans:
        if trailers:
            port.trailers([(b"x-sum", b"1")])
        else:
            port.body(b"", True)
    server.turn()
    for _ in range(200):
        open_streams = [plan[0] for plan in plans if not server.response(plan[0]).ended]
        if not open_streams:
            break
        server.open_window(50_000, *open_streams)
        check(server)
    for stream, port, parts, trailers in plans:
        response: Response = server.response(stream)
        assert response.complete
        assert response.body == b"".join(parts)
        assert response.trailers == ([(b"x-sum", b"1")] if trailers else [])
        assert port.body_bytes_sent == len(response.body)
    assert server.idle


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["send", "end", "consume", "reset", "body", "finish", "credit", "full", "drain", "abort", "new", "wait"]
        ),
        st.integers(0, 3),
        st.integers(1, 40_000),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(ACTIONS)
def test_any_interleaving_keeps_the_bounds(actions: list[tuple[str, int, int]]) -> None:
    high = 30_000
    server = Http2Server(
        inbox_high=high, auto_credit=False, http2_window_max_bytes=131072, http2_connection_buffer_max_bytes=65535
    )
    recorder = server.record_states()
    numbers: list[int] = []
    ended: set[int] = set()
    for what, which, size in [("new", 0, 1), *actions]:
        if server.state != "open":
            break
        if what == "new":
            numbers.append(server.request(b"POST", end=False))
            continue
        number = numbers[which % len(numbers)]
        sink = server.sinks[which % len(numbers)]
        stream = sink.stream
        response = server.client.responses.get(number)
        dead = number in ended or (response is not None and response.reset is not None)
        if what in ("send", "end") and not dead:
            room = min(server.client.h2.local_flow_control_window(number), 16384, size)
            if what == "end" or room > 0:
                server.client.h2.send_data(number, b"x" * max(room, 0), end_stream=what == "end")
                if what == "end":
                    ended.add(number)
                server.sync()
        elif what == "consume" and stream.request in HELD:
            sink.buffered = 0
            stream.consumed(1)
        elif what == "reset" and not dead:
            server.client.h2.reset_stream(number, h2.CANCEL)
            ended.add(number)
            server.sync()
        elif what in ("body", "finish") and sink.reason is None and stream.response < ENDING:
            if stream.response == AWAITED:
                stream.start(200, [], b"", False, False)
            if stream.writable() is None or what == "finish":
                stream.body(b"y" * size, what == "finish")
        elif what == "credit" and not dead:
            server.client.h2.increment_flow_control_window(size, None)
            if server.client.h2.streams.get(number) and not server.client.h2.streams[number].closed:
                server.client.h2.increment_flow_control_window(size, number)
            server.sync()
        elif what == "full":
            server.driver.is_full = True
        elif what == "drain":
            server.drain()
        elif what == "abort" and stream.response != OVER:
            if sink.reason is None:
                stream.reset("enough")
        elif what == "wait":
            server.advance(size / 2000)
        server.turn()
        check(server)
        for one in server.sinks:
            # What the sink had room for, and one window.
            assert one.buffered <= high + 131072
            assert one.stream.buffered <= 65536 + 40_000 * 2
        assert server.h2._windows.held <= 65535 + 1024 * 1024
    server.lose()
    check(server)
    for one in server.sinks:
        assert one.stream.response == OVER
    check_states(recorder)

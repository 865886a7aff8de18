"""The records of streams: the plain path that ordinary requests take, when h2 takes over, and what is used of h2."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import h2 as library
import h2.connection
import h2.exceptions
import h2.stream
import pytest
from h2.connection import ConnectionState, H2Connection
from h2.stream import StreamClosedBy, StreamInputs, StreamState

from daphne_ng.config import Config
from daphne_ng.wire.http2 import engine as engine_module
from daphne_ng.wire.http2.engine import PRIVATE_NAMES, TESTED_H2, ClosedStreams, Engine, h2_is_tested
from daphne_ng.wire.http2.output import Output
from daphne_ng.wire.http2.records import (
    CLOSED_BY_CLIENT,
    CLOSED_BY_US,
    END_RECEIVED,
    END_SENT,
    HALF_CLOSED_LOCAL,
    HALF_CLOSED_REMOTE,
    OPEN,
    RECORD_MOVES,
    StreamRecords,
)
from tests.support import h2 as frames
from tests.support.h2 import Http2Server, fields

PLAIN_PATH = True  # said here: these are about that way


class Forbidden(dict[int, Any]):
    """A table of streams in which h2 finds nothing: a stream that it looks for is closed to it."""

    def __setitem__(self, stream: int, value: Any) -> None:
        raise AssertionError(f"h2 has stream {stream}")


def without_h2(**more: Any) -> Http2Server:
    """A server whose h2 must not get to see a stream."""
    server = Http2Server(**more)
    server.h2._engine.streams = Forbidden()
    return server


class TestThePathIsTaken:
    def test_a_request_and_its_response(self) -> None:
        server = without_h2()
        server.request()
        server.answer(b"hello")
        assert server.response().body == b"hello"
        assert server.response().complete
        assert server.idle

    def test_requests_one_after_another_and_at_once(self) -> None:
        server = without_h2()
        for _ in range(20):
            server.request()
        for sink in server.sinks:
            sink.stream.start(200, [], b"x" * 100, True, False)
        server.turn()
        assert all(server.response(stream).complete for stream in range(1, 40, 2))

    def test_an_upload_beyond_its_window_and_its_updates(self) -> None:
        server = without_h2()
        stream = server.request(b"POST", end=False)
        server.send(stream, b"u" * 300_000, end=True)
        assert len(server.sink.body) == 300_000
        assert server.client.frames_of(frames.WINDOW_UPDATE, stream)
        server.answer()
        assert server.response(stream).complete

    def test_a_download_beyond_its_window_and_the_client_s_updates(self) -> None:
        server = without_h2()
        server.request()
        server.answer(b"d" * 500_000)
        assert len(server.response().body) == 500_000
        assert server.response().complete

    def test_a_response_in_parts_with_an_interim_one_and_trailers(self) -> None:
        server = without_h2()
        server.request(b"GET", b"/", (b"te", b"trailers"))
        stream = server.stream
        stream.informational(103, [(b"link", b"</a>")])
        stream.start(200, [], b"", False, True)
        stream.body(b"a" * 10, False)
        server.turn()
        stream.trailers([(b"x-sum", b"1")])
        server.turn()
        response = server.response()
        assert response.interim == [103]
        assert response.body == b"a" * 10
        assert response.trailers == [(b"x-sum", b"1")]

    def test_a_request_with_a_priority_of_rfc_7540(self) -> None:
        server = without_h2()
        wire = frames.frame(frames.HEADERS, 0x25, 1, b"\x80\0\0\0\xff" + frames.block(fields()))
        server.feed(wire)
        server.answer()
        assert server.response().complete

    def test_the_end_of_a_request_in_an_empty_frame(self) -> None:
        server = without_h2()
        stream = server.request(b"POST", end=False)
        server.feed(frames.data(stream, b"abc"), frames.data(stream, b"", end=True))
        assert server.sink.ended
        server.answer()
        assert server.response(stream).complete

    def test_a_websocket(self) -> None:
        server = without_h2()
        head = [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            *fields()[1:],
            (b"sec-websocket-version", b"13"),
        ]
        server.feed(frames.headers(1, head, end=False))
        server.stream.open_tunnel([])
        server.stream.send(b"there")
        server.feed(frames.data(1, b"here"))
        assert server.sink.body == b"here"
        assert server.response().body == b"there"

    def test_it_is_not_taken_without_the_setting(self) -> None:
        server = Http2Server(http2_plain_path=False)
        server.request()
        assert 1 in server.h2._engine.streams
        assert not server.h2._records.plain


class TestHandingOver:
    @pytest.mark.parametrize(
        "wire",
        [
            frames.rst(1),
            frames.headers(1, [(b"x", b"trailer")]),
            frames.data(1, b"abc", padding=3),
            frames.window_update(1, 2**31 - 1),
            frames.data(1, b"x" * 16384) * 5,
        ],
        ids=["reset", "trailers", "padded", "window overflows", "window not kept to"],
    )
    def test_what_is_unusual_makes_the_stream_real(self, wire: bytes) -> None:
        server = Http2Server(inbox_high=1)
        server.request(b"POST", end=False)
        server.request(b"POST", end=False)
        record = server.sinks[0].stream.record
        assert record.h2 is None
        server.feed(wire)
        assert record.h2 is not None
        assert 1 not in server.h2._records.plain
        if server.state == "open":
            assert 3 in server.h2._records.plain

    def test_a_reset_of_ours_makes_the_stream_real(self) -> None:
        server = Http2Server()
        server.request()
        server.stream.reset("enough")
        server.turn()
        assert server.response().reset == frames.INTERNAL_ERROR
        assert server.h2._engine.closed_streams[1] is StreamClosedBy.SEND_RST_STREAM

    def test_the_windows_go_along(self) -> None:
        server = Http2Server(auto_credit=False)
        server.request(b"POST", end=False)
        server.send(1, b"u" * 1000)
        server.stream.start(200, [], b"d" * 2000, False, False)
        server.turn()
        record = server.stream.record
        server.feed(frames.settings((4, 70_000)), frames.data(1, b"abc", padding=3))
        assert record.h2 is not None
        assert record.h2.outbound_flow_control_window == 70_000 - 2000
        assert record.send_window == 70_000 - 2000
        assert record.h2.inbound_flow_control_window == 65535 - 1000 - 7
        assert record.h2.state_machine.headers_sent
        assert record.h2.state_machine.state is StreamState.OPEN

    def test_how_a_stream_was_closed_is_known(self) -> None:
        server = Http2Server()
        server.request()
        server.answer()
        server.request(b"POST", end=False)
        server.stream.start(200, [(b"content-length", b"2")], b"ok", True, False)
        server.turn()
        server.feed(frames.data(3, b"", end=True))
        closed = server.h2._engine.closed_streams
        assert closed[1] is StreamClosedBy.SEND_END_STREAM
        assert closed[3] is StreamClosedBy.RECV_END_STREAM

    def test_nothing_is_kept_of_streams_but_how_the_latest_were_closed(self) -> None:
        server = Http2Server()
        for _ in range(150):
            server.request()
            server.answer()
        assert not server.h2._records.plain
        assert not server.h2._engine.streams
        assert len(server.h2._engine.closed_streams) == 100

    def test_a_body_that_is_too_large_and_ends_at_once_leaves_no_stream_behind(self) -> None:
        server = Http2Server(body_max_bytes=5)
        stream = server.request(b"POST", end=False)
        server.feed(frames.data(stream, b"x" * 6, end=True))
        server.stream.task_ended()
        assert server.response(stream).status == 413
        assert server.idle


class TestMoves:
    STATES = (OPEN, HALF_CLOSED_REMOTE, HALF_CLOSED_LOCAL, CLOSED_BY_US, CLOSED_BY_CLIENT)

    @pytest.mark.parametrize("state", STATES)
    @pytest.mark.parametrize("end", [END_RECEIVED, END_SENT])
    def test_each_is_that_of_h2_or_an_error(self, state: int, end: int) -> None:
        machine = h2.stream.H2StreamStateMachine(1)
        machine.process_input(StreamInputs.RECV_HEADERS)
        first = {OPEN: (), HALF_CLOSED_REMOTE: (END_RECEIVED,), HALF_CLOSED_LOCAL: (END_SENT,)}
        inputs = (StreamInputs.RECV_END_STREAM, StreamInputs.SEND_END_STREAM)
        before = first.get(state, (END_RECEIVED, END_SENT) if state == CLOSED_BY_US else (END_SENT, END_RECEIVED))
        for one in before:
            machine.process_input(inputs[one])
        to = RECORD_MOVES.get((state, end))
        if to is None:
            # A second end; h2 lets one pass that comes when all is over, and is not asked.
            assert end in before
            return
        machine.process_input(inputs[end])
        names = {
            HALF_CLOSED_REMOTE: (StreamState.HALF_CLOSED_REMOTE, None),
            HALF_CLOSED_LOCAL: (StreamState.HALF_CLOSED_LOCAL, None),
            CLOSED_BY_US: (StreamState.CLOSED, StreamClosedBy.SEND_END_STREAM),
            CLOSED_BY_CLIENT: (StreamState.CLOSED, StreamClosedBy.RECV_END_STREAM),
        }
        assert (machine.state, machine.stream_closed_by) == names[to]

    def test_nothing_is_sent_behind_the_end(self) -> None:
        records = StreamRecords(Engine(Config()), True)
        record, _fields = records.open(1, frames.block(fields()), False)
        records.send_block(record, b"\x88", True)
        with pytest.raises(AssertionError):
            records.send_block(record, b"\x88", True)
        with pytest.raises(AssertionError):
            records.send_part(record, [b"x"], 1, False)


def test_output_is_taken_in_order() -> None:
    output = Output()
    output.write(b"a")
    output.parts.append(memoryview(b"bc"))
    output.size += 2
    assert output.size == 3
    assert output.take() == b"abc"
    assert output.size == 0
    output.parts.append(memoryview(b"d"))
    assert output.take() == b"d"


class TestTheVersionOfH2:
    @pytest.mark.parametrize(
        ("version", "tested"),
        [("4.1.0", True), ("4.4.1", True), ("4.0.0", False), ("4.5.0", False), ("5.0", False), ("odd", False)],
    )
    def test_versions(self, version: str, tested: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(library, "__version__", version)
        assert h2_is_tested() == tested
        server = Http2Server()
        server.request()
        assert bool(server.h2._records.plain) == tested

    def test_the_installed_one_is_tested(self) -> None:
        assert TESTED_H2[0] <= tuple(map(int, library.__version__.split(".")[:2])) < TESTED_H2[1]


# -- what is used of h2 that it does not promise -----------------------------------------------------------


def an_engine() -> tuple[Engine, h2.stream.H2Stream]:
    engine = Engine(Config())
    engine.initiate_connection()
    engine.data_to_send()
    engine.receive(frames.PREFACE + frames.settings())
    stream, _fields = engine.open_stream(1, frames.block(fields()), False)
    engine.output.take()
    return engine, stream


def opens_streams(engine: Engine, stream: Any) -> None:
    assert engine._begin_new_stream(3, h2.connection.AllowedStreamIDs.ODD) is engine.streams[3]
    assert engine.highest_inbound_stream_id == 3
    with pytest.raises(h2.exceptions.StreamIDTooLowError):
        engine._begin_new_stream(3, h2.connection.AllowedStreamIDs.ODD)


def knows_closed_streams(engine: Engine, stream: Any) -> None:
    assert engine._closed_streams is engine.closed_streams
    stream.state_machine.process_input(StreamInputs.RECV_RST_STREAM)
    engine.forget(stream)
    assert engine._stream_is_closed_by_reset(1)
    assert not engine._stream_is_closed_by_end(1)
    _events, resets = engine.receive(frames.headers(1, [(b"x", b"y")]))
    assert resets == 1


def closed_by_end(engine: Engine, stream: Any) -> None:
    engine.closed_streams.remember(99, StreamClosedBy.SEND_END_STREAM)
    assert engine._stream_is_closed_by_end(99)
    assert not engine._stream_is_closed_by_reset(99)


def collects_output(engine: Engine, stream: Any) -> None:
    engine._prepare_for_sending([])
    assert isinstance(engine._data_to_send, bytearray)
    engine.send_reset(1, 8)
    assert engine.output.take() == frames.rst(1, 8)
    assert not engine._data_to_send


def changes_windows(engine: Engine, stream: Any) -> None:
    changes: list[tuple[int, int]] = []
    engine.watch(lambda _stream: None, lambda initial, delta: changes.append((initial, delta)))
    engine.receive(frames.settings((4, 70_000)))
    assert changes == [(70_000, 70_000 - 65535)]
    assert stream.outbound_flow_control_window == 70_000


def dispatches(engine: Engine, stream: Any) -> None:
    assert len(engine._frame_dispatch_table) > 5
    assert "_frame_dispatch_table" in inspect.getsource(H2Connection._receive_frame)
    engine.let_go()
    with pytest.raises(KeyError):
        engine.receive(frames.ping())


def counts_the_connection_window(engine: Engine, stream: Any) -> None:
    assert engine._inbound_flow_control_window_manager is engine.receive_window
    engine.receive(frames.data(1, b"abc"))
    assert engine.receive_window.current_window_size == 65535 - 3
    engine.receive_window.current_window_size = 2
    with pytest.raises(h2.exceptions.FlowControlError):
        engine.receive(frames.data(1, b"abc"))


def counts_a_stream_s_window(engine: Engine, stream: Any) -> None:
    made = engine.make_stream(3, 2, 5, False, ())
    assert made.inbound_flow_control_window == made._inbound_window_manager.current_window_size == 2
    engine.highest_inbound_stream_id = 3
    with pytest.raises(h2.exceptions.FlowControlError):
        engine.receive(frames.data(3, b"abc"))


def receives(engine: Engine, stream: Any) -> None:
    assert "self._receive_frame(frame)" in inspect.getsource(H2Connection.receive_data)


def tells_of_a_reset_by_an_error(engine: Engine, stream: Any) -> None:
    stream.state_machine.process_input(StreamInputs.RECV_END_STREAM)
    events, resets = engine.receive(frames.headers(1, [(b"x", b"y")]))
    assert resets == 1
    assert [type(event).__name__ for event in events] == ["StreamReset"]


USES = {
    "H2Connection._begin_new_stream": opens_streams,
    "H2Connection._closed_streams": knows_closed_streams,
    "H2Connection._data_to_send": collects_output,
    "H2Connection._flow_control_change_from_settings": changes_windows,
    "H2Connection._frame_dispatch_table": dispatches,
    "H2Connection._inbound_flow_control_window_manager": counts_the_connection_window,
    "H2Connection._prepare_for_sending": collects_output,
    "H2Connection._receive_frame": receives,
    "H2Connection._stream_is_closed_by_end": closed_by_end,
    "H2Connection._stream_is_closed_by_reset": knows_closed_streams,
    "H2Stream._inbound_window_manager": counts_a_stream_s_window,
    "StreamClosedError._events": tells_of_a_reset_by_an_error,
}


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_h2_still_has(name: str) -> None:
    USES[name](*an_engine())


def test_the_first_request_of_a_connection_is_noted() -> None:
    engine = Engine(Config())
    engine.initiate_connection()
    assert engine.state_machine.state is ConnectionState.IDLE
    engine.begin_serving()
    assert engine.state_machine.state is ConnectionState.SERVER_OPEN


def test_there_are_no_other_private_names_of_h2() -> None:
    tree = ast.parse(Path(engine_module.__file__).read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) if node.attr.startswith("_")}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) if node.name.startswith("_")}
    theirs = {name for name in used if not name.startswith("__")} - {
        "_collect",
        "_decoder",
        "_latest",
        "_none_such",
        "_no_windows",
        "_plain_streams",
        "_reset",
        "_windows_changed",
    }
    assert theirs == {name.partition(".")[2] for name in PRIVATE_NAMES}
    # No other module touches h2 itself.
    directory = Path(engine_module.__file__).parent
    for path in directory.glob("*.py"):
        if path.name != "engine.py":
            assert "_engine._" not in path.read_text(encoding="utf-8")
            assert "h2._" not in path.read_text(encoding="utf-8")


def test_closed_streams_are_a_mapping_as_far_as_h2_needs_one() -> None:
    closed = ClosedStreams()
    closed.remember(1, None)
    assert 1 in closed
    assert 3 not in closed
    assert closed[1] is None
    with pytest.raises(KeyError):
        closed[3]

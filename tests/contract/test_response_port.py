"""What every `ResponsePort` does with the calls that its contract allows (see ``daphne_ng.port``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from daphne_ng.errors import BodyLengthMismatch, InvalidHeader
from tests.contract.ports import PORTS, WIRES

HEADERS = [(b"x-a", b"1"), (b"x-b", b""), (b"x-a", b"2")]
LINKS = [(b"link", b"</a.css>; rel=preload")]
BAD = [(b"x", b"y\r\nz: 1")]


@pytest.fixture(params=PORTS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return PORTS[request.param]


@pytest.fixture(params=WIRES)
def make_wire(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return WIRES[request.param]


class TestResponse:
    def test_in_one_call(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.start(201, HEADERS, b"hello", True, False)
        seen = harness.seen()
        assert (seen.status, seen.body, seen.complete) == (201, b"hello", True)
        assert [field for field in seen.headers if field[0].startswith(b"x-")] == HEADERS
        assert harness.port.body_bytes_sent == 5

    def test_without_a_body(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.start(200, [], b"", True, False)
        assert harness.seen().complete
        assert harness.seen().body == b""
        assert harness.port.body_bytes_sent == 0

    def test_in_parts(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.start(200, HEADERS, b"a", False, False)
        harness.port.body(b"bc", False)
        assert not harness.seen().complete or not harness.seen().body
        harness.port.body(b"d", True)
        assert harness.seen().body == b"abcd"
        assert harness.seen().complete
        assert harness.port.body_bytes_sent == 4

    def test_empty_parts_change_nothing(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.start(200, [], b"", False, False)
        harness.port.body(b"", False)
        harness.port.body(b"a", False)
        harness.port.body(b"", False)
        harness.port.body(b"", True)
        assert harness.seen().body == b"a"
        assert harness.seen().complete

    def test_with_the_applications_content_length(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.start(200, [(b"content-length", b"3")], b"a", False, False)
        harness.port.body(b"bc", True)
        assert harness.seen().body == b"abc"
        assert harness.seen().complete

    def test_ended_by_trailers(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.start(200, [], b"a", False, True)
        harness.port.body(b"b", False)
        harness.port.trailers([(b"x-sum", b"1")])
        assert harness.seen().body == b"ab"
        assert harness.seen().complete

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_headers_are_any_sequence_of_pairs(self, make: Callable[..., Any], kind: type) -> None:
        harness = make()
        harness.port.start(200, kind(kind(pair) for pair in HEADERS), b"", True, False)
        assert [field for field in harness.seen().headers if field[0].startswith(b"x-")] == HEADERS

    def test_there_is_room_at_first(self, make: Callable[..., Any]) -> None:
        assert make().port.writable() is None


class TestInvalidHeader:
    def test_nothing_is_written_and_another_start_is_allowed(self, make: Callable[..., Any]) -> None:
        harness = make()
        for _ in range(2):
            with pytest.raises(InvalidHeader):
                harness.port.start(200, BAD, b"a", True, False)
        assert harness.seen().status is None
        harness.port.start(500, [], b"sorry", True, False)
        assert (harness.seen().status, harness.seen().body) == (500, b"sorry")

    def test_in_trailers_the_response_has_not_ended(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.start(200, [], b"a", False, True)
        with pytest.raises(InvalidHeader):
            harness.port.trailers(BAD)
        harness.port.trailers([])
        assert harness.seen().complete


class TestBodyLengthMismatch:
    @pytest.mark.parametrize("end", [False, True])
    def test_too_much_in_the_first_part_is_cut_and_ends(self, make: Callable[..., Any], end: bool) -> None:
        harness = make()
        with pytest.raises(BodyLengthMismatch):
            harness.port.start(200, [(b"content-length", b"3")], b"abcd", end, False)
        assert harness.seen().body == b"abc"
        assert harness.seen().complete
        assert harness.port.body_bytes_sent == 3

    @pytest.mark.parametrize("end", [False, True])
    def test_too_much_later_is_cut_and_ends(self, make: Callable[..., Any], end: bool) -> None:
        harness = make()
        harness.port.start(200, [(b"content-length", b"3")], b"ab", False, False)
        with pytest.raises(BodyLengthMismatch):
            harness.port.body(b"cd", end)
        assert harness.seen().body == b"abc"
        assert harness.seen().complete
        assert harness.port.body_bytes_sent == 3

    def test_too_little_does_not_look_complete(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire()
        harness.port.start(200, [(b"content-length", b"3")], b"ab", True, False)
        assert not harness.seen().complete


class TestInformational:
    def test_any_number_before_the_start(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.informational(103, LINKS)
        harness.port.informational(103, LINKS)
        harness.port.start(200, [], b"a", True, False)
        assert harness.seen().interim == ([103, 103] if harness.interim_possible else [])
        assert (harness.seen().status, harness.seen().body) == (200, b"a")


class TestReset:
    def test_before_the_start(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.reset("no answer")
        assert not harness.seen().complete

    def test_in_the_middle(self, make: Callable[..., Any]) -> None:
        harness = make()
        harness.port.start(200, [], b"a", False, False)
        harness.port.reset("the application failed")
        assert not harness.seen().complete

    def test_the_exchange_is_not_told_what_it_did_itself(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire(10)
        harness.port.reset("the application failed")
        harness.leave()
        assert harness.sink.reason is None


class TestSink:
    """The other direction. `RecordingSink` fails on a second end, a second disconnect, and on body after either."""

    def test_a_request_without_a_body(self, make_wire: Callable[..., Any]) -> None:
        assert make_wire().sink.ended

    def test_body_parts_in_order_and_one_end(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire(4)
        assert not harness.sink.ended
        for part in (b"ab", b"c", b"d"):
            harness.deliver(part)
        assert harness.sink.body == b"abcd"
        assert harness.sink.ended

    def test_one_disconnect(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire(4)
        harness.deliver(b"a")
        harness.leave()
        harness.leave()
        assert harness.sink.reason
        assert not harness.sink.ended

    def test_no_disconnect_after_the_response(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire()
        harness.port.start(200, [], b"", True, False)
        harness.leave()
        assert harness.sink.reason is None

    def test_no_body_after_abandon(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire(4)
        harness.deliver(b"a")
        harness.port.start(200, [], b"early", True, False)
        harness.port.abandon()
        harness.deliver(b"bcd")
        assert harness.sink.body == b"a"
        assert not harness.sink.ended
        assert harness.seen().complete

    def test_a_response_may_end_before_the_body_is_read(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire(1000)
        harness.port.start(200, [], b"a", False, False)
        harness.deliver(b"b" * 10)
        harness.port.body(b"c", True)
        harness.port.abandon()
        assert harness.seen().body == b"ac"
        assert harness.seen().complete

    def test_a_full_sink_pauses_reading_until_consumed(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire(1000)
        harness.deliver(b"b" * 100)
        assert not harness.reading
        harness.sink.buffered = 0
        harness.port.consumed(100)
        assert harness.reading

    def test_a_broken_protocol_behind_the_request_does_not_disturb_it(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire()
        harness.break_protocol()
        assert harness.sink.reason is None
        harness.port.start(200, [(b"connection", b"close")], b"fine", True, False)
        assert harness.seen().body == b"fine"
        assert harness.seen().complete

    def test_expiry_is_told_once_and_leaves_the_answer_to_the_exchange(self, make_wire: Callable[..., Any]) -> None:
        harness = make_wire(http_timeout=10)
        harness.wait(100)
        assert harness.sink.expirations == 1
        harness.port.start(503, [], b"late", True, False)
        assert harness.seen().status == 503

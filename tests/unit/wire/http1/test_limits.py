"""Sizes and counts that a client can drive up: each bound, one below it and one above it."""

from __future__ import annotations

import pytest

from tests.support.h1 import Http1Server, Replies, Response, bytewise, chunked, chunked_request, request
from tests.unit.wire.http1.test_attacks import refused

KIB = 1024


def slices(data: bytes, size: int) -> list[bytes]:
    return [data[index : index + size] for index in range(0, len(data), size)]


class TestRequestLine:
    def test_longest_target_is_served(self) -> None:
        target = b"/" + b"a" * 99
        for parts in ([request(target)], bytewise(request(target))):
            server = Http1Server(Replies(), request_line_max_bytes=100).feed(*parts)
            assert server.targets == [target]

    def test_one_byte_more_is_414(self) -> None:
        data = request(b"/" + b"a" * 100)
        for parts in ([data], bytewise(data)):
            server = Http1Server(Replies(), request_line_max_bytes=100).feed(*parts)
            assert server.targets == []
            refused(server, 414)

    def test_a_target_without_end_is_414_at_the_default_of_8_kib(self) -> None:
        server = Http1Server().feed(b"GET /", *[b"a" * KIB] * 7)
        assert server.state == "open"
        server.feed(b"a" * KIB)
        refused(server, 414)

    def test_a_query_counts(self) -> None:
        refused(Http1Server(request_line_max_bytes=100).feed(request(b"/?" + b"a" * 99)), 414)


class TestHead:
    def test_a_large_head_within_the_bound_is_served(self) -> None:
        field = b"Cookie: " + b"c" * 60000
        for parts in ([request(b"/", field)], slices(request(b"/", field), 1000)):
            server = Http1Server(Replies()).feed(*parts)
            assert server.targets == [b"/"]
            assert server.statuses == [200]

    @pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
    def test_a_head_beyond_the_bound_is_431(self, size: int) -> None:
        data = request(b"/", b"Cookie: " + b"c" * 2000)
        server = Http1Server(Replies(), head_max_bytes=1000).feed(*slices(data, size))
        assert server.targets == []
        refused(server, 431)

    @pytest.mark.parametrize("size", [1, 7, 1 << 20])
    def test_a_head_beyond_the_bound_behind_a_good_request_is_431(self, size: int) -> None:
        data = request(b"/1") + request(b"/", b"Cookie: " + b"c" * 2000)
        server = Http1Server(Replies(), head_max_bytes=1000).feed(*slices(data, size))
        assert server.targets == [b"/1"]
        refused(server, 431, before=1)

    def test_a_value_without_end_is_431(self) -> None:
        server = Http1Server().feed(b"GET / HTTP/1.1\r\nA: ", *[b"a" * 4096] * 16)
        refused(server, 431)

    def test_a_name_without_end_is_431(self) -> None:
        server = Http1Server().feed(b"GET / HTTP/1.1\r\n", *[b"a" * 4096] * 16)
        refused(server, 431)

    def test_white_space_without_end_is_431(self) -> None:
        server = Http1Server().feed(b"GET / HTTP/1.1\r\nA:", *[b" " * 4096] * 16)
        refused(server, 431)

    def test_heads_of_one_read_do_not_add_up(self) -> None:
        server = Http1Server(Replies(), head_max_bytes=100, pipelined_max=100).feed(request(b"/") * 50)
        assert server.statuses == [200] * 50

    def test_a_body_does_not_count(self) -> None:
        data = request(b"/", method=b"POST", body=b"b" * 5000)
        for parts in ([data], [data[:70], data[70:]], bytewise(data)):
            server = Http1Server(Replies(), head_max_bytes=150).feed(*parts)
            assert server.statuses == [200]

    def test_most_fields_are_served(self) -> None:
        server = Http1Server(Replies()).feed(request(b"/", *[b"A: b"] * 199))
        assert len(server.head.headers) == 200
        assert server.statuses == [200]

    def test_one_field_more_is_431(self) -> None:
        data = request(b"/", *[b"A: b"] * 200)
        for parts in ([data], bytewise(data)):
            server = Http1Server(Replies()).feed(*parts)
            assert server.targets == []
            refused(server, 431)

    def test_empty_lines_before_a_request_are_no_head(self) -> None:
        for parts in (
            [b"\r\n" + request(b"/")],
            [b"\r", b"\n", b"\r\n", request(b"/")],
            [b"\r\n", *bytewise(request(b"/"))],
        ):
            server = Http1Server(Replies()).feed(*parts)
            assert server.statuses == [200]


class TestBody:
    def test_content_length_beyond_the_bound_is_413_before_the_application(self) -> None:
        server = Http1Server(body_max_bytes=10).feed(request(b"/", method=b"POST", body=b"b" * 11))
        assert server.targets == []
        refused(server, 413)

    def test_content_length_at_the_bound_is_served(self) -> None:
        server = Http1Server(Replies(), body_max_bytes=10).feed(request(b"/", method=b"POST", body=b"b" * 10))
        assert server.statuses == [200]

    def test_expectation_of_a_body_beyond_the_bound_is_413_without_continue(self) -> None:
        head = request(b"/", b"Content-Length: 11", b"Expect: 100-continue", method=b"POST")
        server = Http1Server(body_max_bytes=10).feed(head)
        (response,) = server.responses("POST")
        assert response.interim == []
        refused(server, 413)

    def test_chunks_at_the_bound_are_served(self) -> None:
        server = Http1Server(Replies(), body_max_bytes=10).feed(chunked_request(b"b" * 5, b"b" * 5))
        assert server.statuses == [200]

    def test_chunks_beyond_the_bound_are_413(self) -> None:
        data = chunked_request(b"b" * 5, b"b" * 6)
        server = Http1Server(body_max_bytes=10).feed(data)
        assert server.targets == []
        refused(server, 413)
        server = Http1Server(body_max_bytes=10).feed(*bytewise(data))
        assert not server.sink.ended
        assert server.sink.reason
        assert len(server.sink.body) <= 10
        refused(server, 413)

    def test_chunks_beyond_the_bound_cut_a_response_that_has_begun(self) -> None:
        server = Http1Server(body_max_bytes=10).feed(request(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
        server.port.start(200, [], b"begun", False, False)
        server.feed(chunked(b"b" * 11))
        assert server.sink.reason
        assert server.state == "aborted"
        (response,) = server.responses()
        assert not response.complete
        assert server.driver.refusals[0][0] == 413

    def test_no_bound_by_default(self) -> None:
        server = Http1Server(Replies()).feed(request(b"/", b"Content-Length: 1000000", method=b"POST"))
        server.feed(*[b"b" * 10000] * 100)
        assert server.statuses == [200]


class TestPipelining:
    def test_reading_pauses_at_the_bound_and_resumes_below_it(self) -> None:
        server = Http1Server(pipelined_max=3).feed(request(b"/0"))
        server.feed(request(b"/1"), request(b"/2"))
        assert server.driver.reading
        server.feed(request(b"/3"))
        assert not server.driver.reading
        server.answer()
        assert server.driver.reading
        for _ in range(3):
            server.answer()
        assert server.targets == [b"/0", b"/1", b"/2", b"/3"]

    def test_one_read_of_many_requests_is_served_in_order(self) -> None:
        server = Http1Server(Replies()).feed(b"".join(request(b"/%d" % number) for number in range(500)))
        assert server.targets == [b"/%d" % number for number in range(500)]
        assert server.statuses == [200] * 500
        assert server.driver.reading

    def test_a_flood_of_requests_pauses_reading(self) -> None:
        # A client that sends and never waits for answers.
        server = Http1Server().feed(request(b"/") * 2000)
        assert len(server.sinks) == 1
        assert not server.driver.reading

    def test_the_body_of_a_waiting_request_pauses_reading(self) -> None:
        server = Http1Server(inbox_high_bytes=100, inbox_low_bytes=10).feed(request(b"/slow"))
        server.feed(request(b"/up", b"Content-Length: 1000", method=b"POST") + b"b" * 99)
        assert server.driver.reading
        server.feed(b"b")
        assert not server.driver.reading
        server.answer()
        assert server.targets == [b"/slow", b"/up"]
        assert server.driver.reading
        assert server.sink.body == b"b" * 100
        server.feed(b"b" * 900)
        assert server.sink.ended

    def test_a_waiting_request_with_a_large_body_is_delivered_paused(self) -> None:
        server = Http1Server(inbox_high=100, inbox_high_bytes=100, inbox_low_bytes=10).feed(request(b"/slow"))
        server.feed(request(b"/up", b"Content-Length: 1000", method=b"POST") + b"b" * 150)
        server.answer()
        assert server.targets == [b"/slow", b"/up"]
        assert not server.driver.reading, "its sink asked for the pause to go on"
        server.sink.buffered = 0
        server.port.consumed(150)
        assert server.driver.reading


class TestTrailers:
    def test_most_and_largest_are_served(self) -> None:
        server = Http1Server(Replies(), trailer_max_bytes=64, trailer_max_fields=4).feed(
            chunked_request(b"x", trailers=b"Aa: 0123456789\r\n" * 4)
        )
        assert server.statuses == [200]
        assert len(server.sink.trailers) == 4

    @pytest.mark.parametrize("trailers", [b"Aa: 01234567890\r\n" * 4, b"A: b\r\n" * 5, b"A: " + b"b" * 62 + b"\r\n"])
    def test_beyond_the_bound_is_431(self, trailers: bytes) -> None:
        data = chunked_request(b"x", trailers=trailers)
        for parts in ([data], bytewise(data)):
            server = Http1Server(Replies(), trailer_max_bytes=64, trailer_max_fields=4).feed(*parts)
            assert not any(sink.ended for sink in server.sinks)
            refused(server, 431)

    def test_a_trailer_without_end_is_refused(self) -> None:
        server = Http1Server().feed(chunked_request(b"x")[:-2] + b"A: ", *[b"a" * 4096] * 18)
        assert not server.sink.ended
        refused(server, 400)


class TestChunkOverhead:
    def test_a_chunk_extension_without_end_is_refused(self) -> None:
        server = Http1Server().feed(chunked_request()[:-5] + b"5;", *[b"a" * 4096] * 18)
        assert not server.sink.ended
        refused(server, 400)

    def test_many_chunk_extensions_are_refused(self) -> None:
        head = request(b"/", b"Transfer-Encoding: chunked", method=b"POST")
        server = Http1Server().feed(head, *[b"1;" + b"a" * 1000 + b"\r\nx\r\n"] * 70)
        assert not server.sink.ended
        refused(server, 400)

    def test_short_chunk_extensions_pass(self) -> None:
        head = request(b"/", b"Transfer-Encoding: chunked", method=b"POST")
        server = Http1Server(Replies()).feed(head, *[b'5;a;b=c;d="e"\r\nhello\r\n'] * 100, b"0;last\r\n\r\n")
        assert server.statuses == [200]
        assert server.sink.body == b"hello" * 100

    def test_an_honest_stream_of_single_bytes_passes(self) -> None:
        head = request(b"/", b"Transfer-Encoding: chunked", method=b"POST")
        server = Http1Server(Replies()).feed(head, *[b"1\r\nx\r\n" * 10] * 3000, b"0\r\n\r\n")
        assert server.statuses == [200]

    def test_overhead_does_not_carry_over_to_the_next_body(self) -> None:
        body = chunked_request()[:-5] + b"1;" + b"a" * 900 + b"\r\nx\r\n0\r\n\r\n"
        server = Http1Server(Replies(), chunk_overhead_max_bytes=1024).feed(*slices(body * 10, 300))
        assert server.statuses == [200] * 10


class TestInbox:
    """The sink's own bound: reading pauses when it says so."""

    def test_reading_pauses_and_resumes_when_consumed(self) -> None:
        server = Http1Server(inbox_high=100).feed(request(b"/", b"Content-Length: 1000", method=b"POST"))
        server.feed(b"b" * 99)
        assert server.driver.reading
        server.feed(b"b")
        assert not server.driver.reading
        server.sink.buffered = 0
        server.port.consumed(100)
        assert server.driver.reading

    def test_the_response_may_end_while_reading_is_paused(self) -> None:
        server = Http1Server(inbox_high=100).feed(request(b"/", b"Content-Length: 1000", method=b"POST") + b"b" * 100)
        assert not server.driver.reading
        server.answer()
        assert server.driver.reading
        server.feed(b"b" * 900 + request(b"/next"))
        assert server.targets == [b"/", b"/next"]

    def test_a_body_that_ended_while_reading_is_paused_leaves_no_pause_behind(self) -> None:
        server = Http1Server(inbox_high=100).feed(request(b"/", method=b"POST", body=b"b" * 100))
        assert server.sink.ended
        server.answer()
        assert server.driver.reading
        server.feed(request(b"/next"))
        server.answer()
        responses: list[Response] = server.responses()
        assert [response.status for response in responses] == [200, 200]


class TestAnswersThatAreNotTaken:
    """Some are given by the server, which does not wait for room as an application does that sends."""

    @pytest.mark.parametrize("together", [True, False], ids=["pipelined", "one by one"])
    def test_nothing_begins_while_the_transport_is_full(self, together: bool) -> None:
        server = Http1Server(pipelined_max=4)
        server.driver.refuse = lambda _head: server.port.start(503, [], b"", True, False)
        server.feed(request(b"/"))
        server.driver.is_full = True
        fed = 1
        while server.driver.reading:
            server.feed(request(b"/") * (4 if together else 1))
            fed += 4 if together else 1
        assert fed == 5
        assert server.statuses == [503]
        server.advance(20)
        assert server.state == "open"
        server.driver.is_full = False
        server.turn()
        assert server.statuses == [503] * 5
        assert server.driver.reading

    def test_a_client_that_leaves_meanwhile_is_noticed(self) -> None:
        server = Http1Server(pipelined_max=1)
        server.driver.is_full = True
        server.feed(request(b"/"))
        assert not server.driver.reading
        server.driver.gone = True
        server.advance(5)
        assert server.state == "closed"
        assert server.sinks == []

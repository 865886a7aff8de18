"""Requests on an HTTP/2 connection: heads, bodies, and what is wrong with them."""

from __future__ import annotations

import pytest

from tests.support import h2
from tests.support.h2 import Http2Server, echo, fields

BAD_REQUESTS = {
    "no path": [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a")],
    "an upper-case name": fields(b"GET", b"/", (b"X-A", b"1")),
    "a connection field": fields(b"GET", b"/", (b"connection", b"close")),
    "a late pseudo-header field": [*fields(), (b":path", b"/x")],
    "a length that is none": fields(b"GET", b"/", (b"content-length", b"-1")),
    "two lengths": fields(b"POST", b"/", (b"content-length", b"1"), (b"content-length", b"2")),
    "two hosts": fields(b"GET", b"/", (b"host", b"other.example")),
    "a CONNECT": [(b":method", b"CONNECT"), (b":authority", b"a:443")],
    "a line end in a value": fields(b"GET", b"/", (b"x", b"a\r\nb: c")),
}


class TestHead:
    def test_of_a_request(self) -> None:
        server = Http2Server()
        server.request(b"GET", b"/a%20b?c=d", (b"cookie", b"x=1"), (b"cookie", b"y=2"))
        head = server.sink.head
        assert (head.method, head.path, head.query_string, head.http_version) == ("GET", "/a b", b"c=d", "2")
        assert head.headers[0] == (b"host", b"example.com")
        assert (b"cookie", b"x=1; y=2") in head.headers
        assert server.sink.ended

    def test_requests_begin_in_order_after_the_whole_read(self) -> None:
        server = Http2Server()
        server.feed(b"".join(h2.headers(n, fields(b"GET", b"/%d" % n)) for n in (1, 3, 5)))
        assert [sink.head.path for sink in server.sinks] == ["/1", "/3", "/5"]

    def test_that_repeats_itself_means_the_same_until_the_table_changes(self) -> None:
        server = Http2Server()
        # (x-a, 1) and (x-b, 2) are put into the table; after the second the index 62 is another field.
        insert = [b"\x40\x03x-a\x011", b"\x40\x03x-b\x012"]
        fixed = h2.block(fields(b"GET", b"/?a=b"))
        seen = []
        for stream in range(1, 25, 2):
            more = insert[stream // 13] if stream in (1, 13) else b"\xbe"
            server.feed(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, fixed + more))
            head = server.sink.head
            assert (head.method, head.path, head.query_string, head.content_length) == ("GET", "/", b"a=b", 0)
            seen.append(head.headers[-1])
            head.headers.clear()  # as an application may, which has the list in its scope
            server.answer(b"fine")
            assert server.response(stream).body == b"fine"
        assert seen == [(b"x-a", b"1")] * 6 + [(b"x-b", b"2")] * 6

    def test_that_repeats_another_may_have_a_body(self) -> None:
        server = Http2Server()
        block = h2.block(fields(b"POST"))
        for stream in range(1, 15, 2):
            ended = h2.END_STREAM if stream % 4 == 3 else 0
            server.feed(h2.frame(h2.HEADERS, h2.END_HEADERS | ended, stream, block))
            assert server.sink.head.content_length == (0 if ended else -1)
            assert server.sink.ended == bool(ended)
            if not ended:
                server.feed(h2.data(stream, b"body", end=True))
                assert server.sink.body == b"body"

    def test_that_repeats_itself_counts_against_the_limit(self) -> None:
        server = Http2Server(http2_max_concurrent_streams=3)
        for _ in range(5):
            server.request()
        assert len(server.sinks) == 3
        assert [server.response(stream).reset for stream in (7, 9)] == [h2.REFUSED_STREAM] * 2

    def test_in_continuation_frames(self) -> None:
        server = Http2Server()
        block = h2.block(fields(b"GET", b"/long", (b"x", b"y" * 100)))
        server.feed(h2.frame(h2.HEADERS, h2.END_STREAM, 1, block[:10]), h2.continuation(1, block[10:50]))
        assert not server.sinks
        server.feed(h2.continuation(1, block[50:], end=True))
        assert server.sink.head.path == "/long"

    @pytest.mark.parametrize("why", BAD_REQUESTS)
    def test_a_malformed_one_resets_its_stream_and_nothing_else(self, why: str) -> None:
        server = Http2Server()
        first = server.request()
        server.feed(h2.headers(3, BAD_REQUESTS[why]))
        assert server.response(3).reset == h2.PROTOCOL_ERROR
        assert len(server.sinks) == 1
        assert server.driver.refusals[0][0] == 400
        server.sinks[0].stream.start(200, [], b"fine", True, False)
        assert server.response(first).body == b"fine"
        server.feed(h2.headers(5))
        assert len(server.sinks) == 2

    @pytest.mark.parametrize(
        ("status", "names", "settings"),
        [
            (414, fields(b"GET", b"/" + b"x" * 100), {"request_line_max_bytes": 50}),
            (431, fields(b"GET", b"/", *((b"x-%d" % n, b"") for n in range(20))), {"head_max_fields": 10}),
            (413, fields(b"POST", b"/", (b"content-length", b"11")), {"body_max_bytes": 10}),
            (501, fields(b"BREW", b"/"), {}),
            (417, fields(b"POST", b"/", (b"expect", b"more")), {}),
            (501, [(b":method", b"CONNECT"), (b":protocol", b"masque"), *fields()[1:]], {}),
        ],
    )
    @pytest.mark.parametrize("end", [True, False])
    def test_one_that_is_refused_is_answered(
        self, status: int, names: h2.Fields, settings: dict[str, int], end: bool
    ) -> None:
        if end and status == 413:
            return
        server = Http2Server(**settings)
        server.feed(h2.headers(1, names, end=end))
        server.response(1)  # h2's client never sent the request, so it judges nothing here
        assert [frame[0] for frame in server.client.frames if frame[2] == 1] == [h2.HEADERS, h2.DATA]
        server.advance(5.1)
        server.response(1)
        frames = [frame[0] for frame in server.client.frames if frame[2] == 1]
        assert frames == [h2.HEADERS, h2.DATA] + ([] if end else [h2.RST_STREAM])
        assert not server.sinks
        assert server.driver.refusals == [(status, server.driver.refusals[0][1])]
        assert server.idle

    def test_priority_and_self_dependency(self) -> None:
        server = Http2Server()
        block = h2.block(fields())
        server.feed(h2.frame(h2.HEADERS, 0x25, 1, b"\0\0\0\x01\x0f" + block))
        assert server.client.frames_of(h2.RST_STREAM, 1)
        server.feed(h2.frame(h2.HEADERS, 0x25, 3, b"\0\0\0\x01\x0f" + block))
        assert len(server.sinks) == 1
        # Also in a frame of its own, unless it comes after we have reset the stream.
        server.feed(h2.priority(3, 3))
        assert server.client.frames_of(h2.RST_STREAM, 3) == [b"\0\0\0\x01"]
        server.feed(h2.priority(3, 3))
        assert server.failure is None
        server.feed(h2.priority(5, 5))
        assert server.failure == h2.PROTOCOL_ERROR


class TestBody:
    def test_in_parts(self) -> None:
        server = Http2Server()
        stream = server.request(b"POST", b"/", end=False)
        server.send(stream, b"ab")
        server.send(stream, b"cd", end=True)
        assert server.sink.parts == [b"ab", b"cd"]
        assert server.sink.ended

    def test_in_the_same_read_as_the_head(self) -> None:
        server = Http2Server()
        server.feed(h2.headers(1, fields(b"POST"), end=False) + h2.data(1, b"ab") + h2.data(1, b"c", True))
        assert b"".join(server.sink.parts) == b"abc"
        assert server.sink.ended

    def test_padding_is_thrown_away(self) -> None:
        server = Http2Server()
        server.feed(h2.headers(1, fields(b"POST"), end=False) + h2.data(1, b"ab", True, padding=200))
        assert server.sink.body == b"ab"

    @pytest.mark.parametrize("parts", [[b"abcd"], [b"ab", b"cd"], [b""]])
    def test_that_is_not_as_long_as_announced_resets_the_stream(self, parts: list[bytes]) -> None:
        server = Http2Server()
        other = server.request(b"POST", end=False)
        server.feed(h2.headers(3, fields(b"POST", b"/", (b"content-length", b"3")), end=False))
        for n, part in enumerate(parts):
            server.feed(h2.data(3, part, end=n == len(parts) - 1))
        assert server.client.frames_of(h2.RST_STREAM, 3) == [b"\0\0\0\x01"]
        assert server.sinks[1].reason
        server.send(other, b"x", True)
        assert server.sinks[0].ended

    def test_trailers_are_checked_and_dropped(self) -> None:
        server = Http2Server()
        stream = server.request(b"POST", end=False)
        server.client.h2.send_headers(stream, [(b"x-sum", b"1")], end_stream=True)
        server.sync()
        assert server.sink.ended
        assert server.sink.trailers == []
        server.feed(h2.headers(3, fields(b"POST"), end=False), h2.headers(3, [(b":path", b"/")]))
        assert server.client.frames_of(h2.RST_STREAM, 3) == [b"\0\0\0\x01"]

    def test_trailers_that_do_not_end_the_stream(self) -> None:
        server = Http2Server()
        server.feed(h2.headers(1, fields(b"POST"), end=False), h2.headers(1, [(b"x", b"y")], end=False))
        assert server.client.frames_of(h2.RST_STREAM, 1) == [b"\0\0\0\x01"]
        assert server.sink.reason
        assert server.failure is None

    def test_without_a_limit_known_in_advance_is_answered_413(self) -> None:
        server = Http2Server(body_max_bytes=10)
        stream = server.request(b"POST", end=False)
        server.send(stream, b"x" * 11)
        assert (server.response(stream).status, server.response(stream).reset) == (413, None)
        assert server.sink.reason
        # The client may be one that looks for the answer when it has sent everything: it can go on for a moment.
        server.send(stream, b"x" * 60_000)
        for _ in range(5):
            server.advance(4)
            server.send(stream, b"x")
        assert server.response(stream).reset is None, "it goes on sending"
        server.advance(5.1)
        assert server.response(stream).reset == h2.NO_ERROR

    def test_that_goes_on_for_too_long_behind_its_answer_is_reset(self) -> None:
        server = Http2Server(drain_timeout=10, drain_pause_timeout=3)
        stream = server.request(b"POST", end=False)
        server.answer(b"no")
        for _ in range(4):
            server.advance(2)
            server.send(stream, b"x")
        assert server.response(stream).reset is None
        server.advance(2)
        assert server.response(stream).reset == h2.NO_ERROR

    def test_that_does_not_come_is_answered_408(self) -> None:
        server = Http2Server()
        stream = server.request(b"POST", end=False)
        server.advance(50)
        server.send(stream, b"x")
        server.advance(50)
        assert server.response(stream).status is None
        server.advance(15)
        assert server.response(stream).status == 408
        assert server.sink.reason
        assert server.driver.refusals[0][0] == 408

    def test_that_is_not_read_is_answered_408(self) -> None:
        server = Http2Server(inbox_high=10)
        stream = server.request(b"POST", end=False)
        server.send(stream, b"x" * 10)
        server.advance(299)
        assert server.response(stream).status is None
        server.advance(2)
        assert server.response(stream).status == 408

    def test_that_nobody_wants_is_dropped_if_it_is_short(self) -> None:
        server = Http2Server()
        stream = server.request(b"POST", b"/", (b"content-length", b"1000"), end=False)
        server.answer(b"no")
        assert server.response(stream).complete
        server.send(stream, b"x" * 1000, True)
        assert server.response(stream).reset is None
        assert server.idle

    @pytest.mark.parametrize("length", [0, 100_000])
    def test_that_nobody_wants_ends_in_a_reset_behind_the_response(self, length: int) -> None:
        server = Http2Server()
        names = [(b"content-length", b"%d" % length)] if length else []
        stream = server.request(b"POST", b"/", *names, end=False)
        server.answer(b"no")
        server.advance(5)
        assert server.response(stream).complete
        assert server.response(stream).reset == h2.NO_ERROR
        assert server.idle

    def test_of_a_client_that_waits_to_be_asked(self) -> None:
        server = Http2Server()
        stream = server.request(b"POST", b"/", (b"expect", b"100-continue"), end=False)
        server.stream.informational(100, [])
        server.stream.informational(100, [])
        assert server.response(stream).interim == [100]


class TestWebSocket:
    NAMES = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *fields()[1:], (b"sec-websocket-version", b"13")]

    def test_is_tunnelled(self) -> None:
        server = Http2Server()
        server.feed(h2.headers(1, [*self.NAMES, (b"sec-websocket-protocol", b"a, b")], end=False))
        assert server.sink.request is not None
        assert server.sink.request.key is None
        assert server.sink.request.subprotocols == ["a", "b"]
        server.sink.websocket = None
        server.stream.open_tunnel([(b"sec-websocket-protocol", b"a")])
        server.stream.send(b"hello")
        server.feed(h2.data(1, b"world"))
        assert server.sink.body == b"world"
        server.stream.finish()
        server.feed(h2.data(1, b"", True))
        assert server.sink.ended
        assert server.idle
        assert server.client.frames_of(h2.DATA, 1) == [b"hello", b""]

    @pytest.mark.parametrize("polite", [True, False])
    def test_that_is_left_ends_with_the_clients_end_or_a_moment_later(self, polite: bool) -> None:
        server = Http2Server()
        server.feed(h2.headers(1, self.NAMES, end=False))
        server.stream.open_tunnel([])
        server.stream.finish()
        server.stream.abandon()
        server.feed(h2.data(1, b"ignored"))
        if polite:
            server.feed(h2.data(1, b"", True))
        else:
            server.advance(5)
        assert server.client.frames_of(h2.RST_STREAM, 1) == ([] if polite else [b"\0\0\0\0"])
        assert server.idle
        assert server.sink.body == b""

    def test_that_is_aborted_is_cancelled(self) -> None:
        server = Http2Server()
        server.feed(h2.headers(1, self.NAMES, end=False))
        server.stream.open_tunnel([])
        server.stream.reset("aborted")
        assert server.response(1).reset == h2.CANCEL

    def test_outlives_the_time_limits_of_requests(self) -> None:
        server = Http2Server(http_timeout=5)
        server.feed(h2.headers(1, self.NAMES, end=False))
        server.stream.open_tunnel([])
        server.advance(1000)
        assert server.sink.reason is None
        assert not server.sink.expirations

    @pytest.mark.parametrize("names", [[(b"sec-websocket-version", b"12")], [(b"content-length", b"5")]])
    def test_that_is_wrong_is_answered(self, names: h2.Fields) -> None:
        server = Http2Server()
        server.feed(h2.headers(1, [*self.NAMES[:-1], *names], end=False))
        assert server.driver.refusals[0][0] == 400
        assert not server.sinks

    def test_the_tunnel_tells_when_it_is_full_and_when_not(self) -> None:
        server = Http2Server(auto_credit=False, auto_ack=False)
        server.feed(h2.headers(1, self.NAMES, end=False))
        server.stream.open_tunnel([])
        server.stream.send(b"x" * 200_000)
        server.turn()
        assert server.stream.send_buffer_full
        assert server.stream.buffered == 200_000 - 65535
        server.open_window(200_000, 1)
        assert server.sink.room == 1
        assert not server.stream.send_buffer_full


def test_an_application_answers_over_and_over() -> None:
    server = Http2Server(echo)
    for n in range(300):
        stream = server.request(b"POST", b"/", end=False)
        server.send(stream, b"%d" % n, True)
        assert server.response(stream).body == b"POST %d" % n
    assert server.idle


@pytest.mark.parametrize("validating", [False, True])
def test_the_same_requests_pass_with_the_validation_of_h2_on(validating: bool) -> None:
    server = Http2Server(echo)
    if validating:
        server.let_h2_validate()
    get = server.request(b"GET", b"/a?b=c", (b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"te", b"trailers"))
    post = server.request(b"POST", b"/", (b"content-length", b"5"), end=False)
    server.send(post, b"hello", True)
    summed = server.request(b"POST", b"/", end=False)
    server.send(summed, b"hello")
    server.client.h2.send_headers(summed, [(b"x-sum", b"1")], end_stream=True)
    server.sync()
    assert [server.response(stream).body for stream in (get, post, summed)] == [b"GET ", b"POST hello", b"POST hello"]

"""Responses on an HTTP/2 stream: heads, ends, trailers, interim ones; beyond the contract of the port."""

from __future__ import annotations

from itertools import product

import pytest

from daphne_ng.errors import InvalidHeader
from daphne_ng.wire.http.response import FRAMING, is_bodiless
from tests.support import h2
from tests.support.h2 import Http2Server


class TestHead:
    def test_head_and_body_go_out_in_one_write(self) -> None:
        server = Http2Server()
        server.request()
        before = len(server.driver.written)
        server.answer(b"hello")
        assert len(server.driver.written) == before + 1

    def test_all_streams_go_out_in_one_write(self) -> None:
        server = Http2Server()
        for _ in range(10):
            server.request()
        before = len(server.driver.written)
        for sink in server.sinks:
            sink.stream.start(200, [], b"hello", True, False)
        assert len(server.driver.written) == before
        server.turn()
        assert len(server.driver.written) == before + 1

    def test_the_servers_fields(self) -> None:
        server = Http2Server(date=True, server_name="daphne", extra=((b"X-Frame-Options", b"DENY"),))
        stream = server.request()
        server.answer(b"", (b"Server", b"mine"))
        response = server.response(stream)
        assert response.header(b"server") == b"mine"
        assert response.header(b"x-frame-options") == b"DENY"
        assert response.header(b"date")
        server = Http2Server(date=True, server_name="daphne")
        for _ in range(2):
            stream = server.request()
            server.answer(b"")
            assert server.response(stream).headers[-2:] == [(b"date", h2.DATE.encode()), (b"server", b"daphne")]

    def test_fields_of_the_connection_are_left_out_and_names_are_lower_case(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.answer(
            b"x",
            (b"Connection", b"close"), (b"Keep-Alive", b"1"), (b"Transfer-Encoding", b"chunked"),
            (b"Upgrade", b"h2c"), (b"Proxy-Connection", b"x"), (b"X-Mixed", b" a "),
        )  # fmt: skip
        assert server.response(stream).headers == [(b"x-mixed", b"a"), (b"content-length", b"1")]

    def test_a_large_head_is_split(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.answer(b"x", *((b"x-%d" % n, b"\xffy" * 1000) for n in range(30)))
        assert len(server.client.frames_of(h2.CONTINUATION, stream)) >= 2
        assert len(server.response(stream).headers) == 31

    @pytest.mark.parametrize("status", [204, 304])
    @pytest.mark.parametrize("parts", [1, 2])
    def test_a_status_without_a_body(self, status: int, parts: int) -> None:
        server = Http2Server()
        stream = server.request()
        port = server.stream
        if parts == 1:
            port.start(status, [(b"content-length", b"5")], b"hello", True, False)
        else:
            port.start(status, [], b"hello", False, False)
            port.body(b"hello", True)
        response = server.response(stream)
        assert (response.status, response.body, response.complete) == (status, b"", True)
        assert response.header(b"content-length") == (b"5" if status == 304 and parts == 1 else None)

    def test_to_head(self) -> None:
        server = Http2Server()
        stream = server.request(b"HEAD")
        server.answer(b"hello")
        response = server.response(stream)
        assert (response.body, response.header(b"content-length"), response.complete) == (b"", b"5", True)
        assert not server.client.frames_of(h2.DATA, stream)

    def test_a_shrunk_header_table_is_acknowledged_in_the_next_block(self) -> None:
        server = Http2Server(client={"header_table_size": 0})
        for _ in range(2):
            stream = server.request()
            server.answer(b"", (b"x", b"y"))
            assert server.response(stream).header(b"x") == b"y"


class TestEnds:
    def test_trailers(self) -> None:
        server = Http2Server()
        stream = server.request(b"GET", b"/", (b"te", b"trailers"))
        server.stream.start(200, [], b"x", False, True)
        with pytest.raises(InvalidHeader):
            server.stream.trailers([(b"content-length", b"1")])
        server.stream.trailers([(b"X-Sum", b"1")])
        assert server.response(stream).trailers == [(b"x-sum", b"1")]
        assert server.response(stream).complete

    def test_trailers_that_nobody_asked_for(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.stream.start(200, [], b"x", False, True)
        server.stream.trailers([(b"X-Sum", b"1")])
        assert server.response(stream).trailers == []
        assert server.response(stream).complete

    def test_a_short_body_resets_the_stream(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.stream.start(200, [(b"content-length", b"10")], b"abc", True, False)
        assert server.response(stream).reset == h2.INTERNAL_ERROR
        assert server.driver.missing == [7]
        assert server.idle

    def test_a_reset_in_the_middle(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.stream.start(200, [], b"abc", False, False)
        server.stream.reset("failed")
        assert server.response(stream).reset == h2.INTERNAL_ERROR
        assert server.sink.reason is None
        server.stream.reset("failed")
        server.stream.body(b"x", True)
        server.stream.trailers([])
        server.stream.informational(103, [])
        server.stream.consumed(1)
        server.stream.abandon()
        assert server.stream.writable() is None
        assert server.failure is None

    def test_what_the_client_resets_is_over(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.stream.start(200, [], b"abc", False, False)
        server.client.h2.reset_stream(stream, h2.CANCEL)
        server.sync()
        assert server.sink.reason == "the client reset the stream"
        server.stream.body(b"x" * 100_000, True)
        assert server.stream.buffered == 0
        assert server.idle

    def test_a_driver_that_answers_itself(self) -> None:
        server = Http2Server()
        server.driver.refuse = lambda stream: stream.start(503, [(b"retry-after", b"1")], b"busy", True, False)
        stream = server.request()
        assert server.response(stream).status == 503
        posted = server.request(b"POST", end=False)
        server.advance(5)
        assert (server.response(posted).status, server.response(posted).reset) == (503, h2.NO_ERROR)
        assert server.idle

    def test_the_applications_time(self) -> None:
        server = Http2Server(http_timeout=10)
        server.request(b"POST", end=False)
        server.advance(20)
        assert not server.sink.expirations
        server.send(1, b"", True)
        server.advance(11)
        assert server.sink.expirations == 1


class TestInterim:
    def test_early_hints(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.stream.informational(103, [(b"link", b"</a.css>")])
        server.stream.informational(103, [(b"link", b"</b.css>")])
        server.answer()
        assert server.response(stream).interim == [103, 103]
        assert server.response(stream).interim_headers[0] == [(b"link", b"</a.css>")]

    def test_continue_is_for_those_who_wait(self) -> None:
        server = Http2Server()
        stream = server.request(b"POST", end=False)
        server.stream.informational(100, [])
        assert server.response(stream).interim == []


@pytest.mark.parametrize(
    ("method", "status", "known", "end"),
    list(product([b"GET", b"HEAD"], [200, 204, 205, 304, 404], [False, True], [False, True])),
)
def test_bodies_are_framed_by_the_table(method: bytes, status: int, known: bool, end: bool) -> None:
    server = Http2Server()
    server.request(method)
    server.stream.start(status, [(b"content-length", b"5")] if known else [], b"12345", end, False)
    assert server.stream._framing == FRAMING[is_bodiless(method.decode(), status), known, end, "2"]

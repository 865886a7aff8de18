"""What a connection remembers of its last request: when llhttp is asked nevertheless, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_ng.wire.http1 import head_memo
from tests.support.h1 import Http1Server, Replies, chunked, request, splits, upgrade
from tests.support.head_memo import Twins, count_feeds

GET = request(b"/a?b=c", b"User-Agent: x", b"Accept: */*", b"Cookie: a=b; c=d")


def post(body: bytes, target: bytes = b"/upload", *fields: bytes, method: bytes = b"POST") -> bytes:
    return request(target, *fields, method=method, body=body)


def asked(*reads: bytes, **settings: Any) -> int:
    """Return how often llhttp was asked for the reads behind the first one, all of which are answered alike by twins."""
    server = Http1Server(Replies(), **settings)
    server.feed(reads[0])
    counting = count_feeds(server)
    server.feed(*reads[1:])
    if "head_memo_timeout" not in settings:
        Twins(Replies(), **settings).feed(*reads)
    return counting.feeds


class TestHit:
    """llhttp is not asked."""

    def test_the_same_request(self) -> None:
        assert asked(GET, GET, GET) == 0

    @pytest.mark.parametrize(
        "target", [b"/", b"//", b"/a/b", b"/?", b"/a?", b"/%C3%A9?%20", b"/a?b=c?d=/e", b"/a;b@c:d!$&'()*+,=~"]
    )
    def test_another_target(self, target: bytes) -> None:
        assert asked(GET, GET.replace(b"/a?b=c", target)) == 0

    @pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
    def test_another_method(self, method: bytes) -> None:
        assert asked(GET, method + GET[3:]) == 0

    @pytest.mark.parametrize("value", [b"keep-alive", b"Keep-Alive"])
    def test_a_connection_that_is_to_be_kept(self, value: bytes) -> None:
        single = request(b"/", b"Connection: " + value)
        assert asked(single, single) == 0

    def test_bodies_of_one_length(self) -> None:
        assert asked(post(b"abc"), post(b"def"), post(b"\r\n\r")) == 0

    def test_a_length_of_nothing(self) -> None:
        single = request(b"/", b"Content-Length: 0", method=b"POST")
        assert asked(single, single) == 0

    def test_behind_a_request_that_is_still_served(self) -> None:
        server = Http1Server().feed(GET)
        counting = count_feeds(server)
        server.feed(GET, GET)
        assert counting.feeds == 0
        assert len(server.h1.queue) == 2

    def test_again_once_llhttp_was_asked(self) -> None:
        assert asked(GET, request(b"/"), request(b"/"), GET, GET) == 2

    def test_behind_empty_lines(self) -> None:
        assert asked(b"\r\n", GET, GET) == 1

    def test_each_scope_has_fields_of_its_own(self) -> None:
        server = Http1Server(Replies()).feed(GET)
        server.sinks[0].head.headers.append((b"x-added", b"by the application"))
        server.feed(GET)
        server.sinks[1].head.headers.clear()
        server.feed(GET)
        assert [name for name, _value in server.sinks[2].head.headers] == [b"host", b"user-agent", b"accept", b"cookie"]


class TestMiss:
    """llhttp is asked."""

    @pytest.mark.parametrize(
        "single",
        [
            request(b"/", b"Connection: close"),
            request(b"/", b"Connection: keep-alive, x"),
            request(b"/", b"Connection: Keep-Alive", version=b"1.0"),
            request(b"/", b"Proxy-Connection: keep-alive"),
            request(b"/", b"Proxy-Connection: close"),
            request(b"/", b"TE: trailers"),
            request(b"/", b"Daphne-Root-Path: /x"),
            request(b"/", b"Connection: upgrade", b"Upgrade: h2c"),
            request(b"/", b"Upgrade: h2c"),
            request(b"/", b"Upgrade: websocket"),
            upgrade(),
            request(b"/", method=b"HEAD"),
            request(b"/", method=b"PROPFIND"),
            request(b"/", method=b"CONNECT"),
            request(b"*", method=b"OPTIONS"),
            request(b"http://test/"),
            request(b"/a|b"),
            request(b"/a#b"),
            request(b"/", host=None),
            request(b"/", b"Host: test"),
            request(b"/", b"Expect: 100-continue", method=b"POST", body=b"abc"),
            request(b"/", b"Transfer-Encoding: chunked", method=b"POST") + chunked(b"abc"),
            b"\r\n" + request(b"/"),
            request(b"/") + b"\r\n",
            request(b"/") + b"G",
            request(b"/") + b"GET /",
            request(b"/") * 2,
            post(b"abc") + b"\r\n",
            post(b"abc")[:-1],
            b"GET / HTTP/1.1\nHost: test\n\n",
            b"GET  / HTTP/1.1\r\nHost: test\r\n\r\n",
            b"get / HTTP/1.1\r\nHost: test\r\n\r\n",
            request(b"/", b"X: " + b"x" * head_memo._BLOCK_MAX_BYTES),
            request(b"/", *[b"X: x"] * head_memo._FIELDS_MAX),
        ],
    )  # fmt: skip
    def test_what_is_not_remembered(self, single: bytes) -> None:
        server = Http1Server(Replies()).feed(single)
        assert server.h1._parser._remembered is None
        Twins(Replies()).feed(single, single, single)
        Twins(Replies()).feed(GET, GET, single, GET, single, GET)

    def test_a_host_that_is_not_required(self) -> None:
        single = request(b"/", host=None)
        assert asked(single, single, require_host=False) == 0
        Twins(Replies()).feed(single, single)

    @pytest.mark.parametrize(
        "line",
        [
            b"HEAD / HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET /", b"GET http://test/ HTTP/1.1",
            b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1", b"\r\nGET / HTTP/1.1", b"GET * HTTP/1.1",
            b"GET /\xc3\xa9 HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /#a HTTP/1.1", b"GET /\r\nX: y HTTP/1.1", b"GET /\nX: y HTTP/1.1",
            b"GET /\0 HTTP/1.1", b"GET HTTP/1.1", b"CONNECT / HTTP/1.1", b"PRI * HTTP/2.0", b"get / HTTP/1.1", b"FOO / HTTP/1.1",
            b"GET / http/1.1", b"GET /\" HTTP/1.1", b"",
        ],
    )  # fmt: skip
    def test_request_lines_for_llhttp_to_judge(self, line: bytes) -> None:
        read = line + GET[GET.index(b"\r\n") :]
        assert asked(GET, read) == 1

    @pytest.mark.parametrize(
        "read", [GET[:-1], GET[:-2], GET + b"\r\n", GET + b"x", GET * 2, GET[:5], GET[5:], b"\r\n\r\n"]
    )
    def test_reads_that_end_elsewhere(self, read: bytes) -> None:
        assert asked(GET, read) == 1

    def test_any_byte_that_differs(self) -> None:
        start = GET.index(b"\r\n")
        for at in range(start, len(GET)):
            for byte in (b"\r", b"\n", b"\0", b" ", b":", b"z"):
                if GET[at : at + 1] != byte:
                    assert asked(GET, GET[:at] + byte + GET[at + 1 :]) == 1

    def test_a_body_of_another_length(self) -> None:
        assert asked(post(b"abc"), post(b"abcd"), post(b"")) == 2

    def test_a_body_that_comes_later(self) -> None:
        for parts in splits(post(b"abc")):
            assert asked(post(b"abc"), *parts) == 2

    def test_what_follows_a_request_that_ends_the_connection(self) -> None:
        twins = Twins().feed(GET, request(b"/", b"Connection: close"), GET)
        assert twins.one.h1._error is not None

    def test_what_follows_a_head(self) -> None:
        Twins(Replies()).feed(GET, GET, request(b"/", method=b"HEAD"), GET, b"\0")
        Twins(Replies()).feed(GET, request(b"/", method=b"HEAD"), b"\0")

    def test_a_field_that_looks_like_a_request(self) -> None:
        Twins(Replies()).feed(GET, b"GET / HTTP/1.1\r\nA: ", GET, GET)


class TestLimits:
    """What is remembered has kept the limits with another request line; each is reached at the same byte."""

    @pytest.mark.parametrize("extra", range(-3, 4))
    def test_the_request_line(self, extra: int) -> None:
        long = request(b"/" + b"a" * (99 + extra))
        twins = Twins(Replies(), request_line_max_bytes=100).feed(request(b"/"), long)
        assert twins.one.driver.refusals == ([] if extra <= 0 else [(414, "The request target is too long.")])

    @pytest.mark.parametrize("colon", [b": ", b":"])
    @pytest.mark.parametrize("body", [b"", b"x" * 30])
    @pytest.mark.parametrize("extra", range(-10, 11))
    def test_the_head(self, extra: int, body: bytes, colon: bytes) -> None:
        fields = [b"A%db" % number for number in range(9)]
        fields = [field.replace(b"b", colon + b"b") for field in fields]
        short = post(body, b"/", *fields)
        size = len(short) - len(body)
        long = post(body, b"/" + b"a" * (20 + extra), *fields)
        Twins(Replies(), head_max_bytes=size + 20).feed(short, long, short, long)

    def test_the_memory_of_request_lines_is_bounded(self) -> None:
        most = head_memo._line_memo.most
        twins = Twins(Replies())
        for number in range(most + 10):
            twins.one.feed(request(b"/%d" % number))
        assert len(head_memo._lines) <= most
        twins.one.feed(request(b"/" + b"x" * 300))
        assert all(len(line) <= head_memo._line_memo.longest for line in head_memo._lines)

    def test_a_block_of_a_bounded_size(self) -> None:
        for length in (head_memo._BLOCK_MAX_BYTES - 25, head_memo._BLOCK_MAX_BYTES):
            single = request(b"/", b"X: " + b"x" * (length - 17))
            assert (asked(single, single) == 0) is (len(single) - len(b"GET / HTTP/1.1") <= head_memo._BLOCK_MAX_BYTES)


class TestTime:
    """An idle connection holds nothing of its last request."""

    def test_it_is_forgotten_when_no_request_comes(self) -> None:
        server = Http1Server(Replies(), head_memo_timeout=5, keep_alive_timeout=75).feed(GET)
        server.advance(4.9)
        assert server.h1._parser._remembered is not None
        server.advance(0.1)
        assert server.h1._parser._remembered is None
        assert server.driver.timer == server.h1.deadline == 1075
        server.advance(69.9)
        assert server.state == "open"
        server.advance(0.2)
        assert server.state == "closed"

    def test_a_timer_that_fires_between_requests_makes_it_forget_sooner(self) -> None:
        server = Http1Server(Replies(), head_memo_timeout=5).feed(GET)
        server.advance(4)
        server.feed(GET)
        assert server.driver.timer == 1005
        server.advance(1)
        assert server.h1._parser._remembered is None
        server.feed(GET)
        assert server.driver.timer == 1010

    def test_a_request_that_takes_long_holds_nothing_either(self) -> None:
        server = Http1Server(head_timeout=20).feed(GET)
        server.advance(20)
        assert server.h1._parser._remembered is None

    @pytest.mark.parametrize("timeout", [0, 100])
    def test_times_that_need_no_timer(self, timeout: float) -> None:
        server = Http1Server(Replies(), head_memo_timeout=timeout, keep_alive_timeout=75).feed(GET)
        server.advance(20)
        assert server.driver.timer == 1075
        server.advance(55)
        assert server.state == "closed"

    def test_a_connection_without_a_time_for_being_idle(self) -> None:
        server = Http1Server(Replies(), head_memo_timeout=5, keep_alive_timeout=0).feed(GET)
        server.advance(5)
        assert server.h1._parser._remembered is None
        server.advance(100_000)
        assert server.state == "open"

    def test_a_client_whose_fields_always_change_is_tried_again_later(self) -> None:
        server = Http1Server(Replies())
        most = head_memo.BARREN_MAX
        for number in range(most):
            server.feed(request(b"/", b"X-Request-ID: %d" % number))
            assert server.h1._parser._remembered is not None
        server.feed(request(b"/", b"X-Request-ID: %d" % most))
        assert server.h1._parser._remembered is None
        counting = count_feeds(server)
        server.feed(GET, GET)
        assert counting.feeds == 2
        server.advance(5)
        server.feed(GET, GET, GET)
        assert counting.feeds == 3

    def test_one_head_that_came_again_is_enough_to_go_on(self) -> None:
        server = Http1Server(Replies())
        for number in range(3 * head_memo.BARREN_MAX):
            single = request(b"/", b"X-Request-ID: %d" % (number // 2))
            server.feed(single)
        assert server.h1._parser._remembered is not None

    def test_zero_parses_each(self) -> None:
        assert asked(GET, GET, GET, head_memo_timeout=0) == 2

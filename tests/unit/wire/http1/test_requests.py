"""What the application learns of a request: target, path, fields, body, and the expectation of 100 Continue."""

from __future__ import annotations

import pytest

from daphne_ng.wire.http.fields import METHODS, host_memo, valid_hosts
from daphne_ng.wire.http1 import parser as h1_parser
from tests.support.h1 import Http1Server, Replies, bytewise, chunked, chunked_request, request, splits


def head_of(data: bytes) -> object:
    server = Http1Server().feed(data)
    assert server.reply == b"", server.reply
    return server.head


class TestTarget:
    @pytest.mark.parametrize(
        ("target", "path", "raw_path", "query"),
        [
            (b"/", "/", b"/", b""),
            (b"/a/b", "/a/b", b"/a/b", b""),
            (b"/a?b=c&d=%20", "/a", b"/a", b"b=c&d=%20"),
            (b"/a?b?c", "/a", b"/a", b"b?c"),
            (b"/?", "/", b"/", b""),
            (b"//evil.example/", "//evil.example/", b"//evil.example/", b""),
            (b"/a/../b", "/a/../b", b"/a/../b", b""),
            (b"/caf%C3%A9", "/café", b"/caf%C3%A9", b""),
            (b"/%2F%3f", "//?", b"/%2F%3f", b""),
            (b"/a+b", "/a+b", b"/a+b", b""),
            (b"/%E4%BD%A0", "/你", b"/%E4%BD%A0", b""),
            (b"/%ff%fe", "/��", b"/%ff%fe", b""),
            (b"/%C3", "/�", b"/%C3", b""),
            (b"/%ED%A0%80", "/���", b"/%ED%A0%80", b""),
            (b"/a%00b", "/a\0b", b"/a%00b", b""),
            (b"/%0d%0aSet-Cookie:x", "/\r\nSet-Cookie:x", b"/%0d%0aSet-Cookie:x", b""),
            (b"/%", "/%", b"/%", b""),
            (b"/%zz", "/%zz", b"/%zz", b""),
            (b"/a;b=c", "/a;b=c", b"/a;b=c", b""),
            (b'/"<>\\^`{|}', '/"<>\\^`{|}', b'/"<>\\^`{|}', b""),
        ],
    )
    def test_origin_form(self, target: bytes, path: str, raw_path: bytes, query: bytes) -> None:
        head = head_of(request(target))
        assert (head.path, head.raw_path, head.query_string, head.target) == (path, raw_path, query, target)

    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            (b"http://test/a?b", "/a", b"b"),
            (b"http://test", "/", b""),
            (b"http://test?b", "/", b"b"),
            (b"HTTP://TEST/a", "/a", b""),
            (b"https://test/a//b", "/a//b", b""),
            (b"http://test/caf%C3%A9", "/café", b""),
        ],
    )
    def test_absolute_form(self, target: bytes, path: str, query: bytes) -> None:
        head = head_of(request(target))
        assert (head.path, head.query_string, head.target) == (path, query, target)
        assert head.headers == [(b"host", b"test")]

    def test_absolute_form_is_the_host_of_http_1_0_without_one(self) -> None:
        head = head_of(request(b"http://example.com:8080/", b"A: b", version=b"1.0", host=None))
        assert head.headers == [(b"host", b"example.com:8080"), (b"a", b"b")]

    def test_asterisk_form(self) -> None:
        head = head_of(request(b"*", method=b"OPTIONS"))
        assert (head.path, head.raw_path, head.query_string) == ("*", b"*", b"")

    def test_in_any_two_parts(self) -> None:
        for parts in splits(request(b"/caf%C3%A9?x=y", b"A: b")):
            server = Http1Server(Replies()).feed(*parts)
            assert (server.head.path, server.head.query_string) == ("/café", b"x=y")


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            b"",
            b"a",
            b"example.com",
            b"example.com:80",
            b"a:",
            b"127.0.0.1:8000",
            b"[::1]",
            b"[::1]:443",
            b"a_b",
            b"a%20b",
        ],
    )
    def test_legal_values(self, host: bytes) -> None:
        assert head_of(request(b"/", host=host)).headers == [(b"host", host)]

    def test_the_memory_of_seen_values_is_bounded(self) -> None:
        for number in range(2 * host_memo.most):
            head_of(request(b"/", host=b"h%d.example" % number))
        assert len(valid_hosts) <= host_memo.most


class TestFields:
    def test_order_duplicates_and_lower_case(self) -> None:
        head = head_of(request(b"/", b"X-B: 1", b"x-a: 2", b"X-B: 3"))
        assert head.headers == [(b"host", b"test"), (b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3")]

    @pytest.mark.parametrize(
        ("line", "value"),
        [
            (b"A:b", b"b"),
            (b"A: \t b \t ", b"b"),
            (b"A:", b""),
            (b"A: ", b""),
            (b"A: b  c", b"b  c"),
            (b"A: caf\xe9", b"caf\xe9"),
            (b"A: b\tc", b"b\tc"),
        ],
    )
    def test_white_space_around_values(self, line: bytes, value: bytes) -> None:
        for parts in ([request(b"/", line)], bytewise(request(b"/", line))):
            server = Http1Server().feed(*parts)
            assert server.head.headers[1:] == [(b"a", value)]

    def test_the_memory_of_seen_names_is_bounded(self) -> None:
        for number in range(0, 2 * h1_parser._name_memo.most, 100):
            head_of(request(b"/", *[b"X-N%d: 1" % (number + offset) for offset in range(100)]))
        assert len(h1_parser._names) <= h1_parser._name_memo.most

    def test_every_method_of_the_list(self) -> None:
        for method in METHODS:
            assert head_of(request(b"/", method=method)).method == method.decode()

    def test_daphne_root_path_is_taken_out(self) -> None:
        head = head_of(request(b"/", b"Daphne-Root-Path: /caf%C3%A9"))
        assert head.root_path == "/café"
        assert head.headers == [(b"host", b"test")]

    def test_daphne_root_path_beyond_ascii(self) -> None:
        assert head_of(request(b"/", b"Daphne-Root-Path: /\xff")).root_path == "/\ufffd"

    @pytest.mark.parametrize(
        ("fields", "accepted"),
        [
            ([], False),
            ([b"TE: trailers"], True),
            ([b"TE: Trailers"], True),
            ([b"TE: gzip, trailers"], True),
            ([b"TE: trailers", b"TE: gzip"], True),
            ([b"TE: gzip"], False),
            ([b"TE: xtrailers"], False),
        ],
    )
    def test_te(self, fields: list[bytes], accepted: bool) -> None:
        assert head_of(request(b"/", *fields)).accepts_trailers is accepted


class TestBody:
    def test_content_length(self) -> None:
        data = request(b"/", method=b"POST", body=b"hello")
        for parts in ([data], bytewise(data), *splits(data)):
            server = Http1Server(Replies()).feed(*parts)
            assert server.sink.body == b"hello"
            assert server.head.content_length == 5
            assert not server.head.chunked

    def test_content_length_with_white_space_and_zeros(self) -> None:
        for value in (b"5 ", b"\t5\t", b"0000000000000000000000000005"):
            data = request(b"/", b"Content-Length: " + value, method=b"POST") + b"hello" + request(b"/next")
            server = Http1Server(Replies()).feed(data)
            assert [sink.body for sink in server.sinks] == [b"hello", b""]

    def test_chunked(self) -> None:
        data = chunked_request(b"hello", b" ", b"world" * 10, trailers=b"A: b\r\nC: d \r\n")
        for parts in ([data], bytewise(data), *splits(data)):
            server = Http1Server(Replies()).feed(*parts)
            assert server.sink.body == b"hello " + b"world" * 10
            assert server.sink.trailers == [(b"a", b"b"), (b"c", b"d")]
            assert server.head.content_length == -1
            assert server.head.chunked

    @pytest.mark.parametrize("coding", [b"Chunked", b"CHUNKED", b"chunked ", b"\tchunked"])
    def test_chunked_in_any_case(self, coding: bytes) -> None:
        data = request(b"/", b"Transfer-Encoding: " + coding, method=b"POST") + chunked(b"hello") + request(b"/next")
        server = Http1Server(Replies()).feed(data)
        assert [sink.body for sink in server.sinks] == [b"hello", b""]

    @pytest.mark.parametrize("size", [b"5", b"05", b"0000000000000000000005"])
    def test_chunk_sizes(self, size: bytes) -> None:
        data = request(b"/", b"Transfer-Encoding: chunked", method=b"POST") + size + b"\r\nhello\r\n0\r\n\r\n"
        assert Http1Server(Replies()).feed(data).sink.body == b"hello"

    def test_parts_arrive_as_they_are_read(self) -> None:
        server = Http1Server().feed(request(b"/", b"Content-Length: 6", method=b"POST"), b"ab", b"cd", b"ef")
        assert server.sink.parts == [b"ab", b"cd", b"ef"]

    def test_no_body_ends_at_once(self) -> None:
        server = Http1Server().feed(request(b"/"))
        assert server.sink.ended
        assert server.sink.parts == []


EXPECT = request(b"/", b"Content-Length: 5", b"Expect: 100-continue", method=b"POST")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class TestExpect:
    def test_it_is_answered_when_the_application_asks_for_the_body(self) -> None:
        server = Http1Server().feed(EXPECT)
        assert server.reply == b""
        server.port.informational(100, ())
        assert server.reply == CONTINUE
        server.feed(b"hello")
        server.answer()
        (response,) = server.responses()
        assert response.interim == [100]
        assert response.status == 200
        assert server.state == "open"
        server.feed(request(b"/next"))
        assert server.targets == [b"/", b"/next"]

    def test_it_is_answered_once(self) -> None:
        server = Http1Server().feed(EXPECT)
        server.port.informational(100, ())
        server.port.informational(100, ())
        assert server.reply == CONTINUE

    @pytest.mark.parametrize("body", [b"h", b"hello"])
    def test_not_when_the_body_is_there_already(self, body: bytes) -> None:
        for parts in ([EXPECT + body], [EXPECT, body]):
            server = Http1Server().feed(*parts)
            server.port.informational(100, ())
            assert server.reply == b""
            server.feed(b"hello"[len(body) :])
            server.answer()
            assert server.statuses == [200]
            assert server.state == "open"

    def test_a_body_sent_without_waiting_is_complete_without_asking(self) -> None:
        server = Http1Server(Replies()).feed(EXPECT + b"hello" + request(b"/next"))
        assert server.statuses == [200, 200]
        assert server.state == "open"

    def test_chunked(self) -> None:
        server = Http1Server().feed(
            request(b"/", b"Transfer-Encoding: chunked", b"Expect: 100-continue", method=b"POST")
        )
        server.port.informational(100, ())
        assert server.reply == CONTINUE
        server.feed(chunked(b"hello"))
        assert server.sink.ended

    @pytest.mark.parametrize("value", [b"100-Continue", b"100-CONTINUE", b" 100-continue "])
    def test_in_any_case(self, value: bytes) -> None:
        assert head_of(request(b"/", b"Content-Length: 5", b"Expect: " + value, method=b"POST")).expects_continue

    def test_without_a_body_there_is_nothing_to_wait_for(self) -> None:
        for fields in ([], [b"Content-Length: 0"]):
            server = Http1Server().feed(request(b"/", b"Expect: 100-continue", *fields, method=b"POST"))
            server.port.informational(100, ())
            assert server.reply == b""
            server.answer()
            assert server.state == "open"

    def test_http_1_0_expects_nothing(self) -> None:
        data = request(
            b"/",
            b"Content-Length: 5",
            b"Expect: 100-continue",
            b"Connection: keep-alive",
            method=b"POST",
            version=b"1.0",
        )
        server = Http1Server().feed(data)
        server.port.informational(100, ())
        assert server.reply == b""
        server.feed(b"hello")
        server.answer()
        assert server.state == "open"

    def test_a_response_without_reading_closes(self) -> None:
        server = Http1Server().feed(EXPECT)
        server.answer(status=401)
        (response,) = server.responses()
        assert response.interim == []
        assert response.header(b"connection") == b"close"
        assert server.state == "half"

    def test_a_response_before_the_rest_of_a_continued_body_drains_it(self) -> None:
        server = Http1Server().feed(EXPECT)
        server.port.informational(100, ())
        server.answer()
        server.feed(b"hello" + request(b"/next"))
        assert server.targets == [b"/", b"/next"]

    def test_not_after_the_response_has_begun(self) -> None:
        server = Http1Server().feed(EXPECT)
        server.port.start(200, [], b"a", False, False)
        server.port.informational(100, ())
        assert CONTINUE not in server.reply

    def test_not_unasked(self) -> None:
        server = Http1Server().feed(request(b"/", b"Content-Length: 5", method=b"POST"))
        server.port.informational(100, ())
        assert server.reply == b""


class TestEarlyHints:
    LINKS = [(b"link", b"</style.css>; rel=preload")]

    def test_off_by_default(self) -> None:
        server = Http1Server().feed(request(b"/"))
        server.port.informational(103, self.LINKS)
        assert server.reply == b""

    def test_when_on(self) -> None:
        server = Http1Server(http1_early_hints=True).feed(request(b"/"))
        server.port.informational(103, self.LINKS)
        server.port.informational(103, self.LINKS)
        server.answer()
        (response,) = server.responses()
        assert response.interim == [103, 103]
        assert b"link: </style.css>" in server.reply

    def test_not_to_http_1_0(self) -> None:
        server = Http1Server(http1_early_hints=True).feed(request(b"/", version=b"1.0"))
        server.port.informational(103, self.LINKS)
        assert server.reply == b""

    def test_not_once_the_response_has_begun(self) -> None:
        server = Http1Server(http1_early_hints=True).feed(request(b"/"))
        server.port.start(200, [], b"a", False, False)
        written = server.reply
        server.port.informational(103, self.LINKS)
        assert server.reply == written

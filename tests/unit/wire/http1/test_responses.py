"""Responses on the wire: framing by method, status, version and what the application says; and what it must not say."""

from __future__ import annotations

from itertools import product

import pytest

from daphne_ng.errors import BodyLengthMismatch, InvalidHeader
from daphne_ng.wire.http.response import CHUNKED, FRAMING, LENGTH, UNTIL_CLOSE, is_bodiless
from daphne_ng.wire.http1 import writer as h1_writer
from tests.support.h1 import DATE, Http1Server, Response, request

BIG = b"b" * 20000


def served(*fields: bytes, method: bytes = b"GET", version: bytes = b"1.1", **settings: object) -> Http1Server:
    return Http1Server(**settings).feed(request(b"/", *fields, method=method, version=version))


def only(server: Http1Server) -> Response:
    (response,) = server.responses()
    return response


class TestFraming:
    def test_one_call_gets_a_content_length_and_is_one_write(self) -> None:
        server = served()
        server.answer(b"hello", (b"content-type", b"text/plain"))
        assert server.driver.written == [
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
        ]
        assert server.port.body_bytes_sent == 5

    def test_one_call_without_a_body(self) -> None:
        server = served()
        server.answer(b"")
        assert server.reply == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    def test_a_large_body(self) -> None:
        server = served()
        server.answer(BIG)
        assert only(server).body == BIG
        assert server.state == "open"

    def test_several_calls_are_chunked(self) -> None:
        server = served()
        server.port.start(200, [], b"a" * 16, False, False)
        server.port.body(b"bc", False)
        server.port.body(b"", False)
        server.port.body(b"d", True)
        assert server.reply == (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\naaaaaaaaaaaaaaaa\r\n2\r\nbc\r\n1\r\nd\r\n0\r\n\r\n"
        )
        assert server.port.body_bytes_sent == 19
        assert server.state == "open"

    @pytest.mark.parametrize(
        "parts", [[b"", b""], [b"", b"a"], [b"a", b""], [BIG, b""], [b"", BIG], [BIG, BIG, b"a", BIG]]
    )
    def test_an_empty_part_never_ends_a_chunked_body(self, parts: list[bytes]) -> None:
        server = served()
        server.port.start(200, [], parts[0], False, False)
        for part in parts[1:-1]:
            server.port.body(part, False)
        server.port.body(parts[-1], True)
        response = only(server)
        assert response.complete
        assert response.body == b"".join(parts)
        assert server.port.body_bytes_sent == len(response.body)

    def test_the_head_goes_out_with_an_empty_first_part(self) -> None:
        server = served()
        server.port.start(200, [], b"", False, False)
        assert server.reply == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    def test_the_applications_content_length_is_used(self) -> None:
        server = served()
        server.port.start(200, [(b"Content-Length", b"3")], b"a", False, False)
        server.port.body(b"bc", True)
        assert server.reply == b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
        assert server.state == "open"

    def test_two_equal_content_lengths_are_sent_as_they_are_or_as_one(self) -> None:
        server = served()
        server.answer(b"abc", (b"content-length", b"3"), (b"content-length", b"3"))
        assert only(server).body == b"abc"

    def test_http_1_0_ends_with_the_connection(self) -> None:
        server = served(b"Connection: keep-alive", version=b"1.0")
        server.port.start(200, [], b"a", False, False)
        server.port.body(b"b", False)
        server.port.body(b"", True)
        response = only(server)
        assert response.header(b"transfer-encoding") is None
        assert response.header(b"connection") == b"close"
        assert response.body == b"ab"
        assert server.state == "closed"

    def test_http_1_0_with_a_length_is_kept(self) -> None:
        server = served(b"Connection: keep-alive", version=b"1.0")
        server.answer(b"ab")
        assert only(server).header(b"connection") == b"keep-alive"
        assert server.state == "open"


class TestWithoutBody:
    """HEAD, 204 and 304 (RFC 9112 section 6.3): their responses end with the head, whatever the application sends."""

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize("length", [None, b"5"])
    @pytest.mark.parametrize(
        ("method", "status"),
        [(b"HEAD", 200), (b"HEAD", 404), (b"GET", 204), (b"GET", 304), (b"HEAD", 304), (b"HEAD", 204)],
    )
    def test_no_byte_of_a_body(self, method: bytes, status: int, length: bytes | None, streamed: bool) -> None:
        server = served(method=method)
        headers = [] if length is None else [(b"content-length", length)]
        if streamed:
            server.port.start(status, headers, b"he", False, False)
            server.port.body(b"l", False)
            server.port.body(b"lo", True)
        else:
            server.port.start(status, headers, b"hello", True, False)
        server.feed(request(b"/next"))
        server.answer(b"next")
        first, second = server.responses()
        assert (first.status, first.body) == (status, b"")
        assert second.body == b"next"
        assert first.header(b"transfer-encoding") is None
        if status == 204:
            assert first.header(b"content-length") is None, "RFC 9110 section 8.6"
        elif length is not None:
            assert first.header(b"content-length") == length

    def test_head_is_told_the_length_of_the_body_it_does_not_get(self) -> None:
        server = served(method=b"HEAD")
        server.answer(b"hello")
        assert only(server).header(b"content-length") == b"5"
        assert server.port.body_bytes_sent == 0

    def test_head_of_an_application_that_sends_no_body_is_not_told_zero(self) -> None:
        server = served(method=b"HEAD")
        server.answer(b"")
        assert only(server).header(b"content-length") is None

    def test_304_is_not_told_the_length_of_an_empty_body(self) -> None:
        server = served()
        server.answer(b"", status=304)
        assert only(server).header(b"content-length") is None

    def test_a_length_that_no_body_follows_is_no_mismatch(self) -> None:
        server = served(method=b"HEAD")
        server.answer(b"", (b"content-length", b"1000"))
        assert server.driver.missing == []
        assert server.state == "open"

    def test_205_has_a_length(self) -> None:
        server = served()
        server.answer(b"", status=205)
        assert only(server).header(b"content-length") == b"0"

    def test_http_1_0_streamed_head_is_kept(self) -> None:
        server = served(b"Connection: keep-alive", method=b"HEAD", version=b"1.0")
        server.port.start(200, [], b"a", False, False)
        server.port.body(b"b", True)
        assert only(server).body == b""
        assert server.state == "open"


class TestApplicationFields:
    @pytest.mark.parametrize("value", [b"chunked", b"gzip", b"identity", b"chunked, chunked", b""])
    @pytest.mark.parametrize("streamed", [False, True])
    def test_transfer_encoding_is_ignored(self, value: bytes, streamed: bool) -> None:
        server = served()
        server.port.start(200, [(b"Transfer-Encoding", value)], b"a", not streamed, False)
        if streamed:
            server.port.body(b"b", True)
        response = only(server)
        assert response.body == (b"ab" if streamed else b"a")
        assert response.header(b"transfer-encoding") == (b"chunked" if streamed else None)

    def test_transfer_encoding_beside_a_length(self) -> None:
        server = served()
        server.answer(b"abc", (b"transfer-encoding", b"chunked"), (b"content-length", b"3"))
        assert server.reply == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"

    @pytest.mark.parametrize("name", [b"Connection", b"Keep-Alive", b"Proxy-Connection"])
    def test_hop_by_hop_fields_are_ours(self, name: bytes) -> None:
        server = served()
        server.answer(b"", (name, b"keep-alive"))
        assert server.reply == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        assert server.state == "open"

    def test_order_case_and_duplicates_are_kept(self) -> None:
        server = served()
        server.answer(b"", (b"Set-Cookie", b"a=1"), (b"x-B", b"2"), (b"Set-Cookie", b"c=3"))
        assert server.reply.startswith(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nx-B: 2\r\nSet-Cookie: c=3\r\n")

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_pairs_may_be_lists_or_tuples(self, kind: type) -> None:
        server = served()
        server.port.start(200, [kind((b"a", b"b"))], b"", True, False)
        assert only(server).header(b"a") == b"b"

    def test_empty_and_latin_1_values(self) -> None:
        server = served()
        server.answer(b"", (b"a", b""), (b"b", b"caf\xe9"), (b"c", b"x\ty"))
        assert server.reply.startswith(b"HTTP/1.1 200 OK\r\na: \r\nb: caf\xe9\r\nc: x\ty\r\n")


BAD_FIELDS = {
    "LF in a value": (b"a", b"b\nc: d"),
    "CR in a value": (b"a", b"b\rc: d"),
    "CRLF in a value": (b"a", b"b\r\nset-cookie: evil=1"),
    "a whole response in a value": (b"location", b"/\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    "LF at the end of a value": (b"a", b"b\n"),
    "CR at the end of a value": (b"a", b"b\r"),
    "NUL in a value": (b"a", b"b\0c"),
    "LF in a name": (b"a\nb", b"c"),
    "CRLF in a name": (b"a\r\nb", b"c"),
    "colon in a name": (b"a:b", b"c"),
    "space in a name": (b"a b", b"c"),
    "space after a name": (b"a ", b"c"),
    "empty name": (b"", b"c"),
    "NUL in a name": (b"a\0", b"c"),
    "name beyond ASCII": (b"caf\xe9", b"c"),
    "name is a str": ("a", b"b"),
    "value is a str": (b"a", "b"),
    "value is None": (b"a", None),
    "value is an int": (b"a", 5),
    "name is None": (None, b"b"),
    "name is a list": ([], b"b"),
    "LF in Content-Length": (b"content-length", b"5\n"),
    "Content-Length is negative": (b"content-length", b"-1"),
    "Content-Length has a sign": (b"content-length", b"+5"),
    "Content-Length is empty": (b"content-length", b""),
    "Content-Length is a list": (b"content-length", b"5, 5"),
    "Content-Length has a space": (b"content-length", b" 5"),
    "Content-Length is no number": (b"content-length", b"five"),
    "Content-Length is a str": (b"content-length", "5"),
    "Content-Length has another script's digits": (b"content-length", "٥".encode()),
    "Content-Length is absurd": (b"content-length", b"9" * 19),
    "LF in Date": (b"date", b"x\ny: z"),
    "LF in Server": (b"server", b"x\ny: z"),
}


class TestResponseSplitting:
    @pytest.mark.parametrize("name", BAD_FIELDS)
    @pytest.mark.parametrize("method", [b"GET", b"HEAD"])
    def test_nothing_is_written_and_another_start_is_possible(self, name: str, method: bytes) -> None:
        server = served(method=method)
        with pytest.raises(InvalidHeader):
            server.port.start(200, [(b"x", b"y"), BAD_FIELDS[name]], b"body", True, False)
        assert server.reply == b""
        server.answer(b"sorry", status=500)
        assert server.statuses == [500]
        assert server.state == "open"

    @pytest.mark.parametrize("name", [b"connection", b"transfer-encoding", b"keep-alive"])
    def test_in_fields_that_are_not_sent_it_does_no_harm(self, name: bytes) -> None:
        server = served()
        server.answer(b"", (name, b"x\r\nevil: 1"))
        assert server.reply == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    @pytest.mark.parametrize("headers", [[b"a"], [(b"a",)], [(b"a", b"b", b"c")], [None], 5, None, "ab"])
    def test_what_is_no_list_of_pairs_is_refused(self, headers: object) -> None:
        server = served()
        with pytest.raises(InvalidHeader):
            server.port.start(200, headers, b"", True, False)
        assert server.reply == b""
        server.answer()
        assert server.statuses == [200]

    def test_differing_content_lengths_are_refused(self) -> None:
        server = served()
        with pytest.raises(InvalidHeader):
            server.port.start(200, [(b"content-length", b"5"), (b"Content-Length", b"6")], b"hello", True, False)
        assert server.reply == b""

    @pytest.mark.parametrize("name", BAD_FIELDS)
    def test_in_trailers_the_response_has_not_ended(self, name: str) -> None:
        server = served(b"TE: trailers")
        server.port.start(200, [], b"a", False, True)
        written = server.reply
        with pytest.raises(InvalidHeader):
            server.port.trailers([BAD_FIELDS[name]])
        assert server.reply == written
        server.port.trailers([(b"x", b"y")])
        assert only(server).trailers == [(b"x", b"y")]

    @pytest.mark.parametrize("name", ["LF in a value", "CRLF in a name", "value is a str"])
    def test_in_early_hints(self, name: str) -> None:
        server = served(http1_early_hints=True)
        with pytest.raises(InvalidHeader):
            server.port.informational(103, [BAD_FIELDS[name]])
        assert server.reply == b""

    def test_the_memory_of_seen_names_is_bounded(self) -> None:
        server = Http1Server()
        for number in range(0, 2 * h1_writer._name_memo.most, 100):
            server.feed(request(b"/"))
            server.answer(b"", *[(b"x-%d" % (number + offset), b"") for offset in range(100)])
        assert len(h1_writer._names) <= h1_writer._name_memo.most


class TestContentLengthMismatch:
    def test_a_longer_body_in_one_call_is_cut_and_closes(self) -> None:
        server = served()
        with pytest.raises(BodyLengthMismatch):
            server.port.start(200, [(b"content-length", b"3")], b"abcdef", True, False)
        response = only(server)
        assert response.body == b"abc"
        assert response.complete
        assert server.port.body_bytes_sent == 3
        assert server.state == "closed"

    @pytest.mark.parametrize("end", [False, True])
    def test_a_longer_body_in_parts_is_cut_and_closes(self, end: bool) -> None:
        server = served().feed(request(b"/next"))
        server.port.start(200, [(b"content-length", b"3")], b"ab", False, False)
        with pytest.raises(BodyLengthMismatch):
            server.port.body(b"cdef", end)
        server.turn()
        assert only(server).body == b"abc"
        assert server.state == "half"
        assert server.targets == [b"/"]

    def test_a_body_after_a_length_of_zero_is_cut(self) -> None:
        server = served()
        with pytest.raises(BodyLengthMismatch):
            server.port.start(200, [(b"content-length", b"0")], b"HTTP/1.1 200 OK\r\n\r\n", True, False)
        assert server.reply == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    def test_a_longer_body_with_unread_request_body(self) -> None:
        server = Http1Server().feed(request(b"/", b"Content-Length: 10", method=b"POST"))
        with pytest.raises(BodyLengthMismatch):
            server.port.start(200, [(b"content-length", b"3")], b"abcdef", True, False)
        server.port.abandon()
        assert only(server).body == b"abc"
        assert server.state == "half"

    @pytest.mark.parametrize("streamed", [False, True])
    def test_a_shorter_body_drops_the_connection(self, streamed: bool) -> None:
        server = served().feed(request(b"/next"))
        server.port.start(200, [(b"content-length", b"10")], b"abc", not streamed, False)
        if streamed:
            server.port.body(b"def", True)
        server.turn()
        assert server.state == "aborted"
        assert server.driver.missing == [4 if streamed else 7]
        assert not only(server).complete
        assert server.targets == [b"/"]


class TestTrailers:
    def test_for_a_client_that_accepts_them(self) -> None:
        server = served(b"TE: trailers")
        server.port.start(200, [(b"trailer", b"x")], b"a", False, True)
        server.port.body(b"b", False)
        server.port.trailers([(b"X", b"y"), (b"Z", b"")])
        response = only(server)
        assert response.body == b"ab"
        assert response.trailers == [(b"x", b"y"), (b"z", b"")]
        assert server.state == "open"

    def test_not_for_another(self) -> None:
        server = served()
        server.port.start(200, [], b"a", False, True)
        server.port.trailers([(b"X", b"y")])
        response = only(server)
        assert response.trailers == []
        assert response.complete
        assert server.state == "open"

    def test_none_at_all(self) -> None:
        server = served(b"TE: trailers")
        server.port.start(200, [], b"", False, True)
        server.port.trailers([])
        assert server.reply.endswith(b"\r\n\r\n0\r\n\r\n")

    def test_not_behind_a_content_length(self) -> None:
        server = served(b"TE: trailers")
        server.port.start(200, [(b"content-length", b"1")], b"a", False, True)
        server.port.trailers([(b"x", b"y")])
        server.feed(request(b"/next"))
        server.answer(b"next")
        assert [response.body for response in server.responses()] == [b"a", b"next"]

    def test_behind_a_content_length_that_was_not_met(self) -> None:
        server = served(b"TE: trailers")
        server.port.start(200, [(b"content-length", b"10")], b"a", False, True)
        server.port.trailers([(b"x", b"y")])
        assert server.state == "aborted"
        assert server.driver.missing == [9]

    def test_not_to_head_or_http_1_0(self) -> None:
        server = served(b"TE: trailers", method=b"HEAD")
        server.port.start(200, [], b"a", False, True)
        server.port.trailers([(b"x", b"y")])
        assert only(server).body == b""
        assert server.state == "open"
        server = served(b"TE: trailers", version=b"1.0")
        server.port.start(200, [], b"a", False, True)
        server.port.trailers([(b"x", b"y")])
        assert server.reply.endswith(b"\r\n\r\na")
        assert server.state == "closed"

    @pytest.mark.parametrize(
        "name", [b"Content-Length", b"Transfer-Encoding", b"Host", b"Set-Cookie", b"Connection", b"TRAILER"]
    )
    def test_fields_that_frame_or_route_are_no_trailers(self, name: bytes) -> None:
        server = served(b"TE: trailers")
        server.port.start(200, [], b"a", False, True)
        with pytest.raises(InvalidHeader):
            server.port.trailers([(name, b"5")])


class TestDefaults:
    def test_date_and_server_follow_the_applications_fields(self) -> None:
        server = served(date=True, server_name="daphne")
        server.answer(b"", (b"a", b"b"))
        assert server.reply == (
            b"HTTP/1.1 200 OK\r\na: b\r\ndate: " + DATE.encode() + b"\r\nserver: daphne\r\ncontent-length: 0\r\n\r\n"
        )

    @pytest.mark.parametrize("name", [b"Date", b"date", b"SERVER"])
    def test_the_applications_own_replace_them(self, name: bytes) -> None:
        server = served(date=True, server_name="daphne")
        server.answer(b"", (name, b"mine"))
        response = only(server)
        assert response.header(name.lower()) == b"mine"
        other = b"server" if name.lower() == b"date" else b"date"
        assert response.header(other) in (b"daphne", DATE.encode())

    def test_extra_fields_yield_to_the_applications(self) -> None:
        extra = ((b"X-Frame-Options", b"DENY"), (b"X-Other", b"1"))
        server = served(extra=extra, server_name="daphne")
        server.answer(b"", (b"x-frame-options", b"SAMEORIGIN"))
        response = only(server)
        assert response.header(b"x-frame-options") == b"SAMEORIGIN"
        assert response.header(b"x-other") == b"1"
        assert response.header(b"server") == b"daphne"

    def test_none_of_them(self) -> None:
        server = served()
        server.answer(b"")
        assert server.reply == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "line"),
        [
            (200, b"HTTP/1.1 200 OK"),
            (413, b"HTTP/1.1 413 Content Too Large"),
            (422, b"HTTP/1.1 422 Unprocessable Content"),
            (299, b"HTTP/1.1 299 "),
            (999, b"HTTP/1.1 999 "),
        ],
    )
    def test_line(self, status: int, line: bytes) -> None:
        server = served()
        server.answer(b"", status=status)
        assert server.reply.startswith(line + b"\r\n")
        assert server.statuses == [status]

    def test_responses_are_always_of_our_version(self) -> None:
        server = served(version=b"1.0")
        server.answer(b"")
        assert server.reply.startswith(b"HTTP/1.1 200 OK\r\n")


class TestFramingTable:
    """The fast path of `Http1Response.start` and `FRAMING` say the same."""

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    @pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
    @pytest.mark.parametrize("status", [200, 204, 205, 304, 404, 500, 599])
    def test_each_response_is_framed_as_the_table_says(self, version: bytes, method: bytes, status: int) -> None:
        for length, body, end in product([None, 0, 2, 5], [b"", b"ok"], [False, True]):
            if end and length is not None and length != len(body):
                continue  # that is an error, and has tests of its own
            if length is not None and length < len(body):
                continue
            server = Http1Server().feed(request(b"/", method=method, version=version))
            headers = [] if length is None else [(b"content-length", b"%d" % length)]
            server.port.start(status, headers, body, end, False)
            kind = FRAMING[is_bodiless(method.decode(), status), length is not None, end, version.decode()]
            assert server.port.framing == kind, (length, body, end)
            head = server.reply.partition(b"\r\n\r\n")[0].lower()
            assert (b"\r\ntransfer-encoding: chunked" in head) is (kind == CHUNKED)
            if kind == LENGTH:
                assert b"\r\ncontent-length: %d" % (len(body) if length is None else length) in head
            if kind == UNTIL_CLOSE:
                assert b"\r\nconnection: close" in head


class TestFiles:
    def test_a_file_is_a_part_of_a_body_with_a_length(self) -> None:
        server = served()
        server.driver.file_takes = 30
        server.port.start(200, [(b"content-length", b"100")], b"", False, False)
        sent = [server.port.send_file(3, offset, 100 - offset) for offset in (0, 30, 60)]
        assert sent == [30, 30, 30]
        assert server.port.send_file(3, 90, 500) == 10  # no more than is due
        assert server.port.send_file(3, 100, 1) == -1
        assert server.port.body_bytes_sent == 100
        assert server.driver.written[1:] == [b"<0+30>", b"<30+30>", b"<60+30>", b"<90+10>"]
        server.port.body(b"", True)
        assert server.state == "open"

    def test_an_excess_is_cut_by_body(self) -> None:
        server = served()
        server.driver.file_takes = 30
        server.port.start(200, [(b"content-length", b"5")], b"", False, False)
        assert server.port.send_file(3, 0, 30) == 5
        with pytest.raises(BodyLengthMismatch, match="25 bytes longer"):
            server.port.body(bytes(25), False)

    @pytest.mark.parametrize(("version", "sent"), [(b"1.0", 30), (b"1.1", -1)])
    def test_without_a_length(self, version: bytes, sent: int) -> None:
        server = served(version=version)
        server.driver.file_takes = 30
        server.port.start(200, [], b"", False, False)
        assert server.port.send_file(3, 0, 100) == sent

    def test_without_a_body(self) -> None:
        server = served(method=b"HEAD")
        server.driver.file_takes = 30
        server.port.start(200, [(b"content-length", b"100")], b"", False, False)
        assert server.port.send_file(3, 0, 100) == -1
        assert server.driver.written[1:] == []

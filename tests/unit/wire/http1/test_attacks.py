"""Request smuggling and desynchronisation over HTTP/1.1, class by class.

Every refused request is sent whole, byte by byte, and behind two good ones. The application must never be given the
request (or, where its head was good and came in an earlier read, never its end); the answers to the good ones come
first; the connection never serves another request.
"""

from __future__ import annotations

import pytest

from tests.support.h1 import Http1Server, Replies, bytewise, chunked, chunked_request, request

POST = b"POST /victim HTTP/1.1\r\nHost: test\r\n"
GET = b"GET /victim HTTP/1.1\r\nHost: test\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"


def with_field(field: bytes, body: bytes = b"") -> bytes:
    return POST + field + b"\r\n\r\n" + body


def with_chunks(body: bytes) -> bytes:
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + body


def te(value: bytes) -> bytes:
    return with_field(b"Transfer-Encoding: " + value, b"0\r\n\r\n")


def cl(value: bytes) -> bytes:
    return with_field(b"Content-Length: " + value, b"hello")


def chunk_line(line: bytes) -> bytes:
    return with_chunks(line + b"\r\nhello\r\n0\r\n\r\n")


HEAD_ATTACKS: dict[str, tuple[int, bytes]] = {
    # Both framings.
    "CL.TE": (400, with_field(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n")),
    "TE.CL": (400, with_field(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n")),
    "CL.TE with Content-Length 0": (400, with_field(b"Content-Length: 0\r\nTransfer-Encoding: chunked", b"0\r\n\r\n")),
    # TE.TE: one of two servers is to miss the coding.
    "TE.TE xchunked": (501, te(b"xchunked")),
    "TE.TE quoted": (501, te(b'"chunked"')),
    "TE.TE split word": (501, te(b"chun ked")),
    "TE.TE parameter": (501, te(b"chunked;q=1")),
    "TE.TE vertical tab before": (400, te(b"\x0bchunked")),
    "TE.TE vertical tab after": (400, te(b"chunked\x0b")),
    "TE.TE tab after": (400, te(b"chunked\t")),
    "TE.TE empty": (400, te(b"")),
    "TE.TE identity": (501, te(b"identity")),
    "TE.TE list gzip, chunked": (501, te(b"gzip, chunked")),
    "TE.TE list chunked, identity": (400, te(b"chunked, identity")),
    "TE.TE list chunked, chunked": (400, te(b"chunked, chunked")),
    "TE.TE list empty element after": (400, te(b"chunked,")),
    "TE.TE list empty element before": (501, te(b",chunked")),
    "TE.TE duplicate": (400, te(b"chunked\r\nTransfer-Encoding: chunked")),
    "TE.TE duplicate chunked, identity": (400, te(b"chunked\r\nTransfer-Encoding: identity")),
    "TE.TE duplicate identity, chunked": (501, te(b"identity\r\nTransfer-Encoding: chunked")),
    "TE.TE space before colon": (400, with_field(b"Transfer-Encoding : chunked", b"0\r\n\r\n")),
    "TE.TE after a bare LF": (400, with_field(b"X: y\nTransfer-Encoding: chunked", b"0\r\n\r\n")),
    "TE.TE after a bare CR": (400, with_field(b"X: y\rTransfer-Encoding: chunked", b"0\r\n\r\n")),
    "TE.TE folded": (400, with_field(b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n")),
    "TE on HTTP/1.0": (400, b"POST / HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "TE on HTTP/1.0 keep-alive": (
        400,
        b"POST / HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    # Content-Length.
    "CL duplicate": (400, cl(b"5\r\nContent-Length: 5")),
    "CL differing": (400, cl(b"5\r\nContent-Length: 6")),
    "CL comma list": (400, cl(b"5, 5")),
    "CL comma list without space": (400, cl(b"5,6")),
    "CL plus sign": (400, cl(b"+5")),
    "CL minus sign": (400, cl(b"-5")),
    "CL inner space": (400, cl(b"5 5")),
    "CL underscore": (400, cl(b"5_0")),
    "CL hexadecimal": (400, cl(b"0x5")),
    "CL not a digit": (400, cl(b"five")),
    "CL fraction": (400, cl(b"5.0")),
    "CL exponent": (400, cl(b"5e0")),
    "CL full-width digit": (400, cl("５".encode())),
    "CL empty": (400, cl(b"")),
    "CL huge": (413, cl(b"9" * 30)),
    # Line ends.
    "bare LF line ends": (400, b"GET / HTTP/1.1\nHost: test\n\n"),
    "bare LF after a field": (400, GET + b"A: b\nC: d\r\n\r\n"),
    "bare LF at the end of the head": (400, GET + b"\n"),
    "bare LF after the request line": (400, b"GET / HTTP/1.1\nHost: test\r\n\r\n"),
    "bare CR line end": (400, b"GET / HTTP/1.1\rHost: test\r\n\r\n"),
    "bare CR in a value": (400, GET + b"A: b\rC: d\r\n\r\n"),
    "CR CR LF": (400, GET + b"A: b\r\r\n\r\n"),
    # Field lines.
    "space before colon": (400, GET + b"A : b\r\n\r\n"),
    "tab before colon": (400, GET + b"A\t: b\r\n\r\n"),
    "obs-fold with space": (400, GET + b"A: b\r\n c\r\n\r\n"),
    "obs-fold with tab": (400, GET + b"A: b\r\n\tc\r\n\r\n"),
    "space before the first field": (400, b"GET / HTTP/1.1\r\n Host: test\r\n\r\n"),
    "NUL in a value": (400, GET + b"A: b\0c\r\n\r\n"),
    "control in a value": (400, GET + b"A: b\x01c\r\n\r\n"),
    "DEL in a value": (400, GET + b"A: b\x7fc\r\n\r\n"),
    "NUL in a name": (400, GET + b"A\0: b\r\n\r\n"),
    "empty name": (400, GET + b": b\r\n\r\n"),
    "no colon": (400, GET + b"A\r\n\r\n"),
    "non-token name": (400, GET + b"A(b): c\r\n\r\n"),
    "name beyond ASCII": (400, GET + b"A\xe9: c\r\n\r\n"),
    # Host.
    "missing Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "duplicate Host": (400, GET + b"Host: test\r\n\r\n"),
    "differing Host": (400, GET + b"Host: other\r\n\r\n"),
    "Host with a path": (400, b"GET / HTTP/1.1\r\nHost: test/admin\r\n\r\n"),
    "Host with user information": (400, b"GET / HTTP/1.1\r\nHost: user@test\r\n\r\n"),
    "Host with a query": (400, b"GET / HTTP/1.1\r\nHost: test?x\r\n\r\n"),
    "Host with a fragment": (400, b"GET / HTTP/1.1\r\nHost: test#x\r\n\r\n"),
    "Host with a space": (400, b"GET / HTTP/1.1\r\nHost: test other\r\n\r\n"),
    "Host with a port beyond digits": (400, b"GET / HTTP/1.1\r\nHost: test:80a\r\n\r\n"),
    "Host beyond ASCII": (400, b"GET / HTTP/1.1\r\nHost: t\xe9st\r\n\r\n"),
    "Host with a broken percent-encoding": (400, b"GET / HTTP/1.1\r\nHost: te%zz\r\n\r\n"),
    "Host with an open bracket": (400, b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    "absolute-form against Host": (400, b"GET http://other/ HTTP/1.1\r\nHost: test\r\n\r\n"),
    "absolute-form against the port of Host": (400, b"GET http://test:81/ HTTP/1.1\r\nHost: test\r\n\r\n"),
    "absolute-form with user information": (400, b"GET http://user@test/ HTTP/1.1\r\nHost: test\r\n\r\n"),
    "absolute-form without authority": (400, b"GET http:///x HTTP/1.1\r\nHost: test\r\n\r\n"),
    "absolute-form of another scheme": (400, b"GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n"),
    # Request lines.
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/0.9 with a version": (505, b"GET / HTTP/0.9\r\nHost: test\r\n\r\n"),
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\nHost: test\r\n\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\nHost: test\r\n\r\n"),
    "version with two digits": (400, b"GET / HTTP/1.10\r\nHost: test\r\n\r\n"),
    "version in lower case": (400, b"GET / http/1.1\r\nHost: test\r\n\r\n"),
    "space after the version": (400, b"GET / HTTP/1.1 \r\nHost: test\r\n\r\n"),
    "space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: test\r\n\r\n"),
    "NUL in the target": (400, b"GET /a\0b HTTP/1.1\r\nHost: test\r\n\r\n"),
    "control in the target": (400, b"GET /a\x01b HTTP/1.1\r\nHost: test\r\n\r\n"),
    "DEL in the target": (400, b"GET /a\x7fb HTTP/1.1\r\nHost: test\r\n\r\n"),
    "tab in the target": (400, b"GET /a\tb HTTP/1.1\r\nHost: test\r\n\r\n"),
    "target beyond ASCII": (400, b"GET /caf\xe9 HTTP/1.1\r\nHost: test\r\n\r\n"),
    "query beyond ASCII": (400, b"GET /?caf\xe9 HTTP/1.1\r\nHost: test\r\n\r\n"),
    "fragment in the target": (400, b"GET /a#b HTTP/1.1\r\nHost: test\r\n\r\n"),
    "fragment in the query": (400, b"GET /a?b#c HTTP/1.1\r\nHost: test\r\n\r\n"),
    "relative target": (400, b"GET a/b HTTP/1.1\r\nHost: test\r\n\r\n"),
    "target that is a query": (400, b"GET ?x HTTP/1.1\r\nHost: test\r\n\r\n"),
    "no target": (400, b"GET HTTP/1.1\r\nHost: test\r\n\r\n"),
    "asterisk-form of another method": (400, b"GET * HTTP/1.1\r\nHost: test\r\n\r\n"),
    "asterisk-form with a query": (400, b"OPTIONS *?x HTTP/1.1\r\nHost: test\r\n\r\n"),
    "method in lower case": (501, b"get / HTTP/1.1\r\nHost: test\r\n\r\n"),
    "unknown method": (501, b"BREW / HTTP/1.1\r\nHost: test\r\n\r\n"),
    "method of RTSP": (501, b"DESCRIBE / HTTP/1.1\r\nHost: test\r\n\r\n"),
    "CONNECT": (501, b"CONNECT test:80 HTTP/1.1\r\nHost: test:80\r\n\r\n"),
    "space before the method": (501, b" GET / HTTP/1.1\r\nHost: test\r\n\r\n"),
    # Expectations.
    "unknown expectation": (417, with_field(b"Content-Length: 5\r\nExpect: 200-ok", b"hello")),
    "expectation in a list": (417, with_field(b"Content-Length: 5\r\nExpect: 100-continue, x", b"hello")),
    "expectation obfuscated": (417, with_field(b"Content-Length: 5\r\nExpect: y 100-continue", b"hello")),
}

BODY_ATTACKS: dict[str, tuple[int, bytes]] = {
    "chunk size 0x": (400, chunk_line(b"0x5")),
    "chunk size plus sign": (400, chunk_line(b"+5")),
    "chunk size minus sign": (400, chunk_line(b"-5")),
    "chunk size underscore": (400, chunk_line(b"5_0")),
    "chunk size leading space": (400, chunk_line(b" 5")),
    "chunk size trailing space": (400, chunk_line(b"5 ")),
    "chunk size trailing tab": (400, chunk_line(b"5\t")),
    "chunk size empty": (400, chunk_line(b"")),
    "chunk size not hexadecimal": (400, chunk_line(b"g")),
    "chunk size overflow": (413, chunk_line(b"f" * 17)),
    "chunk size overflow to five": (413, chunk_line(b"10000000000000005")),
    "LF in a chunk extension": (400, chunk_line(b"5;a\nb")),
    "CR in a chunk extension": (400, chunk_line(b"5;a\rb")),
    "NUL in a chunk extension": (400, chunk_line(b"5;a\0b")),
    "LF in a quoted chunk extension": (400, chunk_line(b'5;a="\nb"')),
    "space before a chunk extension": (400, chunk_line(b"5 ;a")),
    "empty chunk extension": (400, chunk_line(b"5;")),
    "bare LF after a chunk size": (400, with_chunks(b"5\nhello\r\n0\r\n\r\n")),
    "bare CR after a chunk size": (400, with_chunks(b"5\rhello\r\n0\r\n\r\n")),
    "wrong chunk terminator": (400, with_chunks(b"5\r\nhelloXX0\r\n\r\n")),
    "chunk terminator bare LF": (400, with_chunks(b"5\r\nhello\n0\r\n\r\n")),
    "chunk terminator bare CR": (400, with_chunks(b"5\r\nhello\r0\r\n\r\n")),
    "chunk longer than its size": (400, with_chunks(b"5\r\nhello!\r\n0\r\n\r\n")),
    "bare LF after the last chunk": (400, with_chunks(b"0\n\n")),
    "bare LF at the end of the trailers": (400, with_chunks(b"0\r\nA: b\r\n\n")),
    "bare LF in the trailers": (400, with_chunks(b"0\r\nA: b\nC: d\r\n\r\n")),
    "obs-fold in the trailers": (400, with_chunks(b"0\r\nA: b\r\n c\r\n\r\n")),
    "space before colon in the trailers": (400, with_chunks(b"0\r\nA : b\r\n\r\n")),
    "Content-Length in the trailers": (400, with_chunks(b"0\r\nContent-Length: 5\r\n\r\n")),
    "Transfer-Encoding in the trailers": (400, with_chunks(b"0\r\nTransfer-Encoding: chunked\r\n\r\n")),
    "NUL in the trailers": (400, with_chunks(b"0\r\nA: b\0c\r\n\r\n")),
}


def refused(server: Http1Server, status: int, before: int = 0) -> None:
    """Assert that the last answer refuses, and that nothing after it is served."""
    responses = server.responses(*["GET"] * (before + 1))
    assert [response.status for response in responses] == [200] * before + [status]
    last = responses[-1]
    assert last.complete
    assert last.closes
    assert last.header(b"connection") == b"close"
    assert [given for given, _ in server.driver.refusals] == [status]
    assert server.state == "half"
    served, written = len(server.sinks), server.reply
    server.feed(SMUGGLED, SMUGGLED)
    assert len(server.sinks) == served
    server.advance(server.config.drain_pause_timeout + 1)
    assert server.state in ("closed", "aborted")
    assert server.reply == written


@pytest.mark.parametrize("name", HEAD_ATTACKS)
def test_a_broken_head_is_refused_and_never_seen(name: str) -> None:
    status, data = HEAD_ATTACKS[name]
    for parts in ([data], [data + SMUGGLED], bytewise(data)):
        server = Http1Server(Replies()).feed(*parts)
        assert server.targets == []
        refused(server, status)


def test_tls_on_a_plain_port_is_named() -> None:
    server = Http1Server(Replies()).feed(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32))
    refused(server, 400)
    assert b"This is TLS; the port speaks plain HTTP." in server.reply


@pytest.mark.parametrize("name", HEAD_ATTACKS)
def test_a_broken_head_behind_good_requests_is_refused_after_their_answers(name: str) -> None:
    status, data = HEAD_ATTACKS[name]
    good = request(b"/1") + request(b"/2", method=b"POST", body=b"x")
    for parts in ([good + data], [good, data], bytewise(good + data)):
        server = Http1Server(Replies()).feed(*parts)
        assert server.targets == [b"/1", b"/2"]
        refused(server, status, before=2)


@pytest.mark.parametrize("name", BODY_ATTACKS)
def test_a_broken_body_is_refused_and_never_complete(name: str) -> None:
    status, data = BODY_ATTACKS[name]
    for parts in ([data], [data + SMUGGLED]):
        server = Http1Server(Replies()).feed(*parts)
        assert server.targets == []
        refused(server, status)
    server = Http1Server(Replies()).feed(*bytewise(data))
    assert server.targets == [b"/victim"]
    assert not server.sink.ended
    assert server.sink.reason
    refused(server, status)


@pytest.mark.parametrize("name", BODY_ATTACKS)
def test_a_broken_body_behind_good_requests_is_refused_after_their_answers(name: str) -> None:
    status, data = BODY_ATTACKS[name]
    good = request(b"/1") + chunked_request(b"x", target=b"/2")
    server = Http1Server(Replies()).feed(good + data)
    assert server.targets == [b"/1", b"/2"]
    refused(server, status, before=2)
    # The good ones are still being answered when the body breaks.
    server = Http1Server().feed(good, data[:-30], data[-30:])
    assert server.targets == [b"/1"]
    server.answer()
    server.answer()
    assert server.targets == [b"/1", b"/2"]
    refused(server, status, before=2)


@pytest.mark.parametrize("name", [*HEAD_ATTACKS, *BODY_ATTACKS])
def test_a_refusal_repeats_nothing_of_the_request(name: str) -> None:
    # Log injection, and reflected content in an answer of our own.
    _, data = {**HEAD_ATTACKS, **BODY_ATTACKS}[name]
    server = Http1Server().feed(data)
    ((_, detail),) = server.driver.refusals
    assert detail.isascii() and detail.isprintable()
    assert b"victim" not in server.reply
    assert b"smuggled" not in server.reply


class TestClZero:
    """CL.0: a back end that ignores the body of a request takes it for the next one."""

    def test_body_of_a_get_is_a_body(self) -> None:
        server = Http1Server(Replies()).feed(request(b"/", body=SMUGGLED) + request(b"/next"))
        assert server.targets == [b"/", b"/next"]
        assert server.sinks[0].body == SMUGGLED
        assert server.statuses == [200, 200]

    @pytest.mark.parametrize("arrival", ["together", "apart", "late"])
    def test_body_that_no_one_reads_is_drained(self, arrival: str) -> None:
        data = request(b"/", method=b"POST", body=SMUGGLED)
        cut = len(data) - len(SMUGGLED)
        server = Http1Server()
        if arrival == "together":
            server.feed(data)
        elif arrival == "apart":
            server.feed(data[:cut], data[cut:])
        else:
            server.feed(data[:cut])
        server.answer(b"early")
        if arrival == "late":
            server.feed(*bytewise(data[cut:]))
        server.feed(request(b"/next"))
        server.answer(b"next")
        assert server.targets == [b"/", b"/next"]
        assert [response.body for response in server.responses()] == [b"early", b"next"]
        assert server.state == "open"

    def test_large_body_that_no_one_reads_closes(self) -> None:
        server = Http1Server().feed(request(b"/", b"Content-Length: 1000000", method=b"POST"))
        server.answer(b"early")
        server.feed(*[SMUGGLED * 1000] * 3)
        assert server.targets == [b"/"]
        assert server.state == "half"


class TestZeroCl:
    """0.CL: the front end sees no body, we see one; its next request must not become our body or request."""

    def test_a_length_that_never_comes_true_takes_what_follows(self) -> None:
        # Nothing to be done against a front end that ignores a Content-Length, but no second request may appear.
        server = Http1Server().feed(request(b"/", b"Content-Length: 100", method=b"POST") + SMUGGLED)
        assert server.targets == [b"/"]
        assert server.sink.body == SMUGGLED
        assert not server.sink.ended

    def test_expect_answered_without_continue_closes(self) -> None:
        # 0.CL by way of 100-continue: after a final status the client may or may not send the body.
        server = Http1Server().feed(request(b"/", b"Content-Length: 37", b"Expect: 100-continue", method=b"POST"))
        server.answer(b"no", status=403)
        server.feed(SMUGGLED)
        assert server.targets == [b"/"]
        (response,) = server.responses()
        assert response.closes
        assert server.state == "half"


class TestConnectionClose:
    @pytest.mark.parametrize(
        "field",
        [b"Connection: close", b"Connection: CLOSE", b"Connection: x, close\t", b"Connection: keep-alive, close"],
    )
    def test_what_is_pipelined_after_it_is_not_served(self, field: bytes) -> None:
        data = request(b"/last", field)
        for parts in ([data + SMUGGLED], [data, SMUGGLED], bytewise(data + SMUGGLED)):
            server = Http1Server(Replies()).feed(*parts)
            assert server.targets == [b"/last"]
            (response,) = server.responses()
            assert response.closes
            assert server.state in ("half", "closed")

    def test_the_applications_own_close_counts_too(self) -> None:
        server = Http1Server().feed(request(b"/last") + SMUGGLED)
        server.answer(b"bye", (b"Connection", b"close"))
        assert server.targets == [b"/last"]
        (response,) = server.responses()
        assert response.closes
        assert server.state == "half"

    def test_http_1_0_closes_by_itself(self) -> None:
        server = Http1Server(Replies()).feed(request(b"/last", version=b"1.0") + SMUGGLED)
        assert server.targets == [b"/last"]
        assert server.state in ("half", "closed")


UPGRADES = [b"Connection: Upgrade, HTTP2-Settings", b"Connection: upgrade"]


class TestUnwantedUpgrade:
    """llhttp stops at an Upgrade and leaves the body unparsed: it must not become a request."""

    @pytest.mark.parametrize("connection", UPGRADES)
    @pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"x, y"])
    @pytest.mark.parametrize("body", ["none", "empty", "length", "chunked"])
    def test_with_a_body_and_requests_after_it(self, connection: bytes, protocol: bytes, body: str) -> None:
        fields = [connection, b"Upgrade: " + protocol]
        if body == "none":
            data, expected = request(b"/up", *fields), b""
        elif body == "empty":
            data, expected = request(b"/up", *fields, b"Content-Length: 0", method=b"POST"), b""
        elif body == "length":
            data, expected = request(b"/up", *fields, method=b"POST", body=SMUGGLED), SMUGGLED
        else:
            data = request(b"/up", *fields, b"Transfer-Encoding: chunked", method=b"POST")
            data, expected = data + chunked(SMUGGLED, b"x", trailers=b"T: 1\r\n"), SMUGGLED + b"x"
        stream = request(b"/before") + data + data + request(b"/after")
        for parts in ([stream], bytewise(stream), [stream[:100], stream[100:]]):
            server = Http1Server(Replies()).feed(*parts)
            assert server.targets == [b"/before", b"/up", b"/up", b"/after"]
            assert [sink.body for sink in server.sinks] == [b"", expected, expected, b""]
            assert server.sinks[1].head.upgrade == protocol
            assert server.sinks[1].trailers == ([(b"t", b"1")] if body == "chunked" else [])
            assert server.statuses == [200] * 4
            assert server.state == "open"

    def test_with_close(self) -> None:
        data = request(b"/up", b"Connection: upgrade, close", b"Upgrade: h2c", method=b"POST", body=b"hello")
        for parts in ([data + SMUGGLED], bytewise(data + SMUGGLED)):
            server = Http1Server(Replies()).feed(*parts)
            assert server.targets == [b"/up"]
            assert server.state in ("half", "closed")

    def test_not_listed_in_connection_is_no_upgrade(self) -> None:
        server = Http1Server(Replies()).feed(request(b"/", b"Upgrade: h2c") + request(b"/next"))
        assert server.targets == [b"/", b"/next"]
        assert server.sinks[0].head.upgrade is None

    def test_of_a_broken_chunked_body_is_refused(self) -> None:
        data = request(b"/", *UPGRADES[:1], b"Upgrade: h2c", b"Transfer-Encoding: chunked", method=b"POST")
        server = Http1Server(Replies()).feed(data + b"5\r\nhelloXX0\r\n\r\n" + SMUGGLED)
        assert server.targets == []
        refused(server, 400)


class TestRequestTrailers:
    """Trailers must never be mistaken for header fields: of their own request or of the next."""

    def test_they_do_not_reach_the_scope_headers(self) -> None:
        data = chunked_request(b"x", trailers=b"X-Forwarded-For: 6.6.6.6\r\nHost: evil\r\n") + request(b"/next")
        for parts in ([data], bytewise(data)):
            server = Http1Server(Replies()).feed(*parts)
            assert [dict(sink.head.headers).get(b"host") for sink in server.sinks] == [b"test", b"test"]
            assert all(b"x-forwarded-for" not in dict(sink.head.headers) for sink in server.sinks)
            assert server.sinks[0].trailers == [(b"x-forwarded-for", b"6.6.6.6"), (b"host", b"evil")]

    def test_connection_close_among_them_ends_the_connection_before_another_request(self) -> None:
        server = Http1Server(Replies()).feed(chunked_request(b"x", trailers=b"Connection: close\r\n") + SMUGGLED)
        assert server.targets == [b"/"]
        assert server.state == "half"


class TestUnderscores:
    """CVE-2015-0219: names that a WSGI-style environment cannot tell apart."""

    @pytest.mark.parametrize("name", [b"X_Forwarded_For", b"Content_Length", b"Transfer_Encoding", b"_", b"Ho_st"])
    def test_names_with_underscores_are_dropped(self, name: bytes) -> None:
        server = Http1Server(Replies()).feed(request(b"/", name + b": 5") + request(b"/next"))
        assert server.sinks[0].head.headers == [(b"host", b"test")]
        assert server.targets == [b"/", b"/next"]


class TestOrder:
    """Response queue poisoning: an answer that reaches the wrong request."""

    def test_what_arrives_between_two_exchanges_waits_its_turn(self) -> None:
        # A read may be handled after one exchange has ended and before the next one, which waits already, has begun.
        server = Http1Server().feed(request(b"/1") + request(b"/2"))
        server.port.start(200, [], b"one", True, False)
        server.h1.receive_data(request(b"/3"))
        server.turn()
        server.answer(b"two")
        server.answer(b"three")
        assert server.targets == [b"/1", b"/2", b"/3"]
        assert [response.body for response in server.responses()] == [b"one", b"two", b"three"]

    def test_an_error_that_arrives_between_two_exchanges_waits_its_turn(self) -> None:
        server = Http1Server().feed(request(b"/1") + request(b"/2"))
        server.port.start(200, [], b"one", True, False)
        server.h1.receive_data(b"GET / HTTP/1.1\r\n\r\n")
        server.turn()
        assert server.targets == [b"/1", b"/2"]
        server.answer(b"two")
        assert server.statuses == [200, 200, 400]

    def test_a_body_that_arrives_between_two_exchanges_belongs_to_its_request(self) -> None:
        second = request(b"/2", method=b"POST", body=b"hello")
        server = Http1Server().feed(request(b"/1") + second[:-4])
        server.port.start(200, [], b"one", True, False)
        server.h1.receive_data(second[-4:] + request(b"/3"))
        server.turn()
        assert server.sink.body == b"hello"
        assert server.sink.ended
        server.answer(b"two")
        server.answer(b"three")
        assert server.targets == [b"/1", b"/2", b"/3"]

    def test_requests_never_overlap(self) -> None:
        server = Http1Server().feed(b"".join(request(b"/%d" % number) for number in range(5)))
        for number in range(5):
            assert len(server.sinks) == number + 1
            server.answer(b"%d" % number)
        assert [response.body for response in server.responses()] == [b"0", b"1", b"2", b"3", b"4"]

"""What the client gets of a response."""

from __future__ import annotations

import time
from typing import Any

from daphne_ng.testing.conformance.case import OK, START, Case
from daphne_ng.testing.conformance.core import HTTP1, MUST, PRACTICE, Failed, Skipped
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.exchange import Broken, Response
from daphne_ng.testing.conformance.http2 import Http2Exchange

_START = "HTTP: Response Start"
_BODY = "HTTP: Response Body"

_FLOOD_PARTS, _FLOOD_PART = 1024, 1 << 16


def _body(content: bytes = b"", **more: Any) -> tuple[str, dict[str, Any]]:
    return ("send", {"type": "http.response.body", "body": content, **more})


def _start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> tuple[str, dict[str, Any]]:
    return ("send", {"type": "http.response.start", "status": status, "headers": list(headers), **more})


@that("response.status", MUST, _START, "`status` (int) -- HTTP status code.")
def status(case: Case) -> None:
    for code in (200, 201, 299, 404, 503):
        response, _ = case.ask(_start(code), _body(b"x"))
        if response.status != code:
            raise Failed(f"the client gets {response.status}, not {code}")


@that(
    "response.headers-order",
    MUST,
    _START,
    "`headers` … Order must be preserved in the HTTP response.",
)
def headers_order(case: Case) -> None:
    sent = [(b"x-c", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2"), (b"set-cookie", b"b=2"), (b"x-b", b"3")]
    response, _ = case.ask(_start(200, *sent), _body(b"x"))
    found = [(name.lower(), value) for name, value in response.headers if name.lower() in dict(sent)]
    if found != sent:
        raise Failed(f"the client gets {found!r}")


@that("response.headers-tuples", MUST, _START, "`headers` … An iterable of `[name, value]` two-item iterables")
def headers_iterables(case: Case) -> None:
    message = {"type": "http.response.start", "status": 200, "headers": ([b"x-one", b"1"], (b"x-two", b"2"))}
    response, play = case.ask(("send", message), _body(b"x"))
    if response.all(b"x-one") != [b"1"] or response.all(b"x-two") != [b"2"]:
        raise Failed(f"the client gets {response.headers!r}; {play.notes('send raised')!r}")


@that("response.headers-optional", MUST, _START, "`headers` … Optional; if missing defaults to an empty list.")
def headers_optional(case: Case) -> None:
    response, _ = case.ask(("send", {"type": "http.response.start", "status": 202}), _body(b"x"))
    if response.status != 202 or response.body != b"x":
        raise Failed(f"status {response.status}, body {bytes(response.body)!r}")


@that(
    "response.headers-bytes",
    MUST,
    "HTTP: WSGI encoding differences",
    "`headers`: These are byte strings of the exact byte sequences … to be sent by the server.",
)
def headers_bytes(case: Case) -> None:
    sent = b"caf\xc3\xa9 \xe9 a,  b"
    response, _ = case.ask(_start(200, (b"x-bytes", sent)), _body(b"x"))
    if response.all(b"x-bytes") != [sent]:
        raise Failed(f"the client gets {response.all(b'x-bytes')!r}")


@that(
    "response.transfer-encoding",
    MUST,
    _START,
    "You may send a `Transfer-Encoding` header in this message, but the server must ignore it.",
)
def transfer_encoding(case: Case) -> None:
    response, _ = case.ask(_start(200, (b"transfer-encoding", b"gzip")), _body(b"one", more_body=True), _body(b"two"))
    found = response.all(b"transfer-encoding")
    if found not in ([], [b"chunked"]) or (case.is_http2 and found):
        raise Failed(f"the client gets transfer-encoding {found!r}")
    _is(response, b"onetwo")


@that(
    "response.transfer-encoding-chunked",
    MUST,
    _START,
    "the server must ignore it. Servers handle `Transfer-Encoding` themselves",
)
def transfer_encoding_chunked(case: Case) -> None:
    response, _ = case.ask(_start(200, (b"transfer-encoding", b"chunked")), _body(b"5\r\nhello\r\n0\r\n\r\n"))
    _is(response, b"5\r\nhello\r\n0\r\n\r\n")


def _is(response: Response, content: bytes) -> None:
    if response.body != content:
        raise Failed(f"the client gets the body {bytes(response.body[:80])!r}")


@that(
    "response.body",
    MUST,
    _BODY,
    "`body` … HTTP body content. Concatenated onto any previous `body` values sent in this connection scope.",
)
def body(case: Case) -> None:
    response, _ = case.ask(
        ("send", START),
        _body(b"one", more_body=True),
        _body(b"", more_body=True),
        _body(b"two", more_body=True),
        _body(),
    )
    _is(response, b"onetwo")


@that("response.body-large", MUST, _BODY, "Concatenated onto any previous `body` values: 4 MiB of them.")
def body_large(case: Case) -> None:
    play = case.play(("send", START), ("flood", "http.response.body", 1 << 16, 64), _body(b"end"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    _is_flood(case.whole(exchange), 64)


def _is_flood(response: Response, count: int, end: bytes = b"end") -> None:
    wanted = b"".join(number.to_bytes(4, "big") + bytes(_FLOOD_PART - 4) for number in range(count)) + end
    if response.body != wanted:
        raise Failed(f"the client gets {len(response.body)} bytes, not the {len(wanted)} that were sent")


@that("response.body-optional", MUST, _BODY, '`body` … Optional; if missing defaults to `b""`.')
def body_optional(case: Case) -> None:
    response, play = case.ask(("send", START), ("send", {"type": "http.response.body"}))
    if response.body or play.notes("send raised"):
        raise Failed(f"body {bytes(response.body)!r}; {play.notes('send raised')!r}")


@that(
    "response.flushed",
    MUST,
    _BODY,
    "Protocol servers must flush any data passed to them into the send buffer before returning from a send call.",
)
def flushed(case: Case) -> None:
    play = case.play(("send", START), _body(b"first", more_body=True), ("wait", "go"), _body(b"second"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        response = exchange.read_body(5, case.limits.answer)
    except (TimeoutError, Broken) as error:
        raise Failed("the first part does not come while the application waits") from error
    _is(response, b"first")
    play.tell("go")
    _is(case.whole(exchange), b"firstsecond")


@that(
    "response.ends",
    MUST,
    _BODY,
    "If `more_body` is set to `False`, and the server is not expecting *Response Trailers* this will complete the response.",
)
def ends(case: Case) -> None:
    play = case.play(("send", START), _body(b"whole"), ("wait", "go"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        _is(case.whole(exchange), b"whole")
    finally:
        play.tell("go")


@that("response.more-body-default", MUST, _BODY, "`more_body` … Optional; if missing defaults to `False`.")
def more_body_default(case: Case) -> None:
    response, play = case.ask(("send", START), ("send", {"type": "http.response.body", "body": b"whole"}))
    _is(response, b"whole")
    play.end()


@that(
    "response.after-end",
    MUST,
    _BODY,
    "response will be taken as complete and closed, and any further messages on the channel will be ignored",
)
def after_end(case: Case) -> None:
    play = case.play(*OK, _body(b"late"), ("send", START), _body(b"late"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    _is(case.whole(exchange), b"ok")
    play.end()
    case.nothing_behind(exchange)


@that("response.content-length", MUST, _START, "`headers`: Content-Length frames the body.")
def content_length(case: Case) -> None:
    response, _ = case.ask(_start(200, (b"content-length", b"6")), _body(b"one", more_body=True), _body(b"two"))
    if response.all(b"content-length") != [b"6"] or response.all(b"transfer-encoding"):
        raise Failed(f"the client gets {response.headers!r}")
    _is(response, b"onetwo")


@that(
    "response.framed",
    MUST,
    "HTTP: Connection Scope",
    "a response that is given to the server with no `Content-Length` may be chunked as the server sees fit: its end shows.",
)
def framed(case: Case) -> None:
    response, _ = case.ask(("send", START), _body(b"one", more_body=True), _body(b"two"))
    _is(response, b"onetwo")
    if not response.on_length and response.all(b"connection") != [b"close"]:
        raise Failed("the end of the connection ends the body, and nothing says so")


@that("response.head", PRACTICE, _BODY, "A response to HEAD has no body, and the next response follows.")
def head(case: Case) -> None:
    play = case.play(_start(200, (b"content-length", b"5")), _body(b"whole"))
    exchange = case.exchange()
    exchange.request("HEAD", play.target)
    response = case.whole(exchange)
    if response.status != 200 or response.body:
        raise Failed(f"status {response.status}, body {bytes(response.body)!r}")
    case.nothing_behind(exchange)


@that("response.head-streamed", PRACTICE, _BODY, "A response to HEAD has no body, in no part.")
def head_streamed(case: Case) -> None:
    play = case.play(("send", START), _body(b"one", more_body=True), _body(b"two"))
    exchange = case.exchange()
    exchange.request("HEAD", play.target)
    response = case.whole(exchange)
    if response.body:
        raise Failed(f"body {bytes(response.body)!r}")
    case.nothing_behind(exchange)


@that("response.no-content", PRACTICE, _BODY, "Responses 204 and 304 have no body.")
def no_content(case: Case) -> None:
    for code in (204, 304):
        play = case.play(_start(code), _body(b""))
        exchange = case.exchange()
        exchange.request("GET", play.target)
        response = case.whole(exchange)
        if response.status != code or response.body or response.all(b"transfer-encoding"):
            raise Failed(f"status {response.status}, {response.headers!r}, body {bytes(response.body)!r}")
        if code == 204 and response.all(b"content-length"):
            raise Failed("204 has a Content-Length")
        case.nothing_behind(exchange)


@that("response.no-content-body", PRACTICE, _BODY, "A body that the application sends with 204 or 304 does not go out.")
def no_content_body(case: Case) -> None:
    for code in (204, 304):
        play = case.play(_start(code), _body(b"wrong"))
        exchange = case.exchange()
        exchange.request("GET", play.target)
        response = case.whole(exchange)
        if response.body:
            raise Failed(f"{code} has the body {bytes(response.body)!r}")
        case.nothing_behind(exchange)


@that(
    "response.too-long",
    PRACTICE,
    _BODY,
    "What is longer than its Content-Length does not go out behind the response.",
)
def too_long(case: Case) -> None:
    play = case.play(_start(200, (b"content-length", b"5")), _body(b"whole", more_body=True), _body(b"HTTP/1.1 200"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        response = exchange.read_all(case.limits.answer)
    except Broken:
        return
    except TimeoutError:
        raise Failed("the client is left without an end") from None
    if response.complete and len(response.body) > 5:
        raise Failed(f"the client gets {bytes(response.body)!r}")
    play.end()
    if not isinstance(exchange, Http2Exchange):
        case.nothing_behind(exchange)


@that(
    "response.too-short",
    PRACTICE,
    _BODY,
    "A response that is shorter than its Content-Length ends the connection: the client does not wait for the rest.",
)
def too_short(case: Case) -> None:
    play = case.play(_start(200, (b"content-length", b"9")), _body(b"part"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        response = exchange.read_all(case.limits.answer)
    except Broken:
        return
    except TimeoutError:
        raise Failed("the client waits for the rest") from None
    if response.complete and response.status == 200:
        raise Failed("the client gets a complete response")


@that(
    "response.slow-reader",
    PRACTICE,
    "ASGI: Applications",
    "`send` … will return once the send has been completed: it waits for a client that does not read.",
)
def slow_reader(case: Case) -> None:
    play = case.play(("send", START), ("flood", "http.response.body", _FLOOD_PART, _FLOOD_PARTS), _body(b"end"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    play.wait("sent")
    # Until nothing is taken any more.
    before, now = -1, 0
    deadline = time.monotonic() + 4 * case.limits.answer
    while before != now and time.monotonic() < deadline:
        time.sleep(max(case.limits.quiet, 0.5))
        before, now = now, len(play.notes("sent"))
    taken = now * _FLOOD_PART
    exchange.reset()
    if now > _FLOOD_PARTS:
        raise Failed(f"the server took {taken >> 20} MiB for a client that reads nothing")


@that("response.http-1.0", PRACTICE, _START, "A client of HTTP/1.0 gets no chunks.", on=[HTTP1])
def old_client(case: Case) -> None:
    play = case.play(("send", START), _body(b"one", more_body=True), _body(b"two"))
    exchange = case.http1()
    exchange.request("GET", play.target, version=b"1.0")
    response = case.whole(exchange)
    if response.status == 505:
        raise Skipped("the server does not speak HTTP/1.0")
    if response.all(b"transfer-encoding"):
        raise Failed("the response is chunked")
    _is(response, b"onetwo")

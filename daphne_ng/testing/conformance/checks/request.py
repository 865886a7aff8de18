"""What the application receives of a request."""

from __future__ import annotations

import hashlib

from daphne_ng.testing.conformance.case import OK, START, Case
from daphne_ng.testing.conformance.core import HTTP1, MAY, MUST, PRACTICE, Failed, Skipped
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.exchange import Exchange
from daphne_ng.testing.conformance.http1 import Http1Exchange
from daphne_ng.testing.conformance.http2 import Http2Exchange

_REQUEST = "HTTP: Request"
_SCOPE = "HTTP: Connection Scope"

# Past every server's buffers on the way.
_FLOOD_PARTS, _FLOOD_PART = 1024, 1 << 16


@that("request.type", MUST, _REQUEST, '`type` … `"http.request"`: the first message.')
def request_type(case: Case) -> None:
    _, play = case.ask(("receive",), *OK)
    message = play.wait("received")[0]["message"]
    if message.get("type") != "http.request":
        raise Failed(f"the first message is {message!r}")


@that(
    "request.empty",
    MUST,
    _REQUEST,
    '`body` … Optional; if missing defaults to `b""` … `more_body` … Optional; if missing defaults to `False`.',
)
def request_empty(case: Case) -> None:
    _, play = case.ask(("body",), *OK)
    note = play.wait("body")[0]
    if note["length"] or type(note["last"].get("more_body", False)) is not bool:
        raise Failed(f"{note['length']} bytes; {note['last']!r}")


@that(
    "request.body",
    MUST,
    _REQUEST,
    "`body` (byte string) … If `more_body` is set, treat as start of body and concatenate",
)
def request_body(case: Case) -> None:
    content = bytes(range(256)) * 4096
    _, play = case.ask(("body",), *OK, method="POST", body=content)
    _is_body(play.wait("body")[0], content)


def _is_body(note: dict[str, object], content: bytes) -> None:
    if note["length"] != len(content):
        raise Failed(f"{note['length']} bytes, not {len(content)}")
    if note["digest"] != hashlib.sha256(content).hexdigest():
        raise Failed("other bytes than the client has sent")


@that("request.body-type", MUST, _REQUEST, "`body` (byte string)")
def request_body_type(case: Case) -> None:
    _, play = case.ask(("receive",), *OK, method="POST", body=b"text")
    message = play.wait("received")[0]["message"]
    if message.get("body") != b"text":
        raise Failed(f"it is {message.get('body')!r}")


@that(
    "request.chunked",
    MUST,
    _REQUEST,
    "The `http.request` messages should contain just the decoded contents of each chunk.",
)
def request_chunked(case: Case) -> None:
    play = case.play(("body",), *OK)
    exchange = case.exchange()
    exchange.request("POST", play.target, (), b"one", more=True)
    exchange.send(b"two" * 1000)
    exchange.send(b"three", more=False)
    case.whole(exchange)
    _is_body(play.wait("body")[0], b"one" + b"two" * 1000 + b"three")


@that("request.streamed", MAY, _REQUEST, "a way to stream large incoming HTTP bodies in chunks")
def request_streamed(case: Case) -> None:
    play = case.play(("receive",), ("body",), *OK)
    exchange = case.exchange()
    exchange.request("POST", play.target, (), b"first", more=True)
    message = play.message("http.request")
    exchange.send(b"second", more=False)
    if message.get("body") != b"first" or message.get("more_body") is not True:
        raise Failed(f"the first message is {message!r}")


@that(
    "request.more-body",
    MUST,
    _REQUEST,
    "If `True`, the consuming application should wait until it gets a chunk with this set to `False`.",
)
def request_more_body(case: Case) -> None:
    play = case.play(("receive",), ("receive", case.limits.quiet), *OK)
    exchange = case.exchange()
    exchange.request("POST", play.target, [(b"content-length", b"10")], b"first", more=True)
    # A server that gathers the body first has nothing to tell before its end, and may wait with the application.
    try:
        message = play.message("http.request")
    except Failed:
        raise Skipped("the body is gathered before the application is called") from None
    finally:
        if play.notes("received"):
            play.wait("nothing", seconds=case.limits.answer)
        exchange.send(b"other", more=False)
    if message.get("more_body") is not True:
        raise Failed(f"a part of the body is {message!r}")
    case.whole(exchange)


@that(
    "request.no-second-request",
    MUST,
    "HTTP: Disconnect",
    "Sent to the application if receive is called after a response has been sent or after the HTTP connection has been "
    "closed: not before.",
)
def request_no_second(case: Case) -> None:
    play = case.play(("body",), ("receive", case.limits.quiet), *OK)
    exchange = case.exchange()
    exchange.request("GET", play.target)
    case.whole(exchange)
    play.end()
    if found := play.notes("received"):
        raise Failed(f"behind the body comes {found[0]['message']!r}, on a connection that is open")


@that(
    "request.unread-waits",
    PRACTICE,
    _REQUEST,
    "An application that does not read its request makes the client wait, and is not filled up with the body.",
)
def request_unread(case: Case) -> None:
    play = case.play(("wait", "go"), *OK)
    exchange = case.exchange()
    exchange.request("POST", play.target, (), b"x", more=True)
    try:
        play.scope()
    except Failed:
        raise Skipped("the body is gathered before the application is called") from None
    sent = _pushed(case, exchange)
    play.tell("go")
    if sent >= _FLOOD_PARTS * _FLOOD_PART:
        raise Failed(f"{sent >> 20} MiB were taken from the client")


def _pushed(case: Case, exchange: Exchange) -> int:
    # Return how many bytes the client gets rid of until nothing is taken for a while.
    part, sent = bytes(_FLOOD_PART), 0
    wait = max(case.limits.quiet, 1.0)
    if isinstance(exchange, Http1Exchange):
        exchange.socket.settimeout(wait)
        try:
            while sent < _FLOOD_PARTS * _FLOOD_PART:
                exchange.socket.sendall(b"%x\r\n%s\r\n" % (len(part), part))
                sent += len(part)
        except OSError:
            pass
        return sent
    assert isinstance(exchange, Http2Exchange)
    return exchange.push(_FLOOD_PARTS * _FLOOD_PART, wait)


@that(
    "request.cancelled-receive",
    PRACTICE,
    _REQUEST,
    "A `receive()` that is cancelled ends at once, and loses no message.",
)
def request_cancelled(case: Case) -> None:
    play = case.play(("receive",), ("receive", case.limits.quiet), ("note", "cancelled"), ("body",), *OK)
    exchange = case.exchange()
    exchange.request("POST", play.target, [(b"content-length", b"11")], b"first", more=True)
    try:
        play.message("http.request")
    except Failed:
        raise Skipped("the body is gathered before the application is called") from None
    finally:
        if play.notes("received"):
            play.wait("cancelled")
        exchange.send(b"second", more=False)
    case.whole(exchange)
    _is_body(play.wait("body")[0], b"second")


@that(
    "request.polled-while-streaming",
    MUST,
    "HTTP: Disconnect",
    "Sent … after a response has been sent or after the HTTP connection has been closed: never to a poll before.",
)
def request_polled_streaming(case: Case) -> None:
    part = {"type": "http.response.body", "body": b"part", "more_body": True}
    steps = []
    for _ in range(5):
        steps += [("poll",), ("send", part), ("sleep", 0.03)]
    _, play = case.ask(("body",), ("send", START), *steps, ("send", {"type": "http.response.body", "body": b""}))
    if gone := [note for note in play.notes("polled") if note["message"] is not None]:
        raise Failed(f"a poll got {gone[0]['message']!r} on a live connection")


@that(
    "request.keep-alive-after-unread", PRACTICE, _REQUEST, "A body that nobody has read is no next request.", on=[HTTP1]
)
def request_unread_next(case: Case) -> None:
    play = case.play(*OK)
    exchange = case.http1()
    exchange.request("POST", play.target, (), b"GET /probe HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
    case.whole(exchange)
    case.nothing_behind(exchange)

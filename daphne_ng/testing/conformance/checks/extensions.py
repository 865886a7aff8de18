"""Extensions of HTTP: server push, early hints, trailers, debug."""

from __future__ import annotations

import contextlib
from typing import Any

from daphne_ng.testing.conformance.case import START, Case
from daphne_ng.testing.conformance.core import HTTP2, MUST, SHOULD, Failed, Skipped
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.exchange import Broken, Response
from daphne_ng.testing.conformance.http2 import Http2Exchange

_PUSH = "Extensions: HTTP/2 Server Push"
_HINTS = "Extensions: Early Hints"
_TRAILERS = "Extensions: HTTP Trailers"

_WANTED = (b"te", b"trailers")


def _advertised(case: Case, name: str, *headers: tuple[bytes, bytes]) -> bool:
    return name in (case.scope(headers=headers).get("extensions") or {})


def _need(case: Case, name: str, *headers: tuple[bytes, bytes]) -> None:
    if not _advertised(case, name, *headers):
        raise Skipped("the extension is not there")


def _body(content: bytes = b"", **more: Any) -> tuple[str, dict[str, Any]]:
    return ("send", {"type": "http.response.body", "body": content, **more})


@that(
    "push.promise",
    SHOULD,
    _PUSH,
    "The ASGI server should then attempt to send a server push (or push promise) to the client.",
    on=[HTTP2],
)
def push(case: Case) -> None:
    _need(case, "http.response.push")
    connection = case.http2()
    play = case.play(
        ("send", START),
        ("send", {"type": "http.response.push", "path": "/pushed", "headers": [(b"x-pushed", b"1")]}),
        _body(b"x"),
    )
    stream = connection.stream()
    stream.request("GET", play.target)
    case.whole(stream)
    if not connection.pushed:
        raise Failed("nothing was promised")
    sent = {bytes(name): bytes(value) for name, value in connection.pushed[0].headers}
    if sent.get(b":path") != b"/pushed" or sent.get(b":authority") != case.address.authority:
        raise Failed(f"promised is {sent!r}")


@that(
    "push.not-there-raises",
    SHOULD,
    "ASGI: Error Handling",
    "having an unknown `type` … should raise an exception: a message of an extension that is not there.",
)
def push_raises(case: Case) -> None:
    if _advertised(case, "http.response.push"):
        raise Skipped("the extension is there")
    push = {"type": "http.response.push", "path": "/pushed", "headers": []}
    play = case.play(("send", START), ("send", push), _body(b"x"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    play.end()
    if not play.notes("send raised"):
        raise Failed("send() did not raise")


@that(
    "debug.not-there",
    SHOULD,
    "Extensions: Debug",
    "not meant to be used in production … ASGI servers should not implement it.",
)
def debug(case: Case) -> None:
    if _advertised(case, "http.response.debug"):
        raise Failed("the extension is there")


_LINKS = ([b"</one.css>; rel=preload"], [b"</two.css>; rel=preload", b"</three.js>; rel=preload"])


def _hinted(case: Case) -> Response:
    _need(case, "http.response.early_hint")
    hints = [("send", {"type": "http.response.early_hint", "links": links}) for links in _LINKS]
    response, play = case.ask(("send", START), *hints, _body(b"whole"))
    if raised := play.notes("send raised"):
        raise Failed(f"send() raised {raised[0]['names'][0]}: {raised[0]['text']}")
    return response


@that(
    "early-hint.sent",
    SHOULD,
    _HINTS,
    "The ASGI server should then attempt to send an informational response to the client with the provided links as "
    "`Link` headers.",
)
def early_hint(case: Case) -> None:
    interim = _hinted(case).interim
    if not interim:
        raise Skipped("ignored, which a server may do")
    links = [value for _, fields in interim for name, value in fields if name.lower() == b"link"]
    found = [link.strip() for value in links for link in value.split(b",")]
    if {status for status, _ in interim} != {103} or found != [link for links in _LINKS for link in links]:
        raise Failed(f"the client gets {interim!r}")


@that(
    "early-hint.response",
    MUST,
    _HINTS,
    "This message can be sent at any time (and multiple times) after the *Response Start* message",
)
def early_hint_response(case: Case) -> None:
    response = _hinted(case)
    if response.status != 200 or response.body != b"whole":
        raise Failed(f"status {response.status}, body {bytes(response.body)!r}")


@that(
    "early-hint.in-time",
    SHOULD,
    _HINTS,
    "indicating to the client that resources are associated with the subsequent response: before it.",
)
def early_hint_in_time(case: Case) -> None:
    _need(case, "http.response.early_hint")
    hint = {"type": "http.response.early_hint", "links": _LINKS[0]}
    play = case.play(("send", START), ("send", hint), ("wait", "go"), _body(b"x"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    play.wait("sent", 2)
    # The head of the response may be there already; then the hint is not.
    exchange.quiet(max(case.limits.quiet, 0.5))
    if not isinstance(exchange, Http2Exchange):
        early = b" 103" in getattr(exchange, "wire").buffer  # noqa: B009
    else:
        early = bool(exchange.response.interim)
    play.tell("go")
    if not case.whole(exchange).interim:
        raise Skipped("ignored, which a server may do")
    if not early:
        raise Failed("it comes with the response")


# -- trailers --------------------------------------------------------------------------------------------------


def _with_trailers(case: Case, *steps: Any, wanted: bool = True) -> tuple[Response, Any]:
    headers = [_WANTED] if wanted else []
    _need(case, "http.response.trailers", *headers)
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"trailer", b"x-sum, x-more")],
        "trailers": True,
    }
    return case.ask(("send", start), _body(b"whole"), *steps, headers=headers)


def _trailers(*fields: tuple[bytes, bytes], **more: Any) -> tuple[str, dict[str, Any]]:
    return ("send", {"type": "http.response.trailers", "headers": list(fields), **more})


def _lower(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in fields]


@that(
    "trailers.sent",
    MUST,
    _TRAILERS,
    "after the last `http.response.body` message … the ASGI framework will send a `http.response.trailers` message",
)
def trailers(case: Case) -> None:
    response, play = _with_trailers(case, _trailers((b"x-sum", b"7")))
    if _lower(response.trailers) != [(b"x-sum", b"7")] or response.body != b"whole":
        raise Failed(
            f"the client gets {response.trailers!r}, body {bytes(response.body)!r}; {play.notes('send raised')!r}"
        )


@that(
    "trailers.more",
    MUST,
    _TRAILERS,
    "`more_trailers` (bool): Signifies if there is additional content to come (as part of a *HTTP Trailers* message).",
)
def more_trailers(case: Case) -> None:
    response, _ = _with_trailers(case, _trailers((b"x-sum", b"7"), more_trailers=True), _trailers((b"x-more", b"8")))
    if _lower(response.trailers) != [(b"x-sum", b"7"), (b"x-more", b"8")]:
        raise Failed(f"the client gets {response.trailers!r}")


@that(
    "trailers.wait",
    MUST,
    "HTTP: Response Start",
    'If `True`, the server must wait until it receives a `"http.response.trailers"` message after the *Response Body* event.',
)
def trailers_wait(case: Case) -> None:
    _need(case, "http.response.trailers", _WANTED)
    start = {"type": "http.response.start", "status": 200, "headers": [], "trailers": True}
    play = case.play(("send", start), _body(b"whole"), ("wait", "go"), _trailers((b"x-sum", b"7")))
    exchange = case.exchange()
    exchange.request("GET", play.target, [_WANTED])
    try:
        exchange.read_body(5, case.limits.answer)
    except (Broken, TimeoutError) as error:
        raise Failed("the body does not come before the trailers") from error
    over = exchange.response.ended
    with contextlib.suppress(TimeoutError):
        over = over or exchange.read_all(case.limits.quiet).ended
    play.tell("go")
    if over:
        raise Failed("the response is over before the trailers")
    case.whole(exchange)


@that(
    "trailers.only-if-wanted",
    MUST,
    _TRAILERS,
    "The ASGI server will only send the trailing headers in case the client has sent the `TE: trailers` header",
)
def trailers_unwanted(case: Case) -> None:
    response, _ = _with_trailers(case, _trailers((b"x-sum", b"7")), wanted=False)
    if response.trailers:
        raise Failed(f"the client gets {response.trailers!r}")
    if response.body != b"whole":
        raise Failed(f"body {bytes(response.body)!r}")

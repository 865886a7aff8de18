"""The main specification: applications, events, errors, extensions."""

from __future__ import annotations

from typing import Any

from daphne_ng.testing.conformance.case import ACCEPT, OK, START, Case, Play
from daphne_ng.testing.conformance.core import EVERY, HTTP, HTTP1, MUST, PRACTICE, PROCESS, SHOULD, WEBSOCKETS, Failed
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.exchange import Broken
from daphne_ng.testing.conformance.servers import LEGACY_APPLICATION, NotStarted

_APPLICATIONS = "ASGI: Applications"
_EVENTS = "ASGI: Events"
_ERRORS = "ASGI: Error Handling"
_EXTENSIONS = "ASGI: Extensions"

_SIMPLE = (bytes, str, int, float, bool, type(None))


@that("asgi.scope-is-dict", MUST, _APPLICATIONS, "`scope` must be a `dict`.", on=EVERY)
def scope_is_dict(case: Case) -> None:
    play = case.play(*([*ACCEPT] if case.is_websocket else OK))
    _visit(case, play)
    if not play.wait("scope")[0]["is_dict"]:
        raise Failed("it is none")


@that(
    "asgi.scope-keys", MUST, "ASGI: Strings and Unicode", "All `dict` keys mentioned … are Unicode strings.", on=EVERY
)
def scope_keys(case: Case) -> None:
    scope = case.scope()
    if wrong := [key for key in scope if not isinstance(key, str)]:
        raise Failed(f"keys {wrong!r}")


@that("asgi.scope-type", MUST, _APPLICATIONS, 'The key `scope["type"]` will always be present', on=EVERY)
def scope_type(case: Case) -> None:
    kind = case.scope().get("type")
    if kind != ("websocket" if case.is_websocket else "http"):
        raise Failed(f"it is {kind!r}")


@that(
    "asgi.version",
    MUST,
    _APPLICATIONS,
    '`scope["asgi"]` will also be present as a dictionary containing a `scope["asgi"]["version"]` key',
    on=EVERY,
)
def version(case: Case) -> None:
    note = case.visit().wait("scope")[0]
    asgi = note["scope"].get("asgi")
    if "asgi" not in note["dicts"]:
        raise Failed("asgi is no dict")
    if asgi.get("version") not in ("2.0", "2.1", "3.0"):
        raise Failed(f"asgi is {asgi!r}")


@that(
    "asgi.called-once",
    MUST,
    _APPLICATIONS,
    'The application is called once per "connection" … with HTTP it is one request',
    on=EVERY,
)
def called_once(case: Case) -> None:
    plays = [case.play(*(ACCEPT if case.is_websocket else OK)) for _ in range(2)]
    for play in plays:
        _visit(case, play)
    for play in plays:
        play.end()
        if (calls := len(play.notes("scope"))) != 1:
            raise Failed(f"called {calls} times")


@that(
    "asgi.called-again-on-connection",
    MUST,
    "HTTP: Connection Scope",
    "your application will be called at the start of the request … even if the underlying socket is still open "
    "and serving multiple requests",
    on=[HTTP1],
)
def called_again(case: Case) -> None:
    first, second = case.play(*OK), case.play(*OK)
    exchange = case.http1()
    for play in (first, second):
        exchange.request("GET", play.target)
        if case.whole(exchange).body != b"ok":
            raise Failed(f"body {bytes(exchange.response.body)!r}")
        if play.scope()["path"] != play.target.decode():
            raise Failed("the scope is of another request")


def _visit(case: Case, play: Play) -> None:
    if case.is_websocket:
        client = case.websocket(play.target)
        case.shake_hands(client)
        client.close()
    else:
        exchange = case.exchange()
        exchange.request("GET", play.target)
        case.whole(exchange)


@that(
    "asgi.event-types",
    MUST,
    _EVENTS,
    "they are only allowed to contain the following types: byte strings, Unicode strings, integers, … lists, dicts, "
    "booleans, None",
    on=EVERY,
)
def event_types(case: Case) -> None:
    if case.is_websocket:
        client, play = case.open_websocket(("receive",), ("receive",), ("receive",))
        client.send(1, b"text")
        client.send(2, b"bytes")
        client.leave(1000)
    else:
        _, play = case.ask(("receive",), *OK, ("receive", case.limits.quiet), method="POST", body=b"body")
    play.end()
    for note in play.notes("received"):
        if not note["is_dict"]:
            raise Failed("a message is no dict")
        for key, value in note["message"].items():
            if not isinstance(key, str) or not _allowed(value):
                raise Failed(f"{note['message'].get('type')} has {key!r}: {value!r}")


def _allowed(value: Any) -> bool:
    if isinstance(value, list):
        return all(_allowed(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _allowed(item) for key, item in value.items())
    if isinstance(value, tuple):
        return value[:1] == ("long",)
    return isinstance(value, _SIMPLE)


def _must_raise(case: Case, message: dict[str, Any]) -> None:
    # The message is sent where a right one would be next.
    if case.is_websocket:
        client, play = case.open_websocket(("send", message), ("note", "after"))
        play.wait("after")
        client.close()
    else:
        play = case.play(("send", message), *OK)
        exchange = case.exchange()
        exchange.request("GET", play.target)
        play.end()
    if not play.notes("send raised"):
        raise Failed("send() did not raise")
    if play.notes("send raised")[0]["type"] != message.get("type"):
        raise Failed("send() raised for the next message, not for this one")


@that(
    "asgi.unknown-type-raises",
    SHOULD,
    _ERRORS,
    "an invalid event dictionary - for example, having an unknown `type` … should raise an exception out of the `send` "
    "awaitable",
    on=EVERY,
)
def unknown_type(case: Case) -> None:
    _must_raise(case, {"type": f"{'websocket' if case.is_websocket else 'http'}.conformance.unknown"})


@that(
    "asgi.missing-key-raises",
    SHOULD,
    _ERRORS,
    "missing keys an event type should have … should raise an exception out of the `send` awaitable",
    on=HTTP,
)
def missing_key(case: Case) -> None:
    # A server may hold the start back until the first body, and raise there.
    play = case.play(
        ("send", {"type": "http.response.start", "headers": []}), ("send", {"type": "http.response.body", "body": b""})
    )
    exchange = case.exchange()
    exchange.request("GET", play.target)
    play.end()
    if not play.notes("send raised"):
        raise Failed("send() did not raise")


@that(
    "asgi.wrong-type-raises",
    SHOULD,
    _ERRORS,
    "with wrong Python types for objects (e.g. Unicode strings for HTTP headers) … should raise an exception out of the "
    "`send` awaitable",
    on=HTTP,
)
def wrong_type(case: Case) -> None:
    # A server may hold the start back until the first body, and raise there.
    wrong = {"type": "http.response.start", "status": 200, "headers": [("x-text", "text")]}
    play = case.play(("send", wrong), ("send", {"type": "http.response.body", "body": b""}))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    play.end()
    if not play.notes("send raised"):
        raise Failed("send() did not raise")


@that(
    "asgi.wrong-body-type-raises",
    SHOULD,
    _ERRORS,
    "with wrong Python types for objects … should raise an exception out of the `send` awaitable",
    on=HTTP,
)
def wrong_body_type(case: Case) -> None:
    play = case.play(("send", START), ("send", {"type": "http.response.body", "body": "text"}))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    play.end()
    if not play.notes("send raised"):
        raise Failed("send() did not raise")


@that(
    "asgi.extra-keys",
    SHOULD,
    _ERRORS,
    "the presence of additional keys in the event dictionary should not raise an exception",
    on=EVERY,
)
def extra_keys(case: Case) -> None:
    if case.is_websocket:
        play = case.play(
            ("receive",),
            ("send", {"type": "websocket.accept", "conformance": 1}),
            ("send", {"type": "websocket.send", "text": "x", "conformance": 1}),
            ("note", "after"),
        )
        client = case.websocket(play.target)
        case.shake_hands(client)
        play.wait("after")
    else:
        play = case.play(*(("send", {**message, "conformance": 1}) for _, message in OK))
        exchange = case.exchange()
        exchange.request("GET", play.target)
        play.end()
    if raised := play.notes("send raised"):
        raise Failed(f"{raised[0]['type']}: {raised[0]['names'][0]}: {raised[0]['text']}")


@that(
    "asgi.error-before-start",
    MUST,
    _ERRORS,
    "they must terminate the application instance and its associated connection if this happens",
    on=HTTP,
)
def error_before_start(case: Case) -> None:
    play = case.play(("raise", "before the response"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        response = exchange.read_all(case.limits.answer)
    except Broken:
        return
    except TimeoutError:
        raise Failed("the client is left without an end") from None
    if response.complete and response.status < 500:
        raise Failed(f"status {response.status}")


@that(
    "asgi.error-after-start",
    MUST,
    _ERRORS,
    "they must terminate the application instance and its associated connection if this happens",
    on=HTTP,
)
def error_after_start(case: Case) -> None:
    _broken_off(case)


@that(
    "asgi.error-after-start-shows",
    PRACTICE,
    _ERRORS,
    "A response that an exception broke off cannot be taken for a complete one.",
    on=HTTP,
)
def error_after_start_shows(case: Case) -> None:
    if _broken_off(case):
        raise Failed("the client gets a complete response")


def _broken_off(case: Case) -> bool:
    part = {"type": "http.response.body", "body": b"part", "more_body": True}
    play = case.play(("send", START), ("send", part), ("raise", "in the response"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        return exchange.read_all(case.limits.answer).complete and exchange.response.status < 500
    except Broken:
        return False
    except TimeoutError:
        raise Failed("the client is left without an end") from None


@that(
    "asgi.return-without-response",
    PRACTICE,
    _ERRORS,
    "An application that returns without a response leaves no client waiting.",
    on=HTTP,
)
def return_without_response(case: Case) -> None:
    play = case.play(("receive",))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        response = exchange.read_all(case.limits.answer)
    except Broken:
        return
    except TimeoutError:
        raise Failed("the client is left without an end") from None
    if response.complete and response.status < 500:
        raise Failed(f"status {response.status}")


@that(
    "asgi.after-end-no-op",
    SHOULD,
    _ERRORS,
    "If no error condition is specified, the `send` awaitable callable should act as a no-op.",
    on=HTTP,
)
def after_end_no_op(case: Case) -> None:
    _, play = case.ask(*OK, ("send", {"type": "http.response.body", "body": b"late"}))
    play.end()
    # On a connection that is closed it may be an OSError (2.4).
    for note in play.notes("send raised"):
        if "builtins.OSError" not in note["names"]:
            raise Failed(f"{note['names'][0]}: {note['text']}")


@that(
    "asgi.extensions",
    MUST,
    _EXTENSIONS,
    "an `extensions` entry in the `scope` dictionary, which is itself a `dict` … the value of that entry should itself "
    "be a `dict`",
    on=EVERY,
)
def extensions(case: Case) -> None:
    note = case.visit().wait("scope")[0]
    extensions = note["scope"].get("extensions")
    if extensions is None:
        return
    if "extensions" not in note["dicts"]:
        raise Failed("extensions is no dict")
    for name, value in extensions.items():
        if not isinstance(name, str) or not isinstance(value, dict):
            raise Failed(f"{name!r}: {value!r}")


@that(
    "asgi.messages-without-order",
    PRACTICE,
    _ERRORS,
    "A body before the start raises out of `send()`.",
    on=HTTP,
)
def body_before_start(case: Case) -> None:
    _must_raise(case, {"type": "http.response.body", "body": b"early"})


@that(
    "asgi.message-before-accept",
    PRACTICE,
    _ERRORS,
    "`websocket.send` before `websocket.accept` raises out of `send()`.",
    on=WEBSOCKETS,
)
def message_before_accept(case: Case) -> None:
    play = case.play(
        ("receive",), ("send", {"type": "websocket.send", "text": "early"}), ("send", {"type": "websocket.close"})
    )
    client = case.websocket(play.target)
    play.end()
    client.close()
    if not play.notes("send raised"):
        raise Failed("send() did not raise")


@that(
    "asgi.two-callables",
    SHOULD,
    "ASGI: Legacy Applications",
    "servers can easily implement support for it … and should try to support it",
    on=[PROCESS],
)
def two_callables(case: Case) -> None:
    try:
        with case.server(application=LEGACY_APPLICATION) as running:
            response, _ = case.on(running).ask(*OK)
            if response.status != 200:
                raise Failed(f"status {response.status}")
    except NotStarted as error:
        raise Failed(str(error)[:300]) from error

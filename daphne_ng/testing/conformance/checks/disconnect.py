"""How the application learns that the response is over, or that the client has left."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from daphne_ng.testing.conformance.case import OK, START, Case, Play
from daphne_ng.testing.conformance.core import HTTP1, MUST, PRACTICE, SHOULD, Failed, Skipped
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.exchange import Broken, Exchange

_DISCONNECT = "HTTP: Disconnect"
_EXCEPTION = "HTTP: Disconnected Client"
# Python's own words, or the level in a line of a log.
_ERROR = re.compile(r"Traceback|\bERROR\b|\bCRITICAL\b", re.IGNORECASE)

_GONE = "http.disconnect"

_PART = {"type": "http.response.body", "body": b"part", "more_body": True}


@that(
    "disconnect.after-response",
    MUST,
    _DISCONNECT,
    "Sent to the application if receive is called after a response has been sent",
)
def after_response(case: Case) -> None:
    _, play = case.ask(("body",), *OK, ("receive", case.limits.answer))
    play.message(_GONE)


@that(
    "disconnect.again",
    MUST,
    _DISCONNECT,
    "Sent to the application if receive is called after a response has been sent: each time.",
)
def again(case: Case) -> None:
    wait = case.limits.answer
    _, play = case.ask(("body",), *OK, ("receive", wait), ("receive", wait), ("receive", wait))
    play.end()
    found = [note["message"].get("type") for note in play.notes("received")]
    if found != [_GONE] * 3:
        raise Failed(f"receive() gives {found!r}")


def _streaming(case: Case, *steps: Any) -> tuple[Exchange, Play]:
    # A response has begun; then the steps.
    play = case.play(("body",), ("send", START), ("send", _PART), ("note", "begun"), *steps)
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        exchange.read_body(4, case.limits.answer)
    except (Broken, TimeoutError) as error:
        raise Failed("the response does not begin") from error
    play.wait("begun")
    return exchange, play


def _waiting(case: Case, *steps: Any) -> tuple[Exchange, Play]:
    # The request has been read, and nothing answered; then the steps.
    play = case.play(("body",), ("note", "begun"), *steps)
    exchange = case.exchange()
    exchange.request("GET", play.target)
    play.wait("begun")
    return exchange, play


@that(
    "disconnect.fin",
    MUST,
    _DISCONNECT,
    "or after the HTTP connection has been closed … if the connection closes early: by FIN, before the response",
)
def fin(case: Case) -> None:
    exchange, play = _waiting(case, ("receive", 2 * case.limits.answer))
    exchange.close()
    play.message(_GONE)


@that(
    "disconnect.reset",
    MUST,
    _DISCONNECT,
    "or after the HTTP connection has been closed … if the connection closes early: by RST, before the response",
)
def reset(case: Case) -> None:
    exchange, play = _waiting(case, ("receive", 2 * case.limits.answer))
    exchange.reset()
    play.message(_GONE)


@that(
    "disconnect.fin-while-streaming",
    MUST,
    _DISCONNECT,
    "mainly useful for long-polling, where you may want to trigger cleanup code if the connection closes early: by FIN",
)
def fin_streaming(case: Case) -> None:
    exchange, play = _streaming(case, ("receive", 2 * case.limits.answer))
    exchange.close()
    play.message(_GONE)


@that(
    "disconnect.reset-while-streaming",
    MUST,
    _DISCONNECT,
    "mainly useful for long-polling, where you may want to trigger cleanup code if the connection closes early: by RST",
)
def reset_streaming(case: Case) -> None:
    exchange, play = _streaming(case, ("receive", 2 * case.limits.answer))
    exchange.reset()
    play.message(_GONE)


@that(
    "disconnect.in-request",
    MUST,
    _DISCONNECT,
    "or after the HTTP connection has been closed: in the middle of the request's body",
)
def in_request(case: Case) -> None:
    play = case.play(("note", "begun"), ("until", _GONE, 2 * case.limits.answer))
    exchange = case.exchange()
    exchange.request("POST", play.target, [(b"content-length", b"100")], b"part", more=True)
    try:
        play.wait("begun", seconds=1.0)
    except Failed:
        # A server that gathers the body first never calls the application.
        exchange.close()
        time.sleep(case.limits.quiet)
        if not play.notes("scope"):
            return
        raise
    exchange.close()
    play.message(_GONE)
    if cut := [note for note in play.notes("received") if note["message"].get("more_body") is False]:
        raise Failed(f"a body that was cut is given out as complete: {cut[0]['message']!r}")


@that(
    "disconnect.in-parallel",
    PRACTICE,
    _DISCONNECT,
    "A task that waits in `receive()` learns it while another one is at work.",
)
def in_parallel(case: Case) -> None:
    exchange, play = _streaming(case, ("listen",), ("sleep", 2 * case.limits.answer))
    exchange.close()
    play.message(_GONE, "heard")


@that(
    "disconnect.polled-live",
    MUST,
    _DISCONNECT,
    "Sent … after the HTTP connection has been closed: not to a `receive()` that is called and cancelled on a live one.",
)
def polled_live(case: Case) -> None:
    exchange, play = _streaming(
        case, ("poll",), ("sleep", 0.05), ("poll",), ("sleep", 0.15), ("poll",), ("note", "polls"), ("wait", "go")
    )
    play.wait("polls")
    play.tell("go")
    exchange.close()
    if gone := [note for note in play.notes("polled") if note["message"] is not None]:
        raise Failed(f"a poll got {gone[0]['message']!r}")
    if raised := play.notes("receive raised"):
        raise Failed(f"receive() raised {raised[0]['names'][0]}")


@that(
    "disconnect.polled-gone",
    MUST,
    _DISCONNECT,
    "Sent … after the HTTP connection has been closed: also to one who polls by a `receive()` that is cancelled.",
)
def polled_gone(case: Case) -> None:
    exchange, play = _streaming(case, ("poll",), ("poll_until", case.limits.answer))
    exchange.close()
    play.message(_GONE, "polled")


@that(
    "disconnect.after-cancelled-wait",
    MUST,
    _DISCONNECT,
    "Sent … after the HTTP connection has been closed: not to the `receive()` behind one that was cancelled.",
)
def after_cancelled(case: Case) -> None:
    quiet = case.limits.quiet
    exchange, play = _streaming(case, ("receive", quiet), ("receive", quiet), ("note", "waits"), ("receive", 10.0))
    play.wait("waits")
    if early := play.notes("received"):
        raise Failed(f"receive() gives {early[0]['message']!r} on a live connection")
    exchange.close()
    play.message(_GONE)


@that(
    "disconnect.half-close",
    PRACTICE,
    _DISCONNECT,
    "A client that shuts down its sending side gets its response, or the end of the connection.",
    on=[HTTP1],
    at=["tcp", "unix"],
)
def half_close(case: Case) -> None:
    play = case.play(("body",), ("sleep", 0.1), *OK)
    exchange = case.http1()
    exchange.request("GET", play.target)
    exchange.socket.shutdown(socket.SHUT_WR)
    try:
        response = exchange.read_all(case.limits.answer)
    except Broken:
        return
    except TimeoutError:
        raise Failed("neither a response nor the end") from None
    if response.complete and response.body != b"ok":
        raise Failed(f"the client gets {bytes(response.body)!r}")


@that(
    "send.raises",
    SHOULD,
    _EXCEPTION,
    "If `send()` is called on a closed connection the server should raise a server-specific subclass of `OSError`.",
)
def send_raises(case: Case) -> None:
    names = _raised(case)
    if "builtins.OSError" not in names:
        raise Failed(f"send() raised {names[0]}")


@that(
    "send.raises-own",
    SHOULD,
    _EXCEPTION,
    "a server-specific subclass of `OSError`",
)
def send_raises_own(case: Case) -> None:
    names = _raised(case)
    if names[0].startswith("builtins."):
        raise Failed(f"send() raised {names[0]}")


def _did_raise(case: Case, play: Play) -> None:
    play.wait("end", seconds=2 * case.limits.answer)
    if not play.notes("send raised"):
        raise Skipped("send() does not raise")


def _raised(case: Case) -> list[str]:
    exchange, play = _streaming(case, ("wait", "gone"), ("send_until_error", _PART, case.limits.answer))
    exchange.reset()
    time.sleep(0.1)
    play.tell("gone")
    play.wait("end", seconds=2 * case.limits.answer)
    raised = play.notes("send raised")
    if not raised:
        play.need_version(4)
        raise Failed(f"send() did not raise within {case.limits.answer:g} s")
    names: list[str] = raised[0]["names"]
    return names


@that(
    "send.raises-after-disconnect",
    SHOULD,
    _DISCONNECT,
    "Once you have received this event, you should expect future calls to `send()` to raise an exception",
)
def send_raises_after(case: Case) -> None:
    exchange, play = _streaming(
        case, ("until", _GONE, case.limits.answer), ("send_until_error", _PART, case.limits.answer)
    )
    exchange.reset()
    play.message(_GONE)
    play.wait("end", seconds=2 * case.limits.answer)
    if not play.notes("send raised"):
        play.need_version(4)
        raise Failed("send() goes on without an exception")


@that(
    "send.error-is-caught",
    MUST,
    _EXCEPTION,
    "Servers must be prepared to catch this exception if they raised it",
)
def error_is_caught(case: Case) -> None:
    exchange, play = _streaming(case, ("wait", "gone"), ("send_through", _PART, case.limits.answer))
    exchange.reset()
    play.tell("gone")
    _did_raise(case, play)
    response, _ = case.ask(*OK)
    if response.status != 200:
        raise Failed(f"the next request gets {response.status}")


@that(
    "send.error-is-not-logged",
    SHOULD,
    _EXCEPTION,
    "and should not log it as an error in their server logs",
    alone=True,
)
def error_is_not_logged(case: Case) -> None:
    if case.running is None:
        raise Skipped("the output of this server cannot be read")
    before = len(case.running.output())
    exchange, play = _streaming(case, ("wait", "gone"), ("send_through", _PART, case.limits.answer))
    exchange.reset()
    play.tell("gone")
    _did_raise(case, play)
    time.sleep(max(case.limits.quiet, 0.5))
    written = case.running.output()[before:]
    if _ERROR.search(written):
        raise Failed(f"it has written {written[:200]!r}")

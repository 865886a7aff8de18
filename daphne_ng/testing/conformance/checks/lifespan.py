"""The lifespan protocol; each statement starts a server of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from daphne_ng.testing.conformance.case import OK, Case, Play, lifespan_notes
from daphne_ng.testing.conformance.core import MAY, MUST, PROCESS, SHOULD, Failed, Skipped
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.exchange import Broken
from daphne_ng.testing.conformance.servers import NotStarted, Running

_LIFESPAN = "Lifespan"
_SCOPE = "Lifespan: Scope"
_STARTUP = "Lifespan: Startup"
_SHUTDOWN = "Lifespan: Shutdown"
_NOTICE = "Lifespan: asgiref #588"

_NONE = "the application is not called for a lifespan"

_RECEIVE = ("receive",)
_STARTED = ("send", {"type": "lifespan.startup.complete"})
_STOPPED = ("send", {"type": "lifespan.shutdown.complete"})
_TILL_END = ("forever", "lifespan.shutdown")


@contextlib.contextmanager
def _served(case: Case, *steps: Any) -> Iterator[Running]:
    # A server that starts with this lifespan and answers.
    _scope(case)
    try:
        with case.server(list(steps)) as running:
            yield running
    except NotStarted as error:
        raise Failed(f"the server did not start: {str(error)[:300]}") from error


def _wait(running: Running, kind: str, seconds: float, count: int = 1) -> list[dict[str, Any]]:
    deadline = time.monotonic() + seconds
    while len(found := lifespan_notes(running.directory, kind)) < count:
        if time.monotonic() > deadline:
            raise Failed(f"no note {kind!r} of the lifespan within {seconds:g} s")
        time.sleep(0.01)
    return found


def _messages(running: Running) -> list[str]:
    return [note["message"].get("type", "") for note in lifespan_notes(running.directory, "received")]


def _start_seconds(case: Case) -> float:
    return case.launcher.start_seconds if case.launcher else 0.0


def _stop_seconds(case: Case) -> float:
    return case.launcher.stop_seconds if case.launcher else 0.0


def _scope(case: Case) -> dict[str, Any]:
    # Of the server that serves all.
    case.ask(*OK)
    found = lifespan_notes(case.directory, "scope")
    if not found:
        raise Skipped(_NONE)
    scope: dict[str, Any] = found[0]["scope"]
    return scope


@that(
    "lifespan.scope",
    MUST,
    _SCOPE,
    '`type` … `"lifespan"`. `asgi["version"]` … The version of the ASGI spec.',
    on=[PROCESS],
)
def scope(case: Case) -> None:
    found = _scope(case)
    if found.get("type") != "lifespan" or not isinstance((found.get("asgi") or {}).get("version"), str):
        raise Failed(f"the scope is {found!r}")


@that(
    "lifespan.spec-version",
    MAY,
    _SCOPE,
    '`asgi["spec_version"]` … Optional; if missing defaults to `"1.0"`.',
    on=[PROCESS],
)
def spec_version(case: Case) -> None:
    version = _scope(case)["asgi"].get("spec_version")
    if version is None:
        raise Skipped("not provided")
    if version not in ("1.0", "2.0"):
        raise Failed(f"it is {version!r}")


@that(
    "lifespan.state", MUST, _SCOPE, "`state` … An empty namespace where the application can persist state", on=[PROCESS]
)
def state(case: Case) -> None:
    found = _scope(case)
    if "state" not in found:
        raise Skipped("the server does not support state")
    if found["state"] != {}:
        raise Failed(f"state is {found['state']!r}")


@that(
    "lifespan.startup",
    MUST,
    _STARTUP,
    "Sent to the application when the server is ready to startup and receive connections",
    on=[PROCESS],
)
def startup(case: Case) -> None:
    _scope(case)
    received = [note["message"] for note in lifespan_notes(case.directory, "received")]
    if not received or received[0].get("type") != "lifespan.startup":
        raise Failed(f"received are {received!r}")


@that(
    "lifespan.once-per-loop",
    SHOULD,
    _LIFESPAN,
    "Lifespans should be executed once per event loop that will be processing requests.",
    on=[PROCESS],
)
def once_per_loop(case: Case) -> None:
    request = case.ask(*OK)[1].wait("scope")[0]
    loops = [(note["pid"], note["thread"], note["loop"]) for note in lifespan_notes(case.directory, "scope")]
    if len(set(loops)) != len(loops):
        raise Failed(f"{len(loops)} lifespans on {len(set(loops))} loops")
    if (request["pid"], request["thread"], request["loop"]) not in loops:
        raise Failed("a request runs on a loop that has no lifespan")


@that(
    "lifespan.startup-first",
    MUST,
    _STARTUP,
    "A server must wait for this message before it starts processing connections.",
    on=[PROCESS],
)
def startup_first(case: Case) -> None:
    _scope(case)
    with case.server([_RECEIVE, ("sleep", 1.0), _STARTED, _TILL_END, _STOPPED], ready=False) as running:
        _wait(running, "received", _start_seconds(case))
        # Asked while the startup waits: it may be refused, or left waiting, but not processed.
        other = case.on(running)
        play = other.play(*OK)
        _ask_while_waiting(other, play, running)
        started = _wait(running, "sent", _start_seconds(case))[0]["at"]
        if any(note["at"] < started for note in play.notes("scope")):
            raise Failed("a request was processed before startup.complete")


def _ask_while_waiting(case: Case, play: Play, running: Running) -> None:
    deadline = time.monotonic() + 5.0
    while not lifespan_notes(running.directory, "sent") and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            exchange = case.http1()
            exchange.request("GET", play.target)
            with contextlib.suppress(Broken, TimeoutError):
                exchange.read_head(0.2)
            case.close()
        time.sleep(0.02)


@that(
    "lifespan.startup-failed",
    SHOULD,
    _STARTUP,
    "If a server sees this it should log/print the message provided and then exit.",
    on=[PROCESS],
)
def startup_failed(case: Case) -> None:
    _scope(case)
    text = "conformance: no database"
    with case.server(
        [_RECEIVE, ("send_bare", {"type": "lifespan.startup.failed", "message": text})], ready=False
    ) as running:
        if running.wait(_start_seconds(case)) is None:
            raise Failed(f"the server goes on for {_start_seconds(case):g} s")
        if text not in running.output():
            raise Failed("the message is not printed")


def _goes_on(case: Case, *steps: Any) -> None:
    with _served(case, *steps) as running:
        if case.on(running).ask(*OK)[0].status != 200:
            raise Failed("requests are not answered")
        if late := [name for name in _messages(running) if name != "lifespan.startup"]:
            raise Failed(f"the application receives {late!r}")


@that(
    "lifespan.exception-at-scope",
    MUST,
    _SCOPE,
    "If an exception is raised when calling the application callable with a … `scope` with type `lifespan`, the server "
    "must continue but not send any lifespan events.",
    on=[PROCESS],
)
def exception_at_scope(case: Case) -> None:
    _goes_on(case, ("raise", "no lifespan here"))


@that(
    "lifespan.exception-at-startup",
    MUST,
    _SCOPE,
    "If an exception is raised when calling the application callable with a `lifespan.startup` message … the server must "
    "continue but not send any lifespan events.",
    on=[PROCESS],
)
def exception_at_startup(case: Case) -> None:
    _goes_on(case, _RECEIVE, ("raise", "no startup here"))


@that(
    "lifespan.shutdown",
    MUST,
    _SHUTDOWN,
    "Sent to the application when the server has stopped accepting connections and closed all active connections.",
    on=[PROCESS],
)
def shutdown(case: Case) -> None:
    with _served(case, _RECEIVE, _STARTED, _TILL_END, ("sleep", 0.5), _STOPPED) as running:
        running.terminate()
        deadline = time.monotonic() + _stop_seconds(case)
        while "lifespan.shutdown" not in _messages(running):
            if time.monotonic() > deadline:
                raise Failed(f"no lifespan.shutdown within {_stop_seconds(case):g} s of SIGTERM")
            time.sleep(0.01)
        # A child of a server that has one may end before the socket of its parent.
        play = case.on(running).play(*OK)
        with contextlib.suppress(OSError, Broken, TimeoutError):
            exchange = case.on(running).http1()
            exchange.request("GET", play.target)
            exchange.read_head(0.3)
        if play.notes("scope"):
            raise Failed("a request is processed after lifespan.shutdown")


@that(
    "lifespan.shutdown-after-requests",
    MUST,
    _SHUTDOWN,
    "Sent to the application when the server has … closed all active connections.",
    on=[PROCESS],
)
def shutdown_after_requests(case: Case) -> None:
    with _served(case, _RECEIVE, _STARTED, _TILL_END, _STOPPED) as running:
        other = case.on(running)
        play = other.play(("sleep", 1.0), *OK)
        exchange = other.exchange()
        exchange.request("GET", play.target)
        play.scope()
        running.terminate()
        end = play.wait("end", seconds=_stop_seconds(case))[0]["at"]
        other.close()
        running.wait(_stop_seconds(case))
        stops = [
            note["at"]
            for note in lifespan_notes(running.directory, "received")
            if note["message"].get("type") == "lifespan.shutdown"
        ]
        if not stops:
            raise Failed("no lifespan.shutdown")
        if min(stops) < end:
            raise Failed("lifespan.shutdown comes while a request is under way")


@that(
    "lifespan.shutdown-waits", MUST, _SHUTDOWN, "A server must wait for this message before terminating.", on=[PROCESS]
)
def shutdown_waits(case: Case) -> None:
    with _served(case, _RECEIVE, _STARTED, _TILL_END, ("sleep", 0.7), _STOPPED, ("note", "stopped")) as running:
        running.terminate()
        if running.wait(_stop_seconds(case)) is None:
            raise Failed(f"the server goes on for {_stop_seconds(case):g} s after SIGTERM")
        if not lifespan_notes(running.directory, "stopped"):
            raise Failed("it has ended before the application has sent shutdown.complete")


@that(
    "lifespan.shutdown-ends",
    MUST,
    _SHUTDOWN,
    "A server must wait for this message before terminating: then it ends.",
    on=[PROCESS],
)
def shutdown_ends(case: Case) -> None:
    with _served(case, _RECEIVE, _STARTED, _TILL_END, _STOPPED) as running:
        running.terminate()
        if running.wait(_stop_seconds(case)) is None:
            raise Failed(f"the server goes on for {_stop_seconds(case):g} s after SIGTERM")


@that(
    "lifespan.shutdown-failed",
    SHOULD,
    _SHUTDOWN,
    "If a server sees this it should log/print the message provided and then terminate.",
    on=[PROCESS],
)
def shutdown_failed(case: Case) -> None:
    text = "conformance: not cleaned up"
    failed = ("send_bare", {"type": "lifespan.shutdown.failed", "message": text})
    with _served(case, _RECEIVE, _STARTED, _TILL_END, failed) as running:
        running.terminate()
        if running.wait(_stop_seconds(case)) is None:
            raise Failed(f"the server goes on for {_stop_seconds(case):g} s after SIGTERM")
        if text not in running.output():
            raise Failed("the message is not printed")


@that(
    "lifespan.notice",
    MAY,
    _NOTICE,
    "`lifespan.shutdown.notice` comes when the end begins, to an application that asked for it.",
    on=[PROCESS],
    proposed=True,
)
def notice(case: Case) -> None:
    asked = ("send", {"type": "lifespan.startup.complete", "shutdown_notice": True})
    with _served(case, _RECEIVE, asked, _TILL_END, _STOPPED) as running:
        found = _wait(running, "scope", 1.0)[0]["scope"]
        if "lifespan.shutdown.notice" not in (found.get("extensions") or {}):
            raise Skipped("the extension is not there")
        running.terminate()
        running.wait(_stop_seconds(case))
        if _messages(running) != ["lifespan.startup", "lifespan.shutdown.notice", "lifespan.shutdown"]:
            raise Failed(f"received are {_messages(running)!r}")

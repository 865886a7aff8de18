"""Extensions that send files: pathsend and zerocopysend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from daphne_ng.testing.conformance.case import START, Case, Play
from daphne_ng.testing.conformance.core import MAY, MUST, PRACTICE, SHOULD, Failed, Skipped
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.exchange import Broken, Response

_PATHSEND = "Extensions: Path Send"
_ZEROCOPY = "Extensions: Zero Copy Send"

_CONTENT = bytes(range(256)) * 1200


def _file(case: Case, content: bytes = _CONTENT) -> Path:
    path = case.directory / f"{case.play().name}.file"
    path.write_bytes(content)
    return path


def _extension(case: Case, name: str) -> dict[str, Any]:
    extensions = case.scope().get("extensions") or {}
    if name not in extensions:
        raise Skipped("the extension is not there")
    found: dict[str, Any] = extensions[name]
    return found


def _start(length: int) -> tuple[str, dict[str, Any]]:
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % length)]
    return ("send", {"type": "http.response.start", "status": 200, "headers": headers})


def _path(path: Path, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("send", {"type": "http.response.pathsend", "path": str(path), **more})


def _is(response: Response, content: bytes, play: Play) -> None:
    if response.status != 200 or response.body != content:
        raise Failed(
            f"status {response.status}, the client gets {len(response.body)} of {len(content)} bytes; {play.notes('send raised')!r}"
        )


@that(
    "pathsend.file",
    MUST,
    _PATHSEND,
    "Path Send allows you to send the contents of a file path to the HTTP client",
)
def pathsend(case: Case) -> None:
    _extension(case, "http.response.pathsend")
    response, play = case.ask(_start(len(_CONTENT)), _path(_file(case)))
    _is(response, _CONTENT, play)


@that(
    "pathsend.without-length",
    SHOULD,
    _PATHSEND,
    "it should behave the same as ordinary `http.response.body`: without Content-Length.",
)
def pathsend_streamed(case: Case) -> None:
    _extension(case, "http.response.pathsend")
    response, play = case.ask(("send", START), _path(_file(case)))
    _is(response, _CONTENT, play)


@that(
    "pathsend.empty",
    SHOULD,
    _PATHSEND,
    "it should behave the same as ordinary `http.response.body`: for an empty file.",
)
def pathsend_empty(case: Case) -> None:
    _extension(case, "http.response.pathsend")
    response, play = case.ask(_start(0), _path(_file(case, b"")))
    _is(response, b"", play)


@that("pathsend.head", SHOULD, _PATHSEND, "it should behave the same as ordinary `http.response.body`: for HEAD.")
def pathsend_head(case: Case) -> None:
    _extension(case, "http.response.pathsend")
    play = case.play(_start(len(_CONTENT)), _path(_file(case)))
    exchange = case.exchange()
    exchange.request("HEAD", play.target)
    _is(case.whole(exchange), b"", play)
    case.nothing_behind(exchange)


@that("pathsend.completes", SHOULD, _PATHSEND, "It can be called just one time in one response: it completes it.")
def pathsend_completes(case: Case) -> None:
    _extension(case, "http.response.pathsend")
    play = case.play(("send", START), _path(_file(case)), ("wait", "go"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        _is(case.whole(exchange), _CONTENT, play)
    finally:
        play.tell("go")


@that("pathsend.mixed", PRACTICE, _PATHSEND, "A file's path behind a body message raises out of `send()`.")
def pathsend_mixed(case: Case) -> None:
    # The text forbids it to applications, "cannot be mixed", and does not say what the server does.
    _extension(case, "http.response.pathsend")
    _raises(
        case, START, ("send", {"type": "http.response.body", "body": b"one", "more_body": True}), _path(_file(case))
    )


@that("pathsend.relative", PRACTICE, _PATHSEND, "A path that is not absolute is refused, or is the application's file.")
def pathsend_relative(case: Case) -> None:
    # Starlette sends such paths. The file is there, seen from the directory that the server was started in.
    _extension(case, "http.response.pathsend")
    play = case.play(("send", START), _path(Path(os.path.relpath(_file(case)))))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        response = exchange.read_all(case.limits.answer)
    except Broken:
        return
    except TimeoutError:
        raise Failed("the client waits without end") from None
    if response.complete and response.status == 200 and response.body != _CONTENT:
        raise Failed(f"the client gets {len(response.body)} bytes of something else")


@that("pathsend.missing", PRACTICE, _PATHSEND, "A file that is not there is not taken for an empty one.")
def pathsend_missing(case: Case) -> None:
    _extension(case, "http.response.pathsend")
    play = case.play(("send", START), _path(case.directory / "missing.file"))
    exchange = case.exchange()
    exchange.request("GET", play.target)
    try:
        response = exchange.read_all(case.limits.answer)
    except Broken:
        return
    except TimeoutError:
        raise Failed("the client waits without end") from None
    if response.complete and response.status == 200:
        raise Failed(f"the client gets a complete response of {len(response.body)} bytes")


def _raises(case: Case, start: dict[str, Any], *steps: Any) -> None:
    play = case.play(("send", start), *steps)
    exchange = case.exchange()
    exchange.request("GET", play.target)
    play.end()
    if not play.notes("send raised"):
        raise Failed("send() did not raise")


@that(
    "pathsend.not-there-raises",
    SHOULD,
    "ASGI: Error Handling",
    "having an unknown `type` … should raise an exception: a message of an extension that is not there.",
)
def pathsend_raises(case: Case) -> None:
    if "http.response.pathsend" in (case.scope().get("extensions") or {}):
        raise Skipped("the extension is there")
    _raises(case, START, _path(_file(case, b"x")), ("send", {"type": "http.response.body", "body": b"x"}))


@that(
    "pathsend.ranges",
    MAY,
    "Extensions: asgiref #538",
    '`offset` and `count` of a pathsend whose extension says `{"ranges": True}`.',
    proposed=True,
)
def pathsend_ranges(case: Case) -> None:
    if not _extension(case, "http.response.pathsend").get("ranges"):
        raise Skipped("the extension has no ranges")
    path = _file(case)
    response, play = case.ask(_start(1000), _path(path, offset=300, count=1000))
    _is(response, _CONTENT[300:1300], play)
    response, play = case.ask(_start(len(_CONTENT) - 300), _path(path, offset=300))
    _is(response, _CONTENT[300:], play)


def _zerocopy(path: Path, **more: Any) -> tuple[str, str, dict[str, Any]]:
    return ("zerocopy", str(path), more)


@that(
    "zerocopysend.file",
    MUST,
    _ZEROCOPY,
    "Zero Copy Send allows you to send the contents of a file descriptor … If omitted, the file will be read until its end.",
)
def zerocopysend(case: Case) -> None:
    _extension(case, "http.response.zerocopysend")
    response, play = case.ask(_start(len(_CONTENT)), _zerocopy(_file(case)))
    _is(response, _CONTENT, play)


@that(
    "zerocopysend.part",
    MUST,
    _ZEROCOPY,
    "`offset` (int): … `count` is the number of bytes to copy",
)
def zerocopysend_part(case: Case) -> None:
    _extension(case, "http.response.zerocopysend")
    response, play = case.ask(_start(1000), _zerocopy(_file(case), offset=300, count=1000))
    _is(response, _CONTENT[300:1300], play)


@that(
    "zerocopysend.mixed",
    MUST,
    _ZEROCOPY,
    "can be mixed with `http.response.body`. It can also be called multiple times in one response.",
)
def zerocopysend_mixed(case: Case) -> None:
    _extension(case, "http.response.zerocopysend")
    path = _file(case)
    response, play = case.ask(
        _start(1025),
        ("send", {"type": "http.response.body", "body": b"one", "more_body": True}),
        _zerocopy(path, count=1000, more_body=True),
        _zerocopy(path, offset=10, count=20, more_body=True),
        ("send", {"type": "http.response.body", "body": b"tw"}),
    )
    _is(response, b"one" + _CONTENT[:1000] + _CONTENT[10:30] + b"tw", play)


@that("zerocopysend.file-stays-open", MUST, _ZEROCOPY, "ASGI servers are not responsible for closing descriptors.")
def zerocopysend_open(case: Case) -> None:
    _extension(case, "http.response.zerocopysend")
    _, play = case.ask(_start(len(_CONTENT)), _zerocopy(_file(case)))
    play.end()
    if play.notes("file closed"):
        raise Failed("the server closed the file")

"""Statements of the specification, and what comes of checking one.

A check is a function that takes a `daphne_ng.testing.conformance.case.Case`. It returns if the statement holds, and
raises `Failed` or `Skipped` with the reason otherwise. `statement` registers it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

MUST: Final = "must"
SHOULD: Final = "should"
MAY: Final = "may"
PRACTICE: Final = "practice"

LEVELS: Final = (MUST, SHOULD, MAY, PRACTICE)
"""A sentence without "must", "should" or "may" that says what a server does counts as must. What applications or HTTP
need and no sentence of ASGI says is *practice*."""

HTTP1: Final = "HTTP/1.1"
HTTP2: Final = "HTTP/2"
WEBSOCKET: Final = "WebSocket"
WEBSOCKET2: Final = "WebSocket on HTTP/2"
PROCESS: Final = "process"
"""Not of one connection: servers are started and ended for it."""

HTTP: Final = frozenset({HTTP1, HTTP2})
WEBSOCKETS: Final = frozenset({WEBSOCKET, WEBSOCKET2})
EVERY: Final = HTTP | WEBSOCKETS

CARRIERS: Final = (HTTP1, HTTP2, WEBSOCKET, WEBSOCKET2, PROCESS)

TCP: Final = "tcp"
TLS: Final = "tls"
UNIX: Final = "unix"

SITES: Final = (TCP, TLS, UNIX)

PASSED: Final = "passed"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"


class Failed(Exception):
    """The statement does not hold; says what was seen."""


class Skipped(Exception):
    """The statement does not apply; says why."""


# Its argument is a Case, whose module knows this one.
Check = Callable[[Any], None]


@dataclass(frozen=True)
class Statement:
    """One sentence of the specification and its check."""

    name: str
    """Stable: results are compared by it."""
    level: str
    """One of `LEVELS`."""
    section: str
    """Document and heading that the sentence stands under."""
    sentence: str
    """Quoted; of practice, in our own words."""
    check: Check
    carriers: frozenset[str]
    """Which of `CARRIERS` it is checked on."""
    sites: frozenset[str]
    """Which of `SITES` it is checked on."""
    proposed: bool
    """Whether the text is a proposal and not yet part of the specification."""
    alone: bool
    """Whether no other check may run at the same time, because the log of the server is looked at."""


@dataclass(frozen=True)
class Result:
    """What came of one check on one carrier."""

    statement: str
    site: str
    carrier: str
    outcome: str
    """`PASSED`, `FAILED` or `SKIPPED`."""
    reason: str
    """Empty if it passed."""
    seconds: float


REGISTRY: Final[dict[str, Statement]] = {}
"""Every statement by its name, in the order of the modules of `checks`."""


def statement(
    name: str,
    level: str,
    section: str,
    sentence: str,
    *,
    on: Collection[str] = HTTP,
    at: Collection[str] = SITES,
    proposed: bool = False,
    alone: bool = False,
) -> Callable[[Check], Check]:
    """Return a decorator that registers a check.

    Raises:
        ValueError: Another one has the name, or the level is none.
    """

    def register(check: Check) -> Check:
        if name in REGISTRY or level not in LEVELS:
            raise ValueError(f"{name}: the name is taken, or {level} is no level")
        REGISTRY[name] = Statement(name, level, section, sentence, check, frozenset(on), frozenset(at), proposed, alone)
        return check

    return register

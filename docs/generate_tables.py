"""Write the tables of the documentation that are tables of the code, too.

A page marks the place of a table with two comments, each a line of its own::

    <!-- table NAME, by docs/generate_tables.py -->
    <!-- the end of the table -->

`TABLES` has what stands between. Run ``python docs/generate_tables.py`` after a change to the code; a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from daphne_ng.supervisor import phases
from daphne_ng.wire import ending
from daphne_ng.wire.http import response
from daphne_ng.wire.http2 import states
from daphne_ng.wire.websocket.connection import EVENTS, MOVES

DOCS = Path(__file__).parent

_PLACE = re.compile(
    r"(<!-- table (?P<name>[\w-]+), by docs/generate_tables\.py -->\n).*?(<!-- the end of the table -->\n)", re.DOTALL
)


def render(page: str) -> str:
    """Return the page with its tables as they have to be."""
    return _PLACE.sub(lambda place: place[1] + TABLES[place["name"]]() + place[3], page)


def names_in(page: str) -> list[str]:
    """Return the names of the tables that the page has."""
    return [place["name"] for place in _PLACE.finditer(page)]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, *rows]).replace("\n", f"\n|{'---|' * len(head)}\n", 1)


_TAKEN = {
    ending.MOVING: "Bytes are left, and the client takes enough of them",
    ending.STUCK: "It takes too few",
    ending.DELIVERED: "It has just taken the last",
    ending.EMPTY: "Nothing is left",
}
_STEPS = {
    ending.WAIT: "look again soon",
    ending.AWAIT_ANSWER: "wait for `close_timeout`",
    ending.CLOSE: "close both halves",
    ending.RELEASE: "close the socket",
    ending.DROP: "drop, with a line in the log",
}
_PHASES = {
    ending.CONNECTING: "`CONNECTING`",
    ending.OPEN: "`OPEN`",
    ending.LAST: "`LAST`",
    ending.LINGERING: "`LINGERING`",
    ending.CLOSED: "`CLOSED`",
    ending.GONE: "`GONE`",
}


def _steps(steps: Mapping[tuple[int, int], int]) -> str:
    phases = sorted({phase for phase, _ in steps})
    rows = [[_PHASES[phase], *(_STEPS[steps[phase, taken]] for taken in _TAKEN)] for phase in phases]
    return table(["Phase", *_TAKEN.values()], rows)


def _moves() -> str:
    phases = sorted({phase for phase, _ in MOVES})
    rows = []
    for phase in phases:
        moves = [MOVES.get((phase, event)) for event in range(len(EVENTS))]
        rows.append([_PHASES[phase], *("-" if following is None else _PHASES[following] for following in moves)])
    return table(["Phase", *EVENTS], rows)


_KINDS = {
    response.NO_BODY: "nothing: there is no body",
    response.LENGTH: "Content-Length",
    response.CHUNKED: "chunks",
    response.END_STREAM: "END_STREAM",
    response.UNTIL_CLOSE: "the end of the connection",
}


def _framing() -> str:
    versions = ["1.0", "1.1", "2"]
    rows = []
    for name, *key in (
        ("No body: HEAD, 1xx, 204, 304", True, False, False),
        ("The application gives a length", False, True, False),
        ("It gives none, and the body is whole", False, False, True),
        ("It gives none, and sends the body in parts", False, False, False),
    ):
        rows.append([name, *(_KINDS[response.FRAMING[key[0], key[1], key[2], version]] for version in versions)])
    return table(["Response", *(f"HTTP/{version}" for version in versions)], rows)


_REQUEST = ("RECEIVING", "HOLDING", "DISCARDING", "UNWANTED", "COMPLETE_HELD", "COMPLETE")
_HAPPENS = {
    states.SINK_FULL: "The application has no room",
    states.CONSUMED: "It has room again",
    states.ABANDONED: "Nothing will read the rest",
    states.DISCARD_OVER: "The time for the rest passes",
    states.END: "END_STREAM comes",
}


def _request_half() -> str:
    names = {getattr(states, name): f"`{name}`" for name in _REQUEST}
    rows = [
        [names[state], *(names.get(states.REQUEST_MOVES.get((state, happens), -1), "") for happens in _HAPPENS)]
        for state in sorted(names)
    ]
    return table(["Request", *_HAPPENS.values()], rows)


_RESPONSE = {
    states.AWAITED: ("AWAITED", "Nothing has been sent but interim responses"),
    states.STARTED: ("STARTED", "The head has been sent"),
    states.ENDING: ("ENDING", "The application has ended it, and something of it waits to be sent"),
    states.SENT: ("SENT", "All has been sent"),
    states.OVER: ("OVER", "The stream is closed"),
}


def _response_half() -> str:
    return table(
        ["Response", "Means"], [[f"`{name}`", meaning] for _state, (name, meaning) in sorted(_RESPONSE.items())]
    )


def _worker() -> str:
    rows = []
    for phase, name in enumerate(phases.PHASES):
        following = [phases.NEXT.get((phase, happened)) for happened in range(len(phases.INPUTS))]
        rows.append([f"**{name}**", *("." if each is None else phases.PHASES[each] for each in following)])
    return table(["Phase", *(f"`{name}`" for name in phases.INPUTS)], rows)


TABLES: dict[str, Callable[[], str]] = {
    "framing": _framing,
    "moves-websocket": _moves,
    "request-half": _request_half,
    "response-half": _response_half,
    "steps": lambda: _steps(ending.STEPS),
    "steps-websocket": lambda: _steps(ending.WEBSOCKET_STEPS),
    "worker": _worker,
}


if __name__ == "__main__":
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text("utf-8")
        if names_in(page):
            path.write_text(render(page), encoding="utf-8")

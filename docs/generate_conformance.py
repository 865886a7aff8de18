"""Write ``docs/reference/conformance.md`` from the JSON beside it, which `tests.conformance.peers` writes.

Run ``python docs/generate_conformance.py`` after it; a test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from daphne_ng.testing.conformance import statements
from daphne_ng.testing.conformance.report import SPECIFICATION, escaped, level_of

RESULTS = Path(__file__).parent / "reference" / "conformance.json"
PAGE = RESULTS.with_suffix(".md")

MARKS = {"passed": "yes", "failed": "no", "skipped": "-"}

# What was tried by hand, or read in the peer's source, because it could have been the suite's mistake.
NOTES = {
    "websocket.send-text": "peregrine-server: tried with the client of `websockets`, which closes with 1007: the text "
    "comes in Latin-1.",
    "scope.path": "gunicorn: tried with curl; over HTTP/2 the path stays percent-encoded.",
    "scope.authority": "gunicorn, h2corn: tried with curl; `host` is not the first header.",
    "lifespan.startup-failed": "peregrine-server: tried by hand; it logs the message and does not end.",
    "websocket.fragments": "h2corn: tried by hand; without a Ping or a cut character it delivers them.",
    "response.headers-order": "granian, daphne: headers of one name are moved together, which HTTP allows.",
    "asgi.version": "peregrine-server: a read-only mapping, and no `dict`.",
    "asgi.extensions": "peregrine-server: a read-only mapping, and no `dict`.",
}

_HEAD = """\
# ASGI conformance

<!-- This page is written by docs/generate_conformance.py from conformance.json. -->

What servers do of what the ASGI specification says ({specification}), statement by statement, as found by
[the conformance suite](../how-to/conformance.md). The suite is part of daphne-ng, so be its judge: each sentence is
quoted, and a server that has nothing to do with ours passes all of it in our tests.

A sentence without "must", "should" or "may" that says what a server does counts as *must*. *Practice* is what
applications or HTTP need and no sentence of ASGI says. *Proposed* is not yet part of the text. "-" means that the
statement does not apply, most often because an optional extension is not there; or that the server says that it knows
a version of the text that is older than the sentence.

"""

_STARTED = """\
With its defaults, and with what makes it listen there. On TCP and over TLS everything is checked, HTTP/2 by prior
knowledge on TCP and by ALPN over TLS, where the server speaks it so. On UNIX sockets and with two workers those groups
are checked that these can change.

"""


def render(content: dict[str, Any]) -> str:
    """Return the page."""
    specification = ", ".join(f"{name} {version}" for name, version in SPECIFICATION.items())
    parts = [_HEAD.format(specification=specification), _servers(content), _statements(content), _failures(content)]
    return "".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _fulfilled(found: dict[str, Any], level: str) -> str:
    known = {statement.name for statement in statements() if statement.level == level}
    outcomes = [entry["outcome"] for name, entry in found["results"].items() if name in known]
    return f"{outcomes.count('passed')} of {len(outcomes) - outcomes.count('skipped')}"


def _servers(content: dict[str, Any]) -> str:
    rows = [
        [
            name,
            found["version"],
            found["date"],
            *(_fulfilled(found, level) for level in ("must", "should", "may", "practice")),
        ]
        for name, found in content.items()
    ]
    head = ["Server", "Version", "Date", "must", "should", "may", "practice"]
    text = "## Servers\n\n" + _table(head, rows)
    text += "\nStatements that hold, of those that apply.\n\n## How each server is started\n\n"
    text += _STARTED
    commands = [
        [name, place, f"`{command}`", ", ".join(found["requirements"])]
        for name, found in content.items()
        for place, command in found["commands"].items()
    ]
    notes = "".join(f"\n- {name}, {note}" for name, found in content.items() for note in map(escaped, found["notes"]))
    return text + _table(["Server", "On", "Command", "Installed"], commands) + (notes and notes + "\n") + "\n"


def _statements(content: dict[str, Any]) -> str:
    rows = []
    for statement in statements():
        outcomes = [
            found["results"].get(statement.name, {"outcome": "skipped"})["outcome"] for found in content.values()
        ]
        sentence = f"{statement.section}: {statement.sentence}"
        rows.append([statement.name, level_of(statement), escaped(sentence), *(MARKS[outcome] for outcome in outcomes)])
    return "## Statements\n\n" + _table(["Statement", "Level", "Sentence", *content], rows) + "\n"


def _failures(content: dict[str, Any]) -> str:
    text = "## What was seen\n\n"
    text += "Of each failure, what was seen first, and on how many of the combinations of protocol and socket.\n"
    for name, found in content.items():
        rows = []
        for statement, entry in found["results"].items():
            if entry["outcome"] == "failed":
                place, reason = next(iter(entry["failed"].items()))
                count = f"{len(entry['failed'])} of {len(entry['failed']) + len(entry['passed'])}"
                note = NOTES.get(statement, "")
                rows.append([statement, count, escaped(f"{place}: {reason[:200]}"), note if name in note else ""])
        text += f"\n### {name} {found['version']}\n\n"
        text += _table(["Statement", "On", "Seen", "Note"], rows) if rows else "Nothing.\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(render(json.loads(RESULTS.read_text("utf-8"))), "utf-8")

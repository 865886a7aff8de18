"""The tables of states in the documentation are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from daphne_ng.wire.http2 import states

CLOSING = (Path(__file__).parents[2] / "docs" / "explanation" / "closing.md").read_text("utf-8")


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first cell is this, its head first."""
    rows = []
    for line in CLOSING[CLOSING.index(f"| {first} |") :].splitlines():
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def test_the_request_half_of_a_stream_moves_as_the_page_says() -> None:
    head, *rows = table("Request")
    drawn = {
        (getattr(states, row[0]), getattr(states, happens)): getattr(states, cell)
        for row in rows
        for happens, cell in zip(head[1:], row[1:], strict=True)
        if cell
    }
    assert drawn == states.REQUEST_MOVES


def test_the_response_half_of_a_stream_moves_as_the_page_says() -> None:
    order = re.search(r"only moves to the right: ([A-Z, ]+)(?: \([^)]*\))?([A-Z, ]+)\.", CLOSING)
    assert order is not None
    names = re.findall("[A-Z]+", "".join(order.groups()))
    assert names == ["AWAITED", "STARTED", "ENDING", "SENT", "OVER"]
    assert [getattr(states, name) for name in names] == list(range(5))

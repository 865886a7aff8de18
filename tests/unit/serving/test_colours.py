"""`daphne_ng.serving.colours`."""

from __future__ import annotations

import io

import pytest

from daphne_ng.serving.colours import wants_colour


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        if self.closed:
            raise ValueError("closed")
        return True


def test_a_terminal_gets_colours_and_nothing_else_does() -> None:
    assert wants_colour(Terminal(), {})
    assert not wants_colour(io.StringIO(), {})
    assert not wants_colour(None, {})
    closed = Terminal()
    closed.close()
    assert not wants_colour(closed, {})


@pytest.mark.parametrize(("environment", "expected"), [({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)])
def test_no_color_counts_unless_it_is_empty(environment: dict[str, str], expected: bool) -> None:
    assert wants_colour(Terminal(), environment) is expected


def test_a_terminal_that_can_do_nothing_gets_none() -> None:
    assert not wants_colour(Terminal(), {"TERM": "dumb"})
    assert wants_colour(Terminal(), {"TERM": "xterm"})

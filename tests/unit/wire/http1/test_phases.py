"""The states that an HTTP/1.1 connection can reach: all of them, by trying every input in each.

`explore` begins with a new connection and goes on from every state that it has not seen.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from itertools import product
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from daphne_ng.wire import ending
from daphne_ng.wire.ending import LINGERING, NEVER
from tests.support.h1_play import INPUTS, Play, State, key_of, state_of

# (response, request, reading, behind) of a request that is served or is being read in vain.
SERVED = [
    (response, *rest)
    for response, rest in product(
        ["none yet", "begun"],
        [
            ("whole", "on", "-"),
            ("whole", "on", "requests"),
            ("whole", "paused", "-"),
            ("whole", "paused", "requests"),
            ("whole", "paused", "error"),
            ("whole", "paused", "requests and error"),
            ("part", "on", "-"),
            ("part", "paused", "-"),
        ],
    )
]
BETWEEN = [
    ("on", "-"),
    ("on", "requests"),
    ("paused", "requests"),
    ("paused", "error"),
    ("paused", "requests and error"),
]
ENDED = list(product(["on", "paused"], ["-", "error"]))

LISTED = {
    *(
        State(phase, *rest)
        for phase, rest in product(
            ["OPEN", "LAST"],
            [
                *(("runs", *served) for served in SERVED),
                ("left", "begun", "part", "on", "-"),
                *(("none", "-", "-", *between) for between in BETWEEN),
            ],
        )
    ),
    State("LINGERING", "none", "-", "-", "on", "-"),
    State("LINGERING", "none", "-", "-", "on", "error"),
    *(State("CLOSED", "none", "-", "-", *rest) for rest in ENDED),
    *(State("GONE", "none", "-", "-", *rest) for rest in ENDED),
    # An exchange that was cut off by a reset of its own: nothing behind it begins any more.
    *(
        State("GONE", "left", response, *rest)
        for response, rest in product(
            ["none yet", "begun"],
            [
                ("whole", "on", "-"),
                ("whole", "paused", "-"),
                ("whole", "paused", "error"),
                ("part", "on", "-"),
                ("part", "paused", "-"),
            ],
        )
    ),
}

DRIVERS = {
    "OPEN": {"open"},
    "LAST": {"open"},
    "LINGERING": {"half"},
    "CLOSED": {"closed", "released"},
    "GONE": {"aborted", "lost", "switched"},
}


class Step(NamedTuple):
    """What one input did."""

    path: tuple[str, ...]
    """The inputs up to this one, each a key of `INPUTS`."""
    before: State
    after: State
    driver: str
    """See `Play.driver`."""


def played(path: tuple[str, ...]) -> Play:
    play = Play()
    for name in path:
        assert INPUTS[name](play)
    return play


@cache
def explore() -> list[Step]:
    """Return every step out of every state."""
    steps: list[Step] = []
    seen = {key_of(Play())}
    ways: deque[tuple[str, ...]] = deque([()])
    while ways:
        path = ways.popleft()
        play = played(path)
        before, used = state_of(play.server), False
        for name, act in INPUTS.items():
            if used:
                play, used = played(path), False
            if not act(play):
                continue
            used = True
            steps.append(Step((*path, name), before, state_of(play.server), play.driver))
            key = key_of(play)
            if key not in seen:
                seen.add(key)
                ways.append((*path, name))
    return steps


def test_these_states_are_reached_and_no_others() -> None:
    reached = {step.after for step in explore()}
    assert sorted(reached - LISTED) == []
    assert sorted(LISTED - reached) == []


def test_each_input_moves_the_phase_to_the_right_or_not_at_all() -> None:
    back = [step for step in explore() if getattr(ending, step.after.phase) < getattr(ending, step.before.phase)]
    assert back == []


def test_each_phase_is_what_the_driver_was_told() -> None:
    assert [step for step in explore() if step.driver not in DRIVERS[step.after.phase]] == []


def test_each_phase_has_had_each_input_that_can_come_in_it() -> None:
    """Or the exploration has been cut short somewhere."""
    had = {phase: {step.path[-1] for step in explore() if step.before.phase == phase} for phase in DRIVERS}
    assert had["OPEN"] == had["LAST"] == set(INPUTS)
    assert had["LINGERING"] >= {
        "a request", "what breaks the protocol", "the client closes its half", "the connection is lost", "time passes",
        "the server stops",
    }  # fmt: skip
    assert had["CLOSED"] >= {"a request", "what breaks the protocol", "the connection is lost", "time passes"}
    assert had["GONE"] >= {"the connection is lost", "the server stops"}


def test_an_ending_has_a_deadline_until_nothing_is_waited_for() -> None:
    for path in {step.path for step in explore() if step.after.phase in ("LINGERING", "CLOSED", "GONE")}:
        play = played(path)
        h1 = play.server.h1
        if play.driver in ("half", "closed"):
            assert h1.deadline < NEVER, path
        elif h1.phase == ending.GONE:
            assert h1.deadline == NEVER, path


@given(st.lists(st.sampled_from(sorted(INPUTS)), max_size=60))
def test_however_long_it_goes_on(names: list[str]) -> None:
    play = Play()
    phase = play.server.h1.phase
    for name in names:
        INPUTS[name](play)
        assert play.server.h1.phase >= phase
        phase = play.server.h1.phase
        assert state_of(play.server) in LISTED
        assert play.driver in DRIVERS[state_of(play.server).phase]
        if phase >= LINGERING:
            assert play.server.h1.idle or phase == ending.GONE

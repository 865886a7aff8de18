"""`daphne_ng.wire.ending`: phases only move to the right, and each pair of the table is done."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.wire import ending
from daphne_ng.wire.driver import ConnectionDriver
from daphne_ng.wire.ending import (
    ABORT,
    ANNOUNCED,
    AWAIT_ANSWER,
    CLOSE,
    CLOSED,
    CONNECTING,
    DELIVERED,
    DROP,
    EMPTY,
    GONE,
    LAST,
    LINGERING,
    MOVING,
    NEVER,
    OPEN,
    RELEASE,
    STEPS,
    STUCK,
    WAIT,
    WEBSOCKET_STEPS,
    PhasedConnection,
)
from daphne_ng.wire.progress import FAREWELL_BYTES
from daphne_ng.wire.websocket.connection import WebSocketConnection
from daphne_ng.wire.websocket.handshake import Handshake, WebSocketRequest
from tests.support.asgi import request_head

PHASES = [CONNECTING, OPEN, ANNOUNCED, LAST, LINGERING, CLOSED, GONE]
TAKEN = [MOVING, STUCK, DELIVERED, EMPTY]
CONFIG = Config(close_timeout=5, write_timeout=60, write_min_rate=0, keep_alive_timeout=20)


class Driver:
    """Writes down which end it was asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.left = 0
        self.ends: list[str] = []
        self.timer = NEVER
        # What a WebSocket takes from its driver besides.
        self.write = self.writable = None
        self.engines = SimpleNamespace(unmask=None)

    def clock(self) -> float:
        return self.now

    def unacknowledged_bytes(self) -> int:
        return self.left

    def rearm(self, deadline: float) -> None:
        self.timer = deadline

    def __getattr__(self, end: str) -> Callable[[], None]:
        if end not in ("close", "finish", "close_writing", "release", "abort", "break_off", "drop"):
            raise AttributeError(end)
        return lambda: self.ends.append(end)


def connection(
    phase: int, kind: type[PhasedConnection[Any]] = PhasedConnection
) -> tuple[PhasedConnection[Any], Driver]:
    driver = Driver()
    if kind is PhasedConnection:
        return kind(CONFIG, driver, phase), driver
    response: Any = None
    made = WebSocketConnection(
        CONFIG, Handshake(WebSocketRequest(request_head(), None, [], ""), response, bytes), driver
    )
    made.phase = phase
    return made, driver


# What an ending is asked for, and which phase it leads to at least.
INPUTS: dict[str, tuple[Callable[[PhasedConnection[Any]], object], int]] = {
    "close_half": (lambda made: made._close_half(1010.0), LINGERING),
    "close": (lambda made: made._close(), CLOSED),
    "close, all read": (lambda made: made._close(read=True), CLOSED),
    "abort": (lambda made: made._abort(), GONE),
    "break_off": (lambda made: made.break_off(), GONE),
    "lost": (lambda made: made._lost(), GONE),
    **{f"enter {phase}": (lambda made, phase=phase: made._enter(phase), phase) for phase in PHASES},
}


def test_the_phases_stand_in_their_order() -> None:
    assert all(earlier < later for earlier, later in pairwise(PHASES))
    assert {getattr(ending, name) for name in ("CONNECTING", "OPEN", "LAST", "CLOSED", "GONE")} <= set(PHASES)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", INPUTS)
def test_each_input_moves_to_the_right_or_nowhere(phase: int, name: str) -> None:
    made, driver = connection(phase)
    act, target = INPUTS[name]
    act(made)
    assert made.phase == max(phase, target)
    if made.phase == GONE and phase < GONE:
        assert made.deadline == NEVER
    if phase == GONE:
        assert driver.ends in ([], ["break_off"])
        assert made.deadline == NEVER


@pytest.mark.parametrize("phase", PHASES)
def test_our_half_is_closed_once(phase: int) -> None:
    made, driver = connection(phase)
    made._close_half(1010.0)
    made._close_half(1020.0)
    assert driver.ends == (["close_writing"] if phase < LINGERING else [])
    assert made.deadline == (1010.0 if phase < LINGERING else NEVER)


@pytest.mark.parametrize("phase", PHASES)
def test_an_abort_is_one(phase: int) -> None:
    made, driver = connection(phase)
    made._abort()
    made._abort()
    assert driver.ends == (["abort"] if phase < GONE else [])


ENDS = {
    WAIT: [],
    AWAIT_ANSWER: [],
    CLOSE: ["finish"],
    RELEASE: ["release"],
    DROP: ["drop"],
    ABORT: ["abort"],
}


@pytest.mark.parametrize("kind", [PhasedConnection, WebSocketConnection])
@pytest.mark.parametrize(("phase", "taken"), list(product(PHASES[:-1], TAKEN)))
def test_each_pair_does_what_the_table_says_or_ends_the_connection(
    kind: type[PhasedConnection[Any]], phase: int, taken: int
) -> None:
    made, driver = connection(phase, kind)
    if taken == STUCK:
        driver.left = 100_000
        made._look(driver.left, driver.now)
        driver.now += 61
    elif taken == MOVING:
        driver.left = 100_000
    else:
        driver.left = FAREWELL_BYTES
        if taken == DELIVERED:
            made._look(100_000, driver.now)
    made._end_passed(driver.now)
    step = kind.steps.get((phase, taken), ABORT)
    assert driver.ends == ENDS[step]
    assert made.phase >= phase
    if step in (WAIT, AWAIT_ANSWER):
        assert made.phase == phase
        assert driver.now < made.deadline <= driver.now + 5
    elif step == CLOSE:
        assert made.phase == CLOSED
        assert made.deadline == driver.now + 5
    elif step in (DROP, ABORT):
        assert made.phase == GONE
        assert made.deadline == NEVER


@pytest.mark.parametrize("steps", [STEPS, WEBSOCKET_STEPS])
def test_a_phase_that_has_a_time_has_a_step_for_whatever_the_client_took(steps: dict[tuple[int, int], int]) -> None:
    phases = {phase for phase, _ in steps}
    assert {LINGERING, CLOSED} <= phases
    assert set(steps) == set(product(phases, TAKEN))


@pytest.mark.parametrize("kind", [PhasedConnection, WebSocketConnection])
@pytest.mark.parametrize("phase", [LINGERING, CLOSED])
def test_a_client_that_takes_all_sees_the_end_in_bounded_time(kind: type[PhasedConnection[Any]], phase: int) -> None:
    made, driver = connection(phase, kind)
    driver.left = 10_000
    for _ in range(20):
        if driver.ends[-1:] == ["release"]:
            break
        made._end_passed(driver.now)
        driver.left = max(driver.left - 2_000, 0)
        driver.now = max(driver.now, made.deadline if made.deadline != NEVER else driver.now)
    assert driver.ends == (["finish", "release"] if phase == LINGERING else ["release"])


def test_an_idle_client_that_takes_its_answer_has_its_time_from_when_it_has_it() -> None:
    made, driver = connection(OPEN)
    assert made._idle_extension(driver.now) == 0
    driver.left = 1  # each byte counts here
    assert 0 < made._idle_extension(driver.now) <= 5
    driver.left = 0
    assert made._idle_extension(driver.now) == CONFIG.keep_alive_timeout
    assert made._idle_extension(driver.now) == 0


def test_what_one_phase_has_seen_is_no_measure_for_the_next() -> None:
    made, driver = connection(LINGERING)
    driver.left = 100_000
    made._end_passed(driver.now)
    made._close()
    driver.now += 100  # longer than a client may take nothing
    made._end_passed(driver.now)
    assert driver.ends == ["finish"]


def test_a_later_deadline_leaves_the_timer_alone() -> None:
    made, driver = connection(OPEN)
    made.armed_for = 1004.0
    made._close()
    assert driver.timer == NEVER
    made.armed_for = 1006.0
    made._close()
    assert driver.timer == 1005.0


def test_the_driver_of_the_test_has_what_an_ending_calls() -> None:
    """Names, at least: a protocol cannot be checked at run time."""
    for name in ("close", "finish", "close_writing", "release", "abort", "break_off", "drop"):
        assert hasattr(ConnectionDriver, name)


def test_the_end_of_the_client_behind_ours_begins_the_watch_over_it_anew() -> None:
    made, driver = connection(CLOSED)
    driver.left = 1_000_000
    driver.now += 5
    made._end_passed(driver.now)
    driver.now += 50
    made._close(read=True)
    driver.now += 15  # 65 s behind the first look
    made._end_passed(driver.now)
    assert driver.ends == ["close"]
    driver.now += 60
    made._end_passed(driver.now)
    assert driver.ends == ["close", "drop"]


@pytest.mark.parametrize("kind", [PhasedConnection, WebSocketConnection])
def test_a_client_that_has_taken_the_last_of_it_while_we_linger_owes_an_answer_on_a_websocket_alone(
    kind: type[PhasedConnection[Any]],
) -> None:
    made, driver = connection(LINGERING, kind)
    driver.left = 100_000
    made._end_passed(driver.now)
    driver.left = 0
    driver.now += 5
    made._end_passed(driver.now)
    assert driver.ends == ([] if kind is WebSocketConnection else ["finish"])
    driver.now += 5
    made._end_passed(driver.now)
    assert driver.ends == (["finish"] if kind is WebSocketConnection else ["finish", "release"])

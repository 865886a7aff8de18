"""`daphne_ng.supervisor.phases`: a worker moves to the right or stays where it is, whatever happens."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from daphne_ng.supervisor.phases import (
    ABANDON,
    EXIT,
    GONE,
    INPUTS,
    KILL,
    KILLED,
    NEXT,
    OVERDUE,
    PHASES,
    READY,
    RETIRE,
    RETIRING,
    SETTLED,
    STARTING,
    TIME_UP,
    WORKER_READY,
    WORKER_STOPS,
)
from daphne_ng.supervisor.process import WorkerProcess

EVERYTHING = list(itertools.product(range(len(PHASES)), range(len(INPUTS))))


def worker_in(phase: int) -> WorkerProcess:
    process: Any = None
    worker = WorkerProcess(1, process, -1, -1, 0.0)
    worker.phase = phase
    return worker


@pytest.mark.parametrize(
    ("phase", "happened"), EVERYTHING, ids=[f"{PHASES[phase]}-{INPUTS[happened]}" for phase, happened in EVERYTHING]
)
def test_every_input_moves_a_worker_right_or_is_refused(phase: int, happened: int) -> None:
    worker = worker_in(phase)
    moved = worker.advance(happened)
    assert moved == ((phase, happened) in NEXT)
    if not moved:
        assert worker.phase == phase
    elif (phase, happened) == (KILLED, KILL):
        assert worker.phase == KILLED  # killed once more
    else:
        assert phase < worker.phase <= GONE


def test_every_process_ends_and_nothing_happens_to_it_afterwards() -> None:
    assert all(NEXT[phase, EXIT] == GONE for phase in range(GONE))
    assert not any((GONE, happened) in NEXT for happened in range(len(INPUTS)))


def test_a_killed_worker_is_never_ready() -> None:
    for phase in (OVERDUE, KILLED, GONE):
        reached, new = set(), {phase}
        while new:
            reached |= new
            new = {after for (before, _), after in NEXT.items() if before in new} - reached
        assert not reached & {READY, SETTLED, RETIRING}


def test_a_worker_serves_from_its_word_to_the_beginning_of_its_end() -> None:
    assert [phase for phase in range(len(PHASES)) if worker_in(phase).serves] == [READY, SETTLED]


@pytest.mark.parametrize(
    ("happens", "phases"),
    [
        ([WORKER_READY, TIME_UP, RETIRE, EXIT], [READY, SETTLED, RETIRING, GONE]),
        ([WORKER_READY, WORKER_STOPS, TIME_UP, ABANDON], [READY, RETIRING, KILLED, GONE]),
        ([TIME_UP, WORKER_READY, EXIT], [OVERDUE, OVERDUE, GONE]),
        ([WORKER_STOPS, RETIRE, KILL, WORKER_READY, EXIT], [STARTING, KILLED, KILLED, KILLED, GONE]),
    ],
)
def test_the_lives_of_workers(happens: list[int], phases: list[int]) -> None:
    worker = worker_in(STARTING)
    seen = []
    for happened in happens:
        worker.advance(happened)
        seen.append(worker.phase)
    assert seen == phases


def test_every_phase_and_every_input_has_its_name() -> None:
    assert len(PHASES) == GONE + 1
    assert len(INPUTS) == ABANDON + 1
    assert {phase for phase, _ in NEXT} == set(range(GONE))
    assert {happened for _, happened in NEXT} == set(range(len(INPUTS)))

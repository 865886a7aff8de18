"""`daphne_ng.wire.progress`: what counts as reading."""

from __future__ import annotations

import pytest

from daphne_ng.config import Config
from daphne_ng.wire.progress import Progress, first_look, watched


def play(progress: Progress, left: int, falls: list[int]) -> int | None:
    """Let that much be taken in each second; return the second in which it was too little."""
    due = 0.0
    for second, fall in enumerate(falls):
        left -= fall
        while due <= second:
            wait = progress.look(left, due)
            if not wait:
                return second
            due += wait
    return None


@pytest.mark.parametrize(
    ("falls", "stalled"),
    [
        ([0] * 100, 60),
        ([1] * 1000, 60),
        ([230] * 1000, 60),
        ([245] * 1000, None),
        ([0] * 50 + [20_000] + [0] * 100, 110),
        (([0] * 54 + [20_000]) * 10, None),
        ([20_000] + [0] * 100, 60),
    ],
)
def test_so_much_in_so_much_time(falls: list[int], stalled: int | None) -> None:
    seen = play(Progress(10**7, 0.0, 60.0, 240), 10**7, falls)
    assert (seen is None) == (stalled is None)
    if seen is not None and stalled is not None:
        assert stalled <= seen <= stalled + 6


def test_what_is_written_meanwhile_takes_nothing_back() -> None:
    progress = Progress(1000, 0.0, 60.0, 10)
    for second in range(5, 300, 10):
        assert progress.look(500, second)
        assert progress.look(1000, second + 5)


def test_without_a_rate_one_byte_will_do() -> None:
    progress = Progress(1000, 0.0, 60.0, 0)
    assert progress.look(999, 59.0)
    assert progress.look(999, 118.0)
    assert progress.look(999, 119.0) == 0


def test_without_a_timeout_nobody_stalls() -> None:
    progress = Progress(1000, 0.0, 0.0, 240)
    assert progress.look(1000, 1e9) > 0
    assert first_look(0.0) > 0


def test_looks_are_frequent_however_short_the_timeout() -> None:
    assert first_look(2.0) == 0.5
    assert first_look(600.0) == 5.0


def test_the_settings_are_the_rule() -> None:
    progress = watched(None, 1000, 0.0, Config(write_timeout=10, write_min_rate=50))
    assert watched(progress, 1, 1.0, Config()) is progress
    assert progress.look(501, 9.0)
    assert progress.look(501, 10.0) == 0


class TestPatience:
    def test_ends_when_the_kernel_holds_all_and_none_of_it_is_taken(self) -> None:
        progress = Progress(1000, 0.0, 60.0, 0)
        assert progress.patience(999, 0, 5.0)
        assert progress.patience(999, 0, 10.0) == 0

    def test_is_like_that_of_a_pause_while_the_kernel_does_not_take_all(self) -> None:
        progress = Progress(1000, 0.0, 60.0, 0)
        assert progress.patience(1000, 1, 59.0)
        assert progress.patience(1000, 1, 60.0) == 0

    def test_begins_anew_when_more_is_left(self) -> None:
        progress = Progress(1000, 0.0, 60.0, 0)
        assert progress.patience(2000, 1, 50.0)
        assert progress.patience(2000, 1, 109.0)
        assert progress.patience(2000, 1, 110.0) == 0

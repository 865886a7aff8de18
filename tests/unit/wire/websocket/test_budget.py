"""What a client may send beside messages, and in how many pieces, counted without a connection."""

from __future__ import annotations

from typing import Any

from daphne_ng.config import Config
from daphne_ng.wire.websocket.budget import FrameBudget


def budget(**settings: Any) -> FrameBudget:
    return FrameBudget(Config(**settings))


def paid(budget: FrameBudget, count: int, carried: int = 0, now: float = 0.0) -> int:
    """How many of `count` control frames are paid for."""
    return sum(budget.pays_control(carried, now) for _ in range(count))


class TestFragments:
    def test_a_message_has_so_many_that_carry_nothing(self) -> None:
        frames = budget(websocket_max_fragments=3)
        assert [frames.pays_fragment(0, first=index == 0) for index in range(5)] == [True, True, True, False, False]

    def test_each_message_has_its_own(self) -> None:
        frames = budget(websocket_max_fragments=1)
        assert [frames.pays_fragment(0, first=True) for _ in range(3)] == [True] * 3

    def test_those_that_carry_enough_are_free(self) -> None:
        frames = budget(websocket_max_fragments=1)
        assert all(frames.pays_fragment(256, first=index == 0) for index in range(1000))

    def test_without_a_limit_there_is_no_end(self) -> None:
        frames = budget(websocket_max_fragments=0)
        assert all(frames.pays_fragment(0, first=index == 0) for index in range(1000))


class TestControl:
    def test_a_burst_is_free_and_then_a_rate(self) -> None:
        frames = budget(websocket_control_burst=10, websocket_control_rate=2)
        assert paid(frames, 20) == 10
        assert paid(frames, 20, now=3.0) == 6

    def test_messages_pay_first(self) -> None:
        frames = budget(websocket_control_burst=10, websocket_control_rate=0.001)
        assert paid(frames, 5, carried=5 * 32) == 5
        assert paid(frames, 20, carried=5 * 32) == 10

    def test_no_more_is_saved_up_than_a_burst(self) -> None:
        frames = budget(websocket_control_burst=10, websocket_control_rate=0.001)
        assert paid(frames, 50, carried=1_000_000) == 20

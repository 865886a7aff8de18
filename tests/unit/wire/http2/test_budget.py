"""Who pays for the frames that carry nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daphne_ng.config import Config
from daphne_ng.wire.http2.budget import Budget


def budget(**config: object) -> Budget:
    """One whose buckets are never refilled."""
    return Budget(Config(http2_control_rate=0, http2_reset_rate=0, **config))  # type: ignore[arg-type]


def spent(pays: Callable[[float], bool]) -> int:
    """Spend all there is, and return how much it was."""
    count = 0
    while pays(0.0):
        count += 1
        assert count < 1_000_000, "it never ends"
    return count


def test_without_income_there_is_the_burst() -> None:
    assert spent(budget().pays_control) == 100
    assert spent(budget().pays_empty) == 100
    assert spent(budget().pays_reset) == 200
    assert spent(budget().pays_update) == 64 + 100
    assert spent(budget().pays_acknowledgement) == 1 + 100


def test_what_a_request_earns() -> None:
    one = budget()
    one.requests += 1
    assert spent(one.pays_control) == 8 + 100
    assert spent(one.pays_update) == 64 + 2
    assert spent(one.pays_reset) == 200


def test_what_the_data_of_a_request_earns() -> None:
    one = budget()
    one.data_received += 50
    assert spent(one.pays_update) == 64 + 2 * 50 + 100
    assert spent(one.pays_control) == 0


def test_what_data_earns() -> None:
    one = budget()
    for _ in range(50):
        one.data_sent(5)
    assert spent(one.pays_control) == 50 + 100
    assert spent(one.pays_update) == 64 + 4 * 50


def test_the_bytes_of_data_count_to_the_last() -> None:
    one = budget()
    for _ in range(1024):
        one.data_sent(100)
        assert one.pays_update(0.0)
    assert spent(one.pays_update) == 64 + 3 * 1024 + 200 + 100


def test_what_a_response_earns() -> None:
    one = budget()
    one.responses += 30
    assert spent(one.pays_reset) == 30 + 200


def test_nothing_earns_the_resets_that_are_provoked() -> None:
    one = budget()
    one.responses = one.requests = one.data_frames = 10_000
    assert spent(one.pays_provoked) == 200
    assert not one.pays_provoked(0.0, 1)


def test_nothing_earns_what_is_empty() -> None:
    one = budget()
    one.responses = one.requests = one.data_frames = one.asked = 10_000
    assert spent(one.pays_empty) == 100


@pytest.mark.parametrize("earn", ["requests", "data_frames", "data_received", "responses", "data_bytes"])
def test_nothing_is_gained_by_saving(earn: str) -> None:
    one = budget()
    for _ in range(3):
        one.data_frames += 1  # so that somebody looks
        setattr(one, earn, 10**9)
        assert one.pays_control(0.0)
        assert one.pays_update(0.0)
    assert spent(one.pays_control) <= 4096 + 100
    assert spent(one.pays_update) <= 262_144
    assert spent(one.pays_reset) <= 400


def test_all_the_streams_that_may_be_open_may_be_reset() -> None:
    assert spent(budget(http2_max_concurrent_streams=1000).pays_reset) == 1000


def test_acknowledgements_are_paid_for_by_what_we_asked() -> None:
    one = budget()
    one.asked += 5
    assert spent(one.pays_acknowledgement) == 6 + 100

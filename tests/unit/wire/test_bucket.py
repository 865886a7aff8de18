from __future__ import annotations

import pytest

from daphne_ng.wire.bucket import TokenBucket


def test_a_burst_is_allowed_and_no_more() -> None:
    bucket = TokenBucket(3, 1.0)
    assert [bucket.take(50.0) for _ in range(5)] == [True, True, True, False, False]


def test_tokens_accrue_with_time() -> None:
    bucket = TokenBucket(2, 10.0)
    assert bucket.take(0.0, 2)
    assert not bucket.take(0.05)
    assert bucket.take(0.11)
    assert not bucket.take(0.11)
    assert bucket.take(0.31, 2)


def test_it_never_holds_more_than_a_burst() -> None:
    bucket = TokenBucket(2, 10.0)
    assert [bucket.take(1e9) for _ in range(3)] == [True, True, False]
    assert [bucket.take(2e9) for _ in range(3)] == [True, True, False]


def test_a_full_bucket_does_not_save_up_time() -> None:
    bucket = TokenBucket(2, 1.0)
    assert bucket.take(100.0, 2)
    assert not bucket.take(100.5)


def test_a_refusal_takes_nothing() -> None:
    bucket = TokenBucket(5, 1.0)
    assert not bucket.take(0.0, 6)
    assert bucket.take(0.0, 5)


def test_without_a_rate_the_burst_is_all() -> None:
    bucket = TokenBucket(1, 0)
    assert bucket.take(0.0)
    assert not bucket.take(1e9)


def test_refusals_do_not_delay_the_next_token() -> None:
    bucket = TokenBucket(1, 1.0)
    assert bucket.take(0.0)
    for step in range(1, 8):
        assert not bucket.take(step / 8)
    assert bucket.take(1.0)


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = TokenBucket(1, 1.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)


@pytest.mark.parametrize("rate", [0.5, 3.0, 10.0])
def test_over_a_long_time_the_rate_holds(rate: float) -> None:
    bucket = TokenBucket(10, rate)
    taken = sum(bucket.take(step / 128) for step in range(128 * 60))
    assert abs(taken - (10 + 60 * rate)) <= 1

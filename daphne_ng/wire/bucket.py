"""A token bucket: how often something may happen, bursts allowed."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Holds up to `burst` tokens, refilled at a constant rate; it starts full.

    There is no timer: each `take` first adds what has accrued since the one before.

    Args:
        burst: Tokens it holds at most, and so the largest `count` that can ever be taken.
        rate_per_second: Tokens that accrue in a second; 0 for none.
    """

    __slots__ = ("_burst", "_rate", "_refilled_at", "_tokens")

    def __init__(self, burst: int, rate_per_second: float) -> None:
        self._burst = burst
        self._rate = rate_per_second
        self._tokens = float(burst)
        self._refilled_at = 0.0

    def take(self, now: float, count: int = 1) -> bool:
        """Take `count` tokens if there are as many; a refusal takes none.

        Args:
            now: Seconds on a clock that does not go backwards; its zero does not matter.
            count: How many.
        """
        tokens = self._tokens
        elapsed = now - self._refilled_at
        if elapsed > 0:
            self._refilled_at = now
            tokens = min(self._burst, tokens + elapsed * self._rate)
        allowed = tokens >= count
        self._tokens = tokens - count if allowed else tokens
        return allowed

"""The times at which certificates are asked for: at once, near their end, and after failures ever later.

Pure: the time is an argument, in seconds since the epoch, and no file is read. These rules bound the requests:

1. A certificate is renewed when less than a third of its lifetime is left, which is what Let's Encrypt advises.
   Certificates that were issued together are not renewed together: up to a tenth of that third later, by their serial
   number, which is random and the same after a restart.
2. After a failure a name waits 1 minute, then three times as long each time, up to 6 hours. So five attempts fall into
   the first hour, and Let's Encrypt allows five failed validations of a name per hour.
3. Where the authority says when to come back (Retry-After), not earlier; after a rate limit not within an hour either.
4. A name that fails holds up no other. A failure for all (`Failure.everyone`) holds up all, by the same rule.
5. After `ORDERS_IN_A_ROW` orders there is a pause of a minute.
6. A name that has got a certificate waits 6 hours, or a third of its lifetime, whatever its dates say. Where a clock is
   wrong, or somebody puts the old file back, it would be asked for again at once, and use up what the authority allows
   in a week.

Where one process takes over from another, it goes on with the waits of the other (`Schedule.waits`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from daphne_ng.acme.failure import Failure

__all__ = ["Schedule", "Validity", "renewal_time"]

FIRST_RETRY_SECONDS = 60.0
RETRY_FACTOR = 3.0
RETRY_MAX_SECONDS = 6 * 3600.0
RATE_LIMIT_SECONDS = 3600.0
RETRY_AFTER_MAX_SECONDS = 7 * 86400.0
"""The longest wait that an authority is believed to ask for."""
ORDERS_IN_A_ROW = 5
PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Validity:
    """A certificate's dates, in seconds since the epoch."""

    not_before: float
    not_after: float
    serial: int = 0


def renewal_time(validity: Validity) -> float:
    """Return when to renew, in seconds since the epoch (rule 1)."""
    third = max(validity.not_after - validity.not_before, 0.0) / 3
    return validity.not_after - third + third / 10 * (validity.serial % 1009 / 1009)


@dataclass(slots=True)
class _NameState:
    validity: Validity | None = None
    suggested: float | None = None
    failures: int = 0
    not_before: float = 0.0


class Schedule:
    """The names, and when each is to be asked for.

    Args:
        spread: Returns a number from 0 up to 1, by which waits after failures grow by up to a quarter.
    """

    def __init__(self, spread: Callable[[], float] = random.random) -> None:
        self._spread = spread
        self._names: dict[str, _NameState] = {}
        self._everyone = _NameState()
        self._in_a_row = 0

    def waits(self) -> dict[str, Any]:
        """Return the failures and the waits, for `resume` in another process."""
        return {
            "everyone": _wait_of(self._everyone),
            "names": {name: _wait_of(entry) for name, entry in self._names.items()},
            "in_a_row": self._in_a_row,
        }

    def resume(self, waits: dict[str, Any]) -> None:
        """Go on where another schedule was. To be called first; `replace` then keeps what it names.

        Args:
            waits: From `waits`. What is of another shape is left out as a whole.
        """
        try:
            everyone = _with_wait(waits["everyone"])
            names = {str(name): _with_wait(wait) for name, wait in waits["names"].items()}
            in_a_row = int(waits["in_a_row"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return
        self._everyone, self._names, self._in_a_row = everyone, names, in_a_row

    def replace(self, names: Iterable[str]) -> None:
        """Take these names, and forget all others. What is known of those that stay is kept."""
        self._names = {name: self._names.get(name) or _NameState() for name in names}

    def certificate(self, name: str, validity: Validity | None) -> None:
        """Note the certificate that `name` has now; None for none that can be used."""
        entry = self._names[name]
        if entry.validity != validity:
            # The certificate is a new one, from this process or from another.
            entry.validity, entry.suggested = validity, None

    def suggest(self, name: str, when: float) -> None:
        """Note when the authority would have `name` renewed (RFC 9773); if that is later than rule 1, it is ignored."""
        self._names[name].suggested = when

    def due(self, now: float) -> list[str]:
        """Return the names to ask for now, the most urgent first; at most as many as may be asked for in a row."""
        if now < self._everyone.not_before:
            return []
        ready = [name for name in self._names if self._when(name) <= now]
        ready.sort(key=self._urgency)
        return ready[: max(ORDERS_IN_A_ROW - self._in_a_row, 0)]

    def ordered(self, now: float) -> None:
        """Note that an order begins. Call for each."""
        self._in_a_row += 1
        if self._in_a_row >= ORDERS_IN_A_ROW:
            self._in_a_row = 0
            self._everyone.not_before = max(self._everyone.not_before, now + PAUSE_SECONDS)

    def succeeded(self, name: str, validity: Validity, now: float) -> None:
        """Note that `name` has got a certificate."""
        third = max(validity.not_after - validity.not_before, 0.0) / 3
        self._names[name] = _NameState(validity, not_before=now + min(RETRY_MAX_SECONDS, third))
        self._everyone.failures = 0

    def failed(self, name: str | None, failure: Failure, now: float) -> float:
        """Note a failure, of one name or with None of all; return the seconds until the next attempt."""
        if name is None or failure.everyone:
            entry = self._everyone
        else:
            entry = self._names[name]
            self._everyone.failures = 0
        entry.failures += 1
        # The exponent is bounded, so that years of failures do not overflow.
        wait = min(FIRST_RETRY_SECONDS * RETRY_FACTOR ** min(entry.failures - 1, 20), RETRY_MAX_SECONDS)
        wait = max(wait, min(failure.retry_after, RETRY_AFTER_MAX_SECONDS))
        if failure.rate_limited:
            wait = max(wait, RATE_LIMIT_SECONDS)
        wait *= 1 + self._spread() / 4
        entry.not_before = now + wait
        return wait

    def wait(self, now: float, longest: float) -> float:
        """Return the seconds until `due` may have something to say, at most `longest`."""
        if not self._names:
            return longest
        when = max(min(self._when(name) for name in self._names), self._everyone.not_before)
        return min(max(when - now, 0.0), longest)

    def ends(self, name: str) -> float | None:
        """Return when the certificate of `name` ends, or None if it has none."""
        validity = self._names[name].validity
        return validity.not_after if validity is not None else None

    def _when(self, name: str) -> float:
        entry = self._names[name]
        if entry.validity is None:
            return entry.not_before
        when = renewal_time(entry.validity)
        if entry.suggested is not None:
            when = min(when, entry.suggested)
        return max(when, entry.not_before)

    # Names without a certificate first, then by the end of what they have; those that have failed behind the others.
    def _urgency(self, name: str) -> tuple[int, float]:
        entry = self._names[name]
        return entry.failures, entry.validity.not_after if entry.validity is not None else 0.0


def _wait_of(entry: _NameState) -> list[float]:
    return [entry.failures, entry.not_before]


def _with_wait(wait: list[float]) -> _NameState:
    failures, not_before = wait
    return _NameState(failures=int(failures), not_before=float(not_before))

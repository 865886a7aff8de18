"""The ends of an attempt to get a certificate that has failed.

The tree::

    Exception
     +-- Cancelled      the server stops
     +-- Failure        the certificate authority, or the way there, said no; knows when to ask again

Neither leaves this package: `Keeper` turns a failure into one line of the log and a later attempt.
"""

from __future__ import annotations

import re

__all__ = ["Cancelled", "Failure", "one_line"]

_LINE_MAX_CHARACTERS = 400


class Cancelled(Exception):
    """The server stops; nothing is wrong."""


class Failure(Exception):
    """No certificate this time.

    Args:
        detail: One line for the log. May hold what the certificate authority wrote.
        retry_after: Seconds that it asked to wait, or 0.
        rate_limited: Whether a rate limit was hit, so that a next attempt soon makes it worse.
        everyone: Whether the next name would fail in the same way: the authority cannot be reached, or is broken.
    """

    def __init__(
        self, detail: str, *, retry_after: float = 0.0, rate_limited: bool = False, everyone: bool = False
    ) -> None:
        super().__init__(one_line(detail))
        self.retry_after = retry_after
        self.rate_limited = rate_limited
        self.everyone = everyone


def one_line(text: object) -> str:
    """Return `text` as one line of printable characters that is not too long: others wrote it."""
    line = re.sub(r"[^\x20-\x7e]+", " ", " ".join(str(text).split()))
    return line if len(line) <= _LINE_MAX_CHARACTERS else line[: _LINE_MAX_CHARACTERS - 3] + "..."

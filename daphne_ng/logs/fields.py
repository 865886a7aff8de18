"""One line of JSON, as both logs write it.

The names are OpenTelemetry's: those of its log data model, and of its semantic conventions. They are an interface,
described on the page about the log's fields: within a `VERSION` names are added, and none changes its meaning or goes.

The lines are ASCII, since JSON can spell every other character: so no text of a client's ends a line, sends a sequence
to a terminal, or is cut within a character.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["VERSION", "json_line", "quoted", "rfc3339"]

VERSION: Final = 1
"""Of the names of fields."""

quoted: Final[Callable[[str], str]] = json.encoder.encode_basestring_ascii
"""Return a text as JSON spells it, in quotes and ASCII. For whoever puts a line together himself."""

# The second whose text is at hand. A pair, so that no thread sees the text of another second.
_known: tuple[int, str] = (-1, "")


def json_line(fields: Mapping[str, Any]) -> str:
    """Return an object as one line, its newline included, in the order of its fields.

    Those that are None are left out. What JSON has no form for, such as bytes or infinity, is written as text: a line
    never fails.

    Args:
        fields: By name. Lists and mappings may be among the values.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return _encode(given) + "\n"
    except (RecursionError, TypeError, ValueError):  # deep or circular, a key that is no text, a number that is none
        return _encode({str(name): _plain(value) for name, value in given.items()}) + "\n"


def rfc3339(seconds: float) -> str:
    """Return a time of ``time.time`` as RFC 3339 has it, in UTC, with microseconds: ``2026-12-01T08:30:00.250000Z``."""
    global _known
    second = int(seconds // 1)
    known, text = _known
    if second != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _known = (second, text)
    return f"{text}.{int((seconds - second) * 1_000_000):06d}Z"


def _as_text(value: object) -> str:
    try:
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    except Exception:  # it is the application's
        return f"<{type(value).__name__}>"


# A value of which nothing can fail any more.
def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _as_text(value)


_encode: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_as_text).encode

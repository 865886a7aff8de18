"""Content codings (RFC 9110 section 12.5.3): which compressed neighbour of a file a client would like best."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

__all__ = ["SUFFIXES", "acceptable"]

SUFFIXES: Final = {b"br": b".br", b"zstd": b".zst", b"gzip": b".gz"}
"""Codings and the ends of the names of files in them, the first one preferred where a client does not care."""

# A longer field is no browser's, and is not worth its place in the memo.
_FIELD_MAX_BYTES: Final = 256
_ITEM: Final = re.compile(
    rb"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*(?:;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*", re.I
)


def acceptable(value: bytes | None) -> tuple[bytes, ...]:
    """Return the codings of `SUFFIXES` that a client takes rather than the file itself, the best one first.

    Args:
        value: Of Accept-Encoding; None without one.
    """
    return _acceptable(value) if value and len(value) <= _FIELD_MAX_BYTES else ()


@lru_cache(maxsize=256)
def _acceptable(value: bytes) -> tuple[bytes, ...]:
    weights: dict[bytes, float] = {}
    for item in value.lower().split(b","):
        match = _ITEM.fullmatch(item)
        if match is not None:
            name = b"gzip" if match[1] == b"x-gzip" else match[1]
            weights[name] = 1.0 if match[2] is None else float(match[2])
    other = weights.get(b"*", 0.0)
    least = weights.get(b"identity", 0.0)
    found = [(weights.get(coding, other), coding) for coding in SUFFIXES]
    # The sort is stable, so that codings of one weight keep our order.
    found.sort(key=lambda pair: pair[0], reverse=True)
    return tuple(coding for weight, coding in found if weight > 0 and weight >= least)

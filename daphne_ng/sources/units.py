"""Durations and sizes as text: ``30s``, ``5m``, ``64KiB``; a plain number is in seconds or bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

__all__ = ["UNITS", "number_type", "parse_number"]

UNITS: Final[dict[str, dict[str, float]]] = {
    "seconds": {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400},
    "bytes": {
        "B": 1,
        "kB": 1000,
        "MB": 1000**2,
        "GB": 1000**3,
        "KiB": 1024,
        "MiB": 1024**2,
        "GiB": 1024**3,
    },
}
"""By the unit of a setting, what may follow its number. There is no plain ``K``, which is read as either of two."""

_WITH_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", re.ASCII)


def parse_number(text: str, kind: str, unit: str) -> int | float:
    """Return the number that a text stands for, in seconds or bytes where it has such a unit.

    Args:
        text: A number, or a number and a unit.
        kind: ``int`` or ``float``.
        unit: The setting's: ``seconds``, ``bytes``, or empty where no unit may follow.

    Raises:
        ValueError: It is neither, or a setting of whole numbers would not be whole.
    """
    match = _WITH_UNIT.fullmatch(text.strip())
    factor = UNITS.get(unit, {}).get(match[2]) if match is not None else None
    if match is None or factor is None:
        return int(text) if kind == "int" else float(text)
    if kind == "float":
        # 300ms is 0.3 and not 0.3 and a rest.
        return float(match[1]) / 1000 if match[2] == "ms" else float(match[1]) * factor
    number = float(match[1]) * factor
    if not number.is_integer():
        raise ValueError(f"{text!r} is not a whole number of {unit}")
    return int(number)


def number_type(kind: str, unit: str) -> Callable[[str], Any]:
    """Return what argparse calls for a number; it has the name of the type, which argparse's message shows."""

    def parse(text: str) -> int | float:
        return parse_number(text, kind, unit)

    parse.__name__ = kind
    return parse

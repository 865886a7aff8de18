"""Whether a stream gets colours, for all that is written to a terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

__all__ = ["wants_colour"]


def wants_colour(stream: Any, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a stream is a terminal that shows colours, and nobody has asked for none.

    Args:
        stream: A text stream, or None where the process has none.
        environment: Where ``NO_COLOR`` with any value but the empty one, as on no-color.org, and ``TERM=dumb`` mean no.
    """
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False

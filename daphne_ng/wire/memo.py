"""What was found out once about a name or a line, kept for the next message that has it.

The memos of this package are plain dictionaries of a module, because a look-up in them stands on the hot path, and are
shared by all connections. So no client may be able to fill one for good: a full memo is emptied, and what is in use
comes back with the next messages. To learn a few dozen names again takes some microseconds for each couple of thousand
that somebody has to invent; to remember which of them are in use would cost every message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["KEY_MAX_BYTES", "remember"]

K = TypeVar("K")
V = TypeVar("V")

_NOTHING: dict[Any, Any] = {}

KEY_MAX_BYTES = 64
"""What is longer than this is not worth remembering, and would make the bound one of entries and not of bytes."""


def remember(memo: dict[K, V], key: K, value: V, most: int, preset: Mapping[K, V] = _NOTHING) -> None:
    """Keep an entry.

    Args:
        memo: Where.
        key: Its key, of a bounded size.
        value: Its value.
        most: How many entries the memo may have.
        preset: What stands in it from the beginning, and after it was emptied.
    """
    if len(memo) >= most:
        memo.clear()
        memo.update(preset)
    memo[key] = value

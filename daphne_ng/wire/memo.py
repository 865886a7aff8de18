"""What was found out once about a name or a line, kept for the next message that has it.

The memos of this package belong to modules, and are shared by all connections. So no client may be able to fill one for
good: a full memo is emptied, and what is in use comes back with the next messages. To learn a few dozen names again
takes some microseconds for each couple of thousand that a client has to invent; to remember which of them are in use
would cost every message.

A look-up stands on the hot path. So it is made in `Memo.known`, a plain dictionary that a module has under a name of
its own: Python calls the methods of a dictionary much faster than those of anything that is only like one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Generic, TypeVar

__all__ = ["Memo"]

K = TypeVar("K")
V = TypeVar("V")

_NAME_MAX_BYTES: Final = 64


class Memo(Generic[K, V]):
    """A dictionary with a bound.

    Args:
        most: How many entries it may have.
        longest: Largest `size` of an entry that is kept, in bytes. Without it, the bound would be one of entries only.
        preset: What stands in it from the beginning, and after it was emptied.
    """

    __slots__ = ("_preset", "known", "longest", "most")

    def __init__(self, most: int, longest: int = _NAME_MAX_BYTES, preset: Mapping[K, V] | None = None) -> None:
        self._preset: dict[K, V] = dict(preset or {})
        self.known: dict[K, V] = dict(self._preset)
        """The entries; the same dictionary always. Look-ups only: `remember` is what keeps an entry."""
        self.most = most
        self.longest = longest

    def remember(self, key: K, value: V, size: int) -> None:
        """Keep an entry, unless it is too large.

        Args:
            key: Its key.
            value: Its value.
            size: How large the two are, in bytes, as the memo's owner counts them.
        """
        if size > self.longest:
            return
        known = self.known
        if len(known) >= self.most:
            known.clear()
            known.update(self._preset)
        known[key] = value

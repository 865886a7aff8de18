"""The windows through which a client sends (RFC 9113 section 5.2), of its streams and of the connection.

A `ReceiveWindow` is what the client may still send, of a stream or of the connection. What was received is *due*: it
will be given back, in one WINDOW_UPDATE for half a window. What the application has not taken, and has no room for, is
*held* until it has. A window that was given back whole without anything being held doubles, up to its limit: so a
stream starts small, and grows with an application that keeps up.
"""

from __future__ import annotations

__all__ = ["ReceiveWindow"]


class ReceiveWindow:
    """What the peer may send, and what we owe it.

    Args:
        size: How much it may send at first.
        limit: How large that may grow.
    """

    __slots__ = ("_due", "_limit", "_steady", "held", "size")

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        """The window with nothing due and nothing held."""
        self._limit = max(limit, size)
        self._due = 0
        self._steady = 0
        self.held = 0
        """Bytes that are given back only after `release`."""

    def credit(self, count: int) -> int:
        """Note that `count` bytes came and are not held. Returns the increment to announce now, mostly 0."""
        self._due += count
        self._steady += count
        return self._announced()

    def hold(self, count: int) -> None:
        """Note that `count` bytes came that are to be held."""
        self.held += count
        self._steady = 0

    def release(self) -> int:
        """Let go what is held. Returns the increment to announce now."""
        self._due += self.held
        self.held = 0
        return self._announced()

    # Half a window is always open or on its way, as long as nothing is held.
    def _announced(self) -> int:
        due = self._due
        if due * 2 < self.size:
            return 0
        self._due = 0
        if self._steady >= self.size < self._limit:
            grown = min(self.size * 2, self._limit)
            due += grown - self.size
            self.size = grown
            self._steady = 0
        return due

"""The request body between the wire and ``receive()``: bounded, in order, for any number of readers.

A part that brings the buffer to the high mark makes `put` return True, and the protocol pauses reading. `take` hands
out at most one mark's worth, and reports when what is left has fallen to the low mark, so that reading may go on. What
one read has already delivered cannot be refused: the bound is the high mark plus one read.
"""

from __future__ import annotations

import asyncio

__all__ = ["Inbox"]


class Inbox:
    """Body bytes that have arrived and not been received, and those who wait for them.

    Args:
        high: Bytes at which reading pauses.
        low: Bytes at which it resumes.
    """

    __slots__ = ("_high", "_low", "_parts", "_paused", "_waiters", "buffered", "closed", "ended")

    def __init__(self, high: int, low: int) -> None:
        self._high = high
        self._low = low
        self._parts: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._paused = False
        self.buffered = 0
        """Bytes held."""
        self.ended = False
        """The body is complete; what is held is the rest of it."""
        self.closed = False
        """Nothing more will come: the exchange is over."""

    def put(self, data: bytes) -> bool:
        """Add a part. True asks for a pause in reading."""
        self._parts.append(data)
        self.buffered += len(data)
        if self._waiters:
            self.wake()
        if self.buffered >= self._high:
            self._paused = True
            return True
        return False

    def end(self) -> None:
        """Note that the body is complete."""
        self.ended = True
        if self._waiters:
            self.wake()

    def close(self) -> None:
        """Let every reader, now and later, see the end of the exchange."""
        self.closed = True
        if self._waiters:
            self.wake()

    def take(self) -> tuple[bytes, bool]:
        """Remove what is held, or a part of it when that is much.

        Returns:
            The bytes, and whether reading, paused before, may resume.
        """
        parts = self._parts
        if len(parts) == 1:
            data = parts[0]
            parts.clear()
        elif self.buffered <= self._high:
            data = b"".join(parts)
            parts.clear()
        else:
            data = parts.pop(0)
        self.buffered -= len(data)
        if self._paused and self.buffered <= self._low:
            self._paused = False
            return data, True
        return data, False

    async def wait(self) -> None:
        """Return when something has changed. Cancellation passes through and costs other readers nothing."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def wake(self) -> None:
        """Wake every reader."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

"""What has arrived between the wire and ``receive()``: bounded, in order, for any number of readers.

`Inbox` holds the parts of a request body, `MessageInbox` the messages of a WebSocket. What brings the buffer to the
high mark makes `put` return True, and the protocol pauses reading. `take` reports when what is left has fallen to the
low mark, so that reading may go on. What one read has already delivered cannot be refused: the bound is the high mark
plus one read.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from daphne_ng.pieces import JOIN_MAX_BYTES, append_piece, as_bytes

__all__ = ["MESSAGE_COST_BYTES", "Inbox", "MessageInbox"]

MESSAGE_COST_BYTES: Final = 256
"""What a message counts in a `MessageInbox` beyond its payload: else a client could fill memory with empty ones."""


class _Buffer:
    """What the two inboxes share: the marks, the ends, and those who wait."""

    __slots__ = ("_high", "_loop", "_low", "_paused", "_waiters", "buffered", "closed", "ended", "parts")

    def __init__(self, high: int, low: int, loop: asyncio.AbstractEventLoop) -> None:
        self._high = high
        self._low = low
        self._loop = loop
        self.parts: list[Any] = []
        """What is held."""
        self._waiters: list[asyncio.Future[Any]] = []
        self._paused = False
        self.buffered = 0
        """Bytes held."""
        self.ended = False
        """What is held is the rest of it."""
        self.closed = False
        """Nothing more will come: the exchange is over."""

    def end(self) -> None:
        """Note that what is held is the rest."""
        self.ended = True
        if self._waiters:
            self.wake()

    def close(self) -> None:
        """Let every reader, now and later, see the end of the exchange."""
        self.closed = True
        if self._waiters:
            self.wake()

    @property
    def awaited(self) -> bool:
        """Whether a reader waits."""
        return bool(self._waiters)

    def waiter(self) -> asyncio.Future[Any]:
        """Return a future of the next change. A caller whose awaiting of it fails must `forget` it."""
        # Not that of get_running_loop(), which asks the system for the process each time.
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._waiters.append(waiter)
        return waiter

    def forget(self, waiter: asyncio.Future[Any]) -> None:
        """Take back a `waiter`."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def wake(self) -> None:
        """Wake every reader."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Inbox(_Buffer):
    """Body bytes that have arrived and not been received, and those who wait for them.

    Args:
        high: Bytes at which reading pauses.
        low: Bytes at which it resumes.
        loop: Makes the futures of those who wait.
    """

    __slots__ = ()

    def put(self, data: bytes) -> bool:
        """Add a part. True asks for a pause in reading."""
        if self.parts:
            append_piece(self.parts, data, min(self._high, JOIN_MAX_BYTES))
        else:
            self.parts.append(data)
        self.buffered += len(data)
        if self._waiters:
            self.wake()
        if self.buffered >= self._high:
            self._paused = True
            return True
        return False

    async def wait(self) -> None:
        """Return when something has changed. Cancellation passes through and costs other readers nothing."""
        waiter = self.waiter()
        try:
            await waiter
        except BaseException:
            self.forget(waiter)
            raise

    def take(self) -> tuple[bytes, bool]:
        """Remove what is held, or a part of it when that is much: at most the high mark, unless one part is longer.

        Returns:
            The bytes, and whether reading, paused before, may resume.
        """
        parts = self.parts
        if len(parts) == 1:
            data = as_bytes(parts[0])
            parts.clear()
        elif self.buffered <= self._high:
            data = b"".join(parts)
            parts.clear()
        else:
            # Two neighbours are longer than what is joined, so that the list is short.
            data = as_bytes(parts.pop(0))
        self.buffered -= len(data)
        if self._paused and self.buffered <= self._low:
            self._paused = False
            return data, True
        return data, False


class MessageInbox(_Buffer):
    """Whole messages that have arrived and not been received, and those who wait for them.

    Each counts its payload and `MESSAGE_COST_BYTES`. After `end` the rest can still be taken; `close` throws it away.

    Args:
        high: Bytes at which reading pauses.
        low: Bytes at which it resumes.
        loop: Makes the futures of those who wait.
    """

    __slots__ = ("handed",)

    def __init__(self, high: int, low: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(high, low, loop)
        self.handed = False
        """Whether a reader was handed a message and has not had its turn since. No other reader may take a later one,
        or be told of the end, before it has; it sets this back."""

    def put(self, message: bytes | str, size: int) -> bool:
        """Add a message with a payload of `size` bytes. True asks for a pause in reading.

        The reader that has waited longest is handed it, as the result of its `waiter`.
        """
        waiters = self._waiters
        while waiters:
            waiter = waiters.pop(0)
            if not waiter.done():
                if self.handed:
                    waiter.set_result(None)  # it comes after the one that was handed the message before
                    break
                self.handed = True
                waiter.set_result((message, size))
                return False
        if self.closed:
            return False
        self.parts.append((message, size))
        buffered = self.buffered = self.buffered + size + MESSAGE_COST_BYTES
        if buffered >= self._high:
            self._paused = True
            return True
        return False

    def take(self) -> tuple[bytes | str, bool]:
        """Remove the oldest message; there must be one.

        Returns:
            The message, and whether reading, paused before, may resume.
        """
        # The marks keep the list short; an empty deque would cost every idle socket more than this costs a busy one.
        message, size = self.parts.pop(0)
        buffered = self.buffered = self.buffered - size - MESSAGE_COST_BYTES
        if self._paused and buffered <= self._low:
            self._paused = False
            return message, True
        return message, False

    def forget(self, waiter: asyncio.Future[Any]) -> None:
        """Take back a `waiter`, and what it was handed."""
        if waiter.done() and not waiter.cancelled():
            handed = waiter.result()
            if handed is not None:
                self.handed = False
                if not self.closed:
                    self.buffered += handed[1] + MESSAGE_COST_BYTES
                    self.parts.insert(0, handed)
            if self.parts:
                self.wake()  # what it was woken for is for another
        else:
            super().forget(waiter)

    def close(self) -> None:
        """Throw away what is held, and let every reader, now and later, see the end."""
        self.parts.clear()
        self.buffered = 0
        self.ended = True
        super().close()

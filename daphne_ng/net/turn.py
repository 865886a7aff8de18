"""One turn of the loop, and how much of it the connections of a server may take together.

A loop calls every descriptor that is readable before it goes on. Each connection keeps to what it may take of one turn;
a client with fifty of them would take fifty times that.

A connection that finds a turn used up waits in a queue, and the next turn begins with the queue. Otherwise one with
much to do would find every turn used up by what others have just read, for as long as the server is busy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

__all__ = ["TURN_SECONDS", "Turn"]

TURN_SECONDS: Final = 0.005
"""The share of a turn, added up read by read. A read takes a few milliseconds at most, so it is over soon after."""


class Turn:
    """Measures what the connections of a server do in a turn.

    Args:
        loop: The loop.
    """

    __slots__ = ("_loop", "_spent", "_waiting", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._spent = 0.0
        self._waiting: deque[Callable[[], None]] = deque()
        self.over = False
        """Whether it is used up, so that what is not urgent waits for the next."""

    def run(self, callback: Callable[[bytes], None], data: bytes) -> None:
        """Call, as part of this turn."""
        begun = perf_counter()
        callback(data)
        # The sum may go over several turns: the loop is asked for the next one only when that would matter, and what
        # waits in vain has waited for one turn.
        self._spent += perf_counter() - begun
        if self._spent >= TURN_SECONDS and not self.over:
            self.over = True
            self._loop.call_soon(self._start)

    def wait(self, callback: Callable[[], None]) -> None:
        """Call in a later turn that is not used up, in the order of asking; this one must be."""
        self._waiting.append(callback)

    def _start(self) -> None:
        self.over = False
        self._spent = 0.0
        waiting = self._waiting
        try:
            while waiting and not self.over:
                waiting.popleft()()
        finally:
            if waiting and not self.over:  # one of them has failed
                self.over = True
                self._loop.call_soon(self._start)

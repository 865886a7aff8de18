"""Outbound back-pressure: who pushes on whom.

The transport holds what the kernel has not taken yet. Above its high mark (64 KiB) it calls `WriteFlow.pauseProducing`,
and from then on `WriteFlow.writable` hands out futures; an application that awaits ``send()`` waits there, before it
writes. When the transport has drained its buffer it calls `resumeProducing`, which resolves them.

A client that reads nothing at all would keep them waiting for ever, so a pause without a byte of progress within the
write timeout ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

__all__ = ["WriteFlow", "socket_transport", "unsent_bytes"]


@implementer(IPushProducer)
class WriteFlow:
    """The producer that is registered with a connection's transport.

    Args:
        transport: The consumer.
        loop: Makes the futures and the timer.
        timeout: Longest pause without progress, in seconds; 0 for any length.
        stalled: Called when that has passed.
    """

    __slots__ = ("_loop", "_timeout", "_timer", "_transport", "_unsent", "_waiters", "drained", "paused", "stalled")

    def __init__(
        self, transport: Any, loop: asyncio.AbstractEventLoop, timeout: float, stalled: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._timeout = timeout
        self.stalled = stalled
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._waiters: list[asyncio.Future[None]] = []
        self.drained: Callable[[], None] | None = None
        """Called when there is room again, for a protocol that shares the transport out by itself."""
        self.paused = False

    def full(self) -> bool:
        """Tell whether the transport holds more than its high mark."""
        return self.paused

    def writable(self) -> asyncio.Future[None] | None:
        """Return a future for the time when there is room, or None if there is room now."""
        if not self.paused:
            return None
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        return waiter

    def pauseProducing(self) -> None:
        """The transport holds more than its high mark."""
        if self.paused:
            return
        self.paused = True
        if self._timeout and self._timer is None:
            self._unsent = unsent_bytes(self._transport)
            self._timer = self._loop.call_later(self._timeout, self._check_progress)

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self.paused = False
        self._release()
        if self.drained is not None:
            self.drained()

    def stopProducing(self) -> None:
        """The connection is gone: nobody waits any longer."""
        self.paused = False
        self._release()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.wake()

    def wake(self) -> None:
        """Let those go on who wait for room, though there may be none: they will find that they cannot send."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _check_progress(self) -> None:
        self._timer = None
        unsent = unsent_bytes(self._transport)
        # Not "less than": TLS hands a large part down in slices, and the pause falls before the last of them.
        if unsent != self._unsent:
            self._unsent = unsent
            self._timer = self._loop.call_later(self._timeout, self._check_progress)
        else:
            self.stalled()


def socket_transport(transport: Any) -> Any:
    """Return the transport below all wrappers, such as TLS: the one that owns the socket."""
    below = transport
    for _ in range(8):  # deeper stacks of wrappers do not exist
        # A wrapper passes unknown attributes on; a socket's own transport has no ``transport``.
        following = getattr(below, "transport", None)
        if following is None:
            break
        below = following
    return below


def unsent_bytes(transport: Any) -> int:
    """Return how many bytes below `transport` the kernel has not taken yet."""
    below = socket_transport(transport)
    count = getattr(below, "unsent_bytes", None)
    if count is not None:
        return int(count)
    return len(getattr(below, "dataBuffer", b"")) - getattr(below, "offset", 0) + getattr(below, "_tempDataLen", 0)

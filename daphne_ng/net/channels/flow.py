"""Outbound back-pressure: who pushes on whom.

The transport holds what the kernel has not taken yet. Above its high mark (64 KiB) it calls `WriteFlow.pauseProducing`,
and from then on `WriteFlow.writable` hands out futures; an application that awaits ``send()`` waits there, before it
writes. When the transport has drained its buffer it calls `resumeProducing`, which resolves them.

A client that reads nothing at all would keep them waiting for ever, so one that takes less than a floor within the
write timeout loses its connection: `daphne_ng.wire.progress` has the rule. The kernel is asked when a timer fires, and
never for a write.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from daphne_ng.wire.progress import Progress, first_look

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["WriteFlow", "kernel_bytes", "socket_transport", "unacknowledged_bytes", "unsent_bytes"]

# getsockopt(SOL_SOCKET, SO_NWRITE) of macOS, which Python has no name for: bytes in the send buffer.
_SO_NWRITE: Final = 0x1024


@implementer(IPushProducer)
class WriteFlow:
    """The producer that is registered with a connection's transport.

    Args:
        transport: The consumer.
        loop: Makes the futures and the timer.
        timeout: Longest time, in seconds, in which a client may take less than the floor; 0 for any.
        rate: The floor, in bytes a second.
        stalled: Called when a client has stopped reading.
    """

    __slots__ = (
        "_loop",
        "_rate",
        "_reports",
        "_timeout",
        "_timer",
        "_transport",
        "_waiters",
        "drained",
        "paused",
        "stalled",
        "unflushed",
    )

    def __init__(
        self,
        transport: Any,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        rate: float,
        stalled: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._timeout = timeout
        self._rate = rate
        self.stalled = stalled
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self.drained: Callable[[], None] | None = None
        """Called when there is room again, for a protocol that shares the transport out by itself."""
        self.paused = False
        self.unflushed = False
        """As `paused`, but still so after `stopProducing`, when the transport goes on to flush what it holds."""
        self._reports: list[Callable[[int], int]] | None = None

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
        self.paused = self.unflushed = True
        if self._timeout and self._timer is None:
            # Nothing is asked yet: most pauses are over by then.
            self._timer = self._loop.call_later(first_look(self._timeout), self._look, None)

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self.paused = self.unflushed = False
        self._stop_waiting()
        if self._reports is not None:
            self.report(0)
        if self.drained is not None:
            self.drained()

    def stopProducing(self) -> None:
        """The connection is gone: nobody waits any longer."""
        self.paused = False
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.wake()

    def when_flushed(self, report: Callable[[int], int]) -> bool:
        """See `ResponsePort.when_flushed`."""
        if not self.unflushed:
            return False
        if self._reports is None:
            self._reports = []
        self._reports.append(report)
        return True

    def report(self, lost: int) -> None:
        """Tell those who wait that all is flushed, but for so many bytes at the end, which are lost."""
        reports, self._reports = self._reports, None
        for report in reversed(reports or ()):
            lost = report(lost)

    def wake(self) -> None:
        """Let those go on who wait for room, though there may be none: they will find that they cannot send."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _look(self, progress: Progress | None) -> None:
        self._timer = None
        left, now = unacknowledged_bytes(self._transport), self._loop.time()
        if progress is None:
            progress = Progress(left, now, self._timeout, self._rate)
        wait = progress.look(left, now)
        if wait:
            self._timer = self._loop.call_later(wait, self._look, progress)
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


def unacknowledged_bytes(transport: Any) -> int:
    """Return how many bytes below `transport` the peer has not acknowledged, those that the kernel holds included.

    A transport that is not a socket's says so itself, in an attribute of this name.
    """
    below = socket_transport(transport)
    count = getattr(below, "unacknowledged_bytes", None)
    return int(count) if count is not None else unsent_bytes(below) + kernel_bytes(below)


def kernel_bytes(transport: Any) -> int:
    """Return how many bytes the kernel holds that the peer has not acknowledged, as far as the system says.

    Linux says so for TCP exactly, a FIN counting as one byte. For a UNIX socket it says how much memory holds what the
    peer has not read; that falls in steps of up to 50 KB. macOS says it for what is in the send buffer. Elsewhere this
    is 0, and progress shows only when the kernel takes more.
    """
    try:
        return _kernel_bytes(transport.fileno(), transport)
    except (AttributeError, OSError, ValueError):
        return 0  # the connection is lost, or its transport is no socket's


def _of_linux(fd: int, _transport: Any) -> int:
    count = bytearray(4)
    fcntl.ioctl(fd, termios.TIOCOUTQ, count)
    return int.from_bytes(count, sys.byteorder)


def _of_macos(_fd: int, transport: Any) -> int:
    return int(transport.socket.getsockopt(socket.SOL_SOCKET, _SO_NWRITE))


def _of_nobody(_fd: int, _transport: Any) -> int:
    return 0


_kernel_bytes: Callable[[int, Any], int] = _of_nobody
if sys.platform == "linux":
    _kernel_bytes = _of_linux
elif sys.platform == "darwin":
    _kernel_bytes = _of_macos

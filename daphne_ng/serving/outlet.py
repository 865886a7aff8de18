"""Writing lines to a descriptor without waiting for whoever reads it.

A file takes what it is given. A pipe, a terminal or a socket may take nothing for long: ``| less``, Ctrl-S, a daemon
for logs that hangs. An event loop that waits for that serves nobody, and does not end either. So what is not taken is
kept, up to a limit, and tried again; beyond the limit lines are lost, and counted.

The descriptor may be shared with other processes, down to its flags. So it is not made non-blocking, which would take
the others by surprise. Instead it is asked for room first (``poll``), and then given no more than a pipe with room is
sure to take at once (``PIPE_BUF``), which is also what stays in one piece beside the lines of other processes. Another
process may take the room in between: of a pipe there is a second description of our own, that does not block, where
the system has ``/proc``; on a socket a single call can be told not to wait.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import sys
import time
from typing import Any

__all__ = ["BACKLOG_MAX_BYTES", "Outlet", "outlet_of"]

BACKLOG_MAX_BYTES = 1 << 20
"""What is kept for a reader that is behind: some 10,000 lines."""

_PIECE_BYTES = getattr(select, "PIPE_BUF", 512)


class Outlet:
    """Takes lines for a descriptor that somebody else opens and closes.

    Args:
        descriptor: Open for writing.
    """

    def __init__(self, descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        self._descriptor = descriptor
        self._own: Any = None
        self._write = self._write_file
        self._rest = b""
        self._torn = False
        self.lost = 0
        """How many lines were thrown away; the caller tells, and sets it to 0."""
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor):
            self._write = self._write_pieces
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)
            if stat.S_ISSOCK(mode):
                self._own = socket.socket(fileno=os.dup(descriptor))
            elif stat.S_ISFIFO(mode) and sys.platform == "linux":
                # Not where another user has made the pipe, or without /proc.
                with contextlib.suppress(OSError):
                    path = f"/proc/self/fd/{descriptor}"
                    self._own = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if self._own is not None:
                # Of the same pipe or socket, whichever description it is.
                self._own_stat = os.fstat(descriptor)

    @property
    def waiting(self) -> bool:
        """Whether something was not taken yet."""
        return bool(self._rest)

    def ready(self) -> bool:
        """Tell whether something would be taken now."""
        return self._write == self._write_file or bool(self._poll.poll(0))

    def put(self, data: bytes) -> None:
        """Write lines, after those that wait; keep what is not taken, or lose all of it if that is too much.

        Args:
            data: Whole lines, or nothing, to try what waits again.

        Raises:
            OSError: The system refuses them for good: a full disk, a pipe that is closed. They are lost.
        """
        rest = self._rest
        if rest:
            if len(rest) + len(data) > BACKLOG_MAX_BYTES:
                self.lost += data.count(b"\n")
                data = rest
            else:
                data = rest + data
        self._rest = b""
        self._rest = self._write(data)

    def drain(self, seconds: float) -> None:
        """Wait for so long at most until everything is taken; what is not by then is lost.

        Raises:
            OSError: As `put`.
        """
        deadline = time.monotonic() + seconds
        while self._rest and (left := deadline - time.monotonic()) > 0:
            self._poll.poll(left * 1000)
            self.put(b"")
        self.lost += self._rest.count(b"\n")
        self._rest = b""

    def close(self) -> None:
        """Give back what is ours; the descriptor is not."""
        own, self._own = self._own, None
        if own is None:
            return
        ours = self._is_ours(own)
        if isinstance(own, socket.socket):
            own.close() if ours else own.detach()
        elif ours:
            os.close(own)

    # All of it, as far as there is room on the disk. A line that did not fit is not continued by the next one.
    def _write_file(self, data: bytes) -> bytes:
        if self._torn and os.fstat(self._descriptor).st_size:
            data = b"\n" + data
        begun = False
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
                begun = True
        finally:
            self._torn = bool(data) if begun else self._torn
        return b""

    # An application may have closed all descriptors that it does not know, and the number may be somebody's by now.
    def _is_ours(self, own: Any) -> bool:
        try:
            stat_now = os.fstat(own if isinstance(own, int) else own.fileno())
        except OSError:
            return False
        return os.path.samestat(stat_now, self._own_stat)

    # The application may have put something else behind the number of the log since, as who becomes a daemon does.
    def _check_own(self) -> None:
        own = self._own
        if own is not None and not (
            self._is_ours(own) and os.path.samestat(self._own_stat, os.fstat(self._descriptor))
        ):
            self.close()

    def _write_pieces(self, data: bytes) -> bytes:
        self._check_own()
        begin = 0
        while begin < len(data) and self._poll.poll(0):
            end = data.rfind(b"\n", begin, begin + _PIECE_BYTES) + 1 or begin + _PIECE_BYTES
            piece = data[begin:end]
            own = self._own
            try:
                if own is None:
                    begin += os.write(self._descriptor, piece)
                elif isinstance(own, int):
                    begin += os.write(own, piece)
                else:
                    begin += own.send(piece, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
        return data[begin:]


def outlet_of(stream: Any) -> Outlet | None:
    """Return an outlet for the descriptor of a stream; None if it has none, or the system has no ``poll``."""
    if not hasattr(select, "poll"):
        return None
    try:
        return Outlet(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None

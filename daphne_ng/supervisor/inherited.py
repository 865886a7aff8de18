"""What a worker has got from its supervisor: its own, and not for the processes that the application starts.

Such a process may live longer than the worker and the supervisor. With a listening socket in its hands the port would
stay in use, and whoever connects would wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from daphne_ng.supervisor.protocol import Assignment

__all__ = ["Inherited"]


class Inherited:
    """Keeps descriptors from children, and ends a process whose supervisor has ended before it serves.

    Args:
        assignment: What the supervisor has told this process.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        # Numbers, until there are ports: `daphne_ng.serving.process.ForkGuard` then closes their sockets.
        self._numbers = [assignment.report, assignment.orders]
        self._numbers += [one.fileno for one in assignment.sockets if one.fileno >= 0]
        for number in self._numbers:
            os.set_inheritable(number, False)
        os.register_at_fork(after_in_child=self._leave)
        self._depend()

    def serves(self) -> None:
        """Say that the process serves now: has taken the sockets, and sees for itself when its supervisor ends."""
        self._numbers.clear()
        with contextlib.suppress(OSError):
            _signal_io(self.assignment.orders, False)

    # A process that imports, or whose application starts, has no loop yet that could read from the pipe, and this may
    # take for ever. So the kernel sends a signal when it ends, whose default is to end the process.
    def _depend(self) -> None:
        if not hasattr(os, "O_ASYNC"):
            return
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGIO,))
        orders = self.assignment.orders
        try:
            _signal_io(orders, True)
        except OSError:  # not every system does this for pipes
            return
        poll = select.poll()
        poll.register(orders, 0)
        if poll.poll(0):  # it has ended before
            os._exit(1)

    # In a child.
    def _leave(self) -> None:
        numbers, self._numbers = self._numbers, []
        for number in numbers:
            with contextlib.suppress(OSError):
                os.close(number)


def _signal_io(descriptor: int, wanted: bool) -> None:
    import fcntl

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if wanted:
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_ASYNC if wanted else flags & ~os.O_ASYNC)

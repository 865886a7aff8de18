"""The lock that has one process at a time ask for the certificates of a directory.

It is an ``flock`` on a file, which the kernel gives back when the process ends, however it ends. A process keeps it as
long as it runs: its knowledge of failures and waits is then complete.
"""

from __future__ import annotations

import os
import sys
from weakref import WeakSet

from daphne_ng.acme.failure import Failure

if sys.platform != "win32":
    import fcntl

__all__ = ["Lock"]

_locks: WeakSet[Lock] = WeakSet()


class Lock:
    """A lock that is tried, and never waited for.

    Args:
        path: Of the file, which is made (0600) and stays. Its directory exists.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        _locks.add(self)

    @property
    def held(self) -> bool:
        """Whether it was ours when `take` was last called."""
        return self._descriptor is not None

    def take(self) -> bool:
        """Take the lock, or see that it is still ours; whether it is. `release` it in the end.

        On Windows, where there is no supervisor, everybody has it.

        Raises:
            Failure: The file cannot be opened.
        """
        if sys.platform == "win32":
            return True
        if self._descriptor is not None:
            if self._is_current(self._descriptor):
                return True
            self.release()
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Failure(f"{self._path} cannot be opened: {error.strerror}", everyone=True) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        if not self._is_current(descriptor):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    # A file that was removed, and perhaps made again, is not the one that the next process opens.
    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self._path))
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock back. May be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


# A child that the application forks has the same open file. It would hold the lock for us when we have ended.
def _leave_to_parent() -> None:
    for lock in list(_locks):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)

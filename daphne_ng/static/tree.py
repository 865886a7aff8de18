"""Opening the files of a directory, and no others, whatever happens to its links meanwhile.

A path is walked with one descriptor after the other, each opened in the one before, and no step follows a link. So what
was opened is below the directory, whoever renames what. A path with a link in it is resolved first, and then walked the
same way: a link that was put in the place of a directory between the two ends the walk.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

__all__ = ["IS_DIRECTORY", "OpenFile", "Tree"]

# O_PATH asks for no right to read a directory, and is Linux's; O_NONBLOCK keeps a pipe from waiting for its writer.
_STEP: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

IS_DIRECTORY: Final = "directory"
"""What `Tree.open` returns for a directory."""


class OpenFile:
    """A regular file that was opened for reading.

    Its size and time are those of the moment at which it was opened. Close it with `close`, which may be called twice.
    """

    __slots__ = ("descriptor", "modified_ns", "size")

    def __init__(self, descriptor: int, size: int, modified_ns: int) -> None:
        self.descriptor = descriptor
        """Is -1 after `close`."""
        self.size = size
        self.modified_ns = modified_ns

    def close(self) -> None:
        """Close the descriptor."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class _LinkFoundError(Exception):
    """A step of a walk is a symbolic link."""


class Tree:
    """A directory of files.

    Its path is resolved anew each time, so that a release may be changed by changing a link. The calls may wait for the
    disk, and may be made in several threads at once.

    Args:
        directory: Its path.
        follow: Whether links may lead out of it.

    Raises:
        OSError: It is no directory, or cannot be entered.
    """

    def __init__(self, directory: str, follow: bool) -> None:
        self._directory = os.path.abspath(os.fsencode(directory))
        self._follow = follow
        os.close(os.open(self._directory, _STEP))
        if not os.access(self._directory, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), directory)

    def path_of(self, names: Sequence[bytes]) -> bytes:
        """Return the path of a file, for messages."""
        return b"/".join([self._directory, *names])

    def open(self, names: Sequence[bytes]) -> OpenFile | str | None:
        """Open a file.

        Args:
            names: On the way from the directory to the file; none is empty, a dot or two, or has a slash or NUL in it.

        Returns:
            `IS_DIRECTORY` for a directory; None where there is nothing, or nothing that may be read.
        """
        try:
            if self._follow:
                return _opened(self.path_of(names), None)
            try:
                return self._walk(self._directory, names)
            except _LinkFoundError:
                root = os.path.realpath(self._directory)
                target = os.path.realpath(self.path_of(names))
                inside = root if root == b"/" else root + b"/"
                if target == root:
                    return IS_DIRECTORY
                if not target.startswith(inside):
                    return None
                return self._walk(root, target[len(inside) :].split(b"/"))
        except (OSError, _LinkFoundError):
            # Whatever it is, no right to read or a name that is too long: to a client there is no such file.
            return None

    def _walk(self, root: bytes, names: Sequence[bytes]) -> OpenFile | str | None:
        if not names:
            return IS_DIRECTORY
        place = os.open(root, _STEP)
        try:
            for name in names[:-1]:
                inner = _entered(place, name)
                os.close(place)
                place = inner
            return _opened(names[-1], place)
        finally:
            os.close(place)


def _entered(place: int, name: bytes) -> int:
    try:
        return os.open(name, _STEP | os.O_NOFOLLOW, dir_fd=place)
    except OSError:
        # Systems differ in what they say of a link here.
        if stat.S_ISLNK(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            raise _LinkFoundError from None
        raise


# Without a place links are followed.
def _opened(name: bytes, place: int | None) -> OpenFile | str | None:
    # What is no regular file is not opened at all: the attempt alone makes some devices do something.
    mode = os.stat(name, dir_fd=place, follow_symlinks=place is None).st_mode
    if stat.S_ISLNK(mode):
        raise _LinkFoundError
    if stat.S_ISDIR(mode):
        return IS_DIRECTORY
    if not stat.S_ISREG(mode):
        return None
    descriptor = os.open(name, _READ if place is None else _READ | os.O_NOFOLLOW, dir_fd=place)
    try:
        status = os.fstat(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return OpenFile(descriptor, status.st_size, status.st_mtime_ns)

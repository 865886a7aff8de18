"""Making a listening UNIX socket, and taking the place of one that a killed process left behind.

A socket file outlives its process, and ``bind()`` refuses a path that exists. So a server must remove what is left
over, and must never remove what somebody listens on. The rules:

1. Only connecting tells whether anybody listens: a refused connection means nobody. A lock file that names a process
   does not, because in a container every server is process 1. So no lock file is written and none is believed.
2. A server that probes, removes, binds or is about to listen holds a lock (``flock``) on the directory meanwhile:
   between ``bind()`` and ``listen()`` a live socket looks dead. The lock leaves nothing behind.
3. A file that is no socket is never removed.
4. Owner and permissions are set between ``bind()`` and ``listen()``. Before ``listen()`` nobody can connect.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from daphne_ng.errors import EndpointError

__all__ = ["PATH_MAX_BYTES", "SocketFile", "listen"]

PATH_MAX_BYTES = 107 if sys.platform == "linux" else 103
"""The room in ``sun_path``, which has 108 bytes on Linux and 104 on the BSDs and macOS, with a NUL at the end."""

# The directory's lock is held for milliseconds by servers, but any user may hold one on /tmp, and systemd-tmpfiles
# does. Going on without it risks no more than rule 2 says.
_LOCK_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A socket file that this process made."""

    path: bytes
    """Absolute: the process may change its directory."""
    device: int
    inode: int
    process: int

    def remove(self) -> None:
        """Remove the file, unless a process that was forked off asks, or it was replaced since.

        To be called while the socket is open: until then no other file can have its inode.
        """
        with contextlib.suppress(OSError):
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino, os.getpid()) == (self.device, self.inode, self.process):
                os.unlink(self.path)


def listen(
    listener: socket.socket,
    path: bytes,
    backlog: int,
    mode: int = 0o666,
    owner: tuple[int, int] | None = None,
    replace_dead: bool = True,
) -> SocketFile | None:
    """Let a UNIX stream socket listen at `path`.

    Args:
        listener: The socket. It is closed on failure.
        path: Of the file to be made, or a NUL byte and the name of an abstract socket (Linux).
        backlog: As for ``listen()``.
        mode: Permissions of the file, whatever the umask.
        owner: User and group id of the file, -1 for the one that it has anyway.
        replace_dead: Whether to remove a socket file on which nobody listens.

    Returns:
        The file that was made; None for an abstract socket.

    Raises:
        EndpointError: The message says what stands in the way.
        OSError: As ``bind()`` raises it; EADDRINUSE also for a live socket.
    """
    try:
        _check_path(path, owner)
        if path.startswith(b"\0"):
            listener.bind(path)
            listener.listen(backlog)
            return None
        with _locked(os.path.dirname(path) or b"."):
            if replace_dead:
                _remove_dead(path)
            file = _bind(listener, path, mode, owner)
            listener.listen(backlog)
            return file
    except BaseException:
        listener.close()
        raise


def _check_path(path: bytes, owner: tuple[int, int] | None) -> None:
    abstract = path.startswith(b"\0")
    if not path:
        raise EndpointError("the path is empty")  # Linux would make up an abstract name
    if abstract and owner is not None:
        raise EndpointError("an abstract socket has no owner")
    if b"\0" in path[1:] and not abstract:
        raise EndpointError("a path cannot hold a NUL character")
    if len(path) > PATH_MAX_BYTES + abstract:
        raise EndpointError(
            f"the path is too long for a UNIX socket: it has {len(path)} bytes, and {PATH_MAX_BYTES} are allowed"
        )


@contextlib.contextmanager
def _locked(directory: bytes) -> Iterator[None]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        yield  # we may enter it and perhaps write there, but not list it
        return
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while not _try_lock(descriptor) and time.monotonic() < deadline:
            time.sleep(0.005)
        yield
    finally:
        with contextlib.suppress(OSError):
            # Closing is not enough if another thread forks now: its child holds a copy.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system that locks no directories, such as NFS
    return True


def _bind(listener: socket.socket, path: bytes, mode: int, owner: tuple[int, int] | None) -> SocketFile:
    # Linux gives the file the mode of the socket itself, less the umask, so that it is never wider than asked for.
    # Other systems refuse this, and rule 4 has to do.
    with contextlib.suppress(OSError):
        os.fchmod(listener.fileno(), mode)
    listener.bind(path)
    status = os.lstat(path)
    file = SocketFile(os.path.abspath(path), status.st_dev, status.st_ino, os.getpid())
    try:
        if owner is not None:
            try:
                os.chown(path, *owner, follow_symlinks=False)
            except OSError as refusal:
                raise EndpointError(f"the socket cannot be given to that owner: {refusal.strerror}") from refusal
        if stat.S_IMODE(status.st_mode) != mode:
            _chmod(path, mode)
    except BaseException:
        file.remove()
        raise
    return file


# A user who may write to the directory could put a link in place of the socket just now, and root must not follow it.
def _chmod(path: bytes, mode: int) -> None:
    try:
        os.chmod(path, mode, follow_symlinks=False)
    except NotImplementedError:  # Linux with a C library older than 2021
        os.chmod(path, mode)


def _remove_dead(path: bytes) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise EndpointError("a file that is no socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a live one whose queue is full would keep us waiting
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass
        except FileNotFoundError:
            return
        except OSError as failure:
            raise _in_use() from failure
        else:
            raise _in_use()
    try:
        now = os.lstat(path)
        if (now.st_dev, now.st_ino) != (found.st_dev, found.st_ino):
            raise _in_use()  # somebody without our lock is about to listen
        os.unlink(path)
    except FileNotFoundError:
        return
    except PermissionError as refusal:
        raise EndpointError(f"a dead socket is in the way and cannot be removed: {refusal.strerror}") from refusal
    # Twisted's, and so Daphne's, lock beside it: a link to nothing, whose "target" is the number of a process.
    lock = path + b".lock"
    with contextlib.suppress(OSError):
        if re.fullmatch(rb"[0-9]+", os.readlink(lock)):
            os.unlink(lock)


def _in_use() -> OSError:
    return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

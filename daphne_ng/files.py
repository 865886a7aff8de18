"""Open files that are sent as bodies, and the threads that wait for their disks.

The loop's thread reads nothing that is not in memory: Linux says so by ``RWF_NOWAIT``. What has to come from a disk,
and everything where the system cannot tell, is read by a few threads.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, Final, TypeVar

from daphne_ng._types import Message
from daphne_ng.errors import UnexpectedMessage

__all__ = [
    "FILES",
    "PIECE_BYTES",
    "SLICE_BYTES",
    "FileBody",
    "FileReaders",
    "FileShortened",
    "opened_file",
    "opened_path",
]

FILES: Final = hasattr(os, "pread")
"""Whether files can be sent at all; Windows has no reads at an offset."""

PIECE_BYTES: Final = 64 * 1024
"""The largest piece that is read. A whole file of this size is one write with its head."""

SLICE_BYTES: Final = 512 * 1024
"""What the kernel is asked to copy from a file in one call."""

_WARM_BYTES: Final = 128 * 1024
# The flag of a read that does not wait for a disk; 0 where the system has none.
_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_NO_NOWAIT: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_SCRATCH: Final = bytearray(1)

_T = TypeVar("_T")


class FileShortened(Exception):
    """A file ended before what was promised of it. Its argument is the number of bytes that are missing."""


class FileReaders:
    """The threads that wait for disks; none is started before the first read that needs one.

    Args:
        loop: The loop of those who wait for them.
        count: The most threads; more reads than that queue up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self._loop = loop
        self._count = count
        self._threads: ThreadPoolExecutor | None = None

    async def run(self, file: FileBody, job: Callable[[int, int, int], _T], offset: int, count: int) -> _T:
        """Call `job` with the file's descriptor, in a thread, and return what it returns."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._count, "daphne-ng-file")
        future: Future[_T] = self._threads.submit(job, file.descriptor, offset, count)
        file.used_by(future)
        return await asyncio.wrap_future(future, loop=self._loop)

    def close(self) -> None:
        """End the threads when they have read what they read."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None


class FileBody:
    """What is left to send of an open file. It owns the descriptor.

    Args:
        readers: Read what is not in memory.
        descriptor: Of a regular file.
        name: For messages.
        offset: Where it begins, in bytes.
        count: How many bytes there are to send.
    """

    def __init__(self, readers: FileReaders, descriptor: int, name: str, offset: int, count: int) -> None:
        self._readers = readers
        self.descriptor = descriptor
        self.name = name
        self.offset = offset
        self.left = count
        self._tells = _NOWAIT != 0
        # Threads that read may outlive the response, and the descriptor must outlive them.
        self._lock = Lock()
        self._users = 1

    async def begin(self) -> bytes:
        """Return all of the file where that is one piece, and nothing of a larger one.

        Raises:
            UnexpectedMessage: The file has become shorter already.
            OSError: It cannot be read.
        """
        data = b""
        if self.left > PIECE_BYTES:
            return data
        try:
            while self.left:
                piece = await self.read(self.left)
                data = data + piece if data else piece
        except FileShortened as error:
            raise UnexpectedMessage(f"{self.name} became {error} bytes shorter than it was when opened") from None
        return data

    async def read(self, limit: int) -> bytes:
        """Return the next bytes, and go on behind them.

        Raises:
            FileShortened: There are none, though there should be.
            OSError: The file cannot be read.
        """
        count = min(limit, self.left)
        data = self._in_memory(count)
        if data is None:
            data = await self._readers.run(self, _read, self.offset, count)
            if not data:
                raise FileShortened(self.left)
        self.took(len(data))
        return data

    async def warm(self) -> None:
        """See to it that the next slice is in memory, as far as the system tells."""
        count = min(SLICE_BYTES, self.left)
        if self._is_cached(self.offset) and self._is_cached(self.offset + count - 1):
            return
        await self._readers.run(self, _warm, self.offset, count)

    def took(self, count: int) -> None:
        """So many bytes have been sent."""
        self.offset += count
        self.left -= count

    def seek(self, position: int) -> None:
        """Move the position that the descriptor shares with the one that it is a duplicate of."""
        os.lseek(self.descriptor, position, os.SEEK_SET)

    def used_by(self, future: Future[Any]) -> None:
        """Keep the descriptor open until `future` is done."""
        with self._lock:
            self._users += 1
        future.add_done_callback(self._used)

    def close(self) -> None:
        """Close the descriptor, once nothing reads from it."""
        self._used(None)

    def _used(self, _future: Any) -> None:
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            os.close(self.descriptor)

    def _in_memory(self, count: int) -> bytes | None:
        if not self._tells:
            return None
        buffer = bytearray(count)
        got = self._preadv(buffer, self.offset)
        if got <= 0:
            return None
        return bytes(buffer) if got == count else bytes(memoryview(buffer)[:got])

    def _is_cached(self, offset: int) -> bool:
        return self._tells and self._preadv(_SCRATCH, offset) > 0

    def _preadv(self, buffer: bytearray, offset: int) -> int:
        try:
            return os.preadv(self.descriptor, [buffer], offset, _NOWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in _NO_NOWAIT:
                raise
            self._tells = False
            return 0


def _read(descriptor: int, offset: int, count: int) -> bytes:
    return os.pread(descriptor, count, offset)


def _warm(descriptor: int, offset: int, count: int) -> None:
    end = offset + count
    while offset < end:
        got = len(os.pread(descriptor, min(_WARM_BYTES, end - offset), offset))
        if not got:
            return
        offset += got


def opened_path(message: Message, readers: FileReaders) -> FileBody:
    """Open what a ``http.response.pathsend`` names.

    Raises:
        UnexpectedMessage: The message is not as ASGI has it, or names no regular file, or more than that has.
        OSError: The file cannot be opened.
    """
    kind: str = message["type"]
    path = message.get("path")
    if not isinstance(path, str):
        raise UnexpectedMessage(f"'path' of {kind} must be str, not {type(path).__name__}")
    # ASGI wants an absolute path. Starlette's FileResponse passes on what it was given, and means the same file.
    if "\0" in path:
        raise UnexpectedMessage(f"'path' of {kind} must not have a NUL, as {path!r} has")
    # Without O_NONBLOCK the open of a pipe would wait for somebody who writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0))
    try:
        return _body(message, readers, descriptor, path, 0)
    except BaseException:
        os.close(descriptor)
        raise


def opened_file(message: Message, readers: FileReaders) -> tuple[FileBody, int | None]:
    """Return what a ``http.response.zerocopysend`` sends, and where the file is to stand afterwards, if anywhere.

    The file's descriptor is duplicated: the application may close its own while ``send()`` waits, and has to close it.

    Raises:
        UnexpectedMessage: The message is not as ASGI has it, or holds no regular file, or asks for more than that has.
        OSError: The descriptor is not open.
    """
    kind: str = message["type"]
    file = message.get("file")
    name = getattr(file, "name", None)
    number = file
    if not isinstance(file, int):
        fileno = getattr(file, "fileno", None)
        if not callable(fileno):
            raise UnexpectedMessage(f"'file' of {kind} must be a file or a descriptor, not {type(file).__name__}")
        try:
            number = fileno()
        except (OSError, ValueError) as error:
            raise UnexpectedMessage(f"'file' of {kind} has no descriptor: {error}") from error
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise UnexpectedMessage(f"'file' of {kind} must be a file or a descriptor, not {file!r}")
    descriptor = os.dup(number)
    try:
        moves = message.get("offset") is None
        begin = os.lseek(descriptor, 0, os.SEEK_CUR) if moves and _is_regular(descriptor) else 0
        body = _body(message, readers, descriptor, name if isinstance(name, str) else f"descriptor {number}", begin)
    except BaseException:
        os.close(descriptor)
        raise
    return body, body.offset + body.left if moves else None


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _body(message: Message, readers: FileReaders, descriptor: int, name: str, begin: int) -> FileBody:
    kind = message["type"]
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise UnexpectedMessage(f"{kind} sends regular files only, and {name} is none")
    offset = _whole(message, "offset", begin)
    if offset > found.st_size:
        raise UnexpectedMessage(f"'offset' of {kind} is {offset}, and {name} has {found.st_size} bytes")
    count = _whole(message, "count", found.st_size - offset)
    if count > found.st_size - offset:
        raise UnexpectedMessage(f"'count' of {kind} is {count}, and {name} has {found.st_size - offset} bytes there")
    return FileBody(readers, descriptor, name, offset, count)


def _whole(message: Message, key: str, default: int) -> int:
    value = message.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UnexpectedMessage(f"{key!r} of {message['type']} must be an int from 0 on, not {value!r}")
    return int(value)

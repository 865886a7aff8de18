"""Open files: what is in memory is read at once, the rest by threads, and each descriptor is closed once."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daphne_ng import files
from daphne_ng.files import FileBody, FileReaders, FileShortened

DATA = os.urandom(300_000)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(DATA)
    number = os.open(tmp_path / "file", os.O_RDONLY)
    yield number
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(number)


async def all_of(file: FileBody, limit: int) -> bytes:
    parts = []
    while file.left:
        parts.append(await file.read(limit))
    return b"".join(parts)


@pytest.mark.parametrize("refusal", [None, errno.EAGAIN, errno.EOPNOTSUPP], ids=["cached", "cold", "unknown"])
def test_every_way_reads_the_same(descriptor: int, refusal: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def preadv(*arguments: Any) -> int:
        calls.append(threading.current_thread().name)
        if refusal is not None:
            raise OSError(refusal, "refused")
        number, buffers, offset, _flags = arguments
        data = os.pread(number, len(buffers[0]), offset)
        buffers[0][: len(data)] = data
        return len(data)

    monkeypatch.setattr(files, "_NOWAIT", 8)
    monkeypatch.setattr(files.os, "preadv", preadv, raising=False)

    async def run() -> None:
        readers = FileReaders(asyncio.get_running_loop(), 2)
        file = FileBody(readers, descriptor, "x", 5, len(DATA) - 10)
        await file.warm()
        assert await all_of(file, 70_000) == DATA[5:-5]
        file.close()
        readers.close()

    asyncio.run(run())
    # One that the system does not know is asked for once.
    assert len(calls) == {None: 7, errno.EAGAIN: 6, errno.EOPNOTSUPP: 1}[refusal]
    assert set(calls) == {"MainThread"}


def test_a_failing_disk_is_no_unknown_flag(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_arguments: Any) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(files, "_NOWAIT", 8)
    monkeypatch.setattr(files.os, "preadv", preadv, raising=False)

    async def run() -> None:
        file = FileBody(FileReaders(asyncio.get_running_loop(), 2), descriptor, "x", 0, 10)
        with pytest.raises(OSError, match="broken"):
            await file.read(10)
        file.close()

    asyncio.run(run())


def test_the_end_comes_too_early(descriptor: int) -> None:
    async def run() -> None:
        readers = FileReaders(asyncio.get_running_loop(), 2)
        file = FileBody(readers, descriptor, "x", 0, len(DATA) + 7)
        with pytest.raises(FileShortened, match="^7$"):
            await all_of(file, 1 << 20)
        file.close()
        readers.close()

    asyncio.run(run())


def test_a_thread_that_reads_keeps_the_descriptor(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_NOWAIT", 0)
    begun, go = threading.Event(), threading.Event()
    real = os.pread

    def pread(number: int, count: int, offset: int) -> bytes:
        begun.set()
        assert go.wait(10)
        return real(number, count, offset)

    monkeypatch.setattr(files.os, "pread", pread)

    async def run() -> None:
        readers = FileReaders(asyncio.get_running_loop(), 1)
        file = FileBody(readers, descriptor, "x", 0, 10)
        first = asyncio.create_task(file.read(10))
        while not begun.is_set():
            await asyncio.sleep(0)
        second = asyncio.create_task(file.read(10))  # it waits for the only thread
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second])
        file.close()
        os.fstat(descriptor)
        go.set()
        while True:
            try:
                os.fstat(descriptor)
            except OSError:
                break
            await asyncio.sleep(0)
        readers.close()

    asyncio.run(asyncio.wait_for(run(), 20))

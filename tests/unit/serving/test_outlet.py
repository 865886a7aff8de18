"""`daphne_ng.serving.outlet`: pipes that nobody reads, disks that are full, and the lines that are counted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daphne_ng import access
from daphne_ng.access import LineWriter, open_access_log
from daphne_ng.serving import outlet
from daphne_ng.serving.logconfig import PatientHandler
from daphne_ng.serving.outlet import BACKLOG_MAX_BYTES, Outlet

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no poll")

LINE = b"x" * 99 + b"\n"


class Pipe:
    """Both ends; what is read never waits."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def read(self) -> bytes:
        found = b""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.reading, 1 << 20):
                found += data
        return found

    def read_all_of(self, out: Outlet) -> bytes:
        found = self.read()
        while out.waiting:
            out.put(b"")
            found += self.read()
        return found


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for end in (made.reading, made.writing):
        with contextlib.suppress(OSError):
            os.close(end)


@pytest.fixture(params=["own", "shared"])
def out(request: pytest.FixtureRequest, pipe: Pipe) -> Iterator[Outlet]:
    """With a description of its own, and without, as after another user has made the pipe."""
    made = Outlet(pipe.writing)
    if request.param == "shared":
        made.close()
    yield made
    made.close()


def test_what_a_pipe_takes_comes_in_order_and_the_flags_stay(pipe: Pipe, out: Outlet) -> None:
    out.put(b"a\n")
    out.put(b"b\nc\n")
    assert pipe.read() == b"a\nb\nc\n"
    assert (out.waiting, out.lost) == (False, 0)
    assert not fcntl.fcntl(pipe.writing, fcntl.F_GETFL) & os.O_NONBLOCK


def test_what_is_not_read_waits_and_comes_whole_when_it_is(pipe: Pipe, out: Outlet) -> None:
    lines = [b"%06d" % number + LINE[6:] for number in range(8000)]
    for begin in range(0, len(lines), 100):
        out.put(b"".join(lines[begin : begin + 100]))
    assert out.waiting
    assert pipe.read_all_of(out) == b"".join(lines)
    assert out.lost == 0


def test_what_is_too_much_is_lost_and_counted(pipe: Pipe, out: Outlet) -> None:
    for _ in range(300):
        out.put(LINE * 100)
    found = pipe.read_all_of(out)
    assert set(found.splitlines(keepends=True)) == {LINE}
    assert found.count(b"\n") + out.lost == 30_000
    assert len(found) <= BACKLOG_MAX_BYTES + (1 << 17)


def test_a_line_that_is_longer_than_a_piece_comes_whole(pipe: Pipe, out: Outlet) -> None:
    line = b"y" * 50_000 + b"\n"
    for _ in range(10):
        out.put(line)
    assert pipe.read_all_of(out) == line * 10


def test_a_pipe_that_is_closed_is_an_error_and_leaves_nothing(pipe: Pipe, out: Outlet) -> None:
    for _ in range(10):
        out.put(LINE * 1000)
    os.close(pipe.reading)
    with pytest.raises(BrokenPipeError):
        out.put(b"")
    assert not out.waiting


def test_an_end_waits_for_so_long_and_counts_what_is_left(pipe: Pipe, out: Outlet) -> None:
    out.put(LINE * 2000)
    out.drain(0.01)
    assert not out.waiting
    assert pipe.read().count(b"\n") + out.lost == 2000


def test_what_is_put_behind_the_number_later_gets_the_lines(tmp_path: Path, pipe: Pipe, out: Outlet) -> None:
    out.put(b"a\n")
    with (tmp_path / "log").open("wb") as file:
        os.dup2(file.fileno(), pipe.writing)
    out.put(b"b\n")
    assert pipe.read() == b"a\n"
    assert (tmp_path / "log").read_bytes() == b"b\n"


def test_a_line_that_a_full_disk_has_cut_is_not_continued_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    room = [3]
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(descriptor, data[: room[0]])
        room[0] -= done
        return done

    with path.open("ab") as file:
        out = Outlet(file.fileno())
        monkeypatch.setattr(os, "write", limited)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                out.put(b"first\n")
        room[0] = 1000
        out.put(b"second\n")
        out.put(b"third\n")
    assert path.read_bytes() == b"fir\nsecond\nthird\n"


# -- the access log --------------------------------------------------------------------------------------------


class Loop:
    def __init__(self) -> None:
        self.timers: list[Any] = []

    def call_later(self, delay: float, callback: Any) -> None:
        self.timers.append(callback)

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for callback in timers:
            callback()


def test_an_access_log_that_nobody_reads_goes_on_and_tells(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    with os.fdopen(os.dup(pipe.writing), "w") as stream:
        writer = LineWriter(stream)
        writer.schedule = loop.call_later
        for _ in range(30_000):
            writer.write(LINE.decode())
        assert caplog.messages == ["The access log is not read: its lines are lost from now on"]
        found = b""
        while loop.timers:  # it tries again by itself
            loop.fire()
            found += pipe.read()
        lost = 30_000 - found.count(b"\n")
        assert lost > 0
        assert caplog.messages[1:] == [f"The access log was not read for a while: {lost} of its lines are lost"]
        writer.write("again\n")
        loop.fire()
        assert pipe.read() == b"again\n"
        writer.close()


def test_the_end_of_an_access_log_that_nobody_reads_is_bounded(
    pipe: Pipe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_DRAIN_SECONDS", 0.01)
    with os.fdopen(os.dup(pipe.writing), "w") as stream:
        writer = LineWriter(stream)
        for _ in range(2000):
            writer.write(LINE.decode())
        writer.close()
        lost = 2000 - pipe.read().count(b"\n")
    assert caplog.messages == [f"The access log was not read for a while: {lost} of its lines are lost"]


def test_what_the_application_has_printed_comes_with_the_lines(pipe: Pipe) -> None:
    with os.fdopen(os.dup(pipe.writing), "w") as stream:
        writer = LineWriter(stream)
        print("printed", file=stream)
        writer.write("logged\n")
        assert pipe.read() == b"printed\nlogged\n"
        writer.close()


def test_a_named_pipe_that_nobody_reads_is_opened_and_its_readers_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = open_access_log(str(path))
    for text in ("one\n", "two\n"):
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writer.write(text)
        assert os.read(reading, 100).decode() == text
        os.close(reading)
    writer.write("meanwhile\n")
    writer.close()


def test_a_file_that_was_full_and_is_opened_again_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is renamed, and there is room again."""
    path = tmp_path / "access.log"
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = open_access_log(str(path))
    monkeypatch.setattr(os, "write", full)
    writer.write("lost\n")
    path.rename(tmp_path / "access.log.1")
    writer.reopen()
    writer.write("lost too\n")
    assert len(caplog.messages) == 2  # told for each file
    monkeypatch.setattr(os, "write", write)
    writer.write("written\n")
    assert path.read_text() == "written\n"
    writer.close()


# -- the server's own log ----------------------------------------------------------------------------------------


def test_a_log_that_nobody_reads_does_not_wait_and_tells_later(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.dup(pipe.writing), "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        handler = PatientHandler()
        for number in range(20_000):
            handler.emit(logging.makeLogRecord({"msg": f"{number} {'x' * 92}"}))
        assert handler._outlet is not None
        found = pipe.read_all_of(handler._outlet)
        lost = 20_000 - found.count(b"\n")
        assert lost > 0
        handler.emit(logging.makeLogRecord({"msg": "again"}))
        told = f"Nobody read this log for a while: {lost} of its lines are lost\nagain\n"
        assert pipe.read().decode() == told
        handler.close()


def test_a_stream_without_a_descriptor_is_written_to_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    handler = PatientHandler()
    assert outlet.outlet_of(sys.stderr) is None
    handler.emit(logging.makeLogRecord({"msg": "text"}))
    assert capsys.readouterr().err == "text\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_descriptor_of_ours_that_the_application_has_closed_is_nobody_elses_to_lose(tmp_path: Path) -> None:
    read, write = os.pipe()
    outlet = Outlet(write)
    own = outlet._own
    assert isinstance(own, int)
    os.close(own)
    # The next descriptor of the application has the number.
    other = os.open(tmp_path, os.O_RDONLY)
    try:
        assert other == own
        outlet.put(b"line\n")
        assert os.read(read, 100) == b"line\n"
        outlet.close()
        os.fstat(other)
    finally:
        for descriptor in (other, read, write):
            os.close(descriptor)

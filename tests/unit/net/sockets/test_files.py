"""`daphne_ng.net.sockets.files`: regular files are looked after by a timer, as long as there are any."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from daphne_ng.net.sockets.files import FilePolling


class File:
    def __init__(self) -> None:
        self.reads = 0
        self.writes = 0

    def doRead(self) -> None:
        self.reads += 1

    def doWrite(self) -> None:
        self.writes += 1

    def fileno(self) -> int:
        return 1


def polling() -> tuple[Any, Clock]:
    class Reactor(Clock):
        # As Twisted's reactors call the selectable.
        def _disconnectSelectable(self, *_: Any) -> None: ...

    clock = Reactor()
    return FilePolling(clock), clock


def test_a_file_is_read_and_written_as_long_as_it_is_wanted() -> None:
    files, clock = polling()
    file = File()
    files.addReader(file)
    files.addWriter(file)
    clock.pump([0.001] * 3)
    assert (file.reads, file.writes) == (3, 3)

    files.removeReader(file)
    clock.pump([0.001] * 2)
    assert (file.reads, file.writes) == (3, 5)


def test_without_files_there_is_no_timer() -> None:
    files, clock = polling()
    file = File()
    assert clock.getDelayedCalls() == []
    files.addReader(file)
    assert len(clock.getDelayedCalls()) == 1
    files.removeReader(file)
    assert clock.getDelayedCalls() == []
    files.addReader(file)
    clock.advance(0.001)
    assert file.reads == 1

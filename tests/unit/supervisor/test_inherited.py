"""`daphne_ng.supervisor.inherited`, with pipes in place of sockets."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

if sys.platform == "win32":
    pytest.skip("POSIX alone has workers", allow_module_level=True)

import fcntl

from daphne_ng.net.sockets.sharing import SharedSocket
from daphne_ng.supervisor.inherited import Inherited
from daphne_ng.supervisor.protocol import Assignment


class Held:
    """What a worker has, and the supervisor's ends."""

    def __init__(self) -> None:
        self.reports, report = os.pipe()
        orders, self.ordering = os.pipe()
        self.socket = os.open(os.devnull, os.O_RDONLY)
        self.numbers = [report, orders, self.socket]
        for number in self.numbers:
            os.set_inheritable(number, True)
        sockets = [SharedSocket(self.socket, 2), SharedSocket(-1, 2, 8000)]
        self.assignment = Assignment(1, report, orders, sockets)

    def close(self) -> None:
        for number in (*self.numbers, self.reports, self.ordering):
            try:
                os.close(number)
            except OSError:
                continue


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    # It cannot be taken back.
    monkeypatch.setattr(os, "register_at_fork", lambda **calls: None)
    it = Held()
    yield it
    it.close()


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_what_the_application_starts_gets_nothing(held: Held) -> None:
    Inherited(held.assignment).serves()
    assert not any(os.get_inheritable(number) for number in held.numbers)


def test_a_child_that_is_forked_before_there_are_ports_closes_the_numbers_once(held: Held) -> None:
    inherited = Inherited(held.assignment)
    inherited._leave()
    assert not any(map(is_open, held.numbers))
    again = os.open(os.devnull, os.O_RDONLY)
    inherited._leave()
    assert is_open(again)
    os.close(again)


def test_a_child_that_is_forked_later_closes_no_numbers(held: Held) -> None:
    inherited = Inherited(held.assignment)
    inherited.serves()
    inherited._leave()
    assert all(map(is_open, held.numbers))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may do without")
def test_a_process_depends_on_its_supervisor_until_it_serves(held: Held) -> None:
    inherited = Inherited(held.assignment)
    orders = held.assignment.orders
    assert signal.getsignal(signal.SIGIO) is signal.SIG_DFL
    assert fcntl.fcntl(orders, fcntl.F_GETFL) & os.O_ASYNC
    inherited.serves()
    assert not fcntl.fcntl(orders, fcntl.F_GETFL) & os.O_ASYNC
    os.close(held.ordering)  # would end this process

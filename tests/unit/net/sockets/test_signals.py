"""`daphne_ng.net.sockets.signals`: the handler of SIGCHLD comes and goes with the reactor."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from daphne_ng.net.reactor import DaphneReactor
from daphne_ng.net.sockets import signals
from daphne_ng.net.sockets.signals import ReactorSignals


class FakeLoop:
    def __init__(self) -> None:
        self.called: list[Any] = []
        self.closed = False

    def call_soon_threadsafe(self, callback: Any) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.called.append(callback)


class FakeReactor:
    """What Twisted's part asks for besides."""

    def __init__(self) -> None:
        self._asyncioEventloop = FakeLoop()

    def sigInt(self, number: int, frame: Any) -> None: ...

    def sigTerm(self, number: int, frame: Any) -> None: ...

    def sigBreak(self, number: int, frame: Any) -> None: ...


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """What would be handled, without the process."""
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", lambda number, handler: handlers.update({number: handler}))
    monkeypatch.setattr(signal, "getsignal", lambda number: handlers.get(number, signal.SIG_DFL))
    monkeypatch.setattr(signal, "siginterrupt", lambda number, flag: None)
    return handlers


def test_a_child_that_exits_is_reaped_on_the_loop(handled: dict[int, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    reaped: list[bool] = []
    monkeypatch.setattr(signals.process, "reapAllProcesses", lambda: reaped.append(True))
    reactor = FakeReactor()
    ReactorSignals(reactor).install()
    assert reaped == [True]  # one may have exited before

    handled[signal.SIGCHLD](signal.SIGCHLD, None)
    assert reaped == [True]
    [callback] = reactor._asyncioEventloop.called
    callback()
    assert reaped == [True, True]


def test_a_loop_that_is_closed_is_left_alone(handled: dict[int, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals.process, "reapAllProcesses", lambda: None)
    reactor = FakeReactor()
    ReactorSignals(reactor).install()
    reactor._asyncioEventloop.closed = True
    handled[signal.SIGCHLD](signal.SIGCHLD, None)
    assert reactor._asyncioEventloop.called == []


@pytest.mark.parametrize("another", [False, True])
def test_the_handler_goes_unless_it_is_anothers(
    handled: dict[int, Any], monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    monkeypatch.setattr(signals.process, "reapAllProcesses", lambda: None)
    ours = ReactorSignals(FakeReactor())
    ours.uninstall()
    assert handled == {}
    ours.install()
    theirs: Any = lambda number, frame: None  # noqa: E731
    if another:
        handled[signal.SIGCHLD] = theirs
    ours.uninstall()
    assert handled[signal.SIGCHLD] is (theirs if another else signal.SIG_DFL)


def test_our_reactor_has_them() -> None:
    reactor = DaphneReactor(kind="asyncio")
    try:
        assert isinstance(reactor._signalsFactory(), ReactorSignals)
    finally:
        reactor.close()

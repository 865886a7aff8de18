"""`daphne_ng.serving.process`: threads and garbage of a loop and a process of the server's own."""

from __future__ import annotations

import gc
import os
import pdb
import signal
import sys
import types
import weakref
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError
from daphne_ng.serving.process import (
    ForkGuard,
    GarbageSweep,
    RelaxedThreshold,
    size_executor,
    take_interrupt,
    threads_of_environment,
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX alone forks")
def test_a_child_has_neither_the_sockets_nor_the_handlers_of_the_server() -> None:
    class Socket:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    class Port:
        socket = Socket()

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    wakeup = signal.set_wakeup_fd(-1)
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        guard = ForkGuard(lambda: [Port(), object()])
        guard._block_signals()
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        guard.clean_child()
        found = [signal.getsignal(number) for number in numbers]
        assert found == [signal.SIG_DFL, signal.default_int_handler, signal.SIG_IGN]
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert Port.socket.closed == 1
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(("value", "threads"), [(None, None), ("", None), ("1", 1), ("007", 7)])
def test_asgi_threads_is_a_number_of_threads(value: str | None, threads: int | None) -> None:
    assert threads_of_environment({} if value is None else {"ASGI_THREADS": value}) == threads


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", " 4", "²", "٣"])
def test_anything_else_in_asgi_threads_is_named(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        threads_of_environment({"ASGI_THREADS": value})
    assert str(caught.value) == f"ASGI_THREADS must be a number of threads, not {value!r}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "--asgi-threads must be at least 1, not 0"),
        (-3, "--asgi-threads must be at least 1, not -3"),
        (2.5, "--asgi-threads must be a whole number, not 2.5"),
        ("4", "--asgi-threads must be a number, not '4'"),
        (True, "--asgi-threads must be a number, not True"),
    ],
)
def test_a_wrong_number_of_threads_is_named(value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config(asgi_threads=value)
    assert str(caught.value) == message


class Loop:
    """Takes note of executors, and of what is to be called later."""

    def __init__(self) -> None:
        self.executors: list[Any] = []
        self.later: list[tuple[float, Any]] = []

    def call_later(self, seconds: float, function: Any) -> None:
        self.later.append((seconds, function))

    def set_default_executor(self, executor: Any) -> None:
        self.executors.append(executor)


def test_a_loop_keeps_its_executor_unless_a_number_is_given() -> None:
    loop: Any = Loop()
    size_executor(loop, None)
    assert loop.executors == []
    size_executor(loop, 3)
    [executor] = loop.executors
    assert executor._max_workers == 3


class Cycle:
    def __init__(self) -> None:
        self.me = self


def test_a_sweep_collects_once_within_a_second_whenever_it_is_asked_for() -> None:
    loop: Any = Loop()
    sweep = GarbageSweep(loop)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(2):
            litter = weakref.ref(Cycle())
            sweep.schedule()
            sweep.schedule()
            assert litter() is not None
            [(seconds, collect)] = loop.later
            assert seconds == 1.0
            loop.later.clear()
            collect()
            assert litter() is None
    finally:
        if was_enabled:
            gc.enable()


def test_the_collector_relaxes_as_long_as_it_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django.db", raising=False)
    before, enabled = gc.get_threshold(), gc.isenabled()
    gc.disable()
    try:
        gc.set_threshold(700, 10, 10)
        relaxing = RelaxedThreshold(700)
        seen = []
        for generation, collected in [(0, 0), (0, 30), (1, 9999), (0, 0), (0, 0), (0, 0), (0, 999), (0, 1001), (0, 36)]:
            relaxing("start", {"generation": generation, "collected": 0, "uncollectable": 0})
            relaxing("stop", {"generation": generation, "collected": collected, "uncollectable": 0})
            seen.append(gc.get_threshold()[0])
        assert seen == [1400, 2800, 2800, 5600, 11200, 20000, 20000, 700, 700]
        assert gc.get_threshold()[1:] == (10, 10)
    finally:
        gc.set_threshold(*before)
        if enabled:
            gc.enable()


def test_the_collector_does_not_relax_beside_djangos_database_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "django.db", types.ModuleType("django.db"))
    before, enabled = gc.get_threshold(), gc.isenabled()
    gc.disable()
    try:
        gc.set_threshold(700, 10, 10)
        RelaxedThreshold(700)("stop", {"generation": 0, "collected": 0, "uncollectable": 0})
        assert gc.get_threshold() == (700, 10, 10)
    finally:
        gc.set_threshold(*before)
        if enabled:
            gc.enable()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler])
@pytest.mark.parametrize("from_program", [True, False])
def test_sigint_is_for_the_reactor_whatever_it_was_at_the_start(handler: Any, from_program: bool) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        take_interrupt(from_program=from_program)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigint_that_the_program_handles_is_taken_for_the_command_line_alone_and_never_from_a_debugger() -> None:
    def own(number: int, frame: Any) -> None: ...

    debugger = pdb.Pdb()
    before = signal.signal(signal.SIGINT, own)
    try:
        take_interrupt(from_program=False)
        assert signal.getsignal(signal.SIGINT) is own
        take_interrupt(from_program=True)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, debugger.sigint_handler)
        take_interrupt(from_program=True)
        assert signal.getsignal(signal.SIGINT) == debugger.sigint_handler
    finally:
        signal.signal(signal.SIGINT, before)

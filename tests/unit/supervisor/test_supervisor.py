"""`daphne_ng.supervisor.supervisor` with processes that are none, and a clock that is set."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError
from daphne_ng.net.sockets.sharing import SharedSocket
from daphne_ng.supervisor.notify import Notifier
from daphne_ng.supervisor.protocol import END, ENVIRONMENT, HURRY, STOP, Assignment, line
from daphne_ng.supervisor.supervisor import Supervisor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX alone has workers")


class Process:
    """What `subprocess.Popen` would return, and the worker's end of its pipes."""

    def __init__(self, command: list[str], *, env: dict[str, str], pass_fds: list[int], **identity: Any) -> None:
        assert command == ["python", "-m", "daphne_ng"]
        assignment = Assignment.from_environment(env)
        assert assignment is not None
        assert {assignment.report, assignment.orders} <= set(pass_fds)
        self.pid = 1000 + assignment.number
        self.env = env
        self.identity = identity
        self.report, self._orders = os.dup(assignment.report), os.dup(assignment.orders)
        os.set_blocking(self._orders, False)
        self.code: int | None = None
        self.signals: list[int] = []
        self.unkillable = False

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout: float) -> int:
        if self.code is None:
            raise subprocess.TimeoutExpired("python", timeout)
        return self.code

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        if self.code is None and not self.unkillable:
            self.exit(-signal.SIGKILL)

    # -- the worker's side

    def say(self, event: str, **values: Any) -> None:
        os.write(self.report, line(event, **values))

    @property
    def orders(self) -> bytes:
        """What was ordered since the last look."""
        try:
            return os.read(self._orders, 100)
        except BlockingIOError:
            return b""

    def exit(self, code: int = 0) -> None:
        self.code = code
        self.close()

    def close(self) -> None:
        if self.report >= 0:
            os.close(self.report)
            os.close(self._orders)
            self.report = self._orders = -1


class Sockets:
    shared = [SharedSocket(0, 2)]
    closed = 0

    def close(self) -> None:
        self.closed += 1

    def announce(self) -> None:
        pass


class Driven(Supervisor):
    """A supervisor that does a turn when it is told to, and never waits."""

    def __init__(self, count: int = 2, watcher: Any = None, **settings: Any) -> None:
        self.now = 100.0
        self.processes: list[Process] = []
        self.failing: OSError | None = None
        self.stopped = 0.0
        self.sockets = Sockets()
        self.sent: list[str] = []
        notifier = Notifier({})
        notifier.send = lambda *texts: self.sent.extend(texts)  # type: ignore[method-assign]
        config = Config(**settings)
        command = ["python", "-m", "daphne_ng"]
        super().__init__(
            self.sockets,
            config,
            count,
            command,
            notifier,
            watcher,
            self._start,
            lambda: self.now,  # type: ignore[arg-type]
        )

    def _start(self, command: list[str], **more: Any) -> Process:
        if self.failing is not None:
            raise self.failing
        process = Process(command, **more)
        self.processes.append(process)
        return process

    # Asked just before it waits: for longer than it means to, if it is stopped itself.
    def _patience(self) -> float:
        self.now += self.stopped
        self.stopped = 0.0
        return 0.0

    def begin(self) -> Driven:
        """Start the first worker."""
        self._spawn()
        return self

    def started(self) -> Driven:
        """Start all workers, and let them settle."""
        self.begin()
        for _ in range(self._count):
            self.processes[-1].say("ready")
            self.turn()
        for process in self.processes:
            process.say("ready")
        self.turn(10.0)
        return self

    def turn(self, seconds: float = 0.0, times: int = 3) -> None:
        """Let time pass, and do some turns; those that live say so."""
        self.now += seconds
        for process in self.processes:
            if process.report >= 0 and process.beating:  # type: ignore[attr-defined]
                process.say("beat")
        for _ in range(times):
            self._turn()

    def tell(self, number: int) -> None:
        """Send a signal."""
        self._told.append(number)
        self.turn()

    @property
    def living(self) -> list[int]:
        """Numbers of the processes that run, from 1."""
        return [number for number, process in enumerate(self.processes, 1) if process.code is None]


Process.beating = True  # type: ignore[attr-defined]


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[Driven] = []

    def make(*arguments: Any, **keywords: Any) -> Driven:
        made.append(Driven(*arguments, **keywords))
        return made[-1]

    yield make
    for one in made:
        for process in one.processes:
            process.kill()
        for worker in one._workers:
            one._forget(worker)
        one._selector.close()


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


# -- starting --------------------------------------------------------------------------------------------------


def test_the_others_start_when_the_first_is_ready(make: Any) -> None:
    it = make(3).begin()
    it.turn()
    assert it.living == [1]
    it.processes[0].say("ready")
    it.turn()
    assert it.living == [1, 2, 3]
    assert "READY=1" in it.sent


@pytest.mark.parametrize(("code", "expected"), [(3, 3), (1, 1), (0, 1), (-9, 1)])
def test_a_first_worker_that_does_not_start_ends_the_whole_with_its_code(make: Any, code: int, expected: int) -> None:
    it = make().begin()
    it.processes[0].say("stopping")  # a server that could not start says so too
    it.turn()
    it.processes[0].exit(code)
    it.turn()
    assert (it._stopping, it._exit_code, it.living) == (True, expected, [])


def test_a_first_process_that_the_system_does_not_give_is_an_error(make: Any) -> None:
    it = make()
    it.failing = PermissionError(13, "Permission denied")
    with pytest.raises(ConfigurationError, match="a worker cannot be started: .*Permission denied"):
        it.begin()
    assert it._workers == []


def test_a_later_process_that_the_system_does_not_give_is_tried_again(make: Any) -> None:
    it = make().started()
    it.failing = BlockingIOError(11, "Resource temporarily unavailable")
    it.processes[0].exit(-9)
    it.turn()
    it.turn(0.1)
    assert it.living == [2]
    it.failing = None
    it.turn(0.6)
    assert it.living == [2, 3]


def test_one_that_does_not_become_ready_is_killed(make: Any) -> None:
    it = make(worker_start_timeout=10).begin()
    it.turn(9)
    assert it.living == [1]
    it.turn(2)
    assert it.living == []
    assert it._exit_code == 1


@pytest.mark.parametrize("reload", [False, True])
def test_one_that_is_killed_does_not_take_the_place_of_another(make: Any, reload: bool) -> None:
    """It may have said that it is ready just before, and will not serve all the same."""
    changes: list[list[str]] = []
    watcher = (lambda: changes.pop() if changes else []) if reload else None
    it = make(1, watcher, worker_start_timeout=10, reload=reload).started()
    it.tell(signal.SIGHUP)
    it.processes[1].unkillable = True
    if reload:
        changes.append(["a.py"])
        it.turn(1)
    else:
        it.turn(11)
    it.processes[1].say("ready")
    it.turn()
    assert it.processes[0].orders == b""
    it.processes[1].exit(-9)


@pytest.mark.real("a process ends")
def test_process_1_sees_to_the_end_of_those_whose_parents_have_ended(make: Any) -> None:
    it = make().begin()
    it._adopts = True
    orphan = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{orphan.pid}") and time.monotonic() < deadline:
        it.turn()
        time.sleep(0.01)
    with pytest.raises(ChildProcessError):
        os.waitpid(orphan.pid, os.WNOHANG)
    orphan.returncode = 0


# -- failing ---------------------------------------------------------------------------------------------------


def test_one_that_dies_is_replaced_at_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make().started()
    it.processes[1].exit(-signal.SIGKILL)
    it.turn()
    assert it.living == [1, 3]
    assert "was killed by SIGKILL; another takes its place" in caplog.text


def dies_again_and_again(it: Driven, times: int, ready: bool) -> list[float]:
    """Have each worker die as soon as it is ready, or before; return how long each next one was waited for."""
    waits: list[float] = []
    while not it._stopping and len(waits) < times:
        waited = 0.0
        before = len(it.processes)
        while len(it.processes) == before:
            it.turn(0.25, times=1)
            waited += 0.25
        waits.append(waited)
        if ready:
            it.processes[-1].say("ready")
            it.turn()
        it.processes[-1].exit(7)
        it.turn()
    return waits


def test_one_that_stops_before_it_has_settled_does_not_count_as_one_that_works(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    it = make(1).started()
    it.processes[0].exit(1)
    it.turn()
    it.processes[1].say("ready")
    it.turn()
    it.processes[1].exit(7)
    it.turn()
    assert "Worker 2 (process 1002) ended with code 7; the next starts in 0.5 s" in caplog.text
    it.turn(1)
    it.processes[2].say("ready")
    it.processes[2].say("stopping")
    it.turn()
    it.turn(10)
    it.processes[3].say("ready")
    it.turn()
    it.processes[3].exit(7)
    it.turn()
    assert "Worker 4 (process 1004) ended with code 7; the next starts in 1.0 s" in caplog.text


def test_those_that_are_ready_and_die_soon_back_off_and_are_never_given_up(make: Any) -> None:
    """It may be a request that kills them, and others wait to be served."""
    it = make(1).started()
    it.processes[-1].exit(1)
    it.turn()
    it.processes[-1].say("ready")
    it.turn()
    it.processes[-1].exit(7)
    it.turn()
    waits = dies_again_and_again(it, 100, ready=True)
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(waits) == 5.0
    assert not it._stopping


def test_those_that_do_not_become_ready_again_are_given_up(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make(1).started()
    it.processes[-1].exit(1)
    it.turn()
    it.processes[-1].exit(7)
    it.turn()
    assert dies_again_and_again(it, 100, ready=False) == [0.5, 1.0, 2.0, 4.0]
    assert it._exit_code == 7
    assert "ended with code 7, as 4 before it: giving up" in caplog.text


def test_one_that_becomes_ready_in_between_is_no_reason_to_give_up(make: Any) -> None:
    it = make(1).started()
    for _ in range(10):
        it.processes[-1].exit(1)
        it.turn()
        dies_again_and_again(it, 3, ready=False)
        it.turn(31)
        it.processes[-1].say("ready")
        it.turn()
    assert not it._stopping


def test_a_client_that_kills_whoever_is_ready_does_not_end_the_server(make: Any) -> None:
    it = make(2).started()
    for _ in range(50):
        for process in it.processes:
            if process.code is None:
                process.say("ready")
        it.turn()
        for process in it.processes:
            if process.code is None:
                process.exit(-signal.SIGSEGV)
        it.turn(5.0)
    assert not it._stopping
    assert len(it.living) == 2


def test_failures_are_forgotten_when_one_has_settled(make: Any) -> None:
    it = make(1).started()
    for _ in range(20):
        it.processes[-1].exit(1)
        it.turn(1)
        it.turn(1)
        it.processes[-1].say("ready")
        it.turn()
        it.turn(6)
    assert not it._stopping


def test_as_long_as_one_serves_nothing_is_given_up(make: Any) -> None:
    it = make(2).started()
    for _ in range(20):
        it.processes[-1].exit(1)
        it.turn(31)
        it.turn()
    assert not it._stopping
    assert 1 in it.living


def test_one_that_is_silent_is_replaced_and_killed(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make(worker_timeout=60.0).started()
    it.processes[0].beating = False
    it.turn(59)
    assert it.living == [1, 2]
    it.turn(2)
    assert it.living == [1, 2, 3]
    assert "nothing was heard of it for 61 s" in caplog.text
    it.processes[2].say("ready")
    it.turn()
    assert it.processes[0].orders == STOP
    it.turn(6)
    assert it.living == [2, 3]


def test_one_that_was_silent_and_speaks_again_has_its_time(make: Any) -> None:
    it = make(worker_timeout=60.0).started()
    it.processes[0].beating = False
    it.turn(61)
    it.processes[0].beating = True
    it.turn(1)
    it.processes[2].say("ready")
    it.turn()
    it.turn(30)
    assert it.living == [1, 2, 3]


def test_who_was_stopped_together_with_the_supervisor_was_not_silent(make: Any) -> None:
    it = make(worker_timeout=60.0).started()
    for process in it.processes:
        process.beating = False
    it.stopped = 3600
    it.turn()
    it.turn(59)
    assert it.living == [1, 2]
    it.turn(2)
    assert it.living == [1, 2, 3, 4]


@pytest.mark.parametrize("settings", [{"worker_timeout": 0.0}, {"reload": True}])
def test_silence_may_be_allowed(make: Any, settings: dict[str, Any]) -> None:
    it = make(1, **settings).started()
    it.processes[0].beating = False
    it.turn(1000)
    assert it.living == [1]


# -- replacing -------------------------------------------------------------------------------------------------


def test_one_that_asks_for_it_goes_when_another_is_ready(make: Any) -> None:
    it = make().started()
    it.processes[0].say("retire", reason="it is old")
    it.turn()
    assert it.living == [1, 2, 3]
    assert it.processes[0].orders == b""
    it.processes[0].say("retire", reason="it is old")  # once is enough
    it.turn()
    it.processes[2].say("ready")
    it.turn()
    assert it.processes[0].orders == STOP
    it.processes[0].exit()
    it.turn()
    assert it.living == [2, 3]


def test_one_that_asks_for_it_soon_stays_for_a_while(make: Any) -> None:
    it = make(1).begin()
    it.processes[0].say("ready")
    it.turn()
    it.turn(1)
    it.processes[0].say("retire", reason="it has served 1 requests")
    it.turn(3)
    assert it.living == [1]
    it.turn(2)
    assert it.living == [1, 2]


def test_limits_that_no_worker_can_keep_cost_fewer_and_fewer_starts(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them is over its limit when it becomes ready."""
    it = make(1, worker_start_timeout=100000.0).begin()
    starts = []
    for _ in range(3600):
        process = it.processes[-1]
        if len(starts) < len(it.processes):
            starts.append(it.now)
            process.say("retire", reason="it holds much memory")
            process.say("ready")
            for old in it.processes[:-1]:
                old.exit()
        it.turn(1, times=1)
    assert 10 <= len(starts) <= 20
    assert starts[-1] - starts[-2] >= 300
    assert "is over its limit before it serves: it holds much memory; it stays for 5 s" in caplog.text


def test_a_replacement_that_fails_is_tried_again_and_the_old_one_stays(make: Any) -> None:
    it = make().started()
    it.processes[0].say("retire", reason="it is old")
    it.turn()
    it.processes[2].exit(1)
    it.turn()
    assert it.living == [1, 2]
    it.turn(1)
    assert it.living == [1, 2, 4]


def test_all_are_replaced_one_after_the_other(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make().started()
    it.tell(signal.SIGHUP)
    assert it.living == [1, 2, 3]
    it.processes[2].say("ready")
    it.turn()
    assert it.processes[0].orders == STOP
    assert it.living == [1, 2, 3, 4]
    it.processes[3].say("ready")
    it.turn()
    assert it.processes[1].orders == STOP
    it.processes[0].exit()
    it.processes[1].exit()
    it.turn()
    assert it.living == [3, 4]
    assert "All workers are replaced" in caplog.text


def test_new_workers_have_the_settings_that_are_read_again(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make().started()
    it._read_again = lambda: (Config(worker_start_timeout=7.0), {"TOLD": "new"})
    it.tell(signal.SIGHUP)
    assert it.processes[2].env["TOLD"] == "new"
    assert it._workers[2].due_at - it._workers[2].started_at == 7.0

    def fail() -> None:
        raise ConfigurationError("d.toml, line 1: wrong")

    it._read_again = fail
    it.tell(signal.SIGHUP)
    it.processes[2].say("ready")
    it.turn()
    assert it.processes[3].env["TOLD"] == "new"
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR] == [
        "The settings stay as they were: d.toml, line 1: wrong"
    ]


def test_new_code_that_does_not_start_keeps_the_old(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make().started()
    it.tell(signal.SIGHUP)
    it.processes[2].exit(1)
    it.turn()
    it.turn(100)
    assert it.living == [1, 2]
    assert len(it.processes) == 3
    assert "The workers are not replaced: the new code does not start; the old goes on" in caplog.text


def test_new_code_that_does_not_start_is_no_reason_to_keep_one_that_has_asked_to_go(make: Any) -> None:
    it = make().started()
    it.processes[0].say("retire", reason="it is old")
    it.tell(signal.SIGHUP)
    it.processes[2].exit(1)
    it.turn()
    it.turn(1)
    assert it.living == [1, 2, 4]


def test_failures_of_new_code_do_not_count_against_the_old(make: Any) -> None:
    it = make(1).started()
    for _ in range(10):
        it.tell(signal.SIGHUP)
        it.processes[-1].exit(1)
        it.turn()
    it.processes[0].exit(1)
    it.turn()
    it.processes[-1].exit(1)
    it.turn()
    it.turn(1)
    assert not it._stopping
    assert len(it.living) == 1


def test_nothing_is_replaced_when_the_system_gives_no_process(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make().started()
    it.failing = FileNotFoundError(2, "No such file or directory")
    it.tell(signal.SIGHUP)
    it.turn(100)
    assert it.living == [1, 2]
    assert caplog.text.count("No such file or directory; the old go on") == 1
    assert "All workers are replaced" not in caplog.text
    it.failing = None
    it.turn(100)
    assert it.living == [1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pwd")
def test_a_user_that_is_removed_does_not_end_the_supervisor(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make().started()
    it._launcher._config = Config(user="is-not-there")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    it.tell(signal.SIGHUP)
    assert it.living == [1, 2]
    assert "The workers are not replaced: a new one cannot be started" in caplog.text
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)


def test_all_are_replaced_when_the_last_new_one_is_ready(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make(1).started()
    it.tell(signal.SIGHUP)
    it.processes[0].exit(-9)
    it.turn()
    assert "All workers are replaced" not in caplog.text
    it.processes[1].say("ready")
    it.turn()
    assert "All workers are replaced" in caplog.text


def test_a_signal_that_comes_again_while_all_are_replaced_begins_again(make: Any) -> None:
    it = make().started()
    for _ in range(20):
        it.tell(signal.SIGHUP)
    assert it.living == [1, 2, 3]
    for number in range(2, 5):
        it.processes[number].say("ready")
        it.turn()
        for old in it.processes[:2]:
            if old.code is None and old.orders:
                old.exit()
    it.processes[2].exit()
    it.turn()
    assert it.living == [4, 5]


def test_one_that_dies_while_it_is_replaced_is_not_missed(make: Any) -> None:
    it = make().started()
    it.tell(signal.SIGHUP)
    it.processes[0].exit(-11)
    it.turn()
    it.processes[2].say("ready")
    it.turn()
    it.processes[3].say("ready")
    it.turn(10)
    it.processes[1].exit()
    it.turn()
    assert it.living == [3, 4]


def test_a_change_begins_again(make: Any) -> None:
    changes: list[list[str]] = [[], ["a.py"], [], ["b.py"], []]
    it = make(1, lambda: changes.pop(0) if changes else [], reload=True).started()
    it.turn(1, times=1)
    it.turn(1, times=1)
    it.turn(1, times=1)
    it.turn(1)
    it.turn(1)
    # The one that had begun with a.py alone is gone.
    assert it.living == [1, 3]
    it.processes[2].say("ready")
    it.turn()
    it.processes[0].exit()
    it.turn()
    assert it.living == [3]


def test_a_change_replaces_a_first_one_that_hangs(make: Any) -> None:
    changes = [["a.py"]]
    it = make(1, lambda: changes.pop() if changes else [], reload=True).begin()
    it.turn(1)
    it.turn(1)
    assert it.living == [1, 2]
    it.processes[1].say("ready")
    it.turn()
    assert it.living == [2]


class Reloaded:
    """A supervisor with ``--reload``, and files to change."""

    def __init__(self, make: Any) -> None:
        self.changes: list[str] = []
        self.it: Driven = make(1, self._look, reload=True).started()

    def _look(self) -> list[str]:
        changes, self.changes = self.changes, []
        return changes

    def change(self) -> None:
        self.changes = ["a.py"]
        self.it.turn(1)

    @property
    def last(self) -> Process:
        return self.it.processes[-1]

    def ready(self) -> None:
        self.last.say("ready")
        self.it.turn()

    def fails(self, number: int = -1) -> None:
        self.it.processes[number].exit(1)
        self.it.turn()


@pytest.fixture
def reloaded(make: Any) -> Reloaded:
    return Reloaded(make)


def test_new_code_that_fails_beside_the_old_starts_once_more_when_the_old_has_ended(
    reloaded: Reloaded, caplog: pytest.LogCaptureFixture
) -> None:
    it = reloaded.it
    reloaded.change()
    assert it.living == [1, 2]
    reloaded.fails()
    assert it.processes[0].orders == STOP
    it.turn(1)
    assert it.living == [1]  # it has a last request
    it.processes[0].exit()
    it.turn()
    assert it.living == [3]
    assert "All workers are replaced" not in caplog.text
    reloaded.ready()
    assert "All workers are replaced" in caplog.text


def test_code_that_was_served_alone_only_is_replaced_alone_from_then_on(reloaded: Reloaded) -> None:
    it = reloaded.it
    reloaded.change()
    reloaded.fails()
    it.processes[0].exit()
    it.turn()
    reloaded.ready()
    for number in (3, 4):
        reloaded.change()
        assert it.living == [number]
        assert it.processes[number - 1].orders == STOP
        it.processes[number - 1].exit()
        it.turn()
        assert it.living == [number + 1]
        reloaded.ready()


def test_code_that_fails_alone_too_waits_for_the_next_change(
    reloaded: Reloaded, caplog: pytest.LogCaptureFixture
) -> None:
    it = reloaded.it
    reloaded.change()
    reloaded.fails()
    it.processes[0].exit()
    it.turn()
    reloaded.fails()
    it.turn(1000)
    assert it.living == []
    assert not it._stopping
    assert it.sockets.closed == 0  # clients wait
    assert "the next change is the next try, and clients wait until then" in caplog.text
    reloaded.change()
    assert it.living == [4]
    reloaded.fails()
    it.turn(1000)
    assert it.living == []
    it.tell(signal.SIGHUP)
    assert it.living == [5]
    reloaded.ready()
    reloaded.change()
    assert it.living == [5, 6]  # nothing says that it must be alone


def test_a_change_while_the_old_one_ends_is_served(reloaded: Reloaded) -> None:
    it = reloaded.it
    reloaded.change()
    reloaded.fails()
    reloaded.change()
    assert it.living == [1]
    it.processes[0].exit()
    it.turn()
    assert it.living == [3]
    reloaded.change()
    assert it.living == [4]
    reloaded.ready()
    assert it.living == [4]


def test_a_failure_that_is_the_codes_own_leaves_the_old_one(
    reloaded: Reloaded, caplog: pytest.LogCaptureFixture
) -> None:
    it = reloaded.it
    reloaded.change()
    reloaded.last.say("failed")
    it.turn()
    reloaded.fails()
    it.turn(1000)
    assert it.living == [1]
    assert it.processes[0].orders == b""
    assert "The workers are not replaced: the new code does not start; the old goes on" in caplog.text


def test_one_that_is_developed_and_dies_is_started_again_and_then_waits(reloaded: Reloaded) -> None:
    it = reloaded.it
    reloaded.fails()
    reloaded.fails()
    assert dies_again_and_again(it, 4, ready=False) == [0.5, 1.0, 2.0, 4.0]
    it.turn(1000)
    assert (it.living, it._stopping) == ([], False)
    reloaded.change()
    assert len(it.living) == 1


def test_one_that_others_have_told_to_stop_is_replaced_before_it_has(make: Any) -> None:
    it = make().started()
    it.processes[0].say("stopping")
    it.turn()
    assert it.living == [1, 2, 3]
    it.processes[0].exit()
    it.turn()
    assert it.living == [2, 3]


def test_one_that_does_not_go_is_killed_after_all_its_limits(make: Any) -> None:
    it = make(lifespan_shutdown_timeout=1.0, graceful_timeout=10.0, application_close_timeout=1).started()
    it.tell(signal.SIGTTOU)
    it.turn(27)
    assert it.living == [1, 2]
    it.turn(7)
    assert it.living == [2]


def test_new_ones_wait_while_too_many_old_ones_drain(make: Any) -> None:
    it = make(1).started()
    for _ in range(3):
        it.tell(signal.SIGHUP)
        it.processes[-1].say("ready")
        it.turn()
    assert it.living == [1, 2, 3, 4]
    it.tell(signal.SIGHUP)
    it.turn(5)
    assert it.living == [1, 2, 3, 4]
    it.processes[1].exit()
    it.turn()
    assert it.living == [1, 3, 4, 5]


# -- signals ---------------------------------------------------------------------------------------------------


def test_the_number_of_workers_goes_up_and_down_to_one(make: Any) -> None:
    it = make(1).started()
    it.tell(signal.SIGTTIN)
    assert it.living == [1, 2]
    it.processes[1].say("ready")
    for _ in range(3):
        it.tell(signal.SIGTTOU)
    assert it.processes[0].orders == STOP
    it.processes[0].exit()
    it.turn()
    assert it.living == [2]


def test_one_worker_less_is_first_one_that_serves_nobody(make: Any) -> None:
    """The new one may never be ready, and the old one is all that there is."""
    it = make(1).started()
    it.tell(signal.SIGTTIN)
    assert it.living == [1, 2]
    it.tell(signal.SIGTTOU)
    assert it.living == [1]
    assert it.processes[0].orders == b""


def test_one_worker_less_is_one_that_is_blocked_before_one_that_serves(make: Any) -> None:
    it = make(2, worker_timeout=60.0).started()
    it.processes[1].beating = False
    it.turn(61)
    it.tell(signal.SIGTTOU)
    assert it.processes[0].orders == b""
    assert it.processes[1].orders == STOP


def test_while_it_reloads_there_is_one_worker(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make(1, lambda: [], reload=True).started()
    it.tell(signal.SIGTTIN)
    assert it.living == [1]
    assert "--reload allows no more than 1 worker" in caplog.text


@pytest.mark.parametrize(("count", "limit", "most"), [(1, 2, 2), (3, 2, 3)])
def test_a_signal_cannot_ask_for_more_workers_than_the_limit(
    make: Any, caplog: pytest.LogCaptureFixture, count: int, limit: int, most: int
) -> None:
    it = make(count, limit_workers=limit).started()
    for _ in range(3):
        it.tell(signal.SIGTTIN)
        it.processes[-1].say("ready")
        it.turn()
    assert len(it.living) == most
    assert f"--limit-workers allows no more than {most} worker" in caplog.text


def test_one_that_cannot_be_killed_does_not_hold_up_the_end(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make().started()
    it.processes[0].unkillable = True
    for _ in range(3):
        it.tell(signal.SIGTERM)
    it.processes[1].exit()
    it.turn(4)
    assert it._workers
    it.turn(2)
    assert not it._workers
    assert "Worker 1 (process 1001) was killed and does not end: it is left behind" in caplog.text
    it.processes[0].close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_is_graceful_once(make: Any, number: int) -> None:
    it = make().started()
    it.tell(number)
    assert it.sockets.closed == 1
    assert [process.orders for process in it.processes] == [END, END]
    assert "STOPPING=1" in it.sent
    it.turn(60)
    assert it.living == [1, 2]
    it.tell(signal.SIGHUP)
    it.processes[0].say("retire", reason="it is old")
    it.processes[0].exit()
    it.turn()
    assert it.living == [2]
    it.processes[1].exit()
    it.turn()
    assert (it._workers, it._exit_code) == ([], 0)


def test_the_end_is_at_once_when_it_is_told_twice_and_without_a_word_when_three_times(make: Any) -> None:
    it = make().started()
    it.tell(signal.SIGTERM)
    it.tell(signal.SIGTERM)
    assert [process.orders for process in it.processes] == [END + HURRY] * 2
    assert it.living == [1, 2]
    it.tell(signal.SIGTERM)
    assert it.living == []


def test_an_end_by_force_is_told(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make(3).started()
    it.tell(signal.SIGTERM)
    it.processes[0].exit(-signal.SIGSEGV)
    it.processes[1].exit(-signal.SIGRTMIN)
    it.processes[2].exit(1)
    it.turn()
    assert "Worker 1 (process 1001), which was about to end, was killed by SIGSEGV" in caplog.text
    assert "Worker 2 (process 1002), which was about to end, was killed by" in caplog.text
    assert "Worker 3 (process 1003), which was about to end, ended with code 1" in caplog.text


def test_after_two_the_end_does_not_take_long(make: Any) -> None:
    it = make().started()
    it.tell(signal.SIGTERM)
    it.tell(signal.SIGINT)
    it.turn(6)
    assert it.living == []


def test_those_that_have_not_begun_are_killed_at_the_end(make: Any) -> None:
    it = make().begin()
    it.tell(signal.SIGTERM)
    assert it.living == []
    assert it._exit_code == 0


def test_a_terminal_that_was_closed_ends_a_reloading_server(make: Any) -> None:
    it = make(1, lambda: [], reload=True).started()
    it._terminals = [it.processes[0].report]  # a pipe, as good as a terminal that is gone
    it.tell(signal.SIGHUP)
    assert it._stopping


def test_signals_for_logs_are_passed_on(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = make().started()
    it.tell(signal.SIGUSR1)
    it.tell(signal.SIGUSR2)
    assert [process.signals for process in it.processes] == [[signal.SIGUSR1, signal.SIGUSR2]] * 2
    assert "Worker 1 (process 1001): ready" in caplog.text


def test_what_a_worker_is_told_is_in_its_own_environment_alone(make: Any) -> None:
    it = make().begin()
    assert ENVIRONMENT not in os.environ
    assert it.processes[0].identity == {}  # it runs as the same user


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pwd")
def test_a_worker_runs_as_another_user_with_the_groups_and_the_home_of_that_one(make: Any) -> None:
    import pwd

    nobody = pwd.getpwnam("nobody")
    for settings in ({"user": "nobody"}, {"user": str(nobody.pw_uid)}):
        identity = make(**settings).begin().processes[0].identity
        assert (identity["user"], identity["group"]) == (nobody.pw_uid, nobody.pw_gid)
        assert 0 not in identity["extra_groups"]
    assert make(group="0").begin().processes[0].identity == {"group": 0, "extra_groups": []}

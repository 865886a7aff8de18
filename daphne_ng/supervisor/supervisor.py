"""The supervisor: starts workers, watches them, and replaces them.

One loop over pipes and signals, without an event loop of anybody's: it must go on whatever the workers do. Everything
that changes the set of workers is one of three operations: `_spawn`, `_retire` (an order to stop, and KILL when its
time is over) and `_replace`, which spawns first and retires when the new worker is ready. A worker's phase changes in
`_move` alone, after the table in `daphne_ng.supervisor.phases`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import signal
import subprocess
import sys
import time
import uuid
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError
from daphne_ng.serving.process import max_shutdown_seconds
from daphne_ng.supervisor.notify import Notifier
from daphne_ng.supervisor.phases import (
    ABANDON,
    EXIT,
    KILL,
    KILLED,
    OVERDUE,
    READY,
    RETIRE,
    RETIRING,
    SETTLED,
    STARTING,
    TIME_UP,
    WORKER_READY,
    WORKER_STOPS,
)
from daphne_ng.supervisor.process import Launcher, WorkerProcess, ending
from daphne_ng.supervisor.protocol import END, HURRY, STOP
from daphne_ng.supervisor.reloading import Reloading
from daphne_ng.supervisor.sockets import SharedSockets
from daphne_ng.wording import counted

__all__ = ["Supervisor", "command_of_this_process"]

logger = logging.getLogger("daphne_ng.supervisor.supervisor")

# A worker that ends by itself before it was ready, or so soon after, has failed.
_SETTLED_SECONDS = 5.0
# After so many in a row that do not even become ready, while no worker serves, the supervisor gives up.
_UNREADY_MAX = 5
_BACK_OFF_FIRST_SECONDS = 0.5
_BACK_OFF_MAX_SECONDS = 30.0
# The same after a worker that was ready. A request may have killed it, and others wait for the next worker.
_BACK_OFF_SERVED_MAX_SECONDS = 5.0
# Limits that are reached when a worker starts are reached by the next one too.
_HOPELESS_MAX_SECONDS = 300.0
# The time that a worker's end may take beyond its own limits, and all that it has when there is no time for those.
_END_MARGIN_SECONDS = 5.0
_READ_BYTES = 65536
# So many workers per wanted one may be draining when another is replaced.
_DRAINING_MAX = 3
# Workers report once a second.
_SILENCE_SECONDS = 3.0
_PROGRESS_SECONDS = 1.0


def command_of_this_process() -> list[str]:
    """Return what starts the same program in a fresh interpreter, with the interpreter's own options."""
    return [sys.executable, *sys.orig_argv[1:]]


class Supervisor:
    """Runs workers until told to stop.

    Args:
        sockets: What the workers listen on; closed at the end.
        config: The settings.
        count: How many workers.
        command: What starts a worker.
        notifier: Tells systemd.
        watcher: For ``--reload``: called now and then, returns what has changed, or nothing.
        popen: Starts a process, as `subprocess.Popen`.
        clock: Returns the time in seconds, as `time.monotonic`.
        renewal: A `daphne_ng.supervisor.command.Renewal`: SIGHUP reads the settings again.
    """

    def __init__(
        self,
        sockets: SharedSockets,
        config: Config,
        count: int,
        command: Sequence[str],
        notifier: Notifier | None = None,
        watcher: Callable[[], Sequence[str]] | None = None,
        popen: Callable[..., Any] = subprocess.Popen,
        clock: Callable[[], float] = time.monotonic,
        renewal: Any = None,
    ) -> None:
        self._sockets = sockets
        self._config = config
        self._count = count
        self._count_max = count if config.reload else max(count, config.limit_workers)
        self._notifier = notifier or Notifier({})
        self._watcher = watcher
        self._clock = clock
        self._workers: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()
        self._heard: set[int] = set()
        self._number = 0
        self._launcher = Launcher(command, config, sockets.shared, uuid.uuid4().hex, watcher is None, popen)
        self._read_again = None
        if renewal is not None:
            self._launcher.environment = renewal.environment
            self._read_again = renewal.again
        self._failures = 0
        self._unready = 0
        self._hopeless = 0
        self._spawn_at = 0.0
        self._to_roll: list[WorkerProcess] = []
        self._rolling = False
        self._reloading = Reloading()
        self._stopping = False
        self._hurried = False
        self._announced = False
        self._exit_code = 0
        self._told: list[int] = []
        self._ping_at = 0.0
        self._progress_at = 0.0
        self._status = ""
        self._look_at = 0.0
        # Process 1 of a container is given the processes whose parents have ended.
        self._adopts = os.getpid() == 1
        # A developer ends the server by closing the terminal, unless it was started with nohup. A service has no
        # terminal to close, and is told to reload by the same signal.
        closes = watcher is not None and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        self._terminals = [number for number in (0, 1, 2) if closes and os.isatty(number)]

    # -- life ------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT, or until it is hopeless; return the exit code."""
        handled = self._handle_signals()
        try:
            self._sockets.announce()
            self._spawn()
            while self._workers or not self._stopping:
                self._turn()
        finally:
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                self._wait_for_killed(worker)
                self._forget(worker)
            self._sockets.close()
            self._restore_signals(handled)
            self._selector.close()
        logger.info("The supervisor has ended")
        return self._exit_code

    # The kernel may hold a process in a call that does not end, such as one to a file server that is gone.
    def _wait_for_killed(self, worker: WorkerProcess) -> None:
        try:
            worker.process.wait(_END_MARGIN_SECONDS)
        except subprocess.TimeoutExpired:
            logger.error("%s was killed and does not end", worker)

    def _turn(self) -> None:
        began = self._clock()
        patience = self._patience()
        events = self._selector.select(patience)
        self._excuse(self._clock() - began - patience)
        for key, _events in events:
            if key.data is None:
                self._drain_wakeup()
            else:
                self._hear(key.data)
        told, self._told = self._told, []
        for number in told:
            self._obey(number)
        now = self._clock()
        self._reap()
        if self._adopts:
            self._reap_orphans()
        self._check(now)
        if not self._stopping:
            self._look_for_changes(now)
            self._roll_on()
            self._keep_count(now)
        if self._notifier.watchdog_seconds and now >= self._ping_at:
            self._ping_at = now + self._notifier.watchdog_seconds
            if self._stopping or any(self._is_healthy(worker, now) for worker in self._workers):
                self._notifier.send("WATCHDOG=1")
        self._tell_status(now)

    # Nothing here is late by more than half a second, which needs no arithmetic.
    def _patience(self) -> float:
        patience = 0.1 if self._stopping or self._watcher is not None else 0.5
        if self._notifier.watchdog_seconds:
            patience = min(patience, max(self._ping_at - self._clock(), 0.0))
        return patience

    # This process was stopped itself: Ctrl-Z, a container that was frozen. So were the workers, for all that is known,
    # and none of them was late.
    def _excuse(self, seconds: float) -> None:
        if seconds < _SILENCE_SECONDS:
            return
        logger.info("The supervisor was stopped for %.0f s", seconds)
        for worker in self._workers:
            worker.started_at += seconds
            worker.beat_at += seconds
            # Of a worker that is late in these phases it is the end.
            if worker.phase in (STARTING, RETIRING):
                worker.due_at += seconds

    # -- what systemd is told ----------------------------------------------------------------------------------

    # Whether a worker serves, as far as is known: a blocked one reports nothing.
    def _is_healthy(self, worker: WorkerProcess, now: float) -> bool:
        silence = max(self._notifier.watchdog_seconds or 0.0, _SILENCE_SECONDS)
        return worker.serves and now - worker.beat_at < silence

    def _tell_status(self, now: float) -> None:
        if self._stopping:
            if now >= self._progress_at:
                self._progress_at = now + _PROGRESS_SECONDS
                self._notifier.progress(f"Stopping: {counted(len(self._workers), 'worker')} still running")
            return
        ready = sum(worker.serves for worker in self._workers)
        draining = sum(worker.phase >= RETIRING for worker in self._workers)
        status = f"{ready} of {self._count} workers ready"
        if self._rolling:
            status = f"Replacing workers, {len(self._to_roll)} to go; {status}"
        if draining:
            status += f", {draining} draining"
        if status != self._status:
            self._status = status
            self._notifier.send(f"STATUS={status}")

    # -- signals ---------------------------------------------------------------------------------------------

    def _handle_signals(self) -> dict[int, Any]:
        self._wakeup_read, self._wakeup_write = os.pipe()
        os.set_blocking(self._wakeup_read, False)
        os.set_blocking(self._wakeup_write, False)
        self._selector.register(self._wakeup_read, selectors.EVENT_READ, None)
        names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2", "SIGCHLD")
        numbers = [getattr(signal, name) for name in names]
        handled = {number: signal.signal(number, self._note) for number in numbers}
        # The parent of this process may have blocked some for itself.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        handled[-1] = signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        return handled

    def _restore_signals(self, handled: dict[int, Any]) -> None:
        signal.set_wakeup_fd(handled.pop(-1))
        for number, handler in handled.items():
            signal.signal(number, handler)
        self._selector.unregister(self._wakeup_read)
        os.close(self._wakeup_read)
        os.close(self._wakeup_write)

    def _note(self, number: int, frame: Any) -> None:
        if number != signal.SIGCHLD:
            self._told.append(number)

    def _drain_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeup_read, 1024):
                pass

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number in (signal.SIGUSR1, signal.SIGUSR2):
            if number == signal.SIGUSR2:
                logger.info("%s", self._state())
            for worker in self._workers:
                worker.process.send_signal(number)
        elif self._stopping:
            return
        elif number == signal.SIGHUP and self._terminals and not any(map(os.isatty, self._terminals)):
            logger.info("The terminal was closed")
            self._stop()
        elif number == signal.SIGHUP:
            logger.info("Replacing all workers")
            self._notifier.reloading("Replacing all workers")
            self._renew()
            self._rolling = True
            self._to_roll = [worker for worker in self._workers if worker.phase < RETIRING]
            self._reloading.begin()
        elif number == signal.SIGTTIN:
            if self._count >= self._count_max:
                setting = "--reload" if self._config.reload else "--limit-workers"
                logger.warning("%s allows no more than %s", setting, counted(self._count, "worker"))
                return
            self._count += 1
            logger.info("Workers wanted: %d", self._count)
        elif number == signal.SIGTTOU:
            self._count = max(1, self._count - 1)
            logger.info("Workers wanted: %d", self._count)

    # The new workers get what the file says now. A file that is wrong keeps them from nothing but that.
    def _renew(self) -> None:
        if self._read_again is None:
            return
        try:
            read = self._read_again()
        except (ConfigurationError, ArgumentError) as error:
            logger.error("The settings stay as they were: %s", error)
            return
        if read is not None:
            self._config, self._launcher.environment = read

    def _state(self) -> str:
        now = self._clock()
        lines = [f"{self._count} workers wanted"]
        for worker in self._workers:
            state = "retired" if worker.phase >= RETIRING else "ready" if worker.serves else "starting"
            lines.append(
                f"{worker}: {state}, {now - worker.started_at:.0f} s old, last heard {now - worker.beat_at:.1f} s ago"
            )
        return "\n".join(lines)

    # -- operations ------------------------------------------------------------------------------------------

    def _spawn(self, replaces: WorkerProcess | None = None) -> None:
        self._number += 1
        try:
            worker = self._launcher.start(self._number, self._clock())
        except (OSError, subprocess.SubprocessError, KeyError) as error:
            self._not_started(error, replaces)
            return
        worker.due_at = worker.started_at + self._config.worker_start_timeout
        worker.replaces = replaces
        if replaces is not None:
            replaces.replaced_by = worker
        self._workers.append(worker)
        self._selector.register(worker.report, selectors.EVENT_READ, worker)
        self._heard.add(worker.report)
        logger.info("%s starts", worker)

    # The system has no process to give, or the user may not read the interpreter, or it is not there any more.
    def _not_started(self, error: Exception, replaces: WorkerProcess | None) -> None:
        if not self._announced:
            raise ConfigurationError(f"a worker cannot be started: {error}") from error
        if replaces is not None:
            self._end_roll(f"a new one cannot be started: {error}; the old go on")
            if not replaces.replace_reason:
                return
        self._failures += 1
        delay = self._back_off(self._clock())
        logger.error("A worker cannot be started: %s; the next try is in %.1f s", error, delay)

    def _replace(self, worker: WorkerProcess, reason: str) -> None:
        if worker.replaced_by is None and worker.phase < RETIRING:
            logger.info("%s is replaced: %s", worker, reason)
            self._spawn(replaces=worker)

    # A worker that serves nobody is killed instead: see the table.
    def _retire(self, worker: WorkerProcess, order: bytes = STOP) -> None:
        if self._move(worker, RETIRE) and worker.phase == RETIRING:
            worker.order(order)

    # Tell a worker's phase what has happened, and do what the new phase asks for. Returns whether the phase knew it.
    def _move(self, worker: WorkerProcess, happened: int) -> bool:
        if not worker.advance(happened):
            return False
        phase = worker.phase
        limit = math.inf
        if phase == READY:
            limit = _SETTLED_SECONDS
        elif phase == RETIRING:
            # A worker that is blocked will not read the order.
            limit = _END_MARGIN_SECONDS + (0.0 if worker.blocked else max_shutdown_seconds(self._config))
        elif phase == KILLED:
            limit = _END_MARGIN_SECONDS
        worker.due_at = self._clock() + limit
        if phase in (OVERDUE, KILLED):
            worker.process.kill()
        return True

    def _forget(self, worker: WorkerProcess) -> None:
        if worker.report in self._heard:
            self._heard.discard(worker.report)
            self._selector.unregister(worker.report)
        worker.close()
        if worker.replaces is not None:
            worker.replaces.replaced_by = None
        if worker.replaced_by is not None:
            worker.replaced_by.replaces = None

    # Once: gracefully. Twice: at once. Three times: without a word.
    def _stop(self) -> None:
        if self._hurried:
            for worker in self._workers:
                self._move(worker, KILL)
        elif self._stopping:
            logger.info("Told to stop again: the workers end at once")
            self._hurried = True
            for worker in self._workers:
                worker.order(HURRY)
                if worker.phase == RETIRING:
                    worker.due_at = min(worker.due_at, self._clock() + _END_MARGIN_SECONDS)
        else:
            self._stopping = True
            if self._workers:
                logger.info("Stopping %s", counted(len(self._workers), "worker"))
            self._notifier.send("STOPPING=1")
            # Here first: the last worker to close a socket takes those who wait there.
            self._sockets.close()
            for worker in self._workers:
                self._retire(worker, END)

    # -- what workers do -------------------------------------------------------------------------------------

    def _hear(self, worker: WorkerProcess) -> None:
        try:
            data = os.read(worker.report, _READ_BYTES)
        except BlockingIOError:
            return
        for message in worker.lines.feed(data):
            worker.beat_at = self._clock()
            worker.blocked = False
            event = message.get("event")
            if event == "ready" and self._move(worker, WORKER_READY):
                self._became_ready(worker)
            elif event == "retire" and not self._stopping:
                self._grant(worker, str(message.get("reason")))
            elif event == "failed":
                worker.hopeless = True
            elif event == "stopping" and self._move(worker, WORKER_STOPS):
                # A worker that others have told to stop accepts nobody any more, so another is due now.
                logger.info("%s stops", worker)
        if not data and worker.report in self._heard:
            # The pipe is closed, so the process ends, and would be heard for ever until it has.
            self._heard.discard(worker.report)
            self._selector.unregister(worker.report)

    # A worker asks for another in its place. A limit that is too low must not keep the machine busy with starts.
    def _grant(self, worker: WorkerProcess, reason: str) -> None:
        if worker.replace_reason or worker.phase >= RETIRING:
            return
        worker.replace_reason = reason
        if worker.serves:
            worker.replace_from = worker.due_at if worker.phase == READY else 0.0
            self._hopeless = 0
            return
        self._hopeless += 1
        delay = min(_SETTLED_SECONDS * 2.0 ** (self._hopeless - 1), _HOPELESS_MAX_SECONDS)
        worker.replace_from = self._clock() + delay
        logger.warning("%s is over its limit before it serves: %s; it stays for %g s", worker, reason, delay)

    def _became_ready(self, worker: WorkerProcess) -> None:
        self._unready = 0
        self._reloading.succeeded()
        logger.info("%s is ready", worker)
        old, worker.replaces = worker.replaces, None
        if old is not None:
            old.replaced_by = None
            self._retire(old)
        if not self._announced:
            self._announced = True
            self._notifier.send("READY=1")

    def _reap(self) -> None:
        for worker in list(self._workers):
            code = worker.process.poll()
            if code is None:
                continue
            self._hear(worker)
            self._workers.remove(worker)
            if worker in self._to_roll:
                self._to_roll.remove(worker)
            phase, due_at, replaced = worker.phase, worker.due_at, worker.replaces
            self._move(worker, EXIT)
            self._forget(worker)
            if phase == SETTLED or (phase == READY and self._clock() >= due_at):
                logger.error("%s %s; another takes its place", worker, ending(code))
            elif phase < RETIRING:
                self._failed(worker, code, phase == READY, replaced)
            elif code and phase == RETIRING:
                logger.warning("%s, which was about to end, %s", worker, ending(code))
            else:
                logger.info("%s has ended", worker)

    # The supervisor itself starts nothing but workers.
    def _reap_orphans(self) -> None:
        workers = {worker.process.pid for worker in self._workers}
        with contextlib.suppress(ChildProcessError):  # there are no more
            while True:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None or ended.si_pid in workers:
                    return
                os.waitpid(ended.si_pid, 0)

    # A worker has ended before it was ready, or soon after.
    def _failed(self, worker: WorkerProcess, code: int, was_ready: bool, replaced: WorkerProcess | None) -> None:
        how = ending(code)
        now = self._clock()
        if replaced is not None and replaced.phase < RETIRING:
            logger.error("%s, which was to replace %s, %s", worker, replaced, how)
            if self._watcher is not None and self._announced and not worker.hopeless:
                logger.warning("The new code may need what the old holds: the old ends, then the new starts once more")
                self._reloading.go_alone()
                self._retire(replaced)
                return
            self._end_roll("the new code does not start; the old goes on")
            if replaced.replace_reason:
                self._failures += 1
                logger.info("The next try is in %.1f s", self._back_off(now))
            return
        if self._stopping:
            return
        self._failures += 1
        if not was_ready and not self._is_worth_another(worker, how):
            self._exit_code = code if code > 0 else 1
            self._stop()
            return
        if self._reloading.waits:
            logger.error("%s %s: the next change is the next try, and clients wait until then", worker, how)
            self._end_roll("the new code does not start, and the old has ended")
            return
        limit = _BACK_OFF_SERVED_MAX_SECONDS if was_ready else _BACK_OFF_MAX_SECONDS
        logger.error("%s %s; the next starts in %.1f s", worker, how, self._back_off(now, limit))

    # Whether another worker is started after one that did not become ready. Under --reload it always is, for the
    # developer will mend the code and need not start the server again.
    def _is_worth_another(self, worker: WorkerProcess, how: str) -> bool:
        self._unready += 1
        if not self._announced:
            return False
        hopeless = self._unready >= _UNREADY_MAX and not any(other.serves for other in self._workers)
        if self._watcher is None and hopeless:
            logger.critical("%s %s, as %d before it: giving up", worker, how, self._unready - 1)
            return False
        if hopeless or self._reloading.alone:
            self._reloading.failed()
        return True

    def _back_off(self, now: float, limit: float = _BACK_OFF_MAX_SECONDS) -> float:
        delay: float = min(_BACK_OFF_FIRST_SECONDS * 2.0 ** min(self._failures - 1, 10), limit)
        self._spawn_at = now + delay
        return delay

    def _check(self, now: float) -> None:
        for worker in list(self._workers):
            if now >= worker.due_at:
                self._time_is_up(worker)
            if worker.serves and self._is_blocked(worker, now):
                # A blocked worker accepts nobody; the others do.
                worker.blocked = True
                silence = f"nothing was heard of it for {now - worker.beat_at:.0f} s"
                worker.replace_reason = worker.replace_reason or silence
                self._replace(worker, worker.replace_reason)

    def _time_is_up(self, worker: WorkerProcess) -> None:
        if worker.phase == STARTING:
            limit = self._config.worker_start_timeout
            logger.error("%s has not started within %g s: it is killed", worker, limit)
        elif worker.phase == RETIRING:
            logger.error("%s does not end in time: it is killed", worker)
        if self._move(worker, TIME_UP):
            if worker.phase == SETTLED:
                self._failures = 0
        # The kernel may not end a process that is killed, such as one in a call to a file server that is gone.
        elif self._stopping and self._move(worker, ABANDON):
            logger.error("%s was killed and does not end: it is left behind", worker)
            self._workers.remove(worker)
            self._forget(worker)

    def _is_blocked(self, worker: WorkerProcess, now: float) -> bool:
        # Under --reload it may be a debugger that holds it.
        limit = 0.0 if self._config.reload else self._config.worker_timeout
        return limit > 0 and not worker.blocked and now - worker.beat_at >= limit

    # -- how many --------------------------------------------------------------------------------------------

    def _keep_count(self, now: float) -> None:
        # The first must have started before the others are: its failure is everybody's.
        if not self._announced or self._reloading.holds(self._workers):
            return
        current = [worker for worker in self._workers if worker.phase < RETIRING and worker.replaces is None]
        if now >= self._spawn_at:
            for worker in current:
                wanted = worker.replace_reason and worker.replaced_by is None and now >= worker.replace_from
                if wanted and self._has_room():
                    self._replace(worker, worker.replace_reason)
        missing = self._count - len(current)
        if missing > 0 and now >= self._spawn_at:
            for _ in range(missing):
                if now >= self._spawn_at:
                    self._spawn()
        elif missing < 0:
            # Workers that serve nobody go first, so that a new one which does not start never costs one that serves.
            for worker in sorted(current, key=lambda one: (one.serves, not one.blocked, one.started_at))[:-missing]:
                self._retire(worker)

    def _roll_on(self) -> None:
        if not self._rolling or self._reloading.alone or any(self._is_awaited(worker) for worker in self._workers):
            return
        while self._to_roll:
            if not self._has_room():
                return
            worker = self._to_roll.pop(0)
            if worker in self._workers and worker.phase < RETIRING:
                if self._reloading.exclusive:
                    logger.info("%s ends first: the code holds what one process alone can", worker)
                    self._reloading.go_alone()
                    self._retire(worker)
                else:
                    self._replace(worker, "all workers are")
                return
        self._end_roll("")

    # Workers that drain take memory as long as their last request. New ones wait for them; not for ever, since every
    # end has its limit.
    def _has_room(self) -> bool:
        return sum(worker.phase >= RETIRING for worker in self._workers) < _DRAINING_MAX * self._count

    # A worker that is itself due for replacement is not awaited: its old code may hang.
    def _is_awaited(self, worker: WorkerProcess) -> bool:
        return worker.replaces is not None or (worker.phase < READY and worker not in self._to_roll)

    def _end_roll(self, failure: str) -> None:
        if not self._rolling:
            return
        self._rolling = False
        self._to_roll = []
        if failure:
            logger.error("The workers are not replaced: %s", failure)
        else:
            logger.info("All workers are replaced")
        self._notifier.send("READY=1")

    def _look_for_changes(self, now: float) -> None:
        if self._watcher is None or now < self._look_at:
            return
        changed = self._watcher()
        self._look_at = self._clock() + 0.2
        if changed:
            shown = ", ".join(changed[:3]) + (" and others" if len(changed) > 3 else "")
            logger.info("%s changed", shown)
            for worker in self._workers:
                # A worker that starts does so with the old code. The first of all may hang with that, and is replaced.
                if worker.phase < READY and (self._announced or worker.replaces is not None):
                    self._move(worker, KILL)
            self._rolling = True
            self._to_roll = [worker for worker in self._workers if worker.phase < RETIRING and worker.replaces is None]
            self._reloading.begin()

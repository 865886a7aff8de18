"""One worker as its supervisor sees it: the process, its two pipes, its phase, and what it has said."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daphne_ng.config import Config
from daphne_ng.net.sockets.sharing import SharedSocket
from daphne_ng.supervisor.phases import NEXT, READY, RETIRING, STARTING
from daphne_ng.supervisor.protocol import ENVIRONMENT, Assignment, LineReader

__all__ = ["Launcher", "WorkerProcess", "ending"]

# Signals that are for the supervisor alone, or that end a process which has no handlers yet.
_BLOCKED_UNTIL_HANDLERS = frozenset((signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))


class WorkerProcess:
    """A worker from its start to its end.

    Args:
        number: From 1, never used again.
        process: A `subprocess.Popen`.
        report: Descriptor to read its messages from.
        orders: Descriptor to write orders to.
        started_at: Time on the supervisor's clock, in seconds.
    """

    def __init__(
        self, number: int, process: subprocess.Popen[bytes], report: int, orders: int, started_at: float
    ) -> None:
        self.number = number
        self.process = process
        self.report = report
        self.orders = orders
        self.lines = LineReader()
        self.started_at = self.beat_at = started_at
        self.phase = STARTING
        """See `daphne_ng.supervisor.phases`; `advance` changes it."""
        self.due_at = math.inf
        """When the time for the phase is up, on the supervisor's clock; infinity where nothing hurries."""
        self.replaces: WorkerProcess | None = None
        """The worker that is told to stop when this one is ready."""
        self.replaced_by: WorkerProcess | None = None
        """The worker that is started in its place."""
        self.replace_reason = ""
        """Why it is to be replaced, and again until another is ready in its place; empty if it may stay."""
        self.replace_from = 0.0
        """When that may begin, on the supervisor's clock."""
        self.blocked = False
        """Whether nothing is heard of it. No phase, for it may pass."""
        self.hopeless = False
        """Whether it has said that its failure is the code's own, so that another one would fail in the same way."""

    def advance(self, happened: int) -> bool:
        """Move to the phase that an input leads to.

        Args:
            happened: An input of `daphne_ng.supervisor.phases`.

        Returns:
            Whether the worker has moved; the caller then sets `due_at`. An input that the table does not know in this
            phase changes nothing.
        """
        phase = NEXT.get((self.phase, happened))
        if phase is None:
            return False
        self.phase = phase
        return True

    @property
    def serves(self) -> bool:
        """Whether it has become ready, and its end has not begun."""
        return READY <= self.phase < RETIRING

    def order(self, order: bytes) -> None:
        """Give it an order; lost if it is ending, or has not read thousands of orders."""
        with contextlib.suppress(OSError):
            os.write(self.orders, order)

    def close(self) -> None:
        """Close the pipes."""
        os.close(self.report)
        os.close(self.orders)

    def __str__(self) -> str:
        return f"Worker {self.number} (process {self.process.pid})"


class Launcher:
    """Starts workers.

    Args:
        command: The program and its arguments.
        config: Says as whom they run.
        shared: The sockets that they listen on.
        run_id: The same for all workers of this supervisor, and different in its next run.
        compiles: Whether they may leave compiled modules behind.
        popen: Starts a process, as `subprocess.Popen`.
    """

    def __init__(
        self,
        command: Sequence[str],
        config: Config,
        shared: Sequence[SharedSocket],
        run_id: str,
        compiles: bool,
        popen: Callable[..., Any],
    ) -> None:
        self._command = list(command)
        self._config = config
        self._shared = list(shared)
        self._run_id = run_id
        self._compiles = compiles
        self._popen = popen
        self.environment: Mapping[str, str] = {}
        """Variables that the next workers get besides those of this process."""

    def start(self, number: int, now: float) -> WorkerProcess:
        """Start a worker.

        Args:
            number: Its number.
            now: The time on the supervisor's clock, in seconds.

        Raises:
            OSError: The system has no process or descriptor to give, or the interpreter cannot be run.
            subprocess.SubprocessError: The same, between fork and exec.
            KeyError: The user or the group does not exist any more.
        """
        identity, environment = _identity(self._config)
        (report, report_write), (orders_read, orders) = _two_pipes()
        os.set_blocking(report, False)
        os.set_blocking(orders, False)
        assignment = Assignment(number, report_write, orders_read, self._shared, self._run_id)
        descriptors = [report_write, orders_read, *(one.fileno for one in self._shared if one.fileno >= 0)]
        if not self._compiles:
            # A compiled module is found again by the source's size and its time in whole seconds. A file that is saved
            # twice within a second would be served as it was first.
            environment = environment | {"PYTHONDONTWRITEBYTECODE": "1"}
        # A worker inherits the blocked signals, and unblocks them when it has handlers. It stays in our process group,
        # so that a debugger in it can read from the terminal.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED_UNTIL_HANDLERS)
        try:
            process = self._popen(
                self._command,
                env=os.environ | environment | dict(self.environment) | {ENVIRONMENT: assignment.to_environment()},
                pass_fds=descriptors,
                **identity,
            )
        except BaseException:
            os.close(report)
            os.close(orders)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(report_write)
            os.close(orders_read)
        return WorkerProcess(number, process, report, orders, now)


# Two pipes, or none and no descriptor left over.
def _two_pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    one = os.pipe()
    try:
        return one, os.pipe()
    except OSError:
        for end in one:
            os.close(end)
        raise


def ending(code: int) -> str:
    """Say how a process ended whose `Popen` has this return code."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a signal for real time
        return f"was killed by signal {-code}"


# The user and the groups of a worker: keywords of Popen, and the variables that describe a user.
def _identity(config: Config) -> tuple[dict[str, Any], dict[str, str]]:
    import grp
    import pwd

    keywords: dict[str, Any] = {}
    environment = {}
    if config.user:
        entry = pwd.getpwuid(int(config.user)) if config.user.isdigit() else pwd.getpwnam(config.user)
        others = [group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem]
        keywords = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": others}
        environment = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    if config.group:
        keywords["group"] = int(config.group) if config.group.isdigit() else config.group
        keywords["extra_groups"] = []
    return keywords, environment

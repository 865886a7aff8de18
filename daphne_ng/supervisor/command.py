"""What the command line does besides making a server: one process or several, and its place in the system."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError
from daphne_ng.supervisor.notify import Notifier

__all__ = [
    "become_worker",
    "forget_unprintable",
    "handle_log_signals",
    "needs_supervisor",
    "open_standard_descriptors",
    "pid_file",
    "supervise",
    "worker_count",
]

logger = logging.getLogger(__name__)


def worker_count(config: Config) -> int:
    """Return how many workers are asked for; ``auto`` counts the processors that this process may use."""
    if config.reload:
        return 1
    if config.workers != "auto":
        return int(config.workers)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def needs_supervisor(config: Config) -> bool:
    """Tell whether a setting needs more than one process."""
    return bool(
        worker_count(config) > 1
        or config.reload
        or config.limit_max_requests
        or config.limit_worker_memory
        or config.worker_max_age
        or config.user
        or config.group
    )


def supervise(endpoints: list[str], config: Config, notifier: Notifier) -> int:
    """Open the sockets and run workers on them until told to stop; return the exit code.

    Raises:
        ConfigurationError: An endpoint cannot be listened on or shared, or a user or group does not exist.
    """
    # Both import Twisted.
    from daphne_ng.supervisor.sockets import SharedSockets
    from daphne_ng.supervisor.supervisor import Supervisor, command_of_this_process

    if sys.platform == "win32":
        raise ConfigurationError("--workers and --reload need a POSIX system")
    _check_identity(config)
    if config.reuse_port and config.user:
        raise ConfigurationError("--user: not with --reuse-port, since all who listen must be the same user's")
    watcher: Any = None
    if config.reload:
        from daphne_ng.supervisor.reload import watcher_for

        for directory in config.reload_dirs:
            if not os.path.isdir(directory):
                raise ConfigurationError(f"--reload-dir: {directory!r} is not a directory")
        watcher = watcher_for(config.reload_dirs, config.reload_includes, config.reload_excludes)
    sockets = SharedSockets(endpoints, config)
    try:
        return Supervisor(sockets, config, worker_count(config), command_of_this_process(), notifier, watcher).run()
    finally:
        if watcher is not None:
            watcher.close()


def _check_identity(config: Config) -> None:
    import grp
    import pwd

    look_ups: list[tuple[str, str, Callable[[str], object], Callable[[int], object]]] = [
        ("user", config.user, pwd.getpwnam, pwd.getpwuid),
        ("group", config.group, grp.getgrnam, grp.getgrgid),
    ]
    for kind, name, by_name, by_number in look_ups:
        if not name:
            continue
        if os.geteuid() != 0:
            raise ConfigurationError(f"--{kind} can be used by root only")
        try:
            by_number(int(name)) if name.isdigit() else by_name(name)
        except KeyError:
            raise ConfigurationError(f"--{kind}: there is no {kind} {name!r}") from None


def open_standard_descriptors() -> None:
    """Have something behind descriptors 0, 1 and 2, where a process was started without (``<&-``).

    Else the next socket would be one of them, and would get what somebody prints. libuv aborts when it closes one.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)


def forget_unprintable() -> None:
    """Throw away what standard output and error hold and cannot get rid of: a terminal or a pipe that is gone.

    To be called last. Else the interpreter tries once more, and exits with 120 whatever the exit code was.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except AttributeError:  # there is none
            continue
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                opened = os.open(os.devnull, os.O_WRONLY)
                os.dup2(opened, stream.fileno())
                os.close(opened)


@contextlib.contextmanager
def pid_file(path: str) -> Iterator[None]:
    """Keep the process id in a file while the ``with`` block runs.

    The file is locked meanwhile. So one that was left behind is no obstacle, not even where its number belongs to
    another process by now, as it soon does in a container.

    Raises:
        ConfigurationError: It cannot be written, or a process that runs holds it.
    """
    if not path:
        yield
        return
    if sys.platform == "win32":
        raise ConfigurationError("--pid needs a POSIX system")
    try:
        descriptor = _locked(path)
    except OSError as error:
        raise ConfigurationError(f"--pid: {path}: {error.strerror}") from error
    try:
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        except OSError as error:
            raise ConfigurationError(f"--pid: {path}: {error.strerror}") from error
        yield
    finally:
        # Somebody else's by now, perhaps.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.unlink(path)
        os.close(descriptor)


def _locked(path: str) -> int:
    import fcntl

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            # It is removed at the end, and must not be /dev/null.
            os.close(descriptor)
            raise ConfigurationError(f"--pid: {path} is no ordinary file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it just now.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            holder = os.read(descriptor, 32).strip().decode("ascii", "replace")
            os.close(descriptor)
            raise ConfigurationError(f"--pid: {path} belongs to process {holder}, which runs") from None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def become_worker(assigned: str) -> Any:
    """Prepare for what is not for this process alone, or not for its children: signals and descriptors.

    To be called early. The supervisor has started this process with these signals blocked; `handle_log_signals` takes
    them later.

    Args:
        assigned: The value of the supervisor's variable.

    Returns:
        An `Inherited`.
    """
    from daphne_ng.supervisor.inherited import Inherited
    from daphne_ng.supervisor.protocol import ENVIRONMENT, Assignment

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assignment = Assignment.from_environment({ENVIRONMENT: assigned})
    assert assignment is not None  # it is there
    return Inherited(assignment)


def handle_log_signals(server: Callable[[], Any], access_log: Any) -> None:
    """Have SIGUSR1 open log files again, and SIGUSR2 write what the server does to the log.

    Args:
        server: Returns the server; None before there is one.
        access_log: The action logger.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return

    def reopen() -> None:
        if hasattr(access_log, "reopen"):
            access_log.reopen()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()  # it opens its file again at the next record

    def take_reopen(number: int, frame: Any) -> None:
        # Between two lines, and not in the midst of one.
        getattr(server(), "soon", _at_once)(reopen)

    def take_describe(number: int, frame: Any) -> None:
        # At once: the loop may be what is stuck.
        for text in getattr(server(), "describe", _nothing)():
            logger.warning("%s", text)

    signal.signal(signal.SIGUSR1, take_reopen)
    signal.signal(signal.SIGUSR2, take_describe)
    signal.pthread_sigmask(
        signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    )


def _at_once(function: Callable[[], object]) -> None:
    function()


def _nothing() -> Iterator[str]:
    yield "The server has not started"

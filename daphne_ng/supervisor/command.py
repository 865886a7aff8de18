"""What the command line does besides making a server: one process or several, and its place in the system."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError, DaphneError
from daphne_ng.supervisor.notify import Notifier

__all__ = [
    "Renewal",
    "become_worker",
    "forget_unprintable",
    "handle_log_signals",
    "heed_signals",
    "needs_supervisor",
    "open_standard_descriptors",
    "pid_file",
    "supervise",
    "tell_failure",
    "worker_count",
]

logger = logging.getLogger("daphne_ng.supervisor.command")


# So many others may make the file of the process id, or remove it, between a look at it and what is done about that.
_PID_FILE_TRIES = 50


class Renewal(NamedTuple):
    """What workers are told of the settings, and how a supervisor reads them again."""

    environment: Mapping[str, str]
    """Variables for the workers."""
    again: Callable[[], tuple[Config, Mapping[str, str]] | None] | None
    """Reads the settings again and returns them with the workers' variables; None where nothing is read again."""


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


def supervise(
    endpoints: list[str],
    config: Config,
    notifier: Notifier,
    command: list[str] | None = None,
    renewal: Renewal | None = None,
) -> int:
    """Open the sockets and run workers on them until told to stop; return the exit code.

    Args:
        endpoints: Endpoint strings.
        config: The settings.
        notifier: Tells systemd.
        command: What starts a worker; None for the command of this process.
        renewal: What the workers are told, and how SIGHUP reads the settings again.

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
        return Supervisor(
            sockets,
            config,
            worker_count(config),
            command or command_of_this_process(),
            notifier,
            watcher,
            renewal=renewal,
        ).run()
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


def heed_signals() -> None:
    """Have SIGINT and SIGTERM end the process where whoever has started it had them ignored.

    As SIGINT is for what a script has started with ``&``. Whoever sends it by hand wants the end, also while the
    application is imported.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


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
            os.write(descriptor, b"%d\n" % os.getpid())
        except OSError as error:
            raise ConfigurationError(f"--pid: {path}: {error.strerror}") from error
        yield
    finally:
        # Somebody else's by now, perhaps.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                os.unlink(path)
        os.close(descriptor)


# A file of ours that nobody else can have made, opened or linked to something else before: in a directory of another
# user, one that is there already may be a link to any file of the system, or open in a process of theirs.
def _locked(path: str) -> int:
    for _ in range(_PID_FILE_TRIES):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            if not _remove_left_behind(path) and (own := _left_for_us(path)) is not None:
                return own
            continue
        if _take_lock(descriptor, path):
            return descriptor
        os.close(descriptor)  # another one has seen it without a lock, and has removed it
    raise ConfigurationError(f"--pid: somebody else makes {path} again and again")


# Unless a process holds it; whether the directory lets us.
def _remove_left_behind(path: str) -> bool:
    if os.path.islink(path):
        raise ConfigurationError(f"--pid: {path} is a symbolic link, which is not followed")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            # The file is removed at the end, so it must not be /dev/null.
            raise ConfigurationError(f"--pid: {path} is no ordinary file")
        held = _take_lock(descriptor, path)
        if held:
            os.unlink(path)
        elif held is False:
            holder = os.read(descriptor, 32).strip().decode("ascii", "replace")
            raise ConfigurationError(f"--pid: {path} belongs to process {holder}, which runs")
        return True
    except PermissionError:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise
        return False
    finally:
        os.close(descriptor)


# Made for this user by root, in a directory where this user can neither make nor remove anything. None if it has gone.
def _left_for_us(path: str) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if _take_lock(descriptor, path) and os.fstat(descriptor).st_uid == os.geteuid():
        os.ftruncate(descriptor, 0)
        return descriptor
    os.close(descriptor)
    return None


# Whether the lock is ours now; None if the file is not the one of this name any more.
def _take_lock(descriptor: int, path: str) -> bool | None:
    import fcntl

    locked = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        locked = False
    # The process that held the lock may have removed the file just now.
    try:
        same = os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        same = False
    return locked if same else None


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


def tell_failure(assigned: str, error: DaphneError) -> None:
    """Tell the supervisor that this process does not start, if the next one would fail in the same way.

    Args:
        assigned: The value of the supervisor's variable; empty where there is none.
        error: Why it does not start.
    """
    from daphne_ng.supervisor.protocol import ENVIRONMENT, Assignment, line
    from daphne_ng.supervisor.reloading import is_codes_own

    if assigned and is_codes_own(error, DaphneError):
        assignment = Assignment.from_environment({ENVIRONMENT: assigned})
        assert assignment is not None  # it is there
        with contextlib.suppress(OSError):
            os.write(assignment.report, line("failed"))


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

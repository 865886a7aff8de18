"""What the command line does besides making a server: one process or several, and its place in the system."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError
from daphne_ng.supervisor.notify import Notifier

__all__ = ["handle_log_signals", "needs_supervisor", "pid_file", "report_to_system", "supervise", "worker_count"]

logger = logging.getLogger(__name__)


def worker_count(config: Config) -> int:
    """Return how many workers are asked for; ``auto`` counts the processors that this process may use."""
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


def supervise(endpoints: list[str], config: Config) -> int:
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
    watcher: Any = None
    if config.reload:
        from daphne_ng.supervisor.reload import watcher_for

        for directory in config.reload_dirs:
            if not os.path.isdir(directory):
                raise ConfigurationError(f"--reload-dir: {directory!r} is not a directory")
        watcher = watcher_for(config.reload_dirs, config.reload_includes, config.reload_excludes)
    sockets = SharedSockets(endpoints, config)
    for address in sockets.addresses():
        if hasattr(address, "port"):
            logger.info("Listening on TCP address %s:%s", address.host, address.port)
        elif getattr(address, "name", None):
            logger.info("Listening on UNIX socket %s", os.fsdecode(address.name).replace("\0", "@"))
    try:
        return Supervisor(sockets, config, worker_count(config), command_of_this_process(), Notifier(), watcher).run()
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


@contextlib.contextmanager
def pid_file(path: str) -> Iterator[None]:
    """Keep the process id in a file while the ``with`` block runs.

    Raises:
        ConfigurationError: It cannot be written, or names a process that is alive.
    """
    if not path:
        yield
        return
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        other = int(file.read())
        if other != os.getpid() and _is_alive(other):
            raise ConfigurationError(f"--pid: {path} names process {other}, which is alive")
    text = f"{os.getpid()}\n"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"--pid: {path}: {error.strerror}") from error
    try:
        yield
    finally:
        # Somebody else's by now, perhaps.
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            if file.read() == text:
                os.unlink(path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def report_to_system(server: Any, notifier: Notifier) -> None:
    """Tell systemd what a server of one process does."""
    told = server.ready_callable

    def ready() -> None:
        import asyncio

        notifier.send("READY=1", "STATUS=Serving")
        if notifier.watchdog_seconds:
            ping(asyncio.get_running_loop(), notifier.watchdog_seconds)
        if told is not None:
            told()

    def ping(loop: Any, seconds: float) -> None:
        notifier.send("WATCHDOG=1")
        loop.call_later(seconds, ping, loop, seconds)

    server.ready_callable = ready
    server.stopping_callable = lambda: notifier.send("STOPPING=1")


def handle_log_signals(server: Any, access_log: Any) -> None:
    """Have SIGUSR1 open log files again, and SIGUSR2 write what the server does to the log."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return

    def reopen(number: int, frame: Any) -> None:
        if hasattr(access_log, "reopen"):
            access_log.reopen()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()  # it opens its file again at the next record

    def describe(number: int, frame: Any) -> None:
        for text in server.describe():
            logger.warning("%s", text)

    signal.signal(signal.SIGUSR1, reopen)
    signal.signal(signal.SIGUSR2, describe)

"""The settings of the processes: workers, their replacement, reloading, what each runs on, and is to the system."""

from __future__ import annotations

import re
from dataclasses import dataclass

from daphne_ng.config.setting import setting
from daphne_ng.errors import ConfigurationError

__all__ = ["ProcessSettings", "check_alone", "check_processes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """The part of `Config` that the command line reads.

    A `Server` is one process, to which `loop` and `stock_reactor` alone matter.
    """

    workers: str | int = setting(
        "1",
        "Processes",
        "how many processes serve, or auto for the number of processors",
        flags=("--workers",),
        why="As Daphne; memory grows with every process.",
    )
    limit_workers: int = setting(
        64,
        "Processes",
        "most processes that SIGTTIN can ask for, unless there were more from the start",
        flags=("--limit-workers",),
        minimum=1,
        why="Far above what any machine of today needs; a signal sent in a loop should not exhaust it.",
    )
    limit_max_requests: int = setting(
        0,
        "Processes",
        "requests after which a worker is replaced; 0 for no limit",
        flags=("--limit-max-requests",),
        minimum=0,
        why="Off: for applications that leak.",
    )
    limit_max_requests_jitter: int = setting(
        0,
        "Processes",
        "most requests that are added to the limit of each worker at random",
        flags=("--limit-max-requests-jitter",),
        minimum=0,
        why="So that not all are replaced at the same time.",
    )
    limit_worker_memory: int = setting(
        0,
        "Processes",
        "resident memory at which a worker is replaced; 0 for no limit",
        flags=("--limit-worker-memory",),
        unit="bytes",
        minimum=0,
    )
    worker_max_age: float = setting(
        0.0,
        "Processes",
        "age at which a worker is replaced; 0 for no limit",
        flags=("--worker-max-age",),
        unit="seconds",
        minimum=0,
    )
    worker_start_timeout: float = setting(
        120.0,
        "Processes",
        "time for a worker to load the application and to listen, before it is ended",
        flags=("--worker-start-timeout",),
        unit="seconds",
        minimum=1,
        why="Longer than the lifespan's own limit.",
    )
    worker_blocked_warning: float = setting(
        5.0,
        "Processes",
        "time that a worker's event loop may be blocked before its stack is logged; 0 for any",
        flags=("--worker-blocked-warning",),
        unit="seconds",
        minimum=0,
        why="While it is blocked nobody on that worker is served.",
    )
    worker_timeout: float = setting(
        60.0,
        "Processes",
        "time that a worker's event loop may be blocked before the worker is replaced; 0 for any",
        flags=("--worker-timeout",),
        unit="seconds",
        minimum=0,
    )
    reload: bool = setting(
        False,
        "Processes",
        "for development: serve with new code when a file changes",
        flags=("--reload",),
        kind="flag",
    )
    reload_dirs: tuple[str, ...] = setting(
        (),
        "Processes",
        "directory to watch; may be repeated (default: the current one, and where the application is imported from)",
        flags=("--reload-dir",),
        kind="texts",
    )
    reload_includes: tuple[str, ...] = setting(
        ("*.py",),
        "Processes",
        "pattern of more names of files that count; may be repeated",
        flags=("--reload-include",),
        kind="texts",
    )
    reload_excludes: tuple[str, ...] = setting(
        (".*", "__pycache__", "node_modules", "*.pyc"),
        "Processes",
        "pattern of more names of files and directories that do not count; may be repeated",
        flags=("--reload-exclude",),
        kind="texts",
    )
    pid_file: str = setting(
        "",
        "Processes",
        "file to write the process id to",
        flags=("--pid",),
    )
    user: str = setting(
        "",
        "Processes",
        "user that the workers run as, who then load the application; sockets are opened before",
        flags=("--user",),
    )
    group: str = setting(
        "",
        "Processes",
        "group that the workers run as (default: the user's)",
        flags=("--group",),
    )
    loop: str = setting(
        "auto",
        "Application",
        "event loop: uvloop's, asyncio's own, or auto for uvloop's where it is installed",
        flags=("--loop",),
        choices=("auto", "uvloop", "asyncio"),
        why="uvloop is faster. What works on asyncio's own loop alone, such as nest_asyncio, needs that.",
    )
    stock_reactor: bool = setting(
        False,
        "Application",
        "have Twisted's own AsyncioSelectorReactor as the global reactor, for code that compares its class",
        flags=("--stock-reactor",),
        kind="flag",
        why="daphne-ng's is a subclass with faster transports.",
    )
    umask: str = setting(
        "",
        "Processes",
        "umask of the process, in octal",
        flags=("--umask",),
    )


def check_processes(config: ProcessSettings) -> None:
    """Check what the settings' own limits do not say.

    Raises:
        ConfigurationError: Names the flag and the rule.
    """
    workers = config.workers
    if isinstance(workers, bool) or not isinstance(workers, str | int):
        raise ConfigurationError(f"--workers must be a number from 1 on, or auto, not {workers!r}")
    text = str(workers)
    object.__setattr__(config, "workers", text)  # one spelling for whoever asks
    if text != "auto" and not (re.fullmatch("[0-9]{1,4}", text, re.ASCII) and int(text)):
        raise ConfigurationError(f"--workers must be a number from 1 on, or auto, not {config.workers!r}")
    if config.umask and not re.fullmatch("[0-7]{1,4}", config.umask, re.ASCII):
        raise ConfigurationError(f"--umask must be an octal number, such as 027, not {config.umask!r}")
    if config.reload and config.workers not in ("1", "auto"):
        raise ConfigurationError("--reload is for development, with one worker: leave --workers out")


# What the command line sees to, and a `Server` does not.
_OF_PROCESSES = (
    "workers",
    "reload",
    "limit_max_requests",
    "limit_worker_memory",
    "worker_max_age",
    "pid_file",
    "user",
    "group",
    "umask",
)


def check_alone(config: ProcessSettings) -> None:
    """Check that nothing is asked for that takes more than one `Server` in a process that is not its own.

    Raises:
        ConfigurationError: Names the setting.
    """
    defaults = ProcessSettings()
    for name in _OF_PROCESSES:
        if getattr(config, name) != getattr(defaults, name):
            raise ConfigurationError(
                f"{name}: a Server is one process, and does not see to that; daphne_ng.run() and the command line do"
            )

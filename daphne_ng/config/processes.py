"""The settings of processes: workers, their replacement, reloading, and what the process is to the system."""

from __future__ import annotations

import re
from typing import Any

from daphne_ng.config.setting import SettingGroup, setting
from daphne_ng.errors import ConfigurationError

__all__ = ["ProcessSettings"]


def _check_workers(label: str, value: Any) -> None:
    is_text = isinstance(value, str | int) and not isinstance(value, bool)
    spelled = str(value) if is_text else value
    valid = is_text and (spelled == "auto" or (re.fullmatch("[0-9]{1,4}", spelled, re.ASCII) and int(spelled)))
    if not valid:
        raise ConfigurationError(f"{label} must be a number from 1 on, or auto, not {spelled!r}")


def _check_umask(label: str, value: str) -> None:
    if value and not re.fullmatch("[0-7]{1,4}", value, re.ASCII):
        raise ConfigurationError(f"{label} must be an octal number, such as 027, not {value!r}")


class ProcessSettings(SettingGroup, heading="Processes"):
    """Processes: the command line and `daphne_ng.run` see to them; a `Server` by itself is one process."""

    workers = setting(
        "1",
        "how many processes serve, or auto for the number of processors",
        flags=("--workers",),
        why="As Daphne; memory grows with every process.",
        kind="any",
        check=_check_workers,
        keep=str,
        process_wide=True,
    )
    limit_workers = setting(
        64,
        "most processes that SIGTTIN can ask for, unless there were more from the start",
        flags=("--limit-workers",),
        minimum=1,
        why="Far above what any machine of today needs; a signal sent in a loop should not exhaust it.",
    )
    limit_max_requests = setting(
        0,
        "requests after which a worker is replaced; 0 for no limit",
        flags=("--limit-max-requests",),
        minimum=0,
        why="Off: for applications that leak.",
        process_wide=True,
    )
    limit_max_requests_jitter = setting(
        0,
        "most requests that are added to the limit of each worker at random",
        flags=("--limit-max-requests-jitter",),
        minimum=0,
        why="So that not all are replaced at the same time.",
    )
    limit_worker_memory = setting(
        0,
        "resident memory at which a worker is replaced; 0 for no limit",
        flags=("--limit-worker-memory",),
        unit="bytes",
        minimum=0,
        process_wide=True,
    )
    worker_max_age = setting(
        0.0,
        "age at which a worker is replaced; 0 for no limit",
        flags=("--worker-max-age",),
        unit="seconds",
        minimum=0,
        process_wide=True,
    )
    worker_start_timeout = setting(
        120.0,
        "time for a worker to load the application and to listen, before it is ended",
        flags=("--worker-start-timeout",),
        unit="seconds",
        minimum=1,
        why="Longer than the lifespan's own limit.",
    )
    worker_blocked_warning = setting(
        5.0,
        "time that a worker's event loop may be blocked before its stack is logged; 0 for any",
        flags=("--worker-blocked-warning",),
        unit="seconds",
        minimum=0,
        why="While it is blocked nobody on that worker is served.",
    )
    worker_timeout = setting(
        60.0,
        "time that a worker's event loop may be blocked before the worker is replaced; 0 for any",
        flags=("--worker-timeout",),
        unit="seconds",
        minimum=0,
    )
    reload = setting(
        False,
        "for development: serve with new code when a file changes",
        flags=("--reload",),
        kind="flag",
        process_wide=True,
    )
    reload_dirs = setting(
        (),
        "directory to watch; may be repeated (default: the current one, and where the application is imported from)",
        flags=("--reload-dir",),
        kind="texts",
    )
    reload_includes = setting(
        ("*.py",),
        "pattern of more names of files that count; may be repeated",
        flags=("--reload-include",),
        kind="texts",
    )
    reload_excludes = setting(
        (".*", "__pycache__", "node_modules", "*.pyc"),
        "pattern of more names of files and directories that do not count; may be repeated",
        flags=("--reload-exclude",),
        kind="texts",
    )
    pid_file = setting(
        "",
        "file to write the process id to",
        flags=("--pid",),
        process_wide=True,
    )
    user = setting(
        "",
        "user that the workers run as, who then load the application; sockets are opened before",
        flags=("--user",),
        process_wide=True,
    )
    group = setting(
        "",
        "group that the workers run as (default: the user's)",
        flags=("--group",),
        process_wide=True,
    )
    umask = setting(
        "",
        "umask of the process, in octal",
        flags=("--umask",),
        check=_check_umask,
        process_wide=True,
    )

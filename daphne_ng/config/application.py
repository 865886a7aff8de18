"""The settings of the application's surroundings: event loop, threads, lifespan, the path at which it is mounted."""

from __future__ import annotations

import re

from daphne_ng.config.setting import SettingGroup, setting
from daphne_ng.errors import ConfigurationError

__all__ = ["ApplicationSettings"]


def _check_root_path(label: str, value: str) -> None:
    if value and (value[0] != "/" or re.search(r"[\x00-\x1f\x7f]", value)):
        raise ConfigurationError(f"{label} must begin with a slash, and must not hold control characters")


def _check_whole(label: str, value: float | None) -> None:
    if value is not None and not isinstance(value, int):
        raise ConfigurationError(f"{label} must be a whole number, not {value:g}")


class ApplicationSettings(SettingGroup, heading="Application"):
    """The application's event loop, threads and lifespan, and the path at which it is mounted."""

    loop = setting(
        "auto",
        "event loop: uvloop's, asyncio's own, or auto for uvloop's where it is installed",
        flags=("--loop",),
        choices=("auto", "uvloop", "asyncio"),
        why="uvloop is faster. What works on asyncio's own loop alone, such as nest_asyncio, needs that.",
    )
    stock_reactor = setting(
        False,
        "have Twisted's own AsyncioSelectorReactor as the global reactor, for code that compares its class",
        flags=("--stock-reactor",),
        kind="flag",
        why="daphne-ng's is a subclass with faster transports.",
    )
    root_path = setting(
        "",
        "ASGI root_path: where the application is mounted; the flag is percent-decoded",
        flags=("--root-path",),
        check=_check_root_path,
    )
    lifespan = setting(
        "auto",
        "run the ASGI lifespan protocol: auto ignores applications without it, on requires it",
        flags=("--lifespan",),
        choices=("auto", "on", "off"),
    )
    asgi_threads: int | None = setting(
        None,
        "threads for synchronous code: the size of the event loop's default executor; without it ASGI_THREADS, or "
        "asyncio's own size, 4 more than processors and at most 32",
        flags=("--asgi-threads",),
        minimum=1,
        kind="int",
        why="asyncio's own. Django's synchronous views and the ORM do not run in it: "
        "[how to run Django](../how-to/django-production.md#threads).",
        check=_check_whole,
    )
    file_threads = setting(
        4,
        "threads that read files for `http.response.pathsend` and `http.response.zerocopysend` where those are not in "
        "memory; more such reads wait for each other",
        minimum=1,
        kind="int",
        why="What waits for a disk must not hold up the event loop, and a disk serves few reads at once.",
        check=_check_whole,
    )

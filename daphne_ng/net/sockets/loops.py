"""Which event loop serves: uvloop's where it exists, or asyncio's own. Importing this module makes none."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import platform
import sys

from daphne_ng.errors import ConfigurationError

__all__ = ["check_loop", "kind_of_loop", "new_event_loop"]


def new_event_loop(kind: str = "auto") -> asyncio.AbstractEventLoop:
    """Make an event loop.

    Args:
        kind: ``uvloop``; ``asyncio``; or ``auto`` for the one that serves fastest here: uvloop's on CPython outside
            Windows if it is installed, else asyncio's.

    Raises:
        ConfigurationError: There is no uvloop, and nothing else will do.
    """
    if kind == "uvloop" or (kind == "auto" and _may_have_uvloop()):
        check_loop(kind)
        with contextlib.suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def check_loop(kind: str) -> None:
    """See that there is such a loop, without importing it.

    Raises:
        ConfigurationError: uvloop is asked for, and is not installed.
    """
    if kind == "uvloop" and not (_may_have_uvloop() and _is_installed()):
        raise ConfigurationError("--loop uvloop: uvloop is not installed here; --loop asyncio does without")


def kind_of_loop(loop: asyncio.AbstractEventLoop) -> str:
    """Return ``uvloop`` or ``asyncio``."""
    return "uvloop" if type(loop).__module__.partition(".")[0] == "uvloop" else "asyncio"


def _may_have_uvloop() -> bool:
    return sys.platform != "win32" and platform.python_implementation() == "CPython"


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("uvloop") is not None
    except ValueError:  # a stand-in in sys.modules
        return False

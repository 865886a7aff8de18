"""Setting up `logging` for the command line, and what becomes of Twisted's own log."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from daphne_ng.errors import ConfigurationError

__all__ = ["DEFAULT_FORMAT", "LEVELS", "asyncio_debug", "configure", "configure_twisted_log"]

DEFAULT_FORMAT = "%(asctime)-15s %(levelname)-8s %(message)s"

LEVELS = ("critical", "error", "warning", "info", "debug")
"""What ``--log-level`` takes."""

_QUIETEST, _LOUDEST = 0, 3
_BY_VERBOSITY = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG, 3: logging.DEBUG}

_twisted_log_begun = False


def configure(verbosity: int = 1, log_fmt: str = DEFAULT_FORMAT, log_level: str | None = None) -> None:
    """Set up the root logger as `logging.basicConfig` does; handlers that exist already stay as they are.

    Args:
        verbosity: 0 for warnings, 1 for information, 2 and 3 for debugging; values beyond count as the nearest.
        log_fmt: A ``%``-style format.
        log_level: One of `LEVELS`. Takes the place of what ``verbosity`` says, whoever has set up logging before.

    Raises:
        ConfigurationError: The format or the level is not one.
    """
    level = _BY_VERBOSITY[min(max(verbosity, _QUIETEST), _LOUDEST)]
    if log_level is not None:
        if log_level.lower() not in LEVELS:
            raise ConfigurationError(f"--log-level must be one of {', '.join(LEVELS)}, not {log_level!r}")
        level = logging.getLevelNamesMapping()[log_level.upper()]
    try:
        # Otherwise every line would be a traceback that says what is wrong with the format.
        logging.Formatter(log_fmt).format(logging.makeLogRecord({}))
        logging.basicConfig(level=level, format=log_fmt)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"--log-fmt: {error}") from None
    if log_level is not None:
        logging.getLogger().setLevel(level)


def asyncio_debug(verbosity: int) -> bool:
    """Return whether the event loop should run in its debug mode."""
    return verbosity >= _LOUDEST


def configure_twisted_log(verbosity: int, beginner: Any = None) -> None:
    """Send Twisted's log to `logging` from verbosity 2 on, and drop it below, except for its errors.

    Twisted logs a line per connection, which nobody wants to read; but a failure that it reports (an exception
    in a protocol, a Deferred whose error nobody took) would otherwise vanish, so errors always go to `logging`.

    Does nothing when called again, or when the program has begun Twisted's log itself.
    Standard output and Python's warnings are left alone: Twisted would take both into its log.

    Args:
        verbosity: As for `configure`.
        beginner: The `twisted.logger.LogBeginner` to use, by default the process's own.
    """
    global _twisted_log_begun
    from twisted.logger import (
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        STDLibLogObserver,
        globalLogBeginner,
    )

    if beginner is None:
        if _twisted_log_begun:
            return
        _twisted_log_begun = True
        beginner = globalLogBeginner
    # There is no public way to ask, and asking by beginning again logs a warning and doubles every line.
    if getattr(beginner, "_temporaryObserver", beginner) is None:
        return
    # Any, because zope's interfaces mean nothing to a type checker.
    observer: Any = STDLibLogObserver("twisted")
    if verbosity <= 1:
        at_least_error: Any = LogLevelFilterPredicate(defaultLogLevel=LogLevel.error)
        observer = FilteringLogObserver(observer, [at_least_error])
    show_warning = warnings.showwarning
    beginner.beginLoggingTo([observer], discardBuffer=False, redirectStandardIO=False)
    warnings.showwarning = show_warning

"""Setting up `logging` for the command line, and what becomes of Twisted's own log."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
import warnings
from collections.abc import Collection, Iterator
from typing import Any

from daphne_ng.errors import ConfigurationError
from daphne_ng.serving.outlet import outlet_of

__all__ = [
    "DEFAULT_FORMAT",
    "LEVELS",
    "asyncio_debug",
    "begin_twisted_log",
    "configure",
    "configure_twisted_log",
    "enable_loggers",
    "log_end",
]

DEFAULT_FORMAT = "%(asctime)-15s %(levelname)-8s %(message)s"

LEVELS = ("critical", "error", "warning", "info", "debug")
"""What ``--log-level`` takes."""

_QUIETEST, _LOUDEST = 0, 3
_BY_VERBOSITY = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG, 3: logging.DEBUG}

# Whose loggers are ours: Twisted's has its failures in our protocols.
_OURS = ("daphne_ng", "twisted")
# A logger that no configuration names. If it is disabled, all existing loggers were, as by `logging.config.dictConfig`
# unless 'disable_existing_loggers' is False; a configuration that disables one of ours leaves it alone.
_bystander = logging.getLogger("daphne_ng.logconfig.bystander")

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
        if not logging.getLogger().handlers:
            logging.basicConfig(level=level, format=log_fmt, handlers=[PatientHandler()])
            for handler in logging.getLogger().handlers:
                handler.addFilter(_Unwritten(handler))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"--log-fmt: {error}") from None
    if log_level is not None:
        logging.getLogger().setLevel(level)


class PatientHandler(logging.StreamHandler[Any]):
    """Writes to standard error as `logging.StreamHandler` does, and does not wait for whoever reads it.

    What is not taken waits for the next record, or for the end. Beyond the limit records are lost, and counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._outlet = outlet_of(self.stream)
        self._first = self.stream

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        outlet = self._outlet
        if outlet is None or self.stream is not self._first:  # pytest exchanges it, and others
            super().emit(record)
            return
        try:
            text = self.format(record) + self.terminator
            if outlet.ready():
                self.stream.flush()
                if outlet.lost and not outlet.waiting:
                    text = f"Nobody read this log for a while: {outlet.lost} of its lines are lost\n{text}"
                    outlet.lost = 0
            outlet.put(text.encode("utf-8", "backslashreplace"))
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait for a second at most until everything is taken: the process ends."""
        if self._outlet is not None:
            with contextlib.suppress(OSError):
                self._outlet.drain(1.0)
        else:
            super().flush()


class _Unwritten(logging.Filter):
    """Lets through what no other handler writes to the same stream.

    Django's own handler does while DEBUG is on, and so do those of packages that print to the console and propagate.
    Under a server that sets up no root handler each of their lines comes once.

    Args:
        handler: Whose filter this is.
    """

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter.filter`."""
        stream = getattr(self._handler, "stream", None)
        return not any(_writing(record, (stream,), besides=self._handler))


# The handlers that a record comes to and that write it to one of these streams. No filter of any other is asked: it may
# count what it sees, and let through each line once.
def _writing(
    record: logging.LogRecord, streams: Collection[Any], besides: logging.Handler | None = None
) -> Iterator[logging.Handler]:
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        for handler in logger.handlers:
            stream = getattr(handler, "stream", None)
            if handler is besides or stream is None or not any(stream is one for one in streams):
                continue
            if record.levelno >= handler.level and handler.filter(record):
                yield handler
        logger = logger.parent if logger.propagate else None


def enable_loggers() -> None:
    """Switch the server's loggers on again, if somebody has switched off all loggers that there were.

    To be called when code of the application's has run that may have set up logging. Levels stay, and so does what was
    disabled by name.
    """
    if not _bystander.disabled:
        return
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in _OURS:
            logger.disabled = False


def log_end(logger: logging.Logger, level: int, message: str, error: BaseException | None = None) -> None:
    """Log what ends the process, and write it to standard error unless a handler of the log does that.

    Whatever the application has made of `logging`: nobody should find an exit code and no reason.

    Args:
        logger: Where it belongs.
        level: Of `logging`.
        message: One line.
        error: Comes with its traceback.
    """
    enable_loggers()
    logger.log(level, "%s", message, exc_info=error, stacklevel=2)
    if sys.stderr is None or _is_shown(logger, level):
        return
    story = "".join(traceback.format_exception(error)) if error is not None else ""
    with contextlib.suppress(OSError, ValueError):  # gone, or closed
        sys.stderr.write(f"daphne-ng: error: {message}\n{story}")
        sys.stderr.flush()


# Whether what is logged at a level comes to standard error.
def _is_shown(logger: logging.Logger, level: int) -> bool:
    if logger.disabled or not logger.isEnabledFor(level):
        return False
    if not logger.hasHandlers():
        return logging.lastResort is not None and level >= logging.lastResort.level
    record = logger.makeRecord(logger.name, level, __file__, 0, "", (), None)
    return any(_writing(record, (sys.stderr, sys.__stderr__)))


def asyncio_debug(verbosity: int) -> bool:
    """Return whether the event loop should run in its debug mode."""
    return verbosity >= _LOUDEST


def configure_twisted_log(verbosity: int) -> None:
    """Begin Twisted's log as `begin_twisted_log` does, once in the life of a process."""
    global _twisted_log_begun
    from twisted.logger import globalLogBeginner

    if not _twisted_log_begun:
        _twisted_log_begun = True
        begin_twisted_log(globalLogBeginner, verbosity)


def begin_twisted_log(beginner: Any, verbosity: int) -> None:
    """Send Twisted's log to `logging` from verbosity 2 on, and drop it below, except for its errors.

    Twisted logs a line per connection, which nobody wants to read; but a failure that it reports (an exception
    in a protocol, a Deferred whose error nobody took) would otherwise vanish, so errors always go to `logging`.

    Does nothing when that log has begun already.
    Standard output and Python's warnings are left alone: Twisted would take both into its log.

    Args:
        beginner: A `twisted.logger.LogBeginner`.
        verbosity: As for `configure`.
    """
    from twisted.logger import FilteringLogObserver, LogLevel, LogLevelFilterPredicate, STDLibLogObserver

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

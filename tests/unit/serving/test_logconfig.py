"""`daphne_ng.serving.logconfig`: levels, formats, and what is left of Twisted's log."""

import contextlib
import io
import logging
import logging.config
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import LogBeginner, Logger, LogPublisher

from daphne_ng.errors import ConfigurationError
from daphne_ng.serving.logconfig import asyncio_debug, begin_twisted_log, configure, enable_loggers, log_end


@contextlib.contextmanager
def fresh_root() -> Iterator[logging.Logger]:
    """The root logger as a new process has it. No fixture: pytest adds its handlers after those."""
    logger = logging.getLogger()
    level, handlers = logger.level, logger.handlers[:]
    logger.handlers.clear()
    logger.setLevel(logging.WARNING)
    try:
        yield logger
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("verbosity", "level"),
    [(-1, "WARNING"), (0, "WARNING"), (1, "INFO"), (2, "DEBUG"), (3, "DEBUG"), (9, "DEBUG")],
)
def test_the_verbosity_sets_the_level(verbosity: int, level: str) -> None:
    with fresh_root() as root:
        configure(verbosity)

        assert logging.getLevelName(root.level) == level


def test_a_level_takes_the_place_of_the_verbositys() -> None:
    with fresh_root() as root:
        configure(3, log_level="error")

        assert root.level == logging.ERROR


def test_the_default_format_is_daphnes() -> None:
    with fresh_root() as root:
        configure()

        record = logging.LogRecord("x", logging.INFO, "", 0, "text", None, None)
        formatted = root.handlers[0].format(record)
        assert formatted.endswith(" INFO     text")


def test_a_format_can_be_given() -> None:
    with fresh_root() as root:
        configure(log_fmt="<%(message)s>")

        assert root.handlers[0].format(logging.LogRecord("x", logging.INFO, "", 0, "text", None, None)) == "<text>"


def test_logging_that_is_set_up_already_stays_except_for_an_explicit_level() -> None:
    with fresh_root() as root:
        handler = logging.NullHandler()
        root.addHandler(handler)
        configure(2)
        assert root.handlers == [handler]
        assert root.level == logging.WARNING
        configure(2, log_level="CRITICAL")
        assert root.level == logging.CRITICAL


@pytest.mark.parametrize(("keyword", "value"), [("log_fmt", "%(message)"), ("log_level", "loud")])
def test_nonsense_is_a_configuration_error(keyword: str, value: str) -> None:
    nonsense: dict[str, Any] = {keyword: value}
    with fresh_root(), pytest.raises(ConfigurationError, match=f"^--{keyword.replace('_', '-')}"):
        configure(**nonsense)


def test_asyncio_debugs_at_verbosity_three() -> None:
    assert [asyncio_debug(verbosity) for verbosity in (0, 1, 2, 3, 4)] == [False, False, False, True, True]


class Twisted:
    """Twisted's logging, without the process's own."""

    def __init__(self) -> None:
        # Any, because zope's interfaces mean nothing to a type checker.
        publisher: Any = LogPublisher()
        self.begun = LogBeginner(publisher, io.StringIO(), sys, warnings)
        self.logger = Logger(namespace="somewhere", observer=publisher)


def twisted_records(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name.startswith("twisted")]


@pytest.mark.parametrize("verbosity", [0, 1])
def test_twisted_is_silent_at_low_verbosity_except_for_errors(caplog: pytest.LogCaptureFixture, verbosity: int) -> None:
    caplog.set_level(logging.DEBUG)
    twisted = Twisted()
    twisted.logger.info("starting")
    begin_twisted_log(twisted.begun, verbosity)
    twisted.logger.warn("odd")
    twisted.logger.error("wrong")

    assert twisted_records(caplog) == [("ERROR", "wrong")]


def test_twisted_talks_to_logging_at_high_verbosity(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    twisted = Twisted()
    twisted.logger.info("early")
    begin_twisted_log(twisted.begun, 2)
    twisted.logger.debug("late")

    assert twisted_records(caplog) == [("INFO", "early"), ("DEBUG", "late")]


def test_a_failure_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    twisted = Twisted()
    begin_twisted_log(twisted.begun, 1)
    try:
        raise LookupError("lost")
    except LookupError:
        twisted.logger.failure("went wrong")

    assert "LookupError: lost" in caplog.text


def test_beginning_twice_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    twisted = Twisted()
    begin_twisted_log(twisted.begun, 2)
    begin_twisted_log(twisted.begun, 2)
    twisted.logger.info("once")

    assert twisted_records(caplog) == [("INFO", "once")]


def test_a_log_that_the_program_has_begun_is_left_to_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    twisted = Twisted()
    events: list[Any] = []
    observer: Any = events.append
    shown = warnings.showwarning
    twisted.begun.beginLoggingTo([observer], redirectStandardIO=False)
    warnings.showwarning = shown
    begin_twisted_log(twisted.begun, 2)
    twisted.logger.info("theirs")

    assert len(events) == 1
    assert twisted_records(caplog) == []


def test_standard_streams_and_warnings_are_not_taken_over() -> None:
    before = (sys.stdout, sys.stderr, warnings.showwarning)
    begin_twisted_log(Twisted().begun, 2)

    assert (sys.stdout, sys.stderr, warnings.showwarning) == before


# -- what the application makes of logging -------------------------------------------------------------------------


@contextlib.contextmanager
def fresh_loggers() -> Iterator[None]:
    """Gives every logger its ``disabled`` and level back."""
    loggers = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    before = [(one, one.disabled, one.level, one.propagate, one.handlers[:]) for one in loggers]
    try:
        yield
    finally:
        for one, disabled, level, propagate, handlers in before:
            one.disabled, one.propagate = disabled, propagate
            one.handlers[:] = handlers
            one.setLevel(level)


OURS, THEIRS = "daphne_ng.server", "somebody.else"
USUAL: dict[str, Any] = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}


def test_loggers_that_a_dict_config_has_disabled_are_on_again_and_others_are_not() -> None:
    ours, theirs = logging.getLogger(OURS), logging.getLogger(THEIRS)
    with fresh_root(), fresh_loggers():
        logging.config.dictConfig(USUAL)
        assert ours.disabled

        enable_loggers()

        assert not ours.disabled
        assert theirs.disabled


def test_it_works_as_often_as_logging_is_set_up() -> None:
    with fresh_root(), fresh_loggers():
        for _ in range(2):
            logging.config.dictConfig(USUAL)
            enable_loggers()
            assert not logging.getLogger(OURS).disabled


def test_a_logger_that_is_disabled_by_name_stays_so() -> None:
    ours = logging.getLogger(OURS)
    with fresh_loggers():
        ours.disabled = True

        enable_loggers()

        assert ours.disabled


def test_levels_stay() -> None:
    with fresh_root(), fresh_loggers():
        logging.config.dictConfig(USUAL | {"loggers": {OURS: {"level": "CRITICAL"}}})

        enable_loggers()

        assert logging.getLogger(OURS).level == logging.CRITICAL
        assert not logging.getLogger("daphne_ng.cli").disabled


def test_what_ends_the_process_is_said_once_where_the_log_goes_to_standard_error() -> None:
    with fresh_root(), contextlib.redirect_stderr(io.StringIO()) as stderr:
        configure(log_fmt="%(levelname)s %(message)s")
        log_end(logging.getLogger(OURS), logging.ERROR, "no more")

    assert stderr.getvalue() == "ERROR no more\n"


@pytest.mark.parametrize(
    "how", ["another stream", "a level", "the logger's level", "disabled", "a filter", "no propagation"]
)
def test_what_ends_the_process_is_said_whatever_became_of_the_log(how: str) -> None:
    logger = logging.getLogger(OURS)
    with fresh_root() as root, fresh_loggers(), contextlib.redirect_stderr(io.StringIO()) as stderr:
        handler = logging.StreamHandler(io.StringIO() if how == "another stream" else stderr)
        root.addHandler(handler)
        if how == "a level":
            handler.setLevel(logging.CRITICAL)
        elif how == "the logger's level":
            logger.setLevel(logging.CRITICAL)
        elif how == "disabled":
            logger.disabled = True
        elif how == "a filter":
            handler.addFilter(lambda record: False)
        elif how == "no propagation":
            logger.propagate = False
            logger.addHandler(logging.NullHandler())

        log_end(logger, logging.ERROR, "no more", LookupError("lost"))

    first, *rest = stderr.getvalue().splitlines()
    assert first == "daphne-ng: error: no more"
    assert rest == ["LookupError: lost"]


def test_without_any_handler_python_says_it() -> None:
    with fresh_root(), contextlib.redirect_stderr(io.StringIO()) as stderr:
        log_end(logging.getLogger(OURS), logging.ERROR, "no more")

    assert stderr.getvalue() == "no more\n"


def test_without_standard_error_there_is_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with fresh_root() as root:
        root.addHandler(logging.NullHandler())
        log_end(logging.getLogger(OURS), logging.ERROR, "no more")


# -- lines that would come twice -----------------------------------------------------------------------------------


def test_a_line_that_another_handler_writes_to_the_same_stream_comes_once() -> None:
    logger = logging.getLogger(THEIRS)
    with fresh_root(), fresh_loggers(), contextlib.redirect_stderr(io.StringIO()) as stderr:
        configure()
        logger.addHandler(logging.StreamHandler(stderr))  # as Django's has it while DEBUG is on
        logger.warning("Not Found: /x")

    assert stderr.getvalue() == "Not Found: /x\n"


def test_filters_of_handlers_that_write_elsewhere_see_a_record_once() -> None:
    """One that lets the same line through once only, as those of mails to administrators do, would lose it."""
    seen: list[str] = []

    def first(record: logging.LogRecord) -> bool:
        seen.append(record.getMessage())
        return seen.count(record.getMessage()) == 1

    with fresh_root() as root, fresh_loggers(), contextlib.redirect_stderr(io.StringIO()) as stderr:
        configure(log_fmt="%(message)s")
        elsewhere = logging.StreamHandler(io.StringIO())
        elsewhere.addFilter(first)
        root.addHandler(elsewhere)
        logging.getLogger(THEIRS).warning("Not Found: /x")

    assert seen == ["Not Found: /x"]
    assert (stderr.getvalue(), elsewhere.stream.getvalue()) == ("Not Found: /x\n", "Not Found: /x\n")


@pytest.mark.parametrize("how", ["a level", "a filter", "another stream"])
def test_a_line_that_the_other_handler_does_not_write_there_comes_all_the_same(how: str) -> None:
    logger = logging.getLogger(THEIRS)
    with fresh_root(), fresh_loggers(), contextlib.redirect_stderr(io.StringIO()) as stderr:
        configure()
        handler = logging.StreamHandler(io.StringIO() if how == "another stream" else stderr)
        if how == "a level":
            handler.setLevel(logging.ERROR)
        elif how == "a filter":
            handler.addFilter(lambda record: False)  # as Django's once DEBUG is off
        logger.addHandler(handler)
        logger.warning("Not Found: /x")

    assert stderr.getvalue().endswith("WARNING  Not Found: /x\n")
    assert stderr.getvalue().count("\n") == 1

"""`daphne_ng.supervisor.reloading`: which failures another start cannot mend."""

from __future__ import annotations

import pytest

from daphne_ng.errors import ApplicationLoadError, DaphneError
from daphne_ng.supervisor.reloading import is_codes_own


class LockError(Exception):
    """What a library raises that has not got its lock."""


def caused(*errors: Exception) -> Exception:
    """Return the last of errors of which each was raised because of the one before."""
    for before, error in zip(errors, errors[1:], strict=False):
        error.__cause__ = before
    return errors[-1]


@pytest.mark.parametrize(
    "errors",
    [
        [SyntaxError("invalid syntax")],
        [NameError("x"), ApplicationLoadError("importing failed")],
        [ModuleNotFoundError("no")],
        [KeyError("SECRET"), ImportError("no"), ApplicationLoadError("importing failed")],
        [ApplicationLoadError("has no attribute 'app'")],
    ],
)
def test_what_any_other_process_would_meet_is_the_codes_own(errors: list[Exception]) -> None:
    assert is_codes_own(caused(*errors), DaphneError)


@pytest.mark.parametrize(
    "errors",
    [
        [OSError(98, "Address already in use"), ApplicationLoadError("importing failed")],
        [BlockingIOError(11, "Resource temporarily unavailable")],
        [LockError("held by process 7")],
        [RuntimeError("the index is locked")],
        [OSError(98, "Address already in use"), ImportError("metrics cannot be imported")],
    ],
)
def test_what_another_process_may_have_caused_is_not(errors: list[Exception]) -> None:
    assert not is_codes_own(caused(*errors), DaphneError)


def test_what_was_raised_while_another_was_handled_tells_too() -> None:
    error = ImportError("no metrics")
    error.__context__ = LockError("held")
    error.__suppress_context__ = True
    assert not is_codes_own(error, DaphneError)


def test_a_circle_of_errors_ends() -> None:
    one, other = NameError("a"), NameError("b")
    one.__cause__, other.__cause__ = other, one
    assert is_codes_own(one, DaphneError)

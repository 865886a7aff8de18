"""`daphne_ng.wire.http.response`: what frames a body, for each version."""

from __future__ import annotations

from itertools import product

import pytest

from daphne_ng.errors import BodyLengthMismatch
from daphne_ng.wire.http.response import (
    CHUNKED,
    END_STREAM,
    FRAMING,
    LENGTH,
    NO_BODY,
    UNTIL_CLOSE,
    is_bodiless,
    overlong_body,
)

VERSIONS = ["1.0", "1.1", "2"]


def test_the_table_knows_every_response() -> None:
    assert set(FRAMING) == set(product([False, True], [False, True], [False, True], VERSIONS))


@pytest.mark.parametrize(("known", "end", "version"), list(product([False, True], [False, True], VERSIONS)))
def test_what_has_no_body_is_framed_by_nothing(known: bool, end: bool, version: str) -> None:
    assert FRAMING[True, known, end, version] == NO_BODY


@pytest.mark.parametrize("version", VERSIONS)
def test_a_length_that_is_known_or_can_be_counted_frames_the_body(version: str) -> None:
    assert {FRAMING[False, known, end, version] for known, end in ((True, True), (True, False), (False, True))} == {
        LENGTH
    }


@pytest.mark.parametrize(("version", "kind"), [("1.0", UNTIL_CLOSE), ("1.1", CHUNKED), ("2", END_STREAM)])
def test_any_other_body_is_framed_as_the_version_can(version: str, kind: int) -> None:
    assert FRAMING[False, False, False, version] == kind


@pytest.mark.parametrize(
    ("method", "status", "bodiless"),
    [
        ("GET", 200, False),
        ("GET", 404, False),
        ("GET", 103, True),
        ("GET", 204, True),
        ("GET", 304, True),
        ("GET", 205, False),
        ("HEAD", 200, True),
        ("head", 200, False),  # methods are case-sensitive
    ],
)
def test_which_responses_have_no_body(method: str, status: int, bodiless: bool) -> None:
    assert is_bodiless(method, status) is bodiless


def test_an_excess_is_named() -> None:
    error = overlong_body(3)
    assert isinstance(error, BodyLengthMismatch)
    assert str(error) == "the body is 3 bytes longer than its Content-Length; the excess was cut"

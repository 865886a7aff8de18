"""`daphne_ng.static.conditions`: preconditions in their order (RFC 9110 section 13.2.2)."""

from __future__ import annotations

import pytest

from daphne_ng.static.conditions import FAILED, NOT_MODIFIED, PROCEED, Validators, evaluate, range_applies

MODIFIED = 1_700_000_000
DATE = b"Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER = b"Tue, 14 Nov 2023 22:13:19 GMT"
LATER = b"Tue, 14 Nov 2023 22:13:21 GMT"
OLD = Validators(10, MODIFIED * 10**9, b"", MODIFIED + 100)
FRESH = Validators(10, MODIFIED * 10**9, b"", MODIFIED + 0.5)
TAG = OLD.opaque


def test_a_file_has_a_tag_of_its_time_and_size() -> None:
    assert OLD.etag == b'"%x-a"' % (MODIFIED * 10**9)
    assert OLD.last_modified == DATE
    assert Validators(10, MODIFIED * 10**9, b"-br", MODIFIED + 100).etag == OLD.etag[:-1] + b'-br"'
    assert Validators(11, MODIFIED * 10**9, b"", MODIFIED + 100).etag != OLD.etag


def test_the_tag_is_weak_while_the_file_may_change_unnoticed() -> None:
    assert FRESH.etag == b"W/" + TAG
    assert FRESH.last_modified == DATE


@pytest.mark.parametrize("modified", [MODIFIED + 3600, -1, 10**12])
def test_a_time_that_cannot_be_right_is_not_sent(modified: int) -> None:
    assert Validators(10, modified * 10**9, b"", MODIFIED).last_modified is None


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, PROCEED),
        ({b"if-none-match": TAG}, NOT_MODIFIED),
        ({b"if-none-match": b"W/" + TAG}, NOT_MODIFIED),
        ({b"if-none-match": b'"x", ' + TAG + b', "y"'}, NOT_MODIFIED),
        ({b"if-none-match": b"*"}, NOT_MODIFIED),
        ({b"if-none-match": b'"x"'}, PROCEED),
        ({b"if-none-match": TAG[1:-1]}, PROCEED),
        ({b"if-none-match": b"nonsense"}, PROCEED),
        ({b"if-modified-since": DATE}, NOT_MODIFIED),
        ({b"if-modified-since": LATER}, NOT_MODIFIED),
        ({b"if-modified-since": EARLIER}, PROCEED),
        ({b"if-modified-since": b"Tuesday, 14-Nov-23 22:13:20 GMT"}, NOT_MODIFIED),
        ({b"if-modified-since": b"Tue Nov 14 22:13:20 2023"}, NOT_MODIFIED),
        ({b"if-modified-since": b"yesterday"}, PROCEED),
        ({b"if-modified-since": b"\xff"}, PROCEED),
        ({b"if-modified-since": b"Tue, 14 Nov 99999999999 22:13:20 GMT"}, PROCEED),
        ({b"if-none-match": b'"x"', b"if-modified-since": DATE}, PROCEED),
        ({b"if-match": TAG}, PROCEED),
        ({b"if-match": b"*"}, PROCEED),
        ({b"if-match": b"W/" + TAG}, FAILED),
        ({b"if-match": b'"x"'}, FAILED),
        ({b"if-match": b'"x"', b"if-none-match": TAG}, FAILED),
        ({b"if-match": TAG, b"if-none-match": TAG}, NOT_MODIFIED),
        ({b"if-unmodified-since": DATE}, PROCEED),
        ({b"if-unmodified-since": EARLIER}, FAILED),
        ({b"if-unmodified-since": b"never"}, PROCEED),
        ({b"if-match": TAG, b"if-unmodified-since": EARLIER}, PROCEED),
    ],
)
def test_conditions_are_taken_in_their_order(fields: dict[bytes, bytes], verdict: int) -> None:
    assert evaluate(fields, OLD) == verdict


def test_a_weak_tag_matches_nothing_that_asks_for_a_strong_one() -> None:
    assert evaluate({b"if-match": TAG}, FRESH) == FAILED
    assert evaluate({b"if-none-match": FRESH.etag}, FRESH) == NOT_MODIFIED
    assert evaluate({b"if-none-match": FRESH.etag}, OLD) == NOT_MODIFIED


def test_a_range_counts_with_a_strong_validator_alone() -> None:
    assert range_applies(None, FRESH)
    assert range_applies(TAG, OLD)
    assert range_applies(DATE, OLD)
    assert not range_applies(b"W/" + TAG, OLD)
    assert not range_applies(LATER, OLD)
    assert not range_applies(b'"x"', OLD)
    assert not range_applies(TAG, FRESH)
    assert not range_applies(DATE, FRESH)

"""`daphne_ng.static.ranges`: which parts of a file are asked for (RFC 9110 section 14)."""

from __future__ import annotations

import pytest

from daphne_ng.static.ranges import part_heads, ranges_of


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        (b"bytes=0-0", [(0, 1)]),
        (b"bytes=0-", [(0, 100)]),
        (b"bytes=10-19", [(10, 20)]),
        (b"bytes=90-200", [(90, 100)]),
        (b"bytes=-5", [(95, 100)]),
        (b"bytes=-500", [(0, 100)]),
        (b"Bytes = 5-6", [(5, 7)]),
        (b"bytes=0-4, 10-14 ,-1", [(0, 5), (10, 15), (99, 100)]),
        (b"bytes=,0-4,,", [(0, 5)]),
        (b"bytes=0-4,200-300", [(0, 5)]),
        (b"bytes=10-14,0-4", [(10, 15), (0, 5)]),
        (b"bytes=0-" + b"9" * 5000, [(0, 100)]),
        (b"bytes=-" + b"9" * 5000, [(0, 100)]),
    ],
)
def test_ranges_within_the_file_are_found(value: bytes, ranges: list[tuple[int, int]]) -> None:
    assert ranges_of(value, 100, 4) == ranges


@pytest.mark.parametrize("value", [b"bytes=100-", b"bytes=100-200,300-", b"bytes=-0", b"bytes=" + b"9" * 5000 + b"-"])
def test_none_of_them_may_be_in_the_file(value: bytes) -> None:
    assert ranges_of(value, 100, 4) == []


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=,",
        b"bytes=-",
        b"bytes=a-b",
        b"bytes=5-4",
        b"bytes=1-2-3",
        b"bytes=+1-2",
        b"bytes=0x1-2",
        b"items=0-1",
        b"bytes=0-1,x",
        b"bytes=\xd9\xa1-",
    ],
)
def test_what_is_no_list_of_byte_ranges_is_ignored(value: bytes) -> None:
    assert ranges_of(value, 100, 4) is None


def test_a_client_that_asks_for_more_than_there_is_gets_the_whole_file() -> None:
    assert ranges_of(b"bytes=0-0,1-1,2-2,3-3,4-4", 100, 4) is None
    assert ranges_of(b"bytes=" + b",".join([b"0-99"] * 1000), 100, 4) is None
    assert ranges_of(b"bytes=0-59,40-99", 100, 4) is None
    assert ranges_of(b"bytes=0-49,50-99", 100, 4) == [(0, 50), (50, 100)]


def test_an_empty_file_has_no_ranges() -> None:
    assert ranges_of(b"bytes=0-", 0, 4) is None


def test_parts_are_framed() -> None:
    assert part_heads([(0, 5), (95, 100)], 100, b"text/plain", b"B") == [
        b"--B\r\ncontent-type: text/plain\r\ncontent-range: bytes 0-4/100\r\n\r\n",
        b"\r\n--B\r\ncontent-type: text/plain\r\ncontent-range: bytes 95-99/100\r\n\r\n",
        b"\r\n--B--\r\n",
    ]

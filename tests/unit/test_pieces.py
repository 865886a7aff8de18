"""Pieces that are joined as they come."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from daphne_ng.pieces import JOIN_MAX_BYTES, append_piece, as_bytes


@pytest.mark.parametrize("kind", [list, deque])
def test_small_pieces_become_one(kind: type[Any]) -> None:
    pieces = kind()
    for _ in range(1000):
        append_piece(pieces, b"ab")
    assert [as_bytes(piece) for piece in pieces] == [b"ab" * 1000]


def test_the_first_piece_is_kept_as_it_is() -> None:
    pieces: list[Any] = []
    data = bytes(5)
    append_piece(pieces, data)
    assert pieces[0] is data
    assert as_bytes(pieces[0]) is data


def test_large_pieces_are_not_copied() -> None:
    large = bytes(JOIN_MAX_BYTES)
    pieces: list[Any] = []
    append_piece(pieces, large)
    append_piece(pieces, b"x")
    append_piece(pieces, large)
    assert pieces[0] is large
    assert pieces[2] is large


def test_a_view_is_left_alone() -> None:
    view = memoryview(b"12345")[2:]
    pieces: list[Any] = [view]
    append_piece(pieces, b"6")
    assert pieces == [view, b"6"]


def test_neighbours_are_longer_than_what_is_joined() -> None:
    pieces: list[Any] = []
    for size in (1, 7, 3, 4, 9, 1, 1, 1, 8, 2, 10, 10, 1):
        append_piece(pieces, bytes(size), 10)
    assert max(map(len, pieces)) <= 10
    assert all(len(one) + len(other) > 10 for one, other in zip(pieces, pieces[1:], strict=False))


def test_what_is_handed_on_is_bytes() -> None:
    pieces: list[Any] = []
    append_piece(pieces, b"a")
    append_piece(pieces, b"b")
    assert type(pieces[0]) is bytearray
    assert type(as_bytes(pieces[0])) is bytes

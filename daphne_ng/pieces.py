"""Bytes that wait in pieces, without an object for every few of them.

A buffer that counts payload bytes holds what it promises only if the pieces are large: a ``bytes`` object of two bytes
takes some fifty in a list. How large they are is the peer's choice, or the application's. So a small piece is joined to
the one before it when it is put behind it, and the objects of a list are in proportion to the bytes that it holds.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

__all__ = ["JOIN_MAX_BYTES", "append_piece", "as_bytes"]

JOIN_MAX_BYTES: Final = 16 * 1024
"""So of n bytes there are at most ``2 * n / JOIN_MAX_BYTES + 1`` pieces; and to copy 16 KiB costs about as much as the
system call that read them."""


def append_piece(pieces: list[Any] | deque[Any], data: bytes | bytearray, most: int = JOIN_MAX_BYTES) -> None:
    """Put `data` behind `pieces`, joined to the last of them if together they are no longer than `most` bytes.

    The last of them becomes a ``bytearray`` where several were joined; whoever takes a piece out of the list and hands
    it on makes ``bytes`` of it with `as_bytes`. A view of a piece must not be taken while it is in the list.
    """
    if pieces:
        last = pieces[-1]
        if len(last) + len(data) <= most and last.__class__ is not memoryview:
            if last.__class__ is bytearray:
                last += data
            else:
                pieces[-1] = joined = bytearray(last)
                joined += data
            return
    pieces.append(data)


def as_bytes(piece: bytes | bytearray) -> bytes:
    """Return a piece that was taken out as ``bytes``."""
    return piece if piece.__class__ is bytes else bytes(piece)

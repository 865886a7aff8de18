"""Range requests (RFC 9110 section 14): which parts of a file are asked for, and what frames several of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["content_range", "part_heads", "ranges_of"]

# A number with more digits is more than any file has.
_DIGITS_MAX: Final = 18
_SPEC: Final = re.compile(rb"[ \t]*([0-9]*)-([0-9]*)[ \t]*")


def ranges_of(value: bytes, size: int, most: int) -> list[tuple[int, int]] | None:
    """Return the parts of a file that a Range field asks for, each as its start and its end, the end not included.

    What asks for more parts or bytes than a client can have a use for is ignored, and so is what is no list of byte
    ranges: RFC 9110 section 14.2 allows the one and asks for the other.

    Args:
        value: Of the field.
        size: Of the file.
        most: Parts that a request may ask for.

    Returns:
        Empty if the file has none of them (416); None if the field is to be ignored.
    """
    unit, equals, specs = value.partition(b"=")
    if unit.strip().lower() != b"bytes" or not equals or not size or specs.count(b",") >= most:
        return None
    found: list[tuple[int, int]] = []
    total = 0
    empty = True
    for spec in specs.split(b","):
        if not spec.strip():
            continue  # RFC 9110 section 5.6.1.2: empty elements are to be ignored
        match = _SPEC.fullmatch(spec)
        if match is None or not (match[1] or match[2]):
            return None
        empty = False
        if not match[1]:
            start, end = size - min(_number(match[2]), size), size
        else:
            start, end = _number(match[1]), size
            if match[2]:
                last = _number(match[2])
                if last < start:
                    return None
                end = min(last + 1, size)
        if start < end:
            found.append((start, end))
            total += end - start
    return None if empty or (total > size) else found


def content_range(start: int, end: int, size: int) -> bytes:
    """Return the value of Content-Range for a part of a file."""
    return b"bytes %d-%d/%d" % (start, end - 1, size)


def part_heads(ranges: Iterable[tuple[int, int]], size: int, media_type: bytes, boundary: bytes) -> list[bytes]:
    """Return what stands before each part of a ``multipart/byteranges`` body, and what stands behind the last."""
    heads = [
        b"\r\n--%b\r\ncontent-type: %b\r\ncontent-range: %b\r\n\r\n"
        % (boundary, media_type, content_range(start, end, size))
        for start, end in ranges
    ]
    heads[0] = heads[0][2:]
    return [*heads, b"\r\n--%b--\r\n" % boundary]


def _number(digits: bytes) -> int:
    return int(digits) if len(digits) <= _DIGITS_MAX else 10**_DIGITS_MAX + int(digits[-1:])

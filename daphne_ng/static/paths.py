"""Which directory a path belongs to, and which file of it: on the text of the path alone.

A path is decoded once, by the protocol that has read it. It is normalised here, for the decision: empty and dot
segments are taken out (RFC 3986 section 5.2.4). So whatever spelling was sent, the same file answers, or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

__all__ = ["Prefixes", "normalised", "segments_of", "without_root"]

T = TypeVar("T")

# No name of a published file has these. U+FFFD stands for bytes that are no UTF-8.
_NEVER_SERVED: Final = re.compile("[\\x00-\\x1f\\x7f\\\\\ufffd\ud800-\udfff]")


def normalised(path: str) -> str:
    """Return a path with one slash at its begin, and without empty and dot segments; nothing is above the root."""
    if "//" not in path and "/." not in path and path[:1] == "/":
        return path
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    ends_open = bool(kept) and segments[-1] in ("", ".", "..")
    return f"/{'/'.join(kept)}/" if ends_open else f"/{'/'.join(kept)}"


def without_root(path: str, root_path: str) -> str:
    """Return a path as the routes of an application see it: without the root path, if it begins with that."""
    if root_path and path.startswith(root_path):
        rest = path[len(root_path) :]
        if not rest or rest[0] == "/":
            return rest or "/"
    return path


class Prefixes(Generic[T]):
    """What stands for which prefix. The longest prefix of a path decides.

    Args:
        pairs: Prefixes without a slash at the end, and what each stands for.
    """

    def __init__(self, pairs: Iterable[tuple[str, T]]) -> None:
        self._pairs = sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)

    def find(self, path: str) -> tuple[T, str] | None:
        """Return what a normalised path belongs to, and the rest of the path, which is empty or begins with a slash."""
        for prefix, value in self._pairs:
            if path.startswith(prefix):
                rest = path[len(prefix) :]
                if not rest or rest[0] == "/":
                    return value, rest
        return None


def segments_of(rest: str) -> list[bytes] | None:
    """Return the names on the way to a file, the last one empty for a directory; None for what is never served.

    Args:
        rest: Of a normalised path; see `Prefixes.find`.
    """
    if "/." in rest or _NEVER_SERVED.search(rest) is not None:
        return None
    return rest.encode("utf-8").split(b"/")[1:]

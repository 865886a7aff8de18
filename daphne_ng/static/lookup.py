"""What answers a path below a prefix: a file or its compressed neighbour, a redirect to a directory, or nothing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote

from daphne_ng._types import Field
from daphne_ng.config import Config
from daphne_ng.config.static import HASHED_NAMES
from daphne_ng.static.codings import SUFFIXES
from daphne_ng.static.conditions import Validators
from daphne_ng.static.media_types import is_compact, media_type_of
from daphne_ng.static.paths import segments_of
from daphne_ng.static.tree import IS_DIRECTORY, OpenFile, Tree

__all__ = ["Mount", "Redirect", "Representation"]

_YEAR: Final = 365 * 24 * 3600
_ACCEPT_RANGES: Final[Field] = (b"accept-ranges", b"bytes")
_VARY: Final[Field] = (b"vary", b"accept-encoding")


class Redirect:
    """The path of a directory without the slash at its end.

    Args:
        location: A relative reference, so that it is right behind every proxy.
    """

    __slots__ = ("location",)

    def __init__(self, location: bytes) -> None:
        self.location = location


class Representation:
    """A file as it is sent: with the fields of its responses, and with its bytes if it is small.

    Args:
        file: The file.
        path: For messages.
        body: What is in the file; None if that stays on the disk.
        media_type: Value of Content-Type.
        coding: Value of Content-Encoding; None for the file itself.
        varies: Whether there are others of the same path.
        cache_control: Value of Cache-Control, or None.
        now: Seconds since the epoch.
    """

    __slots__ = ("body", "cache_control", "fields", "file", "media_type", "path", "shared_fields", "size", "validators")

    def __init__(
        self,
        file: OpenFile,
        path: bytes,
        body: bytes | None,
        media_type: bytes,
        coding: bytes | None,
        varies: bool,
        cache_control: bytes | None,
        now: float,
    ) -> None:
        self.file = file
        self.path = path
        self.body = body
        self.media_type = media_type
        self.size = file.size
        suffix = b"" if coding is None else b"-" + coding
        self.validators = validators = Validators(file.size, file.modified_ns, suffix, now)
        shared = [(b"etag", validators.etag)]
        if validators.last_modified is not None:
            shared.append((b"last-modified", validators.last_modified))
        if cache_control is not None:
            shared.append((b"cache-control", cache_control))
        if varies:
            shared.append(_VARY)
        self.shared_fields = shared
        """The fields of a 304 (RFC 9110 section 15.4.5), which all other responses have too."""
        self.fields = [*shared, _ACCEPT_RANGES]
        """The fields of a response with the file or a part of it, but for those of its type and length."""
        if coding is not None:
            self.fields.append((b"content-encoding", coding))

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Mount:
    """A directory below a prefix.

    Args:
        prefix: Without a slash at its end.
        directory: Its path.
        config: The settings.

    Raises:
        OSError: See `Tree`.
    """

    def __init__(self, prefix: str, directory: str, config: Config) -> None:
        self._prefix = prefix
        self._tree = Tree(directory, config.static_follow_symlinks)
        self._index = config.static_index.encode("utf-8")
        self._in_memory = min(config.static_cache_file_bytes, config.static_cache_bytes)
        self._hashed: list[Callable[[str], object]] = [
            re.compile(HASHED_NAMES.get(text, text)).search for text in config.static_immutable
        ]
        age = config.static_max_age
        self._cache_control = None if age is None else b"max-age=%d" % age

    def look(self, rest: str, codings: Sequence[bytes]) -> Representation | Redirect | None:
        """Find what answers a path. May wait for the disk; the caller closes what it gets.

        Args:
            rest: The path behind the prefix.
            codings: Those that the client would rather have than the file itself, the best one first.

        Returns:
            None where there is nothing.
        """
        names = segments_of(rest)
        if names is None:
            return None
        as_directory = not names or not names[-1]
        if as_directory:
            if not self._index:
                return None
            if not names:
                return self._redirect(names)
            names[-1] = self._index
        found = self._tree.open(names)
        if isinstance(found, OpenFile):
            try:
                return self._represented(found, names, rest, codings)
            except BaseException:
                found.close()
                raise
        if found == IS_DIRECTORY and self._index and not as_directory:
            index = self._tree.open([*names, self._index])
            if isinstance(index, OpenFile):
                index.close()
                return self._redirect(names)
        return None

    # To the same path with a slash behind it.
    def _redirect(self, names: Sequence[bytes]) -> Redirect | None:
        name = names[-1] if names else self._prefix.rpartition("/")[2].encode("utf-8")
        return Redirect(f"./{quote(name)}/".encode("ascii")) if name else None

    def _represented(
        self, original: OpenFile, names: list[bytes], rest: str, codings: Sequence[bytes]
    ) -> Representation:
        neighbours = {} if is_compact(names[-1]) else self._neighbours(original, names)
        coding = next((coding for coding in codings if coding in neighbours), None)
        file = original if coding is None else neighbours.pop(coding)
        for other in (*neighbours.values(), original):
            if other is not file:
                other.close()
        try:
            body = _content(file) if file.size <= self._in_memory else None
            path = self._prefix + rest
            immutable = any(search(path) for search in self._hashed)
            suffix = b"" if coding is None else SUFFIXES[coding]
            return Representation(
                file,
                self._tree.path_of(names) + suffix,
                body,
                media_type_of(names[-1]),
                coding,
                coding is not None or bool(neighbours),
                b"public, max-age=%d, immutable" % _YEAR if immutable else self._cache_control,
                time.time(),
            )
        except BaseException:
            file.close()
            raise

    # One that is older than the file, by whole seconds, was made of what was in it before.
    def _neighbours(self, original: OpenFile, names: list[bytes]) -> dict[bytes, OpenFile]:
        found: dict[bytes, OpenFile] = {}
        for coding, suffix in SUFFIXES.items():
            neighbour = self._tree.open([*names[:-1], names[-1] + suffix])
            if isinstance(neighbour, OpenFile):
                if neighbour.modified_ns // 1_000_000_000 < original.modified_ns // 1_000_000_000:
                    neighbour.close()
                else:
                    found[coding] = neighbour
        return found


# The whole of a small file; None if it changes size meanwhile, so that whoever sends it finds out.
def _content(file: OpenFile) -> bytes | None:
    parts: list[bytes] = []
    left = file.size
    while left:
        part = os.pread(file.descriptor, left, file.size - left)
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)

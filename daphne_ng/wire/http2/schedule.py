"""Which of several streams sends next: priorities (RFC 9218), and the schedule that follows them.

RFC 9218 urgency and incremental are served by two kinds of trees of the priority library. One is a chain: each level of
urgency hangs below the next more urgent one, so that it is asked only while all above it are blocked. In the other
kind, one for each level, the streams are siblings of equal weight; of those that are not incremental all but the oldest
are blocked.
"""

from __future__ import annotations

from bisect import insort
from typing import Final

from priority.priority import PriorityTree

__all__ = ["NO_PRIORITY", "Schedule", "parse_priority"]

# Trees hold no more than twice the streams that wait, and `http2_max_concurrent_streams` limits these; it may be set to
# more than the library's own limit.
_TREE_MAX: Final = 1_000_000

# RFC 9218 section 4.
_URGENCY_DEFAULT: Final = 3

NO_PRIORITY: Final = (_URGENCY_DEFAULT, True)
"""The priority of a stream whose client says nothing: the streams of one that knows of no priorities share alike."""


def parse_priority(value: bytes) -> tuple[int, bool]:
    """Read a priority (RFC 9218 section 4): urgency 0 to 7, and whether the response is useful in parts.

    What cannot be read is as if it were not there; a value that does not speak of `incremental` means that it is not.
    """
    urgency, incremental = _URGENCY_DEFAULT, False
    for member in value.split(b",", 16)[:16]:
        key, _, parameter = member.strip(b" \t").partition(b"=")
        if key == b"u":
            if len(parameter) == 1 and b"0" <= parameter <= b"7":
                urgency = int(parameter)
        elif key == b"i":
            incremental = parameter in (b"", b"?1")
    return urgency, incremental


class _Level:
    """The streams of one urgency.

    A stream that leaves is blocked in the tree, which is quick, and not removed, which is not. When too many blocked
    streams are in the way, the tree is made anew.
    """

    __slots__ = ("_known", "serial", "sharing", "tree")

    def __init__(self) -> None:
        self.tree = PriorityTree(_TREE_MAX)
        self.sharing: set[int] = set()
        """The incremental streams."""
        self.serial: list[int] = []
        """The streams that are not incremental, sorted. The first is unblocked."""
        self._known: set[int] = set()

    def add(self, stream_id: int, incremental: bool) -> None:
        if stream_id in self._known:
            self.tree.unblock(stream_id)
        else:
            self._known.add(stream_id)
            self.tree.insert_stream(stream_id)
        if incremental:
            self.sharing.add(stream_id)
            return
        serial = self.serial
        insort(serial, stream_id)
        if serial[0] != stream_id:
            self.tree.block(stream_id)
        elif len(serial) > 1:
            self.tree.block(serial[1])

    def remove(self, stream_id: int) -> None:
        self.tree.block(stream_id)
        serial = self.serial
        if stream_id in self.sharing:
            self.sharing.discard(stream_id)
        else:
            serial.remove(stream_id)
            if serial:
                self.tree.unblock(serial[0])
        staying = len(serial) + len(self.sharing)
        if len(self._known) > 2 * staying + 8:
            self.tree = PriorityTree(_TREE_MAX)
            self._known = {*serial, *self.sharing}
            for known in self._known:
                self.tree.insert_stream(known)
            for later in serial[1:]:
                self.tree.block(later)

    def __bool__(self) -> bool:
        return bool(self.sharing or self.serial)


class Schedule:
    """Decides which of several streams sends next: the module says how."""

    __slots__ = ("_chain", "_levels", "_urgencies")

    def __init__(self) -> None:
        self._chain = PriorityTree()
        self._levels: dict[int, _Level] = {}
        self._urgencies: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._urgencies)

    def add(self, stream_id: int, urgency: int, incremental: bool) -> None:
        """Let a stream take part. One that does already stays as it is."""
        if stream_id in self._urgencies:
            return
        self._urgencies[stream_id] = urgency
        level = self._levels.get(urgency)
        if level is None:
            level = self._levels[urgency] = _Level()
            # The level hangs below the next more urgent one that there is, and above the levels that hung there.
            above = max((other for other in self._levels if other < urgency), default=-1)
            self._chain.insert_stream(urgency + 1, depends_on=above + 1, exclusive=True)
        elif not level:
            self._chain.unblock(urgency + 1)
        level.add(stream_id, incremental)

    def remove(self, stream_id: int) -> None:
        """Let a stream take part no longer; it need not have."""
        urgency = self._urgencies.pop(stream_id, None)
        if urgency is not None:
            level = self._levels[urgency]
            level.remove(stream_id)
            if not level:
                self._chain.block(urgency + 1)

    def next(self) -> int:
        """Return the stream that sends next. There must be one."""
        levels = self._levels
        if len(levels) == 1:
            for level in levels.values():
                return next(level.tree)
        return next(levels[next(self._chain) - 1].tree)

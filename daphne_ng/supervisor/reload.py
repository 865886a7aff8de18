"""``--reload``: which files have changed.

With watchfiles installed the system tells; without, the modification times are compared, in slices, so that a tree of
any size costs little.
"""

from __future__ import annotations

import fnmatch
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["PollingWatcher", "SystemWatcher", "watcher_for"]

_FILES_MAX = 50_000
_LOOK_SECONDS = 0.5
# Editors write several files, and some of them twice.
_SETTLE_SECONDS = 0.1


class Filter:
    """Which files count.

    Args:
        includes: Patterns of the names of files.
        excludes: Patterns of the names of files and directories.
    """

    def __init__(self, includes: Sequence[str], excludes: Sequence[str]) -> None:
        self._includes = tuple(includes)
        self._excludes = tuple(excludes)

    def excluded(self, name: str) -> bool:
        """Tell whether a file or a directory of this name is left out."""
        return any(fnmatch.fnmatch(name, pattern) for pattern in self._excludes)

    def counts(self, name: str) -> bool:
        """Tell whether a file of this name counts."""
        return any(fnmatch.fnmatch(name, pattern) for pattern in self._includes) and not self.excluded(name)

    def files(self, directories: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Yield the path and the modification time in nanoseconds of every file that counts."""
        seen = 0
        for top in directories:
            for directory, below, names in os.walk(top):
                below[:] = [
                    name
                    for name in below
                    if not self.excluded(name) and not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))
                ]
                for name in names:
                    if not self.counts(name):
                        continue
                    seen += 1
                    if seen > _FILES_MAX:
                        return
                    path = os.path.join(directory, name)
                    try:
                        yield path, os.stat(path).st_mtime_ns
                    except OSError:
                        continue  # gone between the two calls


class PollingWatcher:
    """Compares modification times. Call it to learn what has changed since the call before.

    Args:
        directories: To watch, with all below.
        wanted: Which files count.
    """

    def __init__(self, directories: Sequence[str], wanted: Filter) -> None:
        self._directories = tuple(directories)
        self._filter = wanted
        self._known = dict(wanted.files(self._directories))
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def __call__(self) -> list[str]:
        """Return the paths of files that were changed, made or removed."""
        if time.monotonic() < self._look_at:
            return []
        found = dict(self._filter.files(self._directories))
        if found != self._known:
            time.sleep(_SETTLE_SECONDS)
            found = dict(self._filter.files(self._directories))
        changed = sorted(path for path in found.keys() | self._known.keys() if found.get(path) != self._known.get(path))
        self._known = found
        self._look_at = time.monotonic() + _LOOK_SECONDS
        return [os.path.relpath(path) for path in changed]

    def close(self) -> None:
        """There is nothing to give back."""


class SystemWatcher:
    """Lets the operating system tell, through watchfiles.

    Args:
        directories: To watch, with all below.
        wanted: Which files count.
        watch: ``watchfiles.watch``.
    """

    def __init__(self, directories: Sequence[str], wanted: Filter, watch: Any) -> None:
        self._filter = wanted
        self._directories = [os.path.abspath(directory) for directory in directories]
        self._changed: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(watch,), name="reload", daemon=True)
        self._thread.start()

    def _run(self, watch: Any) -> None:
        for changes in watch(
            *self._directories, watch_filter=self._wanted, stop_event=self._stop, raise_interrupt=False
        ):
            with self._lock:
                self._changed.update(path for _change, path in changes)

    def _wanted(self, change: Any, path: str) -> bool:
        top = next((one for one in self._directories if path.startswith(one + os.sep)), "")
        *above, name = os.path.relpath(path, top or "/").split(os.sep)
        return self._filter.counts(name) and not any(self._filter.excluded(part) for part in above)

    def __call__(self) -> list[str]:
        """Return the paths of files that were changed, made or removed."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return sorted(os.path.relpath(path) for path in changed)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()


def watcher_for(directories: Sequence[str], includes: Sequence[str], excludes: Sequence[str]) -> Any:
    """Return the best watcher there is."""
    wanted = Filter(includes, excludes)
    places = list(directories) or ["."]
    try:
        from watchfiles import watch
    except ImportError:
        return PollingWatcher(places, wanted)
    return SystemWatcher(places, wanted, watch)

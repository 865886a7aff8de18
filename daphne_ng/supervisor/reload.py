"""``--reload``: which files have changed.

With watchfiles installed the system tells. Without, modification times are compared, by rules that keep a tree of any
size cheap:

1. A look takes place twice a second and asks for the times of all directories, of the `_HOT_FILES` files that were
   changed last, and of an eighth of the others, but at least `_SLICE_FILES`, in turn. So a file that is being worked on
   is seen at once, and any other one at the latest after eight looks.
2. A directory is read again only if its own time has changed: something in it was made, removed or renamed. Editors
   that save by renaming are seen at once.
3. Any difference counts, in the size too, and not only a later time: clocks are set back, and archives unpacked.
4. A directory that cannot be read is tried again at each look. So is one to watch that is not there: it may be made
   again, and a link may be about to name another one.
"""

from __future__ import annotations

import fnmatch
import heapq
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["PollingWatcher", "SystemWatcher", "watcher_for"]

logger = logging.getLogger("daphne_ng.supervisor.reload")

_FILES_MAX = 50_000
_DIRECTORIES_MAX = 20_000
_LOOK_SECONDS = 0.5
# Together about half a per cent of a processor, with the directories of a tree of 5,000 files, and two for 20,000. A
# change is never seen later than after four seconds.
_HOT_FILES = 128
_SLICE_FILES = 640
_SLICES = 8
# Editors write several files, and some of them twice.
_SETTLE_SECONDS = 0.1
# Times of files are not finer than this, on the coarsest file systems in use (FAT apart).
_TICK_NANOSECONDS = 20_000_000

# How often it is seen whether a directory that the system watches is the same one still.
_PLACES_MILLISECONDS = 500

# ``watchfiles.Change.added``
_ADDED = 1

# The state of a file: its modification time in nanoseconds and its size. For a directory, the time and the number of
# its inode: a link may name another directory.
_Look = tuple[int, int]
# The state of a file that could not be read, or not surely: no file has it.
_UNREAD = (0, 0)


class Filter:
    """Which files count: the one place where that is said.

    Args:
        includes: Patterns of the names of files.
        excludes: Patterns of the names of files and directories.
    """

    def __init__(self, includes: Sequence[str], excludes: Sequence[str]) -> None:
        self._included = _any_of(includes)
        self._excluded = _any_of(excludes)

    def excluded(self, name: str) -> bool:
        """Tell whether a file or a directory of this name is left out."""
        return self._excluded.match(name) is not None

    def leaves_out(self, directory: str) -> bool:
        """Tell whether a directory is left out, with all below: by its name, or because it is a virtual environment."""
        name = os.path.normcase(os.path.basename(directory))
        return self.excluded(name) or os.path.exists(os.path.join(directory, "pyvenv.cfg"))

    def counts(self, name: str) -> bool:
        """Tell whether a file of this name counts."""
        return self._included.match(name) is not None and not self.excluded(name)

    def counts_below(self, directory: str, path: str) -> bool:
        """Tell whether a file lies below a directory, counts, and is in nothing that is left out."""
        top = directory.rstrip(os.sep) + os.sep
        if not path.startswith(top):
            return False
        if not self.counts(os.path.normcase(os.path.basename(path))):
            return False
        return not any(map(self.leaves_out, _parts(directory, path)[:-1]))

    def counts_in(self, directory: str) -> bool:
        """Tell whether there is a file that counts, anywhere in a directory."""
        for place, names, files in os.walk(directory):
            names[:] = [name for name in names if not self.leaves_out(os.path.join(place, name))]
            if any(self.counts(os.path.normcase(name)) for name in files):
                return True
        return False


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    # Without one, what matches nothing.
    return re.compile("|".join(fnmatch.translate(os.path.normcase(pattern)) for pattern in patterns) or "(?!)")


class PollingWatcher:
    """Compares modification times. Call it to learn what has changed since the call before.

    Args:
        directories: To watch, with all below.
        wanted: Which files count.
        clock: Seconds since some moment.
        sleep: Waits for so many.
    """

    def __init__(
        self,
        directories: Sequence[str],
        wanted: Filter,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._filter = wanted
        self._clock = clock
        self._sleep = sleep
        self._files: dict[str, _Look] = {}
        # Of each directory what it looked like, and the names of what is in it and counts.
        self._directories: dict[str, _Look] = {}
        self._contents: dict[str, set[str]] = {}
        self._truncated = False
        self._denied = False
        self._turn: list[str] = []
        self._hot: list[str] = []
        for directory in directories:
            self._read(directory, set())
        self._warm()
        self._look_at = self._clock() + _LOOK_SECONDS

    def __call__(self) -> list[str]:
        """Return the paths of files that were changed, made or removed."""
        if self._clock() < self._look_at:
            return []
        changed: set[str] = set()
        self._look(changed)
        if changed:
            self._sleep(_SETTLE_SECONDS)
            self._warm()
            self._look(changed)
            self._warm()
        self._look_at = self._clock() + _LOOK_SECONDS
        return _shown(changed)

    def close(self) -> None:
        """There is nothing to give back."""

    def _look(self, changed: set[str]) -> None:
        for directory, known in list(self._directories.items()):
            if directory in self._directories and _directory_look(directory) != known:
                self._read(directory, changed)
        if not self._turn:
            self._turn = list(self._files)
        many = max(_SLICE_FILES, -(-len(self._files) // _SLICES))
        slice_ = self._turn[-many:]
        del self._turn[-many:]
        for path in (*self._hot, *slice_):
            known_look = self._files.get(path)
            if known_look is not None:
                found = _look_at(path)
                if found != known_look:
                    self._set(path, found, changed)

    def _warm(self) -> None:
        self._hot = heapq.nlargest(_HOT_FILES, self._files, key=lambda path: self._files[path][0])

    def _set(self, path: str, look: _Look | None, changed: set[str]) -> None:
        changed.add(path)
        if look is None:
            self._files.pop(path, None)
        else:
            self._files[path] = look

    # Read a directory, and its new directories. Files that were there before are looked at too.
    def _read(self, directory: str, changed: set[str]) -> None:
        before = self._contents.get(directory, set())
        self._directories.setdefault(directory, _UNREAD)  # it counts before those in it
        now: set[str] = set()
        # Asked for first, so that what happens while it is read is seen at the next look.
        look = _directory_look(directory)
        if look is None or time.time_ns() - look[0] < _TICK_NANOSECONDS:
            look = _UNREAD  # what happens next may bear the same time
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    self._note(entry, now, changed)
        except OSError as error:
            look = _UNREAD
            if isinstance(error, PermissionError):
                self._deny(directory, error)
        for path in before - now:
            self._drop(path, changed)
        # A directory that is gone is dropped when the one above it is read, if that is watched.
        self._directories[directory] = look
        self._contents[directory] = now

    # Once: it is tried twice a second.
    def _deny(self, directory: str, error: OSError) -> None:
        if not self._denied:
            self._denied = True
            logger.warning("--reload: what is in %s is not watched: %s", directory, error.strerror)

    def _note(self, entry: os.DirEntry[str], now: set[str], changed: set[str]) -> None:
        path, name = entry.path, os.path.normcase(entry.name)
        # As os.walk: a link to a directory may lead in a circle.
        if entry.is_dir(follow_symlinks=False):
            if self._filter.leaves_out(path):
                return
            if path not in self._directories and len(self._directories) >= _DIRECTORIES_MAX:
                self._truncate(_DIRECTORIES_MAX, "directories")
                return
            now.add(path)
            if path not in self._directories:
                self._read(path, changed)
        elif self._filter.counts(name):
            look = _look_at(path)
            if look is None:
                return
            if path not in self._files and len(self._files) >= _FILES_MAX:
                self._truncate(_FILES_MAX, "files")
                return
            now.add(path)
            if self._files.get(path) != look:
                self._set(path, look, changed)

    def _truncate(self, most: int, what: str) -> None:
        if not self._truncated:
            self._truncated = True
            logger.warning("--reload: more than %d %s; the others are not watched", most, what)

    def _drop(self, path: str, changed: set[str]) -> None:
        if path in self._files:
            self._set(path, None, changed)
        elif path in self._directories:
            del self._directories[path]
            for below in self._contents.pop(path, set()):
                self._drop(below, changed)


def _directory_look(directory: str) -> _Look | None:
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _look_at(path: str) -> _Look | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class SystemWatcher:
    """Lets the operating system tell, through watchfiles.

    The system watches directories and not their names. So the names are looked up twice a second; where one stands for
    another directory than before, or for one again, watching begins anew. If the system cannot watch, a
    `PollingWatcher` takes over.

    Args:
        directories: To watch, with all below.
        wanted: Which files count.
        watch: ``watchfiles.watch``.
    """

    def __init__(self, directories: Sequence[str], wanted: Filter, watch: Any) -> None:
        self._filter = wanted
        self._directories = list(directories)
        self._places = _places_of(directories)
        self._changed: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._instead: PollingWatcher | None = None
        self._thread = threading.Thread(target=self._run, args=(watch,), name="reload", daemon=True)
        self._thread.start()

    def _run(self, watch: Any) -> None:
        while not self._stop.is_set():
            try:
                self._watch(watch)
            except Exception as error:
                # A directory was removed while the system began to watch it: it is another one the next time.
                if self._renew():
                    continue
                # A directory below may not be read, or the system has no more watches to give.
                logger.warning("--reload: the system cannot tell of changes, so they are looked for: %s", error)
                self._instead = PollingWatcher(self._directories, self._filter)
                return
            if not self._renew():
                self._stop.wait(_PLACES_MILLISECONDS / 1000)

    # Until a name stands for something else, or the end.
    def _watch(self, watch: Any) -> None:
        if not self._places:
            return
        # A step is how long it waits for more changes, in milliseconds, and how soon it sees that it is to stop.
        options: dict[str, Any] = {"debounce": 400, "step": 50, "raise_interrupt": False}
        options |= {"rust_timeout": _PLACES_MILLISECONDS, "yield_on_timeout": True}
        for changes in watch(*self._places, watch_filter=self._wanted, stop_event=self._stop, **options):
            with self._lock:
                self._changed.update(path for _change, path in changes)
            if _places_of(self._directories) != self._places:
                return

    # The changes between two watches are not known, only that there may be some.
    def _renew(self) -> bool:
        places = _places_of(self._directories)
        before, self._places = self._places, places
        for place in places:
            if places[place] != before.get(place) and self._filter.counts_in(place):
                with self._lock:
                    self._changed.add(place)
        return places != before

    def _wanted(self, change: Any, path: str) -> bool:
        if any(self._filter.counts_below(place, path) for place in self._places):
            return True
        return change == _ADDED and os.path.isdir(path) and self._has_come_with_files(path)

    # Files that come with a new directory are not reported: an archive that is unpacked, a branch.
    def _has_come_with_files(self, path: str) -> bool:
        within = [place for place in self._places if path.startswith(place.rstrip(os.sep) + os.sep)]
        parts = [_parts(place, path) for place in within]
        return any(not any(map(self._filter.leaves_out, above)) for above in parts) and self._filter.counts_in(path)

    def __call__(self) -> list[str]:
        """Return the paths of files that were changed, made or removed; of a directory that is another one, its own."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return _shown(changed) + (self._instead() if self._instead is not None else [])

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(1.0)


# The directories between one and another that is below it, which is the last of them.
def _parts(top: str, path: str) -> list[str]:
    found = []
    place = top
    for part in path.removeprefix(top.rstrip(os.sep) + os.sep).split(os.sep):
        place = os.path.join(place, part)
        found.append(place)
    return found


# The real paths of those that are there, which the system tells of, and which directory each stands for.
def _places_of(directories: Sequence[str]) -> dict[str, tuple[int, int]]:
    places = {}
    for directory in directories:
        try:
            place = os.path.realpath(directory, strict=True)
            found = os.stat(place)
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode):
            places[place] = (found.st_dev, found.st_ino)
    return places


def _shown(paths: Iterable[str]) -> list[str]:
    try:
        return sorted(map(os.path.relpath, paths))
    except FileNotFoundError:  # the current directory was removed
        return sorted(paths)


def watcher_for(directories: Sequence[str], includes: Sequence[str], excludes: Sequence[str]) -> Any:
    """Return the best watcher there is.

    Args:
        directories: To watch, with all below; none means the current one.
        includes: Patterns of the names of files that count.
        excludes: Patterns of the names of files and directories that do not.
    """
    wanted = Filter(includes, excludes)
    places = _outermost(directories or ["."], wanted)
    try:
        from watchfiles import watch
    except ImportError:
        logger.info("Watching for changes by looking; pip install 'daphne-ng[reload]' lets the system tell")
        return PollingWatcher(places, wanted)
    # That library logs how many changes it has seen, also those that do not matter here.
    if logging.getLogger("watchfiles").level == logging.NOTSET:
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
    logger.info("Watching for changes")
    return SystemWatcher(places, wanted, watch)


# Without what is watched as a part of another one, and would be seen twice. The names stay as they are: what a link
# names may be another directory tomorrow, even if it is within another one today.
def _outermost(directories: Sequence[str], wanted: Filter) -> list[str]:
    found: list[str] = []
    for directory in sorted({os.path.abspath(directory) for directory in directories}):
        tops = [top for top in found if directory.startswith(top.rstrip(os.sep) + os.sep)]
        if not any(_is_watched_with(top, directory, wanted) for top in tops):
            found.append(directory)
    return found


def _is_watched_with(top: str, directory: str, wanted: Filter) -> bool:
    return not any(os.path.islink(part) or wanted.leaves_out(part) for part in _parts(top, directory))

"""`daphne_ng.supervisor.reload`: every kind of change is seen once, and nothing else."""

from __future__ import annotations

import os
import queue
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daphne_ng.supervisor import reload
from daphne_ng.supervisor.reload import Filter, PollingWatcher, SystemWatcher, watcher_for

INCLUDES = ("*.py", "*.html")
EXCLUDES = (".*", "__pycache__", "node_modules", "*_pb2.py")


class Watched:
    """A tree that is watched, and a clock for it. Times of files are set, so that none is by chance the same."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0
        self.stamp = 1_600_000_000
        self.slept: list[float] = []
        self.while_sleeping: Callable[[], object] = lambda: None
        self.watcher: Any = None

    def watch(self, *directories: str) -> None:
        self.watcher = PollingWatcher(
            directories or ["."], Filter(INCLUDES, EXCLUDES), clock=lambda: self.now, sleep=self._sleep
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.while_sleeping()

    def write(self, name: str, text: str = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.touch(name)
        return path

    def touch(self, name: str) -> None:
        """Give a file or a directory a time that nothing else has."""
        self.stamp += 1
        os.utime(self.root / name, (self.stamp, self.stamp))

    def seen(self) -> list[str]:
        self.now += 0.5
        found: list[str] = self.watcher()
        return found


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.chdir(tmp_path)
    watched = Watched(tmp_path)
    watched.write("main.py")
    watched.write("proj/views.py")
    watched.write("proj/templates/index.html")
    watched.write("proj/notes.txt")
    return watched


def test_nothing_is_seen_when_nothing_happens(tree: Watched) -> None:
    tree.watch()

    assert [tree.seen() for _ in range(5)] == [[]] * 5
    assert tree.slept == []


def test_a_change_is_seen_once_after_a_moment_for_more(tree: Watched) -> None:
    tree.watch()
    tree.write("proj/views.py", "x = 1")
    tree.while_sleeping = lambda: tree.write("main.py", "y = 2")

    assert tree.seen() == ["main.py", "proj/views.py"]
    assert tree.slept == [0.1]
    tree.while_sleeping = lambda: None
    assert tree.seen() == []


def test_it_is_looked_for_twice_a_second_however_often_it_is_asked(tree: Watched) -> None:
    tree.watch()
    tree.write("main.py", "x")
    tree.now += 0.4

    assert tree.watcher() == []
    tree.now += 0.2
    assert tree.watcher() == ["main.py"]


def test_an_older_time_is_a_change_and_so_is_another_size(tree: Watched) -> None:
    tree.watch()
    os.utime("main.py", (1, 1))
    assert tree.seen() == ["main.py"]
    Path("main.py").write_text("longer")
    os.utime("main.py", (1, 1))
    assert tree.seen() == ["main.py"]


def test_what_is_made_removed_or_renamed_is_seen(tree: Watched) -> None:
    tree.watch()
    tree.write("proj/new.py")
    assert tree.seen() == ["proj/new.py"]
    os.unlink("proj/new.py")
    assert tree.seen() == ["proj/new.py"]
    os.rename("proj/views.py", "proj/pages.py")
    assert tree.seen() == ["proj/pages.py", "proj/views.py"]
    tree.write("proj/pages.py", "followed under its new name")
    assert tree.seen() == ["proj/pages.py"]


def test_a_file_that_is_saved_by_renaming_is_seen(tree: Watched) -> None:
    tree.watch()
    tree.write("proj/.views.py.swp", "new")
    os.replace("proj/.views.py.swp", "proj/views.py")

    assert tree.seen() == ["proj/views.py"]


def test_directories_come_and_go_with_what_is_in_them(tree: Watched) -> None:
    tree.watch()
    tree.write("app/a/one.py")
    tree.write("app/b/two.py")
    assert tree.seen() == ["app/a/one.py", "app/b/two.py"]
    tree.write("app/a/one.py", "followed")
    assert tree.seen() == ["app/a/one.py"]
    os.rename("app", "moved")
    assert tree.seen() == ["app/a/one.py", "app/b/two.py", "moved/a/one.py", "moved/b/two.py"]
    shutil.rmtree("moved")
    assert tree.seen() == ["moved/a/one.py", "moved/b/two.py"]
    assert tree.seen() == []


def test_what_is_left_out_is_not_seen_nor_read(tree: Watched) -> None:
    tree.write(".git/hook.py")
    tree.write("venv/pyvenv.cfg")
    tree.write("venv/lib/site.py")
    tree.watch()
    for name in (
        ".git/hook.py", "venv/lib/site.py", "node_modules/a/b.py", "proj/__pycache__/x.py", "proj/notes.txt",
        "proj/.hidden.py", "proj/api_pb2.py",
    ):  # fmt: skip
        tree.write(name, "changed")

    assert tree.seen() == []


def test_many_files_are_looked_at_in_turn_and_those_changed_last_always(
    tree: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "_HOT_FILES", 2)
    monkeypatch.setattr(reload, "_SLICE_FILES", 10)
    monkeypatch.setattr(reload, "_SLICES", 1000)
    for number in range(60):
        tree.write(f"many/m{number}.py")
    for name in ("many", "proj/templates", "proj", "."):
        tree.touch(name)
    tree.watch()
    stated: list[str] = []
    look_at = reload._look_at
    monkeypatch.setattr(reload, "_look_at", lambda path: stated.append(path) or look_at(path))
    for _ in range(7):
        before = len(stated)
        assert tree.seen() == []
        assert len(stated) - before <= 12
    assert len(set(stated)) == 63

    tree.write("many/m7.py", "cold")
    looks = next(number for number in range(1, 9) if tree.seen())
    assert looks <= 7
    for _ in range(3):
        tree.write("many/m7.py", f"hot now {looks}")
        looks += 1
        assert tree.seen() == ["many/m7.py"]


def test_too_many_files_are_told_once(
    tree: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reload, "_FILES_MAX", 5)
    for number in range(9):
        tree.write(f"many/m{number}.py")
    tree.watch()
    tree.write("many/m10.py")
    tree.seen()

    assert caplog.messages == ["--reload: more than 5 files; the others are not watched"]


def test_several_directories_are_seen_once_each(tree: Watched) -> None:
    wanted = Filter(INCLUDES, EXCLUDES)
    (tree.root / ".hidden").mkdir()

    def outermost(*directories: str) -> list[str]:
        return [os.path.relpath(path) for path in reload._outermost(directories, wanted)]

    assert outermost(".", "proj", "./proj/templates", str(tree.root)) == ["."]
    assert outermost("proj", "proj/templates") == ["proj"]
    # Named, although it would be left out.
    assert outermost(".", ".hidden") == [".", ".hidden"]
    assert outermost("/", ".") == [os.path.relpath("/")]
    os.symlink("proj", "current")  # it may be another one tomorrow
    assert outermost(".", "current") == [".", "current"]
    tree.write(".hidden/a.py")
    tree.watch(".", ".hidden")
    tree.write(".hidden/a.py", "changed")
    assert tree.seen() == [".hidden/a.py"]


def test_a_directory_that_is_not_there_is_no_failure(tree: Watched) -> None:
    tree.watch("no", "proj")
    tree.write("proj/views.py", "x")

    assert tree.seen() == ["proj/views.py"]


# -- the system's own ----------------------------------------------------------------------------------------------


def test_a_current_directory_that_is_removed_is_no_failure(tree: Watched, tmp_path: Path) -> None:
    tree.watch(str(tmp_path / "proj"))
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    tree.write("proj/views.py", "x = 1")

    assert tree.seen() == [str(tmp_path / "proj/views.py")]


def test_what_the_system_tells_is_filtered_by_the_same_rules(tree: Watched) -> None:
    told = [
        "proj/views.py", "proj/notes.txt", ".git/a.py", "proj/__pycache__/b.py", "proj/templates/index.html", "../other.py",
    ]  # fmt: skip

    def watch(*directories: str, watch_filter: Any, **options: Any) -> Any:
        assert directories == (str(tree.root),)
        paths = [os.path.abspath(path) for path in told]
        yield {(1, path) for path in paths if watch_filter(1, path)}

    watcher = SystemWatcher([str(tree.root)], Filter(INCLUDES, EXCLUDES), watch)
    watcher.close()

    assert watcher() == ["proj/templates/index.html", "proj/views.py"]
    assert watcher() == []


def test_a_directory_that_comes_with_files_counts(tree: Watched) -> None:
    """The system tells of the directory, and not of what was in it before it was watched."""
    tree.write("with/deep/a.py")
    tree.write("without/notes.txt")
    tree.write("without/__pycache__/a.py")
    tree.write(".git/deep/a.py")

    def watch(*directories: str, watch_filter: Any, **options: Any) -> Any:
        paths = [os.path.abspath(path) for path in ("with", "without", ".git/deep", "gone")]
        yield {(1, path) for path in paths if watch_filter(1, path)}
        yield {(2, path) for path in paths if watch_filter(2, path)}

    watcher = SystemWatcher([str(tree.root)], Filter(INCLUDES, EXCLUDES), watch)
    watcher.close()

    assert watcher() == ["with"]


def test_a_large_tree_is_looked_at_within_eight_looks(tree: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "_HOT_FILES", 2)
    monkeypatch.setattr(reload, "_SLICE_FILES", 2)
    for number in range(60):
        tree.write(f"many/m{number}.py")
    tree.watch()
    for number in (3, 30, 57):
        tree.write(f"many/m{number}.py", "cold")
    seen = [name for _ in range(9) for name in tree.seen()]
    assert sorted(seen) == ["many/m3.py", "many/m30.py", "many/m57.py"]


@pytest.mark.real("a thread watches")
def test_a_system_that_cannot_watch_says_so_and_the_files_are_looked_at(
    tree: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    def watch(*directories: str, **options: Any) -> Any:
        raise OSError("no space left for watches")
        yield

    watcher = SystemWatcher([str(tree.root)], Filter(INCLUDES, EXCLUDES), watch)
    watcher._thread.join(10)
    text = "--reload: the system cannot tell of changes, so they are looked for: no space left for watches"
    assert caplog.messages == [text]
    assert watcher() == []
    tree.write("main.py", "x = 1")
    deadline = time.monotonic() + 10
    while not (seen := watcher()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert seen == ["main.py"]
    watcher.close()


def test_a_virtual_environment_is_left_out_by_both(tree: Watched) -> None:
    tree.write("venv/pyvenv.cfg")
    tree.write("venv/lib/site.py")
    tree.write("proj/venv/views.py")  # it is called so, and is none
    wanted = Filter(INCLUDES, EXCLUDES)
    root = str(tree.root)

    assert not wanted.counts_below(root, f"{root}/venv/lib/site.py")
    assert wanted.counts_below(root, f"{root}/proj/venv/views.py")
    tree.watch()
    tree.write("venv/lib/site.py", "changed")
    tree.write("proj/venv/views.py", "changed")
    assert tree.seen() == ["proj/venv/views.py"]

    def watch(*directories: str, watch_filter: Any, **options: Any) -> Any:
        yield {(1, path) for path in (f"{root}/venv", f"{root}/venv/lib/site.py") if watch_filter(1, path)}
        options["stop_event"].wait()

    watcher = SystemWatcher([root], wanted, watch)
    watcher.close()
    assert watcher() == []


def test_a_directory_that_cannot_be_read_is_told_once_and_the_others_are_watched(
    tree: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tree.write("proj/secret/a.py")
    scandir, denied = os.scandir, ["./proj/secret"]

    def strict(path: str) -> Any:
        if path in denied:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", strict)
    tree.watch()
    for _ in range(3):
        assert tree.seen() == []
    tree.write("proj/views.py", "seen")
    assert tree.seen() == ["proj/views.py"]
    assert caplog.messages == ["--reload: what is in ./proj/secret is not watched: Permission denied"]
    denied.clear()
    assert tree.seen() == ["proj/secret/a.py"]


def test_a_watched_directory_that_is_removed_and_made_again_is_found_again(tree: Watched) -> None:
    tree.watch("proj")
    shutil.rmtree("proj")
    assert tree.seen() == ["proj/templates/index.html", "proj/views.py"]
    assert tree.seen() == []
    tree.write("proj/views.py", "again")
    assert tree.seen() == ["proj/views.py"]
    tree.write("proj/views.py", "and again")
    assert tree.seen() == ["proj/views.py"]


def test_a_link_that_names_another_directory_is_a_change(tree: Watched) -> None:
    tree.write("releases/1/code.py", "1")
    tree.write("releases/2/code.py", "2")
    tree.write("releases/2/more/code.py", "2")
    for name in ("releases/1", "releases/2"):
        os.utime(name, (1, 1))  # they are unpacked from an archive, so that nothing but the name differs
    os.symlink("releases/1", "current")
    tree.watch("current")
    assert tree.seen() == []
    os.symlink("releases/2", "next")
    os.replace("next", "current")
    assert tree.seen() == ["current/code.py", "current/more/code.py"]
    tree.write("current/more/code.py", "followed")
    assert tree.seen() == ["current/more/code.py"]


def test_too_many_directories_are_told_once(
    tree: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reload, "_DIRECTORIES_MAX", 4)
    for number in range(9):
        tree.write(f"many/d{number}/m.py")
    tree.watch()
    tree.seen()

    assert len(tree.watcher._directories) <= 4
    assert caplog.messages == ["--reload: more than 4 directories; the others are not watched"]


class System:
    """Stands for ``watchfiles.watch``: what it is told, it tells, until it is called anew."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[str, ...]] = queue.Queue()
        self.told: queue.Queue[str] = queue.Queue()

    def watch(self, *directories: str, watch_filter: Any, stop_event: Any, **options: Any) -> Any:
        if not all(map(os.path.isdir, directories)):
            raise FileNotFoundError(directories)
        self.calls.put(directories)
        while not stop_event.is_set():
            try:
                path = self.told.get(timeout=0.01)
            except queue.Empty:
                yield set()
            else:
                yield {(2, path)} if watch_filter(2, path) else set()


@pytest.mark.real("a thread watches")
def test_the_system_is_asked_anew_when_a_name_stands_for_another_directory(tree: Watched, tmp_path: Path) -> None:
    tree.write("releases/1/code.py", "1")
    tree.write("releases/2/code.py", "2")
    os.symlink("releases/1", "current")
    system = System()
    watcher = SystemWatcher([str(tmp_path / "current")], Filter(INCLUDES, EXCLUDES), system.watch)
    try:
        assert system.calls.get(timeout=10) == (str(tmp_path / "releases/1"),)
        assert watcher() == []
        os.symlink("releases/2", "next")
        os.replace("next", "current")
        assert system.calls.get(timeout=10) == (str(tmp_path / "releases/2"),)
        assert watcher() == ["releases/2"]
        shutil.rmtree("releases/2")
        time.sleep(0.1)  # it may be seen that there is nothing
        assert watcher() == []
        tree.write("releases/2/code.py", "again")
        assert system.calls.get(timeout=10) == (str(tmp_path / "releases/2"),)
        assert watcher() == ["releases/2"]
        system.told.put(str(tmp_path / "releases/2/code.py"))
        deadline = time.monotonic() + 10
        while not (seen := watcher()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seen == ["releases/2/code.py"]
    finally:
        watcher.close()


def test_without_watchfiles_it_is_looked_for(tree: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)

    assert isinstance(watcher_for([], INCLUDES, EXCLUDES), PollingWatcher)

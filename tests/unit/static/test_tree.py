"""`daphne_ng.static.tree`: files below a directory, and no others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daphne_ng.static.tree import IS_DIRECTORY, OpenFile, Tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "css").mkdir(parents=True)
    (root / "css" / "a.css").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.css").write_bytes(b"outside")
    return root


def content(tree: Tree, path: str) -> bytes | str | None:
    found = tree.open(path.encode().split(b"/"))
    if not isinstance(found, OpenFile):
        return found
    try:
        data = os.pread(found.descriptor, 100, 0)
        assert len(data) == found.size
        return data
    finally:
        found.close()


def test_files_and_directories_are_found(root: Path) -> None:
    tree = Tree(str(root), False)

    assert content(tree, "css/a.css") == b"inside"
    assert content(tree, "css") == IS_DIRECTORY
    assert tree.open([]) == IS_DIRECTORY
    assert tree.path_of([b"css", b"a.css"]) == os.fsencode(root / "css" / "a.css")


@pytest.mark.parametrize("path", ["none", "css/none", "css/a.css/x", "x" * 300, "/".join(["y" * 200] * 40)])
def test_what_is_not_there_is_not_found(root: Path, path: str) -> None:
    assert content(Tree(str(root), False), path) is None


def test_a_file_that_must_not_be_read_is_not_found(root: Path) -> None:
    (root / "css" / "a.css").chmod(0)
    if os.access(root / "css" / "a.css", os.R_OK):
        pytest.skip("this user may read everything")
    assert content(Tree(str(root), False), "css/a.css") is None


def test_what_is_no_regular_file_is_not_found_and_waits_for_nobody(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for follow in (False, True):
        assert content(Tree(str(root), follow), "pipe") is None


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("b.css", "css/a.css", "b.css"),
        ("css/b.css", "a.css", "css/b.css"),
        ("styles", "css", "styles/a.css"),
        ("css/up", "..", "css/up/css/a.css"),
        ("css/c.css", "{root}/css/a.css", "css/c.css"),
    ],
)
def test_links_within_the_directory_are_followed(root: Path, link: str, target: str, path: str) -> None:
    (root / link).symlink_to(target.format(root=root))
    assert content(Tree(str(root), False), path) == b"inside"
    assert content(Tree(str(root), True), path) == b"inside"


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("b.css", "../secret", "b.css"),
        ("styles", "../elsewhere", "styles/a.css"),
        ("css/up", "../..", "css/up/secret"),
        ("rooted", "{root}x", "rooted/a.css"),
    ],
)
def test_links_that_lead_out_are_followed_if_that_is_allowed(root: Path, link: str, target: str, path: str) -> None:
    os.rename(root.parent / "elsewhere", f"{root}x") if "{root}x" in target else None
    (root / link).symlink_to(target.format(root=root))
    assert content(Tree(str(root), False), path) is None
    assert content(Tree(str(root), True), path) == b"outside"


def test_links_in_a_ring_are_nothing(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    for follow in (False, True):
        assert content(Tree(str(root), follow), "a") is None
        assert content(Tree(str(root), follow), "a/x") is None


def test_a_link_to_the_directory_itself_is_a_directory(root: Path) -> None:
    (root / "self").symlink_to(".")
    assert content(Tree(str(root), False), "self") == IS_DIRECTORY
    assert content(Tree(str(root), False), "self/css/a.css") == b"inside"


def test_the_directory_may_be_a_link_that_is_changed(root: Path) -> None:
    current = root.parent / "current"
    current.symlink_to("root")
    tree = Tree(str(current), False)
    assert content(tree, "css/a.css") == b"inside"
    current.unlink()
    current.symlink_to("elsewhere")
    assert content(tree, "a.css") == b"outside"


@pytest.mark.parametrize("name", ["css", "css/a.css"])
def test_a_link_that_takes_a_place_during_a_walk_leads_nowhere(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The attacker acts at the last moment: when everything was looked at, and nothing is opened yet.
    def swap() -> None:
        moved = root / "moved"
        if not moved.exists():
            (root / name).rename(moved)
            (root / name).symlink_to("../elsewhere" if name == "css" else "../../secret")

    for step in ("stat", "open", "realpath"):
        tree = Tree(str(root), False)
        (root / "through").unlink(missing_ok=True)
        (root / "through").symlink_to("css")
        module = os.path if step == "realpath" else os
        for path in ("css/a.css", "through/a.css"):
            with monkeypatch.context() as patched:
                patched.setattr(module, step, _after(getattr(module, step), swap))
                assert content(tree, path) != b"outside"
            if (root / "moved").exists():
                (root / name).unlink()
                (root / "moved").rename(root / name)


def _after(function: Callable[..., object], act: Callable[[], None]) -> Callable[..., object]:
    def call(*args: object, **keywords: object) -> object:
        result = function(*args, **keywords)
        act()
        return result

    return call


@pytest.mark.parametrize("name", ["none", "secret"])
def test_a_directory_that_is_none_is_refused(root: Path, name: str) -> None:
    with pytest.raises(OSError):
        Tree(str(root.parent / name), False)


def test_no_descriptor_is_left_open(root: Path) -> None:
    (root / "out").symlink_to("../secret")
    (root / "styles").symlink_to("css")
    before = len(os.listdir("/proc/self/fd"))
    tree = Tree(str(root), False)
    for path in ("css/a.css", "css", "none/x", "out", "styles/a.css", "css/a.css/x"):
        content(tree, path)
    assert len(os.listdir("/proc/self/fd")) == before

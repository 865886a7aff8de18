"""`daphne_ng.static.lookup`: what answers a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.static.lookup import Mount, Redirect, Representation

TIME = 1_700_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "empty").mkdir()
    for name in (
        "app.js",
        "app.js.br",
        "app.js.gz",
        "a b.png",
        "a b.png.gz",
        "docs/index.html",
        "base.3d8d4f3e2c1b.css",
    ):
        write(tmp_path / name, name.encode())
    return tmp_path


def write(file: Path, content: bytes, modified: int = TIME) -> None:
    file.write_bytes(content)
    os.utime(file, (modified, modified))


def look(root: Path, rest: str, *codings: bytes, **settings: Any) -> Representation | Redirect | None:
    found = Mount("/static", str(root), Config(**settings)).look(rest, codings)
    if isinstance(found, Representation):
        found.close()
    return found


def file_at(root: Path, rest: str, *codings: bytes, **settings: Any) -> Representation:
    found = look(root, rest, *codings, **settings)
    assert isinstance(found, Representation)
    return found


def test_a_file_comes_with_its_fields(root: Path) -> None:
    found = file_at(root, "/a b.png")

    assert (found.body, found.size, found.media_type) == (b"a b.png", 7, b"image/png")
    assert found.fields == [
        (b"etag", b'"%x-7"' % (TIME * 10**9)),
        (b"last-modified", b"Tue, 14 Nov 2023 22:13:20 GMT"),
        (b"accept-ranges", b"bytes"),
    ]
    assert found.path == os.fsencode(root / "a b.png")


def test_the_best_neighbour_is_sent_in_the_place_of_the_file(root: Path) -> None:
    found = file_at(root, "/app.js", b"zstd", b"br", b"gzip")

    assert found.body == b"app.js.br"
    assert found.media_type == b"text/javascript; charset=utf-8"
    assert (b"content-encoding", b"br") in found.fields
    assert (b"vary", b"accept-encoding") in found.shared_fields
    assert (b"etag", b'"%x-9-br"' % (TIME * 10**9)) in found.shared_fields
    assert file_at(root, "/app.js", b"gzip").body == b"app.js.gz"


def test_the_file_itself_varies_if_it_has_a_neighbour(root: Path) -> None:
    found = file_at(root, "/app.js")

    assert found.body == b"app.js"
    assert (b"vary", b"accept-encoding") in found.fields
    assert (b"content-encoding", b"br") not in found.fields


def test_a_neighbour_that_is_older_than_the_file_is_not_sent(root: Path) -> None:
    write(root / "app.js", b"new", TIME + 1)
    found = file_at(root, "/app.js", b"br", b"gzip")

    assert found.body == b"new"
    assert (b"vary", b"accept-encoding") not in found.fields


def test_what_is_compressed_already_has_no_neighbour(root: Path) -> None:
    assert file_at(root, "/a b.png", b"gzip").body == b"a b.png"


def test_a_neighbour_alone_is_no_file(root: Path) -> None:
    (root / "app.js").unlink()
    assert look(root, "/app.js", b"br") is None


def test_a_neighbour_can_be_asked_for_itself(root: Path) -> None:
    found = file_at(root, "/app.js.gz", b"gzip")
    assert (found.body, found.media_type) == (b"app.js.gz", b"application/gzip")


def test_a_link_that_leads_out_is_no_neighbour_either(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret"
    write(outside, b"secret")
    (root / "app.js.zst").symlink_to(outside)
    assert file_at(root, "/app.js", b"zstd").body == b"app.js"
    assert file_at(root, "/app.js", b"zstd", static_follow_symlinks=True).body == b"secret"


def test_a_large_file_stays_on_the_disk(root: Path) -> None:
    mount = Mount("/static", str(root), Config(static_cache_file_bytes=5))
    found = mount.look("/app.js", ())

    assert isinstance(found, Representation)
    assert found.body is None
    assert os.pread(found.file.descriptor, 100, 0) == b"app.js"
    found.close()


@pytest.mark.parametrize("rest", ["", "/", "/docs", "/docs/", "/empty/", "/app.js/", "/none", "/.git", "/a\0"])
def test_there_is_nothing(root: Path, rest: str) -> None:
    assert look(root, rest) is None


def test_an_index_stands_for_its_directory(root: Path) -> None:
    assert file_at(root, "/docs/", static_index="index.html").body == b"docs/index.html"
    for rest in ("/", "/empty/", "/empty", "/none/", "/app.js/"):
        assert look(root, rest, static_index="index.html") is None


@pytest.mark.parametrize(
    ("rest", "location"),
    [("/docs", b"./docs/"), ("/a:b?c", b"./a%3Ab%3Fc/"), ("", b"./static/")],
)
def test_a_directory_without_its_slash_is_somewhere_else(root: Path, rest: str, location: bytes) -> None:
    (root / "a:b?c").mkdir()
    for directory in (root, root / "a:b?c"):
        write(directory / "index.html", b"")
    found = look(root, rest, static_index="index.html")
    assert isinstance(found, Redirect)
    assert found.location == location


def test_caches_may_keep_names_with_a_hash(root: Path) -> None:
    settings = {"static_immutable": ("django",), "static_max_age": 60}
    immutable = (b"cache-control", b"public, max-age=31536000, immutable")

    assert immutable in file_at(root, "/base.3d8d4f3e2c1b.css", **settings).shared_fields
    assert (b"cache-control", b"max-age=60") in file_at(root, "/app.js", **settings).shared_fields
    assert b"cache-control" not in dict(file_at(root, "/app.js").shared_fields)

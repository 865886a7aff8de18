"""`daphne_ng.config.static`: which prefixes and names are taken."""

from __future__ import annotations

import re

import pytest

from daphne_ng.acme import responder
from daphne_ng.config import Config
from daphne_ng.config.static import ACME_PREFIX, HASHED_NAMES, split_mount
from daphne_ng.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/static=/srv/static", ("/static", "/srv/static")),
        ("/static/=/srv/static/", ("/static", "/srv/static/")),
        ("/=/srv/www", ("", "/srv/www")),
        ("/a/b=c=d", ("/a/b", "c=d")),
    ],
)
def test_a_prefix_and_its_directory_are_split(text: str, mount: tuple[str, str]) -> None:
    assert split_mount(text) == mount
    assert Config(static=(text,)).static == (text,)


@pytest.mark.parametrize(
    ("texts", "rule"),
    [
        (["/static"], "takes PREFIX=DIRECTORY"),
        (["/static="], "takes PREFIX=DIRECTORY"),
        (["=/srv"], "takes PREFIX=DIRECTORY"),
        (["static=/srv"], "must begin with a slash"),
        (["//static=/srv"], "plain path"),
        (["/a/../b=/srv"], "plain path"),
        (["/a/.=/srv"], "plain path"),
        (["/a%20b=/srv"], "plain path"),
        (["/a\\b=/srv"], "plain path"),
        (["/a\n=/srv"], "plain path"),
        (["/a=/srv\0"], "plain path"),
        (["/static=/a", "/static=/a"], "given twice, for /a and /a"),
        (["/static=/a", "/static/=/b"], "given twice, for /a and /b"),
        (["/=/a", "/=/b"], "the prefix / is given twice"),
        (["/.well-known/acme-challenge=/srv"], "proofs of automatic certificates"),
        (["/.well-known/acme-challenge/x=/srv"], "proofs of automatic certificates"),
        ([5], "takes texts"),
    ],
)
def test_prefixes_that_contradict_each_other_are_refused(texts: list[str], rule: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^--static.*{rule}"):
        Config(static=tuple(texts))


def test_a_prefix_within_another_is_none_that_contradicts_it() -> None:
    assert len(Config(static=("/static=/a", "/static/admin=/b", "/.well-known=/c")).static) == 3


def test_the_prefix_of_proofs_is_that_of_the_responder() -> None:
    assert f"{ACME_PREFIX}/" == responder._PREFIX


@pytest.mark.parametrize("name", ["a/b", "../x", ".htaccess", "a\0"])
def test_an_index_is_the_name_of_a_file(name: str) -> None:
    with pytest.raises(ConfigurationError, match="^--static-index must be the name of a file"):
        Config(static_index=name)


def test_a_pattern_has_to_be_one() -> None:
    assert Config(static_immutable=["django", r"\.\w{8}\."]).static_immutable == ("django", r"\.\w{8}\.")
    with pytest.raises(ConfigurationError, match="^--static-immutable: '\\(' is no regular expression"):
        Config(static_immutable=("(",))


@pytest.mark.parametrize(
    ("tool", "path", "hashed"),
    [
        ("django", "/static/admin/css/base.3d8d4f3e2c1b.css", True),
        ("django", "/static/README.3d8d4f3e2c1b", True),
        ("django", "/static/admin/css/base.css", False),
        ("django", "/static/3d8d4f3e2c1b.d/base.css", False),
        ("vite", "/assets/index-BfZ3x_aQ.js", True),
        ("vite", "/my-document.pdf", False),
        ("vite", "/assets/index.js", False),
        ("webpack", "/static/main.0f3a9c7b2d5e6a81c4d2.js", True),
        ("webpack", "/static/main-0f3a9c7b.js", True),
        ("webpack", "/static/report-20240131.pdf", False),
        ("webpack", "/static/main.defaced.js", False),
    ],
)
def test_names_with_a_hash_are_told_apart(tool: str, path: str, hashed: bool) -> None:
    assert bool(re.search(HASHED_NAMES[tool], path)) is hashed

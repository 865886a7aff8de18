"""`daphne_ng.static.paths`: which directory a path belongs to, and which file of it."""

from __future__ import annotations

import pytest

from daphne_ng.static.paths import Prefixes, normalised, segments_of, without_root


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("/static/a.css", "/static/a.css"),
        ("/static/", "/static/"),
        ("/", "/"),
        ("", "/"),
        ("*", "/*"),
        ("//static///a.css", "/static/a.css"),
        ("/static/./a.css", "/static/a.css"),
        ("/static/x/../a.css", "/static/a.css"),
        ("/static/..", "/"),
        ("/static/x/..", "/static/"),
        ("/static/.", "/static/"),
        ("/static/../../../etc/passwd", "/etc/passwd"),
        ("/../..", "/"),
        ("/static/.hidden", "/static/.hidden"),
        ("/static/...", "/static/..."),
        ("/static/a..b", "/static/a..b"),
    ],
)
def test_empty_and_dot_segments_are_taken_out(path: str, same: str) -> None:
    assert normalised(path) == same
    assert normalised(same) == same


@pytest.mark.parametrize(
    ("path", "root_path", "rest"),
    [
        ("/static/a", "", "/static/a"),
        ("/app/static/a", "/app", "/static/a"),
        ("/app", "/app", "/"),
        ("/application/a", "/app", "/application/a"),
        ("/static/a", "/app", "/static/a"),
    ],
)
def test_the_root_path_is_taken_off_if_the_path_has_it(path: str, root_path: str, rest: str) -> None:
    assert without_root(path, root_path) == rest


def test_the_longest_prefix_decides() -> None:
    prefixes = Prefixes([("", "all"), ("/static", "static"), ("/static/admin", "admin")])

    assert prefixes.find("/static/admin/x.css") == ("admin", "/x.css")
    assert prefixes.find("/static/admin") == ("admin", "")
    assert prefixes.find("/static/administrator") == ("static", "/administrator")
    assert prefixes.find("/staticx") == ("all", "/staticx")
    assert Prefixes([("/static", 1)]).find("/staticx") is None


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        ("", []),
        ("/", [b""]),
        ("/a.css", [b"a.css"]),
        ("/css/a.css", [b"css", b"a.css"]),
        ("/css/", [b"css", b""]),
        ("/ü x%41", ["ü x%41".encode()]),
    ],
)
def test_the_rest_of_a_path_is_names(rest: str, names: list[bytes]) -> None:
    assert segments_of(rest) == names


@pytest.mark.parametrize(
    "rest",
    ["/.git/config", "/css/.htaccess", "/a\0.css", "/a\n", "/a\x7f", "/..\\..\\x", "/a\\b", "/a\ufffdb"],
)
def test_what_no_published_file_is_called_is_never_looked_for(rest: str) -> None:
    assert segments_of(rest) is None

"""`daphne_ng.sources.values`: what a file and a variable hold."""

from typing import Any

import pytest

from daphne_ng.sources.names import names
from daphne_ng.sources.values import from_text, from_toml


@pytest.mark.parametrize(
    ("key", "given", "value"),
    [
        ("http_timeout", 5, 5),
        ("http_timeout", "5m", 300.0),
        ("reload", True, True),
        ("workers", 4, "4"),
        ("workers", "auto", "auto"),
        ("static", {"/static": "/srv", "/": "/www"}, ["/static=/srv", "/=/www"]),
        ("static", ["/static=/srv"], ["/static=/srv"]),
        ("static", "/static=/srv", ["/static=/srv"]),
        ("headers", {"X-A": "b"}, [(b"X-A", b"b")]),
        ("headers", ["X-A: b"], [(b"X-A", b"b")]),
        ("fd", 3, [3]),
        ("fd", [3, 4], [3, 4]),
    ],
)
def test_a_value_of_toml_becomes_what_the_flag_gives(key: str, given: Any, value: Any) -> None:
    assert from_toml(names()[key], given) == value


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("close_timeout", True, "must be a number, not true"),
        ("close_timeout", "soon", "must be a number, or one with a unit (ms, s, m, h, d), not 'soon'"),
        ("backlog", 1.5, "must be a whole number, not 1.5"),
        ("reload", "yes", "must be true or false, not 'yes'"),
        ("user", 5, "must be a text in quotation marks, not 5"),
        ("user", {}, "must be a text in quotation marks, not a table"),
        ("lifespan", "of", "must be one of auto, on, off, not 'of'"),
        ("bind", {"a": "b"}, "must be a list of texts, not [{'a': 'b'}]"),
        ("static", {"/": 1}, "must be a table of texts"),
        ("workers", False, "must be a number or a text, not false"),
    ],
)
def test_a_wrong_type_is_told_with_the_right_one(key: str, given: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared whole)
        from_toml(names()[key], given)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("reload", "On", True),
        ("reload", "0", False),
        ("port", "80", 80),
        ("bind", "[::1]:80", ["[::1]:80"]),
        ("bind", "['[::1]:80', 'localhost']", ["[::1]:80", "localhost"]),
        ("fd", "[3, 4]", [3, 4]),
        ("static", '{"/static" = "/srv"}', ["/static=/srv"]),
    ],
)
def test_a_variable_holds_one_value_or_an_array(key: str, text: str, value: Any) -> None:
    assert from_text(names()[key], text) == value


@pytest.mark.parametrize(("key", "text"), [("reload", ""), ("port", ""), ("bind", "['a"), ("fd", "[3")])
def test_the_text_of_a_variable_may_be_wrong(key: str, text: str) -> None:
    with pytest.raises(ValueError, match="must|is no array"):
        from_text(names()[key], text)

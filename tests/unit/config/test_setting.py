"""`daphne_ng.config.setting`: what a setting says of itself, and how it checks a value."""

import dataclasses
from typing import Any

import pytest

from daphne_ng.config.setting import Setting, SettingGroup, setting
from daphne_ng.errors import ConfigurationError


def described(default: Any, **more: Any) -> Setting:
    class Group(SettingGroup, heading="Things"):
        thing = setting(default, "a thing", **more)

    entry: Any = Group.thing
    known = entry.metadata["setting"]
    assert isinstance(known, Setting)
    return known


def test_a_group_tells_its_settings_their_names_and_its_heading() -> None:
    known = described(5)

    assert (known.name, known.group, known.help, known.default) == ("thing", "Things", "a thing", 5)


@pytest.mark.parametrize(
    ("default", "kind"), [(1, "int"), (1.5, "float"), ("x", "str"), (None, "str"), (True, "switch")]
)
def test_the_kind_follows_from_the_default(default: Any, kind: str) -> None:
    assert described(default).kind == kind
    assert described(default, kind="any").kind == "any"


@pytest.mark.parametrize(
    ("more", "label"),
    [
        ({}, "thing"),
        ({"flags": ("-t", "--a-thing", "--other")}, "--a-thing"),
        ({"set_by": "--things"}, "--things"),
    ],
)
def test_messages_call_a_setting_by_what_sets_it(more: dict[str, Any], label: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{label} must be a number, not 'x'$"):
        described(1, **more).checked("x")


@pytest.mark.parametrize(("value", "rule"), [(2, "at least 3, not 2"), (6, "at most 5"), (None, "a number, not None")])
def test_a_number_stays_within_its_limits(value: Any, rule: str) -> None:
    known = described(4, minimum=3, maximum=5)

    assert [known.checked(number) for number in (3, 4, 5, 3.5)] == [3, 4, 5, 3.5]
    with pytest.raises(ConfigurationError, match=f"^thing must be {rule}$"):
        known.checked(value)


def test_a_number_without_a_greatest_value_may_be_none_which_is_off() -> None:
    assert described(4, minimum=3).checked(None) is None


@pytest.mark.parametrize(
    ("default", "kind", "wrong", "rule"),
    [
        ("x", "", 5, "text, not 5"),
        (True, "", 1, "True or False, not 1"),
        (False, "flag", "no", "True or False, not 'no'"),
        ((), "texts", "abc", "a list, not 'abc'"),
        (None, "", 5, "text, not 5"),
        ("x", "", None, "text, not None"),
    ],
)
def test_a_value_of_another_type_is_refused(default: Any, kind: str, wrong: Any, rule: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^thing must be {rule}$"):
        described(default, kind=kind).checked(wrong)


def test_a_text_may_be_none_where_that_is_its_default() -> None:
    assert described(None).checked(None) is None
    assert described(None).checked(False) is False  # Daphne's


def test_a_list_is_kept_as_a_tuple() -> None:
    assert described((), kind="texts").checked(["a", "b"]) == ("a", "b")


def test_a_value_is_one_of_the_choices() -> None:
    known = described("on", choices=("on", "off"))

    assert known.checked("off") == "off"
    with pytest.raises(ConfigurationError, match="^thing must be one of on, off, not 'x'$"):
        known.checked("x")


def test_a_check_of_its_own_comes_last_and_hears_the_label() -> None:
    seen = []
    known = described(4, minimum=3, flags=("--thing",), check=lambda *given: seen.append(given))

    assert known.checked(5) == 5
    with pytest.raises(ConfigurationError):
        known.checked(2)
    assert seen == [("--thing", 5)]


def test_one_spelling_is_kept() -> None:
    assert described("1", kind="any", keep=str).checked(2) == "2"


def test_a_setting_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        described(1).minimum = 5  # type: ignore[misc]

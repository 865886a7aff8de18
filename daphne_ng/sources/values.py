"""From what a file or a variable holds to what the flag would have given."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

from daphne_ng.sources.names import Name
from daphne_ng.sources.options import header
from daphne_ng.sources.units import UNITS, parse_number

__all__ = ["from_text", "from_toml"]

_SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def from_toml(name: Name, value: Any) -> Any:
    """Return the option's value for a value of TOML.

    Raises:
        ValueError: It has the wrong type; says which is right.
    """
    if name.is_list:
        return _list(name, value)
    return _CONVERTERS[name.kind](name, value)


def from_text(name: Name, text: str) -> Any:
    """Return the option's value for the text of a variable; a list is an array of TOML, or one item alone.

    Raises:
        ValueError: The text does not stand for such a value; says what does.
    """
    if name.kind == "switch":
        if text.lower() not in _SWITCHES:
            raise ValueError(f"must be true or false, not {text!r}")
        return _SWITCHES[text.lower()]
    if not name.is_list:
        return from_toml(name, text)
    # [::1]:80 is an address, and an array of texts has quotation marks.
    if text[:1] not in ("[", "{") or (name.kind == "texts" and text != "[]" and not {'"', "'"} & set(text)):
        return from_toml(name, [text])
    try:
        return from_toml(name, tomllib.loads(f"list = {text}")["list"])
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is no array of TOML: {error}") from None


def _list(name: Name, value: Any) -> list[Any]:
    if isinstance(value, dict) and name.table:
        pairs = value.items()
        if not all(isinstance(content, str) for _, content in pairs):
            raise ValueError("must be a table of texts")
        value = [f"{key}{name.table}{content}" for key, content in pairs]
    elif not isinstance(value, list):
        value = [value]
    if name.kind == "numbers":
        return [_number(name, item) for item in value]
    if not all(isinstance(item, str) for item in value):
        raise ValueError(f"must be a list of texts, not {value!r}")
    return [header(item) for item in value] if name.kind == "headers" else list(value)


def _number(name: Name, value: Any) -> Any:
    kind = name.kind if name.kind == "float" else "int"
    if isinstance(value, str):
        try:
            return parse_number(value, kind, name.unit)
        except ValueError:
            units = ", ".join(UNITS.get(name.unit, ()))
            more = f", or one with a unit ({units})" if units else ""
            raise ValueError(f"must be a {'whole ' if kind == 'int' else ''}number{more}, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else int | float):
        raise ValueError(f"must be a {'whole ' if kind == 'int' else ''}number, not {_shown(value)}")
    return value


def _switch(name: Name, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_shown(value)}")
    return value


def _text(name: Name, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text in quotation marks, not {_shown(value)}")
    if "\0" in value:
        raise ValueError("must not hold a zero character")
    if name.choices and value not in name.choices:
        raise ValueError(f"must be one of {', '.join(name.choices)}, not {value!r}")
    return value


def _any(name: Name, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"must be a number or a text, not {_shown(value)}")
    return str(value)


def _shown(value: Any) -> str:
    return "a table" if isinstance(value, dict) else str(value).lower() if isinstance(value, bool) else repr(value)


_CONVERTERS: dict[str, Callable[[Name, Any], Any]] = {
    "str": _text,
    "any": _any,
    "int": _number,
    "float": _number,
    "switch": _switch,
}

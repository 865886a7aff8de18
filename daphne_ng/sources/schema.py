"""The JSON schema of a file of settings, for editors; the package has it as ``settings.schema.json``."""

from __future__ import annotations

from typing import Any, Final

from daphne_ng.sources.names import Name, names
from daphne_ng.sources.units import UNITS

__all__ = ["schema"]

_TEXTS: Final = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


def schema(tool_name: str = "daphne-ng") -> dict[str, Any]:
    """Return the schema; also what the entry point ``validate_pyproject.tool_schema`` asks for.

    Args:
        tool_name: The table of ``[tool]`` that is asked about; there is one.
    """
    properties: dict[str, Any] = {}
    for key, name in names().items():
        entry = _described(name)
        # Both spellings are valid in the file.
        for spelled in dict.fromkeys((key, key.replace("_", "-"))):
            properties[spelled] = entry
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://daphne-ng.invalid/settings.schema.json",
        "title": f"Settings of {tool_name}",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _described(name: Name) -> dict[str, Any]:
    entry: dict[str, Any] = {"description": name.help}
    known = name.setting
    if known is not None and isinstance(known.default, bool | int | float | str):
        entry["default"] = known.default
    return entry | _type(name)


def _type(name: Name) -> dict[str, Any]:
    if name.kind == "switch":
        return {"type": "boolean"}
    if name.kind == "any":
        return {"type": ["integer", "string"]}
    if name.kind == "numbers":
        return {"oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}
    if name.is_list:
        table = {"type": "object", "additionalProperties": {"type": "string"}}
        return {"oneOf": [*_TEXTS["oneOf"], table]} if name.table else _TEXTS
    if name.kind == "str":
        return {"enum": list(name.choices)} if name.choices else {"type": "string"}
    number: dict[str, Any] = {"type": "integer" if name.kind == "int" else "number"}
    if name.setting is not None:
        limits = (("minimum", name.setting.minimum), ("maximum", name.setting.maximum))
        number |= {word: limit for word, limit in limits if limit is not None}
    units = "|".join(UNITS.get(name.unit, ()))
    text = rf"^[0-9]+(\.[0-9]+)?( ?({units}))?$" if units else r"^-?[0-9]+(\.[0-9]+)?$"
    return {"anyOf": [number, {"type": "string", "pattern": text}]}

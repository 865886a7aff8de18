"""How a setting becomes an option of argparse."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from typing import Any

from daphne_ng.config import Setting, settings
from daphne_ng.sources.names import ruled_flag
from daphne_ng.sources.units import number_type

__all__ = ["add_ruled_flags", "escaped", "header", "option"]

_METAVARS = {"seconds": "SECONDS", "bytes": "BYTES"}


def add_ruled_flags(parser: argparse.ArgumentParser) -> None:
    """Give every setting the flag that the rule makes of its field, where ``--help`` shows none of that name.

    A flag that only switches one way gets its counterpart, so that a flag can win over a file.
    """
    for field, known in settings():
        shown = known.flags[:1] if known.kind == "switch" else known.flags
        keywords: dict[str, Any] = {"dest": field, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        flag = ruled_flag(field)
        if known.kind in ("flag", "no-flag") or (known.kind == "switch" and not shown):
            opposite = "--no-" + flag.removeprefix("--")
            for one, value in ((flag, True), (opposite, False)):
                if one not in shown:
                    parser.add_argument(one, action="store_const", const=value, **keywords)
        elif flag not in shown:
            parser.add_argument(flag, **(option(known) | keywords))


def option(setting: Setting) -> dict[str, Any]:
    """Return the keywords of ``add_argument`` for a setting."""
    kind = setting.kind
    if kind in ("flag", "no-flag"):
        return {"action": "store_true" if kind == "flag" else "store_false", "help": escaped(setting.help)}
    described: dict[str, Any] = {"default": setting.default, "help": _help(setting)}
    if kind == "switch":
        return {"action": argparse.BooleanOptionalAction, "default": setting.default, "help": escaped(setting.help)}
    if kind == "headers":
        return described | {"action": "append", "type": header, "default": [], "metavar": "NAME:VALUE"}
    if kind == "texts":
        # The default is empty, so that given values take the place of the setting's own.
        return described | {"action": "append", "type": str, "default": [], "metavar": "TEXT"}
    is_number = kind in ("int", "float")
    described["type"] = number_type(kind, setting.unit) if is_number else str
    if setting.choices:
        described["choices"] = setting.choices
    else:
        described["metavar"] = _METAVARS.get(setting.unit, "N" if is_number else "TEXT")
    return described


def _help(setting: Setting) -> str:
    default = setting.default
    if default is None:
        shown = "none"
    elif isinstance(default, str):
        shown = default
    elif isinstance(default, tuple):
        shown = " ".join(map(str, default))
    else:
        shown = f"{default:.15g}{f' {setting.unit}' if setting.unit else ''}"
    return escaped(f"{setting.help} (default: {shown})" if shown else setting.help)


def escaped(help_text: str) -> str:
    """Return a text as argparse takes help, which it formats with %."""
    return help_text.replace("%", "%%")


def header(text: str) -> tuple[bytes, bytes]:
    """Return name and value of ``NAME:VALUE``.

    Raises:
        ArgumentTypeError: It is none, or cannot be sent.
    """
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ArgumentTypeError(f"{text!r} should read NAME:VALUE")
    try:
        return name.strip().encode("ascii"), value.strip(" \t").encode("latin-1")
    except UnicodeEncodeError:
        raise ArgumentTypeError(f"{text!r} cannot be sent: a name must be ASCII, a value Latin-1") from None

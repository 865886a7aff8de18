"""Write docs/reference/settings.md from the settings and the command line's parser.

Run ``python docs/generate_reference.py`` after a change to `daphne_ng.config` or `daphne_ng.cli`; a test compares.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from daphne_ng.cli import CommandLineInterface
from daphne_ng.config import Config, Setting, settings
from daphne_ng.sources.names import names

TARGET = Path(__file__).with_name("reference") / "settings.md"

HEAD = """\
<!-- Written by docs/generate_reference.py; edit daphne_ng/config/ or daphne_ng/cli.py instead. -->

# Settings

Every setting is a field of `daphne_ng.config.Config`. From Python it is set with `Server(..., config=Config(...))`
([how to embed](../how-to/embed.md)); for the command line it has a flag, a variable and a key in a file
([how to configure](../how-to/configuration.md)). One rule makes the three of the field: `close_timeout` is
`--close-timeout`, `DAPHNE_NG_CLOSE_TIMEOUT` and `close_timeout = "5s"`. Flags that were named before the rule keep
their names, and have that of the rule too. `--help` leaves out the flags that are in italics here.

A wrong value stops the start with exit code 1 and one line that names the setting. A value that the flag cannot parse
at all is exit code 2. See [the command line](cli.md).
"""

OPTIONS_HEAD = """\
## Options that are not settings

These say where to listen, what to log and which application to serve. See [the command line](cli.md).

| Option | Key | Variable | Meaning |
|---|---|---|---|
"""


_FLAGS: dict[str, list[str]] = {}
for _action in CommandLineInterface().parser._actions:
    _FLAGS.setdefault(_action.dest, []).extend(_action.option_strings)


def render() -> str:
    """Return the whole page."""
    groups: dict[str, list[Setting]] = {}
    for _, setting in settings():
        groups.setdefault(setting.group, []).append(setting)
    return "\n".join([HEAD, *(_group(title, entries) for title, entries in groups.items()), _options()])


def _group(title: str, entries: list[Setting]) -> str:
    lines = [f"## {title}", "", "| Field and key | Flag | Variable | Default | Meaning |", "|---|---|---|---|---|"]
    lines += [_row(setting) for setting in entries]
    return "\n".join(lines) + "\n"


def _row(setting: Setting) -> str:
    name = next(one for one in names().values() if one.setting is setting)
    ruled = [flag for flag in _FLAGS[setting.name] if flag not in setting.flags]
    flags = "<br>".join([*(f"`{flag}`" for flag in setting.flags), *(f"*`{flag}`*" for flag in ruled)])
    key = f"`{setting.name}`" if name.key == setting.name else f"`{setting.name}`<br>key `{name.key}`"
    cells = [key, flags, f"`{name.variable}`", _default(setting), " ".join(_sentences(setting))]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(setting: Setting) -> str:
    value = setting.default
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        unit = setting.unit.removesuffix("s") if value == 1 else setting.unit
        return f"{value:.15g} {unit}".strip()
    return f"`{value}`" if value else "empty"


def _sentences(setting: Setting) -> list[str]:
    # The help of a flag that switches its setting off says what the flag does.
    sentences = [f"With the flag: {setting.help}." if setting.kind == "no-flag" else _sentence(setting.help)]
    if setting.choices:
        sentences.append(f"One of {', '.join(f'`{choice}`' for choice in setting.choices)}.")
    if setting.unit == "seconds" and setting.minimum == 0 and "0 " not in setting.help:
        sentences.append(f"0 means {setting.zero}.")
    if setting.why:
        sentences.append(setting.why)
    return sentences


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".") + "."


def _options() -> str:
    fields = {field.name for field in dataclasses.fields(Config)}
    rows = []
    for action in CommandLineInterface().parser._actions:
        spelled = set(action.option_strings)
        if action.help is argparse.SUPPRESS:
            continue
        if action.dest in fields and spelled <= _setting_flags():
            continue
        option = "<br>".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.metavar}`"
        name = next((one for one in names().values() if one.setting is None and one.dest == action.dest), None)
        cells = f"`{name.key}` | `{name.variable}`" if name is not None else "- | -"
        rows.append(f"| {option} | {cells} | {_sentence(_help(action)).replace('|', chr(92) + '|')} |")
    return OPTIONS_HEAD + "\n".join(rows) + "\n"


def _setting_flags() -> set[str]:
    return {flag for _name, setting in settings() for flag in setting.flags}


# argparse keeps help texts with doubled per cent signs.
def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")

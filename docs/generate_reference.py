"""Write docs/reference/settings.md from the settings and the command line's parser.

Run ``python docs/generate_reference.py`` after a change to `daphne_ng.config` or `daphne_ng.cli`; a test compares.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from daphne_ng.cli import CommandLineInterface
from daphne_ng.config import Config, Setting, settings

TARGET = Path(__file__).with_name("reference") / "settings.md"

HEAD = """\
<!-- Written by docs/generate_reference.py; edit daphne_ng/config/ or daphne_ng/cli.py instead. -->

# Settings

Every setting is a field of `daphne_ng.config.Config`. Most have a command line flag. The rest are rare limits: set
them from Python, with `Server(..., config=Config(...))` ([how to embed](../how-to/embed.md)).

A wrong value stops the start with exit code 1 and one line that names the setting. A value that the flag cannot parse
at all is exit code 2. See [the command line](cli.md).
"""

OPTIONS_HEAD = """\
## Options that are not settings

These say where to listen, what to log and which application to serve. See [the command line](cli.md).

| Option | Meaning |
|---|---|
"""


def render() -> str:
    """Return the whole page."""
    groups: dict[str, list[Setting]] = {}
    for _, setting in settings():
        groups.setdefault(setting.group, []).append(setting)
    return "\n".join([HEAD, *(_group(title, entries) for title, entries in groups.items()), _options()])


def _group(title: str, entries: list[Setting]) -> str:
    lines = [f"## {title}", "", "| Setting | Flag | Default | Meaning |", "|---|---|---|---|"]
    lines += [_row(setting) for setting in entries]
    return "\n".join(lines) + "\n"


def _row(setting: Setting) -> str:
    flags = "<br>".join(f"`{flag}`" for flag in setting.flags) or "-"
    cells = [f"`{setting.name}`", flags, _default(setting), " ".join(_sentences(setting))]
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
        if action.dest in fields and spelled <= _setting_flags():
            continue
        option = "<br>".join(f"`{flag}`" for flag in action.option_strings) or f"`{action.metavar}`"
        rows.append(f"| {option} | {_sentence(_help(action)).replace('|', chr(92) + '|')} |")
    return OPTIONS_HEAD + "\n".join(rows) + "\n"


def _setting_flags() -> set[str]:
    return {flag for _name, setting in settings() for flag in setting.flags}


# argparse keeps help texts with doubled per cent signs.
def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")

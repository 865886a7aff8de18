"""Write the map at the head of docs/explanation/architecture.md: layers, rooms, modules, and what may import what.

It is made from the layer table in tests/support/layers.py and from the first line of each module's docstring. Run
``python docs/generate_architecture.py`` after a change to either; a test compares.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.layers import (
    CIRCLES,
    LAYERS,
    MODULES,
    NEVER,
    ONLY_IN,
    ROOM_CIRCLES,
    ROOT,
    Circle,
    layer_of,
    tree_of,
)

TARGET = Path(__file__).with_name("explanation") / "architecture.md"

BEGIN = "<!-- To the next comment: by docs/generate_architecture.py, from docstrings and tests/support/layers.py -->\n"
END = "<!-- the end of what is generated -->\n"

WIDTH = 118
COLUMN = 25


def render(page: str) -> str:
    """Return the page with the map as it has to be."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{TARGET} has to have each of these lines once:\n{BEGIN}{END}")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n".join([_tree(), _libraries(), _never(), _circles()]) + END + after


def summary_of(module: str) -> str:
    """Return the first sentence of a module's docstring, shortened to what fits into a line."""
    first = (ast.get_docstring(tree_of(module)) or "").partition("\n")[0].replace("`", "").strip()
    sentence = re.split(r"(?<=\w)\. |(?<=\))\. ", first)[0].removesuffix(".")
    room = WIDTH - COLUMN - 2
    return sentence if len(sentence) <= room else textwrap.shorten(sentence, room, placeholder=" ...")


def _tree() -> str:
    lines = ["```text"]
    for rank, layer in reversed(list(enumerate(LAYERS))):
        lines.append(f"{layer.name}: {layer.what.replace('`', '')}")
        rooms: dict[str, list[str]] = {}
        for module, path in MODULES.items():
            if layer_of(module) == rank:
                rooms.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(module)
        for room in sorted(rooms):
            lines += _room(room, rooms[room])
        lines.append("")
    return "\n".join([*lines[:-1], "```", ""])


def _room(room: str, modules: list[str]) -> list[str]:
    lines, depth = [], "  "
    package = next((module for module in modules if MODULES[module].name == "__init__.py"), None)
    if room != ".":
        lines.append(_line("  ", f"{room}/", summary_of(package) if package else ""))
        depth = "    "
    elif package:
        lines.append(_line("  ", "__init__.py", summary_of(package)))
    return lines + [_line(depth, MODULES[module].name, summary_of(module)) for module in modules if module != package]


def _line(depth: str, name: str, summary: str) -> str:
    return f"{depth + name:<{COLUMN}} {summary}".rstrip()


def _libraries() -> str:
    lines = ["| Imported | only by | because |", "|---|---|---|"]
    lines += [f"| `{rule.imported}` | {_names(rule.importers)} | {rule.why} |" for rule in ONLY_IN]
    return "\n".join([*lines, ""])


def _never() -> str:
    rules: dict[tuple[str, ...], list[str]] = {}
    for rule in NEVER:
        rules.setdefault(tuple(rule.imported), []).append(rule.importers)
    lines = ["| Modules | import nothing of |", "|---|---|"]
    lines += [f"| {_names(importers)} | {_names(imported)} |" for imported, importers in rules.items()]
    return "\n".join([*lines, ""])


def _circles() -> str:
    if not CIRCLES and not ROOM_CIRCLES:
        return "No import closes a circle, neither between modules nor between rooms.\n"
    lines = ["| Import that closes a circle | because |", "|---|---|", *map(_circle, [*CIRCLES, *ROOM_CIRCLES])]
    return "\n".join([*lines, ""])


def _circle(circle: Circle) -> str:
    return f"| {_names([circle.importer])} of {_names([circle.imported])} | {circle.why} |"


def _names(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{name if name == 'daphne_ng' else name.removeprefix('daphne_ng.')}`" for name in names)


if __name__ == "__main__":
    TARGET.write_text(render(TARGET.read_text("utf-8")), encoding="utf-8")

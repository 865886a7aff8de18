"""``python -m daphne_ng.compat [DIRECTORY]``: which lines of a project depend on Daphne, and what they become.

Nothing is written. Three things are said of a line, and each line that has ``daphne`` in it gets at most one:

* what it becomes: a command, a requirement, an import, an app, a logger (``advice.text``, ``advice.python``);
* what somebody has to decide, in words;
* nothing but that it may stay. Names that the project has chosen itself (a service, a socket, a log file, an upstream)
  only look like the program. They are counted, and the first of them are shown.

Names in comments and prose are not looked at.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from daphne_ng.advice import python as advice_python
from daphne_ng.advice import text as advice_text

__all__ = ["main"]

_SKIPPED = frozenset(
    {".git", ".hg", ".svn", ".tox", ".nox", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".cache"}
    | {"node_modules", "bower_components", "site-packages", "__pycache__", "build", "dist", "htmlcov"}
)
# What is made by a tool from another file of the project.
_LOCKS = re.compile(r"(?:(?:poetry|uv|pdm|Pipfile|pixi|conda-lock|pylock.*)\.(?:lock|toml|yml)|Pipfile\.lock)")
# Pages, pictures, data and texts for translation: they start nothing.
_DATA = frozenset(
    ".js .mjs .ts .tsx .jsx .vue .map .css .scss .less .html .htm .svg .png .jpg .jpeg .gif .ico .webp .pdf .woff "
    ".woff2 .po .mo .pot .csv .tsv .sql .sqlite3 .db .ipynb .log .gz .zip .tar .whl .so .pyc .patch .diff .xml".split()
)
_PYTHON = frozenset({".py", ".pyw", ".pyi", ".spec", ".wsgi"})
_PROSE = frozenset({".md", ".rst", ".adoc", ".txt"})

_FILES_MAX = 50_000
_BYTES_MAX = 512 * 1024
_LOCK_BYTES_MAX = 16 * 1024 * 1024
_LEFT_SHOWN = 12
_NAMED = re.compile(r"daphne|(?i:twisted\[)|channels(?:\.| import .*)testing|autobahn|pyopenssl", re.ASCII)
# Where a project says that `import daphne` means daphne-ng.
_ALIASED = re.compile(
    r"(?im)^\s*(?:DAPHNE_NG_INSTALL_AS_DAPHNE\s*=\s*[\"']?(?:True|1|yes|on)\b|[\w.]*install_as_daphne\()"
)


@dataclass(frozen=True)
class _Found:
    path: Path
    number: int
    line: str
    advice: advice_text.Advice


class _Search:
    """What a walk through a project has found.

    Args:
        root: Its directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.changes: list[_Found] = []
        self.testing: list[_Found] = []
        """Imports of ``channels.testing``, of which any number needs one setting."""
        self.aliased = False
        self.left: list[tuple[Path, int, str]] = []
        self.locks: list[Path] = []
        self.stopped = False
        self.skipped: list[Path] = []
        """Files that name Daphne perhaps, and are too large to look at."""
        for path in self._files():
            self._look_at(path)

    def _files(self) -> Iterator[Path]:
        seen = 0
        for directory, below, names in os.walk(self.root):
            below[:] = sorted(
                name
                for name in below
                if name not in _SKIPPED and not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))
            )
            for name in sorted(names):
                if os.path.splitext(name)[1].lower() in _DATA:
                    continue
                seen += 1
                if seen > _FILES_MAX:
                    self.stopped = True
                    return
                yield Path(directory, name)

    def _look_at(self, path: Path) -> None:
        relative = path.relative_to(self.root)
        try:
            # A pipe, or a device, would keep us.
            if not path.is_file():
                return
            locked = _LOCKS.fullmatch(path.name) is not None
            if path.stat().st_size > (_LOCK_BYTES_MAX if locked else _BYTES_MAX):
                self.skipped.append(relative)
                return
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return
        if locked:
            if "daphne" in text:
                self.locks.append(relative)
            return
        self.aliased = self.aliased or _ALIASED.search(text) is not None
        if not _NAMED.search(text):
            return
        python = path.suffix.lower() in _PYTHON
        kind = path.suffix.lower()
        advised = advice_python.advise(text) if python else None
        if advised is None:
            advised = advice_text.advise(text, path)
        lines = text.splitlines()
        for number, advice in sorted(advised.items()):
            found = _Found(relative, number, lines[number - 1].strip(), advice)
            (self.testing if advice.notes == (advice_python.TESTING,) else self.changes).append(found)
        if kind in _PROSE:
            return
        for number, line in enumerate(lines, 1):
            if number not in advised and advice_text.WORD.search(advice_text.code_of(line)):
                self.left.append((relative, number, line.strip()))


def main(arguments: Sequence[str]) -> int:
    """Print what a project needs to change; return the exit code.

    Args:
        arguments: The directory of the project; the current one if empty.
    """
    if arguments and arguments[0].startswith("-"):
        asked = arguments[0] in ("-h", "--help")
        (sys.stdout if asked else sys.stderr).write("usage: python -m daphne_ng.compat [DIRECTORY]\n")
        return 0 if asked else 2
    root = Path(arguments[0] if arguments else ".")
    if not root.is_dir():
        sys.stderr.write(f"{root} is not a directory\n")
        return 2
    sys.stdout.write(_report(_Search(root)))
    return 0


def _report(search: _Search) -> str:
    parts = []
    testing = [] if search.aliased else search.testing
    for found in [*search.changes, *testing[:1]]:
        lines = [f"{found.path}:{found.number}", f"  - {found.line}"]
        lines += [f"  + {line}" for line in found.advice.lines]
        lines += [f"  ! {note}" for note in found.advice.notes]
        parts.append("\n".join(lines) + "\n")
    if len(testing) > 1:
        parts.append("  ! The same setting is for:\n")
        parts += [f"    {found.path}:{found.number}\n" for found in testing[1:_LEFT_SHOWN]]
        if len(testing) > _LEFT_SHOWN:
            parts.append(f"    and {len(testing) - _LEFT_SHOWN} more\n")
    parts += [f"{path}\n  ! Made by a tool: make it again after the rest.\n" for path in search.locks]
    count = len(search.changes) + len(testing[:1]) + len(search.locks)
    if count:
        parts.append(f"\n{count} place{'s' if count > 1 else ''} to look at.\n")
        if any(found.advice.requirement for found in search.changes):
            parts.append(
                "Requirements: `daphne-ng` stands for what docs/how-to/install.md says to install. Then\n"
                "`pip uninstall daphne`, in images and on servers too: while it is there, `import daphne` means it.\n"
            )
        parts.append(
            "Where code cannot be changed, call daphne_ng.compat.install_as_daphne() first: `import daphne` then\n"
            "means daphne-ng.\n"
        )
    else:
        parts.append("Nothing here depends on Daphne.\n")
    if search.left:
        parts.append("\nLeave these: names of your own, which need not change with the program.\n")
        parts += [f"  {path}:{number}  {line[:100]}\n" for path, number, line in search.left[:_LEFT_SHOWN]]
        if len(search.left) > _LEFT_SHOWN:
            parts.append(f"  and {len(search.left) - _LEFT_SHOWN} more\n")
    if search.skipped:
        parts.append(f"\nToo large to look at: {', '.join(map(str, search.skipped[:_LEFT_SHOWN]))}\n")
    if search.stopped:
        parts.append(f"\nStopped after {_FILES_MAX} files. Name a directory further down.\n")
    return "".join(parts)

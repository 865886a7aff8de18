"""A file of settings: TOML with the keys of `daphne_ng.sources.names`, or a pyproject's ``[tool.daphne-ng]``."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from typing import Any, Final

from daphne_ng.errors import ConfigurationError

__all__ = ["FileValues", "Passed", "find_project", "read_file"]

_PROJECT: Final = "pyproject.toml"
_TABLE: Final = "tool.daphne-ng"
# What a worker is told of the file goes through one variable, of which Linux takes 128 KiB.
_FILE_MAX_BYTES: Final = 48 * 1024


@dataclass(frozen=True, slots=True)
class FileValues:
    """What a file says."""

    path: str = ""
    """Empty where there is no file."""
    values: dict[str, Any] = field(default_factory=dict)
    """By key, as the file spells it, with ``_`` for ``-``."""
    lines: dict[str, int] = field(default_factory=dict)
    """By key, where it can be found."""

    def origin(self, key: str) -> str:
        """Say where a key is set."""
        line = self.lines.get(key)
        return f"{self.path}, line {line}" if line else self.path


@dataclass(frozen=True, slots=True)
class Passed:
    """What a supervisor tells its workers, so that all of them have one and the same reading of the file."""

    file: FileValues
    variables: bool = True
    """Whether variables of the environment are read: not where the server was started from Python."""

    def to_text(self) -> str:
        """Return what the variable holds.

        Raises:
            ConfigurationError: The file holds a date, which no setting is.
        """
        try:
            return json.dumps([self.file.path, self.file.values, self.file.lines, self.variables], ensure_ascii=False)
        except TypeError:
            raise ConfigurationError(f"{self.file.path}: a date or time is no setting") from None

    @classmethod
    def from_text(cls, text: str) -> Passed:
        """Return what `to_text` was made of."""
        path, values, lines, variables = json.loads(text)
        return cls(FileValues(path, values, lines), variables)


def read_file(path: str, *, found: bool = False) -> FileValues:
    """Read a file of settings.

    Args:
        path: The file; of one that is called pyproject.toml, the table ``[tool.daphne-ng]``.
        found: Whether nobody has named it: then it need not hold settings.

    Raises:
        ConfigurationError: It cannot be read, or is no TOML, or root reads it and others can write it.
    """
    text = _text_of(path)
    is_project = os.path.basename(path) == _PROJECT
    if found and "daphne-ng" not in text:
        return FileValues()
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: is not TOML: {error or 'nested too deep'}") from None
    if is_project:
        tool = values.get("tool")
        table: Any = tool.get("daphne-ng") if isinstance(tool, dict) else None
        if table is None and found:
            return FileValues()
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path}: has no table [{_TABLE}]")
        values = table
    lines = {key: line for key in values if (line := _line_of(text, key, _TABLE if is_project else ""))}
    named: dict[str, Any] = {}
    for key, value in values.items():
        if key.replace("-", "_") in named:
            raise ConfigurationError(f"{path}, line {lines.get(key, '?')}: {key}: is there twice, with - and with _")
        named[key.replace("-", "_")] = value
    return FileValues(path, named, {key.replace("-", "_"): line for key, line in lines.items()})


def find_project() -> str | None:
    """Return the pyproject.toml of the current directory, if it is this user's alone; None for root."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return None
    try:
        file, directory = os.lstat(_PROJECT), os.stat(".")
    except OSError:
        return None
    return _PROJECT if stat.S_ISREG(file.st_mode) and _is_ours(file) and _is_ours(directory) else None


# Nobody else can write it. A group of the same number as the user's own is the user alone on most systems.
def _is_ours(found: os.stat_result) -> bool:
    group_writes = found.st_mode & stat.S_IWGRP and found.st_gid != os.getegid()
    return found.st_uid in (0, os.geteuid()) and not group_writes and not found.st_mode & stat.S_IWOTH


def _text_of(path: str) -> str:
    try:
        # A pipe that nobody writes to would hold up the start for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{path}: is no ordinary file")
            _check_hands(path, status)
            content = file.read(_FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > _FILE_MAX_BYTES:
        raise ConfigurationError(f"{path}: is larger than {_FILE_MAX_BYTES} bytes, the most for a file of settings")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {line}: is not UTF-8") from None


# A setting names programs' files and users: whoever writes the file would be root.
def _check_hands(path: str, status: os.stat_result) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    directory = os.path.dirname(os.path.realpath(path))
    for what, one in ((path, status), (directory, os.stat(directory))):
        others = (stat.S_IWOTH if one.st_gid == 0 else stat.S_IWOTH | stat.S_IWGRP) & one.st_mode
        # In a directory like /tmp nobody can replace the file of another.
        if one.st_uid != 0 or (others and not one.st_mode & stat.S_ISVTX):
            raise ConfigurationError(f"{path}: others than root can write {what}, so root does not read it")


# tomllib tells no lines. The key is looked for in its table, at the beginning of a line.
def _line_of(text: str, key: str, table: str) -> int:
    current = ""
    spelled = rf"""["']?{re.escape(key)}["']?"""
    start = re.compile(rf"\s*{spelled}\s*[=.]")
    heading = re.compile(r"\s*\[\s*([^\]]+?)\s*\]")
    own = re.compile(rf"\s*\[+\s*{re.escape(f'{table}.') if table else ''}{spelled}\s*[\].]")
    for number, line in enumerate(text.split("\n"), 1):
        if own.match(line):
            return number
        if match := heading.match(line):
            current = match[1].replace('"', "").replace("'", "")
        elif current == table and start.match(line):
            return number
    return 0

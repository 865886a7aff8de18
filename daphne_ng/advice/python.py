"""What a line of Python becomes. The file is parsed, so that a string is known by where it stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from daphne_ng.advice import text as advice_text
from daphne_ng.advice.text import Advice

__all__ = ["TESTING", "advise"]

_OWN = Path(__file__).parents[1]
_THEIRS = frozenset(
    "access apps checks cli endpoints http_protocol management server testing twisted utils ws_protocol".split()
)
_IMPORTERS = ("import_module", "find_spec", "__import__", "run_module", "is_installed")
_NAME = re.compile(r"daphne(?:\.\w+)*")
_ARGUMENT = re.compile(r"-{1,2}[A-Za-z].*|[\w.{}%-]+:[\w.{}]+")
_APPS = re.compile(r"(?i)apps|hidden_?imports")
_SIBLINGS = ("django.contrib.", "channels", "rest_framework", "corsheaders")
_PROTOCOLS = "Daphne's own classes for Twisted's protocols: daphne-ng has none by these names."
TESTING = (
    "channels.testing imports daphne.testing: without Daphne it needs one of the settings of docs/how-to/django.md, "
    '"Tests with a browser".'
)
"""What is said of an import of ``channels.testing``; one setting for the whole project settles it."""


def advise(text: str) -> dict[int, Advice] | None:
    """Return what to do about the lines of a module, by their number from 1; None if it is no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    return _Reader(text, tree).result()


class _Reader:
    def __init__(self, text: str, tree: ast.Module) -> None:
        self._lines = text.splitlines()
        self._encoded: dict[int, bytes] = {}
        self._parents: dict[ast.AST, ast.AST] = {}
        self._edits: dict[int, list[tuple[int, int, str]]] = {}
        self._notes: dict[int, list[str]] = {}
        self._requirements: set[int] = set()
        self._imported = False
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                self._parents[child] = node
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._string(node, node.value)
            elif isinstance(node, ast.JoinedStr):
                self._rewrite(node, advice_text.command)
        if self._imported:
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and node.id == "daphne":
                    self._edit(node.lineno, node.col_offset, node.col_offset + 6, "daphne_ng")

    def result(self) -> dict[int, Advice]:
        found = {}
        for number in {*self._edits, *self._notes}:
            raw = self._raw(number)
            for start, end, new in sorted(self._edits.get(number, ()), reverse=True):
                raw = raw[:start] + new.encode() + raw[end:]
            changed = (raw.decode().strip(),) if number in self._edits else ()
            found[number] = Advice(changed, tuple(self._notes.get(number, ())), number in self._requirements)
        return found

    def _raw(self, number: int) -> bytes:
        return self._lines[number - 1].encode()

    def _edit(self, number: int, start: int, end: int, new: str) -> None:
        edits = self._edits.setdefault(number, [])
        if (start, end, new) not in edits:
            edits.append((start, end, new))

    def _note(self, number: int, note: str) -> None:
        notes = self._notes.setdefault(number, [])
        if note not in notes:
            notes.append(note)

    # -- imports ----------------------------------------------------------------------------------------------

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            if _is_or_is_below(alias.name, "channels.testing"):
                self._note(node.lineno, TESTING)
            elif _is_or_is_below(alias.name, "daphne"):
                self._module(alias.lineno, alias.col_offset, alias.name)
                self._imported = self._imported or alias.asname is None

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        # The package imports all of its modules, so that the name does not matter.
        testing = module == "channels" and any(alias.name == "testing" for alias in node.names)
        if not node.level and (testing or _is_or_is_below(module, "channels.testing")):
            self._note(node.lineno, TESTING)
        if node.level or not _is_or_is_below(module, "daphne"):
            return
        if self._module(node.lineno, node.col_offset, module, "from "):
            source = _source(module)
            missing = [alias.name for alias in node.names if not _has(source, alias.name)]
            if missing:
                self._note(node.lineno, f"There is no {' and no '.join(missing)} in {_ours(module)}.")

    # Returns whether we have it.
    def _module(self, number: int, start: int, name: str, before: str = "") -> bool:
        if _source(name) is None:
            what = _PROTOCOLS if name.endswith("_protocol") else f"daphne-ng has no {_ours(name)}."
            self._note(number, what)
            return False
        at = self._raw(number).find(name.encode(), start + len(before))
        if at >= 0:
            self._edit(number, at, at + 6, "daphne_ng")
        return True

    # -- strings -----------------------------------------------------------------------------------------------

    def _string(self, node: ast.Constant, value: str) -> None:
        parent = self._parents.get(node)
        if isinstance(parent, ast.Expr | ast.JoinedStr | ast.FormattedValue):  # a docstring; parts of an f-string
            return
        if _NAME.fullmatch(value):
            self._name(node, value, parent)
        elif (changed := advice_text.requirement(value)) is not None and self._is_list(parent):
            self._requirements.add(node.lineno)
            for note in changed[1]:
                self._note(node.lineno, note)
            if changed[0]:
                quote = self._raw(node.lineno)[node.col_offset : node.col_offset + 1].decode()
                self._replace(node, ", ".join(f"{quote}{one}{quote}" for one in changed[0]))
        elif "daphne" in value:
            self._rewrite(node, advice_text.command)

    @staticmethod
    def _is_list(parent: ast.AST | None) -> bool:
        return isinstance(parent, ast.List | ast.Tuple | ast.Set)

    def _replace(self, node: ast.Constant, new: str) -> None:
        if node.lineno == node.end_lineno and node.end_col_offset is not None:
            self._edit(node.lineno, node.col_offset, node.end_col_offset, new)

    def _rename(self, node: ast.Constant, value: str, name: str) -> None:
        raw = self._raw(node.lineno)
        at = raw.find(value.encode(), node.col_offset)
        if at >= 0:
            self._edit(node.lineno, at, at + len(value), name)

    # Commands in a text, which may have many lines.
    def _rewrite(self, node: ast.Constant | ast.JoinedStr, change: Callable[[str], str]) -> None:
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            line = self._lines[number - 1]
            start = len(self._raw(number)[: node.col_offset].decode()) if number == node.lineno else 0
            end = len(line)
            if number == node.end_lineno and node.end_col_offset is not None:
                end = len(self._raw(number)[: node.end_col_offset].decode())
            part = line[start:end]
            # Quotes at both ends are Python's, and a command in them begins like one on a line.
            quotes = re.match(r"\w*[\"']+", part) if number == node.lineno else None
            inner = part[quotes.end() :] if quotes else part
            changed = change(inner)
            if changed != inner:
                offset = len(line[: start + (quotes.end() if quotes else 0)].encode())
                self._edit(number, offset, offset + len(inner.encode()), changed)

    def _name(self, node: ast.Constant, value: str, parent: ast.AST | None) -> None:
        if self._is_logger(node, value, parent):
            ours, note = advice_text.logger(value)
            if ours:
                self._rename(node, value, ours)
            if note:
                self._note(node.lineno, note)
        elif value == "daphne" and self._is_command(node, parent):
            self._rename(node, value, "daphne-ng")
        elif value == "daphne" and self._is_distribution(node, parent):
            self._rename(node, value, "daphne-ng")
            self._requirements.add(node.lineno)
        elif self._is_module(node, value, parent):
            if _source(value) is not None or (value.count(".") > 1 and _source(value.rpartition(".")[0]) is not None):
                self._rename(node, value, f"daphne_ng{value[6:]}")
            else:
                self._note(node.lineno, _PROTOCOLS if "_protocol" in value else f"daphne-ng has no {_ours(value)}.")

    def _is_logger(self, node: ast.Constant, value: str, parent: ast.AST | None) -> bool:
        if isinstance(parent, ast.Dict) and node in parent.keys:
            return "." in value or self._is_below_loggers(parent)
        if parent and isinstance(self._parents.get(parent), ast.comprehension) and self._is_below_loggers(node):
            return True
        if isinstance(parent, ast.Call):
            return _called(parent).endswith("getLogger")
        if isinstance(parent, ast.Subscript):
            return "loggers" in ast.unparse(parent.value)
        if value not in ("daphne.http_protocol", "daphne.ws_protocol", "daphne.access") or not self._is_list(parent):
            return False
        return not any(_APPS.search(name) for name in self._targets(node))

    # Whether it is, or is in, the value of a key "loggers" in a dict.
    def _is_below_loggers(self, node: ast.AST) -> bool:
        below, above = node, self._parents.get(node)
        while above is not None and not isinstance(above, ast.stmt):
            if isinstance(above, ast.Dict):
                key = next((k for k, v in zip(above.keys, above.values, strict=True) if v is below), None)
                if isinstance(key, ast.Constant) and key.value == "loggers":
                    return True
            below, above = above, self._parents.get(above)
        # LOGGERS = {...}, and LOGGING["loggers"] = {...}
        return isinstance(above, ast.Assign) and "loggers" in ast.unparse(above.targets[0]).lower()

    def _is_command(self, node: ast.Constant, parent: ast.AST | None) -> bool:
        if isinstance(parent, ast.List | ast.Tuple):
            at = parent.elts.index(node)
            before = parent.elts[at - 1] if at else None
            if isinstance(before, ast.Constant) and before.value == "-m":
                return False
            return any(
                isinstance(one, ast.Constant) and isinstance(one.value, str) and bool(_ARGUMENT.fullmatch(one.value))
                for one in parent.elts[at + 1 :]
            )
        if isinstance(parent, ast.Call):
            called = _called(parent)
            if called in ("which", "shutil.which"):
                return True
            return called.endswith((".endswith", ".execvp", ".execlp"))
        if isinstance(parent, ast.Compare) and isinstance(parent.ops[0], ast.Eq):
            return "argv" in ast.unparse(parent)
        return False

    def _is_distribution(self, node: ast.Constant, parent: ast.AST | None) -> bool:
        if isinstance(parent, ast.Call):
            called = _called(parent)
            return called.rpartition(".")[2] in ("version", "get_distribution", "distribution", "copy_metadata")
        names = " ".join(self._targets(node))
        return self._is_list(parent) and ("install_requires" in names or "extras_require" in names)

    def _is_module(self, node: ast.Constant, value: str, parent: ast.AST | None) -> bool:
        if "." in value:
            return value.split(".")[1] in _THEIRS
        if isinstance(parent, ast.List | ast.Tuple | ast.Set):
            at = parent.elts.index(node)
            before = parent.elts[at - 1] if at else None
            if isinstance(before, ast.Constant) and before.value == "-m":
                return True
            if any(_APPS.search(name) for name in self._targets(node)):
                return True
            return any(
                isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value.startswith(_SIBLINGS)
                for one in parent.elts
            )
        if isinstance(parent, ast.Compare):
            return bool(re.search(r"(?i)apps|sys\.modules", ast.unparse(parent)))
        if isinstance(parent, ast.Call):
            called = _called(parent)
            if re.search(r"(?i)apps\.(?:append|insert|remove|extend|index|is_installed)$", called):
                return True
            last = called.rpartition(".")[2]
            return last.startswith("collect_") or last in _IMPORTERS
        return False

    # The names of what the string goes into.
    def _targets(self, node: ast.AST) -> Iterator[str]:
        below, above = node, self._parents.get(node)
        while above is not None and not isinstance(above, ast.FunctionDef | ast.ClassDef | ast.Module):
            if isinstance(above, ast.keyword) and above.arg:
                yield above.arg
            elif isinstance(above, ast.Assign):
                yield from (ast.unparse(target) for target in above.targets)
            elif isinstance(above, ast.AugAssign | ast.AnnAssign):
                yield ast.unparse(above.target)
            elif isinstance(above, ast.Dict):
                key = next((k for k, v in zip(above.keys, above.values, strict=True) if v is below), None)
                if isinstance(key, ast.Constant):
                    yield str(key.value)
            below, above = above, self._parents.get(above)


def _is_or_is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _ours(name: str) -> str:
    return f"daphne_ng{name[6:]}"


# The text of our module by this name of Daphne's, None if there is none. Nothing is imported.
def _source(name: str) -> str | None:
    path = _OWN.joinpath(*name.split(".")[1:])
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return None


def _has(source: str | None, name: str) -> bool:
    return name == "*" or (source is not None and re.search(rf"\b{re.escape(name)}\b", source) is not None)

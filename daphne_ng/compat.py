"""Stand in for Daphne: ``import daphne`` means daphne-ng where Daphne is not installed.

Projects, and packages that they cannot change, import from ``daphne``. Channels does: its ``channels.testing`` imports
``daphne.testing`` whatever is installed. `install_as_daphne` makes these imports find the modules here.

``python -m daphne_ng.compat [DIRECTORY]`` prints which lines of a project name Daphne, and what they would be.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from daphne_ng.errors import ConfigurationError, ReactorError

__all__ = ["InstallAsDaphne", "install_as_daphne", "is_installed"]

_ALIAS = "daphne"
_TARGET = "daphne_ng"


def install_as_daphne() -> None:
    """Make ``import daphne``, and ``import daphne.anything`` that exists here, give daphne-ng's modules.

    They are the same module objects under both names. May be called any number of times; call it before anything
    imports ``daphne``, such as at the head of the settings, of ``manage.py`` or of ``conftest.py``.

    Raises:
        ConfigurationError: The real Daphne is installed, or was imported.
    """
    if is_installed():
        return
    loaded = sys.modules.get(_ALIAS)
    if loaded is not None:
        raise ConfigurationError(f"install_as_daphne: daphne is imported already, from {loaded.__file__}")
    spec = importlib.util.find_spec(_ALIAS)
    if spec is not None:
        where = spec.origin or ", ".join(spec.submodule_search_locations or ())
        raise ConfigurationError(
            f"install_as_daphne: Daphne itself is installed, in {where}. Uninstall it, or leave this call out"
        )
    sys.meta_path.insert(0, _Finder())


def is_installed() -> bool:
    """Tell whether `install_as_daphne` took effect in this process."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


class InstallAsDaphne:
    """Carries `install_as_daphne` to another process: unpickling it installs there, if it did here."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def __reduce__(self) -> tuple[object, tuple[bool]]:
        return _arrived, (self.wanted,)


def _arrived(wanted: bool) -> InstallAsDaphne:
    if wanted:
        install_as_daphne()
    return InstallAsDaphne(wanted)


# Not derived from importlib.abc, which every management command would import with it.
class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import a module of Daphne's name, if we have one."""
        if fullname != _ALIAS and not fullname.startswith(f"{_ALIAS}."):
            return None
        ours = _TARGET + fullname[len(_ALIAS) :]
        try:
            found = importlib.util.find_spec(ours)
        except ModuleNotFoundError:
            return None
        if found is None:
            return None
        loader: Any = _Loader(ours)
        package = found.submodule_search_locations is not None
        spec = ModuleSpec(fullname, loader, origin=found.origin, is_package=package)
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.extend(found.submodule_search_locations or ())
        return spec


class _Loader:
    def __init__(self, ours: str) -> None:
        self._ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return our module."""
        module = importlib.import_module(self._ours)
        # The import system is about to write the alias's into it.
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has been executed under its own name."""
        module.__spec__ = self._spec
        if self._ours == f"{_TARGET}.server":
            _install_reactor()


# Whoever imports Daphne's server may go on with `from twisted.internet import reactor`, and have the one that serves.
def _install_reactor() -> None:
    from daphne_ng.net import reactor as reactors

    try:
        reactors.install()
    except ReactorError as error:  # running the server will say so again
        logging.getLogger(__name__).warning("%s", error)


# -- python -m daphne_ng.compat --------------------------------------------------------------------------------

_SKIPPED = frozenset({"node_modules", "site-packages", "__pycache__", "build", "dist"})
_NAMES = re.compile(
    r"(?:.*\.(?:py|toml|cfg|ini|txt|in|ya?ml|conf|service|socket|sh|env|json|md|rst)|Procfile.*|Dockerfile.*|Makefile)"
)
_FILES_MAX = 20_000
_BYTES_MAX = 1024 * 1024

_IMPORT = re.compile(r"^\s*(?:from\s+daphne(?:\.\w+)*\s+import|import\s+daphne(?:\.|\s|$))")
# In Python: what is an app, a module or a logger by its name; what is a requirement; and the options of a command.
_NAME = re.compile(r"""(["'])daphne((?:\.\w+)*)\1""")
_REQUIREMENT = re.compile(r"""(["'])(channels\[daphne\]|daphne *[=<>~!])[^"']*\1""")
_COMMAND = re.compile(r"""["']-|["'][\w.]+:\w+["']""")
# Elsewhere.
_WORD = re.compile(r"(?<![\w.-])daphne(?![\w-])")
_VERSION = re.compile(r"(?<=\bdaphne) *[=<>~!]=?[^\s\"';#]*")
_MODULE = re.compile(r"""(?:(?<=-m)|(?<=\bimport))([ "',]+)daphne\b|(?<=\bfrom)( +)daphne(?=[\w.]* import\b)""")
_RENAMED = "daphne.http_protocol", "daphne.ws_protocol"


def _findings(root: Path) -> Iterator[tuple[Path, int, str, str]]:
    for path in _files(root):
        try:
            text = path.read_text(encoding="utf-8") if path.stat().st_size <= _BYTES_MAX else ""
        except (OSError, UnicodeDecodeError):
            continue
        if "daphne" not in text:
            continue
        python = path.suffix == ".py"
        for number, line in enumerate(text.splitlines(), 1):
            advice = _advice(line, python)
            if advice:
                yield path.relative_to(root), number, line.strip(), advice


def _files(root: Path) -> Iterator[Path]:
    seen = 0
    for directory, below, names in os.walk(root):
        below[:] = sorted(
            name
            for name in below
            if not name.startswith(".")
            and name not in _SKIPPED
            and not os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))
        )
        for name in sorted(names):
            if _NAMES.fullmatch(name):
                seen += 1
                if seen > _FILES_MAX:
                    return
                yield Path(directory, name)


def _advice(line: str, python: bool) -> str:
    code = (line.split("#", 1)[0] if python else line).strip()
    if not python:
        changed = _VERSION.sub("", code.replace("channels[daphne]", "channels[] daphne"))
        changed = _WORD.sub("daphne-ng", _MODULE.sub(_as_module, changed)).replace("channels[] ", "channels and ")
        return changed if changed != code else ""
    if _IMPORT.match(code):
        if any(name in code for name in _RENAMED):
            return "the protocol classes are Daphne's own; daphne-ng has none by these names"
        return _WORD.sub("daphne_ng", code)
    if _REQUIREMENT.search(code):
        return _REQUIREMENT.sub(_required, code)
    if _NAME.search(code):
        hyphen = "-" if _COMMAND.search(code) and not _MODULE.search(code) else "_"
        return _NAME.sub(rf"\1daphne{hyphen}ng\2\1", code)
    return ""


def _as_module(match: re.Match[str]) -> str:
    return f"{match[1] or match[2]}daphne_ng"


def _required(match: re.Match[str]) -> str:
    quote, name = match[1], match[2]
    return f"{quote}channels{quote}, {quote}daphne-ng{quote}" if "channels" in name else f"{quote}daphne-ng{quote}"


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
    count = 0
    for path, number, line, advice in _findings(root):
        count += 1
        sys.stdout.write(f"{path}:{number}\n  - {line}\n  + {advice}\n")
    if count:
        sys.stdout.write(
            f"\n{count} line{'s' if count > 1 else ''} to look at. Where code cannot be changed, call "
            "daphne_ng.compat.install_as_daphne() first:\n`import daphne` then means daphne-ng.\n"
        )
    else:
        sys.stdout.write("Nothing here names Daphne.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

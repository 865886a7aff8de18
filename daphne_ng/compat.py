"""Stand in for Daphne: ``import daphne`` means daphne-ng.

Projects, and packages that they cannot change, import from ``daphne``. Channels does: its ``channels.testing`` imports
``daphne.testing`` whatever is installed. `install_as_daphne` makes these imports find the modules here, also where
Daphne is still installed.

``python -m daphne_ng.compat [DIRECTORY]`` prints which lines of a project name Daphne, and what they would be.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from daphne_ng.errors import ConfigurationError, ReactorError

__all__ = ["InstallAsDaphne", "install_as_daphne", "is_installed"]

_ALIAS = "daphne"
_TARGET = "daphne_ng"


def install_as_daphne() -> None:
    """Make ``import daphne``, and ``import daphne.anything`` that exists here, give daphne-ng's modules.

    They are the same module objects under both names. May be called any number of times; call it before anything
    imports ``daphne``, such as at the head of the settings, of ``manage.py`` or of ``conftest.py``. A Daphne that is
    installed is hidden from this process, and from those that it starts by `multiprocessing`.

    Raises:
        ConfigurationError: The real Daphne was imported; whoever has done so goes on with it.
    """
    if is_installed():
        return
    loaded = sys.modules.get(_ALIAS)
    if loaded is not None:
        where = loaded.__file__ or ", ".join(getattr(loaded, "__path__", ()))
        raise ConfigurationError(f"install_as_daphne: daphne is imported already, from {where}")
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
        loader: Any = _Loader(ours, found.loader)
        package = found.submodule_search_locations is not None
        spec = ModuleSpec(fullname, loader, origin=found.origin, is_package=package)
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.extend(found.submodule_search_locations or ())
        return spec


class _Loader:
    def __init__(self, ours: str, loader: Any) -> None:
        self._ours = ours
        self._loader = loader

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

    def get_code(self, fullname: str) -> Any:
        """Return the code of our module: ``runpy.run_module("daphne")`` imports nothing."""
        return self._loader.get_code(self._ours)


# Whoever imports Daphne's server may go on with `from twisted.internet import reactor`, and have the one that serves.
def _install_reactor() -> None:
    from daphne_ng.net import reactor as reactors

    try:
        reactors.install()
    except ReactorError as error:  # running the server will say so again
        logging.getLogger("daphne_ng.compat").warning("%s", error)


def main(arguments: Sequence[str]) -> int:
    """Print what a project needs to change; return the exit code. See `daphne_ng.advice.project`."""
    # Every management command imports this module, and few ask for advice.
    from daphne_ng.advice import project as advice

    return advice.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

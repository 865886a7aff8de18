"""daphne-ng: an ASGI server on Twisted.

`run` is the command line as a function, `Server` one server, `Config` the settings of either. They are imported when
somebody looks; importing this package imports nothing else and installs no reactor.

Some wheels hold modules that are compiled, beside the same modules as source. ``DAPHNE_NG_PURE=1`` in the environment
has the source imported.
"""

from os import environ as _environ

TYPE_CHECKING = False  # for type checkers it is True, as in `typing`
if TYPE_CHECKING:
    from daphne_ng.config import Config
    from daphne_ng.invoking import run
    from daphne_ng.server import Server

__all__ = ["Config", "Server", "__version__", "run"]

__version__ = "0.1.0"

_HOMES = {"Config": "daphne_ng.config", "Server": "daphne_ng.server", "run": "daphne_ng.invoking"}

if _environ.get("DAPHNE_NG_PURE") == "1":
    import sys
    from collections.abc import Sequence
    from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader

    # A finder before all others, since a compiled module comes before its source in those that Python has.
    class _SourceFinder:
        @staticmethod
        def find_spec(name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
            if name.startswith("daphne_ng."):
                for entry in path or ():
                    spec = FileFinder(entry, (SourceFileLoader, [".py"])).find_spec(name)
                    if spec is not None:
                        return spec
            return None

    sys.meta_path.insert(0, _SourceFinder)


if not TYPE_CHECKING:  # which would believe in any name
    # PEP 562.
    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = found = getattr(import_module(_HOMES[name]), name)
        return found

    def __dir__():
        return sorted({*globals(), *_HOMES})

"""daphne-ng: an ASGI server on Twisted.

`run` is the command line as a function, `Server` one server, `Config` the settings of either. They are imported when
somebody looks; importing this package imports nothing else and installs no reactor.
"""

TYPE_CHECKING = False  # for type checkers it is True, as in `typing`
if TYPE_CHECKING:
    from daphne_ng.config import Config
    from daphne_ng.invoking import run
    from daphne_ng.server import Server

__all__ = ["Config", "Server", "__version__", "run"]

__version__ = "0.1.0"

_HOMES = {"Config": "daphne_ng.config", "Server": "daphne_ng.server", "run": "daphne_ng.invoking"}


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

"""What may stand for the server of a command: ours, one derived from it, or anything with the keywords of Daphne's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["ServerClass", "is_ours", "takes_config"]


class ServerClass:
    """Stands for `daphne_ng.server.Server`, which is imported when somebody looks."""

    def __get__(self, interface: object, owner: object = None) -> Any:
        from daphne_ng.server import Server

        return Server


def is_ours(server_class: Any) -> bool:
    """Tell whether a server class is `daphne_ng.server.Server`, or derived from it."""
    bases = getattr(server_class, "__mro__", ())
    return any(base.__module__ == "daphne_ng.server" for base in bases)


# Daphne's signature has no ``config``. A constructor that takes any keyword hands them on, so its bases decide.
def takes_config(server_class: Any) -> bool:
    """Tell whether a server class has the keyword ``config``, or passes it on to one that has."""
    if not isinstance(server_class, type):
        return _config_in(server_class) is not False
    for base in server_class.__mro__:
        constructor = base.__dict__.get("__init__")
        if constructor is not None and base is not object:
            answer = _config_in(constructor)
            if answer is not None:
                return answer
    return True


# Whether the signature has ``config``; None if it takes any keyword.
def _config_in(function: Callable[..., Any]) -> bool | None:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    if "config" in parameters:
        return True
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return False

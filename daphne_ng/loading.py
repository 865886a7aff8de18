"""Find the application that a path like ``project.asgi:application`` names, and see that it is one.

Whatever goes wrong in there is a user's typing error or a user's own exception, so every error is one line
that says which, and where.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from types import ModuleType, TracebackType
from typing import Any

from asgiref.compatibility import guarantee_single_callable

from daphne_ng._types import ASGIApplication
from daphne_ng.errors import ApplicationLoadError

__all__ = ["DEFAULT_ATTRIBUTE", "check_application", "import_target", "load_application"]

DEFAULT_ATTRIBUTE = "application"
"""What a path without a colon means; Django's name for it."""


def load_application(path: str) -> ASGIApplication:
    """Import an ASGI application.

    Args:
        path: ``module:attribute``, where the attribute may be dotted; without a colon it is `DEFAULT_ATTRIBUTE`.

    Returns:
        A single callable: an ASGI 2 application is wrapped.

    Raises:
        ApplicationLoadError: It cannot be imported or found, or is no ASGI application. When the user's own code
            raised, that exception is the ``__cause__``.
    """
    return check_application(import_target(path), path)


def import_target(path: str) -> Any:
    """Return the object at ``path``, whatever it is.

    Raises:
        ApplicationLoadError: See `load_application`.
    """
    module_name, colon, attribute = path.partition(":")
    attribute = attribute if colon else DEFAULT_ATTRIBUTE
    if "/" in module_name or os.sep in module_name:
        raise ApplicationLoadError(
            f"application {path!r}: {module_name!r} is a path; give the module's name, as in 'package.module:name'"
        )
    if not module_name or not attribute or not all(module_name.split(".")) or not all(attribute.split(".")):
        raise ApplicationLoadError(f"application {path!r}: should read like 'package.module:name'")
    target: Any = _import_module(module_name, path)
    owner = module_name
    for name in attribute.split("."):
        try:
            target = getattr(target, name)
        except AttributeError as error:
            raise ApplicationLoadError(
                f"application {path!r}: {owner!r} has no attribute {name!r}{_suggestion(target, name)}"
            ) from error
        except Exception as error:
            raise ApplicationLoadError(f"application {path!r}: reading {name!r} failed{_story(error)}") from error
        owner = name
    return target


def check_application(target: Any, path: str = "") -> ASGIApplication:
    """Return ``target`` as an ASGI 3 application.

    Args:
        target: An ASGI 3 or ASGI 2 application.
        path: Where it came from, for the message.

    Raises:
        ApplicationLoadError: It cannot be called, or is a WSGI application.
    """
    label = f"application {path!r}" if path else "application"
    if not callable(target):
        what = "a module" if isinstance(target, ModuleType) else f"of type {type(target).__name__!r}"
        raise ApplicationLoadError(f"{label}: is {what}, which cannot be called")
    parameters = _positional_parameters(target)
    if parameters is not None:
        if parameters[:2] in (["environ", "start_response"], ["env", "start_response"]):
            raise ApplicationLoadError(f"{label}: is a WSGI application, not an ASGI one; {_wsgi_remedy(target)}")
        if not parameters and not isinstance(target, type):
            raise ApplicationLoadError(
                f"{label}: takes no arguments, so it is no ASGI application; if it makes one, call it in the module"
            )
    single: ASGIApplication = guarantee_single_callable(target)  # type: ignore[no-untyped-call]
    return single


def _import_module(name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        unknown = isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}.")
        # The module's own code may fail to import something of its own name; then a frame of it is there.
        if unknown and _place(error) is None:
            hint = ""
            if name.endswith(".py"):
                hint = f"; without the '.py': {path.replace('.py', '', 1)!r}"
            message = str(error).removesuffix(".")
            raise ApplicationLoadError(f"application {path!r}: {message[:1].lower()}{message[1:]}{hint}") from error
        raise ApplicationLoadError(f"application {path!r}: importing {name!r} failed{_story(error)}") from error


# " at file:line: Type: message" on one line.
def _story(error: Exception) -> str:
    place = _place(error)
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    message = " ".join(message.split())
    where = f" at {place}" if place else ""
    return f"{where}: {type(error).__name__}{': ' if message else ''}{message}"


# The innermost line of Python that is neither the import machinery's nor ours.
def _place(error: Exception) -> str | None:
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{_shown(error.filename)}:{error.lineno}"
    found = None
    frame: TracebackType | None = error.__traceback__
    while frame is not None:
        file = frame.tb_frame.f_code.co_filename
        if not file.startswith("<frozen importlib") and file not in (importlib.__file__, __file__):
            found = f"{_shown(file)}:{frame.tb_lineno}"
        frame = frame.tb_next
    return found


def _shown(file: str) -> str:
    try:
        relative = os.path.relpath(file)
    except ValueError:  # another drive
        return file
    return file if relative.startswith(os.pardir) else relative


def _suggestion(owner: Any, name: str) -> str:
    names = [entry for entry in dir(owner) if not entry.startswith("_")]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    if not close and isinstance(owner, ModuleType):
        close = [entry for entry in ("application", "app") if entry in names]
    return f"; is it {close[0]!r}?" if close else ""


# The names of the parameters that can be given by position, or None when that cannot be told.
def _positional_parameters(target: Any) -> list[str] | None:
    try:
        parameters = inspect.signature(target).parameters.values()
    except Exception:  # ValueError and TypeError; NameError for an annotation that cannot be evaluated
        return None
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]


def _wsgi_remedy(target: Any) -> str:
    django = sys.modules.get("django.core.handlers.wsgi")
    if django is not None and isinstance(target, django.WSGIHandler):
        return (
            "Django's ASGI application comes from django.core.asgi.get_asgi_application(), "
            "by convention 'project.asgi:application'"
        )
    return "asgiref.wsgi.WsgiToAsgi can wrap it"

"""Find the application that a path like ``project.asgi:application`` names, and see that it is one.

Whatever goes wrong in there is a user's typing error or a user's own exception, so every error is one line
that says which, and where.

The steps of the command line, in their order: `read_environment`, `search_directories`, `import_target`,
`call_factory`, `check_application`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from types import ModuleType, TracebackType
from typing import Any

from asgiref.compatibility import guarantee_single_callable

from daphne_ng._types import ASGIApplication
from daphne_ng.errors import ApplicationLoadError, ConfigurationError

__all__ = [
    "DEFAULT_ATTRIBUTES",
    "call_factory",
    "check_application",
    "directory_of_file",
    "import_target",
    "is_importing",
    "read_environment",
    "search_directories",
]

DEFAULT_ATTRIBUTES = ("application", "app")
"""What a path without a colon means, the first that is there: Django's name for it, and everybody else's."""


def read_environment(path: str) -> None:
    """Put the variables of an ``.env`` file into the environment; those that are there already stay as they are.

    Raises:
        ConfigurationError: It cannot be read, or python-dotenv is not installed.
    """
    try:
        from dotenv import load_dotenv
    except ImportError as error:
        raise ConfigurationError("--env-file needs python-dotenv: pip install 'daphne-ng[env]'") from error
    try:
        with open(path, encoding="utf-8") as file:
            load_dotenv(stream=file)
    except OSError as error:
        raise ConfigurationError(f"--env-file: cannot read {path!r}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"--env-file: {path!r} is not UTF-8, or holds a NUL character") from error


def search_directories(directories: Sequence[str]) -> None:
    """Put directories in front of Python's path, the first one first; without any, the current one."""
    if not directories:
        # A console script starts with its own directory there, not the current one.
        if sys.path[:1] != ["."]:
            sys.path.insert(0, ".")
        return
    found = [os.path.abspath(directory) for directory in directories]
    if sys.path[: len(found)] != found:
        sys.path[:0] = found


def import_target(path: str) -> Any:
    """Return the object at ``path``, whatever it is.

    Args:
        path: ``module:attribute`` or ``path/to/file.py:attribute``, where the attribute may be dotted; without a colon
            it is the first of `DEFAULT_ATTRIBUTES` that is there.

    Raises:
        ApplicationLoadError: It cannot be imported or found. When the user's own code raised, that exception is the
            ``__cause__``.
    """
    module_name, attribute = _split(path)
    if not module_name or (attribute is not None and not all(attribute.split("."))):
        raise ApplicationLoadError(f"application {path!r}: {_SHAPE}")
    if _names_a_file(module_name):
        module = _import_file(module_name, path)
        module_name = module.__name__
    else:
        if "/" in module_name or os.sep in module_name:
            raise ApplicationLoadError(
                f"application {path!r}: {module_name!r} is neither a module's name nor a file's ending in '.py'"
            )
        if not all(module_name.split(".")):
            raise ApplicationLoadError(f"application {path!r}: {_SHAPE}")
        module = _import_module(module_name, path)
    if attribute is None:
        for name in DEFAULT_ATTRIBUTES:
            found = _attribute_of(module, name, path)
            if found is not _MISSING:
                return found
        raise ApplicationLoadError(
            f"application {path!r}: {module_name!r} has neither an 'application' nor an 'app'; name it after a colon"
        )
    target: Any = module
    owner = module_name
    for name in attribute.split("."):
        found = _attribute_of(target, name, path)
        if found is _MISSING:
            raise ApplicationLoadError(
                f"application {path!r}: {owner!r} has no attribute {name!r}{_suggestion(target, name)}"
            )
        target, owner = found, name
    return target


def call_factory(target: Any, path: str = "") -> Any:
    """Return what ``target`` makes when it is called without arguments.

    Raises:
        ApplicationLoadError: It is no factory, is asynchronous, or raised; then that is the ``__cause__``.
    """
    label = f"application {path!r}" if path else "application"
    if not callable(target):
        raise ApplicationLoadError(f"{label}: is {_kind(target)}, which is no factory: it cannot be called")
    try:
        signature = inspect.signature(target)
    except Exception:  # as in `_positional_parameters`; calling it will show
        signature = inspect.Signature()
    try:
        signature.bind()
    except TypeError as error:
        raise ApplicationLoadError(
            f"{label}: needs arguments, so it is no factory; if it is the application itself, leave --factory out"
        ) from error
    try:
        made = target()
    except Exception as error:
        raise ApplicationLoadError(f"{label}: the factory failed{_story(error)}") from error
    if inspect.isawaitable(made):
        if inspect.iscoroutine(made):
            made.close()
        raise ApplicationLoadError(f"{label}: is an asynchronous factory; it must be a plain function")
    if not callable(made):
        raise ApplicationLoadError(f"{label}: what the factory made is {_kind(made)}, which cannot be called")
    return made


def check_application(target: Any, path: str = "") -> ASGIApplication:
    """Return ``target`` as an ASGI 3 application.

    Args:
        target: An ASGI 3 or ASGI 2 application.
        path: Where it came from, for the message.

    Raises:
        ApplicationLoadError: It cannot be called, takes other arguments, or is a WSGI application.
    """
    label = f"application {path!r}" if path else "application"
    if not callable(target):
        raise ApplicationLoadError(f"{label}: is {_kind(target)}, which cannot be called")
    parameters = _positional_parameters(target)
    if parameters is not None:
        if parameters[:2] in (["environ", "start_response"], ["env", "start_response"]):
            raise ApplicationLoadError(f"{label}: is a WSGI application, not an ASGI one; {_wsgi_remedy(target)}")
        if isinstance(target, type):
            problem = _problem_of_class(target)
            if problem:
                raise ApplicationLoadError(f"{label}: {problem}")
        elif not parameters:
            raise ApplicationLoadError(
                f"{label}: takes no arguments, so it is no ASGI application; if it makes one, give --factory"
            )
        elif not _takes_messages(target):
            raise ApplicationLoadError(
                f"{label}: takes ({', '.join(parameters)}), not (scope, receive, send), so it is no ASGI application"
            )
    if isinstance(target, type) and hasattr(target, "__await__"):
        return target  # an endpoint of Starlette's: the instance is what the call is awaited for
    single: ASGIApplication = guarantee_single_callable(target)  # type: ignore[no-untyped-call]
    return single


_MISSING = object()
_SHAPE = "should read like 'package.module:name'"


# The value, or _MISSING.
def _attribute_of(owner: Any, name: str, path: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        return _MISSING
    except Exception as error:
        raise ApplicationLoadError(f"application {path!r}: reading {name!r} failed{_story(error)}") from error


# The module or file to import, and the attribute if the path names one. A file's path may have colons of its own.
def _split(path: str) -> tuple[str, str | None]:
    if path.endswith(".py"):
        return path, None
    file, _, attribute = path.rpartition(":")
    if file.endswith(".py"):
        return file, attribute
    module_name, colon, attribute = path.partition(":")
    return module_name, attribute if colon else None


# A package may have a module of the name "py".
def _names_a_file(name: str) -> bool:
    return name.endswith(".py") and ("/" in name or os.sep in name or os.path.isfile(name))


def directory_of_file(path: str) -> str | None:
    """Return the directory to import the application's file from; None if ``path`` names a module."""
    file, _ = _split(path)
    return _locate(file)[0] if _names_a_file(file) else None


# Where Python must search for the module that a file is, and the module's name, to which directories that are packages
# belong.
def _locate(file: str) -> tuple[str, str]:
    directory, base = os.path.split(os.path.abspath(file))
    names = [base.removesuffix(".py")]
    if names == ["__init__"]:
        directory, package = os.path.split(directory)
        names = [package]
    while os.path.isfile(os.path.join(directory, "__init__.py")):
        above, package = os.path.split(directory)
        if above == directory:
            break
        directory = above
        names.insert(0, package)
    return directory, ".".join(names)


def _import_file(file: str, path: str) -> ModuleType:
    if not os.path.isfile(file):
        raise ApplicationLoadError(f"application {path!r}: there is no file {file!r}")
    directory, name = _locate(file)
    if "." in os.path.basename(file).removesuffix(".py"):
        raise ApplicationLoadError(f"application {path!r}: a module's name cannot hold a dot; rename {file!r}")
    if not any(os.path.abspath(entry) == directory for entry in sys.path[:1]):
        sys.path.insert(0, directory)
    module = _import_module(name, path)
    found = getattr(module, "__file__", None)
    if found is None or not os.path.exists(found) or not os.path.samefile(found, file):
        raise ApplicationLoadError(
            f"application {path!r}: {file!r} would be the module {name!r}, "
            f"which is {repr(found) if found else 'built in'}; rename the file"
        )
    return module


_importing: list[str] = []


def is_importing() -> bool:
    """Tell whether an application is being imported just now."""
    return bool(_importing)


def _import_module(name: str, path: str) -> ModuleType:
    try:
        _importing.append(name)
        try:
            return importlib.import_module(name)
        finally:
            _importing.pop()
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        # The module's own code may fail to import something of its own name; then a frame of it is there.
        if missing and f"{name}.".startswith(f"{missing}.") and _place(error) is None:
            message = str(error).removesuffix(".")
            hint = _hint(name, missing)
            raise ApplicationLoadError(f"application {path!r}: {message[:1].lower()}{message[1:]}{hint}") from error
        # A package that patches asyncio's own loops says so of others: nest_asyncio.
        hint = "; --loop asyncio serves without uvloop" if "uvloop" in str(error) else ""
        raise ApplicationLoadError(f"application {path!r}: importing {name!r} failed{_story(error)}{hint}") from error


# Advice for a module that is missing.
def _hint(name: str, missing: str) -> str:
    if name.endswith(".py"):
        return f"; there is no file {name!r} either"
    above, _, last = name.rpartition(".")
    if name == missing and last and hasattr(sys.modules.get(above), last):
        return f"; is it '{above}:{last}'?"
    if "." in missing:
        return ""
    if missing.isdecimal():
        return "; an address to listen on is given with --bind"
    return f"; searched {os.path.abspath(sys.path[0])!r} (see --app-dir) and what is installed"


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


def _kind(target: Any) -> str:
    return "a module" if isinstance(target, ModuleType) else f"of type {type(target).__name__!r}"


def _suggestion(owner: Any, name: str) -> str:
    names = [entry for entry in dir(owner) if not entry.startswith("_")]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    if not close and isinstance(owner, ModuleType):
        close = [entry for entry in DEFAULT_ATTRIBUTES if entry in names]
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


# Whether it can be called as ASGI 3 or, if it is not asynchronous, as ASGI 2 calls an application.
def _takes_messages(target: Any) -> bool:
    signature = inspect.signature(target)
    asynchronous = any(map(inspect.iscoroutinefunction, (target, type(target).__call__)))
    for arguments in ((None,) * 3, *(() if asynchronous else ((None,),))):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return True
    return False


# The reason why a class is no application; empty for one of ASGI 2, and for one whose instances can be awaited.
def _problem_of_class(target: type[Any]) -> str:
    if hasattr(target, "__await__"):
        return "" if _binds(target, 3) else "is a class that does not take (scope, receive, send)"
    call = getattr(target, "__call__", None)  # noqa: B004 (type.__call__ is no answer)
    if not inspect.isfunction(call):
        return "is a class whose instances cannot be called, so it is no ASGI application"
    if _binds(target, 1) and _binds(call, 3):  # with self
        return ""
    if _binds(call, 4):
        remedy = "; --factory makes one" if _binds(target, 0) else ""
        return f"is the class {target.__name__!r}, and an instance of it is meant{remedy}"
    return "is a class that takes neither (scope, receive, send) nor ASGI 2's (scope), so it is no ASGI application"


# Whether it can be called with so many arguments by position, as far as can be told.
def _binds(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*(None,) * count)
    except TypeError:
        return False
    except Exception:  # as in `_positional_parameters`
        return True
    return True


def _wsgi_remedy(target: Any) -> str:
    django = sys.modules.get("django.core.handlers.wsgi")
    if django is not None and isinstance(target, django.WSGIHandler):
        return (
            "Django's ASGI application comes from django.core.asgi.get_asgi_application(), "
            "by convention 'project.asgi:application'"
        )
    return "asgiref.wsgi.WsgiToAsgi can wrap it"

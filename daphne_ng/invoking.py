"""`run`: what the command line does, from Python."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from daphne_ng._types import AnyApplication
from daphne_ng.cli import CommandLineInterface
from daphne_ng.config import Config, Setting, settings
from daphne_ng.errors import ConfigurationError, ReactorError
from daphne_ng.hints import ELSEWHERE
from daphne_ng.serving.loading import call_factory, check_application, is_importing
from daphne_ng.supervisor.command import needs_supervisor

__all__ = ["run"]


def run(
    app: AnyApplication | str,
    *,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    unix_socket: str | Sequence[str] | None = None,
    fd: int | Sequence[int] | None = None,
    endpoints: Sequence[str] = (),
    factory: bool = False,
    app_dir: str | Sequence[str] | None = None,
    env_file: str | None = None,
    verbosity: int = 1,
    log_level: str | None = None,
    log_fmt: str | None = None,
    access_log: str | bool = True,
    access_log_logger: bool = False,
    proxy_headers: bool = False,
    config: Config | None = None,
    **more: Any,
) -> None:
    """Serve an application as the command line does, with the same output, until a signal stops it.

    Args:
        app: The ASGI application, or its import string, such as ``"proj.asgi:application"``. Workers and reloading need
            the string, since every process imports it again.
        host: Address or addresses to listen on; 127.0.0.1 unless something else is said about where to listen.
        port: TCP port, for every host; 8000.
        unix_socket: Path or paths of UNIX sockets to create.
        fd: Number or numbers of inherited listening sockets.
        endpoints: Twisted endpoint strings.
        factory: Whether the application is to be made by calling what `app` is or names.
        app_dir: Directory or directories to import the application from, besides those of ``sys.path``.
        env_file: See ``--env-file``.
        verbosity: See ``-v``.
        log_level: See ``--log-level``.
        log_fmt: See ``--log-fmt``.
        access_log: A file; True for standard output, False for none.
        access_log_logger: See ``--access-log-logger``.
        proxy_headers: See ``--proxy-headers``.
        config: Settings, on top of which come those in `more`.
        more: Any field of `Config`.

    Raises:
        ConfigurationError: A setting, the application or an endpoint is wrong.
        TypeError: There is no such setting.
        SystemExit: The server ended with an exit code that is not zero: nothing could be listened on, or the
            application's startup failed.
    """
    _check_no_loop_runs()
    if is_importing():
        raise ConfigurationError(
            "run() is called by the module that holds the application: put it below \"if __name__ == '__main__':\""
        )
    interface = _Interface(app)
    options = interface.parser.parse_args([])
    for name, many, given in (
        ("host", "hosts", host),
        ("unix_socket", "unix_sockets", unix_socket),
        ("file_descriptor", "file_descriptors", fd),
    ):
        found = _listed(given)
        if found:
            setattr(options, name, found[-1])
            setattr(options, many, found)
    # A value from the environment is text: say so, instead of failing on it later.
    _check_type("port", [port], int)
    _check_type("fd", _listed(fd), int)
    _check_type("host", _listed(host), str)
    _check_type("log_level", [log_level], str)
    options.port = port
    options.socket_strings = list(endpoints)
    options.factory = factory
    options.env_file = env_file
    options.verbosity = verbosity
    options.log_level = log_level.lower() if log_level is not None else None
    if log_fmt is not None:
        options.log_fmt = log_fmt
    options.access_log = os.devnull if access_log is False else None if access_log is True else access_log
    options.access_log_logger = access_log_logger
    options.proxy_headers = proxy_headers
    options.app_dirs = _listed(app_dir)
    options.application = app if isinstance(app, str) else ""
    if isinstance(app, str):
        options.app_dirs += _where_the_program_is(options.app_dirs)
    interface.take(options, _settings_of(config) | more)
    interface.run_with(options)


class _Interface(CommandLineInterface):
    def __init__(self, app: Any) -> None:
        super().__init__()
        self._app = app
        self._more: dict[str, Any] = {}

    # Put settings where an option would, and keep those without one.
    def take(self, options: argparse.Namespace, given: dict[str, Any]) -> None:
        known = dict(settings())
        for name, value in given.items():
            if name not in known:
                raise TypeError(f"run() has no setting {name!r}{_remedy(name, known)}")
            if not known[name].flags:
                self._more[name] = value
            elif value is None and (name == "root_path" or known[name].kind in ("texts", "headers")):
                raise ConfigurationError(f"{name} cannot be None: leave it out")
            elif name == "root_path":
                options.root_path = quote(value)  # as the option is given
            elif known[name].kind in ("texts", "headers"):
                setattr(options, name, list(value))
            else:
                setattr(options, name, value)

    def _config(self, options: argparse.Namespace) -> Config:
        config = super()._config(options).replace(**self._more)
        if needs_supervisor(config):
            if not isinstance(self._app, str):
                raise ConfigurationError(
                    "workers and reload need the application as an import string, such as 'main:app', since every "
                    "process imports it again"
                )
            if self._more:
                raise ConfigurationError(f"{', '.join(self._more)}: has no flag by which workers could be told")
        return config

    def _application(self, options: argparse.Namespace, config: Config) -> Any:
        if isinstance(self._app, str):
            return super()._application(options, config)
        if options.env_file or options.app_dirs:
            raise ConfigurationError("env_file and app_dir are for an application that is imported")
        if options.factory:
            return check_application(call_factory(self._app))
        return check_application(self._app)

    def _worker_command(self, options: argparse.Namespace) -> list[str] | None:
        # The interpreter's own options, as multiprocessing finds them.
        interpreter: Any = getattr(subprocess, "_args_from_interpreter_flags", list)
        return [sys.executable, *interpreter(), "-m", "daphne_ng", *_arguments(options), "--", options.application]


# The command line that these options stand for.
def _arguments(options: argparse.Namespace) -> list[str]:
    found = [f"-v{options.verbosity}", f"--log-fmt={options.log_fmt}"]
    found += [f"--bind={host}" for host in getattr(options, "hosts", ())]
    found += [f"--unix-socket={path}" for path in getattr(options, "unix_sockets", ())]
    found += [f"--fd={number}" for number in getattr(options, "file_descriptors", ())]
    found += [f"--endpoint={string}" for string in options.socket_strings]
    found += [f"--app-dir={directory}" for directory in options.app_dirs]
    for flag, value in (
        ("--port", options.port),
        ("--env-file", options.env_file),
        ("--log-level", options.log_level),
        ("--access-log", options.access_log),
    ):
        if value is not None:
            found.append(f"{flag}={value}")
    for flag, switched in (
        ("--factory", options.factory),
        ("--access-log-logger", options.access_log_logger),
        ("--proxy-headers", options.proxy_headers),
    ):
        if switched:
            found.append(flag)
    for name, known in settings():
        if known.flags:
            value = getattr(options, name)
            if value != known.default:
                found += _flags(name, known, value)
    return found


def _flags(name: str, known: Setting, value: Any) -> list[str]:
    flag = next(flag for flag in known.flags if flag.startswith("--"))
    if known.kind in ("flag", "no-flag"):
        return [flag]
    if known.kind == "switch":
        return [known.flags[0] if value else known.flags[1]]
    if known.kind == "headers":
        return [f"{flag}={field.decode('latin-1')}:{content.decode('latin-1')}" for field, content in value]
    if known.kind == "texts":
        return [f"{flag}={text}" for text in value]
    if known.kind == "int" and isinstance(value, float):
        if not value.is_integer():
            raise ConfigurationError(f"{name}: workers take whole numbers only, not {value:g}")
        value = int(value)
    return [f"{flag}={value}"]


def _settings_of(config: Config | None) -> dict[str, Any]:
    if config is None:
        return {}
    return {name: getattr(config, name) for name, known in settings() if getattr(config, name) != known.default}


# A program that is started by its path has its own directory in sys.path, and names modules there.
def _where_the_program_is(directories: Iterable[str]) -> list[str]:
    here = os.path.abspath(sys.path[0]) if sys.path else os.getcwd()
    program = here if os.path.isdir(here) and here != os.path.dirname(os.path.abspath(sys.executable)) else os.getcwd()
    wanted = [program] if directories else [os.getcwd(), program]
    return [one for one in dict.fromkeys(wanted) if one not in map(os.path.abspath, directories)]


def _check_type(name: str, values: Iterable[Any], wanted: type) -> None:
    for value in values:
        if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise ConfigurationError(f"{name} must be {'a number' if wanted is int else 'text'}, not {value!r}")


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return [given] if isinstance(given, str | int | os.PathLike) else list(given)


def _remedy(name: str, known: dict[str, Setting]) -> str:
    flag = "--" + name.replace("_", "-")
    elsewhere = ELSEWHERE.get(flag)
    if elsewhere == "":
        return "; leave it out"
    if elsewhere is not None:
        ours = next((own for own, setting in known.items() if elsewhere in setting.flags), None)
        ours = ours or {"--bind": "host", "--app-dir": "app_dir", "--unix-socket": "unix_socket"}.get(elsewhere)
        if ours is not None:
            return f"; here it is {ours!r}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; is it {close[0]!r}?" if close else ""


def _check_no_loop_runs() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ReactorError("run() cannot be called while an event loop runs: use 'await Server(...).serve()' there")

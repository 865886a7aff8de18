"""The command line: ``daphne-ng [options] module:application``.

Every option of Daphne's is here with its spelling, destination, type and default. The options that are
fields of `Config` are made from the field's own description; the rest (where to listen, what to log, which
application) is declared below. Importing this module imports no reactor, no server and no Twisted.

`CommandLineInterface.run` raises, so that it can be used from Python; `CommandLineInterface.entrypoint` turns
what it raises into one line on stderr and an exit code:

=====  ==================================================================================
code   meaning
=====  ==================================================================================
0      served, and stopped in order
1      a setting, the application, an endpoint or the access log is wrong; or serving failed
2      the options do not parse
3      the application's lifespan startup failed
130    interrupted before serving
=====  ==================================================================================
"""

from __future__ import annotations

import argparse
import inspect
import logging
import sys
import traceback
from argparse import ArgumentError, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from typing import Any

import daphne_ng
from daphne_ng.access import AccessLogGenerator, LoggingAccessLog, open_access_log
from daphne_ng.config import Config, Setting, settings
from daphne_ng.endpoints import build_endpoint_description_strings
from daphne_ng.errors import DaphneError
from daphne_ng.loading import check_application, import_target
from daphne_ng.logconfig import DEFAULT_FORMAT, LEVELS, configure

__all__ = ["CommandLineInterface"]

logger = logging.getLogger(__name__)

PROGRAM = "daphne-ng"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
DEMO = "daphne_ng.demo:application"

_METAVARS = {"seconds": "SECONDS", "bytes": "BYTES"}


class _DefaultServer:
    """Stands for `daphne_ng.server.Server`, which is imported when somebody looks."""

    def __get__(self, interface: object, owner: object = None) -> Any:
        from daphne_ng.server import Server

        return Server


class CommandLineInterface:
    """Parses the options and runs the server.

    A subclass may set `description` and `server_class`, and override `run` and `load_asgi_app`.
    """

    description = "ASGI server for HTTP/1.1, HTTP/2 and WebSocket"

    server_class: Any = _DefaultServer()
    """What `run` makes and runs: `daphne_ng.server.Server`, or anything that takes the keywords of Daphne's."""

    server: Any
    """The server that `run` made; None before."""

    parser: argparse.ArgumentParser
    """Has every option; a subclass may add some."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(
            prog=PROGRAM,
            usage="%(prog)s [options] [module:application]",
            description=self.description,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
        )
        self.server = None
        self._verbosity = 1
        self._groups: dict[str, argparse._ArgumentGroup] = {}
        self._add_own_options()
        self._add_config_options()

    @classmethod
    def entrypoint(cls) -> None:
        """Run with the options of the process, and exit on any error. The console script's target."""
        interface = cls()
        try:
            interface.run(sys.argv[1:])
        except ArgumentError as error:
            interface.parser.error(str(error))
        except DaphneError as error:
            if interface._verbosity >= 2 and error.__cause__ is not None:
                traceback.print_exception(error.__cause__)
            interface.parser.exit(1, f"{interface.parser.prog}: error: {' '.join(str(error).split())}\n")
        except KeyboardInterrupt:
            interface.parser.exit(130)

    def run(self, args: Sequence[str]) -> None:
        """Parse ``args``, then serve until the server stops.

        Args:
            args: The options, without the program's name.

        Raises:
            SystemExit: The options do not parse (2), or the server ended with a code that is not zero.
            ArgumentError: Options contradict each other.
            ConfigurationError: A setting, the application, an endpoint or the access log is wrong.
        """
        options = self.parser.parse_args(args)
        self._verbosity = options.verbosity
        configure(options.verbosity, options.log_fmt, options.log_level)
        config = self._config(options)
        endpoints = self._endpoints(options)
        access_log = self._access_log(options)
        try:
            application = self._application(options)
            if options.proxy_headers:
                logger.warning("--proxy-headers takes effect in a later release: addresses are the proxy's until then")
            if options.application is None:
                # Its page keeps a stream open, which would hold up Ctrl-C for the whole of the grace period.
                config = config.replace(graceful_timeout=min(config.graceful_timeout, 1.0))
            logger.info("Starting server at %s", ", ".join(endpoints))
            self.server = self._make_server(application, endpoints, access_log, options, config)
            self.server.run()
        finally:
            if access_log is not None:
                access_log.close()
        exit_code = getattr(self.server, "exit_code", None)
        if exit_code is None:
            exit_code = 1 if getattr(self.server, "abort_start", False) else 0
        if exit_code:
            sys.exit(exit_code)

    def load_asgi_app(self, asgi_app_path: str) -> Any:
        """Return the application at ``module:attribute``; `run` checks it and wraps an ASGI 2 one.

        Raises:
            ApplicationLoadError: It cannot be imported.
        """
        return import_target(asgi_app_path)

    # -- options ---------------------------------------------------------------------------------------------

    def _group(self, title: str) -> argparse._ArgumentGroup:
        if title not in self._groups:
            self._groups[title] = self.parser.add_argument_group(title)
        return self._groups[title]

    def _add_own_options(self) -> None:
        self.parser.add_argument("--version", action="version", version=f"{PROGRAM} {daphne_ng.__version__}")

        add = self._group("Application").add_argument
        add(
            "application",
            nargs="?",
            default=None,
            metavar="module:application",
            help="the ASGI application, as package.module:name; without it, a built-in demo",
        )

        add = self._group("Listening (options add up)").add_argument
        add(
            "-p",
            "--port",
            type=int,
            default=None,
            metavar="N",
            help=f"TCP port to listen on (default: {DEFAULT_PORT} unless another address is given)",
        )
        add(
            "-b",
            "--bind",
            dest="host",
            default=None,
            metavar="HOST",
            help=f"address to listen on, IPv6 with or without brackets (default: {DEFAULT_HOST})",
        )
        add("-u", "--unix-socket", dest="unix_socket", default=None, metavar="PATH", help="UNIX socket to create")
        add(
            "--fd",
            type=int,
            dest="file_descriptor",
            default=None,
            metavar="N",
            help="inherited listening socket, by the number of its descriptor",
        )
        add(
            "-e",
            "--endpoint",
            dest="socket_strings",
            action="append",
            default=[],
            metavar="STRING",
            help="Twisted server endpoint string, such as ssl:443:privateKey=key.pem:certKey=cert.pem; may be repeated",
        )

        logs = self._group("Logging")
        logs.add_argument(
            "-v",
            "--verbosity",
            type=int,
            default=1,
            metavar="N",
            help="0 for warnings, 1 for information and the access log, 2 for debugging, "
            "3 for asyncio's debug mode too (default: 1)",
        )
        logs.add_argument(
            "--log-level", type=str.lower, choices=LEVELS, default=None, help="level of the log, whatever the verbosity"
        )
        logs.add_argument(
            "--log-fmt",
            default=DEFAULT_FORMAT,
            metavar="FORMAT",
            help=_escaped(f"format of the log, as Python's logging takes it (default: {DEFAULT_FORMAT})"),
        )
        either = logs.add_mutually_exclusive_group()
        either.add_argument(
            "--access-log",
            default=None,
            metavar="PATH",
            help="file to append the access log to; - for standard output (default: - if the verbosity is at least 1)",
        )
        either.add_argument(
            "--access-log-logger",
            action="store_true",
            help="send the access log through Python's logger daphne_ng.access",
        )

        responses = self._group("Responses")
        responses.add_argument(
            "--no-server-name",
            dest="server_name",
            action="store_const",
            const="",
            default=argparse.SUPPRESS,
            help="send no Server header",
        )

        proxies = self._group("Proxies")
        proxies.add_argument(
            "--proxy-headers",
            action="store_true",
            default=False,
            help="take the client's address, port and scheme from the X-Forwarded-For, -Port and -Proto headers",
        )
        self.arg_proxy_host = proxies.add_argument(
            "--proxy-headers-host",
            default=False,
            metavar="NAME",
            help="header to take the address from instead, such as X-Real-IP; needs --proxy-headers",
        )
        self.arg_proxy_port = proxies.add_argument(
            "--proxy-headers-port",
            default=False,
            metavar="NAME",
            help="header to take the port from instead; needs --proxy-headers",
        )

    def _add_config_options(self) -> None:
        defaults = Config()
        for name, setting in settings():
            if setting.flags:
                default = getattr(defaults, name)
                # argparse makes the --no- spelling of a switch itself.
                flags = setting.flags[:1] if setting.kind == "switch" else setting.flags
                self._group(setting.group).add_argument(*flags, dest=name, **_option(setting, default))

    # -- from the options to the server ------------------------------------------------------------------------

    def _config(self, options: Namespace) -> Config:
        values = {name: getattr(options, name) for name, setting in settings() if setting.flags}
        values["headers"] = tuple(values["headers"])
        # Daphne gives both timeouts the same value.
        values["websocket_handshake_timeout"] = options.websocket_connect_timeout
        values["proxy_address_header"] = self._proxy_header(
            options, options.proxy_headers_host, self.arg_proxy_host, "X-Forwarded-For"
        )
        values["proxy_port_header"] = self._proxy_header(
            options, options.proxy_headers_port, self.arg_proxy_port, "X-Forwarded-Port"
        )
        values["proxy_proto_header"] = "X-Forwarded-Proto" if options.proxy_headers else None
        return Config(**values)

    def _proxy_header(
        self, options: Namespace, given: str | bool, argument: argparse.Action, default: str
    ) -> str | bool | None:
        if given and not options.proxy_headers:
            raise ArgumentError(argument, "--proxy-headers has to be passed for this parameter.")
        if not options.proxy_headers:
            return None
        return given or default

    def _endpoints(self, options: Namespace) -> list[str]:
        host, port = options.host, options.port
        elsewhere = options.unix_socket or options.file_descriptor is not None or options.socket_strings
        if host or port is not None or not elsewhere:
            host = host or DEFAULT_HOST
            port = DEFAULT_PORT if port is None else port
        strings = build_endpoint_description_strings(
            host=host, port=port, unix_socket=options.unix_socket, file_descriptor=options.file_descriptor
        )
        return sorted(options.socket_strings + strings)

    def _access_log(self, options: Namespace) -> AccessLogGenerator | LoggingAccessLog | None:
        if options.access_log_logger:
            access = LoggingAccessLog()
            # Asked for by name, so it is not to be dropped for the root's level; a level set elsewhere stands.
            if access.logger.level == logging.NOTSET:
                access.logger.setLevel(logging.INFO)
            return access
        if options.access_log:
            return AccessLogGenerator(open_access_log(options.access_log))
        if options.verbosity >= 1 and sys.stdout is not None:
            return AccessLogGenerator(open_access_log("-"))
        return None

    def _application(self, options: Namespace) -> Any:
        # A console script starts with its own directory there, not the current one.
        if sys.path[:1] != ["."]:
            sys.path.insert(0, ".")
        path = options.application
        if path is None:
            logger.info("No application given: serving the built-in demo, %s", DEMO)
            path = DEMO
        application = self.load_asgi_app(path)
        if _is_ours(self.server_class):
            return check_application(application, path)
        # What a foreign server can serve is for it to say: Daphne's own tests hand theirs a string.
        return check_application(application, path) if callable(application) else application

    def _make_server(
        self, application: Any, endpoints: list[str], access_log: Any, options: Namespace, config: Config
    ) -> Any:
        keywords: dict[str, Any] = {
            "application": application,
            "endpoints": endpoints,
            "http_timeout": config.http_timeout,
            "ping_interval": config.ping_interval,
            "ping_timeout": config.ping_timeout,
            "websocket_timeout": config.websocket_timeout,
            "websocket_connect_timeout": config.websocket_connect_timeout,
            "websocket_handshake_timeout": config.websocket_handshake_timeout,
            "websocket_max_message_size": config.websocket_max_message_size,
            "websocket_max_frame_size": config.websocket_max_frame_size,
            "application_close_timeout": config.application_close_timeout,
            "action_logger": access_log,
            "root_path": config.root_path,
            "verbosity": options.verbosity,
            "proxy_forwarded_address_header": config.proxy_address_header,
            "proxy_forwarded_port_header": config.proxy_port_header,
            "proxy_forwarded_proto_header": config.proxy_proto_header,
            "server_name": config.server_name,
        }
        if _takes_config(self.server_class):
            keywords["config"] = config
        return self.server_class(**keywords)


# -- how a setting becomes an option ---------------------------------------------------------------------------


def _option(setting: Setting, default: Any) -> dict[str, Any]:
    kind = setting.kind if setting.kind != "auto" else type(default).__name__
    if kind in ("flag", "no-flag"):
        return {"action": "store_true" if kind == "flag" else "store_false", "help": _escaped(setting.help)}
    option: dict[str, Any] = {"default": default, "help": _help(setting, default)}
    if kind == "switch":
        return {"action": argparse.BooleanOptionalAction, "default": default, "help": _escaped(setting.help)}
    if kind == "headers":
        return option | {"action": "append", "type": _header, "default": [], "metavar": "NAME:VALUE"}
    types: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str, "NoneType": str}
    option["type"] = types[kind]
    if setting.choices:
        option["choices"] = setting.choices
    else:
        option["metavar"] = _METAVARS.get(setting.unit, "TEXT" if option["type"] is str else "N")
    return option


def _help(setting: Setting, default: Any) -> str:
    if default is None:
        shown = "none"
    elif isinstance(default, str | tuple):
        shown = str(default) if default else ""
    else:
        shown = f"{default:.15g}{f' {setting.unit}' if setting.unit else ''}"
    return _escaped(f"{setting.help} (default: {shown})" if shown else setting.help)


# argparse formats help with %.
def _escaped(help_text: str) -> str:
    return help_text.replace("%", "%%")


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ArgumentTypeError(f"{text!r} should read NAME:VALUE")
    try:
        return name.strip().encode("ascii"), value.strip(" \t").encode("latin-1")
    except UnicodeEncodeError:
        raise ArgumentTypeError(f"{text!r} cannot be sent: a name must be ASCII, a value Latin-1") from None


# -- what a server class takes -----------------------------------------------------------------------------------


def _is_ours(server_class: Any) -> bool:
    bases = getattr(server_class, "__mro__", ())
    return any(base.__module__ == "daphne_ng.server" for base in bases)


# Daphne's signature has no ``config``. A constructor that takes any keyword hands them on, so its bases decide.
def _takes_config(server_class: Any) -> bool:
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

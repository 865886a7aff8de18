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
143    the same by SIGTERM, as process 1
=====  ==================================================================================
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import signal
import sys
import traceback
from argparse import ArgumentError, Namespace
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import daphne_ng
from daphne_ng import wording
from daphne_ng.access import AccessLogGenerator, LoggingAccessLog, open_access_log
from daphne_ng.config import Config, settings
from daphne_ng.endpoints import build_endpoint_description_strings, split_bind, unix_string
from daphne_ng.errors import ConfigurationError, DaphneError
from daphne_ng.hints import HintingParser
from daphne_ng.net.sockets.loops import check_loop
from daphne_ng.server_class import ServerClass, is_ours, takes_config
from daphne_ng.serving.loading import (
    call_factory,
    check_application,
    directory_of_file,
    import_target,
    read_environment,
    search_directories,
)
from daphne_ng.serving.logconfig import DEFAULT_FORMAT, LEVELS, configure, enable_loggers
from daphne_ng.sources.merging import PASSED_VARIABLE, Sources
from daphne_ng.sources.options import add_ruled_flags, escaped, option
from daphne_ng.sources.printing import SHELLS, completion, printed
from daphne_ng.sources.reading import FileValues, Passed
from daphne_ng.sources.renewing import renewed
from daphne_ng.supervisor.command import (
    Renewal,
    become_worker,
    forget_unprintable,
    handle_log_signals,
    heed_signals,
    needs_supervisor,
    open_standard_descriptors,
    pid_file,
    supervise,
    tell_failure,
)
from daphne_ng.supervisor.notify import Notifier
from daphne_ng.supervisor.service import ServiceReport

__all__ = ["CommandLineInterface"]

logger = logging.getLogger("daphne_ng.cli")

# Set in the processes that `supervise` starts.
_WORKER = "DAPHNE_NG_WORKER"
# The interpreter has so long for its own end, with threads of the application that have had all their time before.
_EXIT_SECONDS = 3.0

PROGRAM = "daphne-ng"
BUILD = "pure Python" if wording.__file__.endswith((".py", ".pyc")) else "compiled"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
DEMO = "daphne_ng.demo:application"

_NEED_PROXY_HEADERS = frozenset(("proxy_forwarded", "proxy_host", "proxy_prefix"))
_NEEDS_PROXY_HEADERS = "--proxy-headers has to be passed for this parameter."

# The values of these options are added to the defaults.
_ADDED_TO = {name: known.default for name, known in settings() if name in ("reload_includes", "reload_excludes")}


class CommandLineInterface:
    """Parses the options and runs the server.

    A subclass may set `description` and `server_class`, and override `run` and `load_asgi_app`.
    """

    description = "ASGI server for HTTP/1.1, HTTP/2 and WebSocket"

    server_class: Any = ServerClass()
    """What `run` makes and runs: `daphne_ng.server.Server`, or anything that takes the keywords of Daphne's."""

    server: Any
    """The server that `run` made; None before."""

    parser: argparse.ArgumentParser
    """Has every option; a subclass may add some."""

    def __init__(self) -> None:
        self.parser = HintingParser(
            prog=PROGRAM,
            usage="%(prog)s [options] [module:application]",
            description=self.description,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
        )
        self.server = None
        self._notifier = Notifier({})
        self._assignment = ""
        self._inherited: Any = None
        self._explains = False
        self._sources: Sources | None = None
        self._groups: dict[str, argparse._ArgumentGroup] = {}
        self._add_own_options()
        self._add_config_options()

    @classmethod
    def entrypoint(cls) -> None:
        """Run with the options of the process, and exit on any error. The console script's target."""
        open_standard_descriptors()
        heed_signals()
        if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # The kernel keeps from process 1 what it has no handler for: a container could not be stopped while the
            # application is imported. The server has handlers of its own later.
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        interface = cls()
        try:
            interface.run(sys.argv[1:])
        except ArgumentError as error:
            interface.parser.error(str(error))
        except DaphneError as error:
            tell_failure(interface._assignment, error)
            if interface._explains and error.__cause__ is not None:
                traceback.print_exception(error.__cause__)
            interface.parser.exit(1, f"{interface.parser.prog}: error: {' '.join(str(error).split())}\n")
        except KeyboardInterrupt:
            interface.parser.exit(130)
        finally:
            forget_unprintable()

    def run(self, args: Sequence[str]) -> None:
        """Parse ``args``, then serve until the server stops.

        Args:
            args: The options, without the program's name.

        Raises:
            SystemExit: The options do not parse (2), or the server ended with a code that is not zero.
            ArgumentError: Options contradict each other.
            ConfigurationError: A setting, the application, an endpoint or the access log is wrong.
        """
        sources = Sources(self.parser, args, is_worker=_WORKER in os.environ)
        options = sources.options
        if options.print_completion:
            sys.stdout.write(completion(self.parser, options.print_completion))
        elif options.check_config or options.print_config:
            self._show(sources)
        else:
            sources.raise_first()
            self._sources = sources
            self.run_with(options)

    # What --check-config and --print-config say.
    def _show(self, sources: Sources) -> None:
        mistakes = [str(mistake) for mistake in sources.mistakes]
        if not mistakes:
            self._sources = sources
            try:
                self._checked(sources.options)
            except ArgumentError as error:
                mistakes.append(str(error))
            except ConfigurationError as error:
                mistakes.append(str(error))
        for line in sources.hints:
            sys.stderr.write(f"{self.parser.prog}: warning: {line}\n")
        for line in mistakes:
            sys.stderr.write(f"{self.parser.prog}: error: {' '.join(line.split())}\n")
        if mistakes:
            sys.exit(1)
        if sources.options.print_config:
            sys.stdout.write(printed(sources))

    # The settings and where to listen, or an error that names the origins of what contradicts each other.
    def _checked(self, options: Namespace) -> tuple[Config, list[str]]:
        sources = self._sources
        try:
            config = self._config(options)
            check_loop(config.loop)
            if config.static:
                from daphne_ng.static.application import check_directories

                check_directories(config)
            return config, self._endpoints(options, config)
        except ConfigurationError as error:
            if sources is None or not error.settings:
                raise
            raise ConfigurationError(sources.explained(error)) from error.__cause__
        except ArgumentError as error:
            action = next(one for one in self.parser._actions if "/".join(one.option_strings) == error.argument_name)
            about = [action.dest, "host"] if action.dest == "port" else [action.dest]
            if sources is None or all(sources.origins.get(dest, "flag") == "flag" for dest in about):
                raise
            raise ConfigurationError(sources.explained(ConfigurationError(str(error)), about)) from None

    # What a worker is told of the file, and what SIGHUP makes of it.
    def _renewal(self) -> Renewal | None:
        sources = self._sources
        if sources is None:  # started from Python: the workers read neither variables nor a file
            return Renewal({PASSED_VARIABLE: Passed(FileValues(), variables=False).to_text()}, None)
        _, endpoints = self._checked(sources.options)
        return Renewal({PASSED_VARIABLE: sources.passed()}, lambda: self._renewed(endpoints) if self._sources else None)

    def _renewed(self, endpoints: list[str]) -> tuple[Config, dict[str, str]]:
        old = self._sources
        assert old is not None  # `_renewal` has seen to that
        fresh, fixed = renewed(old)
        self._sources = fresh
        try:
            config, where = self._checked(fresh.options)
            if where != endpoints:
                raise ConfigurationError("TLS is switched on and off by a restart only")
        except (ConfigurationError, ArgumentError):
            self._sources = old
            raise
        if fixed:
            logger.warning("SIGHUP does not change these, and a restart does: %s", ", ".join(fixed))
        return config, {PASSED_VARIABLE: fresh.passed()}

    def run_with(self, options: Namespace) -> None:
        """Serve until the server stops, with options that are parsed already; see `run`."""
        self._explains = options.verbosity >= 2
        configure(options.verbosity, options.log_fmt, options.log_level)
        # The environment is cleared before the application is imported: the processes that it may start are no workers,
        # and not the service. A server class of another package tells systemd itself.
        self._assignment = os.environ.pop(_WORKER, "")
        config, endpoints = self._checked(options)
        if self._sources is not None and not self._assignment:
            for hint in self._sources.hints:
                logger.warning("%s", hint)
        self._notifier = Notifier() if is_ours(self.server_class) else Notifier({})
        if config.umask:
            os.umask(int(config.umask, 8))
        if self._assignment:
            # The old code goes on serving, so that a developer sees no more of the new than this.
            self._explains |= config.reload
            self._inherited = become_worker(self._assignment)
            exit_code = self._serve(options, config, endpoints)
        else:
            with pid_file(config.pid_file):
                if needs_supervisor(config):
                    logger.info("Starting server at %s", ", ".join(endpoints))
                    exit_code = supervise(
                        endpoints, config, self._notifier, self._worker_command(options), self._renewal()
                    )
                else:
                    exit_code = self._serve(options, config, endpoints)
        if exit_code:
            sys.exit(exit_code)

    # The command that starts a worker; None for that of this process.
    def _worker_command(self, options: Namespace) -> list[str] | None:
        return None

    def _serve(self, options: Namespace, config: Config, endpoints: list[str]) -> int:
        access_log = self._access_log(options)
        # An import may take long, and these signals end a process that has no handlers.
        handle_log_signals(lambda: self.server, access_log)
        try:
            application = self._application(options, config)
            enable_loggers()
            if options.application is None or config.reload:
                # The demo's page keeps a stream open, and so do many that are being developed. It would hold up Ctrl-C,
                # and new code, for the whole of the grace period.
                config = config.replace(graceful_timeout=min(config.graceful_timeout, 1.0))
            if config.reload:
                # A file that a developer has just changed is the one that is asked for.
                config = config.replace(static_cache_seconds=0)
            if not self._assignment:
                logger.info("Starting server at %s", ", ".join(endpoints))
            self.server = server = self._make_server(application, endpoints, access_log, options, config)
            self._run_server(server, config, access_log)
        finally:
            if access_log is not None:
                access_log.close()
        exit_code = getattr(server, "exit_code", None)
        if exit_code is None:
            return 1 if getattr(server, "abort_start", False) else 0
        return int(exit_code)

    # A server of another kind has nothing but Daphne's interface.
    def _run_server(self, server: Any, config: Config, access_log: Any) -> None:
        if not is_ours(type(server)):
            if self._assignment:
                raise ConfigurationError(f"--workers: {type(server).__name__} cannot serve on sockets that are shared")
            server.run()
            return
        from daphne_ng.serving.process import ExitWatchdog, ForkGuard, take_interrupt

        take_interrupt(from_program=True)  # what the application has set
        ForkGuard(lambda: server.listeners).install()
        watchdog = ExitWatchdog()
        server.hooks = dataclasses.replace(server.hooks, manages_processes=True, exit_watchdog=watchdog)
        if self._assignment:
            from daphne_ng.supervisor.worker import run_worker

            run_worker(server, config, self._inherited)
        else:
            ServiceReport(server, self._notifier)
            server.run()
        watchdog.exit_code = server.exit_code
        watchdog.arm_at_exit(_EXIT_SECONDS)

    def load_asgi_app(self, asgi_app_path: str) -> Any:
        """Return the application at ``module:attribute``, or its factory; `run` checks it and wraps an ASGI 2 one.

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
        version = f"{PROGRAM} {daphne_ng.__version__} ({BUILD})"
        self.parser.add_argument("--version", action="version", version=version)

        add = self._group("Configuration").add_argument
        add(
            "--config",
            dest="config_file",
            default=None,
            metavar="FILE",
            help="file of settings in TOML, or a pyproject.toml with [tool.daphne-ng]; flags win over variables "
            "DAPHNE_NG_*, these over the file (default: DAPHNE_NG_CONFIG, or pyproject.toml in the current directory)",
        )
        add("--check-config", action="store_true", help="say what is wrong with the settings, and exit")
        add("--print-config", action="store_true", help="print all settings as TOML, with their origins, and exit")
        add(
            "--print-completion",
            choices=SHELLS,
            default=None,
            help="print the script that completes options in this shell, and exit (needs daphne-ng[completion])",
        )

        add = self._group("Application").add_argument
        add(
            "application",
            nargs="?",
            default=None,
            metavar="module:application",
            help="the ASGI application, as package.module:name or path/to/file.py:name; without it, a built-in demo",
        )
        add(
            "--factory",
            action="store_true",
            help="the name stands for a function that makes the application; it is called without arguments",
        )
        add(
            "--app-dir",
            dest="app_dirs",
            action="append",
            default=[],
            metavar="DIR",
            help="directory to import the application from; may be repeated (default: the current one)",
        )
        add(
            "--env-file",
            default=None,
            metavar="FILE",
            help="file of environment variables to read before the application is imported; those that are set already "
            "stay (needs daphne-ng[env])",
        )

        add = self._group("Listening (options add up)").add_argument
        self.arg_port = add(
            "-p",
            "--port",
            type=int,
            default=None,
            metavar="N",
            help=f"TCP port to listen on, for every --bind (default: {DEFAULT_PORT} unless another address is given)",
        )
        add(
            "-b",
            "--bind",
            dest="host",
            action=_EveryOne,
            every="hosts",
            metavar="HOST[:PORT]",
            help="address to listen on, IPv6 with or without brackets, with them before a port; may be repeated "
            f"(default: {DEFAULT_HOST})",
        )
        add(
            "-u",
            "--unix-socket",
            dest="unix_socket",
            action=_EveryOne,
            every="unix_sockets",
            metavar="PATH",
            help="UNIX socket to create; may be repeated",
        )
        add(
            "--fd",
            type=int,
            dest="file_descriptor",
            action=_EveryOne,
            every="file_descriptors",
            metavar="N",
            help="inherited listening socket, by the number of its descriptor; may be repeated",
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
            help=escaped(f"format of the log, as Python's logging takes it (default: {DEFAULT_FORMAT})"),
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
            help="take the client's address, port and scheme from the X-Forwarded-For, -Port and -Proto headers of the "
            "proxies named by --forwarded-allow-ips",
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
        for name, setting in settings():
            if setting.flags:
                # argparse makes the --no- spelling of a switch itself.
                flags = setting.flags[:1] if setting.kind == "switch" else setting.flags
                self._group(setting.group).add_argument(*flags, dest=name, **option(setting))
        add_ruled_flags(self.parser)

    # -- from the options to the server ------------------------------------------------------------------------

    def _config(self, options: Namespace) -> Config:
        values = {name: getattr(options, name) for name, setting in settings() if setting.flags}
        values["headers"] = tuple(values["headers"])
        for name, known in settings():
            if known.kind == "texts":
                given = values.pop(name)
                if given:
                    values[name] = (*_ADDED_TO.get(name, ()), *given)
        values["root_path"] = _decoded_root_path(options.root_path)
        self._check_proxy_options(options)
        # Daphne gives both timeouts the same value.
        values["websocket_handshake_timeout"] = options.websocket_connect_timeout
        values["proxy_address_header"] = self._get_forwarded_host(options)
        values["proxy_port_header"] = self._get_forwarded_port(options)
        values["proxy_proto_header"] = "X-Forwarded-Proto" if options.proxy_headers else None
        values |= {name: getattr(options, name) for name, one in settings() if not one.flags and hasattr(options, name)}
        for directory in options.app_dirs:
            if not os.path.isdir(directory):
                raise ConfigurationError(f"--app-dir: {directory!r} is not a directory")
        if options.reload and not options.reload_dirs:
            # Code that is imported from elsewhere is being worked on too.
            elsewhere = directory_of_file(options.application or "")
            found = [elsewhere] if elsewhere and os.path.isdir(elsewhere) else []
            values["reload_dirs"] = (".", *options.app_dirs, *found)
        return Config(**values)

    # The next three have Daphne's names, because subclasses of projects override and call them.
    def _check_proxy_headers_passed(self, argument: argparse.Action, args: Namespace) -> None:
        if not args.proxy_headers:
            raise ArgumentError(argument, _NEEDS_PROXY_HEADERS)

    def _get_forwarded_host(self, args: Namespace) -> str | None:
        if args.proxy_headers_host:
            self._check_proxy_headers_passed(argument=self.arg_proxy_host, args=args)
            return str(args.proxy_headers_host)
        return "X-Forwarded-For" if args.proxy_headers else None

    def _get_forwarded_port(self, args: Namespace) -> str | None:
        if args.proxy_headers_port:
            self._check_proxy_headers_passed(argument=self.arg_proxy_port, args=args)
            return str(args.proxy_headers_port)
        return "X-Forwarded-Port" if args.proxy_headers else None

    # The options that narrow --proxy-headers down say the same without it as Daphne's two.
    def _check_proxy_options(self, options: Namespace) -> None:
        for action in self._groups["Proxies"]._group_actions:
            needs = action.dest in _NEED_PROXY_HEADERS and getattr(options, action.dest)
            if needs and not options.proxy_headers:
                raise ArgumentError(action, _NEEDS_PROXY_HEADERS)
        for action in (self.arg_proxy_host, self.arg_proxy_port):
            if options.proxy_forwarded and options.proxy_headers and getattr(options, action.dest):
                raise ArgumentError(action, "not with --proxy-headers-forwarded, which reads Forwarded alone.")

    def _endpoints(self, options: Namespace, config: Config) -> list[str]:
        hosts, unix_sockets, file_descriptors = (
            _every(options, *names)
            for names in (("host", "hosts"), ("unix_socket", "unix_sockets"), ("file_descriptor", "file_descriptors"))
        )
        if not hosts and (options.port is not None or not (unix_sockets or file_descriptors or options.socket_strings)):
            hosts = [DEFAULT_HOST]
        addresses = [split_bind(host) for host in hosts]
        if options.port is not None and all(own is not None for _, own in addresses):
            raise ArgumentError(self.arg_port, "every --bind names a port of its own")
        port = DEFAULT_PORT if options.port is None else options.port
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"--port must be between 0 and 65535, not {port}")
        strings = list(options.socket_strings)
        for host, own in addresses:
            strings += _secured(
                options, build_endpoint_description_strings(host=host, port=port if own is None else own)
            )
        strings += [unix_string(path, config.unix_socket_mode, config.unix_socket_owner) for path in unix_sockets]
        for number in file_descriptors:
            strings += _secured(options, build_endpoint_description_strings(file_descriptor=number))
        return sorted(strings)

    def _access_log(self, options: Namespace) -> AccessLogGenerator | LoggingAccessLog | None:
        if options.access_log_logger:
            access = LoggingAccessLog()
            # The log is asked for by name, and so not dropped for the root's level; a level set elsewhere stands.
            if access.logger.level == logging.NOTSET:
                access.logger.setLevel(logging.INFO)
            return access
        if options.access_log:
            return AccessLogGenerator(open_access_log(options.access_log))
        if options.verbosity >= 1 and sys.stdout is not None:
            return AccessLogGenerator(open_access_log("-"))
        return None

    def _application(self, options: Namespace, config: Config) -> Any:
        if options.env_file:
            read_environment(options.env_file)
        search_directories(options.app_dirs)
        path = options.application
        if path is None and options.factory:
            raise ConfigurationError("--factory: no application is given")
        if path is None:
            logger.info("No application given: serving the built-in demo, %s", DEMO)
            path = DEMO
        if is_ours(self.server_class):
            from daphne_ng.serving.running import install_reactor

            # The application, or a library of its, may import twisted.internet.reactor, which would install another.
            install_reactor(config)
        application = self.load_asgi_app(path)
        if options.factory:
            application = call_factory(application, path)
        if is_ours(self.server_class):
            return check_application(application, path)
        # A foreign server decides itself what it can serve: Daphne's own tests hand theirs a string.
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
        if takes_config(self.server_class):
            keywords["config"] = config
        return self.server_class(**keywords)


# -- options that may be repeated --------------------------------------------------------------------------------


class _EveryOne(argparse.Action):
    """Keeps the last value where Daphne has it, a plain one, and all of them beside it as a list."""

    def __init__(self, *args: Any, every: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.every = every

    def __call__(self, parser: Any, namespace: Namespace, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values)
        setattr(namespace, self.every, [*getattr(namespace, self.every, []), values])


# A subclass may have set a default for the option of Daphne's name.
def _every(options: Namespace, one: str, every: str) -> list[Any]:
    last = getattr(options, one)
    return getattr(options, every, None) or ([] if last is None or last == "" else [last])


# A certificate makes all but UNIX sockets, which are for proxies, listen with TLS.
def _secured(options: Namespace, strings: list[str]) -> list[str]:
    if not options.ssl_certfile and not options.ssl_cert_dir:
        return strings
    return [f"tls:{string}" for string in strings]


# A URL path on the command line; plain text in the scope.
def _decoded_root_path(text: str) -> str:
    try:
        return unquote_to_bytes(os.fsencode(text)).decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"--root-path: {text!a} is not UTF-8 once it is percent-decoded") from None

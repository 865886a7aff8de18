"""``manage.py runserver``: Django's development server, served by daphne-ng.

Django's own command stays underneath, with all its options; ``--noasgi`` is that command as it is. The server's
modules are imported when it is about to serve. This one may be imported before Django is set up, by the settings too:
nothing here asks for an app or a setting before the command runs.

Override points, as in Daphne: `Command.server_cls`, `Command.protocol`, ``default_port``, `Command.get_application` and
`Command.log_action`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.management.commands.runserver import Command as DjangoCommand
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError
from django.core.servers.basehttp import WSGIServer
from django.db import connections

import daphne_ng
from daphne_ng.access import CLIENT_LEFT
from daphne_ng.config import Config
from daphne_ng.endpoints import build_endpoint_description_strings
from daphne_ng.errors import ConfigurationError, ReactorError
from daphne_ng.net.sockets.loops import check_loop
from daphne_ng.server_class import ServerClass, is_ours, takes_config

__all__ = ["Command", "get_default_application"]

logger = logging.getLogger("django.channels.server")

_MIB = 1024 * 1024

# How long Ctrl-C and the autoreloader wait, in seconds. Whoever presses Ctrl-C is watching. Until then the limits are
# those of any server: a client may take its time, and so may an application whose client has left.
_END: dict[str, Any] = {
    "graceful_timeout": 0.0,
    "shutdown_application_timeout": 0.3,
    "shutdown_close_timeout": 0.2,
    "lifespan_shutdown_timeout": 1.0,
}
_END_SECONDS = 2.5
_EXIT_SECONDS = 0.3

# With the autoreloader there are two processes. The outer one gives the inner one this long to end, in seconds, before
# it is killed.
_KILL_SECONDS = 6.0
# Django's handler of SIGTERM raises SystemExit, which is lost where exceptions are ignored, such as in a weak
# reference's callback. The inner process ignores the signal once it has come to its end.
_AGAIN_SECONDS = 2.0
# A terminal sends Ctrl-C to both. Whoever sends SIGINT to the outer one alone gets it passed on after this time.
_PASS_ON_SECONDS = 0.4
# With this code the inner process asks to be started again: django.utils.autoreload.
_RELOAD = 3

_LISTEN_ERRORS = {
    errno.EACCES: "You don't have permission to access that port.",
    errno.EADDRINUSE: "That port is already in use.",
    errno.EADDRNOTAVAIL: "That IP address can't be assigned to.",
}

# Options that are settings of the server, as its own command line has them.
_SETTINGS = (
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_keyfile_password",
    "ssl_cert_dir",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "forwarded_allow_ips",
    "loop",
    "stock_reactor",
)


def get_default_application() -> Any:
    """Return the application that the setting ``ASGI_APPLICATION`` names.

    Raises:
        ImproperlyConfigured: There is none, or it cannot be imported.
    """
    path = getattr(settings, "ASGI_APPLICATION", None)
    module_name, dot, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if ":" in str(path):
        raise ImproperlyConfigured(
            f"ASGI_APPLICATION needs a dot in place of the colon: {str(path).replace(':', '.')!r}, not {path!r}"
        )
    if not dot:
        raise ImproperlyConfigured("Cannot find ASGI_APPLICATION setting.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ImproperlyConfigured(f"Cannot import ASGI_APPLICATION module {module_name!r}: {error}") from error
    try:
        return getattr(module, name)
    except AttributeError:
        raise ImproperlyConfigured(f"Cannot find {name!r} in ASGI_APPLICATION module {module_name}") from None


class _Server(ServerClass):
    # A project's own inner_run() makes the server with the keywords of Daphne's. Its end is to be as quick as ours.
    def __get__(self, command: object, owner: object = None) -> Any:
        server_class = super().__get__(command, owner)
        return server_class if command is None else functools.partial(server_class, config=Config(**_END))


class Command(DjangoCommand):
    """Serves the project's ASGI application for development.

    It derives from the command of ``django.contrib.staticfiles``, and does as Django's own where that app is not
    installed: which of the two it is to be is known only when the command runs.
    """

    help = "Starts a lightweight ASGI web server for development, with WebSockets."
    protocol = "http"

    server_cls: Any = _Server()
    """What serves: `daphne_ng.server.Server`, or anything that takes the keywords of Daphne's."""

    # Daphne's: handle() sets them, for an inner_run() that a project has written after Daphne's.
    http_timeout: Any = None
    websocket_handshake_timeout: Any = 5
    websocket_max_message_size: Any = _MIB
    websocket_max_frame_size: Any = _MIB

    _server: Any = None
    _ended: threading.Event | None = None

    def add_arguments(self, parser: Any) -> None:
        """Django's options and ours."""
        if _static_files():
            super().add_arguments(parser)
        else:
            super(DjangoCommand, self).add_arguments(parser)
        parser.add_argument(
            "--noasgi",
            action="store_false",
            dest="use_asgi",
            default=True,
            help="Run Django's own WSGI server.",
        )
        parser.add_argument(
            "--http_timeout",
            "--http-timeout",
            dest="http_timeout",
            type=int,
            default=None,
            help="Seconds for a response, after which it is 503 (default: no limit).",
        )
        parser.add_argument(
            "--websocket_handshake_timeout",
            "--websocket-handshake-timeout",
            dest="websocket_handshake_timeout",
            type=int,
            default=5,
            help="Seconds for the application to accept a WebSocket (default: 5).",
        )
        for what in ("message", "frame"):
            parser.add_argument(
                f"--websocket-max-{what}-size",
                type=int,
                default=None,
                help=f"Largest incoming WebSocket {what} in bytes, 0 for no limit "
                f"(default: settings.DAPHNE_WEBSOCKET_MAX_{what.upper()}_SIZE, or 1 MiB).",
            )
        parser.add_argument(
            "--proxy-headers",
            action="store_true",
            help="Take the client's address and scheme from the X-Forwarded-* headers of a development proxy.",
        )
        for what in ("host", "port"):
            parser.add_argument(
                f"--proxy-headers-{what}", default=None, help=f"Header to take the {what} from; needs --proxy-headers."
            )
        parser.add_argument(
            "--forwarded-allow-ips", default=None, help="Proxies to believe (default: loopback and UNIX sockets)."
        )
        parser.add_argument("--ssl-certfile", default=None, help="PEM file with the certificate: serve https.")
        parser.add_argument("--ssl-keyfile", default=None, help="PEM file with its private key.")
        parser.add_argument(
            "--ssl-keyfile-password-file",
            dest="ssl_keyfile_password",
            default=None,
            help="File with the password of the private key.",
        )
        parser.add_argument("--ssl-cert-dir", default=None, help="Directory of NAME.pem files: serve https.")
        parser.add_argument(
            "--ssl-ca-certs", default=None, help="PEM file with the authorities for client certificates."
        )
        parser.add_argument(
            "--ssl-cert-reqs",
            choices=("none", "optional", "required", "report"),
            default=None,
            help="Whether to ask for client certificates (default: none).",
        )

        parser.add_argument(
            "--loop",
            choices=("auto", "uvloop", "asyncio"),
            default=None,
            help="Event loop: uvloop's, asyncio's own, or auto for uvloop's where it is installed (default: auto).",
        )
        parser.add_argument(
            "--stock-reactor",
            action="store_true",
            default=None,
            help="Have Twisted's own AsyncioSelectorReactor as the global reactor, for code that compares its class.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Check the options, then go on as Django does."""
        self._take(options)
        if options["use_asgi"]:
            if not getattr(settings, "ASGI_APPLICATION", None):
                raise CommandError("You have not set ASGI_APPLICATION, which is needed to run the server.")
            if (options.get("proxy_headers_host") or options.get("proxy_headers_port")) and not options[
                "proxy_headers"
            ]:
                raise CommandError(
                    "--proxy-headers has to be passed for --proxy-headers-host and --proxy-headers-port."
                )
            if options.get("ssl_certfile") or options.get("ssl_cert_dir"):
                self.protocol = "https"
            self._config(options)  # so that a mistake is told before the autoreloader begins
        super().handle(*args, **options)

    def run(self, **options: Any) -> None:
        """Run, under the autoreloader if that is wanted, and see that the process ends when it is told to."""
        from django.utils import autoreload

        if (
            options["use_reloader"]
            and options.get("use_asgi", True)
            and os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true"
        ):
            sys.exit(_run_again_and_again(autoreload.get_child_arguments(), autoreload.DJANGO_AUTORELOAD_ENV))
        code: Any = 0
        try:
            super().run(**options)
        except SystemExit as stop:
            code = stop.code
            raise
        finally:
            self._end(code)

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Check the project and serve it. With the autoreloader this runs in a thread."""
        if not options.get("use_asgi", True):
            self.server_cls = getattr(DjangoCommand, "server_cls", WSGIServer)
            self.protocol = DjangoCommand.protocol
            super().inner_run(*args, **options)
            return
        from django.utils import autoreload

        autoreload.raise_last_exception()
        try:
            self._serve_checked(options)
        except ReactorError as error:
            # With the autoreloader this is a thread; without it, whoever called may want to go on.
            if not options["use_reloader"]:
                raise CommandError(str(error)) from error
            self.stderr.write(f"Error: {error}")
            _exit(1)
        if message := options.get("shutdown_message", ""):
            self.stdout.write(message)

    def _serve_checked(self, options: dict[str, Any]) -> None:
        if is_ours(self.server_cls):
            from daphne_ng.serving.running import install_reactor

            # The checks import the URLs, and with them most of the project.
            install_reactor(self._config(options))
        if not options.get("skip_checks"):
            self.stdout.write("Performing system checks...\n\n")
            self.check(display_num_errors=True)
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()
        try:
            self._serve(options)
        except KeyboardInterrupt:
            pass
        finally:
            if self._ended is not None:
                self._ended.set()

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """Return the WSGI application of ``--noasgi``, behind one that serves static files where Django would."""
        if _static_files():
            return super().get_handler(*args, **options)
        return super(DjangoCommand, self).get_handler(*args, **options)

    def get_application(self, options: dict[str, Any]) -> Any:
        """Return the application: the project's, behind one that serves static files where Django would."""
        application = get_default_application()
        wanted = options.get("use_static_handler", _static_files())
        if wanted and (settings.DEBUG or options.get("insecure_serving", False)):
            from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

            return ASGIStaticFilesHandler(application)
        return application

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Log one request, with colour where Django has it.

        The message is whole, and the record has no ``args``: whatever a handler does to format it, it can.
        """
        if protocol == "http" and action == "complete":
            message = "HTTP {method} {path} {status} [{time_taken:.2f}, {client}]".format_map(details)
            level, colour = self._level_and_colour(details["status"])
            logger.log(level, colour(message), extra={"status_code": details["status"]})
        elif protocol == "websocket" and action in _WEBSOCKET_ACTIONS:
            logger.info("WebSocket {} {path} [{client}]".format(_WEBSOCKET_ACTIONS[action], **details))

    # -- parts -----------------------------------------------------------------------------------------------

    def _level_and_colour(self, status: int) -> tuple[int, Any]:
        style = self.style
        if status == CLIENT_LEFT:
            return logging.INFO, style.HTTP_INFO  # a page that was reloaded, which is nobody's mistake
        if 200 <= status < 300:
            return logging.INFO, style.HTTP_SUCCESS
        if 100 <= status < 200:
            return logging.INFO, style.HTTP_INFO
        if status == 304:
            return logging.INFO, style.HTTP_NOT_MODIFIED
        if 300 <= status < 400:
            return logging.INFO, style.HTTP_REDIRECT
        if status == 404:
            return logging.WARNING, style.HTTP_NOT_FOUND
        if 400 <= status < 500:
            return logging.WARNING, style.HTTP_BAD_REQUEST
        return logging.ERROR, style.HTTP_SERVER_ERROR

    def _take(self, options: dict[str, Any]) -> None:
        self.http_timeout = options.get("http_timeout")
        self.websocket_handshake_timeout = options.get("websocket_handshake_timeout", 5)
        for what in ("message", "frame"):
            size = options.get(f"websocket_max_{what}_size")
            if size is None:
                size = getattr(settings, f"DAPHNE_WEBSOCKET_MAX_{what.upper()}_SIZE", _MIB)
            setattr(self, f"websocket_max_{what}_size", size)

    def _config(self, options: dict[str, Any]) -> Config:
        changes = {name: options[name] for name in _SETTINGS if options.get(name) is not None}
        changes |= _END
        if options.get("proxy_headers"):
            changes["proxy_address_header"] = options["proxy_headers_host"] or "X-Forwarded-For"
            changes["proxy_port_header"] = options["proxy_headers_port"] or "X-Forwarded-Port"
            changes["proxy_proto_header"] = "X-Forwarded-Proto"
        try:
            config = Config(
                http_timeout=self.http_timeout,
                websocket_handshake_timeout=self.websocket_handshake_timeout,
                websocket_max_message_size=self.websocket_max_message_size,
                websocket_max_frame_size=self.websocket_max_frame_size,
                root_path=getattr(settings, "FORCE_SCRIPT_NAME", "") or "",
                **changes,
            )
            check_loop(config.loop)
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        return config

    def _serve(self, options: dict[str, Any]) -> None:
        config = self._config(options)
        host = "0.0.0.0" if self.addr == "0" else self.addr
        (endpoint,) = build_endpoint_description_strings(host=host, port=self.port)
        keywords: dict[str, Any] = {
            "application": self.get_application(options),
            "endpoints": [f"tls:{endpoint}" if config.ssl_certfile or config.ssl_cert_dir else endpoint],
            "signal_handlers": threading.current_thread() is threading.main_thread(),  # not with the autoreloader
            "action_logger": self.log_action,
            "http_timeout": config.http_timeout,
            "root_path": config.root_path,
            "websocket_handshake_timeout": config.websocket_handshake_timeout,
            "websocket_max_message_size": config.websocket_max_message_size,
            "websocket_max_frame_size": config.websocket_max_frame_size,
            "proxy_forwarded_address_header": config.proxy_address_header,
            "proxy_forwarded_port_header": config.proxy_port_header,
            "proxy_forwarded_proto_header": config.proxy_proto_header,
            "ready_callable": lambda: self._banner(server),
        }
        server_class = self.server_cls
        if takes_config(server_class):
            keywords["config"] = config
        server: Any = server_class(**keywords)
        failures: list[BaseException] = []
        if is_ours(type(server)):
            server.hooks = dataclasses.replace(server.hooks, listen_failed=failures.append)
        self._ended = threading.Event()
        self._server = server
        server.run()
        if failures or getattr(server, "abort_start", False):
            self._give_up(failures[0] if failures else None, server, options)

    # As Django's own: the port is known, and nothing was promised before it listens.
    def _banner(self, server: Any) -> None:
        addresses = getattr(server, "listening_addresses", None)
        port = addresses[0][1] if addresses else self.port
        address = f"[{self.addr}]" if self._raw_ipv6 else "0.0.0.0" if self.addr == "0" else self.addr
        now = datetime.now().strftime("%B %d, %Y - %X")
        quit_command = "CTRL-BREAK" if sys.platform == "win32" else "CONTROL-C"
        self.stdout.write(
            f"{now}\n"
            f"Django version {self.get_version()}, using settings {settings.SETTINGS_MODULE!r}\n"
            f"Starting ASGI/daphne-ng version {daphne_ng.__version__} development server at "
            f"{self.protocol}://{address}:{port}/\n"
            f"Quit the server with {quit_command}.\n"
        )

    def _give_up(self, failure: BaseException | None, server: Any, options: dict[str, Any]) -> None:
        if failure is not None:
            cause = getattr(failure, "socketError", failure)
            number = getattr(cause, "errno", None)
            self.stderr.write(f"Error: {_LISTEN_ERRORS.get(number or 0, cause)}")
        code = 1 if getattr(server, "exit_code", 1) else 0
        if code and failure is None and options["use_reloader"]:
            return  # the application's startup failed, which is logged: the next change starts it again
        # sys.exit() ends a thread only, and with the autoreloader this is one.
        _exit(code)

    # The main thread is about to leave: with the autoreloader, the server runs in another one, which would be cut off
    # in the middle.
    def _end(self, code: Any) -> None:
        server, ended = self._server, self._ended
        if server is None or ended is None:
            return
        last = self._called_from_command_line  # otherwise the process goes on, as whoever made the call wants it
        if last:
            # The first signal has done its work. One more Ctrl-C ends the wait.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, lambda number, frame: ended.set())
        server.stop()
        ended.wait(_END_SECONDS)
        if not last:
            return
        number = code if isinstance(code, int) else 1 if code else 0
        watchdog = threading.Timer(_EXIT_SECONDS, _exit_if_held, [number])
        watchdog.daemon = True
        watchdog.start()


# With staticfiles there are --nostatic and --insecure, and static files under --noasgi too.
def _static_files() -> bool:
    return bool(apps.is_installed("django.contrib.staticfiles"))


# Whatever holds the interpreter at its end, such as a view that never returns in its thread, does so no longer.
def _exit_if_held(code: int) -> None:
    # The main thread counts as alive while it waits for those of executors. Once it does not, atexit handlers run,
    # which may take their time.
    if any(thread.is_alive() and not thread.daemon for thread in threading.enumerate()):
        _exit(code)


def _exit(code: int) -> None:
    with contextlib.suppress(Exception):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


# What django.utils.autoreload.restart_with_reloader() does, except that the inner process may come to its end: Django
# kills it, and with it the applications and their lifespan.
def _run_again_and_again(command: list[str], variable: str) -> int:
    environment = {**os.environ, variable: "true"}
    inner: subprocess.Popen[bytes] | None = None
    told = threading.Event()

    def end(number: int, frame: object) -> None:
        if told.is_set():
            return
        told.set()
        pass_on = 0.0 if number == signal.SIGTERM else _PASS_ON_SECONDS
        for seconds, action in ((pass_on, "terminate"), (_AGAIN_SECONDS, "terminate"), (_KILL_SECONDS, "kill")):
            timer = threading.Timer(seconds, lambda action: inner is not None and getattr(inner, action)(), [action])
            timer.daemon = True
            timer.start()

    for number in (signal.SIGINT, signal.SIGTERM):
        # Also where they were ignored until now, as SIGINT is for a job of a script in the background.
        signal.signal(number, end)
    while not told.is_set():
        inner = subprocess.Popen(command, env=environment, close_fds=False)  # noqa: S603 (this command again)
        if told.is_set():
            inner.terminate()
        code = inner.wait()
        if code != _RELOAD:
            return 0 if told.is_set() else code
    return 0


_WEBSOCKET_ACTIONS = {
    "connecting": "HANDSHAKING",
    "connected": "CONNECT",
    "disconnected": "DISCONNECT",
    "rejected": "REJECT",
}

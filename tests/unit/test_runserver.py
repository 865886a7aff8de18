"""`daphne_ng.management.commands.runserver`: what it makes of its options, and hands on."""

from __future__ import annotations

import inspect
import logging
import signal
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("django")

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command, load_command_class
from django.test.utils import override_settings

from daphne_ng.access import CLIENT_LEFT
from daphne_ng.config import Config, settings
from daphne_ng.server import Server
from tests.support.django import set_up

set_up()

ENDS = {"graceful_timeout", "shutdown_application_timeout", "shutdown_close_timeout", "lifespan_shutdown_timeout"}

from daphne_ng.management.commands import runserver
from daphne_ng.management.commands.runserver import Command, get_default_application


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Never called."""


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("runserver_project")
    module.application = application  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "runserver_project", module)


class DaphneServer:
    """Has the signature of Daphne's, to the letter, and serves nothing."""

    given: dict[str, Any]

    def __init__(
        self,
        application: Any,
        endpoints: Any = None,
        signal_handlers: bool = True,
        action_logger: Any = None,
        http_timeout: Any = None,
        request_buffer_size: int = 8192,
        websocket_timeout: int = 86400,
        websocket_connect_timeout: int = 20,
        ping_interval: int = 20,
        ping_timeout: int = 30,
        root_path: str = "",
        proxy_forwarded_address_header: Any = None,
        proxy_forwarded_port_header: Any = None,
        proxy_forwarded_proto_header: Any = None,
        verbosity: int = 1,
        websocket_handshake_timeout: int = 5,
        websocket_max_message_size: int = 1024 * 1024,
        websocket_max_frame_size: int = 1024 * 1024,
        application_close_timeout: int = 10,
        ready_callable: Any = None,
        server_name: str = "daphne",
    ) -> None:
        type(self).given = {name: value for name, value in locals().items() if name != "self"}
        self.listening_addresses = [("127.0.0.1", 4321)]

    def run(self) -> None:
        """Be ready at once."""
        self.given["ready_callable"]()

    def stop(self) -> None:
        """There is nothing to stop."""


class Quiet(Command):
    """Looks at no database."""

    server_cls = DaphneServer

    def check_migrations(self) -> None:
        """There are none."""


@pytest.fixture
def serve(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[dict[str, Any], str]]:
    def run(*arguments: str, **settings: Any) -> tuple[dict[str, Any], str]:
        """Return what the server was given, and the output."""
        command = Quiet()
        parser = command.create_parser("manage.py", "runserver")
        options = vars(parser.parse_args(["--skip-checks", *arguments]))
        options.pop("args", None)
        with override_settings(ASGI_APPLICATION="runserver_project.application", SETTINGS_MODULE="x", **settings):
            address = options.pop("addrport")
            command._raw_ipv6, command.addr, command.port = False, address or "127.0.0.1", "0"
            command._take(options)
            command.inner_run(None, **options)
        return DaphneServer.given, capsys.readouterr().out

    return run


Serve = Callable[..., tuple[dict[str, Any], str]]


def test_the_command_is_found_and_serves_with_our_server() -> None:
    command = load_command_class("daphne_ng", "runserver")
    assert isinstance(command, Command)
    assert Command.server_cls is Server
    assert (Command.protocol, Command.default_port) == ("http", "8000")


def test_a_server_class_with_daphnes_signature_gets_what_daphne_would_give_it(serve: Serve) -> None:
    given, output = serve(
        "--http_timeout",
        "9",
        "--websocket_handshake_timeout",
        "4",
        "--proxy-headers",
        FORCE_SCRIPT_NAME="/sub",
        DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE=7,
        DAPHNE_WEBSOCKET_MAX_FRAME_SIZE=0,
    )
    assert given["endpoints"] == ["tcp:port=0:interface=127.0.0.1"]
    assert (given["http_timeout"], given["websocket_handshake_timeout"]) == (9, 4)
    assert given["root_path"] == "/sub"
    assert (given["websocket_max_message_size"], given["websocket_max_frame_size"]) == (7, 0)
    assert given["proxy_forwarded_address_header"] == "X-Forwarded-For"
    assert given["proxy_forwarded_port_header"] == "X-Forwarded-Port"
    assert given["proxy_forwarded_proto_header"] == "X-Forwarded-Proto"
    assert given["action_logger"].__func__ is Command.log_action
    assert "development server at http://127.0.0.1:4321/\n" in output


def test_without_options_the_defaults_are_daphnes(serve: Serve) -> None:
    given, _ = serve("--noreload")
    assert given["signal_handlers"] is True
    assert (given["http_timeout"], given["websocket_handshake_timeout"], given["root_path"]) == (None, 5, "")
    assert given["websocket_max_message_size"] == given["websocket_max_frame_size"] == 1024 * 1024
    assert given["proxy_forwarded_address_header"] is None
    assert given["application"] is application  # DEBUG is off


def test_in_a_thread_as_with_the_autoreloader_no_signals_are_handled(serve: Serve) -> None:
    thread = threading.Thread(target=serve, args=["--noreload"])
    thread.start()
    thread.join()
    assert DaphneServer.given["signal_handlers"] is False


def test_a_program_that_calls_the_command_goes_on_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), threading.active_count()
    with override_settings(ASGI_APPLICATION="runserver_project.application", SETTINGS_MODULE="x", ALLOWED_HOSTS=["*"]):
        call_command(Quiet(), "127.0.0.1:0", use_reloader=False, skip_checks=True)
    assert DaphneServer.given["endpoints"] == ["tcp:port=0:interface=127.0.0.1"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), threading.active_count()) == before


def test_the_limits_are_those_of_any_server_but_for_its_end() -> None:
    config, usual = Command()._config({}), Config()
    changed = {name for name, _ in settings() if getattr(config, name) != getattr(usual, name)}
    assert changed == ENDS
    made = inspect.signature(Quiet.__mro__[1]().server_cls).parameters["config"].default  # a project's own inner_run()
    assert {name for name, _ in settings() if getattr(made, name) != getattr(usual, name)} == ENDS


def test_a_server_that_is_made_by_the_command_is_ours_and_takes_what_it_is_given() -> None:
    server = Command().server_cls(application, ["tcp:0"], http_timeout=3)
    assert type(server) is Server
    assert (server.config.http_timeout, server.config.graceful_timeout) == (3, 0)
    assert Command().server_cls(application, ["tcp:0"], config=Config()).config == Config()


def test_options_win_over_settings(serve: Serve) -> None:
    given, _ = serve("--websocket-max-message-size=8", DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE=7)
    assert given["websocket_max_message_size"] == 8


@pytest.mark.parametrize(
    ("options", "debug", "wrapped"),
    [([], True, True), ([], False, False), (["--insecure"], False, True), (["--nostatic", "--insecure"], True, False)],
)
def test_static_files_are_served_where_django_would(
    serve: Serve, options: list[str], debug: bool, wrapped: bool
) -> None:
    given, _ = serve(*options, DEBUG=debug)
    assert isinstance(given["application"], ASGIStaticFilesHandler) is wrapped


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "Cannot find ASGI_APPLICATION setting"),
        ("runserver_project:application", "needs a dot in place of the colon: 'runserver_project.application'"),
        ("nodots", "Cannot find ASGI_APPLICATION setting"),
        ("runserver_project.nothing", "Cannot find 'nothing' in ASGI_APPLICATION module runserver_project"),
        ("runserver_nowhere.application", "Cannot import ASGI_APPLICATION module 'runserver_nowhere': No module"),
    ],
)
def test_an_application_that_cannot_be_had_says_why(path: str | None, message: str) -> None:
    with override_settings(ASGI_APPLICATION=path), pytest.raises(ImproperlyConfigured, match=message):
        get_default_application()


@pytest.mark.parametrize(
    "wrong",
    [
        {"http_timeout": -1},
        {"websocket_max_frame_size": -5},
        {"proxy_headers": True, "proxy_headers_host": "X_Real_IP"},
    ],
    ids=str,
)
def test_a_wrong_option_is_an_error_of_the_command(wrong: dict[str, Any]) -> None:
    options = {"proxy_headers_host": None, "proxy_headers_port": None, **wrong}
    command = Command()
    command._take(options)
    with pytest.raises(CommandError):
        command._config(options)


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (101, "INFO"),
        (200, "INFO"),
        (204, "INFO"),
        (301, "INFO"),
        (304, "INFO"),
        (404, "WARNING"),
        (422, "WARNING"),
        (CLIENT_LEFT, "INFO"),
        (500, "ERROR"),
        (503, "ERROR"),
    ],
)
def test_a_request_is_logged_at_a_level_by_its_status(
    status: int, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    details = {"method": "GET", "path": "/%s%d{x}", "status": status, "time_taken": 1.237, "client": "[::1]:5"}
    command = Command(no_color=True)
    with caplog.at_level(logging.INFO, "django.channels.server"):
        command.log_action("http", "complete", details)
    (record,) = caplog.records
    assert record.getMessage() == record.msg == f"HTTP GET /%s%d{{x}} {status} [1.24, [::1]:5]"
    assert not record.args
    assert (record.levelname, record.status_code) == (level, status)  # type: ignore[attr-defined]


def test_every_class_of_status_has_the_colour_that_django_gives_it() -> None:
    command = Command(force_color=True)
    style = command.style
    colours = {
        101: style.HTTP_INFO,
        200: style.HTTP_SUCCESS,
        302: style.HTTP_REDIRECT,
        304: style.HTTP_NOT_MODIFIED,
        404: style.HTTP_NOT_FOUND,
        CLIENT_LEFT: style.HTTP_INFO,
        400: style.HTTP_BAD_REQUEST,
        500: style.HTTP_SERVER_ERROR,
    }
    assert {status: command._level_and_colour(status)[1] for status in colours} == colours


def test_what_is_no_request_and_no_websocket_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "django.channels.server"):
        Command().log_action("http", "begun", {})
        Command().log_action("websocket", "thinking", {})
    assert caplog.records == []


def test_a_listen_error_without_a_text_of_djangos_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(runserver.os, "_exit", codes.append)
    monkeypatch.setattr(runserver.logging, "shutdown", lambda: None)
    Command()._give_up(OSError(99999, "no such thing"), object(), {"use_reloader": True})
    assert codes == [1]
    assert "Error: [Errno 99999] no such thing" in capsys.readouterr().err

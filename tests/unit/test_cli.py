"""`daphne_ng.cli`: what the server is given for each option, and how every mistake is reported.

The server is a fake that keeps its keywords, so nothing here listens.
"""

import logging
import pathlib
import re
import subprocess
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import daphne_ng
from daphne_ng import hints
from daphne_ng.access import AccessLogGenerator, LineWriter, LoggingAccessLog
from daphne_ng.cli import CommandLineInterface
from daphne_ng.config import Config, settings
from daphne_ng.errors import ApplicationLoadError, ConfigurationError, EndpointError
from tests.support.build import BUILD

APPLICATION = "daphne_ng.demo:application"


class FakeServer:
    """Takes any keyword, and runs for no time."""

    abort_start = False

    def __init__(self, **keywords: Any) -> None:
        self.keywords = keywords
        self.ran = False

    def run(self) -> None:
        self.ran = True


class Interface(CommandLineInterface):
    server_class: Any = FakeServer


@pytest.fixture(autouse=True)
def untouched_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keeps the import path and the log levels as they were."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    # The finder for "." remembers the directory that was current when it was made.
    monkeypatch.delitem(sys.path_importer_cache, ".", raising=False)
    loggers = [logging.getLogger(), logging.getLogger("daphne_ng.access")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Returns a function that runs the entry point and returns its exit code and what it wrote to stderr."""

    def run(*args: str, interface: type[CommandLineInterface] = Interface) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["daphne-ng", *args])
        code: Any = 0
        try:
            interface.entrypoint()
        except SystemExit as exit:
            code = exit.code or 0
        return code, capsys.readouterr().err

    return run


def keywords_for(*args: str, application: str | None = APPLICATION) -> dict[str, Any]:
    interface = Interface()
    interface.run([*args, application] if application else list(args))
    assert interface.server.ran
    keywords: dict[str, Any] = interface.server.keywords
    return keywords


# -- where to listen -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "endpoints"),
    [
        ("", ["tcp:port=8000:interface=127.0.0.1"]),
        ("-p 123", ["tcp:port=123:interface=127.0.0.1"]),
        ("-p 0", ["tcp:port=0:interface=127.0.0.1"]),
        ("-b 10.0.0.1", ["tcp:port=8000:interface=10.0.0.1"]),
        ("-b 200a::1", [r"tcp:port=8000:interface=200a\:\:1"]),
        ("-b [200a::1]", [r"tcp:port=8000:interface=200a\:\:1"]),
        ("--port 8080 --bind example.com", ["tcp:port=8080:interface=example.com"]),
        ("-u /tmp/d.sock", ["unix:/tmp/d.sock"]),
        ("-p 8080 -u /tmp/d.sock", ["tcp:port=8080:interface=127.0.0.1", "unix:/tmp/d.sock"]),
        ("-b example.com --unix-socket /tmp/d.sock", ["tcp:port=8000:interface=example.com", "unix:/tmp/d.sock"]),
        ("-u /tmp/d.sock --fd 5", ["fd:fileno=5", "unix:/tmp/d.sock"]),
        ("--fd 0", ["fd:fileno=0"]),
        ("-e imap:", ["imap:"]),
        ("-e unix:/z -e tcp:1", ["tcp:1", "unix:/z"]),
        ("-p 8080 -e unix:/tmp/d.sock", ["tcp:port=8080:interface=127.0.0.1", "unix:/tmp/d.sock"]),
        (
            "-p 8080 -e tcp:port=8080:interface=127.0.0.1",
            ["tcp:port=8080:interface=127.0.0.1", "tcp:port=8080:interface=127.0.0.1"],
        ),
        (
            "-p 1 -u /s --fd 3 --endpoint ssl:443",
            ["fd:fileno=3", "ssl:443", "tcp:port=1:interface=127.0.0.1", "unix:/s"],
        ),
        (
            "-b 10.0.0.2 -b ::1 -p 1 -u /t -u /s --fd 4 --fd 3 -e ssl:443",
            ["fd:fileno=3", "fd:fileno=4", "ssl:443"]
            + ["tcp:port=1:interface=10.0.0.2", r"tcp:port=1:interface=\:\:1", "unix:/s", "unix:/t"],
        ),
        ("-b a:1 -b b", ["tcp:port=1:interface=a", "tcp:port=8000:interface=b"]),
        ("-b a:1 -b b -p 2", ["tcp:port=1:interface=a", "tcp:port=2:interface=b"]),
        ("-b [::1]:0", [r"tcp:port=0:interface=\:\:1"]),
        ("-u /s --unix-socket-mode 660 --unix-socket-owner a:b", [r"unix:/s:mode=660:owner=a\:b"]),
        ("-u /s --unix-socket-mode 0666", ["unix:/s"]),
    ],
)
def test_binding_options_add_up_in_sorted_order(args: str, endpoints: list[str]) -> None:
    assert keywords_for(*args.split())["endpoints"] == endpoints


def test_subclasses_find_the_last_one_where_daphne_has_the_only_one() -> None:
    options = Interface().parser.parse_args("-b a -b b -p 1 -u /s -u /t --fd 3 --fd 4 x".split())

    assert (options.host, options.unix_socket, options.file_descriptor) == ("b", "/t", 4)
    assert (options.hosts, options.unix_sockets, options.file_descriptors) == (["a", "b"], ["/s", "/t"], [3, 4])
    none = Interface().parser.parse_args(["x"])
    assert (none.host, none.unix_socket, none.file_descriptor) == (None, None, None)


def test_a_default_that_a_subclass_sets_is_where_the_server_listens() -> None:
    interface = Interface()
    interface.parser.set_defaults(host="0.0.0.0", file_descriptor=0)

    interface.run([APPLICATION])
    assert interface.server.keywords["endpoints"] == ["fd:fileno=0", "tcp:port=8000:interface=0.0.0.0"]
    interface.run(["-b", "::1", APPLICATION])
    assert interface.server.keywords["endpoints"] == ["fd:fileno=0", r"tcp:port=8000:interface=\:\:1"]


def test_a_port_that_goes_with_no_address_is_refused() -> None:
    with pytest.raises(ArgumentError, match="every --bind names a port of its own"):
        keywords_for("-b", "a:1", "-p", "2")


def test_one_line_says_where_the_server_starts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    keywords_for("-p", "1", "-u", "/s")

    assert "Starting server at tcp:port=1:interface=127.0.0.1, unix:/s" in caplog.messages


# -- what the server is given --------------------------------------------------------------------------------------


def test_the_defaults_are_daphnes() -> None:
    keywords = keywords_for()
    config = keywords.pop("config")
    log = keywords.pop("action_logger")
    application = keywords.pop("application")

    assert callable(application)
    assert isinstance(log, AccessLogGenerator)
    assert config == Config()
    assert keywords == {
        "endpoints": ["tcp:port=8000:interface=127.0.0.1"],
        "http_timeout": None,
        "ping_interval": 20,
        "ping_timeout": 30,
        "websocket_timeout": 86400,
        "websocket_connect_timeout": 5,
        "websocket_handshake_timeout": 5,
        "websocket_max_message_size": 1048576,
        "websocket_max_frame_size": 1048576,
        "application_close_timeout": 10,
        "root_path": "",
        "verbosity": 1,
        "proxy_forwarded_address_header": None,
        "proxy_forwarded_port_header": None,
        "proxy_forwarded_proto_header": None,
        "server_name": "daphne",
    }


@pytest.mark.parametrize(
    ("args", "keyword", "value"),
    [
        ("-t 30", "http_timeout", 30),
        ("--http-timeout 31", "http_timeout", 31),
        ("--ping-interval 0", "ping_interval", 0),
        ("--ping-timeout 1", "ping_timeout", 1),
        ("--websocket_timeout -1", "websocket_timeout", -1),
        ("--websocket-timeout 60", "websocket_timeout", 60),
        ("--websocket_connect_timeout 7", "websocket_connect_timeout", 7),
        ("--websocket_connect_timeout 7", "websocket_handshake_timeout", 7),
        ("--websocket-connect-timeout -1", "websocket_handshake_timeout", -1),
        ("--websocket-max-message-size 0", "websocket_max_message_size", 0),
        ("--websocket-max-frame-size 99", "websocket_max_frame_size", 99),
        ("--application-close-timeout 3", "application_close_timeout", 3),
        ("--root-path /mounted", "root_path", "/mounted"),
        ("-v 3", "verbosity", 3),
        ("-v 7", "verbosity", 7),
        ("--server-name python", "server_name", "python"),
        ("-s python", "server_name", "python"),
        ("--server-name=", "server_name", ""),
        ("--no-server-name", "server_name", ""),
        ("--proxy-headers", "proxy_forwarded_address_header", "X-Forwarded-For"),
        ("--proxy-headers", "proxy_forwarded_port_header", "X-Forwarded-Port"),
        ("--proxy-headers", "proxy_forwarded_proto_header", "X-Forwarded-Proto"),
        ("--proxy-headers --proxy-headers-host X-Real-IP", "proxy_forwarded_address_header", "X-Real-IP"),
        ("--proxy-headers --proxy-headers-port blah", "proxy_forwarded_port_header", "blah"),
    ],
)
def test_daphnes_options_arrive_under_daphnes_keywords(args: str, keyword: str, value: object) -> None:
    keywords = keywords_for(*args.split())

    assert keywords[keyword] == value
    assert type(keywords[keyword]) is type(value)


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        ("--head-timeout 2.5", "head_timeout", 2.5),
        ("--keep-alive-timeout 0", "keep_alive_timeout", 0),
        ("--limit-request-fields 7", "head_max_fields", 7),
        ("--lifespan off", "lifespan", "off"),
        ("--no-date-header", "date_header", False),
        ("--header X-A:1 --header x-b:c:d", "headers", ((b"X-A", b"1"), (b"x-b", b"c:d"))),
        ("--websocket_connect_timeout 7", "websocket_handshake_timeout", 7),
        ("--proxy-headers --proxy-headers-host X-Real-IP", "proxy_address_header", "X-Real-IP"),
        ("--proxy-headers", "proxy_port_header", "X-Forwarded-Port"),
        ("--proxy-headers", "proxy_proto_header", "X-Forwarded-Proto"),
        ("--proxy-headers --proxy-headers-forwarded", "proxy_forwarded", True),
        ("--proxy-headers --proxy-headers-replace-host", "proxy_host", True),
        ("--proxy-headers --proxy-headers-prefix", "proxy_prefix", True),
        ("--forwarded-allow-ips 10.0.0.0/8,unix", "forwarded_allow_ips", "10.0.0.0/8,unix"),
        ("--root-path-prepend", "root_path_prepend", True),
    ],
)
def test_every_other_setting_arrives_in_the_config(args: str, field: str, value: object) -> None:
    assert getattr(keywords_for(*args.split())["config"], field) == value


def test_a_headers_value_loses_the_space_around_it_only() -> None:
    assert keywords_for("--header", "X-A:  one two ")["config"].headers == ((b"X-A", b"one two"),)


def test_options_may_stand_before_and_after_the_application() -> None:
    interface = Interface()
    interface.run(["-p", "1", APPLICATION, "-t", "2"])

    assert interface.server.keywords["http_timeout"] == 2


def test_every_flag_of_a_setting_is_an_option() -> None:
    known = Interface().parser._option_string_actions

    for name, setting in settings():
        for flag in setting.flags:
            assert known[flag].dest == name


def test_help_shows_every_option_with_its_default_and_unit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        Interface().run(["--help"])

    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--keep-alive-timeout SECONDS" in text
    assert "(default: 75 seconds)" in text
    assert "--limit-request-line BYTES" in text
    assert "(default: %(asctime)-15s %(levelname)-8s %(message)s)" in text
    for _, setting in settings():
        assert all(flag in text for flag in setting.flags)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        Interface().run(["--version"])

    assert exit.value.code == 0
    assert capsys.readouterr().out == f"daphne-ng {daphne_ng.__version__} ({BUILD})\n"


# -- the application ---------------------------------------------------------------------------------------------


def test_without_an_application_the_demo_is_served_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    keywords = keywords_for(application=None)

    assert keywords["application"].__module__ == "daphne_ng.demo"
    assert caplog.messages[0] == "No application given: serving the built-in demo, daphne_ng.demo:application"


def test_the_current_directory_is_searched_first(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "only_in_this_directory.py").write_text("async def app(scope, receive, send): pass\n")
    keywords = keywords_for(application="only_in_this_directory:app")

    assert keywords["application"].__name__ == "app"
    assert sys.path[0] == "."
    keywords_for()
    assert sys.path[1] != "."


def test_directories_given_take_the_place_of_the_current_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "src" / "only_in_src.py").write_text("from only_in_lib import app\n")
    (tmp_path / "lib" / "only_in_lib.py").write_text("async def app(scope, receive, send): pass\n")
    before = sys.path[:]
    keywords = keywords_for("--app-dir", "src", "--app-dir", "lib", application="only_in_src")

    assert keywords["application"].__name__ == "app"
    assert sys.path == [str(tmp_path / "src"), str(tmp_path / "lib"), *before]


def test_a_file_may_be_served_and_a_factory_called(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "def create():\n    async def made(scope, receive, send): pass\n    return made\n"
    (tmp_path / "file_with_factory.py").write_text(source)

    assert keywords_for("--factory", application="./file_with_factory.py:create")["application"].__name__ == "made"


def test_variables_are_read_before_the_application_is_imported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOR_THE_APPLICATION", "")
    monkeypatch.delenv("FOR_THE_APPLICATION")
    (tmp_path / "dev.env").write_text("FOR_THE_APPLICATION=yes\n")
    (tmp_path / "reads_variables.py").write_text(
        "import os\nasync def app(scope, receive, send): pass\napp.read = os.environ['FOR_THE_APPLICATION']\n"
    )

    assert keywords_for("--env-file", "dev.env", application="reads_variables")["application"].read == "yes"


def test_a_factory_may_come_from_an_overridden_load_asgi_app() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    class Mine(Interface):
        def load_asgi_app(self, asgi_app_path: str) -> Any:
            return lambda: application

    interface = Mine()
    interface.run(["--factory", "anything"])

    assert interface.server.keywords["application"] is application


def test_reloading_watches_where_the_application_comes_from(tmp_path: pathlib.Path) -> None:
    (tmp_path / "main.py").touch()

    def watched(*args: str) -> tuple[str, ...]:
        interface = Interface()
        return interface._config(interface.parser.parse_args(args)).reload_dirs

    assert watched("--reload", "a:b") == (".",)
    assert watched("--reload", "--app-dir", str(tmp_path), "a:b") == (".", str(tmp_path))
    assert watched("--reload", f"{tmp_path}/main.py:b") == (".", str(tmp_path))
    assert watched("--reload", "--reload-dir", "c", f"{tmp_path}/main.py:b") == ("c",)


def test_load_asgi_app_can_be_overridden_and_its_asgi_2_application_is_wrapped() -> None:
    class Application:
        def __init__(self, scope: Any) -> None: ...

        async def __call__(self, receive: Any, send: Any) -> None: ...

    class Mine(Interface):
        paths: list[str] = []

        def load_asgi_app(self, asgi_app_path: str) -> Any:
            self.paths.append(asgi_app_path)
            return Application

    interface = Mine()
    interface.run(["anything"])

    assert Mine.paths == ["anything"]
    assert interface.server.keywords["application"] is not Application


def test_a_foreign_server_judges_its_application_itself() -> None:
    assert keywords_for(application="daphne_ng:__version__")["application"] == daphne_ng.__version__


def test_an_application_that_cannot_be_called_is_refused_for_our_server() -> None:
    class Server(FakeServer):
        __module__ = "daphne_ng.server"

    class Mine(CommandLineInterface):
        server_class = Server

    with pytest.raises(ApplicationLoadError, match="which cannot be called"):
        Mine().run(["daphne_ng:__version__"])


# -- the server class --------------------------------------------------------------------------------------------


class DaphneSignature:
    """Takes what Daphne's server takes, and nothing else."""

    abort_start = False

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
        websocket_max_message_size: int = 1048576,
        websocket_max_frame_size: int = 1048576,
        application_close_timeout: int = 10,
        ready_callable: Any = None,
        server_name: str = "daphne",
    ) -> None:
        self.server_name = server_name

    def run(self) -> None: ...


class HandsOn(DaphneSignature):
    """Takes any keyword, but only to give it to a base that does not."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)


def made_by_a_function(**keywords: Any) -> FakeServer:
    return FakeServer(**keywords)


@pytest.mark.parametrize("server_class", [DaphneSignature, HandsOn])
def test_a_server_with_daphnes_signature_is_given_no_config(server_class: Any) -> None:
    class Mine(CommandLineInterface):
        pass

    Mine.server_class = server_class
    interface = Mine()
    interface.run(["-s", "mine", APPLICATION])

    assert interface.server.server_name == "mine"


def test_a_function_may_stand_for_the_server_class() -> None:
    interface = Interface()
    interface.server_class = made_by_a_function
    interface.run([APPLICATION])

    assert interface.server.keywords["config"] == Config()


def test_the_servers_exit_code_becomes_the_processs() -> None:
    class Failed(FakeServer):
        exit_code = 3

    interface = Interface()
    interface.server_class = Failed
    with pytest.raises(SystemExit) as exit:
        interface.run([APPLICATION])
    assert exit.value.code == 3


@pytest.mark.parametrize(("abort_start", "exits"), [(True, True), (False, False)])
def test_a_server_without_exit_code_fails_if_it_could_not_start(abort_start: bool, exits: bool) -> None:
    class Aborted(FakeServer):
        pass

    Aborted.abort_start = abort_start
    interface = Interface()
    interface.server_class = Aborted
    if exits:
        with pytest.raises(SystemExit) as exit:
            interface.run([APPLICATION])
        assert exit.value.code == 1
    else:
        interface.run([APPLICATION])


def test_before_running_there_is_no_server() -> None:
    assert Interface().server is None


def test_importing_the_command_line_imports_neither_twisted_nor_the_server() -> None:
    script = (
        "import sys, daphne_ng.cli\n"
        "daphne_ng.cli.CommandLineInterface()\n"
        "loaded = [name for name in sys.modules if name.partition('.')[0] in ('twisted', 'uvloop', 'django')]\n"
        "assert not loaded and 'daphne_ng.server' not in sys.modules, loaded\n"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


# -- logs --------------------------------------------------------------------------------------------------------


def stream_of(log: Any) -> Any:
    assert isinstance(log, AccessLogGenerator)
    assert isinstance(log.stream, LineWriter)
    return log.stream.stream


def test_the_access_log_goes_to_standard_output_unless_the_server_is_to_be_quiet() -> None:
    assert stream_of(keywords_for()["action_logger"]) is sys.stdout
    assert stream_of(keywords_for("-v", "0", "--access-log", "-")["action_logger"]) is sys.stdout
    assert keywords_for("-v", "0")["action_logger"] is None


def test_an_access_log_file_is_written_even_if_the_server_fails(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"

    class Fails(FakeServer):
        def run(self) -> None:
            log = self.keywords["action_logger"]
            log.attach(lambda delay, callback: None)
            log("websocket", "connected", {"path": "/x", "client": None})
            raise OSError("gone")

    interface = Interface()
    interface.server_class = Fails
    with pytest.raises(OSError, match="gone"):
        interface.run(["-v", "0", "--access-log", str(path), APPLICATION])

    assert '"WSCONNECT /x"' in path.read_text()


def test_the_access_log_can_go_through_logging_whatever_the_verbosity() -> None:
    log = keywords_for("-v", "0", "--access-log-logger")["action_logger"]

    assert isinstance(log, LoggingAccessLog)
    assert log.logger.isEnabledFor(logging.INFO)


def test_a_level_that_was_set_for_the_access_logger_stands() -> None:
    logging.getLogger("daphne_ng.access").setLevel(logging.ERROR)
    log = keywords_for("--access-log-logger")["action_logger"]

    assert log.logger.level == logging.ERROR


def test_a_log_level_takes_the_place_of_the_verbositys() -> None:
    keywords_for("-v", "3", "--log-level", "ERROR")

    assert logging.getLogger().level == logging.ERROR


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--proxy-headers-host", "--proxy-headers-port"])
def test_a_proxy_headers_name_needs_proxy_headers(option: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        keywords_for(option, "blah")

    assert caught.value.argument_name == option
    assert caught.value.message == "--proxy-headers has to be passed for this parameter."


@pytest.mark.parametrize(
    "option", ["--proxy-headers-forwarded", "--proxy-headers-replace-host", "--proxy-headers-prefix"]
)
def test_more_about_proxy_headers_needs_them(option: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        keywords_for(option)

    assert caught.value.argument_name == option
    assert caught.value.message == "--proxy-headers has to be passed for this parameter."


@pytest.mark.parametrize("option", ["--proxy-headers-host", "--proxy-headers-port"])
def test_forwarded_holds_address_and_port(option: str) -> None:
    with pytest.raises(ArgumentError, match="not with --proxy-headers-forwarded"):
        keywords_for("--proxy-headers", "--proxy-headers-forwarded", option, "X-Real")


def test_the_root_path_is_percent_decoded() -> None:
    keywords = keywords_for("--root-path", "/caf%C3%A9 1")

    assert keywords["root_path"] == keywords["config"].root_path == "/caf\u00e9 1"


def test_run_raises_what_is_wrong() -> None:
    with pytest.raises(ConfigurationError, match="--head-timeout must be at least 0"):
        keywords_for("--head-timeout", "-1")
    with pytest.raises(ApplicationLoadError):
        keywords_for(application="no_such_module")


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ("json.no_such:app", "application 'json.no_such:app': no module named 'json.no_such'"),
        ("json:nope", "application 'json:nope': 'json' has no attribute 'nope'"),
        ("--factory", "--factory: no application is given"),
        ("--app-dir /no/such json:nope", "--app-dir: '/no/such' is not a directory"),
        ("--env-file /no/such json:nope", "--env-file: cannot read '/no/such': No such file or directory"),
        ("no/such.py:app", "application 'no/such.py:app': there is no file 'no/such.py'"),
        ("--log-fmt %(nothing)s json:nope", "--log-fmt: Formatting field not found in record: 'nothing'"),
        ("--head-timeout -1", "--head-timeout must be at least 0, not -1"),
        ("-p 99999", "--port must be between 0 and 65535, not 99999"),
        ("--header a/b:c", "--header: 'a/b' is not a header name"),
        ("--root-path %ff", "--root-path: '%ff' is not UTF-8 once it is percent-decoded"),
        ("--root-path app", "--root-path must begin with a slash, and must not hold control characters"),
        ("--root-path /%0a", "--root-path must begin with a slash, and must not hold control characters"),
        (
            "--forwarded-allow-ips 10.0.0.1/8",
            "--forwarded-allow-ips: 10.0.0.1/8 has host bits set; the network is 10.0.0.0/8",
        ),
        (
            "--proxy-headers --proxy-headers-host a,b",
            "--proxy-headers-host: 'a,b' is not a header name",
        ),
        (
            "--proxy-headers --proxy-headers-port X_Port",
            "--proxy-headers-port: 'X_Port' is never seen: headers with '_' are dropped",
        ),
        ("--access-log /no/such/file", "--access-log: cannot write to '/no/such/file': No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_one(enter: Callable[..., tuple[int, str]], args: str, error: str) -> None:
    assert enter(*args.split()) == (1, f"daphne-ng: error: {error}\n")


@pytest.mark.parametrize(
    "args",
    [
        "--port x",
        "--no-such-option",
        "--lifespan maybe",
        "--log-level loud",
        "--header nonsense",
        "--header :x",
        "--header X-\u20ac:x",
        "--header X:\u20ac",
        "--access-log x --access-log-logger",
        "--proxy-headers-host blah",
        "--proxy-headers-prefix",
    ],
)
def test_options_that_do_not_parse_exit_with_two(enter: Callable[..., tuple[int, str]], args: str) -> None:
    code, text = enter(*args.split())

    assert code == 2
    assert text.splitlines()[-1].startswith("daphne-ng: error: ")


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ("--host 127.0.0.1 json:nope", "--host; here it is --bind"),
        ("--uds=/run/s json:nope", "--uds=/run/s; here it is --unix-socket"),
        ("--ws wsproto json:nope", "--ws; leave it out"),
        ("--wrkers 2 json:nope", "--wrkers; is it --workers?"),
        ("--preload json:nope", "--preload; leave it out"),
        ("--noreload json:nope", "--noreload; leave it out"),
        ("--access-logfile x json:nope", "--access-logfile; here it is --access-log"),
        ("--no-access-log json:nope", "--no-access-log; here it is -v 0 --log-level info"),
        ("--http h11 json:nope", "--http; leave it out"),
        ("--ssl-keyfile-password=x json:nope", "--ssl-keyfile-password=x; here it is --ssl-keyfile-password-file"),
        ("--no-such-option json:nope", "--no-such-option"),
        ("json:nope runserver", "runserver (there is one application: 'json:nope')"),
    ],
)
def test_an_unknown_option_is_named_with_what_may_be_meant(
    enter: Callable[..., tuple[int, str]], args: str, error: str
) -> None:
    code, text = enter(*args.split())

    assert code == 2
    assert text.splitlines()[-1] == f"daphne-ng: error: unrecognized arguments: {error}"


def test_uvicorns_flag_for_the_access_log_does_not_take_the_application_for_a_file(
    enter: Callable[..., tuple[int, str]], tmp_path: pathlib.Path
) -> None:
    code, text = enter("--access-log", "json:nope")
    assert code == 2
    assert text.splitlines()[-1] == (
        "daphne-ng: error: --access-log takes a file, or - for standard output; 'json:nope' looks like the application"
    )
    there = tmp_path / "json:nope"
    there.touch()
    for arguments in (["--access-log", "json:nope", "json:tool"], ["--access-log", str(there)], ["--access-log", "-"]):
        assert CommandLineInterface().parser.parse_args(arguments).access_log == arguments[1]


def test_every_flag_of_uvicorn_in_its_page_exists_or_is_answered_with_a_hint() -> None:
    page = (pathlib.Path(__file__).parents[2] / "docs" / "migrating" / "from-uvicorn.md").read_text("utf-8")
    rows = re.findall(r"^\| (`--.*?) \|", page, flags=re.MULTILINE)
    flags = [flag for row in rows for flag in re.findall(r"`(--[\w-]+)`", row)]
    assert len(flags) > 50
    known = CommandLineInterface().parser._option_string_actions
    assert [flag for flag in flags if flag not in known and flag not in hints.ELSEWHERE] == []


def test_every_hint_names_an_option_that_exists() -> None:
    known = CommandLineInterface().parser._option_string_actions
    named = [word for hint in hints.ELSEWHERE.values() for word in hint.split() if word.startswith("-")]
    assert [option for option in named if option not in known] == []


def test_a_wrong_endpoint_is_reported_like_any_setting(enter: Callable[..., tuple[int, str]]) -> None:
    class Refuses(FakeServer):
        def run(self) -> None:
            raise EndpointError("endpoint 'imap:': unknown endpoint type: 'imap'")

    class Mine(CommandLineInterface):
        server_class = Refuses

    assert enter("-e", "imap:", interface=Mine) == (
        1,
        "daphne-ng: error: endpoint 'imap:': unknown endpoint type: 'imap'\n",
    )


def test_the_traceback_of_the_users_module_is_shown_at_verbosity_two(
    enter: Callable[..., tuple[int, str]], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breaks_when_imported.py").write_text("x = 1\n1 / 0\n")
    line = (
        "daphne-ng: error: application 'breaks_when_imported:app': importing 'breaks_when_imported' failed "
        "at breaks_when_imported.py:2: ZeroDivisionError: division by zero\n"
    )

    assert enter("breaks_when_imported:app") == (1, line)
    code, text = enter("-v", "2", "breaks_when_imported:app")
    assert code == 1
    assert text.startswith("Traceback (most recent call last):")
    assert text.endswith(line)


def test_an_interrupt_before_serving_is_no_traceback(enter: Callable[..., tuple[int, str]]) -> None:
    class Mine(Interface):
        def load_asgi_app(self, asgi_app_path: str) -> Any:
            raise KeyboardInterrupt

    assert enter(APPLICATION, interface=Mine) == (130, "")


def test_the_package_can_be_run() -> None:
    run = subprocess.run([sys.executable, "-m", "daphne_ng", "--version"], capture_output=True, text=True, check=True)

    assert run.stdout == f"daphne-ng {daphne_ng.__version__} ({BUILD})\n"


# -- what subclasses of Daphne's class call and override -------------------------------------------------------------


class Forwarding(Interface):
    def _get_forwarded_host(self, args: Any) -> str | None:
        found = super()._get_forwarded_host(args)
        return "X-Real-IP" if found == "X-Forwarded-For" else found

    def _get_forwarded_port(self, args: Any) -> str | None:
        return None if args.proxy_headers else super()._get_forwarded_port(args)


def test_the_methods_for_proxy_headers_may_be_overridden() -> None:
    interface = Forwarding()
    interface.run(["--proxy-headers", APPLICATION])

    assert interface.server.keywords["proxy_forwarded_address_header"] == "X-Real-IP"
    assert interface.server.keywords["proxy_forwarded_port_header"] is None


def test_they_ask_for_the_flag_as_daphnes_do() -> None:
    interface = Interface()
    args = interface.parser.parse_args(["--proxy-headers-host", "X-A", APPLICATION])

    with pytest.raises(ArgumentError, match="--proxy-headers has to be passed"):
        interface._check_proxy_headers_passed(interface.arg_proxy_host, args)
    with pytest.raises(ArgumentError, match="--proxy-headers has to be passed"):
        interface._get_forwarded_host(args)
    assert interface._get_forwarded_port(args) is None


_OWN_HOOKS = """
import dataclasses
from daphne_ng.cli import CommandLineInterface
from daphne_ng.server import Server

class Mine(Server):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.hooks = dataclasses.replace(self.hooks, run_id="mine")

    def run(self):
        print(self.hooks.run_id, self.hooks.manages_processes)

class Interface(CommandLineInterface):
    server_class = Mine

Interface().run(["-p", "0", "daphne_ng.demo:application"])
"""


def test_what_a_server_class_has_in_its_hooks_stays_there() -> None:
    run = subprocess.run([sys.executable, "-c", _OWN_HOOKS], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "mine True\n"


# -- where settings come from ------------------------------------------------------------------------------------


def test_a_contradiction_of_two_origins_names_both(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, enter: Callable[..., tuple[int, str]]
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.toml").write_text('ssl_cert_reqs = "required"\nproxy_headers_host = "X"\n')
    (tmp_path / "d.toml").chmod(0o600)
    monkeypatch.setenv("DAPHNE_NG_PROXY_HEADERS", "true")
    code, error = enter("--config", "d.toml")
    assert code == 1
    assert error.endswith("(ssl_cert_reqs: d.toml, line 1)\n")
    monkeypatch.delenv("DAPHNE_NG_PROXY_HEADERS")
    code, error = enter("--config", "d.toml", "--check-config")
    assert code == 1
    assert error.endswith("for this parameter. (proxy_headers_host: d.toml, line 2)\n")


def test_settings_are_checked_without_serving(enter: Callable[..., tuple[int, str]]) -> None:
    assert enter("--check-config") == (0, "")
    code, error = enter("--check-config", "--port=70000")
    assert (code, error) == (1, "daphne-ng: error: --port must be between 0 and 65535, not 70000\n")


def test_a_rare_limit_arrives_in_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPHNE_NG_WEBSOCKET_MAX_FRAGMENTS", "7")
    config = keywords_for("--websocket-handshake-timeout=9s", "--proxy-proto-header=X-Scheme")["config"]
    assert (config.websocket_max_fragments, config.websocket_handshake_timeout) == (7, 9.0)
    assert config.proxy_proto_header == "X-Scheme"

"""What `import daphne_ng` offers: names that are there and load nothing, `run`'s keywords, and what a Server refuses."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import daphne_ng
from daphne_ng import invoking
from daphne_ng.cli import CommandLineInterface
from daphne_ng.config import Config, settings
from daphne_ng.errors import ApplicationLoadError, ConfigurationError, ReactorError
from daphne_ng.server import Server


async def application(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


# -- names ---------------------------------------------------------------------------------------------------------


def test_the_import_alone_loads_neither_twisted_nor_a_reactor_nor_the_server() -> None:
    program = (
        "import sys, daphne_ng\n"
        "assert {'Config', 'Server', 'run'} <= set(dir(daphne_ng))\n"
        "assert {'Config', 'Server', 'run'} <= set(daphne_ng.__all__)\n"
        "print(*(name for name in sys.modules if name.startswith(('twisted', 'daphne_ng.', 'asyncio'))))\n"
        "daphne_ng.run\n"
        "print(*(name for name in sys.modules if name.startswith('twisted.internet')))\n"
        "from daphne_ng import Config, Server, run\n"
        "print('twisted.internet.reactor' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "\n\nFalse\n"


def test_the_names_are_what_the_modules_have() -> None:
    assert daphne_ng.Config is Config
    assert daphne_ng.Server is Server
    assert daphne_ng.run is invoking.run


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'daphne_ng' has no attribute 'Servre'"):
        daphne_ng.Servre  # noqa: B018


# -- run -----------------------------------------------------------------------------------------------------------


class Taken(Exception):
    """Carries what `run` would have served with."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that calls `run` and returns the options, the settings, the endpoints and a worker's command."""

    def take(app: Any = application, **keywords: Any) -> Any:
        def run_with(self: Any, options: Any) -> None:
            config = self._config(options)
            command = self._worker_command(options) if isinstance(app, str) else None
            raise Taken(options, config, self._endpoints(options, config), command)

        monkeypatch.setattr(CommandLineInterface, "run_with", run_with)
        with pytest.raises(Taken) as caught:
            daphne_ng.run(app, **keywords)
        return caught.value.args

    return take


@pytest.mark.parametrize(
    ("keywords", "endpoints"),
    [
        ({}, ["tcp:port=8000:interface=127.0.0.1"]),
        ({"port": 0}, ["tcp:port=0:interface=127.0.0.1"]),
        ({"host": "::1", "port": 1}, [r"tcp:port=1:interface=\:\:1"]),
        ({"host": ["10.0.0.1", "10.0.0.2:2"]}, ["tcp:port=2:interface=10.0.0.2", "tcp:port=8000:interface=10.0.0.1"]),
        ({"unix_socket": "/s", "fd": 3}, ["fd:fileno=3", "unix:/s"]),
        ({"endpoints": ["tcp:5"]}, ["tcp:5"]),
        ({"ssl_certfile": "c.pem"}, ["tls:tcp:port=8000:interface=127.0.0.1"]),
    ],
)
def test_where_run_listens(taken: Any, keywords: dict[str, Any], endpoints: list[str]) -> None:
    assert taken(**keywords)[2] == endpoints


def test_every_setting_is_a_keyword_and_may_come_in_a_config(taken: Any) -> None:
    config = Config(
        keep_alive_timeout=1.5,
        http_timeout=2.5,
        root_path="/a b",
        date_header=False,
        http2=False,
        headers=((b"x", b"y"),),
        drain_timeout=3.0,
        websocket_handshake_timeout=4,
        proxy_address_header="X-Real-IP",
    )
    names = [name for name, _ in settings() if getattr(config, name) != getattr(Config(), name)]
    assert len(names) == 9

    assert taken(config=config)[1] == config
    assert taken(**{name: getattr(config, name) for name in names})[1] == config
    assert taken(config=config, drain_timeout=5)[1] == config.replace(drain_timeout=5)


@pytest.mark.parametrize(
    ("keyword", "remedy"),
    [
        ("timeout_keep_alive", "; here it is 'keep_alive_timeout'"),
        ("ws_max_size", "; here it is 'websocket_max_message_size'"),
        ("uds", "; here it is 'unix_socket'"),
        ("ws", "; leave it out"),
        ("limit_concurency", "; is it 'limit_concurrency'?"),
        ("xyzzy", ""),
    ],
)
def test_a_setting_that_does_not_exist_is_a_type_error(keyword: str, remedy: str) -> None:
    with pytest.raises(TypeError) as caught:
        daphne_ng.run(application, **{keyword: 1})

    assert str(caught.value) == f"run() has no setting {keyword!r}{remedy}"


def test_a_wrong_value_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="^--keep-alive-timeout must be a number, not 'long'"):
        daphne_ng.run(application, keep_alive_timeout="long")


@pytest.mark.parametrize(
    ("keyword", "value", "error"),
    [
        ("port", "8000", "port must be a number, not '8000'"),
        ("port", True, "port must be a number, not True"),
        ("fd", "3", "fd must be a number, not '3'"),
        ("host", 8000, "host must be text, not 8000"),
        ("log_level", 20, "log_level must be text, not 20"),
        ("root_path", None, "root_path cannot be None: leave it out"),
        ("headers", None, "headers cannot be None: leave it out"),
    ],
)
def test_a_value_of_another_type_is_named(keyword: str, value: Any, error: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        daphne_ng.run(application, **{keyword: value})

    assert str(caught.value).endswith(error)


@pytest.mark.parametrize("keywords", [{"workers": 2}, {"reload": True}, {"limit_max_requests": 5}])
def test_workers_need_the_import_string(keywords: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="^workers and reload need the application as an import string"):
        daphne_ng.run(application, **keywords)


def test_workers_refuse_what_they_could_not_be_told() -> None:
    with pytest.raises(ConfigurationError, match="^drain_timeout: has no flag by which workers could be told"):
        daphne_ng.run("main:app", workers=2, drain_timeout=3)
    with pytest.raises(ConfigurationError, match="^http_timeout: workers take whole numbers only, not 2.5"):
        invoking._flags("http_timeout", dict(settings())["http_timeout"], 2.5)
    fields = dict(settings())["head_max_fields"]
    assert invoking._flags("head_max_fields", fields, 50.0) == ["--limit-request-fields=50"]
    with pytest.raises(ConfigurationError, match="^head_max_fields: workers take whole numbers only, not 50.5"):
        invoking._flags("head_max_fields", fields, 50.5)


def test_a_workers_command_means_the_same(taken: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keywords: dict[str, Any] = {
        "host": ["::1", "127.0.0.1"],
        "port": 0,
        "unix_socket": "/s",
        "endpoints": ["tcp:1"],
        "workers": 2,
        "verbosity": 2,
        "log_level": "WARNING",
        "access_log": False,
        "proxy_headers": True,
        "root_path": "/a b",
        "date_header": False,
        "http2": False,
        "websocket_compression": False,
        "http_timeout": 3.0,
        "headers": [(b"x-a", b"b: c")],
        "forwarded_allow_ips": "",
        "server_name": "",
        "graceful_timeout": 1.5,
        "reload_excludes": ("-x",),
    }
    options, config, endpoints, command = taken("main:app", **keywords)
    assert command[0] == sys.executable
    arguments = command[command.index("daphne_ng") + 1 :]

    interface = CommandLineInterface()
    parsed = interface.parser.parse_args(arguments)
    again = interface._config(parsed)
    assert again == config
    assert interface._endpoints(parsed, again) == endpoints
    for name in ("application", "verbosity", "log_level", "log_fmt", "access_log", "app_dirs", "factory", "env_file"):
        assert getattr(parsed, name) == getattr(options, name)


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (None, "application: is of type 'NoneType', which cannot be called"),
        (5, "application: is of type 'int', which cannot be called"),
        (
            lambda environ, more: None,
            "application: takes (environ, more), not (scope, receive, send), so it is no ASGI application",
        ),
    ],
)
def test_what_is_no_application_is_refused_at_once(app: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "level", logging.getLogger().level)
    with pytest.raises(ApplicationLoadError) as caught:
        daphne_ng.run(app, verbosity=0)
    assert str(caught.value) == message
    with pytest.raises(ApplicationLoadError) as caught:
        Server(app, ["tcp:0"])
    assert str(caught.value) == message


def test_run_inside_a_loop_says_what_to_use() -> None:
    async def main() -> None:
        with pytest.raises(ReactorError, match=r"serve\(\)"):
            daphne_ng.run(application)
        with pytest.raises(ReactorError, match=r"serve\(\)"):
            Server(application, ["tcp:0"]).run()

    asyncio.run(main())


def test_run_is_not_for_a_module_that_is_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unguarded.py").write_text("import daphne_ng\napp = 5\ndaphne_ng.run('unguarded:app', verbosity=0)\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(logging.getLogger(), "level", logging.getLogger().level)

    with pytest.raises(ApplicationLoadError, match="if __name__ == '__main__'"):
        daphne_ng.run("unguarded:app", verbosity=0)


# -- Server --------------------------------------------------------------------------------------------------------


def test_a_server_takes_no_import_string() -> None:
    with pytest.raises(ApplicationLoadError, match=r"application 'main:app': .* daphne_ng.run\(\) imports it"):
        Server("main:app", ["tcp:0"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "setting", [{"workers": 2}, {"workers": "auto"}, {"reload": True}, {"worker_max_age": 5}, {"pid_file": "x"}]
)
def test_a_server_refuses_settings_that_it_would_ignore(setting: dict[str, Any]) -> None:
    server = Server(application, ["tcp:0"], config=Config(**setting))
    message = f"^{next(iter(setting))}: a Server is one process"
    with pytest.raises(ConfigurationError, match=message):
        server.run()
    with pytest.raises(ConfigurationError, match=message):
        asyncio.run(server.serve())


# -- Config --------------------------------------------------------------------------------------------------------


def test_workers_may_be_a_number() -> None:
    assert Config(workers=2) == Config(workers="2")
    for wrong in (0, -1, True, 1.5, None):
        with pytest.raises(ConfigurationError, match="--workers must be a number"):
            Config(workers=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"umask": 0o27}, "--umask must be text, not 23"),
        ({"reload_dirs": "src"}, "--reload-dir must be a list, not 'src'"),
        ({"reload": "no"}, "--reload must be True or False, not 'no'"),
        ({"server_name": None}, "--server-name must be text, not None"),
    ],
)
def test_a_value_of_another_type_is_told(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config(**setting)
    assert str(caught.value) == message


def test_a_list_does_where_a_tuple_is_meant() -> None:
    assert Config(headers=[(b"a", b"b")], reload_dirs=["x"]) == Config(headers=((b"a", b"b"),), reload_dirs=("x",))  # type: ignore[arg-type]

"""`daphne_ng.server`: what can be said of a `Server` that listens nowhere. tests/integration has the ways to run it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.python.failure import Failure

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError
from daphne_ng.server import EXIT_LISTEN, Server
from daphne_ng.serving.actions import Actions
from tests.support.asgi import Bridge, body, connection, on_loop, request_head, settle, start

# daphne 4.2.3, ``daphne.server.Server.__init__``.
DAPHNE = {
    "application": inspect.Parameter.empty,
    "endpoints": None,
    "signal_handlers": True,
    "action_logger": None,
    "http_timeout": None,
    "request_buffer_size": 8192,
    "websocket_timeout": 86400,
    "websocket_connect_timeout": 20,
    "ping_interval": 20,
    "ping_timeout": 30,
    "root_path": "",
    "proxy_forwarded_address_header": None,
    "proxy_forwarded_port_header": None,
    "proxy_forwarded_proto_header": None,
    "verbosity": 1,
    "websocket_handshake_timeout": 5,
    "websocket_max_message_size": 1048576,
    "websocket_max_frame_size": 1048576,
    "application_close_timeout": 10,
    "ready_callable": None,
    "server_name": "daphne",
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing is served here")


def make(**keywords: Any) -> Server:
    return Server(application, ["tcp:0"], **keywords)


def test_the_constructor_has_daphnes_names_order_and_defaults() -> None:
    parameters = dict(inspect.signature(Server).parameters)
    own = parameters.pop("config")
    assert own.kind is inspect.Parameter.KEYWORD_ONLY
    assert {name: parameter.default for name, parameter in parameters.items()} == DAPHNE
    assert list(parameters) == list(DAPHNE)
    assert all(parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters.values())


def test_every_keyword_is_kept_as_an_attribute() -> None:
    given = {
        "signal_handlers": False,
        "action_logger": print,
        "http_timeout": 1,
        "request_buffer_size": 2,
        "websocket_timeout": 3,
        "websocket_connect_timeout": 4,
        "ping_interval": 5,
        "ping_timeout": 6,
        "root_path": "/seven",
        "proxy_forwarded_address_header": "X-Eight",
        "proxy_forwarded_port_header": "X-Nine",
        "proxy_forwarded_proto_header": "X-Ten",
        "verbosity": 2,
        "websocket_handshake_timeout": 11,
        "websocket_max_message_size": 12,
        "websocket_max_frame_size": 13,
        "application_close_timeout": 14,
        "ready_callable": print,
        "server_name": "fifteen",
    }
    assert set(given) | {"application", "endpoints"} == set(DAPHNE)
    server = make(**given)
    assert {name: getattr(server, name) for name in given} == given
    assert server.endpoints == ["tcp:0"]
    assert server.application is application
    config = server.config
    assert (config.http_timeout, config.websocket_timeout, config.websocket_connect_timeout) == (1, 3, 4)
    assert (config.ping_interval, config.ping_timeout, config.root_path) == (5, 6, "/seven")
    assert (config.proxy_address_header, config.proxy_port_header) == ("X-Eight", "X-Nine")
    assert (config.proxy_proto_header, config.server_name) == ("X-Ten", "fifteen")
    assert (config.websocket_handshake_timeout, config.application_close_timeout) == (11, 14)
    assert (config.websocket_max_message_size, config.websocket_max_frame_size) == (12, 13)


def test_a_config_counts_where_no_keyword_differs_from_its_default() -> None:
    config = Config(http_timeout=7, server_name="configured", websocket_connect_timeout=5, graceful_timeout=1)
    server = make(config=config, http_timeout=9)
    assert server.config.http_timeout == server.http_timeout == 9
    assert server.config.server_name == server.server_name == "configured"
    assert server.config.websocket_connect_timeout == server.websocket_connect_timeout == 5
    assert server.config.graceful_timeout == 1
    assert make().config.websocket_connect_timeout == 20  # Daphne's, where nobody says otherwise


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match="--http-timeout"):
        make(http_timeout=-1)
    with pytest.raises(ConfigurationError, match="--ping-interval"):
        make(ping_interval="soon")


@pytest.mark.parametrize("endpoints", [None, []])
def test_no_endpoints_is_an_error_and_an_exit(endpoints: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        Server(application, endpoints)
    assert caught.value.code == 1
    [record] = caplog.records
    assert record.getMessage() == "No endpoints. This server will not listen on anything."
    assert record.levelno == logging.ERROR


def test_a_new_server_has_nothing_open() -> None:
    server = make()
    assert server.listening_addresses == []
    assert server.listeners == []
    assert server.connections == set()
    assert server.abort_start is False
    assert server.exit_code == 0


def test_stopping_before_the_start_prevents_it() -> None:
    server = make()
    server.stop()
    assert server.abort_start is True


@on_loop
async def test_a_server_stopped_before_its_start_does_not_serve() -> None:
    server = make(ready_callable=lambda: pytest.fail("it listens"))
    server.stop()
    await server.serve()
    with pytest.raises(ConfigurationError, match="stopped before it started"):
        async with server:
            pytest.fail("it serves")
    await server.shutdown()


def test_the_default_log_action_calls_the_action_logger() -> None:
    calls: list[Any] = []
    server = make(action_logger=lambda *call: calls.append(call))
    server.log_action("http", "complete", {"path": "/"})
    assert calls == [("http", "complete", {"path": "/"})]
    make().log_action("http", "complete", {})


class Port:
    def __init__(self, host: Any) -> None:
        self.getHost = lambda: host


def test_addresses_are_noted_for_tcp_and_logged_for_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = make()
    server.listen_success(Port(IPv4Address("TCP", "127.0.0.1", 8000)))
    server.listen_success(Port(UNIXAddress("/run/a.sock")))
    server.listen_success(object())
    assert server.listening_addresses == [("127.0.0.1", 8000)]
    assert [record.getMessage() for record in caplog.records] == [
        "Listening on TCP address 127.0.0.1:8000",
        "Listening on UNIX socket /run/a.sock",
    ]


@pytest.mark.parametrize("failure", ["in use", Failure(OSError("in use"))], ids=["text", "failure"])
def test_a_listen_failure_aborts(failure: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = make()
    server.listen_error(failure)
    assert server.abort_start is True
    assert server.exit_code == EXIT_LISTEN == 1
    [record] = caplog.records
    assert (record.levelname, record.getMessage()) == ("CRITICAL", "Listen failure: in use")


@on_loop
async def test_the_actions_of_a_websocket_say_what_is_known_by_then() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/closed":
            return await send({"type": "websocket.close"})
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await receive()

    async def actions(path: str) -> list[Any]:
        calls: list[Any] = []
        server = make(action_logger=lambda *call: calls.append(call))
        bridge = Bridge(application)
        told = Actions(server.log_action, bridge.runner.loop, logging.getLogger("daphne_ng.server"))
        bridge.runner.record_websocket = told.record_websocket
        bridge.begin_websocket(head=request_head(path=path))
        await settle()
        assert {call[0] for call in calls} == {"websocket"}
        return [call[1:] for call in calls]

    known = {"path": "/chat", "client": "192.0.2.1:5000", "http_version": "1.1"}
    assert await actions("/chat") == [
        ("connecting", known),
        ("connected", {**known, "time_taken": 0.0}),
        ("disconnected", {**known, "time_taken": 0.0, "code": 1000, "bytes_received": 0, "bytes_sent": 5}),
    ]
    _, (action, details) = await actions("/closed")
    assert action == "rejected"
    assert details["status"] == 403


class DaphnesLogger:
    """Does with what it is told what loggers that were written for Daphne do: compares, divides, formats."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        assert (protocol, action) == ("http", "complete")
        assert details["size"] / 1024 < 100 * 1024
        assert details["time_taken"] >= 0.5 or f"{details['time_taken']:.2f}" < "0.50"
        assert details["client"] is None or details["client"].split(":")[0]
        assert "HTTP %(method)s %(path)s %(status)s [%(time_taken).2f, %(client)s]" % details  # noqa: UP031 (as they do)
        assert "{method:<8}{path} {status:d} {size:d}".format(**details)
        assert 100 <= details["status"] < 600
        self.told.append((details["status"], details["size"]))


@on_loop
async def test_whatever_becomes_of_a_request_the_logger_is_told_what_daphne_would_tell_it() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/fails":
            raise LookupError
        if scope["path"] == "/held":
            await send(start(201))
        if scope["path"] in ("/begun", "/whole"):
            await send(start(200))
            await send(body(b"12345", more=scope["path"] == "/begun"))
        while (await receive())["type"] != "http.disconnect":
            pass

    async def outcome(path: str, end: Callable[[Any], None] | None = None) -> tuple[int, int]:
        bridge, logger = Bridge(application), DaphnesLogger()
        told = Actions(make(action_logger=logger).log_action, bridge.runner.loop, logging.getLogger("tests"))
        bridge.runner.record = told.record
        exchange, _ = bridge.begin(request_head(path=path))
        await settle()
        if end is not None:
            end(exchange)
        await settle()
        (line,) = logger.told
        return line

    def leave(exchange: Any) -> None:
        exchange.disconnected("the client has left")

    def give_up(exchange: Any) -> None:
        exchange.cancel("the server is shutting down")

    assert await outcome("/whole") == (200, 5)
    assert await outcome("/fails") == (500, 26)
    assert await outcome("/waits", leave) == (499, 0)
    assert await outcome("/held", leave) == (499, 0)
    assert await outcome("/begun", leave) == (200, 5)
    assert await outcome("/waits", lambda exchange: exchange.disconnected("too large", 413)) == (413, 0)
    assert (await outcome("/waits", give_up))[0] == 503
    assert await outcome("/begun", give_up) == (200, 5)


def test_the_logger_is_told_of_a_refused_request_what_daphne_would_tell_it(caplog: pytest.LogCaptureFixture) -> None:
    logger = DaphnesLogger()
    loop = asyncio.new_event_loop()
    told = Actions(make(action_logger=logger).log_action, loop, logging.getLogger("tests"))
    loop.close()
    told.record_refused(connection(), 400, "malformed", None)
    told.record_refused(connection(), 503, "too many", request_head())
    assert logger.told == [(400, 0), (503, 0)]


@on_loop
async def test_a_failing_action_logger_costs_no_websocket(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    def fail(*call: Any) -> None:
        raise OSError

    server = make(action_logger=fail)
    bridge = Bridge(application)
    told = Actions(server.log_action, bridge.runner.loop, logging.getLogger("daphne_ng.server"))
    bridge.runner.record_websocket = told.record_websocket
    _, port = bridge.begin_websocket()
    await settle()
    assert port.names == ["accept", "close"]
    assert {record.getMessage() for record in caplog.records} == {"The access log failed"}

"""`daphne_ng.net.context`: what is asked before an exchange begins, and the counts of connections."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from daphne_ng.asgi.http import HttpExchange
from daphne_ng.asgi.websocket import WebSocketExchange
from daphne_ng.net.context import REFUSALS_MAX
from daphne_ng.wire.websocket.handshake import WebSocketRequest
from tests.support.asgi import StrictPort, StrictWebSocketPort, connection, on_loop, request_head
from tests.support.net import Wire, silent


def quiet(**settings: Any) -> Wire:
    """A server whose exchanges begin, and whose application does not run."""
    wire = Wire(silent, **settings)
    wire.context.start_application = wire.runner.exchanges.add
    return wire


def begin(wire: Wire, head: Any, info: Any, port: StrictPort) -> Any:
    return wire.context.begin(head, info, port)


def begin_websocket(wire: Wire, head: Any, info: Any, port: StrictPort) -> Any:
    websocket = StrictWebSocketPort()
    websocket.response = port
    return wire.context.begin_websocket(WebSocketRequest(head, None, [], ""), info, websocket)


KINDS = {"request": (begin, HttpExchange, "http"), "websocket": (begin_websocket, WebSocketExchange, "ws")}
each_kind = pytest.mark.parametrize(("start", "made", "scheme"), KINDS.values(), ids=KINDS)


class TestBegin:
    """The same is asked of a request and of a handshake."""

    @each_kind
    @on_loop
    async def test_an_exchange_begins(self, start: Callable[..., Any], made: type, scheme: str) -> None:
        wire = quiet()
        exchange = start(wire, request_head(), connection(), StrictPort())
        assert type(exchange) is made
        assert exchange.scope["scheme"] == scheme
        assert wire.runner.exchanges == {exchange}

    @each_kind
    @on_loop
    async def test_beyond_the_limit_it_is_refused(self, start: Callable[..., Any], made: type, scheme: str) -> None:
        wire = quiet(limit_concurrency=1)
        assert start(wire, request_head(), connection(), StrictPort()) is not None
        port = StrictPort()
        assert start(wire, request_head(path="/late"), connection(), port) is None
        (call,) = port.calls
        assert call[:2] == ("start", 503)
        assert (b"retry-after", b"1") in call[2]
        assert call[4] is True
        assert wire.refused == [("192.0.2.1:5000", 503, "/late")]

    @each_kind
    @on_loop
    async def test_what_a_trusted_proxy_says_is_applied(
        self, start: Callable[..., Any], made: type, scheme: str
    ) -> None:
        wire = quiet(proxy_address_header="X-Forwarded-For", proxy_port_header=None)
        head = request_head(headers=[(b"host", b"test"), (b"x-forwarded-for", b"198.51.100.7")])
        exchange = start(wire, head, connection(trusted=True), StrictPort())
        assert exchange.scope["client"] == ["198.51.100.7", 0]

    @each_kind
    @on_loop
    async def test_a_root_path_from_nobody_in_particular_is_a_warning_once(
        self, start: Callable[..., Any], made: type, scheme: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        wire = quiet()
        for _ in range(2):
            exchange = start(wire, request_head(root_path="/evil"), connection(client=None), StrictPort())
            assert exchange.scope["root_path"] == ""
        (line,) = caplog.messages
        assert line.startswith("Ignored Daphne-Root-Path from a local client, which is no trusted proxy")


class TestLimit:
    @on_loop
    async def test_connections_beyond_it_are_refused_and_then_closed_at_once(self) -> None:
        wire = Wire(silent, limit_connections=1)
        context = wire.context
        assert not context.full
        first = wire.connect()
        assert context.full
        refused = [wire.connect() for _ in range(REFUSALS_MAX)]
        assert context.refusing == REFUSALS_MAX
        assert context.refusals_full
        assert wire.connect() is None
        refused[0].lost()
        assert not context.refusals_full
        first.lost()
        assert not context.full
        for transport in refused[1:]:
            transport.lost()
        assert context.refusing == 0

    @on_loop
    async def test_what_waits_for_its_proxy_counts_as_open(self) -> None:
        context = Wire(silent, limit_connections=1).context
        context.waiting = 1
        assert context.full
        assert not await context.wait_closed(1)
        context.waiting = 0
        assert await context.wait_closed(1)

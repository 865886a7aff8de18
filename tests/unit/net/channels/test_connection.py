"""`daphne_ng.net.channels.connection`, ``context``, ``factory`` and ``h1``, on a fake transport and in virtual time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocolNegotiationFactory, ISSLTransport
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from daphne_ng.config.trust import TrustedPeers
from daphne_ng.net.channels.connection import OverloadedConnection, ServerConnection, connection_info
from tests.support.asgi import body, on_loop, settle, start
from tests.support.net import CLIENT, GET, HERE, Application, FakeTLS, FakeTransport, Wire, silent
from tests.support.ws import ping, text

TRUSTED = TrustedPeers("127.0.0.0/8,::1,unix")


@on_loop
async def test_a_request_is_served_and_the_connection_kept() -> None:
    application = Application()
    wire = Wire(application)
    transport = wire.connect()
    verifyObject(IHalfCloseableProtocol, transport.protocol)
    for _ in range(2):
        transport.protocol.dataReceived(GET)
        await settle()
    assert transport.written.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert transport.ended == []
    assert len(application.scopes) == 2
    assert wire.records == [(200, 5)] * 2
    assert wire.context.connections == {transport.protocol}
    transport.lost()
    assert wire.context.connections == set()


@on_loop
async def test_a_lost_connection_disconnects_and_gives_its_timer_back() -> None:
    wire = Wire(silent)
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    await settle()
    assert len(wire.runner.exchanges) == 1
    transport.lost()
    await settle()
    assert not wire.runner.exchanges
    assert wire.records == [(None, 0)]
    assert [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()] == []  # type: ignore


@pytest.mark.parametrize("ending", ["idle", "active", "silent"])
@on_loop
async def test_nothing_is_left_for_the_garbage_collector(ending: str) -> None:
    names = ("Http1Channel", "Http1Connection", "Http1Response", "Http1Parser", "ServerConnection", "WriteFlow")
    gc.collect()
    gc.disable()
    # Other tests of the same process may have kept some.
    before = {id(thing) for thing in gc.get_objects() if type(thing).__name__ in names}
    try:
        wire = Wire(silent if ending == "active" else Application())
        transport = wire.connect()
        if ending != "silent":
            transport.protocol.dataReceived(GET)
        await settle()
        transport.lost()
        await settle()
        transport.protocol = transport.producer = None
        found = [thing for thing in gc.get_objects() if type(thing).__name__ in names]
        assert [type(thing).__name__ for thing in found if id(thing) not in before] == []
    finally:
        gc.enable()


@on_loop
async def test_a_client_that_closes_its_half_disconnects() -> None:
    wire = Wire(silent)
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    await settle()
    transport.protocol.readConnectionLost()
    await settle()
    assert not wire.runner.exchanges
    assert transport.ended == ["close"]
    transport.protocol.writeConnectionLost()
    transport.lost()


@on_loop
async def test_send_waits_while_the_transport_is_full_and_raises_when_it_is_gone() -> None:
    outcomes: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            while True:
                await send(body(b"x" * 1000, more=True))
                outcomes.append("sent")
                if len(outcomes) in (1, 2):
                    transport.producer.pauseProducing()
        except OSError as error:
            outcomes.append(type(error).__name__)

    wire = Wire(application)
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    await settle()
    assert outcomes == ["sent"]
    transport.producer.resumeProducing()
    await settle()
    assert outcomes == ["sent", "sent"]
    transport.lost()
    await settle()
    assert outcomes == ["sent", "sent", "ClientDisconnected"]


@on_loop
async def test_a_client_that_reads_nothing_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wire = Wire(silent, write_timeout=60)
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    transport.unsent_bytes = 70_000
    transport.producer.pauseProducing()
    await asyncio.sleep(59)
    assert transport.ended == []
    await asyncio.sleep(7)
    assert transport.ended == ["abort"]
    assert "Dropped a connection from 192.0.2.1:5000: the client stopped reading" in caplog.text
    assert "--write-timeout" in caplog.text
    assert "70000 bytes were left" in caplog.text
    transport.lost()
    await settle()


@on_loop
async def test_an_idle_connection_is_closed_in_time() -> None:
    wire = Wire(Application(), keep_alive_timeout=75)
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    await asyncio.sleep(74)
    assert transport.ended == []
    await asyncio.sleep(2)
    assert transport.ended == ["close"]
    transport.lost()


@on_loop
async def test_a_close_that_the_peer_does_not_answer_gives_the_socket_back() -> None:
    wire = Wire(Application(), keep_alive_timeout=75, close_timeout=5)
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    await asyncio.sleep(81)
    # Nothing is left to send, so that nothing is thrown away: no reset.
    assert transport.ended == ["close", "close"]
    transport.lost()


@on_loop
async def test_the_end_of_a_server_does_not_cut_a_client_off_that_still_sends() -> None:
    wire = Wire(Application(), keep_alive_timeout=1, close_timeout=5)
    sending, idle = wire.connect(FakeTLS(b"http/1.1")), wire.connect(FakeTLS(b"http/1.1"))
    for transport in (sending, idle):
        transport.shake_hands()
        transport.disconnecting = True
    sending.protocol.dataReceived(b"BROKEN\r\n\r\n")
    idle.protocol.dataReceived(GET)
    await asyncio.sleep(2)
    for transport in (sending, idle):
        assert transport.ended == ["close"]
        transport.protocol.release()
    assert idle.ended == ["close", "close"]
    assert sending.ended == ["close"]
    for transport in (sending, idle):
        transport.lost()


@on_loop
async def test_an_application_that_takes_too_long_is_answered_for() -> None:
    wire = Wire(silent, http_timeout=3)
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    await asyncio.sleep(2.9)
    assert transport.written == b""
    await asyncio.sleep(0.2)
    assert transport.written.startswith(b"HTTP/1.1 503 ")
    assert wire.records == [(503, len(b"503 Service Unavailable\nThe application did not answer in time.\n"))]
    await settle()
    assert not wire.runner.exchanges
    assert transport.ended == []
    transport.lost()


@on_loop
async def test_an_application_that_takes_too_long_in_its_body_is_reset() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"part", more=True))
        await asyncio.sleep(100)

    wire = Wire(application, http_timeout=3)
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    await asyncio.sleep(4)
    assert transport.ended == ["abort"]
    assert not wire.runner.exchanges
    transport.lost()
    assert wire.records == [(200, 4)]


# -- shutting down ---------------------------------------------------------------------------------------


@on_loop
async def test_shutting_down_closes_idle_connections_soon_and_others_after_their_response() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(3)
        await send(start())
        await send(body(b"served"))

    wire = Wire(application)
    idle, busy = wire.connect(), wire.connect()
    busy.protocol.dataReceived(GET)
    await settle()
    for connection in list(wire.context.connections):
        connection.shut_down()
    assert (idle.ended, busy.ended) == ([], [])
    await asyncio.sleep(2.1)
    assert (idle.ended[:1], busy.ended) == (["close"], [])
    await asyncio.sleep(2)
    assert busy.written.endswith(b"served")
    assert b"\r\nconnection: close\r\n" in busy.written
    assert busy.ended == ["close"]
    idle.lost()
    waiting = asyncio.ensure_future(wire.context.wait_closed(5))
    await settle()
    assert not waiting.done()
    busy.lost()
    assert await waiting is True
    assert await wire.context.wait_closed(5) is True


@on_loop
async def test_a_websocket_that_an_idle_connection_asks_for_while_the_server_stops_is_closed() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    wire = Wire(application)
    transport = wire.connect()
    wire.context.ending = True
    transport.protocol.shut_down()
    transport.protocol.dataReceived(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await settle()
    assert transport.written.startswith(b"HTTP/1.1 101 ")
    assert (1012).to_bytes(2, "big") + b"The server is shutting down." in transport.written


@on_loop
async def test_waiting_for_connections_to_close_gives_up() -> None:
    wire = Wire(silent)
    transport = wire.connect()
    assert await wire.context.wait_closed(5) is False
    transport.protocol.abort()
    assert transport.ended == ["abort"]
    transport.lost()


# -- limits ----------------------------------------------------------------------------------------------


@on_loop
async def test_a_connection_beyond_the_limit_is_told_so() -> None:
    wire = Wire(silent, limit_connections=1)
    first = wire.connect()
    second = wire.connect()
    assert isinstance(first.protocol, ServerConnection)
    assert isinstance(second.protocol, OverloadedConnection)
    head, _, text = second.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nretry-after: 1\r\n" in head
    assert b"\r\nconnection: close" in head
    assert b"\r\ncontent-length: %d" % len(text) in head
    assert second.ended == ["half-close"]
    second.protocol.dataReceived(GET)
    assert wire.context.refusing == 1
    assert wire.refused == [("192.0.2.1:5000", 503, None)]
    await asyncio.sleep(4)
    second.protocol.dataReceived(GET)
    await asyncio.sleep(4)
    assert second.ended == ["half-close"], "it went on sending"
    await asyncio.sleep(2)
    assert second.ended == ["half-close", "close"]  # nothing was cut off
    second.lost()
    assert wire.context.refusing == 0
    first.lost()
    third = wire.connect()
    assert isinstance(third.protocol, ServerConnection)
    third.lost()


@on_loop
async def test_even_telling_is_bounded() -> None:
    wire = Wire(silent, limit_connections=1)
    made = [wire.connect() for _ in range(200)]
    assert made[-1] is None
    told = [transport for transport in made[1:] if transport is not None]
    assert len(told) == 100
    for transport in [made[0], *told]:
        transport.lost()


@on_loop
async def test_a_request_beyond_the_limit_of_concurrency_is_answered_503_and_the_connection_kept() -> None:
    application = Application()
    gate = asyncio.Event()

    async def gated(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await application(scope, receive, send)

    wire = Wire(gated, limit_concurrency=1)
    first, second = wire.connect(), wire.connect()
    first.protocol.dataReceived(GET)
    second.protocol.dataReceived(GET)
    await settle()
    assert second.written.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in second.written
    assert wire.refused == [("192.0.2.1:5000", 503, "/path")]
    gate.set()
    await settle()
    assert first.written.startswith(b"HTTP/1.1 200 ")
    second.protocol.dataReceived(GET)
    await settle()
    assert second.written.count(b"HTTP/1.1 200 ") == 1
    first.lost()
    second.lost()


@pytest.mark.parametrize("fields", [b"Content-Length: 5\r\n", b"Content-Length: 5\r\nExpect: 100-continue\r\n"])
@on_loop
async def test_the_body_of_a_request_beyond_the_limit_goes_nowhere(fields: bytes) -> None:
    wire = Wire(silent, limit_concurrency=1)
    busy = wire.connect()
    busy.protocol.dataReceived(GET)
    await settle()
    transport = wire.connect()
    transport.protocol.dataReceived(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
    assert transport.written.count(b"HTTP/1.1 503 ") == 1
    if b"Expect" in fields:
        assert transport.ended == ["half-close"]  # nobody could tell the body from the next request
    else:
        transport.protocol.dataReceived(b"12345")
        transport.protocol.dataReceived(GET)
        assert transport.written.count(b"HTTP/1.1 503 ") == 2
    transport.lost()
    busy.lost()
    await settle()


# -- what requests are told about their connection ---------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "host", "client", "server", "trusted"),
    [
        (CLIENT, HERE, ["192.0.2.1", 5000], ["192.0.2.2", 80], False),
        (IPv4Address("TCP", "127.0.0.1", 1), HERE, ["127.0.0.1", 1], ["192.0.2.2", 80], True),
        (IPv4Address("TCP", "127.8.9.1", 1), HERE, ["127.8.9.1", 1], ["192.0.2.2", 80], True),
        (IPv6Address("TCP", "::1", 1), IPv6Address("TCP", "::1", 80), ["::1", 1], ["::1", 80], True),
        (IPv6Address("TCP", "2001:db8::1", 1), HERE, ["2001:db8::1", 1], ["192.0.2.2", 80], False),
        (IPv6Address("TCP", "::ffff:127.0.0.1", 1), HERE, ["127.0.0.1", 1], ["192.0.2.2", 80], True),
        (CLIENT, IPv6Address("TCP", "::ffff:192.0.2.2", 80), ["192.0.2.1", 5000], ["192.0.2.2", 80], False),
        (UNIXAddress(None), UNIXAddress("/run/a.sock"), None, ["/run/a.sock", None], True),
        (UNIXAddress(b"/tmp/c\xff"), UNIXAddress(b"/run/\xff"), None, ["/run/\udcff", None], True),
        (UNIXAddress(None), UNIXAddress(None), None, None, True),
        (None, None, None, None, False),
    ],
)
def test_20_client_and_server(peer: Any, host: Any, client: Any, server: Any, trusted: bool) -> None:
    info = connection_info(FakeTransport(peer, host), {}, TRUSTED)
    assert (info.client, info.server, info.trusted) == (client, server, trusted)
    assert info.client_text == (f"{client[0]}:{client[1]}" if client else None)


def test_14_the_scheme_is_that_of_the_transport() -> None:
    transport = FakeTransport()
    assert connection_info(transport, {}, TRUSTED).scheme == "http"
    transport.client_tls = True
    assert connection_info(transport, {}, TRUSTED).scheme == "https"
    transport.client_tls = False
    alsoProvides(transport, ISSLTransport)
    assert connection_info(transport, {}, TRUSTED).scheme == "https"


@pytest.mark.parametrize("hints", [False, True])
@on_loop
async def test_10_only_extensions_that_work_are_advertised(hints: bool) -> None:
    application = Application()
    wire = Wire(application, http1_early_hints=hints)
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    await settle()
    names = {"http.response.trailers", "http.response.zerocopysend"} | (
        {"http.response.early_hint"} if hints else set()
    )
    extensions = {**dict.fromkeys(names, {}), "http.response.pathsend": {"ranges": True}}
    assert application.scopes[0]["extensions"] == extensions
    transport.lost()


@on_loop
async def test_the_factory_negotiates_over_tls() -> None:
    factory = Wire(silent).factory
    verifyObject(IProtocolNegotiationFactory, factory)
    assert factory.acceptableProtocols() == [b"h2", b"http/1.1"]
    assert Wire(silent, http2=False).factory.acceptableProtocols() == [b"http/1.1"]


@on_loop
async def test_the_clock_keeps_the_date_right_with_one_timer() -> None:
    context = Wire(silent).context
    context.start_clock()
    first = context.defaults.block
    assert b"\r\ndate: " in first
    await asyncio.sleep(5)
    context.stop_clock()
    context.stop_clock()
    assert [handle for handle in context.loop._scheduled if not handle.cancelled()] == []  # type: ignore[attr-defined]


@on_loop
async def test_answers_of_the_server_do_not_pile_up_for_a_client_that_takes_none() -> None:
    wire = Wire(silent, limit_concurrency=1)
    wire.connect().protocol.dataReceived(GET)  # the only one that is served
    transport = wire.connect()
    transport.protocol.dataReceived(GET)
    assert transport.written.count(b"HTTP/1.1 503") == 1
    transport.producer.pauseProducing()
    for _ in range(100):
        if transport.reading:
            transport.protocol.dataReceived(GET * 10)
            await settle()
    assert not transport.reading
    assert transport.written.count(b"HTTP/1.1 503") == 1
    transport.producer.resumeProducing()
    await settle(100)
    assert transport.reading
    assert transport.written.count(b"HTTP/1.1 503") > 10
    for connection in list(wire.context.connections):
        connection.transport.lost()
    await settle()


@on_loop
async def test_pongs_do_not_pile_up_for_a_client_that_takes_none() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    transport = Wire(application).connect()
    transport.protocol.dataReceived(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await settle()
    transport.producer.pauseProducing()
    answered = len(transport.written)
    pong = 2 + 125
    for _ in range(100):
        if transport.reading:
            transport.protocol.dataReceived((text("a" * 32) + ping(b"x" * 125)) * 10)
            await settle()
    assert not transport.reading
    assert len(transport.written) == answered + pong
    transport.producer.resumeProducing()
    await settle()
    assert transport.reading
    assert len(transport.written) == answered + 10 * pong
    transport.lost()
    await settle()


# -- contexts of one connection's requests -----------------------------------------------------------------

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("connection_variable", default="untouched")


@on_loop
async def test_pipelined_requests_do_not_see_each_others_contextvars() -> None:
    """The next one begins by a call that the send() of the one before has scheduled."""
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set("leaked")
        await send(start())
        await send(body())

    transport = Wire(application).connect()
    transport.protocol.dataReceived(GET * 3)
    await settle()
    assert seen == ["untouched"] * 3
    transport.lost()

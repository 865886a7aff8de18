"""`daphne_ng.net.channels.http2`, and how ``connection`` decides for HTTP/2: on a fake transport and in virtual time."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest
from twisted.internet.interfaces import IHandshakeListener
from zope.interface.verify import verifyObject

from daphne_ng.asgi.exchange import Exchange
from daphne_ng.net.channels.connection import OverloadedConnection, ServerConnection
from daphne_ng.net.channels.http2 import Http2Channel
from daphne_ng.wire.http2.frames import INADEQUATE_SECURITY, NO_ERROR
from daphne_ng.wire.http2.preface import PREFACE, refusal
from tests.support.asgi import body, on_loop, settle, start
from tests.support.h2_client import Http2Client, Http2WebSocket
from tests.support.net import GET, Application, FakeTLS, FakeTransport, Pipe, Wire, dial, exchange, silent

SETTINGS = b"\x04\0\0\0\0\0"
"""Of every SETTINGS frame on a connection, what follows its length."""


def speaks_http2(transport: FakeTransport) -> bool:
    return transport.written[3:9] == SETTINGS


def client_bytes(*paths: str) -> bytes:
    """Return what a client sends that makes these requests at once."""

    class Tape(Pipe):
        data = b""

        def sendall(self, data: bytes) -> None:
            self.data += data

    tape: Any = Tape(FakeTransport())
    client = Http2Client(tape)
    for path in paths:
        client.request(path)
    return bytes(tape.data)


# -- prior knowledge -------------------------------------------------------------------------------------

HTTP2 = client_bytes("/path?q")


@pytest.mark.parametrize("cut", range(1, len(PREFACE) + 4))
@on_loop
async def test_the_preface_is_found_wherever_it_is_cut(cut: int) -> None:
    application = Application()
    transport = Wire(application).connect()
    transport.protocol.dataReceived(HTTP2[:cut])
    assert speaks_http2(transport) == (cut >= len(PREFACE))
    assert transport.ended == []
    transport.protocol.dataReceived(HTTP2[cut:])
    await settle()
    assert speaks_http2(transport)
    assert [scope["path"] for scope in application.scopes] == ["/path"]
    transport.lost()
    await settle()


@on_loop
async def test_the_preface_is_found_byte_by_byte() -> None:
    application = Application()
    transport = Wire(application).connect()
    for position in range(len(HTTP2)):
        transport.protocol.dataReceived(HTTP2[position : position + 1])
    await settle()
    assert speaks_http2(transport)
    assert application.scopes[0]["http_version"] == "2"
    transport.lost()
    await settle()


def deviations() -> list[bytes]:
    found = [PREFACE[:length] + other for length in range(24) for other in (b"X", b"\0", b"\r\n\r\n")]
    return [data for data in found if not PREFACE.startswith(data[:24])]


@pytest.mark.parametrize("bytewise", [False, True], ids=["at once", "byte by byte"])
@on_loop
async def test_whatever_else_begins_like_it_is_for_http1(bytewise: bool) -> None:
    wire, plain = Wire(Application()), Wire(Application(), h2c=False)
    for data in deviations():
        transport, expected = wire.connect(), plain.connect()
        for one in (transport, expected):
            step = 1 if bytewise else len(data)
            for position in range(0, len(data), step):
                one.protocol.dataReceived(data[position : position + step])
            one.protocol.readConnectionLost()
        await settle()
        assert (transport.written, transport.ended) == (expected.written, expected.ended), data
        assert not speaks_http2(transport)
        transport.lost()
        expected.lost()
    assert wire.refused == plain.refused


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"PATCH", b"PROPFIND", b"P", b"PR"])
@on_loop
async def test_a_request_that_comes_byte_by_byte_is_a_request(method: bytes) -> None:
    request = method + b" /path?q HTTP/1.1\r\nHost: test\r\n\r\n"
    answers = []
    for settings in ({}, {"h2c": False}):
        transport = Wire(Application(), **settings).connect()
        for byte in request:
            transport.protocol.dataReceived(bytes((byte,)))
        await settle()
        answers.append(transport.written)
        transport.lost()
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 ")


@on_loop
async def test_only_the_first_bytes_are_looked_at() -> None:
    transport = Wire(Application()).connect()
    transport.protocol.dataReceived(GET)
    await settle()
    assert vars(transport.protocol)["dataReceived"] == transport.protocol._channel.receive_data
    transport.protocol.dataReceived(PREFACE)
    await settle()
    assert transport.written.count(b"HTTP/1.1 200 ") == 1
    assert not transport.written.endswith(SETTINGS)
    assert transport.ended != []
    transport.lost()


@on_loop
async def test_without_h2c_the_preface_is_a_bad_request() -> None:
    transport = Wire(Application(), h2c=False).connect()
    transport.protocol.dataReceived(HTTP2)
    assert transport.written.startswith(b"HTTP/1.1 ")
    assert transport.ended != []
    transport.lost()


@on_loop
async def test_an_upgrade_to_h2c_is_ignored() -> None:
    transport = Wire(Application()).connect()
    transport.protocol.dataReceived(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    )
    await settle()
    assert transport.written.startswith(b"HTTP/1.1 200 ")
    transport.lost()


@on_loop
async def test_waiting_for_the_preface_has_the_time_limit_of_a_head() -> None:
    transport = Wire(Application(), head_timeout=20).connect()
    transport.protocol.dataReceived(PREFACE[:10])
    await asyncio.sleep(19)
    transport.protocol.dataReceived(PREFACE[10:20])
    assert transport.ended == []
    await asyncio.sleep(2)
    assert transport.ended == ["close"]
    assert transport.written == b""
    transport.lost()
    transport.protocol.dataReceived(PREFACE[20:])


@pytest.mark.parametrize("ending", ["lost", "eof", "shut down"])
@on_loop
async def test_a_connection_that_ends_before_the_preface_is_whole_is_forgotten(ending: str) -> None:
    wire = Wire(Application())
    transport = wire.connect()
    transport.protocol.dataReceived(PREFACE[:10])
    if ending == "eof":
        transport.protocol.readConnectionLost()
    elif ending == "shut down":
        transport.protocol.shut_down()
        await asyncio.sleep(3)
    assert transport.ended[:1] == ([] if ending == "lost" else ["close"])
    transport.lost()
    assert wire.context.connections == set()
    assert no_timers()


@on_loop
async def test_a_connection_that_turns_out_to_be_http2_while_the_server_stops_is_told() -> None:
    wire = Wire(Application())
    transport = wire.connect()
    transport.protocol.dataReceived(PREFACE[:10])
    wire.context.ending = True
    transport.protocol.shut_down()
    transport.protocol.dataReceived(PREFACE[10:] + bytes.fromhex("000000040000000000"))
    await settle()
    assert bytes.fromhex("0000080700000000007fffffff00000000") in transport.written


def no_timers() -> bool:
    loop: Any = asyncio.get_running_loop()
    return not [handle for handle in loop._scheduled if not handle.cancelled()]


# -- TLS -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@on_loop
async def test_what_tls_has_negotiated_is_spoken(told: bool) -> None:
    application = Application()
    wire = Wire(application)
    transport = wire.connect(FakeTLS(b"h2"))
    verifyObject(IHandshakeListener, transport.protocol)
    assert transport.written == b""
    transport.shake_hands(told)
    assert speaks_http2(transport) == told, "our settings need not wait for the client"
    client = dial(transport)
    client.request("/path?q")
    await exchange(client)
    assert client.responses[1].body == b"hello"
    (scope,) = application.scopes
    assert (scope["scheme"], scope["http_version"], scope["path"]) == ("https", "2", "/path")
    transport.lost()


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("negotiated", [b"http/1.1", None])
@on_loop
async def test_other_tls_connections_are_http1(negotiated: bytes | None, told: bool) -> None:
    transport = Wire(Application()).connect(FakeTLS(negotiated))
    transport.shake_hands(told)
    transport.protocol.dataReceived(GET)
    await settle()
    assert transport.written.startswith(b"HTTP/1.1 200 ")
    transport.lost()


@on_loop
async def test_with_tls_nothing_but_the_negotiation_counts() -> None:
    transport = Wire(Application()).connect(FakeTLS(b"http/1.1"))
    transport.shake_hands()
    transport.protocol.dataReceived(HTTP2)
    assert transport.written.startswith(b"HTTP/1.1 ")
    transport.lost()


@on_loop
async def test_without_http2_tls_is_http1_whatever_was_negotiated() -> None:
    transport = Wire(Application(), http2=False).connect(FakeTLS(b"h2"))
    transport.shake_hands()
    assert "dataReceived" in vars(transport.protocol)
    transport.protocol.dataReceived(GET)
    await settle()
    assert transport.written.startswith(b"HTTP/1.1 200 ")
    transport.lost()


@on_loop
async def test_http2_below_tls_1_2_is_refused() -> None:
    wire = Wire(Application(), head_timeout=20, close_timeout=5)
    transport = wire.connect(FakeTLS(b"h2", 0x0302))
    transport.shake_hands()
    assert transport.written == refusal(INADEQUATE_SECURITY, "HTTP/2 needs TLS 1.2 or later.")
    assert transport.ended == ["close"]
    transport.protocol.dataReceived(HTTP2)
    await settle()
    transport.lost()
    assert no_timers()


@on_loop
async def test_a_handshake_that_is_never_complete_has_a_time_limit() -> None:
    transport = Wire(Application(), head_timeout=20, tls_handshake_timeout=10).connect(FakeTLS(b"h2"))
    await asyncio.sleep(9)
    assert transport.ended == []
    await asyncio.sleep(2)
    assert transport.ended == ["abort"]
    transport.lost()
    transport.protocol.handshakeCompleted()
    assert no_timers()


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@on_loop
async def test_after_a_handshake_the_time_limit_is_that_of_a_request(told: bool) -> None:
    transport = Wire(Application(), head_timeout=20, tls_handshake_timeout=10).connect(FakeTLS(None))
    transport.shake_hands(told)
    await asyncio.sleep(19)
    assert transport.ended == []
    await asyncio.sleep(2)
    assert transport.ended == ["close"]
    transport.lost()


@on_loop
async def test_a_handshake_may_take_for_ever_if_the_setting_says_so() -> None:
    transport = Wire(Application(), head_timeout=0, tls_handshake_timeout=0).connect(FakeTLS(None))
    await asyncio.sleep(1000)
    assert transport.ended == []
    transport.lost()


# -- connections beyond the limit ------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("negotiated", [b"h2", b"http/1.1", None])
@on_loop
async def test_a_connection_beyond_the_limit_is_told_so_in_its_protocol(negotiated: bytes | None, told: bool) -> None:
    wire = Wire(silent, limit_connections=1)
    first = wire.connect()
    transport = wire.connect(FakeTLS(negotiated))
    assert isinstance(transport.protocol, OverloadedConnection)
    assert transport.written == b""
    transport.shake_hands(told)
    for _ in range(2):
        transport.protocol.dataReceived(b"whatever the client says")
    if negotiated == b"h2":
        assert transport.written == refusal(NO_ERROR, "The server is at its limit of connections.")
    else:
        assert transport.written.startswith(b"HTTP/1.1 503 ")
    assert transport.ended == ["close"]
    assert wire.refused == [("192.0.2.1:5000", 503, None)]
    await asyncio.sleep(6)
    assert transport.ended == ["close", "close"]  # nothing was cut off
    transport.lost()
    assert wire.context.refusing == 0
    first.lost()
    assert no_timers()


@on_loop
async def test_a_client_beyond_the_limit_reads_a_goaway_that_names_no_stream() -> None:
    wire = Wire(silent, limit_connections=1)
    first = wire.connect()
    transport = wire.connect(FakeTLS(b"h2"))
    transport.shake_hands()
    client = dial(transport)
    client.request("/")
    await exchange(client)
    assert client.goaway == (NO_ERROR, 0)
    transport.lost()
    first.lost()


@on_loop
async def test_a_connection_beyond_the_limit_that_never_shakes_hands_is_dropped() -> None:
    wire = Wire(silent, limit_connections=1, head_timeout=10)
    first = wire.connect()
    transport = wire.connect(FakeTLS(b"h2"))
    await asyncio.sleep(9)
    assert transport.ended == []
    await asyncio.sleep(2)
    assert transport.ended == ["abort"]
    transport.lost()
    first.lost()


# -- the channel -----------------------------------------------------------------------------------------


@on_loop
async def test_requests_share_what_is_known_of_their_connection() -> None:
    application = Application()
    wire = Wire(application)
    transport = wire.connect()
    client = dial(transport)
    streams = [client.request(f"/{number}") for number in range(3)]
    await exchange(client)
    assert [client.responses[stream].body for stream in streams] == [b"hello"] * 3
    assert wire.records == [(200, 5)] * 3
    for scope in application.scopes:
        assert scope["client"] == ["192.0.2.1", 5000]
        assert scope["server"] == ["192.0.2.2", 80]
        assert set(scope["extensions"]) == {
            *("http.response.trailers", "http.response.early_hint"),
            *("http.response.pathsend", "http.response.zerocopysend"),
        }
    assert isinstance(transport.protocol, ServerConnection)
    assert isinstance(transport.protocol._channel, Http2Channel)
    assert wire.context.connections == {transport.protocol}
    transport.lost()
    assert wire.context.connections == set()
    assert no_timers()


@on_loop
async def test_a_lost_connection_ends_every_stream() -> None:
    wire = Wire(silent)
    transport = wire.connect()
    client = dial(transport)
    for _ in range(3):
        client.request("/")
    await exchange(client)
    assert len(wire.runner.exchanges) == 3
    transport.lost()
    await settle()
    assert not wire.runner.exchanges
    assert wire.records == [(None, 0)] * 3
    assert no_timers()


@pytest.mark.parametrize("ending", ["lost", "reset"])
@on_loop
async def test_send_waits_for_the_window_and_raises_when_the_stream_is_gone(ending: str) -> None:
    outcomes: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            while True:
                await send(body(b"x" * 10_000, more=True))
                outcomes.append("sent")
        except OSError as error:
            outcomes.append(type(error).__name__)
        await asyncio.sleep(1)

    wire = Wire(application)
    transport = wire.connect()
    client = dial(transport, acknowledge=False)
    stream = client.request("/")
    await exchange(client)
    # 65 535 bytes of window, and 64 KiB that wait for more.
    assert outcomes == ["sent"] * 14
    assert len(client.responses[stream].body) == 65535
    if ending == "lost":
        transport.lost()
    else:
        client.h2.reset_stream(stream)
        client.flush()
    await settle()
    assert outcomes[14:] == ["ClientDisconnected"]
    await asyncio.sleep(2)
    assert not wire.runner.exchanges
    if ending == "reset":
        transport.lost()
    assert no_timers()


@on_loop
async def test_what_is_written_in_one_turn_goes_out_in_one_piece() -> None:
    writes: list[int] = []

    class Counting(FakeTransport):
        def write(self, data: bytes) -> None:
            writes.append(len(data))
            super().write(data)

    wire = Wire(Application())
    transport = wire.connect(Counting())
    client = dial(transport)
    await exchange(client)
    writes.clear()
    data = b""
    streams = [1, 3, 5, 7]
    client.flush = lambda: None  # type: ignore[method-assign]
    for _ in streams:
        client.request("/")
    data = client.h2.data_to_send()
    transport.protocol.dataReceived(data)
    await settle()
    del client.flush
    await exchange(client)
    assert [client.responses[stream].body for stream in streams] == [b"hello"] * 4
    assert len(writes) <= 2


@on_loop
async def test_nothing_more_is_written_while_the_transport_is_full() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        for _ in range(40):
            await send(body(b"x" * 10_000, more=True))
        await send(body())

    wire = Wire(application)
    transport = wire.connect()
    client = dial(transport, settings={})
    client.h2.increment_flow_control_window(1 << 20)
    transport.producer.pauseProducing()
    stream = client.request("/")
    client.h2.increment_flow_control_window(1 << 20, stream)
    client.flush()
    before = len(transport.written)
    await settle(100)
    assert len(transport.written) - before < 1000
    transport.producer.resumeProducing()
    await exchange(client)
    assert len(client.responses[stream].body) > 60_000
    for _ in range(30):
        await exchange(client)
    assert len(client.responses[stream].body) == 400_000
    assert client.responses[stream].ended
    transport.lost()


@on_loop
async def test_a_client_that_reads_nothing_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wire = Wire(silent, write_timeout=60)
    transport = wire.connect()
    client = dial(transport)
    client.request("/")
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
async def test_a_client_that_closes_its_half_disconnects() -> None:
    wire = Wire(silent)
    transport = wire.connect()
    client = dial(transport)
    client.request("/")
    await exchange(client)
    transport.protocol.readConnectionLost()
    await settle()
    assert not wire.runner.exchanges
    assert transport.ended == ["close"]
    transport.lost()


@on_loop
async def test_shutting_down_serves_what_has_begun() -> None:
    gate = asyncio.Event()
    inner = Application()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await inner(scope, receive, send)

    wire = Wire(application)
    transport = wire.connect()
    client = dial(transport)
    stream = client.request("/")
    await exchange(client)
    transport.protocol.shut_down()
    await exchange(client)
    assert client.goaway is not None
    assert transport.ended == []
    gate.set()
    await exchange(client)
    assert client.responses[stream].body == b"hello"
    await asyncio.sleep(1)
    assert transport.ended[:1] == ["half-close"], "so that the client's last frames do not destroy ours"
    transport.lost()


@on_loop
async def test_an_idle_connection_that_is_shut_down_is_closed() -> None:
    transport = Wire(Application()).connect()
    client = dial(transport)
    await exchange(client)
    transport.protocol.shut_down()
    await asyncio.sleep(10)
    await exchange(client)
    assert client.goaway == (NO_ERROR, 0)
    assert transport.ended[:1] == ["half-close"]
    transport.lost()


@on_loop
async def test_shutting_down_closes_the_websockets() -> None:
    application = WebSocketApplication()
    transport = Wire(application).connect()
    client = dial(transport)
    await exchange(client)
    socket = await open_websocket(client)
    transport.protocol.shut_down()
    await exchange(client)
    event = socket.event()
    assert event.code == 1012
    socket.close(1012)
    await exchange(client)
    assert socket.response.ended
    assert application.codes == [1012]
    transport.lost()


# -- logs ------------------------------------------------------------------------------------------------


@on_loop
async def test_a_refused_request_is_reported() -> None:
    wire = Wire(Application(), request_line_max_bytes=100)
    transport = wire.connect()
    client = dial(transport)
    stream = client.request("/" + "x" * 200)
    await exchange(client)
    assert client.responses[stream].status == 414
    assert [refusal[:2] for refusal in wire.refused] == [("192.0.2.1:5000", 414)]
    transport.lost()


@on_loop
async def test_a_connection_that_breaks_the_protocol_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    transport = Wire(Application()).connect()
    client = dial(transport)
    await exchange(client)
    transport.protocol.dataReceived(b"\0\0\x04\0\0\0\0\0\0data")  # DATA on stream 0
    transport.protocol.dataReceived(b"whatever")
    await exchange(client)
    assert client.goaway is not None
    assert client.goaway[0] == 1
    lines = [record.getMessage() for record in caplog.records if "HTTP/2 connection" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("Ended an HTTP/2 connection from 192.0.2.1:5000: ")
    transport.lost()


@on_loop
async def test_a_body_shorter_than_announced_is_an_error_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, (b"content-length", b"10")))
        await send(body(b"short"))

    transport = Wire(application).connect()
    client = dial(transport)
    stream = client.request("/")
    await exchange(client)
    assert client.responses[stream].reset is not None
    assert "The application's body ended 5 bytes before its Content-Length; the stream was reset" in caplog.text
    assert transport.ended == []
    transport.lost()


# -- WebSockets ------------------------------------------------------------------------------------------


class WebSocketApplication:
    """Says back what it hears, and keeps the codes of the ends."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.codes: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-a", b"1")]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        self.codes.append(message["code"])


async def open_websocket(client: Http2Client, *fields: tuple[bytes, bytes]) -> Http2WebSocket:
    # It reads for the answer, which needs turns of the loop: so the head goes first.
    wait, client.wait = client.wait, lambda condition, what: None  # type: ignore[method-assign]
    socket = Http2WebSocket(client, "/chat", *fields)
    client.wait = wait  # type: ignore[method-assign]
    await exchange(client)
    return socket


@on_loop
async def test_a_websocket_over_a_stream() -> None:
    application = WebSocketApplication()
    wire = Wire(application)
    transport = wire.connect()
    client = dial(transport)
    await exchange(client)
    socket = await open_websocket(client, (b"sec-websocket-protocol", b"a, b"))
    assert socket.response.status == 200
    assert socket.response.field(b"x-a") == b"1"
    assert socket.response.field(b"sec-websocket-accept") is None
    (scope,) = application.scopes
    assert (scope["type"], scope["http_version"], scope["scheme"], scope["path"]) == ("websocket", "2", "ws", "/chat")
    assert scope["subprotocols"] == ["a", "b"]
    socket.send("hello")
    await exchange(client)
    assert socket.message() == "hello"
    # A request beside it.
    socket.close()
    await exchange(client)
    assert socket.event().code == 1000
    assert socket.response.ended
    assert application.codes == [1000]
    assert transport.protocol._channel._tunnels == set()
    transport.lost()
    assert no_timers()


@on_loop
async def test_a_websocket_whose_stream_is_reset_or_whose_connection_is_lost() -> None:
    application = WebSocketApplication()
    wire = Wire(application)
    transport = wire.connect()
    client = dial(transport)
    await exchange(client)
    first, _second = await open_websocket(client), await open_websocket(client)
    client.h2.reset_stream(first.stream)
    client.flush()
    await exchange(client)
    assert application.codes == [1006]
    transport.lost()
    await settle()
    assert application.codes == [1006] * 2
    assert not wire.runner.exchanges
    assert no_timers()


@on_loop
async def test_a_websocket_whose_client_answers_no_ping_is_cancelled() -> None:
    application = WebSocketApplication()
    transport = Wire(application, ping_interval=20, ping_timeout=30).connect()
    client = dial(transport)
    await exchange(client)
    socket = await open_websocket(client)
    await asyncio.sleep(51)
    await exchange(client)
    assert socket.response.reset == 8  # CANCEL (RFC 8441 section 5)
    assert application.codes == [1006]
    assert transport.ended == []
    transport.lost()


# -- the end of the application's task -------------------------------------------------------------------


@pytest.mark.parametrize("way", ["returns", "cancelled before it began", "declined"])
@on_loop
async def test_the_end_of_a_task_is_told_once(way: str) -> None:
    wire = Wire(silent)
    told: list[str] = []
    begun: list[Exchange] = []
    port: Any = _Port()
    if way == "declined":
        wire.context.start_application = begun.append
    else:
        begin = wire.context.start_application
        wire.context.start_application = lambda exchange: (begun.append(exchange), begin(exchange))  # type: ignore
    from tests.support.asgi import connection, request_head

    sink = wire.context.begin(request_head(), connection(), port, lambda: told.append("ended"))
    assert sink is not None
    if way == "returns":
        await settle()
        assert told == []
        sink.disconnected("the client left")
        await settle()
    else:
        begun[0].cancel("the server is shutting down")
    assert told == ["ended"]
    begun[0].cancel("again")
    await settle()
    assert told == ["ended"]


class _Port:
    body_bytes_sent = 0

    def when_flushed(self, report: Any) -> bool:
        return False

    def start(self, *arguments: Any) -> None:
        pass

    def reset(self, reason: str) -> None:
        pass


@pytest.mark.parametrize("ending", ["lost", "idle"])
@on_loop
async def test_nothing_is_left_for_the_garbage_collector(ending: str) -> None:
    names = ("Http2Channel", "Http2Connection", "Http2Stream", "ServerConnection", "HttpExchange", "WriteFlow")
    gc.collect()
    gc.disable()
    # Other tests of the same process may have kept some.
    before = {id(thing) for thing in gc.get_objects() if type(thing).__name__ in names}
    try:
        wire = Wire(silent if ending == "lost" else Application())
        transport = wire.connect()
        client = dial(transport)
        client.request("/")
        await exchange(client)
        transport.lost()
        await settle()
        transport.protocol = None
        del client
        transport.producer = None
        found = [thing for thing in gc.get_objects() if type(thing).__name__ in names]
        assert [type(thing).__name__ for thing in found if id(thing) not in before] == []
    finally:
        gc.enable()

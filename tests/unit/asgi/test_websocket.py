"""`daphne_ng.asgi.websocket`: one WebSocket between a strict port and scripted applications.

Numbers in names are those of the ASGI checklist: core 1-11, WebSocket 30-40, extensions 47-54.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from typing import Any

import pytest

from daphne_ng.errors import BodyLengthMismatch, ClientDisconnected, InvalidHeader, TransportClosed, UnexpectedMessage
from tests.support.asgi import Bridge, StrictWebSocketPort, on_loop, request_head, settle

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
DENIAL = {"type": "websocket.http.response.start", "status": 401, "headers": []}


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def text(message: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": message}


def denial_body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "websocket.http.response.body", "body": data, "more_body": more}


def errors_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


class Held:
    """An application that hands its callables to the test and ends when told."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self.end = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        self.scope, self.receive, self.send = scope, receive, send
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def hold(*subprotocols: str, head: Any = None, **settings: Any) -> tuple[Held, Bridge, Any, StrictWebSocketPort]:
    """Start an exchange whose application waits for the test."""
    application = Held()
    bridge = Bridge(application, **settings)
    exchange, port = bridge.begin_websocket(*subprotocols, head=head)
    await settle()
    return application, bridge, exchange, port


async def opened(**settings: Any) -> tuple[Held, Bridge, Any, StrictWebSocketPort]:
    """The same, accepted."""
    application, bridge, exchange, port = await hold(**settings)
    assert await application.receive() == CONNECT
    await application.send(ACCEPT)
    return application, bridge, exchange, port


async def finish(application: Held, exchange: Any) -> None:
    """Let the application end, and its exchange with it."""
    application.end.set()
    await settle()
    assert exchange.task is None
    assert not exchange._runner.exchanges


async def run(application: Any, before: Any = None) -> tuple[Bridge, Any, StrictWebSocketPort]:
    """Run an application to its end."""
    bridge = Bridge(application)
    exchange, port = bridge.begin_websocket()
    await settle()
    if before is not None:
        before(exchange, port)
        await settle()
    assert exchange.task is None
    return bridge, exchange, port


# -- core ------------------------------------------------------------------------------------------------


@on_loop
async def test_02_the_scope_names_its_type_and_version() -> None:
    application, _, exchange, _ = await hold("chat")
    assert application.scope["type"] == "websocket"
    assert application.scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert application.scope["subprotocols"] == ["chat"]
    await application.send(CLOSE)
    await finish(application, exchange)


@on_loop
async def test_03_the_application_is_called_once_per_socket() -> None:
    application, bridge, exchange, port = await opened()
    await application.send(text("x"))
    await application.send(CLOSE)
    await finish(application, exchange)
    assert application.calls == 1
    assert bridge.actions == ["connecting", "connected", "disconnected"]
    assert port.names == ["accept", "message", "close"]


BAD_ANYWHERE: list[Any] = [
    {},
    None,
    5,
    {"type": None},
    {"type": b"websocket.accept"},
    {"type": "nonsense"},
    {"type": "http.response.start", "status": 200},
    {"type": "websocket.receive", "text": "x"},
]


@pytest.mark.parametrize(
    "message",
    [
        *BAD_ANYWHERE,
        text("before the accept"),
        {**ACCEPT, "subprotocol": "not offered"},
        {**ACCEPT, "subprotocol": b"chat"},
        {**ACCEPT, "subprotocol": 0},
        {**ACCEPT, "subprotocol": b""},
        {**ACCEPT, "headers": None},
        {**ACCEPT, "headers": 7},
        {"type": "websocket.http.response.start"},
        {**DENIAL, "status": "401"},
        {**DENIAL, "status": 101},
        {**DENIAL, "headers": None},
        denial_body(b"x"),
    ],
    ids=repr,
)
@on_loop
async def test_05_a_message_that_is_not_allowed_before_the_accept_raises_out_of_send(message: Any) -> None:
    application, bridge, exchange, port = await hold("chat")
    with pytest.raises(UnexpectedMessage):
        await application.send(message)
    assert port.calls == port.response.calls == []
    assert bridge.actions == ["connecting"]
    await application.send(ACCEPT)
    await application.send(CLOSE)
    await finish(application, exchange)


@pytest.mark.parametrize(
    "message",
    [
        *BAD_ANYWHERE,
        ACCEPT,
        DENIAL,
        denial_body(b"x"),
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": None, "bytes": None},
        {"type": "websocket.send", "text": "x", "bytes": b"x"},
        {"type": "websocket.send", "text": "", "bytes": b""},
        {"type": "websocket.send", "text": b"x"},
        {"type": "websocket.send", "text": 5},
        {"type": "websocket.send", "bytes": "x"},
        {"type": "websocket.send", "bytes": 5},
        {"type": "websocket.send", "bytes": [1]},
        text("\ud800"),
        {"type": "websocket.send", "text": type("Text", (str,), {})("\ud800")},
        *(
            {**CLOSE, "code": code}
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, -1, True, "1000", 1e3)
        ),
        {**CLOSE, "reason": b"x"},
        {**CLOSE, "reason": 5},
        {**CLOSE, "reason": "\ud800"},
    ],
    ids=repr,
)
@on_loop
async def test_05_a_message_that_is_not_allowed_after_the_accept_raises_out_of_send(message: Any) -> None:
    application, _, exchange, port = await opened()
    with pytest.raises(UnexpectedMessage):
        await application.send(message)
    await application.send(text("still possible"))
    assert port.names == ["accept", "message"]
    await application.send(CLOSE)
    await finish(application, exchange)


@pytest.mark.parametrize("message", BAD_ANYWHERE, ids=repr)
@on_loop
async def test_05_what_asgi_does_not_know_raises_after_the_end_too(message: Any) -> None:
    application, _, exchange, _ = await opened()
    await application.send(CLOSE)
    with pytest.raises(UnexpectedMessage):
        await application.send(message)
    await finish(application, exchange)


@on_loop
async def test_06_extra_keys_never_raise() -> None:
    application, _, exchange, port = await hold()
    for message in (ACCEPT, text("x"), CLOSE):
        await application.send({**message, "future": object()})
    assert port.names == ["accept", "message", "close"]
    await finish(application, exchange)


@on_loop
async def test_08_a_close_after_the_end_is_ignored() -> None:
    for code in (None, 5):
        application, bridge, exchange, port = await opened()
        await application.send(CLOSE)
        await application.send({**CLOSE, "code": code})
        await finish(application, exchange)
        assert port.names == ["accept", "close"]
        assert bridge.actions[1:] == ["connected", "disconnected"]

    application, _, exchange, port = await opened()
    port.leave(exchange, 1001)
    await application.send(CLOSE)
    assert port.names == ["accept"]
    await finish(application, exchange)


@on_loop
async def test_09_the_servers_own_exception_may_escape_unlogged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await receive()
        await receive()
        send.__self__._late_sends = 0
        await send(text("too late"))

    bridge, _, port = await run(application, lambda exchange, port: port.leave(exchange))
    assert port.names == ["accept"]
    assert bridge.actions[-1] == "disconnected"
    assert caplog.records == []


@on_loop
async def test_09_another_exception_made_of_it_is_a_line_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await send(CLOSE)
        try:
            await send(text("x"))
        except OSError:
            raise RuntimeError("framework") from None

    caplog.set_level(logging.INFO)
    await run(application)
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("Application ended with RuntimeError: framework (in ")
    assert ") after the end of WebSocket /" in record.getMessage()


@pytest.mark.parametrize("how", ["receives", "sends"])
@on_loop
async def test_09_an_application_that_fails_when_the_client_has_left_is_a_warning_and_no_traceback(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await receive()
        message = await receive()
        assert message["type"] == "websocket.disconnect"
        if how == "sends":
            send.__self__._late_sends = 0
            with contextlib.suppress(OSError):
                await send(text("too late"))
        raise LookupError("in the handler of the disconnect")

    caplog.set_level(logging.INFO)
    await run(application, lambda exchange, port: port.leave(exchange))
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert record.getMessage().startswith("Application ended with LookupError: in the handler of the disconnect (in ")
    assert "after the end of WebSocket /" in record.getMessage()


@on_loop
async def test_09_an_application_that_fails_after_an_end_of_its_own_is_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await send(CLOSE)
        await receive()
        await receive()
        raise LookupError("in the handler of the disconnect")

    await run(application)
    [record] = errors_in(caplog)
    assert record.getMessage().startswith("Exception inside application: ")


# -- the handshake -----------------------------------------------------------------------------------------


@on_loop
async def test_31_connect_comes_first_and_nothing_goes_out_until_the_accept() -> None:
    application, bridge, exchange, port = await hold()
    assert await application.receive() == CONNECT
    waiting = asyncio.ensure_future(application.receive())
    await asyncio.sleep(4)
    assert port.calls == port.response.calls == []
    assert not waiting.done()
    await application.send(ACCEPT)
    assert port.calls == [("accept", None, [])]
    assert bridge.actions == ["connecting", "connected"]
    port.deliver(exchange, "hi")
    assert await waiting == {"type": "websocket.receive", "text": "hi"}
    await finish(application, exchange)


@on_loop
async def test_31_the_log_hears_of_it_before_the_application_runs() -> None:
    seen: list[list[str]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(list(bridge.actions))

    bridge = Bridge(application)
    bridge.begin_websocket()
    assert bridge.actions == ["connecting"]
    await settle()
    assert seen == [["connecting"]]


@pytest.mark.parametrize(("given", "taken"), [("soap", "soap"), ("", None), (None, None)])
@on_loop
async def test_32_the_accept_names_a_subprotocol_and_headers(given: str | None, taken: str | None) -> None:
    application, _, exchange, port = await hold("chat", "soap")
    application.scope["subprotocols"].clear()  # its own list
    fields = [(b"X-B", b"1"), (b"x-a", b"2"), (b"X-B", b"3")]
    await application.send({**ACCEPT, "subprotocol": given, "headers": (pair for pair in fields)})
    assert port.calls == [("accept", taken, fields)]
    await finish(application, exchange)


@pytest.mark.parametrize(
    "field",
    [(b"sec-websocket-protocol", b"chat"), (b"Sec-WebSocket-Protocol", b"x"), (b"a", b"\n"), (b"a",), 5, b"abc"],
)
@on_loop
async def test_32_a_refused_header_raises_and_another_accept_is_possible(field: Any) -> None:
    application, bridge, exchange, port = await hold("chat")
    with pytest.raises(InvalidHeader):
        await application.send({**ACCEPT, "headers": [(b"fine", b"1"), field]})
    assert port.calls == []
    assert not exchange.accepted
    assert bridge.actions == ["connecting"]
    await application.send({**ACCEPT, "subprotocol": "chat"})
    assert exchange.accepted
    await finish(application, exchange)


@pytest.mark.parametrize("message", [CLOSE, {**CLOSE, "code": 4003, "reason": "no"}, {**CLOSE, "code": 403}])
@on_loop
async def test_33_a_close_before_the_accept_is_403(message: Any) -> None:
    application, bridge, exchange, port = await hold()
    await application.receive()
    await application.send(message)
    assert port.calls == []
    [(_, status, headers, body, end, trailers)] = port.response.calls
    assert (status, headers, end, trailers) == (403, [(b"content-type", b"text/plain; charset=utf-8")], True, False)
    assert body == b"403 Forbidden\n"
    assert await application.receive() == disconnect(1006)
    assert (exchange.status, exchange.code, exchange.accepted) == (403, 1006, False)
    for late in (DENIAL, ACCEPT, text("x")):
        with pytest.raises(ClientDisconnected):
            await application.send(late)
    await application.send(CLOSE)
    await finish(application, exchange)
    assert bridge.actions == ["connecting", "rejected"]


# -- messages ------------------------------------------------------------------------------------------------


@on_loop
async def test_34_a_received_message_has_one_of_text_and_bytes() -> None:
    application, _, exchange, port = await opened()
    for message in ("é", b"\xff", "", b""):
        port.deliver(exchange, message)
    assert [await application.receive() for _ in range(4)] == [
        {"type": "websocket.receive", "text": "é"},
        {"type": "websocket.receive", "bytes": b"\xff"},
        {"type": "websocket.receive", "text": ""},
        {"type": "websocket.receive", "bytes": b""},
    ]
    assert exchange.bytes_received == 3
    await finish(application, exchange)


@on_loop
async def test_35_a_sent_message_has_one_of_text_and_bytes_and_may_be_empty() -> None:
    application, _, exchange, port = await opened()
    await application.send(text("é"))
    await application.send({"type": "websocket.send", "bytes": b"\xff", "text": None})
    await application.send({"type": "websocket.send", "text": "", "bytes": None})
    await application.send({"type": "websocket.send", "bytes": b""})
    await application.send({"type": "websocket.send", "bytes": bytearray(b"array")})
    await application.send({"type": "websocket.send", "bytes": memoryview(b"view")})
    await application.send(text(type("Text", (str,), {})("mine")))
    assert port.sent == ["é", b"\xff", "", b"", b"array", b"view", "mine"]
    assert exchange.bytes_sent == 16
    await finish(application, exchange)


@on_loop
async def test_concurrent_senders_wait_for_room_and_each_message_goes_whole() -> None:
    application, _, exchange, port = await opened()
    port.block()
    senders = [asyncio.ensure_future(application.send(text(str(number)))) for number in range(3)]
    await settle()
    assert port.waiting == 3
    assert port.sent == []
    senders[1].cancel()
    await settle()
    port.unblock()
    port.block()  # full again before anybody ran: all of them look again
    await settle()
    assert port.sent == []
    port.unblock()
    await asyncio.gather(senders[0], senders[2])
    assert port.sent == ["0", "2"]
    await finish(application, exchange)


@pytest.mark.parametrize("who", ["client", "application"])
@on_loop
async def test_40_a_sender_that_waits_for_room_hears_of_the_end(who: str) -> None:
    application, _, exchange, port = await opened()
    port.block()
    sender = asyncio.ensure_future(application.send(text("x")))
    await settle()
    if who == "client":
        port.leave(exchange)
    else:
        await application.send(CLOSE)
    with pytest.raises(ClientDisconnected):
        await sender
    assert port.sent == []
    await finish(application, exchange)


@on_loop
async def test_a_tight_loop_of_messages_gives_others_a_turn() -> None:
    application, _, exchange, port = await opened()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    for _ in range(5000):
        await application.send(text("small"))
    assert 3 <= turns <= 50
    sender = asyncio.ensure_future(application.send({"type": "websocket.send", "bytes": bytes(600_000)}))
    await asyncio.sleep(0)
    assert not sender.done()
    port.leave(exchange)
    with pytest.raises(ClientDisconnected):
        await sender
    task.cancel()
    await finish(application, exchange)


@on_loop
async def test_reading_pauses_while_the_application_does_not_receive_and_resumes() -> None:
    application, _, exchange, port = await opened(inbox_high_bytes=1200, inbox_low_bytes=600)
    assert port.deliver(exchange, b"x" * 100) is False
    assert port.deliver(exchange, "") is False
    assert port.deliver(exchange, b"y" * 400) is True
    assert "consumed" not in port.names
    await application.receive()
    assert "consumed" not in port.names
    await application.receive()  # 656 bytes are left
    assert "consumed" not in port.names
    await application.receive()
    assert port.names == ["accept", "consumed"]
    assert port.deliver(exchange, "") is False
    await application.receive()
    assert port.names == ["accept", "consumed"]
    await finish(application, exchange)


@on_loop
async def test_a_port_that_has_closed_hears_of_no_consumption() -> None:
    application, _, exchange, port = await opened(inbox_high_bytes=300, inbox_low_bytes=0)
    assert port.deliver(exchange, b"x" * 100) is True
    port.leave(exchange, 1000)
    assert await application.receive() == {"type": "websocket.receive", "bytes": b"x" * 100}
    assert await application.receive() == disconnect(1000)
    assert port.names == ["accept"]
    await finish(application, exchange)


@on_loop
async def test_concurrent_receivers_get_each_message_once() -> None:
    application, _, exchange, port = await opened()
    receivers = [asyncio.ensure_future(application.receive()) for _ in range(4)]
    await settle()
    port.deliver(exchange, "a")
    port.deliver(exchange, "b")
    await settle()
    assert sum(receiver.done() for receiver in receivers) == 2
    port.leave(exchange, 1001)
    messages = await asyncio.gather(*receivers)
    assert sorted(message.get("text", "-") for message in messages) == ["-", "-", "a", "b"]
    await finish(application, exchange)


@on_loop
async def test_a_cancelled_receive_loses_no_message() -> None:
    application, _, exchange, port = await opened()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(application.receive(), 1)
    assert exchange._inbox._waiters == []
    receiver = asyncio.ensure_future(application.receive())
    await settle()
    port.deliver(exchange, "x")
    receiver.cancel()  # woken, and cancelled before it could run
    with pytest.raises(asyncio.CancelledError):
        await receiver
    assert await application.receive() == {"type": "websocket.receive", "text": "x"}
    await finish(application, exchange)


# -- endings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (1006, ""), (4001, "bye"), (1009, "too big")])
@on_loop
async def test_37_what_came_before_the_close_comes_before_the_disconnect(code: int, reason: str) -> None:
    application, bridge, exchange, port = await opened()
    port.deliver(exchange, "a")
    port.deliver(exchange, "b")
    port.leave(exchange, code, reason)
    assert [(await application.receive()).get("text") for _ in range(2)] == ["a", "b"]
    for _ in range(3):
        assert await application.receive() == disconnect(code, reason)
    assert (exchange.code, exchange.reason) == (code, reason)
    assert bridge.actions == ["connecting", "connected", "disconnected"]
    await finish(application, exchange)
    assert port.names == ["accept"]


@on_loop
async def test_37_a_close_before_the_accept_is_a_disconnect_too() -> None:
    application, bridge, exchange, port = await hold()
    port.leave(exchange)
    assert await application.receive() == CONNECT
    assert await application.receive() == disconnect(1006)
    await application.send(ACCEPT)
    with pytest.raises(ClientDisconnected):
        await application.send(DENIAL)
    await finish(application, exchange)
    assert bridge.actions == ["connecting", "disconnected"]
    assert port.calls == port.response.calls == []


@on_loop
async def test_37_the_applications_own_close_is_a_disconnect_and_drops_what_waits() -> None:
    application, bridge, exchange, port = await opened()
    waiting = [asyncio.ensure_future(application.receive()) for _ in range(2)]
    await settle()
    await application.send({**CLOSE, "code": 4000, "reason": "enough"})
    for receiver in waiting:
        assert await receiver == disconnect(4000, "enough")
    await finish(application, exchange)

    application, bridge, exchange, port = await opened(inbox_high_bytes=300, inbox_low_bytes=0)
    port.deliver(exchange, b"x" * 100)
    await application.send({**CLOSE, "code": 4000, "reason": "enough"})
    assert exchange.message_received(b"late", 4) is False
    exchange.closed(1006, "late")
    for _ in range(2):
        assert await application.receive() == disconnect(4000, "enough")
    assert port.names == ["accept", "close"]
    assert bridge.actions == ["connecting", "connected", "disconnected"]
    await finish(application, exchange)


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({}, (1000, "")),
        ({"code": None, "reason": None}, (1000, "")),
        *(({"code": code}, (code, "")) for code in (1000, 1001, 1003, 1007, 1014, 3000, 4999)),
        ({"code": 4000, "reason": "ä" * 200}, (4000, "ä" * 200)),
    ],
    ids=repr,
)
@on_loop
async def test_38_a_close_carries_code_and_reason(more: Any, sent: Any) -> None:
    application, _, exchange, port = await opened()
    await application.send({**CLOSE, **more})
    assert port.calls[1:] == [("close", *sent)]
    assert await application.receive() == disconnect(*sent)
    await finish(application, exchange)


@on_loop
async def test_39_a_return_closes_with_1000(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)

    bridge, exchange, port = await run(application)
    assert port.calls[1:] == [("close", 1000, "")]
    assert bridge.actions == ["connecting", "connected", "disconnected"]
    assert (exchange.code, exchange.status) == (1000, None)
    assert caplog.records == []


@pytest.mark.parametrize(
    "error", [LookupError("secret"), SystemExit(3), asyncio.CancelledError(), ClientDisconnected()]
)
@on_loop
async def test_39_an_exception_closes_with_1011(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        raise error

    bridge, exchange, port = await run(application)
    assert port.calls[1:] == [("close", 1011, "")]
    [record] = errors_in(caplog)
    assert record.getMessage().startswith("Exception inside application: ")
    assert record.exc_info is not None
    assert bridge.actions[-1] == "disconnected"
    assert exchange.code == 1011


@on_loop
async def test_39_a_return_without_an_answer_is_500(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    bridge = Bridge(application)
    exchange, port = bridge.begin_websocket(head=request_head("GET", "/a\nb"))
    await settle()
    assert port.response.status == 500
    assert port.calls == []
    [record] = errors_in(caplog)
    assert record.getMessage().startswith("Application returned without accepting or closing WebSocket /a\\nb, ")
    assert bridge.actions == ["connecting", "rejected"]
    assert exchange.status == 500


@pytest.mark.parametrize("held", [False, True])
@on_loop
async def test_39_an_exception_before_the_answer_is_500(held: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if held:
            await send({**DENIAL, "headers": [(b"set-cookie", b"a=b")]})
        raise LookupError("secret")

    bridge, _, port = await run(application)
    assert port.response.status == 500
    assert b"secret" not in port.response.sent
    assert b"set-cookie" not in dict(port.response.calls[0][2])
    assert len(errors_in(caplog)) == 1
    assert bridge.actions == ["connecting", "rejected"]


@on_loop
async def test_39_an_exception_after_the_end_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await send(CLOSE)
        raise LookupError

    _, _, port = await run(application)
    assert port.calls[1:] == [("close", 1000, "")]
    assert len(errors_in(caplog)) == 1


@pytest.mark.parametrize("way", ["client", "close", "refuse", "deny", "expire"])
@on_loop
async def test_39_an_application_that_outlives_its_socket_is_ended(way: str, caplog: pytest.LogCaptureFixture) -> None:
    application, bridge, exchange, port = await (hold() if way in ("refuse", "deny", "expire") else opened())
    if way == "client":
        port.leave(exchange)
    elif way in ("close", "refuse"):
        await application.send(CLOSE)
    elif way == "deny":
        await application.send(DENIAL)
        await application.send(denial_body(b""))
    else:
        exchange.expired()
        caplog.clear()
    await asyncio.sleep(9.5)
    assert exchange.task is not None
    assert errors_in(caplog) == []
    await asyncio.sleep(1)
    assert exchange.task is None
    assert application.cancelled == 1
    [record] = errors_in(caplog)
    assert "Application instance for WebSocket /, 10.0 s old took too long to shut down" in record.getMessage()
    assert len(bridge.actions) == len(set(bridge.actions))


# A consumer of Channels handles one message after the other. An exception in one of them would keep it from the
# disconnect, in whose handler it cleans up.
@pytest.mark.parametrize("who", ["client", "application"])
@on_loop
async def test_an_application_that_receives_may_send_late_for_a_while(who: str) -> None:
    application, _, exchange, port = await opened()
    exchange.message_received("last", 4)
    if who == "client":
        port.leave(exchange, 1001)
        assert await application.receive() == {"type": "websocket.receive", "text": "last"}
    else:
        exchange.message_received("more", 4)
        await application.receive()
        await application.send(CLOSE)
    names = port.names
    before = asyncio.get_running_loop().time()
    await application.send(text("to nobody"))
    assert 0.01 <= asyncio.get_running_loop().time() - before < 5
    await application.send(ACCEPT)
    assert port.names == names
    assert port.sent == []
    assert (await application.receive())["type"] == "websocket.disconnect"
    for _ in range(64):
        await application.send(text("to nobody"))
    with pytest.raises(ClientDisconnected):
        await application.send(text("to nobody"))
    await finish(application, exchange)


@on_loop
async def test_late_sends_are_ignored_for_half_the_time_that_the_application_has() -> None:
    application, bridge, exchange, port = await opened()
    exchange.message_received("last", 4)
    await application.receive()
    port.leave(exchange)
    exchange._ended_at -= bridge.runner.config.application_close_timeout / 2
    with pytest.raises(ClientDisconnected):
        await application.send(text("to nobody"))
    await finish(application, exchange)


@pytest.mark.parametrize("kind", ["client", "application"])
@on_loop
async def test_40_sending_after_the_end_raises_an_os_error(kind: str) -> None:
    application, _, exchange, port = await opened()
    if kind == "client":
        port.leave(exchange, 1001)
    else:
        await application.send(CLOSE)
    for message in (text("x"), ACCEPT, {"type": "websocket.send"}):
        with pytest.raises(OSError) as caught:
            await application.send(message)
        assert isinstance(caught.value, ClientDisconnected)
        assert isinstance(caught.value, TransportClosed)
        assert str(caught.value)
    await finish(application, exchange)


@on_loop
async def test_an_accept_that_does_not_come_in_time_is_403(caplog: pytest.LogCaptureFixture) -> None:
    application, bridge, exchange, port = await hold()
    exchange.expired()
    assert port.response.status == 403
    assert b"did not accept the WebSocket in time" in port.response.sent
    [record] = errors_in(caplog)
    assert record.getMessage().startswith("Application did not accept in time: WebSocket /, ")
    assert await application.receive() == CONNECT
    assert await application.receive() == disconnect(1006)
    assert application.cancelled == 0
    assert bridge.actions == ["connecting", "rejected"]
    exchange.expired()
    exchange.closed(1006, "")
    await finish(application, exchange)
    assert len(port.response.calls) == 1


@on_loop
async def test_an_accept_that_came_in_time_does_not_expire() -> None:
    application, _, exchange, port = await opened()
    exchange.expired()
    await application.send(text("x"))
    assert port.names == ["accept", "message"]
    await finish(application, exchange)


@on_loop
async def test_giving_up_an_open_socket_closes_with_1012(caplog: pytest.LogCaptureFixture) -> None:
    application, bridge, exchange, port = await opened()
    exchange.cancel("the server is shutting down")
    assert port.calls[1:] == [("close", 1012, "the server is shutting down")]
    await settle()
    assert application.cancelled == 1
    assert exchange.task is None
    assert bridge.actions == ["connecting", "connected", "disconnected"]
    exchange.cancel("the server is shutting down")
    assert errors_in(caplog) == []


@on_loop
async def test_giving_up_before_the_accept_is_503() -> None:
    application, bridge, exchange, port = await hold()
    exchange.cancel("the server is shutting down")
    assert port.response.status == 503
    assert port.response.sent == b"503 Service Unavailable\nThe server is shutting down.\n"
    await settle()
    assert application.cancelled == 1
    assert bridge.actions == ["connecting", "rejected"]


@on_loop
async def test_one_given_up_before_its_first_step_is_logged_from_beginning_to_end() -> None:
    application = Held()
    bridge = Bridge(application)
    exchange, port = bridge.begin_websocket()
    exchange.cancel("the server is shutting down")
    await settle()
    assert application.calls == 0
    assert port.response.status == 503
    assert bridge.actions == ["connecting", "rejected"]
    assert not bridge.runner.exchanges


@on_loop
async def test_one_that_never_was_started_is_logged_from_beginning_to_end() -> None:
    bridge = Bridge(Held())
    exchange, port = bridge.begin_websocket(start=False)
    exchange.cancel("the server declined the request")
    assert port.response.status == 503
    assert bridge.actions == ["connecting", "rejected"]


@on_loop
async def test_without_a_record_function_nothing_is_recorded() -> None:
    bridge = Bridge(Held())
    bridge.runner.record_websocket = None
    exchange, port = bridge.begin_websocket()
    await settle()
    port.leave(exchange)
    exchange.cancel("the server is shutting down")
    await settle()
    assert bridge.actions == []


@on_loop
async def test_a_close_reported_while_the_accept_goes_out_is_the_end() -> None:
    application, bridge, exchange, port = await hold()
    accept = port.accept

    def failing(*arguments: Any) -> None:
        accept(*arguments)
        port.leave(exchange)

    port.accept = failing  # type: ignore[method-assign]
    await application.send(ACCEPT)
    with pytest.raises(ClientDisconnected):
        await application.send(text("x"))
    assert bridge.actions == ["connecting", "disconnected"]
    await finish(application, exchange)


@on_loop
async def test_what_one_socket_sets_in_its_context_is_not_there_for_the_next() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(variable.get())
        variable.set(1)
        await send(ACCEPT)

    await run(application)
    await run(application)
    assert seen == [0, 0]


# -- the extension websocket.http.response -----------------------------------------------------------------


@on_loop
async def test_47_a_response_in_place_of_the_accept() -> None:
    application, bridge, exchange, port = await hold()
    await application.receive()
    await application.send({**DENIAL, "headers": [(b"www-authenticate", b"Basic")]})
    assert port.response.calls == []
    assert exchange.status is None
    await application.send(denial_body(b"one ", more=True))
    assert bridge.actions == ["connecting"]
    await application.send(denial_body(b"two"))
    assert port.response.calls == [
        ("start", 401, [(b"www-authenticate", b"Basic")], b"one ", False, False),
        ("body", b"two", True),
    ]
    assert bridge.actions == ["connecting", "rejected"]
    assert await application.receive() == disconnect(1006)
    assert (exchange.status, exchange.code, exchange.bytes_sent) == (401, 1006, 7)
    for message in (ACCEPT, text("x"), DENIAL, denial_body(b"")):
        with pytest.raises(ClientDisconnected):
            await application.send(message)
    await application.send(CLOSE)
    await finish(application, exchange)
    assert port.calls == []


@on_loop
async def test_47_a_small_response_is_one_call() -> None:
    application, _, exchange, port = await hold()
    await application.send({**DENIAL, "headers": iter([(b"a", b"b")])})
    await application.send({"type": "websocket.http.response.body", "body": bytearray(b"no")})
    assert port.response.calls == [("start", 401, [(b"a", b"b")], b"no", True, False)]
    await finish(application, exchange)


@pytest.mark.parametrize("message", [ACCEPT, CLOSE, DENIAL, text("x"), denial_body("text")], ids=repr)  # type: ignore[arg-type]
@pytest.mark.parametrize("started", [False, True])
@on_loop
async def test_47_nothing_else_is_allowed_amid_the_response(message: Any, started: bool) -> None:
    application, _, exchange, port = await hold()
    await application.send(DENIAL)
    if started:
        await application.send(denial_body(b"a", more=True))
    with pytest.raises(UnexpectedMessage):
        await application.send(message)
    await application.send(denial_body(b"b"))
    assert port.response.sent == (b"ab" if started else b"b")
    await finish(application, exchange)


@on_loop
async def test_47_a_refused_header_of_the_response_leaves_every_answer_open() -> None:
    application, _, exchange, port = await hold()
    await application.send({**DENIAL, "headers": [(b"a", b"\n")]})
    with pytest.raises(InvalidHeader):
        await application.send(denial_body(b"x"))
    assert exchange.status is None
    await application.send(ACCEPT)
    assert port.names == ["accept"]
    await finish(application, exchange)


@on_loop
async def test_47_a_response_longer_than_it_said_is_cut_and_over() -> None:
    application, bridge, exchange, port = await hold()
    await application.send({**DENIAL, "headers": [(b"content-length", b"1")]})
    with pytest.raises(BodyLengthMismatch):
        await application.send(denial_body(b"ab", more=True))
    assert bridge.actions == ["connecting", "rejected"]
    assert await application.receive() == CONNECT
    assert await application.receive() == disconnect(1006)
    await finish(application, exchange)
    assert port.response.state == "ended"


@on_loop
async def test_47_a_response_waits_for_room() -> None:
    application, _, exchange, port = await hold()
    await application.send(DENIAL)
    await application.send(denial_body(b"a", more=True))
    port.response.block()
    senders = [asyncio.ensure_future(application.send(denial_body(data, more=True))) for data in (b"b", b"c")]
    await settle()
    assert port.response.waiting == 2
    port.response.unblock()
    await asyncio.gather(*senders)
    assert port.response.sent == b"abc"
    port.response.block()
    sender = asyncio.ensure_future(application.send(denial_body(b"d")))
    await settle()
    port.leave(exchange)
    with pytest.raises(ClientDisconnected):
        await sender
    await finish(application, exchange)


@on_loop
async def test_47_a_part_that_waited_for_a_refused_start_is_refused_too() -> None:
    application, _, exchange, port = await hold()
    await application.send({**DENIAL, "headers": [(b"a", b"\n")]})
    port.response.block()
    senders = [asyncio.ensure_future(application.send(denial_body(data))) for data in (b"b", b"c")]
    await settle()
    port.response.unblock()
    with pytest.raises(InvalidHeader):
        await senders[0]
    with pytest.raises(UnexpectedMessage):
        await senders[1]
    await application.send(CLOSE)
    await finish(application, exchange)


@on_loop
async def test_47_a_response_may_have_hints_before_it_and_trailers_behind_it() -> None:
    application, bridge, exchange, port = await hold()
    await application.send({**DENIAL, "trailers": True})
    await application.send({"type": "websocket.http.response.early_hint", "links": [b"</a>", b"</b>"]})
    await application.send(denial_body(b"one ", more=True))
    await application.send({"type": "websocket.http.response.early_hint", "links": [b"</late>"]})
    await application.send(denial_body(b"two"))
    assert bridge.actions == ["connecting"]
    trailers = {"type": "websocket.http.response.trailers", "headers": [(b"x-one", b"1")]}
    await application.send({**trailers, "more_trailers": True})
    with pytest.raises(InvalidHeader):
        await application.send({**trailers, "headers": [(b"x-bad", b"\n")]})
    await application.send({**trailers, "headers": iter([(b"x-two", b"2")])})
    assert port.response.calls == [
        ("informational", 103, [(b"link", b"</a>"), (b"link", b"</b>")]),
        ("start", 401, [], b"one ", False, True),
        ("body", b"two", False),
        ("trailers", [(b"x-one", b"1"), (b"x-two", b"2")]),
    ]
    assert bridge.actions == ["connecting", "rejected"]
    assert await application.receive() == CONNECT
    assert await application.receive() == disconnect(1006)
    with pytest.raises(ClientDisconnected):
        await application.send(trailers)
    await finish(application, exchange)


@on_loop
async def test_47_a_response_whose_trailers_do_not_come_is_reset() -> None:
    application, _, exchange, port = await hold()
    await application.send({**DENIAL, "trailers": True})
    await application.send(denial_body(b"all"))
    await finish(application, exchange)
    assert port.response.state == "reset"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.http.response.early_hint", "links": 1},
        {"type": "websocket.http.response.pathsend", "path": None},
        {"type": "websocket.http.response.zerocopysend", "file": None},
        {"type": "http.response.push", "path": "/x", "headers": []},
    ],
    ids=lambda message: message["type"],
)
@on_loop
async def test_47_what_a_response_cannot_do_raises(message: dict[str, Any]) -> None:
    application, _, exchange, port = await hold()
    await application.send(DENIAL)
    with pytest.raises(UnexpectedMessage, match=message["type"]):
        await application.send(message)
    await application.send(denial_body(b""))
    assert [call[0] for call in port.response.calls] == ["start"]
    await finish(application, exchange)


@pytest.mark.parametrize("way", ["return", "raise", "cancel", "expire"])
@on_loop
async def test_47_a_response_that_is_not_completed_is_reset(way: str, caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(DENIAL)
        await send(denial_body(b"a", more=True))
        if way == "raise":
            raise LookupError
        if way != "return":
            await asyncio.sleep(5)

    bridge = Bridge(application)
    exchange, port = bridge.begin_websocket()
    await settle()
    if way == "cancel":
        exchange.cancel("the server is shutting down")
    elif way == "expire":
        exchange.expired()
    await asyncio.sleep(6)
    assert exchange.task is None
    assert port.response.names == ["start", "reset"]
    if way in ("return", "raise"):
        assert port.response.calls[1] == ("reset", "the application failed")
    assert len(errors_in(caplog)) == (way != "cancel")
    assert bridge.actions == ["connecting", "rejected"]
    assert exchange.status == 401


@pytest.mark.parametrize("given", ["Token a/b", "Token%20a%2Fb"])
@on_loop
async def test_a_decoded_subprotocol_is_accepted_as_the_client_has_sent_it(given: str) -> None:
    application, _, exchange, port = await hold("token", "Token%20a%2Fb")
    assert application.scope["subprotocols"] == ["token", "Token a/b"]
    await application.send({**ACCEPT, "subprotocol": given})
    assert port.calls == [("accept", "Token%20a%2Fb", [])]
    await finish(application, exchange)

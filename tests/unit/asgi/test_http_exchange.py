"""`daphne_ng.asgi.http`: one request between a strict port and scripted applications.

Numbers in names are those of the ASGI checklist: core 1-11, HTTP events 23-29, extensions 47-54.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import re
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from daphne_ng.asgi.exchange import NOTICE_SECONDS
from daphne_ng.asgi.http import HttpExchange
from daphne_ng.errors import (
    BodyLengthMismatch,
    ClientDisconnected,
    InvalidHeader,
    TransportClosed,
    UnexpectedMessage,
)
from tests.support.asgi import Bridge, StrictPort, body, on_loop, request_head, settle, start

REQUEST_END = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT = {"type": "http.disconnect"}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send(start(200, (b"content-length", b"5")))
    await send(body(b"hello"))


def errors_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


class Held:
    """An application that hands its callables to the test and ends when told."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self.ready = asyncio.Event()
        self.end = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        self.scope, self.receive, self.send = scope, receive, send
        self.ready.set()
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def hold(head: Any = None, **settings: Any) -> tuple[Held, Bridge, Any, StrictPort]:
    """Start an exchange whose application waits for the test."""
    application = Held()
    bridge = Bridge(application, **settings)
    exchange, port = bridge.begin(head)
    await settle()
    return application, bridge, exchange, port


async def finish(application: Held, exchange: Any) -> None:
    """Let the application end, and its exchange with it."""
    application.end.set()
    await settle()
    assert exchange.task is None


# -- core ------------------------------------------------------------------------------------------------


@on_loop
async def test_02_the_scope_names_its_type_and_version() -> None:
    application, _, exchange, _ = await hold()
    scope = application.scope
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert all(type(key) is str for key in scope)
    await application.send(start())
    await application.send(body())
    await finish(application, exchange)


@on_loop
async def test_03_the_application_is_called_once_per_request() -> None:
    application, bridge, exchange, port = await hold()
    await application.send(start())
    await application.send(body())
    await finish(application, exchange)
    assert application.calls == 1
    assert port.names == ["start"]
    assert len(bridge.records) == 1


@on_loop
async def test_04_received_messages_hold_plain_types() -> None:
    application, _, exchange, _ = await hold(request_head("POST", content_length=6))
    exchange.body_received(b"abc")
    exchange.body_received(b"def")
    exchange.body_ended(())
    message = await application.receive()
    assert {key: type(value) for key, value in message.items()} == {"type": str, "body": bytes, "more_body": bool}
    exchange.disconnected("gone")
    assert await application.receive() == DISCONNECT
    await finish(application, exchange)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.push", "path": "/", "headers": []},
        {"type": "http.response.zerocopysend", "file": 1},
        {"type": "http.response.pathsend", "path": "/etc/hostname"},
        {"type": "http.response.debug", "info": {}},
        {"type": "websocket.send", "text": "x"},
        {"type": "lifespan.startup.complete"},
        {"type": "nonsense"},
        {"type": None},
        {"type": 5},
        {"type": b"http.response.start", "status": 200},
        {},
        None,
        {"type": "http.response.start"},
        {"type": "http.response.start", "status": "200"},
        {"type": "http.response.start", "status": None},
        {"type": "http.response.start", "status": 200.0},
        {"type": "http.response.start", "status": True},
        {"type": "http.response.start", "status": 100},
        {"type": "http.response.start", "status": 101},
        {"type": "http.response.start", "status": 199},
        {"type": "http.response.start", "status": 1000},
        {"type": "http.response.start", "status": -1},
        {"type": "http.response.start", "status": 200, "headers": None},
        {"type": "http.response.start", "status": 200, "headers": 7},
        {"type": "http.response.body", "body": b"before the start"},
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.early_hint", "links": []},
    ],
    ids=repr,
)
@on_loop
async def test_05_a_message_that_is_not_allowed_first_raises_out_of_send(message: Any) -> None:
    application, _, exchange, port = await hold()
    with pytest.raises(UnexpectedMessage):
        await application.send(message)
    assert port.calls == []
    await application.send(start())
    await application.send(body(b"still possible"))
    assert port.sent == b"still possible"
    await finish(application, exchange)


@pytest.mark.parametrize(
    "message",
    [
        start(),
        body("text"),  # type: ignore[arg-type]
        body(None),  # type: ignore[arg-type]
        body(5),  # type: ignore[arg-type]
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.early_hint", "links": None},
        {"type": "nonsense"},
        {},
    ],
    ids=repr,
)
@on_loop
async def test_05_a_message_that_is_not_allowed_after_the_start_raises_out_of_send(message: Any) -> None:
    application, _, exchange, port = await hold()
    await application.send(start())
    with pytest.raises(UnexpectedMessage):
        await application.send(message)
    await application.send(body(b"x"))
    assert port.sent == b"x"
    await finish(application, exchange)


@on_loop
async def test_05_a_second_start_in_the_body_raises() -> None:
    application, _, exchange, port = await hold()
    await application.send(start())
    await application.send(body(b"a", more=True))
    with pytest.raises(UnexpectedMessage, match="while the body is being sent"):
        await application.send(start())
    await application.send(body(b"b"))
    assert port.sent == b"ab"
    await finish(application, exchange)


@on_loop
async def test_06_extra_keys_never_raise() -> None:
    application, _, exchange, port = await hold()
    await application.send({**start(), "future": object()})
    await application.send({**body(b"x"), "future": object()})
    assert port.sent == b"x"
    await finish(application, exchange)


@on_loop
async def test_07_an_exception_before_the_start_answers_500(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("secret detail")

    bridge = Bridge(application)
    port = await bridge.serve()
    assert port.status == 500
    assert b"secret" not in port.sent
    assert port.state == "ended"
    [record] = errors_in(caplog)
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError
    assert [status for _, status, _ in bridge.records] == [500]


@on_loop
async def test_07_an_exception_while_the_head_is_held_answers_500(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, (b"content-length", b"100"), (b"set-cookie", b"a=b")))
        raise LookupError

    port = await Bridge(application).serve()
    assert port.status == 500
    assert b"set-cookie" not in dict(port.calls[0][2])
    assert len(errors_in(caplog)) == 1


@on_loop
async def test_07_an_exception_after_the_start_resets(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"part", more=True))
        raise LookupError

    bridge = Bridge(application)
    port = await bridge.serve()
    assert port.names == ["start", "reset"]
    assert len(errors_in(caplog)) == 1
    assert [(status, size) for _, status, size in bridge.records] == [(200, 4)]


@on_loop
async def test_07_an_exception_after_the_response_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        raise LookupError

    bridge = Bridge(application)
    port = await bridge.serve()
    assert port.names == ["start"]
    assert len(errors_in(caplog)) == 1
    assert [status for _, status, _ in bridge.records] == [200]


@pytest.mark.parametrize("sent", [0, 1], ids=["nothing", "start"])
@on_loop
async def test_07_an_application_that_returns_without_a_response_answers_500(
    sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if sent:
            await send(start())

    port = await Bridge(application).serve(request_head("PUT", "/a\nb"))
    assert port.status == 500
    [record] = errors_in(caplog)
    assert "PUT /a\\nb" in record.getMessage()


@on_loop
async def test_07_an_application_that_returns_in_the_body_resets(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"part", more=True))

    port = await Bridge(application).serve()
    assert port.names == ["start", "reset"]
    assert len(errors_in(caplog)) == 1


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()], ids=repr)
@on_loop
async def test_07_no_exception_of_a_request_ends_the_server(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """A view that calls ``sys.exit()`` took the whole process down, with everybody's requests."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise error

    port = await Bridge(application).serve()
    assert port.status == 500
    assert len(errors_in(caplog)) == 1


@on_loop
async def test_08_messages_after_the_response_are_ignored() -> None:
    application, bridge, exchange, port = await hold()
    await application.send(start())
    await application.send(body(b"done"))
    await application.send(body(b"more"))
    await application.send(start(500))
    await application.send({"type": "nonsense"})
    assert port.names == ["start"]
    assert port.sent == b"done"
    await finish(application, exchange)
    assert len(bridge.records) == 1


@on_loop
async def test_09_the_servers_own_exception_may_escape_unlogged(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        await receive()
        await send(body(b"x"))

    bridge = Bridge(application)
    exchange, port = bridge.begin()
    await settle()
    exchange.disconnected("gone")
    await settle()
    assert not bridge.runner.exchanges
    assert port.calls == []
    assert caplog.records == []


@on_loop
async def test_09_it_may_escape_from_a_task_group(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sending(send))
            group.create_task(waiting(receive))

    async def sending(send: Any) -> None:
        await send(start())
        while True:
            await send(body(b"x", more=True))
            await asyncio.sleep(1)

    async def waiting(receive: Any) -> None:
        await receive()
        await receive()
        await asyncio.Event().wait()

    bridge = Bridge(application)
    exchange, _ = bridge.begin()
    await settle()
    exchange.disconnected("gone")
    await asyncio.sleep(2)
    assert not bridge.runner.exchanges
    assert errors_in(caplog) == []


@on_loop
async def test_09_a_framework_may_turn_it_into_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Starlette raises ``ClientDisconnect`` for the OSError of ASGI 2.4, and lets that escape."""

    class FrameworkDisconnect(Exception):
        pass

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        try:
            await send(start())
        except OSError:
            raise FrameworkDisconnect from None

    bridge = Bridge(application)
    exchange, _ = bridge.begin()
    await settle()
    exchange.disconnected("gone")
    await settle()
    assert not bridge.runner.exchanges
    assert errors_in(caplog) == []


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("how", ["receives", "sends", "is cancelled", "ignores its cancellation"])
@on_loop
async def test_09_an_application_that_fails_when_it_is_told_of_the_end_is_a_line(
    how: str, grouped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Below Starlette's BaseHTTPMiddleware a ``ClientDisconnect`` escapes that has nothing of ours behind it."""
    caplog.set_level(logging.DEBUG)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if how == "receives":
            assert await receive() == DISCONNECT
        else:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if how == "sends":
                    await asyncio.sleep(0.5)
                    await send(start())
                else:
                    await asyncio.Event().wait()
        try:
            raise LookupError("the framework's word for it,\nor a defect")
        except LookupError as error:
            if grouped:
                raise ExceptionGroup("in a task group", [ClientDisconnected(), error]) from None
            raise

    bridge = Bridge(application, application_close_timeout=1)
    exchange, port = bridge.begin()
    await settle()
    if how == "is cancelled":
        exchange.expired()
    else:
        exchange.disconnected("gone")
    await asyncio.sleep(2)
    assert not bridge.runner.exchanges
    lines = [record for record in caplog.records if "LookupError" in record.getMessage()]
    [line] = lines
    assert line.levelno == logging.INFO
    assert line.exc_info is None
    text = line.getMessage()
    assert text.startswith("Application ended with LookupError: the framework's word for it, or a defect (in test_09_")
    assert re.search(r"application, \S*test_http_exchange\.py:\d+\) after the end of GET /", text)
    [traceback] = [record for record in caplog.records if record.exc_info]
    assert traceback.levelno == logging.DEBUG


@on_loop
async def test_09_exceptions_that_were_raised_from_each_other_in_a_ring_hold_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert await receive() == DISCONNECT
        # As ``raise error.__cause__`` does where ``error`` is handled.
        cause, made_of_it = LookupError("what went wrong"), RuntimeError("what the library made of it")
        made_of_it.__cause__, cause.__context__ = cause, made_of_it
        raise cause

    bridge = Bridge(application)
    exchange, _ = bridge.begin()
    await settle()
    exchange.disconnected("gone")
    await settle()
    assert not bridge.runner.exchanges
    assert not errors_in(caplog)


@on_loop
async def test_09_an_application_that_fails_before_it_knows_of_the_end_is_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1)
        raise LookupError("a defect of the application")

    bridge = Bridge(application)
    exchange, port = bridge.begin()
    await settle()
    exchange.disconnected("gone")
    await asyncio.sleep(2)
    assert [record.exc_info[0] for record in errors_in(caplog) if record.exc_info] == [LookupError]
    assert port.calls == []


@on_loop
async def test_09_an_application_that_fails_after_its_response_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"all of it"))
        while (await receive()) != DISCONNECT:
            pass
        raise LookupError("in a background task")

    bridge = Bridge(application)
    bridge.begin()
    await settle()
    assert [record.exc_info[0] for record in errors_in(caplog) if record.exc_info] == [LookupError]


@on_loop
async def test_09_an_oserror_that_is_not_ours_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ConnectionResetError("the database")

    port = await Bridge(application).serve()
    assert port.status == 500
    assert len(errors_in(caplog)) == 1


@on_loop
async def test_09_a_client_disconnected_raised_by_the_application_itself_answers_500() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise ClientDisconnected("made up")

    port = await Bridge(application).serve()
    assert port.status == 500


# -- request body ----------------------------------------------------------------------------------------


@on_loop
async def test_23_a_request_without_a_body_is_one_empty_message() -> None:
    application, _, exchange, _ = await hold()
    assert await application.receive() == REQUEST_END
    waiting = asyncio.ensure_future(application.receive())
    await settle()
    assert not waiting.done()
    exchange.disconnected("gone")
    assert await waiting == DISCONNECT
    await finish(application, exchange)


@on_loop
async def test_23_body_parts_come_in_order_and_the_last_says_so() -> None:
    application, _, exchange, _ = await hold(request_head("POST", content_length=-1))
    exchange.body_received(b"one")
    assert await application.receive() == {"type": "http.request", "body": b"one", "more_body": True}
    exchange.body_received(b"two")
    exchange.body_received(b"three")
    assert await application.receive() == {"type": "http.request", "body": b"twothree", "more_body": True}
    exchange.body_ended([(b"trailer", b"ignored")])
    assert await application.receive() == REQUEST_END
    exchange.disconnected("gone")
    await finish(application, exchange)


@on_loop
async def test_23_the_last_part_and_the_end_are_one_message() -> None:
    application, _, exchange, _ = await hold(request_head("POST", content_length=3))
    exchange.body_received(b"abc")
    exchange.body_ended(())
    assert await application.receive() == {"type": "http.request", "body": b"abc", "more_body": False}
    exchange.disconnected("gone")
    await finish(application, exchange)


@on_loop
async def test_23_a_part_wakes_a_waiting_receive() -> None:
    application, _, exchange, _ = await hold(request_head("POST", content_length=3))
    waiting = asyncio.ensure_future(application.receive())
    await settle()
    exchange.body_received(b"a")
    assert (await waiting)["body"] == b"a"
    waiting = asyncio.ensure_future(application.receive())
    await settle()
    exchange.body_ended(())
    assert await waiting == REQUEST_END
    exchange.disconnected("gone")
    await finish(application, exchange)


@on_loop
async def test_reading_pauses_at_the_high_mark_and_resumes_at_the_low_one() -> None:
    application, _, exchange, port = await hold(
        request_head("POST", content_length=-1), inbox_high_bytes=10, inbox_low_bytes=4
    )
    assert exchange.body_received(b"x" * 9) is False
    assert exchange.body_received(b"y") is True
    assert exchange.body_received(b"z" * 5) is True
    assert (await application.receive())["body"] == b"x" * 9 + b"y"
    assert port.names == []
    assert (await application.receive())["body"] == b"z" * 5
    assert port.names == ["consumed"]
    exchange.disconnected("gone")
    await finish(application, exchange)


@on_loop
async def test_reading_what_a_client_left_behind_resumes_nothing() -> None:
    application, _, exchange, port = await hold(
        request_head("POST", content_length=-1), inbox_high_bytes=10, inbox_low_bytes=4
    )
    assert exchange.body_received(b"x" * 10) is True
    port.gone()
    exchange.disconnected("gone")
    assert (await application.receive())["body"] == b"x" * 10
    assert await application.receive() == DISCONNECT
    assert port.calls == []
    await finish(application, exchange)


@on_loop
async def test_cancelled_error_passes_through_receive() -> None:
    """A server that swallows it leaks the resources of every view that is cancelled (gunicorn #3627)."""
    application, _, exchange, _ = await hold(request_head("POST", content_length=-1))
    waiting = asyncio.ensure_future(application.receive())
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    exchange.body_received(b"kept")
    assert (await application.receive())["body"] == b"kept"
    exchange.disconnected("gone")
    await finish(application, exchange)


@on_loop
async def test_cancelling_one_of_two_readers_costs_the_other_nothing() -> None:
    application, _, exchange, _ = await hold(request_head("POST", content_length=-1))
    first = asyncio.ensure_future(application.receive())
    second = asyncio.ensure_future(application.receive())
    await settle()
    exchange.body_received(b"data")
    first.cancel()  # woken already, but has not run
    assert (await second)["body"] == b"data"
    with pytest.raises(asyncio.CancelledError):
        await first
    exchange.disconnected("gone")
    await finish(application, exchange)


@on_loop
async def test_two_readers_share_the_body_and_both_see_the_disconnect() -> None:
    """Django waits for the disconnect in a task of its own while the view may read (django #33738)."""
    application, _, exchange, _ = await hold(request_head("POST", content_length=4))
    readers = [asyncio.ensure_future(application.receive()) for _ in range(3)]
    await settle()
    exchange.body_received(b"data")
    exchange.body_ended(())
    await settle()
    done = [reader.result() for reader in readers if reader.done()]
    assert done == [{"type": "http.request", "body": b"data", "more_body": False}]
    exchange.disconnected("gone")
    kinds = [(await reader)["type"] for reader in readers]
    assert sorted(kinds) == ["http.disconnect", "http.disconnect", "http.request"]
    await finish(application, exchange)


@on_loop
async def test_100_continue_is_sent_when_the_application_reads() -> None:
    application, _, exchange, port = await hold(request_head("POST", content_length=4, expects_continue=True))
    assert port.calls == []
    waiting = asyncio.ensure_future(application.receive())
    await settle()
    assert port.calls == [("informational", 100, [])]
    exchange.body_received(b"data")
    exchange.body_ended(())
    await waiting
    assert len(port.calls) == 1
    exchange.disconnected("gone")
    await finish(application, exchange)


@on_loop
async def test_100_continue_is_not_sent_once_the_response_began() -> None:
    application, _, exchange, port = await hold(request_head("POST", content_length=4, expects_continue=True))
    await application.send(start())
    await application.send(body(b"x", more=True))
    waiting = asyncio.ensure_future(application.receive())
    await settle()
    assert port.names == ["start"]
    await application.send(body())
    assert await waiting == DISCONNECT
    assert port.names == ["start", "body", "abandon"]
    await finish(application, exchange)


# -- response --------------------------------------------------------------------------------------------


@on_loop
async def test_24_headers_are_optional_and_keep_their_order() -> None:
    application, _, exchange, port = await hold()
    await application.send({"type": "http.response.start", "status": 299})
    await application.send({"type": "http.response.body"})
    assert port.calls == [("start", 299, [], b"", True, False)]
    await finish(application, exchange)

    application, _, exchange, port = await hold()
    fields = [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")]
    await application.send(start(200, *fields))
    await application.send(body())
    assert port.calls[0][2] == fields
    await finish(application, exchange)


@on_loop
async def test_24_headers_may_be_any_iterable() -> None:
    application, _, exchange, port = await hold()
    await application.send({"type": "http.response.start", "status": 200, "headers": ((n, b"v") for n in [b"a", b"b"])})
    await application.send(body())
    assert port.calls[0][2] == [(b"a", b"v"), (b"b", b"v")]
    await finish(application, exchange)


@on_loop
async def test_25_the_head_is_held_until_the_first_body_message() -> None:
    application, _, exchange, port = await hold()
    await application.send(start(201))
    await settle()
    assert port.calls == []
    assert exchange.status is None
    await application.send(body(b"all"))
    assert port.calls == [("start", 201, [], b"all", True, False)]
    assert exchange.status == 201
    await finish(application, exchange)


@on_loop
async def test_27_body_is_handed_to_the_port_before_send_returns() -> None:
    application, _, exchange, port = await hold()
    await application.send(start())
    for data in (b"a", b"b", b"c"):
        send = application.send(body(data, more=True))
        with pytest.raises(StopIteration):
            send.send(None)  # returned without waiting
        assert port.sent.endswith(data)
    await application.send(body())
    assert port.calls == [
        ("start", 200, [], b"a", False, False),
        ("body", b"b", False),
        ("body", b"c", False),
        ("body", b"", True),
    ]
    await finish(application, exchange)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
@on_loop
async def test_27_buffers_are_copied_into_bytes(kind: Any) -> None:
    application, _, exchange, port = await hold()
    buffer = bytearray(b"data")
    await application.send(start())
    await application.send(body(kind(buffer)))
    buffer[:] = b"XXXX"
    assert port.sent == b"data"
    await finish(application, exchange)


@on_loop
async def test_28_a_disconnect_can_be_received_after_the_response_repeatedly() -> None:
    application, _, exchange, _ = await hold()
    assert await application.receive() == REQUEST_END
    waiting = asyncio.ensure_future(application.receive())
    await settle()
    assert not waiting.done()
    await application.send(start())
    await application.send(body())
    assert await waiting == DISCONNECT
    for _ in range(3):
        assert await application.receive() == DISCONNECT
    await finish(application, exchange)


@pytest.mark.parametrize("length", [0, 4])
@on_loop
async def test_28_after_the_response_an_unread_body_is_not_delivered(length: int) -> None:
    """ASGI HTTP, "Disconnect": "Sent to the application if receive is called after a response has been sent"."""
    application, _, exchange, _ = await hold(request_head("POST", content_length=length))
    if length:
        exchange.body_received(b"data")
        exchange.body_ended(())
    await application.send(start())
    await application.send(body())
    assert await application.receive() == DISCONNECT
    assert await application.receive() == DISCONNECT
    await finish(application, exchange)


@on_loop
async def test_28_what_arrived_before_the_client_left_can_still_be_read() -> None:
    """A webhook's sender posts and closes; the whole body is here, and no reason to lose it."""
    application, _, exchange, _ = await hold(request_head("POST", content_length=4))
    exchange.body_received(b"data")
    exchange.body_ended(())
    exchange.disconnected("gone")
    assert await application.receive() == {"type": "http.request", "body": b"data", "more_body": False}
    assert await application.receive() == DISCONNECT
    assert await application.receive() == DISCONNECT
    await finish(application, exchange)


@on_loop
async def test_28_a_disconnect_in_the_body_follows_what_arrived() -> None:
    application, _, exchange, port = await hold(request_head("POST", content_length=100))
    exchange.body_received(b"data")
    exchange.disconnected("gone")
    assert await application.receive() == {"type": "http.request", "body": b"data", "more_body": True}
    assert await application.receive() == DISCONNECT
    assert await application.receive() == DISCONNECT
    assert port.calls == []
    await finish(application, exchange)


@on_loop
async def test_29_send_after_a_disconnect_raises_an_oserror_of_ours() -> None:
    application, bridge, exchange, port = await hold()
    exchange.disconnected("the client disconnected")
    for message in (start(), body(), {"type": "nonsense"}):
        with pytest.raises(ClientDisconnected, match="the client disconnected") as caught:
            await application.send(message)
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, TransportClosed)
    assert port.calls == []
    assert [status for _, status, _ in bridge.records] == [None]
    await finish(application, exchange)
    assert len(bridge.records) == 1


@on_loop
async def test_29_a_send_that_waits_raises_when_the_client_leaves() -> None:
    application, _, exchange, port = await hold()
    port.block()
    await application.send(start())
    sending = asyncio.ensure_future(application.send(body(b"x")))
    await settle()
    assert port.waiting == 1
    exchange.disconnected("gone")
    port.unblock()
    with pytest.raises(ClientDisconnected):
        await sending
    assert port.calls == []
    await finish(application, exchange)


class Listener:
    """An application such as Django's: one task waits for the disconnect, and then ends the one that sends.

    Args:
        prompt: Whether it does so; otherwise it goes on when it has heard.
    """

    def __init__(self, sending: Callable[[Any], Coroutine[Any, Any, None]], prompt: bool = True) -> None:
        self.sending = sending
        self.prompt = prompt
        self.outcome: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        sender = asyncio.ensure_future(self.sending(send))
        listener = asyncio.ensure_future(receive())
        await asyncio.wait([listener, sender], return_when=asyncio.FIRST_COMPLETED)
        assert listener.result() == DISCONNECT
        if self.prompt:
            sender.cancel()
        [self.outcome] = await asyncio.gather(sender, return_exceptions=True)


async def stream(send: Any, pause: float | None = None) -> None:
    await send(start())
    while True:
        await send(body(b"x", more=True))
        if pause is not None:
            await asyncio.sleep(pause)


async def listen(application: Listener, wait: bool) -> tuple[Bridge, Any, StrictPort, list[None]]:
    """Have an application begin a stream, wait in send() or not, and its client leave."""
    bridge = Bridge(application)
    abandoned: list[None] = []
    bridge.runner.generator_abandoned = lambda: abandoned.append(None)
    exchange, port = bridge.begin()
    if wait:
        port.block()
    await settle()
    exchange.disconnected("gone")
    port.unblock()
    return bridge, exchange, port, abandoned


# Django's handler would take the exception for a failure of its own: it would neither close the response nor send
# ``request_finished``, and the connection to the database would stay.
@pytest.mark.parametrize("wait", [True, False], ids=["waiting for room", "making the body"])
@on_loop
async def test_a_sender_whose_disconnect_another_task_hears_of_is_cancelled_where_it_makes_the_body(wait: bool) -> None:
    where: list[str] = []

    async def sending(send: Any) -> None:
        await send(start())
        while True:
            await send(body(b"x", more=True))
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                where.append("the body")
                raise

    application = Listener(sending)
    bridge, exchange, port, abandoned = await listen(application, wait)
    began = asyncio.get_running_loop().time()
    await settle()
    assert isinstance(application.outcome, asyncio.CancelledError)
    assert (where, abandoned) == (["the body"], [])
    assert exchange.task is None
    assert asyncio.get_running_loop().time() - began < 0.01
    assert len(bridge.records) == 1


@on_loop
async def test_a_sender_that_never_waits_is_made_to_so_that_it_can_be_cancelled() -> None:
    made = 0

    async def sending(send: Any) -> None:
        nonlocal made
        await send(start())
        while True:
            made += 1
            await send(body(b"x", more=True))

    application = Listener(sending)
    _, exchange, _, abandoned = await listen(application, wait=True)
    await settle()
    assert isinstance(application.outcome, asyncio.CancelledError)
    assert made <= 70
    assert abandoned == [None]
    assert exchange.task is None


@pytest.mark.parametrize("pause", [None, 0.001, 0.3], ids=["never waits", "often", "seldom"])
@on_loop
async def test_a_sender_that_nobody_cancels_gets_the_exception_in_the_end(pause: float | None) -> None:
    application = Listener(lambda send: stream(send, pause), prompt=False)
    bridge, exchange, port, _ = await listen(application, wait=True)
    names = port.names
    await asyncio.sleep(1.5)
    assert isinstance(application.outcome, ClientDisconnected)
    assert exchange.task is None
    assert port.names == names
    assert len(bridge.records) == 1


@on_loop
async def test_who_has_been_told_gets_the_exception_at_once() -> None:
    outcome: list[BaseException] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert await receive() == DISCONNECT
        try:
            await send(start())
        except OSError as error:
            outcome.append(error)

    bridge = Bridge(application)
    exchange, _ = bridge.begin()
    await settle()
    exchange.disconnected("gone")
    await settle()
    assert [type(error) for error in outcome] == [ClientDisconnected]


@on_loop
async def test_send_waits_for_room_before_it_writes() -> None:
    application, _, exchange, port = await hold()
    await application.send(start())
    await application.send(body(b"a", more=True))
    port.block()
    sending = asyncio.ensure_future(application.send(body(b"b", more=True)))
    await settle()
    assert not sending.done()
    assert port.sent == b"a"
    port.unblock()
    await sending
    assert port.sent == b"ab"
    await application.send(body())
    await finish(application, exchange)


@on_loop
async def test_two_tasks_may_send_while_there_is_no_room() -> None:
    """Two sends at once froze a worker of Granian (#862)."""
    application, bridge, exchange, port = await hold()
    await application.send(start())
    port.block()
    sends = [asyncio.ensure_future(application.send(body(data, more=True))) for data in (b"a", b"b", b"c")]
    await settle()
    assert port.waiting == 3
    sends[1].cancel()
    port.unblock()
    await asyncio.wait(sends)
    assert sends[1].cancelled()
    assert port.sent == b"ac"
    assert port.names == ["start", "body"]
    await application.send(body())
    await finish(application, exchange)
    assert len(bridge.records) == 1


@on_loop
async def test_a_send_that_waited_while_another_ended_the_response_is_ignored() -> None:
    application, _, exchange, port = await hold()
    await application.send(start())
    port.block()
    sends = [asyncio.ensure_future(application.send(body(data))) for data in (b"a", b"b")]
    await settle()
    port.unblock()
    await asyncio.gather(*sends)
    assert port.calls == [("start", 200, [], b"a", True, False)]
    await finish(application, exchange)


@on_loop
async def test_a_send_that_waited_while_another_lost_the_head_raises() -> None:
    application, _, exchange, port = await hold()
    await application.send(start(200, (b"a", b"b\n")))
    port.block()
    sends = [asyncio.ensure_future(application.send(body(data, more=True))) for data in (b"a", b"b")]
    await settle()
    port.unblock()
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(result) for result in results] == [InvalidHeader, UnexpectedMessage]
    assert port.calls == []
    await application.send(start())
    await application.send(body(b"ok"))
    assert port.sent == b"ok"
    await finish(application, exchange)


@on_loop
async def test_an_invalid_header_writes_nothing_and_another_start_is_allowed() -> None:
    application, bridge, exchange, port = await hold()
    await application.send(start(200, (b"a", b"b\n")))
    with pytest.raises(InvalidHeader):
        await application.send(body(b"x"))
    assert port.calls == []
    assert exchange.status is None
    await application.send(start(418))
    await application.send(body(b"y"))
    assert (port.status, port.sent) == (418, b"y")
    await finish(application, exchange)
    assert [status for _, status, _ in bridge.records] == [418]


@on_loop
async def test_an_invalid_header_that_escapes_answers_500(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, ("text", "text")))  # type: ignore[arg-type]
        await send(body(b"x", more=True))

    port = await Bridge(application).serve()
    assert port.status == 500
    assert len(errors_in(caplog)) == 1


@on_loop
async def test_a_body_longer_than_its_length_raises_and_ends_the_response() -> None:
    application, bridge, exchange, port = await hold()
    await application.send(start(200, (b"content-length", b"2")))
    with pytest.raises(BodyLengthMismatch):
        await application.send(body(b"abc", more=True))
    await application.send(body(b"ignored"))
    assert port.state == "ended"
    assert await application.receive() == DISCONNECT
    await finish(application, exchange)
    assert [(status, size) for _, status, size in bridge.records] == [(200, 2)]


@pytest.mark.parametrize("length", [5, -1])
@on_loop
async def test_a_request_body_left_unread_is_abandoned_once(length: int) -> None:
    application, _, exchange, port = await hold(request_head("POST", content_length=length))
    exchange.body_received(b"ab")
    await application.send(start())
    await application.send(body())
    assert port.names == ["start", "abandon"]
    await finish(application, exchange)
    assert port.names == ["start", "abandon"]


@on_loop
async def test_a_request_body_that_nobody_asked_for_is_abandoned() -> None:
    bridge = Bridge(hello)
    _, port = bridge.begin(request_head("POST", content_length=5))
    await settle()
    assert port.names == ["start", "abandon"]


@on_loop
async def test_a_request_body_that_has_arrived_is_not_abandoned() -> None:
    port = await Bridge(hello).serve(request_head("POST", content_length=2), b"ab")
    assert port.names == ["start"]


# -- extensions ------------------------------------------------------------------------------------------

HINT = {"type": "http.response.early_hint", "links": [b"</a>", b"</b>"]}


@on_loop
async def test_51_early_hints_go_out_between_the_start_and_the_first_body() -> None:
    application, _, exchange, port = await hold()
    with pytest.raises(UnexpectedMessage):
        await application.send(HINT)
    await application.send(start())
    await application.send(HINT)
    await application.send(HINT)
    assert port.calls == [("informational", 103, [(b"link", b"</a>"), (b"link", b"</b>")])] * 2
    await application.send(body(b"x", more=True))
    await application.send(HINT)  # too late for the wire, allowed by ASGI
    assert port.names == ["informational", "informational", "start"]
    await application.send(body())
    await application.send(HINT)
    await finish(application, exchange)


TRAILERS = {"type": "http.response.trailers", "headers": [(b"digest", b"1")]}


@on_loop
async def test_52_trailers_end_the_response() -> None:
    application, bridge, exchange, port = await hold()
    await application.send(start(trailers=True))
    with pytest.raises(UnexpectedMessage):
        await application.send(TRAILERS)
    await application.send(body(b"a", more=True))
    await application.send(body(b"b"))
    assert port.state == "started"
    assert bridge.records == []
    with pytest.raises(UnexpectedMessage, match=r"http\.response\.trailers is due"):
        await application.send(body(b"c"))
    await application.send({**TRAILERS, "more_trailers": True})
    assert port.state == "started"
    await application.send({"type": "http.response.trailers", "headers": [(b"second", b"2")]})
    assert port.calls[-1] == ("trailers", [(b"digest", b"1"), (b"second", b"2")])
    assert len(bridge.records) == 1
    assert port.calls[0] == ("start", 200, [], b"a", False, True)
    await finish(application, exchange)


@on_loop
async def test_52_trailers_after_a_single_body_message() -> None:
    application, _, exchange, port = await hold()
    await application.send(start(trailers=True))
    await application.send(body(b"all"))
    assert port.calls == [("start", 200, [], b"all", False, True)]
    await application.send({"type": "http.response.trailers"})
    assert port.calls[-1] == ("trailers", [])
    await finish(application, exchange)


@on_loop
async def test_52_invalid_trailers_may_be_replaced() -> None:
    application, _, exchange, port = await hold()
    await application.send(start(trailers=True))
    await application.send(body())
    with pytest.raises(InvalidHeader):
        await application.send({"type": "http.response.trailers", "headers": [(b"a", b"\n")]})
    for wrong in (None, 5):
        with pytest.raises(UnexpectedMessage):
            await application.send({"type": "http.response.trailers", "headers": wrong})
    await application.send(TRAILERS)
    assert port.calls[-1] == ("trailers", [(b"digest", b"1")])
    await finish(application, exchange)


@on_loop
async def test_52_trailers_announced_by_a_refused_start_are_not_due() -> None:
    application, _, exchange, port = await hold()
    await application.send(start(200, (b"a", b"b\n"), trailers=True))
    with pytest.raises(InvalidHeader):
        await application.send(body())
    await application.send(start(200))
    await application.send(body(b"x"))
    assert port.calls == [("start", 200, [], b"x", True, False)]
    await finish(application, exchange)


@on_loop
async def test_52_trailers_that_never_come_reset(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start(trailers=True))
        await send(body(b"x"))

    port = await Bridge(application).serve()
    assert port.names == ["start", "reset"]
    assert len(errors_in(caplog)) == 1


# -- time and cancellation -------------------------------------------------------------------------------


@on_loop
async def test_expiry_before_the_response_answers_503_and_cancels() -> None:
    application, bridge, exchange, port = await hold()
    exchange.expired()
    await asyncio.sleep(NOTICE_SECONDS)
    await settle()
    assert port.status == 503
    assert port.state == "ended"
    assert application.cancelled == 1
    assert not bridge.runner.exchanges
    assert [status for _, status, _ in bridge.records] == [503]


@on_loop
async def test_an_application_that_ends_when_it_sees_its_disconnect_is_not_cancelled() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
            outcome.append("ended")
        except asyncio.CancelledError:
            outcome.append("cancelled")

    for give_up in (HttpExchange.expired, lambda exchange: exchange.cancel("the server is shutting down", 0.1)):
        outcome: list[str] = []
        bridge = Bridge(application)
        exchange, _ = bridge.begin()
        await settle()
        give_up(exchange)
        await settle()
        assert outcome == ["ended"]
        assert not bridge.runner.exchanges


@on_loop
async def test_expiry_while_the_head_is_held_answers_503() -> None:
    application, _, exchange, port = await hold()
    await application.send(start(200, (b"x-secret", b"1")))
    exchange.expired()
    await asyncio.sleep(NOTICE_SECONDS)
    await settle()
    assert port.status == 503
    assert b"x-secret" not in dict(port.calls[0][2])
    assert exchange.task is None


@on_loop
async def test_expiry_in_the_response_resets_and_cancels(caplog: pytest.LogCaptureFixture) -> None:
    application, bridge, exchange, port = await hold(request_head("GET", "/slow"))
    await application.send(start())
    await application.send(body(b"part", more=True))
    exchange.expired()
    await asyncio.sleep(NOTICE_SECONDS)
    await settle()
    assert port.names == ["start", "reset"]
    assert application.cancelled == 1
    assert "timed out while sending response to GET /slow" in caplog.text
    assert [(status, size) for _, status, size in bridge.records] == [(200, 4)]


@on_loop
async def test_expiry_after_the_response_cancels_nothing_that_was_answered() -> None:
    application, bridge, exchange, port = await hold()
    await application.send(start())
    await application.send(body(b"x"))
    exchange.expired()
    await asyncio.sleep(NOTICE_SECONDS)
    await settle()
    assert port.names == ["start"]
    assert len(bridge.records) == 1


@on_loop
async def test_an_application_that_survives_its_expiry_cannot_send() -> None:
    outcome: list[type[BaseException]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert await receive() == DISCONNECT
            try:
                await send(start())
            except OSError as error:
                outcome.append(type(error))

    bridge = Bridge(application)
    exchange, port = bridge.begin()
    await settle()
    exchange.expired()
    await asyncio.sleep(NOTICE_SECONDS)
    await settle()
    assert outcome == [ClientDisconnected]
    assert port.names == ["start"]
    assert not bridge.runner.exchanges


@on_loop
async def test_an_application_that_outstays_its_client_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    application, bridge, exchange, _ = await hold(request_head("POST", "/a\x1b[31m"), application_close_timeout=10)
    await asyncio.sleep(2)
    exchange.disconnected("gone")
    await asyncio.sleep(9.9)
    assert application.cancelled == 0
    await asyncio.sleep(0.2)
    assert application.cancelled == 1
    assert not bridge.runner.exchanges
    [record] = caplog.records
    message = record.getMessage()
    assert record.levelno == logging.WARNING
    assert message.startswith("Application instance for POST /a\\x1b[31m, 12.0 s old took too long to shut down")
    assert "It waits in Event.wait (" in message


@on_loop
async def test_an_application_that_leaves_in_time_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    application, _, exchange, _ = await hold()
    exchange.disconnected("gone")
    await asyncio.sleep(5)
    await finish(application, exchange)
    await asyncio.sleep(20)
    assert application.cancelled == 0
    assert caplog.records == []


@on_loop
async def test_no_close_timeout_cancels_at_once() -> None:
    application, _, exchange, _ = await hold(application_close_timeout=0)
    exchange.disconnected("gone")
    await asyncio.sleep(0.001)
    assert application.cancelled == 1


@pytest.mark.parametrize("turns", [0, 1, 2])
@on_loop
async def test_an_exchange_given_up_before_its_first_step_has_ended(turns: int) -> None:
    """A task that is cancelled before it began runs nothing, not even a ``finally``: shutdown waited for it in vain."""
    application = Held()
    bridge = Bridge(application)
    exchange, port = bridge.begin()
    await settle(turns)
    exchange.cancel("the server is shutting down")
    await settle()
    assert not bridge.runner.exchanges
    assert exchange.task is None
    assert port.status == 503
    assert len(bridge.records) == 1
    assert await bridge.runner.wait_idle(1)


@on_loop
async def test_giving_an_exchange_up_names_the_reason() -> None:
    _, bridge, exchange, port = await hold()
    exchange.cancel("the server is shutting down")
    await settle()
    assert b"The server is shutting down." in port.sent
    assert not bridge.runner.exchanges


@on_loop
async def test_giving_an_exchange_up_in_its_body_resets() -> None:
    application, bridge, exchange, port = await hold()
    await application.send(start())
    await application.send(body(b"x", more=True))
    exchange.cancel("the server is shutting down")
    await settle()
    assert port.names == ["start", "reset"]
    assert not bridge.runner.exchanges
    assert len(bridge.records) == 1


@on_loop
async def test_giving_up_what_runs_on_after_its_response_cancels_it(caplog: pytest.LogCaptureFixture) -> None:
    application, bridge, exchange, port = await hold()
    await application.send(start())
    await application.send(body(b"x"))
    exchange.cancel("the server is shutting down")
    await settle()
    assert application.cancelled == 1
    assert port.names == ["start"]
    assert not bridge.runner.exchanges
    assert caplog.records == []


# -- tasks and contexts ----------------------------------------------------------------------------------

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="untouched")


@on_loop
async def test_contextvars_of_a_request_do_not_reach_the_next() -> None:
    """The next exchange of a connection may begin inside a send() or receive() of the one before it."""
    seen: list[str] = []
    bridge: Bridge

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set(scope["path"])
        if scope["path"] == "/first":
            bridge.begin(request_head("GET", "/second"))
        await hello(scope, receive, send)

    bridge = Bridge(application)
    bridge.begin(request_head("GET", "/first"))
    await settle()
    assert seen == ["untouched", "untouched"]
    assert VARIABLE.get() == "untouched"


@on_loop
async def test_contextvars_set_before_the_server_started_are_seen() -> None:
    VARIABLE.set("set by the embedding program")
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(VARIABLE.get())
        await hello(scope, receive, send)

    await Bridge(application).serve()
    assert seen == ["set by the embedding program"]


@on_loop
async def test_each_request_is_a_task_of_its_own() -> None:
    tasks: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        assert asyncio.current_task() is tasks[-1]
        await hello(scope, receive, send)

    bridge = Bridge(application)
    await bridge.serve()
    await bridge.serve()
    assert tasks[0] is not None
    assert tasks[0] is not tasks[1]
    assert asyncio.current_task() not in tasks


@on_loop
async def test_an_application_may_time_itself_out() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await receive()
        await hello(scope, receive, send)

    port = await Bridge(application).serve()
    assert port.status == 200


@on_loop
async def test_the_traceback_in_the_log_is_the_applications(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError

    await Bridge(application).serve()
    [record] = errors_in(caplog)
    assert record.exc_info is not None
    frames = traceback.extract_tb(record.exc_info[2])
    assert frames[-1].name == "application"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise LookupError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("broken"), "broken"),
        (ValueError("two\nlines \x1b[31m"), "two lines \\x1b[31m"),
        (ValueError("x" * 5000), "x" * 300 + "..."),
        (LookupError(), "LookupError"),
        (Unspeakable(), "Unspeakable"),
    ],
)
@on_loop
async def test_an_exception_is_logged_with_its_request(
    error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise error

    bridge = Bridge(application)
    _, port = bridge.begin(request_head("POST", "/a\n\u00e4" + "b" * 5000))
    await settle()
    [record] = errors_in(caplog)
    path = "/a\\n\\xe4" + "b" * 5000
    assert record.getMessage() == (f"Exception inside application: {told} (POST {path[:300]}... from 192.0.2.1:5000)")
    assert port.status == 500


@on_loop
@pytest.mark.parametrize(("lost", "size", "rest"), [(0, 10, 0), (3, 7, 0), (25, 0, 15)])
async def test_a_response_that_waits_for_a_slow_client_is_recorded_when_that_is_over(
    lost: int, size: int, rest: int
) -> None:
    """The access log told of megabytes that were cut off a moment later."""
    application, bridge, exchange, port = await hold()
    port.unflushed = True
    await exchange.send({"type": "http.response.start", "status": 200, "headers": []})
    await exchange.send({"type": "http.response.body", "body": b"0123456789"})
    assert bridge.records == []
    exchange.cancel("the server is shutting down")
    assert bridge.records == []
    assert port.report is not None
    assert port.report(lost) == rest
    assert [(status, sent) for _, status, sent in bridge.records] == [(200, size)]
    await finish(application, exchange)
    assert len(bridge.records) == 1


def _failing() -> Any:
    yield b"</a>"
    raise LookupError("the application's")


@on_loop
async def test_a_generator_of_the_application_that_fails_is_not_a_failure_of_the_server() -> None:
    application, _, exchange, port = await hold()
    await application.send(start())
    with pytest.raises(UnexpectedMessage, match="LookupError"):
        await application.send({**HINT, "links": _failing()})
    await settle()
    assert port.state == "open"  # the connection goes on
    await application.send(body(b"whole"))
    await finish(application, exchange)

"""What ASGI and real applications require of a server, on real sockets.

Numbers in names are those of the ASGI checklist; the bridge alone is tested in tests/unit/asgi.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import pathlib
import socket
import time
from typing import Any

import httpx
import pytest
from asgiref.compatibility import guarantee_single_callable
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tests.support.asgi import Client, body, on_sockets, own_state, serving, start


class Recorder:
    """Keeps the scope and the messages of every request, then answers."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.messages: list[Any] = []
        self.loops: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.loops.append(asyncio.get_running_loop())
        if scope["type"] == "lifespan":
            scope["state"]["shared"] = self
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.scopes.append(scope)
        more = True
        while more:
            message = await receive()
            self.messages.append(message)
            more = message.get("more_body", False)
        await send(start())
        await send(body(b"ok"))


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- scope -------------------------------------------------------------------------------------------------


@on_sockets
async def test_12_to_22_the_scope_of_a_request() -> None:
    application = Recorder()
    async with serving(application, root_path="/mount") as server, Client.to(server) as client:
        client.send(
            b"POST /a%20b/%C3%A9/%2F?x=%20&y HTTP/1.1\r\nHost: example\r\nX-B: 1\r\nX-A:  2 \r\nx-b: 3\r\n"
            b"Content-Length: 2\r\n\r\nhi"
        )
        assert (await client.response("POST")).status == 200
        local = list(client.writer.get_extra_info("sockname"))
        [scope] = application.scopes
        assert own_state(scope.pop("state")) == {"shared": application}
        assert scope == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/a b/é//",
            "raw_path": b"/a%20b/%C3%A9/%2F",
            "query_string": b"x=%20&y",
            "root_path": "/mount",
            "headers": [
                (b"host", b"example"),
                (b"x-b", b"1"),
                (b"x-a", b"2"),
                (b"x-b", b"3"),
                (b"content-length", b"2"),
            ],
            "client": local,
            "server": list(server.listening_addresses[0]),
            "extensions": {
                "http.response.trailers": {},
                "http.response.pathsend": {"ranges": True},
                "http.response.zerocopysend": {},
            },
        }
        assert application.messages == [{"type": "http.request", "body": b"hi", "more_body": False}]


@on_sockets
async def test_12_an_old_client_is_http_1_0() -> None:
    application = Recorder()
    async with serving(application) as server, Client.to(server) as client:
        assert (await client.get(version="1.0")).status == 200
        assert application.scopes[0]["http_version"] == "1.0"
        assert await client.closed() == b""


@on_sockets
async def test_18_daphne_root_path_from_this_machine_wins_and_is_removed() -> None:
    application = Recorder()
    async with serving(application, root_path="/mount") as server, Client.to(server) as client:
        await client.get("/", "Daphne-Root-Path: /bo%C3%9F")
        assert application.scopes[0]["root_path"] == "/boß"
        assert b"daphne-root-path" not in dict(application.scopes[0]["headers"])


@on_sockets
async def test_20_a_unix_socket_has_its_path_and_no_client(tmp_path: pathlib.Path) -> None:
    application = Recorder()
    calls: list[Any] = []
    path = str(tmp_path / "s")
    async with serving(application, f"unix:{path}", action_logger=lambda *call: calls.append(call[2])) as server:
        assert server.listening_addresses == []
        reader, writer = await asyncio.open_unix_connection(path)
        assert (await Client(reader, writer).get()).status == 200
        writer.close()
        await writer.wait_closed()
        assert application.scopes[0]["client"] is None
        assert application.scopes[0]["server"] == [path, None]
        assert calls[0]["client"] is None
    assert not os.path.exists(path)


@on_sockets
async def test_21_each_request_has_its_own_copy_of_the_state() -> None:
    application = Recorder()
    async with serving(application) as server, Client.to(server) as client:
        await client.get()
        application.scopes[0]["state"]["mine"] = 1
        await client.get()
        assert own_state(application.scopes[1]["state"]) == {"shared": application}


@on_sockets
async def test_41_the_lifespan_runs_on_the_loop_of_the_requests() -> None:
    application = Recorder()
    async with serving(application) as server, Client.to(server) as client:
        await client.get()
    assert application.loops == [asyncio.get_running_loop()] * 2


@on_sockets
async def test_01_an_asgi_2_application_works_when_wrapped() -> None:
    class Old:
        def __init__(self, scope: Any) -> None:
            self.path = scope["path"]

        async def __call__(self, receive: Any, send: Any) -> None:
            await send(start())
            await send(body(self.path.encode()))

    application: Any = guarantee_single_callable(Old)  # type: ignore[no-untyped-call]
    async with serving(application, lifespan="off") as server, Client.to(server) as client:
        assert (await client.get("/old")).body == b"/old"


# -- request body ------------------------------------------------------------------------------------------


@on_sockets
async def test_23_a_chunked_body_arrives_without_its_framing() -> None:
    application = Recorder()
    async with serving(application) as server, Client.to(server) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n")
        client.send(b"2\r\nde\r\n0\r\nTrailer: x\r\n\r\n")
        assert (await client.response("POST")).status == 200
        assert b"".join(message["body"] for message in application.messages) == b"abcde"


@on_sockets
async def test_23_the_first_part_arrives_before_the_last_byte_is_sent() -> None:
    arrived = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert message == {"type": "http.request", "body": b"begin", "more_body": True}
        arrived.set()
        while message["more_body"]:
            message = await receive()
        await send(start())
        await send(body(b"ok"))

    async with serving(application) as server, Client.to(server) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nbegin")
        await arrived.wait()
        client.send(b"end")
        assert (await client.response("POST")).body == b"ok"


@on_sockets
async def test_an_unread_body_makes_the_client_wait() -> None:
    """The kernel's buffers and one inbox: that is all that is taken of 32 MiB."""
    go = asyncio.Event()
    received = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal received
        await go.wait()
        more = True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            received += len(message["body"])
            assert len(message["body"]) <= 131072
            more = message["more_body"]
        await send(start())
        await send(body())

    total = 32 << 20
    async with serving(application, lifespan="off") as server, Client.to(server) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
        pumping = asyncio.ensure_future(pump(client, total))
        [exchange] = await started(server)
        taken = await steady(lambda: exchange._inbox.buffered if exchange._inbox else 0)
        assert 65536 <= taken <= 65536 + 131072
        assert not pumping.done()
        go.set()
        await pumping
        assert (await client.response("POST")).status == 200
    assert received == total


async def pump(client: Client, total: int) -> None:
    block = bytes(1 << 18)
    for _ in range(total // len(block)):
        client.send(block)
        await client.writer.drain()


async def started(server: Any) -> list[Any]:
    while not server._life.runner.exchanges:
        await asyncio.sleep(0.005)
    return list(server._life.runner.exchanges)


async def steady(measure: Any) -> Any:
    """Return a measure that has stopped changing."""
    last, since = measure(), time.monotonic()
    while time.monotonic() - since < 0.15:
        await asyncio.sleep(0.01)
        if measure() != last:
            last, since = measure(), time.monotonic()
    return last


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("checklist_variable", default="untouched")


@on_sockets
async def test_contextvars_do_not_leak_through_a_resumed_connection() -> None:
    """receive() that resumes reading registers the reader in the application's context, from which the next request
    on that connection then started."""
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set("leaked")
        await asyncio.sleep(0.05)
        while (await receive()).get("more_body"):
            pass
        await send(start())
        await send(body())

    async with serving(application, lifespan="off") as server, Client.to(server) as client:
        for _ in range(3):
            await client.get(method="POST", payload=bytes(300_000))
    assert seen == ["untouched"] * 3


# -- response ----------------------------------------------------------------------------------------------


@on_sockets
async def test_26_the_applications_transfer_encoding_is_ignored() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, (b"Transfer-Encoding", b"gzip, chunked"), (b"x-kept", b"1")))
        await send(body(b"one,", more=True))
        await send(body(b"two"))

    async with serving(application, lifespan="off") as server, Client.to(server) as client:
        response = await client.get()
        assert response.body == b"one,two"
        assert [value for name, value in response.headers if name == b"transfer-encoding"] == [b"chunked"]
        assert response.header(b"x-kept") == b"1"


@on_sockets
async def test_27_each_part_reaches_the_client_before_the_next_is_sent() -> None:
    steps = [asyncio.Event() for _ in range(3)]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, (b"content-length", b"3")))
        for step, letter in zip(steps, b"abc", strict=True):
            await send(body(bytes([letter]), more=True))
            await step.wait()
        await send(body())

    async with serving(application, lifespan="off") as server, Client.to(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        for step, letter in zip(steps, b"abc", strict=True):
            assert await client.reader.readexactly(1) == bytes([letter])
            step.set()


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@on_sockets
async def test_28_29_an_application_learns_that_its_client_left(how: str, caplog: pytest.LogCaptureFixture) -> None:
    seen: asyncio.Queue[Any] = asyncio.Queue()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        await send(body(b"begin", more=True))
        await seen.put("begun")
        await seen.put(await receive())
        await seen.put(await receive())
        try:
            await send(body(b"more", more=True))
        except OSError as error:
            await seen.put(error)
            raise

    async with serving(application, lifespan="off") as server, Client.to(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await seen.get() == "begun"
        began = time.monotonic()
        if how == "half-close":
            client.writer.write_eof()
        else:
            if how == "reset":
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.writer.close()
        assert await seen.get() == {"type": "http.disconnect"}
        assert time.monotonic() - began < 5
        assert await seen.get() == {"type": "http.disconnect"}
        assert type(await seen.get()).__name__ == "ClientDisconnected"
    assert errors_in(caplog) == []


@on_sockets
async def test_send_waits_for_a_client_that_reads_slowly() -> None:
    """Daphne took 400 of 400 parts of 64 KiB at once."""
    sent = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send(start(200, (b"content-length", b"%d" % (400 * 65536))))
        for _ in range(400):
            await send(body(bytes(65536), more=True))
            sent += 65536
        await send(body())

    async with serving(application, lifespan="off") as server, Client.to(server, limit=65536) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await started(server)
        stopped_at = await steady(lambda: sent)
        assert 0 < stopped_at < 400 * 65536
        [connection] = server.connections
        assert connection.transport.unsent_bytes <= 2 * 65536 + 100
        await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.readexactly(400 * 65536)
        assert sent == 400 * 65536


@on_sockets
async def test_a_send_that_waits_raises_when_the_client_leaves() -> None:
    outcome: asyncio.Queue[Any] = asyncio.Queue()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            while True:
                await send(body(bytes(65536), more=True))
        except OSError as error:
            await outcome.put(type(error).__name__)

    async with serving(application, lifespan="off") as server:
        async with Client.to(server, limit=65536) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            [connection] = await connected(server)
            await steady(lambda: connection.transport.unsent_bytes)
        assert await outcome.get() == "ClientDisconnected"


async def connected(server: Any) -> list[Any]:
    while not server.connections:
        await asyncio.sleep(0.005)
    return list(server.connections)


# -- extensions ----------------------------------------------------------------------------------------------


async def hints_and_trailers(scope: Any, receive: Any, send: Any) -> None:
    await send(start(200, (b"trailer", b"digest"), trailers=True))
    if "http.response.early_hint" in scope["extensions"]:
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
    await send(body(b"text"))
    await send({"type": "http.response.trailers", "headers": [(b"digest", b"1234")]})


@pytest.mark.parametrize("hints", [False, True])
@on_sockets
async def test_51_early_hints_come_first_where_they_are_switched_on(hints: bool) -> None:
    async with serving(hints_and_trailers, lifespan="off", http1_early_hints=hints) as server:
        async with Client.to(server) as client:
            for _ in range(2):
                response = await client.get()
                assert response.interim == ([103] if hints else [])
                assert response.body == b"text"


@pytest.mark.parametrize("wanted", [False, True])
@on_sockets
async def test_52_trailers_reach_a_client_that_asked_for_them(wanted: bool) -> None:
    async with serving(hints_and_trailers, lifespan="off") as server, Client.to(server) as client:
        for _ in range(2):
            response = await client.get("/", *(["TE: trailers"] if wanted else []))
            assert response.body == b"text"
            assert response.trailers == ([(b"digest", b"1234")] if wanted else [])


# -- failures and limits ---------------------------------------------------------------------------------------


@on_sockets
async def test_07_a_failure_before_the_response_is_500_on_a_kept_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/fails":
            raise LookupError("detail")
        await send(start())
        await send(body(b"ok"))

    async with serving(application, lifespan="off") as server, Client.to(server) as client:
        response = await client.get("/fails")
        assert response.status == 500
        assert b"detail" not in response.body
        assert (await client.get("/")).body == b"ok"
    assert [error.partition(" from ")[0] for error in errors_in(caplog)] == [
        "Exception inside application: detail (GET /fails"
    ]


@on_sockets
async def test_07_a_failure_in_the_response_shows_as_one(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"part", more=True))
        await receive()
        raise LookupError("detail")

    async with serving(application, lifespan="off") as server, Client.to(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not (await client.closed()).endswith(b"0\r\n\r\n")
    assert len(errors_in(caplog)) == 1


@on_sockets
async def test_the_http_timeout_answers_503() -> None:
    cancelled = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/fast":
            await send(start())
            await send(body(b"fast"))
            return
        try:
            await asyncio.sleep(100)
        finally:
            cancelled.set()

    records: list[Any] = []

    def log(*call: Any) -> None:
        records.append(call[2])

    async with (
        serving(application, lifespan="off", http_timeout=0.2, action_logger=log) as server,
        Client.to(server) as client,
    ):
        response = await client.get("/slow")
        assert response.status == 503
        await cancelled.wait()
        assert (await client.get("/fast")).body == b"fast"
    assert [(record["path"], record["status"]) for record in records] == [("/slow", 503), ("/fast", 200)]


@on_sockets
async def test_a_connection_beyond_the_limit_gets_503_with_retry_after() -> None:
    async with serving(Recorder(), limit_connections=1) as server, Client.to(server) as first:
        assert (await first.get()).status == 200
        async with Client.to(server) as second:
            response = await second.get()
            assert (response.status, response.header(b"retry-after")) == (503, b"1")
            assert await second.closed() == b""
        assert (await first.get()).status == 200


@on_sockets
async def test_a_request_beyond_the_limit_gets_503_with_retry_after() -> None:
    go = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await send(start())
        await send(body(b"ok"))

    records: list[Any] = []

    def log(*call: Any) -> None:
        records.append((call[2]["method"], call[2]["path"], call[2]["status"]))

    async with serving(application, lifespan="off", limit_concurrency=1, action_logger=log) as server:
        async with Client.to(server) as first, Client.to(server) as second:
            first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await started(server)
            response = await second.get("/refused", method="POST", payload=b"body")
            assert (response.status, response.header(b"retry-after")) == (503, b"1")
            go.set()
            assert (await first.response()).body == b"ok"
            assert (await second.get()).body == b"ok"
    assert records == [("POST", "/refused", 503), ("GET", "/", 200), ("GET", "/", 200)]


@on_sockets
async def test_the_access_log_has_one_record_for_each_request() -> None:
    records: list[Any] = []
    async with (
        serving(Recorder(), action_logger=lambda *call: records.append(call)) as server,
        Client.to(server) as client,
    ):
        await client.get("/one")
        await client.get("/two?x", method="HEAD")
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await client.response()).status == 400
    assert [call[:2] for call in records] == [("http", "complete")] * 3
    found = [(call[2]["method"], call[2]["path"], call[2]["status"], call[2]["size"]) for call in records]
    assert found[:2] == [("GET", "/one", 200, 2), ("HEAD", "/two?x", 200, 0)]
    assert found[2][2] == 400


# -- frameworks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("middleware", [False, True])
@on_sockets
async def test_starlette_streams_and_a_client_that_leaves_is_no_error(
    middleware: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Uvicorn went back to spec_version 2.3 because Starlette's exception for this filled the logs."""
    ended = asyncio.Event()

    async def stream(request: Any) -> Any:
        async def parts() -> Any:
            try:
                while True:
                    yield bytes(1000)
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        return StreamingResponse(parts())

    async def passing(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    layers = [Middleware(BaseHTTPMiddleware, dispatch=passing)] if middleware else []
    application = Starlette(routes=[Route("/", stream)], middleware=layers)
    async with serving(application) as server:
        async with Client.to(server) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.reader.readexactly(3000)
        async with asyncio.timeout(5):
            await ended.wait()
            while server._life is not None and server._life.runner.exchanges:
                await asyncio.sleep(0.01)
    assert errors_in(caplog) == []


@on_sockets
async def test_httpx_gets_what_starlette_sends() -> None:
    async def echo(request: Any) -> Any:
        data = await request.body()

        async def parts() -> Any:
            for index in range(0, len(data), 10_000):
                yield data[index : index + 10_000]

        return StreamingResponse(parts(), status_code=201, headers={"x-length": str(len(data))})

    application = Starlette(routes=[Route("/", echo, methods=["POST"])])
    async with serving(application, lifespan="on") as server, httpx.AsyncClient(trust_env=False) as client:
        host, port = server.listening_addresses[0]
        payload = os.urandom(200_000)
        for _ in range(3):
            response = await client.post(f"http://{host}:{port}/", content=payload)
            assert (response.status_code, response.headers["x-length"]) == (201, "200000")
            assert response.content == payload
        assert len(server.connections) == 1

"""What ASGI requires of a server for WebSockets, on real sockets.

Numbers in names are those of the ASGI checklist; the bridge alone is tested in tests/unit/asgi, frames in
tests/unit/wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import re
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from daphne_ng.errors import UnexpectedMessage
from daphne_ng.server import Server
from tests.support.asgi import Client, body, on_sockets, own_state, serving, start

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", KEY)

ACCEPT = {"type": "websocket.accept"}
CONNECT = {"type": "websocket.connect"}


def text(data: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": data}


class Script:
    """Runs one coroutine function for every WebSocket, and keeps what it was given and how it ended."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.scopes: list[Any] = []
        self.loops: list[Any] = []
        self.received: list[Any] = []
        self.error: BaseException | None = None
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["shared"] = self
            self.loops.append(asyncio.get_running_loop())
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] == "http":
            await send(start())
            await send(body(b"over http"))
            return
        self.scopes.append(scope)
        self.loops.append(asyncio.get_running_loop())

        async def kept() -> Any:
            message = await receive()
            self.received.append(message)
            return message

        try:
            await self._socket(kept, send)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()


@contextlib.asynccontextmanager
async def dial(server: Server, path: str = "/", **more: Any) -> AsyncIterator[ClientConnection]:
    """Connect with the client of another project."""
    host, port = server.listening_addresses[0]
    async with connect(f"ws://{host}:{port}{path}", **{"proxy": None, "ping_interval": None, **more}) as ws:
        yield ws


async def echo(receive: Any, send: Any) -> None:
    assert await receive() == CONNECT
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def listen(receive: Any, send: Any) -> None:
    await receive()
    await send(ACCEPT)
    while (await receive())["type"] != "websocket.disconnect":
        pass


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- scope -------------------------------------------------------------------------------------------------


@on_sockets
async def test_20_21_30_the_scope_of_a_websocket() -> None:
    script = Script(echo)
    async with serving(script, root_path="/mount") as server:
        async with dial(
            server,
            "/a%20b/%C3%A9?x=%20&y",
            subprotocols=["two", "one"],
            origin="http://example",
            user_agent_header=None,
        ) as ws:
            host, port = server.listening_addresses[0]
            client = list(ws.local_address)
    [scope] = script.scopes
    headers = dict(scope.pop("headers"))
    assert headers.pop(b"sec-websocket-key")
    assert headers.pop(b"sec-websocket-extensions").startswith(b"permessage-deflate")
    assert headers == {
        b"host": f"{host}:{port}".encode(),
        b"origin": b"http://example",
        b"upgrade": b"websocket",
        b"connection": b"Upgrade",
        b"sec-websocket-version": b"13",
        b"sec-websocket-protocol": b"two, one",
    }
    assert own_state(scope.pop("state")) == {"shared": script}
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/a b/é",
        "raw_path": b"/a%20b/%C3%A9",
        "query_string": b"x=%20&y",
        "root_path": "/mount",
        "client": client,
        "server": [host, port],
        "subprotocols": ["two", "one"],
        "extensions": {
            "websocket.http.response": {},
            "websocket.http.response.trailers": {},
            "websocket.http.response.pathsend": {"ranges": True},
            "websocket.http.response.zerocopysend": {},
        },
    }


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@on_sockets
async def test_30_the_scheme_over_tls_is_wss(pem: pathlib.Path) -> None:
    script = Script(echo)
    context = ssl.create_default_context(cafile=str(pem))
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    async with serving(script, endpoint) as server:
        port = server.listening_addresses[0][1]
        async with connect(f"wss://localhost:{port}/", host="127.0.0.1", port=port, ssl=context, proxy=None) as ws:
            await ws.send("x" * 500_000)
            assert await ws.recv() == "x" * 500_000
    assert script.scopes[0]["scheme"] == "wss"


@on_sockets
async def test_20_a_unix_socket_has_its_path_and_no_client(tmp_path: pathlib.Path) -> None:
    from websockets.asyncio.client import unix_connect

    script = Script(echo)
    path = str(tmp_path / "s")
    async with serving(script, f"unix:{path}"):
        async with unix_connect(path, "ws://localhost/") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"
    assert script.scopes[0]["client"] is None
    assert script.scopes[0]["server"] == [path, None]


@on_sockets
async def test_21_each_websocket_has_its_own_copy_of_the_state() -> None:
    script = Script(echo)
    async with serving(script) as server:
        async with dial(server):
            script.scopes[0]["state"]["mine"] = 1
        async with dial(server):
            assert own_state(script.scopes[1]["state"]) == {"shared": script}


@on_sockets
async def test_41_the_lifespan_runs_on_the_loop_of_the_websockets() -> None:
    script = Script(echo)
    async with serving(script) as server, dial(server):
        pass
    assert script.loops == [asyncio.get_running_loop()] * 2


@on_sockets
async def test_http_and_websockets_share_port_and_path() -> None:
    script = Script(echo)
    async with serving(script) as server, Client.to(server) as client:
        async with dial(server, "/same") as ws:
            assert (await client.get("/same")).body == b"over http"
            await ws.send("over websocket")
            assert await ws.recv() == "over websocket"
            assert (await client.get("/same")).body == b"over http"


# -- the handshake -----------------------------------------------------------------------------------------


@on_sockets
async def test_31_nothing_is_on_the_wire_before_the_application_accepts() -> None:
    asked, accept = asyncio.Event(), asyncio.Event()

    async def socket(receive: Any, send: Any) -> None:
        assert await receive() == CONNECT
        asked.set()
        await accept.wait()
        await send(ACCEPT)
        await receive()

    async with serving(Script(socket)) as server, Client.to(server) as client:
        client.send("\r\n".join(["GET / HTTP/1.1", "Host: test", *HANDSHAKE, "", ""]).encode())
        await asked.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.1)
        accept.set()
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head


@on_sockets
async def test_32_an_accept_carries_headers_and_a_subprotocol() -> None:
    async def socket(receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"set-cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"x-word", b"caf\xe9")]
        await send({**ACCEPT, "subprotocol": "one", "headers": headers})
        await receive()

    async with serving(Script(socket)) as server, dial(server, subprotocols=["two", "one"]) as ws:
        assert ws.subprotocol == "one"
        assert ws.response is not None
        assert ws.response.headers.get_all("set-cookie") == ["a=1", "b=2"]
        assert ws.response.headers["server"] == "daphne"


@on_sockets
async def test_32_a_subprotocol_among_the_headers_is_refused_and_another_accept_allowed() -> None:
    refused: list[str] = []

    async def socket(receive: Any, send: Any) -> None:
        await receive()
        for wrong in (
            {"headers": [(b"sec-websocket-protocol", b"one")]},
            {"headers": [(b"sec-websocket-accept", b"x")]},
            {"headers": [(b"x", b"a\r\nb: c")]},
            {"subprotocol": "three"},
            {"subprotocol": 1},
        ):
            try:
                await send({**ACCEPT, **wrong})
            except Exception as error:
                refused.append(type(error).__name__)
        await send(ACCEPT)
        await send(text("accepted"))
        await receive()

    async with serving(Script(socket)) as server, dial(server, subprotocols=["two", "one"]) as ws:
        assert await ws.recv() == "accepted"
        assert ws.subprotocol is None
    assert refused == ["InvalidHeader", "InvalidHeader", "InvalidHeader", "UnexpectedMessage", "UnexpectedMessage"]


@on_sockets
async def test_33_a_close_before_the_accept_is_403() -> None:
    async def socket(receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4001, "reason": "unheard"})
        assert (await receive())["type"] == "websocket.disconnect"

    script = Script(socket)
    async with serving(script) as server, Client.to(server) as client:
        answer = await client.get("/", *HANDSHAKE)
        assert answer.status == 403
        assert b"unheard" not in answer.body
        await script.ended.wait()
    assert script.error is None
    assert script.received == [CONNECT, {"type": "websocket.disconnect", "code": 1006, "reason": ""}]


@on_sockets
async def test_47_a_denial_is_streamed() -> None:
    more = asyncio.Event()

    async def socket(receive: Any, send: Any) -> None:
        await receive()
        response = "websocket.http.response"
        headers = [(b"content-type", b"text/plain"), (b"x-why", b"because")]
        await send({"type": f"{response}.start", "status": 418, "headers": headers})
        await send({"type": f"{response}.body", "body": b"I am ", "more_body": True})
        await more.wait()
        await send({"type": f"{response}.body", "body": b"a ", "more_body": True})
        await send({"type": f"{response}.body", "body": b"teapot"})
        assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        with pytest.raises(OSError):
            await send({"type": f"{response}.body", "body": b"!"})
        with pytest.raises(OSError):
            await send(ACCEPT)

    script = Script(socket)
    async with serving(script) as server, Client.to(server) as client:
        client.send("\r\n".join(["GET / HTTP/1.1", "Host: test", *HANDSHAKE, "", ""]).encode())
        early = await client.reader.readuntil(b"I am ")
        assert early.startswith(b"HTTP/1.1 418 ")
        assert b"x-why: because\r\n" in early
        more.set()
        rest = await client.closed()
        assert b"teapot" in rest and rest.endswith(b"0\r\n\r\n")
        await script.ended.wait()
    assert script.error is None


@on_sockets
async def test_47_a_denial_is_what_a_client_sees_in_place_of_the_websocket() -> None:
    async def socket(receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"X")]})
        with pytest.raises(UnexpectedMessage):
            await send(ACCEPT)
        await send({"type": "websocket.http.response.body", "body": b"who are you?"})

    script = Script(socket)
    async with serving(script) as server:
        with pytest.raises(InvalidStatus) as caught:
            async with dial(server):
                pass
        answer = caught.value.response
        assert (answer.status_code, answer.headers["www-authenticate"], answer.body) == (401, "X", b"who are you?")
        await script.ended.wait()
    assert script.error is None


# -- messages ----------------------------------------------------------------------------------------------


@on_sockets
async def test_34_35_a_message_is_either_text_or_bytes_and_may_be_empty() -> None:
    script = Script(echo)
    sent: list[Any] = ["", b"", "é", b"\xff\x00", "x" * 100_000]
    async with serving(script) as server, dial(server) as ws:
        for message in sent:
            await ws.send(message)
            assert await ws.recv() == message
    for message, given in zip(sent, script.received[1:-1], strict=True):
        key, other = ("text", "bytes") if isinstance(message, str) else ("bytes", "text")
        assert given["type"] == "websocket.receive"
        assert given[key] == message
        assert given.get(other) is None


@on_sockets
async def test_34_fragments_are_one_message() -> None:
    script = Script(echo)
    async with serving(script) as server, dial(server) as ws:
        await ws.send(["a", "", "b", "c"])
        assert await ws.recv() == "abc"
        await ws.send([b"\x00", b"\x01"])
        assert await ws.recv() == b"\x00\x01"
    assert [message["type"] for message in script.received].count("websocket.receive") == 2


@on_sockets
async def test_35_a_message_that_is_neither_or_both_is_refused_and_the_socket_stays() -> None:
    refused: list[str] = []

    async def socket(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        for wrong in ({}, {"text": "a", "bytes": b"a"}, {"text": b"a"}, {"bytes": "a"}, {"text": "\ud800"}):
            try:
                await send({"type": "websocket.send", **wrong})
            except Exception as error:
                refused.append(type(error).__name__)
        await send({"type": "websocket.send", "text": "fine", "bytes": None})
        await receive()

    async with serving(Script(socket)) as server, dial(server) as ws:
        assert await ws.recv() == "fine"
    assert refused == ["UnexpectedMessage"] * 5


@on_sockets
async def test_35_sends_of_several_tasks_do_not_interleave() -> None:
    tasks, each = 8, 20

    async def socket(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

        async def write(number: int) -> None:
            for count in range(each):
                await send(text(f"{number}:{count}:" + str(number) * (10 ** (count % 6))))

        await asyncio.gather(*(write(number) for number in range(tasks)))
        await send({"type": "websocket.close"})

    async with serving(Script(socket)) as server, dial(server, max_size=None) as ws:
        seen: dict[str, int] = {}
        async for message in ws:
            number, count, data = str(message).split(":")
            assert int(count) == seen.get(number, 0)  # the order of each task
            assert data == number * (10 ** (int(count) % 6))
            seen[number] = int(count) + 1
        assert seen == {str(number): each for number in range(tasks)}


@on_sockets
async def test_36_pings_are_answered_and_sent() -> None:
    script = Script(listen)
    async with serving(script, ping_interval=0.2, ping_timeout=1.0) as server, dial(server) as ws:
        await (await ws.ping(b"hello"))
        await asyncio.sleep(2.5)  # ours have been answered meanwhile, or it would be closed
        await (await ws.ping())
    assert script.received[-1]["code"] == 1000


@on_sockets
async def test_36_a_client_that_answers_no_ping_is_dropped() -> None:
    script = Script(listen)
    async with serving(script, ping_interval=0.1, ping_timeout=0.2) as server, Client.to(server) as client:
        client.send("\r\n".join(["GET / HTTP/1.1", "Host: test", *HANDSHAKE, "", ""]).encode())
        await client.reader.readuntil(b"\r\n\r\n")
        assert await client.reader.readexactly(2) == b"\x89\x00"
        assert await client.closed() == b""
        await script.ended.wait()
    assert script.received[-1] == {
        "type": "websocket.disconnect",
        "code": 1006,
        "reason": "The client did not answer a ping.",
    }


# -- endings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [
        (b"\x88\x80\0\0\0\0", 1005, ""),
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000, ""),
        (b"\x88\x85\0\0\0\0\x0f\xa2bye", 4002, "bye"),
        (b"", 1006, ""),
    ],
    ids=["no code", "a code", "a code and a reason", "no Close frame"],
)
@on_sockets
async def test_37_the_application_learns_once_how_its_client_closed(frame: bytes, code: int, reason: str) -> None:
    async def socket(receive: Any, send: Any) -> None:
        await listen(receive, send)
        assert await receive() == await receive()

    script = Script(socket)
    async with serving(script) as server:
        async with Client.to(server) as client:
            client.send("\r\n".join(["GET / HTTP/1.1", "Host: test", *HANDSHAKE, "", ""]).encode())
            await client.reader.readuntil(b"\r\n\r\n")
            if frame:
                client.send(frame)
                assert await client.closed() == bytes([0x88, frame[1] & 0x7F]) + frame[6:]  # echoed
        await script.ended.wait()
    assert script.error is None
    # The same one each time it is asked for.
    assert script.received[1:] == [{"type": "websocket.disconnect", "code": code, "reason": reason}] * 3


@on_sockets
async def test_37_38_a_close_of_the_application_has_code_and_reason() -> None:
    async def socket(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send(text("last"))
        await send({"type": "websocket.close", "code": 4003, "reason": "Grüße"})
        await receive()

    script = Script(socket)
    async with serving(script) as server, dial(server) as ws:
        assert await ws.recv() == "last"
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert (ws.close_code, ws.close_reason) == (4003, "Grüße")
        await script.ended.wait()
    assert script.received[-1] == {"type": "websocket.disconnect", "code": 4003, "reason": "Grüße"}


@on_sockets
async def test_38_a_close_without_a_code_is_1000() -> None:
    async def socket(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close"})

    async with serving(Script(socket)) as server, dial(server) as ws:
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert (ws.close_code, ws.close_reason) == (1000, "")


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "asked"])
@on_sockets
async def test_07_39_an_exception_closes_with_1011_or_500_and_one_traceback(
    accepted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def socket(receive: Any, send: Any) -> None:
        await receive()
        if accepted:
            await send(ACCEPT)
        raise ValueError("on purpose")

    async with serving(Script(socket)) as server:
        if accepted:
            async with dial(server) as ws:
                with pytest.raises(ConnectionClosed):
                    await ws.recv()
                assert (ws.close_code, ws.close_reason) == (1011, "")
        else:
            async with Client.to(server) as client:
                answer = await client.get("/", *HANDSHAKE)
                assert answer.status == 500
                assert b"on purpose" not in answer.body
    [complaint] = complaints(caplog)
    assert re.fullmatch(r"Exception inside application: on purpose \(WebSocket \S+ from 127\.0\.0\.1:\d+\)", complaint)
    assert [record.exc_info is not None for record in caplog.records if record.levelno >= logging.WARNING] == [True]


@on_sockets
async def test_39_the_applications_return_closes_the_websocket(caplog: pytest.LogCaptureFixture) -> None:
    async def socket(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)

    async with serving(Script(socket)) as server, dial(server) as ws:
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 1000
    assert complaints(caplog) == []


@on_sockets
async def test_39_a_return_without_an_answer_is_500(caplog: pytest.LogCaptureFixture) -> None:
    async def socket(receive: Any, send: Any) -> None:
        await receive()

    async with serving(Script(socket)) as server, Client.to(server) as client:
        assert (await client.get("/", *HANDSHAKE)).status == 500
    [complaint] = complaints(caplog)
    assert complaint.startswith("Application returned without accepting or closing WebSocket /")


@on_sockets
async def test_39_an_application_that_does_not_see_the_end_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def socket(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await asyncio.sleep(60)

    script = Script(socket)
    async with serving(script, application_close_timeout=0.2) as server:
        async with dial(server):
            pass
        await script.ended.wait()
    assert isinstance(script.error, asyncio.CancelledError)
    [complaint] = complaints(caplog)
    assert "took too long to shut down and was killed" in complaint


@pytest.mark.parametrize("how", ["close", "drop"])
@on_sockets
async def test_29_40_send_raises_after_the_end(how: str, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Any] = []

    async def socket(receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        while len(errors) < 2:
            try:
                await send(text("tick"))
                await asyncio.sleep(0.01)
            except Exception as error:
                errors.append(error)
        await send({"type": "websocket.close"})  # consumers do that in their disconnect handlers
        await send(text("raises out of the application"))

    script = Script(socket)
    async with serving(script) as server:
        async with dial(server) as ws:
            if how == "drop":
                ws.transport.abort()
        await script.ended.wait()
    assert len(errors) == 2
    assert all(isinstance(error, OSError) and type(error) is not OSError for error in errors)
    assert isinstance(script.error, OSError)
    assert complaints(caplog) == []


# As in Daphne: consumers of Channels take one message after the other, and must come to the disconnect.
@pytest.mark.parametrize("how", ["close", "drop"])
@on_sockets
async def test_an_application_that_receives_may_send_late(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def socket(receive: Any, send: Any) -> None:
        await listen(receive, send)
        for _ in range(10):
            await send(text("late"))
        await send({"type": "websocket.close"})
        await send(text("late"))

    script = Script(socket)
    async with serving(script) as server:
        async with dial(server) as ws:
            if how == "drop":
                ws.transport.abort()
        await script.ended.wait()
    assert script.error is None
    assert complaints(caplog) == []


@on_sockets
async def test_40_a_send_that_waits_for_a_client_raises_when_it_leaves(caplog: pytest.LogCaptureFixture) -> None:
    full = asyncio.Event()
    sent = 0

    async def socket(receive: Any, send: Any) -> None:
        nonlocal sent
        await receive()
        await send(ACCEPT)
        while True:
            try:
                await asyncio.wait_for(asyncio.shield(sending := asyncio.ensure_future(send(text("x" * 65536)))), 0.5)
                sent += 1
            except TimeoutError:
                full.set()
                await sending

    script = Script(socket)
    async with serving(script) as server:
        async with Client.to(server, limit=1024) as client:
            client.send("\r\n".join(["GET / HTTP/1.1", "Host: test", *HANDSHAKE, "", ""]).encode())
            await client.reader.readuntil(b"\r\n\r\n")
            await full.wait()
            before = sent
            client.writer.transport.abort()  # type: ignore[attr-defined]
        await script.ended.wait()
        assert sent == before
    assert isinstance(script.error, OSError)
    assert complaints(caplog) == []


@on_sockets
async def test_a_client_that_leaves_during_the_handshake_is_a_disconnect(caplog: pytest.LogCaptureFixture) -> None:
    asked = asyncio.Event()

    async def socket(receive: Any, send: Any) -> None:
        await receive()
        asked.set()
        assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        await send(ACCEPT)  # not an error yet: a slow connect() of a consumer comes to this

    script = Script(socket)
    async with serving(script) as server:
        async with Client.to(server) as client:
            client.send("\r\n".join(["GET / HTTP/1.1", "Host: test", *HANDSHAKE, "", ""]).encode())
            await asked.wait()
        await script.ended.wait()
        assert server.connections == set()
    assert script.error is None
    assert complaints(caplog) == []


# -- many of them ------------------------------------------------------------------------------------------


@on_sockets
async def test_messages_of_many_websockets_reach_their_own() -> None:
    script = Script(echo)
    async with serving(script) as server:

        async def talk(number: int) -> None:
            async with dial(server, compression=None if number % 2 else "deflate") as ws:
                for count in range(20):
                    message = f"{number}/{count} " * (1 + number * count)
                    await ws.send(message)
                    assert await ws.recv() == message

        await asyncio.gather(*(talk(number) for number in range(30)))
    assert len(script.scopes) == 30


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "refused"])
@on_sockets
async def test_the_action_logger_gets_pairs(accepted: bool) -> None:
    calls: list[tuple[str, str, dict[str, Any]]] = []

    async def socket(receive: Any, send: Any) -> None:
        await receive()
        if not accepted:
            await send({"type": "websocket.close"})
            return
        await send(ACCEPT)
        await send(text((await receive())["text"] * 2))
        await receive()

    script = Script(socket)
    async with serving(script, action_logger=lambda *call: calls.append(call)) as server:
        with contextlib.suppress(InvalidStatus):
            async with dial(server, "/a%20b?secret=1") as ws:
                await ws.send("ab")
                await ws.recv()
                await ws.close(4000, "x")
        await script.ended.wait()
    assert [call[:2] for call in calls] == [
        ("websocket", action)
        for action in (["connecting", "connected", "disconnected"] if accepted else ["connecting", "rejected"])
    ]
    for _protocol, _action, details in calls:
        assert details["path"] == "/a%20b"  # Daphne's: without the query
        assert details["client"].startswith("127.0.0.1:")
    last = calls[-1][2]
    assert last["time_taken"] >= 0
    if accepted:
        assert (last["code"], last["bytes_received"], last["bytes_sent"]) == (4000, 2, 4)
    else:
        assert (last["code"], last["status"]) == (1006, 403)

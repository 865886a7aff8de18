"""`daphne_ng.net.channels.tunnel`: a WebSocket over a stream, on a strict fake of that stream and in virtual time."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from wsproto.events import CloseConnection, Ping
from zope.interface.verify import verifyObject

from daphne_ng.net.channels.tunnel import Tunnel, Turns
from daphne_ng.net.channels.websocket import WebSocketChannel
from daphne_ng.wire.websocket.handshake import WebSocketRequest
from tests.support import ws
from tests.support.asgi import StrictPort, connection, on_loop, request_head, settle
from tests.support.net import CLIENT, HERE, FakeTransport, Wire


class FakeStream(StrictPort):
    """A stream as `Http2Stream` promises to be, and strict about what it forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: list[tuple[bytes, bytes]] | None = None
        self.written = b""
        self.unsent = 0
        self.full = False
        self.credited = 0
        self.abandoned = False
        self.tasks_ended = 0

    def open_tunnel(self, headers: Any) -> bytes:
        assert self.state == "open", f"open_tunnel() when {self.state}"
        self.answer = list(headers)
        self.state = "tunnel"
        return b""

    def send(self, data: bytes) -> None:
        assert self.state == "tunnel", f"send() when {self.state}"
        assert type(data) is bytes
        self.written += data

    def finish(self) -> None:
        assert self.state == "tunnel", f"finish() when {self.state}"
        self.state = "finished"

    def reset(self, reason: str) -> None:
        assert self.state in ("open", "started", "tunnel", "finished"), f"reset() when {self.state}"
        self.state = "reset"

    def consumed(self, count: int) -> None:
        assert count > 0
        self.credited += count

    def abandon(self) -> None:
        assert self.state in ("finished", "ended", "reset"), f"abandon() when {self.state}"
        assert not self.abandoned
        self.abandoned = True

    @property
    def send_buffer_full(self) -> bool:
        return self.full

    @property
    def buffered(self) -> int:
        return self.unsent

    def task_ended(self) -> None:
        self.tasks_ended += 1


class Socket(FakeTransport):
    def fileno(self) -> int:
        raise OSError("a fake has none")


class Tunnelled:
    """A handshake that has come on a fake stream."""

    def __init__(self, application: Any, *subprotocols: str, offers: str = "", **settings: Any) -> None:
        self.wire = Wire(application, **settings)
        self.actions: list[str] = []
        self.wire.runner.record_websocket = lambda exchange, action: self.actions.append(action)
        self.socket = Socket()
        self.stream = FakeStream()
        self.siblings: set[Tunnel] = set()
        stream: Any = self.stream
        self.tunnel = Tunnel(
            self.wire.context,
            self.socket,
            connection(scheme="https"),
            stream,
            self.siblings,
            Turns(self.wire.context.loop),
        )
        head = request_head("CONNECT", "/chat", http_version="2")
        self.begun = self.tunnel.ask(WebSocketRequest(head, None, list(subprotocols), offers))


def _events(data: bytes) -> Any:
    client = ws.client()
    client.receive_data(data)
    return client.events()


class Application:
    """Accepts, and does what it is told to."""

    def __init__(self, **accept: Any) -> None:
        self.accept = accept
        self.scopes: list[Any] = []
        self.received: list[Any] = []
        self.go = asyncio.Event()
        self.go.set()
        self.send: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.send = send
        await receive()
        await send({"type": "websocket.accept", **self.accept})
        while True:
            await self.go.wait()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.received.append(message["code"])
                return
            self.received.append(message.get("text", message.get("bytes")))


@on_loop
async def test_it_is_a_transport() -> None:
    one = Tunnelled(Application())
    for interface in (ITransport, IConsumer, IPushProducer):
        verifyObject(interface, one.tunnel)
    assert one.tunnel.getPeer() == CLIENT
    assert one.tunnel.getHost() == HERE
    one.tunnel.disconnected("the client left")
    await asyncio.sleep(1)


@on_loop
async def test_the_handshake_is_answered_with_the_fields_of_the_websocket_and_of_the_application() -> None:
    application = Application(subprotocol="b", headers=[(b"x-a", b"1")])
    one = Tunnelled(application, "a", "b", offers=ws.DEFLATE)
    assert one.begun
    await settle()
    assert one.stream.answer == [
        (b"sec-websocket-protocol", b"b"),
        (b"sec-websocket-extensions", one.stream.answer[1][1]),  # type: ignore[index]
        (b"x-a", b"1"),
    ]
    assert one.stream.answer[1][1].startswith(b"permessage-deflate")
    (scope,) = application.scopes
    assert (scope["type"], scope["scheme"], scope["http_version"]) == ("websocket", "wss", "2")
    assert scope["subprotocols"] == ["a", "b"]
    assert one.siblings == {one.tunnel}
    one.tunnel.disconnected("the client left")
    await settle()
    assert one.actions == ["connecting", "connected", "disconnected"]


@on_loop
async def test_messages_go_both_ways() -> None:
    application = Application()
    one = Tunnelled(application)
    await settle()
    assert not one.tunnel.body_received(ws.text("hello") + ws.binary(b"\0")[:3])
    await settle()
    assert not one.tunnel.body_received(ws.binary(b"\0")[3:])
    await settle()
    assert application.received == ["hello", b"\0"]
    await application.send({"type": "websocket.send", "text": "yourself"})
    assert [event.data for event in _events(one.stream.written)] == ["yourself"]
    one.tunnel.disconnected("the client left")
    await settle()
    assert application.received[2:] == [1006]


@on_loop
async def test_what_comes_before_the_answer_is_kept_and_its_window_kept_back() -> None:
    accepted = asyncio.Event()
    inner = Application()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await accepted.wait()
        await inner(scope, receive, send)

    one = Tunnelled(application)
    parts = [ws.text("one"), ws.text("two")]
    for part in parts:
        assert one.tunnel.body_received(part)
    await settle()
    assert one.stream.credited == 0
    accepted.set()
    await settle()
    assert inner.received == ["one", "two"]
    assert one.stream.credited == sum(map(len, parts))
    one.tunnel.disconnected("the client left")
    await settle()


@on_loop
async def test_an_application_that_does_not_receive_keeps_the_window_back() -> None:
    application = Application()
    application.go.clear()
    one = Tunnelled(application, inbox_high_bytes=2000, inbox_low_bytes=500)
    await settle()
    parts = [ws.text(f"{number:700d}") for number in range(8)]
    answers = [one.tunnel.body_received(part) for part in parts]
    assert answers == sorted(answers)
    assert answers[0] is False
    assert answers[-1] is True
    kept = sum(len(part) for part, answer in zip(parts, answers, strict=True) if answer)
    one.tunnel.body_ended(())
    await settle()
    assert one.stream.credited == 0
    assert application.received == []
    application.go.set()
    await settle(60)
    assert application.received == [f"{number:700d}" for number in range(8)] + [1006]
    assert one.stream.credited == kept
    await settle()
    assert one.stream.state == "finished"


@pytest.mark.parametrize("seed", range(40))
@on_loop
async def test_however_it_is_cut_and_whenever_it_is_received_nothing_is_lost_or_turned_around(seed: int) -> None:
    chance = random.Random(seed)
    application = Application()
    one = Tunnelled(application, inbox_high_bytes=3000, inbox_low_bytes=500)
    messages = [str(number) * chance.choice((1, 10, 400)) for number in range(60)]
    data = b"".join(map(ws.text, messages)) + ws.close(4000)
    kept, position = 0, 0
    while position < len(data):
        size = chance.choice((1, 7, 130, 2000))
        if one.stream.state == "finished":
            break
        if one.tunnel.body_received(data[position : position + size]):
            kept += len(data[position : position + size])
        position += size
        if chance.random() < 0.3:
            application.go.set() if chance.random() < 0.6 else application.go.clear()
        if chance.random() < 0.5:
            await settle(chance.randrange(6))
        assert one.stream.credited <= kept
    if chance.random() < 0.5:
        one.tunnel.body_ended(())
    application.go.set()
    await settle(200)
    assert application.received == [*messages, 4000]
    assert one.stream.state == "finished"
    # What was kept back at the end, the stream gives back with this.
    assert one.stream.abandoned
    assert one.siblings == set()


@on_loop
async def test_send_waits_while_the_stream_is_full() -> None:
    application = Application()
    one = Tunnelled(application)
    await settle()
    one.stream.full = True
    await application.send({"type": "websocket.send", "bytes": b"x" * 100})  # it fills the stream
    waiting = asyncio.ensure_future(application.send({"type": "websocket.send", "bytes": b"y"}))
    await settle()
    assert not waiting.done()
    one.stream.full = False
    one.tunnel.writable_again()
    one.tunnel.writable_again()
    await settle()
    assert waiting.done()
    one.tunnel.disconnected("the client left")
    await settle()


@on_loop
async def test_a_client_that_takes_nothing_is_reset() -> None:
    application = Application()
    one = Tunnelled(application, write_timeout=30, ping_interval=0)
    await settle()
    one.stream.full = True
    one.stream.unsent = 100_000
    await application.send({"type": "websocket.send", "bytes": b"x"})
    await application.send({"type": "websocket.send", "bytes": b"y"})
    assert one.stream.state == "reset"
    await settle()
    assert application.received == [1006]
    assert one.siblings == set()


@on_loop
async def test_the_end_of_the_clients_half_is_an_end_without_a_close_frame() -> None:
    application = Application()
    one = Tunnelled(application)
    await settle()
    one.tunnel.body_ended(())
    await settle()
    assert application.received == [1006]
    assert one.stream.state == "finished"
    assert one.stream.abandoned
    assert one.stream.tasks_ended == 1


@on_loop
async def test_a_close_that_the_client_begins_ends_our_half() -> None:
    application = Application()
    one = Tunnelled(application)
    await settle()
    assert not one.tunnel.body_received(ws.close(1001, "away"))
    assert one.stream.state == "finished"
    (event,) = _events(one.stream.written)
    assert isinstance(event, CloseConnection)
    await settle()
    assert application.received == [1001]
    assert one.siblings == set()
    # Whatever the stream tells now has nobody to hear it.
    assert not one.tunnel.body_received(b"late")
    one.tunnel.body_ended(())
    one.tunnel.disconnected("late")
    one.tunnel.writable_again()
    one.tunnel.write(b"late")
    one.tunnel.loseConnection()
    one.tunnel.abortConnection()
    one.tunnel.resumeProducing()
    assert one.tunnel.unsent_bytes == 0
    assert one.tunnel.fileno() == -1


@on_loop
async def test_a_close_that_the_application_begins_waits_for_the_clients() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000, "reason": "done"})

    one = Tunnelled(application)
    await settle()
    assert one.stream.state == "tunnel"
    assert one.stream.tasks_ended == 1
    one.tunnel.body_received(ws.close(4000))
    assert one.stream.state == "finished"
    await settle()
    assert one.siblings == set()


@on_loop
async def test_a_close_that_the_client_does_not_answer_ends_all_the_same() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

    one = Tunnelled(application, close_timeout=5)
    await settle()
    await asyncio.sleep(4.9)
    assert one.stream.state == "tunnel"
    await asyncio.sleep(0.2)
    assert one.stream.state == "finished"
    await settle()
    assert one.siblings == set()


@on_loop
async def test_a_client_that_breaks_a_rule_gets_a_close_frame_and_time_to_read_it() -> None:
    application = Application()
    one = Tunnelled(application, close_timeout=5)
    await settle()
    one.tunnel.body_received(ws.text("unmasked", key=None))
    (event,) = _events(one.stream.written)
    assert event.code == 1002
    assert one.stream.state == "finished"
    assert not one.stream.abandoned
    await settle()
    assert not one.tunnel.body_received(b"what it still sends")
    one.tunnel.body_ended(())
    await settle()
    assert one.stream.abandoned
    assert application.received == [1002]
    assert one.siblings == set()


@on_loop
async def test_pings_are_sent_and_an_answer_is_expected() -> None:
    application = Application()
    one = Tunnelled(application, ping_interval=20, ping_timeout=30)
    await settle()
    await asyncio.sleep(21)
    (event,) = _events(one.stream.written)
    assert isinstance(event, Ping)
    one.tunnel.body_received(ws.pong())
    await asyncio.sleep(40)
    assert one.stream.state == "tunnel"
    await asyncio.sleep(31)
    assert one.stream.state == "reset"
    assert application.received == [1006]
    await settle()
    assert one.siblings == set()


@on_loop
async def test_a_ping_that_waits_behind_other_streams_is_not_counted_as_unanswered() -> None:
    one = Tunnelled(Application(), ping_interval=20, ping_timeout=30, write_timeout=0)
    await settle()
    assert one.tunnel.unsent_bytes == 0
    one.socket.unsent_bytes = 70_000
    assert one.tunnel.unsent_bytes == 70_000
    one.stream.unsent = 5
    assert one.tunnel.unsent_bytes == 5
    await asyncio.sleep(200)
    assert one.stream.state == "tunnel"
    one.tunnel.disconnected("the client left")
    await settle()


@on_loop
async def test_the_handshake_may_be_answered_with_a_response() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"who "})

    one = Tunnelled(application)
    one.tunnel.body_ended(())  # the client will say nothing more, which is none of the response's business
    await settle()
    assert one.stream.status == 401
    assert one.stream.sent == b"who "
    assert one.stream.state == "ended"
    assert one.stream.tasks_ended == 1
    assert one.siblings == set()
    assert one.actions == ["connecting", "rejected"]


@on_loop
async def test_an_application_that_does_not_decide_is_answered_for() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1000)

    one = Tunnelled(application, websocket_connect_timeout=5, application_close_timeout=10)
    await asyncio.sleep(6)
    assert one.stream.status == 403
    assert one.stream.tasks_ended == 0
    await asyncio.sleep(10)
    assert one.stream.tasks_ended == 1
    assert one.siblings == set()


@on_loop
async def test_a_client_that_leaves_during_the_handshake_is_a_disconnect() -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append((await receive())["code"])
        await asyncio.sleep(3)

    one = Tunnelled(application)
    await settle()
    one.tunnel.disconnected("the client reset the stream")
    await settle()
    assert seen == [1006]
    assert one.siblings == set()
    assert one.stream.tasks_ended == 0, "the stream is counted as long as the task runs"
    await asyncio.sleep(4)
    assert one.stream.tasks_ended == 1


@on_loop
async def test_a_handshake_beyond_the_limit_of_concurrency_is_answered_503() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    one = Tunnelled(application, limit_concurrency=1)
    stream: Any = FakeStream()
    second = Tunnel(one.wire.context, one.socket, connection(), stream, one.siblings, Turns(one.wire.context.loop))
    assert not second.ask(WebSocketRequest(request_head("CONNECT"), None, [], ""))
    assert stream.status == 503
    assert one.siblings == {one.tunnel}
    one.tunnel.disconnected("the client left")
    await settle()


@pytest.mark.parametrize("early", [False, True])
@on_loop
async def test_shutting_down_closes_with_1012(early: bool) -> None:
    application = Application()
    one = Tunnelled(application)
    if not early:
        await settle()
    one.tunnel.shut_down()
    await settle()
    (event,) = _events(one.stream.written)
    assert event.code == 1012
    one.tunnel.body_received(ws.close(1012))
    await settle()
    assert application.received == [1012]
    one.tunnel.shut_down()


@on_loop
async def test_only_one_push_producer_is_taken() -> None:
    one = Tunnelled(Application())
    with pytest.raises(RuntimeError):
        one.tunnel.registerProducer(object(), True)
    one.tunnel.unregisterProducer()
    with pytest.raises(NotImplementedError):
        one.tunnel.registerProducer(object(), False)
    await settle()
    one.tunnel.writeSequence([b"a", b"b"])
    assert one.stream.written == b"ab"
    one.tunnel.stopProducing()
    assert one.stream.state == "finished"
    await settle()


@pytest.mark.parametrize("ending", ["reset", "closed", "denied"])
@on_loop
async def test_nothing_is_left_for_the_garbage_collector(ending: str) -> None:
    async def denying(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})

    gc.collect()
    gc.disable()
    try:
        application = Application()
        one = Tunnelled(denying if ending == "denied" else application)
        await settle()
        application.send = None  # the exchange's
        if ending == "reset":
            one.tunnel.disconnected("the client left")
        elif ending == "closed":
            one.tunnel.body_received(ws.close())
        await settle()
        assert one.stream.tasks_ended == 1
        del one.tunnel
        # An isinstance() asks an object for its class, and an unconfigured one of Django raises.
        kinds = (Tunnel, WebSocketChannel)
        left = [type(thing).__name__ for thing in gc.get_objects() if issubclass(type(thing), kinds)]
        assert left == []
    finally:
        gc.enable()

"""Properties of one WebSocket: whatever happens in whatever order, it ends once.

One disconnect to receive, one line at the beginning and one at the end of the access log, one ended task, and no call
of the port out of order (`StrictWebSocketPort` fails the run on any).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daphne_ng.errors import ApplicationError, ClientDisconnected
from tests.support.asgi import Bridge, run_virtual, settle

pytestmark = pytest.mark.once


ACCEPT = {"type": "websocket.accept"}
DENIAL = {"type": "websocket.http.response.start", "status": 401, "headers": []}
MESSAGES: list[Any] = [
    ACCEPT,
    {"type": "websocket.accept", "headers": [(b"bad", b"a\nb")]},
    {"type": "websocket.accept", "subprotocol": "chat"},
    {"type": "websocket.accept", "subprotocol": "other"},
    {"type": "websocket.send", "text": "text"},
    {"type": "websocket.send", "text": "\ud800"},
    {"type": "websocket.send", "bytes": b""},
    {"type": "websocket.close"},
    {"type": "websocket.close", "code": 1005},
    {"type": "websocket.close", "code": 3000, "reason": "enough"},
    DENIAL,
    {**DENIAL, "headers": [(b"bad", b"a\nb")]},
    {**DENIAL, "headers": [(b"content-length", b"1")]},
    {"type": "websocket.http.response.body", "body": b"ab", "more_body": True},
    {"type": "websocket.http.response.body", "body": b"c"},
    {**DENIAL, "trailers": True},
    {"type": "websocket.http.response.early_hint", "links": [b"</a>"]},
    {"type": "websocket.http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": True},
    {"type": "websocket.http.response.trailers", "headers": [(b"x-sum", b"2")]},
    {"type": "websocket.http.response.trailers", "headers": [(b"bad", b"a\nb")]},
    {"type": "nonsense"},
]

STEP = st.one_of(
    st.sampled_from([("send", message) for message in MESSAGES]),
    st.sampled_from([("send", message) for message in MESSAGES[4:7]]),
    st.just(("receive", None)),
    st.just(("receive", None)),
    st.just(("yield", None)),
    st.just(("raise", None)),
    st.just(("cancel other", None)),
)


# Most scripts accept or deny first; without that, few of them would ever get any further.
@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[str, Any]]:
    script = draw(st.lists(STEP, max_size=10))
    opening = draw(st.sampled_from([None, ACCEPT, ACCEPT, ACCEPT, DENIAL, {**DENIAL, "trailers": True}]))
    return script if opening is None else [("send", opening), *script]


EVENTS = ["text", "bytes", "block", "unblock", "close", "expire", "give up", "turn", "turns", "time"]
WIRE = st.lists(st.sampled_from([*EVENTS, "text", "turn", "turns"]), max_size=16)


class Stop(Exception):
    pass


class Scripted:
    """Runs two scripts in two tasks; keeps what it receives."""

    def __init__(self, *scripts: list[tuple[str, Any]], patient: bool) -> None:
        self.scripts = scripts
        self.patient = patient
        self.received: list[Any] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.mistakes: list[AssertionError] = []
        self.runs = 0
        self.ended = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs += 1
        try:
            self.tasks = [asyncio.ensure_future(self.follow(script, receive, send)) for script in self.scripts]
            try:
                for result in await asyncio.gather(*self.tasks, return_exceptions=True):
                    if isinstance(result, Stop | ClientDisconnected):
                        raise result
                if self.patient:
                    await asyncio.sleep(1000)
            finally:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)
        finally:
            self.ended += 1

    async def follow(self, script: list[tuple[str, Any]], receive: Any, send: Any) -> None:
        for action, message in script:
            if action == "send":
                try:
                    await send(message)
                except ApplicationError:
                    pass
                except AssertionError as error:  # the port's; gather() would swallow it
                    self.mistakes.append(error)
                    raise
            elif action == "receive":
                self.received.append(await receive())
            elif action == "yield":
                await asyncio.sleep(0)
            elif action == "raise":
                raise Stop
            else:
                for task in self.tasks:
                    if task is not asyncio.current_task():
                        task.cancel()


async def play(first: Any, second: Any, wire: list[str], patient: bool) -> None:
    application = Scripted(first, second, patient=patient)
    bridge = Bridge(application, inbox_high_bytes=600, inbox_low_bytes=260)
    exchange, port = bridge.begin_websocket("chat")
    delivered: list[str | bytes] = []

    # As a protocol: nothing reaches the sink after the end, and nothing while it has paused.
    def live() -> bool:
        return port.state in ("connecting", "open") and port.response.state not in ("ended", "reset")

    for event in wire:
        if event in ("text", "bytes") and port.state == "open" and not port.paused:
            message: str | bytes = f"ä{len(delivered)}" if event == "text" else b"%d" % len(delivered)
            delivered.append(message)
            port.deliver(exchange, message)
        elif event == "block":
            port.block()
            if port.response.state in ("open", "started"):
                port.response.block()
        elif event == "unblock":
            port.unblock()
            port.response.unblock()
        elif event == "close" and live():
            port.leave(exchange, 1001, "away")
        elif event == "expire" and live() and port.state == "connecting":
            exchange.expired()
            port.response.unblock()
        elif event == "give up":
            exchange.cancel("the server is shutting down")
            port.response.unblock()
        elif event == "turn":
            await asyncio.sleep(0)
        elif event == "turns":
            await settle()
        elif event == "time":
            await asyncio.sleep(3)
    if live():
        await settle()
        if live():
            port.leave(exchange)
    port.unblock()
    port.response.unblock()
    await asyncio.sleep(11)  # past the application's close timeout

    assert not application.mistakes
    assert exchange.task is None
    assert not bridge.runner.exchanges
    assert application.runs == application.ended <= 1
    assert exchange.accepted == ("accept" in port.names)
    if exchange.accepted:
        assert bridge.actions == ["connecting", "connected", "disconnected"]
        assert port.response.calls == []
    else:
        assert bridge.actions in (["connecting", "rejected"], ["connecting", "disconnected"])
        assert port.calls == []
        assert exchange.status == port.response.status
    assert port.names.count("accept") <= 1
    assert port.names.count("close") <= 1
    assert port.response.names.count("start") <= 1

    received = application.received
    if received:
        assert received[0] == {"type": "websocket.connect"}
    got = [message.get("text", message.get("bytes")) for message in received[1:] if "code" not in message]
    assert got == delivered[: len(got)]
    kinds = [message["type"] for message in received]
    if "websocket.disconnect" in kinds:
        assert set(kinds[kinds.index("websocket.disconnect") :]) == {"websocket.disconnect"}
    # After all that there is the one disconnect for whoever asks, and nothing can be sent.
    while (last := await asyncio.wait_for(exchange.receive(), 1))["type"] != "websocket.disconnect":
        pass
    assert last == {"type": "websocket.disconnect", "code": exchange.code, "reason": exchange.reason}
    assert await asyncio.wait_for(exchange.receive(), 1) == last
    assert all(message == last for message in received if message["type"] == "websocket.disconnect")
    closes = [call[1:] for call in port.calls if call[0] == "close"]
    assert closes in ([], [(last["code"], last["reason"])])
    before = list(port.calls)
    await exchange.send({"type": "websocket.close"})
    try:
        await exchange.send({"type": "websocket.send", "text": ""})
    except ClientDisconnected:
        pass
    else:
        raise AssertionError("something could be sent after the end")
    assert port.calls == before


_RECEIVE = ("receive", None)
_ACCEPT = ("send", {"type": "websocket.accept"})


# Two readers: nobody may overtake the one that a message was handed to.
@example([_RECEIVE] * 3, [_ACCEPT, _RECEIVE], ["turns", "text", "text", "text"], False)
@example([_RECEIVE] * 3, [_ACCEPT, _RECEIVE], ["turns", "text", "text", "close"], False)
@given(first=scripts(), second=scripts(), wire=WIRE, patient=st.booleans())
def test_a_websocket_ends_once_under_any_interleaving(first: Any, second: Any, wire: list[str], patient: bool) -> None:
    logging.getLogger("tests.bridge").setLevel(logging.CRITICAL + 1)
    try:
        run_virtual(play(first, second, wire, patient))
    finally:
        logging.getLogger("tests.bridge").setLevel(logging.NOTSET)

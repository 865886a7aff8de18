"""Properties of one exchange: whatever happens in whatever order, it ends once.

One disconnect to receive, one access record, one ended task, and no call of the port out of order (`StrictPort`
fails the run on any).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_ng.errors import ApplicationError, ClientDisconnected
from tests.support.asgi import Bridge, body, request_head, run_virtual, settle, start

pytestmark = pytest.mark.once


MESSAGES: list[Any] = [
    start(),
    start(200, (b"content-length", b"3")),
    start(200, (b"bad", b"a\nb")),
    start(trailers=True),
    body(b"ab", more=True),
    body(b"cd"),
    body(),
    {"type": "http.response.trailers", "headers": [(b"t", b"1")]},
    {"type": "http.response.trailers", "headers": [(b"t", b"\n")], "more_trailers": True},
    {"type": "http.response.early_hint", "links": [b"</x>"]},
    {"type": "nonsense"},
]

# What the application's two tasks do, step by step.
SEND = st.sampled_from([("send", message) for message in MESSAGES])
STEP = st.one_of(
    SEND,
    SEND,
    st.just(("receive", None)),
    st.just(("yield", None)),
    st.just(("raise", None)),
    st.just(("cancel other", None)),
)


# Most scripts send a proper response, among other things; without that, few of them would ever get to its end.
@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[str, Any]]:
    if draw(st.integers(0, 3)) == 0:
        return draw(st.lists(STEP, max_size=8))
    trailers = draw(st.booleans())
    messages = [start(trailers=True) if trailers else draw(st.sampled_from(MESSAGES[:3]))]
    messages += [body(b"ab", more=True)] * draw(st.integers(0, 3))
    messages.append(body(draw(st.sampled_from([b"", b"c"]))))
    if trailers:
        messages.append({"type": "http.response.trailers", "headers": [(b"t", b"1")]})
    script: list[tuple[str, Any]] = [("send", message) for message in messages]
    for step in draw(st.lists(STEP, max_size=4)):
        script.insert(draw(st.integers(0, len(script))), step)
    return script


SCRIPT = scripts()

# What the wire and the server do meanwhile.
EVENTS = ["data", "data", "end", "block", "unblock", "disconnect", "expire", "give up", "turn", "turns", "time"]
WIRE = st.lists(st.sampled_from(EVENTS), max_size=14)


class Stop(Exception):
    pass


class Scripted:
    """Runs two scripts in two tasks; checks what it receives."""

    def __init__(self, *scripts: list[tuple[str, Any]]) -> None:
        self.scripts = scripts
        self.received: list[dict[str, Any]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.disconnected_at_send = False
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


async def play(first: Any, second: Any, wire: list[str], length: int) -> None:
    application = Scripted(first, second)
    bridge = Bridge(application, inbox_high_bytes=6, inbox_low_bytes=2)
    exchange, port = bridge.begin(request_head("POST" if length else "GET", content_length=length))
    body_open = bool(length)
    connected = True
    given_up = False
    received_bytes = 0
    for event in wire:
        # As a protocol: nothing reaches the sink after its end, and nothing of the body after abandon().
        live = connected and port.state in ("open", "started") and not given_up
        given_up = given_up or event in ("expire", "give up")
        if event == "data" and live and body_open:
            exchange.body_received(b"123")
            received_bytes += 3
        elif event == "end" and live and body_open:
            body_open = False
            exchange.body_ended(())
        elif event == "block":
            port.block()
        elif event == "unblock":
            port.unblock()
        elif event == "disconnect" and live:
            connected = False
            port.gone()
            exchange.disconnected("gone")
            port.unblock()
        elif event == "expire" and live:
            exchange.expired()
            port.gone()
        elif event == "give up":
            exchange.cancel("the server is shutting down")
            port.gone()
        elif event == "turn":
            await asyncio.sleep(0)
        elif event == "turns":
            await settle()
        elif event == "time":
            await asyncio.sleep(3)
    if connected and port.state in ("open", "started"):
        await settle()
        if port.state in ("open", "started"):
            port.gone()
            exchange.disconnected("gone")
    port.unblock()
    await asyncio.sleep(11)  # past the application's close timeout

    assert exchange.task is None
    assert not bridge.runner.exchanges
    assert application.runs == application.ended <= 1
    assert len(bridge.records) == 1
    status = bridge.records[0][1]
    assert status == port.status
    # Body that was still to come when the response ended is given up, once; `body_open` cannot change after that.
    assert port.names.count("abandon") == (port.state == "ended" and body_open)
    assert port.names.count("start") <= 1
    assert port.names.count("reset") <= 1
    kinds = [message["type"] for message in application.received]
    if "http.disconnect" in kinds:
        first_disconnect = kinds.index("http.disconnect")
        assert set(kinds[first_disconnect:]) == {"http.disconnect"}
    bodies = [message for message in application.received if message["type"] == "http.request"]
    assert sum(len(message["body"]) for message in bodies) <= received_bytes
    assert [message["more_body"] for message in bodies] == sorted((m["more_body"] for m in bodies), reverse=True)
    assert [message["more_body"] for message in bodies].count(False) <= 1
    # After all that there is a disconnect for whoever asks, and nothing can be sent.
    while (last := await asyncio.wait_for(exchange.receive(), 1))["type"] != "http.disconnect":
        assert last["type"] == "http.request"
    assert await asyncio.wait_for(exchange.receive(), 1) == {"type": "http.disconnect"}
    before = list(port.calls)
    try:
        await exchange.send(start())
    except ClientDisconnected:
        pass
    assert port.calls == before


@given(first=SCRIPT, second=SCRIPT, wire=WIRE, length=st.sampled_from([0, -1, 9]))
def test_an_exchange_ends_once_under_any_interleaving(first: Any, second: Any, wire: list[str], length: int) -> None:
    logging.getLogger("tests.bridge").setLevel(logging.CRITICAL + 1)
    try:
        run_virtual(play(first, second, wire, length))
    finally:
        logging.getLogger("tests.bridge").setLevel(logging.NOTSET)

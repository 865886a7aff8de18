"""Every message in every state of an exchange: what ASGI allows goes through, and nothing else changes anything."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_ng.errors import ClientDisconnected, UnexpectedMessage
from tests.support.asgi import Bridge, body, on_loop, start

HTTP_MESSAGES: dict[str, dict[str, Any]] = {
    "http.response.start": start(trailers=True),
    "http.response.body": body(b"x", more=True),
    "http.response.trailers": {"type": "http.response.trailers", "headers": []},
    "http.response.early_hint": {"type": "http.response.early_hint", "links": []},
    "http.response.pathsend": {"type": "http.response.pathsend", "path": __file__},
    "http.response.push": {"type": "http.response.push", "path": "/x", "headers": []},
    "websocket.send": {"type": "websocket.send", "text": "x"},
}
HTTP_STATES: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "start": ([], {"http.response.start"}),
    "held": ([start(trailers=True)], {"http.response.body", "http.response.early_hint", "http.response.pathsend"}),
    "body": ([start(trailers=True), body(b"x", more=True)], {"http.response.body", "http.response.early_hint"}),
    "trailers": ([start(trailers=True), body(b"x")], {"http.response.trailers"}),
    "done": ([start(), body(b"x")], set(HTTP_MESSAGES)),
}

WEBSOCKET_MESSAGES: dict[str, dict[str, Any]] = {
    "websocket.accept": {"type": "websocket.accept"},
    "websocket.send": {"type": "websocket.send", "text": "x"},
    "websocket.close": {"type": "websocket.close"},
    "websocket.http.response.start": {"type": "websocket.http.response.start", "status": 401},
    "websocket.http.response.body": {"type": "websocket.http.response.body", "body": b"x"},
    "websocket.http.response.early_hint": {"type": "websocket.http.response.early_hint", "links": []},
    "websocket.http.response.trailers": {"type": "websocket.http.response.trailers", "headers": []},
    "websocket.http.response.pathsend": {"type": "websocket.http.response.pathsend", "path": __file__},
    "http.response.start": start(),
}
_DENIAL = WEBSOCKET_MESSAGES["websocket.http.response.start"]
_DENIAL_PART = {"type": "websocket.http.response.body", "body": b"x", "more_body": True}
WEBSOCKET_STATES: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "connecting": ([], {"websocket.accept", "websocket.close", "websocket.http.response.start"}),
    "held": (
        [_DENIAL],
        {
            "websocket.http.response.body",
            "websocket.http.response.early_hint",
            "websocket.http.response.pathsend",
        },
    ),
    "denial": ([_DENIAL, _DENIAL_PART], {"websocket.http.response.body", "websocket.http.response.early_hint"}),
    "denial trailers": (
        [{**_DENIAL, "trailers": True}, WEBSOCKET_MESSAGES["websocket.http.response.body"]],
        {"websocket.http.response.trailers"},
    ),
    "open": ([WEBSOCKET_MESSAGES["websocket.accept"]], {"websocket.send", "websocket.close"}),
}


async def idle(scope: Any, receive: Any, send: Any) -> None:
    await receive()


@pytest.mark.parametrize("kind", HTTP_MESSAGES)
@pytest.mark.parametrize("state", HTTP_STATES)
@on_loop
async def test_a_response(state: str, kind: str) -> None:
    exchange, port = Bridge(idle).begin()
    before, allowed = HTTP_STATES[state]
    for message in before:
        await exchange.send(dict(message))
    calls = list(port.calls)
    if kind in allowed:
        await exchange.send(dict(HTTP_MESSAGES[kind]))
    else:
        with pytest.raises(UnexpectedMessage, match=kind):
            await exchange.send(dict(HTTP_MESSAGES[kind]))
    if kind not in allowed or state == "done":
        assert port.calls == calls
    exchange.cancel("the test is over")


@pytest.mark.parametrize("kind", WEBSOCKET_MESSAGES)
@pytest.mark.parametrize("state", WEBSOCKET_STATES)
@on_loop
async def test_a_websocket(state: str, kind: str) -> None:
    exchange, port = Bridge(idle).begin_websocket()
    before, allowed = WEBSOCKET_STATES[state]
    for message in before:
        await exchange.send(dict(message))
    calls = (list(port.calls), list(port.response.calls))
    if kind in allowed:
        await exchange.send(dict(WEBSOCKET_MESSAGES[kind]))
    else:
        with pytest.raises(UnexpectedMessage, match=kind):
            await exchange.send(dict(WEBSOCKET_MESSAGES[kind]))
        assert (port.calls, port.response.calls) == calls
    exchange.cancel("the test is over")


@pytest.mark.parametrize("kind", WEBSOCKET_MESSAGES)
@on_loop
async def test_a_websocket_that_has_ended(kind: str) -> None:
    exchange, port = Bridge(idle).begin_websocket()
    await exchange.send({"type": "websocket.close"})
    calls = (list(port.calls), list(port.response.calls))
    if kind == "http.response.start":
        with pytest.raises(UnexpectedMessage, match=kind):
            await exchange.send(dict(WEBSOCKET_MESSAGES[kind]))
    elif kind == "websocket.close":
        await exchange.send({"type": "websocket.close"})
    else:
        with pytest.raises(ClientDisconnected):
            await exchange.send(dict(WEBSOCKET_MESSAGES[kind]))
    assert (port.calls, port.response.calls) == calls
    exchange.cancel("the test is over")

"""WebSockets: how they end, and who is told what."""

from __future__ import annotations

import time
from typing import Any

from daphne_ng.testing.conformance.case import Case, Play
from daphne_ng.testing.conformance.core import MUST, PRACTICE, SHOULD, WEBSOCKETS, Failed, Skipped
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.exchange import Broken
from daphne_ng.testing.conformance.websocket import TEXT, WebSocketClient

_DISCONNECT = "WebSocket: Disconnect"
_EXCEPTION = "WebSocket: Disconnected Client"
_CLOSE = "WebSocket: Close"
_SCOPE = "WebSocket: Connection Scope"
_DENIAL = "Extensions: Websocket Denial Response"

_GONE = "websocket.disconnect"
_TEXT = {"type": "websocket.send", "text": "text"}


def _told(case: Case, code: int | None, reason: str = "") -> dict[str, Any]:
    client, play = case.open_websocket(("until", _GONE, 2 * case.limits.answer))
    client.leave(code, reason)
    return play.message(_GONE)


@that(
    "websocket.disconnect-code",
    MUST,
    _DISCONNECT,
    "`code` (int) -- The WebSocket close code, as per the WebSocket spec.",
    on=WEBSOCKETS,
)
def disconnect_code(case: Case) -> None:
    for code in (1000, 1001, 3001):
        if (found := _told(case, code).get("code")) != code:
            raise Failed(f"code is {found!r}, not {code}")


@that(
    "websocket.disconnect-1005",
    MUST,
    _DISCONNECT,
    "If no code was received in the frame from the client, the server should set this to `1005`",
    on=WEBSOCKETS,
)
def disconnect_no_code(case: Case) -> None:
    if (found := _told(case, None).get("code")) != 1005:
        raise Failed(f"code is {found!r}")


@that(
    "websocket.disconnect-reason",
    MUST,
    _DISCONNECT,
    "`reason` (Unicode string) -- A reason given for the disconnect",
    on=WEBSOCKETS,
)
def disconnect_reason(case: Case) -> None:
    message = _told(case, 1000, "enough für heute")
    if "reason" not in message:
        raise Skipped("not provided")
    if message["reason"] != "enough für heute":
        raise Failed(f"reason is {message['reason']!r}")


@that(
    "websocket.disconnect-no-reason",
    MUST,
    _DISCONNECT,
    "`reason` (Unicode string) … Optional; if missing or `None` default is empty string.",
    on=WEBSOCKETS,
)
def disconnect_no_reason(case: Case) -> None:
    if (found := _told(case, 1000).get("reason")) not in (None, ""):
        raise Failed(f"reason is {found!r}")


@that(
    "websocket.disconnect-fin",
    MUST,
    _DISCONNECT,
    "Sent … when … connection to the client is lost … or loss of the socket: by FIN",
    on=WEBSOCKETS,
)
def disconnect_fin(case: Case) -> None:
    client, play = case.open_websocket(("until", _GONE, 2 * case.limits.answer))
    client.close()
    play.message(_GONE)


@that(
    "websocket.disconnect-reset",
    MUST,
    _DISCONNECT,
    "Sent … when … connection to the client is lost … or loss of the socket: by RST",
    on=WEBSOCKETS,
)
def disconnect_reset(case: Case) -> None:
    client, play = case.open_websocket(("until", _GONE, 2 * case.limits.answer))
    client.reset()
    play.message(_GONE)


@that(
    "websocket.disconnect-1006",
    PRACTICE,
    _DISCONNECT,
    "A lost socket has the code 1006 (RFC 6455, section 7.1.5).",
    on=WEBSOCKETS,
)
def disconnect_lost(case: Case) -> None:
    client, play = case.open_websocket(("until", _GONE, 2 * case.limits.answer))
    client.reset()
    if (found := play.message(_GONE).get("code")) != 1006:
        raise Failed(f"code is {found!r}")


@that(
    "websocket.disconnect-behind-messages",
    MUST,
    _DISCONNECT,
    "What the client sent before it left comes first.",
    on=WEBSOCKETS,
)
def disconnect_behind(case: Case) -> None:
    client, play = case.open_websocket(("wait", "gone"), ("until", _GONE, 2 * case.limits.answer))
    client.send(TEXT, b"one")
    client.send(TEXT, b"two")
    client.send_close(1000)
    time.sleep(0.1)
    play.tell("gone")
    client.depart()
    play.message(_GONE)
    found = [note["message"].get("text") for note in play.notes("received")[1:-1]]
    if found != ["one", "two"]:
        raise Failed(f"before it come {found!r}")


@that(
    "websocket.disconnect-in-handshake",
    MUST,
    _DISCONNECT,
    "Sent … when either connection to the client is lost: before it is accepted, too",
    on=WEBSOCKETS,
)
def disconnect_in_handshake(case: Case) -> None:
    play = case.play(("receive",), ("note", "waits"), ("receive", 2 * case.limits.answer))
    client = case.websocket(play.target)
    play.wait("waits")
    client.reset()
    play.message(_GONE)


@that(
    "websocket.disconnect-own-close",
    MUST,
    _DISCONNECT,
    "Sent … from the client closing the connection, the server closing the connection",
    on=WEBSOCKETS,
)
def disconnect_own(case: Case) -> None:
    client, play = case.open_websocket(
        ("send", {"type": "websocket.close", "code": 3002}), ("receive", case.limits.answer)
    )
    _close(case, client)
    client.leave(3002)
    play.message(_GONE)


def _close(case: Case, client: WebSocketClient) -> tuple[int | None, str]:
    try:
        found = client.close_frame(case.limits.answer)
    except TimeoutError:
        raise Failed(f"no Close frame within {case.limits.answer:g} s") from None
    except Broken as error:
        raise Failed(str(error)) from error
    if found is None:
        raise Failed("the connection ends without a Close frame")
    return found


def _closed(case: Case, **keys: Any) -> tuple[int | None, str]:
    client, _ = case.open_websocket(("send", {"type": "websocket.close", **keys}))
    found = _close(case, client)
    client.send_close(found[0])
    return found


@that(
    "websocket.close-code",
    MUST,
    _CLOSE,
    "the server must close the socket with the close code passed in the message (or 1000 if none is specified)",
    on=WEBSOCKETS,
)
def close_code(case: Case) -> None:
    for keys, code in (({"code": 3003}, 3003), ({"code": 1001}, 1001), ({}, 1000)):
        if (found := _closed(case, **keys)[0]) != code:
            raise Failed(f"the client gets {found!r}, not {code}")


@that(
    "websocket.close-reason",
    MUST,
    _CLOSE,
    "`reason` … A reason given for the closure, can be any string.",
    on=WEBSOCKETS,
)
def close_reason(case: Case) -> None:
    found = _closed(case, code=3003, reason="bis später")
    if found[1] != "bis später":
        raise Failed(f"the client gets {found[1]!r}")


@that(
    "websocket.close-reason-none",
    MUST,
    _CLOSE,
    "`reason` … Optional; if missing or `None` default is empty string.",
    on=WEBSOCKETS,
)
def close_reason_none(case: Case) -> None:
    found = _closed(case, code=3003, reason=None)
    if found != (3003, ""):
        raise Failed(f"the client gets {found!r}")


@that("websocket.close-ends", MUST, _CLOSE, "the server must close the socket", on=WEBSOCKETS)
def close_ends(case: Case) -> None:
    client, _ = case.open_websocket(("send", {"type": "websocket.close"}))
    found = _close(case, client)
    client.send_close(found[0])
    if not client.ended(case.limits.answer):
        raise Failed("the connection stays open behind both Close frames")


@that(
    "websocket.close-answered",
    PRACTICE,
    _DISCONNECT,
    "A Close frame of the client's is answered by one (RFC 6455, section 5.5.1).",
    on=WEBSOCKETS,
)
def close_answered(case: Case) -> None:
    client, _ = case.open_websocket(("until", _GONE, 2 * case.limits.answer))
    client.send_close(3004)
    found = _close(case, client)
    if found[0] not in (3004, 1000):
        raise Failed(f"the answer is {found!r}")
    if not client.ended(case.limits.answer):
        raise Failed("the connection stays open behind both Close frames")


@that(
    "websocket.application-dies",
    MUST,
    "ASGI: Error Handling",
    "they must terminate the application instance and its associated connection if this happens",
    on=WEBSOCKETS,
)
def application_dies(case: Case) -> None:
    client, _ = case.open_websocket(("raise", "in a WebSocket"))
    if not _ends(case, client):
        raise Failed("the socket stays open")


@that(
    "websocket.application-returns",
    SHOULD,
    _SCOPE,
    "if the application dies the socket should be closed",
    on=WEBSOCKETS,
)
def application_returns(case: Case) -> None:
    client, _ = case.open_websocket()
    if not _ends(case, client):
        raise Failed("the socket stays open")


def _ends(case: Case, client: WebSocketClient) -> bool:
    try:
        found = client.close_frame(case.limits.answer)
    except TimeoutError:
        return False
    except Broken:
        return True
    if found is not None:
        client.send_close(found[0])
    return client.ended(case.limits.answer)


@that(
    "websocket.application-dies-in-handshake",
    MUST,
    "ASGI: Error Handling",
    "they must terminate the application instance and its associated connection if this happens",
    on=WEBSOCKETS,
)
def dies_in_handshake(case: Case) -> None:
    play = case.play(("receive",), ("raise", "in a handshake"))
    client = case.websocket(play.target)
    try:
        status = client.handshake(case.limits.answer).status
    except Broken:
        return
    except TimeoutError:
        raise Failed("the client is left without an end") from None
    if status < 400:
        raise Failed(f"status {status}")


def _raises_after(case: Case, play: Play) -> None:
    play.wait("end", seconds=3 * case.limits.answer)
    raised = play.notes("send raised")
    if not raised:
        play.need_version(4)
        raise Failed("send() does not raise")
    if "builtins.OSError" not in raised[0]["names"]:
        raise Failed(f"send() raised {raised[0]['names'][0]}")


@that(
    "websocket.send-raises-after-disconnect",
    SHOULD,
    _EXCEPTION,
    "If `send()` is called on a closed connection the server should raise a server-specific subclass of `OSError`.",
    on=WEBSOCKETS,
)
def send_after_disconnect(case: Case) -> None:
    wait = case.limits.answer
    client, play = case.open_websocket(("until", _GONE, wait), ("send_until_error", _TEXT, wait))
    client.leave(1000)
    play.message(_GONE)
    _raises_after(case, play)


@that(
    "websocket.send-raises-after-loss",
    SHOULD,
    _EXCEPTION,
    "If `send()` is called on a closed connection the server should raise a server-specific subclass of `OSError`.",
    on=WEBSOCKETS,
)
def send_after_loss(case: Case) -> None:
    client, play = case.open_websocket(("wait", "gone"), ("send_until_error", _TEXT, case.limits.answer))
    client.reset()
    time.sleep(0.1)
    play.tell("gone")
    _raises_after(case, play)


@that(
    "websocket.send-error-is-caught",
    MUST,
    _EXCEPTION,
    "Servers must be prepared to catch this exception if they raised it",
    on=WEBSOCKETS,
)
def send_error_is_caught(case: Case) -> None:
    client, play = case.open_websocket(("wait", "gone"), ("send_through", _TEXT, case.limits.answer))
    client.reset()
    time.sleep(0.1)
    play.tell("gone")
    play.wait("end", seconds=2 * case.limits.answer)
    if not play.notes("send raised"):
        raise Skipped("send() does not raise")
    case.open_websocket()


# -- the response that denies ----------------------------------------------------------------------------------


def _need_denial(case: Case) -> None:
    if "websocket.http.response" not in (case.scope().get("extensions") or {}):
        raise Skipped("the extension is not there")


def _deny(case: Case, *steps: Any) -> tuple[Any, Play]:
    _need_denial(case)
    play = case.play(("receive",), *steps)
    client = case.websocket(play.target)
    return case.shake_hands(client), play


def _denial(status: int, *headers: tuple[bytes, bytes]) -> tuple[str, dict[str, Any]]:
    return ("send", {"type": "websocket.http.response.start", "status": status, "headers": list(headers)})


def _part(content: bytes, **more: Any) -> tuple[str, dict[str, Any]]:
    return ("send", {"type": "websocket.http.response.body", "body": content, **more})


@that(
    "denial.response",
    MUST,
    _DENIAL,
    "This will allow the ASGI Framework to send HTTP response messages after the `websocket.connect` message.",
    on=WEBSOCKETS,
)
def denial(case: Case) -> None:
    response, play = _deny(case, _denial(401, (b"x-why", b"no ticket")), _part(b"not you"))
    if response.status != 401 or response.all(b"x-why") != [b"no ticket"] or response.body != b"not you":
        raise Failed(f"status {response.status}, {response.headers!r}, body {bytes(response.body)!r}")
    if not response.complete:
        raise Failed("the response was cut")
    if raised := play.notes("send raised"):
        raise Failed(f"send() raised {raised[0]['names'][0]}: {raised[0]['text']}")


@that(
    "denial.parts",
    MUST,
    _DENIAL,
    "with a structure that matches the `http.response.start` and `http.response.body` messages",
    on=WEBSOCKETS,
)
def denial_parts(case: Case) -> None:
    response, _ = _deny(case, _denial(418), _part(b"one", more_body=True), _part(b"two"))
    if response.status != 418 or response.body != b"onetwo" or not response.complete:
        raise Failed(f"status {response.status}, body {bytes(response.body)!r}")


@that(
    "denial.no-websocket",
    MUST,
    _DENIAL,
    "These messages cannot be followed by any other websocket messages",
    on=WEBSOCKETS,
)
def denial_no_websocket(case: Case) -> None:
    _need_denial(case)
    play = case.play(("receive",), _denial(401), _part(b"no"), ("send", {"type": "websocket.accept"}))
    client = case.websocket(play.target)
    response = case.shake_hands(client)
    play.end()
    if response.status != 401 or response.body != b"no":
        raise Failed(f"status {response.status}, body {bytes(response.body)!r}")
    try:
        more = client.frame(case.limits.quiet)
    except TimeoutError:
        return
    except Broken as error:
        raise Failed(f"more comes behind the response: {error}") from error
    if more is not None:
        raise Failed(f"behind the response comes {more!r}")

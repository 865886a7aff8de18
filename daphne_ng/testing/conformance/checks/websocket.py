"""WebSockets: the handshake and messages in both directions."""

from __future__ import annotations

import time
from typing import Any

from daphne_ng.testing.conformance.case import ACCEPT, Case, long
from daphne_ng.testing.conformance.core import MUST, PRACTICE, SHOULD, WEBSOCKETS, Failed
from daphne_ng.testing.conformance.core import statement as that
from daphne_ng.testing.conformance.exchange import Broken
from daphne_ng.testing.conformance.websocket import BINARY, CONTINUATION, PING, PONG, TEXT, WebSocketClient

_CONNECT = "WebSocket: Connect"
_ACCEPT = "WebSocket: Accept"
_RECEIVE = "WebSocket: Receive"
_SEND = "WebSocket: Send"
_WEBSOCKET = "WebSocket"

_CLOSE = ("send", {"type": "websocket.close"})


def _send(**keys: Any) -> tuple[str, dict[str, Any]]:
    return ("send", {"type": "websocket.send", **keys})


def _next(case: Case, client: WebSocketClient) -> str | bytes | None:
    try:
        return client.message(case.limits.answer)
    except TimeoutError:
        raise Failed(f"no message within {case.limits.answer:g} s") from None
    except (Broken, UnicodeDecodeError) as error:
        raise Failed(str(error)) from error


def _received(case: Case, *frames: tuple[int, bytes, bool]) -> dict[str, Any]:
    # What the application receives for these frames.
    client, play = case.open_websocket(("receive",))
    for opcode, payload, final in frames:
        client.send(opcode, payload, final=final)
    return play.message("websocket.receive")


def _other(message: dict[str, Any], key: str) -> None:
    if message.get(key) is not None:
        raise Failed(f"{key} is {message[key]!r}, too")


@that("websocket.connect", MUST, _CONNECT, '`type` … `"websocket.connect"`: the first message.', on=WEBSOCKETS)
def connect(case: Case) -> None:
    _, play = case.open_websocket()
    message = play.wait("received")[0]["message"]
    if message.get("type") != "websocket.connect":
        raise Failed(f"the first message is {message!r}")


@that(
    "websocket.connect-waits",
    MUST,
    _CONNECT,
    "The protocol server must send this message during the handshake phase of the WebSocket and not complete the "
    "handshake until it gets a reply",
    on=WEBSOCKETS,
)
def connect_waits(case: Case) -> None:
    play = case.play(("receive",), ("wait", "go"), ("send", {"type": "websocket.accept"}), ("wait", "end"))
    client = case.websocket(play.target)
    play.message("websocket.connect")
    if not client.quiet(case.limits.quiet):
        raise Failed("the handshake is answered before the application has decided")
    play.tell("go")
    case.shake_hands(client)
    play.tell("end")
    if not client.opened:
        raise Failed(f"status {client.response.status}")


@that(
    "websocket.accept",
    MUST,
    _ACCEPT,
    "Sent by the application when it wishes to accept an incoming connection.",
    on=WEBSOCKETS,
)
def accept(case: Case) -> None:
    client, _ = case.open_websocket(_send(text="hello"), ("wait", "go"))
    if _next(case, client) != "hello":
        raise Failed("another message came")


@that(
    "websocket.accept-without-receive",
    PRACTICE,
    _ACCEPT,
    "An application may accept before it has received.",
    on=WEBSOCKETS,
)
def accept_early(case: Case) -> None:
    play = case.play(("send", {"type": "websocket.accept"}), _send(text="hello"), ("wait", "go", 1.0))
    client = case.websocket(play.target)
    case.shake_hands(client)
    if not client.opened or _next(case, client) != "hello":
        raise Failed(f"status {client.response.status}")


@that(
    "websocket.accept-subprotocol",
    MUST,
    _ACCEPT,
    "`subprotocol` … The subprotocol the server wishes to accept.",
    on=WEBSOCKETS,
)
def accept_subprotocol(case: Case) -> None:
    play = case.play(("receive",), ("send", {"type": "websocket.accept", "subprotocol": "alpha"}))
    client = case.websocket(play.target, [(b"sec-websocket-protocol", b"beta, alpha")])
    found = case.shake_hands(client).all(b"sec-websocket-protocol")
    if not client.opened or found != [b"alpha"]:
        raise Failed(f"status {client.response.status}, sec-websocket-protocol {found!r}")


@that(
    "websocket.accept-no-subprotocol",
    MUST,
    _ACCEPT,
    "`subprotocol` … Optional; if missing defaults to `None`.",
    on=WEBSOCKETS,
)
def accept_no_subprotocol(case: Case) -> None:
    client, _ = case.open_websocket(headers=[(b"sec-websocket-protocol", b"beta, alpha")])
    if found := client.response.all(b"sec-websocket-protocol"):
        raise Failed(f"sec-websocket-protocol {found!r}")


@that(
    "websocket.accept-headers",
    MUST,
    _ACCEPT,
    "`headers` … Order must be preserved in the HTTP response.",
    on=WEBSOCKETS,
)
def accept_headers(case: Case) -> None:
    sent = [(b"x-c", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2"), (b"set-cookie", b"b=2")]
    play = case.play(("receive",), ("send", {"type": "websocket.accept", "headers": sent}))
    client = case.websocket(play.target)
    response = case.shake_hands(client)
    found = [(name.lower(), value) for name, value in response.headers if name.lower() in dict(sent)]
    if not client.opened or found != sent:
        raise Failed(f"status {response.status}, the client gets {found!r}")


@that(
    "websocket.close-before-accept",
    MUST,
    "WebSocket: Close",
    "If this is sent before the socket is accepted, the server must close the connection with a HTTP 403 error code",
    on=WEBSOCKETS,
)
def close_before_accept(case: Case) -> None:
    play = case.play(("receive",), _CLOSE)
    client = case.websocket(play.target)
    if (status := case.shake_hands(client).status) != 403:
        raise Failed(f"status {status}")


@that("websocket.receive-text", MUST, _RECEIVE, "`text` … The message content, if it was text mode", on=WEBSOCKETS)
def receive_text(case: Case) -> None:
    message = _received(case, (TEXT, "grüße".encode(), True))
    if message.get("text") != "grüße":
        raise Failed(f"text is {message.get('text')!r}")


@that("websocket.receive-bytes", MUST, _RECEIVE, "`bytes` … The message content, if it was binary mode", on=WEBSOCKETS)
def receive_bytes(case: Case) -> None:
    message = _received(case, (BINARY, b"\x00\xff", True))
    if message.get("bytes") != b"\x00\xff":
        raise Failed(f"bytes is {message.get('bytes')!r}")


@that("websocket.receive-one", MUST, _RECEIVE, "Exactly one of `bytes` or `text` must be non-`None`.", on=WEBSOCKETS)
def receive_one(case: Case) -> None:
    _other(_received(case, (TEXT, b"text", True)), "bytes")
    _other(_received(case, (BINARY, b"bytes", True)), "text")


@that(
    "websocket.receive-empty",
    MUST,
    _RECEIVE,
    "Exactly one of `bytes` or `text` must be non-`None`: empty ones count.",
    on=WEBSOCKETS,
)
def receive_empty(case: Case) -> None:
    text, binary = _received(case, (TEXT, b"", True)), _received(case, (BINARY, b"", True))
    if text.get("text") != "" or binary.get("bytes") != b"":
        raise Failed(f"{text!r}, {binary!r}")
    _other(text, "bytes")
    _other(binary, "text")


@that("websocket.receive-large", MUST, _RECEIVE, "`bytes` … The message content: 70 000 bytes of it.", on=WEBSOCKETS)
def receive_large(case: Case) -> None:
    content = bytes(range(250)) * 280
    if _received(case, (BINARY, content, True)).get("bytes") != long(content):
        raise Failed("the application gets other bytes")


@that(
    "websocket.fragments",
    SHOULD,
    _WEBSOCKET,
    "WebSocket protocol servers should handle message fragmentation themselves, and deliver complete messages",
    on=WEBSOCKETS,
)
def fragments(case: Case) -> None:
    two = "ü".encode()
    message = _received(
        case,
        (TEXT, b"a" + two[:1], False),
        (PING, b"between", True),
        (CONTINUATION, two[1:], False),
        (CONTINUATION, b"z", True),
    )
    if message.get("text") != "aüz":
        raise Failed(f"the application gets {message!r}")


@that(
    "websocket.receive-order",
    MUST,
    _RECEIVE,
    "Sent to the application when a data message is received: in order.",
    on=WEBSOCKETS,
)
def receive_order(case: Case) -> None:
    client, play = case.open_websocket(*[("receive",)] * 20)
    for number in range(20):
        client.send(TEXT, b"%d" % number)
    play.end()
    found = [note["message"].get("text") for note in play.notes("received")[1:]]
    if found != [str(number) for number in range(20)]:
        raise Failed(f"the application gets {found!r}")


@that(
    "websocket.ping",
    SHOULD,
    _WEBSOCKET,
    "WebSocket protocol servers should handle PING/PONG messages themselves",
    on=WEBSOCKETS,
)
def ping(case: Case) -> None:
    client, play = case.open_websocket(("receive",), ("wait", "go"))
    client.send(PING, b"echo this")
    client.send(PONG, b"unasked")
    client.send(TEXT, b"text")
    message = play.message("websocket.receive")
    if message.get("text") != "text":
        raise Failed(f"the application gets {message!r}")
    deadline = time.monotonic() + case.limits.answer
    try:
        frame = client.frame(case.limits.answer)
        while frame is not None and frame.opcode != PONG and time.monotonic() < deadline:
            frame = client.frame(case.limits.answer)
    except TimeoutError:
        raise Failed("no pong") from None
    if frame is None or frame.payload != b"echo this":
        raise Failed(f"the answer is {frame!r}")


@that("websocket.send-text", MUST, _SEND, "`text` … Text message content", on=WEBSOCKETS)
def send_text(case: Case) -> None:
    _is_sent(case, "grüße", _send(text="grüße"))


@that("websocket.send-bytes", MUST, _SEND, "`bytes` … Binary message content", on=WEBSOCKETS)
def send_bytes(case: Case) -> None:
    _is_sent(case, b"\x00\xff", _send(bytes=b"\x00\xff"))


@that("websocket.send-none", MUST, _SEND, "or `None`. … One or both keys may be present, however.", on=WEBSOCKETS)
def send_none(case: Case) -> None:
    _is_sent(case, "text", _send(text="text", bytes=None))
    _is_sent(case, b"bytes", _send(text=None, bytes=b"bytes"))


@that(
    "websocket.send-empty",
    MUST,
    _SEND,
    "Exactly one of `bytes` or `text` must be non-`None`: empty ones count.",
    on=WEBSOCKETS,
)
def send_empty(case: Case) -> None:
    _is_sent(case, "", _send(text=""))
    _is_sent(case, b"", _send(bytes=b""))


@that("websocket.send-large", MUST, _SEND, "`bytes` … Binary message content: 70 000 bytes of it.", on=WEBSOCKETS)
def send_large(case: Case) -> None:
    content = bytes(range(250)) * 280
    _is_sent(case, content, _send(bytes=content))


def _is_sent(case: Case, content: str | bytes, step: Any) -> None:
    client, play = case.open_websocket(step, ("wait", "go"))
    found = _next(case, client)
    play.tell("go")
    if found != content:
        raise Failed(f"the client gets {found[:80] if found is not None else found!r}")


@that(
    "websocket.send-neither-raises",
    SHOULD,
    _SEND,
    "Exactly one of `bytes` or `text` must be non-`None`.",
    on=WEBSOCKETS,
)
def send_neither(case: Case) -> None:
    _raises(case, _send(), _send(text=None, bytes=None))


@that(
    "websocket.send-both-raises", SHOULD, _SEND, "Exactly one of `bytes` or `text` must be non-`None`.", on=WEBSOCKETS
)
def send_both(case: Case) -> None:
    _raises(case, _send(text="text", bytes=b"bytes"))


@that(
    "websocket.send-wrong-type-raises",
    SHOULD,
    "ASGI: Error Handling",
    "with wrong Python types for objects … should raise an exception out of the `send` awaitable",
    on=WEBSOCKETS,
)
def send_wrong_type(case: Case) -> None:
    _raises(case, _send(text=b"bytes"))


def _raises(case: Case, *steps: Any) -> None:
    for step in steps:
        client, play = case.open_websocket(step, ("note", "after"))
        play.wait("after")
        client.close()
        if not play.notes("send raised"):
            raise Failed(f"send() did not raise for {step[1]!r}")


@that(
    "websocket.send-in-time",
    MUST,
    _SEND,
    "Sent by the application to send a data message: it comes while the application waits.",
    on=WEBSOCKETS,
)
def send_in_time(case: Case) -> None:
    client, play = case.open_websocket(_send(text="one"), ("receive",), _send(text="two"), ("receive",))
    for number in ("one", "two"):
        if _next(case, client) != number:
            raise Failed("another message came")
        client.send(TEXT, b"next")
    play.end()


@that("websocket.tasks", PRACTICE, _SEND, "Several tasks may send at once, and another one receive.", on=WEBSOCKETS)
def tasks(case: Case) -> None:
    scripts = [[_send(text=f"{name}{number}") for number in range(10)] for name in "abc"]
    client, play = case.open_websocket(("together", *scripts, [("receive",)]), ("wait", "go"))
    found = [_next(case, client) for _ in range(30)]
    client.send(TEXT, b"text")
    play.message("websocket.receive")
    play.tell("go")
    if set(found) != {f"{name}{number}" for name in "abc" for number in range(10)}:
        raise Failed(f"the client gets {found!r}")


@that("websocket.accept-in-task", PRACTICE, _ACCEPT, "Another task than the first one may accept.", on=WEBSOCKETS)
def accept_in_task(case: Case) -> None:
    play = case.play(("together", [*ACCEPT, _send(text="hello")]), ("wait", "go"))
    client = case.websocket(play.target)
    case.shake_hands(client)
    found = _next(case, client) if client.opened else None
    play.tell("go")
    if found != "hello":
        raise Failed(f"status {client.response.status}, message {found!r}")


@that(
    "websocket.cancelled-receive",
    PRACTICE,
    _RECEIVE,
    "A `receive()` that is cancelled ends at once, and loses no message.",
    on=WEBSOCKETS,
)
def cancelled_receive(case: Case) -> None:
    client, play = case.open_websocket(
        ("receive", case.limits.quiet), ("poll",), ("note", "cancelled"), ("receive",), ("receive",)
    )
    play.wait("cancelled")
    client.send(TEXT, b"one")
    client.send(TEXT, b"two")
    play.end()
    found = [note["message"].get("text") for note in play.notes("received")[1:]]
    if found != ["one", "two"]:
        raise Failed(f"the application gets {found!r}")


@that(
    "websocket.slow-reader",
    PRACTICE,
    "ASGI: Applications",
    "`send` … will return once the send has been completed: it waits for a client that does not read.",
    on=WEBSOCKETS,
)
def slow_reader(case: Case) -> None:
    parts, size = 1024, 1 << 16
    client, play = case.open_websocket(("flood", "websocket.send", size, parts))
    play.wait("sent")
    before, now = -1, 0
    deadline = time.monotonic() + 4 * case.limits.answer
    while before != now and time.monotonic() < deadline:
        time.sleep(max(case.limits.quiet, 0.5))
        before, now = now, len(play.notes("sent"))
    client.reset()
    if now > parts:
        raise Failed(f"the server took {now * size >> 20} MiB for a client that reads nothing")

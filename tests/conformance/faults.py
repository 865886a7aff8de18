"""A fault for each statement: planted in the strict server, it makes the statement fail.

A fault has the statement's name. Those of the scope and of messages are here, as functions; those of the protocol are in
`strict_server.py`, where `Server.has` asks for them; `ALIASES` says which statements share one.
"""

from __future__ import annotations

import asyncio
import copy
import types
from collections.abc import Callable
from typing import Any

# -- of the scope --------------------------------------------------------------------------------------------------


def put(key: str, value: Any) -> Callable[[Any, dict], Any]:
    return lambda server, scope: {**scope, key: value}


def change(key: str, how: Callable[[Any], Any]) -> Callable[[Any, dict], Any]:
    return lambda server, scope: {**scope, key: how(scope[key])} if key in scope else scope


def headers(how: Callable[[list], list]) -> Callable[[Any, dict], Any]:
    return change("headers", how)


def tls(key: str, value: Any) -> Callable[[Any, dict], Any]:
    def fault(server: Any, scope: dict) -> dict:
        extension = dict(scope["extensions"].get("tls", {}))
        if value is None:
            extension.pop(key, None)
        else:
            extension[key] = value
        return {**scope, "extensions": {**scope["extensions"], "tls": extension}}

    return fault


def extension(name: str, value: Any) -> Callable[[Any, dict], Any]:
    return change("extensions", lambda found: {**found, name: value})


def same_state(server: Any, scope: dict) -> dict:
    return {**scope, "state": server.state}


def swapped(server: Any, scope: dict) -> dict:
    before, server.before = getattr(server, "before", scope["path"]), scope["path"]
    return {**scope, "path": before}


def lose_key(key: str) -> Callable[[Any, dict], Any]:
    return lambda server, scope: {name: value for name, value in scope.items() if name != key}


def without_lifespan(fault: Callable[[Any, dict], Any]) -> Callable[[Any, dict], Any]:
    return lambda server, scope: scope if scope["type"] == "lifespan" else fault(server, scope)


SCOPES: dict[str, Callable[[Any, dict], Any]] = {
    "asgi.scope-is-dict": lambda server, scope: types.MappingProxyType(scope),
    "asgi.scope-keys": put(b"key", 1),  # type: ignore[arg-type]
    "asgi.scope-type": change("type", str.upper),
    "asgi.version": put("asgi", {}),
    "asgi.extensions": extension("x", None),
    "scope.spec-version": put("asgi", {"version": "3.0", "spec_version": 2.5}),
    "scope.http-version": change("http_version", lambda found: "HTTP/" + found),
    "scope.http-version-1.0": change("http_version", lambda found: "1.1" if found == "1.0" else found),
    "scope.method": change("method", str.lower),
    "scope.method-query": change("method", lambda found: "GET" if found == "QUERY" else found),
    "scope.scheme": put("scheme", ""),
    "websocket.scheme": change("scheme", lambda found: "http" if found == "ws" else "https"),
    "scope.path": lambda server, scope: {**scope, "path": scope["raw_path"].decode()},
    "scope.path-slash": change("path", lambda found: found.replace("//", "/")),
    "scope.raw-path": lambda server, scope: {**scope, "raw_path": scope["path"].encode()},
    "scope.query-string": change("query_string", lambda found: found.replace(b"+", b" ")),
    "scope.query-string-empty": change("query_string", lambda found: found or None),
    "scope.root-path": put("root_path", None),
    "scope.headers": headers(lambda found: [(name.decode(), value) for name, value in found]),
    "scope.headers-order": headers(sorted),
    "scope.headers-duplicates": headers(lambda found: list(dict(found).items())),
    "scope.headers-lower-case": headers(lambda found: [(name.title(), value) for name, value in found]),
    "scope.headers-bytes": headers(lambda found: [(name, b" ".join(value.split())) for name, value in found]),
    "scope.pseudo-headers": headers(lambda found: [*found, (b":method", b"GET")]),
    "scope.authority": headers(lambda found: found[1:] + found[:1]),
    "scope.host": headers(lambda found: [pair for pair in found if pair[0] != b"host"]),
    "scope.cookies": headers(lambda found: [(name, value.split(b";")[0]) for name, value in found]),
    "scope.client": change("client", lambda found: [found[0], found[1] + 1]),
    "scope.client-unix": put("client", [""]),
    "scope.server": change("server", lambda found: [found[0], str(found[1])]),
    "scope.server-unix": change("server", lambda found: [found[0], 0]),
    "scope.state": put("state", {}),
    "scope.state-copy": same_state,
    "scope.state-shallow": change("state", copy.deepcopy),
    "scope.streams": swapped,
    "websocket.subprotocols": change("subprotocols", lambda found: [",".join(found)]),
    "websocket.no-subprotocols": change("subprotocols", lambda found: found or [""]),
    "debug.not-there": extension("http.response.debug", {}),
    "tls.not-on-plain": extension("tls", {}),
    "tls.mandatory-keys": tls("cipher_suite", None),
    "tls.server-cert": tls("server_cert", "none"),
    "tls.version": tls("tls_version", "TLSv1.3"),
    "tls.cipher-suite": tls("cipher_suite", "TLS_AES_256_GCM_SHA384"),
    "tls.no-client-cert": tls("client_cert_chain", [""]),
    "tls.client-cert": tls("client_cert_name", "conformance client"),
    "tls.spec-version": tls("spec_version", 0.2),
}

LIFESPAN_SCOPES: dict[str, Callable[[Any, dict], Any]] = {
    "lifespan.scope": put("asgi", None),
    "lifespan.spec-version": put("asgi", {"version": "3.0", "spec_version": 2.0}),
    "lifespan.state": put("state", {"server": 1}),
}


def scope(server: Any, found: dict) -> Any:
    """Return the scope with the fault that is planted."""
    faults = LIFESPAN_SCOPES if found["type"] == "lifespan" else SCOPES
    fault = faults.get(server.named)
    return fault(server, found) if fault else found


# -- of messages that the application receives -----------------------------------------------------------------------


def body(how: Callable[[bytes], Any]) -> Callable[[dict], dict]:
    return lambda message: {**message, "body": how(message["body"])} if "body" in message else message


def renamed(old: str, new: str) -> Callable[[dict], dict]:
    return lambda message: {**message, "type": new} if message["type"] == old else message


def keyed(kind: str, **keys: Any) -> Callable[[dict], dict]:
    return lambda message: {**message, **keys} if message["type"] == kind else message


def both(message: dict) -> dict:
    return {"text": "", "bytes": b"", **message} if message["type"] == "websocket.receive" else message


def none_if_empty(message: dict) -> dict:
    return {**message, **{key: message[key] or None for key in ("text", "bytes") if key in message}}


RECEIVED: dict[str, Callable[[dict], dict]] = {
    "asgi.event-types": lambda message: {**message, "extra": (1, 2)},
    "request.type": renamed("http.request", "http.body"),
    "request.empty": lambda message: {**message, "more_body": int(message.get("more_body", 0))},
    "request.body": body(lambda found: found[:-1]),
    "request.body-type": body(bytearray),
    "request.chunked": body(lambda found: b"%x\r\n%s\r\n" % (len(found), found)),
    "request.more-body": keyed("http.request", more_body=False),
    "websocket.connect": renamed("websocket.connect", "websocket.open"),
    "websocket.receive-text": lambda message: {
        **message,
        **({"text": message["text"].encode()} if "text" in message else {}),
    },
    "websocket.receive-bytes": lambda message: {
        **message,
        **({"bytes": bytearray(message["bytes"])} if "bytes" in message else {}),
    },
    "websocket.receive-one": both,
    "websocket.receive-empty": none_if_empty,
    "websocket.receive-large": lambda message: {
        **message,
        **({"bytes": message["bytes"][:65535]} if "bytes" in message else {}),
    },
    "websocket.disconnect-code": keyed("websocket.disconnect", code=1000),
    "websocket.disconnect-1005": lambda message: {**message, "code": 1000} if message.get("code") == 1005 else message,
    "websocket.disconnect-1006": lambda message: {**message, "code": 1000} if message.get("code") == 1006 else message,
    "websocket.disconnect-reason": lambda message: (
        {**message, "reason": message["reason"].encode("ascii", "replace").decode()} if "reason" in message else message
    ),
    "websocket.disconnect-no-reason": keyed("websocket.disconnect", reason="closed"),
}


# -- of messages that the application sends --------------------------------------------------------------------------

DROP: dict = {}


def text_headers(message: dict) -> dict:
    if "headers" not in message:
        return message
    return {
        **message,
        "headers": [
            tuple(part.encode() if isinstance(part, str) else part for part in pair) for pair in message["headers"]
        ],
    }


def refuse(condition: Callable[[dict], bool]) -> Callable[[dict], dict]:
    def fault(message: dict) -> dict:
        if condition(message):
            raise ValueError("refused")
        return message

    return fault


def drop(condition: Callable[[dict], bool]) -> Callable[[dict], dict]:
    return lambda message: DROP if condition(message) else message


def of(kind: str, **keys: Callable[[Any], Any]) -> Callable[[dict], dict]:
    def fault(message: dict) -> dict:
        if message.get("type") != kind:
            return message
        return {**message, **{key: how(message[key]) for key, how in keys.items() if key in message}}

    return fault


_START, _BODY = "http.response.start", "http.response.body"


def _no_part(message: dict) -> dict:
    return {**message, "offset": 0} if message["type"].endswith("send") else message


def of_path(**keys: Any) -> Callable[[dict], dict]:
    return lambda message: {**message, **keys} if message["type"] == "http.response.pathsend" else message


SENT: dict[str, Callable[[dict], dict]] = {
    "asgi.unknown-type-raises": drop(lambda message: "conformance" in message["type"]),
    "asgi.missing-key-raises": lambda message: {"status": 200, **message} if message["type"] == _START else message,
    "asgi.wrong-type-raises": text_headers,
    "asgi.wrong-body-type-raises": of(_BODY, body=lambda found: found.encode() if isinstance(found, str) else found),
    "asgi.extra-keys": refuse(lambda message: "conformance" in message),
    "asgi.messages-without-order": drop(lambda message: message.get("body") == b"early"),
    "asgi.message-before-accept": drop(lambda message: message.get("text") == "early"),
    "response.status": of(_START, status=lambda found: 200 if found < 300 else found),
    "response.headers-order": of(_START, headers=sorted),
    "response.headers-tuples": refuse(
        lambda message: any(type(pair) is not tuple for pair in message.get("headers", ()))
    ),
    "response.headers-optional": refuse(lambda message: message["type"] == _START and "headers" not in message),
    "response.headers-bytes": of(
        _START, headers=lambda found: [(name, value.replace(b"\xe9", b"?")) for name, value in found]
    ),
    "response.body": of(_BODY, body=lambda found: b"" if found == b"one" else found),
    "response.body-large": of(_BODY, body=lambda found: found[: 1 << 15]),
    "response.body-optional": refuse(lambda message: message["type"] == _BODY and "body" not in message),
    "response.more-body-default": lambda message: (
        {"more_body": True, **message} if message["type"] == _BODY else message
    ),
    "push.not-there-raises": drop(lambda message: message["type"] == "http.response.push"),
    "pathsend.not-there-raises": drop(lambda message: message["type"] == "http.response.pathsend"),
    "early-hint.sent": of("http.response.early_hint", links=lambda found: found[:1]),
    "early-hint.response": refuse(lambda message: len(message.get("links", ())) > 1),
    "trailers.sent": of("http.response.trailers", headers=lambda found: []),
    "pathsend.file": of_path(count=1000),
    "pathsend.without-length": of_path(count=1000),
    "pathsend.empty": refuse(lambda message: message["type"] == "http.response.pathsend"),
    "pathsend.ranges": _no_part,
    "zerocopysend.file": lambda message: {**message, "count": 1000} if "file" in message else message,
    "zerocopysend.mixed": drop(lambda message: message.get("body") == b"one"),
    "zerocopysend.part": _no_part,
    "websocket.accept": drop(lambda message: message.get("text") == "hello"),
    "websocket.accept-subprotocol": of("websocket.accept", subprotocol=lambda found: "beta"),
    "websocket.accept-no-subprotocol": lambda message: (
        {"subprotocol": "beta", **message} if message["type"] == "websocket.accept" else message
    ),
    "websocket.accept-headers": of("websocket.accept", headers=sorted),
    "websocket.send-text": of("websocket.send", text=lambda found: found.replace("ü", "ue")),
    "websocket.send-bytes": of("websocket.send", bytes=lambda found: found[1:]),
    "websocket.send-none": refuse(lambda message: message["type"] == "websocket.send" and None in message.values()),
    "websocket.send-empty": drop(
        lambda message: message["type"] == "websocket.send" and not message.get("text") and not message.get("bytes")
    ),
    "websocket.send-large": of("websocket.send", bytes=lambda found: found[:65535]),
    "websocket.send-neither-raises": drop(
        lambda message: message["type"] == "websocket.send" and message.get("text") is message.get("bytes")
    ),
    "websocket.send-both-raises": lambda message: (
        {**message, "bytes": None} if message["type"] == "websocket.send" and message.get("text") else message
    ),
    "websocket.send-wrong-type-raises": of(
        "websocket.send", text=lambda found: found.decode() if isinstance(found, bytes) else found
    ),
    "websocket.send-in-time": drop(lambda message: message.get("text") == "two"),
    "websocket.tasks": drop(lambda message: message.get("text") == "b7"),
    "websocket.close-code": of("websocket.close", code=lambda found: 1000),
    "websocket.close-reason": of("websocket.close", reason=lambda found: ""),
    "websocket.close-reason-none": refuse(
        lambda message: message["type"] == "websocket.close" and message.get("reason", "") is None
    ),
    "denial.response": of("websocket.http.response.start", status=lambda found: 403),
    "denial.parts": of("websocket.http.response.body", more_body=lambda found: False),
}


# -- of receive() and send() themselves ------------------------------------------------------------------------------


class Receive:
    """receive() with a fault."""

    def __init__(self, server: Any, receive: Any) -> None:
        self.server = server
        self.inner = receive
        self.called = False
        self.closed = False
        self.before: dict | None = None

    async def __call__(self) -> dict:
        named = self.server.named
        self.called = True
        if self.closed:
            return {"type": "http.disconnect"}
        try:
            message = await self.inner()
        except asyncio.CancelledError:
            if named in CLOSES_WHEN_CANCELLED:
                self.closed = True
            elif named in ("request.cancelled-receive", "websocket.cancelled-receive"):
                self.server.spawn(self.inner())
            raise
        if named == "websocket.receive-order" and message.get("text") == "7":
            message, self.before = await self.inner(), message
        elif named == "websocket.receive-order" and self.before:
            message, self.before = self.before, None
        if named in RECEIVED:
            return RECEIVED[named](message)
        return message


CLOSES_WHEN_CANCELLED = {"request.polled-while-streaming", "disconnect.polled-live", "disconnect.after-cancelled-wait"}


class Send:
    """send() with a fault."""

    def __init__(self, server: Any, send: Any, receive: Receive) -> None:
        self.server = server
        self.inner = send
        self.receive = receive
        self.task = asyncio.current_task()

    async def __call__(self, message: dict) -> None:
        named = self.server.named
        if named == "websocket.accept-without-receive" and not self.receive.called:
            raise RuntimeError("receive first")
        if named == "websocket.accept-in-task" and asyncio.current_task() is not self.task:
            raise RuntimeError("another task")
        if named in SENT:
            message = SENT[named](message)
            if message is DROP:
                return
        await self.inner(message)
        if named == "zerocopysend.file-stays-open" and "file" in message:
            message["file"].close()


async def _never() -> None:
    await asyncio.sleep(3600)


async def _nothing(message: dict) -> None: ...


def dress(server: Any, scope: Any, receive: Any, send: Any) -> tuple[Any, Any, Any, Any]:
    """Return what the application is called with, and the application."""
    if server.named is None:
        return server.app, scope, receive, send
    if server.named == "asgi.called-once":
        server.spawn(server.app(scope, _never, _nothing))
    receive = Receive(server, receive)
    return server.app, scope, receive, Send(server, send, receive)


# Statements that a fault of another name, in strict_server.py, makes fail.
ALIASES: dict[str | None, str] = {
    "asgi.error-before-start": "hang",
    "asgi.error-after-start": "hang",
    "websocket.application-dies": "hang",
    "websocket.application-dies-in-handshake": "hang",
    "disconnect.fin": "deaf",
    "disconnect.reset": "deaf",
    "disconnect.fin-while-streaming": "deaf",
    "disconnect.reset-while-streaming": "deaf",
    "disconnect.in-parallel": "deaf",
    "websocket.disconnect-fin": "deaf",
    "websocket.disconnect-reset": "deaf",
    "websocket.disconnect-in-handshake": "deaf",
    "response.head": "body anyway",
    "response.head-streamed": "body anyway",
    "response.no-content-body": "body anyway",
    "send.raises-after-disconnect": "send.raises",
    "websocket.send-raises-after-disconnect": "websocket.send-silent",
    "websocket.send-raises-after-loss": "websocket.send-silent",
    "pathsend.completes": "response.ends",
    "pathsend.head": "body anyway",
}

"""What the strict server does of one request and one WebSocket, on any wire: the states, and what is sent and refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import traceback
from typing import Any

from tests.conformance import faults

HIGH = 1 << 16

# asyncio's TLS transport of Python 3.11 may have lost what it writes to, without a word.
LOST = (OSError, AttributeError)


class Gone(OSError):
    """The client has left."""


def check(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(what)


def fields(message: dict, key: str = "headers") -> list[tuple[bytes, bytes]]:
    found = []
    for name, value in message.get(key, ()):
        check(type(name) is bytes and type(value) is bytes, "a header is bytes")
        found.append((name, value))
    return found


class Call:
    """One call of the application: what it receives, and the task that it is."""

    def __init__(self, server: Any, scope: dict) -> None:
        self.server = server
        self.scope = scope
        self.messages: list[dict] = []
        self.gone = False
        self.over = False
        self._changed = asyncio.Event()

    def has(self, fault: str) -> bool:
        return self.server.fault == fault

    def push(self, message: dict) -> None:
        self.messages.append(message)
        self._changed.set()

    def lose(self) -> None:
        if not self.has("deaf"):
            self.gone = True
            self._changed.set()

    def finished(self) -> None:
        self.over = True
        self._changed.set()

    async def change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def run(self) -> None:
        app, scope, receive, send = faults.dress(self.server, self.scope, self.receive, self.send)
        try:
            await app(scope, receive, send)
        except Gone:
            if self.has("send.error-is-caught") or self.has("websocket.send-error-is-caught"):
                self.server.crashed = True
            if self.has("send.error-is-not-logged"):
                traceback.print_exc()
            await self.ended(None)
        except Exception as error:
            await self.ended(error)
        else:
            await self.ended(None)


class Http(Call):
    """A request; ``wire`` is of HTTP/1.1 or HTTP/2."""

    def __init__(self, server: Any, scope: dict, wire: Any) -> None:
        super().__init__(server, scope)
        self.wire = wire
        self.state = "start"
        self.read = False
        self.held: bytes = b""
        self.trailing: list[tuple[bytes, bytes]] = []
        self.left: int | None = None
        self.hints: list[Any] = []

    async def receive(self) -> dict:
        if self.has("disconnect.polled-gone"):
            await asyncio.sleep(0.05)
        while True:
            if self.messages and not (self.has("request.streamed") and self.messages[-1]["more_body"]):
                message = self.messages.pop(0)
                self.wire.took()
                self.read = not message["more_body"]
                return message
            if self.read and self.has("request.no-second-request"):
                return {"type": "http.disconnect"}
            if self.gone and self.has("disconnect.in-request"):
                return {"type": "http.request", "body": b"", "more_body": False}
            if (self.gone or self.over) and not self.has("disconnect.after-response"):
                if self.has("disconnect.again") and self.left == -1:
                    await asyncio.sleep(3600)
                if self.has("disconnect.again"):
                    self.left = -1
                return {"type": "http.disconnect"}
            await self.change()

    async def send(self, message: dict) -> None:
        kind = message["type"]
        if self.gone:
            if self.has("send.raises"):
                return
            raise ConnectionResetError if self.has("send.raises-own") else Gone("the client has left")
        if self.state == "end":
            if self.has("asgi.after-end-no-op"):
                raise RuntimeError("the response is complete")
            if self.has("response.after-end"):
                await self.wire.late(message.get("body", b""))
            return
        prefix = "websocket.http" if self.scope["type"] == "websocket" else "http"
        if kind == f"{prefix}.response.start" and self.state == "start":
            check(type(message["status"]) is int, "a status is an int")
            self.begin(message)
        elif kind == f"{prefix}.response.body" and self.state in ("body", "begun"):
            body = message.get("body", b"")
            check(type(body) is bytes, "a body is bytes")
            await self.body(body, message.get("more_body", False))
        elif kind == "http.response.early_hint" and self.state == "begun":
            links = [(b"link", link) for link in message["links"]]
            if self.has("early-hint.in-time"):
                self.hints.append(links)
            else:
                await self.wire.interim(103, links)
        elif kind == "http.response.pathsend" and self.state == "begun" and not self.server.hides("pathsend"):
            await self.file(message)
        elif kind == "http.response.pathsend" and self.state == "body" and self.has("pathsend.mixed"):
            return
        elif kind == "http.response.zerocopysend" and self.state in ("begun", "body"):
            file = message["file"]
            offset, count = message.get("offset"), message.get("count")
            offset = file.tell() if offset is None else offset
            size = os.fstat(file.fileno()).st_size - offset if count is None else count
            await self.body(os.pread(file.fileno(), size, offset), message.get("more_body", False))
        elif kind == "http.response.trailers" and self.state == "trailers":
            self.trailing += fields(message)
            if not message.get("more_trailers", False) or self.has("trailers.more"):
                await self.finish()
        elif kind == "http.response.push" and self.state in ("begun", "body") and self.wire.version == "2":
            self.wire.promise(message["path"].encode(), fields(message))
        else:
            raise ValueError(f"{kind!r} in the state {self.state}")

    async def file(self, message: dict) -> None:
        path = message["path"]
        if self.has("pathsend.relative") and not os.path.isabs(path):
            path = os.devnull
        check(os.path.isabs(path), "a path is absolute")
        if self.has("pathsend.missing") and not os.path.exists(path):
            path = os.devnull
        with open(path, "rb") as file:
            file.seek(message.get("offset", 0))
            content = file.read(message.get("count", -1))
        await self.body(content, False)

    def begin(self, message: dict) -> None:
        headers = fields(message)
        self.status = message["status"]
        lengths = [value for name, value in headers if name.lower() == b"content-length"]
        self.left = int(lengths[0]) if lengths else None
        self.trailers = bool(message.get("trailers", False)) and not self.has("trailers.wait")
        self.bodiless = self.status in (204, 304) or self.scope.get("method") == "HEAD"
        self.keeps = (
            headers
            if self.has("response.transfer-encoding")
            else [pair for pair in headers if pair[0].lower() != b"transfer-encoding"]
        )
        self.raw = self.has("response.transfer-encoding-chunked") and len(self.keeps) < len(headers)
        if self.has("response.content-length"):
            self.keeps = [pair for pair in self.keeps if pair[0].lower() != b"content-length"]
            self.left = None
        self.state = "begun"

    async def body(self, content: bytes, more: bool) -> None:
        if self.state == "begun":
            for links in self.hints:
                await self.wire.interim(103, links)
            self.state = "body"
            await self.wire.head(self)
        short = self.left is not None and not more and len(content) < self.left
        if self.left is not None and not self.bodiless and not self.has("response.too-long"):
            content = content[: self.left]
            self.left -= len(content)
        if self.has("response.flushed") and more:
            self.held += content
            return
        content, self.held = self.held + content, b""
        if content and (not self.bodiless or self.has("body anyway")):
            await self.wire.data(content)
        if not more:
            if short and not self.bodiless:
                if not self.has("response.too-short"):
                    self.wire.abort()
                self.state = "end"
                self.finished()
                return
            if self.has("response.ends"):
                self.state = "ends"
                return
            if self.trailers:
                self.state = "trailers"
            else:
                await self.finish()

    async def finish(self) -> None:
        self.state = "end"
        wanted = any(name == b"te" and b"trailers" in value for name, value in self.scope["headers"])
        await self.wire.finish(self.trailing if wanted or self.has("trailers.only-if-wanted") else [])
        self.finished()

    async def ended(self, error: Exception | None) -> None:
        self.finished()
        if self.state == "end" or self.gone:
            return
        if error is not None and self.has("hang"):
            return
        if error is None and self.has("asgi.return-without-response"):
            return
        with contextlib.suppress(OSError):
            if self.state == "ends" or (error is not None and self.has("asgi.error-after-start-shows")):
                await self.finish()
            elif self.state in ("start", "begun"):
                self.state = "begun"
                self.begin({"status": 500, "headers": [(b"content-length", b"0")]})
                await self.body(b"", False)
            else:
                self.wire.abort()


class WebSocket(Http):
    """A WebSocket: a request until it is accepted, so that a response can deny it."""

    closing = False
    close_read = False

    async def read_frames(self, some: Any) -> None:
        buffer = bytearray()
        parts: list[bytes] = []
        kind = 0
        while data := await some():
            buffer += data
            while (frame := parse(buffer)) is not None:
                opcode, final, payload = frame
                if opcode == 9:
                    if not self.has("websocket.ping"):
                        await self.wire.write(frame_of(10, payload))
                elif opcode == 8:
                    if self.has("websocket.close-answered"):
                        return
                    code = int.from_bytes(payload[:2], "big") if payload else 1005
                    await self.close(code if payload else 1000, payload[2:].decode())
                    self.told = {"code": code, "reason": payload[2:].decode()}
                    self.close_read = True
                    self.lose()
                    return
                elif opcode < 3:
                    kind = opcode or kind
                    parts.append(payload)
                    if final or self.has("websocket.fragments"):
                        whole = b"".join(parts)
                        parts.clear()
                        text = {"text": whole.decode("utf-8", "replace")} if kind == 1 else {"bytes": whole}
                        self.push({"type": "websocket.receive", **text})
        self.lose()

    def __init__(self, server: Any, scope: dict, wire: Any) -> None:
        super().__init__(server, scope, wire)
        self.told: dict | None = None
        self.messages.append({"type": "websocket.connect"})

    async def receive(self) -> dict:
        while True:
            if self.gone and self.has("websocket.disconnect-behind-messages"):
                self.messages.clear()
            if self.messages:
                return self.messages.pop(0)
            if self.told and self.has("websocket.disconnect-own-close"):
                await asyncio.sleep(3600)
            if self.gone or self.closing or self.over:
                return {"type": "websocket.disconnect", **(self.told or {"code": 1006, "reason": ""})}
            await self.change()

    async def send(self, message: dict) -> None:
        kind = message["type"]
        if kind.startswith("websocket.http.response"):
            check(self.state not in ("open", "closed"), "accepted")
            await super().send(message)
            return
        if self.state == "end":
            if self.has("denial.no-websocket"):
                await self.wire.late(b"late")
            return
        if self.gone or self.closing:
            if kind == "websocket.close" or self.has("websocket.send-silent"):
                return
            raise Gone("the client has left")
        if kind == "websocket.accept" and self.state == "start":
            headers = fields(message)
            if message.get("subprotocol"):
                headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
            self.state = "open"
            await self.wire.accepted(headers)
        elif kind == "websocket.send" and self.state == "open":
            text, binary = message.get("text"), message.get("bytes")
            check((text is None) != (binary is None), "one of text and bytes")
            check(type(text) is str or type(binary) is bytes, "a text is str, bytes are bytes")
            await self.wire.write(frame_of(1, text.encode()) if binary is None else frame_of(2, binary))
        elif kind == "websocket.close" and self.state == "open":
            code, reason = message.get("code", 1000), message.get("reason") or ""
            self.told = {"code": code, "reason": reason}
            await self.close(code, reason)
        elif kind == "websocket.close" and self.state == "start":
            self.begin(
                {
                    "status": 401 if self.has("websocket.close-before-accept") else 403,
                    "headers": [(b"content-length", b"0")],
                }
            )
            await self.body(b"", False)
        else:
            raise ValueError(f"{kind!r} in the state {self.state}")

    async def close(self, code: int, reason: str) -> None:
        if not self.closing:
            self.closing = True
            await self.wire.write(frame_of(8, struct.pack(">H", code) + reason.encode()))
            self._changed.set()

    async def ended(self, error: Exception | None) -> None:
        if self.state != "open" or self.gone:
            await super().ended(error)
            return
        self.finished()
        if not self.closing and not self.has("hang") and not self.has("websocket.application-returns"):
            with contextlib.suppress(OSError):
                await self.close(1011 if error else 1000, "")


def parse(buffer: bytearray) -> tuple[int, bool, bytes] | None:
    if len(buffer) < 14 and len(buffer) < 6:
        return None
    length, start = buffer[1] & 0x7F, 2
    if length == 126:
        length, start = int.from_bytes(buffer[2:4], "big"), 4
    elif length == 127:
        if len(buffer) < 10:
            return None
        length, start = int.from_bytes(buffer[2:10], "big"), 10
    if len(buffer) < start + 4 + length:
        return None
    opcode, final, mask = buffer[0] & 15, bool(buffer[0] & 0x80), buffer[start : start + 4]
    payload = bytes(byte ^ mask[number % 4] for number, byte in enumerate(buffer[start + 4 : start + 4 + length]))
    del buffer[: start + 4 + length]
    return opcode, final, payload


def frame_of(opcode: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return bytes([0x80 | opcode, length]) + payload
    if length < 1 << 16:
        return struct.pack(">BBH", 0x80 | opcode, 126, length) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, length) + payload

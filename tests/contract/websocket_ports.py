"""Every `WebSocketPort` under the contract suite, each behind the same small harness.

The wires are whole: a `ServerConnection` on a strict fake transport, with a client at its other end, and a recording
sink in place of the exchange. To put another protocol under the contract, add its harness to `WIRES`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from daphne_ng.asgi.runner import Runner
from daphne_ng.config import Config
from daphne_ng.net.context import ServerContext
from daphne_ng.net.factory import ServerFactory
from daphne_ng.port import WebSocketPort
from tests.support.asgi import LOG, StrictWebSocketPort, settle
from tests.support.h2_client import Http2WebSocket
from tests.support.net import FakeTransport, dial, exchange, silent
from tests.support.ws import RecordingSink, read_frames


class Script:
    """A server whose WebSockets are a test's to serve: its exchanges never begin, and what they are told the sink is."""

    port: WebSocketPort
    subprotocols: list[str]

    def __init__(self, **settings: Any) -> None:
        self._loop = asyncio.get_running_loop()
        runner = Runner(silent, Config(**settings), self._loop, LOG)
        self.context = ServerContext(runner.config, runner, LOG)
        self.context.start_application = self._take
        self.sink = RecordingSink()

    def _take(self, exchange: Any) -> None:
        self.port = exchange._port
        self.subprotocols = exchange.scope["subprotocols"]
        self._loop.call_soon(self.port.asked, self.sink)  # when the exchange has been made its sink


class WireHarness:
    """A client that has sent its handshake.

    Args:
        behind: What it sends on the heels of that, without waiting for the answer.
        settings: Fields of the `Config`.
    """

    def __init__(self, behind: bytes = b"", **settings: Any) -> None:
        self.script = script = Script(**settings)
        self.context = context = script.context
        self.sink = script.sink
        self.transport = FakeTransport()
        self.transport.protocol = ServerFactory(context).buildProtocol(self.transport.peer)
        self.transport.protocol.makeConnection(self.transport)
        self.behind = behind

    @property
    def port(self) -> WebSocketPort:
        return self.script.port

    async def open(self) -> None:
        """Send the handshake."""
        raise NotImplementedError

    async def deliver(self, data: bytes) -> None:
        """The client sends."""
        raise NotImplementedError

    async def leave(self) -> None:
        """The client ends its half, without a Close frame."""
        raise NotImplementedError

    async def seen(self) -> tuple[int | None, list[tuple[bytes, bytes]], bytes]:
        """Return status, fields and what came behind the head of the answer."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """Whether the WebSocket is over for the client, and in good order."""
        raise NotImplementedError

    @property
    def dropped(self) -> bool:
        """Whether it was cut off, with the connection that carries it."""
        return "abort" in self.transport.ended

    async def frames(self) -> list[tuple[Any, ...]]:
        """Return what the client was sent, as it reads it."""
        return read_frames((await self.seen())[2])

    async def lose(self) -> None:
        """The connection is lost."""
        self.transport.lost()
        await settle()


class Http1Upgrade(WireHarness):
    """An upgrade of an HTTP/1.1 connection."""

    accepted = 101
    _unread = b""

    async def open(self) -> None:
        head = (
            b"GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        self.transport.protocol.dataReceived(head + self.behind)
        await settle()

    async def deliver(self, data: bytes) -> None:
        self._unread += data
        await self._read()

    async def _read(self) -> None:
        await settle()
        if self._unread and self.transport.reading:
            data, self._unread = self._unread, b""
            self.transport.protocol.dataReceived(data)
            await settle()

    async def leave(self) -> None:
        self.transport.protocol.readConnectionLost()
        await settle()

    async def seen(self) -> tuple[int | None, list[tuple[bytes, bytes]], bytes]:
        await self._read()
        head, _, rest = self.transport.written.partition(b"\r\n\r\n")
        if not head:
            return None, [], b""
        line, *lines = head.split(b"\r\n")
        status = re.fullmatch(rb"HTTP/1.1 (\d\d\d) .*", line)
        assert status is not None
        fields = [(name.lower(), value) for name, value in (field.split(b": ", 1) for field in lines)]
        return int(status[1]), fields, rest

    @property
    def ended(self) -> bool:
        return self.transport.ended[:1] == ["close"]


class Http2Tunnel(WireHarness):
    """An extended CONNECT on a stream of an HTTP/2 connection."""

    accepted = 200
    _body = b""

    async def open(self) -> None:
        self.client = client = dial(self.transport)
        await exchange(client)
        wait, client.wait = client.wait, lambda condition, what: None  # type: ignore[method-assign]
        self.socket = Http2WebSocket(client, "/chat", (b"sec-websocket-protocol", b"a, b"))
        client.wait = wait  # type: ignore[method-assign]
        if self.behind:
            client.send(self.socket.stream, self.behind)
        await exchange(client)

    async def deliver(self, data: bytes) -> None:
        self.client.send(self.socket.stream, data)
        await exchange(self.client)

    async def leave(self) -> None:
        self.socket.end()
        await exchange(self.client)

    async def seen(self) -> tuple[int | None, list[tuple[bytes, bytes]], bytes]:
        if "abort" not in self.transport.ended:
            await exchange(self.client)
        response = self.socket.response
        return response.status, response.headers, bytes(response.body)

    @property
    def ended(self) -> bool:
        return self.socket.response.ended and self.socket.response.reset is None


class RecordingHarness:
    """The fake that the tests of the bridge use: what it accepts must be what the protocols accept."""

    accepted = 101

    def __init__(self) -> None:
        self.port: Any = StrictWebSocketPort()

    async def open(self) -> None:
        pass

    async def seen(self) -> tuple[int | None, list[tuple[bytes, bytes]], bytes]:
        for call in self.port.calls:
            if call[0] == "accept":
                return self.accepted, [(b"sec-websocket-protocol", (call[1] or "").encode()), *call[2]], b""
        for call in self.port.response.calls:
            if call[0] == "start":
                return call[1], call[2], call[3]
        return None, [], b""

    async def frames(self) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for name, *arguments in self.port.calls:
            if name == "message":
                payload, text = arguments
                found.append(("text", payload.decode()) if text else ("binary", payload))
            elif name == "close":
                found.append(("close", *arguments))
        return found


WIRES: dict[str, Callable[..., Any]] = {"http/1.1": Http1Upgrade, "http/2": Http2Tunnel}
PORTS: dict[str, Callable[..., Any]] = {**WIRES, "recording": RecordingHarness}

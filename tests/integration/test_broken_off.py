"""What happens to a connection when a call of the server is broken off in its middle, wherever that is.

An application may call ``send()`` near the recursion limit, memory may end, a debugger may interrupt. Every call that
``send()`` makes is tried, by number, in Python and in C: the exception reaches the application, the connection ends,
and neither a descriptor nor an entry in a table of the loop is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from daphne_ng.net.reactor import new_event_loop
from daphne_ng.server import Server
from tests.support import ws
from tests.support.build import COMPILED
from tests.support.tls import write_pem

pytestmark = pytest.mark.once


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
HEAD = b"GET /%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# Those of compiled modules to each other are not seen.
CALLS_MIN, CALLS_MAX = 5 if COMPILED else 20, 400


_FINALIZERS = ("__del__", "remove")


class Breaker:
    """Raises in the call of a number, while it is on."""

    def __init__(self, number: int, exception: type[BaseException]) -> None:
        self.left = number
        self.calls = 0
        self.exception = exception

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        # What a finalizer raises, Python throws away.
        if event in ("call", "c_call") and argument is not sys.setprofile and frame.f_code.co_name not in _FINALIZERS:
            self.calls += 1
            self.left -= 1
            if self.left == 0:
                raise self.exception("broken off by a test")


class Application:
    """Sends with a breaker on."""

    def __init__(self) -> None:
        self.breaker = Breaker(0, RuntimeError)
        self.caught: list[type[BaseException]] = []

    async def broken(self, call: Callable[..., Any], *arguments: Any) -> Any:
        sys.setprofile(self.breaker)
        try:
            return await call(*arguments)
        except BaseException as error:
            self.caught.append(type(error))
            raise
        finally:
            sys.setprofile(None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        try:
            await self.answer(scope, receive, send)
        except (MemoryError, KeyboardInterrupt, RecursionError):
            pass  # an interrupt that went on would end the loop

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await self.broken(send, {"type": "websocket.accept"})
            await self.broken(send, {"type": "websocket.send", "text": "hello"})
            await self.broken(send, {"type": "websocket.close"})
        elif scope["path"] == "/stream":
            await self.broken(send, START)
            await self.broken(send, {"type": "http.response.body", "body": b"a" * 20_000, "more_body": True})
            await self.broken(send, {"type": "http.response.body", "body": b"b", "more_body": True})
            await self.broken(send, {"type": "http.response.body", "body": b""})
        elif scope["path"] == "/large":
            # More than the kernel takes, so that the loop is asked to say when there is room.
            await self.broken(send, START)
            await self.broken(send, {"type": "http.response.body", "body": bytes(8_000_000)})
        else:
            await self.broken(send, START)
            await self.broken(send, {"type": "http.response.body", "body": b"whole"})


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(1 << 20):
            data += part
    return data


async def http1(port: int, path: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD % path)
    await read_to_the_end(reader)
    writer.close()


async def whole(port: int) -> None:
    await http1(port, b"")


async def stream(port: int) -> None:
    await http1(port, b"stream")


async def large(port: int) -> None:
    await http1(port, b"large")


async def tls(port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(HEAD % b"stream")
    await read_to_the_end(reader)
    writer.close()


async def websocket(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE)
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(1 << 20):
            data += part
            if b"\x88\x02" in data:
                writer.write(ws.close())
    writer.close()


async def http2(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    for path in ("/", "/stream"):
        stream_id = client.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
        client.send_headers(stream_id, fields, end_stream=True)
    writer.write(client.data_to_send())
    ended = 0
    try:
        while ended < 2 and (data := await reader.read(1 << 20)):
            for event in client.receive_data(data):
                ended += isinstance(event, h2.events.StreamEnded | h2.events.StreamReset)
            writer.write(client.data_to_send())
    except ConnectionError:
        pass
    writer.close()


VISITS = (whole, stream, large, tls, websocket, http2)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize(
    ("loop", "visit", "exception"),
    [
        *(("uvloop", visit, RecursionError) for visit in VISITS),
        # asyncio's loop is in Python, so that the calls in it are broken off too.
        *(("asyncio", visit, RecursionError) for visit in (stream, tls, websocket)),
        ("uvloop", stream, MemoryError),
        ("uvloop", tls, KeyboardInterrupt),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_call_may_be_broken_off(
    loop: str, visit: Callable[[int], Any], exception: type[BaseException], tmp_path: Path
) -> None:
    application = Application()
    endpoint = "tcp:0:interface=127.0.0.1"
    if visit is tls:
        pem = tmp_path / "server.pem"
        write_pem(pem, "localhost")
        endpoint = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"

    async def main() -> None:
        async with Server(application, endpoints=[endpoint]) as server:
            port = server.listening_addresses[0][1]
            assert server._life is not None
            reactor = server._life.reactor
            for _ in range(3):  # the first ones learn names and lines
                application.breaker = Breaker(0, exception)
                await visit(port)
            calls = application.breaker.calls
            assert CALLS_MIN < calls < CALLS_MAX
            await asyncio.sleep(0.05)
            before, readers, writers = descriptors(), len(reactor._readers), len(reactor._writers)
            for number in range(1, calls + 1):
                application.breaker = Breaker(number, exception)
                application.caught.clear()
                async with asyncio.timeout(20):
                    await visit(port)
                if application.breaker.left > 0:
                    continue  # a visit that got along with fewer calls than the one that was counted
                assert application.caught, f"call {number} of {calls} was broken off, and nobody was told"
                # Autobahn catches some, and refuses its handshake.
                told = {exception, RuntimeError} if visit is websocket else {exception}
                assert application.caught[0] in told, f"call {number} of {calls}"
            application.breaker = Breaker(0, exception)
            async with asyncio.timeout(20):
                await visit(port)
                while descriptors() > before or len(server.connections):
                    await asyncio.sleep(0.02)
            assert (len(reactor._readers), len(reactor._writers)) == (readers, writers)

    logging.getLogger("daphne_ng").setLevel(logging.CRITICAL + 1)
    gc.disable()  # it would run finalizers anywhere
    event_loop = new_event_loop() if loop == "uvloop" else asyncio.new_event_loop()
    try:
        with asyncio.Runner(loop_factory=lambda: event_loop) as runner:
            runner.run(main())
    finally:
        gc.enable()
        logging.getLogger("daphne_ng").setLevel(logging.NOTSET)

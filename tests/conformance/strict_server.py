"""The smallest honest ASGI server that passes the conformance suite, on asyncio; with faults that can be planted.

It is no server for anything else: it reads what the suite's client sends. `faults.py` says what each fault is; those of
the protocol itself are here, each behind `has`.

    python -m tests.conformance.strict_server --port 8000 module:app
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import importlib
import inspect
import signal
import ssl
import sys
from typing import Any
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from tests.conformance import faults
from tests.conformance.strict_calls import HIGH, LOST, Call, Gone, Http, WebSocket


class Reading:
    """A connection's bytes, at most so many ahead of who reads them."""

    def __init__(self, reader: asyncio.StreamReader, server: Server) -> None:
        self.buffer = bytearray()
        self.eof = False
        self.changed = asyncio.Event()
        self.room = asyncio.Event()
        self.on_eof: Any = lambda: None
        self.task = asyncio.create_task(self._feed(reader, server))

    async def _feed(self, reader: asyncio.StreamReader, server: Server) -> None:
        data = b"x"
        while data:
            while len(self.buffer) > HIGH and server.fault != "request.unread-waits":
                self.room.clear()
                await self.room.wait()
            try:
                data = await reader.read(HIGH)
            except OSError:
                data = b""
            self.buffer += data
            self.eof = not data
            self.changed.set()
        self.on_eof()

    async def more(self) -> bool:
        self.changed.clear()
        self.room.set()
        if not self.eof:
            await self.changed.wait()
        return not self.eof

    async def until(self, mark: bytes) -> bytes | None:
        while (end := self.buffer.find(mark)) < 0:
            if not await self.more():
                return None
        found = bytes(self.buffer[:end])
        del self.buffer[: end + len(mark)]
        return found

    async def some(self, limit: int = HIGH) -> bytes:
        while not self.buffer:
            if not await self.more():
                return b""
        found = bytes(self.buffer[:limit])
        del self.buffer[: len(found)]
        self.room.set()
        return found


class Http1:
    """A connection of HTTP/1.x: one request after another."""

    version = "1.1"

    def __init__(self, server: Server, reading: Reading, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reading = reading
        self.writer = writer
        self.call: Any = None
        self._room = asyncio.Event()

    def took(self) -> None:
        self._room.set()

    async def serve(self) -> None:
        keep = True
        while keep:
            head = await self.reading.until(b"\r\n\r\n")
            if head is None:
                return
            line, *lines = head.split(b"\r\n")
            method, target, version = line.split(b" ")
            headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
            known = dict(headers)
            self.old = version == b"HTTP/1.0"
            scope = self.server.scope(self.writer, version[5:].decode(), method, target, headers)
            if known.get(b"upgrade", b"").lower() == b"websocket":
                await self.upgrade(scope, known)
                return
            self.call = Http(self.server, scope, self)
            self.chunked = False
            self.close = self.old
            self.reading.on_eof = self.eof
            if self.reading.eof:
                self.eof()
            reader = asyncio.create_task(self.read_body(known))
            await self.server.begin(self.call)
            self.call.finished()
            drained = False
            if not self.server.fault == "request.keep-alive-after-unread":
                self.call.messages.clear()
                self._room.set()
                with contextlib.suppress(asyncio.TimeoutError):
                    drained = await asyncio.wait_for(asyncio.shield(reader), 0.5)
            else:
                drained = True
            reader.cancel()
            keep = not self.close and not self.call.gone and self.call.state == "end" and drained
            if self.server.fault in ("hang", "asgi.return-without-response", "response.too-short"):
                await self.reading.more()
            if self.server.fault == "asgi.called-again-on-connection":
                keep = False

    def eof(self) -> None:
        if not self.server.fault == "disconnect.half-close":
            self.call.lose()
        else:
            self.writer = Silent(self.writer)

    async def read_body(self, headers: dict) -> bool:
        left = int(headers.get(b"content-length", 0))
        if headers.get(b"transfer-encoding") == b"chunked":
            while (line := await self.reading.until(b"\r\n")) is not None:
                left = int(line, 16)
                if not await self.read_part(left, chunk=True):
                    return False
                await self.reading.until(b"\r\n")
                if not left:
                    break
            else:
                return False
        elif self.server.fault == "request.keep-alive-after-unread":
            return True
        elif not await self.read_part(left):
            return False
        self.call.push({"type": "http.request", "body": b"", "more_body": False})
        return True

    async def read_part(self, left: int, chunk: bool = False) -> bool:
        while left:
            while (
                self.call.messages
                and not self.call.over
                and self.server.fault not in ("request.unread-waits", "request.streamed")
            ):
                self._room.clear()
                await self._room.wait()
            part = await self.reading.some(left)
            if not part:
                return False
            left -= len(part)
            self.call.push({"type": "http.request", "body": part, "more_body": True})
        return True

    async def upgrade(self, scope: dict, headers: dict) -> None:
        self.call = call = WebSocket(self.server, scope, self)
        self.close = True
        self.old = self.chunked = False
        accept = hashlib.sha1(headers[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        self.accept = base64.b64encode(accept)
        self.early = self.server.fault == "websocket.connect-waits"
        if self.early:
            self.early = False
            await self.accepted([])
            self.early = True
        self.reading.on_eof = call.lose
        if self.reading.eof:
            call.lose()
        task = asyncio.create_task(call.read_frames(self.reading.some))
        await self.server.begin(call)
        if call.closing and not call.gone and not self.server.has("websocket.close-ends", "websocket.close-answered"):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(task, 2.0)
        elif self.server.has(
            "websocket.close-ends", "websocket.close-answered", "hang", "websocket.application-returns"
        ):
            await asyncio.sleep(3)
        task.cancel()

    async def accepted(self, headers: list) -> None:
        if self.early:
            return
        lines = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", self.accept)]
        await self.write(b"HTTP/1.1 101 x\r\n%s\r\n" % b"".join(b"%s: %s\r\n" % pair for pair in [*lines, *headers]))

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        if not self.server.has("response.slow-reader", "websocket.slow-reader"):
            try:
                await self.writer.drain()
            except LOST:
                raise Gone("the client has left") from None

    async def interim(self, status: int, headers: list) -> None:
        await self.write(b"HTTP/1.1 %d x\r\n%s\r\n" % (status, b"".join(b"%s: %s\r\n" % pair for pair in headers)))

    async def head(self, call: Http) -> None:
        headers = list(call.keeps)
        self.chunked = (
            call.left is None and not call.bodiless and (not self.old or self.server.fault == "response.http-1.0")
        )
        if self.server.fault == "response.framed":
            self.chunked, self.close = False, True
        elif self.chunked:
            headers.append((b"transfer-encoding", b"chunked"))
            if self.server.fault == "response.transfer-encoding":
                headers = [(b"transfer-encoding", b"gzip, chunked"), *call.keeps]
        elif call.left is None and not call.bodiless:
            self.close = True
        if self.server.fault == "response.no-content" and call.bodiless:
            headers.append((b"transfer-encoding", b"chunked"))
        if self.close and self.server.fault != "response.framed":
            headers.append((b"connection", b"close"))
        self.raw = call.raw
        lines = b"".join(b"%s: %s\r\n" % pair for pair in headers)
        await self.write(b"HTTP/1.1 %d x\r\n%s\r\n" % (call.status, lines))

    async def data(self, content: bytes) -> None:
        await self.write(b"%x\r\n%s\r\n" % (len(content), content) if self.chunked and not self.raw else content)

    async def finish(self, trailers: list) -> None:
        if self.chunked and not self.raw:
            await self.write(b"0\r\n%s\r\n" % b"".join(b"%s: %s\r\n" % pair for pair in trailers))

    async def late(self, content: bytes) -> None:
        await self.write(content or b"late")

    def abort(self) -> None:
        self.close = True
        self.writer.close()


class Silent:
    """A writer that takes everything and sends nothing."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.kept = writer

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        await asyncio.sleep(3)

    def close(self) -> None: ...


class Http2:
    """A connection of HTTP/2."""

    def __init__(self, server: Server, reading: Reading, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reading = reading
        self.writer = writer
        self.streams: dict[int, Stream] = {}
        self.windows = asyncio.Event()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        connect = {h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=connect)
        self.h2.initiate_connection()

    def flush(self) -> None:
        try:
            self.writer.write(self.h2.data_to_send())
        except LOST:
            raise Gone("the client has left") from None

    async def serve(self) -> None:
        self.reading.on_eof = self.lose
        self.flush()
        with contextlib.suppress(h2.exceptions.ProtocolError):
            while data := await self.reading.some():
                for event in self.h2.receive_data(data):
                    self.on(event)
                self.flush()
                self.windows.set()
        self.lose()

    def lose(self) -> None:
        for stream in list(self.streams.values()):
            stream.call.lose()
        self.windows.set()

    def on(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.open(event.stream_id, event.headers)
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.DataReceived):
            stream.take(event.data, event.flow_controlled_length)
        elif isinstance(event, h2.events.StreamEnded):
            stream.take(b"", 0, end=True)
        elif isinstance(event, h2.events.StreamReset):
            stream.take(b"", 0, end=True, reset=True)

    def open(self, number: int, headers: list) -> None:
        pseudo = {name: value for name, value in headers if name.startswith(b":")}
        plain = [(b"host", pseudo[b":authority"])]
        plain += [(name, value) for name, value in headers if not name.startswith(b":") and name != b"host"]
        method = pseudo[b":method"]
        scope = self.server.scope(self.writer, "2", method, pseudo[b":path"], plain)
        self.streams[number] = Stream(self, number, scope, tunnel=b":protocol" in pseudo)


class Stream:
    """A stream of HTTP/2: the wire of its call."""

    version = "2"

    def __init__(self, connection: Http2, number: int, scope: dict, tunnel: bool) -> None:
        self.connection = connection
        self.h2 = connection.h2
        self.number = number
        self.unread = 0
        self.pipe: asyncio.Queue[bytes] = asyncio.Queue()
        self.call: Any = (WebSocket if tunnel else Http)(connection.server, scope, self)
        self.tunnel = tunnel
        connection.server.spawn(self.run())

    async def run(self) -> None:
        reader = asyncio.create_task(self.call.read_frames(self.pipe.get)) if self.tunnel else None
        await self.connection.server.begin(self.call)
        if self.connection.server.has("hang", "asgi.return-without-response", "websocket.application-returns"):
            return
        if reader is not None:
            if self.call.closing and not self.call.close_read:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(reader, 2.0)
            reader.cancel()
            if self.call.state == "open":
                with contextlib.suppress(h2.exceptions.ProtocolError, Gone):
                    self.h2.end_stream(self.number)
                    self.connection.flush()

    def take(self, data: bytes, size: int, end: bool = False, reset: bool = False) -> None:
        if self.tunnel:
            if data or end:
                self.pipe.put_nowait(data)
            self.h2.acknowledge_received_data(size, self.number) if size else None
        elif reset:
            self.call.lose()
        else:
            self.unread += size
            if data or end:
                self.call.push({"type": "http.request", "body": data, "more_body": not end})
            if self.connection.server.fault == "request.unread-waits":
                self.took()
        if reset:
            self.call.lose()
        self.connection.windows.set()

    def took(self) -> None:
        if self.unread:
            with contextlib.suppress(h2.exceptions.ProtocolError, Gone):
                self.h2.acknowledge_received_data(self.unread, self.number)
                self.connection.flush()
            self.unread = 0

    def guard(self, call: Any, *arguments: Any, **more: Any) -> None:
        try:
            call(*arguments, **more)
        except h2.exceptions.ProtocolError:
            raise Gone("the stream is over") from None
        self.connection.flush()

    async def accepted(self, headers: list) -> None:
        self.guard(self.h2.send_headers, self.number, [(b":status", b"200"), *headers])

    async def interim(self, status: int, headers: list) -> None:
        self.guard(self.h2.send_headers, self.number, [(b":status", b"%d" % status), *headers])

    async def head(self, call: Http) -> None:
        headers = [pair for pair in call.keeps if pair[0].lower() != b"transfer-encoding"]
        self.guard(self.h2.send_headers, self.number, [(b":status", b"%d" % call.status), *headers])

    async def data(self, content: bytes) -> None:
        while content:
            if self.call.gone:
                raise Gone("the client has left")
            try:
                size = min(
                    self.h2.local_flow_control_window(self.number), self.h2.max_outbound_frame_size, len(content)
                )
            except h2.exceptions.ProtocolError:
                raise Gone("the stream is over") from None
            if size:
                self.guard(self.h2.send_data, self.number, content[:size])
                content = content[size:]
                await self.writer_drain()
            else:
                self.connection.windows.clear()
                await self.connection.windows.wait()

    write = data

    async def writer_drain(self) -> None:
        try:
            await self.connection.writer.drain()
        except LOST:
            raise Gone("the client has left") from None

    async def finish(self, trailers: list) -> None:
        if trailers:
            self.guard(self.h2.send_headers, self.number, trailers, end_stream=True)
        else:
            self.guard(self.h2.end_stream, self.number)

    async def late(self, content: bytes) -> None: ...

    def promise(self, path: bytes, headers: list) -> None:
        if self.connection.server.fault == "push.promise":
            return
        number = self.h2.get_next_available_stream_id()
        scheme = self.call.scope["scheme"].encode()
        authority = dict(self.call.scope["headers"])[b"host"]
        pseudo = [(b":method", b"GET"), (b":scheme", scheme), (b":path", path), (b":authority", authority)]
        self.guard(self.h2.push_stream, self.number, number, [*pseudo, *headers])
        self.connection.open(number, [*pseudo, *headers])
        self.connection.streams[number].take(b"", 0, end=True)

    def abort(self) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError, Gone):
            self.h2.reset_stream(self.number, 2)
            self.connection.flush()


class Server:
    """Listens, serves, and runs the lifespan.

    Args:
        app: The application.
        fault: The name of one, or None.
    """

    def __init__(self, app: Any, fault: str | None = None) -> None:
        self.app = app
        self.fault = faults.ALIASES.get(fault, fault) if fault else None
        self.named = fault
        self.state: dict = {}
        self.supports_state = True
        self.crashed = False
        self.calls: set[asyncio.Task] = set()
        self.busy: set[asyncio.Task] = set()
        self.path: str | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    def has(self, *names: str) -> bool:
        return self.fault in names

    def hides(self, extension: str) -> bool:
        return self.named == f"{extension}.not-there-raises"

    def spawn(self, work: Any) -> asyncio.Task:
        task = asyncio.create_task(work)
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)
        return task

    async def begin(self, call: Call) -> None:
        task = self.spawn(call.run())
        self.busy.add(task)
        task.add_done_callback(self.busy.discard)
        await asyncio.wait([task])

    def scope(self, writer: Any, version: str, method: bytes, target: bytes, headers: list) -> dict:
        raw, _, query = target.partition(b"?")
        secure = writer.get_extra_info("ssl_object")
        web = method == b"CONNECT" or dict(headers).get(b"upgrade", b"").lower() == b"websocket"
        unix = self.path is not None
        extensions: dict = {}
        if web:
            extensions["websocket.http.response"] = {}
        else:
            extensions |= {
                "http.response.trailers": {},
                "http.response.early_hint": {},
                "http.response.zerocopysend": {},
            }
            if not self.hides("pathsend"):
                extensions["http.response.pathsend"] = {"ranges": True}
            if version == "2" and not self.hides("push"):
                extensions["http.response.push"] = {}
        scope = {
            "type": "websocket" if web else "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": version,
            "scheme": ("wss" if secure else "ws") if web else ("https" if secure else "http"),
            "path": unquote(raw.decode("ascii")),
            "raw_path": raw,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": None if unix else list(writer.get_extra_info("peername")),
            "server": [self.path, None] if unix else list(writer.get_extra_info("sockname")),
            "state": self.state.copy(),
            "extensions": extensions,
        }
        if web:
            listed = [value for name, value in headers if name == b"sec-websocket-protocol"]
            scope["subprotocols"] = [part.strip().decode() for value in listed for part in value.split(b",")]
        else:
            scope["method"] = method.decode()
        if secure:
            extensions["tls"] = self.tls(secure)
        return faults.scope(self, scope)

    def tls(self, secure: Any) -> dict:
        chain = secure.getpeercert(binary_form=True)
        names = secure.getpeercert() or {}
        return {
            "server_cert": self.certificate,
            "client_cert_chain": [ssl.DER_cert_to_PEM_cert(chain)] if chain else [],
            "client_cert_name": ",".join(f"CN={value}" for ((_, value),) in names.get("subject", ()))
            if chain
            else None,
            "client_cert_error": None,
            "tls_version": {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}[secure.version()],
            "cipher_suite": {"TLS_AES_128_GCM_SHA256": 0x1301, "TLS_AES_256_GCM_SHA384": 0x1302}.get(
                secure.cipher()[0], 0x1303
            ),
            "spec_version": "0.2",
        }

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        if self.crashed:
            writer.close()
            return
        writer.transport.set_write_buffer_limits(HIGH)
        reading = Reading(reader, self)
        while len(reading.buffer) < 3 and await reading.more():
            pass
        kind = Http2 if reading.buffer.startswith(b"PRI") else Http1
        with contextlib.suppress(Gone, OSError):
            await self.spawn(kind(self, reading, writer).serve())
        writer.close()
        await asyncio.sleep(0)
        reading.task.cancel()

    async def abandon(self) -> None:
        """End what a fault has left: connections, and every other task of the loop."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self.writers:
            writer.transport.abort()
        # A transport closes its socket in the next turn, and one of TLS that below it in the turn after.
        for _ in range(3):
            await asyncio.sleep(0)

    # -- life --------------------------------------------------------------------------------------------------

    async def startup(self) -> None:
        self.inbox: asyncio.Queue = asyncio.Queue()
        self.outbox: asyncio.Queue = asyncio.Queue()
        self.lifespan: Any = None
        scope = faults.scope(
            self,
            {
                "type": "lifespan",
                "asgi": {"version": "3.0", "spec_version": "2.0"},
                "state": self.state,
                "extensions": {"lifespan.shutdown.notice": {}},
            },
        )
        self.lifespan = asyncio.create_task(self.app(scope, self.inbox.get, self.outbox.put))
        if self.has("lifespan.once-per-loop"):
            asyncio.create_task(self.app(dict(scope), asyncio.Queue().get, self.outbox.put))
            await asyncio.sleep(0.1)
        await self.inbox.put({"type": "lifespan.ready" if self.has("lifespan.startup") else "lifespan.startup"})
        if self.has("lifespan.startup-first"):
            return
        answer = await self.ask()
        self.noticed = bool(answer and answer.get("shutdown_notice"))
        if answer is None:
            if self.has("lifespan.exception-at-scope", "lifespan.exception-at-startup"):
                sys.exit(3)
        elif answer["type"] == "lifespan.startup.failed" and not self.has("lifespan.startup-failed"):
            print(answer.get("message", ""), flush=True)
            sys.exit(3)

    async def ask(self) -> dict | None:
        # The application's answer; None if it has died.
        answer = asyncio.create_task(self.outbox.get())
        await asyncio.wait([answer, self.lifespan], return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        self.lifespan.exception()
        self.lifespan = None
        return None

    async def shutdown(self) -> None:
        if self.lifespan is None:
            return
        if not self.has("lifespan.shutdown"):
            await self.inbox.put({"type": "lifespan.shutdown"})
        if self.has("lifespan.shutdown-waits", "lifespan.shutdown"):
            return
        answer = await self.ask()
        if answer and answer["type"] == "lifespan.shutdown.failed" and not self.has("lifespan.shutdown-failed"):
            print(answer.get("message", ""), flush=True)

    async def listen(
        self, port: int, path: str | None = None, context: ssl.SSLContext | None = None, certificate: str | None = None
    ) -> Any:
        self.path = path
        self.certificate = certificate
        if path is not None:
            return await asyncio.start_unix_server(self.connected, path)
        return await asyncio.start_server(self.connected, "127.0.0.1", port, ssl=context)


def context_of(cert: str, key: str, ca: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def single(app: Any) -> Any:
    if inspect.iscoroutinefunction(app):
        return app

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        await app(scope)(receive, send)

    return wrapped


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--unix")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--ca")
    parser.add_argument("--fault")
    parser.add_argument("app")
    options = parser.parse_args()
    module, _, name = options.app.partition(":")
    app = getattr(importlib.import_module(module), name)
    server = Server(app if options.fault == "asgi.two-callables" else single(app), options.fault)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.startup()
    context = certificate = None
    if options.cert:
        context = context_of(options.cert, options.key, options.ca)
        with open(options.cert) as file:
            certificate = file.read()
    listening = await server.listen(options.port, options.unix, context, certificate)
    await stop.wait()
    if not server.has("lifespan.shutdown"):
        listening.close()
    if server.noticed and not server.has("lifespan.notice"):
        await server.inbox.put({"type": "lifespan.shutdown.notice"})
    if server.has("lifespan.shutdown-after-requests"):
        await server.shutdown()
    if server.busy:
        await asyncio.wait(set(server.busy), timeout=5.0)
        await asyncio.sleep(0.05)
    if not server.has("lifespan.shutdown-after-requests"):
        await server.shutdown()
    while server.has("lifespan.shutdown-ends", "lifespan.shutdown"):
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())

"""A blocking WebSocket client that sends the frames it is told to; over a socket, or over a stream of HTTP/2."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct
import time
from typing import NamedTuple, Protocol

from daphne_ng.testing.conformance.exchange import Broken, Fields, Response
from daphne_ng.testing.conformance.http1 import Http1Exchange
from daphne_ng.testing.conformance.http2 import Http2Connection, Http2Exchange

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Frame(NamedTuple):
    """A frame from the server."""

    opcode: int
    final: bool
    payload: bytes


class _Pipe(Protocol):
    # What a WebSocket is spoken on.
    socket: socket.socket

    @property
    def response(self) -> Response: ...

    def write(self, data: bytes) -> None: ...

    def more(self, deadline: float) -> bytes | None: ...

    def handshake(self, seconds: float) -> Response: ...

    def quiet(self, seconds: float) -> bool: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


class _OnSocket:
    def __init__(self, exchange: Http1Exchange, target: bytes, headers: Fields) -> None:
        self._exchange = exchange
        self.socket = exchange.socket
        key = base64.b64encode(os.urandom(16))
        fields = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-key", key),
            (b"sec-websocket-version", b"13"),
        ]
        exchange.request("GET", target, [*fields, *headers])

    @property
    def response(self) -> Response:
        return self._exchange.response

    def handshake(self, seconds: float) -> Response:
        response = self._exchange.read_head(seconds)
        if response.status != 101:
            self._exchange.read_all(seconds)
        return response

    def write(self, data: bytes) -> None:
        self._exchange.wire.write(data)

    def more(self, deadline: float) -> bytes | None:
        wire = self._exchange.wire
        if not wire.buffer and not wire.fill(deadline):
            return None
        data = bytes(wire.buffer)
        wire.buffer.clear()
        return data

    def quiet(self, seconds: float) -> bool:
        return self._exchange.quiet(seconds)

    def reset(self) -> None:
        self._exchange.reset()

    def close(self) -> None:
        self._exchange.close()


class _OnStream:
    def __init__(self, stream: Http2Exchange, target: bytes, headers: Fields) -> None:
        self._stream = stream
        self.socket = stream.socket
        connection = stream.connection
        fields = [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", connection.scheme),
            (b":path", target),
            (b":authority", connection.authority),
            (b"sec-websocket-version", b"13"),
        ]
        stream.open([*fields, *headers], end=False)
        self._taken = 0

    @property
    def response(self) -> Response:
        return self._stream.response

    def handshake(self, seconds: float) -> Response:
        response = self._stream.read_head(seconds)
        if response.status != 200:
            self._stream.read_all(seconds)
            self._taken = len(response.body)
        return response

    def write(self, data: bytes) -> None:
        self._stream.send(data)

    def more(self, deadline: float) -> bytes | None:
        response = self._stream.response
        while len(response.body) == self._taken:
            if response.ended:
                return None
            self._stream.connection.step(deadline)
        data = bytes(response.body[self._taken :])
        self._taken = len(response.body)
        return data

    def quiet(self, seconds: float) -> bool:
        return self._stream.quiet(seconds)

    def reset(self) -> None:
        self._stream.reset()

    def close(self) -> None:
        self._stream.close()


# A server that waits for its client to close first gets its wish after that.
_LEAVE_SECONDS = 0.5


class WebSocketClient:
    """One WebSocket, from the handshake on."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self._buffer = bytearray()
        self._over = False

    @classmethod
    def on_socket(cls, exchange: Http1Exchange, target: bytes, headers: Fields = ()) -> WebSocketClient:
        """Ask for a WebSocket by Upgrade."""
        return cls(_OnSocket(exchange, target, headers))

    @classmethod
    def on_connection(cls, connection: Http2Connection, target: bytes, headers: Fields = ()) -> WebSocketClient:
        """Ask for a WebSocket by extended CONNECT."""
        return cls(_OnStream(connection.stream(), target, headers))

    @property
    def socket(self) -> socket.socket:
        """The socket of the connection."""
        return self._pipe.socket

    @property
    def response(self) -> Response:
        """What has come of the answer to the handshake."""
        return self._pipe.response

    @property
    def opened(self) -> bool:
        """Whether the handshake was accepted."""
        return self.response.status in (101, 200)

    def handshake(self, seconds: float) -> Response:
        """Wait for the answer to the handshake; if it is a refusal, for all of it."""
        return self._pipe.handshake(seconds)

    def quiet(self, seconds: float) -> bool:
        """Return whether nothing comes for a while."""
        return not self._buffer and self._pipe.quiet(seconds)

    def send(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        """Send one masked frame."""
        mask = os.urandom(4)
        length = len(payload)
        head = bytes([opcode | (0x80 if final else 0)])
        if length < 126:
            head += bytes([0x80 | length])
        elif length < 1 << 16:
            head += bytes([0x80 | 126]) + struct.pack(">H", length)
        else:
            head += bytes([0x80 | 127]) + struct.pack(">Q", length)
        self._pipe.write(head + mask + _masked(payload, mask))

    def send_close(self, code: int | None = None, reason: str = "") -> None:
        """Send a Close frame."""
        self.send(CLOSE, b"" if code is None else struct.pack(">H", code) + reason.encode())

    def leave(self, code: int | None = None, reason: str = "") -> None:
        """Send a Close frame, and then do as clients do: read to the end of the connection, and close it.

        A server may wait for that, as one does over TLS that has sent its close_notify.
        """
        self.send_close(code, reason)
        self.depart()

    def depart(self) -> None:
        """Read to the end behind both Close frames, and close the connection; on HTTP/2 it may serve other streams."""
        with contextlib.suppress(Broken):
            self.ended(_LEAVE_SECONDS)
        if isinstance(self._pipe, _OnSocket):
            self.close()

    def frame(self, seconds: float) -> Frame | None:
        """Wait for one frame; None if the connection ends first. Raises TimeoutError, or `Broken` for a bad one."""
        deadline = time.monotonic() + seconds
        while True:
            parsed = self._parse()
            if parsed is not None:
                return parsed
            if self._over:
                return None
            data = self._pipe.more(deadline)
            if data is None:
                self._over = True
            else:
                self._buffer += data

    def message(self, seconds: float) -> str | bytes | None:
        """Wait for one whole message; None if a Close frame or the end comes first."""
        deadline = time.monotonic() + seconds
        parts: list[bytes] = []
        opcode = 0
        while True:
            frame = self.frame(max(deadline - time.monotonic(), 0.001))
            if frame is None or frame.opcode == CLOSE:
                return None
            if frame.opcode == PING:
                self.send(PONG, frame.payload)
            elif frame.opcode != PONG:
                opcode = frame.opcode or opcode
                parts.append(frame.payload)
                if frame.final:
                    whole = b"".join(parts)
                    return whole.decode() if opcode == TEXT else whole

    def close_frame(self, seconds: float) -> tuple[int | None, str] | None:
        """Wait for the server's Close frame and return its code and reason; None if there is none before the end."""
        deadline = time.monotonic() + seconds
        while True:
            frame = self.frame(max(deadline - time.monotonic(), 0.001))
            if frame is None:
                return None
            if frame.opcode == CLOSE:
                if len(frame.payload) < 2:
                    return None, ""
                return int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode()

    def ended(self, seconds: float) -> bool:
        """Return whether the connection, or the stream, ends within a time."""
        deadline = time.monotonic() + seconds
        try:
            while self.frame(max(deadline - time.monotonic(), 0.001)) is not None:
                pass
        except TimeoutError:
            return False
        return True

    def _parse(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        if first & 0x70 or second & 0x80:
            raise Broken(f"a frame with {'a mask' if second & 0x80 else 'reserved bits'}")
        length, start = second, 2
        if length == 126:
            start, length = 4, int.from_bytes(buffer[2:4], "big")
        elif length == 127:
            start, length = 10, int.from_bytes(buffer[2:10], "big")
        if len(buffer) < start + length:
            return None
        payload = bytes(buffer[start : start + length])
        del buffer[: start + length]
        return Frame(first & 0x0F, bool(first & 0x80), payload)

    def reset(self) -> None:
        """Close with RST, or reset the stream."""
        self._pipe.reset()

    def close(self) -> None:
        """Close with FIN, without a Close frame."""
        self._pipe.close()


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = mask * (size // 4 + 1)
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key[:size], "big")).to_bytes(size, "big")

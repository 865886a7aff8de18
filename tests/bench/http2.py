"""A minimal HTTP/2 client in cleartext with prior knowledge: opens a connection, makes one request, stays."""

from __future__ import annotations

import socket
from contextlib import suppress

from .client import HOST, RESET_ON_CLOSE
from .errors import BenchError, UnsupportedError

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# :method GET, :scheme http, :path / from the static table; :authority as a literal that is not indexed.
_REQUEST = bytes([0x82, 0x86, 0x84, 0x01, len(HOST)]) + HOST.encode()
# :status 200, from the static table or as a literal that is not indexed. Every server here uses one of them.
_STATUS_200 = (b"\x88", b"\x08\x03200")
_TIMEOUT_SECONDS = 15.0


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Http2Connection:
    """One connection. A context manager that resets it at the end."""

    def __init__(self, port: int) -> None:
        """Connect, send the preface, settings without values and nothing more.

        Raises:
            BenchError: Nobody listens.
        """
        try:
            self._socket = socket.create_connection((HOST, port), timeout=_TIMEOUT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0))
        except OSError as error:
            raise BenchError(f"cannot connect: {error}") from error
        self._pending = b""
        self._next_stream = 1

    def __enter__(self) -> Http2Connection:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._socket.close()

    def get(self) -> bytes:
        """Ask for ``/`` and return the body of the answer.

        Raises:
            UnsupportedError: The server does not speak HTTP/2 in cleartext.
            BenchError: It broke off, or the status was not 200.
        """
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._write(_frame(_HEADERS, _END_STREAM | _END_HEADERS, stream, _REQUEST))
        body, ended = b"", False
        while not ended:
            kind, flags, about, payload = self._read_frame()
            if kind == _SETTINGS and not flags & _ACK:
                self._write(_frame(_SETTINGS, _ACK, 0))
            elif kind == _PING and not flags & _ACK:
                self._write(_frame(_PING, _ACK, 0, payload))
            elif kind in (_RST_STREAM, _GOAWAY):
                raise BenchError(f"the server broke off with frame type {kind}: {payload[-8:].hex()}")
            elif about == stream and kind == _HEADERS and not any(status in payload[:8] for status in _STATUS_200):
                raise BenchError(f"not status 200: {payload[:16].hex()}")
            elif about == stream and kind == _DATA:
                body += payload
            ended = about == stream and kind in (_HEADERS, _DATA) and bool(flags & _END_STREAM)
        return body

    def is_open(self) -> bool:
        """Return whether the server has not closed the connection, whatever else it has sent."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(4096):
                pass
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _read_frame(self) -> tuple[int, int, int, bytes]:
        head = self._exactly(9)
        if head.startswith(b"HTTP/1."):
            raise UnsupportedError("it does not speak HTTP/2 in cleartext")
        payload = self._exactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFF_FFFF, payload

    def _exactly(self, size: int) -> bytes:
        while len(self._pending) < size:
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                raise BenchError(f"cannot read: {error}") from error
            if not data:
                if self._next_stream == 3:
                    raise UnsupportedError("it closes a connection that begins with HTTP/2 in cleartext")
                raise BenchError("the server closed a connection")
            self._pending += data
        data, self._pending = self._pending[:size], self._pending[size:]
        return data

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise BenchError(f"cannot write: {error}") from error

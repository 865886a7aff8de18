"""A small blocking HTTP/1.1 client: checks what the servers answer, and makes the loads that wrk cannot.

It reads with ``recv_into`` one buffer and writes slices of one constant, so that on its own core it stays well
ahead of any server. Responses must carry Content-Length, as all of the application's do.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from .errors import BenchError

HOST = "127.0.0.1"
_HEAD_MAX_BYTES = 64 * 1024
_BUFFER_BYTES = 256 * 1024
# A server that trickles never meets the timeout of a single operation.
_LIFETIME_SECONDS = 180.0
# SO_LINGER on with 0 seconds: close resets, so that thousands of closed connections leave no TIME_WAIT behind.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields (names in lower case) of a response."""

    status: int
    headers: Mapping[str, str]

    @property
    def length(self) -> int:
        """The Content-Length.

        Raises:
            BenchError: There is none.
        """
        try:
            return int(self.headers["content-length"])
        except (KeyError, ValueError):
            raise BenchError("the response has no Content-Length") from None


class Client:
    """One keep-alive connection. Every failure, also of the network, is a `BenchError`."""

    def __init__(
        self,
        port: int,
        *,
        timeout: float = 60.0,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Connect.

        Args:
            port: On the loopback address.
            timeout: Longest wait for one read or write, in seconds.
            receive_buffer: Bound of the kernel's receive buffer in bytes; ``None`` lets it grow by itself.
            tls: Context of a TLS client; ``None`` for cleartext. `is_open` and `detach` are for cleartext only.
        """
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:
            raise BenchError(f"no socket: {error}") from error
        try:
            self._socket.settimeout(timeout)
            if receive_buffer is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._socket.connect((HOST, port))
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        except OSError as error:
            self._socket.close()
            raise BenchError(f"cannot connect: {error}") from error
        self._pending = b""
        self._deadline = time.monotonic() + _LIFETIME_SECONDS

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Reset the connection."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._socket.close()

    def detach(self) -> tuple[socket.socket, bytes]:
        """Hand over the socket, which this object then does not close, and what came after the last response."""
        timeout = self._socket.gettimeout()
        taken = socket.socket(fileno=self._socket.detach())
        taken.settimeout(timeout)
        return taken, self._pending

    def send(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Send one whole request. The caller next reads the response: `read_head`, then the body."""
        self._write(head_bytes(method, path, dict(headers or {}), len(body)) + body)

    def send_upload(self, path: str, size: int) -> None:
        """Send a POST whose body is `size` zero bytes. The caller next reads the response."""
        self._write(head_bytes("POST", path, {"Content-Type": "application/octet-stream"}, size))
        block = memoryview(bytes(_BUFFER_BYTES))
        while size > 0:
            self._write(block[: min(size, len(block))])
            size -= len(block)

    def read_head(self) -> Head:
        """Read one response head. The caller next reads its body."""
        while (end := self._pending.find(b"\r\n\r\n")) < 0:
            if len(self._pending) > _HEAD_MAX_BYTES:
                raise BenchError("the response head does not end")
            self._pending += self._receive()
        block, self._pending = self._pending[:end].decode("latin-1"), self._pending[end + 4 :]
        status_line, *lines = block.split("\r\n")
        try:
            status = int(status_line.split(" ", 2)[1])
        except (IndexError, ValueError):
            raise BenchError(f"not a status line: {status_line[:80]!r}") from None
        fields = (line.partition(":") for line in lines)
        return Head(status, {name.lower(): value.strip() for name, _, value in fields})

    def read_body(self, head: Head) -> bytes:
        """Read a response's whole body."""
        pieces: list[bytes] = []
        self.drain(head, lambda piece: pieces.append(bytes(piece)))
        return b"".join(pieces)

    def drain(self, head: Head, each: Callable[[memoryview], object] | None = None) -> int:
        """Read a body without keeping it; return its size. `each` sees every piece, valid during the call only."""
        left = size = head.length
        first, self._pending = self._pending[:left], self._pending[left:]
        if each is not None and first:
            each(memoryview(first))
        left -= len(first)
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        while left:
            self._check_deadline()
            try:
                count = self._socket.recv_into(buffer[: min(left, len(buffer))])
            except OSError as error:
                raise BenchError(f"cannot read: {error}") from error
            if not count:
                raise BenchError(f"the response ended {left} bytes early")
            if each is not None:
                each(buffer[:count])
            left -= count
        return size

    def is_open(self) -> bool:
        """Return whether the server has neither closed the connection nor sent anything unasked."""
        timeout = self._socket.gettimeout()
        # With a timeout set, Python would wait for data before it calls recv at all.
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(timeout)
        return False

    def _check_deadline(self) -> None:
        if time.monotonic() > self._deadline:
            raise BenchError(f"not done after {_LIFETIME_SECONDS:.0f} s")

    def _write(self, data: bytes | memoryview) -> None:
        self._check_deadline()
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise BenchError(f"cannot write: {error}") from error

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            raise BenchError(f"cannot read: {error}") from error
        if not data:
            raise BenchError("the connection was closed without a response")
        return data


def head_bytes(method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
    """Return a request head; Content-Length is sent with every method but GET."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {length}"] if method != "GET" else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def crc_of(client: Client, head: Head) -> int:
    """Read a body and return its CRC-32."""
    crc = 0

    def add(piece: memoryview) -> None:
        nonlocal crc
        crc = zlib.crc32(piece, crc)

    client.drain(head, add)
    return crc

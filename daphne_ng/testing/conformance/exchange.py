"""What the clients of the suite have in common: an exchange on a socket, and the response that it brings."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

Fields = Iterable[tuple[bytes, bytes]]


class Broken(Exception):
    """The server ended the connection, or sent what is no HTTP, before there was a response."""


@dataclass
class Response:
    """What has come of a response so far."""

    status: int = 0
    """0 while there is no final head."""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list[tuple[int, list[tuple[bytes, bytes]]]] = field(default_factory=list)
    """Statuses of 1xx, with their fields."""
    complete: bool = False
    """Whether its framing says that it came whole."""
    ended: bool = False
    """Whether nothing more can come: it is complete, or was cut."""
    on_length: bool = False
    """Whether Content-Length or chunks frame it, not the end of the connection."""

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of every field of this name, which is lower-case."""
        return [value for key, value in self.headers if key.lower() == name]


class Exchange(Protocol):
    """One request and its response, on a connection of its own."""

    response: Response
    socket: socket.socket

    def request(
        self, method: str, target: bytes, headers: Fields = (), body: bytes = b"", *, more: bool = False
    ) -> None:
        """Send the head, and the body or its first part."""

    def send(self, data: bytes, *, more: bool = True) -> None:
        """Send another part of the body."""

    def read_head(self, seconds: float) -> Response:
        """Wait for the final head. Raises `Broken` or TimeoutError."""

    def read_body(self, size: int, seconds: float) -> Response:
        """Wait until the body has this many bytes, or has ended. Raises TimeoutError."""

    def read_all(self, seconds: float) -> Response:
        """Wait for the end of the response. Raises `Broken` without a head, or TimeoutError."""

    def quiet(self, seconds: float) -> bool:
        """Return whether nothing comes for a while."""

    def reset(self) -> None:
        """End the exchange rudely: RST, or RST_STREAM."""

    def close(self) -> None:
        """End the connection: FIN."""


class Wire:
    """A connected socket that is read with deadlines.

    Args:
        connection: The socket; this object closes it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.buffer = bytearray()
        self.eof = False

    def write(self, data: bytes, seconds: float = 10.0) -> None:
        """Send all of it. An error is left for the reading side to tell."""
        self.socket.settimeout(seconds)
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def fill(self, deadline: float) -> bool:
        """Read what has come into `buffer`; return whether there may be more. Raises TimeoutError."""
        if self.eof:
            return False
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise TimeoutError from None
        except OSError:
            data = b""
        self.buffer += data
        self.eof = not data
        return bool(data)

    def quiet(self, seconds: float) -> bool:
        """Return whether nothing comes for a while, nor the end."""
        if self.buffer or self.eof:
            return False
        try:
            self.fill(time.monotonic() + seconds)
        except TimeoutError:
            return True
        return False

    def reset(self) -> None:
        """Close with RST."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # TLS would send a goodbye first.
        descriptor = self.socket.detach()
        if descriptor >= 0:
            socket.close(descriptor)

    def close(self) -> None:
        """Close with FIN."""
        with contextlib.suppress(OSError):
            self.socket.close()

"""An HTTP/2 client that has no idea of the protocol but its frames, for servers on real sockets.

It sends whatever a test builds, by hand (`tests.support.h2` has frames by name), and keeps what comes by stream. What
it does by itself: the preface, acknowledging SETTINGS, and decoding header blocks with hpack. Nothing is credited to
any window.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hpack

from tests.support import h2
from tests.support.h2 import fields

PATIENCE_SECONDS = 20.0

T = TypeVar("T")


def request(
    path: bytes = b"/hello",
    *more: tuple[bytes, bytes],
    stream: int = 1,
    method: bytes = b"GET",
    end: bool = True,
    authority: bytes = b"conformance.test",
) -> bytes:
    """HEADERS of a request that is in order, unless `more` is not."""
    return h2.headers(stream, fields(method, path, *more, authority=authority), end)


def post(stream: int = 1, path: bytes = b"/sink", *more: tuple[bytes, bytes]) -> bytes:
    """HEADERS of a request whose body is to follow."""
    return request(path, *more, stream=stream, method=b"POST", end=False)


@dataclass
class Answer:
    """What has come on one stream."""

    heads: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    """Lists of fields: interim ones, the response's, trailers."""
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None
    updates: int = 0
    """Sum of its WINDOW_UPDATEs."""

    @property
    def status(self) -> int:
        """Of the response, or of what has come of it."""
        statuses = [int(head[0][1]) for head in self.heads if head[0][0] == b":status"]
        return next((status for status in statuses if status >= 200), 0)

    @property
    def head(self) -> list[tuple[bytes, bytes]]:
        """The fields of the response, without its status."""
        return next(head for head in self.heads if head[0][0] == b":status" and head[0][1] >= b"200")[1:]

    def value(self, name: bytes) -> bytes | None:
        """The only value of that name."""
        values = [value for key, value in self.head if key == name]
        assert len(values) < 2, f"{name!r} is there {len(values)} times"
        return values[0] if values else None


class Peer:
    """One connection.

    Args:
        connection: The socket, connected, with TLS or without.
        settings: What the first SETTINGS frame says.
        begin: Whether to send the preface.
        acknowledge: Whether to acknowledge the server's SETTINGS.
    """

    def __init__(
        self,
        connection: socket.socket,
        settings: Iterable[tuple[int, int]] = (),
        begin: bool = True,
        acknowledge: bool = True,
    ) -> None:
        self.acknowledge = acknowledge
        self.socket = connection
        self.address = connection.getsockname()
        connection.settimeout(PATIENCE_SECONDS)
        self._data = b""
        self._block = b""
        self._block_of: tuple[int, int] | None = None
        self.decoder = hpack.Decoder()
        self.answers: dict[int, Answer] = {}
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.settings: dict[int, int] = {}
        """The server's."""
        self.settings_acks = 0
        self.pings: list[bytes] = []
        """Payloads of acknowledgements."""
        self.asked: list[bytes] = []
        """Payloads of the server's own."""
        self.goaways: list[tuple[int, int, bytes]] = []
        self.updates = 0
        """Sum of the WINDOW_UPDATEs of the connection."""
        self.closed = False
        self.next = 1
        if begin:
            self.send(h2.PREFACE, h2.settings(*settings))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    # -- out ---------------------------------------------------------------------------------------------

    def send(self, *frames: bytes) -> None:
        """Send bytes. A server that has closed the connection does not matter here."""
        try:
            self.socket.sendall(b"".join(frames))
        except (ConnectionError, ssl.SSLError):
            pass

    def flood(self, data: bytes, seconds: float = 20.0) -> None:
        """Send a lot, reading what comes meanwhile, until all is sent or the server has said GOAWAY or closed."""
        view = memoryview(data)
        deadline = time.monotonic() + seconds
        self.socket.setblocking(False)
        try:
            while view and not self.closed and not (self.goaways and self.goaways[-1][1]):
                assert time.monotonic() < deadline, "the server takes no bytes"
                progress = False
                try:
                    view = view[self.socket.send(view[:65536]) :]
                    progress = True
                except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    pass
                except (ConnectionError, ssl.SSLError):
                    self.closed = True
                    break
                try:
                    self._feed(self.socket.recv(65536))
                    progress = True
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    pass
                except (ConnectionError, ssl.SSLError):
                    self.closed = True
                if not progress:
                    select.select([self.socket], [self.socket] if view else [], [], 0.05)
        finally:
            self.socket.settimeout(PATIENCE_SECONDS)

    def new(self, path: bytes = b"/hello", *more: tuple[bytes, bytes], **rest: Any) -> int:
        """Send a request on the next stream, and return that."""
        stream, self.next = self.next, self.next + 2
        self.send(request(path, *more, stream=stream, **rest))
        return stream

    # -- in ----------------------------------------------------------------------------------------------

    def answer(self, stream: int) -> Answer:
        """What has come on a stream so far."""
        return self.answers.setdefault(stream, Answer())

    def read(self) -> None:
        """Take what one read brings."""
        try:
            data = self.socket.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        self._feed(data)

    def wait(self, condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
        """Read until `condition` is true, and return what it gives."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert not self.closed, f"the connection was closed before {what}: {self.goaways} {self.answers}"
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.answers}"
            self.read()
        return value

    def response(self, stream: int) -> Answer:
        """Wait for the end of a stream, whichever it is."""
        answer = self.answer(stream)
        self.wait(lambda: answer.ended or answer.reset is not None, f"the end of stream {stream}")
        return answer

    def get(self, path: bytes = b"/hello", *more: tuple[bytes, bytes], **rest: Any) -> Answer:
        """Send a request and wait for its response, which must be whole."""
        answer = self.response(self.new(path, *more, **rest))
        assert answer.ended, answer
        return answer

    def settle(self, payload: bytes = b"settled?") -> None:
        """Wait until the server has worked on all that was sent, by a PING; or until the end of the connection."""
        count = self.pings.count(payload)
        self.send(h2.ping(payload))
        while not (self.closed or (self.goaways and self.goaways[-1][1]) or self.pings.count(payload) > count):
            self.read()

    def wait_closed(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Read to the end of the connection."""
        deadline = time.monotonic() + seconds
        while not self.closed:
            assert time.monotonic() < deadline, "the connection is not closed"
            self.read()

    def _feed(self, data: bytes) -> None:
        if not data:
            self.closed = True
            return
        self._data += data
        at, end = 0, len(self._data)
        while end - at >= 9:
            following = at + 9 + int.from_bytes(self._data[at : at + 3], "big")
            if following > end:
                break
            kind, flags = self._data[at + 3], self._data[at + 4]
            stream = int.from_bytes(self._data[at + 5 : at + 9], "big")
            self._take(kind, flags, stream, self._data[at + 9 : following])
            at = following
        self._data = self._data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if not self.frames:
            assert (kind, flags & h2.ACK, stream) == (h2.SETTINGS, 0, 0), "the server's preface is wrong"
        assert kind == h2.CONTINUATION or self._block_of is None, "a header block is interrupted"
        assert len(payload) <= 65536
        self.frames.append((kind, flags, stream, payload if kind != h2.DATA else b""))
        if kind == h2.DATA:
            answer = self.answer(stream)
            assert answer.heads and not answer.ended and not flags & h2.PADDED
            answer.body += payload
            answer.ended = bool(flags & h2.END_STREAM)
        elif kind == h2.HEADERS:
            assert not flags & (h2.PADDED | h2.WITH_PRIORITY)
            assert not self.answer(stream).ended
            self._block, self._block_of = payload, (stream, flags)
            if flags & h2.END_HEADERS:
                self._head()
        elif kind == h2.CONTINUATION:
            assert self._block_of is not None
            assert self._block_of[0] == stream
            self._block += payload
            if flags & h2.END_HEADERS:
                self._head()
        elif kind == h2.RST_STREAM:
            assert stream
            self.answer(stream).reset = struct.unpack(">I", payload)[0]
        elif kind == h2.SETTINGS:
            assert not stream
            if flags & h2.ACK:
                assert not payload
                self.settings_acks += 1
            else:
                self.settings.update(struct.iter_unpack(">HI", payload))  # type: ignore[arg-type]
                if self.acknowledge:
                    self.send(h2.settings(ack=True))
        elif kind == h2.PING:
            assert (len(payload), stream) == (8, 0)
            (self.pings if flags & h2.ACK else self.asked).append(payload)
        elif kind == h2.GOAWAY:
            assert not stream
            self.goaways.append((*struct.unpack_from(">II", payload), payload[8:]))
        elif kind == h2.WINDOW_UPDATE:
            increment = struct.unpack(">I", payload)[0]
            assert 0 < increment < 2**31
            if stream:
                self.answer(stream).updates += increment
            else:
                self.updates += increment
        else:
            raise AssertionError(f"the server sent a frame of type {kind}")

    def _head(self) -> None:
        assert self._block_of is not None
        stream, flags = self._block_of
        self._block_of = None
        answer = self.answer(stream)
        answer.heads.append([(bytes(n), bytes(v)) for n, v in self.decoder.decode(self._block, raw=True)])
        answer.ended = bool(flags & h2.END_STREAM)

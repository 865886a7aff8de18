"""An open-loop load: requests and messages at a fixed rate, whatever the server does, and how long each took.

The schedule is fixed before the load begins: number *k* is due *k* / rate seconds after the start. It goes out on the
connection that has been free for longest; if none is free, it waits, and so do those behind it. What is measured
counts from when it was *due*: a server that stands still for 10 ms pays for everything that would have been sent
meanwhile, not only for what it had in hand ("coordinated omission").

The loop never sleeps, because epoll waits whole milliseconds: it uses all of its core, at any rate. How late it was
itself is measured too, as `Latencies.late`.

Beside it, a download and an upload may run at a fixed pace (`Download`, `Upload`), in the same loop and in pieces of
64 KiB, so that on a machine with two cores no second process takes the load's core away.
"""

from __future__ import annotations

import gc
import math
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from . import app
from .client import RESET_ON_CLOSE, Client, head_bytes
from .errors import BenchError
from .websocket import TEXT, WebSocket, plain

_READ_BYTES = 64 * 1024
# Few at once, so that what falls due meanwhile is not late for it.
_EVENTS_MAX = 16
# A server that cannot keep the rate falls behind without end.
_OVERTIME_SECONDS = 10.0
BULK_BYTES_PER_SECOND = 64 * 1024 * 1024


class Caller:
    """One connection with at most one request or message in flight, always the same."""

    __slots__ = ("_answer_bytes", "_end", "_received", "_start", "due", "request", "sock")

    def __init__(self, sock: socket.socket, request: bytes, answer_bytes: int, start: bytes, end: bytes) -> None:
        """Take over a connected socket.

        Args:
            sock: The socket; it becomes non-blocking.
            request: What is sent.
            answer_bytes: Length of the whole answer.
            start: What the answer begins with.
            end: What it ends with.
        """
        sock.setblocking(False)
        self.sock = sock
        self.request = request
        self.due = 0.0
        self._answer_bytes = answer_bytes
        self._start = start
        self._end = end
        self._received = b""

    def send(self) -> None:
        """Send the request: small enough for the kernel to take it whole.

        Raises:
            BenchError: It did not.
        """
        try:
            sent = self.sock.send(self.request)
        except OSError as error:
            raise BenchError(f"cannot write: {error}") from error
        if sent != len(self.request):
            raise BenchError("the kernel took only a part of a request")

    def read(self) -> bool:
        """Read what is there; return whether the answer is complete now.

        Raises:
            BenchError: It is not the right answer, or there will be none.
        """
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise BenchError(f"cannot read: {error}") from error
        if not data:
            raise BenchError("the server closed a connection")
        if self._received or len(data) < self._answer_bytes:
            data = self._received + data
            if len(data) < self._answer_bytes:
                self._received = data
                return False
            self._received = b""
        if len(data) != self._answer_bytes or not data.startswith(self._start) or not data.endswith(self._end):
            raise BenchError(f"wrong answer: {data[:80]!r}")
        return True

    def close(self) -> None:
        """Reset the connection."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()


def _used_socket(port: int) -> socket.socket:
    """Return a non-blocking connection on which one request has been answered."""
    with Client(port) as client:
        client.send("GET", "/")
        client.read_body(client.read_head())
        sock, _ = client.detach()
    sock.setblocking(False)
    return sock


def _http_caller(port: int) -> Caller:
    request = head_bytes("GET", "/", {}, 0)
    sock = _used_socket(port)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # The second answer on the connection: all later ones are as long, since only the Date in them changes.
    sock.settimeout(_OVERTIME_SECONDS)
    sock.sendall(request)
    answer = b""
    while not answer.endswith(b"\r\n\r\n" + app.HELLO):
        if not (data := sock.recv(_READ_BYTES)):
            raise BenchError("the server closed a connection")
        answer += data
    return Caller(sock, request, len(answer), b"HTTP/1.1 200", b"\r\n\r\n" + app.HELLO)


def _websocket_caller(port: int, tag: int) -> Caller:
    websocket = WebSocket(port, "/echo")
    message = plain(TEXT, 64, tag)
    websocket.write(message.sent)
    websocket.wait(message)
    return Caller(websocket.sock, message.sent, len(message.expected), message.expected, b"")


@contextmanager
def callers(port: int, count: int, *, websocket: bool) -> Iterator[list[Caller]]:
    """Open connections that have each been used once: for ``GET /``, or WebSockets for a text of 64 bytes."""
    opened: list[Caller] = []
    try:
        for tag in range(count):
            opened.append(_websocket_caller(port, tag) if websocket else _http_caller(port))
        yield opened
    finally:
        for caller in opened:
            caller.close()


class Download:
    """``GET /stream``, again and again, read at a fixed pace."""

    def __init__(self, port: int) -> None:
        self._sock = _used_socket(port)
        self._request = head_bytes("GET", "/stream", {}, 0)
        self._buffer = bytearray(_READ_BYTES)
        self._begun = time.perf_counter()
        self._head = b""
        self._left = 0
        self._begin()
        self.done = 0
        """Bytes that were moved."""

    def _begin(self) -> None:
        self._sock.send(self._request)
        self._left = app.STREAM_BYTES
        self._reading_head = True

    def turn(self, now: float) -> None:
        """Move one piece, if it is time for it and the server lets us."""
        if (now - self._begun) * BULK_BYTES_PER_SECOND - self.done < _READ_BYTES:
            return
        try:
            count = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        if not count:
            raise BenchError("the server closed the connection of a download")
        self.done += count
        if self._reading_head:
            self._head += self._buffer[:count]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            count = len(self._head) - end - 4
            self._head, self._reading_head = b"", False
        self._left -= count
        if self._left < 0:
            raise BenchError("a download was longer than announced")
        if not self._left:
            self._begin()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


class Upload:
    """``POST /upload``, again and again, written at a fixed pace."""

    def __init__(self, port: int) -> None:
        self._sock = _used_socket(port)
        self._head = head_bytes("POST", "/upload", {"Content-Type": "application/octet-stream"}, app.STREAM_BYTES)
        self._block = memoryview(bytes(_READ_BYTES))
        self._begun = time.perf_counter()
        self._answer = b""
        self._left = 0
        self._begin()
        self.done = 0
        """Bytes that were moved."""

    def _begin(self) -> None:
        self._sock.send(self._head)
        self._left = app.STREAM_BYTES

    def turn(self, now: float) -> None:
        """Move one piece, if it is time for it and the server lets us."""
        if (now - self._begun) * BULK_BYTES_PER_SECOND - self.done < _READ_BYTES:
            return
        try:
            if self._left:
                count = self._sock.send(self._block[: min(self._left, _READ_BYTES)])
                self._left -= count
                self.done += count
                return
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise BenchError(f"an upload failed: {error}") from error
        if not data:
            raise BenchError("the server closed the connection of an upload")
        self._answer += data
        if self._answer.endswith(b"\r\n\r\n%d" % app.STREAM_BYTES):
            self._answer = b""
            self._begin()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


@dataclass(slots=True)
class Latencies:
    """What an open loop measured, in seconds."""

    took: array[float]
    """From when each was due to when its answer was complete."""
    late: array[float]
    """From when each was due and a connection was free to when it was sent: the fault of the load."""
    wall: float
    """From the first due time to the last answer."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@contextmanager
def _without_collections() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def closed_loop(connections: Sequence[Caller], seconds: float) -> float:
    """Keep one request in flight on each connection for so long; return how many were answered per second."""
    with select.epoll() as epoll, _without_collections():
        by_fd = {caller.sock.fileno(): caller for caller in connections}
        for number in by_fd:
            epoll.register(number, select.EPOLLIN)
        clock = time.perf_counter
        start = now = clock()
        for caller in connections:
            caller.send()
        count, waiting = 0, len(connections)
        while waiting:
            for number, _ in epoll.poll(_OVERTIME_SECONDS, _EVENTS_MAX) or _nothing():
                caller = by_fd[number]
                if caller.read():
                    count += 1
                    if now - start < seconds:
                        caller.send()
                    else:
                        waiting -= 1
            now = clock()
        return count / (now - start)


def _nothing() -> list[tuple[int, int]]:
    raise BenchError(f"no answer within {_OVERTIME_SECONDS:.0f} s")


def open_loop(
    connections: Sequence[Caller], rate: float, seconds: float, bulk: Sequence[Download | Upload] = ()
) -> Latencies:
    """Send at a fixed rate for so long; return when all answers are there.

    Args:
        connections: All of them free.
        rate: Per second, over all connections.
        seconds: Length of the schedule.
        bulk: What runs beside it.

    Raises:
        BenchError: An answer was wrong, or ten seconds after the end of the schedule some are still missing.
    """
    total, interval = max(1, round(rate * seconds)), 1 / rate
    took, late = array("d"), array("d")
    clock = time.perf_counter
    with select.epoll() as epoll, _without_collections():
        by_fd = {caller.sock.fileno(): caller for caller in connections}
        for number in by_fd:
            epoll.register(number, select.EPOLLIN)
        free = deque(connections)
        begun = 0
        start = due = now = clock() + interval
        # When a connection became free after there was none: nothing could be sent before.
        freed = 0.0
        end = start + seconds + _OVERTIME_SECONDS
        while len(took) < total:
            now = clock()
            while due <= now and begun < total and free:
                caller = free.popleft()
                caller.due = due
                caller.send()
                late.append(now - max(due, freed))
                begun += 1
                due = start + begun * interval
                now = clock()
            for number, _ in epoll.poll(0, _EVENTS_MAX):
                caller = by_fd[number]
                if caller.read():
                    now = clock()
                    took.append(now - caller.due)
                    if not free:
                        freed = now
                    free.append(caller)
            for transfer in bulk:
                transfer.turn(now)
            if now > end:
                raise BenchError(f"{total - len(took)} of {total} were not answered in time at {rate:.0f} a second")
        return Latencies(took, late, now - start)

"""A WebSocket load generator: frames RFC 6455 itself, so that on its own core it stays well ahead of any server.

Every frame that it sends is built before the measurement, masked with one constant key: legal on the wire (nothing
there tells it from a random one), and what a server does with it is the same work. Every answer is compared with
what is expected, the whole of it: in one `memcmp` if it comes as one frame, as it does from all known servers;
otherwise, as with compression, through a parser of frames. Pings are answered.
"""

from __future__ import annotations

import functools
import random
import select
import socket
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from .client import HOST, RESET_ON_CLOSE, Client, Head, head_bytes
from .errors import BenchError, UnsupportedError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# The example of RFC 6455, section 1.3, with its answer.
_KEY, _ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
_MASK = b"\x37\xfa\x21\x3d"
_HANDSHAKE = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "*/*",
    "Accept-Language": "en-GB,en;q=0.8,de;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Origin": f"http://{HOST}",
    "Cookie": "sessionid=6f1c9d3b7a254e0f8b21; csrftoken=Zk3vQ8s1pT0yLw7uXn5a; theme=dark",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": _KEY,
}
# What every browser offers.
DEFLATE_OFFER = "permessage-deflate; client_max_window_bits"
_DEFLATE_TAIL = b"\x00\x00\xff\xff"
_RSV1 = 0x40

_MESSAGE_MAX_BYTES = 1 << 20
_SPARE_BYTES = 4096
_READ_BYTES = 256 * 1024
_STALL_SECONDS = 20.0
# What one connection sends in turn is more than a compressor remembers (32 KiB), so that it finds no message whole.
_OWN_BYTES = 48 * 1024


# -- frames -----------------------------------------------------------------------------------------------------


def _header(first: int, size: int, masked: int) -> bytes:
    if size < 126:
        return bytes([first, masked | size])
    if size < 1 << 16:
        return struct.pack("!BBH", first, masked | 126, size)
    return struct.pack("!BBQ", first, masked | 127, size)


def client_frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """Return a whole message as one masked frame."""
    size = len(payload)
    key = (_MASK * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    first = 0x80 | (_RSV1 if compressed else 0) | opcode
    return _header(first, size, 0x80) + _MASK + masked.to_bytes(size, "big")


def server_frame(opcode: int, payload: bytes) -> bytes:
    """Return the one frame in which a server that neither compresses nor fragments sends a message."""
    return _header(0x80 | opcode, len(payload), 0) + payload


_CLOSE_FRAME = client_frame(CLOSE, struct.pack("!H", 1000))


@dataclass(frozen=True, slots=True)
class Deflate:
    """What a server agreed to."""

    server_no_context_takeover: bool = False
    server_window_bits: int = 15
    client_window_bits: int = 15

    @classmethod
    def parse(cls, value: str) -> Deflate:
        """Read a Sec-WebSocket-Extensions header.

        Raises:
            BenchError: It is not one answer to `DEFLATE_OFFER`.
        """
        name, *parameters = (part.strip() for part in value.split(";"))
        fields = {key.strip(): text.strip('" ') for key, _, text in (part.partition("=") for part in parameters)}
        flag, own, theirs = "server_no_context_takeover", "client_max_window_bits", "server_max_window_bits"
        # The client always compresses as if it had agreed to client_no_context_takeover.
        if name != "permessage-deflate" or fields.keys() - {flag, own, theirs, "client_no_context_takeover"}:
            raise BenchError(f"wrong extension: {value[:80]!r}")
        try:
            agreed = cls(flag in fields, int(fields.get(theirs, 15)), int(fields.get(own, 15)))
        except ValueError:
            raise BenchError(f"wrong extension: {value[:80]!r}") from None
        # zlib cannot do a raw window of 8 bits, and no server asks for it.
        if not (9 <= agreed.client_window_bits <= 15 and 8 <= agreed.server_window_bits <= 15):
            raise BenchError(f"window out of range: {value[:80]!r}")
        return agreed

    def compress(self, payload: bytes) -> bytes:
        """Compress one message without regard to earlier ones, which any agreement allows."""
        compressor = zlib.compressobj(wbits=-self.client_window_bits)
        data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return data[: -len(_DEFLATE_TAIL)]


class Parser:
    """Reads the frames of a server: whole messages, decompressed, and the control frames between them."""

    __slots__ = ("_deflate", "_fragments", "_inflater", "_opcode", "_pending", "closed", "compressed", "pings")

    def __init__(self, deflate: Deflate | None = None) -> None:
        self._deflate = deflate
        self._inflater = None if deflate is None else zlib.decompressobj(-deflate.server_window_bits)
        self._pending = b""
        self._fragments: list[bytes] | None = None
        self._opcode = 0
        self.compressed = False
        """Whether the last message was."""
        self.pings: list[bytes] = []
        """Payloads of pings that came; the caller answers and clears them."""
        self.closed: bytes | None = None
        """Payload of the Close frame, once it came."""

    @property
    def between(self) -> bool:
        """Whether no frame and no message is half read."""
        return not self._pending and self._fragments is None

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield opcode and payload of each message that `data` completes.

        Raises:
            BenchError: The server broke the protocol.
        """
        self._pending = self._pending + data if self._pending else data
        while (found := self._frame()) is not None:
            first, payload = found
            opcode = first & 0x0F
            if opcode >= CLOSE:
                self._control(first, payload)
                continue
            start = self._fragments is None
            if start == (opcode == CONTINUATION) or opcode > BINARY or first & 0x30:
                raise BenchError(f"unexpected frame {first:#04x}")
            if start:
                self._fragments, self._opcode, self.compressed = [], opcode, bool(first & _RSV1)
            elif first & _RSV1:
                raise BenchError(f"unexpected frame {first:#04x}")
            assert self._fragments is not None, "set with the first frame"
            self._fragments.append(payload)
            if first & 0x80:
                message, self._fragments = b"".join(self._fragments), None
                yield self._opcode, self._inflate(message) if self.compressed else message

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._pending
        if len(data) < 2:
            return None
        first, size, start = data[0], data[1], 2
        if size & 0x80:
            raise BenchError("a masked frame from the server")
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return None
            size = int.from_bytes(data[2:start], "big")
        if size > _MESSAGE_MAX_BYTES:
            raise BenchError(f"a frame of {size} bytes")
        if len(data) < start + size:
            return None
        self._pending = data[start + size :]
        return first, data[start : start + size]

    def _control(self, first: int, payload: bytes) -> None:
        if first & 0xF0 != 0x80 or len(payload) > 125 or first & 0x0F > PONG:
            raise BenchError(f"unexpected frame {first:#04x}")
        if first & 0x0F == PING:
            self.pings.append(payload)
        elif first & 0x0F == CLOSE:
            self.closed = payload

    def _inflate(self, message: bytes) -> bytes:
        if self._deflate is None or self._inflater is None:
            raise BenchError("a compressed message without agreement on it")
        if self._deflate.server_no_context_takeover:
            self._inflater = zlib.decompressobj(-self._deflate.server_window_bits)
        try:
            return self._inflater.decompress(message + _DEFLATE_TAIL, _MESSAGE_MAX_BYTES)
        except zlib.error as error:
            raise BenchError(f"wrong compressed data: {error}") from None


# -- messages ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """One message that is sent, and that comes back."""

    opcode: int
    payload: bytes
    sent: bytes
    """The client's frame."""
    expected: bytes
    """The server's frame, if it is neither compressed nor fragmented."""

    @classmethod
    def of(cls, opcode: int, payload: bytes, deflate: Deflate | None = None) -> Message:
        """Build both frames."""
        data = payload if deflate is None else deflate.compress(payload)
        sent = client_frame(opcode, data, compressed=deflate is not None)
        return cls(opcode, payload, sent, server_frame(opcode, payload))


def plain(opcode: int, size: int, tag: int) -> Message:
    """Return a message of `size` bytes that differs from those with other tags: JSON if text, else any bytes."""
    if opcode == TEXT:
        start, end = b'{"room":%d,"user":"benchmark","text":"' % (10_000 + tag), b'"}'
        return Message.of(TEXT, start + (b"lorem ipsum dolor " * size)[: size - len(start) - len(end)] + end)
    return Message.of(BINARY, random.Random(tag).randbytes(size))


@functools.cache
def json_messages(size: int, count: int, deflate: Deflate) -> tuple[Message, ...]:
    """Return `count` different JSON-like messages of `size` bytes, compressed."""
    source = random.Random(size)
    words = "lorem ipsum dolor sit amet consetetur sadipscing elitr sed diam nonumy eirmod tempor".split()
    messages = []
    for number in range(count):
        text = "["
        while len(text) < size - 1:
            text += (
                f'{{"id":{number * 1000 + source.randrange(1000)},"user":"{source.choice(words)}{source.randrange(1000)}",'
                f'"price":{source.randrange(10**5) / 100},"tags":["{source.choice(words)}","{source.choice(words)}"],'
                f'"text":"{" ".join(source.choices(words, k=8))}"}},'
            )
        messages.append(Message.of(TEXT, (text[: size - 1] + "]").encode(), deflate))
    return tuple(messages)


def own_messages(opcode: int, size: int, deflate: Deflate | None, owner: int, owners: int) -> Sequence[Message]:
    """Return the messages that one of several connections sends in turn, none of which another one sends.

    A server that remembers the last message that it compressed, on one connection or over all, as is useful for a
    fan-out, therefore gains nothing from it here.
    """
    if deflate is None:
        return [plain(opcode, size, tag) for tag in (owner, owner + owners)]
    each = max(2, -(-_OWN_BYTES // size))
    return json_messages(size, each * owners, deflate)[owner::owners]


# -- connections ------------------------------------------------------------------------------------------------


class WebSocket:
    """One connection. Blocking until it is added to a `Pool`."""

    __slots__ = ("_buffer", "_filled", "_view", "_waiting", "compressed", "deflate", "parser", "sock", "unsent", "wire")

    def __init__(self, port: int, path: str, *, deflate: bool = False) -> None:
        """Connect and shake hands, with the offer that browsers make if `deflate`.

        Raises:
            BenchError: The handshake failed.
            UnsupportedError: The server did not agree to `deflate`.
        """
        headers = _HANDSHAKE | ({"Sec-WebSocket-Extensions": DEFLATE_OFFER} if deflate else {})
        with Client(port, timeout=_STALL_SECONDS) as client:
            client.send("GET", path, headers)
            self.deflate = _agreed(client.read_head(), deflate)
            self.sock, early = client.detach()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = Parser(self.deflate)
        self.unsent = b""
        self.compressed = 0
        """How many of the messages that came were compressed."""
        self.wire = 0
        """Bytes that came after the handshake."""
        self._waiting: Message | None = None
        self._buffer = bytearray(max(len(early), 128))
        self._buffer[: len(early)] = early
        self._view = memoryview(self._buffer)
        self._filled = len(early)

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def abort(self) -> None:
        """Reset the connection."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()

    def write(self, data: bytes) -> None:
        """Send; what the kernel does not take stays in `unsent`."""
        if self.unsent:
            self.unsent += data
            return
        try:
            count = self.sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            raise BenchError(f"cannot write: {error}") from error
        if count < len(data):
            self.unsent = data[count:]

    def flush(self) -> None:
        """Send more of `unsent`."""
        data, self.unsent = self.unsent, b""
        self.write(data)

    def expect(self, message: Message) -> None:
        """State which message comes next."""
        assert self._waiting is None, "the one before has come"
        self._waiting = message
        if len(self._buffer) < len(message.expected) + _SPARE_BYTES and self.deflate is None:
            early = self._buffer[: self._filled]
            self._buffer = bytearray(len(message.expected) + _SPARE_BYTES)
            self._buffer[: self._filled] = early
            self._view = memoryview(self._buffer)

    def read(self) -> int:
        """Read what is there once; return how many messages (0 or 1) are complete now, and are the expected ones.

        Raises:
            BenchError: Something else came, or the server closed the connection.
        """
        if self.deflate is not None:
            return self._parse(self._receive())
        filled = self._filled
        try:
            count = self.sock.recv_into(self._view[filled:] if filled else self._view)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise BenchError(f"cannot read a message: {error}") from error
        if not count:
            raise BenchError("the server closed a connection")
        self.wire += count
        filled += count
        waiting = self._waiting
        if waiting is not None and self.parser.between:
            expected = waiting.expected
            if filled == len(expected) and self._buffer.startswith(expected):
                self._filled, self._waiting = 0, None
                return 1
            if 2 <= filled < len(expected) and self._buffer.startswith(expected[: min(10, filled)]):
                self._filled = filled
                return 0
        self._filled = 0
        return self._parse(bytes(self._view[:filled]))

    def parse_early(self) -> int:
        """As `read`, for what came in one piece with the handshake."""
        early, self._filled = bytes(self._view[: self._filled]), 0
        return self._parse(early) if early else 0

    def wait(self, message: Message | None = None) -> None:
        """Block until a message (``None``: the server's Close frame) has come."""
        end = time.monotonic() + _STALL_SECONDS
        if message is not None:
            self.expect(message)
        done = bool(self.parse_early())
        while not done if message is not None else self.parser.closed is None:
            if time.monotonic() > end:
                raise BenchError(f"no message within {_STALL_SECONDS:.0f} s")
            done = bool(self._parse(self._receive()))

    def part(self) -> None:
        """Do the closing handshake. Whether the server then closes the connection is not looked at.

        Raises:
            BenchError: The server answers no Close frame.
        """
        self.sock.settimeout(_STALL_SECONDS)
        self.write(_CLOSE_FRAME)
        self.wait()

    def close(self) -> None:
        """Do the closing handshake and wait until the server closes the connection.

        Raises:
            BenchError: It answers no Close frame, or does not close the connection.
        """
        self.part()
        try:
            left = self.sock.recv(1)
        except OSError as error:
            raise BenchError(f"the server does not close after the closing handshake: {error}") from error
        if left:
            raise BenchError("data after the Close frame")
        self.sock.close()

    def _receive(self) -> bytes:
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise BenchError(f"cannot read a message: {error}") from error
        if not data:
            raise BenchError("the server closed a connection")
        self.wire += len(data)
        return data

    def _parse(self, data: bytes) -> int:
        done = 0
        parser, closing = self.parser, self.parser.closed is not None
        for opcode, payload in parser.feed(data):
            message = self._waiting
            if message is None:
                raise BenchError(f"a message that nothing asked for: {payload[:40]!r}")
            if opcode != message.opcode or payload != message.payload:
                raise BenchError(
                    f"wrong message: {len(payload)} bytes {payload[:40]!r} (opcode {opcode}) instead of "
                    f"{len(message.payload)} bytes {message.payload[:40]!r} (opcode {message.opcode})"
                )
            self._waiting = None
            self.compressed += parser.compressed
            done += 1
        for ping in parser.pings:
            self.write(client_frame(PONG, ping))
        parser.pings.clear()
        if parser.closed is not None and not closing and self._waiting is not None:
            raise BenchError(f"the server closed a WebSocket: {parser.closed!r}")
        return done


def _agreed(head: Head, deflate: bool) -> Deflate | None:
    if head.status != 101:
        raise BenchError(f"status {head.status} instead of 101 for a WebSocket handshake")
    if head.headers.get("sec-websocket-accept") != _ACCEPT:
        raise BenchError("wrong Sec-WebSocket-Accept")
    answer = head.headers.get("sec-websocket-extensions")
    if not deflate and answer:
        raise BenchError(f"an extension without an offer: {answer[:80]!r}")
    if deflate and not answer:
        raise UnsupportedError("does not agree to permessage-deflate")
    return Deflate.parse(answer) if answer else None


# -- loads ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Load:
    """What a load completed."""

    count: int = 0
    """Messages that came back, or visits."""
    wire: int = 0
    """Bytes that came, headers of frames included."""
    compressed: int = 0
    """How many of the messages were compressed."""


@dataclass(slots=True)
class _Watched:
    """A connection in a pool."""

    sock: WebSocket
    messages: Sequence[Message]
    turn: int = 0
    writing: bool = False

    def next(self) -> Message:
        self.turn = (self.turn + 1) % len(self.messages)
        return self.messages[self.turn]


class Pool:
    """Many connections on one epoll. A context manager that resets them all at the end."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._all: dict[int, _Watched] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()
        for watched in self._all.values():
            watched.sock.abort()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, sock: WebSocket, messages: Sequence[Message]) -> None:
        """Take over a connection, and which messages it sends in turn."""
        sock.parse_early()
        sock.sock.setblocking(False)
        self._all[sock.sock.fileno()] = _Watched(sock, messages)
        self._epoll.register(sock.sock.fileno(), select.EPOLLIN)

    def ping_pong(self, seconds: float) -> Load:
        """Keep one message in flight on every connection for so long; return when the last ones are back too."""
        before = self._totals()
        count = 0
        for watched in self._all.values():
            self._send(watched)
        left, end = len(self._all), time.monotonic() + seconds
        while left:
            running = time.monotonic() < end
            for watched in self._ready():
                count += 1
                if running:
                    self._send(watched)
                else:
                    left -= 1
        return self._since(before, count)

    def fan_out(self, seconds: float) -> Load:
        """Let the connection added last send a message again and again, each when every connection got the last."""
        before = self._totals()
        count = 0
        everything = list(self._all.values())
        sender = everything[-1]
        end = time.monotonic() + seconds
        while not count or time.monotonic() < end:
            for watched in everything:
                watched.sock.expect(watched.next())
            sender.sock.write(sender.messages[sender.turn].sent)
            left = len(everything)
            while left:
                for _ in self._ready():
                    left -= 1
            count += len(everything)
        return self._since(before, count)

    def rest(self, seconds: float) -> None:
        """Answer pings only, for so long.

        Raises:
            BenchError: A connection was closed, or a message came.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for _ in self._ready(left):
                pass  # a message that nothing asked for has raised already

    def _send(self, watched: _Watched) -> None:
        message = watched.next()
        watched.sock.expect(message)
        watched.sock.write(message.sent)
        if watched.sock.unsent:
            self._watch(watched)

    def _ready(self, timeout: float | None = None) -> Iterator[_Watched]:
        """Yield the connections that completed a message."""
        events = self._epoll.poll(_STALL_SECONDS if timeout is None else timeout)
        if not events and timeout is None:
            raise BenchError(f"no message within {_STALL_SECONDS:.0f} s")
        for number, event in events:
            watched = self._all[number]
            sock = watched.sock
            if event & select.EPOLLOUT:
                sock.flush()
            if event & ~select.EPOLLOUT and sock.read():
                yield watched
            if sock.parser.closed is not None:
                raise BenchError(f"the server closed a WebSocket: {sock.parser.closed!r}")
            if watched.writing or sock.unsent:
                self._watch(watched)

    def _watch(self, watched: _Watched) -> None:
        writing = bool(watched.sock.unsent)
        if writing != watched.writing:
            watched.writing = writing
            mask = select.EPOLLIN | select.EPOLLOUT if writing else select.EPOLLIN
            self._epoll.modify(watched.sock.sock.fileno(), mask)

    def _totals(self) -> tuple[int, int]:
        sockets = [watched.sock for watched in self._all.values()]
        return sum(sock.wire for sock in sockets), sum(sock.compressed for sock in sockets)

    def _since(self, before: tuple[int, int], count: int) -> Load:
        wire, compressed = self._totals()
        return Load(count, wire - before[0], compressed - before[1])


@dataclass(slots=True)
class _Visit:
    """One connection that is opened, accepted and closed."""

    sock: socket.socket
    received: bytes = b""
    open: bool = False
    parser: Parser = field(default_factory=Parser)


def visit(port: int, path: str, seconds: float, at_once: int) -> Load:
    """Connect, shake hands, send Close, get Close, wait for the server to close; again and again, some at once.

    Raises:
        BenchError: A server did not accept, or ended a connection otherwise.
    """
    request = head_bytes("GET", path, _HANDSHAKE, 0)
    epoll = select.epoll()
    visits: dict[int, _Visit] = {}

    def begin() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.settimeout(_STALL_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect((HOST, port))
            sock.sendall(request)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise BenchError(f"cannot connect: {error}") from error
        visits[sock.fileno()] = _Visit(sock)
        epoll.register(sock.fileno(), select.EPOLLIN)

    count = 0
    end = time.monotonic() + seconds
    try:
        for _ in range(at_once):
            begin()
        while visits:
            events = epoll.poll(_STALL_SECONDS)
            if not events:
                raise BenchError(f"{len(visits)} connections neither accepted nor closed in {_STALL_SECONDS:.0f} s")
            for number, _ in events:
                current = visits[number]
                if _advance(current):
                    continue
                del visits[number]
                epoll.unregister(number)
                current.sock.close()
                count += 1
                if time.monotonic() < end:
                    begin()
    finally:
        epoll.close()
        for current in visits.values():
            current.sock.close()
    return Load(count)


def _advance(current: _Visit) -> bool:
    """Read what is there and go on; return whether the visit is not over yet."""
    try:
        data = current.sock.recv(65536)
    except BlockingIOError:
        return True
    except OSError as error:
        if current.parser.closed is not None:
            return False  # a reset after the closing handshake closes as well
        raise BenchError(f"cannot read: {error}") from error
    if not data:
        if current.parser.closed is None:
            raise BenchError("a connection ended without the closing handshake")
        return False
    if not current.open:
        head, found, data = (current.received + data).partition(b"\r\n\r\n")
        if not found:
            current.received = head
            return True
        if not head.startswith(b"HTTP/1.1 101 ") or _ACCEPT.encode() not in head:
            raise BenchError(f"not accepted: {head[:80]!r}")
        current.open = True
        try:
            current.sock.sendall(_CLOSE_FRAME)
        except OSError as error:
            raise BenchError(f"cannot write: {error}") from error
    for _, payload in current.parser.feed(data):
        raise BenchError(f"a message that nothing asked for: {payload[:40]!r}")
    return True

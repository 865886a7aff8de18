"""`daphne_ng.net.tls.pipe` between fakes: what it does with bytes, and what it calls its owner for.

The first part is about what a client can make the loop do with bytes that hold no data.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.task import Clock

from daphne_ng.net.sockets.transports import FIRST_READ_BYTES, LARGE_READ_BYTES
from daphne_ng.net.tls.memory import PIECE_BYTES
from daphne_ng.net.tls.pipe import TlsPipe


class Memory:
    """Decrypts to little, as a flood of key updates or of records of one byte does."""

    end = None
    only_data = False
    oversized = False

    def __init__(self, share: float) -> None:
        self.share = share

    def decrypt(self, wire: bytes) -> bytes:
        return bytes(int(len(wire) * self.share))

    def output(self) -> bytes:
        return b""


class Owner:
    """A transport that takes what comes, and is told of a flood."""

    def __init__(self) -> None:
        self.protocol = self
        self.dropped = False

    def dataReceived(self, data: bytes) -> None:
        pass

    def flooded(self) -> None:
        self.dropped = True


def flooded(share: float, asked: list[int] | None = None) -> tuple[TlsPipe, Owner, Clock]:
    """Return a pipe that always gets as much as it asks for."""
    owner, clock = Owner(), Clock()
    pipe = TlsPipe(owner, clock.seconds)
    pipe.memory = Memory(share)
    pipe.established = True

    def receive(size: int) -> bytes:
        if asked is not None:
            asked.append(size)
        return bytes(size)

    pipe.receive = receive
    return pipe, owner, clock


def sizes_of_reads(share: float) -> list[int]:
    """Return what it asks the socket for, read by read."""
    asked: list[int] = []
    pipe, _, _ = flooded(share, asked)
    for _ in range(6):
        pipe.read_ready()
    return asked


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_reads_stay_small_while_they_bring_no_data(share: float) -> None:
    assert set(sizes_of_reads(share)) == {FIRST_READ_BYTES}


def test_reads_grow_with_data() -> None:
    assert sizes_of_reads(0.99)[-1] == LARGE_READ_BYTES


@pytest.mark.parametrize(("share", "reads"), [(0.0, 17), (0.1, 80), (0.2, None), (0.9, None)])
def test_a_client_that_sends_next_to_no_data_is_dropped(share: float, reads: int | None) -> None:
    pipe, owner, _ = flooded(share)
    count = 0
    while count < 100 and not owner.dropped:
        count += 1
        pipe.read_ready()
    assert (count if owner.dropped else None) == reads


@pytest.mark.parametrize(("seconds", "dropped"), [(0.1, True), (1.1, False)])
def test_what_comes_slowly_is_no_flood(seconds: float, dropped: bool) -> None:
    """Records that hold nothing at all, 16 KiB of them at a time, for a while."""
    pipe, owner, clock = flooded(0.0)
    for _ in range(200):
        pipe.read_ready()
        if owner.dropped:
            break
        clock.advance(seconds)
    assert owner.dropped == dropped


# -- what goes through, and what it calls its owner for --------------------------------------------------------


class Plain:
    """In place of TLS: each piece gets a byte in front, which the other side takes off."""

    def __init__(self) -> None:
        self.end: Exception | None = None
        self.only_data = True
        self.oversized = False
        self.answers: list[bytes] = []
        self.refusal: Exception | None = None

    def decrypt(self, wire: bytes) -> bytes:
        return wire[1:]

    def encrypt(self, data: bytes) -> memoryview:
        if self.refusal is not None:
            raise self.refusal
        return memoryview(b"%" + bytes(data))

    def output(self) -> bytes:
        return self.answers.pop() if self.answers else b""


class Noting:
    """A transport that notes what it is called for, and a protocol that may answer, raise, or end the connection."""

    def __init__(self) -> None:
        self.protocol = self
        self.calls: list[tuple[Any, ...]] = []
        self.then: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.calls.append(("data", data))
        if self.then is not None:
            self.then()

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))


class Socket:
    """Gives what it is told to, and takes as much as it is told to."""

    def __init__(self) -> None:
        self.incoming: Any = b""
        self.room: int | OSError = 1 << 30
        self.sent = b""

    def recv(self, size: int) -> bytes:
        if isinstance(self.incoming, OSError):
            raise self.incoming
        taken, self.incoming = self.incoming[:size], self.incoming[size:]
        return bytes(taken)

    def send(self, data: Any) -> int:
        if isinstance(self.room, OSError):
            raise self.room
        taken = bytes(data)[: self.room]
        self.sent += taken
        return len(taken)


def piped() -> tuple[TlsPipe, Noting, Plain, Socket]:
    """Return a pipe whose handshake is complete, and what is around it."""
    owner, memory, sock = Noting(), Plain(), Socket()
    pipe = TlsPipe(owner, Clock().seconds)
    pipe.memory, pipe.receive, pipe.send = memory, sock.recv, sock.send
    pipe.established = pipe.direct = True
    return pipe, owner, memory, sock


@pytest.mark.parametrize("only_data", [True, False])
def test_a_read_is_delivered(only_data: bool) -> None:
    pipe, owner, memory, sock = piped()
    memory.only_data = only_data
    sock.incoming = b"!request"
    pipe.read_ready()
    assert owner.calls == [("data", b"request")]


@pytest.mark.parametrize("only_data", [True, False])
def test_an_exception_of_the_protocol_is_the_owners(only_data: bool) -> None:
    pipe, owner, memory, sock = piped()
    memory.only_data = only_data
    memory.answers = [b"not asked for"]
    failure = ZeroDivisionError()

    def fail() -> None:
        pipe.close()  # as connectionLost does
        raise failure

    owner.then = fail
    sock.incoming = b"!request"
    pipe.read_ready()
    assert owner.calls[1:] == [("delivery_failed", failure)]


@pytest.mark.parametrize("error", [BlockingIOError(), InterruptedError()])
def test_a_read_that_brings_nothing_does_nothing(error: OSError) -> None:
    pipe, owner, _, sock = piped()
    sock.incoming = error
    pipe.read_ready()
    assert owner.calls == []


@pytest.mark.parametrize("incoming", [b"", ConnectionResetError()])
@pytest.mark.parametrize("established", [True, False])
def test_the_end_of_the_socket_is_the_owners(incoming: Any, established: bool) -> None:
    pipe, owner, _, sock = piped()
    pipe.established = established
    sock.incoming = incoming
    pipe.read_ready()
    assert owner.calls == [("socket_ended",)]


def test_the_handshake_is_the_owners() -> None:
    pipe, owner, _, sock = piped()
    pipe.established = False
    sock.incoming = b"hello"
    pipe.read_ready()
    assert owner.calls == [("shake_hands", b"hello")]


def test_answers_go_out_behind_the_data_unless_our_end_has() -> None:
    pipe, owner, memory, sock = piped()
    memory.only_data = False
    memory.answers = [b"second", b"first"]
    sock.incoming = b"!data"
    pipe.read_ready()
    pipe.notified = True
    sock.incoming = b"!more"
    pipe.read_ready()
    assert owner.calls == [("data", b"data"), ("send_control", b"first"), ("data", b"more")]
    assert memory.answers == []


def test_the_end_of_tls_comes_behind_the_data() -> None:
    pipe, owner, memory, sock = piped()
    memory.only_data = False
    memory.end = EOFError()
    sock.incoming = b"!data"
    pipe.read_ready()
    assert owner.calls == [("data", b"data"), ("tls_ended", memory.end)]


def test_nothing_follows_a_delivery_that_has_ended_the_connection() -> None:
    pipe, owner, memory, sock = piped()
    memory.only_data = False
    memory.end = EOFError()
    owner.then = pipe.close
    sock.incoming = b"!data"
    pipe.read_ready()
    assert owner.calls == [("data", b"data")]


@pytest.mark.parametrize("way", ["read", "write"])
def test_large_buffers_are_told_of_once(way: str) -> None:
    pipe, owner, memory, sock = piped()
    memory.only_data, memory.oversized = False, True
    for pipe.shrinking in (False, True):
        if way == "read":
            sock.incoming = b"!"
            pipe.read_ready()
        else:
            pipe.write(b"data")
    assert owner.calls == [("shrink_later",)]


def test_a_write_is_sent() -> None:
    pipe, owner, _, sock = piped()
    pipe.write(b"response")
    assert (sock.sent, owner.calls) == (b"%response", [])


@pytest.mark.parametrize("data", [b"", b"x" * (PIECE_BYTES + 1), "text", bytearray(b"x")])
def test_what_is_no_piece_is_the_owners(data: Any) -> None:
    pipe, owner, _, sock = piped()
    pipe.write(data)
    assert (sock.sent, owner.calls) == (b"", [("write_otherwise", data)])


def test_what_may_not_be_sent_at_once_is_the_owners() -> None:
    pipe, owner, _, sock = piped()
    pipe.direct = False
    pipe.write(b"data")
    assert (sock.sent, owner.calls) == (b"", [("write_otherwise", b"data")])


@pytest.mark.parametrize("room", [0, 3, BlockingIOError(errno.EAGAIN, ""), OSError(errno.ENOBUFS, "")])
def test_ciphertext_that_the_kernel_does_not_take_is_kept(room: int | OSError) -> None:
    pipe, owner, _, sock = piped()
    sock.room = room
    pipe.write(b"response")
    assert owner.calls == [("kernel_full", b"response")]
    assert pipe.sealed_plain == 8
    while not pipe.flush():
        assert pipe.sealed
        sock.room = 2
    assert sock.sent == b"%response"
    assert not pipe.sealed


def test_a_kernel_that_refuses_is_the_owners() -> None:
    pipe, owner, _, sock = piped()
    pipe.sealed = b"left"
    sock.room = OSError(errno.EPIPE, "")
    with pytest.raises(OSError):
        pipe.flush()
    pipe.write(b"response")
    assert owner.calls == [("send_refused", sock.room, b"response")]


def test_a_refusal_to_encrypt_is_the_owners_and_memory_the_applications() -> None:
    pipe, owner, memory, sock = piped()
    memory.refusal = MemoryError()
    with pytest.raises(MemoryError):
        pipe.write(b"response")
    assert pipe.direct
    memory.refusal = ValueError()
    pipe.write(b"response")
    assert owner.calls == [("encryption_refused", memory.refusal)]
    assert not pipe.direct
    assert sock.sent == b""


def test_what_is_written_after_the_end_is_dropped() -> None:
    pipe, owner, _, sock = piped()
    pipe.close()
    pipe.write(b"response")
    assert not pipe.is_open()
    assert (sock.sent, owner.calls) == (b"", [])

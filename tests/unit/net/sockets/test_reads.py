"""How much a transport asks its socket for."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_ng.net.sockets.transports import FIRST_READ_BYTES, LARGE_READ_BYTES, TCPServer
from daphne_ng.net.tls.pipe import TlsPipe

LARGE_MESSAGE_BYTES = 64 * 1024 + 14


class Protocol:
    def dataReceived(self, data: bytes) -> None:
        pass


class Memory:
    """TLS that takes all for plaintext."""

    end = None
    only_data = True
    oversized = False

    def decrypt(self, wire: bytes) -> bytes:
        return wire

    def output(self) -> bytes:
        return b""


class Owner:
    """What a pipe of TLS delivers to."""

    protocol = Protocol()


class Reads:
    """A transport, or what of it reads, whose socket has one message at a time."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.waiting = 0
        self.reader: Any = None

    def receive(self, size: int) -> bytes:
        self.asked.append(size)
        data = bytes(min(size, self.waiting))
        self.waiting -= len(data)
        return data

    def message(self, size: int) -> list[int]:
        """Return what was asked for until all of a message was read."""
        self.asked.clear()
        self.waiting = size
        while self.waiting:
            self.reader.read_ready()
        return list(self.asked)


def plain(reads: Reads) -> Any:
    transport: Any = TCPServer.__new__(TCPServer)
    transport.protocol = Protocol()
    transport.connected = 1
    transport._aborting = False
    transport._recv = reads.receive
    return transport


def encrypted(reads: Reads) -> TlsPipe:
    pipe = TlsPipe(Owner(), lambda: 0.0)
    pipe.memory = Memory()
    pipe.receive = reads.receive
    pipe.established = True
    return pipe


@pytest.fixture(params=[plain, encrypted])
def reads(request: pytest.FixtureRequest) -> Reads:
    made = Reads()
    made.reader = request.param(made)
    return made


def test_messages_larger_than_a_read_come_to_be_read_at_once(reads: Reads) -> None:
    for _ in range(3):
        reads.message(LARGE_MESSAGE_BYTES)
    assert [reads.message(LARGE_MESSAGE_BYTES) for _ in range(4)] == [[LARGE_READ_BYTES]] * 4


def test_after_large_messages_small_ones_take_small_reads(reads: Reads) -> None:
    for _ in range(4):
        reads.message(LARGE_MESSAGE_BYTES)
    for _ in range(2):
        reads.message(70)
    assert reads.message(70) == [FIRST_READ_BYTES]


def test_small_messages_take_small_reads(reads: Reads) -> None:
    assert [reads.message(70) for _ in range(3)] == [[FIRST_READ_BYTES]] * 3

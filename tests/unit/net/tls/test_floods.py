"""What a TLS client can make the loop do with bytes that hold no data."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from daphne_ng.net.sockets.transports import FIRST_READ_BYTES, LARGE_READ_BYTES
from daphne_ng.net.tls.transport import TLSServer


class Memory:
    """Decrypts to little, as a flood of key updates or of records of one byte does."""

    end = None
    oversized = False

    def __init__(self, share: float) -> None:
        self.share = share

    def decrypt(self, wire: bytes) -> bytes:
        return bytes(int(len(wire) * self.share))

    def output(self) -> bytes:
        return b""


class Protocol:
    def dataReceived(self, data: bytes) -> None:
        pass


def flooded(share: float, asked: list[int] | None = None) -> Any:
    """Return a transport that always gets as much as it asks for."""
    transport: Any = TLSServer.__new__(TLSServer)
    transport._tls = Memory(share)
    transport._established = True
    transport.connected = 1
    transport._aborting = False
    transport.reactor = Clock()
    transport.protocol = Protocol()

    def receive(size: int) -> bytes:
        if asked is not None:
            asked.append(size)
        return bytes(size)

    transport._recv = receive
    return transport


def sizes_of_reads(share: float) -> list[int]:
    """Return what it asks the socket for, read by read."""
    asked: list[int] = []
    transport = flooded(share, asked)
    for _ in range(6):
        transport.read_ready()
    return asked


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_reads_stay_small_while_they_bring_no_data(share: float) -> None:
    assert set(sizes_of_reads(share)) == {FIRST_READ_BYTES}


def test_reads_grow_with_data() -> None:
    assert sizes_of_reads(0.99)[-1] == LARGE_READ_BYTES


@pytest.mark.parametrize(("share", "reads"), [(0.0, 17), (0.1, 80), (0.2, None), (0.9, None)])
def test_a_client_that_sends_next_to_no_data_is_dropped(share: float, reads: int | None) -> None:
    aborted: list[int] = []
    transport = flooded(share)
    count = 0
    transport.abortConnection = lambda: aborted.append(count)
    transport.getPeer = lambda: "a client"
    while count < 100:
        count += 1
        transport.read_ready()
        if aborted:
            break
    assert aborted == ([] if reads is None else [reads])


@pytest.mark.parametrize(("seconds", "dropped"), [(0.1, True), (1.1, False)])
def test_what_comes_slowly_is_no_flood(seconds: float, dropped: bool) -> None:
    """Records that hold nothing at all, 16 KiB of them at a time, for a while."""
    aborted: list[bool] = []
    transport = flooded(0.0)
    transport.abortConnection = lambda: aborted.append(True)
    transport.getPeer = lambda: "a client"
    for _ in range(200):
        transport.read_ready()
        if aborted:
            break
        transport.reactor.advance(seconds)
    assert bool(aborted) == dropped

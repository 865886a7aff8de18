"""What a TLS client can make the loop do with bytes that hold no data."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from daphne_ng.net.sockets.transports import FIRST_READ_BYTES, LARGE_READ_BYTES
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

"""`daphne_ng.net.channels.flow`: waiting for room, and giving up on a client that reads nothing."""

from __future__ import annotations

import asyncio

from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from daphne_ng.net.channels.flow import WriteFlow, unsent_bytes
from tests.support.asgi import on_loop, settle


class Transport:
    """Holds as many bytes as a test says."""

    def __init__(self, unsent: int = 0) -> None:
        self.unsent_bytes = unsent


class Queueing(Transport):
    """Knows what the kernel holds, too."""

    def __init__(self, unsent: int, left: int) -> None:
        super().__init__(unsent)
        self.unacknowledged_bytes = left


def make(timeout: float = 60.0, unsent: int = 100_000) -> tuple[WriteFlow, Transport, list[float]]:
    loop = asyncio.get_running_loop()
    stalls: list[float] = []
    transport = Transport(unsent)
    return WriteFlow(transport, loop, timeout, 240, lambda: stalls.append(loop.time())), transport, stalls


@on_loop
async def test_it_is_a_push_producer() -> None:
    verifyObject(IPushProducer, make()[0])


@on_loop
async def test_there_is_room_until_the_transport_says_otherwise() -> None:
    flow, _, _ = make()
    assert flow.writable() is None
    flow.pauseProducing()
    waiter = flow.writable()
    assert waiter is not None
    assert not waiter.done()
    flow.resumeProducing()
    await waiter
    assert flow.writable() is None


@on_loop
async def test_every_waiter_is_released_also_beside_a_cancelled_one() -> None:
    flow, _, _ = make()
    flow.pauseProducing()
    waiters = [flow.writable() for _ in range(3)]
    assert waiters[1] is not None
    waiters[1].cancel()
    flow.resumeProducing()
    assert [waiter.done() for waiter in waiters if waiter is not None] == [True] * 3


@on_loop
async def test_the_end_of_the_connection_releases_whoever_waits() -> None:
    flow, _, stalls = make()
    flow.pauseProducing()
    waiter = flow.writable()
    flow.stopProducing()
    assert waiter is not None
    assert waiter.done()
    assert flow.writable() is None
    await asyncio.sleep(1000)
    assert stalls == []


@on_loop
async def test_a_pause_without_progress_stalls_after_the_timeout() -> None:
    flow, _, stalls = make(60)
    began = asyncio.get_running_loop().time()
    flow.pauseProducing()
    flow.pauseProducing()
    await asyncio.sleep(200)
    assert len(stalls) == 1
    assert began + 60 <= stalls[0] <= began + 66


@on_loop
async def test_progress_buys_another_period() -> None:
    flow, transport, stalls = make(60)
    began = asyncio.get_running_loop().time()
    flow.pauseProducing()
    await asyncio.sleep(30)
    transport.unsent_bytes -= 240 * 60
    await asyncio.sleep(60)
    assert stalls == []
    await asyncio.sleep(100)
    assert began + 90 <= stalls[0] <= began + 96


@on_loop
async def test_a_byte_a_second_is_no_progress() -> None:
    flow, transport, stalls = make(60)
    flow.pauseProducing()
    for _ in range(70):
        await asyncio.sleep(1)
        transport.unsent_bytes -= 1
    assert len(stalls) == 1


@on_loop
async def test_what_the_kernel_holds_counts() -> None:
    """The kernel took nothing for minutes, while the client read all the time."""
    loop = asyncio.get_running_loop()
    stalls: list[float] = []
    transport = Queueing(100_000, 4_000_000)
    flow = WriteFlow(transport, loop, 60.0, 240, lambda: stalls.append(loop.time()))
    flow.pauseProducing()
    for _ in range(300):
        await asyncio.sleep(1)
        transport.unacknowledged_bytes -= 1000
    assert stalls == []
    await asyncio.sleep(70)
    assert len(stalls) == 1


@on_loop
async def test_a_resume_ends_the_watch() -> None:
    flow, _, stalls = make(60)
    for _ in range(3):
        flow.pauseProducing()
        await asyncio.sleep(59)
        flow.resumeProducing()
    await asyncio.sleep(1000)
    assert stalls == []


@on_loop
async def test_no_timeout_means_no_watch() -> None:
    flow, _, stalls = make(0)
    flow.pauseProducing()
    ticker = asyncio.ensure_future(asyncio.sleep(100_000))
    await ticker
    assert stalls == []
    flow.stopProducing()
    await settle()


class Layer:
    def __init__(self, transport: object) -> None:
        self.transport = transport


class Stock:
    """A transport of Twisted's own: two buffers and an offset."""

    dataBuffer = b"x" * 10
    offset = 3
    _tempDataLen = 5


def test_unsent_bytes_are_those_of_the_transport_below_all_wrappers() -> None:
    assert unsent_bytes(Transport(7)) == 7
    assert unsent_bytes(Layer(Layer(Transport(7)))) == 7
    assert unsent_bytes(Stock()) == 12
    assert unsent_bytes(Layer(Stock())) == 12
    assert unsent_bytes(object()) == 0
    assert unsent_bytes(Layer(None)) == 0

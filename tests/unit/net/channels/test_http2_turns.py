"""How the tunnels of one HTTP/2 connection share the turns of the loop, and what of refusals is logged."""

from __future__ import annotations

import asyncio
import logging

import pytest

from daphne_ng.net.channels import tunnel
from daphne_ng.net.channels.tunnel import Turns
from tests.support import h2
from tests.support.asgi import on_loop, settle
from tests.support.net import Application, Wire


def over(turns: Turns) -> bool:
    return turns.over


class Clock:
    """Time passes while something works, and at no other time."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tunnel, "perf_counter", clock)
    return clock


def work(log: list[str], name: str, clock: Clock | None = None) -> None:
    log.append(name)
    if clock is not None:
        clock.now += 0.006


@on_loop
async def test_a_turn_that_is_used_up_ends(clock: Clock) -> None:
    turns, log = Turns(asyncio.get_running_loop()), list[str]()
    assert not over(turns)
    turns.run(lambda data: work(log, data.decode()), b"quick")
    assert not over(turns)
    turns.run(lambda data: work(log, data.decode(), clock), b"slow")
    assert over(turns)
    assert log == ["quick", "slow"]
    await settle()
    assert not over(turns)


@on_loop
async def test_others_come_in_between(clock: Clock) -> None:
    loop = asyncio.get_running_loop()
    turns, log = Turns(loop), list[str]()
    for name in "abc":
        turns.soon(lambda name=name: work(log, name, clock))  # type: ignore[misc]

    def other() -> None:
        if "c" not in log:
            log.append("-")
            loop.call_soon(other)

    loop.call_soon(other)
    assert over(turns)
    await settle()
    assert "".join(log).replace("--", "-") == "a-b-c"
    assert not over(turns)


@on_loop
async def test_who_comes_again_comes_behind_the_others_and_later(clock: Clock) -> None:
    loop = asyncio.get_running_loop()
    turns, log = Turns(loop), list[str]()

    def again() -> None:
        work(log, "again")
        if log.count("again") < 3:
            turns.soon(again)

    turns.soon(again)
    turns.soon(lambda: work(log, "other"))
    loop.call_soon(lambda: log.append("-"))
    await settle()
    assert log == ["again", "other", "-", "again", "again"]


@on_loop
async def test_of_refused_requests_the_first_of_a_connection_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A client wrote 200 lines with every connection."""
    wire = Wire(Application(), h2c=True)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            transport = wire.connect()
            wrong = [*h2.fields(), (b"Upper", b"case")]
            transport.protocol.dataReceived(
                h2.PREFACE + h2.settings() + b"".join(h2.headers(stream, wrong) for stream in range(1, 41, 2))
            )
            await settle()
            transport.protocol.connectionLost()
    assert len([one for one in caplog.records if one.getMessage().startswith("Refused a request")]) == 2
    assert len(wire.refused) == 40

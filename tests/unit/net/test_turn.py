"""`daphne_ng.net.turn`: what connections may take of a turn of the loop together."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest

from daphne_ng.net import turn as turn_module
from daphne_ng.net.turn import Turn
from tests.support import h2
from tests.support.asgi import on_loop, settle
from tests.support.net import Application, Wire

OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2.settings()
REQUEST = h2.headers(1, h2.fields())


def busy(data: bytes) -> None:
    end = perf_counter() + float(data)
    while perf_counter() < end:
        pass


@on_loop
async def test_a_turn_is_over_when_its_time_is_used_up_and_the_next_one_is_new() -> None:

    turn = Turn(asyncio.get_running_loop())
    turn.run(busy, b"0.0001")
    assert not turn.over
    turn.run(busy, b"0.006")
    assert turn.over
    await settle()
    assert not turn.over


@on_loop
async def test_small_things_add_up() -> None:

    turn = Turn(asyncio.get_running_loop())
    for _ in range(60):
        turn.run(busy, b"0.0001")
    assert turn.over
    await settle()


@on_loop
async def test_what_comes_when_the_turn_is_over_waits_and_keeps_its_order() -> None:
    application = Application()
    wire = Wire(application)
    first, second = wire.connect(), wire.connect()
    wire.context.turn.run(busy, b"0.006")
    # The beginning of a connection does not wait; what follows does, and reading with it.
    for transport in (first, second):
        transport.protocol.dataReceived(OPENING)
        for byte in REQUEST:
            transport.protocol.dataReceived(bytes((byte,)))
    assert application.scopes == []
    assert not first.reading
    await settle()
    assert len(application.scopes) == 2
    assert first.reading
    first.lost()
    second.lost()
    await settle()


@on_loop
async def test_who_waits_comes_before_what_others_read_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(turn_module, "perf_counter", lambda: next(clock))  # whatever is taken uses the turn up
    application = Application()
    wire = Wire(application)
    busiest, other = wire.connect(), wire.connect()
    other.protocol.dataReceived(OPENING)
    await settle()
    pieces = h2.headers(1, h2.fields(b"POST"), end=False) + h2.data(1, b"x") * 2000
    busiest.protocol.dataReceived(OPENING + pieces + h2.headers(3, h2.fields()))
    for _ in range(30):
        # As a loop does it: first what is due, then what has come.
        await asyncio.sleep(0)
        other.protocol.dataReceived(h2.ping())
    assert len(application.scopes) == 2
    busiest.lost()
    other.lost()
    await settle()


@on_loop
async def test_one_that_fails_holds_up_nobody() -> None:
    loop = asyncio.get_running_loop()
    problems, log = list[object](), list[str]()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: problems.append(context["exception"]))
    turn = Turn(loop)
    turn.run(busy, b"0.006")
    turn.wait(lambda: busy(b"no number"))
    turn.wait(lambda: log.append("the next"))
    await settle()
    loop.set_exception_handler(handler)
    assert log == ["the next"]
    assert [type(problem) for problem in problems] == [ValueError]
    assert not turn.over

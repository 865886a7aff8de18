"""`daphne_ng.asgi.runner`: what runs, and the end of it."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import pytest

from tests.support.asgi import Bridge, body, on_loop, request_head, settle, start


async def answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] != "/fast":
        await asyncio.sleep(5)
    await send(start())
    await send(body())


async def stubborn(scope: Any, receive: Any, send: Any) -> None:
    for _ in range(3):
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            pass


@on_loop
async def test_nothing_running_is_idle_at_once() -> None:
    assert await Bridge(answer).runner.wait_idle(0)


@on_loop
async def test_waiting_for_idle_ends_with_the_last_application() -> None:
    bridge = Bridge(answer)
    bridge.begin()
    bridge.begin(request_head("GET", "/fast"))
    began = bridge.runner.loop.time()
    assert await bridge.runner.wait_idle(30)
    assert bridge.runner.loop.time() - began == pytest.approx(5)
    assert not bridge.runner.exchanges


@on_loop
async def test_waiting_for_idle_gives_up_in_time() -> None:
    bridge = Bridge(answer)
    exchange, _ = bridge.begin()
    assert not await bridge.runner.wait_idle(2)
    assert bridge.runner.exchanges == {exchange}
    assert await bridge.runner.wait_idle(None)


@on_loop
async def test_cancelling_all_answers_and_ends_everything() -> None:
    bridge = Bridge(answer)
    ports = [bridge.begin()[1] for _ in range(3)]
    await settle()
    assert await bridge.runner.cancel_all("the server is shutting down", 10) == 3
    assert [port.status for port in ports] == [503] * 3
    assert not bridge.runner.exchanges
    assert [status for _, status, _ in bridge.records] == [503] * 3


@on_loop
async def test_cancelling_all_includes_what_was_about_to_start() -> None:
    bridge = Bridge(answer)
    bridge.begin()
    began = bridge.runner.loop.time()
    assert await bridge.runner.cancel_all("the server is shutting down", 10) == 1
    assert bridge.runner.loop.time() == began
    await settle()


@on_loop
async def test_an_application_that_ignores_its_cancellation_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge(stubborn)
    exchange, _ = bridge.begin(request_head("GET", "/stubborn"))
    await settle()
    assert await bridge.runner.cancel_all("the server is shutting down", 10) == 1
    [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line.startswith("Application instance for GET /stubborn, 10.0 s old ignores its cancellation")
    task = exchange.task
    assert task is not None
    await task


@on_loop
async def test_without_a_record_function_nothing_is_recorded() -> None:
    bridge = Bridge(answer)
    bridge.runner.record = None
    await bridge.serve()


@on_loop
async def test_a_task_of_the_oldest_python_costs_no_name_of_its_own() -> None:
    bridge = Bridge(answer)
    exchange, _ = bridge.begin()
    assert exchange.task is not None
    assert (exchange.task.get_name() == "application") is (sys.version_info < (3, 12))
    await bridge.runner.cancel_all("the test is over", 1)


@on_loop
async def test_a_task_tells_the_name_of_its_coroutine() -> None:
    bridge = Bridge(answer)
    exchange, _ = bridge.begin()
    assert "coro=<Exchange.run()" in repr(exchange.task)
    asked = asyncio.ensure_future(exchange.receive())
    assert "coro=<HttpExchange.receive()" in repr(asked)
    await bridge.runner.cancel_all("the test is over", 1)
    await asked


@on_loop
async def test_the_task_factory_of_the_loop_makes_the_tasks() -> None:
    bridge = Bridge(answer)
    loop = bridge.runner.loop
    made: list[Any] = []

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        exchange, _ = bridge.begin(request_head("GET", "/fast"))
    finally:
        loop.set_task_factory(None)
    assert exchange.task is not None
    assert made == [exchange.task.get_coro()]
    await bridge.runner.wait_idle(1)

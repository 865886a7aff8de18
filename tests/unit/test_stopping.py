"""`daphne_ng.stopping`: one notice for tasks and threads, and which server it speaks of."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from daphne_ng import stopping
from daphne_ng.stopping import StopNotice, context_of_server, server_starts, server_stops
from tests.support.asgi import on_loop, settle


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server has started yet."""
    monkeypatch.setattr(stopping, "_process", stopping._Process())


def test_the_import_loads_nothing_of_the_server_and_of_twisted() -> None:
    program = (
        "import asyncio, threading, contextvars, sys\n"
        "before = set(sys.modules)\n"
        "from daphne_ng import stopping\n"
        "print(sorted(set(sys.modules) - before - sys.stdlib_module_names), stopping.is_supported(), stopping.is_stopping())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "['daphne_ng', 'daphne_ng.stopping'] False False\n"


# -- one notice --------------------------------------------------------------------------------------------------


@on_loop
async def test_every_task_that_waits_is_woken() -> None:
    notice = StopNotice()

    async def awaits() -> bool:
        return await notice

    tasks = [asyncio.create_task(notice.wait()) for _ in range(500)]
    tasks += [asyncio.create_task(notice.wait(timeout=60)) for _ in range(500)]
    tasks += [asyncio.create_task(awaits()) for _ in range(500)]
    await settle()
    assert not notice.is_set()
    assert not any(task.done() for task in tasks)
    assert notice.give()
    assert notice.is_set()
    assert await asyncio.gather(*tasks) == [True] * 1500
    assert notice._waiters == set()


@on_loop
async def test_who_comes_too_late_does_not_wait() -> None:
    notice = StopNotice()
    assert not notice.give()
    assert not notice.give()
    assert await notice.wait(timeout=0)
    assert await notice


@on_loop
async def test_a_wait_ends_with_its_timeout_and_leaves_nothing_behind() -> None:
    notice = StopNotice()
    began = asyncio.get_running_loop().time()
    assert not await notice.wait(timeout=7)
    assert asyncio.get_running_loop().time() - began == pytest.approx(7)
    assert notice._waiters == set()
    assert not notice.give()


@on_loop
async def test_a_wait_that_is_cancelled_leaves_nothing_behind_and_ends_no_other() -> None:
    notice = StopNotice()
    one, other = asyncio.create_task(notice.wait(60)), asyncio.create_task(notice.wait())
    await settle()
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert len(notice._waiters) == 1
    notice.give()
    assert await other


@on_loop
async def test_a_timeout_of_somebody_elses_is_not_taken_for_that_of_the_wait() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await StopNotice().wait(timeout=60)


@on_loop
async def test_a_wait_that_would_block_the_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"use `await wait_stopping\(\)`"):
        StopNotice().wait_in_thread(1)


@pytest.mark.real("threads wait")
def test_threads_are_woken_whether_they_have_a_loop_or_not() -> None:
    notice = StopNotice()
    results: list[bool] = []
    begun = threading.Barrier(3)

    def blocks() -> None:
        begun.wait(30)
        results.append(notice.wait_in_thread(30))

    async def waits() -> bool:
        waiting = asyncio.create_task(notice.wait(30))
        await asyncio.sleep(0)
        begun.wait(30)
        return await waiting

    threads = [
        threading.Thread(target=blocks),
        threading.Thread(target=lambda: results.append(asyncio.run(waits()))),
    ]
    for thread in threads:
        thread.start()
    assert not notice.wait_in_thread(0)
    begun.wait(30)
    assert notice.give()  # the loop's: it has begun to wait before
    for thread in threads:
        thread.join(30)
    assert results == [True, True]
    assert notice.wait_in_thread()


def test_a_loop_that_was_closed_meanwhile_does_no_harm() -> None:
    notice = StopNotice()
    loop = asyncio.new_event_loop()
    waiting = notice.wait()

    async def begin() -> None:
        with pytest.raises(AttributeError):
            waiting.send(None).no_such_name  # noqa: B018

    loop.run_until_complete(begin())
    loop.close()
    notice.give()
    waiting.close()


# -- what others make --------------------------------------------------------------------------------------------


class Source:
    """Yields numbers, with an hour before each but the first."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.task: Any = None

    async def items(self) -> AsyncGenerator[int, None]:
        self.task = asyncio.current_task()
        try:
            for number in range(5):
                yield number
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.events.append("cancelled")
            assert asyncio.current_task() is self.task
            raise
        finally:
            self.events.append("ended")


async def taken(items: AsyncGenerator[int, None], into: list[int]) -> None:
    async for item in items:
        into.append(item)


@on_loop
async def test_a_stream_ends_where_it_waits_in_the_same_task() -> None:
    notice, source, got = StopNotice(), Source(), list[int]()
    reading = asyncio.create_task(taken(notice.until(source.items()), got))
    await asyncio.sleep(4000)
    notice.give()
    await reading
    assert got == [0, 1]
    assert source.events == ["cancelled", "ended"]
    assert source.task is reading
    assert not reading.cancelling()
    assert notice._waiters == set()


@on_loop
async def test_a_stream_that_ends_by_itself_is_whole() -> None:
    notice, source, got = StopNotice(), Source(), list[int]()
    await taken(notice.until(source.items()), got)
    assert got == [0, 1, 2, 3, 4]
    assert source.events == ["ended"]
    assert notice._waiters == set()


@on_loop
async def test_a_stream_ends_between_two_items_when_its_reader_is_slow() -> None:
    notice, source, got = StopNotice(), Source(), list[int]()
    async for item in notice.until(source.items()):
        got.append(item)
        notice.give()
        await asyncio.sleep(5)
    assert got == [0]
    assert source.events == ["ended"]


@on_loop
async def test_a_stream_that_begins_too_late_yields_nothing() -> None:
    notice, source, got = StopNotice(), Source(), list[int]()
    notice.give()
    await taken(notice.until(source.items()), got)
    assert got == []


@on_loop
async def test_a_stream_that_is_cancelled_or_fails_does_so_as_without_us() -> None:
    notice, source, got = StopNotice(), Source(), list[int]()
    reading = asyncio.create_task(taken(notice.until(source.items()), got))
    await settle()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.events == ["cancelled", "ended"]

    async def fails() -> AsyncGenerator[int, None]:
        yield 1
        raise TimeoutError("the database is slow")

    with pytest.raises(TimeoutError, match="the database is slow"):
        await taken(notice.until(fails()), got)
    assert got == [0, 1]


@on_loop
async def test_a_stream_that_makes_nothing_of_its_cancellation_gives_one_more_item() -> None:
    notice = StopNotice()
    got: list[int] = []

    async def stubborn() -> AsyncGenerator[int, None]:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            yield 1
        yield 2

    reading = asyncio.create_task(taken(notice.until(stubborn()), got))
    await settle()
    notice.give()
    await reading
    assert got == [1]


@on_loop
async def test_what_is_no_generator_is_taken_too() -> None:
    class Three:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Three:
            return self

        async def __anext__(self) -> int:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return self.left

    got: list[int] = []
    await taken(stopping.until_stopping(Three()), got)
    assert got == [2, 1, 0]


# -- which server ------------------------------------------------------------------------------------------------


def states() -> tuple[bool, bool]:
    return stopping.is_supported(), stopping.is_stopping()


@pytest.fixture
def servers() -> Iterator[tuple[StopNotice, StopNotice]]:
    """Two servers that serve."""
    pair = StopNotice(), StopNotice()
    for notice in pair:
        server_starts(notice)
    yield pair
    for notice in pair:
        server_stops(notice)


def test_a_task_of_a_server_is_told_of_that_one(servers: tuple[StopNotice, StopNotice]) -> None:
    one, other = (context_of_server(notice) for notice in servers)
    server_stops(servers[0])
    assert one.run(states) == (True, True)
    assert other.run(states) == (True, False)
    assert states() == (True, False)
    server_stops(servers[1])
    assert other.run(states) == (True, True)
    assert states() == (True, True)


@on_loop
async def test_others_are_told_when_the_last_server_stops() -> None:
    early = asyncio.create_task(stopping.wait_stopping())
    await settle()
    assert states() == (False, False)
    one, other = StopNotice(), StopNotice()
    server_starts(one)
    server_starts(other)
    assert states() == (True, False)
    assert not server_stops(one)
    await settle()
    assert not early.done()
    assert server_stops(other)
    assert await early
    assert not server_stops(other)


@on_loop
async def test_a_server_that_starts_afterwards_is_one_that_goes_on() -> None:
    one, next_one = StopNotice(), StopNotice()
    server_starts(one)
    server_stops(one)
    assert states() == (True, True)
    server_starts(next_one)
    assert states() == (True, False)
    assert not await stopping.wait_stopping(timeout=1)
    server_stops(next_one)
    assert await stopping.wait_stopping()


@pytest.mark.real("a thread waits")
def test_a_thread_of_a_server_waits_for_that_one(servers: tuple[StopNotice, StopNotice]) -> None:
    one = context_of_server(servers[0])
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(one.run(stopping.wait_stopping_in_thread, 30)))
    thread.start()
    server_stops(servers[0])
    thread.join(30)
    assert results == [True]
    assert not stopping.wait_stopping_in_thread(0)

"""Tests of `daphne_ng.net` that need the kernel: sockets on the loopback, real time, no other process.

Reactors of our own, never installed, on both kinds of event loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from daphne_ng.net.reactor import DaphneReactor

Run = Callable[[Callable[[DaphneReactor], Awaitable[Any]]], Any]

PATIENCE_SECONDS = 10


def make_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "uvloop":
        return pytest.importorskip("uvloop").new_event_loop()
    return asyncio.new_event_loop()


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = make_loop(request.param)
    yield loop
    loop.close()


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Iterator[Run]:
    """Run a coroutine function on a loop, with a reactor attached to that loop as its argument."""
    global_before = sys.modules.get("twisted.internet.reactor")
    reactor = DaphneReactor(loop)

    def run(main: Callable[[DaphneReactor], Awaitable[Any]]) -> Any:
        async def attached() -> Any:
            reactor.attach()
            try:
                return await asyncio.wait_for(main(reactor), PATIENCE_SECONDS)
            finally:
                await reactor.detach()

        return loop.run_until_complete(attached())

    yield run
    reactor.close()
    assert sys.modules.get("twisted.internet.reactor") is global_before, "something installed a global reactor"


@pytest.fixture
def failures() -> Iterator[list[Any]]:
    """What Twisted's log got as errors during the test."""
    seen: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_failure") is not None:
            seen.append(event["log_failure"])

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)

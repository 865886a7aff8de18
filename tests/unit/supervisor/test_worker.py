"""`daphne_ng.supervisor.worker` beside a server that is none."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.serving.hooks import ServerHooks
from daphne_ng.supervisor.protocol import END, HURRY, STOP, Assignment, LineReader
from daphne_ng.supervisor.worker import Worker, resident_bytes

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX alone has workers"),
    pytest.mark.real("a worker's loop reads a pipe"),
]


class Port:
    leaves_queue = True

    def __init__(self, inherited: bool) -> None:
        self.inherited = inherited


class Server:
    """What a worker needs of one."""

    hooks = ServerHooks()
    requests_served = 0

    def __init__(self) -> None:
        self.told: list[str] = []
        self.listeners: list[Any] = [Port(False), Port(True), object()]

    def stop(self) -> None:
        self.told.append("stop")

    def hurry(self) -> None:
        self.told.append("hurry")


class Assigned:
    """A worker, and the supervisor's end of its pipes."""

    def __init__(self, **settings: Any) -> None:
        self.report, report = os.pipe()
        orders, self.orders = os.pipe()
        os.set_blocking(self.report, False)
        self.inner = [report, orders]
        self.worker = Worker(Assignment(1, report, orders, []), Config(worker_blocked_warning=0, **settings))
        self.server = self.worker._server = Server()
        self._lines = LineReader()

    def run(self, seconds: float = 0.05) -> None:
        """Be ready, and let the loop run for a while."""

        async def main() -> None:
            self.worker._begin()
            await asyncio.sleep(seconds)
            self.worker._ended.set()

        asyncio.run(main())

    @property
    def said(self) -> list[dict[str, Any]]:
        return self._lines.feed(os.read(self.report, 65536))

    def close(self) -> None:
        self.worker._ended.set()
        for descriptor in (self.report, self.orders, *self.inner):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[Assigned] = []

    def make(**settings: Any) -> Assigned:
        made.append(Assigned(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_it_says_that_it_lives_and_that_it_is_ready(make: Any) -> None:
    it = make()
    it.run()
    assert [message["event"] for message in it.said] == ["beat", "ready"]


def test_its_pipes_are_not_for_what_the_application_starts(make: Any) -> None:
    it = make()
    assert not any(os.get_inheritable(descriptor) for descriptor in it.inner)
    # A supervisor that does not read must not block the loop.
    assert not any(os.get_blocking(descriptor) for descriptor in it.inner)


@pytest.mark.parametrize(
    ("orders", "told", "leaves"),
    [
        (STOP, ["stop"], True),
        (STOP + STOP, ["stop"], True),
        (END, ["stop"], False),
        (HURRY, ["hurry"], True),
        (END + HURRY, ["hurry"], False),
    ],
)
def test_it_obeys(make: Any, orders: bytes, told: list[str], leaves: bool) -> None:
    it = make()
    os.write(it.orders, orders)
    it.run()
    assert it.server.told == told
    # What was somebody else's before keeps its queue in any case.
    assert [port.leaves_queue for port in it.server.listeners[:2]] == [leaves, True]


def test_it_stops_when_the_supervisor_is_gone(make: Any) -> None:
    it = make()
    os.close(it.orders)
    it.orders = -1
    it.run()
    assert it.server.told == ["stop"]


def test_it_asks_for_another_when_it_has_served_enough(make: Any) -> None:
    it = make(limit_max_requests=10)
    it.server.requests_served = 9
    it.run()
    assert "retire" not in [message["event"] for message in it.said]
    it.server.requests_served = 10
    it.worker._ended.clear()
    it.run()
    assert {"event": "retire", "reason": "it has served 10 requests"} in it.said


def test_its_limit_of_requests_has_jitter(make: Any) -> None:
    limits = {make(limit_max_requests=10, limit_max_requests_jitter=5).worker._requests_max for _ in range(200)}
    assert limits == set(range(10, 16))
    assert make(limit_max_requests_jitter=5).worker._requests_max == 0


def test_it_asks_for_another_when_it_holds_too_much(make: Any) -> None:
    it = make(limit_worker_memory=1)
    assert it.worker._reason_to_retire(time.monotonic()).startswith("it holds ")
    assert 1_000_000 < resident_bytes() < 1 << 40


def test_it_asks_for_another_when_it_is_old(make: Any) -> None:
    it = make(worker_max_age=60.0)
    assert it.worker._reason_to_retire(time.monotonic() + 59) == ""
    assert it.worker._reason_to_retire(time.monotonic() + 61) == "it is older than 60 s"


def test_it_asks_again_if_nobody_could_hear(make: Any) -> None:
    it = make(limit_max_requests=1)
    it.server.requests_served = 5
    with pytest.raises(BlockingIOError):
        while True:
            os.write(it.inner[0], b"\n" * 4096)
    it.run()
    assert not it.worker._retiring

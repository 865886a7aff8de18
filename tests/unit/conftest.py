"""A unit test opens no socket and waits for no clock. One that does fails, unless it is marked with its reason.

``@pytest.mark.real("why")`` is for the few that need a thread, a process or the kernel beside what they test. What is
about nothing but sockets is in ``tests/net``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.asgi import VirtualTimeLoop

_seen: list[str] = []


# An audit hook is for the life of the process, so that it only notes; a socket pair is bound to nothing.
def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.bind", "socket.connect"):
        _seen.append(f"{event}({arguments[-1]!r})")


sys.addaudithook(_note)


@pytest.fixture(autouse=True)
def nothing_real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that has bound or connected a socket, or slept on a clock that is not the test's own."""
    if request.node.get_closest_marker("real"):
        yield
        return
    real_sleep, real_asyncio_sleep = time.sleep, asyncio.sleep

    def sleep(seconds: float) -> None:
        # The standard library sleeps while it waits for a process.
        if sys._getframe(1).f_globals["__name__"].startswith(("tests", "daphne_ng")):
            _seen.append(f"time.sleep({seconds})")
        real_sleep(seconds)

    async def asyncio_sleep(delay: float, result: Any = None) -> Any:
        if delay > 0 and not isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
            _seen.append(f"asyncio.sleep({delay})")
        return await real_asyncio_sleep(delay, result)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(asyncio, "sleep", asyncio_sleep)
    _seen.clear()
    yield
    assert _seen == [], "move it to tests/net, use tests.support.asgi.on_loop, or mark it: pytest.mark.real('why')"

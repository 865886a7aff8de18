"""`daphne_ng.net.client_lines`: bounded lines and a count, for everything that a client can bring about."""

from __future__ import annotations

import asyncio
import logging

import pytest

from daphne_ng.net.client_lines import ClientLines
from tests.support.asgi import LOG, on_loop
from tests.support.net import Wire, silent

BAD = b"GET / HTTP/1.1\r\n\r\n"


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@on_loop
async def test_what_is_too_much_is_counted_and_the_count_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = ClientLines(LOG, asyncio.get_running_loop(), 3, 0.1)
    for number in range(1000):
        lines.tell("Refused %d", number)
    lines.tell("Another kind: %s", "x")
    assert messages(caplog) == ["Refused 0", "Refused 1", "Refused 2", "Another kind: x"]
    caplog.clear()
    await asyncio.sleep(11)
    assert messages(caplog) == ["Left out 997 more lines, the last of which was: Refused 999"]
    caplog.clear()
    lines.tell("Refused %d", 1000)
    await asyncio.sleep(30)
    assert messages(caplog) == ["Refused 1000"]


@on_loop
async def test_the_end_tells_what_is_left_and_leaves_no_timer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    context = Wire(silent, client_lines_burst=1, client_lines_rate=0.0).context
    context.start_clock()
    context.lines.tell("Refused %s", "a")
    context.lines.tell("Refused %s", "b")
    context.stop_clock()
    assert messages(caplog) == ["Refused a", "Left out 1 more lines, the last of which was: Refused b"]
    assert [handle for handle in context.loop._scheduled if not handle.cancelled()] == []  # type: ignore[attr-defined]


@on_loop
async def test_who_wants_all_of_them_gets_them_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    lines = ClientLines(LOG, asyncio.get_running_loop(), 1, 0.0)
    for number in range(3):
        lines.tell("Refused %d", number)
    assert messages(caplog) == ["Refused 0"]
    assert messages(caplog, logging.DEBUG) == ["Refused 1", "Refused 2"]


@on_loop
async def test_bad_requests_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wire = Wire(silent)
    for _ in range(300):
        wire.connect().protocol.dataReceived(BAD)
    assert len(wire.refused) == 300  # the access log has all of them
    assert len(messages(caplog)) == 20


@on_loop
async def test_connections_of_http2_that_are_ended_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wire = Wire(silent)
    for _ in range(100):
        wire.connect().protocol.dataReceived(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100)
    ended = [text for text in messages(caplog) if text.startswith("Ended an HTTP/2 connection")]
    assert len(ended) == 20

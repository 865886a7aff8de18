"""Server-sent events of the demo: streams that end when the server stops, and the clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from daphne_ng import stopping
from daphne_ng._types import Message, Send
from daphne_ng.demo.exchange import Clock, Exchange, converse, until_disconnect
from daphne_ng.demo.page import COMMON_HEADERS

__all__ = ["CLOCK_TICKS", "clock_events", "event", "serve_events"]

CLOCK_TICKS = 3600
"""Ticks before ``/clock`` ends: an hour. The browser then opens a new stream."""
RETRY_MILLISECONDS = 5000
"""How long a browser waits before it opens an event stream that ended again."""

EVENT_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back otherwise
    *COMMON_HEADERS,
]


def event(data: object, *, name: str = "message") -> bytes:
    """Return one server-sent event with ``data`` as JSON, which never holds a newline."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def serve_events(exchange: Exchange, events: AsyncGenerator[bytes, None]) -> None:
    """Answer with ``events`` until they end, the client leaves or the server gives notice that it stops."""
    await exchange.send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM_HEADERS})
    present = True
    if not exchange.head_only and not stopping.is_stopping():
        stop = asyncio.ensure_future(stopping.wait_stopping())
        try:
            present = await converse(until_disconnect(exchange.receive), _pump(exchange.send, events), stop)
        finally:
            stop.cancel()
    if present:
        await exchange.send({"type": "http.response.body", "body": b""})


async def _pump(send: Send, events: AsyncGenerator[bytes, None]) -> None:
    await send(_part(f"retry: {RETRY_MILLISECONDS}\n\n".encode()))
    async with aclosing(events):
        async for item in events:
            await send(_part(item))


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def clock_events(clock: Clock) -> AsyncGenerator[bytes, None]:
    """Yield the time once a second, `CLOCK_TICKS` times."""
    for tick in range(1, CLOCK_TICKS + 1):
        moment = datetime.fromtimestamp(clock.now(), UTC)
        yield event({"time": moment.isoformat(timespec="milliseconds"), "tick": tick})
        await clock.sleep(1.0)

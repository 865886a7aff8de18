"""Server-sent events of the demo: streams that a shutdown ends, and the clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from daphne_ng._types import Message, Send
from daphne_ng.demo.exchange import Clock, Exchange, converse, until_disconnect
from daphne_ng.demo.page import COMMON_HEADERS

__all__ = ["CLOCK_TICKS", "EventStreams", "clock_events", "event"]

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


class EventStreams:
    """The open event streams, so that a shutdown can end them all at once."""

    def __init__(self) -> None:
        self._stops: set[asyncio.Future[None]] = set()
        self._closed = False

    def open(self) -> None:
        """Serve streams (again)."""
        self._closed = False

    def close(self) -> None:
        """End every stream, and from now on each one as soon as it has begun."""
        self._closed = True
        for stop in self._stops:
            if not stop.done():
                stop.set_result(None)

    async def serve(self, exchange: Exchange, events: AsyncGenerator[bytes, None]) -> None:
        """Answer with ``events`` until they end, the client leaves or `close` is called."""
        await exchange.send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM_HEADERS})
        present = True
        if not exchange.head_only and not self._closed:
            present = await self._run(exchange, events)
        if present:
            await exchange.send({"type": "http.response.body", "body": b""})

    async def _run(self, exchange: Exchange, events: AsyncGenerator[bytes, None]) -> bool:
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stops.add(stop)
        try:
            return await converse(until_disconnect(exchange.receive), self._pump(exchange.send, events), stop)
        finally:
            self._stops.discard(stop)

    async def _pump(self, send: Send, events: AsyncGenerator[bytes, None]) -> None:
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

"""`daphne_ng.serving.actions`: lines that are put together without the action logger are the lines that it writes."""

import asyncio
import datetime as dt
import io
import re
from typing import Any

import pytest

from daphne_ng.access import AccessLogGenerator
from daphne_ng.asgi.http import HttpExchange
from daphne_ng.serving.actions import Actions
from tests.support.asgi import LOG, START, Bridge, body, on_loop, request_head

DATE = re.compile(r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d\]")


class Called(AccessLogGenerator):
    """A subclass, which is called for each request."""


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer with 5 bytes, or without a body where the path says so."""
    await send(START)
    await send(body(b"" if "empty" in scope["path"] else b"hello"))


async def answered(method: str, target: bytes, client: str | None) -> HttpExchange:
    bridge = Bridge(hello)
    head = request_head(method, target.decode("latin-1"))
    head.target = target
    exchange, port = bridge.begin(head)
    exchange.info.client_text = client
    assert exchange.task is not None
    await exchange.task
    port.body_bytes_sent = 0 if b"empty" in target else 5
    return exchange


def lines_of(generator: AccessLogGenerator, *exchanges: HttpExchange) -> str:
    actions = Actions(generator, asyncio.get_running_loop(), LOG)
    for exchange in exchanges:
        actions.record(exchange)
    assert isinstance(generator.stream, io.StringIO)
    return generator.stream.getvalue()


@on_loop
async def test_a_line_is_the_same_whether_the_generator_is_called_or_not() -> None:
    targets = [b"/", b"/empty", b'/"quoted"', b"/back\\slash", b"/a b", b"/\x7f\x1b[2J\r\n", b"/caf\xc3\xa9", b"*", b""]
    clients = ["10.0.0.1:1234", "[::1]:80", 'a "b\\c\x1b:1', "", None]
    exchanges = [await answered("GET", target, client) for target in targets for client in clients]
    exchanges += [await answered('G"T', b"/", None), await answered("OPTIONS", b"*", "10.0.0.1:1234")]
    plain = lines_of(AccessLogGenerator(io.StringIO()), *exchanges).splitlines(keepends=True)
    called = lines_of(Called(io.StringIO()), *exchanges).splitlines(keepends=True)
    assert len(plain) == len(exchanges)
    assert [DATE.sub("[]", line) for line in plain] == [DATE.sub("[]", line) for line in called]
    dates = {dt.datetime.strptime(DATE.findall(line)[0], "[%d/%b/%Y:%H:%M:%S]") for line in plain}
    assert max(abs(dt.datetime.now() - date) for date in dates) < dt.timedelta(minutes=10)


@on_loop
async def test_an_exchanged_stream_gets_the_next_line() -> None:
    exchange = await answered("GET", b"/", "10.0.0.1:1234")
    generator = AccessLogGenerator(first := io.StringIO())
    actions = Actions(generator, asyncio.get_running_loop(), LOG)
    actions.record(exchange)
    generator.stream = second = io.StringIO()
    actions.record(exchange)
    assert (first.getvalue().count("\n"), second.getvalue().count("\n")) == (1, 1)


@on_loop
async def test_a_method_of_somebody_elses_is_called() -> None:
    exchange = await answered("GET", b"/", "10.0.0.1:1234")
    seen: list[Any] = []
    generator: Any = AccessLogGenerator(io.StringIO())
    generator.write_entry = lambda **entry: seen.append(entry["request"])
    assert not lines_of(generator, exchange)
    assert seen == ["GET /"]


@on_loop
async def test_many_clients_in_one_second_have_their_own_lines() -> None:
    generator = AccessLogGenerator(io.StringIO())
    exchange = await answered("GET", b"/", None)
    actions = Actions(generator, asyncio.get_running_loop(), LOG)
    for port in range(3000):
        exchange.info.client_text = f"10.0.0.1:{port}"
        actions.record(exchange)
    assert isinstance(generator.stream, io.StringIO)
    hosts = [line.split(" ")[0] for line in generator.stream.getvalue().splitlines()]
    assert hosts == [f"10.0.0.1:{port}" for port in range(3000)]


@on_loop
async def test_a_stream_that_fails_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def write(self, text: str, /) -> None:
            raise RuntimeError("broken")

    exchange = await answered("GET", b"/", None)
    Actions(AccessLogGenerator(Broken()), asyncio.get_running_loop(), LOG).record(exchange)
    assert "The access log failed" in caplog.text

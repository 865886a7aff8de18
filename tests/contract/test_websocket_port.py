"""What every `WebSocketPort` does with the calls that its contract allows, and what it tells its `WebSocketSink`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from daphne_ng.errors import InvalidHeader
from tests.contract.websocket_ports import PORTS, WIRES
from tests.support.asgi import on_loop
from tests.support.ws import binary, close, more, ping, text

on_every_port = pytest.mark.parametrize("make", PORTS.values(), ids=PORTS)
on_every_wire = pytest.mark.parametrize("make", WIRES.values(), ids=WIRES)

Make = Callable[..., Any]


async def asked(make: Make, **options: Any) -> Any:
    harness = make(**options)
    await harness.open()
    return harness


async def accepted(make: Make, **options: Any) -> Any:
    harness = await asked(make, **options)
    harness.port.accept(None, [])
    return harness


class TestHandshake:
    @on_every_port
    @on_loop
    async def test_it_is_accepted(self, make: Make) -> None:
        harness = await asked(make)
        harness.port.accept("b", [(b"x-a", b"1"), (b"x-b", b""), (b"x-a", b"2")])
        status, fields, rest = await harness.seen()
        assert status == harness.accepted
        assert (b"sec-websocket-protocol", b"b") in fields
        assert [field for field in fields if field[0].startswith(b"x-")] == [
            (b"x-a", b"1"),
            (b"x-b", b""),
            (b"x-a", b"2"),
        ]
        assert rest == b""

    @on_every_port
    @on_loop
    async def test_it_is_answered_with_a_response_instead(self, make: Make) -> None:
        harness = await asked(make)
        harness.port.response.start(403, [(b"content-length", b"2")], b"no", True, False)
        status, _, rest = await harness.seen()
        assert (status, rest) == (403, b"no")

    @on_every_wire
    @pytest.mark.parametrize("field", [(b"x", b"y\r\nz: 1"), (b"Sec-WebSocket-Accept", b"x"), (b"Upgrade", b"x")])
    @on_loop
    async def test_a_field_that_is_refused_leaves_the_handshake_to_another_answer(
        self, make: Make, field: tuple[bytes, bytes]
    ) -> None:
        harness = await asked(make)
        with pytest.raises(InvalidHeader):
            harness.port.accept(None, [field])
        assert (await harness.seen())[0] is None
        harness.port.accept("a", [])
        assert (await harness.seen())[0] == harness.accepted

    @on_every_wire
    @on_loop
    async def test_what_came_before_the_answer_is_delivered_after_it(self, make: Make) -> None:
        harness = await asked(make, behind=text("early") + ping(b"x"))
        assert harness.sink.messages == []
        harness.port.accept(None, [])
        assert await harness.frames() == [("pong", b"x")]
        assert harness.sink.messages == ["early"]

    @on_every_wire
    @on_loop
    async def test_its_time_is_over(self, make: Make) -> None:
        harness = await asked(make, websocket_connect_timeout=5)
        await asyncio.sleep(4.9)
        assert harness.sink.expirations == 0
        await asyncio.sleep(0.2)
        assert harness.sink.expirations == 1

    @on_every_wire
    @on_loop
    async def test_the_client_is_gone_before_the_answer(self, make: Make) -> None:
        harness = await asked(make)
        await harness.lose()
        assert harness.sink.end == (1006, "")


class TestSending:
    @on_every_port
    @on_loop
    async def test_messages_in_their_order(self, make: Make) -> None:
        harness = await accepted(make)
        harness.port.message("ä".encode(), True)
        harness.port.message(b"\xff" * 70_000, False)
        harness.port.message(b"", True)
        harness.port.message(b"", False)
        assert await harness.frames() == [("text", "ä"), ("binary", b"\xff" * 70_000), ("text", ""), ("binary", b"")]
        assert harness.port.bytes_sent == 70_002

    @on_every_port
    @on_loop
    async def test_there_is_room(self, make: Make) -> None:
        harness = await accepted(make)
        assert harness.port.writable() is None

    @on_every_port
    @pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
    @on_loop
    async def test_a_close(self, make: Make, code: int) -> None:
        harness = await accepted(make)
        harness.port.message(b"last", True)
        harness.port.close(code, "because")
        assert await harness.frames() == [("text", "last"), ("close", code, "because")]

    @on_every_wire
    @on_loop
    async def test_a_reason_is_cut_to_what_fits(self, make: Make) -> None:
        harness = await accepted(make)
        harness.sink.silent = True
        harness.port.close(1000, "ä" * 100)
        assert await harness.frames() == [("close", 1000, "ä" * 61)]


class TestReceiving:
    @on_every_wire
    @on_loop
    async def test_messages_in_their_order(self, make: Make) -> None:
        harness = await accepted(make)
        await harness.deliver(text("ä") + binary(b"b" * 300) + text("c", fin=False) + more(b"d") + binary(b""))
        assert harness.sink.messages == ["ä", b"b" * 300, "cd", b""]
        assert harness.port.bytes_received == 304

    @on_every_wire
    @on_loop
    async def test_a_pause_holds_back_what_has_come_until_there_is_room(self, make: Make) -> None:
        harness = await accepted(make)
        harness.sink.high = 1
        await harness.deliver(text("a") + text("b"))
        await harness.deliver(text("c"))
        for count in (1, 2, 3):  # the sink fails the test on a message that comes although it is full
            assert len(harness.sink.messages) == count
            harness.sink.unread = 0
            harness.sink.paused = False
            harness.port.consumed()
            await harness.seen()
        assert harness.sink.messages == ["a", "b", "c"]


class TestEnd:
    """The sink fails the test on a second end, and on anything after the end or after ``close()``."""

    @on_every_wire
    @on_loop
    async def test_the_client_closes(self, make: Make) -> None:
        harness = await accepted(make)
        await harness.deliver(text("last") + close(4000, "bye"))
        assert harness.sink.messages == ["last"]
        assert harness.sink.end == (4000, "bye")
        assert await harness.frames() == [("close", 4000, "bye")]
        assert harness.ended
        await harness.lose()

    @on_every_wire
    @on_loop
    async def test_the_client_closes_without_a_code(self, make: Make) -> None:
        harness = await accepted(make)
        await harness.deliver(close(None))
        assert harness.sink.end == (1005, "")

    @on_every_wire
    @on_loop
    async def test_the_client_leaves_without_a_close_frame(self, make: Make) -> None:
        harness = await accepted(make)
        await harness.leave()
        assert harness.sink.end == (1006, "")
        await harness.lose()

    @on_every_wire
    @on_loop
    async def test_the_connection_is_lost(self, make: Make) -> None:
        harness = await accepted(make)
        await harness.lose()
        assert harness.sink.end == (1006, "")

    @on_every_wire
    @on_loop
    async def test_the_application_closes_and_what_the_client_still_sends_is_thrown_away(self, make: Make) -> None:
        harness = await accepted(make)
        harness.sink.silent = True
        harness.port.close(1000, "")
        assert await harness.frames() == [("close", 1000, "")]
        await harness.deliver(text("too late") + ping())
        assert not harness.ended
        await harness.deliver(close(1000))
        assert await harness.frames() == [("close", 1000, "")]
        assert harness.ended
        await harness.lose()

    @on_every_wire
    @on_loop
    async def test_a_client_that_does_not_answer_a_close_frame_is_not_waited_for(self, make: Make) -> None:
        harness = await accepted(make, close_timeout=5)
        harness.sink.silent = True
        harness.port.close(1000, "")
        await asyncio.sleep(5.1)
        await harness.seen()
        assert harness.ended

    @on_every_wire
    @on_loop
    async def test_a_client_that_breaks_a_rule_is_told_so_once(self, make: Make) -> None:
        harness = await accepted(make)
        await harness.deliver(text(b"\xff") + text("never"))
        assert harness.sink.messages == []
        assert harness.sink.end is not None
        assert harness.sink.end[0] == 1007
        (frame,) = await harness.frames()
        assert frame[:2] == ("close", 1007)
        await harness.lose()

    @on_every_wire
    @on_loop
    async def test_the_server_stops(self, make: Make) -> None:
        harness = await accepted(make)
        harness.transport.protocol.shut_down()
        assert await harness.frames() == [("close", 1012, "The server is shutting down.")]
        assert harness.sink.end == (1012, "The server is shutting down.")

    @on_every_wire
    @on_loop
    async def test_a_port_that_breaks_off_drops_the_connection(self, make: Make) -> None:
        harness = await accepted(make)
        harness.port.break_off()
        assert harness.dropped
        await harness.lose()

"""One WebSocket against a client that means harm: what it may cost, and how long it may stay.

Each test is a defect that was found by attacking a running server.
"""

from __future__ import annotations

import pytest

from tests.support.ws import (
    DEFLATE,
    WebSocketServer,
    binary,
    close,
    fragments,
    more,
    open_websocket,
    ping,
    squeezed,
    text,
)

MIB = 1 << 20
# What the engine is given in one turn of the loop, and what a frame counts once we have sent our Close frame.
TURN_FRAMES = 512
CLOSING_FRAMES = 8

TWO_FRAGMENTS = text("", fin=False) + more()


class TestTurnsOfTheLoop:
    """An echo of 128 KiB of empty fragments took 130 ms, and nobody else was served meanwhile."""

    def test_the_engine_gets_so_many_frames_in_a_turn(self) -> None:
        server = open_websocket()
        server.ws.receive_data(TWO_FRAGMENTS * 5000)
        assert server.messages == [""] * (TURN_FRAMES // 2)
        assert server.driver.turn_due
        assert not server.driver.reading
        server.driver.turn_due = False
        server.ws.continue_reading()
        assert server.messages == [""] * TURN_FRAMES
        server.advance(0)
        assert server.messages == [""] * 5000
        assert server.driver.reading

    def test_an_endless_message_of_empty_fragments(self) -> None:
        server = open_websocket(websocket_max_fragments=0)
        server.ws.receive_data(text("a", fin=False) + more(fin=False) * 3000 + more(b"b"))
        assert server.driver.turn_due
        assert server.messages == []
        assert server.advance(0).messages == ["ab"]

    def test_frames_that_end_with_the_turn_need_no_other(self) -> None:
        server = open_websocket()
        server.ws.receive_data(TWO_FRAGMENTS * (TURN_FRAMES // 2))
        assert not server.driver.turn_due
        assert server.driver.reading

    def test_a_turn_ends_inside_a_message(self) -> None:
        server = open_websocket()
        message = "".join(fragment.decode("latin-1") for fragment in fragments("x" * 400, range(1, 400)))
        server.ws.receive_data(message.encode("latin-1") * 3 + close(1000))
        assert server.messages == ["x" * 400]
        assert server.driver.turn_due
        server.advance(0)
        assert server.messages == ["x" * 400] * 3
        assert server.end == (1000, "")

    def test_room_brings_no_message_from_within_receive(self) -> None:
        # An application that only receives would never let go of the loop: 128 messages of 1 MiB out of one read.
        server = open_websocket(high=1, deflate=DEFLATE).feed(squeezed("a" * 1000) * 3)
        server.sink.unread = 0
        server.sink.paused = False
        server.ws.consumed()
        assert len(server.messages) == 1
        assert server.driver.turn_due
        assert not server.driver.reading
        assert len(server.advance(0).messages) == 2

    def test_room_twice_is_one_turn(self) -> None:
        server = open_websocket(high=1).feed(text("a") + text("b"))
        server.sink.paused = False
        server.ws.consumed()
        server.ws.consumed()
        server.ws.continue_reading()
        assert server.messages == ["a", "b"]
        server.ws.continue_reading()
        assert server.messages == ["a", "b"]

    @pytest.mark.parametrize("how", ["lost", "closed", "failed", "stuck"])
    def test_a_turn_that_comes_after_the_end(self, how: str) -> None:
        server = open_websocket(close_timeout=1)
        server.ws.receive_data(TWO_FRAGMENTS * TURN_FRAMES)
        assert server.driver.turn_due
        count = len(server.messages)
        if how == "lost":
            server.lose()
        elif how == "closed":
            server.ws.shut_down()
        elif how == "failed":
            server.ws.failure_judged(1002, "wrong")
        else:
            server.ws.shut_down()
            server.driver.now += 10
            server.ws.deadline_passed(server.driver.now)
        end = server.end
        server.driver.turn_due = False
        server.ws.continue_reading()
        assert len(server.messages) == count
        assert server.end == end

    def test_the_end_of_the_stream_waits_for_its_turn(self) -> None:
        server = open_websocket()
        server.ws.receive_data(TWO_FRAGMENTS * TURN_FRAMES)
        server.ws.eof_received()
        assert server.end is None
        server.advance(0)
        assert len(server.messages) == TURN_FRAMES
        assert server.end == (1006, "")

    def test_a_turn_behind_the_handshake(self) -> None:
        server = WebSocketServer()
        server.accept(TWO_FRAGMENTS * 2000)
        assert server.messages == [""] * 2000
        assert server.driver.reading


class TestAfterOurCloseFrame:
    """What a client went on to send was inflated for nobody, 128 MiB out of each read: 450 ms."""

    def test_nothing_is_inflated(self) -> None:
        server = open_websocket(deflate=DEFLATE).close()
        server.feed(squeezed(b"\0" * MIB) * 3 + text("a") + binary(b"b") + text(b"\xff") + close(1000))
        assert server.state == "closed"
        assert server.ws.bytes_received == 0

    def test_a_frame_that_comes_in_pieces_is_skipped(self) -> None:
        server = open_websocket().close()
        stream = binary(b"x" * 300_000) + text("y" * 1000) + close(1000)
        server.feed(*(stream[start : start + 7000] for start in range(0, len(stream), 7000)))
        assert server.state == "closed"

    def test_fragments_are_few_in_a_turn(self) -> None:
        server = open_websocket(deflate=DEFLATE).close()
        bomb = b"".join(fragments(b"\0" * MIB, [500], compress=True))
        start = bomb * (CLOSING_FRAMES // 2)
        server.ws.receive_data(start + bomb * 2 + close(1000))
        assert server.driver.turn_due
        assert len(server.ws._backlog) == len(bomb * 2 + close(1000))
        assert server.advance(0).state == "closed"

    def test_a_client_that_takes_nothing_gets_no_respite(self) -> None:
        # The first look at what is unsent took it for progress.
        server = open_websocket(close_timeout=5)
        server.driver.unsent = 1000
        server.close().advance(5 + 60)
        assert server.state == "aborted"


class TestAClientThatDoesNotRead:
    """Below the high mark of the transport, no write timeout ran, and a ping that could not go out never failed."""

    def test_it_is_dropped_after_the_write_timeout(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=30, write_timeout=60)
        server.driver.unsent = 1000
        server.advance(20 + 30 + 59)
        assert server.state == "open"
        server.advance(1)
        assert server.end == (1006, "The client did not answer a ping.")
        assert server.state == "aborted"

    def test_it_is_asked_for_more_than_a_byte(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=30, write_timeout=60)
        server.driver.unsent = 1000
        server.advance(50 + 30)
        server.driver.unsent = 0
        server.driver.queued = 999
        server.advance(5)
        assert server.state == "open"
        server.advance(10)
        assert server.state == "aborted"

    def test_it_may_stay_without_a_write_timeout(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=30, write_timeout=0)
        server.driver.unsent = 1000
        server.advance(10_000)
        assert server.state == "open"

    def test_what_it_sends_is_life(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=30, write_timeout=60)
        server.driver.unsent = 1000
        for _ in range(100):
            server.advance(10).feed(text("a"))
        assert server.state == "open"

    def test_a_flood_of_pings_ends_it(self) -> None:
        server = open_websocket().feed(ping(b"x" * 125) * 2000)
        assert server.end == (1008, "Too many pings or pongs.")
        assert len(server.reply) < 100 * 127 + 40
        assert len(server.driver.failures) == 1

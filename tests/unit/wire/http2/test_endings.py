"""The ends of an HTTP/2 connection: GOAWAY both ways, idleness, errors."""

from __future__ import annotations

import pytest

from tests.support import h2
from tests.support.h2 import Http2Server

LAST = 2**31 - 1


class TestShutDown:
    def test_says_goodbye_twice_and_serves_what_has_begun(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.auto_ack = False
        server.h2.shut_down()
        server.turn()
        assert [goaway[:2] for goaway in server.client.goaways] == [(LAST, h2.NO_ERROR)]
        late = server.request()  # on its way already
        assert len(server.sinks) == 2
        server.feed(h2.ping(b"goodbye?", ack=True))
        assert [goaway[:2] for goaway in server.client.goaways] == [(LAST, h2.NO_ERROR), (late, h2.NO_ERROR)]
        for sink in server.sinks:
            assert server.state == "open"
            sink.stream.start(200, [], b"done", True, False)
            server.turn()
        assert server.response(stream).complete
        assert server.response(late).complete
        assert server.state == "half"
        server.advance(1)
        assert server.state == "closed"

    def test_does_not_wait_for_ever_for_the_answer_to_its_ping(self) -> None:
        server = Http2Server(auto_ack=False)
        server.h2.shut_down()
        server.advance(1)
        assert len(server.client.goaways) == 2
        assert server.state == "half"

    def test_ignores_requests_behind_the_last_and_keeps_the_tables_in_step(self) -> None:
        server = Http2Server()
        first = server.request()
        server.h2.shut_down()
        server.turn()
        assert len(server.client.goaways) == 2
        ignored = server.request(b"POST", b"/", (b"x-new", b"in the table"), end=False)
        server.client.h2.send_data(ignored, b"x" * 16384)
        server.sync()
        assert len(server.sinks) == 1
        server.sinks[0].stream.start(200, [], b"", True, False)
        assert server.response(first).complete
        assert server.response(ignored).status is None
        assert server.failure is None

    def test_is_told_once(self) -> None:
        server = Http2Server()
        server.request()
        for _ in range(3):
            server.h2.shut_down()
            server.turn()
        assert len(server.client.goaways) == 2


class TestClientLeaves:
    def test_with_goaway_its_streams_finish(self) -> None:
        server = Http2Server()
        stream = server.request(b"POST", end=False)
        server.feed(h2.goaway())
        server.send(stream, b"rest", True)
        assert server.sink.ended
        server.answer(b"done")
        assert server.response(stream).complete
        assert server.state == "half"

    def test_with_goaway_and_nothing_under_way(self) -> None:
        server = Http2Server()
        server.feed(h2.goaway(0, 5, b"bye"))
        assert server.state == "half"
        assert server.client.goaways == [(0, 0, b"")]

    @pytest.mark.parametrize("way", ["eof", "lose"])
    def test_without_a_word(self, way: str) -> None:
        server = Http2Server()
        server.request()
        server.request(b"POST", end=False)
        getattr(server, way)()
        assert all(sink.reason for sink in server.sinks)
        assert server.idle
        server.lose()

    def test_while_one_response_waits_for_a_window(self) -> None:
        server = Http2Server(client={"initial_window_size": 0}, auto_credit=False)
        server.request()
        server.stream.start(200, [], b"x", True, False)
        server.turn()
        server.eof()
        assert server.idle


class TestIdleness:
    def test_a_client_that_takes_its_response_is_not_idle(self) -> None:
        server = Http2Server(keep_alive_timeout=75, write_timeout=60)
        server.advance(1)
        server.driver.queued = 4_000_000
        for _ in range(5):
            server.advance(50)
            server.driver.queued -= 20_000
        assert server.client.goaways == []
        server.driver.queued = 0
        server.advance(5)
        assert server.client.goaways == []  # from now on it is
        server.advance(76)
        assert len(server.client.goaways) == 1

    def test_one_that_does_not_take_it_is(self) -> None:
        server = Http2Server(keep_alive_timeout=75, write_timeout=60, drain_timeout=1)
        server.driver.queued = 4_000_000
        server.advance(75 + 60 + 5)
        assert len(server.client.goaways) == 1
        server.advance(1 + 60 + 5)
        assert server.driver.state == "aborted"
        assert server.driver.drops == 1

    def test_a_refused_request_whose_answer_waits_keeps_the_connection(self) -> None:
        server = Http2Server(client={"initial_window_size": 0}, auto_credit=False, keep_alive_timeout=5)
        server.feed(h2.headers(1, [*h2.fields(b"GET", b"/"), (b"expect", b"tea")], end=False))
        assert server.client.responses[1].status == 417
        server.advance(6)
        assert server.client.goaways == []

    def test_a_ping_behind_what_a_slow_client_takes_has_time(self) -> None:
        server = Http2Server(http2_ping_interval=10, keep_alive_timeout=0)
        server.auto_ack = False
        server.driver.queued = 400_000
        for _ in range(20):
            server.advance(4)
            server.driver.queued -= 4000
        assert server.failure is None
        server.advance(10)
        assert server.failure is not None

    def test_a_ping_behind_a_response_that_goes_on_has_time(self) -> None:
        server = Http2Server(http2_ping_interval=10, keep_alive_timeout=0)
        server.auto_ack = False
        server.driver.unsent, server.driver.queued = 65_536, 4_000_000
        for turn in range(30):
            # The kernel takes more when a third of its buffer is free, and the response fills it up.
            server.advance(5)
            server.driver.queued += 900_000 if turn % 10 == 9 else -100_000
        assert server.failure is None
        server.advance(70)
        assert server.failure is not None

    def test_what_one_rest_has_seen_is_no_measure_for_the_next(self) -> None:
        server = Http2Server(keep_alive_timeout=10, write_timeout=60)
        server.request()
        server.answer()
        server.driver.queued = 100_000
        server.advance(11)  # it is slow this time
        server.driver.queued = 0
        for _ in range(7):
            server.request()
            server.sinks[-1].stream.start(200, [], b"", True, False)
            server.advance(9)
        server.driver.queued = 4_000_000
        server.advance(2)
        assert server.client.goaways == []

    def test_a_client_that_has_vanished_is_told_goodbye_once(self) -> None:
        server = Http2Server(keep_alive_timeout=10, http2_goaway_timeout=1, close_timeout=5)
        server.advance(10)
        server.driver.queued = 64  # GOAWAY, close_notify and a FIN, which nobody acknowledges
        server.advance(1 + 5)
        assert server.driver.state == "released"
        assert server.driver.drops == 0

    def test_an_idle_connection_is_closed_with_goaway(self) -> None:
        server = Http2Server()
        server.request()
        server.answer()
        server.advance(74)
        assert server.state == "open"
        server.advance(2)
        assert server.client.goaways == [(1, h2.NO_ERROR, b"")]
        assert server.state in ("half", "closed")
        assert server.failure is None

    def test_a_quiet_connection_with_an_open_stream_lives(self) -> None:
        server = Http2Server()
        server.request()
        server.stream.start(200, [], b"", False, False)
        server.advance(10_000)
        assert server.state == "open"
        assert not server.client.goaways

    def test_a_ping_keeps_nothing_alive_and_asks_for_life(self) -> None:
        server = Http2Server(http2_ping_interval=10, keep_alive_timeout=0)
        server.advance(25)
        assert len(server.client.pings) == 2
        assert server.state == "open"
        server.auto_ack = False
        server.advance(25)
        assert server.failure == h2.NO_ERROR

    def test_after_so_many_requests(self) -> None:
        server = Http2Server(http2_max_requests=3)
        for _ in range(3):
            server.request()
            server.answer()
        assert server.client.goaways[-1][:2] == (5, h2.NO_ERROR)
        assert server.state == "half"


WRONG = {
    "no preface": (b"GET / HTTP/1.1\r\n", h2.PROTOCOL_ERROR),
    "no settings": (h2.PREFACE + h2.ping(), h2.PROTOCOL_ERROR),
    "an acknowledgement first": (h2.PREFACE + h2.settings(ack=True), h2.PROTOCOL_ERROR),
    "a frame too large": (h2.PREFACE + h2.settings() + b"\0\x40\x01\0\0\0\0\0\x01", h2.FRAME_SIZE_ERROR),
    "data on stream 0": (h2.PREFACE + h2.settings() + h2.data(0, b"x"), h2.PROTOCOL_ERROR),
    "data on an idle stream": (h2.PREFACE + h2.settings() + h2.data(1, b"x"), h2.PROTOCOL_ERROR),
    "an even stream": (h2.PREFACE + h2.settings() + h2.headers(2), h2.PROTOCOL_ERROR),
    "a stream twice": (h2.PREFACE + h2.settings() + h2.headers(3) + h2.headers(1), h2.PROTOCOL_ERROR),
    "a reset of an idle stream": (h2.PREFACE + h2.settings() + h2.rst(1), h2.PROTOCOL_ERROR),
    "a window of an idle stream": (h2.PREFACE + h2.settings() + h2.window_update(1, 1), h2.PROTOCOL_ERROR),
    "no window for the connection": (h2.PREFACE + h2.settings() + h2.window_update(0, 0), h2.PROTOCOL_ERROR),
    "no window for the connection but the reserved bit": (
        h2.PREFACE + h2.settings() + h2.window_update(0, 2**31),
        h2.PROTOCOL_ERROR,
    ),
    "too much window and the reserved bit": (
        h2.PREFACE + h2.settings() + h2.window_update(0, 2**32 - 1),
        h2.FLOW_CONTROL_ERROR,
    ),
    "too much window": (h2.PREFACE + h2.settings() + h2.window_update(0, 2**31 - 1), h2.FLOW_CONTROL_ERROR),
    "a push": (h2.PREFACE + h2.settings() + h2.frame(h2.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), h2.PROTOCOL_ERROR),
    "a stray continuation": (h2.PREFACE + h2.settings() + h2.continuation(1), h2.PROTOCOL_ERROR),
    "a block interrupted": (h2.PREFACE + h2.settings() + h2.headers(1, flags=0) + h2.ping(), h2.PROTOCOL_ERROR),
    "a block that cannot be decoded": (
        h2.PREFACE + h2.settings() + h2.frame(h2.HEADERS, 5, 1, b"\xff"),
        h2.COMPRESSION_ERROR,
    ),
    "padding longer than the frame": (
        h2.PREFACE + h2.settings() + h2.headers(1, end=False) + h2.frame(h2.DATA, 8, 1, b"\x09x"),
        h2.PROTOCOL_ERROR,
    ),
    "settings on a stream": (h2.PREFACE + h2.settings() + h2.frame(h2.SETTINGS, 0, 1), h2.PROTOCOL_ERROR),
    "settings of a wrong length": (
        h2.PREFACE + h2.settings() + h2.frame(h2.SETTINGS, 0, 0, b"12345"),
        h2.FRAME_SIZE_ERROR,
    ),
    "an acknowledgement with settings": (
        h2.PREFACE + h2.settings() + h2.frame(h2.SETTINGS, 1, 0, b"123456"),
        h2.FRAME_SIZE_ERROR,
    ),
    "a window setting too large": (h2.PREFACE + h2.settings((4, 2**31)), h2.FLOW_CONTROL_ERROR),
    "a frame size setting too small": (h2.PREFACE + h2.settings((5, 1)), h2.PROTOCOL_ERROR),
    "a push setting that is none": (h2.PREFACE + h2.settings((2, 2)), h2.PROTOCOL_ERROR),
    "a ping on a stream": (h2.PREFACE + h2.settings() + h2.frame(h2.PING, 0, 1, b"12345678"), h2.PROTOCOL_ERROR),
    "a ping of a wrong length": (h2.PREFACE + h2.settings() + h2.frame(h2.PING, 0, 0, b"1"), h2.FRAME_SIZE_ERROR),
    "a goaway on a stream": (h2.PREFACE + h2.settings() + h2.frame(h2.GOAWAY, 0, 1, bytes(8)), h2.PROTOCOL_ERROR),
    "a short goaway": (h2.PREFACE + h2.settings() + h2.frame(h2.GOAWAY, 0, 0, bytes(7)), h2.FRAME_SIZE_ERROR),
    "a short reset": (
        h2.PREFACE + h2.settings() + h2.headers(1) + h2.frame(h2.RST_STREAM, 0, 1, b"123"),
        h2.FRAME_SIZE_ERROR,
    ),
    "a short window update": (
        h2.PREFACE + h2.settings() + h2.frame(h2.WINDOW_UPDATE, 0, 0, b"123"),
        h2.FRAME_SIZE_ERROR,
    ),
    "a priority of stream 0": (h2.PREFACE + h2.settings() + h2.priority(0, 1), h2.PROTOCOL_ERROR),
    "a priority update on a stream": (
        h2.PREFACE + h2.settings() + h2.frame(h2.PRIORITY_UPDATE, 0, 1, bytes(4)),
        h2.PROTOCOL_ERROR,
    ),
}


class TestErrors:
    @pytest.mark.parametrize("why", WRONG)
    @pytest.mark.parametrize("step", [1, 10_000])
    def test_end_the_connection_with_their_code(self, why: str, step: int) -> None:
        wire, code = WRONG[why]
        server = Http2Server(begin=False)
        for at in range(0, len(wire), step):
            server.feed(wire[at : at + step])
        assert server.failure == code
        assert server.client.goaways[-1][1] == code
        assert server.state == "half"
        assert all(sink.reason for sink in server.sinks)
        server.feed(h2.headers(99))
        server.advance(1)
        assert server.state == "closed"
        server.advance(10)
        assert server.state == "released"

    def test_every_exchange_is_told_once(self) -> None:
        server = Http2Server()
        for _ in range(5):
            server.request(b"POST", end=False)
        server.feed(h2.data(0, b"x"))
        assert [bool(sink.reason) for sink in server.sinks] == [True] * 5
        assert len(server.driver.failures) == 1
        server.lose()

    def test_a_pause_ends_with_the_connection(self) -> None:
        server = Http2Server(http2_control_burst=100_000)
        server.driver.is_full = True
        server.feed(h2.ping() * 5000)
        assert not server.driver.reading
        server.driver.is_full = False
        server.h2.shut_down()
        server.advance(1)
        server.drain()
        assert server.driver.reading

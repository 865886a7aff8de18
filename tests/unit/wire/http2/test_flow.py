"""Flow control of HTTP/2 both ways, and who goes first."""

from __future__ import annotations

import pytest

from daphne_ng.wire.http2.schedule import Schedule, parse_priority
from daphne_ng.wire.http2.windows import ReceiveWindow
from tests.support import h2
from tests.support.h2 import HELD, Http2Server


class TestReceiveWindow:
    def test_half_a_window_is_given_back_at_a_time(self) -> None:
        window = ReceiveWindow(1000, 1000)
        assert window.credit(499) == 0
        assert window.credit(1) == 500
        assert window.credit(499) == 0

    def test_it_doubles_while_nothing_is_held(self) -> None:
        window = ReceiveWindow(1000, 3000)
        assert [window.credit(500) for _ in range(2)] == [500, 1500]
        assert window.size == 2000
        assert [window.credit(1000) for _ in range(2)] == [1000, 2000]
        assert window.size == 3000
        assert window.credit(3000) == 3000

    def test_it_stays_as_it_is_while_something_is_held(self) -> None:
        window = ReceiveWindow(1000, 3000)
        for _ in range(10):
            window.credit(400)
            window.hold(600)
            window.release()
        assert window.size == 1000


class TestInbound:
    def test_a_client_sends_as_much_as_it_likes_to_an_application_that_keeps_up(self) -> None:
        server = Http2Server()
        stream = server.request(b"POST", end=False)
        for _ in range(500):
            server.send(stream, b"x" * 16384)
        assert len(server.sink.body) == 500 * 16384
        assert server.stream.window is not None
        assert server.stream.window.size == 1024 * 1024
        assert len(server.client.frames_of(h2.WINDOW_UPDATE)) < 60

    def test_a_full_sink_stops_its_client_and_no_other(self) -> None:
        server = Http2Server(inbox_high=65536)
        slow = server.request(b"POST", end=False)
        sent = 0
        while room := min(server.client.h2.local_flow_control_window(slow), 16384):
            server.send(slow, b"x" * room)
            sent += room
        assert sent <= 65536 + 2 * 65535
        fast = server.request(b"POST", end=False)
        server.sinks[1]._high = 1 << 60
        for _ in range(200):
            server.send(fast, b"x" * 16384)
        assert len(server.sinks[1].body) == 200 * 16384
        server.sinks[0].buffered = 0
        server.sinks[0].stream.consumed(sent)
        server.turn()
        assert server.client.h2.local_flow_control_window(slow) > 32768

    def test_a_window_does_not_grow_for_an_application_that_lags(self) -> None:
        server = Http2Server(inbox_high=30_000)
        stream = server.request(b"POST", end=False)
        for _ in range(100):
            while server.client.h2.local_flow_control_window(stream) >= 16384 and server.stream.request not in HELD:
                server.send(stream, b"x" * 16384)
            server.sink.buffered = 0
            server.stream.consumed(1)
            server.turn()
        assert server.stream.window is not None
        assert server.stream.window.size == 65535

    def test_all_that_is_held_on_a_connection_is_bounded(self) -> None:
        server = Http2Server(inbox_high=1, http2_connection_buffer_max_bytes=1024 * 1024)
        streams = [server.request(b"POST", end=False) for _ in range(100)]
        for stream in streams:
            while room := min(server.client.h2.local_flow_control_window(stream), 16384):
                server.send(stream, b"x" * room)
        held = sum(len(sink.body) for sink in server.sinks)
        assert held <= 2 * 1024 * 1024 + 65535
        assert server.h2._windows.held <= held
        # One that is taken lets the others go on.
        for sink in server.sinks:
            if sink.stream.request in HELD:
                sink.stream.consumed(1)
        server.turn()
        assert server.h2._windows.held == 0
        assert server.client.h2.outbound_flow_control_window >= 1024 * 1024 // 2

    def test_what_comes_for_a_stream_that_we_reset_is_given_back(self) -> None:
        server = Http2Server(auto_ack=False)
        server.sync()
        server.feed(h2.headers(1, h2.fields(b"POST"), end=False))
        server.stream.reset("no")
        server.turn()
        resets = len(server.client.frames_of(h2.RST_STREAM))
        for _ in range(1000):
            server.feed(h2.data(1, b"x" * 16384))
        assert server.failure is None
        assert len(server.client.frames_of(h2.RST_STREAM)) == resets
        given = sum(int.from_bytes(update, "big") for update in server.client.frames_of(h2.WINDOW_UPDATE, 0))
        assert given >= 1000 * 16384

    @pytest.mark.parametrize("padding", [0, 255])
    def test_padding_is_given_back(self, padding: int) -> None:
        server = Http2Server(inbox_high=1, auto_ack=False)
        server.sync()
        server.feed(h2.headers(1, h2.fields(b"POST"), end=False))
        for _ in range(200):
            server.feed(h2.data(1, b"x", padding=padding))
        window = server.stream.window
        assert window is not None
        assert window.held == 200


class TestOutbound:
    def test_a_slow_stream_delays_no_other(self) -> None:
        server = Http2Server(client={"initial_window_size": 1000}, auto_credit=False)
        slow = server.request()
        server.stream.start(200, [], b"x" * 100_000, False, False)
        server.turn()
        for _ in range(20):
            quick = server.request()
            server.answer(b"y" * 500)
            assert server.response(quick).complete
        assert len(server.response(slow).body) == 1000

    def test_writable_waits_for_the_streams_window(self) -> None:
        server = Http2Server(client={"initial_window_size": 0}, auto_credit=False)
        stream = server.request()
        server.stream.start(200, [], b"x" * 65535, False, False)
        assert server.stream.writable() is None
        server.stream.body(b"x", False)
        waiter = server.stream.writable()
        assert waiter is not None
        server.turn()
        assert not waiter.done()  # type: ignore[attr-defined]
        server.open_window(10_000, stream)
        assert not waiter.done()  # type: ignore[attr-defined]
        server.open_window(50_000, stream)
        assert waiter.done()  # type: ignore[attr-defined]

    def test_writable_waits_for_the_transport(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.driver.is_full = True
        waiter = server.stream.writable()
        assert waiter is not None
        server.stream.start(200, [], b"hello", True, False)
        server.turn()
        assert server.response(stream).status is None
        server.drain()
        assert waiter.done()  # type: ignore[attr-defined]
        assert server.response(stream).body == b"hello"

    @pytest.mark.parametrize("way", ["lose", "eof", "reset"])
    def test_those_who_wait_are_woken_by_the_end(self, way: str) -> None:
        server = Http2Server(client={"initial_window_size": 0}, auto_credit=False)
        server.request()
        server.stream.start(200, [], b"x" * 70_000, False, False)
        waiter = server.stream.writable()
        assert waiter is not None
        if way == "reset":
            server.feed(h2.rst(1))
        else:
            getattr(server, way)()
        assert waiter.done()  # type: ignore[attr-defined]
        assert server.stream.writable() is None

    def test_the_end_needs_no_window(self) -> None:
        server = Http2Server(client={"initial_window_size": 5}, auto_credit=False)
        stream = server.request()
        server.stream.start(200, [], b"12345", False, False)
        server.turn()
        server.stream.body(b"", True)
        assert server.response(stream).complete

    def test_a_window_that_shrinks_below_zero(self) -> None:
        server = Http2Server(auto_credit=False)
        stream = server.request()
        server.stream.start(200, [], b"x" * 100_000, True, False)
        server.turn()
        client = server.client.h2
        client.update_settings({h2.h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
        server.sync()
        server.open_window(65_000, stream)
        body = len(server.response(stream).body)
        assert body == 65535
        server.open_window(100_000, stream)
        assert server.response(stream).complete

    @pytest.mark.parametrize("reserved", ["of the connection", "of the stream"])
    def test_the_reserved_bit_of_an_update_is_ignored(self, reserved: str) -> None:
        server = Http2Server(auto_credit=False)
        stream = server.request()
        server.answer(b"x" * 66_000)
        assert len(server.response(stream).body) == 65535
        for of in (None, stream):
            server.client.h2.increment_flow_control_window(465, of)
        wire = bytearray(server.client.h2.data_to_send())
        assert bytes(wire) == h2.window_update(0, 465) + h2.window_update(stream, 465)
        wire[9 if reserved == "of the connection" else 22] |= 0x80
        server.feed(bytes(wire))
        assert server.state == "open"
        assert server.response(stream).complete

    def test_large_frames_where_the_client_allows_them(self) -> None:
        server = Http2Server(client={"max_frame_size": 1_000_000, "initial_window_size": 1_000_000}, auto_credit=False)
        server.client.h2.increment_flow_control_window(1_000_000)
        stream = server.request()
        server.answer(b"x" * 200_000)
        assert max(map(len, server.client.frames_of(h2.DATA, stream))) == 65536
        assert server.response(stream).body == b"x" * 200_000


def order(server: Http2Server) -> list[int]:
    """The streams of DATA frames in the order in which they came, repetitions left out."""
    seen: list[int] = []
    for kind, _flags, stream, payload in server.client.frames:
        if kind == h2.DATA and payload and (not seen or seen[-1] != stream):
            seen.append(stream)
    return seen


def download(*priorities: bytes | None, size: int = 50_000) -> tuple[Http2Server, list[int]]:
    """Streams with these priorities that all have a body waiting, and a window for it."""
    server = Http2Server(client={"initial_window_size": 1_000_000}, auto_credit=False)
    server.open_window(10_000_000)
    server.driver.is_full = True
    numbers = []
    for priority in priorities:
        names = [(b"priority", priority)] if priority is not None else []
        numbers.append(server.request(b"GET", b"/", *names))
    for sink in server.sinks:
        sink.stream.start(200, [], b"x" * size, True, False)
    return server, numbers


class TestPriority:
    @pytest.mark.parametrize(
        ("value", "urgency", "incremental"),
        [
            (b"", 3, False), (b"u=0", 0, False), (b"u=7, i", 7, True), (b"i", 3, True),
            (b"i=?0", 3, False), (b"i=?1 , u=2", 2, True), (b"u=8", 3, False), (b"u=-1", 3, False),
            (b"u=1;x, y=(a b)", 3, False), (b"\xff,,,,u=1", 1, False), (b"u=1,u=5", 5, False),
        ],
    )  # fmt: skip
    def test_of_a_field(self, value: bytes, urgency: int, incremental: bool) -> None:
        assert parse_priority(value) == (urgency, incremental)

    def test_of_a_request_without_the_field(self) -> None:
        server = Http2Server()
        server.request()
        assert (server.stream.urgency, server.stream.incremental) == (3, True)

    def test_streams_without_one_share(self) -> None:
        server, numbers = download(None, None, None)
        server.drain()
        assert order(server)[:6] == numbers * 2

    def test_the_urgent_go_first(self) -> None:
        server, numbers = download(b"u=5", b"u=1", b"u=3")
        server.drain()
        assert order(server) == [numbers[1], numbers[2], numbers[0]]

    def test_those_that_are_of_no_use_in_parts_go_one_by_one(self) -> None:
        server, numbers = download(b"u=3", b"u=3", b"u=3")
        server.drain()
        assert order(server) == numbers

    def test_the_incremental_share_with_the_first_of_the_others(self) -> None:
        server, numbers = download(b"u=3", b"u=3", b"u=3, i")
        server.drain()
        seen = order(server)
        assert seen[:4] in ([numbers[0], numbers[2]] * 2, [numbers[2], numbers[0]] * 2)
        assert numbers[1] not in seen[:5]

    def test_an_update_changes_the_order(self) -> None:
        server, numbers = download(b"u=3", b"u=3", b"u=3")
        server.feed(h2.priority_update(numbers[2], b"u=0"))
        server.drain()
        assert order(server)[0] == numbers[2]

    def test_an_update_may_come_before_the_request(self) -> None:
        server = Http2Server()
        server.feed(h2.priority_update(1, b"u=0"))
        server.request(b"GET", b"/", (b"priority", b"u=5"))
        assert server.stream.urgency == 0
        server.feed(b"".join(h2.priority_update(n, b"u=0") for n in range(1001, 1181, 2)))
        assert len(server.h2._inbound._priorities) <= 100

    def test_an_update_may_come_in_the_same_read_as_the_request(self) -> None:
        server = Http2Server()
        server.feed(h2.priority_update(1, b"u=1") + h2.headers(1) + h2.headers(3) + h2.priority_update(3, b"u=2"))
        assert [sink.stream.urgency for sink in server.sinks] == [1, 2]

    def test_a_less_urgent_one_is_served_while_the_urgent_is_blocked(self) -> None:
        server = Http2Server(client={"initial_window_size": 20_000}, auto_credit=False)
        server.open_window(10_000_000)
        server.driver.is_full = True
        urgent = server.request(b"GET", b"/", (b"priority", b"u=0"))
        other = server.request(b"GET", b"/", (b"priority", b"u=7"))
        for sink in server.sinks:
            sink.stream.start(200, [], b"x" * 20_001, True, False)
        server.drain()
        assert len(server.response(other).body) == 20_000
        server.open_window(1, urgent)
        assert server.response(urgent).complete

    def test_one_stream_alone_touches_no_schedule(self) -> None:
        server, _numbers = download(b"u=3")
        server.drain()
        assert server.h2._sender._schedule is None
        server.drain()
        assert server.response(1).complete


class TestSchedule:
    def test_levels_form_a_chain(self) -> None:
        schedule = Schedule()
        for stream, urgency in ((1, 5), (3, 1), (5, 7), (7, 3), (9, 0)):
            schedule.add(stream, urgency, True)
        seen = []
        while len(schedule):
            stream = schedule.next()
            assert schedule.next() == stream
            seen.append(stream)
            schedule.remove(stream)
        assert seen == [9, 3, 7, 1, 5]

    def test_an_older_stream_that_joins_later_goes_first(self) -> None:
        schedule = Schedule()
        schedule.add(5, 3, False)
        schedule.add(3, 3, False)
        assert schedule.next() == 3
        schedule.remove(3)
        assert schedule.next() == 5
        schedule.remove(99)

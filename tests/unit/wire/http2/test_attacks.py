"""The attacks on HTTP/2 servers, each by its name, with the bound that stops it."""

from __future__ import annotations

import pytest

from daphne_ng.wire.http2.states import ENDING, OVER
from tests.support import h2
from tests.support.h2 import Http2Server, fields


def ended_calmly(server: Http2Server) -> bool:
    """GOAWAY ENHANCE_YOUR_CALM, one line for the logs, and every exchange knows."""
    return (
        server.failure == h2.ENHANCE_YOUR_CALM
        and server.client.goaways[-1][1] == h2.ENHANCE_YOUR_CALM
        and server.state in ("half", "closed")
        and all(sink.reason for sink in server.sinks if sink.stream.response < ENDING or sink.stream._cut_short)
        and server.idle
    )


class TestRapidReset:
    """CVE-2023-44487."""

    def test_requests_reset_in_the_same_read_never_reach_the_application(self) -> None:
        server = Http2Server()
        server.feed(b"".join(h2.headers(n) + h2.rst(n) for n in range(1, 301, 2)))
        assert not server.sinks
        assert server.failure is None

    def test_ends_the_connection_after_the_burst(self) -> None:
        server = Http2Server()
        for n in range(1, 2001, 2):
            server.feed(h2.headers(n), h2.rst(n))
            for sink in server.sinks[-1:]:
                sink.stream.task_ended()
            if server.state != "open":
                break
        assert ended_calmly(server)
        assert len(server.sinks) == 201

    def test_a_browser_that_cancels_a_hundred_slow_requests_is_not_a_flood(self) -> None:
        server = Http2Server()
        for page in range(3):
            numbers = [server.request(b"GET", b"/slow") for _ in range(100)]
            assert len(server.sinks) == 100 * (page + 1)
            server.feed(b"".join(h2.rst(n) for n in numbers))
            assert all(sink.reason == "the client reset the stream" for sink in server.sinks)
            for sink in server.sinks:
                sink.stream.task_ended()
            server.advance(5)
        assert server.failure is None

    def test_a_large_download_earns_no_resets(self) -> None:
        server = Http2Server(client={"initial_window_size": 2**31 - 1}, auto_credit=False)
        server.open_window(2**30)
        server.request()
        server.stream.start(200, [], b"", False, False)
        for _ in range(500):
            server.stream.body(bytes(16384), False)
            server.turn()
        began = len(server.sinks)
        for n in range(3, 2001, 2):
            server.feed(h2.headers(n), h2.rst(n))
            server.sinks[-1].stream.task_ended()
            if server.state != "open":
                break
        assert ended_calmly(server)
        assert len(server.sinks) - began <= 202

    def test_responses_earn_no_more_resets_than_the_burst(self) -> None:
        server = Http2Server(h2.echo, http2_reset_rate=0)
        for _ in range(1000):
            server.request()
        first = server.client.h2.get_next_available_stream_id()
        server.feed(b"".join(h2.headers(n) + h2.rst(n) for n in range(first, first + 798, 2)))
        assert server.failure is None
        server.feed(b"".join(h2.headers(n) + h2.rst(n) for n in range(first + 798, first + 804, 2)))
        assert server.failure == h2.ENHANCE_YOUR_CALM

    def test_no_more_tasks_run_than_streams_are_allowed(self) -> None:
        """The application of a stream that was reset still counts."""
        server = Http2Server(http2_max_concurrent_streams=10)
        for n in range(1, 101, 2):
            server.feed(h2.headers(n), h2.rst(n))
        assert len(server.sinks) == 10
        server.feed(h2.headers(101))
        assert server.client.frames_of(h2.RST_STREAM, 101) == [b"\0\0\0\x07"]  # REFUSED_STREAM
        server.sinks[0].stream.task_ended()
        server.feed(h2.headers(103))
        assert len(server.sinks) == 11

    def test_a_task_that_goes_on_after_its_response_does_not_count(self) -> None:
        """Background work of frameworks: the client cannot know of it, and has obeyed the limit."""
        server = Http2Server(http2_max_concurrent_streams=2)
        for _ in range(5):
            server.request()
            server.stream.start(200, [], b"", True, False)
            server.turn()
        assert len(server.sinks) == 5


class TestMadeYouReset:
    """CVE-2025-8671: the resets that we are provoked to send."""

    @pytest.mark.parametrize(
        "provocation",
        {
            "a window update of 0": lambda n: h2.window_update(n, 0),
            "a window that overflows": lambda n: h2.window_update(n, 2**31 - 1),
            "data behind the end": lambda n: h2.data(n, b"x"),
            "headers behind the end": lambda n: h2.headers(n),
            "a PRIORITY of the wrong size": lambda n: h2.frame(h2.PRIORITY, 0, n, b"123"),
            "a PRIORITY that depends on itself": lambda n: h2.priority(n, n),
        }.items(),
        ids=lambda item: item[0],
    )
    def test_ends_the_connection(self, provocation: tuple[str, object]) -> None:
        make = provocation[1]
        server = Http2Server(http2_control_burst=10_000)
        for n in range(1, 2001, 2):
            server.feed(h2.headers(n))
            server.feed(make(n))  # type: ignore[operator]
            if server.state != "open":
                break
            assert server.sink.reason
            server.sink.stream.task_ended()
        assert ended_calmly(server)
        assert len(server.sinks) == 201

    def test_malformed_requests(self) -> None:
        server = Http2Server()
        for n in range(1, 2001, 2):
            server.feed(h2.headers(n, [(b":method", b"GET")]))
        assert ended_calmly(server)
        assert len(server.driver.refusals) == 200

    def test_refused_streams(self) -> None:
        server = Http2Server(http2_max_concurrent_streams=1)
        server.feed(b"".join(h2.headers(n) for n in range(1, 501, 2)))
        assert ended_calmly(server)
        # The block of each was decoded, or the tables would be out of step.
        server = Http2Server(http2_max_concurrent_streams=1)
        server.request()
        refused = server.request(b"GET", b"/", (b"x-new", b"in the table"))
        assert server.response(refused).reset == h2.REFUSED_STREAM
        server.answer()
        server.request(b"GET", b"/", (b"x-new", b"in the table"))
        assert (b"x-new", b"in the table") in server.sink.head.headers


FLOODS = {
    "ping (CVE-2019-9512)": lambda n: h2.ping(),
    "ping acknowledgements": lambda n: h2.ping(ack=True),
    "settings (CVE-2019-9515)": lambda n: h2.settings((3, n)),
    "settings acknowledgements": lambda n: h2.settings(ack=True),
    "priority (CVE-2019-9513)": lambda n: h2.priority(2 * n + 1),
    "priority updates": lambda n: h2.priority_update(2 * n + 1, b"u=%d" % (n % 8)),
    "empty data (CVE-2019-9518)": lambda n: h2.data(1),
    "padding only": lambda n: h2.data(1, b"", padding=0),
    "goaway": lambda n: h2.goaway(),
}


class TestFloods:
    @pytest.mark.parametrize("flood", FLOODS)
    def test_of_frames_that_carry_nothing(self, flood: str) -> None:
        server = Http2Server()
        server.feed(h2.headers(1, fields(b"POST"), end=False))
        before = sum(map(len, server.driver.written))
        server.feed(b"".join(FLOODS[flood](n) for n in range(100_000)))
        assert ended_calmly(server)
        assert sum(map(len, server.driver.written)) - before < 20_000

    @pytest.mark.parametrize("flood", FLOODS)
    def test_a_client_with_some_of_them_is_none(self, flood: str) -> None:
        server = Http2Server()
        server.feed(h2.headers(1, fields(b"POST"), end=False))
        for n in range(500):
            server.feed(FLOODS[flood](n))
            server.advance(0.1)
        assert server.failure is None

    @pytest.mark.parametrize("flood", FLOODS)
    def test_what_was_earned_is_spent_at_last(self, flood: str) -> None:
        """Whoever has had ten thousand messages and requests may send some thousand frames more, and then no more."""
        server = Http2Server(h2.echo, client={"initial_window_size": 2**31 - 1}, auto_credit=False)
        server.open_window(2**30)
        for _ in range(300):
            server.request()
        upload = server.request(b"POST", end=False)
        server.stream.start(200, [], b"", False, False)
        for _ in range(3000):
            server.stream.body(b"event", False)
            server.turn()
        wire = FLOODS[flood](1)
        if wire[3] == h2.DATA:
            wire = h2.data(upload) if len(wire) == 9 else h2.data(upload, b"", padding=0)
        server.feed(wire * 4500)
        assert ended_calmly(server)

    def test_of_window_updates(self) -> None:
        server = Http2Server()
        server.feed(b"".join(h2.window_update(0, 1) for _ in range(10_000)))
        assert ended_calmly(server)

    def test_a_client_that_gives_back_every_byte_at_once_is_none(self) -> None:
        server = Http2Server()
        stream = server.request()
        server.stream.start(200, [], b"", False, False)
        for _ in range(2000):
            server.stream.body(b"event", False)
            server.turn()
            server.feed(h2.window_update(stream, 5) + h2.window_update(0, 5))
        assert server.failure is None

    def test_a_client_that_gives_back_what_it_has_read_whenever_it_sends_is_none(self) -> None:
        """grpc-core: many small messages came in one frame, and it has one to send for each that it reads."""
        server = Http2Server()
        stream = server.request(b"POST", end=False)
        server.stream.start(200, [], bytes(64 * 105), False, False)
        server.turn()
        for _ in range(2000):
            server.feed(h2.data(stream, bytes(105)) + h2.window_update(stream, 105) + h2.window_update(0, 105))
        assert server.failure is None

    def test_a_client_that_opens_its_windows_byte_by_byte_is_one(self) -> None:
        server = Http2Server(client={"initial_window_size": 0}, auto_credit=False)
        stream = server.request()
        server.stream.start(200, [], b"x" * 80_000, True, False)
        server.turn()
        for _ in range(2000):
            if server.state != "open":
                break
            server.open_window(1, stream)
        assert ended_calmly(server)

    def test_of_unknown_frames_gets_no_answer(self) -> None:
        server = Http2Server()
        written = len(server.driver.written)
        server.feed(h2.frame(0xFA, 0xFF, 77, b"grease") * 90)
        assert server.failure is None
        assert len(server.driver.written) == written
        server.feed(h2.frame(0xFA, 0xFF, 77, b"grease") * 1000)
        assert ended_calmly(server)

    def test_settings_that_nobody_knows_are_not_kept(self) -> None:
        server = Http2Server()
        for start in range(0, 65536, 2048):
            server.feed(h2.settings(*((code, 1) for code in range(start, start + 2048) if code > 9)))
        assert len(server.h2._engine.remote_settings) < 12
        assert server.failure is None

    def test_answers_are_not_heaped_up_for_a_client_that_does_not_read(self) -> None:
        """CVE-2019-9517."""
        server = Http2Server(http2_control_burst=1_000_000)
        server.driver.is_full = True
        fed = 0
        while server.driver.reading:
            server.feed(h2.ping() * 100)
            fed += 100
        assert 65536 <= fed * 17 <= 65536 + 1700
        assert server.h2._engine.output.size <= 65536 + 1700
        server.drain()
        assert server.driver.reading
        assert server.h2._engine.output.size == 0


class TestHeaderBlocks:
    @pytest.mark.parametrize("payload", [b"", b"x" * 16_000], ids=["empty", "full"])
    def test_continuation_flood(self, payload: bytes) -> None:
        """CVE-2024-27316 and its kin."""
        server = Http2Server()
        server.feed(h2.frame(h2.HEADERS, 0, 1, b"\x82"))
        count = 0
        while server.state == "open":
            server.feed(h2.continuation(1, payload))
            count += 1
        assert ended_calmly(server)
        assert count <= 9

    def test_a_large_head_may_come_in_many_small_frames(self) -> None:
        """A cookie of 50 KiB in frames of 1 KiB: the bytes are what is limited."""
        server = Http2Server()
        whole = h2.block([*fields(), (b"cookie", b"c" * 50_000)])
        parts = [whole[at : at + 1100] for at in range(0, len(whole), 1100)]
        server.feed(h2.frame(h2.HEADERS, h2.END_STREAM, 1, parts[0]))
        server.feed(b"".join(h2.continuation(1, part, part is parts[-1]) for part in parts[1:]))
        assert server.failure is None
        assert (b"cookie", b"c" * 50_000) in server.sink.head.headers

    def test_a_block_that_never_ends(self) -> None:
        server = Http2Server()
        server.feed(h2.frame(h2.HEADERS, 0, 1, b"\x82"))
        server.advance(10)
        server.feed(h2.continuation(1, b"\x82"))
        server.advance(9)
        assert server.state == "open"
        server.advance(2)
        assert ended_calmly(server)

    def test_a_frame_that_dribbles(self) -> None:
        server = Http2Server()
        for byte in h2.headers(1)[:-1]:
            server.feed(bytes((byte,)))
            server.advance(1)
            if server.state != "open":
                break
        assert ended_calmly(server)

    def test_a_client_whose_reads_always_end_within_a_head_is_none(self) -> None:
        server = Http2Server(h2.echo)
        wire = b"".join(h2.headers(n) for n in range(1, 41, 2))
        step = len(h2.headers(1))
        server.feed(wire[:20])
        for at in range(20, len(wire), step):
            server.advance(15)
            server.feed(wire[at : at + step])
            assert server.state == "open"
        assert len(server.sinks) == 20

    def test_a_preface_that_dribbles(self) -> None:
        server = Http2Server(begin=False)
        for byte in h2.PREFACE:
            server.feed(bytes((byte,)))
            server.advance(1)
            if server.state != "open":
                break
        assert server.failure == h2.ENHANCE_YOUR_CALM

    def test_a_bomb(self) -> None:
        """CVE-2016-6581: one entry of the table, referred to again and again."""
        server = Http2Server()
        entry = b"\x40" + h2._string(b"x") + h2._string(b"y" * 4000)
        server.feed(h2.headers(1))
        server.feed(h2.frame(h2.HEADERS, 5, 3, h2.block(fields()) + entry + b"\xbe" * 10_000))
        assert ended_calmly(server)

    def test_a_list_beyond_the_limit_is_answered_and_the_tables_stay_in_step(self) -> None:
        server = Http2Server()
        stream = server.request(b"GET", b"/", (b"x-long", b"y" * 66_000))
        assert server.response(stream).status == 431
        server.request(b"GET", b"/", (b"x-short", b"y"))
        assert (b"x-short", b"y") in server.sink.head.headers


class TestStalls:
    def test_a_closed_window_of_a_stream(self) -> None:
        """CVE-2019-9511."""
        server = Http2Server(client={"initial_window_size": 10}, auto_credit=False)
        stalled = server.request()
        server.stream.start(200, [], b"x" * 1000, False, False)
        quiet = server.request()
        server.stream.start(200, [], b"x" * 5, False, False)
        server.advance(61)
        assert server.response(stalled).reset == h2.CANCEL
        assert server.sinks[0].reason
        assert server.response(quiet).reset is None
        assert server.failure is None

    def test_a_closed_window_of_the_connection(self) -> None:
        server = Http2Server(client={"initial_window_size": 1_000_000}, auto_credit=False)
        server.request()
        server.stream.start(200, [], b"x" * 100_000, False, False)
        server.turn()
        server.advance(61)
        assert ended_calmly(server)

    def test_a_closed_window_is_forgotten_with_the_last_stream_that_waited_for_it(self) -> None:
        server = Http2Server()
        server.client.auto_credit = False
        stream = server.request()
        server.stream.start(200, [], bytes(200_000), True, False)
        server.turn()
        server.feed(h2.window_update(stream, 200_000))
        server.feed(h2.rst(stream))
        server.feed(h2.window_update(0, 1_000_000))
        upload = server.request(b"POST", end=False)
        for _ in range(5):
            server.advance(30)
            server.send(upload, b"x")
        assert server.failure is None

    def test_a_slow_reader_that_moves_is_served(self) -> None:
        server = Http2Server(client={"initial_window_size": 8000}, auto_credit=False)
        stream = server.request()
        server.stream.start(200, [], b"x" * 80_000, True, False)
        for _ in range(9):
            server.advance(24)
            server.open_window(8000, stream)
        assert server.response(stream).complete
        assert server.driver.stalls == []

    def test_a_window_that_opens_byte_by_byte_holds_no_stream_for_ever(self) -> None:
        server = Http2Server(client={"initial_window_size": 10}, auto_credit=False)
        stream = server.request()
        server.stream.start(200, [], b"x" * 1000, False, False)
        for _ in range(63):
            server.advance(1)
            if server.stream.response == OVER:
                break
            server.open_window(1, stream)
        assert server.response(stream).reset == h2.CANCEL
        assert server.driver.stalls == [stream]  # it has a line in the log
        assert server.failure is None

    def test_a_window_that_opens_byte_by_byte_holds_no_connection_for_ever(self) -> None:
        server = Http2Server(client={"initial_window_size": 1_000_000}, auto_credit=False)
        server.request()
        server.stream.start(200, [], b"x" * 100_000, False, False)
        server.turn()
        for _ in range(63):
            server.advance(1)
            if server.failure is not None:
                break
            server.open_window(1)
        assert ended_calmly(server)

    def test_only_the_time_in_which_the_window_was_closed_counts(self) -> None:
        server = Http2Server(client={"initial_window_size": 100}, auto_credit=False)
        stream = server.request()
        server.stream.start(200, [], b"x" * 300, False, False)
        server.turn()
        server.advance(50)
        server.open_window(1000, stream)
        server.advance(100)  # the application makes nothing
        server.stream.body(b"x" * 2000, False)
        server.turn()
        server.advance(50)
        assert server.stream.response != OVER
        server.advance(15)
        assert server.response(stream).reset == h2.CANCEL

    def test_a_starved_stream_that_is_cancelled_leaves_no_trace(self) -> None:
        server = Http2Server(client={"initial_window_size": 1_000_000}, auto_credit=False)
        stream = server.request()
        server.stream.start(200, [], b"x" * 100_000, False, False)
        server.turn()
        server.client.h2.reset_stream(stream)
        server.sync()
        server.request()
        server.advance(1000)
        assert server.failure is None

    def test_windows_of_others_do_not_help_a_stalled_stream(self) -> None:
        server = Http2Server(client={"initial_window_size": 10}, auto_credit=False)
        stalled = server.request()
        server.stream.start(200, [], b"x" * 1000, False, False)
        server.turn()
        for _ in range(13):
            server.advance(5)
            server.open_window(1000)
        assert server.response(stalled).reset == h2.CANCEL

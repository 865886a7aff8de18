"""Time: what happens when a client, or the application, takes too long. The clock is the test's."""

from __future__ import annotations

import pytest

from tests.support.h1 import Http1Server, Replies, bytewise, chunked, request

UPLOAD = request(b"/", b"Content-Length: 1000", method=b"POST")


class TestHead:
    def test_a_connection_that_says_nothing_is_closed_silently(self) -> None:
        server = Http1Server(head_timeout=20)
        server.advance(19.9)
        assert server.state == "open"
        server.advance(0.2)
        assert server.state == "closed"
        assert server.reply == b""

    def test_slowloris_bytes_do_not_extend_the_deadline(self) -> None:
        server = Http1Server(head_timeout=20).feed(b"G")
        for byte in bytewise(b"ET / HTTP/1.1\r\nHost: test\r\nA: b\r\n")[:19]:
            server.advance(1)
            assert server.state == "open"
            server.feed(byte)
        server.advance(1.1)
        assert server.statuses == [408]
        assert server.state == "half"
        assert server.sinks == []

    def test_slowloris_on_a_kept_connection(self) -> None:
        server = Http1Server(Replies(), head_timeout=20, keep_alive_timeout=75).feed(request(b"/1"))
        server.advance(50)
        server.feed(b"GET / HTTP/1.1\r\n")
        for _ in range(19):
            server.advance(1)
            server.feed(b"a")
        server.advance(1.1)
        assert server.statuses == [200, 408]
        assert server.state == "half"

    def test_a_head_that_began_while_another_was_served_has_its_time_from_the_answer(self) -> None:
        server = Http1Server(head_timeout=20).feed(request(b"/1") + b"GET /2 HTT")
        server.advance(100)
        server.answer()
        server.advance(19.9)
        assert server.state == "open"
        server.advance(0.2)
        assert server.statuses == [200, 408]

    def test_a_head_in_time_disarms_it(self) -> None:
        server = Http1Server(head_timeout=20).feed(b"GET / HTTP/1.1\r\n")
        server.advance(19)
        server.feed(b"Host: test\r\n\r\n")
        server.advance(1000)
        server.answer()
        assert server.statuses == [200]

    def test_empty_lines_are_no_request_to_answer(self) -> None:
        server = Http1Server(head_timeout=20)
        for _ in range(19):
            server.advance(1)
            server.feed(b"\r\n")
        server.advance(1.1)
        assert server.state == "closed"
        assert server.reply == b""

    def test_zero_means_no_limit(self) -> None:
        server = Http1Server(Replies(), head_timeout=0, keep_alive_timeout=0).feed(b"GET / ")
        server.advance(10000)
        server.feed(b"HTTP/1.1\r\nHost: test\r\n\r\n")
        server.advance(10000)
        assert server.statuses == [200]
        assert server.state == "open"


class TestKeepAlive:
    def test_an_idle_connection_is_closed_silently(self) -> None:
        server = Http1Server(Replies(), keep_alive_timeout=75, head_timeout=20).feed(request(b"/"))
        server.advance(74.9)
        assert server.state == "open"
        written = server.reply
        server.advance(0.2)
        assert server.state == "closed"
        assert server.reply == written, "a 408 would be taken for the answer to the next request"

    def test_each_request_starts_it_anew(self) -> None:
        server = Http1Server(Replies(), keep_alive_timeout=75)
        for _ in range(4):
            server.feed(request(b"/"))
            server.advance(70)
        assert server.statuses == [200] * 4
        assert server.state == "open"

    def test_it_does_not_run_while_a_request_is_served(self) -> None:
        server = Http1Server(keep_alive_timeout=75).feed(request(b"/"))
        server.advance(10000)
        assert server.state == "open"
        server.answer()
        assert server.statuses == [200]

    def test_an_empty_line_after_a_body_leaves_it_silent_and_long(self) -> None:
        # RFC 9112 section 2.2: some clients send CRLF after a POST; it must not count as a request begun.
        server = Http1Server(Replies(), keep_alive_timeout=75, head_timeout=20)
        server.feed(request(b"/", method=b"POST", body=b"x"), b"\r\n")
        server.advance(74)
        assert server.state == "open"
        server.advance(2)
        assert server.state == "closed"
        assert server.statuses == [200]


class TestBody:
    def test_a_body_that_stops_is_408(self) -> None:
        server = Http1Server(body_timeout=60).feed(UPLOAD + b"b")
        server.advance(59.9)
        assert server.state == "open"
        server.advance(0.2)
        assert server.sink.reason
        assert not server.sink.ended
        assert server.statuses == [408]
        assert server.state == "half"

    def test_progress_extends_it(self) -> None:
        server = Http1Server(body_timeout=60).feed(UPLOAD)
        for _ in range(10):
            server.advance(50)
            server.feed(b"b" * 100)
        assert server.sink.ended
        server.advance(1000)
        server.answer()
        assert server.statuses == [200]

    def test_a_body_that_stops_cuts_a_response_that_has_begun(self) -> None:
        server = Http1Server(body_timeout=60).feed(UPLOAD)
        server.port.start(200, [], b"begun", False, False)
        server.advance(61)
        assert server.sink.reason
        assert server.state == "aborted"
        (response,) = server.responses()
        assert not response.complete

    def test_it_runs_for_a_waiting_request_from_when_it_begins(self) -> None:
        server = Http1Server(body_timeout=60).feed(request(b"/slow") + UPLOAD)
        server.advance(1000)
        assert server.state == "open"
        server.answer()
        server.advance(59)
        assert server.state == "open"
        server.advance(2)
        assert server.statuses == [200, 408]

    def test_while_reading_is_paused_the_application_has_its_own_time(self) -> None:
        server = Http1Server(inbox_high=100, body_timeout=60, paused_read_timeout=300).feed(UPLOAD + b"b" * 100)
        assert not server.driver.reading
        server.advance(299)
        assert server.state == "open"
        server.advance(2)
        assert server.sink.reason
        assert server.statuses == [408]

    def test_resuming_starts_the_clients_time_anew(self) -> None:
        server = Http1Server(inbox_high=100, body_timeout=60, paused_read_timeout=300).feed(UPLOAD + b"b" * 100)
        server.advance(250)
        server.sink.buffered = 0
        server.port.consumed(100)
        server.advance(59)
        assert server.state == "open"
        server.advance(2)
        assert server.statuses == [408]

    def test_zero_means_no_limit(self) -> None:
        server = Http1Server(inbox_high=100, body_timeout=0).feed(UPLOAD + b"b")
        server.advance(100000)
        assert server.state == "open"


class TestApplication:
    def test_the_exchange_is_told_once(self) -> None:
        server = Http1Server(http_timeout=10).feed(request(b"/"))
        server.advance(9.9)
        assert server.sink.expirations == 0
        server.advance(0.2)
        server.advance(100)
        assert server.sink.expirations == 1
        server.answer(status=503)
        assert server.statuses == [503]

    def test_each_exchange_has_its_own_time(self) -> None:
        server = Http1Server(http_timeout=10).feed(request(b"/1") + request(b"/2"))
        server.advance(8)
        server.answer()
        server.advance(8)
        assert server.sink.expirations == 0
        server.advance(3)
        assert server.sink.expirations == 1

    def test_it_does_not_run_on_an_idle_connection(self) -> None:
        server = Http1Server(Replies(), http_timeout=10, keep_alive_timeout=75).feed(request(b"/"))
        server.advance(74)
        assert server.sink.expirations == 0
        assert server.state == "open"

    def test_the_body_may_be_late_before_the_application_is(self) -> None:
        server = Http1Server(http_timeout=100, body_timeout=60).feed(UPLOAD)
        server.advance(61)
        assert server.sink.expirations == 0
        assert server.statuses == [408]

    def test_the_time_of_the_application_begins_when_the_request_is_complete(self) -> None:
        # Daphne starts its clock there too; a slow upload is the client's time.
        whole = request(b"/", method=b"POST", body=b"x" * 100)
        server = Http1Server(http_timeout=30, body_timeout=60).feed(whole[:-1])
        server.advance(31)
        assert server.sink.expirations == 0
        server.feed(whole[-1:])
        server.advance(29)
        assert server.sink.expirations == 0
        server.advance(2)
        assert server.sink.expirations == 1

    def test_off_by_default(self) -> None:
        server = Http1Server().feed(request(b"/"))
        assert server.h1.deadline == float("inf")


class TestDrain:
    """After an answer that came before the end of the request body, and has promised to go on."""

    def test_a_body_that_does_not_end_in_time_closes(self) -> None:
        server = Http1Server(body_timeout=60).feed(UPLOAD)
        server.answer()
        server.advance(59)
        assert server.state == "open"
        server.advance(1.1)
        assert server.state == "half"
        server.advance(5.1)
        assert server.state in ("closed", "aborted")
        assert server.statuses == [200]

    def test_its_bytes_do_not_extend_the_time(self) -> None:
        server = Http1Server(body_timeout=60).feed(UPLOAD)
        server.answer()
        for _ in range(9):
            server.advance(6)
            server.feed(b"b")
        assert server.state == "open"
        server.advance(6.1)
        assert server.state == "half"

    def test_without_a_time_for_bodies_there_is_none(self) -> None:
        server = Http1Server(body_timeout=0).feed(UPLOAD)
        server.answer()
        server.advance(10_000)
        assert server.state == "open"

    def test_the_applications_time_does_not_count_any_more(self) -> None:
        server = Http1Server(http_timeout=5).feed(UPLOAD)
        server.answer()
        server.advance(20)
        server.feed(b"b" * 1000)
        assert server.sink.expirations == 0
        assert server.h1.idle

    def test_a_body_that_ends_in_time_leaves_the_idle_deadline(self) -> None:
        server = Http1Server(keep_alive_timeout=75).feed(UPLOAD)
        server.answer()
        server.feed(b"b" * 1000)
        server.advance(74)
        assert server.state == "open"
        server.advance(2)
        assert server.state == "closed"


class TestClosing:
    def test_lingering_ends_with_a_pause(self) -> None:
        server = Http1Server(drain_timeout=30, drain_pause_timeout=5).feed(b"BROKEN\r\n\r\n")
        assert server.state == "half"
        for _ in range(5):
            server.advance(4.9)
            server.feed(b"more")
        assert server.state == "half"
        server.advance(5.1)
        assert server.state in ("closed", "aborted")

    def test_lingering_ends_for_one_that_never_pauses(self) -> None:
        server = Http1Server(drain_timeout=30, drain_pause_timeout=5).feed(b"BROKEN\r\n\r\n")
        for _ in range(29):
            server.advance(1)
            server.feed(b"more")
        assert server.state == "half"
        server.advance(1.1)
        assert server.state in ("closed", "aborted")

    def test_what_comes_when_lingering_is_over_does_not_extend_it(self) -> None:
        server = Http1Server(drain_timeout=30, drain_pause_timeout=5).feed(b"BROKEN\r\n\r\n")
        server.driver.now += 30  # the timer is late
        deadline = server.h1.deadline
        server.feed(b"more")
        assert server.h1.deadline == deadline
        server.advance(0)
        assert server.state == "closed"
        server.h1.receive_data(b"more")
        assert server.h1.deadline == server.driver.now + server.config.close_timeout

    def test_the_clients_end_ends_lingering_at_once(self) -> None:
        server = Http1Server(drain_timeout=1).feed(b"BROKEN\r\n\r\n")
        server.eof()
        assert server.state == "closed"

    def test_a_close_that_does_not_flush_is_aborted(self) -> None:
        server = Http1Server(Replies(), close_timeout=5).feed(request(b"/", b"Connection: close"))
        assert server.state == "closed"
        server.driver.unsent = 1000
        server.advance(60)
        assert server.state == "closed"
        server.advance(5.1)
        assert server.state == "aborted"
        assert server.driver.drops == 1  # it has a line in the log

    @pytest.mark.parametrize("close_timeout", [0, 0.2, 5])
    def test_a_pause_at_the_end_is_a_pause_like_any_other(self, close_timeout: float) -> None:
        server = Http1Server(Replies(), close_timeout=close_timeout, write_timeout=60)
        server.driver.unsent, server.driver.queued = 100_000, 4_000_000
        server.feed(request(b"/", b"Connection: close"))
        for _ in range(10):
            server.advance(59)
            assert server.state == "closed"
            server.driver.queued -= 20_000  # the kernel takes nothing meanwhile
        server.driver.unsent = server.driver.queued = 0
        server.advance(6)
        assert server.state == "released"
        assert server.driver.drops == 0

    def test_a_byte_a_second_holds_no_connection_for_ever(self) -> None:
        server = Http1Server(Replies(), write_timeout=60).feed(request(b"/", b"Connection: close"))
        server.driver.queued = 4_000_000
        for _ in range(70):
            server.driver.queued -= 1
            server.advance(1)
        assert server.state == "aborted"

    def test_a_client_that_takes_its_answer_is_not_idle(self) -> None:
        server = Http1Server(Replies(), keep_alive_timeout=10, write_timeout=60)
        server.feed(request(b"/"))
        server.driver.queued = 4_000_000
        for _ in range(5):
            server.advance(50)
            server.driver.queued -= 20_000
        assert server.state == "open"
        server.driver.queued = 0
        server.advance(5)
        assert server.state == "open"  # from now on it is
        server.advance(10)
        assert server.state == "closed"

    def test_one_that_does_not_take_it_is(self) -> None:
        server = Http1Server(Replies(), keep_alive_timeout=10, write_timeout=60).feed(request(b"/"))
        server.driver.queued = 4_000_000
        server.advance(10 + 60 + 5)
        assert server.state == "closed"
        server.advance(60 + 11)
        assert server.state == "aborted"

    def test_what_one_rest_has_seen_is_no_measure_for_the_next(self) -> None:
        server = Http1Server(Replies(), keep_alive_timeout=10, write_timeout=60).feed(request(b"/"))
        server.driver.queued = 100_000
        server.advance(11)  # it is slow this time
        server.driver.queued = 0
        for _ in range(7):
            server.feed(request(b"/"))
            server.advance(9)
        server.driver.queued = 4_000_000
        server.advance(2)
        assert server.state == "open"

    def test_a_server_that_stops_waits_for_no_idle_client(self) -> None:
        server = Http1Server(Replies(), shutdown_idle_timeout=2).feed(request(b"/"))
        server.driver.queued = 4_000_000
        server.h1.shut_down()
        server.advance(2.1)
        assert server.state == "closed"

    def test_nor_for_one_that_was_taking_its_answer(self) -> None:
        server = Http1Server(Replies(), keep_alive_timeout=10, shutdown_idle_timeout=2).feed(request(b"/"))
        server.driver.queued = 4_000_000
        server.advance(11)  # its time is over, and it still takes
        server.h1.shut_down()
        server.advance(2.1)
        assert server.state == "closed"

    def test_lingering_lasts_while_the_client_takes_its_answer(self) -> None:
        server = Http1Server(drain_timeout=1, close_timeout=0.2)
        server.driver.queued = 50_000
        server.feed(b"BROKEN\r\n\r\n")
        server.advance(50)
        assert server.state == "half"
        server.driver.queued = 0
        server.advance(7)
        assert server.state == "released"

    def test_a_client_that_has_vanished_is_told_goodbye_once(self) -> None:
        server = Http1Server(Replies(), keep_alive_timeout=10, close_timeout=5).feed(request(b"/"))
        server.advance(10)
        assert server.state == "closed"
        server.driver.queued = 25  # close_notify and a FIN, which nobody acknowledges
        server.advance(5)
        assert server.state == "released"
        assert server.driver.drops == 0

    def test_a_close_that_has_flushed_gives_the_socket_back_without_a_reset(self) -> None:
        server = Http1Server(Replies(), close_timeout=5).feed(request(b"/", b"Connection: close"))
        server.advance(5.1)
        assert server.state == "released"

    def test_a_lost_connection_has_no_deadline(self) -> None:
        server = Http1Server(http_timeout=5, body_timeout=5).feed(UPLOAD)
        server.lose()
        server.advance(100)
        assert server.sink.expirations == 0
        assert server.reply == b""
        assert server.state == "open"  # the driver was told nothing


class TestTimer:
    """One timer, lazily re-armed: the driver is asked to move it only to an earlier time."""

    def test_a_later_deadline_leaves_the_timer_alone(self) -> None:
        server = Http1Server(Replies(), head_timeout=20, keep_alive_timeout=75, head_memo_timeout=0)
        assert server.driver.timer == 1020
        server.feed(request(b"/"))
        assert server.driver.timer == 1020
        assert server.h1.deadline == 1075

    def test_an_earlier_deadline_moves_it(self) -> None:
        server = Http1Server(Replies(), head_timeout=20, keep_alive_timeout=75)
        server.feed(request(b"/"))
        server.advance(21)
        assert server.driver.timer == 1075
        server.feed(b"GET / ")
        assert server.driver.timer == 1041

    @pytest.mark.parametrize("body", [b"", chunked(b"x")])
    def test_a_call_before_the_deadline_does_nothing(self, body: bytes) -> None:
        server = Http1Server().feed(request(b"/", b"Transfer-Encoding: chunked", method=b"POST") + body)
        server.h1.deadline_passed(server.driver.now)
        assert server.state == "open"
        assert server.reply == b""

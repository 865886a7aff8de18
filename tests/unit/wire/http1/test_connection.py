"""Persistence and closing: who may go on after a response, and how a connection ends."""

from __future__ import annotations

import pytest

from tests.support.h1 import Http1Server, Replies, chunked, chunked_request, request

UPLOAD = request(b"/up", b"Content-Length: 1000", method=b"POST")


class TestKeepAlive:
    @pytest.mark.parametrize(
        ("version", "fields", "kept"),
        [
            (b"1.1", [], True),
            (b"1.1", [b"Connection: keep-alive"], True),
            (b"1.1", [b"Connection: close"], False),
            (b"1.1", [b"Connection: Close, Foo"], False),
            (b"1.1", [b"Connection: foo", b"Connection: close"], False),
            (b"1.0", [], False),
            (b"1.0", [b"Connection: keep-alive"], True),
            (b"1.0", [b"Connection: Keep-Alive, foo"], True),
            (b"1.0", [b"Connection: keep-alive, close"], False),
            (b"1.0", [b"Connection: foo"], False),
        ],
    )
    def test_by_version_and_connection_field(self, version: bytes, fields: list[bytes], kept: bool) -> None:
        server = Http1Server(Replies()).feed(request(b"/", *fields, version=version))
        (response,) = server.responses()
        assert (server.state == "open") is kept
        if kept:
            assert response.header(b"connection") == (b"keep-alive" if version == b"1.0" else None)
            server.feed(request(b"/next"))
            assert server.targets == [b"/", b"/next"]
        else:
            assert response.header(b"connection") == b"close"
            assert server.state == "closed"

    def test_http_1_0_needs_no_host(self) -> None:
        server = Http1Server(Replies()).feed(request(b"/", version=b"1.0", host=None))
        assert server.statuses == [200]
        assert server.head.http_version == "1.0"

    def test_the_application_may_close(self) -> None:
        server = Http1Server().feed(request(b"/"))
        server.answer(b"", (b"connection", b"Close"))
        (response,) = server.responses()
        assert response.header(b"connection") == b"close"
        assert server.state == "closed"

    def test_the_application_cannot_keep_what_the_client_closes(self) -> None:
        server = Http1Server().feed(request(b"/", b"Connection: close"))
        server.answer(b"", (b"connection", b"keep-alive"), (b"keep-alive", b"timeout=5"))
        (response,) = server.responses()
        assert response.header(b"connection") == b"close"
        assert response.header(b"keep-alive") is None

    def test_idle_tells_whether_a_request_is_served(self) -> None:
        server = Http1Server()
        assert server.h1.idle
        server.feed(request(b"/"))
        assert not server.h1.idle
        server.answer()
        assert server.h1.idle


class TestTurns:
    def test_the_next_exchange_begins_on_a_later_turn(self) -> None:
        server = Http1Server().feed(request(b"/1") + request(b"/2"))
        server.port.start(200, [], b"", True, False)
        assert server.targets == [b"/1"]
        assert server.driver.soon == 1
        server.turn()
        assert server.targets == [b"/1", b"/2"]

    def test_begin_next_after_the_end_does_nothing(self) -> None:
        server = Http1Server().feed(request(b"/1") + request(b"/2"))
        server.port.start(200, [], b"", True, False)
        server.lose()
        server.turn()
        assert server.targets == [b"/1"]


CLOSES = b"\r\nconnection: close\r\n"


class TestUnreadBody:
    """The application answers without having read the body: the head says whether the connection goes on."""

    def test_a_short_rest_is_read_and_the_connection_kept(self) -> None:
        server = Http1Server().feed(UPLOAD + b"b" * 10)
        server.answer(b"early")
        assert CLOSES not in server.reply
        server.feed(b"b" * 500)
        assert server.state == "open"
        server.feed(b"b" * 490 + request(b"/next"))
        server.answer(b"next")
        assert server.targets == [b"/up", b"/next"]
        assert server.statuses == [200, 200]
        assert server.sinks[0].body == b"b" * 10, "the rest was thrown away"

    def test_with_a_long_rest_the_head_says_close(self) -> None:
        server = Http1Server(drain_max_bytes=100).feed(request(b"/", b"Content-Length: 101", method=b"POST"))
        server.answer()
        assert CLOSES in server.reply
        assert server.state == "half"

    def test_a_rest_at_the_bound_is_read(self) -> None:
        server = Http1Server(drain_max_bytes=100).feed(request(b"/", b"Content-Length: 101", method=b"POST") + b"b")
        server.answer()
        assert CLOSES not in server.reply
        assert server.state == "open"
        server.feed(b"b" * 100)
        assert server.state == "open"
        assert server.h1.idle

    def test_with_chunks_to_come_the_head_says_close(self) -> None:
        data = chunked_request(b"b" * 50, b"b" * 50)
        for size in (70, len(data) - 1):
            server = Http1Server().feed(data[:size])
            server.answer()
            assert CLOSES in server.reply
            assert server.state == "half"
            server.feed(data[size:] + request(b"/next"))
            assert server.targets == [b"/"]

    def test_chunks_that_have_come_are_no_rest(self) -> None:
        server = Http1Server().feed(chunked_request(b"b" * 50))
        server.answer()
        assert CLOSES not in server.reply
        server.feed(request(b"/next"))
        assert server.targets == [b"/", b"/next"]

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    @pytest.mark.parametrize("method", [b"POST", b"HEAD"])
    @pytest.mark.parametrize("size", [100, 101])
    def test_whatever_the_method_and_the_version(self, size: int, method: bytes, version: bytes) -> None:
        length = b"Content-Length: %d" % size
        head = request(b"/", length, b"Connection: keep-alive", method=method, version=version)
        server = Http1Server(drain_max_bytes=100).feed(head)
        server.answer()
        assert (CLOSES in server.reply) == (size > 100)
        assert server.state == ("half" if size > 100 else "open")
        server.feed(b"b" * size + request(b"/next"))
        assert server.targets == [b"/", b"/next"][: 1 + (size <= 100)]

    def test_an_application_that_reads_on_gets_all_of_it_behind_any_head(self) -> None:
        server = Http1Server(drain_max_bytes=10).feed(UPLOAD + b"a" * 500)
        server.port.start(200, [], b"begun", False, False)
        assert CLOSES in server.reply
        server.feed(b"b" * 499)
        assert server.state == "open"
        server.feed(b"c")
        assert server.sink.ended
        server.port.body(b", done", True)
        server.turn()
        assert server.sink.body == b"a" * 500 + b"b" * 499 + b"c"
        (response,) = server.responses()
        assert (response.body, response.complete) == (b"begun, done", True)
        assert server.state == "closed"

    def test_an_application_that_reads_a_part_of_it_before_its_answer(self) -> None:
        server = Http1Server(drain_max_bytes=10).feed(UPLOAD + b"b" * 989)
        server.port.start(200, [], b"", False, False)
        assert CLOSES in server.reply, "it is what has come when the head is written that counts"
        server = Http1Server(drain_max_bytes=10).feed(UPLOAD + b"b" * 990)
        server.port.start(200, [], b"", False, False)
        assert CLOSES not in server.reply

    def test_an_expectation_that_was_never_answered_says_close(self) -> None:
        head = request(b"/", b"Content-Length: 10", b"Expect: 100-continue", method=b"POST")
        server = Http1Server().feed(head)
        server.answer()
        assert CLOSES in server.reply
        assert server.state == "half"

    @pytest.mark.parametrize("waited", [True, False])
    def test_an_expectation_whose_body_is_coming_is_an_upload_like_others(self, waited: bool) -> None:
        head = request(b"/", b"Content-Length: 10", b"Expect: 100-continue", method=b"POST")
        server = Http1Server().feed(head)
        if waited:
            server.port.informational(100, [])
        else:
            server.feed(b"b")
        server.answer()
        assert CLOSES not in server.reply
        server.feed(b"b" * (10 if waited else 9) + request(b"/next"))
        assert server.targets == [b"/", b"/next"]

    def test_a_rest_that_breaks_the_protocol_does_not_destroy_the_answer(self) -> None:
        server = Http1Server().feed(request(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
        server.answer(b"early")
        server.feed(b"5\r\nhelloXX0\r\n\r\n")
        assert server.state == "half"
        assert server.statuses == [200]

    def test_a_rest_beyond_the_body_limit_does_not_destroy_the_answer(self) -> None:
        server = Http1Server(body_max_bytes=10).feed(request(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
        server.answer(b"early")
        server.feed(chunked(b"b" * 11))
        assert server.state == "half"
        assert server.statuses == [200]

    def test_what_breaks_behind_a_kept_rest_is_answered(self) -> None:
        server = Http1Server().feed(UPLOAD)
        server.answer(b"early")
        server.feed(b"b" * 1000 + b"BROKEN\r\n\r\n")
        server.turn()
        assert server.statuses == [200, 501]

    def test_with_close_nothing_is_read(self) -> None:
        server = Http1Server().feed(request(b"/", b"Content-Length: 10", b"Connection: close", method=b"POST"))
        server.answer()
        assert server.state == "half"

    @pytest.mark.parametrize("late", [True, False])
    def test_a_server_that_stops_waits_for_a_kept_rest_as_for_a_last_request(self, late: bool) -> None:
        server = Http1Server(shutdown_idle_timeout=2).feed(UPLOAD)
        server.answer()
        server.advance(10)
        server.h1.shut_down()
        server.advance(1.5)
        assert server.state == "open"
        if late:
            server.advance(1)
            assert server.state == "half"
        else:
            server.feed(b"b" * 1000 + request(b"/last"))
            server.answer()
            assert [response.closes for response in server.responses()] == [False, True]

    def test_a_rest_that_is_kept_while_the_server_stops(self) -> None:
        server = Http1Server(shutdown_idle_timeout=2).feed(UPLOAD)
        server.port.start(200, [], b"", False, False)
        server.h1.shut_down()
        server.port.body(b"", True)
        server.port.abandon()
        server.advance(1.9)
        assert server.state == "open"
        server.advance(0.2)
        assert server.state == "half"

    def test_lingering_throws_away_what_comes(self) -> None:
        server = Http1Server(drain_max_bytes=10).feed(UPLOAD)
        server.answer()
        server.feed(b"b" * 1000, request(b"/next"))
        assert server.targets == [b"/up"]
        assert server.state == "half"
        assert server.driver.reading

    def test_lingering_reads_even_if_reading_was_paused(self) -> None:
        server = Http1Server(inbox_high=10, drain_max_bytes=10).feed(UPLOAD + b"b" * 10)
        assert not server.driver.reading
        server.answer()
        assert server.state == "half"
        assert server.driver.reading

    def test_the_response_may_go_on_after_the_body_has_ended(self) -> None:
        server = Http1Server().feed(UPLOAD)
        server.port.start(200, [], b"a", False, False)
        server.feed(b"b" * 1000)
        server.port.body(b"b", True)
        server.turn()
        assert server.state == "open"
        assert server.responses()[0].body == b"ab"


class TestRefusedByTheDriver:
    """The driver answers a request itself, through the port: too many run already."""

    @staticmethod
    def server(**settings: float) -> Http1Server:
        server = Http1Server(**settings)
        server.driver.refuse = lambda head: server.port.start(503, [(b"retry-after", b"1")], b"busy", True, False)
        return server

    def test_without_a_body_the_connection_is_kept(self) -> None:
        server = self.server().feed(request(b"/"), request(b"/"))
        assert server.statuses == [503, 503]
        assert server.state == "open"

    def test_pipelined(self) -> None:
        server = self.server().feed(request(b"/") * 3)
        assert server.statuses == [503] * 3

    def test_with_a_body_it_is_drained(self) -> None:
        server = self.server().feed(UPLOAD, b"b" * 1000)
        assert server.statuses == [503]
        assert server.state == "open"
        server.feed(request(b"/"))
        assert server.statuses == [503, 503]

    def test_with_a_body_that_does_not_come_it_closes(self) -> None:
        server = self.server(body_timeout=60).feed(UPLOAD)
        server.advance(59)
        assert server.state == "open"
        server.advance(2)
        assert server.state == "half"

    def test_with_a_large_body_it_says_so_and_closes(self) -> None:
        server = self.server().feed(request(b"/", b"Content-Length: 1000000", method=b"POST"))
        (response,) = server.responses()
        assert response.closes
        assert server.state == "half"

    def test_with_an_expectation_it_closes_at_once(self) -> None:
        server = self.server().feed(request(b"/", b"Content-Length: 10", b"Expect: 100-continue", method=b"POST"))
        (response,) = server.responses()
        assert response.closes
        assert server.state == "half"


class TestShutDown:
    @pytest.mark.parametrize("used", [True, False])
    def test_an_idle_connection_serves_what_was_on_its_way(self, used: bool) -> None:
        server = Http1Server(Replies(), shutdown_idle_timeout=2)
        if used:
            server.feed(request(b"/"))
        server.h1.shut_down()
        server.advance(1.9)
        assert server.state == "open"
        server.feed(request(b"/", b"Content-Length: 1", method=b"POST"))
        assert server.state == "open"
        server.feed(b"x")
        assert server.responses()[-1].header(b"connection") == b"close"
        assert server.state == "closed"

    @pytest.mark.parametrize("part", [b"", b"GET / HT"])
    def test_an_idle_connection_does_not_wait_for_long(self, part: bytes) -> None:
        server = Http1Server(shutdown_idle_timeout=2).feed(part)
        server.h1.shut_down()
        server.advance(2.1)
        assert server.statuses == ([408] if part else [])
        assert server.state == ("half" if part else "closed")

    def test_an_idle_connection_that_is_about_to_close_does_not_live_longer(self) -> None:
        server = Http1Server(Replies(), keep_alive_timeout=3, shutdown_idle_timeout=2).feed(request(b"/"))
        server.advance(2.5)
        server.h1.shut_down()
        server.advance(0.6)
        assert server.state == "closed"

    @pytest.mark.parametrize("settings", [{"shutdown_idle_timeout": 0}, {"graceful_timeout": 0}])
    def test_without_patience_an_idle_connection_closes(self, settings: dict[str, float]) -> None:
        server = Http1Server(Replies(), **settings).feed(request(b"/"))
        server.h1.shut_down()
        assert server.state == "closed"

    def test_what_is_served_is_finished_and_the_client_told(self) -> None:
        server = Http1Server().feed(request(b"/"))
        server.h1.shut_down()
        assert server.state == "open"
        server.answer(b"done")
        (response,) = server.responses()
        assert response.body == b"done"
        assert response.header(b"connection") == b"close"
        assert server.state == "closed"

    def test_a_response_that_has_begun_is_finished(self) -> None:
        server = Http1Server().feed(request(b"/"))
        server.port.start(200, [], b"a", False, False)
        server.h1.shut_down()
        server.port.body(b"b", True)
        (response,) = server.responses()
        assert response.complete
        assert response.header(b"connection") is None

    def test_a_client_whose_response_had_begun_is_told_with_the_next(self) -> None:
        server = Http1Server(shutdown_idle_timeout=2).feed(request(b"/"))
        server.port.start(200, [], b"a", False, False)
        server.h1.shut_down()
        server.port.body(b"b", True)
        assert server.state == "open"
        server.feed(request(b"/"))
        server.answer()
        assert server.responses()[-1].header(b"connection") == b"close"
        assert server.state == "closed"

    def test_pipelined_requests_are_served_and_the_last_is_told(self) -> None:
        server = Http1Server().feed(request(b"/1") + request(b"/2") + request(b"/3"))
        server.h1.shut_down()
        for _ in range(3):
            server.answer()
        responses = server.responses()
        assert [response.header(b"connection") for response in responses] == [None, None, b"close"]
        assert server.state == "closed"

    def test_between_two_exchanges(self) -> None:
        server = Http1Server().feed(request(b"/1") + request(b"/2"))
        server.port.start(200, [], b"", True, False)
        server.h1.shut_down()
        server.turn()
        server.answer()
        assert server.statuses == [200, 200]
        assert server.state == "closed"

    def test_an_unread_body_is_not_waited_for_long(self) -> None:
        server = Http1Server(drain_timeout=1).feed(UPLOAD)
        server.h1.shut_down()
        server.answer()
        server.advance(2.2)
        assert server.state in ("half", "closed")

    def test_twice_is_once(self) -> None:
        server = Http1Server()
        server.h1.shut_down()
        server.advance(1)
        server.h1.shut_down()
        server.advance(1.1)
        assert server.state == "closed"

    def test_a_connection_that_closes_already_is_left_alone(self) -> None:
        server = Http1Server().feed(b"BROKEN\r\n\r\n")
        server.h1.shut_down()
        assert server.state == "half"


class TestClientLeaves:
    def test_in_mid_request_is_one_disconnect(self) -> None:
        server = Http1Server().feed(request(b"/"))
        server.eof()
        assert server.sink.reason
        assert server.state == "closed"
        server.lose()  # RecordingSink fails on a second one

    def test_in_mid_body(self) -> None:
        server = Http1Server().feed(UPLOAD + b"b")
        server.lose()
        assert server.sink.reason
        assert not server.sink.ended

    def test_bytes_after_its_end_are_ignored(self) -> None:
        server = Http1Server().feed(UPLOAD + b"b")
        server.eof()
        server.h1.receive_data(b"b" * 2000)
        assert server.sink.body == b"b"

    def test_in_mid_response(self) -> None:
        server = Http1Server().feed(request(b"/"))
        server.port.start(200, [], b"a", False, False)
        server.eof()
        assert server.sink.reason
        (response,) = server.responses()
        assert response.body == b"a"
        assert not response.complete

    def test_idle_has_no_disconnect(self) -> None:
        server = Http1Server(Replies()).feed(request(b"/"))
        server.eof()
        assert server.sink.reason is None
        assert server.state == "closed"

    def test_waiting_requests_are_forgotten(self) -> None:
        server = Http1Server().feed(request(b"/1") + request(b"/2"))
        server.eof()
        server.turn()
        assert server.targets == [b"/1"]

    def test_in_mid_head(self) -> None:
        server = Http1Server().feed(b"GET / HT")
        server.eof()
        assert server.state == "closed"
        assert server.reply == b""

    def test_while_draining(self) -> None:
        server = Http1Server().feed(UPLOAD)
        server.answer()
        server.eof()
        assert server.state == "closed"
        assert server.sink.reason is None
        assert server.statuses == [200]


class TestReset:
    def test_aborts_so_that_the_truncation_shows(self) -> None:
        server = Http1Server().feed(request(b"/"))
        server.port.start(200, [], b"a", False, False)
        server.port.reset("the application failed")
        assert server.state == "aborted"
        assert server.sink.reason is None, "the exchange knows"
        server.lose()
        assert server.sink.reason is None

    def test_serves_nothing_after_it(self) -> None:
        server = Http1Server().feed(request(b"/1") + request(b"/2"))
        server.port.reset("the application failed")
        server.feed(request(b"/3"))
        server.turn()
        assert server.targets == [b"/1"]

    def test_abandon_after_a_short_body_touches_nothing(self) -> None:
        server = Http1Server(inbox_high=10).feed(UPLOAD + b"b" * 10)
        assert not server.driver.reading
        server.port.start(200, [(b"content-length", b"5")], b"a", True, False)
        assert server.state == "aborted"
        server.port.abandon()
        assert server.driver.missing == [4]


class TestErrors:
    def test_an_error_behind_an_active_request_waits(self) -> None:
        server = Http1Server().feed(request(b"/1") + b"BROKEN\r\n\r\n")
        assert server.reply == b""
        server.answer()
        assert server.statuses == [200, 501]
        assert server.state == "half"

    def test_an_error_behind_the_last_request_is_not_answered(self) -> None:
        server = Http1Server(Replies()).feed(request(b"/1", b"Connection: close") + b"BROKEN\r\n\r\n")
        assert server.statuses == [200]
        assert server.state == "half"

    def test_a_broken_body_ends_its_exchange_with_an_answer(self) -> None:
        server = Http1Server().feed(request(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
        server.feed(b"x\r\n")
        assert server.sink.reason
        assert server.statuses == [400]

    def test_a_broken_body_cuts_a_response_that_has_begun(self) -> None:
        server = Http1Server().feed(request(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
        server.port.start(200, [], b"begun", False, False)
        server.feed(b"x\r\n")
        assert server.sink.reason
        assert server.state == "aborted"
        (response,) = server.responses()
        assert not response.complete

    def test_the_answer_to_a_broken_head_request_has_no_body(self) -> None:
        server = Http1Server().feed(b"HEAD / HTTP/1.1\r\n\r\n")
        (response,) = server.responses("HEAD")
        assert response.status == 400
        server = Http1Server().feed(request(b"/", b"Transfer-Encoding: chunked", method=b"HEAD"), b"x\r\n")
        (response,) = server.responses("HEAD")
        assert response.status == 400

    def test_it_bears_the_fields_that_every_response_bears(self) -> None:
        server = Http1Server(date=True, server_name="daphne", extra=((b"x-frame-options", b"DENY"),))
        server.feed(b"BROKEN\r\n\r\n")
        (response,) = server.responses()
        assert response.header(b"server") == b"daphne"
        assert response.header(b"date")
        assert response.header(b"x-frame-options") == b"DENY"


class TestBackPressure:
    def test_writable_is_the_drivers(self) -> None:
        server = Http1Server().feed(request(b"/"))
        assert server.port.writable() is None


class TestPause:
    """While reading is paused nobody is told that the client has left."""

    def paused(self, **settings: object) -> Http1Server:
        server = Http1Server(pipelined_max=4, **settings).feed(request(b"/1") + request(b"/2") * 5)
        assert not server.driver.reading
        return server

    def test_a_client_that_has_left_is_noticed_by_asking(self) -> None:
        server = self.paused()
        server.advance(6)
        assert server.sink.reason is None
        server.driver.gone = True
        server.advance(5)
        assert server.sink.reason
        assert server.state == "closed"

    def test_the_pause_is_bounded(self) -> None:
        server = self.paused(paused_read_timeout=12)
        server.advance(6)
        server.advance(5)
        assert server.state == "open"
        server.advance(5)
        assert server.statuses == [400]
        assert server.sink.reason

    def test_nothing_is_read_behind_an_error(self) -> None:
        server = Http1Server().feed(request(b"/1") + b"BROKEN\r\n\r\n")
        assert not server.driver.reading
        server.answer()
        server.turn()
        assert server.statuses == [200, 501]
        assert server.driver.reading  # what still comes is thrown away while the client reads its answer

"""The opening handshake of a WebSocket on an HTTP/1.1 connection, up to the switch.

What stands behind such a request is not HTTP, whatever becomes of the request: the worst mistake here would be to parse it
as the next request (or, the other way round, to hand bytes of a body to the WebSocket).
"""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_ng.config import Config
from daphne_ng.errors import InvalidHeader, WireError
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http1.parser import Http1Parser
from daphne_ng.wire.http1.writer import encode_error, encode_switch
from tests.support.h1 import NEVER, Http1Server, Replies, bytewise, chunked, request, splits, upgrade

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
FRAME = bytes([0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58])
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
CONNECTIONS = st.lists(
    st.sampled_from([b"upgrade", b"Upgrade", b"keep-alive", b"close", b"x", b" ", b"\t", b",", b",", b";", b'"']),
    max_size=6,
).map(b"".join)


class TestTheHead:
    @pytest.mark.parametrize(
        ("fields", "wanted"),
        [
            ([b"Upgrade: websocket", b"Connection: Upgrade"], True),
            ([b"Connection: upgrade", b"Upgrade: WebSocket"], True),
            ([b"Upgrade: h2c, websocket", b"Connection: keep-alive, Upgrade"], True),
            ([b"Upgrade: h2c", b"Upgrade: websocket", b"Connection: Upgrade"], True),
            ([b"Upgrade: websocket", b"Upgrade: h2c", b"Connection: close", b"Connection: Upgrade"], True),
            ([b"Upgrade: websocket/13", b"Connection: Upgrade"], False),
            ([b"Upgrade: websockets", b"Connection: Upgrade"], False),
            ([b"Upgrade: websocket", b"Connection: Upgrades"], False),
            ([b"Upgrade: websocket", b"Connection: close"], False),
            ([b"Upgrade: websocket", b"Proxy-Connection: Upgrade"], False),
            ([b"Upgrade: websocket"], False),
            ([b"Connection: Upgrade"], False),
        ],
    )
    def test_tells_what_asks_for_a_websocket(self, fields: list[bytes], wanted: bool) -> None:
        key = [b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13"]
        data = request(b"/up", *fields, *key) + SMUGGLED
        for parts in ([data], bytewise(data)):
            server = Http1Server(Replies()).feed(*parts)
            assert server.sinks[0].head.websocket is wanted
            assert (server.sinks[0].websocket is not None) is wanted
            assert server.targets == ([b"/up"] if wanted or b"Connection: close" in fields else [b"/up", b"/smuggled"])
            assert server.switched == (SMUGGLED if wanted else None)

    def test_an_upgrade_of_http_1_0_is_ignored(self) -> None:
        for body in (b"", SMUGGLED):
            data = upgrade(b"/up", b"Connection: keep-alive", version=b"1.0", body=body) + SMUGGLED
            for parts in ([data], bytewise(data)):
                server = Http1Server(Replies()).feed(*parts)
                assert server.targets == [b"/up", b"/smuggled"]
                assert server.sinks[0].body == body
                assert server.sinks[0].head.upgrade is None
                assert not server.sinks[0].head.websocket
                assert server.statuses == [200, 200]

    @pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
    @pytest.mark.parametrize("also", [[], [b"Connection: keep-alive"]])
    def test_a_body_behind_a_proxy_connection_is_a_body(self, protocol: bytes, also: list[bytes]) -> None:
        """llhttp takes that field for Connection, and leaves the body unparsed."""
        fields = [*also, b"Proxy-Connection: upgrade", b"Upgrade: " + protocol]
        data = request(b"/up", *fields, method=b"POST", body=SMUGGLED) + request(b"/next")
        for parts in ([data], bytewise(data)):
            server = Http1Server(Replies()).feed(*parts)
            assert server.targets == [b"/up", b"/next"]
            assert server.sinks[0].body == SMUGGLED
            assert server.sinks[0].head.upgrade is None

    @given(st.lists(CONNECTIONS, max_size=3))
    def test_llhttp_stops_where_we_say_so(self, connections: list[bytes]) -> None:
        fields = [b"Connection: " + value for value in connections]
        data = upgrade(b"/up").replace(b"Connection: Upgrade\r\n", b"".join(field + b"\r\n" for field in fields))
        server = Http1Server(Replies()).feed(data)
        assert server.driver.refusals == [], "they disagree"
        assert len(server.sinks) == 1
        try:
            httptools.HttpRequestParser(None).feed_data(data)
        except httptools.HttpParserUpgrade:
            assert server.switched == b""
        else:
            assert server.switched is None

    def test_were_they_to_disagree_it_would_be_refused(self) -> None:
        parser = Http1Parser(Config(), [])
        with pytest.raises(WireError) as caught:
            parser._apply_upgrade(RequestHead(), b"websocket")
        assert caught.value.status == 400


class TestTheRest:
    def test_is_handed_over(self) -> None:
        data = upgrade() + FRAME
        for parts in ([data], bytewise(data), *splits(data)):
            server = Http1Server().feed(*parts)
            assert server.reply == b""
            server.accept()
            assert server.switched == FRAME
            assert server.reply == ACCEPTED

    @pytest.mark.parametrize("rest", [b"\r\n", b"\r\n\r\n", SMUGGLED, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 300])
    def test_is_not_parsed_whatever_it_is(self, rest: bytes) -> None:
        for first in (b"", request(b"/1"), request(b"/1", method=b"POST", body=b"x") * 3):
            data = first + upgrade(b"/up") + rest
            for parts in ([data], bytewise(data)):
                server = Http1Server(Replies()).feed(*parts)
                assert server.targets == [b"/1"] * first.count(b" /1 ") + [b"/up"]
                assert server.switched == rest
                assert server.driver.refusals == []

    def test_is_bounded(self) -> None:
        server = Http1Server(inbox_high_bytes=100, inbox_low_bytes=50).feed(upgrade(), b"x" * 60)
        assert server.driver.reading
        server.feed(b"x" * 60)
        assert not server.driver.reading
        server.accept()
        assert server.switched == b"x" * 120
        assert not server.driver.reading, "the caller resumes"

    def test_is_bounded_while_others_are_served(self) -> None:
        server = Http1Server(inbox_high_bytes=100, inbox_low_bytes=50)
        server.feed(request(b"/1") + request(b"/2") + upgrade(), b"x" * 120)
        assert not server.driver.reading
        server.port.consumed(1)
        assert not server.driver.reading
        server.answer()
        server.answer()
        assert not server.driver.reading, "none of it has gone anywhere"
        assert server.sink.websocket is not None
        server.accept()
        assert server.switched == b"x" * 120

    def test_does_not_count_as_head(self) -> None:
        server = Http1Server(Replies(), head_max_bytes=300).feed(upgrade(b"/up") + b"x" * 1000)
        assert server.switched == b"x" * 1000


class TestRefused:
    """Through the port, as any request, or without the application; the connection always closes."""

    def test_by_the_application(self) -> None:
        server = Http1Server().feed(upgrade() + SMUGGLED)
        server.port.start(403, [], b"no", False, False)
        server.port.body(b", never", True)
        server.turn()
        (response,) = server.responses()
        assert (response.status, response.body, response.closes) == (403, b"no, never", True)
        assert server.state == "half"
        server.feed(SMUGGLED, FRAME)
        assert len(server.sinks) == 1
        assert server.sink.reason is None
        server.advance(10)
        assert server.state in ("closed", "released")

    def test_lingers_even_if_nothing_has_come_behind_it_yet(self) -> None:
        server = Http1Server().feed(upgrade())
        server.answer(status=403)
        assert server.state == "half"

    def test_lingers_with_reading_resumed(self) -> None:
        server = Http1Server(inbox_high_bytes=100, inbox_low_bytes=50).feed(upgrade() + b"x" * 200)
        assert not server.driver.reading
        server.answer(status=403)
        assert server.driver.reading

    def test_by_the_driver(self) -> None:
        server = Http1Server()
        server.driver.refuse = lambda head: server.port.start(503, [], b"busy", True, False)
        server.feed(upgrade() + SMUGGLED)
        assert server.statuses == [503]
        assert server.state == "half"

    def test_without_an_answer_it_closes(self) -> None:
        server = Http1Server()
        server.driver.refuse = lambda head: None
        server.feed(upgrade() + SMUGGLED)
        assert server.reply == b""
        assert server.state == "half"

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (upgrade(key=None), 400),
            (upgrade(b"/", b"Sec-WebSocket-Protocol: a b"), 400),
            (upgrade(b"/", b"Sec-WebSocket-Extensions: ;"), 400),
            (upgrade(ws_version=b"8"), 426),
            (upgrade(method=b"PUT"), 405),
            (upgrade(body=SMUGGLED), 400),
            (upgrade(body=SMUGGLED, method=b"POST"), 400),
            (upgrade(b"/", b"Transfer-Encoding: chunked") + chunked(SMUGGLED), 400),
            (upgrade(b"/", b"Expect: 100-continue", b"Content-Length: 5"), 400),
        ],
    )
    def test_by_the_connection(self, data: bytes, status: int) -> None:
        for parts in ([data + SMUGGLED], bytewise(data + SMUGGLED)):
            server = Http1Server(Replies()).feed(*parts)
            assert [code for code, _ in server.driver.refusals] == [status]
            assert server.responses("GET")[0].status == status
            assert server.sinks == []
            assert server.state == "half"
        server = Http1Server(Replies()).feed(request(b"/1") + data + SMUGGLED)
        assert server.targets == [b"/1"]
        assert server.statuses == [200, status]

    def test_the_answer_says_what_would_do(self) -> None:
        (response,) = Http1Server().feed(upgrade(ws_version=None)).responses("GET")
        assert response.header(b"sec-websocket-version") == b"13"
        assert response.header(b"upgrade") == b"websocket"
        assert response.header(b"connection") == b"close, upgrade"
        (response,) = Http1Server().feed(upgrade(method=b"POST")).responses("POST")
        assert response.header(b"allow") == b"GET"
        assert response.header(b"connection") == b"close"

    def test_the_answer_to_a_head_has_no_body(self) -> None:
        (response,) = Http1Server().feed(upgrade(method=b"HEAD")).responses("HEAD")
        assert (response.status, response.complete) == (405, True)

    def test_an_expectation_without_a_body_is_none(self) -> None:
        server = Http1Server().feed(upgrade(b"/", b"Expect: 100-continue"))
        server.accept()
        assert server.reply == ACCEPTED


class TestSwitch:
    def test_fields(self) -> None:
        server = Http1Server(date=True, server_name="daphne", extra=((b"x-extra", b"1"),)).feed(upgrade())
        server.accept((b"set-cookie", b"a=b"), (b"Set-Cookie", b"c=d"))
        assert server.reply == (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nset-cookie: a=b\r\nSet-Cookie: c=d\r\n"
            b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\nserver: daphne\r\nx-extra: 1\r\n\r\n"
        )

    def test_what_is_not_the_applications_to_say_is_left_out(self) -> None:
        server = Http1Server().feed(upgrade())
        server.accept(
            (b"Content-Length", b"5"),
            (b"transfer-encoding", b"chunked"),
            (b"connection", b"close"),
            (b"Upgrade", b"h2c"),
            (b"keep-alive", b"timeout=5"),
        )
        assert server.reply == ACCEPTED

    def test_an_invalid_header_writes_nothing_and_leaves_the_choice(self) -> None:
        server = Http1Server().feed(upgrade() + FRAME)
        for name, value in [(b"x", b"a\r\nb: c"), (b"x y", b""), (b"x", "text"), (b"content-length", b"x")]:
            with pytest.raises(InvalidHeader):
                server.h1.switch_protocols([(name, value)])  # type: ignore[list-item]
        assert server.reply == b""
        server.accept()
        assert server.switched == FRAME

    def test_takes_the_connection_out_of_service(self) -> None:
        server = Http1Server(http_timeout=1).feed(upgrade())
        server.accept()
        h1, port = server.h1, server.port
        assert h1.deadline == NEVER
        assert h1.idle
        # The strict driver fails the test at anything that these would do to the connection.
        h1.receive_data(SMUGGLED)
        port.consumed(5)
        port.abandon()
        port.informational(103, [])
        port.reset("too late")
        h1.begin_next()
        h1.shut_down()
        h1.deadline_passed(1e9)
        h1.eof_received()
        h1.connection_lost("gone")
        assert server.reply == ACCEPTED
        assert server.state == "open"
        assert server.sink.reason is None
        assert h1.deadline == NEVER

    def test_at_once(self) -> None:
        """A driver may decide before it has returned."""
        server = Http1Server(inbox_high_bytes=100, inbox_low_bytes=50)
        taken: list[bytes] = []
        server.driver.refuse = lambda head: taken.append(server.h1.switch_protocols([]))
        server.h1.receive_data(upgrade() + b"x" * 200)
        assert taken == [b"x" * 200]
        assert server.driver.reading
        assert server.state == "open"

    def test_behind_pipelined_requests(self) -> None:
        server = Http1Server(Replies()).feed(request(b"/1") + request(b"/2") + upgrade(b"/up") + FRAME)
        assert server.targets == [b"/1", b"/2", b"/up"]
        assert server.switched == FRAME
        assert server.reply.endswith(ACCEPTED)


class TestUndecided:
    """While the application makes up its mind."""

    def test_no_deadline_runs(self) -> None:
        server = Http1Server(http_timeout=2, body_timeout=2, keep_alive_timeout=2).feed(request(b"/1"))
        server.answer()
        server.feed(upgrade(), FRAME, FRAME)
        server.advance(1000)
        assert server.h1.deadline == NEVER
        assert server.state == "open"
        server.accept()
        assert server.switched == FRAME * 2

    def test_a_client_that_leaves_is_noticed(self) -> None:
        server = Http1Server().feed(upgrade(), FRAME)
        server.eof()
        assert server.sink.reason
        assert server.state == "closed"
        server = Http1Server().feed(upgrade())
        server.lose()
        assert server.sink.reason

    def test_a_client_that_leaves_is_noticed_by_asking_while_reading_is_paused(self) -> None:
        server = Http1Server(inbox_high_bytes=100, inbox_low_bytes=50).feed(upgrade() + b"x" * 200)
        server.advance(6)
        assert server.sink.reason is None
        server.driver.gone = True
        server.advance(5)
        assert server.sink.reason
        assert server.state == "closed"

    def test_such_a_pause_is_bounded(self) -> None:
        server = Http1Server(inbox_high_bytes=100, inbox_low_bytes=50, paused_read_timeout=12).feed(
            upgrade() + b"x" * 200
        )
        server.advance(16)
        assert server.sink.reason
        assert server.statuses == [400]

    def test_a_shutdown_leaves_it_alone(self) -> None:
        server = Http1Server().feed(upgrade())
        server.h1.shut_down()
        assert server.state == "open"
        server.accept()
        assert server.reply == ACCEPTED

    def test_a_shutdown_before_its_turn_does_not_forget_it(self) -> None:
        server = Http1Server(Replies())
        server.h1.receive_data(request(b"/1") + upgrade(b"/up"))
        server.h1.shut_down()
        server.turn()
        assert server.targets == [b"/1", b"/up"]

    def test_a_reset_drops_the_connection(self) -> None:
        server = Http1Server().feed(upgrade())
        server.port.reset("gave up")
        assert server.state == "aborted"


class TestWriter:
    def test_pairs_may_be_lists(self) -> None:
        made = encode_switch([[b"x", b"y"], [b"upgrade", b"z"]], ResponseDefaults("", (), False))  # type: ignore[list-item]
        assert made == b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nx: y\r\n\r\n"

    def test_the_fields_of_an_error_come_before_the_servers(self) -> None:
        defaults = ResponseDefaults("daphne", ((b"Allow", b"ANY"), (b"x", b"y")), False)
        made = encode_error(WireError(405, "No.", ((b"allow", b"GET"),)), defaults, False)
        assert made == (
            b"HTTP/1.1 405 Method Not Allowed\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 27\r\n"
            b"allow: GET\r\nserver: daphne\r\nx: y\r\nconnection: close\r\n\r\n405 Method Not Allowed\nNo.\n"
        )

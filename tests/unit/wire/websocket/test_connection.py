"""One WebSocket: messages, judgement, flow control and endings. What can go both ways is tested on both."""

from __future__ import annotations

import tracemalloc
import weakref
import zlib
from typing import Any

import pytest

from daphne_ng.errors import InvalidHeader
from tests.support.h1 import bytewise
from tests.support.ws import (
    CLOSE,
    CONTINUATION,
    DEFLATE,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    WebSocketServer,
    binary,
    close,
    fragments,
    frame,
    more,
    open_websocket,
    ping,
    pong,
    squeeze,
    squeezed,
    text,
)

on_both_paths = pytest.mark.parametrize("direct", [True, False], ids=["direct", "engine"])

SIZES = [0, 1, 125, 126, 127, 1399, 1400, 65535, 65536, 200_000]


class TestAccept:
    def test_the_answer_comes_before_what_the_client_has_sent_behind_the_handshake(self) -> None:
        server = WebSocketServer()
        server.sink.on_message = lambda: server.ws.message(b"echo", False)
        server.accept(binary(b"early") + ping())
        assert server.state == "open"  # the driver refuses to take over before the answer, and a write before that
        assert server.messages == [b"early"]
        assert server.frames == [("binary", b"echo"), ("pong", b"")]

    def test_an_answer_that_is_refused_leaves_the_handshake_to_another(self) -> None:
        server = WebSocketServer(deflate=DEFLATE)
        with pytest.raises(InvalidHeader, match="Sec-WebSocket-Accept is the server's to set"):
            server.ws.accept(None, [(b"Sec-WebSocket-Accept", b"x")])
        assert server.state == "handshake"
        assert server.ws.response is not None
        server.ws.accept("chat", [(b"x-more", b"1")])
        assert [name for name, _ in server.fields] == [
            b"sec-websocket-protocol",
            b"sec-websocket-extensions",
            b"x-more",
        ]
        assert server.state == "open"

    def test_nothing_of_the_handshake_is_kept(self) -> None:
        server = open_websocket()
        assert not hasattr(server.ws, "response")


class TestMessages:
    @on_both_paths
    @pytest.mark.parametrize("size", SIZES)
    def test_every_form_of_length_arrives(self, direct: bool, size: int) -> None:
        data = bytes(index % 251 for index in range(size))
        server = open_websocket(direct=direct).feed(binary(data) + text("x" * size))
        assert server.messages == [data, "x" * size]
        assert server.ws.bytes_received == 2 * size
        assert server.reply == b""

    @on_both_paths
    @pytest.mark.parametrize("size", SIZES)
    def test_every_form_of_length_is_sent(self, direct: bool, size: int) -> None:
        server = open_websocket(direct=direct)
        server.ws.message(b"x" * size, True)
        server.ws.message(b"y" * size, False)
        assert server.frames == [("text", "x" * size), ("binary", b"y" * size)]
        assert server.ws.bytes_sent == 2 * size

    @on_both_paths
    @pytest.mark.parametrize("message", [b"", "", b"a", "grüße", b"x" * 5000, "€" * 50_000])
    def test_compressed_messages_arrive(self, direct: bool, message: bytes | str) -> None:
        server = open_websocket(direct=direct, deflate=DEFLATE).feed(squeezed(message) * 2 + text("plain"))
        assert server.messages == [message, message, "plain"]
        assert server.reply == b""

    def test_large_messages_are_sent_compressed_and_small_ones_are_not(self) -> None:
        server = open_websocket(deflate=DEFLATE, websocket_compression_min_bytes=100)
        server.ws.message(b"a" * 100, True)
        server.ws.message(b"a" * 99, True)
        assert [data[0] for data in server.driver.written] == [0xC1, 0x81]
        assert server.frames == [("text", "a" * 100), ("text", "a" * 99)]
        assert server.ws.bytes_sent == 199

    def test_what_does_not_compress_is_sent_as_it_is(self) -> None:
        server = open_websocket(deflate=DEFLATE)
        noise = squeeze(bytes(range(256)) * 64)
        noise = bytes((index * 7919 ^ byte) & 255 for index, byte in enumerate(noise))
        noise = zlib.compress(b"".join(bytes(str(index * index), "ascii") for index in range(3000)), 9)
        server.ws.message(noise, False)
        assert server.driver.written[0][0] == 0x82
        assert server.frames == [("binary", noise)]

    def test_without_an_agreement_nothing_is_compressed(self) -> None:
        server = open_websocket()
        server.ws.message(b"a" * 10_000, True)
        assert server.driver.written[0][0] == 0x81

    @on_both_paths
    @pytest.mark.parametrize("compress", [False, True])
    def test_fragments_with_control_frames_between_them(self, direct: bool, compress: bool) -> None:
        message = "Ελληνικά " * 20
        parts = fragments(message, [1, 1, 7, 50], compress=compress)
        stream = b"".join(part + ping(b"%d" % index) + pong() for index, part in enumerate(parts[:-1])) + parts[-1]
        for reads in ([stream], bytewise(stream)):
            server = open_websocket(direct=direct, deflate=DEFLATE).feed(*reads, text("next"))
            assert server.messages == [message, "next"]
            assert server.frames == [("pong", b"%d" % index) for index in range(len(parts) - 1)]

    def test_a_client_that_takes_no_pongs_is_not_read_from(self) -> None:
        server = open_websocket()
        stream = text("a" * 32) + ping(b"x" * 125)  # the message pays for the ping
        server.feed(stream)
        server.driver.is_full = True
        server.feed(stream * 1000, stream)
        assert len(server.messages) == 2
        assert [kind for kind, *_ in server.frames] == ["pong"] * 2
        assert not server.driver.reading
        server.advance(20)
        assert server.state == "open"
        server.driver.is_full = False
        server.feed(ping(b"last"))
        assert len(server.messages) == 1002
        assert server.frames[-1] == ("pong", b"last")
        assert server.driver.reading

    def test_one_that_is_not_read_from_is_told_of_the_end_all_the_same(self) -> None:
        server = open_websocket()
        server.driver.is_full = True
        server.feed(ping() + text("behind it"))
        server.close(1001)
        assert server.frames[-1][:2] == ("close", 1001)
        server.driver.is_full = False
        server.feed(close(1001))
        assert server.state == "closed"

    @on_both_paths
    def test_pings_are_answered_in_order_with_their_payload(self, direct: bool) -> None:
        server = open_websocket(direct=direct).feed(ping() + text("a") + ping(b"x" * 125), pong(b"unasked"))
        assert server.frames == [("pong", b""), ("pong", b"x" * 125)]
        assert server.messages == ["a"]

    def test_messages_behind_the_handshake_are_not_lost(self) -> None:
        server = open_websocket(behind=text("a") + text("b")[:4])
        server.feed(text("b")[4:])
        assert server.messages == ["a", "b"]

    def test_a_long_frame_that_comes_in_pieces(self) -> None:
        data = "é" * 100_000
        stream = text(data)
        for step in (1000, 30_000, 150_000):
            server = open_websocket().feed(*(stream[at : at + step] for at in range(0, len(stream), step)), text("b"))
            assert server.messages == [data, "b"]


# Every one with the close code that answers it. With permessage-deflate agreed on.
WRONG: dict[str, tuple[bytes, int]] = {
    "unmasked": (text("a", key=None), 1002),
    "unmasked ping": (ping(key=None), 1002),
    "unmasked close": (close(key=None), 1002),
    "RSV1 on a continuation": (text("a", fin=False) + more(b"b", rsv=RSV1), 1002),
    "RSV1 on a control frame": (ping(rsv=RSV1), 1002),
    "RSV2": (text("a", rsv=RSV2), 1002),
    "RSV3": (binary(b"a", rsv=RSV3), 1002),
    "RSV1 and RSV3": (frame(TEXT, squeeze(b"a"), rsv=RSV1 | RSV3), 1002),
    **{f"opcode {opcode}": (frame(opcode, b"a"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a fragmented ping": (ping(b"a", fin=False), 1002),
    "a long ping": (ping(b"a" * 126), 1002),
    "a long close": (close(1000, b"a" * 124), 1002),
    "a continuation of nothing": (more(b"a"), 1002),
    "a message within a message": (text("a", fin=False) + text("b"), 1002),
    "16 bits for a short length": (text("a" * 125, width=2), 1002),
    "64 bits for a short length": (text("a", width=8), 1002),
    "64 bits for a length of 16": (binary(b"a" * 65535, width=8), 1002),
    "a length beyond 63 bits": (binary(b"abc", width=8, size=1 << 63), 1002),
    "no UTF-8": (text(b"\xff"), 1007),
    "UTF-8 that ends early": (text(b"\xe2\x82"), 1007),
    "an overlong form": (text(b"\xc0\x80"), 1007),
    "a surrogate": (text(b"\xed\xa0\x80"), 1007),
    "beyond Unicode": (text(b"\xf4\x90\x80\x80"), 1007),
    "no UTF-8, long": (text(b"a" * 2000 + b"\xff"), 1007),
    "no UTF-8, compressed": (frame(TEXT, squeeze(b"abc\xff"), rsv=RSV1), 1007),
    "no UTF-8 in the second fragment": (text("a", fin=False) + more(b"\xff"), 1007),
    "a code point that is split and ends wrong": (text(b"\xe2\x82", fin=False) + more(b"a"), 1007),
    "a message of fragments that ends in a code point": (text(b"\xe2", fin=False) + more(b"\x82"), 1007),
    "corrupt deflate": (frame(TEXT, b"\xff\xff\xff", rsv=RSV1), 1007),
    "deflate that ends in a block": (frame(TEXT, b"\x4b\x04", rsv=RSV1), 1007),
    "deflate that ends in a stored block": (frame(2, b"\x00\x0a\x00\xf5\xffabcdef", rsv=RSV1), 1007),
    "deflate that lacks what would be the tail": (frame(2, b"\x00\x0a\x00\xf5\xffabcdefgh", rsv=RSV1), 1007),
    "data behind a last block": (frame(2, bytes.fromhex("f348cdc9c90700") + squeeze(b"a"), rsv=RSV1), 1007),
    "data behind a last block, in fragments": (
        frame(2, bytes.fromhex("f348cdc9c90700"), rsv=RSV1, fin=False) + more(squeeze(b"a")),
        1007,
    ),
    "corrupt deflate in fragments": (frame(TEXT, b"\xff", rsv=RSV1, fin=False) + more(b"\xff"), 1007),
    "a close of one byte": (frame(8, b"\x03"), 1002),
    **{
        f"close code {code}": (close(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "a reason that is no UTF-8": (close(1000, b"\xff"), 1007),
    "a reason that ends in a code point": (close(1000, b"\xe2\x82"), 1007),
}


class TestBrokenRules:
    @on_both_paths
    @pytest.mark.parametrize("name", WRONG)
    def test_a_client_that_breaks_a_rule_is_told_and_no_longer_listened_to(self, direct: bool, name: str) -> None:
        wrong, code = WRONG[name]
        stream = text("before") + wrong + text("after") + close()
        for reads in ([stream], bytewise(stream) if len(stream) < 3000 else [stream[:-9], stream[-9:]]):
            server = open_websocket(direct=direct, deflate=DEFLATE).feed(*reads)
            assert server.messages == ["before"]
            assert server.code == code
            assert [(kind, *rest[:1]) for kind, *rest in server.frames] == [("close", code)]
            assert server.state == "half"
            assert server.driver.failures == [server.end]
            # It lingers, so that the Close frame is not lost to a reset, but not for ever.
            server.advance(server.config.close_timeout)
            assert server.state == "closed"
            server.advance(server.config.close_timeout)
            assert server.state == "released"

    @pytest.mark.parametrize("rsv", [RSV1, RSV2, RSV3])
    def test_no_rsv_bit_without_an_extension(self, rsv: int) -> None:
        assert open_websocket().feed(text("a", rsv=rsv)).code == 1002

    @on_both_paths
    @pytest.mark.parametrize("size", [1000, 5000, 500_000])
    def test_text_that_is_wrong_already_is_refused_before_the_frame_is_complete(self, direct: bool, size: int) -> None:
        server = open_websocket(direct=direct).feed(text(b"\xff" + b"a" * size)[:100])
        assert server.code == 1007
        wrong = text(b"\xce\xba\xff" + b"a" * size)
        head = len(wrong) - size - 3
        server = open_websocket(direct=direct).feed(wrong[: head + 2])
        assert server.code is None
        server.feed(wrong[head + 2 : head + 3])
        assert server.code == 1007

    def test_a_code_point_that_is_not_complete_yet_may_become_one(self) -> None:
        stream = text("€" * 10)
        assert open_websocket().feed(*bytewise(stream)).messages == ["€" * 10]

    @on_both_paths
    @pytest.mark.parametrize(
        "payload", ["f348cdc9c9070000", "f348cdc9c90700", "000500faff48656c6c6f00", "f248cdc9c90700"]
    )
    def test_rfc_7692_section_7_2_3_a_message_in_every_kind_of_block(self, direct: bool, payload: str) -> None:
        data = bytes.fromhex(payload)
        server = open_websocket(direct=direct, deflate=DEFLATE)
        server.feed(frame(TEXT, data, rsv=RSV1))
        server.feed(frame(TEXT, data[:3], rsv=RSV1, fin=False) + more(data[3:]))
        assert server.messages == ["Hello", "Hello"]

    def test_the_engine_takes_no_harm_for_the_next_connection(self) -> None:
        for wrong, _code in WRONG.values():
            open_websocket(deflate=DEFLATE).feed(wrong)
            server = open_websocket(deflate=DEFLATE).feed(ping(b"a"), *fragments("abc", [1]), close())
            assert server.messages == ["abc"]
            assert server.frames == [("pong", b"a"), ("close", 1000, "")]


class TestLimits:
    @on_both_paths
    def test_the_largest_frame_and_one_byte_more(self, direct: bool) -> None:
        server = open_websocket(direct=direct, websocket_max_frame_size=1000, websocket_max_message_size=5000)
        server.feed(binary(b"a" * 1000))
        assert len(server.messages) == 1
        server.feed(binary(b"a" * 1001))
        assert server.code == 1009
        assert server.frames[0][:2] == ("close", 1009)

    @on_both_paths
    def test_the_largest_message_and_one_byte_more(self, direct: bool) -> None:
        settings: dict[str, Any] = {"websocket_max_frame_size": 5000, "websocket_max_message_size": 1000}
        server = open_websocket(direct=direct, **settings).feed(binary(b"a" * 1000), *fragments(b"b" * 1000, [300]))
        assert len(server.messages) == 2
        server.feed(binary(b"a" * 1001))
        assert server.code == 1009
        server = open_websocket(direct=direct, **settings).feed(*fragments(b"b" * 1001, [300, 1000]))
        assert (server.messages, server.code) == ([], 1009)

    @on_both_paths
    def test_a_frame_that_is_too_large_is_refused_by_its_head(self, direct: bool) -> None:
        for opcode in (1, 2):
            server = open_websocket(direct=direct).feed(frame(opcode, size=(1 << 20) + 1))
            assert server.code == 1009

    @on_both_paths
    def test_the_limit_is_that_of_the_inflated_message(self, direct: bool) -> None:
        limit = 1000
        for extra, code in ((0, None), (1, 1009), (2, 1009), (100, 1009), (258, 1009), (259, 1009), (5000, 1009)):
            for message in (b"a" * (limit + extra), (bytes(range(97, 123)) * 500)[: limit + extra]):
                server = open_websocket(direct=direct, deflate=DEFLATE, websocket_max_message_size=limit)
                server.feed(squeezed(message))
                assert server.code == code
                server = open_websocket(direct=direct, deflate=DEFLATE, websocket_max_message_size=limit)
                server.feed(*fragments(message, [2, 9], compress=True))
                assert server.code == code
                assert server.messages == ([message] if code is None else [])

    @on_both_paths
    def test_a_compressed_message_of_the_largest_size_may_come_in_pieces(self, direct: bool) -> None:
        message = b"a" * 900 + bytes(range(156, 256))
        server = open_websocket(direct=direct, deflate=DEFLATE, websocket_max_message_size=1000)
        server.feed(*bytewise(squeezed(message)))
        assert server.messages == [message]
        server.feed(*bytewise(squeezed(message + b"a")))
        assert server.code == 1009

    @on_both_paths
    def test_zero_is_no_limit(self, direct: bool) -> None:
        server = open_websocket(
            direct=direct, deflate=DEFLATE, websocket_max_frame_size=0, websocket_max_message_size=0,
            websocket_max_fragments=0,
        )  # fmt: skip
        large = b"a" * 3_000_000
        server.feed(binary(large), squeezed(large), *fragments(b"b" * 3000, range(3000)))
        assert [len(message) for message in server.messages] == [3_000_000, 3_000_000, 3000]
        assert server.end is None

    @on_both_paths
    def test_fragments_are_counted(self, direct: bool) -> None:
        server = open_websocket(direct=direct, websocket_max_fragments=4)
        server.feed(*fragments("abcd", [1, 2, 3]), *fragments("abcd", [1, 2, 3]))
        assert server.messages == ["abcd", "abcd"]
        server.feed(*fragments("abcd", [1, 2, 3, 4]))
        assert server.messages == ["abcd", "abcd"]
        assert server.code == 1008
        assert server.frames == [("close", 1008, "The message has too many fragments.")]
        assert server.state == "half"

    @on_both_paths
    def test_fragments_are_paid_for_by_what_they_carry(self, direct: bool) -> None:
        """A client that streams what it sends, 4 KiB at a time; how much it may be is another limit."""
        server = open_websocket(direct=direct, websocket_max_fragments=4)
        server.feed(*fragments(b"a" * 400_000, range(4096, 400_000, 4096)))
        assert [len(message) for message in server.messages] == [400_000]
        # What one large fragment has paid for is not paid for in the next message.
        server.feed(*fragments(b"b" * 100, [1, 2, 3, 4, 5]))
        assert server.code == 1008

    @on_both_paths
    def test_control_frames_are_paid_for_by_messages(self, direct: bool) -> None:
        server = open_websocket(direct=direct, websocket_control_burst=5, websocket_control_rate=0)
        for _ in range(100):
            server.feed(text("a" * 40), ping())
            server.ws.message(b"b" * 20, True)
        assert server.code is None
        # But not hoarded.
        server.feed(binary(b"c" * 100_000), pong() * 10)
        assert server.code is None
        server.feed(pong())
        assert server.code == 1008

    @on_both_paths
    def test_a_continuation_of_nothing_is_no_fragment_too_many(self, direct: bool) -> None:
        server = open_websocket(direct=direct, websocket_max_fragments=2)
        assert server.feed(*fragments("ab", [1]), text("c"), more(b"d")).code == 1002

    @on_both_paths
    def test_control_frames_have_a_budget(self, direct: bool) -> None:
        server = open_websocket(direct=direct, websocket_control_burst=5, websocket_control_rate=2)
        server.feed((ping() + pong()) * 2, ping())
        server.advance(1)
        server.feed(ping(b"a") + pong())
        assert server.code is None
        server.feed(ping(b"b"))
        assert server.code == 1008
        assert server.frames[-2:] == [("pong", b"a"), ("close", 1008, "Too many pings or pongs.")]

    def test_the_close_frame_is_not_of_the_budget(self) -> None:
        server = open_websocket(websocket_control_burst=1, websocket_control_rate=0).feed(ping() + close())
        assert server.code == 1000

    def test_a_flood_while_we_are_closing_ends_it(self) -> None:
        server = open_websocket(websocket_control_burst=1, websocket_control_rate=0).close()
        server.feed(ping() * 3)
        assert [kind for kind, *_ in server.frames] == ["close"]
        assert server.state in ("half", "closed")


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A gibibyte of zeros in about one mebibyte."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    mebibyte = bytes(1 << 20)
    first = squeezer.compress(mebibyte) + squeezer.flush(zlib.Z_FULL_FLUSH)
    block = squeezer.compress(mebibyte) + squeezer.flush(zlib.Z_FULL_FLUSH)
    return (first + block * 1023)[:-4]


class TestMemory:
    @on_both_paths
    def test_a_bomb_goes_off_outside(self, direct: bool, bomb: bytes) -> None:
        limit = 1 << 20
        frames = frame(2, bomb[:limit], rsv=RSV1)
        parts = frame(2, bomb[:1000], rsv=RSV1, fin=False) + more(bomb[1000:500_000])
        for stream in (frames, parts):
            server = open_websocket(direct=direct, deflate=DEFLATE, websocket_max_frame_size=0)
            tracemalloc.start()
            server.feed(stream)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert (server.messages, server.code) == ([], 1009)
            assert peak < 8 * limit

    @on_both_paths
    def test_a_thousand_bombs_in_one_read_are_inflated_one_by_one(self, direct: bool) -> None:
        message = bytes(1 << 20)
        stream = squeezed(message) * 1000
        server = open_websocket(direct=direct, deflate=DEFLATE, high=1)
        sink = server.sink
        tracemalloc.start()
        server.feed(stream)
        for number in range(1, 31):
            assert len(sink.messages) == 1
            assert server.ws.bytes_received == number << 20
            sink.messages.clear()
            server.take()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 << 20
        assert server.driver.resumes == 1

    @on_both_paths
    def test_what_follows_a_last_block_is_not_kept(self, direct: bool) -> None:
        server = open_websocket(direct=direct, deflate=DEFLATE)
        tracemalloc.start()
        server.feed(frame(2, bytes.fromhex("f348cdc9c90700"), rsv=RSV1, fin=False))
        for _ in range(40):
            server.feed(more(bytes(500_000), fin=False))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert server.code == 1007
        assert peak < 10 << 20

    @pytest.mark.parametrize(
        "stream",
        [b"", ping(), text("a", fin=False), text("abc")[:-1], binary(bytes(200_000))[:500], text(b"\xff"), close()],
        ids=["idle", "after a ping", "in a message", "waiting", "in a frame", "failed", "closed"],
    )
    def test_a_lost_connection_leaves_no_cycle(self, stream: bytes) -> None:
        server = open_websocket(deflate=DEFLATE).feed(stream).lose()
        ghost = weakref.ref(server.driver)
        server.driver.__dict__.clear()  # the test's own circle
        ws: Any = server.ws
        assert ws._engine is None
        del server, ws
        assert ghost() is None


class TestClosing:
    CODES = (0, 3, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1014, 1015, 2999, 3000, 4999, 5000)

    @pytest.mark.parametrize(
        "payload",
        [b"", b"\x03", *(code.to_bytes(2, "big") for code in CODES)]
        + [b"\x03\xe8" + reason for reason in (b"bye", "é€😀".encode(), b"\xff", b"\xc3", b"\xed\xa0\x80", b"x" * 123)],
        ids=bytes.hex,
    )
    def test_a_close_frame_is_answered_as_the_engine_does_it(self, payload: bytes) -> None:
        outcomes = []
        for direct in (True, False):
            server = open_websocket(direct=direct).feed(text("a"), frame(CLOSE, payload) + text("behind"))
            outcomes.append((server.frames, server.end, server.state, server.messages, server.driver.failures))
        assert outcomes[0] == outcomes[1]
        assert server.messages == ["a"]

    def test_an_ordinary_close_frame_takes_no_engine(self) -> None:
        server = open_websocket()
        server.ws._borrow = None  # to ask for one would raise
        server.feed(close(1001, "away"))
        assert server.frames == [("close", 1001, "away")]
        assert server.end == (1001, "away")

    @on_both_paths
    @pytest.mark.parametrize(
        ("sent", "told", "answer"),
        [
            (close(None), (1005, ""), ("close", 1005, "")),
            (close(1000), (1000, ""), ("close", 1000, "")),
            (close(1001, "away"), (1001, "away"), ("close", 1001, "away")),
            (close(3000, "€" * 41), (3000, "€" * 41), ("close", 3000, "€" * 41)),
            (close(4999), (4999, ""), ("close", 4999, "")),
            *((close(code), (code, ""), ("close", code, "")) for code in (1002, 1003, 1007, 1008, 1009, 1010, 1011)),
            *((close(code), (code, ""), ("close", code, "")) for code in (1012, 1013)),
        ],
        ids=lambda value: None if isinstance(value, bytes) else str(value[-2]),
    )
    def test_the_client_closes(self, direct: bool, sent: bytes, told: Any, answer: Any) -> None:
        server = open_websocket(direct=direct).feed(text("a") + sent + text("b"), text("c"))
        assert server.messages == ["a"]
        assert server.end == told
        assert server.frames == [answer]
        assert server.state == "closed"
        assert not server.driver.failures

    @on_both_paths
    @pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 3000, 4000, 4999])
    def test_the_application_closes(self, direct: bool, code: int) -> None:
        server = open_websocket(direct=direct).close(code, "bye")
        assert server.frames == [("close", code, "bye")]
        assert server.state == "open"
        server.feed(text("late") + ping() + close(code) + text("later"))
        assert server.state == "closed"
        assert len(server.frames) == 1
        assert server.messages == []
        server.advance(100)
        assert server.state == "released"

    def test_a_reason_is_cut_between_code_points(self) -> None:
        server = open_websocket().close(1000, "€" * 100)
        assert server.frames == [("close", 1000, "€" * 41)]

    def test_both_close_at_once(self) -> None:
        server = open_websocket().close(1000).feed(close(1001, "mine"))
        assert server.frames == [("close", 1000, "")]
        assert server.state == "closed"

    @pytest.mark.parametrize("wrong", [text("a", key=None), close(1005), close(1000, b"\xff"), frame(3)])
    def test_a_wrong_answer_to_our_close_frame_ends_it_too(self, wrong: bytes) -> None:
        server = open_websocket().close().feed(wrong)
        assert server.state in ("closed", "half")
        assert len(server.frames) == 1

    def test_no_answer_to_our_close_frame(self) -> None:
        server = open_websocket(close_timeout=5).close()
        server.advance(4.9).feed(text("still here"))
        assert server.state == "open"
        server.advance(0.1)
        assert server.state == "closed"
        server.advance(5)
        assert server.state == "released"
        assert server.driver.timer == float("inf")

    def test_a_slow_client_gets_what_was_sent_before_the_close_frame(self) -> None:
        server = open_websocket(close_timeout=5)
        server.driver.queued = 100_000
        server.close()
        for left in (80_000, 60_000, 40_000):
            server.advance(59)
            assert server.state == "open"
            server.driver.queued = left
        server.advance(70)
        assert server.state == "aborted"
        assert server.driver.drops == 1
        assert server.driver.timer == float("inf")

    def test_a_slow_client_has_its_time_to_answer_from_when_it_got_the_close_frame(self) -> None:
        server = open_websocket(close_timeout=20)
        server.driver.queued = 100_000
        server.close().advance(50)
        server.driver.queued = 0
        server.advance(20)
        assert server.state == "open"
        server.advance(5)
        assert server.state == "closed"

    def test_a_client_that_has_vanished_is_told_goodbye_once(self) -> None:
        server = open_websocket(close_timeout=5).close()
        server.driver.queued = 60  # a Close frame, close_notify and a FIN, which nobody acknowledges
        server.advance(5 + 5)
        assert server.state == "released"
        assert server.driver.drops == 0

    def test_close_timeout_zero_is_now(self) -> None:
        server = open_websocket(close_timeout=0).close().advance(0)
        assert server.state in ("closed", "released")

    @on_both_paths
    def test_the_close_frame_behind_messages_that_nobody_receives_is_found(self, direct: bool) -> None:
        server = open_websocket(direct=direct, high=1, deflate=DEFLATE)
        server.feed(text("a") + text("b") + squeezed("c") + binary(b"d"), close(3000))
        assert server.messages == ["a"]
        server.close(1000)
        assert server.messages == ["a"]
        assert server.state == "closed"

    def test_an_eof_is_an_abnormal_end(self) -> None:
        server = open_websocket().feed(text("a") + text("b")[:3]).finish()
        assert server.messages == ["a"]
        assert server.end == (1006, "")
        assert server.state == "closed"
        assert server.reply == b""

    def test_an_eof_while_we_are_closing(self) -> None:
        server = open_websocket().close().finish()
        assert server.state == "closed"

    def test_an_eof_after_a_broken_rule_ends_the_lingering(self) -> None:
        server = open_websocket().feed(frame(3)).finish()
        assert server.code == 1002
        assert server.state == "closed"

    def test_an_eof_after_the_close_frame_is_nothing_new(self) -> None:
        server = open_websocket().feed(close())
        server.ws.eof_received()
        assert server.end == (1000, "")
        assert server.state == "closed"

    @on_both_paths
    @pytest.mark.parametrize(
        ("last", "end"),
        [(b"", (1006, "")), (close(1001), (1001, "")), (text("c")[:2], (1006, "")), (frame(3), None)],
        ids=["nothing", "close", "half a frame", "wrong"],
    )
    def test_an_eof_while_paused_comes_behind_the_messages(self, direct: bool, last: bytes, end: Any) -> None:
        server = open_websocket(direct=direct, high=1).feed(text("a") + text("b") + last)
        server.ws.eof_received()  # TLS and HTTP/2 can tell although reading is paused
        assert (server.messages, server.end) == (["a"], None)
        server.take()
        assert (server.messages, server.end) == (["a", "b"], None)
        server.take()
        assert server.code == (end[0] if end else 1002)
        assert server.state == "closed"

    @pytest.mark.parametrize("how", ["idle", "paused", "closing", "failed", "closed", "in a frame", "connecting"])
    def test_a_lost_connection_in_every_state(self, how: str) -> None:
        if how == "connecting":
            server = WebSocketServer()
        else:
            server = open_websocket(high=1)
            stream = {
                "paused": text("a") + text("b"),
                "failed": frame(3),
                "closed": close(),
                "in a frame": ping(b"abc")[:-1],
            }
            server.feed(stream.get(how, b""))
        if how == "closing":
            server.close()
        expected = server.end or (None if how == "closing" else (1006, ""))
        written = server.reply
        server.lose()
        assert server.end == expected
        # Whatever the bridge still says goes nowhere.
        server.ws.consumed()
        server.sink.silent = True
        server.ws.close(1000, "")
        server.ws.shut_down()
        server.ws.receive_data(text("late"))
        server.ws.deadline_passed(server.driver.now + 1e6)
        assert server.reply == written
        assert server.ws.deadline == float("inf")

    def test_a_shutdown_closes_with_1012(self) -> None:
        server = open_websocket()
        server.ws.shut_down()
        server.ws.shut_down()
        assert server.end == (1012, "The server is shutting down.")
        assert server.frames == [("close", 1012, "The server is shutting down.")]
        assert server.feed(close(1012)).state == "closed"

    def test_a_shutdown_before_the_handshake_is_answered_closes_after_it(self) -> None:
        server = WebSocketServer()
        server.ws.shut_down()
        assert server.end is None
        server.accept(text("a"))
        assert server.messages == ["a"]
        assert server.code == 1012
        assert server.feed(close()).state == "closed"

    def test_a_shutdown_while_paused(self) -> None:
        server = open_websocket(high=1).feed(text("a") + text("b") + close(1001))
        server.ws.shut_down()
        assert server.code == 1012
        assert server.messages == ["a"]
        assert server.advance(0).state == "closed"

    @on_both_paths
    def test_the_end_can_come_with_the_handshake(self, direct: bool) -> None:
        server = open_websocket(direct=direct, behind=text("a") + close(1001))
        assert (server.messages, server.end, server.state) == (["a"], (1001, ""), "closed")
        server = open_websocket(direct=direct, behind=frame(3))
        assert (server.code, server.state) == (1002, "half")
        assert server.driver.reading
        server = WebSocketServer(direct=direct)
        server.ws.shut_down()
        server.accept(close(1001))
        assert (server.end, server.state) == ((1001, ""), "closed")


class TestFlow:
    @on_both_paths
    def test_what_one_read_brought_waits_behind_a_pause(self, direct: bool) -> None:
        server = open_websocket(direct=direct, high=2)
        stream = text("a") + b"".join(fragments("b", [0])) + binary(b"c") + text("d") + ping(b"p") + text("e")
        server.feed(stream[:-2], stream[-2:])
        assert server.messages == ["a", "b"]
        assert not server.driver.reading
        server.take()
        assert server.messages == ["a", "b", b"c", "d"]
        assert server.reply == b""
        server.take()
        assert server.messages == ["a", "b", b"c", "d", "e"]
        assert server.driver.reading
        assert server.frames == [("pong", b"p")]
        assert server.driver.pauses == 2

    def test_a_read_that_comes_although_paused_is_kept(self) -> None:
        server = open_websocket(high=1).feed(text("a") + text("b")[:3])
        server.ws.receive_data(text("b")[3:] + text("c"))
        assert server.messages == ["a"]
        server.take()
        server.take()
        assert server.messages == ["a", "b", "c"]

    def test_a_pause_behind_the_handshake(self) -> None:
        server = open_websocket(high=1, behind=text("a") + text("b"))
        assert server.messages == ["a"]
        assert not server.driver.reading
        server.take()
        assert server.messages == ["a", "b"]
        server.take()
        assert server.driver.reading

    def test_a_bridge_that_reports_room_without_a_pause_does_no_harm(self) -> None:
        server = open_websocket().feed(text("a"))
        server.ws.consumed()
        assert server.driver.resumes == 1

    def test_the_bridge_may_report_room_from_within_the_end(self) -> None:
        server = open_websocket(high=1).feed(text("a") + text("b") + close())
        server.sink.on_closed = server.ws.consumed
        server.take()
        server.take()
        assert server.end == (1000, "")

    @pytest.mark.parametrize("wrong", [frame(3), close(), text("a", fin=False) + more(b"\xff")])
    def test_the_bridge_may_close_from_within_the_end(self, wrong: bytes) -> None:
        server = open_websocket()

        def closed() -> None:
            server.sink.silent = True
            server.ws.close(1000, "")

        server.sink.on_closed = closed
        server.feed(wrong)
        assert [kind for kind, *_ in server.frames] == ["close"]

    def test_the_waiter_is_the_drivers(self) -> None:
        server = open_websocket()
        assert server.ws.writable() is None
        server.driver.waiter = object()
        assert server.ws.writable() is server.driver.waiter


def pings(server: WebSocketServer) -> int:
    """How many pings were sent."""
    return sum(1 for kind, *_ in server.frames if kind == "ping")


class TestTime:
    def test_a_quiet_client_is_pinged_exactly_when_due(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=30)
        server.advance(19.999)
        assert server.reply == b""
        server.advance(0.001)
        assert server.frames == [("ping", b"")]

    @pytest.mark.parametrize(
        "life", [pong(), text("a"), ping(), text("abc")[:3]], ids=["pong", "text", "ping", "piece"]
    )
    def test_any_traffic_is_life(self, life: bytes) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=30).advance(19).feed(life).advance(19.5)
        assert pings(server) == 0
        server.advance(0.5)
        assert pings(server) == 1
        server.advance(29).feed(life).advance(19.9)
        assert (server.state, pings(server)) == ("open", 1)
        server.advance(0.1)
        assert pings(server) == 2
        server.advance(30)
        assert server.state == "aborted"

    def test_no_answer_to_a_ping(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=30).advance(49.9)
        assert server.state == "open"
        server.advance(0.1)
        assert server.state == "aborted"
        assert server.end == (1006, "The client did not answer a ping.")
        assert pings(server) == 1

    def test_ping_timeout_zero_waits_for_ever(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=0).advance(20 * 50)
        assert server.state == "open"
        assert pings(server) == 50

    def test_ping_interval_zero_pings_never(self) -> None:
        server = open_websocket(ping_interval=0, ping_timeout=30).advance(80_000)
        assert (server.state, server.reply) == ("open", b"")

    def test_a_pause_of_our_own_stops_the_clock(self) -> None:
        server = open_websocket(high=1, ping_interval=20, ping_timeout=30).feed(text("a")).advance(1000)
        assert server.reply == b""
        server.take().advance(19.9)
        assert server.reply == b""
        server.advance(0.1)
        assert pings(server) == 1

    def test_a_pause_that_ends_leaves_the_ping_exact(self) -> None:
        server = open_websocket(high=1, ping_interval=1, ping_timeout=2).feed(text("a")).advance(10.5)
        server.take().advance(1)
        assert pings(server) == 1

    @pytest.mark.parametrize("after", [0, 1, 10, 19, 21, 29, 45, 99])
    @pytest.mark.parametrize("patience", [10, 30, 100])
    def test_the_next_ping_is_due_exactly_too(self, after: float, patience: int) -> None:
        if after >= patience:
            return
        server = open_websocket(ping_interval=20, ping_timeout=patience).advance(20).advance(after).feed(pong())
        server.advance(19.9)
        assert pings(server) == 1
        server.advance(0.1)
        assert pings(server) == 2

    def test_a_pause_while_a_ping_is_out(self) -> None:
        server = open_websocket(high=1, ping_interval=20, ping_timeout=30).advance(20).feed(text("a")).advance(1000)
        assert server.state == "open"
        server.take().advance(19)
        assert server.state == "open"

    def test_a_client_that_leaves_while_paused_is_noticed(self) -> None:
        server = open_websocket(high=1).feed(text("a") + text("b"))
        server.advance(60)
        assert server.end is None
        server.driver.gone = True
        server.advance(5)
        assert server.end == (1006, "")
        assert server.state == "aborted"

    def test_a_ping_that_is_not_out_yet_cannot_be_answered(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=30)
        for left in range(20, 10, -1):
            server.driver.queued = left * 20_000  # slow, but it reads
            server.advance(4)
            server.driver.unsent = 1000
            server.advance(46)
            server.driver.unsent = 0
        assert server.state == "open"
        server.driver.queued = 0
        server.advance(60)
        assert server.state == "aborted"
        assert pings(server) == 1

    def test_a_client_that_has_vanished_takes_nothing_of_what_the_kernel_holds(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=30)
        server.driver.queued = 200
        server.advance(20 + 29)
        assert server.state == "open"
        server.driver.queued = 300  # the application goes on writing
        server.advance(7)
        assert server.state == "aborted"

    def test_an_answer_counts_however_short_the_time_for_it(self) -> None:
        server = open_websocket(ping_interval=20, ping_timeout=2)
        server.driver.queued = 1000
        server.advance(20 + 2)  # the ping may not have reached the client yet
        server.advance(1).feed(pong())
        server.driver.queued = 0
        server.advance(10)
        assert server.state == "open"

    def test_the_longest_life(self) -> None:
        server = open_websocket(websocket_timeout=100, ping_interval=20)
        for _ in range(19):
            server.advance(5).feed(pong())
        server.advance(4.9)
        assert server.end is None
        server.advance(0.1)
        assert server.code == 1000
        assert server.frames == [("close", 1000, "The WebSocket has reached its longest life.")]

    def test_the_longest_life_ends_while_paused(self) -> None:
        server = open_websocket(websocket_timeout=100, high=1).feed(text("a") + text("b") + close()).advance(100)
        assert server.code == 1000
        assert server.messages == ["a"]
        assert server.state == "closed"

    @pytest.mark.parametrize("value", [0, -1])
    def test_no_longest_life(self, value: int) -> None:
        server = open_websocket(websocket_timeout=value, ping_interval=0).advance(1e7)
        assert server.end is None

    @pytest.mark.parametrize(
        ("connect", "handshake", "due"),
        [(5, 20, 5), (20, 5, 5), (5, 0, 5), (0, 7, 7), (-1, 7, 7), (0, 0, None), (-1, -1, None)],
    )
    def test_the_application_has_its_time_to_accept(self, connect: int, handshake: int, due: float | None) -> None:
        server = WebSocketServer(
            open_websocket(websocket_connect_timeout=connect, websocket_handshake_timeout=handshake).config
        )
        if due is None:
            assert server.advance(1e6).sink.expirations == 0
            return
        server.advance(due - 0.1)
        assert server.sink.expirations == 0
        server.advance(0.1)
        assert server.sink.expirations == 1
        server.advance(1000)
        assert server.sink.expirations == 1

    def test_an_accepted_websocket_does_not_expire(self) -> None:
        server = WebSocketServer().accept().advance(15)
        assert server.sink.expirations == 0

    def test_a_timer_that_fires_early_does_nothing(self) -> None:
        server = open_websocket()
        server.ws.deadline_passed(server.driver.now + 1)
        assert server.reply == b""

    def test_traffic_moves_no_timer(self) -> None:
        server = open_websocket(ping_interval=20).advance(6)
        timer = server.driver.timer
        server.advance(10).feed(text("a") * 5)
        assert server.driver.timer == timer


def test_the_parts_of_a_frame_are_each_waited_for() -> None:
    for stream in (
        text("a"),
        text("a" * 300),
        binary(b"a" * 70_000),
        ping(),
        frame(CONTINUATION),
        frame(PING),
        frame(PONG),
    ):
        for cut in range(1, min(len(stream), 20)):
            server = open_websocket().feed(stream[:cut])
            assert server.end is None
            assert server.messages == []

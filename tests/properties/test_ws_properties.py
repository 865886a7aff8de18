"""WebSockets under arbitrary traffic, segmentations and interleavings.

There are two ways through the server: ordinary frames are handled directly, all others by the engine. The first must
not be told from the second by anything that the application or the client can see.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from daphne_ng.config import Config
from tests.support.h1 import bytewise
from tests.support.ws import (
    DEFLATE,
    RSV1,
    RSV2,
    WebSocketServer,
    client,
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

pytestmark = pytest.mark.once


WIDE = Config()
TIGHT = Config(
    websocket_max_frame_size=400, websocket_max_message_size=600, websocket_max_fragments=5, websocket_control_burst=4
)

KEYS = st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", bytes.fromhex("37fa213d"), b"\x01\x80\x7f\x00"])
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text("aé€😀", max_size=150),
    st.integers(0, 700).map(lambda size: "x" * size),
    st.sampled_from(["é" * 700, "a" * 70_000]),
)
BLOBS = st.one_of(
    st.binary(max_size=20), st.integers(0, 700).map(lambda size: b"y" * size), st.sampled_from([b"\xff" * 3000])
)
MESSAGES: st.SearchStrategy[Any] = st.one_of(TEXTS, BLOBS)
CONTROLS = st.one_of(st.builds(ping, st.binary(max_size=10)), st.builds(pong, st.binary(max_size=3)))


@st.composite
def whole(draw: st.DrawFn) -> list[bytes]:
    """A message in one frame."""
    message = draw(MESSAGES)
    if isinstance(message, str):
        return [text(message, key=draw(KEYS))]
    return [frame(2, message, key=draw(KEYS))]


@st.composite
def compressed(draw: st.DrawFn) -> list[bytes]:
    """A message in one compressed frame."""
    return [squeezed(draw(MESSAGES), key=draw(KEYS))]


@st.composite
def in_fragments(draw: st.DrawFn, compress: bool = False) -> list[bytes]:
    """A message in fragments, with control frames between them."""
    parts = fragments(draw(MESSAGES), draw(st.lists(st.integers(0, 100), max_size=5)), compress=compress)
    return [piece for part in parts for piece in ([part] if draw(st.booleans()) else [draw(CONTROLS), part])]


EVIL = [
    text("a", key=None), text("a", rsv=RSV2), frame(3, b"abc"), frame(11), ping(b"a", fin=False), ping(b"a" * 126), more(b"a"),
    text("a", fin=False) + text("b"), text("a", width=2), text("a" * 200, width=8), frame(2, width=8, size=1 << 63),
    text(b"\xff"), text(b"abc\xe2\x82"), text(b"a" * 300 + b"\xed\xa0\x80" + b"a" * 300), text("a", fin=False) + more(b"\x80"),
    text(b"\xe2", fin=False) + more(b"\x82"), frame(8, b"\x03"), close(1005), close(999), close(5000), close(1000, b"\xff"),
    close(1000, b"\xe2\x82"), ping(rsv=RSV1), text("a", fin=False) + more(b"b", rsv=RSV1),
]  # fmt: skip
EVIL_DEFLATE = [
    frame(1, b"\xff\xff", rsv=RSV1), frame(1, b"\x4b\x04", rsv=RSV1), frame(1, b"", rsv=RSV1), frame(2, b"\x00\x0a\x00\xf5\xffabcdef", rsv=RSV1),
    frame(2, bytes.fromhex("f348cdc9c90700"), rsv=RSV1), frame(2, bytes.fromhex("f348cdc9c90700") + squeeze(b"a"), rsv=RSV1),
    frame(1, squeeze(b"\xff"), rsv=RSV1), frame(1, squeeze(b"abc\xe2"), rsv=RSV1), frame(1, squeeze(b"a" * 5000), rsv=RSV1),
    frame(1, squeeze(b"a" * 50)[:-1], rsv=RSV1), squeezed(bytes(2_000_000)), *(squeezed("a" * size) for size in (599, 600, 601, 602)),
]  # fmt: skip


@st.composite
def traffic(draw: st.DrawFn, deflate: bool) -> bytes:
    """Frames in a row, up to one that is wrong, or a Close frame, and others behind it."""
    kinds: list[st.SearchStrategy[list[bytes]]] = [whole(), whole(), in_fragments(), CONTROLS.map(lambda one: [one])]
    wrong = EVIL
    if deflate:
        kinds += [compressed(), compressed(), in_fragments(compress=True)]
        wrong = EVIL + EVIL_DEFLATE
    ends = st.one_of(st.sampled_from(wrong), st.builds(close, st.sampled_from([None, 1000, 1001, 3000])), st.just(b""))
    pieces = [piece for part in draw(st.lists(st.one_of(kinds), max_size=6)) for piece in part]
    if pieces and draw(st.booleans()) and draw(st.booleans()):
        pieces.pop(draw(st.integers(0, len(pieces) - 1)))
    pieces.append(draw(ends))
    pieces += draw(st.one_of(st.just([]), whole()))
    return b"".join(pieces)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """Traffic with some of its bytes replaced, removed or put in."""
    data = draw(traffic(False))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, min(len(data), 1000)))
        data = data[:start] + draw(st.binary(max_size=3)) + data[start + draw(st.integers(0, 3)) :]
    return data


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    if len(data) < 3000 and draw(st.booleans()):
        return bytewise(data)
    ends = sorted({*draw(st.lists(st.integers(0, len(data)), max_size=8)), len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


def outcome(server: WebSocketServer) -> tuple[Any, ...]:
    """All that the application and the client can see, but for the words of a refusal."""
    end = server.end
    if server.driver.failures:
        assert server.driver.failures == [server.end]
        end = (server.driver.failures[0][0], "")
    frames = [(kind, *rest[:1]) if kind == "close" else (kind, *rest) for kind, *rest in server.frames]
    return server.messages, end, frames, server.state, server.ws.bytes_received


def received(config: Config, deflate: bool, direct: bool, reads: list[bytes]) -> tuple[Any, ...]:
    return outcome(open_websocket(config, direct=direct, deflate=DEFLATE if deflate else None).feed(*reads))


@given(st.data(), st.booleans(), st.sampled_from([WIDE, TIGHT]))
def test_neither_the_segmentation_nor_the_path_shows(data: st.DataObject, deflate: bool, config: Config) -> None:
    stream = data.draw(traffic(deflate))
    reads = data.draw(cut(stream))
    expected = received(config, deflate, False, [stream])
    assert received(config, deflate, True, [stream]) == expected
    assert received(config, deflate, True, reads) == expected
    assert received(config, deflate, False, reads) == expected


@given(st.data(), st.sampled_from([WIDE, TIGHT]))
def test_nor_do_they_show_with_broken_frames(data: st.DataObject, config: Config) -> None:
    stream = data.draw(broken())
    reads = data.draw(cut(stream))
    expected = received(config, False, False, [stream])
    for direct, pieces in ((True, [stream]), (True, reads), (False, reads)):
        assert received(config, False, direct, pieces) == expected


@given(st.data(), st.booleans(), st.integers(1, 3))
def test_nor_does_an_application_that_receives_slowly(data: st.DataObject, deflate: bool, high: int) -> None:
    stream = data.draw(traffic(deflate))
    reads = data.draw(cut(stream))
    expected = received(WIDE, deflate, True, [stream])
    for direct in (True, False):
        server = open_websocket(WIDE, direct=direct, deflate=DEFLATE if deflate else None, high=high).feed(*reads)
        while server.sink.paused:
            server.take()
        assert outcome(server) == expected


@given(st.one_of(st.binary(max_size=300), broken(), traffic(True)), st.booleans(), st.booleans(), st.data())
@example(b"\x81\x00", True, True, None)
@example(b"\x88\x00\x88\x00", False, False, None)
def test_no_bytes_raise(stream: bytes, deflate: bool, direct: bool, data: st.DataObject | None) -> None:
    reads = [stream] if data is None else data.draw(cut(stream))
    server = open_websocket(direct=direct, deflate=DEFLATE if deflate else None).feed(*reads).finish().advance(60)
    assert server.end is not None
    assert server.state in ("closed", "released")
    server.lose()


ACTIONS = [
    "feed",
    "feed",
    "feed",
    "take",
    "take",
    "raw",
    "send",
    "close",
    "shut down",
    "finish",
    "advance",
    "lose",
    "stall",
]


@given(st.data(), st.booleans(), st.booleans(), st.integers(1, 3))
def test_every_interleaving_keeps_the_bounds(data: st.DataObject, deflate: bool, direct: bool, high: int) -> None:
    stream = data.draw(traffic(deflate))
    size = data.draw(st.integers(1, 1000))
    reads = [stream[start : start + size] for start in range(0, len(stream), size)][:100]
    server = open_websocket(direct=direct, deflate=DEFLATE if deflate else None, high=high)
    sink, driver, ws = server.sink, server.driver, server.ws
    for action in data.draw(st.lists(st.sampled_from(ACTIONS), max_size=30)):
        over = sink.silent or sink.end is not None
        if driver.state == "lost":
            ws.consumed()
        elif action == "feed" and reads:
            server.feed(reads.pop(0))
        elif action == "raw" and reads and not server._kernel and driver.state in ("open", "half"):
            ws.receive_data(reads.pop(0))  # a transport that could not stop at once
        elif action == "take":
            server.take()
        elif action == "send" and not over:
            ws.message(b"x" * 300, True)
        elif action == "close" and not over:
            server.close(data.draw(st.sampled_from([1000, 3000])), "bye")
        elif action == "shut down":
            ws.shut_down()
        elif action == "finish":
            server.finish()
        elif action == "advance":
            server.advance(data.draw(st.sampled_from([0.0, 1.0, 5.0, 20.0, 30.0])))
        elif action == "lose":
            server.lose()
        elif action == "stall":
            driver.unsent = data.draw(st.sampled_from([0, 10, 20]))
        if sink.paused and not over:
            assert sink.unread <= high
        # A start of a frame that waits is no longer than this, and what raw reads bring beyond that is one at a time.
        assert len(ws._backlog) <= 140_000
        if driver.state in ("closed", "released", "aborted", "lost", "half"):
            assert sink.silent or sink.end is not None, "an end that nobody was told"
            assert not ws._backlog
        if driver.state == "lost":
            assert ws.deadline == float("inf")
            assert ws._engine is None
    assert server.frames is not None  # what was written is well-formed


# -- real clients ----------------------------------------------------------------------------------------


@given(st.lists(MESSAGES, max_size=6), st.booleans(), st.booleans(), st.data())
def test_what_wsproto_sends_arrives_and_what_we_send_it_reads(
    messages: list[Any], deflate: bool, direct: bool, data: st.DataObject
) -> None:
    server = open_websocket(direct=direct, deflate=DEFLATE if deflate else None, websocket_compression_min_bytes=50)
    oracle = client(server.extensions)
    for message in messages:
        at = data.draw(st.integers(0, len(message)))
        kind: Any = TextMessage if isinstance(message, str) else BytesMessage
        if data.draw(st.booleans()):
            server.feed(oracle.send(kind(data=message)))
        else:
            server.feed(oracle.send(kind(data=message[:at], message_finished=False)), oracle.send(Ping(payload=b"p")))
            server.feed(oracle.send(kind(data=message[at:], message_finished=True)))
        server.ws.message(message.encode() if isinstance(message, str) else message, isinstance(message, str))
    server.feed(oracle.send(CloseConnection(code=1001, reason="away")))
    assert server.messages == messages
    assert server.end == (1001, "away")
    sent = [(("text" if isinstance(message, str) else "binary"), message) for message in messages]
    assert [one for one in server.frames if one[0] not in ("pong", "close")] == sent
    assert server.frames[-1] == ("close", 1001, "away")


@given(st.lists(MESSAGES, max_size=6), st.booleans(), st.booleans(), st.data())
def test_what_websockets_sends_arrives_and_what_we_send_it_reads(
    messages: list[Any], deflate: bool, direct: bool, data: st.DataObject
) -> None:
    server = open_websocket(direct=direct, deflate=DEFLATE if deflate else None, websocket_compression_min_bytes=50)
    oracle = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    if deflate:
        parameters = [part.strip().partition("=") for part in server.extensions.decode().split(";")[1:]]
        factory = ClientPerMessageDeflateFactory(client_max_window_bits=True)
        oracle.extensions = [
            factory.process_response_params([(name, value or None) for name, _, value in parameters], [])
        ]
    expected: list[tuple[Opcode, bytes]] = []
    for message in messages:
        payload = message.encode() if isinstance(message, str) else message
        send: Any = oracle.send_text if isinstance(message, str) else oracle.send_binary
        if data.draw(st.booleans()):
            send(payload)
        else:
            at = data.draw(st.integers(0, len(payload)))
            send(payload[:at], fin=False)
            oracle.send_ping(b"p")
            expected.append((Opcode.PONG, b"p"))
            oracle.send_continuation(payload[at:], fin=True)
        server.feed(*oracle.data_to_send())
        server.ws.message(payload, isinstance(message, str))
        expected.append((Opcode.TEXT if isinstance(message, str) else Opcode.BINARY, payload))
    assert server.messages == messages
    server.close(3000, "bye")
    oracle.receive_data(server.reply)
    heard = [(one.opcode, bytes(one.data)) for one in oracle.events_received()]  # type: ignore[union-attr]
    assert heard[:-1] == expected
    assert (oracle.close_rcvd.code, oracle.close_rcvd.reason) == (3000, "bye") if oracle.close_rcvd else False
    server.feed(*oracle.data_to_send())
    assert server.state == "closed"


# -- a longer run ----------------------------------------------------------------------------------------


@pytest.mark.fuzz
@settings(max_examples=300)
@given(st.data(), st.booleans(), st.sampled_from([WIDE, TIGHT]))
def test_every_cut_in_two(data: st.DataObject, deflate: bool, config: Config) -> None:
    stream = data.draw(traffic(deflate))
    expected = received(config, deflate, False, [stream])
    step = max(1, len(stream) // 100)
    for index in range(1, len(stream), step):
        for direct in (True, False):
            assert received(config, deflate, direct, [stream[:index], stream[index:]]) == expected

"""RFC 9113, RFC 7541, RFC 8441 and RFC 9218 section by section, in frames built by hand, over TLS and in cleartext.

The cases are those that h2spec publishes and every other MUST that a server can break. Each says which ends it may
have: an error of the stream, an error of the connection (GOAWAY with its code, one line in the log, a closed
connection), a response, or nothing. Where the RFC leaves the choice the server's own policy stands here: what is wrong
with one request ends its stream and no other, and after it the connection serves. A bystander on a connection of its
own sees none of it.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hpack
import pytest

from tests.support import h2, ws
from tests.support.h2 import block, continuation, data, fields, frame, headers, rst, settings, window_update
from tests.support.h2_peer import Peer, post, request
from tests.support.processes.framed import Site, serve_both
from tests.support.processes.serving import MIB, wait_for

pytestmark = pytest.mark.once


NO_ERROR, PROTOCOL, INTERNAL, FLOW_CONTROL, SETTINGS_TIMEOUT, CLOSED, FRAME_SIZE = range(7)
REFUSED, CANCEL, COMPRESSION, CONNECT, CALM = range(7, 12)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT, INITIAL_WINDOW, MAX_FRAME_SIZE, MAX_HEADER_LIST = range(1, 7)

Outcome = tuple[str, int]
NOTHING: Outcome = ("nothing", 0)
SERVED: Outcome = ("served", 200)


def stream_error(code: int) -> Outcome:
    return ("stream", code)


def connection_error(code: int) -> Outcome:
    return ("connection", code)


def served(status: int) -> Outcome:
    return ("served", status)


@pytest.fixture(scope="module")
def sites(pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    with serve_both(pem, tmp_path_factory.mktemp("conformance"), "--head-timeout", "3") as sites:
        sites["clear"].running.expect("announced", "Content-Length", "took too long to shut down")
        yield sites


@pytest.fixture(params=["tls", "clear"])
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


@pytest.fixture(scope="module")
def bystanders(sites: dict[str, Site]) -> Iterator[dict[str, Peer]]:
    """Connections that are open from the first test to the last, each with a request that is under way all the time."""
    with sites["tls"].connect() as tls, sites["clear"].connect() as clear:
        peers = {"tls": tls, "clear": clear}
        slow = {kind: peer.new(b"/sink", method=b"POST", end=False) for kind, peer in peers.items()}
        yield peers
        for kind, peer in peers.items():
            peer.send(data(slow[kind], b"whole", end=True))
            assert peer.response(slow[kind]).body == b"5\n"
            assert not peer.goaways


@pytest.fixture
def peer(site: Site, bystanders: dict[str, Peer]) -> Iterator[Peer]:
    """A client; after the test another connection is as it was."""
    with site.connect() as peer:
        yield peer
    assert bystanders[site.kind].get().body == b"Hello, World!\n"


# -- one provocation, one outcome --------------------------------------------------------------------------------


def idle(peer: Peer) -> None:
    """Stream 1 is idle."""


def opened(peer: Peer) -> None:
    """Stream 1 is open: the body is to follow."""
    peer.send(post())
    peer.settle()
    peer.next = 3


def half_closed(peer: Peer) -> None:
    """Stream 1 is half-closed (remote): the request is whole, the response far."""
    peer.new(b"/wait")
    peer.settle()


def ended(peer: Peer) -> None:
    """Stream 1 is closed: both have ended it."""
    assert peer.get().status == 200


def reset_by_us(peer: Peer) -> None:
    """Stream 1 is closed: the client has reset it."""
    peer.send(post(), rst())
    peer.settle()
    peer.next = 3


def reset_by_server(peer: Peer) -> None:
    """Stream 1 is closed: the server has reset it."""
    peer.send(headers(1, [(b":method", b"GET")], end=False))
    assert peer.response(1).reset == PROTOCOL
    peer.next = 3


def two_open(peer: Peer) -> None:
    """Streams 1 and 3 are open."""
    peer.send(post(1), post(3))
    peer.settle()
    peer.next = 5


@dataclass
class Case:
    name: str
    state: Callable[[Peer], None]
    wire: bytes
    outcomes: tuple[Outcome, ...]
    stream: int = 1

    def __str__(self) -> str:
        return self.name


def case(name: str, state: Callable[[Peer], None], wire: bytes, *outcomes: Outcome, stream: int = 1) -> Case:
    return Case(name, state, wire, outcomes, stream)


def with_fields(*more: tuple[bytes, bytes], method: bytes = b"GET") -> bytes:
    return headers(1, fields(method, b"/hello", *more))


def without(*names: bytes) -> bytes:
    return headers(1, [(name, value) for name, value in fields(b"GET", b"/hello") if name not in names])


def raw_block(payload: bytes, flags: int = h2.END_HEADERS | h2.END_STREAM) -> bytes:
    """HEADERS on stream 1, with bytes for a block."""
    return frame(h2.HEADERS, flags, 1, payload)


def replaced(name: bytes, value: bytes) -> bytes:
    return headers(1, [(key, value if key == name else old) for key, old in fields(b"GET", b"/hello")])


BLOCK = block(fields(b"GET", b"/hello"))
POST_BLOCK = block(fields(b"POST", b"/sink"))
TRAILERS = [(b"x-trailer", b"1")]
UNKNOWN = 0x16

GENERIC = [
    # What h2spec calls generic: things that every server understands.
    case("generic 2 a PRIORITY for an idle stream", idle, h2.priority(1) + request(), SERVED),
    case("generic 2 a WINDOW_UPDATE for a half-closed stream", half_closed, window_update(1, 100), NOTHING),
    case("generic 2 a PRIORITY for a half-closed stream", half_closed, h2.priority(1), NOTHING),
    case("generic 2 a RST_STREAM for a half-closed stream", half_closed, rst(1), NOTHING),
    case("generic 2 a PRIORITY for a closed stream", ended, h2.priority(1), SERVED),
    case("generic 3.1 a DATA frame", opened, data(1, b"test", end=True), SERVED),
    case("generic 3.1 several DATA frames", opened, data(1, b"a") * 3 + data(1, b"b", end=True), SERVED),
    case("generic 3.1 a padded DATA frame", opened, data(1, b"a", end=True, padding=200), SERVED),
    case("generic 3.1 a DATA frame that is all padding", opened, data(1, b"", end=True, padding=255), SERVED),
    case("generic 3.2 a HEADERS frame", idle, request(), SERVED),
    case(
        "generic 3.2 a padded HEADERS frame",
        idle,
        raw_block(b"\x10" + BLOCK + bytes(16), h2.END_HEADERS | h2.END_STREAM | h2.PADDED),
        SERVED,
    ),
    case(
        "generic 3.2 a HEADERS frame with priority",
        idle,
        raw_block(b"\x80\0\0\0\xff" + BLOCK, h2.END_HEADERS | h2.END_STREAM | h2.WITH_PRIORITY),
        SERVED,
    ),
    case(
        "generic 3.2 a HEADERS frame with padding and priority",
        idle,
        raw_block(b"\x03\0\0\0\0\0" + BLOCK + bytes(3), h2.END_HEADERS | h2.END_STREAM | h2.WITH_PRIORITY | h2.PADDED),
        SERVED,
    ),
    case("generic 3.3 PRIORITY with the least weight", idle, h2.priority(1, 0, 0) + request(), SERVED),
    case("generic 3.3 PRIORITY with the most weight", idle, h2.priority(1, 0, 255) + request(), SERVED),
    case("generic 3.3 PRIORITY with a dependency", idle, h2.priority(1, 7) + request(), SERVED),
    case("generic 3.3 PRIORITY, exclusive", idle, h2.priority(1, 2**31 + 3) + request(), SERVED),
    case("generic 3.5 SETTINGS", idle, settings((MAX_CONCURRENT, 10)) + request(), SERVED),
    case("generic 3.7 a PING", idle, h2.ping(b"settled!"), NOTHING),
    case("generic 3.9 a WINDOW_UPDATE for the connection", idle, window_update(0, 1) + request(), SERVED),
    case("generic 3.9 a WINDOW_UPDATE for a stream", opened, window_update(1, 1) + data(1, b"", end=True), SERVED),
    case(
        "generic 3.10 one CONTINUATION frame",
        idle,
        raw_block(BLOCK[:10], h2.END_STREAM) + continuation(1, BLOCK[10:], end=True),
        SERVED,
    ),
    case(
        "generic 3.10 several CONTINUATION frames",
        idle,
        raw_block(b"", h2.END_STREAM)
        + continuation(1, BLOCK[:5])
        + continuation(1, b"")
        + continuation(1, BLOCK[5:])
        + continuation(1, b"", end=True),
        SERVED,
    ),
    case(
        "generic 3.10 a header block in padded HEADERS and CONTINUATION",
        idle,
        raw_block(b"\x05" + BLOCK[:10] + bytes(5), h2.END_STREAM | h2.PADDED) + continuation(1, BLOCK[10:], end=True),
        SERVED,
    ),
    case("generic 4 a GET", idle, request(), SERVED),
    case("generic 4 a HEAD", idle, request(method=b"HEAD"), SERVED),
    case("generic 4 a POST", idle, post() + data(1, b"body", end=True), SERVED),
    case("generic 4 a POST with trailers", opened, data(1, b"body") + headers(1, TRAILERS), SERVED),
    case("generic 4 a POST without a body, but with trailers", opened, headers(1, TRAILERS), SERVED),
    case("generic 4 an OPTIONS *", idle, headers(1, fields(b"OPTIONS", b"*")), served(404)),
]

FRAMES = [
    # -- 4.1 to 4.3
    case("4.1 a frame of unknown type is ignored", idle, frame(UNKNOWN, 0xFF, 0, b"what?") + request(), SERVED),
    case("4.1 a frame of unknown type on a stream is ignored", opened, frame(UNKNOWN, 1, 1, bytes(16384)), NOTHING),
    case("4.1 undefined flags are ignored", idle, frame(h2.PING, 0x16, 0, bytes(8)), NOTHING),
    case("4.1 undefined flags of HEADERS are ignored", idle, raw_block(BLOCK, 0xD5 & ~h2.WITH_PRIORITY), SERVED),
    case("4.1 the reserved bit is ignored", idle, frame(h2.PING, 0, 1 << 31, bytes(8)), NOTHING),
    case("4.1 the reserved bit of a stream is ignored", idle, headers(1 << 31 | 1, fields(b"GET", b"/hello")), SERVED),
    case("4.2 the largest DATA frame", opened, data(1, bytes(16384), end=True), SERVED),
    case(
        "4.2 DATA beyond SETTINGS_MAX_FRAME_SIZE",
        opened,
        data(1, bytes(16385)),
        stream_error(FRAME_SIZE),
        connection_error(FRAME_SIZE),
    ),
    case("4.2 HEADERS beyond SETTINGS_MAX_FRAME_SIZE", idle, raw_block(bytes(16385)), connection_error(FRAME_SIZE)),
    case("4.2 SETTINGS beyond SETTINGS_MAX_FRAME_SIZE", idle, settings(*[(99, 0)] * 2731), connection_error(FRAME_SIZE)),
    case("4.2 an unknown frame beyond SETTINGS_MAX_FRAME_SIZE", idle, frame(UNKNOWN, 0, 0, bytes(16385)), connection_error(FRAME_SIZE)),
    case("4.3 a block that cannot be decoded", idle, raw_block(b"\x40\x01"), connection_error(COMPRESSION)),
    case("4.3 PRIORITY within a block", idle, raw_block(BLOCK, 0) + h2.priority(1), connection_error(PROTOCOL)),
    case(
        "4.3 HEADERS of another stream within a block",
        idle,
        raw_block(BLOCK, 0) + request(stream=3),
        connection_error(PROTOCOL),
    ),
    case(
        "4.3 CONTINUATION of another stream within a block",
        idle,
        raw_block(BLOCK, 0) + continuation(3, b"", end=True),
        connection_error(PROTOCOL),
    ),
    # -- 5.1
    case("5.1 idle: DATA", idle, data(1, b"x"), connection_error(PROTOCOL)),
    case("5.1 idle: RST_STREAM", idle, rst(1), connection_error(PROTOCOL)),
    case("5.1 idle: WINDOW_UPDATE", idle, window_update(1, 100), connection_error(PROTOCOL)),
    case("5.1 idle: CONTINUATION", idle, continuation(1, BLOCK, end=True), connection_error(PROTOCOL)),
    case("5.1 idle, the server's: DATA", opened, data(2, b"x"), connection_error(PROTOCOL)),
    case("5.1 idle, the server's: RST_STREAM", opened, rst(2), connection_error(PROTOCOL)),
    case("5.1 idle, the server's, below ours: RST_STREAM", two_open, rst(2), connection_error(PROTOCOL)),
    case("5.1 idle, the server's, below ours: DATA", two_open, data(2, b"x"), connection_error(PROTOCOL)),
    case("5.1 idle, the server's, below ours: WINDOW_UPDATE", two_open, window_update(2, 1), connection_error(PROTOCOL)),
    case("5.1 idle, the server's, below ours: WINDOW_UPDATE of 0", two_open, window_update(2, 0), connection_error(PROTOCOL)),
    case("5.1 half-closed: DATA", half_closed, data(1, b"x"), stream_error(CLOSED), connection_error(CLOSED)),
    case("5.1 half-closed: an empty DATA", half_closed, data(1, b"", end=True), stream_error(CLOSED), connection_error(CLOSED)),
    case("5.1 half-closed: HEADERS", half_closed, request(), stream_error(CLOSED), connection_error(CLOSED)),
    case(
        "5.1 half-closed: HEADERS without END_STREAM",
        half_closed,
        post(),
        stream_error(CLOSED),
        connection_error(CLOSED),
    ),
    case(
        "5.1 half-closed: CONTINUATION",
        half_closed,
        continuation(1, b"", end=True),
        connection_error(PROTOCOL),
        connection_error(CLOSED),
    ),
    case("5.1 half-closed: PRIORITY_UPDATE", half_closed, h2.priority_update(1, b"u=1"), NOTHING),
    # RFC 9113: "an endpoint MUST minimally process and then discard any frames it receives in this state" covers those
    # that *we* reset; for the others a stream or connection error of type STREAM_CLOSED is allowed.
    case("5.1 closed by RST_STREAM: DATA", reset_by_us, data(1, b"x"), stream_error(CLOSED), connection_error(CLOSED)),
    case("5.1 closed by RST_STREAM: HEADERS", reset_by_us, request(), stream_error(CLOSED), connection_error(CLOSED)),
    case(
        "5.1 closed by RST_STREAM: CONTINUATION",
        reset_by_us,
        continuation(1, b"", end=True),
        connection_error(CLOSED),
        connection_error(PROTOCOL),
    ),
    case("5.1 closed by RST_STREAM: PRIORITY", reset_by_us, h2.priority(1), NOTHING),
    case("5.1 closed by RST_STREAM: RST_STREAM", reset_by_us, rst(1), NOTHING, stream_error(CLOSED)),
    case("5.1 closed by RST_STREAM: WINDOW_UPDATE", reset_by_us, window_update(1, 9), NOTHING, stream_error(CLOSED)),
    case("5.1 closed by END_STREAM: DATA", ended, data(1, b"x"), stream_error(CLOSED), connection_error(CLOSED)),
    case("5.1 closed by END_STREAM: HEADERS", ended, request(), connection_error(CLOSED)),
    case(
        "5.1 closed by END_STREAM: CONTINUATION",
        ended,
        continuation(1, b"", end=True),
        connection_error(CLOSED),
        connection_error(PROTOCOL),
    ),
    case("5.1 closed by END_STREAM: WINDOW_UPDATE", ended, window_update(1, 1), SERVED),
    case("5.1 closed by END_STREAM: RST_STREAM", ended, rst(1), SERVED),
    case("5.1 closed by END_STREAM: PRIORITY", ended, h2.priority(1), SERVED),
    case("5.1 closed by the server's RST_STREAM: DATA", reset_by_server, data(1, bytes(1000), end=True), stream_error(PROTOCOL)),
    case("5.1 closed by the server's RST_STREAM: HEADERS", reset_by_server, request(), stream_error(PROTOCOL)),
    case("5.1 closed by the server's RST_STREAM: WINDOW_UPDATE", reset_by_server, window_update(1, 1), stream_error(PROTOCOL)),
    case("5.1 closed by the server's RST_STREAM: RST_STREAM", reset_by_server, rst(1), stream_error(PROTOCOL)),
    case(
        "5.1 closed by the server's RST_STREAM: a block in parts",
        reset_by_server,
        raw_block(BLOCK[:7], h2.END_STREAM) + continuation(1, BLOCK[7:], end=True),
        stream_error(PROTOCOL),
    ),
    # -- 5.1.1, 5.3, 5.5
    case("5.1.1 an even number", idle, request(stream=2), connection_error(PROTOCOL), stream=2),
    case(
        "5.1.1 a number below the last",
        lambda peer: (peer.send(request(stream=5)), peer.response(5)) and None,
        request(stream=3),
        connection_error(PROTOCOL),
        connection_error(CLOSED),
        stream=3,
    ),
    case("5.1.1 a number with a gap", idle, request(stream=2**31 - 1), SERVED, stream=2**31 - 1),
    case(
        "5.3.1 HEADERS that depend on their own stream",
        idle,
        raw_block(b"\0\0\0\1\0" + BLOCK, h2.END_HEADERS | h2.END_STREAM | h2.WITH_PRIORITY),
        stream_error(PROTOCOL),
        SERVED,
    ),
    # RFC 9113 section 5.3.2 deprecates what RFC 7540 made of this. What h2spec sends is for an idle stream, which cannot
    # be reset.
    case("5.3.1 a PRIORITY that depends on its own stream", opened, h2.priority(1, 1), stream_error(PROTOCOL)),
    case("5.3.1 an idle stream that depends on itself", idle, h2.priority(1, 1), connection_error(PROTOCOL)),
    case("5.5 an unknown frame within a block", idle, raw_block(BLOCK, 0) + frame(UNKNOWN), connection_error(PROTOCOL)),
    case("5.5 an ALTSVC frame is ignored", idle, frame(h2.ALTSVC, 0, 0, b"\0\0") + request(), SERVED),
    # -- 6.1 to 6.4
    case("6.1 DATA on stream 0", opened, data(0, b"x"), connection_error(PROTOCOL)),
    case("6.1 DATA with padding as long as the frame", opened, frame(h2.DATA, h2.PADDED, 1, b"\x05test"), connection_error(PROTOCOL)),
    case("6.1 DATA with padding longer than the frame", opened, frame(h2.DATA, h2.PADDED, 1, b"\x06test!"), connection_error(PROTOCOL)),
    case(
        "6.1 DATA with padding and no length of it",
        opened,
        frame(h2.DATA, h2.PADDED, 1),
        connection_error(PROTOCOL),
        connection_error(FRAME_SIZE),
    ),
    case(
        "6.1 DATA with too long a padding on a stream that the server has reset",
        reset_by_server,
        frame(h2.DATA, h2.PADDED, 1, b"\x06test!"),
        connection_error(PROTOCOL),
        stream_error(PROTOCOL),
    ),
    case("6.2 HEADERS on stream 0", idle, frame(h2.HEADERS, 5, 0, BLOCK), connection_error(PROTOCOL)),
    case(
        "6.2 HEADERS with padding longer than the frame",
        idle,
        raw_block(b"\xff" + BLOCK[:200], h2.END_HEADERS | h2.END_STREAM | h2.PADDED),
        connection_error(PROTOCOL),
    ),
    case(
        "6.2 HEADERS with padding over the priority",
        idle,
        raw_block(b"\x05\0\0\0\0\0", h2.END_HEADERS | h2.END_STREAM | h2.PADDED | h2.WITH_PRIORITY),
        connection_error(PROTOCOL),
    ),
    case(
        "6.2 HEADERS with half a priority",
        idle,
        raw_block(b"\0\0\0", h2.END_HEADERS | h2.END_STREAM | h2.WITH_PRIORITY),
        connection_error(PROTOCOL),
        connection_error(FRAME_SIZE),
    ),
    case(
        "6.2 HEADERS with padding and no length of it",
        idle,
        raw_block(b"", h2.END_HEADERS | h2.END_STREAM | h2.PADDED),
        connection_error(PROTOCOL),
        connection_error(FRAME_SIZE),
    ),
    case("6.3 PRIORITY on stream 0", idle, h2.priority(0), connection_error(PROTOCOL)),
    case("6.3 PRIORITY that is too short", opened, frame(h2.PRIORITY, 0, 1, bytes(4)), stream_error(FRAME_SIZE)),
    case("6.3 PRIORITY that is too long", opened, frame(h2.PRIORITY, 0, 1, bytes(6)), stream_error(FRAME_SIZE)),
    case("6.3 PRIORITY of wrong size on an idle stream", idle, frame(h2.PRIORITY, 0, 1, bytes(6)), connection_error(FRAME_SIZE)),
    case("6.4 RST_STREAM on stream 0", opened, rst(0), connection_error(PROTOCOL)),
    case("6.4 RST_STREAM that is too short", opened, frame(h2.RST_STREAM, 0, 1, bytes(3)), connection_error(FRAME_SIZE)),
    case("6.4 RST_STREAM that is too long", opened, frame(h2.RST_STREAM, 0, 1, bytes(5)), connection_error(FRAME_SIZE)),
    case(
        "6.4 RST_STREAM of wrong size on a stream that the server has reset",
        reset_by_server,
        frame(h2.RST_STREAM, 0, 1, bytes(5)),
        connection_error(FRAME_SIZE),
    ),
    # -- 6.5
    case("6.5 an ACK with a payload", idle, frame(h2.SETTINGS, 1, 0, bytes(6)), connection_error(FRAME_SIZE)),
    case("6.5 SETTINGS on a stream", opened, frame(h2.SETTINGS, 0, 1), connection_error(PROTOCOL)),
    case("6.5 SETTINGS of a length that is no multiple of 6", idle, frame(h2.SETTINGS, 0, 0, bytes(3)), connection_error(FRAME_SIZE)),
    case("6.5 an ACK nobody waits for", idle, settings(ack=True) * 2 + request(), SERVED),
    case("6.5.2 ENABLE_PUSH of 2", idle, settings((ENABLE_PUSH, 2)), connection_error(PROTOCOL)),
    case("6.5.2 INITIAL_WINDOW_SIZE of 2^31", idle, settings((INITIAL_WINDOW, 2**31)), connection_error(FLOW_CONTROL)),
    case("6.5.2 MAX_FRAME_SIZE below 2^14", idle, settings((MAX_FRAME_SIZE, 16383)), connection_error(PROTOCOL)),
    case("6.5.2 MAX_FRAME_SIZE above 2^24 - 1", idle, settings((MAX_FRAME_SIZE, 2**24)), connection_error(PROTOCOL)),
    case("6.5.2 an unknown setting", idle, settings((0xFF, 1), (0xFFFF, 2**32 - 1)) + request(), SERVED),
    case("6.5.2 all that is allowed", idle, settings((1, 0), (2, 0), (3, 0), (4, 2**31 - 1), (5, 2**24 - 1), (6, 0)) + request(), SERVED),
    case("RFC 8441 3 ENABLE_CONNECT_PROTOCOL of 2", idle, settings((8, 2)), connection_error(PROTOCOL)),
    case("RFC 9218 2.1 NO_RFC7540_PRIORITIES", idle, settings((9, 1)) + request(), SERVED),
    # -- 6.6 to 6.8
    case("6.6 PUSH_PROMISE", opened, frame(h2.PUSH_PROMISE, 4, 1, b"\0\0\0\2" + BLOCK), connection_error(PROTOCOL)),
    case("6.6 PUSH_PROMISE on stream 0", idle, frame(h2.PUSH_PROMISE, 4, 0, b"\0\0\0\2" + BLOCK), connection_error(PROTOCOL)),
    case("6.7 PING on a stream", opened, frame(h2.PING, 0, 1, bytes(8)), connection_error(PROTOCOL)),
    case("6.7 PING that is too short", idle, frame(h2.PING, 0, 0, bytes(6)), connection_error(FRAME_SIZE)),
    case("6.7 PING that is too long", idle, frame(h2.PING, 0, 0, bytes(9)), connection_error(FRAME_SIZE)),
    case("6.8 GOAWAY on a stream", opened, frame(h2.GOAWAY, 0, 1, bytes(8)), connection_error(PROTOCOL)),
    case("6.8 GOAWAY that is too short", idle, frame(h2.GOAWAY, 0, 0, bytes(7)), connection_error(FRAME_SIZE)),
    # -- 6.9
    case("6.9 a WINDOW_UPDATE of 0 for the connection", idle, window_update(0, 0), connection_error(PROTOCOL)),
    case("6.9 a WINDOW_UPDATE of 0 for a stream", opened, window_update(1, 0), stream_error(PROTOCOL)),
    case("6.9 a WINDOW_UPDATE with the reserved bit and 0", opened, window_update(1, 2**31), stream_error(PROTOCOL)),
    case("6.9 a WINDOW_UPDATE that is too short", idle, frame(h2.WINDOW_UPDATE, 0, 0, bytes(3)), connection_error(FRAME_SIZE)),
    case("6.9 a WINDOW_UPDATE of a stream that is too long", opened, frame(h2.WINDOW_UPDATE, 0, 1, bytes(5)), connection_error(FRAME_SIZE)),
    case("6.9.1 the window of the connection overflows", idle, window_update(0, 2**31 - 1) * 2, connection_error(FLOW_CONTROL)),
    case("6.9.1 the window of a stream overflows", opened, window_update(1, 2**31 - 1), stream_error(FLOW_CONTROL)),
    case("6.9.1 the window of a half-closed stream overflows", half_closed, window_update(1, 2**31 - 1), stream_error(FLOW_CONTROL)),
    case("6.9.1 the largest window of the connection", idle, window_update(0, 2**31 - 1 - 65535) + request(), SERVED),
    case("6.9.2 SETTINGS let the window of a stream overflow", opened, window_update(1, 2**31 - 1 - 65535) + settings((INITIAL_WINDOW, 65536)), connection_error(FLOW_CONTROL)),
    # -- 6.10
    case("6.10 a block followed by DATA", idle, raw_block(BLOCK, 0) + data(1, b"x"), connection_error(PROTOCOL)),
    case("6.10 a block followed by SETTINGS", idle, raw_block(BLOCK, 0) + settings(), connection_error(PROTOCOL)),
    case("6.10 CONTINUATION on stream 0", idle, raw_block(BLOCK, 0) + continuation(0, b"", end=True), connection_error(PROTOCOL)),
    case("6.10 CONTINUATION behind END_HEADERS", idle, request() + continuation(1, b"", end=True), connection_error(PROTOCOL)),
    case(
        "6.10 CONTINUATION behind END_HEADERS of another",
        idle,
        raw_block(BLOCK, 1) + continuation(1, b"", end=True) + continuation(1, b"", end=True),
        connection_error(PROTOCOL),
    ),
    case("6.10 CONTINUATION behind DATA", opened, data(1, b"x") + continuation(1, b"", end=True), connection_error(PROTOCOL)),
    # -- 7
    case("7 RST_STREAM with an unknown code", half_closed, rst(1, 0xFF), NOTHING),
    case("7 RST_STREAM with the largest code", half_closed, rst(1, 2**32 - 1), NOTHING),
    # -- RFC 9218
    case("RFC 9218 7.1 PRIORITY_UPDATE on a stream", opened, frame(h2.PRIORITY_UPDATE, 0, 1, b"\0\0\0\1u=1"), connection_error(PROTOCOL)),
    case("RFC 9218 7.1 PRIORITY_UPDATE that is too short", opened, frame(h2.PRIORITY_UPDATE, 0, 0, b"\0\0\0"), connection_error(FRAME_SIZE)),
    case("RFC 9218 7.1 PRIORITY_UPDATE for stream 0", opened, h2.priority_update(0, b"u=1"), connection_error(PROTOCOL)),
    case("RFC 9218 7.1 PRIORITY_UPDATE that makes no sense", opened, h2.priority_update(1, b"\xff=\0;") + data(1, b"", end=True), SERVED),
    case("RFC 9218 7.1 PRIORITY_UPDATE before its request", idle, h2.priority_update(1, b"u=0, i") + request(), SERVED),
]  # fmt: skip

MESSAGES = [
    # -- 8.1
    case("8.1 a second HEADERS without END_STREAM", opened, post(), stream_error(PROTOCOL)),
    case("8.1 trailers without END_STREAM", opened, data(1, b"x") + headers(1, TRAILERS, end=False), stream_error(PROTOCOL)),
    case("8.1 trailers in parts", opened, frame(h2.HEADERS, 1, 1, block(TRAILERS)) + continuation(1, b"", end=True), SERVED),
    case("8.1 a pseudo-header field in trailers", opened, headers(1, [*TRAILERS, (b":path", b"/")]), stream_error(PROTOCOL)),
    case("8.1 an upper-case name in trailers", opened, headers(1, [(b"X-Trailer", b"1")]), stream_error(PROTOCOL)),
    case("8.1 a field of the connection in trailers", opened, headers(1, [(b"connection", b"x")]), stream_error(PROTOCOL)),
    case("8.1 too many trailers", opened, headers(1, [(b"x-%d" % n, b"") for n in range(33)]), served(431), stream_error(CANCEL)),
    case("8.1 HEADERS behind trailers", opened, headers(1, TRAILERS) * 2, stream_error(CLOSED), connection_error(CLOSED), SERVED),
    # -- 8.2
    case("8.2.1 an upper-case name", idle, with_fields((b"X-Test", b"x")), stream_error(PROTOCOL)),
    case("8.2.1 an upper-case pseudo-header field", idle, headers(1, [(b":METHOD", b"GET"), *fields()[1:]]), stream_error(PROTOCOL)),
    case("8.2.1 a name without a character", idle, with_fields((b"", b"x")), stream_error(PROTOCOL)),
    case("8.2.1 a name with a space", idle, with_fields((b"x test", b"x")), stream_error(PROTOCOL)),
    case("8.2.1 a name with a colon", idle, with_fields((b"x:test", b"x")), stream_error(PROTOCOL)),
    case("8.2.1 a name that is not ASCII", idle, with_fields((b"x-\xe4", b"x")), stream_error(PROTOCOL)),
    case("8.2.1 a name with a NUL", idle, with_fields((b"x-\0", b"x")), stream_error(PROTOCOL)),
    case("8.2.1 a value with a CR", idle, with_fields((b"x-test", b"a\rb")), stream_error(PROTOCOL)),
    case("8.2.1 a value with a LF", idle, with_fields((b"x-test", b"a\nb")), stream_error(PROTOCOL)),
    case("8.2.1 a value with CR LF and a field", idle, with_fields((b"x-test", b"a\r\nhost: b")), stream_error(PROTOCOL)),
    case("8.2.1 a value with a NUL", idle, with_fields((b"x-test", b"a\0b")), stream_error(PROTOCOL)),
    case("8.2.1 a value that begins with a space", idle, with_fields((b"x-test", b" a")), stream_error(PROTOCOL)),
    case("8.2.1 a value that ends with a tab", idle, with_fields((b"x-test", b"a\t")), stream_error(PROTOCOL)),
    case("8.2.1 a value that is not ASCII", idle, with_fields((b"x-test", b"\xe4\xf6")), SERVED),
    case("8.2.2 connection", idle, with_fields((b"connection", b"keep-alive")), stream_error(PROTOCOL)),
    case("8.2.2 keep-alive", idle, with_fields((b"keep-alive", b"timeout=5")), stream_error(PROTOCOL)),
    case("8.2.2 proxy-connection", idle, with_fields((b"proxy-connection", b"keep-alive")), stream_error(PROTOCOL)),
    case("8.2.2 transfer-encoding", idle, with_fields((b"transfer-encoding", b"chunked")), stream_error(PROTOCOL)),
    case("8.2.2 upgrade", idle, with_fields((b"upgrade", b"websocket")), stream_error(PROTOCOL)),
    case("8.2.2 te: gzip", idle, with_fields((b"te", b"gzip")), stream_error(PROTOCOL)),
    case("8.2.2 te: trailers, deflate;q=0.5", idle, with_fields((b"te", b"trailers, deflate;q=0.5")), stream_error(PROTOCOL)),
    case("8.2.2 te: trailers", idle, with_fields((b"te", b"trailers")), SERVED),
    # -- 8.3
    case("8.3 an unknown pseudo-header field", idle, headers(1, [*fields(), (b":test", b"x")]), stream_error(PROTOCOL)),
    case("8.3 :status in a request", idle, headers(1, [*fields(), (b":status", b"200")]), stream_error(PROTOCOL)),
    case("8.3 a pseudo-header field behind others", idle, headers(1, [*fields()[:3], (b"x-a", b"b"), fields()[3]]), stream_error(PROTOCOL)),
    case("8.3 a pseudo-header field between others, twice", idle, with_fields((b"x-a", b"b"), (b":path", b"/")), stream_error(PROTOCOL)),
    case("8.3.1 no :method", idle, without(b":method"), stream_error(PROTOCOL)),
    case("8.3.1 no :scheme", idle, without(b":scheme"), stream_error(PROTOCOL)),
    case("8.3.1 no :path", idle, without(b":path"), stream_error(PROTOCOL)),
    case("8.3.1 no :authority and no host", idle, without(b":authority"), stream_error(PROTOCOL)),
    case("8.3.1 no pseudo-header field", idle, headers(1, [(b"host", b"a")]), stream_error(PROTOCOL)),
    case("8.3.1 no field", idle, raw_block(b""), stream_error(PROTOCOL)),
    *(
        case(f"8.3.1 {name.decode()} twice", idle, headers(1, [*fields(), (name, value)]), stream_error(PROTOCOL))
        for name, value in fields()
    ),
    case("8.3.1 an empty :method", idle, replaced(b":method", b""), stream_error(PROTOCOL)),
    case("8.3.1 an empty :scheme", idle, replaced(b":scheme", b""), stream_error(PROTOCOL)),
    case("8.3.1 an empty :path", idle, replaced(b":path", b""), stream_error(PROTOCOL)),
    case("8.3.1 an empty :authority", idle, replaced(b":authority", b""), stream_error(PROTOCOL)),
    case("8.3.1 an :authority with a user", idle, replaced(b":authority", b"me@conformance.test"), stream_error(PROTOCOL)),
    case("8.3.1 an :authority with a path", idle, replaced(b":authority", b"conformance.test/x"), stream_error(PROTOCOL)),
    case("8.3.1 a :path that does not begin with a slash", idle, replaced(b":path", b"hello"), stream_error(PROTOCOL)),
    case("8.3.1 an absolute :path", idle, replaced(b":path", b"http://other.test/"), stream_error(PROTOCOL)),
    case("8.3.1 a :path with a space", idle, replaced(b":path", b"/a b"), stream_error(PROTOCOL)),
    case("8.3.1 a :path with a fragment", idle, replaced(b":path", b"/a#b"), stream_error(PROTOCOL)),
    case("8.3.1 a GET of *", idle, replaced(b":path", b"*"), stream_error(PROTOCOL)),
    case("8.3.1 a :method that is no token", idle, replaced(b":method", b"GE T"), stream_error(PROTOCOL)),
    case("8.3.1 a :method that nobody knows", idle, replaced(b":method", b"FROBNICATE"), served(501)),
    case("8.3.1 a lower-case :method", idle, replaced(b":method", b"get"), served(501)),
    case("8.3.1 a :scheme that is not served", idle, replaced(b":scheme", b"ftp"), served(400)),
    case("8.3.1 the scheme http", idle, replaced(b":scheme", b"http"), SERVED),
    case("8.3.1 the scheme https", idle, replaced(b":scheme", b"https"), SERVED),
    case("8.3.1 a host beside :authority that says the same", idle, with_fields((b"host", b"example.com")), SERVED),
    case("8.3.1 a host that differs from :authority", idle, with_fields((b"host", b"other.test")), stream_error(PROTOCOL)),
    case("8.3.1 two hosts", idle, with_fields((b"host", b"example.com"), (b"host", b"example.com")), stream_error(PROTOCOL)),
    case("8.3.1 a host in place of :authority", idle, headers(1, [f for f in fields(b"GET", b"/hello") if f[0] != b":authority"] + [(b"host", b"a.test")]), SERVED),
    # -- 8.1.1, what h2spec has under 8.1.2.6
    case("8.1.1 a body shorter than its content-length", idle, post(1, b"/sink", (b"content-length", b"5")) + data(1, b"1234", end=True), stream_error(PROTOCOL)),
    case("8.1.1 a body longer than its content-length", idle, post(1, b"/sink", (b"content-length", b"3")) + data(1, b"1234", end=True), stream_error(PROTOCOL)),
    case("8.1.1 several DATA shorter than their content-length", idle, post(1, b"/sink", (b"content-length", b"9")) + data(1, b"12") + data(1, b"34", end=True), stream_error(PROTOCOL)),
    case("8.1.1 several DATA longer than their content-length", idle, post(1, b"/sink", (b"content-length", b"3")) + data(1, b"12") + data(1, b"34", end=True), stream_error(PROTOCOL)),
    case("8.1.1 trailers before the content-length is reached", idle, post(1, b"/sink", (b"content-length", b"9")) + data(1, b"12") + headers(1, TRAILERS), stream_error(PROTOCOL)),
    case("8.1.1 a content-length and no body", idle, with_fields((b"content-length", b"1"), method=b"POST"), stream_error(PROTOCOL)),
    case("8.1.1 a content-length that is reached", idle, post(1, b"/sink", (b"content-length", b"4")) + data(1, b"12", padding=9) + data(1, b"34", end=True, padding=0), SERVED),
    case("8.1.1 a content-length of 0", idle, post(1, b"/sink", (b"content-length", b"0")) + data(1, b"", end=True), SERVED),
    case("8.1.1 a content-length and padding in its place", idle, post(1, b"/sink", (b"content-length", b"4")) + data(1, b"12", end=True, padding=2), stream_error(PROTOCOL)),
    case("8.1.1 two content-lengths that differ", idle, post(1, b"/sink", (b"content-length", b"4"), (b"content-length", b"5")), stream_error(PROTOCOL)),
    *(
        case(f"8.1.1 a content-length of {value.decode()}", idle, post(1, b"/sink", (b"content-length", value)), stream_error(PROTOCOL))
        for value in (b"+4", b"-1", b"4, 4", b"0x4", b"4.", b"four", b"")
    ),
    # -- 8.5 and RFC 8441
    case("8.5 a CONNECT", idle, headers(1, [(b":method", b"CONNECT"), (b":authority", b"a.test:443")], end=False), stream_error(PROTOCOL), served(501), served(405)),
    case("8.5 a CONNECT with :path and :scheme", idle, replaced(b":method", b"CONNECT"), stream_error(PROTOCOL)),
    case("RFC 8441 4 :protocol of a GET", idle, headers(1, [*fields(), (b":protocol", b"websocket")]), stream_error(PROTOCOL)),
    case("RFC 8441 4 an extended CONNECT without :path", idle, headers(1, [f for f in [*fields(b"CONNECT"), (b":protocol", b"websocket")] if f[0] != b":path"], end=False), stream_error(PROTOCOL)),
    case("RFC 8441 4 an extended CONNECT without :authority", idle, headers(1, [f for f in [*fields(b"CONNECT"), (b":protocol", b"websocket")] if f[0] != b":authority"], end=False), stream_error(PROTOCOL)),
    case("RFC 8441 4 :protocol twice", idle, headers(1, [*fields(b"CONNECT"), (b":protocol", b"websocket"), (b":protocol", b"websocket")], end=False), stream_error(PROTOCOL)),
    case("RFC 8441 5 an unknown protocol", idle, headers(1, [*fields(b"CONNECT"), (b":protocol", b"gopher")], end=False), served(501)),
    case("RFC 8441 5 a handshake of another version", idle, headers(1, [*fields(b"CONNECT"), (b":protocol", b"websocket"), (b"sec-websocket-version", b"12")], end=False), served(426), served(400)),
    case("RFC 8441 5 a handshake that ends its stream", idle, headers(1, [*fields(b"CONNECT"), (b":protocol", b"websocket"), (b"sec-websocket-version", b"13")]), served(400)),
]  # fmt: skip

# A field that takes the dynamic table's first place, and a reference to it.
_INDEXED = b"\x40\x06x-test\x01a"


def huffman(text: bytes) -> bytes:
    """A string literal in Huffman code."""
    wire: bytes = hpack.Encoder().encode([(b"x", text)], huffman=True)
    # A literal with a new name: pattern, name, value.
    return wire[1 + 1 + (wire[1] & 0x7F) :]


HPACK = [
    case("RFC 7541 2.3.3 an index beyond both tables", idle, raw_block(BLOCK + b"\xfe"), connection_error(COMPRESSION)),
    case("RFC 7541 2.3.3 a huge index", idle, raw_block(BLOCK + b"\xff\x80\x80\x04"), connection_error(COMPRESSION)),
    case("RFC 7541 2.3.3 a name with an index beyond both tables", idle, raw_block(BLOCK + b"\x7e\x01a"), connection_error(COMPRESSION)),
    case("RFC 7541 2.3.3 the first index of an empty dynamic table", idle, raw_block(BLOCK + b"\xbe"), connection_error(COMPRESSION)),
    case("RFC 7541 2.3.2 an entry of the dynamic table", idle, raw_block(BLOCK + _INDEXED + b"\xbe"), SERVED),
    case("RFC 7541 4.2 a size update at the end of a block", idle, raw_block(BLOCK + b"\x20"), connection_error(COMPRESSION)),
    case("RFC 7541 4.2 a size update at the beginning", idle, raw_block(b"\x20" + BLOCK), SERVED),
    case("RFC 7541 4.2 two size updates at the beginning", idle, raw_block(b"\x20\x3f\xe1\x1f" + BLOCK), SERVED),
    case("RFC 7541 4.2 a size update in trailers", opened, raw_block(b"\x20" + block(TRAILERS)), SERVED),
    case("RFC 7541 4.4 an entry larger than the table empties it", idle, raw_block(BLOCK + _INDEXED + b"\x40\x01x\x7f\x80\x20" + bytes(4223).replace(b"\0", b"a") + b"\xbe"), connection_error(COMPRESSION)),
    case("RFC 7541 4.3 an evicted entry", idle, raw_block(BLOCK + _INDEXED) + raw_block(b"\x20" + BLOCK + b"\xbe").replace(b"\0\0\0\1", b"\0\0\0\3", 1), connection_error(COMPRESSION)),
    case("RFC 7541 5.1 an integer that does not end", idle, raw_block(BLOCK + b"\xff" + b"\x80" * 20), connection_error(COMPRESSION)),
    case("RFC 7541 5.1 an integer with leading zeros", idle, raw_block(BLOCK + b"\x00\x01x\x7f\x80\x80\x80\x80\x80\x80\x00" + b"a" * 127), connection_error(COMPRESSION), SERVED),
    case("RFC 7541 5.1 a length of 2^32", idle, raw_block(BLOCK + b"\x00\x01x\x7f\x81\xff\xff\xff\x0f"), connection_error(COMPRESSION)),
    case("RFC 7541 5.2 a string longer than its block", idle, raw_block(BLOCK + b"\x00\x05abc"), connection_error(COMPRESSION)),
    case("RFC 7541 5.2 Huffman padding of more than 7 bits", idle, raw_block(BLOCK + b"\x00\x01x" + bytes((huffman(b"test")[0] + 1,)) + huffman(b"test")[1:] + b"\xff"), connection_error(COMPRESSION)),
    case("RFC 7541 5.2 Huffman padding that is not of the EOS", idle, raw_block(BLOCK + b"\x00\x01x\x81\x18"), connection_error(COMPRESSION)),
    case("RFC 7541 5.2 a Huffman string with the EOS", idle, raw_block(BLOCK + b"\x00\x01x\x84\xff\xff\xff\xff"), connection_error(COMPRESSION)),
    case("RFC 7541 5.2 an empty Huffman string", idle, raw_block(BLOCK + b"\x00\x01x\x80"), SERVED),
    case("RFC 7541 5.2 a Huffman string", idle, raw_block(BLOCK + b"\x00\x01x" + huffman(b"a fairly long value")), SERVED),
    case("RFC 7541 6.1 the index 0", idle, raw_block(BLOCK + b"\x80"), connection_error(COMPRESSION)),
    case("RFC 7541 6.1 fields of the static table", idle, raw_block(b"\x82\x87\x84\x01\x06a.test"), served(404)),
    case("RFC 7541 6.2.1 with incremental indexing", idle, raw_block(b"\x82\x87\x44\x06/hello\x41\x06a.test"), SERVED),
    case("RFC 7541 6.2.2 without indexing", idle, raw_block(b"\x82\x87\x04\x06/hello\x01\x06a.test"), SERVED),
    case("RFC 7541 6.2.3 never indexed", idle, raw_block(b"\x82\x87\x14\x06/hello\x11\x06a.test\x10\x01x\x01y"), SERVED),
    case("RFC 7541 6.2 a literal that is cut off", idle, raw_block(BLOCK + b"\x40"), connection_error(COMPRESSION)),
    case("RFC 7541 6.3 a size update beyond SETTINGS_HEADER_TABLE_SIZE", idle, raw_block(b"\x3f\xe2\x1f" + BLOCK), connection_error(COMPRESSION)),
    case("RFC 7541 6.3 a size update of 2^31", idle, raw_block(b"\x3f\xe1\xff\xff\xff\x07" + BLOCK), connection_error(COMPRESSION)),
    case("RFC 7541 6.3 a size update to all that is allowed", idle, raw_block(b"\x3f\xe1\x1f" + BLOCK), SERVED),
    case("RFC 7541 a block on a stream that was reset keeps the tables in step", reset_by_server, raw_block(b"\x40\x06x-test\x01a", 5) + raw_block(BLOCK + b"\xbe").replace(b"\0\0\0\1", b"\0\0\0\3", 1), SERVED, stream=3),
    case("RFC 7541 a refused block with a wrong index", reset_by_server, raw_block(BLOCK + b"\xfe"), connection_error(COMPRESSION)),
]  # fmt: skip


@pytest.mark.parametrize("case", [*GENERIC, *FRAMES, *MESSAGES, *HPACK], ids=str)
def test_section(case: Case, peer: Peer, site: Site) -> None:
    case.state(peer)
    answer = peer.answer(case.stream)
    peer.send(case.wire)
    peer.settle()
    expected = [kind for kind, _code in case.outcomes]
    if "served" in expected and not (peer.goaways or peer.closed):
        peer.wait(
            lambda: answer.ended or answer.reset is not None or peer.goaways or peer.closed, "an answer, or an error"
        )
    outcome = NOTHING
    if peer.goaways:
        outcome = connection_error(peer.goaways[-1][1])
    elif answer.reset is not None and answer.reset != NO_ERROR:
        outcome = stream_error(answer.reset)
    elif answer.ended:
        outcome = served(answer.status)
    assert outcome in case.outcomes, (outcome, peer.goaways, answer)
    if outcome[0] == "connection":
        # 5.4.1: GOAWAY, with the last stream that was worked on; then the end.
        last, code, detail = peer.goaways[-1]
        assert len(peer.goaways) == 1
        assert last <= 5 or last == case.stream
        assert code and detail.isascii() and len(detail) < 100
        peer.wait_closed()
        assert site.endings(peer) == [code]
    else:
        # 5.4.2, and all else that is no error of the connection: it serves.
        peer.next = max(peer.next, case.stream + 2)
        if peer.next < 2**31:
            assert peer.get().body == b"Hello, World!\n"
        assert not peer.goaways
        assert site.endings(peer) == []


# -- 3.4: how a connection begins --------------------------------------------------------------------------------


def test_3_4_the_server_begins_with_settings_and_acknowledges_ours(peer: Peer) -> None:
    peer.wait(lambda: peer.settings_acks, "the acknowledgement")
    assert peer.frames[0][0] == h2.SETTINGS
    assert peer.settings[MAX_CONCURRENT] == 100
    assert peer.settings[MAX_HEADER_LIST] == 65536
    assert peer.settings[8] == 1  # RFC 8441 section 3
    assert peer.settings[9] == 1  # RFC 9218 section 2.1
    assert peer.settings.get(INITIAL_WINDOW, 65535) == 65535
    assert 16384 <= peer.settings.get(MAX_FRAME_SIZE, 16384) < 2**24


@pytest.mark.parametrize("cut", [1, 3, 10, 23, 24, 27, 33])
def test_3_4_the_preface_may_come_in_parts(site: Site, cut: int) -> None:
    wire = h2.PREFACE + settings() + request()
    with site.connect(begin=False) as peer:
        peer.send(wire[:cut])
        time.sleep(0.02)
        peer.send(wire[cut:])
        assert peer.response(1).status == 200


def test_3_4_requests_may_follow_the_preface_at_once_byte_by_byte(site: Site) -> None:
    wire = h2.PREFACE + settings() + post() + data(1, b"body", end=True, padding=3) + request(stream=3)
    with site.connect(begin=False) as peer:
        for at in range(len(wire)):
            peer.send(wire[at : at + 1])
        assert peer.response(1).body == b"4\n"
        assert peer.response(3).status == 200


@pytest.mark.parametrize(
    "wire",
    [
        b"INVALID CONNECTION PREFACE\r\n\r\n",
        h2.PREFACE[:20] + b"XX\r\n" + settings(),
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ],
    ids=["not at all", "at the end", "its second line"],
)
def test_3_4_a_wrong_preface_ends_the_connection(site: Site, wire: bytes) -> None:
    with site.connect(begin=False) as peer:
        peer.send(wire)
        if site.kind == "clear":  # then it is HTTP/1.1
            reply = b""
            while part := peer.socket.recv(1000):
                reply += part
            assert reply.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
            return
        peer.wait_closed()
        assert [code for _last, code, _detail in peer.goaways] == [PROTOCOL]
        assert site.endings(peer) == [PROTOCOL]


@pytest.mark.parametrize(
    "first",
    [h2.ping(), request(), window_update(0, 1), settings(ack=True), h2.priority(1), frame(UNKNOWN), h2.goaway()],
    ids=["PING", "HEADERS", "WINDOW_UPDATE", "an ACK", "PRIORITY", "an unknown one", "GOAWAY"],
)
def test_3_4_the_first_frame_is_settings_and_no_other(site: Site, first: bytes) -> None:
    with site.connect(begin=False) as peer:
        peer.send(h2.PREFACE, first)
        peer.wait_closed()
        assert [code for _last, code, _detail in peer.goaways] == [PROTOCOL]
        assert not peer.answers


def test_3_4_no_preface_takes_longer_than_a_head(site: Site) -> None:
    with site.connect(begin=False, acknowledge=False) as peer:
        begun = time.monotonic()
        peer.send(h2.PREFACE + settings()[:4])
        peer.wait_closed()
        assert time.monotonic() - begun < 6
        assert [code for _last, code, _detail in peer.goaways] == [CALM]


def test_3_1_an_upgrade_to_h2c_is_ignored(sites: dict[str, Site]) -> None:
    with sites["clear"].socket() as connection:
        connection.sendall(
            b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: close\r\n\r\n"
        )
        reply = b""
        while part := connection.recv(1000):
            reply += part
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.endswith(b"Hello, World!\n")


# -- 5: streams --------------------------------------------------------------------------------------------------


def test_5_1_2_a_stream_beyond_the_limit_is_refused_and_may_come_again(peer: Peer) -> None:
    for _ in range(100):
        peer.new(b"/sink", method=b"POST", end=False)
    refused = [peer.new() for _ in range(20)]
    for stream in refused:
        assert peer.response(stream).reset == REFUSED
    for stream in range(1, 201, 2):
        peer.send(data(stream, b"x", end=True))
    for stream in range(1, 201, 2):
        assert peer.response(stream).body == b"1\n"
    assert peer.get().status == 200
    assert not peer.goaways


def test_5_1_2_a_refused_block_keeps_the_tables_in_step(peer: Peer) -> None:
    for _ in range(100):
        peer.new(b"/sink", method=b"POST", end=False)
    peer.send(frame(h2.HEADERS, 5, 201, BLOCK + b"\x40\x06x-test\x08in-table"))
    assert peer.response(201).reset == REFUSED
    peer.send(rst(1))
    peer.settle()
    seen = block(fields(b"GET", b"/seen")) + b"\xbe"
    peer.wait(lambda: _get_raw(peer, seen), "a free stream")


def _get_raw(peer: Peer, payload: bytes) -> bool:
    stream = peer.next = max(peer.next, 203)
    peer.next += 2
    peer.send(frame(h2.HEADERS, 5, stream, payload))
    answer = peer.response(stream)
    if answer.reset == REFUSED:
        return False
    assert ["x-test", "in-table"] in json.loads(answer.body)["headers"]
    return True


def test_5_1_data_for_a_stream_that_the_server_has_reset_counts_for_the_connection(peer: Peer) -> None:
    """The window of the connection is given back for frames that are dropped, or it would close for ever."""
    window = 65535 + peer.wait(lambda: peer.updates, "the first window")
    sent = 0
    for _ in range(3):
        stream = peer.next
        peer.next += 2
        peer.send(headers(stream, [(b":method", b"POST")], end=False))
        assert peer.response(stream).reset == PROTOCOL
        for _ in range(30):
            peer.send(data(stream, bytes(16000), padding=100))
            sent += 16101
            if window + peer.updates - sent < 65535:
                peer.settle()
            assert 65535 + peer.updates - sent > 0
    assert sent > MIB
    peer.send(post(peer.next), data(peer.next, b"x" * 16384, end=True))
    assert peer.response(peer.next).body == b"16384\n"
    peer.settle()
    assert 65535 + peer.updates - sent > window // 2 - 65536


@pytest.mark.parametrize("first", range(0, 256, 32))
def test_5_5_frames_of_every_unknown_type_are_ignored(peer: Peer, first: int) -> None:
    known = {*range(10), h2.PRIORITY_UPDATE}
    kinds = [kind for kind in range(first, first + 32) if kind not in known]
    peer.send(*(frame(kind, 0xFF, stream, b"x" * kind) for kind in kinds for stream in (0, 1)))
    assert peer.get().status == 200


# -- 6: frames that the server has to send ---------------------------------------------------------------------------


def test_6_5_3_each_settings_frame_is_acknowledged(peer: Peer) -> None:
    for size in (0, 100, 4096, 65536, 2**32 - 1):
        peer.send(settings((HEADER_TABLE_SIZE, size), (INITIAL_WINDOW, 65535)))
    peer.settle()
    assert peer.settings_acks == 6


def test_6_5_3_the_last_of_several_values_counts(peer: Peer) -> None:
    peer.send(settings((INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1)))
    stream = peer.new()
    peer.settle()
    peer.wait(lambda: peer.answer(stream).body, "data")
    assert len(peer.answer(stream).body) == 1


def test_6_5_2_frames_are_no_larger_than_the_client_allows(site: Site) -> None:
    for size, most in ((16384, 16384), (20000, 20000), (2**24 - 1, 65536)):
        with site.connect([(MAX_FRAME_SIZE, size), (INITIAL_WINDOW, 2**20)]) as peer:
            peer.send(window_update(0, 2**20))
            lengths: list[int] = []
            feed = peer._take

            def take(
                kind: int, flags: int, stream: int, payload: bytes, lengths: list[int] = lengths, feed: Any = feed
            ) -> None:
                lengths.append(len(payload))
                feed(kind, flags, stream, payload)

            peer._take = take  # type: ignore[method-assign]
            assert len(peer.get(b"/bytes/300000").body) == 300_000
            assert max(lengths) <= most
            assert peer.get(b"/large-head").value(b"x-field-49") == (b"value " * 150).strip()
            assert max(lengths) <= most


def test_6_7_a_ping_is_answered_with_its_payload_and_an_answer_is_not(peer: Peer) -> None:
    peer.send(h2.ping(b"one\0\xff\x01\x02\x03"), h2.ping(b"nobodys!", ack=True), h2.ping(b"twotwo!!"))
    peer.settle()
    assert peer.pings == [b"one\0\xff\x01\x02\x03", b"twotwo!!", b"settled?"]


def test_6_10_a_large_head_comes_in_continuation_frames(peer: Peer) -> None:
    answer = peer.get(b"/large-head?body=x")
    kinds = [(kind, flags) for kind, flags, stream, _payload in peer.frames if stream]
    assert (len(answer.head), answer.body) == (53, b"x")  # content-length, date and server besides
    assert [kind for kind, _flags in kinds[:3]] == [h2.HEADERS, h2.CONTINUATION, h2.CONTINUATION]
    ends = [bool(flags & h2.END_HEADERS) for kind, flags in kinds if kind in (h2.HEADERS, h2.CONTINUATION)]
    assert ends == [False] * (len(ends) - 1) + [True]


# -- 6.8: GOAWAY, both ways ------------------------------------------------------------------------------------------


def test_6_8_a_client_that_leaves_gets_what_it_has_asked_for(peer: Peer, site: Site) -> None:
    slow = peer.new(b"/sink", method=b"POST", end=False)
    large = peer.new(b"/bytes/200000")
    peer.wait(lambda: len(peer.answer(large).body) == 65535, "the window to fill")
    peer.send(h2.goaway(0, NO_ERROR, b"bye"))
    peer.send(window_update(0, 10**6), window_update(large, 10**6), data(slow, b"late", end=True))
    assert peer.response(slow).body == b"4\n"
    assert len(peer.response(large).body) == 200_000
    peer.wait_closed()
    assert [(last, code) for last, code, _detail in peer.goaways] == [(large, NO_ERROR)]
    assert site.endings(peer) == []


def test_6_8_a_client_that_leaves_idle_is_let_go(peer: Peer) -> None:
    peer.get()
    peer.send(h2.goaway(0, 0xFF, bytes(1000)))
    peer.wait_closed()
    assert [(last, code) for last, code, _detail in peer.goaways] == [(1, NO_ERROR)]


@pytest.mark.parametrize("kind", ["tls", "clear"])
def test_6_8_a_server_that_stops_says_so_twice_and_serves_what_has_begun(kind: str, pem: Path, tmp_path: Path) -> None:
    with serve_both(pem, tmp_path) as sites:
        running = sites[kind].running
        with sites[kind].connect() as peer:
            upload = peer.new(b"/sink", method=b"POST", end=False)
            peer.settle()
            running.process.send_signal(signal.SIGTERM)
            peer.wait(lambda: peer.goaways and peer.asked, "the first GOAWAY")
            assert peer.goaways[0][:2] == (2**31 - 1, NO_ERROR)
            # What was under way is served, still.
            between = peer.new()
            peer.send(h2.ping(peer.asked[0], ack=True))
            assert peer.response(between).status == 200
            peer.wait(lambda: len(peer.goaways) == 2, "the second GOAWAY")
            assert peer.goaways[1][:2] == (between, NO_ERROR)
            # What comes later is ignored, but keeps the tables in step.
            ignored = peer.next
            peer.send(frame(h2.HEADERS, 4, ignored, POST_BLOCK + _INDEXED), data(ignored, bytes(1000)), rst(ignored))
            peer.send(data(upload, b"whole", end=True))
            assert peer.response(upload).body == b"5\n"
            assert ignored not in peer.answers
            peer.wait_closed()
            assert running.process.wait(10) == 0


# -- 6.9: flow control -----------------------------------------------------------------------------------------------


def test_6_9_1_not_a_byte_more_than_the_window_of_a_stream(site: Site) -> None:
    with site.connect([(INITIAL_WINDOW, 1)]) as peer:
        stream = peer.new()
        peer.settle()
        peer.wait(lambda: peer.answer(stream).body, "the first byte")
        for size in range(2, 15):
            peer.send(window_update(stream, 1))
            peer.wait(lambda size=size: len(peer.answer(stream).body) == size, "the next byte")
        assert peer.response(stream).body == b"Hello, World!\n"


def test_6_9_1_not_a_byte_more_than_the_window_of_the_connection(site: Site) -> None:
    with site.connect([(INITIAL_WINDOW, 2**31 - 1)]) as peer:
        streams = [peer.new(b"/bytes/30000") for _ in range(5)]

        def received() -> int:
            return sum(len(peer.answer(stream).body) for stream in streams)

        peer.wait(lambda: received() >= 65535, "the window to fill")
        peer.settle()
        assert received() == 65535
        peer.send(window_update(0, 1))
        peer.wait(lambda: received() == 65536, "one more byte")
        # The window does not hold back what carries no data.
        assert peer.get(b"/status/204").status == 204
        assert peer.get(method=b"HEAD").status == 200
        peer.send(window_update(0, 200_000))
        for stream in streams:
            assert len(peer.response(stream).body) == 30_000


def test_6_9_2_a_window_of_0_opens_with_the_settings(site: Site) -> None:
    with site.connect([(INITIAL_WINDOW, 0)]) as peer:
        streams = [peer.new(b"/bytes/1000") for _ in range(3)]
        peer.wait(lambda: all(peer.answer(stream).heads for stream in streams), "the heads")
        peer.settle()
        assert not any(peer.answer(stream).body for stream in streams)
        peer.send(settings((INITIAL_WINDOW, 3)))
        peer.wait(lambda: all(len(peer.answer(stream).body) == 3 for stream in streams), "three bytes each")
        peer.send(settings((INITIAL_WINDOW, 1000)))
        for stream in streams:
            assert len(peer.response(stream).body) == 1000


def test_6_9_2_a_window_may_become_negative(peer: Peer) -> None:
    """RFC 9113: "A sender MUST track the negative flow-control window"."""
    stream = peer.new(b"/bytes/70000")
    answer = peer.answer(stream)
    peer.wait(lambda: len(answer.body) == 65535, "the window to fill")
    peer.send(window_update(0, 10**6), settings((INITIAL_WINDOW, 1000)), window_update(stream, 64535))
    peer.settle()
    assert len(answer.body) == 65535  # the window is 0 now
    peer.send(window_update(stream, 1))
    peer.wait(lambda: len(answer.body) == 65536, "one more byte")
    peer.send(settings((INITIAL_WINDOW, 0)), settings((INITIAL_WINDOW, 1000)))
    peer.settle()
    assert len(answer.body) == 65536
    peer.send(settings((INITIAL_WINDOW, 1064)))
    peer.wait(lambda: len(answer.body) == 65600, "64 more")
    # The window of the connection is left alone by all that.
    peer.send(settings((INITIAL_WINDOW, 10**6)))
    assert len(peer.response(stream).body) == 70_000


def test_6_9_1_a_client_that_sends_beyond_the_window_of_a_stream_is_stopped(site: Site) -> None:
    with site.connect() as peer:
        stream = peer.new(b"/deaf", method=b"POST", end=False)
        answer = peer.answer(stream)
        sent = 0
        while 65535 + answer.updates > sent:
            sent += (size := min(16384, 65535 + answer.updates - sent))
            peer.send(data(stream, bytes(size)))
            peer.settle()
            assert sent < MIB, "nobody reads, and the window opens all the same"
        assert not peer.goaways and answer.reset is None
        peer.send(data(stream, b"x"))
        peer.settle()
        assert answer.reset == FLOW_CONTROL or [code for _last, code, _detail in peer.goaways] == [FLOW_CONTROL]
        assert 0 < sent <= 256 * 1024
    with site.connect() as peer:
        peer.get(b"/go")


def test_6_9_what_is_received_is_credited_padding_too(peer: Peer) -> None:
    stream = peer.new(b"/sink", method=b"POST", end=False)
    answer = peer.answer(stream)
    for count in range(1, 1001):
        peer.send(data(stream, b"x", padding=250))
        if 65535 + answer.updates - 252 * count < 252:
            peer.wait(lambda count=count: 65535 + answer.updates - 252 * count >= 252, "window")  # type: ignore[misc]
    peer.send(data(stream, b"", end=True))
    assert peer.response(stream).body == b"1000\n"
    assert answer.updates >= 1000 * 252 - 65535


def test_a_closed_window_of_one_stream_delays_no_other(site: Site) -> None:
    """10 MiB wait for a stream's window, while a hundred others come and go as ever."""
    with site.connect() as peer:
        peer.send(window_update(0, 2**31 - 1 - 65535))

        def times(count: int) -> list[float]:
            taken = []
            for _ in range(count):
                begun = time.monotonic()
                assert len(peer.get(b"/bytes/10000").body) == 10_000
                taken.append(time.monotonic() - begun)
            return sorted(taken)

        alone = times(50)
        slow = peer.new(b"/bytes/%d" % (10 * MIB))
        pieces = peer.new(b"/pieces/160")
        peer.wait(lambda: len(peer.answer(slow).body) == 65535, "the window to fill")
        peer.wait(lambda: len(peer.answer(pieces).body) == 65535, "the other window to fill")
        beside = times(100)
        assert len(peer.answer(slow).body) == len(peer.answer(pieces).body) == 65535
        assert beside[50] < alone[25] * 3 + 0.02
        assert beside[-1] < 1
        peer.send(window_update(slow, 10 * MIB), window_update(pieces, 10 * MIB))
        assert peer.response(slow).body == bytes(range(256)) * (10 * MIB // 256)
        assert len(peer.response(pieces).body) == 10 * MIB


def test_an_upload_that_nobody_reads_delays_no_other(peer: Peer) -> None:
    stuck = [peer.new(b"/deaf", method=b"POST", end=False) for _ in range(5)]
    for stream in stuck:
        peer.send(*[data(stream, bytes(13107))] * 5)
    upload = peer.new(b"/seen", method=b"POST", end=False)
    sent = 0
    while sent < MIB:
        peer.wait(
            lambda sent=sent: (
                65535 + peer.answer(upload).updates - sent >= 16384 and 65535 + peer.updates - sent - 5 * 65535 >= 16384
            ),
            "window",
        )
        peer.send(data(upload, bytes(16384)))
        sent += 16384
    peer.send(data(upload, b"", end=True))
    assert json.loads(peer.response(upload).body)["size"] == MIB
    peer.next = upload + 2
    assert peer.get(b"/go").status == 200
    for stream in stuck:
        peer.send(data(stream, b"", end=True))
        assert peer.response(stream).body == b"65535\n"


# -- 8: messages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [b"/hello", b"/bytes/1000", b"/status/304", b"/trailers", b"/pieces/3"])
def test_8_1_a_response_to_head_has_no_body(peer: Peer, path: bytes) -> None:
    answer = peer.get(path, (b"te", b"trailers"), method=b"HEAD")
    assert (answer.body, len(answer.heads)) == (b"", 1)
    if path == b"/hello":
        assert [kind for kind, _flags, stream, _payload in peer.frames if stream] == [h2.HEADERS]
        assert answer.value(b"content-length") == b"14"


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_8_1_a_status_without_a_body(peer: Peer, status: bytes) -> None:
    answer = peer.get(b"/status/" + status)
    assert (answer.status, answer.body) == (int(status), b"")
    assert [kind for kind, _flags, stream, _payload in peer.frames if stream] == [h2.HEADERS]
    assert answer.value(b"content-length") is None


def test_8_1_trailers_of_a_response(peer: Peer) -> None:
    answer = peer.get(b"/trailers", (b"te", b"trailers"))
    assert answer.body == b"summed\n"
    assert answer.heads[1:] == [[(b"x-sum", b"42")]]
    unasked = peer.get(b"/trailers")
    assert (unasked.body, len(unasked.heads)) == (b"summed\n", 1)


def test_8_1_trailers_wait_for_the_window_behind_the_body(site: Site) -> None:
    with site.connect([(INITIAL_WINDOW, 3)]) as peer:
        stream = peer.new(b"/trailers", (b"te", b"trailers"))
        peer.wait(lambda: len(peer.answer(stream).body) == 3, "three bytes")
        peer.settle()
        assert len(peer.answer(stream).heads) == 1
        peer.send(window_update(stream, 4))
        assert len(peer.response(stream).heads) == 2


def test_8_1_trailers_of_a_request_are_checked_and_dropped(peer: Peer) -> None:
    peer.send(post(1, b"/seen"), data(1, b"body"), headers(1, [*TRAILERS, (b"content-length", b"99"), (b"host", b"x")]))
    seen = json.loads(peer.response(1).body)
    assert seen["body"] == "body"
    assert not [name for name, _value in seen["headers"] if name in ("x-trailer", "content-length")]


def test_8_1_1_a_large_head_in_both_directions(peer: Peer) -> None:
    more = [(b"x-%d" % number, b"v" * 330) for number in range(150)]
    wire = block(fields(b"GET", b"/seen", *more))
    parts = [wire[start : start + 16384] for start in range(0, len(wire), 16384)]
    assert len(parts) == 4
    peer.send(frame(h2.HEADERS, 1, 1, parts[0]), *(continuation(1, part) for part in parts[1:-1]))
    peer.send(continuation(1, parts[-1], end=True))
    seen = json.loads(peer.response(1).body)
    assert len(seen["headers"]) == 151


def test_8_1_interim_responses_come_before_the_response(peer: Peer) -> None:
    answer = peer.get(b"/hints")
    assert [head[0] for head in answer.heads] == [(b":status", b"103"), (b":status", b"200")]
    assert answer.heads[0][1:] == [(b"link", b"</style.css>; rel=preload")]
    assert answer.body == b"hinted\n"


def test_8_1_a_client_that_waits_to_be_asked_for_its_body_is_asked(peer: Peer) -> None:
    peer.send(post(1, b"/sink", (b"expect", b"100-continue"), (b"content-length", b"4")))
    answer = peer.answer(1)
    peer.wait(lambda: answer.heads, "100")
    assert answer.heads == [[(b":status", b"100")]]
    peer.send(data(1, b"body", end=True))
    assert peer.response(1).body == b"4\n"
    assert len(answer.heads) == 2


def test_8_1_a_client_that_waits_and_is_not_asked_may_keep_its_body(peer: Peer) -> None:
    peer.send(post(1, b"/unread", (b"expect", b"100-continue"), (b"content-length", b"4000000")))
    answer = peer.response(1)
    assert (answer.status, answer.body, len(answer.heads)) == (403, b"not wanted\n", 1)
    peer.wait(lambda: answer.reset is not None, "the stream to be closed")
    assert answer.reset == NO_ERROR
    peer.next = 3
    assert peer.get().status == 200


def test_8_1_a_response_may_come_before_the_request_is_complete(peer: Peer) -> None:
    """ "the server MAY request that the client abort transmission of a request without error"."""
    peer.send(post(1, b"/unread"))
    answer = peer.response(1)
    assert (answer.status, answer.body, answer.ended) == (403, b"not wanted\n", True)
    # The server takes more of it for as long as the client sends, and then for a few seconds.
    for _ in range(10):
        peer.send(data(1, bytes(1000)))
        peer.next += 2
        assert peer.get().status == 200
        assert answer.reset is None
        time.sleep(0.05)
    for _ in range(100):
        peer.next += 2
        assert peer.get().status == 200
        if answer.reset is not None:
            break
        time.sleep(0.2)
    assert answer.reset == NO_ERROR
    peer.send(data(1, b"", end=True))
    assert peer.get().status == 200


def test_8_1_a_request_head_beyond_the_limit_is_answered_431(peer: Peer) -> None:
    more = [(b"x-%d" % number, b"") for number in range(250)]
    peer.send(headers(1, fields(b"GET", b"/hello", *more)))
    assert peer.response(1).status == 431
    long = [(b"x-1", b"v" * 15_000)] * 5
    parts = [block(fields(b"GET", b"/hello")), *(block([field]) for field in long)]
    peer.send(frame(h2.HEADERS, 1, 3, parts[0]))
    peer.send(*(continuation(3, part) for part in parts[1:-1]), continuation(3, parts[-1], end=True))
    peer.settle()
    if peer.goaways:
        assert peer.goaways[0][1] == CALM
    else:
        assert peer.response(3).status == 431
        peer.next = 5
        assert peer.get().status == 200


def test_8_2_fields_of_a_response_are_lower_case_and_none_is_the_connections(peer: Peer) -> None:
    answer = peer.get(b"/old-fields")
    names = [name for name, _value in answer.head]
    assert all(name == name.lower() for name in names)
    assert not {b"connection", b"transfer-encoding", b"keep-alive", b"upgrade", b"proxy-connection"} & set(names)
    assert answer.value(b"x-upper") == b"value"
    assert answer.body == b"1\r\nx\r\n0\r\n\r\n"
    assert all(not name.startswith(b":") for name in names)
    assert answer.heads[0][0] == (b":status", b"200")


def test_8_2_3_cookie_crumbs_are_one_field_for_the_application(peer: Peer) -> None:
    crumbs = [(b"cookie", b"a=b"), (b"x-between", b"1"), (b"cookie", b"c=d"), (b"cookie", b"e=f")]
    seen = json.loads(peer.get(b"/seen", *crumbs).body)
    assert [value for name, value in seen["headers"] if name == "cookie"] == ["a=b; c=d; e=f"]


def test_8_3_1_authority_is_the_host(peer: Peer) -> None:
    seen = json.loads(peer.get(b"/seen", (b"host", b"Conformance.Test"), authority=b"conformance.test").body)
    assert seen["headers"][0] == ["host", "conformance.test"]
    assert [name for name, _value in seen["headers"]].count("host") == 1
    assert not [name for name, _value in seen["headers"] if name.startswith(":")]


def test_8_1_what_fails_in_the_middle_is_reset_and_nothing_else(peer: Peer) -> None:
    failed, long = peer.new(b"/fail"), peer.new(b"/long")
    assert peer.response(failed).reset == INTERNAL
    answer = peer.response(long)
    assert answer.body in (b"123", b"")
    assert peer.get().status == 200


@pytest.mark.parametrize("path", [b"/hello", b"/sink", b"/unread", b"/status/204", b"/trailers"])
def test_8_1_1_a_body_that_is_too_long_for_its_length_never_reaches_anybody(peer: Peer, path: bytes) -> None:
    peer.send(post(1, path, (b"content-length", b"4")), data(1, b"123456", end=True))
    answer = peer.response(1)
    assert answer.reset == PROTOCOL
    assert not answer.heads
    peer.next = 3
    assert peer.get().status == 200


# -- RFC 7541 --------------------------------------------------------------------------------------------------------


def test_rfc_7541_4_2_a_table_that_shrinks_is_acknowledged_in_the_next_block(site: Site) -> None:
    for sizes in ([0], [100, 0], [0, 4096], [4096, 0, 4096], [65536], [2**32 - 1, 0], [1, 2, 3]):
        with site.connect() as peer:
            peer.get()
            peer.send(*(settings((HEADER_TABLE_SIZE, size)) for size in sizes))
            peer.decoder.max_allowed_table_size = min(sizes)
            assert peer.get().status == 200
            if min(sizes) < 4096:
                assert peer.decoder.header_table_size <= min(sizes)
            for _ in range(3):
                assert peer.get(b"/large-head").status == 200


def test_rfc_7541_an_encoder_that_uses_all_of_the_table(peer: Peer) -> None:
    encoder = hpack.Encoder()
    for number in range(150):
        encoder.header_table_size = (4096, 4096, 200, 0, 1000, 4096)[number % 6]
        more = [(b"x-count", b"%d" % (number // 3)), (b"x-%d" % (number % 7), b"value " * (number % 40) + b".")]
        wire = encoder.encode([*fields(b"GET", b"/seen"), *more], huffman=number % 2 == 0)
        stream = peer.next
        peer.next += 2
        peer.send(frame(h2.HEADERS, 5, stream, wire))
        seen = json.loads(peer.response(stream).body)["headers"]
        assert seen[1:] == [[name.decode(), value.decode()] for name, value in more]


def test_rfc_7541_sensitive_fields_of_the_server_are_decodable_in_any_order(peer: Peer) -> None:
    paths = [b"/hello", b"/seen", b"/hints", b"/status/404", b"/large-head", b"/old-fields", b"/trailers"]
    streams = [peer.new(path, (b"te", b"trailers")) for path in paths * 5]
    for stream in reversed(streams):
        assert peer.response(stream).ended


# -- RFC 8441 --------------------------------------------------------------------------------------------------------


def upgrade(stream: int, path: bytes = b"/echo", *more: tuple[bytes, bytes]) -> bytes:
    head = [*fields(b"CONNECT", path), (b":protocol", b"websocket")]
    return headers(stream, [*head, (b"sec-websocket-version", b"13"), *more], end=False)


def test_rfc_8441_a_websocket_in_frames_by_hand(peer: Peer) -> None:
    peer.send(upgrade(1))
    answer = peer.answer(1)
    peer.wait(lambda: answer.heads, "the answer")
    assert (answer.status, answer.value(b"x-accepted"), answer.ended) == (200, b"yes", False)
    assert answer.value(b"sec-websocket-accept") is None
    assert answer.value(b"content-length") is None
    wire = ws.text("hello") + ws.text("Grüße")
    for byte in wire[:20]:
        peer.send(data(1, bytes((byte,)), padding=1))
    peer.send(data(1, wire[20:]))
    expected = b"\x81\x05hello\x81\x07" + "Grüße".encode()
    peer.wait(lambda: answer.body == expected, "the echo")
    peer.next = 3
    assert peer.get().status == 200
    peer.send(data(1, ws.ping(b"there?")))
    peer.wait(lambda: answer.body.endswith(b"\x8a\x06there?"), "the pong")
    peer.send(data(1, ws.close(1000)))
    assert peer.response(1).body.endswith(b"\x88\x02\x03\xe8")
    assert answer.ended
    peer.send(data(1, b"", end=True))
    assert peer.get().status == 200
    assert not peer.goaways


def test_rfc_8441_several_frames_of_one_websocket_wait_for_its_window_alone(site: Site) -> None:
    with site.connect([(INITIAL_WINDOW, 10)]) as peer:
        peer.send(upgrade(1), upgrade(3))
        peer.wait(lambda: peer.answer(1).heads and peer.answer(3).heads, "the answers")
        peer.send(data(1, ws.text("x" * 100)), data(3, ws.text("short")))
        peer.wait(lambda: len(peer.answer(1).body) == 10 and peer.answer(3).body == b"\x81\x05short", "the echoes")
        peer.send(window_update(1, 92))
        peer.wait(lambda: len(peer.answer(1).body) == 102, "the rest")


def test_rfc_8441_5_a_reset_is_the_end_of_the_websocket(peer: Peer, site: Site) -> None:
    peer.send(upgrade(1))
    peer.wait(lambda: peer.answer(1).heads, "the answer")
    peer.send(rst(1))
    peer.next = 3
    wait_for(lambda: not json.loads(peer.get(b"/counts").body)["running"].get("/echo"), "the task to end")


def test_rfc_8441_5_what_breaks_the_websocket_breaks_its_stream_only(peer: Peer) -> None:
    peer.send(upgrade(1))
    peer.wait(lambda: peer.answer(1).heads, "the answer")
    peer.send(data(1, ws.frame(3, b"reserved")))
    assert peer.response(1).body[:4] == b"\x88" + peer.answer(1).body[1:2] + b"\x03\xea"  # 1002
    peer.send(data(1, b"", end=True))
    peer.next = 3
    assert peer.get().status == 200


def test_rfc_8441_5_a_refused_handshake_is_a_response(peer: Peer) -> None:
    peer.send(upgrade(1, b"/refuse"))
    answer = peer.response(1)
    assert (answer.status, answer.ended) == (403, True)
    peer.next = 3
    assert peer.get().status == 200


# -- RFC 9218 --------------------------------------------------------------------------------------------------------


def _order(peer: Peer, streams: list[int]) -> list[int]:
    order = [stream for kind, _flags, stream, _payload in peer.frames if kind == h2.DATA and stream in streams]
    return [stream for stream, _group in itertools.groupby(order)]


@pytest.mark.parametrize("way", ["field", "frame before", "frame behind"])
def test_rfc_9218_the_urgent_goes_first(peer: Peer, way: str) -> None:
    filler = peer.new(b"/bytes/65535")
    assert len(peer.response(filler).body) == 65535  # the window of the connection is closed now
    first, second, third = 3, 5, 7
    values = {first: b"u=5", second: b"u=1", third: b"u=3"}
    for stream, value in values.items():
        if way == "frame before":
            peer.send(h2.priority_update(stream, value))
        peer.new(b"/bytes/50000", *([(b"priority", value)] if way == "field" else []))
        if way == "frame behind":
            peer.send(h2.priority_update(stream, value))
    peer.wait(lambda: all(peer.answer(stream).heads for stream in values), "the heads")
    peer.settle()
    peer.send(window_update(0, 10**6))
    for stream in values:
        assert len(peer.response(stream).body) == 50_000
    assert _order(peer, list(values)) == [second, third, first]


def test_rfc_9218_the_incremental_share_and_the_others_do_not(peer: Peer) -> None:
    assert len(peer.get(b"/bytes/65535").body) == 65535
    sharing = [peer.new(b"/bytes/60000", (b"priority", b"u=3, i")) for _ in range(3)]
    serial = [peer.new(b"/bytes/60000", (b"priority", b"u=4")) for _ in range(3)]
    peer.wait(lambda: all(peer.answer(stream).heads for stream in sharing + serial), "the heads")
    peer.settle()
    peer.send(window_update(0, 10**6))
    for stream in sharing + serial:
        assert len(peer.response(stream).body) == 60_000
    assert len(_order(peer, sharing)) > 6
    assert _order(peer, serial) == serial


# -- the log -----------------------------------------------------------------------------------------------------------


def test_errors_are_one_line_each_at_info(peer: Peer, site: Site) -> None:
    peer.send(data(0, b"x") * 100, h2.ping() * 100)
    peer.wait_closed()
    lines = site.log_of(peer)
    assert len(lines) == 1
    assert re.search(r" INFO +Ended an HTTP/2 connection from .*: .* \(1\)$", lines[0])
    assert peer.goaways[0][1] == PROTOCOL

"""A connection that remembers heads does with any bytes, in any reads, what one does that parses each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.properties.test_h1_properties import EVIL, cut, good_requests, rows
from tests.support.h1 import Http1Server, Replies, request, splits
from tests.support.head_memo import Twins

pytestmark = pytest.mark.once

# -- a few clients, each with fields of its own, which are the same in most of its requests

ORDINARY = [
    (b"User-Agent: x",),
    (b"Connection: keep-alive", b"Accept:*/*", b"Cookie:  a=b ", b"X_Dropped: y"),
    (b"Connection: Keep-Alive", b"A: b", b"A: c", b"Empty:"),
]
SPECIAL = [
    (b"TE: trailers",),
    (b"Connection: close",),
    (b"Proxy-Connection: close",),
    (b"Expect: 100-continue",),
    (b"Connection: upgrade", b"Upgrade: h2c"),
]
FIELDS = st.sampled_from([*ORDINARY * 5, *SPECIAL])
TARGETS = st.sampled_from(
    [b"/", b"/a", b"/a?b=c", b"/%41%zz", b"//x?y?z"] * 3
    + [b"*", b"http://test/x", b"/a|b", b"/a#b", b"a", b"/" + b"l" * 30]
)
METHODS = st.sampled_from([b"GET", b"GET", b"POST", b"PUT"] * 5 + [b"HEAD", b"PROPFIND", b"UNLINK", b"CONNECT"])
BODIES = st.sampled_from([b"", b"", b"abc", b"xyz", b"0\r\n\r\n"])
# One in ten.
RARELY = st.integers(0, 9).map(lambda number: number == 7)


@st.composite
def repeats(draw: st.DrawFn) -> list[bytes]:
    """Requests of one client, and a few of others in between."""
    fields, body = draw(FIELDS), draw(BODIES)
    reads = []
    for _ in range(draw(st.integers(2, 6))):
        if draw(RARELY):
            reads.append(draw(good_requests()))
            continue
        these = draw(FIELDS) if draw(RARELY) else fields
        this = draw(BODIES) if draw(RARELY) else body
        version = b"1.0" if draw(RARELY) else b"1.1"
        reads.append(request(draw(TARGETS), *these, method=draw(METHODS), body=this, version=version))
    return reads


@st.composite
def reads_of(draw: st.DrawFn) -> list[bytes]:
    """Reads, most of which are whole requests; some with a byte or more replaced, some cut, some joined."""
    reads: list[bytes] = []
    for single in draw(repeats()):
        change = draw(st.integers(0, 20))
        if change == 0:
            at = draw(st.integers(0, len(single)))
            single = single[:at] + draw(st.sampled_from([b"", *EVIL])) + single[at + draw(st.integers(0, 3)) :]
        elif change == 1:
            reads += draw(cut(single))
            continue
        elif change == 2 and reads:
            reads[-1] += single
            continue
        elif change == 3:
            at = draw(st.integers(0, len(single)))
            reads += [single[:at], single[at:] + single[:at], single[at:]]
            continue
        reads.append(single)
    return [read for read in reads if read]


SETTINGS = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "request_line_max_bytes": st.just(16),
            "head_max_bytes": st.integers(64, 120),
            "head_max_fields": st.just(3),
            "body_max_bytes": st.just(3),
            "pipelined_max": st.just(1),
            "require_host": st.just(False),
            "http_timeout": st.just(5),
            "inbox_high": st.just(2),
        },
    ),
)
STEPS = st.sampled_from(["turn", "answer", "full", "room", "time", "stop", "eof"])


def step(server: Http1Server, name: str) -> None:
    driver = server.driver
    over = driver.state != "open" or driver.switched
    if name == "turn":
        server.turn()
    elif name == "answer" and server.sinks and not server.h1.idle and server.h1._sink is not None:
        if server.sinks[-1].websocket is None:
            server.answer()
    elif name == "full":
        driver.is_full = True
    elif name == "room":
        driver.is_full = False
    elif name == "time" and not driver.switched:
        server.turn()  # which the timer does too, and only one of the two may have one that fires now
        server.advance(2)
    elif name == "stop":
        server.h1.shut_down()
    elif name == "eof" and not over:
        server.eof()


@given(reads_of(), SETTINGS)
def test_any_reads_of_requests_that_repeat_themselves(reads: list[bytes], settings: dict[str, Any]) -> None:
    twins = Twins(Replies(), **settings).feed(*reads)
    event(f"{min(twins.hits, 3)} taken without llhttp")
    twins.feed(*reads)


@given(st.data(), SETTINGS)
def test_any_interleaving_with_what_else_happens(data: st.DataObject, settings: dict[str, Any]) -> None:
    twins = Twins(**settings)
    for read in data.draw(reads_of()):
        if twins.one.driver.reading:
            twins.feed(read)
        for name in data.draw(st.lists(STEPS, max_size=3)):
            twins.each(lambda server, name=name: step(server, name))  # type: ignore[misc]
    event(f"{min(twins.hits, 3)} taken without llhttp")


@given(st.one_of(st.binary(max_size=200), rows(), repeats().map(b"".join)), st.data())
def test_any_segmentation_of_any_bytes(stream: bytes, data: st.DataObject) -> None:
    Twins(Replies()).feed(*data.draw(cut(stream)), *data.draw(cut(stream)))


KNOWN = request(b"/a", b"User-Agent: x")
UPLOAD = request(b"/a", b"Connection: keep-alive", method=b"POST", body=b"abc")


@pytest.mark.parametrize(
    ("known", "stream"),
    [
        (KNOWN, KNOWN * 2),
        (UPLOAD, UPLOAD * 2),
        (KNOWN, KNOWN + request(b"/b", b"Connection: close") + KNOWN),
        (KNOWN, KNOWN + request(b"/b", method=b"HEAD") + b"\0"),
    ],
)
def test_every_division_into_two_reads_before_and_behind_whole_ones(known: bytes, stream: bytes) -> None:
    hits = 0
    for parts in splits(stream):
        hits += Twins(Replies()).feed(known, known, *parts, known).hits
    assert hits >= len(stream) - 1  # each of the second reads

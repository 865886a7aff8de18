"""Compressed messages by the libraries of the extra ``deflate``, and by zlib: one cannot be told from the other."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_ng.wire.websocket.deflate import SPEEDUPS, Deflater

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(SPEEDUPS != ("isal", "zlib-ng"), reason="the extra deflate is not installed"),
]

MESSAGES = st.one_of(
    st.binary(max_size=3000),
    st.lists(st.sampled_from([b"name", b'": "', b"lorem ipsum", b"0", b"17", b", {"]), max_size=600).map(b"".join),
    st.integers(0, 70_000).map(lambda size: b"a" * size),
)
FLUSHES = st.sampled_from([zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK])
STRATEGIES = st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED])


@st.composite
def payloads(draw: Any) -> bytes:
    """What a client may make of a message, whole or with a last block, in one block or in several."""
    message = draw(MESSAGES)
    squeezer = zlib.compressobj(draw(st.integers(0, 9)), zlib.DEFLATED, -15, draw(st.integers(1, 9)), draw(STRATEGIES))
    at = draw(st.integers(0, len(message)))
    payload = squeezer.compress(message[:at]) + squeezer.flush(draw(FLUSHES)) + squeezer.compress(message[at:])
    payload += squeezer.flush(draw(st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FINISH])))
    return payload.removesuffix(b"\x00\x00\xff\xff")


@st.composite
def damaged(draw: Any) -> bytes:
    """The same, with bits turned, bytes lost, and others added."""
    payload = bytearray(draw(payloads()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(payload)))
        kind = draw(st.sampled_from(["turned", "cut", "longer"]))
        if kind == "turned" and at < len(payload):
            payload[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del payload[at:]
        else:
            payload += draw(st.binary(max_size=5))
    return bytes(payload)


@given(st.one_of(payloads(), damaged(), st.binary(max_size=60)), st.integers(0, 5000))
def test_both_find_the_same_in_it(payload: bytes, limit: int) -> None:
    # With the largest window: what a smaller one cannot hold each library notices at another place, and such a message
    # goes to the engine, which reads it.
    fast = Deflater(15, 8, speedups=True).inflate(payload, 15, limit)
    assert fast == Deflater(15, 8).inflate(payload, 15, limit)
    assert fast is None or not limit or len(fast) <= limit


@given(MESSAGES, st.integers(9, 15), st.integers(1, 9), st.integers(1, 9))
def test_what_one_compresses_the_other_inflates(message: bytes, bits: int, memory: int, level: int) -> None:
    plain, fast = Deflater(bits, memory, level), Deflater(bits, memory, level, speedups=True)
    for one, other in ((plain, fast), (fast, plain), (fast, fast)):
        assert other.inflate(one.deflate(message) or b"\x00", bits, len(message)) == message

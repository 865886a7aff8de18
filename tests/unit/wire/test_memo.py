"""Memos that all connections share: nobody can fill one for good, and what they know by themselves stays known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daphne_ng.wire.http.fields import is_host, valid_hosts
from daphne_ng.wire.http1 import parser as h1_parser
from daphne_ng.wire.http1 import writer as h1_writer
from daphne_ng.wire.http2 import head as h2_head
from daphne_ng.wire.http2 import hpack
from daphne_ng.wire.memo import Memo
from tests.support import h2
from tests.support.h1 import Http1Server, request
from tests.support.h2 import Http2Server

ROUNDS = 5000
# What may be kept of all rubbish together.
BYTES_MAX = 1_500_000


def rubbish(number: int) -> bytes:
    # Some too long to be kept.
    return b"x-%d-" % number + b"y" * (number % 90)


def http1_names() -> Iterator[dict[Any, Any]]:
    for start in range(0, ROUNDS, 50):
        server = Http1Server()
        server.feed(request(b"/", *[rubbish(start + one) + b": v" for one in range(50)]))
        assert server.sink.head.headers[-1][0] == rubbish(start + 49)
    yield h1_parser._names


def http1_hosts() -> Iterator[dict[Any, Any]]:
    for number in range(ROUNDS):
        Http1Server().feed(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % rubbish(number))
    yield valid_hosts


def http1_responses() -> Iterator[dict[Any, Any]]:
    for number in range(ROUNDS):
        h1_writer.encode_fields([(rubbish(number), rubbish(number))])
    yield h1_writer._names
    yield h1_writer._lines


def http2_names() -> Iterator[dict[Any, Any]]:
    for start in range(0, ROUNDS, 50):
        Http2Server().request(b"GET", b"/", *[(rubbish(start + one), b"v") for one in range(50)])
    yield h2_head._names


def http2_hosts() -> Iterator[dict[Any, Any]]:
    for number in range(ROUNDS):
        is_host(rubbish(number))
    yield valid_hosts


def http2_responses() -> Iterator[dict[Any, Any]]:
    for number in range(ROUNDS):
        hpack.encode_fields([(rubbish(number), rubbish(number))])
    yield hpack._names
    yield hpack._checked_lines
    yield hpack._lines


@pytest.mark.parametrize(
    "flood", [http1_names, http1_hosts, http1_responses, http2_names, http2_hosts, http2_responses]
)
def test_rubbish_gives_way(flood: Callable[[], Iterator[dict[Any, Any]]]) -> None:
    for memo in flood():
        assert len(memo) <= 2048
        kept = [*memo.keys(), *memo.values()]
        kept += [part for thing in kept if isinstance(thing, tuple) for part in thing]
        assert sum(map(sys.getsizeof, kept)) < BYTES_MAX


@pytest.mark.parametrize("flood", [http1_names, http2_names])
def test_what_comes_after_the_flood_is_remembered(flood: Callable[[], Iterator[dict[Any, Any]]]) -> None:
    (memo,) = flood()
    if flood is http1_names:
        Http1Server().feed(request(b"/", b"X-Seldom: 1"))
        assert b"X-Seldom" in memo
    else:
        Http2Server().request(b"GET", b"/", (b"x-seldom", b"1"))
        assert b"x-seldom" in memo


def test_a_flood_of_names_changes_no_meaning() -> None:
    list(http2_names())
    server = Http2Server()
    server.feed(h2.headers(1, [*h2.fields(), (b"transfer-encoding", b"chunked")]))
    assert not server.sinks
    server = Http2Server()
    server.request(b"POST", b"/", (b"content-length", b"3"), (b"cookie", b"a"), (b"cookie", b"b"), end=False)
    assert server.sink.head.content_length == 3
    assert (b"cookie", b"a; b") in server.sink.head.headers


def test_a_full_memo_is_emptied_down_to_what_is_preset() -> None:
    memo = Memo(5, preset={b"host": 1})
    for number in range(10):
        memo.remember(b"%d" % number, number, 1)
        assert len(memo.known) <= 5
        assert memo.known[b"host"] == 1
        assert memo.known[b"%d" % number] == number


def test_what_is_too_large_is_not_kept() -> None:
    memo: Memo[bytes, None] = Memo(5, longest=10)
    memo.remember(b"x" * 10, None, 10)
    memo.remember(b"x" * 11, None, 11)
    assert list(memo.known) == [b"x" * 10]

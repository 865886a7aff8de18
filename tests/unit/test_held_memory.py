"""What waits takes memory in proportion to its bytes, however the peer or the application has cut it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from daphne_ng.asgi.inbox import Inbox
from tests.support import h2, ws
from tests.support.asgi import on_loop, settle
from tests.support.h1 import Http1Server, chunked_request, request
from tests.unit.net.channels.test_tunnel import Application, Tunnelled

NO_LOOP: Any = None
PAYLOAD = 60_000
# What each payload byte may take, and what there is besides.
FACTOR, BESIDES = 1.5, 30_000


def held(fill: Callable[[], object]) -> int:
    """Return by how many bytes memory has grown with `fill`."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = fill()
        after, _ = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    return after - before


def small(size: int) -> list[bytes]:
    # Made before anything is measured, and each an object of its own when it is copied.
    return [b"abcdefgh"[:size]] * (PAYLOAD // size)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_body_that_nobody_receives(size: int) -> None:
    parts = small(size)

    def fill() -> object:
        inbox = Inbox(PAYLOAD * 2, PAYLOAD, NO_LOOP)
        for part in parts:
            inbox.put(bytes(bytearray(part)))
        return inbox

    assert held(fill) < PAYLOAD * FACTOR + BESIDES


@pytest.mark.parametrize("size", [1, 2])
def test_a_body_behind_a_request_that_takes_long(size: int) -> None:
    server = Http1Server()
    server.feed(request(b"/slow"))
    wire = chunked_request(*small(size))

    assert held(lambda: server.h1.receive_data(wire)) < PAYLOAD * FACTOR + BESIDES


@on_loop
async def test_a_tunnel_that_is_paused() -> None:
    application = Application()
    application.go.clear()
    one = Tunnelled(application)
    await settle()
    one.tunnel.pauseProducing()
    parts = small(2)

    def fill() -> None:
        for part in parts:
            one.tunnel.body_received(bytes(bytearray(part)))

    assert held(fill) < PAYLOAD * FACTOR + BESIDES
    one.tunnel.disconnected("the client left")
    application.go.set()
    await settle()


def test_a_response_that_waits_for_a_window() -> None:
    server = h2.Http2Server(client={"initial_window_size": 0})
    server.request()
    port = server.stream
    port.start(200, [], b"", False, False)
    server.turn()
    parts = small(2)

    def fill() -> None:
        for part in parts:
            port.body(bytes(bytearray(part)), False)

    assert held(fill) < PAYLOAD * FACTOR + BESIDES


@pytest.mark.parametrize("fragments", [False, True])
def test_a_message_that_comes_in_small_pieces(fragments: bool) -> None:
    server = ws.open_websocket(websocket_max_fragments=0)
    if fragments:
        pieces = [ws.binary(b"ab", fin=False), *[ws.more(b"ab", fin=False)] * (PAYLOAD // 2)]
    else:
        whole = ws.binary(bytes(PAYLOAD + 100))
        pieces = [whole[at : at + 2] for at in range(0, PAYLOAD, 2)]

    def fill() -> None:
        for piece in pieces:
            server.ws.receive_data(piece)

    assert held(fill) < PAYLOAD * FACTOR + BESIDES

"""`daphne_ng.net.channels.endings`: how a connection ends below the protocol, on sockets that nobody opened."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from daphne_ng.net.channels.endings import finish, release_or_abort
from tests.support.net import FakeTLS, FakeTransport

MANY = 1_000_000


class Socket:
    def __init__(self, family: int) -> None:
        self.family = family


def transport(kind: Callable[[], FakeTransport] = FakeTransport, left: int = MANY, family: int = socket.AF_INET) -> Any:
    made: Any = kind()
    made.reading = False
    made.unacknowledged_bytes = left
    made.socket = Socket(family)
    return made


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_while_much_is_left_for_a_client_it_is_read_on(family: int) -> None:
    one = transport(family=family)
    finish(one)
    assert one.ended == ["half-close"]
    assert one.reading


@pytest.mark.parametrize(
    "one",
    [
        transport(left=0),
        transport(left=10_000),
        transport(family=-1),
        transport(lambda: FakeTLS(None)),
        FakeTransport(),
    ],
)
def test_otherwise_both_directions_are_closed(one: Any) -> None:
    finish(one)
    assert one.ended == ["close"]


def test_nothing_is_reset_that_was_sent() -> None:
    one = transport()
    release_or_abort(one)
    assert one.ended == ["close"]
    one = transport()
    one.unsent_bytes = 1
    release_or_abort(one)
    assert one.ended == ["abort"]

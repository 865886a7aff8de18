"""Pings and the longest life, on a clock that is only a number."""

from __future__ import annotations

from typing import Any

from daphne_ng.config import Config
from daphne_ng.wire.driver import PROBE_SECONDS
from daphne_ng.wire.progress import first_look
from daphne_ng.wire.websocket.liveness import LEFT, LIFE_OVER, PING, SILENT, WAIT, Liveness


class Peer:
    """What `Liveness` asks its driver for."""

    def __init__(self) -> None:
        self.gone = False
        self.queued = 0

    def peer_gone(self) -> bool:
        return self.gone

    def unacknowledged_bytes(self) -> int:
        return self.queued

    def unsent_bytes(self) -> int:
        return 0


def made(**settings: Any) -> tuple[Liveness, Any]:
    peer: Any = Peer()
    settings = {"websocket_timeout": 0, "ping_interval": 20, "ping_timeout": 30, **settings}
    return Liveness(Config(**settings), peer, 1000.0), peer


def test_a_ping_is_due_after_an_interval_of_silence() -> None:
    liveness, _ = made()
    assert liveness.deadline(1000.0, 1000.0, False) == 1020.0
    assert liveness.check(1020.0, 1005.0, False) == WAIT
    assert liveness.deadline(1020.0, 1005.0, False) == 1025.0
    assert liveness.check(1025.0, 1005.0, False) == PING
    # It looks once in an interval, so that the next ping is in time, and when the answer is overdue.
    assert liveness.deadline(1025.0, 1005.0, False) == 1045.0
    assert liveness.deadline(1045.0, 1005.0, False) == 1055.0


def test_a_client_that_is_heard_of_again_has_answered() -> None:
    liveness, _ = made()
    assert liveness.check(1020.0, 1000.0, False) == PING
    assert liveness.check(1050.0, 1021.0, False) == PING  # it was silent since


def test_a_client_that_is_silent_has_left_if_nothing_is_left_for_it() -> None:
    liveness, _ = made()
    assert liveness.check(1020.0, 1000.0, False) == PING
    assert liveness.check(1049.9, 1000.0, False) == WAIT
    assert liveness.check(1050.0, 1000.0, False) == SILENT


def test_a_client_that_takes_what_stands_before_the_ping_has_more_time() -> None:
    liveness, peer = made()
    assert liveness.check(1020.0, 1000.0, False) == PING
    peer.queued = 1_000_000
    assert liveness.check(1050.0, 1000.0, False) == WAIT
    following = liveness.deadline(1050.0, 1000.0, False)
    assert following == 1050.0 + first_look(Config().write_timeout)
    peer.queued = 900_000
    assert liveness.check(following, 1000.0, False) == WAIT
    peer.queued = 900_000  # it takes nothing more
    following = liveness.deadline(following, 1000.0, False)
    assert liveness.check(following, 1000.0, False) == SILENT


def test_a_paused_connection_is_probed_and_not_pinged() -> None:
    liveness, peer = made()
    assert liveness.deadline(1000.0, 1000.0, True) == 1000.0 + PROBE_SECONDS
    assert liveness.check(1100.0, 1000.0, True) == WAIT
    peer.gone = True
    assert liveness.check(1105.0, 1000.0, True) == LEFT


def test_no_answer_is_awaited_after_a_pause() -> None:
    liveness, _ = made()
    assert liveness.check(1020.0, 1000.0, False) == PING
    liveness.forget_ping()
    assert liveness.deadline(1049.0, 1049.0, False) == 1069.0


def test_pings_whose_answer_is_not_awaited_go_on() -> None:
    liveness, _ = made(ping_timeout=0)
    assert liveness.check(1020.0, 1000.0, False) == PING
    assert liveness.deadline(1020.0, 1000.0, False) == 1040.0
    assert liveness.check(1040.0, 1000.0, False) == PING


def test_a_life_ends_whether_the_connection_is_paused_or_not() -> None:
    for paused in (False, True):
        liveness, _ = made(websocket_timeout=3, ping_interval=0)
        assert liveness.deadline(1000.0, 1000.0, paused) == 1003.0
        assert liveness.check(1003.0, 1002.9, paused) == LIFE_OVER


def test_without_limits_nothing_is_due() -> None:
    liveness, _ = made(ping_interval=0)
    assert liveness.deadline(1000.0, 1000.0, False) == float("inf")

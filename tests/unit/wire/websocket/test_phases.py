"""The states of one WebSocket: each event in each phase, and the combinations that any course of events reaches."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from daphne_ng.wire.ending import CLOSED, CONNECTING, DELIVERED, EMPTY, GONE, LAST, LINGERING, MOVING, OPEN, STUCK
from daphne_ng.wire.ending import WEBSOCKET_STEPS as STEPS
from daphne_ng.wire.progress import first_look
from daphne_ng.wire.websocket.connection import EVENTS, MOVES
from tests.support.ws import WebSocketServer, binary, close, more, open_websocket, ping, text

PHASES: dict[int, tuple[str, Callable[[], WebSocketServer]]] = {
    CONNECTING: ("CONNECTING", WebSocketServer),
    OPEN: ("OPEN", open_websocket),
    LAST: ("LAST", lambda: open_websocket().close()),
    LINGERING: ("LINGERING", lambda: open_websocket().feed(text(b"\xff"))),
    CLOSED: ("CLOSED", lambda: open_websocket().feed(close())),
    GONE: ("GONE", lambda: open_websocket().lose()),
}


def by_server(server: WebSocketServer) -> None:
    server.sink.silent = server.ws.phase == OPEN
    server.ws.close(1000, "")


OCCUR: dict[str, Callable[[WebSocketServer], Any]] = {
    "accepted": WebSocketServer.accept,
    "closed by the server": by_server,
    "Close frame": lambda server: server.ws.close_judged(1000, ""),
    "broken rule": lambda server: server.ws.failure_judged(1002, "a rule"),
    "end of input": lambda server: server.ws.eof_received(),
    "loss": lambda server: server.ws.connection_lost(),
}


@pytest.mark.parametrize("event", range(len(EVENTS)), ids=EVENTS)
@pytest.mark.parametrize("phase", PHASES, ids=[name for name, _ in PHASES.values()])
def test_an_event_moves_to_the_right_or_changes_nothing(phase: int, event: int) -> None:
    server = PHASES[phase][1]()
    ws = server.ws
    assert ws.phase == phase
    before = (server.state, server.reply, server.end)
    if EVENTS[event] == "accepted" and phase != CONNECTING:
        with pytest.raises(KeyError):  # the exchange accepts once
            ws.accept(None, [])
    else:
        OCCUR[EVENTS[event]](server)
    following = MOVES.get((phase, event))
    if following is None:
        assert ws.phase == phase
        assert (server.state, server.reply, server.end) == before
    else:
        assert ws.phase == following > phase


@pytest.mark.parametrize("taken", [MOVING, STUCK, DELIVERED, EMPTY], ids=["moving", "stuck", "delivered", "empty"])
@pytest.mark.parametrize("phase", [LAST, LINGERING, CLOSED], ids=["LAST", "LINGERING", "CLOSED"])
def test_when_the_time_for_an_ending_is_over(phase: int, taken: int) -> None:
    assert (phase, taken) in STEPS
    server = PHASES[phase][1]()
    driver, ws = server.driver, server.ws
    if taken != EMPTY:
        driver.queued = 1_000_000
        server.advance(server.config.close_timeout)  # the first look
        assert ws.phase == phase
    if taken == MOVING:
        driver.queued -= 900_000
        server.advance(first_look(server.config.write_timeout))
        assert ws.phase == phase
        assert server.state != "aborted"
    elif taken == STUCK:
        server.advance(server.config.write_timeout)
        assert ws.phase == GONE
        assert driver.drops == 1
    elif taken == DELIVERED:
        driver.queued = 0
        server.advance(first_look(server.config.write_timeout))
        # The time for the client's answer begins only now; where none is awaited the socket is released.
        assert ws.phase == phase
        assert server.state == {LAST: "open", LINGERING: "half", CLOSED: "released"}[phase]
        if phase != CLOSED:
            server.advance(server.config.close_timeout)
            assert server.state == "closed"
    else:
        server.advance(server.config.close_timeout)
        assert ws.phase == CLOSED
        assert server.state == ("released" if phase == CLOSED else "closed")


# -- the combinations that are reached -------------------------------------------------------------------------

READING, PAUSED, YIELDED = range(3)


def state_of(server: WebSocketServer) -> tuple[int, int, bool, bool]:
    """(phase, reading, whether there is an engine, whether the end of input waits behind the backlog)"""
    ws: Any = server.ws
    phase, reading, engine = ws.phase, ws._reading, ws._engine
    if phase == OPEN:
        assert (engine is not None) == (ws._inside or ws._missing > 0), "an engine is kept for nothing, or bypassed"
        assert ws._sink is not None
    else:
        assert ws._deliver is None, "messages are delivered only while it is open"
    if phase >= LAST:
        assert ws._sink is None, "the application has not been told of the end"
    if phase >= LINGERING:
        assert ws._backlog == b""
    if phase == GONE:
        assert ws.deadline == float("inf")
    return phase, reading, engine is not None, ws._eof and phase < CLOSED


def test_no_other_combinations_of_states_are_reached() -> None:
    """Fifteen hundred courses of events, the same in every run."""
    reached: set[tuple[int, int, bool, bool]] = set()
    dice = random.Random(14)
    reads = [text("a"), text("a")[:3], binary(b"b" * 200), text("c", fin=False), more(b"d"), more(b"e", fin=False)]
    reads += [ping(b"p"), ping(b"p")[:4], close(), text(b"\xff"), more(b"wrong"), ping() * 520 + text("f")]
    for _ in range(1500):
        server = WebSocketServer(high=dice.choice([1, 2, 5]))
        reached.add(state_of(server))
        if dice.random() < 0.2:
            server.ws.shut_down()
        server.accept(dice.choice([b"", b"", text("early"), ping(), close()]))
        for _ in range(dice.randrange(12)):
            reached.add(state_of(server))
            phase, way = server.ws.phase, dice.random()
            if way < 0.55:
                server.driver.is_full = dice.random() < 0.4
                server.feed(dice.choice(reads))
            elif way < 0.7:
                server.take()
            elif way < 0.73:
                server.finish()
            elif way < 0.76 and phase < CLOSED:
                server.ws.eof_received()  # a stream tells of it although nothing is read
            elif way < 0.82:
                server.driver.is_full = False
                server.advance(dice.choice([0.0, 5.0, 30.0]))
            elif way < 0.86 and phase == OPEN:
                server.close()
            elif way < 0.9:
                server.ws.shut_down()
            elif way < 0.94:
                server.driver.gone = True
            elif way > 0.98 and server.state != "lost":
                server.lose()
            assert server.ws.phase >= phase
            if server.state in ("lost", "aborted"):
                break
        reached.add(state_of(server))
    assert reached == REACHED


# An engine is there inside a frame or a message only, and from our Close frame on. In the last column an end of input
# waits behind the backlog.
REACHED = {
    (CONNECTING, READING, False, False),
    (OPEN, READING, False, False),
    (OPEN, READING, True, False),
    (OPEN, PAUSED, False, False),
    (OPEN, PAUSED, False, True),
    (OPEN, YIELDED, False, False),
    (OPEN, YIELDED, False, True),
    (OPEN, YIELDED, True, False),
    (OPEN, YIELDED, True, True),
    (LAST, READING, True, False),
    (LAST, YIELDED, True, False),
    (LAST, YIELDED, True, True),
    (LINGERING, READING, False, False),
    (CLOSED, READING, False, False),
    (GONE, READING, False, False),
}

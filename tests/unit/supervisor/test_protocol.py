"""`daphne_ng.supervisor.protocol`."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_ng.net.sockets.sharing import SharedSocket
from daphne_ng.supervisor.protocol import ENVIRONMENT, Assignment, LineReader, line


def test_an_assignment_reads_back() -> None:
    sockets = [SharedSocket(7, 2), SharedSocket(-1, 10, 8000), SharedSocket(8, 1, inherited=True)]
    assignment = Assignment(number=3, report=5, orders=6, sockets=sockets)
    assert Assignment.from_environment({ENVIRONMENT: assignment.to_environment()}) == assignment


def test_without_the_variable_a_process_is_no_worker() -> None:
    assert Assignment.from_environment({}) is None


@given(st.lists(st.sampled_from([1, 2, 5, 1000])))
def test_messages_come_whole_however_they_are_cut(cuts: list[int]) -> None:
    data = line("ready") + line("retire", reason="it is old") + line("beat")
    reader, messages = LineReader(), []
    for cut in [*cuts, 1000]:
        messages += reader.feed(data[:cut])
        data = data[cut:]
    assert messages == [{"event": "ready"}, {"event": "retire", "reason": "it is old"}, {"event": "beat"}]


@pytest.mark.parametrize("junk", [b"print\n", b"[1]\n", b"\xff\n", b"\n", b"1\n", b"[" * 60_000 + b"\n"])
def test_what_is_no_message_is_dropped(junk: bytes) -> None:
    assert LineReader().feed(junk + line("beat")) == [{"event": "beat"}]


def test_a_line_without_an_end_is_not_kept() -> None:
    reader = LineReader()
    for _ in range(100):
        reader.feed(b"x" * 65536)
    assert len(reader._rest) <= 65536
    assert reader.feed(b"\n" + line("beat")) == [{"event": "beat"}]


def test_a_message_is_shorter_than_what_a_pipe_takes_in_one_piece() -> None:
    assert len(line("retire", reason="it holds 100000000000 bytes of memory")) < 512
    assert json.loads(line("beat")) == {"event": "beat"}

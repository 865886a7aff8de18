"""Autobahn as an engine: lent, given back, and unharmed by either."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.net.channels import engine as ws_engine
from daphne_ng.net.channels.engine import EngineFactory, native_unmask
from daphne_ng.wire.websocket.frames import UNMASK_NATIVE_MIN_BYTES, unmask
from tests.support.ws import RSV1, close, fragments, frame, more, ping, squeeze, squeezed, text


class Connection:
    """What an engine reports to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def write_control(self, data: bytes) -> None:
        self.calls.append(("write", data))

    def message_judged(self, payload: bytes, text: bool) -> None:
        self.calls.append(("message", payload, text))

    def close_judged(self, code: int | None, reason: str | None) -> None:
        self.calls.append(("close", code, reason))

    def failure_judged(self, code: int, reason: str) -> None:
        self.calls.append(("failure", code))


@pytest.fixture
def factory() -> EngineFactory:
    return EngineFactory(Config(), logging.getLogger("tests"))


@pytest.fixture
def connection() -> Any:
    return Connection()


@pytest.mark.parametrize("size", [UNMASK_NATIVE_MIN_BYTES, 127, 1400, 5001, 100_000])
def test_the_native_masker_is_the_other_one(size: int) -> None:
    data = bytes(index * 7 & 255 for index in range(size))
    before = bytes(bytearray(data))
    assert native_unmask(memoryview(data), b"\x01\x80\x00\xfe") == unmask(data, b"\x01\x80\x00\xfe")
    assert data == before, "what was read is somebody else's"


def test_the_handshake_of_its_own_is_nobodys_business(factory: EngineFactory, connection: Any) -> None:
    factory.lend(connection)
    factory.lend_deflate(connection)
    assert connection.calls == []


def test_what_it_reports(factory: EngineFactory, connection: Any) -> None:
    engine = factory.lend_deflate(connection)
    first, second = fragments("abc", [1])
    engine.feed(first)
    assert engine.inside_message
    engine.feed(second)
    assert not engine.inside_message
    engine.feed(ping(b"x"))
    engine.feed(squeezed(b"def"))
    engine.feed(close(1001, "away"))
    assert connection.calls == [
        ("message", b"abc", True), ("write", b"\x8a\x01x"), ("message", b"def", False),
        ("write", b"\x88\x06\x03\xe9away"), ("close", 1001, "away"),
    ]  # fmt: skip


def test_an_engine_that_is_given_back_is_lent_again_without_a_memory(factory: EngineFactory) -> None:
    first: Any = Connection()
    engine = factory.lend(first)
    engine.feed(ping(b"a"))
    engine.give_back()
    second: Any = Connection()
    assert factory.lend(second) is engine
    engine.feed(ping(b"b"))
    assert first.calls == [("write", b"\x8a\x01a")]
    assert second.calls == [("write", b"\x8a\x01b")]


def test_with_and_without_compression_are_not_mixed_up(factory: EngineFactory, connection: Any) -> None:
    plain = factory.lend(connection)
    plain.give_back()
    assert factory.lend_deflate(connection) is not plain
    plain = factory.lend(connection)
    plain.feed(squeezed("abc"))
    assert [call[:2] for call in connection.calls if call[0] == "failure"] == [("failure", 1002)]


def test_only_so_many_wait(factory: EngineFactory, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_engine, "_FREE_MAX", 2)
    lent = [factory.lend(connection) for _ in range(3)]
    for engine in lent:
        engine.give_back()
    assert factory.lend(connection) in lent
    assert factory.lend(connection) in lent
    assert factory.lend(connection) not in lent


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [text("a", fin=False)],
        [text("abc")[:-1]],
        [frame(1, squeeze(b"abc"), rsv=RSV1)[:-1]],
        [frame(3)],
        [text("a", fin=False), more(b"\xff")],
    ],
    ids=["fresh", "in a message", "in a frame", "in deflate", "failed", "failed late"],
)
def test_an_engine_that_is_released_goes_at_once(factory: EngineFactory, connection: Any, pieces: list[bytes]) -> None:
    engine = factory.lend_deflate(connection)
    for piece in pieces:
        engine.feed(piece)
    gc.collect()
    gc.disable()
    try:
        engine.retire()
        ghosts = [weakref.ref(engine), weakref.ref(connection)]
        del engine
        assert ghosts[0]() is None
    finally:
        gc.enable()
    connection.calls.clear()


@pytest.mark.parametrize("ours_first", [False, True])
def test_an_engine_that_closed_cleanly_is_lent_again(factory: EngineFactory, connection: Any, ours_first: bool) -> None:
    engine = factory.lend_deflate(connection)
    if ours_first:
        engine.send_close(1000, "bye")
    engine.feed(close(4000, "gone"))
    engine.retire()
    connection.calls.clear()
    again = factory.lend_deflate(connection)
    assert again is engine
    again.feed(text("hi"))
    again.feed(frame(1, squeeze(b"there"), rsv=RSV1))
    again.feed(close(4001, "too"))
    assert connection.calls == [
        ("message", b"hi", True),
        ("message", b"there", True),
        ("write", b"\x88\x05\x0f\xa1too"),
        ("close", 4001, "too"),
    ]


def test_after_its_release_it_is_silent(factory: EngineFactory, connection: Any) -> None:
    engine = factory.lend(connection)
    engine.feed(text("a", fin=False))
    engine.retire()
    engine.feed(more(b"b"))
    engine.send_close(1000, "")
    assert connection.calls == []
    assert factory.lend(connection) is not engine


def test_no_window_is_kept_between_messages(factory: EngineFactory, connection: Any) -> None:
    engine = factory.lend_deflate(connection)
    engine.feed(squeezed("abc" * 1000))
    assert engine._perMessageCompress._inflater is None


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 1014, 3000, 4999])
def test_every_code_of_the_registry_can_be_sent(factory: EngineFactory, connection: Any, code: int) -> None:
    factory.lend(connection).send_close(code, "a")
    assert connection.calls == [("write", b"\x88\x03" + code.to_bytes(2, "big") + b"a")]


def test_a_reason_is_cut_to_what_fits(factory: EngineFactory, connection: Any) -> None:
    factory.lend(connection).send_close(1000, "€" * 100)
    assert connection.calls == [("write", b"\x88\x7d\x03\xe8" + "€".encode() * 41)]


def test_what_autobahn_calls_an_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("tests.engine")
    engine: Any = EngineFactory(Config(), log).lend(Connection())  # type: ignore[arg-type]
    with caplog.at_level("DEBUG", logger="tests.engine"):
        engine.log.debug("x")
        engine.log.warn("y {a}", a=1)
        engine.log.error("went {how}", how="wrong")
    assert caplog.messages == ["Autobahn: went wrong"]

"""What a client can do with many frames that are all legal: others get their turns in between."""

from __future__ import annotations

import pytest

from tests.support import h2
from tests.support.h2 import Http2Server

TURN_FRAMES = 512
TINY = h2.data(1, b"x")


def uploading(**options: object) -> Http2Server:
    server = Http2Server(auto_credit=False, **options)  # type: ignore[arg-type]
    server.feed(h2.headers(1, h2.fields(b"POST"), end=False))
    return server


class TestTurns:
    """A read of 128 KiB in frames of one byte kept the loop for 170 ms, and more where the body was not read."""

    def test_a_read_of_tiny_frames_takes_several(self) -> None:
        server = uploading()
        server.h2.receive_data(TINY * 3 * TURN_FRAMES)
        seen = []
        while server.driver.soon:
            seen.append(len(server.sink.body))
            assert not server.driver.reading
            server.driver.soon = 0
            server.h2.flush()
        assert seen == [TURN_FRAMES, 2 * TURN_FRAMES]
        assert len(server.sink.body) == 3 * TURN_FRAMES
        assert server.driver.reading

    def test_what_comes_meanwhile_stays_in_order(self) -> None:
        server = uploading()
        frames = b"".join(h2.data(1, b"%04d" % count) for count in range(2000)) + h2.data(1, b"", end=True)
        for start in range(0, len(frames), 9001):
            server.h2.receive_data(frames[start : start + 9001])  # TLS delivers more although reading is paused
        server.turn()
        assert server.sink.body == b"".join(b"%04d" % count for count in range(2000))
        assert server.sink.ended
        assert server.driver.reading

    def test_ordinary_reads_take_one(self) -> None:
        server = uploading()
        server.h2.receive_data(TINY * (TURN_FRAMES - 1) + h2.data(1, b"", end=True) + TINY[:5])
        assert server.sink.ended
        assert server.driver.reading

    def test_a_head_that_waits_for_its_turn_is_not_late(self) -> None:
        server = uploading(head_timeout=5)
        server.h2.receive_data(TINY * TURN_FRAMES + h2.headers(3))
        assert len(server.sinks) == 1
        server.turn()
        assert len(server.sinks) == 2
        server.advance(6)
        assert server.failure is None

    def test_reading_goes_on_only_when_the_transport_has_room_too(self) -> None:
        server = uploading(http2_control_burst=100_000)
        server.driver.is_full = True
        server.h2.receive_data(h2.ping() * 6000)
        server.turn()
        assert not server.driver.reading
        server.driver.is_full = False
        server.h2.drained()
        server.turn()
        assert server.driver.reading

    def test_room_in_the_transport_does_not_end_the_waiting(self) -> None:
        server = uploading()
        server.h2.receive_data(TINY * 2 * TURN_FRAMES)
        server.h2.drained()
        assert not server.driver.reading
        server.turn()
        assert server.driver.reading

    @pytest.mark.parametrize("end", ["eof", "loss", "reset", "failure"])
    def test_the_end_may_come_in_between(self, end: str) -> None:
        server = uploading()
        wrong = h2.frame(h2.PUSH_PROMISE, 4, 1, b"\0\0\0\2") if end == "failure" else b""
        server.h2.receive_data(TINY * TURN_FRAMES + wrong + TINY * TURN_FRAMES + (h2.rst() if end == "reset" else b""))
        sink = server.sink
        assert not server.driver.reading
        if end == "eof":
            server.eof()
        elif end == "loss":
            server.lose()
        else:
            server.turn()
        assert len(sink.body) == (2 if end == "reset" else 1) * TURN_FRAMES
        assert sink.reason
        assert server.driver.soon == 0
        if end == "failure":
            assert server.failure == h2.PROTOCOL_ERROR
            server.feed(TINY)
        if end in ("reset", "failure"):
            assert server.driver.reading


class TestUnknownFrames:
    """There was no bound on them. Some clients send one for each frame of theirs."""

    GREASE = h2.frame(0xBA, 0x55, 3, b"grease")

    @pytest.mark.parametrize("size", [1, 7, 100_000])
    def test_one_before_each_known_frame_is_free(self, size: int) -> None:
        server = uploading()
        frames = (self.GREASE + TINY) * 1000 + self.GREASE
        server.feed(*(frames[start : start + size] for start in range(0, len(frames), size)))
        assert server.failure is None
        assert len(server.sink.body) == 1000

    @pytest.mark.parametrize("size", [15, 40, 100_000])
    def test_many_of_them_in_a_row_are_a_flood(self, size: int) -> None:
        server = uploading()
        frames = self.GREASE * 200
        server.feed(*(frames[start : start + size] for start in range(0, len(frames), size)))
        assert server.failure == h2.ENHANCE_YOUR_CALM


class TestFramesOfStreamsThatWeReset:
    def reset(self) -> Http2Server:
        server = Http2Server()
        server.feed(h2.headers(1, [*h2.fields(b"POST"), (b"Upper", b"case")], end=False))
        assert server.response().reset == h2.PROTOCOL_ERROR
        return server

    @pytest.mark.parametrize("end", [False, True])
    def test_empty_data_is_a_flood(self, end: bool) -> None:
        server = self.reset()
        server.feed(h2.data(1, b"", end=end) * 300)
        assert server.failure == h2.ENHANCE_YOUR_CALM

    def test_what_was_on_its_way_is_none(self) -> None:
        server = self.reset()
        server.feed(h2.data(1, b"x" * 1000) * 60, h2.data(1, b"", end=True))
        assert server.failure is None

"""What real clients send of their own accord, played from recordings: none of it is a flood.

Time stands still, so that no bucket is ever refilled: all that is sent must have been paid for by what was asked and
answered. See ``tests/golden/http2/README.md`` for what the lines mean.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from daphne_ng.config import Config
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http2.connection import Http2Connection
from daphne_ng.wire.http2.states import AWAITED, ENDING, OVER
from tests.support import h2
from tests.support.h2 import RecordingHttp2Driver, RecordingStreamSink, fields

RECORDINGS = Path(__file__).parents[3] / "golden" / "http2"

TYPES = {
    name: getattr(h2, name)
    for name in ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PING", "GOAWAY", "WINDOW_UPDATE")
}


class Line:
    """One frame of a recording."""

    def __init__(self, text: str) -> None:
        mark, name, flags, stream, *rest = text.split()
        self.of_client = mark == ">"
        self.kind = TYPES[name]
        self.flags = int(flags, 16)
        self.stream = int(stream)
        self.value = rest[0] if rest else ""
        self.ends = self.kind in (h2.HEADERS, h2.DATA) and bool(self.flags & h2.END_STREAM)

    def wire(self, stream: int) -> bytes:
        """Return the frame on another stream."""
        if self.kind == h2.HEADERS:
            return h2.headers(stream, fields(b"GET" if self.ends else b"POST"), end=self.ends)
        if self.kind == h2.DATA:
            payload = bytes(int(self.value))
        elif self.kind == h2.WINDOW_UPDATE:
            payload = int(self.value).to_bytes(4, "big")
        else:
            payload = bytes.fromhex(self.value)
        return h2.frame(self.kind, self.flags, stream, payload)


class Replay:
    """One connection, and an application that answers as the recorded one did."""

    def __init__(self, recording: str) -> None:
        text = (RECORDINGS / f"{recording}.txt").read_text(encoding="ascii")
        self.lines = [Line(line) for line in text.splitlines()]
        self.driver = RecordingHttp2Driver(h2.NEVER)
        self.connection = Http2Connection(Config(), ResponseDefaults("", (), False), self.driver)
        self.driver.h2 = self.connection
        self.connection.opened()
        self.connection.receive_data(h2.PREFACE)
        self.sent = 0
        """Bytes that the application has sent, but for those of streams that had been reset."""

    def play(self, first: bool, base: int) -> int:
        """Play the lines, those before the first request only at first. Returns the highest stream."""
        lines = self.lines
        if not first:
            begin = next(at for at, line in enumerate(lines) if line.kind == h2.HEADERS)
            lines = lines[begin:]
        sinks: dict[int, RecordingStreamSink] = {}
        for line in lines:
            stream = line.stream + base if line.stream else 0
            if line.of_client:
                self.connection.receive_data(line.wire(stream))
                if line.kind == h2.HEADERS:
                    sinks[stream] = self.driver.sinks[-1]
            elif line.kind in (h2.HEADERS, h2.DATA):
                self.answer(sinks[stream], line)
            while self.driver.soon:
                self.driver.soon = 0
                self.connection.flush()
        for sink in sinks.values():
            if sink.stream.response != OVER:  # the recording was cut off
                if sink.stream.response == AWAITED:
                    sink.stream.start(200, [], b"", True, False)
                elif sink.stream.response < ENDING:
                    sink.stream.body(b"", True)
                if not sink.ended:
                    self.connection.receive_data(h2.data(sink.stream.id, b"", end=True))
            sink.stream.task_ended()
        self.driver.soon = 0
        self.connection.flush()
        return max(sinks)

    def answer(self, sink: RecordingStreamSink, line: Line) -> None:
        """Have the application send what the line says."""
        stream = sink.stream
        if line.kind == h2.DATA:
            self.sent += 0 if stream.response == OVER else int(line.value)
            stream.body(bytes(int(line.value)), line.ends)
        elif stream.response != AWAITED:
            stream.body(b"", True)  # trailers
        else:
            stream.start(200, [], b"", line.ends, False)


@pytest.mark.parametrize(
    ("recording", "rounds"),
    [
        ("go-1.27-get", 100),
        ("go-1.27-close", 100),
        ("go-1.27-cancel", 50),
        ("grpc-go-1.81-stream", 100),
        ("grpc-go-1.81-bidi", 100),
        ("grpcio-1.85-stream", 100),
        ("grpcio-1.85-bidi", 30),
    ],
)
def test_none_of_it_is_a_flood(recording: str, rounds: int) -> None:
    replay = Replay(recording)
    base = 0
    for number in range(rounds):
        base = (replay.play(not number, base) + 1) // 2 * 2
        assert replay.driver.failures == [], f"in round {number}"
    assert replay.driver.state == "open"
    frames = h2.split(b"".join(replay.driver.written))
    received = sum(len(payload) for kind, _flags, _stream, payload in frames if kind == h2.DATA)
    assert received == replay.sent if "close" not in recording else received <= replay.sent


def test_requests_that_time_out_for_a_minute_are_not_either() -> None:
    replay = Replay("go-1.27-timeout")
    base = 0
    for number in range(60):
        base = (replay.play(not number, base) + 1) // 2 * 2
        assert replay.driver.failures == [], f"in round {number}"
        replay.driver.now += 1.0

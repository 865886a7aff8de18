"""One WebSocket connection, server side, without I/O (RFC 6455, RFC 7692).

Theory of operation
-------------------

Bytes go in through `WebSocketConnection.receive_data`, which finds the frames in them. A whole, final, masked frame of
text or binary - compressed or not - is the *direct path*: it is unmasked, inflated, decoded and handed on right here.
So is the Close frame of a client that leaves in good order. Every other frame goes to an *engine* (Autobahn), one frame
at a time, byte for byte as it came: fragments, other control frames, frames too long to wait for, and whatever the
direct path finds wrong. The engine is the judge of legality; the direct path never refuses anything.

1. An engine sees a frame from its first byte to its last, or not at all. While it is inside a frame, or inside a
   fragmented message, nothing bypasses it. In between it holds no state - no window of a compressor is kept from one
   message to the next - so it is borrowed for a frame or a fragmented message, and given back after it. From the
   first Close frame on that it has sent or seen, the connection keeps the one it has.
2. One frame completes at most one message, so the loop can stop after any of them: an application that does not
   receive holds back what a read has already brought (`_backlog`), however much that would inflate to. And what one
   client has sent never keeps the others waiting for long: the backlog is handed on from a turn of the loop of its
   own, not from within ``receive()``, and the engine gets only so many frames in a turn.
3. The application's side ends once (`WebSocketSink.closed`, or its own `close`), whichever way the connection goes
   on from there.
4. The phases are those of `daphne_ng.wire.ending`, and a WebSocket only moves to the right. `MOVES` says which events
   move it, and where to; an event that is not in it for a phase is ignored there. Both Close frames exchanged: the
   server closes first (RFC 6455 section 7.1.1). A Close frame of ours unanswered for `close_timeout`: the connection is
   closed. A client that broke a rule: a Close frame, our half is closed, and what it still sends is thrown away until
   it leaves or that time is over.
5. Reading is in one of three states, whatever the phase: `_READING`, `_PAUSED` until the application has received, and
   `_YIELDED` until another turn of the loop.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Callable, Mapping
from typing import Final

from daphne_ng._types import Headers
from daphne_ng.config import Config
from daphne_ng.port import WebSocketSink
from daphne_ng.wire.driver import COPY_MAX_BYTES
from daphne_ng.wire.ending import (
    CLOSED,
    CONNECTING,
    GONE,
    LAST,
    LINGERING,
    NEVER,
    OPEN,
    WEBSOCKET_STEPS,
    PhasedConnection,
)
from daphne_ng.wire.websocket.budget import FrameBudget
from daphne_ng.wire.websocket.deflate import Deflater, agree_on_deflate
from daphne_ng.wire.websocket.driver import EngineReports, WebSocketDriver, WebSocketEngine
from daphne_ng.wire.websocket.frames import SMALL_HEADS, UNMASK_NATIVE_MIN_BYTES, frame_head, unmask
from daphne_ng.wire.websocket.handshake import Handshake, accept_fields
from daphne_ng.wire.websocket.liveness import LEFT, LIFE_OVER, PING, SILENT, Liveness

__all__ = ["EVENTS", "MOVES", "WebSocketConnection"]

# A frame that a read did not bring whole waits for the next one, if it is no longer than this and for no more than
# so many reads: each of them looks at all of it again. Then the engine gets it, which works through it in pieces.
_WAIT_MAX_BYTES: Final = 131072
_WAITS_MAX: Final = 4

# Most frames that the engine is given in one turn of the loop: it takes about 10 us for each frame, however small.
# After our Close frame each counts for many, since nothing but this bounds what messages that nobody receives inflate
# to.
_TURN_MAX_FRAMES: Final = 512
_TURN_CLOSING_COST: Final = 64

_NO_LIMIT: Final = (1 << 63) - 1

# Close codes with which clients leave (RFC 6455 section 7.4): what browsers send, and what is theirs to define. The
# engine knows the rest.
_ORDINARY_CODES: Final = frozenset((1000, 1001, *range(3000, 5000)))

EVENTS: Final = ("accepted", "closed by the server", "Close frame", "broken rule", "end of input", "loss")
"""The events that move a WebSocket from one phase to another, beside the passing of time."""
_ACCEPTED: Final = 0
_CLOSED_BY_SERVER: Final = 1
_CLOSE_FRAME: Final = 2
_BROKEN_RULE: Final = 3
_END_OF_INPUT: Final = 4
_LOSS: Final = 5

MOVES: Final[Mapping[tuple[int, int], int]] = {
    (CONNECTING, _ACCEPTED): OPEN,
    (CONNECTING, _LOSS): GONE,
    (OPEN, _CLOSED_BY_SERVER): LAST,
    (OPEN, _CLOSE_FRAME): CLOSED,
    (OPEN, _BROKEN_RULE): LINGERING,
    (OPEN, _END_OF_INPUT): CLOSED,
    (OPEN, _LOSS): GONE,
    (LAST, _CLOSE_FRAME): CLOSED,
    (LAST, _BROKEN_RULE): LINGERING,
    (LAST, _END_OF_INPUT): CLOSED,
    (LAST, _LOSS): GONE,
    (LINGERING, _END_OF_INPUT): CLOSED,
    (LINGERING, _LOSS): GONE,
    (CLOSED, _LOSS): GONE,
}
"""(phase, index in `EVENTS`) -> the next phase. What passing time does is in `daphne_ng.wire.ending.WEBSOCKET_STEPS`.

Before the handshake is answered, the end of input is for the protocol that carries it.
"""

# The states of reading. A pause is the application's, which has enough for now; a connection yields when it has
# had its share of a turn of the loop, or when the transport is full of the pongs that it owes.
_READING: Final = 0
_PAUSED: Final = 1
_YIELDED: Final = 2

_CLOSE: Final = 0x88
_TEXT: Final = 0x81
_BINARY: Final = 0x82
_PING_FRAME: Final = b"\x89\x00"
_RSV1: Final = 0x40
_DIRECT_PLAIN: Final = frozenset((_TEXT, _BINARY))
_DIRECT_DEFLATE: Final = frozenset((_TEXT, _BINARY, _TEXT | _RSV1, _BINARY | _RSV1))


class WebSocketConnection(PhasedConnection[WebSocketDriver]):
    """Protocol state of one WebSocket; implements `WebSocketPort`.

    Args:
        config: Limits and timeouts.
        handshake: What is to be answered before it is open.
        driver: The I/O around it.
    """

    __deletable__ = ("_handshake", "response")  # what `accept` cuts
    __slots__ = (
        "_backlog",
        "_borrow",
        "_budget",
        "_closes_when_accepted",
        "_deflate_min",
        "_deflater",
        "_deliver",
        "_direct",
        "_direct_max",
        "_engine",
        "_eof",
        "_handshake",
        "_heard_at",
        "_inflate_bits",
        "_inside",
        "_liveness",
        "_message_max",
        "_missing",
        "_native_unmask",
        "_reading",
        "_sink",
        "_waits",
        "_write",
        "bytes_received",
        "bytes_sent",
        "response",
        "writable",
    )

    steps = WEBSOCKET_STEPS
    _liveness: Liveness

    def __init__(self, config: Config, handshake: Handshake, driver: WebSocketDriver) -> None:
        super().__init__(config, driver, CONNECTING)
        self._write = driver.write
        self._handshake = handshake
        self.response = handshake.response
        self.writable = driver.writable
        self.bytes_received = 0
        self.bytes_sent = 0
        self._sink: WebSocketSink | None = None
        self._deliver: Callable[[bytes | str, int], bool] | None = None
        self._closes_when_accepted = False  # the server stops
        self._borrow: Callable[[EngineReports], WebSocketEngine] | None = None
        # While it is open it has an engine only inside a frame or a fragmented message.
        self._engine: WebSocketEngine | None = None
        self._direct = _DIRECT_PLAIN
        limits = [limit for limit in (config.websocket_max_message_size, config.websocket_max_frame_size) if limit]
        self._direct_max = min(limits) if limits else _NO_LIMIT
        self._message_max = config.websocket_max_message_size
        self._native_unmask = driver.engines.unmask
        self._deflater: Deflater | None = None
        self._deflate_min = config.websocket_compression_min_bytes
        self._inflate_bits = 0
        # of reading
        self._reading = _READING
        self._backlog = b""  # read, but not handed on: the start of a frame, or all that came behind a pause
        self._missing = 0  # bytes of the engine's current frame that have not come yet
        self._inside = False  # the engine is inside a fragmented message
        self._waits = 0
        self._budget: FrameBudget | None = None
        self._eof = False  # the client has closed its half, behind the backlog
        self._heard_at = 0.0

    # -- what the driver reports -------------------------------------------------------------------------

    def asked(self, sink: WebSocketSink) -> None:
        """Note that the application has been asked whether it accepts."""
        self._sink = sink
        config = self._config
        granted = [
            seconds for seconds in (config.websocket_connect_timeout, config.websocket_handshake_timeout) if seconds > 0
        ]
        if granted:
            self._set_deadline(self._clock() + min(granted))

    # Hot: every message; a call would cost more than the branches.
    def receive_data(self, data: bytes) -> None:  # noqa: C901, PLR0912, PLR0915
        """Take what one read delivered. The driver calls it for every read, in order."""
        if self.phase >= LINGERING:
            return
        self._heard_at = self._clock()
        if self._backlog:
            data = self._backlog + data
            self._backlog = b""
        if self._reading:
            self._backlog = data
            return
        deliver, direct, direct_max = self._deliver, self._direct, self._direct_max
        position, end = 0, len(data)
        spent = 0
        if (
            5 < end < 132
            and data[1] == end + 122
            and data[0] in _DIRECT_PLAIN
            and deliver is not None
            and self._engine is None
            and end - 6 <= direct_max
        ):
            # All of one short message, as most reads are: the loop below, without its questions.
            self._waits = 0
            size = end - 6
            payload = (int.from_bytes(data[6:], "little") ^ int.from_bytes((data[2:6] * 32)[:size], "little")).to_bytes(
                size, "little"
            )
            if data[0] == _BINARY:
                self.bytes_received += size
                if deliver(payload, size):
                    self._pause()
                return
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                pass
            else:
                self.bytes_received += size
                if deliver(text, size):
                    self._pause()
                return
        if self._missing:
            position = min(self._missing, end)
            if self._feed(data[:position], self._missing - position):
                self._keep(data[position:])
                return
        while position < end:
            start = position + 2
            if start > end:
                break
            b0 = data[position]
            size = data[position + 1]
            masked = size > 127
            if masked:
                size -= 128
                start += 4
            if size > 125:
                width = 2 if size == 126 else 8
                start += width
                if start > end:
                    break
                size = int.from_bytes(data[position + 2 : position + 2 + width], "big")
                if size < (126 if width == 2 else 65536):
                    masked = False  # not the shortest form of the length: for the engine to refuse
            elif start > end:
                break
            stop = start + size
            if b0 in direct and masked and not self._inside and size <= direct_max:
                if stop > end:
                    if self._waits < _WAITS_MAX and size <= _WAIT_MAX_BYTES and self._may_wait(b0, data, start):
                        self._waits += 1
                        break
                elif deliver is None:
                    # No message is received any more; all that matters is the client's Close frame.
                    self._waits = 0
                    position = stop
                    continue
                else:
                    if size < UNMASK_NATIVE_MIN_BYTES:
                        payload = unmask(data[start:stop], data[start - 4 : start])
                    else:
                        payload = self._native_unmask(memoryview(data)[start:stop], data[start - 4 : start])
                    self._waits = 0
                    message: bytes | str | None = payload
                    if b0 & _RSV1:
                        deflater = self._deflater
                        assert deflater is not None  # `direct` has no such frames without it
                        message = inflated = deflater.inflate(payload, self._inflate_bits, self._message_max)
                        if inflated is not None:
                            payload = inflated
                    if b0 & 0x0F == 1 and message is not None:
                        try:
                            message = payload.decode()
                        except UnicodeDecodeError:
                            message = None
                    if message is not None:
                        position = stop
                        size = len(payload)
                        self.bytes_received += size
                        if deliver(message, size):
                            self._backlog = data[position:]
                            self._pause()
                            return
                        continue
            self._waits = 0
            if (
                b0 == _CLOSE
                and masked
                and size < 126
                and size <= direct_max
                and stop <= end
                and self._close_is_ordinary(data[start:stop], data[start - 4 : start])
            ):
                return
            # Anything else, and anything that went wrong above, is the engine's.
            if not self._admit(b0, size):
                return
            if self._feed(data[position:stop], max(stop - end, 0)):
                self._keep(data[stop:])
                return
            position = stop
            deliver = self._deliver
            spent += 1 if deliver is not None else _TURN_CLOSING_COST
            if spent >= _TURN_MAX_FRAMES and position < end:
                self._driver.pause_reading()
                self._backlog = data[position:]
                self._yield_turn()
                return
        self._backlog = data[position:]

    def continue_reading(self) -> None:
        """Hand on what was read before. The driver calls it after `continue_soon` and `continue_with_room`."""
        if self._reading != _YIELDED:
            return
        self._reading = _READING
        # The clock stood still meanwhile: what the client sent in answer may be waiting to be read.
        self._liveness.forget_ping()
        backlog, self._backlog = self._backlog, b""
        self.receive_data(backlog)
        if not self._reading:
            self._resume_reading()

    def eof_received(self) -> None:
        """The client closed its half, without a Close frame unless one has been handled."""
        if self._reading:
            self._eof = True  # behind what the application has yet to receive
        elif (self.phase, _END_OF_INPUT) in MOVES:
            self._tell_closed(1006, "")
            self._finish()

    def connection_lost(self) -> None:
        """The transport is gone."""
        self._lost()
        self._let_go()
        self._tell_closed(1006, "")

    def deadline_passed(self, now: float) -> None:
        """Act on the deadline, if it has really passed."""
        if now < self.deadline:
            return
        self.deadline = NEVER
        if self.phase == OPEN:
            self._check_liveness(now)
        elif self.phase == CONNECTING:
            if self._sink is not None:
                self._sink.expired()
        else:
            self._end_passed(now)
            if self.phase >= CLOSED:
                self._let_go()

    def shut_down(self) -> None:
        """Close with 1012, now or as soon as it is accepted."""
        if self.phase == CONNECTING:
            self._closes_when_accepted = True
        else:
            self._start_closing(1012, "The server is shutting down.")

    # -- what the engine reports -------------------------------------------------------------------------

    def write_control(self, data: bytes) -> None:
        """Write a control frame that the engine has made. It does not wait for room, but what asks for another does."""
        if self.phase < LINGERING:
            self._write(data)
            if self.phase == OPEN and not self._reading and self._driver.full():
                self._pause()
                self._reading = _YIELDED
                self._driver.continue_with_room()

    def message_judged(self, payload: bytes, text: bool) -> None:
        """Take a message that the engine has assembled; text is valid UTF-8."""
        if self._deliver is None:
            return
        size = len(payload)
        self.bytes_received += size
        if self._deliver(payload.decode() if text else payload, size):
            self._pause()

    def close_judged(self, code: int | None, reason: str | None) -> None:
        """Take the client's Close frame; the engine has answered it, if it was not the answer to ours."""
        if (self.phase, _CLOSE_FRAME) in MOVES:
            self._tell_closed(1005 if code is None else code, reason or "")
            self._finish()

    def failure_judged(self, code: int, reason: str) -> None:
        """Take the engine's verdict that the client broke a rule; it has sent its Close frame."""
        if (self.phase, _BROKEN_RULE) not in MOVES:
            return
        self._driver.failed(code, reason)
        self._tell_closed(code, reason)
        # The client's frames cannot be trusted any more, not even for a Close frame to be found in them.
        self._backlog = b""
        self._retire_engine()
        self._close_half(self._clock() + self._config.close_timeout)
        self._end_pause()

    # -- WebSocketPort -----------------------------------------------------------------------------------

    def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """See `WebSocketPort.accept`. The whole way of it, in its order: agree, answer, take over, open."""
        following = MOVES[self.phase, _ACCEPTED]
        config, driver, handshake = self._config, self._driver, self._handshake
        engines, request = driver.engines, handshake.request
        agreement = None
        if config.websocket_compression and request.deflate_offers:
            agreement = agree_on_deflate(request.deflate_offers, config.websocket_compression_window_bits)
        behind = handshake.accept(accept_fields(request, subprotocol, headers, agreement))
        driver.take_over()
        # The handshake is over, and holds all of the protocol that carried it.
        del self._handshake, self.response
        self._enter(following)
        sink = self._sink
        assert sink is not None  # asked() came first, and it has not been closed, or nobody would accept
        self._deliver = sink.message_received
        if agreement is None:
            self._borrow = engines.lend
        else:
            self._borrow = engines.lend_deflate
            self._deflater = engines.deflater(agreement.server_bits)
            self._inflate_bits = agreement.client_bits or 15
            self._direct = _DIRECT_DEFLATE
        now = self._heard_at = self._clock()
        self._liveness = Liveness(config, driver, now)
        self._set_liveness_deadline(now)
        if behind:
            self.receive_data(behind)
        if not self._reading and self.phase < CLOSED:
            driver.resume_reading()
        if self._closes_when_accepted:
            self.shut_down()

    def message(self, payload: bytes, text: bool) -> None:
        """See `WebSocketPort.message`."""
        size = len(payload)
        self.bytes_sent += size
        b0 = _TEXT if text else _BINARY
        if self._deflater is not None and size >= self._deflate_min:
            squeezed = self._deflater.deflate(payload)
            if len(squeezed) < size:
                payload = squeezed
                size = len(squeezed)
                b0 |= _RSV1
        if size < 126:
            self._write(SMALL_HEADS[b0][size] + payload)
        elif size < COPY_MAX_BYTES:
            self._write(frame_head(b0, size) + payload)
        else:
            self._driver.write_sequence([frame_head(b0, size), payload])

    def close(self, code: int, reason: str) -> None:
        """See `WebSocketPort.close`."""
        self._sink = self._deliver = None
        self._start_closing(code, reason)

    def break_off(self) -> None:
        """See `WebSocketPort.break_off`."""
        self._let_go()
        super().break_off()

    def consumed(self) -> None:
        """See `WebSocketPort.consumed`."""
        self._end_pause()

    # -- reading -----------------------------------------------------------------------------------------

    # Whether the frame at `start`, of which the rest is missing, may wait for it here. Text that is wrong already is to
    # be refused now, as the engine does, and not when all of it has come.
    def _may_wait(self, b0: int, data: bytes, start: int) -> bool:
        if b0 != _TEXT:
            return True
        part = memoryview(data)[start:]
        key = data[start - 4 : start]
        plain = self._native_unmask(part, key) if len(part) >= UNMASK_NATIVE_MIN_BYTES else unmask(part, key)
        try:
            utf_8_decode(plain, "strict", False)
        except UnicodeDecodeError:
            return False
        return True

    # Answer a client that begins the closing handshake with an ordinary frame, as the engine would. False if the frame
    # is the engine's, or the handshake is under way.
    def _close_is_ordinary(self, data: bytes, key: bytes) -> bool:
        if self.phase != OPEN or self._engine is not None:
            return False
        code: int | None = None
        reason = ""
        payload = unmask(data, key)
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if code not in _ORDINARY_CODES:
                return False
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                return False
        self.write_control(bytes((_CLOSE, len(payload))) + payload)
        self.close_judged(code, reason)
        return True

    # Count a frame that goes to the engine. False if it was one too many, and the connection has failed.
    def _admit(self, b0: int, size: int) -> bool:
        opcode = b0 & 0x0F
        if opcode == 8:
            return True
        budget = self._budget
        if budget is None:
            budget = self._budget = FrameBudget(self._config)
        if opcode > 8:
            if not budget.pays_control(self.bytes_received + self.bytes_sent, self._heard_at):
                self._fail(1008, "Too many pings or pongs.")
                return False
        elif not budget.pays_fragment(size, not self._inside):
            self._fail(1008, "The message has too many fragments.")
            return False
        return True

    # Let the engine judge a frame, or a piece of one of which `missing` bytes have not come. True if nothing more is to
    # be handed on for now.
    def _feed(self, data: bytes, missing: int) -> bool:
        engine = self._engine or self._borrow_engine()
        self._missing = missing
        engine.feed(data)
        if self.phase >= LINGERING or missing:
            return True
        self._inside = engine.inside_message
        if self.phase == OPEN and not self._inside:
            self._engine = None
            engine.give_back()
        return self._reading != _READING

    def _borrow_engine(self) -> WebSocketEngine:
        assert self._borrow is not None  # it is open, or was
        engine = self._engine = self._borrow(self)
        return engine

    def _retire_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.retire()

    # Keep what follows the frame after which reading stopped, unless it has stopped for good.
    def _keep(self, data: bytes) -> None:
        if self.phase < LINGERING:
            self._backlog = data

    def _pause(self) -> None:
        if self._reading or self.phase >= LINGERING:
            return
        self._reading = _PAUSED
        self._driver.pause_reading()
        self._set_liveness_deadline(self._clock())

    def _end_pause(self) -> None:
        if not self._reading:
            return
        if self._backlog:
            # The backlog is not handed on from here: an application that only receives would be handed one message
            # after the other, each of them inflated for it, and never let go of the loop.
            self._yield_turn()
            return
        self._reading = _READING
        self._heard_at = self._clock()  # as in continue_reading()
        self._liveness.forget_ping()
        self._resume_reading()

    def _yield_turn(self) -> None:
        if self._reading != _YIELDED:
            self._reading = _YIELDED
            self._driver.continue_soon()

    # The backlog is handed on.
    def _resume_reading(self) -> None:
        if self._eof:
            self.eof_received()
        elif self.phase < CLOSED:
            self._driver.resume_reading()
            if self.phase == OPEN:
                self._set_liveness_deadline(self._heard_at)

    # -- endings -----------------------------------------------------------------------------------------

    def _tell_closed(self, code: int, reason: str) -> None:
        sink, self._sink = self._sink, None
        self._deliver = None
        if sink is not None:
            sink.closed(code, reason)

    # Begin the closing handshake.
    def _start_closing(self, code: int, reason: str) -> None:
        following = MOVES.get((self.phase, _CLOSED_BY_SERVER))
        if following is None:
            return
        engine = self._engine or self._borrow_engine()
        self._enter(following)
        engine.send_close(code, reason)
        self._tell_closed(code, reason)
        # A send() that waits for a client which does not read would hold a stopping server.
        self._driver.wake_senders()
        self._set_deadline(self._clock() + self._config.close_timeout)
        # The client's Close frame may be behind messages that nobody receives any more.
        self._end_pause()

    # End because of a limit that the engine does not know.
    def _fail(self, code: int, reason: str) -> None:
        engine = self._engine or self._borrow_engine()
        engine.send_close(code, reason)
        self.failure_judged(code, reason)

    # Both directions are done with: close once what was written is out.
    def _finish(self) -> None:
        self._let_go()
        self._close(read=True)

    # Nothing more is handed on.
    def _let_go(self) -> None:
        self._backlog = b""
        self._reading = _READING
        self._retire_engine()

    # -- time --------------------------------------------------------------------------------------------

    # The deadline of an open connection has passed.
    def _check_liveness(self, now: float) -> None:
        verdict = self._liveness.check(now, self._heard_at, self._reading != _READING)
        if verdict == LIFE_OVER:
            self._start_closing(1000, "The WebSocket has reached its longest life.")
            return
        if verdict in (LEFT, SILENT):
            self._tell_closed(1006, "The client did not answer a ping." if verdict == SILENT else "")
            self._let_go()
            self._abort()
            return
        if verdict == PING:
            self._write(_PING_FRAME)
        self._set_liveness_deadline(now)

    def _set_liveness_deadline(self, now: float) -> None:
        self._set_deadline(self._liveness.deadline(now, self._heard_at, self._reading != _READING))

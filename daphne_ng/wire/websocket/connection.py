"""One WebSocket connection, server side, without I/O (RFC 6455, RFC 7692).

Theory of operation
-------------------

Bytes go in through `WebSocketConnection.receive_data`, which finds the frames in them. A whole, final, masked frame of
text or binary - compressed or not - is the *direct path*: it is unmasked, inflated, decoded and handed on right here.
Every other frame goes to an *engine* (Autobahn), one frame at a time, byte for byte as it came: fragments, control
frames, frames too long to wait for, and whatever the direct path finds wrong. The engine is the judge of legality; the
direct path never refuses anything.

1. An engine sees a frame from its first byte to its last, or not at all. While it is inside a frame, or inside a
   fragmented message, nothing bypasses it. In between it holds no state - no window of a compressor is kept from one
   message to the next - so it is borrowed for a frame or a fragmented message, and given back after it. From the
   first Close frame on, whoever sent it, the connection keeps the one it has.
2. One frame completes at most one message, so the loop can stop after any of them: an application that does not
   receive holds back what a read has already brought (`_rest`), however much that would inflate to. And what one
   client has sent never keeps the others waiting for long: the rest of a read is handed on from a turn of the loop of
   its own, not from within ``receive()``, and the engine gets only so many frames in a turn.
3. The application's side ends once (`WebSocketSink.closed`, or its own `close`), whichever way the connection goes
   on from there.
4. Endings: both Close frames exchanged - the server closes first (RFC 6455 section 7.1.1); a Close frame of ours
   unanswered for `close_timeout` - the connection is dropped; a client that broke the rules - a Close frame, our half
   is closed, and what it still sends is thrown away until it leaves or that time is over.
5. `deadline` is the one point in time at which something must happen unless something else happens first. The driver
   keeps a timer no later than that and calls `deadline_passed`.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Callable

from daphne_ng._types import Headers
from daphne_ng.config import Config
from daphne_ng.port import WebSocketSink
from daphne_ng.wire.progress import FAREWELL_BYTES, Progress, first_look, watched
from daphne_ng.wire.websocket.budget import FrameBudget
from daphne_ng.wire.websocket.deflate import Deflater, agree_on_deflate, inflate
from daphne_ng.wire.websocket.driver import EngineReports, WebSocketDriver, WebSocketEngine
from daphne_ng.wire.websocket.frames import SMALL_HEADS, UNMASK_NATIVE_MIN_BYTES, frame_head, unmask
from daphne_ng.wire.websocket.handshake import Handshake, accept_fields

__all__ = ["WebSocketConnection"]

_NEVER = float("inf")
# How often a paused connection is asked whether its client is still there.
_PROBE_SECONDS = 5.0
# Messages at least this large are written beside their frame head instead of being copied behind it.
_COPY_MAX_BYTES = 16384
# A frame that a read did not bring whole waits for the next one, if it is no longer than this and for no more than
# so many reads: each of them looks at all of it again. Then the engine gets it, which works through it in pieces.
_WAIT_MAX_BYTES = 131072
_WAITS_MAX = 4

# What the engine may be given in one turn of the loop: it takes about 10 us for each frame, however small. After our
# Close frame each counts for many, since nothing but this bounds what messages that nobody receives inflate to.
_TURN_MAX_FRAMES = 512
_TURN_CLOSING_COST = 64

_NO_LIMIT = (1 << 63) - 1

_CONNECTING, _OPEN, _CLOSING, _ENDED = range(4)

_TEXT, _BINARY = 0x81, 0x82
_PING = b"\x89\x00"
_RSV1 = 0x40
_DIRECT_PLAIN = frozenset((_TEXT, _BINARY))
_DIRECT_DEFLATE = frozenset((_TEXT, _BINARY, _TEXT | _RSV1, _BINARY | _RSV1))


class WebSocketConnection:
    """Protocol state of one WebSocket; implements `WebSocketPort`.

    Args:
        config: Limits and timeouts.
        handshake: What is to be answered before it is open.
        driver: The I/O around it.
    """

    __slots__ = (
        "_borrow",
        "_budget",
        "_clock",
        "_config",
        "_deflate_min",
        "_deflater",
        "_direct",
        "_direct_max",
        "_driver",
        "_engine",
        "_eof",
        "_finished",
        "_handshake",
        "_heard_at",
        "_inflate_bits",
        "_inside",
        "_life_ends_at",
        "_message_max",
        "_native_unmask",
        "_owed",
        "_paused",
        "_pinged_at",
        "_progress",
        "_rest",
        "_resting",
        "_shutting_down",
        "_sink",
        "_state",
        "_take",
        "_waits",
        "_write",
        "armed_for",
        "bytes_received",
        "bytes_sent",
        "deadline",
        "response",
        "writable",
    )

    def __init__(self, config: Config, handshake: Handshake, driver: WebSocketDriver) -> None:
        self._config = config
        self._driver = driver
        self._clock = driver.clock
        self._write = driver.write
        self._handshake = handshake
        self.response = handshake.response
        self.writable = driver.writable
        self.bytes_received = 0
        self.bytes_sent = 0
        self._state = _CONNECTING
        self._sink: WebSocketSink | None = None
        self._take: Callable[[bytes | str, int], bool] | None = None
        self._borrow: Callable[[EngineReports], WebSocketEngine] | None = None
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
        self._rest = b""  # read, but not handed on: the start of a frame, or all that came behind a pause
        self._owed = 0  # bytes of the engine's current frame that have not come yet
        self._inside = False  # the engine is inside a fragmented message
        self._waits = 0
        self._budget: FrameBudget | None = None
        self._paused = False
        self._resting = False  # paused until the next turn of the loop, for nothing else
        self._eof = False
        # of endings
        self._shutting_down = False
        self._finished = False
        self._progress: Progress | None = None  # of a client for which something is left at the end, or before a ping
        # of time
        self._heard_at = 0.0
        self._pinged_at = 0.0
        self._life_ends_at = _NEVER
        self.deadline = _NEVER
        self.armed_for = _NEVER
        """When the driver's timer will fire; the driver keeps it up to date."""

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

    def receive_data(self, data: bytes) -> None:
        """Take what one read delivered. The driver calls it for every read, in order."""
        if self._state >= _ENDED:
            return
        self._heard_at = self._clock()
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if self._paused:
            self._rest = data
            return
        take, direct, direct_max = self._take, self._direct, self._direct_max
        position, end = 0, len(data)
        spent = 0
        if (
            5 < end < 132
            and data[1] == end + 122
            and data[0] in _DIRECT_PLAIN
            and take is not None
            and not self._owed
            and not self._inside
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
                if take(payload, size):
                    self._pause()
                return
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                pass
            else:
                self.bytes_received += size
                if take(text, size):
                    self._pause()
                return
        if self._owed:
            position = min(self._owed, end)
            if self._feed(data[:position], self._owed - position):
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
                elif take is None:
                    # Nobody receives any more; all that matters is the client's Close frame.
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
                        message = inflated = inflate(payload, self._inflate_bits, self._message_max)
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
                        if take(message, size):
                            self._rest = data[position:]
                            self._pause()
                            return
                        continue
            # Anything else, and anything that went wrong above, is the engine's.
            self._waits = 0
            if not self._admit(b0, size):
                return
            if self._feed(data[position:stop], max(stop - end, 0)):
                self._keep(data[stop:])
                return
            position = stop
            take = self._take
            spent += 1 if take is not None else _TURN_CLOSING_COST
            if spent >= _TURN_MAX_FRAMES and position < end:
                self._paused = True
                self._driver.pause_reading()
                self._rest = data[position:]
                self._rest_a_turn()
                return
        self._rest = data[position:]

    def go_on(self) -> None:
        """Hand on what was read before. The driver calls it after `WebSocketDriver.go_on_soon`."""
        if not self._resting:
            return
        self._resting = self._paused = False
        # The clock stood still meanwhile: what the client sent in answer may be waiting to be read.
        self._pinged_at = 0.0
        rest, self._rest = self._rest, b""
        self.receive_data(rest)
        if not self._paused:
            self._read_on()

    def eof_received(self) -> None:
        """The client closed its half, without a Close frame unless one has been handled."""
        if self._paused:
            self._eof = True  # behind what the application has yet to receive
            return
        self._tell_closed(1006, "")
        if not self._finished:
            self._finish()

    def connection_lost(self) -> None:
        """The transport is gone."""
        self._state = _ENDED
        self._finished = True
        self._rest = b""
        self._resting = False
        self.deadline = _NEVER
        self._tell_closed(1006, "")
        self._disengage()

    def deadline_passed(self, now: float) -> None:
        """Act on the deadline, if it has really passed."""
        if now < self.deadline:
            return
        self.deadline = _NEVER
        state = self._state
        if state == _OPEN:
            self._quiet_passed(now)
        elif state == _CONNECTING:
            if self._sink is not None:
                self._sink.expired()
        else:
            self._end_passed(now)

    def shut_down(self) -> None:
        """Close with 1012, now or as soon as it is accepted."""
        self._shutting_down = True
        if self._state == _OPEN:
            self._close(1012, "The server is shutting down.")

    # -- what the engine reports -------------------------------------------------------------------------

    def write_control(self, data: bytes) -> None:
        """Write a control frame that the engine has made. It does not wait for room, but what asks for another does."""
        if not self._finished:
            self._write(data)
            if self._state == _OPEN and not self._paused and self._driver.full():
                self._pause()
                self._resting = True
                self._driver.go_on_with_room()

    def message_judged(self, payload: bytes, text: bool) -> None:
        """Take a message that the engine has assembled; text is valid UTF-8."""
        if self._take is None:
            return
        size = len(payload)
        self.bytes_received += size
        if self._take(payload.decode() if text else payload, size):
            self._pause()

    def close_judged(self, code: int | None, reason: str | None) -> None:
        """Take the client's Close frame; the engine has answered it, if it was not the answer to ours."""
        if self._state >= _ENDED:
            return
        self._tell_closed(1005 if code is None else code, reason or "")
        self._finish()

    def failure_judged(self, code: int, reason: str) -> None:
        """Take the engine's verdict that the client broke a rule; it has sent its Close frame."""
        if self._state >= _ENDED:
            return
        self._driver.failed(code, reason)
        self._tell_closed(code, reason)
        # Its frames cannot be trusted any more, not even for a Close frame to be found in them.
        self._state = _ENDED
        self._rest = b""
        self._resting = False
        self._disengage()
        self._unpause()
        self._driver.close_writing()
        self._set_deadline(self._clock() + self._config.close_timeout)

    # -- WebSocketPort -----------------------------------------------------------------------------------

    def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """See `WebSocketPort.accept`. The whole way of it, in its order: agree, answer, take over, open."""
        config, driver, handshake = self._config, self._driver, self._handshake
        engines, request = driver.engines, handshake.request
        agreement = None
        if config.websocket_compression and request.deflate_offers:
            agreement = agree_on_deflate(request.deflate_offers, config.websocket_compression_window_bits)
        following = handshake.accept(accept_fields(request, subprotocol, headers, agreement))
        driver.take_over()
        # The handshake is over, and holds all of the protocol that carried it.
        del self._handshake, self.response
        self._state = _OPEN
        sink = self._sink
        assert sink is not None  # asked() came first, and it has not been closed, or nobody would accept
        self._take = sink.message_received
        if agreement is None:
            self._borrow = engines.lend
        else:
            self._borrow = engines.lend_deflate
            self._deflater = engines.deflater(agreement.server_bits)
            self._inflate_bits = agreement.client_bits or 15
            self._direct = _DIRECT_DEFLATE
        now = self._heard_at = self._clock()
        self._life_ends_at = now + config.websocket_timeout if config.websocket_timeout > 0 else _NEVER
        self._set_quiet_deadline(now)
        if following:
            self.receive_data(following)
        if not self._paused and not self._finished:
            driver.resume_reading()
        if self._shutting_down:
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
        elif size < _COPY_MAX_BYTES:
            self._write(frame_head(b0, size) + payload)
        else:
            self._driver.write_sequence([frame_head(b0, size), payload])

    def close(self, code: int, reason: str) -> None:
        """See `WebSocketPort.close`."""
        self._sink = self._take = None
        self._close(code, reason)

    def break_off(self) -> None:
        """See `WebSocketPort.break_off`."""
        self._forget()
        self._driver.break_off()

    def consumed(self) -> None:
        """See `WebSocketPort.consumed`."""
        self._unpause()

    # -- reading -----------------------------------------------------------------------------------------

    # Whether the frame at `start`, of which the rest is missing, may wait for it here. Text that is wrong already is to
    # be refused now, as the engine does, and not when all of it has come.
    def _may_wait(self, b0: int, data: bytes, start: int) -> bool:
        if b0 != _TEXT:
            return True
        part = data[start:]
        key = data[start - 4 : start]
        plain = self._native_unmask(part, key) if len(part) >= UNMASK_NATIVE_MIN_BYTES else unmask(part, key)
        try:
            utf_8_decode(plain, "strict", False)
        except UnicodeDecodeError:
            return False
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

    # Let the engine judge a frame, or a piece of one of which `owed` bytes are missing. True if nothing more is to be
    # handed on for now.
    def _feed(self, data: bytes, owed: int) -> bool:
        engine = self._engine or self._engage()
        self._owed = owed
        engine.feed(data)
        if self._state >= _ENDED or owed:
            return True
        self._inside = engine.inside_message
        if self._state == _OPEN and not self._inside:
            self._engine = None
            engine.give_back()
        return self._paused

    def _engage(self) -> WebSocketEngine:
        assert self._borrow is not None  # it is open, or was
        engine = self._engine = self._borrow(self)
        return engine

    def _disengage(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.release()

    # Keep what follows the frame after which reading stopped, unless it has stopped for good.
    def _keep(self, rest: bytes) -> None:
        if self._state < _ENDED:
            self._rest = rest

    def _pause(self) -> None:
        if self._paused or self._state >= _ENDED:
            return
        self._paused = True
        self._driver.pause_reading()
        self._set_deadline(min(self._clock() + _PROBE_SECONDS, self._life_ends_at))

    def _unpause(self) -> None:
        if not self._paused:
            return
        if self._rest:
            # Not from here: an application that only receives would be handed one message after the other, each of
            # them inflated for it, and never let go of the loop.
            self._rest_a_turn()
            return
        self._paused = self._resting = False
        self._heard_at = self._clock()  # as in go_on()
        self._pinged_at = 0.0
        self._read_on()

    def _rest_a_turn(self) -> None:
        if not self._resting:
            self._resting = True
            self._driver.go_on_soon()

    # All that was read is handed on.
    def _read_on(self) -> None:
        if self._eof:
            self.eof_received()
        elif not self._finished:
            self._driver.resume_reading()
            if self._state == _OPEN:
                self._set_quiet_deadline(self._heard_at)

    # -- endings -----------------------------------------------------------------------------------------

    def _tell_closed(self, code: int, reason: str) -> None:
        sink, self._sink = self._sink, None
        self._take = None
        if sink is not None:
            sink.closed(code, reason)

    # Begin the closing handshake.
    def _close(self, code: int, reason: str) -> None:
        if self._state != _OPEN:
            return
        engine = self._engine or self._engage()
        self._state = _CLOSING
        engine.send_close(code, reason)
        self._tell_closed(code, reason)
        # A send() that waits for a client which does not read would hold a stopping server.
        self._driver.wake_senders()
        self._progress = None
        self._set_deadline(self._clock() + self._config.close_timeout)
        # The client's Close frame may be behind messages that nobody receives any more.
        self._unpause()

    # End because of a limit that the engine does not know.
    def _fail(self, code: int, reason: str) -> None:
        engine = self._engine or self._engage()
        engine.send_close(code, reason)
        self.failure_judged(code, reason)

    # Both directions are done with: close once what was written is out.
    def _finish(self) -> None:
        self._state = _ENDED
        self._finished = True
        self._rest = b""
        self._resting = False
        self._disengage()
        self._driver.close()
        self._set_deadline(self._clock() + self._config.close_timeout)

    # The time for an ending has passed. While something is left for the client, that is a pause like any other: it gets
    # all as long as it takes some. Then the time for its answer, the second stage, and last the axe.
    def _end_passed(self, now: float) -> None:
        left = self._driver.unacknowledged_bytes()
        if left > FAREWELL_BYTES:
            progress = self._progress = watched(self._progress, left, now, self._config)
            wait = progress.look(left, now)
            if wait:
                self._set_deadline(now + wait)
            else:
                self._forget()
                self._driver.drop()
        elif self._finished:
            self._driver.release()
        elif self._progress is not None:
            # Only now has it got our Close frame.
            self._progress = None
            self._set_deadline(now + self._config.close_timeout)
        else:
            self._finish()

    def _abort(self) -> None:
        self._forget()
        self._driver.abort()

    # Nothing is waited for any more.
    def _forget(self) -> None:
        self._state = _ENDED
        self._finished = True
        self._rest = b""
        self._resting = False
        self._disengage()
        self.deadline = _NEVER

    # -- time --------------------------------------------------------------------------------------------

    # A time of quiet, or of life, has passed.
    def _quiet_passed(self, now: float) -> None:
        config = self._config
        if now >= self._life_ends_at:
            self._close(1000, "The WebSocket has reached its longest life.")
            return
        if self._paused:
            # No event tells that the client has left. And it cannot answer a ping that we would not read.
            if self._driver.peer_gone():
                self._tell_closed(1006, "")
                self._abort()
                return
            self._set_deadline(min(now + _PROBE_SECONDS, self._life_ends_at))
            return
        if self._pinged_at and self._heard_at >= self._pinged_at:
            self._pinged_at = 0.0
        if not self._pinged_at:
            if now >= self._heard_at + config.ping_interval > self._heard_at:
                self._write(_PING)
                self._progress = None
                if config.ping_timeout:
                    self._pinged_at = now
                else:
                    self._heard_at = now  # nobody waits for the answer
        elif now >= self._pinged_at + config.ping_timeout > self._pinged_at:
            wait = self._patience(now)
            if not wait:
                self._tell_closed(1006, "The client did not answer a ping.")
                self._abort()
                return
            self._pinged_at = min(now, now + wait - config.ping_timeout)  # an answer comes after it
        self._set_quiet_deadline(now)

    # How long to wait yet for the answer to a ping. The client may be slow, and still taking what stands before it; how
    # long it may leave its side full is the write timeout's, but that of the transport is at work only above its high
    # mark.
    def _patience(self, now: float) -> float:
        driver, progress = self._driver, self._progress
        left = driver.unacknowledged_bytes()
        if not left:
            return 0.0
        if progress is None:
            self._progress = watched(None, left, now, self._config)
            return first_look(self._config.write_timeout)
        return progress.patience(left, driver.unsent_bytes(), now)

    def _set_quiet_deadline(self, now: float) -> None:
        config = self._config
        deadline = self._life_ends_at
        if self._pinged_at:
            # An answer moves no timer: to look once in an interval is often enough for the next ping to be in time.
            deadline = min(deadline, self._pinged_at + config.ping_timeout, now + config.ping_interval)
        elif config.ping_interval:
            deadline = min(deadline, self._heard_at + config.ping_interval)
        self._set_deadline(deadline)

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.armed_for:
            self._driver.rearm(deadline)

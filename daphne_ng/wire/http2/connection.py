"""One HTTP/2 connection, server side, without I/O (RFC 9113).

Theory of operation
-------------------

Bytes go in through `Http2Connection.receive_data`. The sieve (`http2.sieve`) cuts them into frames and keeps away what
costs more than it is worth. What is ordinary on a stream is for the records of the streams (`http2.records`); the
engine (`http2.engine`, which is h2) judges the rest and reports events. Of both, `http2.inbound` makes streams
(`http2.stream`), each with an exchange that answers through it. What goes out waits in the streams, and is taken from
there by the sender (`http2.sending`), on one turn of the loop for all. This module puts them together, and has what
belongs to the whole: the output, time, and the end.

1. What is wrong with the connection ends it: GOAWAY, one `failed` for the logs, `disconnected` for every exchange.
2. GOAWAY is ours in both directions. h2 neither sends nor sees one, since it is dead after either. What we have said
   with ours is the phase (`daphne_ng.wire.ending`):

   * OPEN: nothing; streams are opened and served.
   * ANNOUNCED: a GOAWAY that names no last stream, and a PING. Streams are still opened, since the client may not have
     read it yet.
   * LAST: a GOAWAY with the last stream: the PING was answered, its time has passed, or the connection was idle for too
     long. Later streams are ignored, and the connection ends with those that are open.
   * LINGERING and behind: our half is closed.

   A client that has sent its own GOAWAY opens no stream either, so the connection ends with the last of them, too.
3. A stream counts against the limit until nothing can come or go on it; if it ended before its response did, until its
   application has ended, too.
4. While the transport is full nothing is handed to it. What has to be answered all the same (acknowledgements, resets)
   waits, and if that becomes much, reading pauses.
5. `deadline` is no later than the first point in time at which something must happen. `deadline_passed` looks for what
   it was, and for the next.
"""

from __future__ import annotations

from typing import Final

from h2.exceptions import ProtocolError

from daphne_ng.config import Config
from daphne_ng.wire.ending import ANNOUNCED, CLOSED, LAST, LINGERING, NEVER, PhasedConnection
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http2.context import StreamContext
from daphne_ng.wire.http2.driver import Http2Driver
from daphne_ng.wire.http2.engine import Engine, h2_is_tested
from daphne_ng.wire.http2.frames import ENHANCE_YOUR_CALM, NO_ERROR, STREAM_ID_MAX, goaway_frame, ping_frame
from daphne_ng.wire.http2.hpack import CompressionError
from daphne_ng.wire.http2.inbound import Inbound
from daphne_ng.wire.http2.records import StreamRecords
from daphne_ng.wire.http2.sending import Sender
from daphne_ng.wire.http2.sieve import ConnectionFault, FrameSieve
from daphne_ng.wire.http2.stream import Http2Stream
from daphne_ng.wire.http2.windows import InboundWindows
from daphne_ng.wire.progress import Progress, pong_patience

__all__ = ["Http2Connection"]

# Taken from the streams and written at a time; in between the transport is asked whether it is full.
_WRITE_BYTES: Final = 65536
# Answers to control frames that may wait for the transport before reading pauses.
_CONTROL_MAX_BYTES: Final = 65536

_GRACE_PING: Final = b"goodbye?"
_LIFE_PING: Final = b"are you?"


class Http2Connection(PhasedConnection[Http2Driver[Http2Stream]]):
    """Protocol state of one connection.

    Args:
        config: Limits and timeouts.
        defaults: Fields added to every response; shared by all connections.
        driver: The I/O around it.
    """

    def __init__(self, config: Config, defaults: ResponseDefaults, driver: Http2Driver[Http2Stream]) -> None:
        super().__init__(config, driver)
        self._engine = engine = Engine(config)
        self._records = records = StreamRecords(engine, config.http2_plain_path and h2_is_tested())
        self._sieve = sieve = FrameSieve(config)
        self._budget = sieve.budget
        self._windows = windows = InboundWindows(config, engine, records)
        floor = max(1, int(config.write_min_rate * config.http2_stall_timeout))
        self._sender = sender = Sender(
            engine, records, sieve.budget, driver.clock, driver.full, floor, self._wants_flush
        )
        self._context: StreamContext[Http2Stream] = StreamContext(
            config,
            defaults,
            driver,
            engine,
            records,
            sieve,
            windows,
            sender,
            wants_flush=self._wants_flush,
            due_at=self._due_at,
            became_idle=self._arm_idle_deadline,
            break_off=self.break_off,
        )
        self._streams = self._context.open
        self._inbound = Inbound(self._context, self.shut_down, self._ping_answered)
        self._working = False  # in a call that flushes at its end
        self._flush_due = False
        self._choked = False  # the transport is full, and much is to be written that cannot wait in a stream
        self._paused = False  # the driver has been told to deliver nothing
        self._ping_progress: Progress | None = None  # of a client that has not answered a ping
        self._asked_at = 0.0
        self._heard_at = 0.0
        self._head_deadline = NEVER
        self._grace_deadline = NEVER
        self._ping_deadline = NEVER
        self._idle_deadline = NEVER  # counts while no stream is open

    # -- what the driver reports -------------------------------------------------------------------------

    def opened(self) -> None:
        """Begin: our SETTINGS go out, and the client's preface is due."""
        config = self._config
        self._engine.initiate_connection()
        self._windows.open()
        now = self._heard_at = self._clock()
        if config.head_timeout:
            self._head_deadline = now + config.head_timeout
            self._due_at(self._head_deadline)
        if config.http2_ping_interval:
            self._ping_deadline = now + config.http2_ping_interval
            self._due_at(self._ping_deadline)
        self._arm_idle_deadline()
        self.flush()

    def receive_data(self, data: bytes) -> None:
        """Take what one read delivered, from the first byte of the client's preface on."""
        if self.phase >= LINGERING:
            return
        now = self._heard_at = self._clock()
        if self._sieve.behind:
            self._sieve.keep(data)
        else:
            self._receive(data, now)

    def receive_later(self, data: bytes) -> None:
        """Take what one read delivered, to be worked on in a later turn of the loop: this one is used up."""
        sieve = self._sieve
        if sieve.begins or self.phase >= LINGERING:
            self.receive_data(data)  # without its preface there is no connection yet
            return
        self._heard_at = self._clock()
        sieve.keep(data)
        if not sieve.behind:
            sieve.behind = True
            self._pause_or_resume()
            self._wants_flush()

    def receive_kept(self, data: bytes) -> None:
        """Work on what has been kept for a turn of its own, behind which comes `data`."""
        self._receive(data, self._clock())

    # Work on what came, and on what others' turns have kept waiting, for one turn.
    def _receive(self, data: bytes, now: float) -> None:
        sieve = self._sieve
        pending = sieve.head_pending
        self._working = True
        try:
            self._inbound.receive(data, now)
        except (ConnectionFault, CompressionError) as fault:
            self._fail(fault.code, fault.detail)
            return
        except ProtocolError as error:
            # The text of the error holds bytes of the peer's; its class does not.
            self._fail(int(error.error_code), f"The client broke the protocol ({type(error).__name__}).")
            return
        finally:
            self._working = False
        if not sieve.head_pending:
            self._head_deadline = NEVER
        elif (sieve.head_is_new or not pending) and self._config.head_timeout:
            self._head_deadline = now + self._config.head_timeout
            self._due_at(self._head_deadline)
        self._flush()
        if sieve.behind or self._paused:
            self._pause_or_resume()
            if sieve.behind:
                self._wants_flush()

    # Reading pauses while the client takes too little, and while there is enough to be worked on.
    def _pause_or_resume(self) -> None:
        paused = self._choked or self._sieve.behind
        if paused != self._paused and self.phase < LINGERING:
            self._paused = paused
            if paused:
                self._driver.pause_reading()
            else:
                self._driver.resume_reading()

    def flush(self) -> None:
        """Send what the windows and the transport allow. The driver calls it after `Http2Driver.flush_soon`.

        And work on what has come and had to wait for a turn of its own.
        """
        self._flush_due = False
        if self._sieve.behind and self.phase < LINGERING:
            if not self._driver.take_turn():
                self._flush_due = True
        else:
            self._flush()

    def _flush(self) -> None:
        if self.phase >= LINGERING:
            return
        driver, engine, sender = self._driver, self._engine, self._sender
        full = driver.full
        while not full():
            if not sender.idle:
                sender.pump(_WRITE_BYTES)
            if not engine.output.parts:
                break
            driver.write(engine.output.take())
        else:
            if engine.output.size > _CONTROL_MAX_BYTES and not self._choked:
                self._choked = True
                self._pause_or_resume()
        awaiting_room = self._context.awaiting_room
        if awaiting_room:
            for stream in list(awaiting_room.values()):
                if stream.room():
                    awaiting_room.pop(stream.id, None)
        if sender.waits and self._config.http2_stall_timeout:
            self._due_at(sender.stalled_since() + self._config.http2_stall_timeout)
        if not self._streams and (self.phase >= LAST or self._inbound.client_leaves) and not engine.output.parts:
            self._close_when_drained()

    def _wants_flush(self) -> None:
        if not self._flush_due and not self._working and self.phase < LINGERING:
            self._flush_due = True
            self._driver.flush_soon()

    def drained(self) -> None:
        """The transport has room again, after `Http2Driver.full` was true."""
        if self.phase >= LINGERING:
            return
        self._flush()
        if self._choked and self.phase < LINGERING and not self._driver.full():
            self._choked = False
            self._pause_or_resume()

    def eof_received(self) -> None:
        """The client closed its half: nothing reads the answers that are under way."""
        if self.phase >= CLOSED:
            return
        self._enter(CLOSED)
        self._inbound.lose_all("the client closed its half of the connection")
        self._close(read=True)

    def connection_lost(self, reason: str) -> None:
        """The transport is gone."""
        self._lost()
        self._inbound.lose_all(reason)
        self.deadline = NEVER
        # The parts refer back to themselves or to this connection: nothing may be left for the garbage collector.
        self._context.let_go()
        self._inbound.let_go()
        self._sender.let_go()
        self._engine.let_go()
        self._records.let_go()

    def shut_down(self) -> None:
        """Serve what has begun, then close."""
        if self.phase >= ANNOUNCED:
            return
        self._enter(ANNOUNCED)
        # RFC 9113 section 6.8: "A server that is attempting to gracefully shut down a connection SHOULD send an initial
        # GOAWAY frame with the last stream identifier set to 2^31-1 and a NO_ERROR code. [...] After allowing time for
        # any in-flight stream creation (at least one round-trip time), the server MAY send another GOAWAY frame with an
        # updated last stream identifier."
        self._engine.output.write(goaway_frame(STREAM_ID_MAX, NO_ERROR) + ping_frame(_GRACE_PING))
        self._budget.asked += 1
        self._grace_deadline = self._clock() + self._config.http2_goaway_timeout
        self._due_at(self._grace_deadline)
        self._wants_flush()

    # -- time --------------------------------------------------------------------------------------------

    def deadline_passed(self, now: float) -> None:
        """Act on what is due, and find out what is next."""
        if now < self.deadline:
            return
        self.deadline = NEVER
        if self.phase >= LINGERING:
            self._end_passed(now)
            return
        self._working = True
        for stream in list(self._streams.values()):
            stream.expire(now)
        self._working = False
        sender, stall = self._sender, self._config.http2_stall_timeout
        if now >= self._head_deadline:
            self._fail(ENHANCE_YOUR_CALM, "The preface or a request head took too long.")
        elif stall and sender.starving is not None and now >= sender.starving.since + stall:
            self._fail(ENHANCE_YOUR_CALM, "The client keeps the window of the connection closed.")
        elif now >= self._ping_deadline and not self._alive(now):
            self._fail(NO_ERROR, "The client did not answer a ping.")
        else:
            if now >= self._grace_deadline:
                self._send_final_goaway()
            if not self._streams:
                if now >= self._idle_deadline:
                    self._expire_idleness(now)
                self._engine.block_decoder.forget()
                self._due_at(self._idle_deadline)
            for deadline in (self._head_deadline, self._ping_deadline, self._grace_deadline):
                self._due_at(deadline)
            self._flush()

    # Whether the client shows signs of life, or is asked for one now.
    def _alive(self, now: float) -> bool:
        interval = self._config.http2_ping_interval
        if now - self._heard_at < interval:
            self._ping_deadline = self._heard_at + interval
            return True
        if self._asked_at > self._heard_at:
            self._ping_progress, wait = pong_patience(self._ping_progress, self._driver, now, self._config)
            self._ping_deadline = now + wait
            return wait > 0
        self._asked_at = now
        self._ping_progress = None
        self._engine.output.write(ping_frame(_LIFE_PING))
        self._budget.asked += 1
        self._ping_deadline = now + interval
        return True

    def _ping_answered(self, data: bytes) -> None:
        if data == _GRACE_PING and self.phase == ANNOUNCED:
            self._send_final_goaway()

    # No stream is open: close after `keep_alive_timeout` unless one opens.
    def _arm_idle_deadline(self) -> None:
        self._progress = None  # what an earlier idleness has seen is no measure for this one
        if self._config.keep_alive_timeout and self.phase < LINGERING:
            self._idle_deadline = deadline = self._clock() + self._config.keep_alive_timeout
            if deadline < self.deadline:
                self._set_deadline(deadline)

    # No stream has been open for `keep_alive_timeout`; a client that still takes the last response has more time.
    def _expire_idleness(self, now: float) -> None:
        extension = self._idle_extension(now)
        if extension:
            self._idle_deadline = now + extension
        else:
            self._send_final_goaway()

    # Something is due at that time. What was due earlier stays due; `deadline_passed` finds out what is.
    def _due_at(self, deadline: float) -> None:
        if deadline < self.deadline:
            self._set_deadline(deadline)

    # -- end of the connection ---------------------------------------------------------------------------

    # Tell the client which stream was the last; the connection ends with those that are open.
    def _send_final_goaway(self) -> None:
        self._grace_deadline = self._idle_deadline = NEVER
        if self.phase >= LAST:
            return
        self._enter(LAST)
        sieve = self._sieve
        sieve.last_id = sieve.highest_id
        self._engine.output.write(goaway_frame(sieve.highest_id, NO_ERROR))
        self._wants_flush()

    # GOAWAY has been sent, by us or by the client, and no stream is left.
    def _close_when_drained(self) -> None:
        if self.phase < LAST:
            self._driver.write(goaway_frame(self._sieve.highest_id, NO_ERROR))
        self._linger()

    # The connection is broken.
    def _fail(self, code: int, detail: str) -> None:
        if self.phase >= LINGERING:
            return
        engine = self._engine
        last = self._sieve.highest_id
        self._driver.failed(code, detail)
        self._working = True
        self._inbound.lose_all(detail)
        self._working = False
        engine.clear_outbound_data_buffer()
        engine.output.write(goaway_frame(last, code, detail))
        self._driver.write(engine.output.take())
        self._linger()

    # Close our half, and give the client a moment to read the answer before the rest of its bytes meets a reset.
    def _linger(self) -> None:
        self._close_half(self._clock() + self._config.http2_goaway_timeout)
        if self._paused:
            self._paused = False
            self._driver.resume_reading()

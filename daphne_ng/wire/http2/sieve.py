"""The sieve before h2: which frames of a client h2 works on, and what stands in the place of the others.

Theory of operation
-------------------

`FrameSieve` cuts what arrives into whole frames and decides about each before h2 works on it. Ordinary frames are
known at a glance; each of the others has the rule that `RULES` names for its type.

1. A frame that breaks a rule which h2 does not know, or punishes too hard, is caught here.
2. What a client can send for nothing and we pay for is charged to its `Budget` (`http2.budget`) before it costs
   anything: resets, and PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA and unknown frames. Of the last two, one
   for each other frame is free: there are clients that grease each DATA frame with one, or end each message with one.
3. A header block is kept until it is whole. It is bounded in frames and bytes; its time is the connection's business.
4. GOAWAY, PRIORITY_UPDATE and what belongs to streams that we have given up never reach h2: after a GOAWAY it would be
   dead, and to frames of a reset stream it would answer with one reset each.

What is ordinary on a stream (a request, DATA, WINDOW_UPDATE) is reported, for `http2.records`. The rest is passed on as
it came, as many frames at a time as follow each other. There are no more frames in one turn than others can wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from daphne_ng.config import Config
from daphne_ng.errors import DaphneError
from daphne_ng.wire.http2.budget import Budget
from daphne_ng.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FRAME_MAX_BYTES,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    STREAM_ID_MAX,
    WINDOW_MAX_BYTES,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame_header,
    unpack_frame_header,
    unpack_long,
)
from daphne_ng.wire.http2.preface import PREFACE

__all__ = [
    "DATA_RECEIVED",
    "GOAWAY_RECEIVED",
    "PRIORITY_RECEIVED",
    "REQUEST",
    "RULES",
    "SKIPPED_BLOCK",
    "SKIPPED_DATA",
    "STREAM_FAULT",
    "WINDOW_UPDATED",
    "ConnectionFault",
    "FrameSieve",
    "unknown_frame",
]

# Reports of the sieve, beside bytes for h2: (report, stream, value).
REQUEST: Final = 0  # a new stream: (its header block, END_STREAM or 0)
DATA_RECEIVED: Final = 6  # DATA without padding: (payload, END_STREAM or 0)
WINDOW_UPDATED: Final = 7  # the increment, within its limits; of the connection on stream 0
SKIPPED_DATA: Final = 1  # DATA that h2 does not see: how many bytes of the connection's window are due for it
SKIPPED_BLOCK: Final = 2  # a header block that is decoded, to stay in step, and dropped
STREAM_FAULT: Final = 3  # a frame that its stream is to be reset for: the error code
GOAWAY_RECEIVED: Final = 4  # its error code
PRIORITY_RECEIVED: Final = 5  # the value of the Priority field (RFC 9218) for a stream

# Unknown settings must be ignored (section 6.5.2). h2 would keep each of the 65,536 possible ones.
_KNOWN_SETTINGS: Final = frozenset((1, 2, 3, 4, 5, 6, 8, 9))

# Frames to be worked on before other connections have their turn. Frames of one byte cost 13 us each, and a read may
# hold 13,000; a read of ordinary frames holds fewer than this.
_TURN_FRAMES: Final = 512


class ConnectionFault(DaphneError):
    """The connection must end.

    Args:
        code: The error code of the GOAWAY.
        detail: A constant sentence; never holds bytes that the peer sent.
    """

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class FrameSieve:
    """Cuts a connection's input into frames, and lets through what h2 may see.

    Args:
        config: The limits.
    """

    __slots__ = (
        "_begun",
        "_block",
        "_block_bytes",
        "_block_max",
        "_block_stream",
        "_continuations_max",
        "_data",
        "_hollow_end",
        "_preface_left",
        "behind",
        "budget",
        "fault",
        "given_up",
        "head_is_new",
        "head_pending",
        "highest_id",
        "last_id",
    )

    def __init__(self, config: Config) -> None:
        self._data = b""
        self._preface_left = PREFACE
        self._begun = False
        self._block: list[bytes] = []
        self._block_bytes = 0
        # A block is smaller than its list of fields. One that is a little too large is answered, not cut off.
        self._block_max = 2 * config.head_max_bytes
        self._block_stream = 0
        self._continuations_max = config.http2_max_continuation_frames
        self._hollow_end = -1  # where the last unknown or empty frame ended, as long as no other frame has followed it
        self.budget = Budget(config)
        """The frames that the client may still send and that carry nothing."""
        self.behind = False
        """Whether there is more to be worked on, by another `feed`, on another turn of the loop."""
        self.fault: ConnectionFault | None = None
        """The fault that ends the connection, once everything before it has been worked on."""
        self.head_pending = True
        """Whether the preface, or a header block, has begun to arrive and is not whole."""
        self.head_is_new = False
        """Whether what is pending is another one than before the last read."""
        self.highest_id = 0
        """The highest stream that a request came on."""
        self.last_id = STREAM_ID_MAX
        """Streams above it are ignored, after a GOAWAY that says so."""
        self.given_up: dict[int, None] = {}
        """Streams that we have reset, the latest ones: their frames may still be on the way."""

    def feed(self, data: bytes, now: float) -> list[Any]:
        """Take what one read delivered.

        Returns:
            In order, bytes to be handed to h2, and the reports ``(report, stream, value)`` that stand at the head of
            this module. After all of that, `fault` is to be looked at.
        """
        items: list[Any] = []
        try:
            self._sift(data, now, items)
        except ConnectionFault as fault:
            self.fault = fault
        return items

    @property
    def begins(self) -> bool:
        """Whether the preface has not come whole yet."""
        return bool(self._preface_left)

    def keep(self, data: bytes) -> None:
        """Keep what came although the sieve is behind."""
        self._data += data

    def give_up(self, stream_id: int) -> None:
        """Ignore what still comes for a stream that we have reset."""
        given_up = self.given_up
        if len(given_up) >= 1000:  # more than can be on their way: the buckets are smaller
            del given_up[next(iter(given_up))]
        given_up[stream_id] = None

    def take_reset(self, now: float, count: int = 1) -> None:
        """Pay for resets that the peer has provoked.

        Raises:
            ConnectionFault: There are too many.
        """
        if not self.budget.pays_provoked(now, count):
            raise _too_many_resets()

    # Hot: every frame; a call would cost more than the branches.
    def _sift(self, data: bytes, now: float, items: list[Any]) -> None:  # noqa: C901, PLR0912, PLR0915
        at = 0
        if self._preface_left:
            part = data[: len(self._preface_left)]
            if not self._preface_left.startswith(part):
                raise ConnectionFault(PROTOCOL_ERROR, "The connection preface is wrong.")
            at = len(part)
            self._preface_left = self._preface_left[at:]
            items.append(part)
        elif self._data:
            data = self._data + data
        run = start = at
        end = len(data)
        block, begun = self._block, self._begun
        last_id = self.last_id
        given_up = self.given_up
        kind = DATA
        turns = _TURN_FRAMES
        carried = 0
        self.behind = False
        while end - at >= 9:
            if not turns:
                kind = DATA  # what follows has not been looked at
                self.behind = True
                break
            turns -= 1
            high, low, kind, flags, stream_id = unpack_frame_header(data, at)
            length = high << 8 | low
            if length > FRAME_MAX_BYTES:
                if run < at:  # what came before is still worked on
                    items.append(data[run:at])
                raise ConnectionFault(FRAME_SIZE_ERROR, "A frame is larger than we allow.")
            following = at + 9 + length
            if following > end:
                break
            stream_id &= STREAM_ID_MAX
            if self._block:
                if kind != CONTINUATION or stream_id != self._block_stream:
                    raise ConnectionFault(PROTOCOL_ERROR, "A header block is interrupted.")
                self._continue_block(data[at:following], flags, items)
                at = run = following
                continue
            if kind == HEADERS and flags & END_HEADERS and stream_id > self.highest_id and stream_id <= last_id:
                if not flags & WITH_PRIORITY and self._begun:
                    # An ordinary request.
                    self.highest_id = stream_id
                    self.budget.requests += 1
                    if not flags & PADDED:
                        if run < at:
                            items.append(data[run:at])
                        items.append((REQUEST, stream_id, (data[at + 9 : following], flags & END_STREAM)))
                        run = following
                    at = following
                    continue
            elif (
                kind == DATA
                and length
                and not flags & PADDED
                and self._begun
                and stream_id <= last_id
                and stream_id not in given_up
            ):
                carried += 1
                if run < at:
                    items.append(data[run:at])
                items.append((DATA_RECEIVED, stream_id, (data[at + 9 : following], flags & END_STREAM)))
                at = run = following
                continue
            if not self._begun:
                # Section 3.4: "This sequence MUST be followed by a SETTINGS frame".
                if kind != SETTINGS or flags & ACK:
                    raise ConnectionFault(PROTOCOL_ERROR, "The connection does not begin with SETTINGS.")
                self._begun = True
            # Rare frames: one that is not passed on leaves a gap in the run.
            if carried:
                self.budget.data_received += carried
                carried = 0
            try:
                passed = RULES.get(kind, unknown_frame)(self, data, at, length, flags, stream_id, now)
            except ConnectionFault:
                if run < at:
                    items.append(data[run:at])
                raise
            if passed is not True:
                if run < at:
                    items.append(data[run:at])
                if passed is not None:
                    items.extend(passed)
                run = following
            at = following
        if run < at:
            items.append(data[run:at] if at < end or run else data)
        self._data = data[at:]
        self.budget.data_received += carried
        self._hollow_end = 0 if self._hollow_end == at else -1
        self.head_is_new = at > start and begun and not (self._block and self._block is block)
        self.head_pending = (
            bool(self._block)
            or not self._begun
            or (end - at >= 9 and kind in (HEADERS, CONTINUATION))
            or 0 < end - at < 9
        )

    # -- the rules -------------------------------------------------------------------------------------------

    # A rule decides about one frame: True hands it to h2; otherwise a list of what stands in its place, or None for
    # nothing. `at` is where the frame begins, `length` how long its payload is.

    def _data_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        skipped = stream_id > self.last_id or stream_id in self.given_up
        padding = data[at + 9] + 1 if flags & PADDED and length else 0
        if length <= padding:
            if not flags & END_STREAM:
                self._pay_hollow(at, at + 9 + length, now)
            elif skipped and not self.budget.pays_control(now):  # nothing counts how often the stream ends
                raise _too_many_frames()
        if skipped:
            return [(SKIPPED_DATA, stream_id, length)]
        if flags & PADDED:
            return True
        return [(DATA_RECEIVED, stream_id, (data[at + 9 : at + 9 + length], flags & END_STREAM))]

    def _headers_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        frame = data[at : at + 9 + length]
        fault = None
        skip = 9
        if flags & WITH_PRIORITY:
            skip = 14
            where = 10 if flags & PADDED else 9
            if len(frame) >= where + 5 and unpack_long(frame, where)[0] & STREAM_ID_MAX == stream_id:
                # RFC 7540 section 5.3.1 makes it a stream error, h2 the end of the connection.
                frame = frame[:where] + b"\0\0\0\0" + frame[where + 4 :]
                fault = (STREAM_FAULT, stream_id, PROTOCOL_ERROR)
        if not flags & END_HEADERS:
            self._block_stream = stream_id
            self._block = [frame]
            self._block_bytes = len(frame)
            return [fault] if fault else None
        new = stream_id > self.highest_id
        passed: Any = self._whole_block([frame], fault)
        if passed is True and new and not flags & PADDED and length >= skip - 9:
            return [(REQUEST, stream_id, (data[at + skip : at + 9 + length], flags & END_STREAM))]
        return passed

    def _priority_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        if not self.budget.pays_control(now):
            raise _too_many_frames()
        if not stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "A PRIORITY frame has no stream.")
        if length != 5:
            return [(STREAM_FAULT, stream_id, FRAME_SIZE_ERROR)]
        skipped = stream_id > self.last_id or stream_id in self.given_up
        if unpack_long(data, at + 9)[0] & STREAM_ID_MAX == stream_id and not skipped:
            # RFC 7540 section 5.3.1: "A stream cannot depend on itself. An endpoint MUST treat this as a stream
            # error". RFC 9113 has no dependencies any more; no client has reason to send this either way.
            return [(STREAM_FAULT, stream_id, PROTOCOL_ERROR)]
        return None

    def _rst_stream_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        skipped = stream_id > self.last_id or stream_id in self.given_up
        if (stream_id > self.highest_id and not skipped) or not stream_id & 1:
            # Even ones would be pushed by us. To h2 it is nothing.
            raise ConnectionFault(PROTOCOL_ERROR, "A stream is reset that was never opened.")
        if not self.budget.pays_reset(now):
            raise _too_many_resets()
        return None if skipped and length == 4 else True

    def _settings_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        if not (self.budget.pays_acknowledgement(now) if flags & ACK else self.budget.pays_empty(now)):
            raise _too_many_frames()
        if flags & ACK:
            if length:
                # Section 6.5: "a connection error of type FRAME_SIZE_ERROR". To h2 it is another one.
                raise ConnectionFault(FRAME_SIZE_ERROR, "An acknowledgement of SETTINGS is not empty.")
        elif length % 6 == 0 and not stream_id:
            settings = [data[start : start + 6] for start in range(at + 9, at + 9 + length, 6)]
            known = [setting for setting in settings if setting[0] == 0 and setting[1] in _KNOWN_SETTINGS]
            if len(known) != len(settings):
                body = b"".join(known)
                return [frame_header(len(body), SETTINGS, 0, 0) + body]
        return True

    def _push_promise_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        raise ConnectionFault(PROTOCOL_ERROR, "A client cannot push.")

    def _ping_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        if not (self.budget.pays_acknowledgement(now) if flags & ACK else self.budget.pays_control(now)):
            raise _too_many_frames()
        return True

    def _goaway_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        if not self.budget.pays_empty(now):
            raise _too_many_frames()
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "A GOAWAY frame is not on stream 0.")
        if length < 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, "A GOAWAY frame is too short.")
        return [(GOAWAY_RECEIVED, 0, unpack_long(data, at + 13)[0])]

    def _window_update_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        if not self.budget.pays_update(now):
            raise _too_many_frames()
        if length == 4:
            if stream_id > self.last_id or stream_id in self.given_up:
                return None
            # Section 6.9: the reserved bit "MUST be ignored". To h2 it is the end of all.
            increment: int = unpack_long(data, at + 9)[0] & WINDOW_MAX_BYTES
            if increment:
                return [(WINDOW_UPDATED, stream_id, increment)]
            if stream_id:
                if stream_id > self.highest_id:
                    raise ConnectionFault(PROTOCOL_ERROR, "A stream's window is opened that was never opened itself.")
                # Section 6.9: "a flow-control window increment of 0 [is] a stream error". To h2 it is the end of all.
                return [(STREAM_FAULT, stream_id, PROTOCOL_ERROR)]
        return True

    def _continuation_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        raise ConnectionFault(PROTOCOL_ERROR, "A CONTINUATION frame continues nothing.")

    # RFC 9218 section 7.1.
    def _priority_update_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        if not self.budget.pays_control(now):
            raise _too_many_frames()
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "A PRIORITY_UPDATE frame is not on stream 0.")
        if length < 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "A PRIORITY_UPDATE frame is too short.")
        target = unpack_long(data, at + 9)[0] & STREAM_ID_MAX
        if not target:
            raise ConnectionFault(PROTOCOL_ERROR, "A PRIORITY_UPDATE frame names stream 0.")
        return [(PRIORITY_RECEIVED, target, data[at + 13 : at + 9 + length])]

    # Section 4.1: "Implementations MUST ignore and discard frames of unknown types."
    def _unknown_rule(self, data: bytes, at: int, length: int, flags: int, stream_id: int, now: float) -> Any:
        self._pay_hollow(at, at + 9 + length, now)

    # An empty or unknown frame for each other frame is free; one that follows another such frame is not.
    def _pay_hollow(self, at: int, end: int, now: float) -> None:
        if at == self._hollow_end and not self.budget.pays_empty(now):
            raise _too_many_frames()
        self._hollow_end = end

    # -- header blocks -----------------------------------------------------------------------------------

    def _continue_block(self, frame: bytes, flags: int, items: list[Any]) -> None:
        block = self._block
        block.append(frame)
        self._block_bytes += len(frame)
        size = self._block_bytes
        # Frames that hold next to nothing have a limit; beyond it, each KiB of the block pays for one.
        if len(block) - 1 > self._continuations_max + size // 1024 or size > self._block_max + 9 * len(block):
            raise ConnectionFault(ENHANCE_YOUR_CALM, "A header block is too long.")
        if flags & END_HEADERS:
            self._block = []
            whole: Any = self._whole_block(block, None)
            items.extend([b"".join(block)] if whole is True else whole)

    def _whole_block(self, frames: list[bytes], fault: Any) -> Any:
        stream_id = unpack_long(frames[0], 5)[0] & STREAM_ID_MAX
        if stream_id > self.last_id or stream_id in self.given_up:
            return [(SKIPPED_BLOCK, stream_id, _block_of(frames))]
        if stream_id > self.highest_id:
            self.highest_id = stream_id
            self.budget.requests += 1
        elif stream_id & 1 and not frames[0][4] & END_STREAM:
            # Section 8.1: trailers that do not end the stream make the request malformed; h2 ends the connection. If
            # the request has ended already, it is section 5.1 that they break.
            return [(SKIPPED_BLOCK, stream_id, _block_of(frames)), (STREAM_FAULT, stream_id, STREAM_CLOSED)]
        return [*frames, fault] if fault else True


Rule = Callable[[FrameSieve, bytes, int, int, int, int, float], Any]

RULES: Final[Mapping[int, Rule]] = {
    DATA: FrameSieve._data_rule,
    HEADERS: FrameSieve._headers_rule,
    PRIORITY: FrameSieve._priority_rule,
    RST_STREAM: FrameSieve._rst_stream_rule,
    SETTINGS: FrameSieve._settings_rule,
    PUSH_PROMISE: FrameSieve._push_promise_rule,
    PING: FrameSieve._ping_rule,
    GOAWAY: FrameSieve._goaway_rule,
    WINDOW_UPDATE: FrameSieve._window_update_rule,
    CONTINUATION: FrameSieve._continuation_rule,
    PRIORITY_UPDATE: FrameSieve._priority_update_rule,
}
"""Frame type -> the rule for a frame that is not known at a glance."""
unknown_frame: Final[Rule] = FrameSieve._unknown_rule
"""The rule for all other types."""


def _too_many_frames() -> ConnectionFault:
    return ConnectionFault(ENHANCE_YOUR_CALM, "Too many frames came that carry nothing.")


def _too_many_resets() -> ConnectionFault:
    return ConnectionFault(ENHANCE_YOUR_CALM, "Too many streams were reset.")


# The fragments of a header block without what else its frames hold.
def _block_of(frames: list[bytes]) -> bytes:
    first = frames[0]
    flags = first[4]
    start, end = 9, len(first)
    if flags & PADDED:
        start += 1
        end -= first[9] if len(first) > 9 else 0
    if flags & WITH_PRIORITY:
        start += 5
    if start > end:
        raise ConnectionFault(PROTOCOL_ERROR, "A HEADERS frame is padded wrongly.")
    return first[start:end] + b"".join(frame[9:] for frame in frames[1:])

"""Frames of HTTP/2 as bytes (RFC 9113 sections 4 and 6): those we write ourselves, and the sieve before h2.

Theory of operation
-------------------

`FrameSieve` cuts what arrives into whole frames and decides about each before h2 works on it:

1. A frame that breaks a rule which h2 does not know, or punishes too hard, is caught here.
2. What a client can send for nothing and we pay for is charged to its `Budget` (`http2.budget`) before it costs
   anything: resets, and PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA and unknown frames. Of the last two, one
   for each other frame is free: there are clients that grease each DATA frame with one, or end each message with one.
3. A header block is kept until it is whole. It is bounded in frames and bytes; its time is the connection's business.
4. GOAWAY, PRIORITY_UPDATE and what belongs to streams that we have given up never reach h2: after a GOAWAY it would be
   dead, and to frames of a reset stream it would answer with one reset each.

All that is ordinary is passed on as it came, as many frames at a time as follow each other, and no more of them in one
turn than others can wait for.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import DaphneError
from daphne_ng.wire.http2.budget import Budget
from daphne_ng.wire.http2.preface import PREFACE

__all__ = [
    "NEVER",
    "ConnectionFault",
    "FrameSieve",
    "frame_header",
    "goaway_frame",
    "ping_frame",
    "window_update_frame",
]

NEVER = float("inf")

# Error codes (RFC 9113 section 7).
NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
ENHANCE_YOUR_CALM = 0xB

# Frame types (sections 6.1 to 6.10, RFC 9218 section 7.1).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

STREAM_ID_MAX = 2**31 - 1
FRAME_MAX_BYTES = 16384
"""Our SETTINGS_MAX_FRAME_SIZE, the least that there is: larger frames would only make a stream wait for another."""

# What the sieve reports besides bytes for h2: (kind, stream, value).
REQUEST, SKIPPED_DATA, SKIPPED_BLOCK, STREAM_FAULT, GOAWAY_RECEIVED, PRIORITY_RECEIVED = range(6)

_HEADER = Struct(">HBBBL")
_LONG = Struct(">L")
_unpack_header = _HEADER.unpack_from
_pack_header = _HEADER.pack

# Unknown settings must be ignored (section 6.5.2). h2 would keep each of the 65,536 possible ones.
_KNOWN_SETTINGS = frozenset((1, 2, 3, 4, 5, 6, 8, 9))

# Frames to be worked on before others have their turn. Those of one byte cost 13 us each, and there may be 13,000 in a
# read; one of ordinary frames has less than this.
_TURN_FRAMES = 512


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


def frame_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Encode the header of a frame (section 4.1)."""
    return _pack_header(length >> 8, length & 0xFF, kind, flags, stream_id)


def goaway_frame(last_stream_id: int, code: int, detail: str = "") -> bytes:
    """Encode a GOAWAY (section 6.8)."""
    debug = detail.encode("ascii")
    return b"%b%b%b%b" % (
        frame_header(8 + len(debug), GOAWAY, 0, 0),
        _LONG.pack(last_stream_id),
        _LONG.pack(code),
        debug,
    )


def ping_frame(payload: bytes) -> bytes:
    """Encode a PING (section 6.7) with eight bytes of payload."""
    return frame_header(8, PING, 0, 0) + payload


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """Encode a WINDOW_UPDATE (section 6.9)."""
    return frame_header(4, WINDOW_UPDATE, 0, stream_id) + _LONG.pack(increment)


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
        self._hollow_end = -1  # where an unknown or empty frame ended last, as long as nothing has followed it
        self.budget = Budget(config)
        """What the client may still send that carries nothing."""
        self.behind = False
        """Whether there is more to be worked on, by another `feed`, on another turn of the loop."""
        self.fault: ConnectionFault | None = None
        """What ends the connection, once everything before it has been worked on."""
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
            In order, bytes to be handed to h2, and tuples ``(kind, stream, value)``: `REQUEST` with the header block
            of a new stream and whether that is all, `SKIPPED_DATA` with the number
            of bytes that the connection's window owes, `SKIPPED_BLOCK` with a header block, to be decoded and
            dropped, `STREAM_FAULT` with an error code, `GOAWAY_RECEIVED` with the code, `PRIORITY_RECEIVED` with the
            value of the field. After all of that, `fault` is to be looked at.
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

    def _sift(self, data: bytes, now: float, items: list[Any]) -> None:
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
            high, low, kind, flags, stream_id = _unpack_header(data, at)
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
                at = following
                continue
            if not self._begun:
                # Section 3.4: "This sequence MUST be followed by a SETTINGS frame".
                if kind != SETTINGS or flags & ACK:
                    raise ConnectionFault(PROTOCOL_ERROR, "The connection does not begin with SETTINGS.")
                self._begun = True
            # The rare ones: those that are not passed on leave a gap in the run.
            if carried:
                self.budget.data_received += carried
                carried = 0
            try:
                passed = self._look_at(data, at, length, kind, flags, stream_id, now)
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

    # Decide about one frame: True passes it on; else a list of what stands in its place, or None for nothing.
    def _look_at(self, data: bytes, at: int, length: int, kind: int, flags: int, stream_id: int, now: float) -> Any:
        payload = at + 9
        skipped = stream_id > self.last_id or stream_id in self.given_up
        if kind == DATA:
            padding = data[payload] + 1 if flags & PADDED and length else 0
            if length <= padding:
                if not flags & END_STREAM:
                    self._take_hollow(at, payload + length, now)
                elif skipped and not self.budget.pays_control(now):  # nobody counts how often the stream ends
                    raise _too_many_frames()
            if skipped:
                return [(SKIPPED_DATA, stream_id, length)]
        elif kind == HEADERS:
            return self._look_at_headers(data[at : payload + length], flags, stream_id)
        elif kind == RST_STREAM:
            if (stream_id > self.highest_id and not skipped) or not stream_id & 1:
                # Even ones would be pushed by us. To h2 it is nothing.
                raise ConnectionFault(PROTOCOL_ERROR, "A stream is reset that was never opened.")
            if not self.budget.pays_reset(now):
                raise _too_many_resets()
            if skipped and length == 4:
                return None
        elif kind == WINDOW_UPDATE:
            if not self.budget.pays_update(now):
                raise _too_many_frames()
            if skipped and length == 4:
                return None
            if stream_id and length == 4 and not _LONG.unpack_from(data, payload)[0] & STREAM_ID_MAX:
                if stream_id > self.highest_id:
                    raise ConnectionFault(PROTOCOL_ERROR, "A stream's window is opened that was never opened itself.")
                # Section 6.9: "a flow-control window increment of 0 [is] a stream error". To h2 it is the end of all.
                return [(STREAM_FAULT, stream_id, PROTOCOL_ERROR)]
        elif kind == SETTINGS:
            if not (self.budget.pays_acknowledgement(now) if flags & ACK else self.budget.pays_empty(now)):
                raise _too_many_frames()
            if flags & ACK and length:
                # Section 6.5: "a connection error of type FRAME_SIZE_ERROR". To h2 it is another one.
                raise ConnectionFault(FRAME_SIZE_ERROR, "An acknowledgement of SETTINGS is not empty.")
            if not flags & ACK and length % 6 == 0 and not stream_id:
                settings = [data[start : start + 6] for start in range(payload, payload + length, 6)]
                known = [one for one in settings if one[0] == 0 and one[1] in _KNOWN_SETTINGS]
                if len(known) != len(settings):
                    body = b"".join(known)
                    return [frame_header(len(body), SETTINGS, 0, 0) + body]
        elif kind == PING:
            if not (self.budget.pays_acknowledgement(now) if flags & ACK else self.budget.pays_control(now)):
                raise _too_many_frames()
        elif kind == PRIORITY:
            if not self.budget.pays_control(now):
                raise _too_many_frames()
            if not stream_id:
                raise ConnectionFault(PROTOCOL_ERROR, "A PRIORITY frame has no stream.")
            if length != 5:
                return [(STREAM_FAULT, stream_id, FRAME_SIZE_ERROR)]
            if _LONG.unpack_from(data, payload)[0] & STREAM_ID_MAX == stream_id and not skipped:
                # RFC 7540 section 5.3.1: "A stream cannot depend on itself. An endpoint MUST treat this as a stream
                # error". RFC 9113 has no dependencies any more; nobody has reason to send this either way.
                return [(STREAM_FAULT, stream_id, PROTOCOL_ERROR)]
            return None
        elif kind == PRIORITY_UPDATE:
            if not self.budget.pays_control(now):
                raise _too_many_frames()
            # RFC 9218 section 7.1.
            if stream_id:
                raise ConnectionFault(PROTOCOL_ERROR, "A PRIORITY_UPDATE frame is not on stream 0.")
            if length < 4:
                raise ConnectionFault(FRAME_SIZE_ERROR, "A PRIORITY_UPDATE frame is too short.")
            target = _LONG.unpack_from(data, payload)[0] & STREAM_ID_MAX
            if not target:
                raise ConnectionFault(PROTOCOL_ERROR, "A PRIORITY_UPDATE frame names stream 0.")
            return [(PRIORITY_RECEIVED, target, data[payload + 4 : payload + length])]
        elif kind == GOAWAY:
            if not self.budget.pays_empty(now):
                raise _too_many_frames()
            if stream_id:
                raise ConnectionFault(PROTOCOL_ERROR, "A GOAWAY frame is not on stream 0.")
            if length < 8:
                raise ConnectionFault(FRAME_SIZE_ERROR, "A GOAWAY frame is too short.")
            return [(GOAWAY_RECEIVED, 0, _LONG.unpack_from(data, payload + 4)[0])]
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(PROTOCOL_ERROR, "A client cannot push.")
        elif kind == CONTINUATION:
            raise ConnectionFault(PROTOCOL_ERROR, "A CONTINUATION frame continues nothing.")
        else:
            self._take_hollow(at, payload + length, now)
            return None  # section 4.1: "Implementations MUST ignore and discard frames of unknown types."
        return True

    # One empty or unknown frame for each other frame is free; what follows one of them is not.
    def _take_hollow(self, at: int, end: int, now: float) -> None:
        if at == self._hollow_end and not self.budget.pays_empty(now):
            raise _too_many_frames()
        self._hollow_end = end

    # -- header blocks -----------------------------------------------------------------------------------

    def _look_at_headers(self, frame: bytes, flags: int, stream_id: int) -> Any:
        fault = None
        if flags & WITH_PRIORITY:
            where = 10 if flags & PADDED else 9
            if len(frame) >= where + 5 and _LONG.unpack_from(frame, where)[0] & STREAM_ID_MAX == stream_id:
                # RFC 7540 section 5.3.1 makes it a stream error, h2 the end of the connection.
                frame = frame[:where] + b"\0\0\0\0" + frame[where + 4 :]
                fault = (STREAM_FAULT, stream_id, PROTOCOL_ERROR)
        if not flags & END_HEADERS:
            self._block_stream = stream_id
            self._block = [frame]
            self._block_bytes = len(frame)
            return [fault] if fault else None
        return self._whole_block([frame], fault)

    def _continue_block(self, frame: bytes, flags: int, items: list[Any]) -> None:
        block = self._block
        block.append(frame)
        self._block_bytes += len(frame)
        size = self._block_bytes
        # So many that hold next to nothing, and those that the bytes pay for.
        if len(block) - 1 > self._continuations_max + size // 1024 or size > self._block_max + 9 * len(block):
            raise ConnectionFault(ENHANCE_YOUR_CALM, "A header block is too long.")
        if flags & END_HEADERS:
            self._block = []
            whole: Any = self._whole_block(block, None)
            items.extend([b"".join(block)] if whole is True else whole)

    def _whole_block(self, frames: list[bytes], fault: Any) -> Any:
        stream_id = _LONG.unpack_from(frames[0], 5)[0] & STREAM_ID_MAX
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

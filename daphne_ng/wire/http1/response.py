"""The response of an HTTP/1.1 connection to its active request (RFC 9112 sections 6 and 7)."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

from daphne_ng._types import Headers
from daphne_ng.config import Config
from daphne_ng.wire.driver import COPY_MAX_BYTES
from daphne_ng.wire.ending import OPEN
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http.fields import CLOSES, DROP_LENGTH
from daphne_ng.wire.http.response import (
    CHUNKED,
    FRAMING,
    LENGTH,
    NO_BODY,
    UNSTARTED,
    UNTIL_CLOSE,
    is_bodiless,
    overlong_body,
)
from daphne_ng.wire.http.status import STATUS_LINES, bodiless_status, status_line
from daphne_ng.wire.http1.draining import Drain
from daphne_ng.wire.http1.driver import Http1Driver
from daphne_ng.wire.http1.message import Http1Message
from daphne_ng.wire.http1.writer import encode_fields, encode_trailers

__all__ = ["Exchanges", "Http1Response"]


class Exchanges(Protocol):
    """What a response needs from its connection, which is `Http1Connection`."""

    active: Http1Message | None
    """The request that is answered."""
    drain: Drain
    phase: int

    @property
    def queue(self) -> Sized:
        """The requests behind it."""

    def advance(self) -> None:
        """The response and the request are over: go on to the next request, or close."""

    def reset(self) -> None:
        """The response cannot be completed: abort the connection."""

    def break_off(self) -> None:
        """See `ResponsePort.break_off`."""

    def consumed(self) -> None:
        """See `ResponsePort.consumed`."""

    def abandon(self) -> None:
        """See `ResponsePort.abandon`."""


class Http1Response:
    """Implements `ResponsePort` for the active exchange of a connection: one object for all of them, one at a time.

    Args:
        config: Limits and timeouts.
        defaults: Fields added to every response; shared by all connections.
        driver: The I/O around the connection.
        connection: The connection.
    """

    __slots__ = (
        "_config",
        "_connection",
        "_defaults",
        "_driver",
        "_remaining",
        "_write",
        "body_bytes_sent",
        "continue_sent",
        "framing",
        "keep_alive",
        "when_flushed",
        "writable",
    )

    def __init__(self, config: Config, defaults: ResponseDefaults, driver: Http1Driver, connection: Exchanges) -> None:
        self._config = config
        self._defaults = defaults
        self._driver = driver
        self._connection = connection
        self._write = driver.write
        self.writable = driver.writable
        self.when_flushed = driver.when_flushed
        self._remaining = 0
        self.framing = UNSTARTED
        """How the end of the body shows: see `wire.http.response`."""
        self.keep_alive = True
        """Whether the connection outlives this response: decided when the head is written."""
        self.continue_sent = False
        """Whether the application has asked for the body of a request that waits for 100 (Continue)."""
        self.body_bytes_sent = 0
        """See `ResponsePort.body_bytes_sent`; of the last response, when it has ended."""

    # Hot: every response; a call would cost more than the branches.
    def start(self, status: int, headers: Headers, body: bytes, end: bool, trailers: bool) -> None:  # noqa: C901, PLR0912, PLR0915
        """See `ResponsePort.start`."""
        connection = self._connection
        active = connection.active
        assert active is not None  # an exchange calls its port between begin and end only
        head = active.head
        fields, length, flags = encode_fields(headers)
        size = len(body)
        remaining = length
        framing = b""
        line = STATUS_LINES.get(status) or status_line(status)
        if (length >= 0 or end) and head.method != "HEAD" and status >= 200 and status != 204 and status != 304:
            # FRAMING says the same, and costs more.
            kind = LENGTH
            if length < 0:
                remaining = size
                framing = b"\r\ncontent-length: %d" % size
        else:
            kind = FRAMING[is_bodiless(head.method, status), length >= 0, end, head.http_version]
            if kind == CHUNKED:
                framing = b"\r\ntransfer-encoding: chunked"
            elif kind == UNTIL_CLOSE:
                self.keep_alive = False
            elif status == 204 and length >= 0:
                # RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any response
                # with a status code of 1xx (Informational) or 204 (No Content)."
                fields, length, flags = encode_fields(headers, DROP_LENGTH)
            elif length < 0 and end and size and not bodiless_status(status):
                framing = b"\r\ncontent-length: %d" % size

        if not active.ended and not connection.drain.worth_reading(active, self.continue_sent):
            # What cannot be known yet must not be promised, even if the application will read it all.
            self.keep_alive = False
        if flags & CLOSES or (connection.phase > OPEN and not connection.queue):
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"\r\nconnection: close\r\n\r\n"
        elif head.http_version == "1.0":
            framing += b"\r\nconnection: keep-alive\r\n\r\n"
        else:
            framing += b"\r\n\r\n"
        block = self._defaults.block
        if flags or not block:
            block = self._defaults.block_for(flags, headers)

        excess = 0
        if kind == LENGTH:
            if size > remaining:
                excess = size - remaining
                body = body[:remaining]
                size = remaining
            remaining -= size
        elif kind == NO_BODY:
            body = b""
            size = 0
        self.framing = kind
        self._remaining = remaining
        self.body_bytes_sent = size
        if kind == CHUNKED and size:
            self._write_chunk(b"".join((line, fields, block, framing)), body, b"\r\n")
        elif size < COPY_MAX_BYTES:
            self._write(b"".join((line, fields, block, framing, body)))
        else:
            self._driver.write_sequence([line + fields + block + framing, body])
        if excess:
            self._overlong(excess)
        if end:
            if active.ended and (kind != LENGTH or not remaining):
                connection.advance()  # as in _end(), but for a call
            else:
                self._end()

    def body(self, data: bytes, end: bool) -> None:
        """See `ResponsePort.body`."""
        kind = self.framing
        size = len(data)
        excess = 0
        if kind == LENGTH:
            excess = size - self._remaining
            if excess > 0:
                size = self._remaining
                data = data[:size]
            self._remaining -= size
        elif kind == NO_BODY:
            size = 0
        self.body_bytes_sent += size
        if kind != CHUNKED:
            if size:
                self._write(data)
        elif size:
            self._write_chunk(b"", data, b"\r\n0\r\n\r\n" if end else b"\r\n")
        elif end:
            self._write(b"0\r\n\r\n")
        if excess > 0:
            self._overlong(excess)
        if end:
            self._end()

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """See `ResponsePort.send_file`."""
        kind = self.framing
        if kind == LENGTH:
            count = min(count, self._remaining)
        elif kind != UNTIL_CLOSE:
            return -1
        if not count:
            return -1  # there is too much of it, which `body` cuts
        sent = self._driver.send_file(descriptor, offset, count)
        if sent > 0:
            self._remaining -= sent
            self.body_bytes_sent += sent
        return sent

    def trailers(self, headers: Headers) -> None:
        """See `ResponsePort.trailers`."""
        block = encode_trailers(headers)
        if self.framing == CHUNKED:
            active = self._connection.active
            assert active is not None  # as in start
            self._write(b"0\r\n" + (block if active.head.accepts_trailers else b"") + b"\r\n")
        self._end()

    def informational(self, status: int, headers: Headers) -> None:
        """See `ResponsePort.informational`. HTTP/1.0 knows none (RFC 9110 section 15.2)."""
        active = self._connection.active
        if active is None or self.framing != UNSTARTED or active.head.http_version == "1.0":
            return
        if status == 100:
            if not active.head.expects_continue or self.continue_sent:
                return
            self.continue_sent = True
            if active.body_bytes or active.ended:
                return  # the client did not wait
        elif not self._config.http1_early_hints:
            return
        fields, _length, _flags = encode_fields(headers, DROP_LENGTH)
        self._write(status_line(status) + fields + b"\r\n\r\n")

    def reset(self, reason: str) -> None:
        """See `ResponsePort.reset`."""
        self._connection.reset()

    def break_off(self) -> None:
        """See `ResponsePort.break_off`."""
        self._connection.break_off()

    def consumed(self, count: int) -> None:
        """See `ResponsePort.consumed`."""
        self._connection.consumed()

    def abandon(self) -> None:
        """See `ResponsePort.abandon`."""
        self._connection.abandon()

    # The response has ended; its exchange makes no further call, but for abandon().
    def _end(self) -> None:
        connection = self._connection
        active = connection.active
        assert active is not None  # it had a response
        if self.framing == LENGTH and self._remaining:
            self._driver.shortened(self._remaining)
            connection.reset()
        elif active.ended:
            connection.advance()

    def _overlong(self, excess: int) -> None:
        self.keep_alive = False
        self._end()
        raise overlong_body(excess)

    def _write_chunk(self, preamble: bytes, data: bytes, tail: bytes) -> None:
        if len(data) < COPY_MAX_BYTES:
            self._write(b"%b%x\r\n%b%b" % (preamble, len(data), data, tail))
        else:
            self._driver.write_sequence([b"%b%x\r\n" % (preamble, len(data)), data, tail])

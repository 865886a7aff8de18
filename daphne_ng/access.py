r"""The access log: one line per HTTP request and per WebSocket event.

An *action logger* is any callable ``(protocol, action, details)``; the server calls it once per request,
so what stands here is on the hot path. Three parts:

* `AccessLogGenerator` writes NCSA lines, as Daphne does, to a stream;
* `LineWriter` is the stream to give it: it gathers lines and writes them in few system calls;
* `LoggingAccessLog` sends the same lines through the `logging` module instead.

Whatever a client controls (the target, the method, a forwarded address) is escaped byte by byte as
``\xNN`` unless it is printable ASCII, so no request can forge a line or send a terminal sequence.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from time import time
from typing import Any, Protocol, TextIO

from daphne_ng.errors import ConfigurationError
from daphne_ng.port.answers import CLIENT_LEFT
from daphne_ng.serving.outlet import Outlet, outlet_of

__all__ = ["CLIENT_LEFT", "AccessLogGenerator", "LineWriter", "LoggingAccessLog", "escape", "open_access_log"]

logger = logging.getLogger("daphne_ng.access")

FLUSH_SECONDS = 0.25
"""How long a line may wait in a `LineWriter`: unnoticeable to ``tail -f``, yet hundreds of lines a write under load."""

BUFFER_MAX_CHARS = 65536
"""Buffered text at which a `LineWriter` writes at once. The lines are ASCII, so characters are bytes."""

# How long an end waits for a pipe that is not read.
_DRAIN_SECONDS = 1.0

_DATE = "%d/%b/%Y:%H:%M:%S"

# Printable ASCII without the quote that ends the request field and the backslash that starts an escape.
_UNSAFE_QUOTED = re.compile(r"[^ !#-\[\]-~]")
# The fields that stand bare must not hold the space that separates fields either.
_UNSAFE_BARE = re.compile(r"[^!#-\[\]-~]")

_WEBSOCKET_VERBS = {
    "connecting": "WSCONNECTING",
    "connected": "WSCONNECT",
    "rejected": "WSREJECT",
    "disconnected": "WSDISCONNECT",
}

# The details that go into a record of `LoggingAccessLog`.
_FIELDS = (
    "method",
    "path",
    "status",
    "size",
    "code",
    "bytes_received",
    "bytes_sent",
    "client",
    "time_taken",
    "http_version",
)


class _Writes(Protocol):
    def write(self, text: str, /) -> object: ...


def escape(text: str) -> str:
    r"""Return ``text`` with every byte that is not plain printable ASCII, ``"`` and ``\`` as ``\xNN``.

    Other characters count as their UTF-8 bytes; bytes that were decoded with ``surrogateescape`` as themselves.
    """
    return _UNSAFE_QUOTED.sub(_hexadecimal, text)


def _escape_bare(text: object) -> str:
    return _UNSAFE_BARE.sub(_hexadecimal, str(text))


def _hexadecimal(match: re.Match[str]) -> str:
    try:
        raw = match[0].encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = match[0].encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02X}" for byte in raw)


class _Lines:
    """Formats entries; what the loggers share. Class attributes, so that a subclass need not call ``__init__``."""

    _second = -1
    _now: dt.datetime | None = None
    _now_text = ""

    # The local time. The same object for a whole second, by which _line() knows that its text is at hand.
    def _date(self) -> dt.datetime:
        second = int(time())
        if second != self._second or self._now is None:
            self._second = second
            self._now = dt.datetime.fromtimestamp(second)
            self._now_text = self._now.strftime(_DATE)
        return self._now

    def _line(
        self, host: object, date: Any, request: str, status: object, length: object, ident: object, user: object
    ) -> str:
        if _UNSAFE_QUOTED.search(request) is not None:
            request = escape(request)
        return f'{self._opening(host, date, ident, user)}{request}" {status or "-"} {length or "-"}'

    # What stands before the request.
    def _opening(self, host: object, date: Any, ident: object, user: object) -> str:
        date_text = self._now_text if date is self._now else date.strftime(_DATE)
        # A search costs less than a substitution that finds nothing.
        host = host or "-"
        if type(host) is not str or _UNSAFE_BARE.search(host) is not None:
            host = _escape_bare(host)
        ident = _escape_bare(ident) if ident else "-"
        user = _escape_bare(user) if user else "-"
        return f'{host} {ident} {user} [{date_text}] "'


class AccessLogGenerator(_Lines):
    """Daphne's action logger: writes lines in the NCSA common format.

    Args:
        stream: Anything with ``write(text)``. Give a `LineWriter` for speed; a plain file works.
    """

    stream: _Writes

    def __init__(self, stream: _Writes) -> None:
        self.stream = stream

    def __call__(self, protocol: str, action: str, details: Mapping[str, Any]) -> None:
        """Log one action; those that have no line are ignored.

        Args:
            protocol: ``http`` or ``websocket``.
            action: ``complete``; or ``connecting``, ``connected``, ``rejected``, ``disconnected``.
            details: ``path`` and ``client``; for HTTP also ``method``, ``status`` and ``size``. More is no harm.
        """
        if protocol == "http" and action == "complete":
            self.write_entry(
                host=details["client"],
                date=self._date(),
                request=f"{details['method']} {details['path']}",
                status=details["status"],
                length=details["size"],
            )
        elif protocol == "websocket" and (verb := _WEBSOCKET_VERBS.get(action)):
            self.write_entry(host=details["client"], date=self._date(), request=f"{verb} {details['path']}")

    def write_entry(
        self,
        host: str | None,
        date: dt.datetime,
        request: str,
        status: int | None = None,
        length: int | None = None,
        ident: str | None = None,
        user: str | None = None,
    ) -> None:
        """Write one line. What is absent (or zero, as in Daphne) becomes ``-``."""
        self.stream.write(self._line(host, date, request, status, length, ident, user) + "\n")

    def writes_plainly(self) -> bool:
        """Tell whether whoever has lines like those of this class may write them to `stream` without calling it.

        That is so unless a method of somebody else's stands in the place of one of these.
        """
        return type(self) is AccessLogGenerator and "write_entry" not in vars(self)

    def opening(self, host: str | None, seconds: float) -> str:
        """Return what a line begins with, up to the quote before the request, at a time in seconds of ``time.time``."""
        return self._opening(host, dt.datetime.fromtimestamp(seconds), None, None)

    escape_request = staticmethod(escape)

    def attach(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        """Let lines wait in memory for a moment, now that an event loop can flush them.

        The caller must call `detach` before its loop ends. Does nothing unless the stream is a `LineWriter`.
        """
        if isinstance(self.stream, LineWriter):
            self.stream.schedule = call_later

    def detach(self) -> None:
        """Write what waits, and every later line at once."""
        if isinstance(self.stream, LineWriter):
            self.stream.schedule = None

    def reopen(self) -> None:
        """Open the file of this name again: the old one was moved away."""
        if isinstance(self.stream, LineWriter):
            self.stream.reopen()

    def close(self) -> None:
        """Write what waits and close the file, if it is ours to close."""
        if isinstance(self.stream, LineWriter):
            self.stream.close()


class LoggingAccessLog(_Lines):
    """An action logger that uses a `logging.Logger`, at level INFO.

    The message is the line that `AccessLogGenerator` writes, already formatted. Each record has an attribute
    ``access``, a dict with ``protocol``, ``action``, ``method``, ``path``, ``status``, ``size``, ``code``,
    ``bytes_received``, ``bytes_sent``, ``client``, ``time_taken`` and ``http_version``. All of them are always there,
    None where they are not known or mean nothing: ``{access[status]}`` in a ``style="{"`` format never fails. Texts in
    it are escaped like the line.
    """

    logger: logging.Logger

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self.logger = logging.getLogger("daphne_ng.access") if logger is None else logger

    def __call__(self, protocol: str, action: str, details: Mapping[str, Any]) -> None:
        """Log one action; see `AccessLogGenerator.__call__`."""
        if not self.logger.isEnabledFor(logging.INFO):
            return
        if protocol == "http" and action == "complete":
            request, status, size = f"{details['method']} {details['path']}", details["status"], details["size"]
        elif protocol == "websocket" and (verb := _WEBSOCKET_VERBS.get(action)):
            request, status, size = f"{verb} {details['path']}", None, None
        else:
            return
        fields: dict[str, Any] = {"protocol": protocol, "action": action}
        for name in _FIELDS:
            value = details.get(name)
            fields[name] = escape(value) if isinstance(value, str) else value
        line = self._line(details["client"], self._date(), request, status, size, None, None)
        # No arguments: logging then leaves the per cent signs of the line alone.
        self.logger.info(line, extra={"access": fields})

    def attach(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        """Do nothing: the handlers of `logging` buffer as they please."""

    def detach(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class LineWriter:
    """A stream that gathers whole lines and writes them together.

    Without a ``schedule`` (before the event loop runs, and after) every line is written at once. With one, a line
    waits at most ``delay`` seconds and the buffer holds at most `BUFFER_MAX_CHARS` and one line. What is written
    always ends at a line's end and is handed to the system in one piece, so a file opened for appending can be
    rotated by copying and truncating, and be shared between processes.

    A failing write (disk full, pipe closed) loses its lines and is reported once; requests go on. So they do where
    nobody reads a pipe: what is lost then is counted, and the count is told (`Outlet`).

    Args:
        stream: A text stream.
        delay: Longest wait in seconds; by default `FLUSH_SECONDS`, or the current turn of the loop for a terminal.
        owns_stream: Whether `close` closes the stream too.
    """

    __slots__ = (
        "_armed",
        "_behind",
        "_failing",
        "_lines",
        "_outlet",
        "_schedule",
        "_size",
        "delay",
        "owns_stream",
        "stream",
    )

    def __init__(self, stream: TextIO, *, delay: float | None = None, owns_stream: bool = False) -> None:
        self.stream = stream
        self.delay = (0.0 if stream.isatty() else FLUSH_SECONDS) if delay is None else delay
        self.owns_stream = owns_stream
        self._outlet = outlet_of(stream)
        self._behind = False
        self._schedule: Callable[[float, Callable[[], None]], object] | None = None
        self._lines: list[str] = []
        self._size = 0
        self._armed = False
        self._failing = False

    @property
    def schedule(self) -> Callable[[float, Callable[[], None]], object] | None:
        """``call_later(seconds, callback)`` of the running loop, or None. Setting it writes what waits."""
        return self._schedule

    @schedule.setter
    def schedule(self, call_later: Callable[[float, Callable[[], None]], object] | None) -> None:
        self.flush()
        self._schedule = call_later
        # A timer of the previous loop will never fire.
        self._armed = False

    def write(self, line: str) -> None:
        """Take one whole line, its newline included."""
        self._lines.append(line)
        if self._schedule is None:
            self.flush()
            return
        self._size += len(line)
        if self._size >= BUFFER_MAX_CHARS:
            self.flush()
        elif not self._armed:
            self._arm()

    def flush(self) -> None:
        """Write what waits."""
        if not self._lines and not self._behind:
            return
        text = "".join(self._lines)
        self._lines.clear()
        self._size = 0
        try:
            if self._outlet is None:
                self.stream.write(text)
                self.stream.flush()
            else:
                self._put(self._outlet, text)
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._failed(error)
        else:
            self._failing = False

    def _put(self, outlet: Outlet, text: str) -> None:
        if not self.owns_stream and outlet.ready():
            self.stream.flush()  # what the application has printed goes first, and does not wait for more of it
        lost = outlet.lost
        outlet.put(text.encode("utf-8", "backslashreplace"))
        self._behind = outlet.waiting
        if outlet.lost and not lost:
            logger.warning("The access log is not read: its lines are lost from now on")
        if not self._behind:
            self._tell_lost(outlet)
        elif self._schedule is not None and not self._armed:
            self._arm(FLUSH_SECONDS)

    def _tell_lost(self, outlet: Outlet) -> None:
        if outlet.lost:
            logger.warning("The access log was not read for a while: %d of its lines are lost", outlet.lost)
            outlet.lost = 0

    def _failed(self, error: Exception) -> None:
        self._behind = False
        if not self._failing:
            self._failing = True
            logger.error("The access log cannot be written, its lines are lost: %s", error)

    # Hand over the last lines, within a bounded time.
    def _let_go(self) -> None:
        outlet, self._outlet = self._outlet, None
        self._behind = False
        if outlet is None:
            return
        try:
            outlet.drain(_DRAIN_SECONDS)
        except OSError as error:
            self._failed(error)
        self._tell_lost(outlet)
        outlet.close()

    def _arm(self, delay: float | None = None) -> None:
        assert self._schedule is not None  # the callers look
        self._armed = True
        self._schedule(self.delay if delay is None else delay, self._timer_fired)

    def close(self) -> None:
        """Write what waits, then close the stream if it is owned. May be called twice."""
        self.schedule = None
        self._let_go()
        if self.owns_stream and not self.stream.closed:
            try:
                self.stream.close()
            except OSError as error:
                logger.error("The access log cannot be closed: %s", error)

    def reopen(self) -> None:
        """Write what waits, then open the file of this name again. Does nothing for a stream that is not owned."""
        self.flush()
        if not self.owns_stream:
            return
        try:
            stream = _append_to(self.stream.name)
        except OSError as error:
            logger.error("The access log cannot be opened again, the old file is kept: %s", error)
            return
        self._let_go()
        self.stream.close()
        self.stream, self._outlet, self._failing = stream, outlet_of(stream), False

    def _timer_fired(self) -> None:
        self._armed = False
        self.flush()


def open_access_log(target: str) -> LineWriter:
    """Return the writer for ``--access-log``: ``-`` is standard output, anything else a file to append to.

    Raises:
        ConfigurationError: The file cannot be opened for writing.
    """
    if target == "-":
        return LineWriter(sys.stdout)
    try:
        stream = _append_to(target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"--access-log: cannot write to {target!r}: {reason}") from None
    return LineWriter(stream, owns_stream=True)


def _append_to(path: str) -> TextIO:
    return open(path, "a", encoding="utf-8", errors="backslashreplace", newline="\n", opener=_open)


# Without waiting for a named pipe to be read: who holds both ends waits for nobody, and readers may come and go.
def _open(path: str, flags: int) -> int:
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.stat(path).st_mode):
            flags = flags & ~os.O_WRONLY | os.O_RDWR | os.O_NONBLOCK
    return os.open(path, flags, 0o666)

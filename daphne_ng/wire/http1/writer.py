"""Response heads and chunks of HTTP/1.1 as bytes.

Names and values come from the application and are checked here, on their way out: whatever list of fields an
application sends, the client reads exactly one response with exactly these fields (RFC 9112 section 11.1).
"""

from __future__ import annotations

from typing import Any

from daphne_ng._types import Headers
from daphne_ng.errors import InvalidHeader, WireError
from daphne_ng.wire.http.grammar import TOKEN, connection_options
from daphne_ng.wire.http.status import reason_phrase, status_line
from daphne_ng.wire.memo import KEY_MAX_BYTES, remember
from daphne_ng.wording import printable

__all__ = [
    "CLOSES",
    "HAS_DATE",
    "HAS_SERVER",
    "NO_LENGTH",
    "ResponseDefaults",
    "encode_error",
    "encode_fields",
    "encode_switch",
    "encode_trailers",
    "pairs_of_bytes",
    "shown_field",
]

NO_LENGTH = -1
HAS_DATE = 1
HAS_SERVER = 2
CLOSES = 4
DROP_LENGTH = 8
_LISTS_SEEN = 16

# Field name as the application spells it -> what it means to us, and its bytes on the wire up to the value.
_NAMES_MAX = 2048
_names: dict[bytes, tuple[int, bytes]] = {}

# Most fields of most responses are the same few: (name, value) -> its checked line,
# without fields that differ from response to response or hold secrets.
_LINES_MAX = 1024
_LINE_MAX_BYTES = 128
_VOLATILE = frozenset((b"\r\nset-cookie: ", b"\r\netag: ", b"\r\nlocation: ", b"\r\nlast-modified: ", b"\r\nexpires: "))
_lines: dict[tuple[bytes, bytes], bytes] = {}

_ORDINARY, _LENGTH, _DATE, _SERVER, _CONNECTION, _SKIP = range(6)
_SPECIAL = {
    b"content-length": _LENGTH,
    b"date": _DATE,
    b"server": _SERVER,
    # Hop-by-hop fields belong to the connection, which is ours. ASGI: Transfer-Encoding "must be ignored".
    b"connection": _CONNECTION,
    b"transfer-encoding": _SKIP,
    b"keep-alive": _SKIP,
    b"proxy-connection": _SKIP,
}

# RFC 9110 section 6.5.1: fields that frame, route, authenticate or describe the content are no trailers.
_FORBIDDEN_TRAILERS = frozenset(
    (
        b"content-length content-type content-encoding content-range transfer-encoding connection keep-alive "
        b"host te trailer upgrade authorization set-cookie cache-control expect max-forwards pragma range "
        b"www-authenticate proxy-authenticate "
    ).split()
)


def _learn(name: bytes) -> tuple[int, bytes]:
    if not isinstance(name, bytes):
        raise InvalidHeader(f"header name {printable(repr(name))} must be bytes, not {type(name).__name__}")
    if not TOKEN.fullmatch(name):
        raise InvalidHeader(f"header name {printable(repr(name))} is not a token")
    entry = (_SPECIAL.get(name.lower(), _ORDINARY), b"\r\n" + name + b": ")
    if len(name) <= KEY_MAX_BYTES:
        remember(_names, name, entry, _NAMES_MAX)
    return entry


def encode_fields(headers: Headers, options: int = 0) -> tuple[bytes, int, int]:
    """Encode the application's fields, each preceded by a line end.

    Args:
        headers: ``(name, value)`` pairs of bytes.
        options: `DROP_LENGTH` leaves Content-Length out.

    Returns:
        The bytes, the Content-Length that stood in them (or `NO_LENGTH`), and the flags `HAS_DATE`, `HAS_SERVER`
        and `CLOSES`.

    Raises:
        InvalidHeader: A name is no token, a value holds CR, LF or NUL, or either is not bytes.
    """
    parts: list[bytes] = []
    append = parts.append
    lines = _lines
    length = NO_LENGTH
    flags = 0
    try:
        for field in headers:
            line = lines.get(field)
            if line is not None:
                append(line)
                continue
            name, value = field
            code, prefix = _names.get(name) or _learn(name)
            if code == _ORDINARY:
                append(_encode_line(field, prefix, value))
            elif code == _LENGTH:
                length = _content_length(value, length)
                if not options & DROP_LENGTH:
                    append(prefix + value)
            elif code in (_DATE, _SERVER):
                flags |= HAS_DATE if code == _DATE else HAS_SERVER
                append(_checked(prefix + value))
            elif code == _CONNECTION and b"close" in connection_options(value):
                flags |= CLOSES
        return b"".join(parts), length, flags
    except InvalidHeader:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        if options & _LISTS_SEEN:
            raise InvalidHeader(f"headers must be pairs of bytes: {error}") from None
    # Pairs may come as lists too, and those are no dictionary keys.
    return encode_fields(pairs_of_bytes(headers), options | _LISTS_SEEN)


def pairs_of_bytes(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the application's fields as pairs of bytes, in whatever kind of sequence each has come.

    Raises:
        InvalidHeader: Says which field is none, and what is wrong with it.
    """
    try:
        fields: list[Any] = list(headers)
    except TypeError as error:
        raise InvalidHeader(f"headers must be pairs of bytes: {error}") from None
    pairs = []
    for field in fields:
        try:
            name, value = field
        except (TypeError, ValueError):
            raise InvalidHeader(f"a header must be a pair of bytes, not {printable(repr(field))}") from None
        if not isinstance(name, bytes):
            raise InvalidHeader(f"header name {printable(repr(name))} must be bytes, not {type(name).__name__}")
        if not isinstance(value, bytes):
            raise InvalidHeader(
                f"the value of header {shown_field(name, value)} must be bytes, not {type(value).__name__}"
            )
        pairs.append((name, value))
    return pairs


def shown_field(name: bytes, value: Any) -> str:
    """Return a field of the application's for a message: ``b'vary' ('origin')``; no cookies, which are secrets."""
    shown = "not shown" if name.lower() == b"set-cookie" else printable(repr(value), 100)
    return f"{printable(repr(name), 100)} ({shown})"


# Encode an ordinary field, and remember the line if another response is likely to have the same.
def _encode_line(field: tuple[bytes, bytes], prefix: bytes, value: bytes) -> bytes:
    line = _checked(prefix + value)
    if len(line) <= _LINE_MAX_BYTES and prefix.lower() not in _VOLATILE:
        remember(_lines, field, line, _LINES_MAX)
    return line


# A line brings exactly one CR and one LF of its own; any more, and any NUL, came from the value.
def _checked(line: bytes) -> bytes:
    if len(line) - len(line.translate(None, b"\0\r\n")) != 2:
        name, _, value = line[2:].partition(b": ")
        raise InvalidHeader(f"the value of header {shown_field(name, value)} holds CR, LF or NUL")
    return line


def _content_length(value: bytes, earlier: int) -> int:
    if not isinstance(value, bytes):
        raise TypeError("a value is not bytes")
    if not value.isdigit() or len(value) > 18:
        raise InvalidHeader(f"Content-Length {printable(repr(value))} is not a length")
    length = int(value)
    if earlier not in (NO_LENGTH, length):
        raise InvalidHeader("two Content-Length fields disagree")
    return length


def encode_trailers(headers: Headers) -> bytes:
    """Encode a trailer section, each field followed by a line end.

    Raises:
        InvalidHeader: As `encode_fields`, or the field must not stand in a trailer (RFC 9110 section 6.5.1).
    """
    block, length, flags = encode_fields(headers)
    for name, _value in headers:
        if name.lower() in _FORBIDDEN_TRAILERS:
            raise InvalidHeader(f"header {name!r} must not be sent as a trailer")
    del length, flags
    return block[2:] + b"\r\n" if block else b""


class ResponseDefaults:
    """The fields that the server adds: Date, Server, and those of ``--header``.

    Args:
        server_name: Value of Server; empty for none.
        extra: More fields, each left out of a response in which the application set it.
        date: Whether Date is sent.

    Call `set_date` once per second.
    """

    __slots__ = ("_date", "_date_wanted", "_extra", "_server", "_text", "block", "encoded")

    def __init__(self, server_name: str, extra: tuple[tuple[bytes, bytes], ...], date: bool) -> None:
        self._server = b"\r\nserver: " + server_name.encode("latin-1") if server_name else b""
        self._extra = extra
        self._date = b""
        self._date_wanted = date
        self._text = b""
        self.block = b""
        """What `block_for` gives while no field is overridden; empty if it has to be asked."""
        self.encoded: bytes | None = None
        """Room for what `fields_for` gives in the encoding of another version, until the date changes."""
        self.set_date("")

    def set_date(self, text: str) -> None:
        """Put an IMF-fixdate (RFC 9110 section 5.6.7) into the block."""
        self._text = text.encode("ascii") if self._date_wanted else b""
        self._date = b"\r\ndate: " + self._text if self._text else b""
        self.encoded = None
        self.block = b"" if self._extra else self._date + self._server

    def block_for(self, flags: int, headers: Headers) -> bytes:
        """Return the block without the fields that the application set itself."""
        block = b"" if flags & HAS_DATE else self._date
        if not flags & HAS_SERVER:
            block += self._server
        if self._extra:
            present = {name.lower() for name, _value in headers}
            for name, value in self._extra:
                if name.lower() not in present:
                    block += b"\r\n" + name + b": " + value
        return block

    @property
    def plain(self) -> bool:
        """Whether the fields are the same for all responses that set neither Date nor Server."""
        return not self._extra

    def fields_for(self, flags: int, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return as pairs what `block_for` returns as lines."""
        fields = []
        if self._text and not flags & HAS_DATE:
            fields.append((b"date", self._text))
        if self._server and not flags & HAS_SERVER:
            fields.append((b"server", self._server[10:]))
        if self._extra:
            present = {name.lower() for name, _value in headers}
            fields += [(name, value) for name, value in self._extra if name.lower() not in present]
        return fields


def encode_error(error: WireError, defaults: ResponseDefaults, bodiless: bool) -> bytes:
    """Encode the answer to a request that broke the protocol; the connection is to be closed after it.

    Args:
        error: What was wrong.
        defaults: The server's fields.
        bodiless: The request was a HEAD.
    """
    text = f"{error.status} {reason_phrase(error.status)}\n{error.detail}\n".encode("ascii")
    fields, _length, _flags = encode_fields(
        [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            *error.headers,
        ]
    )
    # RFC 9110 section 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option in the Connection header
    # field".
    options = b"close, upgrade" if any(name == b"upgrade" for name, _value in error.headers) else b"close"
    head = status_line(error.status) + fields + defaults.block_for(0, error.headers)
    return head + b"\r\nconnection: " + options + b"\r\n\r\n" + (b"" if bodiless else text)


def encode_switch(headers: Headers, defaults: ResponseDefaults) -> bytes:
    """Encode the answer that turns a connection into a WebSocket (RFC 9110 section 15.2.2).

    Args:
        headers: Fields of the handshake and of the application. Those that belong to the connection, or frame a body,
            are left out.
        defaults: The server's fields.

    Raises:
        InvalidHeader: As `encode_fields`.
    """
    fields, _length, flags = encode_fields(headers, DROP_LENGTH)
    # Only now are they known to be pairs of bytes.
    others = [(name, value) for name, value in headers if name.lower() != b"upgrade"]
    if len(others) != len(list(headers)):
        fields, _length, flags = encode_fields(others, DROP_LENGTH)
    block = defaults.block_for(flags, headers)
    return status_line(101) + b"\r\nupgrade: websocket\r\nconnection: Upgrade" + fields + block + b"\r\n\r\n"

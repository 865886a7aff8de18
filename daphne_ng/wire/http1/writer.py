"""Response heads and chunks of HTTP/1.1 as bytes.

Names and values come from the application and are checked here, on their way out: whatever list of fields an
application sends, the client reads exactly one response with exactly these fields (RFC 9112 section 11.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from daphne_ng._types import Headers
from daphne_ng.errors import InvalidHeader, WireError
from daphne_ng.port.answers import error_answer
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http.fields import (
    CLOSES,
    CONNECTION_FIELD,
    DATE_FIELD,
    DROP_LENGTH,
    DROPPED_FIELD,
    FORBIDDEN_OCTETS,
    HAS_DATE,
    HAS_SERVER,
    LENGTH_FIELD,
    NO_LENGTH,
    ORDINARY_FIELD,
    RESPONSE_FIELDS,
    VOLATILE_FIELDS,
    check_trailers,
    checked_name,
    connection_options,
    content_length,
    pairs_of_bytes,
    wrong_length,
    wrong_value,
)
from daphne_ng.wire.http.status import status_line
from daphne_ng.wire.memo import Memo

__all__ = ["encode_error", "encode_fields", "encode_switch", "encode_trailers"]

# An option of `encode_fields` beside `DROP_LENGTH`: the pairs are tuples of bytes by now.
_ARE_PAIRS: Final = 16

# Field name as the application spells it -> what it means, and its bytes on the wire up to the value.
_name_memo: Final[Memo[bytes, tuple[int, bytes]]] = Memo(2048)
_names: Final = _name_memo.known

# Most fields of most responses are the same few: (name, value) -> its checked line.
_line_memo: Final[Memo[object, bytes]] = Memo(1024, longest=128)
_lines: Final = _line_memo.known
_VOLATILE: Final = frozenset(b"\r\n%b: " % name for name in VOLATILE_FIELDS)

# Connection is not just left out here: the application may close with it. A response may offer an upgrade (RFC 9110
# section 15.5.22).
_MEANINGS: Final = RESPONSE_FIELDS | {b"connection": CONNECTION_FIELD, b"upgrade": ORDINARY_FIELD}


def _learn(name: bytes) -> tuple[int, bytes]:
    entry = (_MEANINGS.get(checked_name(name), ORDINARY_FIELD), b"\r\n" + name + b": ")
    _name_memo.remember(name, entry, len(name))
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
            if code == ORDINARY_FIELD:
                append(_encode_line(field, prefix, value))
            elif code == LENGTH_FIELD:
                line = prefix + value  # which a value that is no bytes does not get by
                length = content_length(value, length)
                if length < NO_LENGTH:
                    raise wrong_length(value, length)
                if not options & DROP_LENGTH:
                    append(line)
            elif code == CONNECTION_FIELD:
                if b"close" in connection_options(value):
                    flags |= CLOSES
            elif code != DROPPED_FIELD:
                flags |= HAS_DATE if code == DATE_FIELD else HAS_SERVER
                append(_checked(prefix + value))
        return b"".join(parts), length, flags
    except InvalidHeader:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        if options & _ARE_PAIRS:
            raise InvalidHeader(f"headers must be pairs of bytes: {error}") from None
    # Pairs may come as lists too, and those are no dictionary keys.
    return encode_fields(pairs_of_bytes(headers), options | _ARE_PAIRS)


# Encode an ordinary field, and remember the line if another response is likely to have the same.
def _encode_line(field: Iterable[bytes], prefix: bytes, value: bytes) -> bytes:
    line = _checked(prefix + value)
    if prefix.lower() not in _VOLATILE:
        _line_memo.remember(field, line, len(line))
    return line


# A line brings exactly one CR and one LF of its own; any more, and any NUL, came from the value.
def _checked(line: bytes) -> bytes:
    if len(line) - len(line.translate(None, FORBIDDEN_OCTETS)) != 2:
        name, _, value = line[2:].partition(b": ")
        raise wrong_value(name, value)
    return line


def encode_trailers(headers: Headers) -> bytes:
    """Encode a trailer section, each field followed by a line end.

    Raises:
        InvalidHeader: As `encode_fields`, or the field must not stand in a trailer (RFC 9110 section 6.5.1).
    """
    block, _length, _flags = encode_fields(headers)
    check_trailers(headers)
    return block[2:] + b"\r\n" if block else b""


def encode_error(error: WireError, defaults: ResponseDefaults, bodiless: bool) -> bytes:
    """Encode the answer to a request that broke the protocol; the connection is to be closed after it.

    Args:
        error: What was wrong.
        defaults: The server's fields.
        bodiless: The request was a HEAD.
    """
    (content_type, *others), text = error_answer(error.status, error.detail, error.headers)
    fields, _length, _flags = encode_fields([content_type, (b"content-length", b"%d" % len(text)), *others])
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

"""Response heads and chunks of HTTP/1.1 as bytes.

Names and values come from the application and are checked here, on their way out: whatever list of fields an
application sends, the client reads exactly one response with exactly these fields (RFC 9112 section 11.1).
"""

from __future__ import annotations

from daphne_ng._types import Headers
from daphne_ng.errors import InvalidHeader
from daphne_ng.wire.grammar import TOKEN, connection_options

__all__ = [
    "CLOSES",
    "HAS_DATE",
    "HAS_SERVER",
    "NO_LENGTH",
    "ResponseDefaults",
    "encode_fields",
    "encode_trailers",
]

NO_LENGTH = -1
HAS_DATE = 1
HAS_SERVER = 2
CLOSES = 4
DROP_LENGTH = 8

# Field name as the application spells it -> b"\r\nname: ", or a pair of a code and that, for a name with a meaning.
# Bounded: an application that invents names cannot grow it for ever.
_NAMES_MAX = 2048
_names: dict[bytes, bytes | tuple[int, bytes]] = {}

_LENGTH, _DATE, _SERVER, _CONNECTION, _SKIP = range(1, 6)
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
        b"host te trailer upgrade authorization set-cookie cache-control expect max-forwards pragma range www- "
        b"authenticate proxy-authenticate "
    ).split()
)


def _learn(name: bytes) -> bytes | tuple[int, bytes]:
    if not isinstance(name, bytes):
        raise InvalidHeader(f"header name {name!r} must be bytes, not {type(name).__name__}")
    if not TOKEN.fullmatch(name):
        raise InvalidHeader(f"header name {name!r} is not a token")
    prefix = b"\r\n" + name + b": "
    code = _SPECIAL.get(name.lower())
    entry = prefix if code is None else (code, prefix)
    if len(_names) < _NAMES_MAX and len(name) <= 64:
        _names[name] = entry
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
    names = _names
    length = NO_LENGTH
    flags = 0
    try:
        for name, value in headers:
            entry = names.get(name) or _learn(name)
            if entry.__class__ is tuple:
                code, prefix = entry
                if code == _LENGTH:
                    length = _content_length(value, length)
                    if options & DROP_LENGTH:
                        continue
                elif code == _DATE:
                    flags |= HAS_DATE
                elif code == _SERVER:
                    flags |= HAS_SERVER
                else:
                    if code == _CONNECTION and b"close" in connection_options(value):
                        flags |= CLOSES
                    continue
                append(prefix)
            else:
                append(entry)  # type: ignore[arg-type]
            append(value)
        block = b"".join(parts)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidHeader):
            raise
        raise InvalidHeader(f"headers must be pairs of bytes: {error}") from None
    # Each field (two parts) brought exactly one CR and one LF; any more, and any NUL, came from a value.
    if len(block) - len(block.translate(None, b"\0\r\n")) != len(parts):
        raise InvalidHeader("a header value holds CR, LF or NUL")
    return block, length, flags


def _content_length(value: bytes, earlier: int) -> int:
    if not value.isdigit() or len(value) > 18:
        raise InvalidHeader(f"Content-Length {value!r} is not a length")
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

    __slots__ = ("_date", "_date_wanted", "_extra", "_server", "block")

    def __init__(self, server_name: str, extra: tuple[tuple[bytes, bytes], ...], date: bool) -> None:
        self._server = b"\r\nserver: " + server_name.encode("latin-1") if server_name else b""
        self._extra = extra
        self._date = b""
        self._date_wanted = date
        self.block = b""
        """What `block_for` gives while no field is overridden."""
        self.set_date("")

    def set_date(self, text: str) -> None:
        """Put an IMF-fixdate (RFC 9110 section 5.6.7) into the block."""
        self._date = b"\r\ndate: " + text.encode("ascii") if self._date_wanted and text else b""
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
        """Whether `block` alone is right for a response that sets neither Date nor Server."""
        return not self._extra

"""What a header field means: the one place for all versions of HTTP, beside the rules that it comes from.

Theory of operation
-------------------

1. *Grammar*: `TOKEN`, `HOST`, `connection_options` and `content_length` say what a name and a value may look like.
2. *Requests*: `METHODS` are the methods that are served, `COMMON_REQUEST_NAMES` the names that most clients send, and
   `HOP_BY_HOP` those that belong to a connection. What such a field does differs from version to version (HTTP/1.1
   reads Connection, HTTP/2 refuses it), so each version has a table from names to what it does: ``_SPECIAL`` in
   `daphne_ng.wire.http1.parser`, ``_names`` in `daphne_ng.wire.http2.head`. Both are made of the sets here.
3. *Responses*: `RESPONSE_FIELDS` says what the server does with a field of the application's, and `VOLATILE_FIELDS`
   whose lines are not worth remembering. An application's fields are checked here on their way out, and the sentence
   that tells the application what is wrong with one is written here. The two encoders (`daphne_ng.wire.http1.writer`,
   `daphne_ng.wire.http2.hpack`) each keep a memo of the lines that passed, in their own encoding.
4. *Trailers*: `check_trailers` refuses the fields that must not stand in a trailer section.

Beside this module stand the fields with a subject of their own: what proxies say in
`daphne_ng.wire.http.forwarded`, the handshake of a WebSocket in `daphne_ng.wire.websocket.handshake`, and the fields
that the server adds in `daphne_ng.wire.http.defaults`.
"""

from __future__ import annotations

import re
from typing import Any, Final

from daphne_ng._types import Field, Headers
from daphne_ng.errors import InvalidHeader
from daphne_ng.wire.memo import Memo
from daphne_ng.wording import printable

__all__ = [
    "CLOSES",
    "COMMON_REQUEST_NAMES",
    "CONFLICTING_LENGTHS",
    "CONNECTION_FIELD",
    "DATE_FIELD",
    "DROPPED_FIELD",
    "DROP_LENGTH",
    "FORBIDDEN_OCTETS",
    "FORBIDDEN_TRAILERS",
    "HAS_DATE",
    "HAS_SERVER",
    "HOP_BY_HOP",
    "HOST",
    "LENGTH_FIELD",
    "METHODS",
    "NOT_A_LENGTH",
    "NO_LENGTH",
    "ORDINARY_FIELD",
    "RESPONSE_FIELDS",
    "SECRET_FIELDS",
    "SERVER_FIELD",
    "TOKEN",
    "TOO_LONG_A_LENGTH",
    "VOLATILE_FIELDS",
    "check_trailers",
    "checked_name",
    "connection_options",
    "content_length",
    "host_memo",
    "is_host",
    "pairs_of_bytes",
    "shown_field",
    "valid_hosts",
    "wrong_length",
    "wrong_value",
]

# -- grammar ---------------------------------------------------------------------------------------------

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A field name or a method. RFC 9110 section 5.6.2::

    token = 1*tchar
    tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~" / DIGIT / ALPHA
"""

HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[0-9A-Za-z\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?")
"""The value of Host, or an authority. RFC 9112 section 3.2 with RFC 3986 section 3.2.2::

    Host = uri-host [ ":" port ]
    uri-host = IP-literal / IPv4address / reg-name
    reg-name = *( unreserved / pct-encoded / sub-delims )

An empty field value is legal ("If the authority component is missing ... a client MUST send a Host header field with an
empty field value"). Characters such as "/", "?", "#" and "@" are what makes a forged Host change the meaning of a URL
that an application builds from it.
"""

host_memo: Final[Memo[bytes | None, None]] = Memo(1024)
valid_hosts: Final = host_memo.known
"""Values that `is_host` has found to be well-formed; asked before it, for the sake of a call."""


def is_host(value: bytes) -> bool:
    """Tell whether a Host or an authority is well-formed, and remember it in `valid_hosts` if it is."""
    if not HOST.fullmatch(value):
        return False
    host_memo.remember(value, None, len(value))
    return True


def connection_options(value: bytes) -> set[bytes]:
    """Split a Connection field value into its lower-cased options (RFC 9110 section 7.6.1)."""
    return {option.strip(b" \t") for option in value.lower().split(b",")}


NO_LENGTH: Final = -1
"""There is no Content-Length."""
NOT_A_LENGTH: Final = -2
TOO_LONG_A_LENGTH: Final = -3
CONFLICTING_LENGTHS: Final = -4
"""There are two, which do not agree."""
_DIGITS_MAX: Final = 18


def content_length(value: bytes, earlier: int) -> int:
    """Read a Content-Length (RFC 9110 section 8.6: ``1*DIGIT``).

    Args:
        value: The field value.
        earlier: What an earlier field of the same message said, or `NO_LENGTH`.

    Returns:
        The length in bytes, or one of `NOT_A_LENGTH`, `TOO_LONG_A_LENGTH` and `CONFLICTING_LENGTHS`, which are below
        `NO_LENGTH`: the caller refuses the message in its own words.
    """
    if not value.isdigit():
        return NOT_A_LENGTH
    if len(value) > _DIGITS_MAX:
        return TOO_LONG_A_LENGTH
    length = int(value)
    return length if earlier < 0 or earlier == length else CONFLICTING_LENGTHS


# -- requests --------------------------------------------------------------------------------------------

METHODS: Final[dict[bytes, str]] = {
    name.encode("ascii"): name
    for name in (
        "ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY "
        "OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SUBSCRIBE TRACE UNBIND UNLINK "
        "UNLOCK UNSUBSCRIBE"
    ).split()
}
"""What a server of documents is asked; llhttp also knows the methods of RTSP and of Icecast."""

HOP_BY_HOP: Final = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
"""Fields that belong to a connection and not to a message (RFC 9110 section 7.6.1, RFC 9113 section 8.2.2)."""

COMMON_REQUEST_NAMES: Final = (
    "Host Connection Content-Length Content-Type Transfer-Encoding User-Agent Accept Accept-Encoding "
    "Accept-Language Cookie Referer Origin Authorization Cache-Control Pragma Upgrade-Insecure-Requests If-None-Match "
    "If-Modified-Since Range TE X-Forwarded-For X-Forwarded-Proto X-Forwarded-Port X-Forwarded-Host X-Real-IP "
    "X-Request-ID X-Requested-With Expect Upgrade Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User "
    "Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-WebSocket-Key Sec-WebSocket-Version "
    "Sec-WebSocket-Extensions Sec-WebSocket-Protocol DNT Via Priority"
).split()
"""Names that browsers and proxies send, in their usual spelling. No flood of others makes a server forget them."""

# -- responses -------------------------------------------------------------------------------------------

ORDINARY_FIELD: Final = 0
LENGTH_FIELD: Final = 1
DATE_FIELD: Final = 2
SERVER_FIELD: Final = 3
CONNECTION_FIELD: Final = 4
DROPPED_FIELD: Final = 5
"""A field of the application's that is the server's business: left out."""

RESPONSE_FIELDS: Final[dict[bytes, int]] = {
    **dict.fromkeys(HOP_BY_HOP, DROPPED_FIELD),
    b"content-length": LENGTH_FIELD,
    b"date": DATE_FIELD,
    b"server": SERVER_FIELD,
}
"""Lower-case name -> what it means in a response, if it is not `ORDINARY_FIELD`.

Hop-by-hop fields belong to the connection, which is ours. ASGI: Transfer-Encoding "must be ignored". RFC 9113 section
8.2.2: "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields."
"""

# Flags that tell what stood in an application's fields ...
HAS_DATE: Final = 1
HAS_SERVER: Final = 2
CLOSES: Final = 4
"""Connection says ``close``."""
# ... and the option of an encoder.
DROP_LENGTH: Final = 8
"""Leave Content-Length out."""

SECRET_FIELDS: Final = frozenset((b"set-cookie", b"cookie", b"authorization", b"proxy-authorization"))
"""Fields that hold secrets: in no memo, and in no index of HPACK (RFC 7541 section 7.1.3)."""

VOLATILE_FIELDS: Final = SECRET_FIELDS | {b"etag", b"location", b"last-modified", b"expires"}
"""Fields whose lines are not remembered: they differ from response to response, or hold secrets."""

FORBIDDEN_OCTETS: Final = b"\0\r\n"
"""What no value may hold (RFC 9110 section 5.5): it would end the field, or the response."""


def checked_name(name: Any) -> bytes:
    """Return the name of an application's field in lower case.

    Raises:
        InvalidHeader: It is not bytes, or no `TOKEN`.
    """
    if not isinstance(name, bytes):
        raise InvalidHeader(f"header name {printable(repr(name))} must be bytes, not {type(name).__name__}")
    if not TOKEN.fullmatch(name):
        raise InvalidHeader(f"header name {printable(repr(name))} is not a token")
    return name.lower()


def wrong_value(name: bytes, value: Any) -> InvalidHeader:
    """Return the error for a value that is not bytes, or that holds one of the `FORBIDDEN_OCTETS`."""
    if not isinstance(value, bytes):
        return InvalidHeader(
            f"the value of header {shown_field(name, value)} must be bytes, not {type(value).__name__}"
        )
    return InvalidHeader(f"the value of header {shown_field(name, value)} holds CR, LF or NUL")


def wrong_length(value: bytes, problem: int) -> InvalidHeader:
    """Return the error for an application's Content-Length; `problem` is what `content_length` returned."""
    if problem == CONFLICTING_LENGTHS:
        return InvalidHeader("two Content-Length fields disagree")
    return InvalidHeader(f"Content-Length {printable(repr(value))} is not a length")


def pairs_of_bytes(headers: Headers) -> list[Field]:
    """Return an application's fields as pairs of bytes, in whatever kind of sequence each has come.

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
            raise wrong_value(name, value)
        pairs.append((name, value))
    return pairs


def shown_field(name: bytes, value: Any) -> str:
    """Return an application's field for a message: ``b'vary' ('origin')``; no cookies, which are secrets."""
    shown = "not shown" if name.lower() == b"set-cookie" else printable(repr(value), 100)
    return f"{printable(repr(name), 100)} ({shown})"


# -- trailers --------------------------------------------------------------------------------------------

FORBIDDEN_TRAILERS: Final = frozenset(
    (
        b"content-length content-type content-encoding content-range transfer-encoding connection keep-alive "
        b"host te trailer upgrade authorization set-cookie cache-control expect max-forwards pragma range "
        b"www-authenticate proxy-authenticate"
    ).split()
)
"""RFC 9110 section 6.5.1: fields that frame, route, authenticate or describe the content are no trailers."""


def check_trailers(headers: Headers) -> None:
    """Check that trailer fields, which an encoder has let pass, may stand in a trailer section.

    Raises:
        InvalidHeader: One of them is among the `FORBIDDEN_TRAILERS`.
    """
    for name, _value in headers:
        if name.lower() in FORBIDDEN_TRAILERS:
            raise InvalidHeader(f"header {name!r} must not be sent as a trailer")

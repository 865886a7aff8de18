"""The head of an HTTP/2 request: from a decoded list of fields to a checked `Http2Head` (RFC 9113 section 8).

One pass, which stands in for the validation of h2. What is wrong with a list of fields is one of two things:

* `MalformedRequest`: it is no HTTP request (RFC 9113 section 8.1.1). "Malformed requests or responses that are detected
  MUST be treated as a stream error of type PROTOCOL_ERROR."
* any other `WireError`: it is a request, and is answered with the status that HTTP/1.1 has for it.

What HTTP/1.1 does not let pass does not pass here either, so that no application meets another kind of request.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import ClassVar, Final
from urllib.parse import unquote

from daphne_ng._types import Field, Fields
from daphne_ng.config import Config
from daphne_ng.errors import WireError
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.http.fields import (
    COMMON_REQUEST_NAMES,
    HOP_BY_HOP,
    METHODS,
    NO_LENGTH,
    NOT_A_LENGTH,
    TOKEN,
    TOO_LONG_A_LENGTH,
    content_length,
    is_host,
    valid_hosts,
)
from daphne_ng.wire.http.forwarded import root_path_of
from daphne_ng.wire.http2.hpack import CUT
from daphne_ng.wire.memo import Memo

__all__ = ["Http2Head", "MalformedRequest", "check_request_fields", "check_trailer_fields"]

_PROTOCOL_ERROR: Final = 0x1  # RFC 9113 section 7


class MalformedRequest(WireError):
    """The list of fields is no request: the stream is to be reset, and nothing else.

    Args:
        detail: A constant sentence; never holds bytes that the peer sent.
    """

    code: ClassVar[int] = _PROTOCOL_ERROR
    """The error code of the RST_STREAM."""

    def __init__(self, detail: str) -> None:
        super().__init__(400, detail)


class Http2Head(RequestHead):
    """A request head, and what only HTTP/2 says."""

    http_version = "2"
    keep_alive = True
    authority: bytes = b""
    """Where the request goes: ``:authority``, or Host where the client has no ``:authority``."""
    scheme: bytes
    """``:scheme`` as received; the scope tells what the connection says instead."""
    protocol: bytes | None = None
    """``:protocol`` of an extended CONNECT (RFC 8441)."""
    priority: bytes | None = None
    """Value of the Priority field (RFC 9218), if there is one."""
    length_known: bool = False
    """Whether a Content-Length stands in the head; the DATA frames must then sum up to it."""

    @property
    def repeatable(self) -> bool:
        """Whether `repeated` has all that this head says."""
        return not (self.content_length or self.length_known or self.websocket) and self.root_path is None

    @property
    def cost_bytes(self) -> int:
        """What it takes to keep a head in the place of its fields; an estimate."""
        return 280 + len(self.target) + 8 * len(self.headers)

    def repeated(self) -> Http2Head:
        """Make the head of another request that has the same fields, and no body either."""
        head = Http2Head()
        head.method = self.method
        head.target = self.target
        head.path = self.path
        head.raw_path = self.raw_path
        head.headers = self.headers.copy()  # an application may change the list in its scope
        head.authority = self.authority
        head.scheme = self.scheme
        if self.query_string:
            head.query_string = self.query_string
        if self.priority is not None:
            head.priority = self.priority
        if self.accepts_trailers:
            head.accepts_trailers = True
        return head


# RFC 9110 section 5.1 makes a name a token; RFC 9113 section 8.2.1: "A field name MUST NOT contain characters in the
# ranges 0x00-0x20, 0x41-0x5a, or 0x7f-0xff (all ranges inclusive)", which leaves the lower-case tokens.
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
# RFC 3986 sections 3.3 and 3.4 allow fewer; HTTP/1.1 lets the same pass.
_PATH: Final = re.compile(rb"/[!\"$-~]*")
# RFC 3986 section 3.1.
_SCHEME: Final = re.compile(rb"[A-Za-z][0-9A-Za-z+\-.]*")
# All but the tab. RFC 9113 section 8.2.1 forbids NUL, CR and LF; the others are refused as on HTTP/1.1.
_CONTROLS: Final = bytes((*range(9), *range(10, 32), 127))

_ORDINARY: Final = 0
_DROP: Final = 1
_HOST: Final = 2
_LENGTH: Final = 3
_COOKIE: Final = 4
_TE: Final = 5
_EXPECT: Final = 6
_PRIORITY: Final = 7
_ROOT_PATH: Final = 8
_CONNECTION: Final = 9
# Name -> what it means here. Bounded, so that a client cannot grow it; and what is preset, which decides about framing,
# comes back when it is emptied.
_name_memo: Final[Memo[bytes, int]] = Memo(
    2048,
    preset={
        **dict.fromkeys((name.lower().encode() for name in COMMON_REQUEST_NAMES), _ORDINARY),
        b"host": _HOST,
        b"content-length": _LENGTH,
        b"cookie": _COOKIE,
        b"te": _TE,
        b"expect": _EXPECT,
        b"priority": _PRIORITY,
        b"daphne-root-path": _ROOT_PATH,
        # RFC 9113 section 8.2.2: "Any message containing connection-specific header fields MUST be treated as
        # malformed".
        **dict.fromkeys(HOP_BY_HOP, _CONNECTION),
    },
)
_names: Final = _name_memo.known

_PSEUDO_FIELDS: Final = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))

_value_of: Final = itemgetter(1)
_strip: Final = bytes.strip


# In one piece: it is called for each request and goes once through its fields, and each call costs it about 60 ns. What
# few requests need is in functions of its own.
def check_request_fields(  # noqa: C901, PLR0912, PLR0915
    fields: Fields, config: Config, ended: bool = False, extended_connect: bool = False
) -> Http2Head:
    """Check a list of fields and make a request head of it.

    The head's fields begin with ``host`` if there is an ``:authority``; cookie crumbs are one field again; the names
    that HTTP/1.1 drops are dropped.

    Args:
        fields: What the decoder gave.
        config: The limits.
        ended: Whether END_STREAM came with the fields: there is no body.
        extended_connect: Whether we sent SETTINGS_ENABLE_CONNECT_PROTOCOL.

    Raises:
        MalformedRequest: Reset the stream.
        WireError: Answer with its status.
    """
    if fields and fields[-1][0] is CUT:
        raise WireError(431, "The request head is too large.")
    _check_values(fields)

    # -- RFC 9113 section 8.3: "All pseudo-header fields MUST appear in a field block before all regular field lines."
    count = 4
    pseudo = dict(fields[:4])
    method_name = pseudo.get(b":method")
    target = pseudo.get(b":path")
    scheme = pseudo.get(b":scheme")
    authority = pseudo.get(b":authority")
    # Four fields with the four names that most requests have: so there is no other among them, and none twice. One more
    # behind them would be found among the regular fields.
    if not (method_name and target and scheme and authority) or method_name == b"CONNECT":
        count, pseudo = _other_pseudo_fields(fields, extended_connect)
        method_name = pseudo.get(b":method")
        target = pseudo.get(b":path")
        scheme = pseudo.get(b":scheme")
        authority = pseudo.get(b":authority")
    assert method_name is not None
    assert target is not None
    assert scheme is not None  # all three were found, here or there

    # -- regular fields
    head = Http2Head()
    headers: list[Field] = []
    append = headers.append
    host = authority
    if authority is not None:
        append((b"host", authority))
    own_host: bytes | None = None
    crumbs: list[bytes] | None = None
    cookie_at = 0
    length = NO_LENGTH
    known = _names
    for field in fields[count:]:
        name, value = field
        code = known.get(name)
        if code is None:
            code = _learn(name)
        if not code:
            append(field)
        elif code == _COOKIE:
            # Section 8.2.3: "If there are multiple Cookie header fields after decompression, these MUST be concatenated
            # into a single octet string using the two-octet delimiter of 0x3b, 0x20".
            if crumbs is None:
                crumbs = [value]
                cookie_at = len(headers)
                append(field)
            else:
                crumbs.append(value)
        elif code == _PRIORITY:
            head.priority = value if head.priority is None else head.priority + b", " + value
            append(field)
        elif code == _LENGTH:
            earlier, length = length, content_length(value, length)
            if length < 0:
                raise _wrong_length(length)
            if earlier < 0:
                append(field)
        elif code == _HOST:
            if own_host is not None:
                raise MalformedRequest("The request has more than one Host.")
            own_host = value
            if authority is None:
                host = value
                append(field)
            # Section 8.3.1: "A server SHOULD treat a request as malformed if it contains a Host header field that
            # identifies an entity that differs from the entity in the ":authority" pseudo-header field."
            elif value != authority and value.lower() != authority.lower():
                raise MalformedRequest("The Host and the authority disagree.")
        elif _apply_rare(head, code, value, ended):
            append(field)
    if crumbs is not None and len(crumbs) > 1:
        headers[cookie_at] = (b"cookie", b"; ".join(crumbs))

    # -- what the values say
    if not host:
        raise MalformedRequest("The request has no authority.")
    # RFC 9113 section 8.3.1: "":authority" MUST NOT include the deprecated userinfo subcomponent".
    if host not in valid_hosts and not is_host(host):
        raise MalformedRequest("The authority is malformed.")
    if scheme != b"https" and scheme != b"http":
        _check_scheme(scheme)
    head.scheme = scheme
    head.authority = host
    head.headers = headers
    head.target = target
    if len(target) > config.request_line_max_bytes:
        raise WireError(414, "The request target is too long.")
    if not _PATH.fullmatch(target) and (target != b"*" or method_name != b"OPTIONS"):
        raise MalformedRequest("The path is malformed.")
    if 63 in target:  # "?"
        raw_path, _mark, head.query_string = target.partition(b"?")
    else:
        raw_path = target
    head.raw_path = raw_path
    path = raw_path.decode("ascii")
    head.path = unquote(path) if "%" in path else path
    method = METHODS.get(method_name)
    if method is None:
        method = _other_method(head, method_name, pseudo)
    head.method = method
    if length >= 0:
        _apply_length(head, length, config, ended)
    elif not ended and not head.websocket:
        head.content_length = -1
    return head


# Apply a field that few requests have. Returns whether it is the application's to see.
def _apply_rare(head: Http2Head, code: int, value: bytes, ended: bool) -> bool:
    if code == _TE:
        # Section 8.2.2: "it MUST NOT contain any value other than "trailers"".
        if value.lower() != b"trailers":
            raise MalformedRequest("TE says more than trailers.")
        head.accepts_trailers = True
        return True
    if code == _EXPECT:
        if value.lower() != b"100-continue":
            raise WireError(417, "Only 100-continue can be expected.")
        head.expects_continue = not ended
        return True
    if code == _ROOT_PATH:
        head.root_path = root_path_of(value)
    elif code == _CONNECTION:
        raise MalformedRequest("A field is specific to connections of HTTP/1.1.")
    return False


# Check the length of the body against what came with the head, and note it.
def _apply_length(head: Http2Head, length: int, config: Config, ended: bool) -> None:
    head.length_known = True
    # Section 8.1.1: "A request or response is also malformed if the value of a Content-Length header field does not
    # equal the sum of the DATA frame payload lengths".
    if ended and length:
        raise MalformedRequest("The body is shorter than its Content-Length.")
    if config.body_max_bytes and length > config.body_max_bytes:
        raise WireError(413, "The request body is too large.")
    head.content_length = length
    if not length:
        head.expects_continue = False


def check_trailer_fields(fields: Fields, config: Config) -> None:
    """Check the fields that end a request.

    Raises:
        MalformedRequest: Reset the stream.
        WireError: 431, they are too many.
    """
    if fields and fields[-1][0] is CUT:
        raise WireError(431, "The trailer section is too large.")
    _check_values(fields)
    size = 0
    for name, value in fields:
        code = _names.get(name)
        if code is None:
            # Section 8.1: "Trailers MUST NOT include pseudo-header fields".
            code = _learn(name)
        if code == _CONNECTION:
            raise MalformedRequest("A field is specific to connections of HTTP/1.1.")
        size += len(name) + len(value) + 4
    if len(fields) > config.trailer_max_fields or size > config.trailer_max_bytes:
        raise WireError(431, "The trailer section is too large.")


# Look at all values at once.
def _check_values(fields: Fields) -> None:
    values = [*map(_value_of, fields)]
    # RFC 9113 section 8.2.1: "A field value MUST NOT start or end with an ASCII whitespace character (ASCII SP or HTAB,
    # 0x20 or 0x09)." The others that strip() knows are control characters. What it leaves alone it gives back as it
    # was, so the lists are compared by identity mostly.
    if [*map(_strip, values)] != values:
        raise MalformedRequest("A field value begins or ends with a blank.")
    text = b"".join(values)
    if len(text.translate(None, _CONTROLS)) != len(text):
        raise MalformedRequest("A field value holds a control character.")


def _learn(name: bytes) -> int:
    # Section 8.3: "Endpoints MUST treat a request or response that contains undefined or invalid pseudo-header fields
    # as malformed". A colon is not in a token, so they end here, and so do those that come late.
    if not _NAME.fullmatch(name):
        raise MalformedRequest("A field name is malformed, or a pseudo-header field unknown or late.")
    # A name with "_" would reach WSGI-style environments as the same variable as its spelling with "-" (CVE-2015-0219):
    # dropped, as on HTTP/1.1.
    code = _DROP if b"_" in name else _ORDINARY
    _name_memo.remember(name, code, len(name))
    return code


# Collect and check pseudo-header fields that are not the usual four; return how many there are, and their values.
def _other_pseudo_fields(fields: Fields, extended_connect: bool) -> tuple[int, dict[bytes, bytes]]:
    count = 0
    for field in fields:
        if field[0] not in _PSEUDO_FIELDS:
            break
        count += 1
    pseudo = dict(fields[:count])
    # RFC 9113 section 8.3: "The same pseudo-header field name MUST NOT appear more than once in a field block."
    if len(pseudo) != count:
        raise MalformedRequest("A pseudo-header field comes twice.")
    if b":protocol" in pseudo:
        # RFC 8441 section 3: the client must have seen the setting first. Section 4: it is a CONNECT.
        if not extended_connect or pseudo.get(b":method") != b"CONNECT":
            raise MalformedRequest("There is no :protocol here.")
    elif pseudo.get(b":method") == b"CONNECT":
        raise MalformedRequest("There is no CONNECT to another server here.")
    # RFC 9113 section 8.3.1: "All HTTP/2 requests MUST include exactly one valid value for the ":method", ":scheme",
    # and ":path" pseudo-header fields, unless they are CONNECT requests". RFC 8441 section 4: an extended one has them.
    if not (pseudo.get(b":method") and pseudo.get(b":path") and pseudo.get(b":scheme")):
        raise MalformedRequest("A pseudo-header field is missing or empty.")
    # "If these fields are present, they MUST NOT be empty."
    if pseudo.get(b":authority") == b"":
        raise MalformedRequest("The authority is empty.")
    return count, pseudo


def _check_scheme(scheme: bytes) -> None:
    if not _SCHEME.fullmatch(scheme):
        raise MalformedRequest("The scheme is malformed.")
    if scheme.lower() not in (b"http", b"https"):
        raise WireError(400, "Only http and https are served here.")


def _wrong_length(problem: int) -> WireError:
    if problem == NOT_A_LENGTH:
        return MalformedRequest("The Content-Length is no length.")
    if problem == TOO_LONG_A_LENGTH:
        return WireError(413, "The request body is too large.")
    return MalformedRequest("Two Content-Length fields disagree.")


# Return a method that is not among those of documents: the extended CONNECT, or none at all.
def _other_method(head: Http2Head, name: bytes, pseudo: dict[bytes, bytes]) -> str:
    protocol = pseudo.get(b":protocol")
    if protocol is not None:
        # RFC 9220 section 3 says it for HTTP/3: a server that does not support the protocol "SHOULD respond to the
        # request with a 501 (Not Implemented) status code".
        if protocol != b"websocket":
            raise WireError(501, "Only the protocol websocket is connected to.")
        head.protocol = protocol
        head.websocket = True
        return "CONNECT"
    if not TOKEN.fullmatch(name):
        raise MalformedRequest("The method is malformed.")
    raise WireError(501, "The method is not implemented.")

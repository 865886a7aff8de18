"""The opening handshake of a WebSocket (RFC 6455 section 4.2), apart from the HTTP version that carries it.

Theory of operation
-------------------

1. `from_upgrade` and `from_connect` check a request head and make a `WebSocketRequest` of it: what the application and
   the WebSocket engine need to know. Whatever is wrong is a `WireError`, to be answered like any other broken request.
2. The engine (Autobahn) has a handshake of its own and must go through it to open. It never sees the client's, but a
   constant one, so that nothing a client sends is parsed twice with two results.
3. The answer to the client is written by the protocol that carries the handshake, with the fields that `accept_fields`
   puts before the application's.

Of the extensions, permessage-deflate (RFC 7692) alone is understood. Its offers are brought into a canonical form, and
those that cannot be accepted are left out: RFC 7692 has the server decline them, while the engine would fail the
handshake.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from typing import Final

from daphne_ng._types import Field, Headers
from daphne_ng.errors import InvalidHeader, WireError
from daphne_ng.port import ResponsePort
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.http.fields import TOKEN
from daphne_ng.wire.websocket.deflate import DeflateAgreement

__all__ = ["Handshake", "WebSocketRequest", "accept_fields", "accept_key", "from_connect", "from_upgrade"]

_PREFIX: Final = b"sec-websocket-"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3

# RFC 6455 section 4.1: "a nonce consisting of a randomly selected 16-byte value that has been base64-encoded". The four
# bits that are left over in the last letter are not looked at: "It is not necessary for the server to base64-decode the
# |Sec-WebSocket-Key| value" (section 4.2.1).
_KEY: Final = re.compile(rb"[0-9A-Za-z+/]{22}==")

# RFC 6455 section 9.1:
#   extension = extension-token *( ";" extension-param )
#   extension-param = token [ "=" (token | quoted-string) ]
#       ;When using the quoted-string syntax variant, the value after quoted-string unescaping MUST conform to the
#       ;'token' ABNF.
# So neither "," nor ";" can stand within quotes, and the list may simply be split at its commas.
_OWS: Final = rb"[ \t]*"
_PARAMETER: Final = rb"%(ows)b;%(ows)b(%(token)b)(?:%(ows)b=%(ows)b(?:(%(token)b)|\"((?:\\?%(tchar)b)+)\"))?" % {
    b"ows": _OWS,
    b"token": TOKEN.pattern,
    b"tchar": TOKEN.pattern[:-1],
}
_EXTENSION: Final = re.compile(rb"(%b)((?:%b)*)" % (TOKEN.pattern, _PARAMETER))
_PARAMETERS: Final = re.compile(_PARAMETER)

# RFC 7692 section 7.1.2.1: "a decimal integer value without leading zeroes between 8 to 15, inclusive".
_WINDOW_BITS: Final = frozenset(b"%d" % bits for bits in range(8, 16))


# Fields of the answer that are the server's to set: here, or by the protocol that carries the handshake.
_OURS: Final = frozenset(
    (
        b"upgrade",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    )
)


class WebSocketRequest:
    """What a client asks for in its opening handshake.

    Args:
        head: The request; its fields are those of the scope.
        key: See the attribute.
        subprotocols: See the attribute.
        deflate_offers: See the attribute.
    """

    __slots__ = ("deflate_offers", "head", "key", "subprotocols")

    def __init__(self, head: RequestHead, key: bytes | None, subprotocols: list[str], deflate_offers: str) -> None:
        self.head = head
        self.key = key
        """Value of Sec-WebSocket-Key as it was sent, in base64; None for an extended CONNECT, which has none."""
        self.subprotocols = subprotocols
        """Tokens, each once, in the order of the client's preference."""
        self.deflate_offers = deflate_offers
        """The offers of permessage-deflate that can be accepted, in canonical form; empty if there are none.

        Separated by ``, ``; the parameters of an offer come after ``; ``, each once, in a fixed order, unquoted.
        ``server_max_window_bits`` is 9 to 15; ``client_max_window_bits`` has no value, or 8 to 15.
        """


class Handshake:
    """A handshake that waits for its answer, on the protocol that carries it.

    Args:
        request: See the attribute.
        response: See the attribute.
        accept: See the attribute.
    """

    __slots__ = ("accept", "request", "response")

    def __init__(self, request: WebSocketRequest, response: ResponsePort, accept: Callable[[Headers], bytes]) -> None:
        self.request = request
        """What the client asks for."""
        self.response = response
        """Answers it with an ordinary response."""
        self.accept = accept
        """Answers it with the fields of `accept_fields`, and returns the bytes that came behind the request. It is
        `Http1Connection.switch_protocols` (101) or `Http2Stream.open_tunnel` (200), and raises `InvalidHeader` as they
        do."""


def from_upgrade(head: RequestHead) -> WebSocketRequest:
    """Read the handshake of a request that asks for an upgrade to ``websocket`` (RFC 6455 section 4.2.1).

    Raises:
        WireError: 400, 405 or 426, with the fields that such an answer needs. RFC 9110 section 7.8 wants the connection
            option ``upgrade`` besides, where there are connection options.
    """
    # Where the body would end, and the other protocol begin, is not for us to guess.
    if head.content_length or head.chunked:
        raise WireError(400, "A WebSocket handshake has no body.")
    if head.method != "GET":
        raise WireError(405, "A WebSocket handshake is a GET.", ((b"allow", b"GET"),))
    fields = _handshake_fields(head)
    # RFC 6455 section 4.2.2: "If this version does not match a version understood by the server, the server MUST abort
    # the WebSocket handshake [...] and instead send an appropriate HTTP error code (such as 426 Upgrade Required) and a
    # |Sec-WebSocket-Version| header field indicating the version(s) the server is capable of understanding."
    if fields.get(b"version") != [b"13"]:
        raise WireError(
            426,
            "Only version 13 of WebSocket is spoken here.",
            ((b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")),
        )
    keys = fields.get(b"key", ())
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise WireError(400, "The Sec-WebSocket-Key is missing or malformed.")
    return _request(head, fields, keys[0])


def from_connect(head: RequestHead) -> WebSocketRequest:
    """Read the handshake of an extended CONNECT with the protocol ``websocket`` (RFC 8441 section 5).

    Raises:
        WireError: 400, with the fields that such an answer needs.
    """
    if head.content_length > 0:
        raise WireError(400, "A WebSocket handshake has no body.")
    fields = _handshake_fields(head)
    # RFC 8441 section 5: there is no Sec-WebSocket-Key, and no Sec-WebSocket-Accept that answers it; the other fields
    # mean what they mean on HTTP/1.1. Chromium sends a version; who sends none can only mean this one. Without Upgrade
    # there is no 426 (RFC 9110 section 15.5.22).
    if fields.get(b"version", [b"13"]) != [b"13"]:
        raise WireError(400, "Only version 13 of WebSocket is spoken here.", ((b"sec-websocket-version", b"13"),))
    return _request(head, fields, None)


def accept_key(key: bytes) -> bytes:
    """Return the value of Sec-WebSocket-Accept that answers `key` (RFC 6455 section 4.2.2)."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def accept_fields(
    request: WebSocketRequest, subprotocol: str | None, headers: Headers, agreement: DeflateAgreement | None
) -> Headers:
    """Return the fields of the answer that accepts a handshake (RFC 6455 section 4.2.2), the application's last.

    Args:
        request: The handshake.
        subprotocol: The one that the application has chosen of those that the client offered.
        headers: The application's.
        agreement: What was agreed on of permessage-deflate.

    Raises:
        InvalidHeader: The application set a field of the handshake itself.
    """
    for name, _value in headers:
        if name.lower() in _OURS:
            raise InvalidHeader(f"{name.decode('latin-1')} is the server's to set")
    fields: list[Field] = []
    if request.key is not None:
        fields.append((b"sec-websocket-accept", accept_key(request.key)))
    if subprotocol is not None:
        fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    if agreement is not None:
        fields.append((b"sec-websocket-extensions", agreement.response))
    return [*fields, *headers]


# -- what every kind of handshake has in common ----------------------------------------------------------


# The values of the fields of the handshake, by what their names end in.
def _handshake_fields(head: RequestHead) -> dict[bytes, list[bytes]]:
    fields: dict[bytes, list[bytes]] = {}
    for name, value in head.headers:
        if name.startswith(_PREFIX):
            fields.setdefault(name[len(_PREFIX) :], []).append(value)
    return fields


def _request(head: RequestHead, fields: dict[bytes, list[bytes]], key: bytes | None) -> WebSocketRequest:
    return WebSocketRequest(
        head, key, _subprotocols(fields.get(b"protocol", [])), _deflate_offers(fields.get(b"extensions", []))
    )


# Split a list that may be spread over several lines (RFC 9110 section 5.6.1: "A recipient MUST parse and ignore a
# reasonable number of empty list elements").
def _elements(values: list[bytes]) -> list[bytes]:
    return [element for element in (part.strip(b" \t") for part in b",".join(values).split(b",")) if element]


def _subprotocols(values: list[bytes]) -> list[str]:
    # RFC 6455 section 4.1: "The elements that comprise this value MUST be non-empty strings with characters in the
    # range U+0021 to U+007E not including separator characters [...] and MUST all be unique strings."
    found: dict[str, None] = {}  # ordered, and quick to search: a head has room for many
    for element in _elements(values):
        if not TOKEN.fullmatch(element):
            raise WireError(400, "The Sec-WebSocket-Protocol is malformed.")
        name = element.decode("ascii")
        if name in found:
            raise WireError(400, "The Sec-WebSocket-Protocol names a subprotocol twice.")
        found[name] = None
    return list(found)


def _deflate_offers(values: list[bytes]) -> str:
    offers: dict[str, None] = {}  # each once: a list that says it all is short, however long the client's is
    for element in _elements(values):
        extension = _EXTENSION.fullmatch(element)
        if extension is None:
            raise WireError(400, "The Sec-WebSocket-Extensions is malformed.")
        if extension[1].lower() == b"permessage-deflate":
            offer = _canonical_offer(extension[2])
            if offer is not None:
                offers[offer] = None
    return ", ".join(offers)


# Bring one offer of permessage-deflate into canonical form, or decline it: RFC 7692 section 7.1 has the server do so if
# it "contains an extension parameter not defined for use in an offer", one "with an invalid value", or "multiple
# extension parameters with the same name".
def _canonical_offer(text: bytes) -> str | None:
    parameters: dict[bytes, bytes | None] = {}
    for match in _PARAMETERS.finditer(text):
        name, value, quoted = match.groups()
        name = name.lower()
        if name in parameters:
            return None
        parameters[name] = quoted.replace(b"\\", b"") if quoted is not None else value

    offer = "permessage-deflate"
    for name in (b"server_no_context_takeover", b"client_no_context_takeover"):
        if name in parameters:
            if parameters.pop(name) is not None:
                return None
            offer += "; " + name.decode("ascii")
    if b"server_max_window_bits" in parameters:
        bits = parameters.pop(b"server_max_window_bits")
        # zlib cannot deflate with a window of 8 bits without a zlib header, so such an offer cannot be accepted.
        if bits not in _WINDOW_BITS or bits == b"8":
            return None
        offer += "; server_max_window_bits=" + bits.decode("ascii")
    if b"client_max_window_bits" in parameters:
        bits = parameters.pop(b"client_max_window_bits")
        if bits is not None and bits not in _WINDOW_BITS:
            return None
        offer += "; client_max_window_bits" + ("" if bits is None else "=" + bits.decode("ascii"))
    return None if parameters else offer

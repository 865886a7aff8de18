"""What proxies say about the requests that they pass on: X-Forwarded-*, Forwarded (RFC 7239), Daphne-Root-Path.

Anybody can write these headers, so the question is always who did. Two rules bound the answer:

* Nothing here is asked unless the peer of the connection is a trusted proxy.
* A list is read from the right. Each proxy adds, at the right end, the address that it was connected from. So the last
  hop was written by our peer, whom we trust. If that hop is itself a trusted proxy, then the one before it was written
  by that proxy, and so on. The first hop that is not trusted is the client: whatever stands left of it, the client may
  have made up. If every hop is trusted, the leftmost is the client.

At a hop that says nothing (``unknown``, an obfuscated name, or what is no address) the walk ends, and the last proxy
whose address is known is taken for the client: its word is good, but nobody says who stood behind it.

The walk looks at `HOPS_MAX` hops. Of a header that holds one value by its nature (a scheme, a port, a host, a prefix)
the last one counts, which is our peer's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from daphne_ng._types import Fields
from daphne_ng.config.trust import TrustedPeers, plain_address
from daphne_ng.wire.http.fields import HOST, TOKEN

__all__ = ["HOPS_MAX", "Claims", "ForwardedFields", "Node", "parse_node", "root_path_of"]

Node = tuple[str, int | None]
"""An address in its shortest spelling, and the port if there is one."""

HOPS_MAX: Final = 64
"""Proxies that a request can come through. The longest real chains have a handful; a head has room for 30,000."""

_ELEMENT_MAX_BYTES: Final = 1024
# Commas that a Forwarded element may hold, within quotes.
_COMMAS_MAX: Final = 8


class Claims(NamedTuple):
    """What trusted proxies say of a request. None where they say nothing."""

    client: tuple[str, int] | None
    """Address and port; the port is 0 where nobody tells, as in Daphne."""
    scheme: str | None
    """``http`` or ``https``, for WebSockets too."""
    host: bytes | None
    """What the client sent as Host."""
    prefix: str | None
    """The root path, without a slash at the end."""


class ForwardedFields:
    """Reads the headers that a trusted proxy has sent.

    Args:
        trusted: The proxies.
        address: Lower-case name of the header with the client's address, or None; likewise the others.
        port: The client's port.
        proto: The scheme.
        host: The host.
        prefix: The root path.
        forwarded: Read Forwarded instead of the first three, and of `host` where that is not None.
    """

    __slots__ = ("_address", "_forwarded", "_host", "_port", "_prefix", "_proto", "_trusted", "names")

    def __init__(
        self,
        trusted: TrustedPeers,
        *,
        address: bytes | None = None,
        port: bytes | None = None,
        proto: bytes | None = None,
        host: bytes | None = None,
        prefix: bytes | None = None,
        forwarded: bool = False,
    ) -> None:
        self._trusted = trusted
        self._forwarded = forwarded
        self._address = b"forwarded" if forwarded else address
        self._port = None if forwarded else port
        self._proto = None if forwarded else proto
        self._host = host
        self._prefix = prefix
        from_others = (self._address, self._port, self._proto, None if forwarded else host, prefix)
        self.names: frozenset[bytes] = frozenset(name for name in from_others if name)
        """The headers that are looked at."""

    def claims(self, headers: Fields) -> Claims | None:
        """Return what the headers say, or None if none of them is there."""
        names = self.names
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if name in names:
                found.setdefault(name, []).append(value)
        if not found:
            return None
        client: tuple[str, int] | None = None
        scheme: str | None = None
        host: bytes | None = None
        if self._forwarded:
            node, scheme, host = _walk_forwarded(found.get(b"forwarded", ()), self._trusted)
            if self._host is None:
                host = None
        else:
            node = _walk(_hops(found.get(self._address or b"", ())), self._trusted)
            scheme = _SCHEMES.get(_last(found.get(self._proto or b"")).lower())
            host = _checked_host(_last(found.get(self._host or b"")))
        if node is not None:
            address, port = node
            if port is None:
                port = _port_number(_last(found.get(self._port or b""))) or 0
            client = (address, port)
        prefix = found.get(self._prefix or b"")
        return Claims(client, scheme, host, None if prefix is None else _prefix_of(_last(prefix)))


_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}


# -- the walk --------------------------------------------------------------------------------------------


# Walk along nodes, the nearest first; None is one that says nothing.
def _walk(nodes: Iterable[Node | None], trusted: TrustedPeers) -> Node | None:
    client: Node | None = None
    for node in nodes:
        if node is None:
            break
        client = node
        if node[0] not in trusted:
            break
    return client


# Yield the hops of X-Forwarded-For from the right.
def _hops(values: Sequence[bytes]) -> Iterator[Node | None]:
    if not values:
        return
    # Several lines are one list (RFC 9110 section 5.3).
    value = values[0] if len(values) == 1 else b",".join(values)
    hops = value.rsplit(b",", HOPS_MAX)
    if len(hops) > HOPS_MAX:
        del hops[0]  # whatever is left
    for hop in reversed(hops):
        hop = hop.strip(b" \t")
        # RFC 9110 section 5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements".
        if hop:
            yield parse_node(_unquoted(hop))


# No RFC has quotes in X-Forwarded-For; some proxies put IPv6 addresses in them, as in Forwarded.
def _unquoted(hop: bytes) -> bytes:
    return hop[1:-1] if len(hop) > 1 and hop[0] == hop[-1] == 34 else hop


def _last(values: Sequence[bytes] | None) -> bytes:
    return values[-1].rpartition(b",")[2].strip(b" \t") if values else b""


# -- Forwarded -------------------------------------------------------------------------------------------

# RFC 7239 section 4:
#   Forwarded   = 1#forwarded-element
#   forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
#   forwarded-pair = token "=" value
#   value          = token / quoted-string
# RFC 9110 section 5.6.4:
#   quoted-string  = DQUOTE *( qdtext / quoted-pair ) DQUOTE
#   qdtext         = HTAB / SP / %x21 / %x23-5B / %x5D-7E / obs-text
# Blanks around ";" are not in the grammar. Some write them, and nothing can be meant by them.
_QUOTED: Final = rb'"(?:[^"\\]|\\.)*+"'
_PAIR: Final = rb"(%(token)b)=(%(token)b|%(quoted)b)" % {b"token": TOKEN.pattern, b"quoted": _QUOTED}
_ELEMENT: Final = re.compile(
    rb"[ \t]*+(?:%(pair)b)?(?:[ \t]*+;[ \t]*+(?:%(pair)b)?)*+[ \t]*+" % {b"pair": _PAIR}, re.DOTALL
)
_PAIRS: Final = re.compile(_PAIR, re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)

Pairs = dict[bytes, bytes]


def _walk_forwarded(values: Sequence[bytes], trusted: TrustedPeers) -> tuple[Node | None, str | None, bytes | None]:
    client: Node | None = None
    scheme: str | None = None
    host: bytes | None = None
    for pairs in _elements(values):
        if pairs is None:
            break
        # Every element that we get to was written by a trusted proxy, so the leftmost word is the one about the client.
        scheme = _SCHEMES.get(pairs.get(b"proto", b"").lower(), scheme)
        host = _checked_host(pairs.get(b"host", b"")) or host
        node = parse_node(pairs.get(b"for", b""))
        if node is None:
            break
        client = node
        if node[0] not in trusted:
            break
    return client, scheme, host


# Yield the elements from the right; None is one that is malformed, and then the last.
#
# A list must be split at commas outside of quotes. From the left that could be upset by whoever wrote the left end:
# after ``for="`` all that proxies add is inside of a quoted string. From the right it cannot. A text is taken for the
# last element if it follows a comma and is an element by the grammar. Such a text cannot lie within the quotes of a
# longer element, because then it would hold an odd number of quotes that count; an element holds an even number.
def _elements(values: Sequence[bytes]) -> Iterator[Pairs | None]:
    seen = 0
    for value in reversed(values):
        end = len(value)
        while end >= 0:
            seen += 1
            if seen > HOPS_MAX:
                return
            begin, commas = end, 0
            while True:
                begin = value.rfind(b",", 0, begin)
                text = value[begin + 1 : end]
                if len(text) > _ELEMENT_MAX_BYTES:
                    yield None
                    return
                if _ELEMENT.fullmatch(text):
                    break
                commas += 1
                if begin < 0 or commas > _COMMAS_MAX:
                    yield None
                    return
            end = begin
            if not text.strip(b" \t"):
                continue
            pairs = _pairs(text)
            yield pairs
            if pairs is None:
                return


def _pairs(element: bytes) -> Pairs | None:
    pairs: Pairs = {}
    for match in _PAIRS.finditer(element):
        name, value = match.groups()
        # Section 4: "The parameter names are case-insensitive", and each "MUST NOT occur more than once per
        # field-value".
        name = name.lower()
        if name in pairs:
            return None
        pairs[name] = _ESCAPED.sub(rb"\1", value[1:-1]) if value[0] == 34 else value
    return pairs


# -- nodes -----------------------------------------------------------------------------------------------

# RFC 7239 section 6:
#   node     = nodename [ ":" node-port ]
#   nodename = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
#   node-port = port / obfport
#   port      = 1*5DIGIT
#   obfport   = "_" 1*(ALPHA / DIGIT / "." / "_" / "-")
# X-Forwarded-For, which nobody has specified, has IPv6 addresses without brackets, too. No zone: it means something on
# the machine of whoever wrote it.
_NODE: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::(?:([0-9]{1,5})|_[0-9A-Za-z._-]{1,64}))?|([0-9A-Fa-f:.]{2,45})"
)


def parse_node(text: bytes) -> Node | None:
    """Return the address and the port of a hop, or None if it names none.

    An IPv6 address comes with brackets or without, in its shortest form (RFC 5952); an IPv4 address that is mapped into
    one is an IPv4 address. The port is None if it is missing or hidden.
    """
    # A longer one is no address, and would be kept.
    return _parsed(text) if len(text) <= 128 else None


@lru_cache(1024)
def _parsed(text: bytes) -> Node | None:
    match = _NODE.fullmatch(text)
    if match is None:
        return None
    bracketed, plain, digits, bare = match.groups()
    try:
        address = ip_address((bracketed or plain or bare).decode("ascii"))
    except ValueError:
        return None
    if bracketed is not None and address.version == 4:
        return None
    port = None
    if digits is not None:
        port = _port_number(digits)
        if port is None:
            return None
    return plain_address(str(address)), port


def _port_number(digits: bytes) -> int | None:
    if not digits.isdigit() or len(digits) > 5:
        return None
    port = int(digits)
    return port if port < 65536 else None


def _checked_host(value: bytes) -> bytes | None:
    return value if value and HOST.fullmatch(value) else None


# -- paths -----------------------------------------------------------------------------------------------


# A dot segment, a second slash at the beginning (which makes a host of what follows it) and controls would make other
# URLs of those that the application builds from its root path.
_BAD_PREFIX: Final = re.compile(r"(?:^|/)\.\.?(?:/|$)|^//.|[\x00-\x1f\x7f-\x9f\\]")


def root_path_of(value: bytes) -> str | None:
    """Return what ``Daphne-Root-Path`` says: percent-decoded, without a slash at the end.

    Invalid UTF-8 becomes U+FFFD, as in the path. None if it can be no prefix of a path. A proxy that does not know this
    header passes it on, and a client could make the application redirect to another host by it.
    """
    path = unquote_to_bytes(value).decode("utf-8", "replace")
    if path and (not path.startswith("/") or _BAD_PREFIX.search(path)):
        return None
    return path.rstrip("/")


def _prefix_of(value: bytes) -> str | None:
    prefix = root_path_of(value)
    return None if not value or prefix is None or "\ufffd" in prefix else prefix

"""HTTP/1.1 request parsing on httptools: the only importer of that library.

llhttp does the lexing and the framing of bodies. What it leaves to its user, and what is checked here:

* sizes: it has no limit of its own on the target, the head, the fields, chunk extensions or trailers;
* Host: missing, repeated or malformed (RFC 9112 section 3.2 asks for 400);
* Transfer-Encoding: ``gzip, chunked``, ``chunked `` with a trailing space and any coding on HTTP/1.0 pass it;
* versions 0.9 and 2.0, methods of RTSP, fragments in the target, a request target that fits no method;
* Expect, and Upgrade, at which llhttp stops before the body. Behind one to ``websocket`` it is not asked again (see
  `_keep`); behind one that the server does not want it has to be set going again (see `_resume`).

One ``feed`` may hold many requests; they come out as `Http1Message` in order. There is no pause inside a feed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

import httptools

from daphne_ng._types import Field
from daphne_ng.config import Config
from daphne_ng.errors import WireError
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.http.fields import (
    COMMON_REQUEST_NAMES,
    HOST,
    METHODS,
    connection_options,
    is_host,
    valid_hosts,
)
from daphne_ng.wire.http.forwarded import root_path_of
from daphne_ng.wire.http1.head_memo import BARREN_MAX, ORDINARY, RememberedHead, remembered
from daphne_ng.wire.http1.message import Http1Message
from daphne_ng.wire.memo import Memo

__all__ = ["Http1Parser"]

# A record of type handshake, version 3.x (RFC 8446 section 5.1).
_TLS_HANDSHAKE: Final = b"\x16\x03"

# llhttp reads connection options from both.
_HOP: Final = frozenset((b"connection", b"proxy-connection"))
_SPECIAL: Final = _HOP | {
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"expect",
    b"upgrade",
    b"te",
    b"daphne-root-path",
}

# Raw field name -> lower-cased name, for those that mean nothing to this server. Bounded, so that a client cannot grow
# it.
_name_memo: Final[Memo[bytes, bytes]] = Memo(
    2048,
    preset={
        name.encode(): lower.encode()
        for common in COMMON_REQUEST_NAMES
        for lower in (common.lower(),)
        for name in (common, lower)
        if lower.encode() not in _SPECIAL
    },
)
_names: Final = _name_memo.known


class Http1Parser:
    """Feeds bytes to llhttp and turns its callbacks into checked messages.

    Args:
        config: The limits.
        messages: Where new messages are appended as soon as their heads are complete.

    After every `feed`, look at the messages, at `wants_pause`, and at `head_pending`.
    """

    __deletable__ = ("_parser",)  # what `let_go` cuts
    __slots__ = (
        "_barren",
        "_config",
        "_fed",
        "_head_done",
        "_headers",
        "_hop",
        "_host",
        "_length",
        "_message",
        "_messages",
        "_muted",
        "_parser",
        "_remembered",
        "_special",
        "_target",
        "_upgraded",
        "discarding",
        "head_pending",
        "rest",
        "switched",
        "wants_pause",
    )

    def __init__(self, config: Config, messages: list[Http1Message]) -> None:
        self._config = config
        self._messages = messages
        self._parser: Any = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[Field] = []
        # Host and Content-Length apart from the other special fields, because hardly a request has any of those.
        self._host: bytes | None = None
        self._length = b""
        self._special: list[Field] = []
        self._head_done = False
        self._hop = False
        self._muted = False
        self._upgraded = False
        self._message: Http1Message | None = None
        self._fed = 0
        # Only while llhttp stands between two messages, since each call of it begins with forgetting.
        self._remembered: RememberedHead | None = None
        # How many heads in a row were remembered in vain.
        self._barren = 0
        self.head_pending = 0
        """Bytes of an incomplete head read so far."""
        self.wants_pause = False
        """A sink asked for a pause in reading."""
        self.discarding = False
        """The body of the current message goes nowhere."""
        self.switched = False
        """The last message asks for an upgrade to ``websocket``: no further bytes are parsed."""
        self.rest = b""
        """What came behind it. `wants_pause` is set with each feed that leaves `Config.inbox_high_bytes` or more."""

    @property
    def method(self) -> bytes:
        """Method of the request being read, for the answer to one that is broken."""
        return bytes(self._parser.get_method())

    # -- feeding -----------------------------------------------------------------------------------------

    # Hot: every read of a connection; a call would cost more than the branches.
    def feed(self, data: bytes) -> None:  # noqa: PLR0912
        """Parse what one read delivered.

        Raises:
            WireError: The bytes break the protocol or a limit. Messages that were complete before stand in the
                list; the parser cannot be used again.
        """
        known = self._remembered
        if known is not None:
            whole = known.take(data)
            if whole is not None:
                self._messages.append(whole)
                self._barren = 0
                return
            self._remembered = None
        message = self._message
        fresh = message is None and not self.head_pending
        self._fed = self.head_pending + len(data)
        if message is not None and message.head.chunked:
            self._count_chunk_overhead(message, len(data))
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                data = data[stop.args[0] :]
                if self.switched or (self._message is not None and self._message.head.websocket):
                    self._keep(data)
                    return
                self._resume()
                if data:
                    continue
            except httptools.HttpParserError as error:
                if data.startswith(_TLS_HANDSHAKE) and self._fed == len(data) and not self._messages:
                    raise WireError(400, "This is TLS; the port speaks plain HTTP.") from None
                raise _violation(error) from None
            break
        if self._message is not None:
            self.head_pending = 0
        elif message is None and not self._messages:
            # Still the same head (or nothing at all yet): every byte of this feed belongs to it. But RFC 9112 section
            # 2.2 lets empty lines stand before a request line; some clients send one after a body. They are no head.
            if not self.head_pending and not data.strip(b"\r\n"):
                return
            if self._fed > self._config.head_max_bytes:
                raise WireError(431, "The request head is too large.")
            self.head_pending = self._fed
        else:
            # A message ended in this feed, and llhttp does not say where; one byte stands for what follows it.
            self.head_pending = 1 if self._target else 0
            messages = self._messages
            if fresh and self._barren < BARREN_MAX and len(messages) == 1 and messages[0].ordinary and not self._target:
                self._barren += 1
                self._remembered = remembered(data, messages[0].head, self._config)
        self._head_done = self._message is not None

    def forget(self) -> None:
        """Give back what is remembered of the last request, and begin to remember again if that was in vain."""
        self._remembered = None
        self._barren = 0

    def let_go(self) -> None:
        """Cut what refers back here: no further call will come."""
        del self._parser

    def _count_chunk_overhead(self, message: Http1Message, count: int) -> None:
        # llhttp swallows chunk extensions without a callback, so they are seen as the difference between what was
        # read and what came out as body. Chunks of a single byte need five for each; those are granted, or a client
        # that streams short lines for hours would be refused in the end.
        message.chunk_raw_bytes += count
        overhead = message.chunk_raw_bytes - count - message.body_bytes
        if overhead > self._config.chunk_overhead_max_bytes + 5 * message.body_bytes:
            raise WireError(400, "The chunked body is mostly framing.")

    def _keep(self, data: bytes) -> None:
        # The bytes behind an upgrade are of the other protocol, whether the upgrade comes about or not. It is not
        # agreed on yet, so they wait.
        if not self.switched:
            message = self._message
            assert message is not None  # llhttp stopped at the end of its head
            self._message = None
            # A body would stand in the rest, but such a handshake is refused.
            message.ended = True
            self.switched = True
            self._parser = _Stopped()
            self.head_pending = 0
        self.rest += data
        if len(self.rest) >= self._config.inbox_high_bytes:
            self.wants_pause = True

    def _resume(self) -> None:
        # llhttp stops at any Upgrade that the Connection field lists and leaves the body unparsed. We did not
        # upgrade, so what follows is an ordinary body: a fresh parser is told its framing, and nothing else.
        message = self._message
        self._parser = httptools.HttpRequestParser(self)
        if message is None:
            return
        self._upgraded = False
        head = message.head
        if head.content_length == 0:
            self.on_message_complete()
            return
        self._muted = True
        framing = b"Transfer-Encoding: chunked" if head.chunked else b"Content-Length: %d" % head.content_length
        self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")

    # -- callbacks from llhttp ---------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Collect the request target, which may come in pieces."""
        if self._muted:
            return
        if self._target:
            url = self._target + url
        else:
            self._head_done = False
        if len(url) > self._config.request_line_max_bytes:
            raise WireError(414, "The request target is too long.")
        self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field, or after the head a trailer field."""
        if self._head_done:
            self._on_trailer(name, value)
            return
        if value and value[-1] <= 32:
            value = value.rstrip(b" \t")
        lower = _names.get(name)
        if lower is None:
            # The usual spellings, for the sake of a call.
            if name == b"Host" and self._host is None:
                self._host = value
                lower = b"host"
            elif name == b"Content-Length":
                self._length = value
                lower = b"content-length"
            else:
                lower = self._on_rare(name, value)
                if not lower:
                    return
        self._headers.append((lower, value))

    # A field that means something here, or whose name is new. Returns its name, or nothing to drop it.
    def _on_rare(self, name: bytes, value: bytes) -> bytes:
        lower = name.lower()
        if lower in _SPECIAL:
            if lower == b"host" and self._host is None:
                self._host = value
                return lower
            if lower == b"content-length":
                self._length = value
                return lower
            self._special.append((lower, value))
            if lower in _HOP:
                self._hop = True
            return b"" if lower == b"daphne-root-path" else lower
        # A field name with "_" would reach WSGI-style environments as the same variable as its spelling with "-"
        # (CVE-2015-0219): dropped, as Daphne does.
        if b"_" in name:
            return b""
        _name_memo.remember(name, lower, len(name))
        return lower

    # In one piece: once for each request, and each call costs it about 60 ns.
    def on_headers_complete(self) -> None:  # noqa: C901, PLR0912, PLR0915
        """Check the head, and make a message of it."""
        if self._muted:
            self._muted = False
            self._head_done = True
            return
        config = self._config
        headers = self._headers
        if len(headers) > config.head_max_fields:
            raise WireError(431, "The request has too many header fields.")
        if self._fed > config.head_max_bytes:
            size = len(self._target) + 16 + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > config.head_max_bytes:
                raise WireError(431, "The request head is too large.")

        head = RequestHead()
        parser = self._parser
        special = self._special
        if parser.should_keep_alive() and not self._hop:
            # Without a connection option to go by, that is how llhttp says HTTP/1.1. Asking for the version itself
            # builds a string each time.
            head.keep_alive = True
        else:
            version = head.http_version = parser.get_http_version()
            if version == "1.1":
                head.keep_alive = True
            elif version != "1.0":
                raise WireError(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
            self._hop = False
        if self._length:
            head.content_length = int(self._length)  # llhttp let digits through only, once, below 2**64
            self._length = b""
        host = self._host
        if special or host not in valid_hosts:
            self._apply_special(head, host)
        method = METHODS.get(parser.get_method())
        if method is None:
            raise WireError(501, "The method is not implemented.")
        head.method = method
        head.headers = headers
        target = head.target = self._target
        if 35 in target:  # "#"
            raise WireError(400, "The request target holds a fragment.")
        if 63 in target:  # "?"
            raw_path, _mark, head.query_string = target.partition(b"?")
        else:
            raw_path = target
        if raw_path[0] != 47:  # "/"
            raw_path = _path_of_other_form(head, raw_path, raw_path is not target, host)
        head.raw_path = raw_path
        path = raw_path.decode("ascii")
        head.path = unquote(path) if "%" in path else path

        if config.body_max_bytes and head.content_length > config.body_max_bytes:
            raise WireError(413, "The request body is too large.")

        self._message = message = Http1Message(head)
        if not special or ORDINARY.issuperset(special):
            message.ordinary = True
        self._messages.append(message)
        self._head_done = True
        self._target = b""
        self._headers = []
        self._host = None
        if special:
            self._special = []
        self.discarding = False

    def on_body(self, data: bytes) -> None:
        """Hand a part of the body on."""
        message = self._message
        assert message is not None  # llhttp fires it between the head and the end of a message only
        message.body_bytes += len(data)
        limit = self._config.body_max_bytes
        if limit and message.body_bytes > limit:
            raise WireError(413, "The request body is too large.")
        if message.sink is not None:
            if message.sink.body_received(data):
                self.wants_pause = True
        elif not self.discarding:
            message.add_part(data)

    def on_message_complete(self) -> None:
        """End the message."""
        if self._upgraded:
            return
        message = self._message
        assert message is not None  # the head came first
        self._message = None
        message.ended = True
        if message.sink is not None:
            message.sink.body_ended(message.trailers)

    def _on_trailer(self, name: bytes, value: bytes) -> None:
        if self._muted:
            return
        message = self._message
        assert message is not None  # trailers end a message
        message.trailer_bytes += len(name) + len(value) + 4
        if (
            message.trailer_bytes > self._config.trailer_max_bytes
            or len(message.trailers) >= self._config.trailer_max_fields
        ):
            raise WireError(431, "The trailer section is too large.")
        message.trailers = [*message.trailers, (name.lower(), value.rstrip(b" \t"))]

    # -- fields that decide about framing and the connection ---------------------------------------------

    # Check Host, and apply the special fields to the head.
    def _apply_special(self, head: RequestHead, host: bytes | None) -> None:
        if host is not None and host not in valid_hosts and not is_host(host):
            raise WireError(400, "The Host is malformed.")
        upgrade: bytes | None = None
        options: set[bytes] = set()
        for name, value in self._special:
            if name == b"connection":
                options |= connection_options(value)
            elif name == b"upgrade":
                upgrade = value if upgrade is None else upgrade + b", " + value
            elif name in _APPLY:
                _APPLY[name](head, value)
        if host is None and head.http_version == "1.1" and self._config.require_host:
            raise WireError(400, "The request has no Host.")
        if options:
            _apply_connection(head, options)
        if upgrade is not None:
            # Asked of llhttp itself: where it stops must not depend on our reading of the fields. It heeds
            # Proxy-Connection and HTTP/1.0, too.
            self._upgraded = self._parser.should_upgrade()
            # RFC 9110 section 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0
            # request."
            if b"upgrade" in options and head.http_version == "1.1":
                self._apply_upgrade(head, upgrade)
        if head.expects_continue and head.content_length == 0:
            head.expects_continue = False

    def _apply_upgrade(self, head: RequestHead, upgrade: bytes) -> None:
        head.upgrade = upgrade
        if b"websocket" not in connection_options(upgrade):  # a list of the same form
            return
        if not self._upgraded:
            # What follows would be parsed as HTTP by llhttp, and taken for WebSocket frames by us.
            raise WireError(400, "The Connection field is malformed.")
        head.websocket = True
        head.keep_alive = False


class _Stopped:
    """Stands in for llhttp behind an upgrade: stops before each first byte."""

    def feed_data(self, data: bytes) -> None:
        """Take nothing."""
        raise httptools.HttpParserUpgrade(0)

    def get_method(self) -> bytes:
        """There is no request being read."""
        return b""


def _refuse_second_host(head: RequestHead, value: bytes) -> None:
    raise WireError(400, "The request has more than one Host.")


def _apply_transfer_encoding(head: RequestHead, value: bytes) -> None:
    # RFC 9112 section 6.1: "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding
    # header field MUST treat the message as if the framing is faulty" - and 501 for a coding not understood.
    if head.http_version == "1.0":
        raise WireError(400, "HTTP/1.0 has no Transfer-Encoding.")
    if head.chunked:
        raise WireError(400, "The request has more than one Transfer-Encoding.")
    if value.lower() != b"chunked":
        raise WireError(501, "Only the chunked transfer coding is implemented.")
    head.chunked = True
    head.content_length = -1


def _apply_expect(head: RequestHead, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise WireError(417, "Only 100-continue can be expected.")
    # RFC 9110 section 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore
    # that expectation."
    head.expects_continue = head.http_version == "1.1"


def _apply_te(head: RequestHead, value: bytes) -> None:
    head.accepts_trailers |= b"trailers" in connection_options(value)


def _apply_root_path(head: RequestHead, value: bytes) -> None:
    head.root_path = root_path_of(value)


def _apply_connection(head: RequestHead, options: set[bytes]) -> None:
    if b"close" in options:
        head.keep_alive = False
    elif head.http_version == "1.0":
        head.keep_alive = b"keep-alive" in options


# Name -> what such a field does to a head, by itself. Connection and Upgrade are read together, and Proxy-Connection is
# llhttp's alone.
_APPLY: Final[dict[bytes, Callable[[RequestHead, bytes], None]]] = {
    b"host": _refuse_second_host,
    b"transfer-encoding": _apply_transfer_encoding,
    b"expect": _apply_expect,
    b"te": _apply_te,
    b"daphne-root-path": _apply_root_path,
}


# Return the path of an absolute-form or asterisk-form target (RFC 9112 section 3.2.2 and 3.2.4).
def _path_of_other_form(head: RequestHead, raw_path: bytes, has_query: bool, host: bytes | None) -> bytes:
    if raw_path == b"*" and head.method == "OPTIONS" and not has_query:
        return raw_path
    scheme, mark, rest = raw_path.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        raise WireError(400, "The request target has no form that this method allows.")
    authority, slash, path = rest.partition(b"/")
    if not authority or not HOST.fullmatch(authority):
        raise WireError(400, "The authority of the request target is malformed.")
    # The target wins over Host by the RFC. A proxy in front that looked at Host alone would have routed
    # another request than the one that we serve, so a disagreement is refused.
    if host is not None and host.lower() != authority.lower():
        raise WireError(400, "The Host and the request target disagree.")
    if host is None:
        head.headers.insert(0, (b"host", authority))
    return slash + path if slash else b"/"


def _violation(error: httptools.HttpParserError) -> WireError:
    if isinstance(error, httptools.HttpParserCallbackError):
        cause = error.__context__
        if isinstance(cause, WireError):
            return cause
        raise error  # a defect of ours: let the connection log it with its traceback
    cause = error.__context__
    if isinstance(cause, WireError):
        return cause
    text = str(error)
    if isinstance(error, httptools.HttpParserInvalidMethodError) or text.startswith("Invalid method for "):
        return WireError(501, "The method is not implemented.")
    if text == "Invalid HTTP version":
        return WireError(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if text == "Content-Length overflow" or text == "Chunk size overflow":
        return WireError(413, "The request body is too large.")
    if "Transfer-Encoding" in text and "invalid" in text.lower() and "present" not in text:
        return WireError(400, "The Transfer-Encoding is invalid.")
    return WireError(400, "The request is malformed.")

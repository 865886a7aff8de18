r"""What stood behind the last request line of a connection, so that the same again is not parsed again.

Theory of operation
-------------------

Most requests of a client differ in their first line alone. What follows it up to the body, from the line end of the
request line to the empty line, is here called the *block*. When the parser stands between two messages, and what it is
given is a request line, the remembered block and a body of the length that the block says, then llhttp and all checks
would come to the same as they did for the last request, but for the line.

1. A block is remembered only when llhttp and every check have let it pass, in a read that began and ended with its
   request (`remembered`). So the block is known byte by byte, and it is known that llhttp stands between messages.
2. Only ordinary requests are remembered: HTTP/1.1, kept alive, and with no special field but those in `ORDINARY`.
   Nothing of what such a block does depends on the request line.
3. A request line has to be one of `_REQUEST_LINE`, which is less than llhttp lets through. What it says is a function
   of its bytes alone.
4. One byte that differs, a limit that may be reached, a read that ends elsewhere: llhttp judges. Whenever it is
   asked, the block is forgotten, for then another request is the last one.

A connection holds one block, which is bounded: by `_BLOCK_MAX_BYTES`, by `_FIELDS_MAX`, and in time by
`Config.head_memo_timeout`. No block is shared between connections, for cookies and tokens stand in it. Request lines
are shared, in a `Memo` with its bounds.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from daphne_ng._types import Field
from daphne_ng.config import Config
from daphne_ng.port.head import RequestHead
from daphne_ng.wire.http1.message import Http1Message
from daphne_ng.wire.memo import Memo

__all__ = ["BARREN_MAX", "ORDINARY", "RememberedHead", "remembered"]

ORDINARY: Final = frozenset(((b"connection", b"keep-alive"), (b"connection", b"Keep-Alive")))
"""The special fields of an ordinary request, besides one Host and Content-Length. In HTTP/1.1 they change nothing."""

BARREN_MAX: Final = 3
"""After how many heads in a row that were remembered in vain a connection stops to, until its timer fires next: proxies
that send a new X-Request-ID with each request would pay a tenth of a request for each."""

# A connection holds the block, and the fields that were made of it, which come to about twice that. It may hold an
# incomplete head of `Config.head_max_bytes` anyway, which is more. Browsers send 1 KiB, and as much again in cookies.
_BLOCK_MAX_BYTES: Final = 4096
_FIELDS_MAX: Final = 64

# Origin form (RFC 9112 section 3.2.1), with the characters of RFC 3986 sections 3.3 and 3.4. HEAD is left to llhttp: an
# error behind it is answered without a body, and llhttp is asked for the method then.
_REQUEST_LINE: Final = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE|OPTIONS) ((/[\w\-.~%!$&'()*+,;=:@/]*)(?:\?([\w\-.~%!$&'()*+,;=:@/?]*))?) HTTP/1\.1"
)

# A request line -> method, target, raw path, path and query.
_Line = tuple[str, bytes, bytes, str, bytes]
_line_memo: Final[Memo[bytes, _Line]] = Memo(1024, longest=256)
_lines: Final = _line_memo.known


class RememberedHead:
    """The block of an ordinary request, and what was made of it.

    Args:
        block: From the line end of the request line to the empty line.
        head: The request.
        line_max_bytes: The longest request line with which no limit can be reached.
    """

    __slots__ = ("_block", "_content_length", "_fields", "_line_max_bytes", "_size")

    def __init__(self, block: bytes, head: RequestHead, line_max_bytes: int) -> None:
        self._block = block
        self._fields: tuple[Field, ...] = tuple(head.headers)  # the application may change the list
        self._content_length = head.content_length
        self._line_max_bytes = line_max_bytes
        # Everything behind the request line.
        self._size = len(block) + head.content_length

    def take(self, data: bytes) -> Http1Message | None:
        """Return the whole request that a read holds; None if llhttp has to judge it."""
        at = len(data) - self._size
        if at <= 0 or at > self._line_max_bytes or not data.startswith(self._block, at):
            return None
        line = data[:at]
        told = _lines.get(line) or _read(line)
        if told is None:
            return None
        head = RequestHead()
        head.method, head.target, head.raw_path, head.path, head.query_string = told
        head.headers = [*self._fields]
        head.keep_alive = True
        message = Http1Message(head)
        message.ended = True
        length = self._content_length
        if length:
            head.content_length = message.body_bytes = length
            message.parts = [data[-length:]]
        return message


def remembered(data: bytes, head: RequestHead, config: Config) -> RememberedHead | None:
    """Return what there is to remember of a request that is ordinary and whole; None for nothing.

    Args:
        data: One read, which began with the request. llhttp has found its end, and the beginning of no other target.
        head: The request: not chunked, with no special fields but `ORDINARY` ones.
        config: The limits, which the request has kept.
    """
    if not config.head_memo_timeout:
        return None
    end = len(data) - head.content_length
    at = data.find(b"\r\n")
    size = end - at
    if size > _BLOCK_MAX_BYTES or len(head.headers) > _FIELDS_MAX or data.find(b"\r\n\r\n", at) != end - 4:
        return None  # the last: something else stands behind the request, or before it
    line = data[:at]
    if line not in _lines and _read(line) is None:
        return None
    # The parser counts the body too that comes with the head, before it looks closer.
    line_max_bytes = min(config.request_line_max_bytes, config.head_max_bytes - size - head.content_length)
    return RememberedHead(data[at:end], head, line_max_bytes)


# What a request line says; None if llhttp has to judge it.
def _read(line: bytes) -> _Line | None:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        return None
    method, target, raw_path, query = match.groups()
    path = raw_path.decode("ascii")
    told = (method.decode("ascii"), target, raw_path, unquote(path) if "%" in path else path, query or b"")
    _line_memo.remember(line, told, len(line))
    return told

"""A request head, as every protocol hands it to the bridge."""

from __future__ import annotations

from daphne_ng._types import Field

__all__ = ["RequestHead"]


class RequestHead:
    """What a request says before its body.

    Plain attributes, filled by the parser of the protocol; nothing here changes once the request has begun. What most
    requests do not have is a default on the class, so that it costs them nothing.
    """

    method: str
    """Upper-case method."""
    target: bytes
    """The request target as received, for the access log."""
    path: str
    """Percent-decoded path; invalid UTF-8 becomes U+FFFD."""
    raw_path: bytes
    """The path as received, without the query."""
    query_string: bytes = b""
    """What follows the first ``?``, still encoded."""
    headers: list[Field]
    """Field lines in order, names lower-cased, names with ``_`` dropped."""
    http_version: str = "1.1"
    """``1.0``, ``1.1`` or ``2``."""
    keep_alive: bool = False
    """Whether the client allows another request on this connection."""
    content_length: int = 0
    """Announced length of the body in bytes; 0 without a body, -1 if only its end will tell."""
    chunked: bool = False
    """Whether the body is framed by the chunked coding."""
    expects_continue: bool = False
    """Whether the client waits for 100 Continue before it sends the body."""
    accepts_trailers: bool = False
    """Whether the client sent ``TE: trailers``."""
    root_path: str | None = None
    """What ``Daphne-Root-Path`` says, decoded; to be believed only from a trusted peer."""
    upgrade: bytes | None = None
    """Value of the Upgrade field, if the Connection field lists it and the version is 1.1."""
    websocket: bool = False
    """Whether the request asks for an upgrade to ``websocket``: nothing behind it is HTTP."""

"""How an HTTP/2 connection begins, and how one that is not wanted ends (RFC 9113 sections 3.4 and 6.8)."""

from __future__ import annotations

from typing import Final

from daphne_ng.wire.http2.frames import SETTINGS, frame_header, goaway_frame

__all__ = ["PREFACE", "refusal"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client. No HTTP/1.1 request begins so: ``PRI`` is reserved for it (RFC 9113 section 11.6)."""

# An empty SETTINGS frame: "The server connection preface consists of a potentially empty SETTINGS frame that MUST be
# the first frame the server sends" (RFC 9113 section 3.4).
_EMPTY_SETTINGS: Final = frame_header(0, SETTINGS, 0, 0)


def refusal(code: int, detail: str) -> bytes:
    """Return all that a connection sends which serves no stream: the preface, and GOAWAY.

    The last stream named is 0, from which a client knows that none of its requests was touched and that it may send
    them again elsewhere (RFC 9113 section 6.8).

    Args:
        code: The HTTP/2 error code.
        detail: For the developer of the client, in ASCII.
    """
    return _EMPTY_SETTINGS + goaway_frame(0, code, detail)

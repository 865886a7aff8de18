"""How an HTTP/2 connection begins, and how one that is not wanted ends (RFC 9113 sections 3.4 and 6.8)."""

from __future__ import annotations

__all__ = ["INADEQUATE_SECURITY", "NO_ERROR", "PREFACE", "refusal"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every client sends first. No HTTP/1.1 request begins so: ``PRI`` is reserved for it (RFC 9113 section 11.6)."""

NO_ERROR = 0x0
INADEQUATE_SECURITY = 0xC

# An empty SETTINGS frame: "The server connection preface consists of a potentially empty SETTINGS frame that MUST be
# the first frame the server sends" (RFC 9113 section 3.4).
_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


def refusal(code: int, detail: str) -> bytes:
    """Return all that a connection sends which serves no stream: the preface, and GOAWAY.

    The last stream named is 0, from which a client knows that none of its requests was touched and that it may send
    them again elsewhere (RFC 9113 section 6.8).

    Args:
        code: The HTTP/2 error code.
        detail: For who debugs the client, in ASCII.
    """
    debug = detail.encode("ascii")
    return b"%b%b\x07\0\0\0\0\0\0\0\0\0%b%b" % (
        _SETTINGS,
        (8 + len(debug)).to_bytes(3, "big"),
        code.to_bytes(4, "big"),
        debug,
    )

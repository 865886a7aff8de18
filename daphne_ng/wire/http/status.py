"""Status lines of HTTP/1.1, built once, and what a status says of the body."""

from __future__ import annotations

from typing import Final

from daphne_ng.port.answers import REASONS

__all__ = ["STATUS_LINES", "bodiless_status", "status_line"]

STATUS_LINES: Final[dict[int, bytes]] = {
    status: b"HTTP/1.1 %d %s" % (status, reason.encode("ascii")) for status, reason in REASONS.items()
}
"""Status lines of the registered codes, without their line ends."""


def status_line(status: int) -> bytes:
    """Return the status line without its line end; unregistered codes get an empty reason phrase."""
    line = STATUS_LINES.get(status)
    return b"HTTP/1.1 %d " % status if line is None else line


def bodiless_status(status: int) -> bool:
    """Tell whether responses with this status end with their head (RFC 9112 section 6.3)."""
    return status == 204 or status == 304 or status < 200

"""Status lines and reason phrases (RFC 9110 section 15), built once."""

from __future__ import annotations

from http import HTTPStatus

__all__ = ["STATUS_LINES", "bodiless_status", "reason_phrase", "status_line"]

_REASONS = {int(status): status.phrase for status in HTTPStatus}
# Names that RFC 9110 changed after some of the Python versions we run on were frozen.
_REASONS.update({413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"})

STATUS_LINES: dict[int, bytes] = {
    status: b"HTTP/1.1 %d %s" % (status, reason.encode("ascii")) for status, reason in _REASONS.items()
}
"""Status lines of the registered codes, without their line ends."""


def reason_phrase(status: int) -> str:
    """Return the registered reason phrase, or the empty string."""
    return _REASONS.get(status, "")


def status_line(status: int) -> bytes:
    """Return the status line without its line end; unregistered codes get an empty reason phrase."""
    line = STATUS_LINES.get(status)
    return b"HTTP/1.1 %d " % status if line is None else line


def bodiless_status(status: int) -> bool:
    """Tell whether responses with this status end with their head (RFC 9112 section 6.3)."""
    return status == 204 or status == 304 or status < 200

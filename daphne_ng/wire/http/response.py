"""What the versions of HTTP share about responses: what frames a body (RFC 9112 section 6, RFC 9113 section 8.1)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Final

from daphne_ng.errors import BodyLengthMismatch
from daphne_ng.wire.http.status import bodiless_status

__all__ = [
    "CHUNKED",
    "END_STREAM",
    "FRAMING",
    "LENGTH",
    "NO_BODY",
    "UNSTARTED",
    "UNTIL_CLOSE",
    "is_bodiless",
    "overlong_body",
]

# How the end of a response body shows to the client. Plain integers: they are compared three times for each response.
UNSTARTED: Final = 0  # there is no response yet
NO_BODY: Final = 1  # it is the end of the head
LENGTH: Final = 2  # the Content-Length tells
CHUNKED: Final = 3  # a last chunk tells
END_STREAM: Final = 4  # a flag of the last frame tells
UNTIL_CLOSE: Final = 5  # the connection ends with it

FRAMING: Final[Mapping[tuple[bool, bool, bool, str], int]] = {
    **{(True, *rest): NO_BODY for rest in product((False, True), (False, True), ("1.0", "1.1", "2"))},
    **{(False, True, *rest): LENGTH for rest in product((False, True), ("1.0", "1.1", "2"))},
    **{(False, False, True, version): LENGTH for version in ("1.0", "1.1", "2")},
    (False, False, False, "1.0"): UNTIL_CLOSE,
    (False, False, False, "1.1"): CHUNKED,
    (False, False, False, "2"): END_STREAM,
}
"""(see `is_bodiless`, the application gave a Content-Length, the body is here whole, HTTP version) -> what frames it.

Where the body is whole and the application gave no length, the server adds one.
"""


def is_bodiless(method: str, status: int) -> bool:
    """Tell whether the response has no body, whatever the application sends as one (RFC 9112 section 6.3)."""
    return method == "HEAD" or bodiless_status(status)


def overlong_body(excess: int) -> BodyLengthMismatch:
    """Return what to raise for a body of which so many bytes were cut off."""
    return BodyLengthMismatch(f"the body is {excess} bytes longer than its Content-Length; the excess was cut")

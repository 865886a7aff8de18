"""Conditional requests (RFC 9110 section 13): what a client has already, and whether that is still right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate, mktime_tz, parsedate_tz
from typing import Final

__all__ = ["FAILED", "NOT_MODIFIED", "PROCEED", "Validators", "evaluate", "range_applies"]

PROCEED: Final = 200
NOT_MODIFIED: Final = 304
FAILED: Final = 412

_ETAG: Final = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_LATEST: Final = 253402300799  # the last second of the year 9999, which HTTP-date ends with


class Validators:
    """Entity tag and time of a representation.

    The tag is weak as long as the file may change within the resolution of its own time (RFC 9110 section 8.8.1): for
    one second. Then it is the same tag, and strong.

    Args:
        size: Of the representation, in bytes.
        modified_ns: When it was changed, in nanoseconds since the epoch.
        suffix: Tells the representations of one file apart, such as ``-br``.
        now: Seconds since the epoch.
    """

    __slots__ = ("etag", "last_modified", "modified", "opaque", "strong")

    def __init__(self, size: int, modified_ns: int, suffix: bytes, now: float) -> None:
        self.modified = modified = modified_ns // 1_000_000_000
        self.strong = modified < now - 1
        self.opaque = b'"%x-%x%b"' % (abs(modified_ns), size, suffix)
        self.etag = self.opaque if self.strong else b"W/" + self.opaque
        # RFC 9110 section 8.8.2.1: no time that lies in the future.
        known = 0 <= modified <= min(now, _LATEST)
        self.last_modified = formatdate(modified, usegmt=True).encode("ascii") if known else None


def evaluate(fields: Mapping[bytes, bytes], validators: Validators) -> int:
    """Return `PROCEED`, `NOT_MODIFIED` or `FAILED` for a GET or HEAD, in the order of RFC 9110 section 13.2.2."""
    value = fields.get(b"if-match")
    if value is not None:
        if not _matches(value, validators, strongly=True):
            return FAILED
    else:
        value = fields.get(b"if-unmodified-since")
        if value is not None:
            since = _seconds_of(value)
            if since is not None and validators.last_modified is not None and validators.modified > since:
                return FAILED
    value = fields.get(b"if-none-match")
    if value is not None:
        return NOT_MODIFIED if _matches(value, validators, strongly=False) else PROCEED
    value = fields.get(b"if-modified-since")
    if value is not None and validators.last_modified is not None:
        if value == validators.last_modified:
            return NOT_MODIFIED
        since = _seconds_of(value)
        if since is not None and validators.modified <= since:
            return NOT_MODIFIED
    return PROCEED


def range_applies(value: bytes | None, validators: Validators) -> bool:
    """Tell whether a Range counts, by the value of If-Range, which asks for a strong validator (section 13.1.5)."""
    if value is None:
        return True
    return validators.strong and value in (validators.opaque, validators.last_modified)


def _matches(value: bytes, validators: Validators, *, strongly: bool) -> bool:
    if value.strip() == b"*":
        return True
    if validators.opaque not in value or (strongly and not validators.strong):
        return False
    return any(
        found[1] == validators.opaque and not (strongly and found[0].startswith(b"W/"))
        for found in _ETAG.finditer(value)
    )


# The seconds of an HTTP-date; None for what is none, which is to be ignored.
def _seconds_of(value: bytes) -> int | None:
    try:
        parts = parsedate_tz(value.decode("ascii"))
        return None if parts is None else mktime_tz(parts)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None

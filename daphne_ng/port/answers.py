"""Answers of the server itself: a status, its reason phrase, and plain text for a reader.

They are ground, because both sides of the port give them: a protocol answers a broken request, the bridge stands in for
an application that failed.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from daphne_ng._types import Field, Fields

__all__ = ["CLIENT_LEFT", "REASONS", "error_answer", "error_text", "reason_phrase"]

CLIENT_LEFT: Final = 499
"""The status of a request whose client has left, or whose stream has ended, before a response began; never sent.

It is nginx's, which tools that read access logs know. Action loggers that were written for Daphne compare the status
with numbers: Daphne does not call them for such a request.
"""

REASONS: Final = {int(status): status.phrase for status in HTTPStatus}
"""Reason phrases of the registered statuses (RFC 9110 section 15)."""
# Names that RFC 9110 changed after some of the Python versions we run on were frozen.
REASONS.update({413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"})

_PLAIN_TEXT: Final[Field] = (b"content-type", b"text/plain; charset=utf-8")


def reason_phrase(status: int) -> str:
    """Return the registered reason phrase, or the empty string."""
    return REASONS.get(status, "")


def error_text(status: int, detail: str) -> bytes:
    """Return the body of an answer: a line with the status, and a line with the detail unless it is empty.

    Args:
        status: The status of the answer.
        detail: A sentence in ASCII.
    """
    line = f"{status} {reason_phrase(status)}\n"
    return (f"{line}{detail}\n" if detail else line).encode("ascii")


def error_answer(status: int, detail: str, headers: Fields = ()) -> tuple[list[Field], bytes]:
    """Return the fields and the body of an answer, without those that frame it.

    Args:
        status: The status of the answer.
        detail: A sentence in ASCII, or empty.
        headers: Further fields.
    """
    return [_PLAIN_TEXT, *headers], error_text(status, detail)

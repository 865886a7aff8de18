"""The settings of responses: the fields that the server adds."""

from __future__ import annotations

import re

from daphne_ng.config.setting import TOKEN, SettingGroup, setting
from daphne_ng.errors import ConfigurationError

__all__ = ["ResponseSettings"]

# Fields whose value follows from the response and the connection.
_OWN_FIELDS = (b"content-length", b"transfer-encoding", b"connection", b"date")


def _check_server_name(label: str, value: str) -> None:
    try:
        encoded = value.encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigurationError(f"{label} must be Latin-1 text") from None
    if re.search(rb"[\x00-\x1f\x7f]", encoded):
        raise ConfigurationError(f"{label} must not hold control characters")


def _check_headers(label: str, value: tuple[tuple[bytes, bytes], ...]) -> None:
    for name, content in value:
        shown = name.decode("latin-1")
        if not TOKEN.fullmatch(name):
            raise ConfigurationError(f"{label}: {shown!r} is not a header name")
        if re.search(rb"[\x00\r\n]", content):
            raise ConfigurationError(f"{label}: the value of {shown} holds a control character")
        if name.lower() in _OWN_FIELDS:
            raise ConfigurationError(f"{label}: {shown} is the server's own to set")


class ResponseSettings(SettingGroup, heading="Responses"):
    """Fields that the server adds to responses."""

    server_name = setting(
        "daphne",
        "value of the Server response header",
        flags=("-s", "--server-name"),
        why="Daphne's own default; monitoring matches on it.",
        check=_check_server_name,
    )
    headers = setting(
        (),
        "a response header to add unless the application set it, as NAME:VALUE; may be repeated",
        flags=("--header",),
        kind="headers",
        check=_check_headers,
    )
    date_header = setting(
        True,
        "send no Date header",
        flags=("--no-date-header",),
        kind="no-flag",
        why="RFC 9110 section 6.6.1 asks every origin server with a clock to send it.",
    )
    http1_early_hints = setting(
        False,
        "send 103 Early Hints over HTTP/1.1 too",
        why="A proxy that does not know 103 may take it for the final response, so it is off.",
    )

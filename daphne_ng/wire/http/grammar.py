"""The parts of the HTTP grammar that we check ourselves, beside the rules they come from."""

from __future__ import annotations

import re

__all__ = ["HOST", "TOKEN", "connection_options"]

# RFC 9110 section 5.6.2:
#   token = 1*tchar
#   tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~" / DIGIT / ALPHA
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# RFC 9112 section 3.2 with RFC 3986 section 3.2.2:
#   Host = uri-host [ ":" port ]
#   uri-host = IP-literal / IPv4address / reg-name
#   reg-name = *( unreserved / pct-encoded / sub-delims )
# An empty field value is legal ("If the authority component is missing ... a client MUST send a Host header
# field with an empty field value"). Characters such as "/", "?", "#" and "@" are what makes a forged Host
# change the meaning of a URL that an application builds from it.
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[0-9A-Za-z\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?")


def connection_options(value: bytes) -> set[bytes]:
    """Split a Connection field value into its lower-cased options (RFC 9110 section 7.6.1)."""
    return {option.strip(b" \t") for option in value.lower().split(b",")}

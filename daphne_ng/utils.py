"""Daphne's ``utils``, for code that imports from there. Nothing in daphne-ng uses it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["HEADER_NAME_RE", "INVALID_HEADER_VALUE_BYTES", "header_value", "import_by_path", "parse_x_forwarded_for"]

HEADER_NAME_RE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A field name: RFC 9110 section 5.6.2, ``token``. For ``fullmatch``."""

INVALID_HEADER_VALUE_BYTES = frozenset((0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85))
"""The bytes besides CR and LF at which `str.splitlines` would break a field value."""


def import_by_path(path: str) -> Any:
    """Return what ``module:attribute.attribute`` names.

    Raises:
        ValueError: There is no colon.
        ImportError: The module cannot be imported.
        AttributeError: The module has no such attribute.
    """
    module_name, attributes = path.split(":", 1)
    target: Any = importlib.import_module(module_name)
    for name in attributes.split("."):
        target = getattr(target, name)
    return target


def header_value(headers: Mapping[bytes, bytes | list[bytes]], header_name: bytes) -> str:
    """Return the value of a header, the first one if it is a list, as text."""
    value = headers[header_name]
    return (value[0] if isinstance(value, list) else value).decode("utf-8")


def parse_x_forwarded_for(
    headers: Any,
    address_header_name: str | None = "X-Forwarded-For",
    port_header_name: str | None = "X-Forwarded-Port",
    proto_header_name: str | None = "X-Forwarded-Proto",
    original_addr: Sequence[Any] | None = None,
    original_scheme: str | None = None,
) -> tuple[Sequence[Any] | None, str | None]:
    """Return the client's ``[address, port]`` and scheme as forwarding headers claim them.

    The *first* address counts, whoever wrote it. The server itself does not believe that (it reads from the right,
    and only what trusted proxies say); this function is what Daphne has.

    Args:
        headers: Twisted's ``Headers``, or a mapping of names to a value or a list of values, all bytes.
        address_header_name: Without it, or without the header, the originals are returned.
        port_header_name: Only read beside an address; a port that is no number becomes 0.
        proto_header_name: Only read beside an address.
        original_addr: What to return for the address when there is none.
        original_scheme: What to return for the scheme when there is none.
    """
    if not address_header_name:
        return original_addr, original_scheme
    pairs = headers.getAllRawHeaders() if hasattr(headers, "getAllRawHeaders") else headers.items()
    fields: dict[bytes, bytes | list[bytes]] = {}
    for name, value in pairs:
        assert isinstance(name, bytes), "header names are bytes"
        fields[name.lower()] = value

    def read(name: str | None) -> str | None:
        key = name.lower().encode("utf-8") if name else b""
        return header_value(fields, key) if key in fields else None

    address = read(address_header_name)
    if address is None:
        return original_addr, original_scheme
    if "," in address:
        address = address.split(",", 1)[0].strip()
    port = 0
    claimed_port = read(port_header_name)
    if claimed_port is not None:
        try:
            port = int(claimed_port)
        except ValueError:
            port = 0
    scheme = read(proto_header_name)
    return [address, port], original_scheme if scheme is None else scheme

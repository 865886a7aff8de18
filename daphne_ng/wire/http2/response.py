"""Response heads of HTTP/2 as encoded blocks, from the fields of applications and our own."""

from __future__ import annotations

from typing import Final

from daphne_ng._types import Headers
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http.fields import check_trailers
from daphne_ng.wire.http2.hpack import encode_fields

__all__ = ["default_block", "length_line", "trailer_block"]

# Small bodies come again and again in the same few sizes.
_LENGTHS: Final = tuple(encode_fields([(b"content-length", b"%d" % length)])[0] for length in range(256))


def length_line(length: int) -> bytes:
    """Encode a Content-Length."""
    return _LENGTHS[length] if length < 256 else encode_fields([(b"content-length", b"%d" % length)])[0]


def default_block(defaults: ResponseDefaults, flags: int, headers: Headers) -> bytes:
    """Return the encoded fields that the server adds to a response.

    Args:
        defaults: The server's fields.
        flags: Of `encode_fields`, for the fields of the response.
        headers: Those fields, known to be pairs of bytes.
    """
    if not flags and defaults.plain:
        block = defaults.encoded
        if block is None:
            block = defaults.encoded = encode_fields(defaults.fields_for(0, ()))[0]
        return block
    return encode_fields(defaults.fields_for(flags, headers))[0]


def trailer_block(headers: Headers) -> bytes:
    """Encode a trailer section.

    Raises:
        InvalidHeader: As `encode_fields`, or the field must not stand in a trailer (RFC 9110 section 6.5.1).
    """
    block, _length, _flags = encode_fields(headers)
    check_trailers(headers)
    return block

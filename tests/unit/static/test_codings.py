"""`daphne_ng.static.codings`: which coding a client would like best (RFC 9110 section 12.5.3)."""

from __future__ import annotations

import pytest

from daphne_ng.static.codings import acceptable


@pytest.mark.parametrize(
    ("value", "codings"),
    [
        (None, ()),
        (b"", ()),
        (b"gzip, deflate, br, zstd", (b"br", b"zstd", b"gzip")),
        (b"gzip", (b"gzip",)),
        (b"x-gzip", (b"gzip",)),
        (b"GZIP;Q=0.5", (b"gzip",)),
        (b"gzip;q=0", ()),
        (b"gzip;q=0.000", ()),
        (b"br;q=0.5, gzip;q=0.8", (b"gzip", b"br")),
        (b"br ; q=0.5 , gzip", (b"gzip", b"br")),
        (b"*", (b"br", b"zstd", b"gzip")),
        (b"*, br;q=0", (b"zstd", b"gzip")),
        (b"identity, gzip;q=0.5", ()),
        (b"identity;q=0.5, gzip", (b"gzip",)),
        (b"identity;q=0, gzip;q=0.1", (b"gzip",)),
        (b"gzip;q=2, br;q=x, zstd;level=3", ()),
        (b"gzip," * 1000, ()),
    ],
)
def test_the_best_coding_comes_first(value: bytes | None, codings: tuple[bytes, ...]) -> None:
    assert acceptable(value) == codings

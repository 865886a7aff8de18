"""`daphne_ng.static.media_types`: a table of its own."""

from __future__ import annotations

import pytest

from daphne_ng.static.media_types import is_compact, media_type_of


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        (b"index.html", b"text/html; charset=utf-8"),
        (b"A.CSS", b"text/css; charset=utf-8"),
        (b"app.3f2a.js", b"text/javascript; charset=utf-8"),
        (b"data.json", b"application/json"),
        (b"logo.svg", b"image/svg+xml"),
        (b"a.woff2", b"font/woff2"),
        (b"a.tar.gz", b"application/gzip"),
        (b"js", b"application/octet-stream"),
        (b"README", b"application/octet-stream"),
        (b"a.", b"application/octet-stream"),
        (b"a.exe", b"application/octet-stream"),
    ],
)
def test_the_end_of_the_name_decides(name: bytes, media_type: bytes) -> None:
    assert media_type_of(name) == media_type


def test_what_is_compressed_has_no_compressed_neighbour() -> None:
    assert is_compact(b"a.png")
    assert not is_compact(b"a.svg")
    assert not is_compact(b"png")

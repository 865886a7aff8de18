"""Status lines."""

from __future__ import annotations

import http

import pytest

from daphne_ng.port.answers import reason_phrase
from daphne_ng.wire.http.status import bodiless_status, status_line


@pytest.mark.parametrize("status", [int(status) for status in http.HTTPStatus])
def test_registered_statuses_have_their_phrase(status: int) -> None:
    assert status_line(status) == b"HTTP/1.1 %d %s" % (status, reason_phrase(status).encode())


def test_others_have_an_empty_phrase_behind_the_space() -> None:
    # RFC 9112 section 4: the space stays although the phrase is absent.
    assert status_line(299) == b"HTTP/1.1 299 "


def test_bodiless() -> None:
    assert [status for status in range(100, 600) if bodiless_status(status)] == [*range(100, 200), 204, 304]

"""Status lines."""

from __future__ import annotations

import http

import pytest

from daphne_ng.wire.http.status import bodiless_status, reason_phrase, status_line


@pytest.mark.parametrize("status", [int(status) for status in http.HTTPStatus])
def test_registered_statuses_have_a_phrase(status: int) -> None:
    phrase = reason_phrase(status)
    assert phrase.isprintable() and phrase.isascii()
    assert status_line(status) == b"HTTP/1.1 %d %s" % (status, phrase.encode())


def test_names_of_rfc_9110_do_not_depend_on_the_python_version() -> None:
    assert [reason_phrase(status) for status in (413, 414, 422)] == [
        "Content Too Large",
        "URI Too Long",
        "Unprocessable Content",
    ]


def test_others_have_an_empty_phrase_behind_the_space() -> None:
    # RFC 9112 section 4: the space stays although the phrase is absent.
    assert reason_phrase(299) == ""
    assert status_line(299) == b"HTTP/1.1 299 "


def test_bodiless() -> None:
    assert [status for status in range(100, 600) if bodiless_status(status)] == [*range(100, 200), 204, 304]

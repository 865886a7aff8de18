"""What the server itself says to a client."""

from __future__ import annotations

import http

import pytest

from daphne_ng.port.answers import error_answer, error_text, reason_phrase


@pytest.mark.parametrize("status", [int(status) for status in http.HTTPStatus])
def test_registered_statuses_have_a_phrase(status: int) -> None:
    phrase = reason_phrase(status)
    assert phrase
    assert phrase.isprintable() and phrase.isascii()


def test_names_of_rfc_9110_do_not_depend_on_the_python_version() -> None:
    assert [reason_phrase(status) for status in (413, 414, 422)] == [
        "Content Too Large",
        "URI Too Long",
        "Unprocessable Content",
    ]


def test_others_have_none() -> None:
    assert reason_phrase(299) == ""


def test_the_text_is_a_line_for_the_status_and_one_for_the_detail() -> None:
    assert error_text(404, "It is not here.") == b"404 Not Found\nIt is not here.\n"
    assert error_text(500, "") == b"500 Internal Server Error\n"


def test_an_answer_has_its_type_before_other_fields() -> None:
    fields, text = error_answer(405, "It is a GET.", ((b"allow", b"GET"),))
    assert fields == [(b"content-type", b"text/plain; charset=utf-8"), (b"allow", b"GET")]
    assert text == error_text(405, "It is a GET.")

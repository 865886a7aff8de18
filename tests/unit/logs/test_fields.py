"""`daphne_ng.logs.fields`: one line of JSON, whatever is in it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from daphne_ng.logs.fields import json_line, quoted, rfc3339


def test_an_object_is_one_line_in_its_order() -> None:
    assert json_line({"b": 1, "a": "x", "c": None, "d": [True, 0.5]}) == '{"b":1,"a":"x","d":[true,0.5]}\n'


@pytest.mark.parametrize("text", ["a\nb\r\x85\u2028c", "\x1b[31m\x9b", 'quote " and \\', "ü\U0001f600", "\udc80", "\0"])
def test_no_text_ends_the_line_or_leaves_ascii(text: str) -> None:
    line = json_line({"body": text})

    assert line.isascii()
    assert line[:-1].isprintable()
    assert json.loads(line) == {"body": text}
    assert line == f'{{"body":{quoted(text)}}}\n'


class Odd:
    def __str__(self) -> str:
        raise ValueError


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"\xffx", "\\xffx"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (Odd(), "<Odd>"),
        (datetime(2026, 12, 1, tzinfo=UTC), "2026-12-01 00:00:00+00:00"),
        (CIRCLE, "[[...]]"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
    ],
)
def test_what_json_has_no_form_for_is_text(value: object, written: str) -> None:
    assert json.loads(json_line({"n": 1, "value": value})) == {"n": 1, "value": written}


def test_times_are_utc_with_microseconds() -> None:
    assert [rfc3339(seconds) for seconds in (0, 1_764_577_800.25, 1_764_577_800.999999, 1_764_577_801)] == [
        "1970-01-01T00:00:00.000000Z",
        "2025-12-01T08:30:00.250000Z",
        "2025-12-01T08:30:00.999999Z",
        "2025-12-01T08:30:01.000000Z",
    ]

"""The reports: what counts as passed, and what is written."""

from __future__ import annotations

import json

import pytest

from daphne_ng.testing.conformance import report
from daphne_ng.testing.conformance.core import FAILED, HTTP1, HTTP2, PASSED, SKIPPED, TCP, TLS, Result


def result(name: str, outcome: str, reason: str = "", carrier: str = HTTP1, site: str = TCP) -> Result:
    return Result(name, site, carrier, outcome, reason, 0.1)


MUST = result("scope.method", FAILED, "method is 'get', not 'GET'")
SHOULD = result("scope.headers-lower-case", FAILED, "names [b'X']")
PROPOSED = result("scope.method-query", FAILED, "status 501")


@pytest.mark.parametrize(
    ("results", "passes"),
    [([result("scope.method", PASSED)], True), ([MUST], False), ([SHOULD], True), ([PROPOSED], True), ([], True)],
)
def test_only_a_must_decides(results: list[Result], passes: bool) -> None:
    assert report.passes(results) is passes


def test_the_table_has_a_line_for_each_result_and_counts_of_all() -> None:
    text = report.as_text([MUST, result("scope.method", PASSED, carrier=HTTP2), PROPOSED])
    assert "scope.method        must      HTTP/1.1 over tcp               failed   method is 'get', not 'GET'" in text
    assert "may (proposed)" in text
    assert "must      1 passed, 1 failed, 0 skipped" in text


def test_the_table_can_be_of_failures_only_and_counts_all_the_same() -> None:
    text = report.as_text([MUST, result("scope.scheme", PASSED)], failures=True)
    assert "scope.scheme" not in text
    assert "must      1 passed, 1 failed, 0 skipped" in text


def test_json_has_the_sentence_of_each_statement() -> None:
    content = json.loads(report.as_json([MUST], {"server": "some 1.0"}))
    assert content["server"] == "some 1.0"
    assert content["statements"][0]["sentence"] == "`method` … The HTTP method name, uppercased."
    assert content["results"][0] | {"seconds": 0} == {
        "statement": "scope.method",
        "site": "tcp",
        "carrier": "HTTP/1.1",
        "outcome": "failed",
        "reason": "method is 'get', not 'GET'",
        "seconds": 0,
    }
    assert content["counts"]["must"] == {"passed": 0, "failed": 1, "skipped": 0}


def test_markdown_has_one_row_for_each_statement() -> None:
    page = report.as_markdown([MUST, result("scope.method", PASSED, carrier=HTTP2)], "ASGI conformance of some 1.0")
    assert page.startswith("# ASGI conformance of some 1.0\n")
    assert page.count("scope.method") == 1
    assert "HTTP/1.1 over tcp: method is 'get', not 'GET'" in page


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([result("scope.method", PASSED), result("scope.method", SKIPPED, "no")], "passed"),
        ([result("scope.method", SKIPPED, "not there")], "skipped: not there"),
        ([result("scope.method", PASSED), MUST], "HTTP/1.1 over tcp: method is 'get', not 'GET'"),
        ([result("scope.method", FAILED, "x", HTTP2, TLS)], "HTTP/2 over tls: x"),
    ],
)
def test_one_failure_is_a_failure(results: list[Result], words: str) -> None:
    assert report.in_short(results) == words


def test_a_cell_of_a_table_stays_one_cell() -> None:
    assert report.escaped("a | b\n<c>") == "a \\| b &lt;c>"

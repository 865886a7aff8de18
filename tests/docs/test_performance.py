"""The numbers on the page about performance and in the README are those of the last measurement."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bench import page
from tests.bench.report import Result, to_json
from tests.bench.workloads import WORKLOADS


@pytest.fixture(scope="module")
def data() -> Any:
    return json.loads(page.DATA.read_text("utf-8"))


def test_the_page_shows_what_was_measured(data: Any) -> None:
    text = page.PAGE.read_text("utf-8")
    assert text == page.page(text, data), "run: python -m tests.bench.page"


def test_the_readme_shows_what_was_measured(data: Any) -> None:
    text = page.README.read_text("utf-8")
    assert text == page.readme(text, data), "run: python -m tests.bench.page"


def test_the_pictures_show_what_was_measured(data: Any) -> None:
    for name, picture in page.pictures(data).items():
        assert (page.PAGE.parent / name).read_text("utf-8") == picture, "run: python -m tests.bench.page"
        assert f"]({name})" in page.PAGE.read_text("utf-8")


def test_a_run_fills_every_block_of_the_pages() -> None:
    measured = {
        one.name: {
            peer: Result([{metric.key: value for shown in one.shown for metric in shown.metrics}])
            for peer, value in (("uvicorn", 2.0), ("h2corn", 4.0), ("daphne-ng", 1.0))
        }
        for one in WORKLOADS.values()
    }
    about = {
        "date": "2026-01-02T03:04:05+00:00",
        "machine": {"cpu": "a processor", "cores": 2, "kernel": "6.1.0-1-amd64"},
        "python": "3.11.7",
        "versions": {"uvicorn": "1.2.3"},
        "rounds": 5,
        "seconds": 1.0,
    }
    data = to_json(measured, about)
    text = page.page(page.PAGE.read_text("utf-8"), data)
    assert "Not measured" not in text
    assert "- 2026-01-02, CPython 3.11.7, a processor, 2 cores, Linux 6.1.0; 5 rounds of 1 s: `hello`, " in text
    assert all(f"\n### {shown.name}: {shown.summary}\n" in text for one in WORKLOADS.values() for shown in one.shown)
    assert "goal" not in text
    assert "| GET, 13 bytes of plaintext, keep-alive " in page.readme(page.README.read_text("utf-8"), data)
    assert all(picture.count('class="ours"') >= 4 for picture in page.pictures(data).values())
    # What is on the pages stays when they are made again.
    assert page.page(text, data) == text


def test_a_page_without_its_markers_is_an_error(data: Any) -> None:
    text = page.PAGE.read_text("utf-8").replace("<!-- /bench latency -->", "")
    with pytest.raises(ValueError, match="0 pairs of markers for 'latency'"):
        page.page(text, data)

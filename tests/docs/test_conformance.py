"""The page about conformance is what the results say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_shows_the_results() -> None:
    spec = importlib.util.spec_from_file_location("generate_conformance", DOCS / "generate_conformance.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text("utf-8")
    assert page == module.render(json.loads(module.RESULTS.read_text("utf-8"))), (
        "run: python docs/generate_conformance.py"
    )
    assert "| Server | Version |" in page

"""The tables of the documentation are those of the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_tables", DOCS / "generate_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_page_shows_the_tables_of_the_code(page: Path, generator: ModuleType) -> None:
    text = page.read_text("utf-8")
    assert text == generator.render(text), "run: python docs/generate_tables.py"


def test_each_table_has_its_page(generator: ModuleType) -> None:
    shown = [name for page in DOCS.rglob("*.md") for name in generator.names_in(page.read_text("utf-8"))]
    assert sorted(shown) == sorted(generator.TABLES)


def test_a_table_that_the_code_does_not_have_is_an_error(generator: ModuleType) -> None:
    with pytest.raises(KeyError):
        generator.render("<!-- table nothing, by docs/generate_tables.py -->\n<!-- the end of the table -->\n")

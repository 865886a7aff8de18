"""The layers and rooms: who may import what (``tests/support/layers.py``), and the map that is made from them.

Every import statement counts, also one inside a function and one under ``TYPE_CHECKING``, except where a rule says
otherwise.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.layers import (
    CIRCLES,
    MODULES,
    NEVER,
    ONLY_IN,
    ROOM_CIRCLES,
    TESTED_ELSEWHERE,
    TESTS,
    Circle,
    Graph,
    Never,
    OnlyIn,
    circle_in,
    imports,
    is_in,
    layer_of,
    matches,
    module_graph,
    own_tests,
    room_graph,
    tree_of,
    way,
    without,
)

TABLE = "tests/support/layers.py"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_belongs_to_a_layer_and_imports_downwards_only(module: str) -> None:
    rank = layer_of(module)
    assert rank is not None, (
        f"{module} has no layer: give it one in {TABLE}, then: python docs/generate_architecture.py"
    )
    upwards = []
    # What the package offers is imported when somebody looks, and before by type checkers alone.
    for name in imports(module) if module != "daphne_ng" else ():
        if is_in(name, "daphne_ng"):
            other = layer_of(name)
            if other is None or other > rank:
                upwards.append(name)
    assert upwards == []


@pytest.mark.parametrize("rule", ONLY_IN, ids=lambda rule: rule.imported)
def test_a_library_has_one_importer(rule: OnlyIn) -> None:
    importers = [module for module in MODULES if any(is_in(name, rule.imported) for name in imports(module))]
    assert [module for module in importers if not matches(module, rule.importers)] == []


@pytest.mark.parametrize("rule", NEVER, ids=lambda rule: rule.importers)
def test_a_layer_stays_away_from_what_is_not_its_business(rule: Never) -> None:
    found = [
        f"{module} imports {name}"
        for module in MODULES
        if fnmatch.fnmatchcase(module, rule.importers)
        for name in imports(module)
        if any(is_in(name, package) for package in rule.imported)
    ]
    assert found == []


@pytest.mark.parametrize("rule", [*ONLY_IN, *NEVER], ids=lambda rule: str(rule[0]))
def test_the_rules_name_modules_that_exist(rule: OnlyIn | Never) -> None:
    patterns = rule.importers if isinstance(rule, OnlyIn) else [rule.importers]
    assert [pattern for pattern in patterns if not fnmatch.filter(MODULES, pattern)] == []


# -- circles ---------------------------------------------------------------------------------------------------

GRAPHS = pytest.mark.parametrize(
    ("graph", "allowed"),
    [
        pytest.param(module_graph(), CIRCLES, id="modules"),
        pytest.param(room_graph(), ROOM_CIRCLES, id="rooms"),
    ],
)


@GRAPHS
def test_imports_go_round_in_no_circle(graph: Graph, allowed: list[Circle]) -> None:
    found = circle_in(without(graph, allowed))
    assert found is None, f"move what they share below both: {' -> '.join(found)}"


@GRAPHS
def test_an_import_that_may_close_a_circle_still_closes_one(graph: Graph, allowed: list[Circle]) -> None:
    over = [
        f"{circle.importer} -> {circle.imported}"
        for circle in allowed
        if circle.imported not in graph.get(circle.importer, ()) or way(graph, circle.imported, circle.importer) is None
    ]
    assert over == [], f"no circle any more: take the entry out of {TABLE}"


# -- the map ---------------------------------------------------------------------------------------------------


@functools.cache
def load_generator() -> Any:
    path = Path(__file__).parents[2] / "docs" / "generate_architecture.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_architecture_page_shows_the_house_as_it_is() -> None:
    generator = load_generator()
    written = generator.TARGET.read_text("utf-8")
    assert written == generator.render(written), "run: python docs/generate_architecture.py"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_in_its_first_line_what_it_is(module: str) -> None:
    assert load_generator().summary_of(module)


# -- the tests ---------------------------------------------------------------------------------------------------

# A package whose own module is a docstring has nothing to test.
TO_TEST = [module for module in MODULES if MODULES[module].stem != "__init__" or len(tree_of(module).body) > 1]


@pytest.mark.parametrize("module", TO_TEST)
def test_a_module_has_tests_of_its_name_or_says_where_they_are(module: str) -> None:
    own, elsewhere = own_tests(module), TESTED_ELSEWHERE.get(module)
    assert own or elsewhere, f"write tests of its name, or say in TESTED_ELSEWHERE of {TABLE} which file tests {module}"
    assert not (own and elsewhere), f"it has {own[0].name} now: take it out of TESTED_ELSEWHERE of {TABLE}"


@pytest.mark.parametrize("module", TESTED_ELSEWHERE)
def test_what_is_tested_elsewhere_exists(module: str) -> None:
    assert module in TO_TEST, f"no such module any more: take it out of TESTED_ELSEWHERE of {TABLE}"
    where = TESTED_ELSEWHERE[module]
    assert " " in where or (TESTS.parent / where).is_file(), where


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_longer_than_a_reader_can_bear(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 700


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("daphne_ng", ["twisted", "asyncio", "logging", "daphne_ng.config", "daphne_ng.server", "daphne_ng.invoking"]),
        ("daphne_ng.errors", ["twisted", "asyncio"]),
        ("daphne_ng.config", ["twisted", "asyncio"]),
        ("daphne_ng.port", ["twisted", "asyncio"]),
        ("daphne_ng.cli", ["twisted.internet", "httptools", "daphne_ng.server"]),
        ("daphne_ng.wire.http1.connection", ["twisted", "asyncio", "socket"]),
        ("daphne_ng.wire.http2.hpack", ["httptools", "h2", "daphne_ng.wire.http1", "daphne_ng.wire.http2.head"]),
        ("daphne_ng.asgi.runner", ["twisted", "httptools"]),
        ("daphne_ng.server", ["twisted.internet.reactor", "acme", "josepy", "requests", "daphne_ng.acme"]),
        ("daphne_ng.net.factory", ["twisted.internet.reactor"]),
        ("daphne_ng.compat", ["twisted", "asyncio", "daphne_ng.server"]),
        ("daphne_ng.testing", ["twisted", "asyncio", "daphne_ng.server"]),
        ("daphne_ng.pytest_plugin", ["twisted", "daphne_ng.server", "django"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_importing_brings_no_more_than_it_says(module: str, absent: list[str]) -> None:
    """Above all: no reactor. The first one installed is the one for good."""
    program = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    new = done.stdout.split()
    assert module in new
    assert [name for name in new if any(is_in(name, package) for package in absent)] == []

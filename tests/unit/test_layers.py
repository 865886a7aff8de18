"""The layers: who may import what (``docs/explanation/architecture.md``).

Every import statement counts, also one inside a function and one under ``TYPE_CHECKING``, except where a rule below
says otherwise.
"""

from __future__ import annotations

import ast
import fnmatch
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import daphne_ng

ROOT = Path(daphne_ng.__file__).parent
MODULES = {
    ".".join(("daphne_ng", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

GROUND = [
    "daphne_ng",
    "daphne_ng._types",
    "daphne_ng.config",
    "daphne_ng.config.*",
    "daphne_ng.errors",
    "daphne_ng.pieces",
    "daphne_ng.port",
    "daphne_ng.port.*",
    "daphne_ng.wording",
]

# Lowest first. A module imports from its own layer and from those below.
LAYERS = [
    ("ground", GROUND),
    ("wire", ["daphne_ng.wire", "daphne_ng.wire.*"]),
    ("asgi", ["daphne_ng.asgi", "daphne_ng.asgi.*"]),
    ("net", ["daphne_ng.net", "daphne_ng.net.*"]),
    (
        "parts of the server",
        [
            "daphne_ng.access",
            "daphne_ng.endpoints",
            "daphne_ng.utils",
            "daphne_ng.serving",
            *(
                f"daphne_ng.serving.{name}"
                for name in ("actions", "draining", "loading", "logconfig", "outlet", "process", "running")
            ),
        ],
    ),
    ("certificates", ["daphne_ng.serving.sources", "daphne_ng.acme", "daphne_ng.acme.*"]),
    ("server", ["daphne_ng.server", "daphne_ng.demo"]),
    ("processes", ["daphne_ng.supervisor", "daphne_ng.supervisor.*"]),
    ("command line", ["daphne_ng.cli", "daphne_ng.hints", "daphne_ng.invoking", "daphne_ng.__main__"]),
    (
        "faces",
        [
            "daphne_ng.advice",
            "daphne_ng.advice.*",
            "daphne_ng.apps",
            "daphne_ng.checks",
            "daphne_ng.compat",
            "daphne_ng.management",
            "daphne_ng.pytest_plugin",
            "daphne_ng.management.*",
            "daphne_ng.testing",
            "daphne_ng.testing.*",
        ],
    ),
]

# (what is imported, who may do so). Names are patterns.
ONLY_IN = [
    ("httptools", ["daphne_ng.wire.http1.parser"]),
    ("autobahn", ["daphne_ng.net.channels.engine"]),
    ("_nvx_xormasker", ["daphne_ng.net.channels.engine"]),
    ("h2", ["daphne_ng.wire.http2.*"]),
    ("hpack", ["daphne_ng.wire.http2.*"]),
    ("priority", ["daphne_ng.wire.http2.*"]),
    ("django", ["daphne_ng.apps", "daphne_ng.checks", "daphne_ng.management.*"]),
    ("uvloop", ["daphne_ng.net.sockets.loops"]),
    ("acme", ["daphne_ng.acme.client"]),
    ("josepy", ["daphne_ng.acme.client"]),
    ("requests", ["daphne_ng.acme.client"]),
    # With it come acme and josepy, which are an extra: imported when an endpoint asks for it.
    ("daphne_ng.acme", ["daphne_ng.acme*", "daphne_ng.serving.sources"]),
]

# (whose imports, what they must not be)
NEVER = [
    (
        "daphne_ng.wire.*",
        ["twisted", "zope", "asyncio", "logging", "time", "os", "socket", "threading", "signal", "ssl"],
    ),
    (
        "daphne_ng.asgi.*",
        ["twisted", "zope", "socket", "os", "signal", "threading", "httptools", "h2", "ssl", "OpenSSL"],
    ),
    ("daphne_ng.acme.schedule", ["twisted", "zope", "asyncio", "os", "socket", "time", "threading", "logging"]),
    *[(module, ["twisted", "zope", "asyncio", "os", "socket", "time"]) for module in GROUND],
    # Whoever imports these should not get a reactor with them.
    ("daphne_ng.cli", ["twisted", "asyncio"]),
    ("daphne_ng.demo", ["twisted"]),
]


def imports(module: str) -> Iterator[str]:
    """Yield the dotted name of everything that a module imports."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def layer_of(module: str) -> int | None:
    return next((rank for rank, (_, patterns) in enumerate(LAYERS) if matches(module, patterns)), None)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_belongs_to_a_layer_and_imports_downwards_only(module: str) -> None:
    rank = layer_of(module)
    assert rank is not None, f"{module} has no layer: give it one here and in the architecture page"
    upwards = []
    # What the package offers is imported when somebody looks, and before by type checkers alone.
    for name in imports(module) if module != "daphne_ng" else ():
        if is_in(name, "daphne_ng"):
            other = layer_of(name)
            if other is None or other > rank:
                upwards.append(name)
    assert upwards == []


@pytest.mark.parametrize(("package", "allowed"), ONLY_IN, ids=[rule[0] for rule in ONLY_IN])
def test_a_library_has_one_importer(package: str, allowed: list[str]) -> None:
    importers = [module for module in MODULES if any(is_in(name, package) for name in imports(module))]
    assert [module for module in importers if not matches(module, allowed)] == []


@pytest.mark.parametrize(("pattern", "forbidden"), NEVER, ids=[rule[0] for rule in NEVER])
def test_a_layer_stays_away_from_what_is_not_its_business(pattern: str, forbidden: list[str]) -> None:
    found = [
        f"{module} imports {name}"
        for module in MODULES
        if fnmatch.fnmatchcase(module, pattern)
        for name in imports(module)
        if any(is_in(name, package) for package in forbidden)
    ]
    assert found == []


@pytest.mark.parametrize(("layer", "other"), [("asgi", "wire"), ("wire", "asgi")])
def test_the_protocols_and_the_bridge_stand_side_by_side(layer: str, other: str) -> None:
    found = [
        f"{module} imports {name}"
        for module in MODULES
        if is_in(module, f"daphne_ng.{layer}")
        for name in imports(module)
        if is_in(name, f"daphne_ng.{other}")
    ]
    assert found == []


def test_the_processes_know_of_no_protocol() -> None:
    found = [
        f"{module} imports {name}"
        for module in MODULES
        if is_in(module, "daphne_ng.supervisor")
        for name in imports(module)
        if any(is_in(name, f"daphne_ng.{layer}") for layer in ("wire", "asgi"))
    ]
    assert found == []


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

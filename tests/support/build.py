"""Which build of daphne-ng the tests run on, and what is not there to be tested on one of them."""

from __future__ import annotations

from typing import Any

import pytest

from daphne_ng import wording

COMPILED = not wording.__file__.endswith(".py")
"""Whether the modules that pyproject.toml lists under ``[tool.daphne-ng.compiled]`` are compiled."""

BUILD = "compiled" if COMPILED else "pure Python"
"""What ``daphne-ng --version`` says of it."""


def attributes_of(instance: object) -> dict[str, Any]:
    """Return the attributes of an instance of a class that may be compiled, by name."""
    owner = type(instance)
    if not hasattr(owner, "__mypyc_attrs__") and not hasattr(owner, "__slots__"):
        return vars(instance)
    names = getattr(owner, "__mypyc_attrs__", None) or owner.__slots__
    return {name: getattr(instance, name) for name in names if hasattr(instance, name)}


def needs_pure(reason: str) -> None:
    """Skip the test that runs, on the compiled build: what it is about does not exist there, for this reason."""
    if COMPILED:
        pytest.skip(f"compiled build: {reason}")

"""Which build of daphne-ng the tests run on, and what is not there to be tested on one of them."""

from __future__ import annotations

import pytest

from daphne_ng import wording

COMPILED = not wording.__file__.endswith(".py")
"""Whether the modules that pyproject.toml lists under ``[tool.daphne-ng.compiled]`` are compiled."""

BUILD = "compiled" if COMPILED else "pure Python"
"""What ``daphne-ng --version`` says of it."""


def needs_pure(reason: str) -> None:
    """Skip the test that runs, on the compiled build: what it is about does not exist there, for this reason."""
    if COMPILED:
        pytest.skip(f"compiled build: {reason}")

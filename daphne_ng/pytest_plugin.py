"""A pytest plugin: ``daphne_ng_install_as_daphne = true`` in the ini file makes ``import daphne`` mean daphne-ng.

``channels.testing`` imports ``daphne.testing`` whether Daphne is there or not. Without the option nothing happens.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

__all__ = ["pytest_addoption", "pytest_load_initial_conftests"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini option."""
    parser.addini(
        "daphne_ng_install_as_daphne",
        "make `import daphne` mean daphne-ng (daphne_ng.compat.install_as_daphne)",
        type="bool",
        default=False,
    )


# A wrapper runs before all other plugins, so also before pytest-django sets Django up with the project's settings.
@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, Any, Any]:
    """Install the alias before any conftest is imported."""
    if early_config.getini("daphne_ng_install_as_daphne"):
        from daphne_ng.compat import install_as_daphne

        install_as_daphne()
    return (yield)

"""A pytest plugin: ``daphne_ng_install_as_daphne = true`` in the ini file makes ``import daphne`` mean daphne-ng.

``channels.testing`` imports ``daphne.testing`` whether Daphne is there or not. Without the option nothing happens, but
for a line after the collection if the tests of a project that uses the app would be served by Daphne, or by nobody.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

__all__ = ["pytest_addoption", "pytest_load_initial_conftests", "pytest_report_collectionfinish"]


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
        from daphne_ng.errors import ConfigurationError

        try:
            install_as_daphne()
        except ConfigurationError as error:
            raise pytest.UsageError(str(error)) from None
    return (yield)


def pytest_report_collectionfinish() -> list[str]:
    """Say whose server the live tests get, if it is not ours."""
    checks = sys.modules.get("daphne_ng.checks")  # by the app, so that other projects and other tests hear nothing
    found = None if checks is None else checks.live_tests_of()
    if found is None:
        return []
    served = "serves live tests with Daphne" if found else "cannot be imported without Daphne"
    return [f"channels.testing {served}; daphne_ng_install_as_daphne = true in the ini file makes it daphne-ng"]

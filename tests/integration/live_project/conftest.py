"""Django and its test database without pytest-django."""

import os
from collections.abc import Iterator

import django
import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "guests.settings")
django.setup()


@pytest.fixture(scope="session", autouse=True)
def database() -> Iterator[None]:
    """Make the test database, and remove it."""
    from django.test.utils import setup_databases, setup_test_environment, teardown_databases

    setup_test_environment()
    made = setup_databases(verbosity=0, interactive=False)
    yield
    teardown_databases(made, verbosity=0)

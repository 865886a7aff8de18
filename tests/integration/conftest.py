"""Fixtures for the tests with real frameworks and clients."""

from __future__ import annotations

import random

import pytest

from tests.integration.serving import MIB


@pytest.fixture(scope="session")
def block() -> bytes:
    """One mebibyte of noise, the same in every run."""
    return random.Random(9110).randbytes(MIB)

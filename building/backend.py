"""The build backend: setuptools, and mypy besides for a wheel of compiled modules.

``DAPHNE_NG_COMPILE=1 pip install .`` makes such a wheel. Without the variable the wheel is pure, and nothing asks for
mypy.
"""

from __future__ import annotations

from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  -- all other hooks are setuptools' own

from building.compiled import COMPILES, MYPY


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """See PEP 517."""
    required = build_meta.get_requires_for_build_wheel(config_settings)
    return [*required, MYPY] if COMPILES else required

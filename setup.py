"""What pyproject.toml cannot say: that a wheel may have compiled modules. See building/compiled.py."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent))

from building.compiled import COMPILES, extensions

# Of all that setuptools does here, only these need the compiler.
BUILDS = not {"bdist_wheel", "build_ext"}.isdisjoint(sys.argv)

setup(ext_modules=extensions() if COMPILES and BUILDS else [])

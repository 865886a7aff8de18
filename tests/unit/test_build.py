"""Which is imported of a module and its compiled twin."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tests.support.build import BUILD

# A module of the package that has a compiled twin, which is none: to import that fails.
IMPORT = """
import daphne_ng
daphne_ng.__path__.append({directory!r})
from daphne_ng import twin
print(twin.__file__)
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "DAPHNE_NG_PURE"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**inherited, **environment}
    )


@pytest.mark.parametrize("value", [None, "", "0", "1"])
def test_the_source_is_imported_where_the_environment_asks_for_it(value: str | None, tmp_path: Path) -> None:
    (tmp_path / "twin.py").write_text("")
    (tmp_path / f"twin{EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    environment = {} if value is None else {"DAPHNE_NG_PURE": value}
    done = python(IMPORT.format(directory=str(tmp_path)), **environment)
    if value == "1":
        assert (done.stdout, done.stderr) == (f"{tmp_path / 'twin.py'}\n", "")
    else:
        assert "ImportError" in done.stderr


@pytest.mark.parametrize(("value", "build"), [("0", BUILD), ("1", "pure Python")])
def test_the_version_says_which_build_runs(value: str, build: str) -> None:
    program = "import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('daphne_ng', run_name='__main__')"
    assert python(program, DAPHNE_NG_PURE=value).stdout.endswith(f" ({build})\n")

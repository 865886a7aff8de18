"""Channels' live server for tests, in a real browser, without Daphne: each way to stand in for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes.serving import PROJECTS, ROOT

pytestmark = pytest.mark.system

PROJECT = PROJECTS / "live_project"

WAYS = {
    "ini": ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "live.py"],
    "setting": ["manage.py", "test", "live"],
    "code": ["manage.py", "test", "live"],
}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("way", WAYS)
def test_a_live_server_is_used_by_a_browser(tmp_path: Path, way: str, method: str) -> None:
    variables = {
        "LIVE_DATA": str(tmp_path),
        "LIVE_INSTALL": way,
        "LIVE_START_METHOD": method,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, *WAYS[way]],
        cwd=PROJECT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "1 passed" in output or "Ran 1 test" in output, output
    assert "Traceback" not in output, output

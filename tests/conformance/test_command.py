"""The command line of the suite."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from daphne_ng.testing.conformance.command import main
from tests.conformance import STRICT

pytestmark = pytest.mark.once


def test_statements_are_listed_with_their_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--only", "scope", "--level", "should"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "scope.headers-lower-case  [should]  HTTP: Connection Scope: Header names should be lowercased" in lines
    assert all(line.startswith("scope.") for line in lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--server", "x", "--only", "scope.nothing"], "no statement is called 'scope.nothing'"),
        (["--server", "x", "--protocols", "http1,http9"], "no protocol is called 'http9'"),
        (["--only", "scope"], "one of --server, --tls-server and --unix-server is needed"),
    ],
)
def test_a_mistake_is_told(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(options)
    assert raised.value.code == 2
    assert words in capsys.readouterr().err


def test_a_server_that_does_not_start_is_told_with_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{sys.executable} -c \"import sys; sys.exit('no such port {{port}}')\""
    assert main(["--server", command, "--only", "scope.method"]) == 2
    assert "exit code 1: no such port" in capsys.readouterr().err


@pytest.mark.parametrize(("fault", "code"), [("", 0), ("--fault scope.method", 1), ("--fault scope.spec-version", 0)])
def test_the_exit_code_is_that_of_the_musts_and_the_reports_are_written(
    fault: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    files = ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    server = f"{STRICT} --port {{port}} {fault} {{app}}"
    chosen = ["--only", "scope.method", "--only", "scope.spec-version", "--protocols", "http1"]
    assert main(["--server", server, "--name", "strict 1", *chosen, *files]) == code
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["server"] == "strict 1"
    assert {result["statement"] for result in content["results"]} == {"scope.method", "scope.spec-version"}
    assert [result["outcome"] for result in content["results"]].count("failed") == (1 if fault else 0)
    assert "# ASGI conformance of strict 1" in (tmp_path / "out.md").read_text()

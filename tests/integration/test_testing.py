"""`daphne_ng.testing`: servers in processes of their own, by each of multiprocessing's ways to start one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.processes.serving import APPS, SLACK

ENDED = {"alive": False, "ready": True, "code": 0, "errors": None}
FAILED = {"alive": False, "ready": False, "code": 0}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_server_in_a_process_of_its_own(method: str) -> None:
    done = subprocess.run(
        [sys.executable, str(APPS / "processes.py"), method],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        cwd=APPS,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    def ended(what: str, seconds: float) -> dict[str, object]:
        report = dict(found[what])
        taken = report.pop("seconds")
        assert taken < seconds * SLACK, (what, taken)
        return report

    assert found["page"] == "hello 127.0.0.1"
    assert found["calls"] == "setup teardown"
    assert found["own run"] == "hello 127.0.0.1"
    assert ended("plain", 1.5) == ENDED
    assert ended("stuck", 3) == ENDED
    assert ended("no application", 1.5) == {**FAILED, "errors": ["LookupError", "there is no application", True]}
    assert ended("not picklable", 1.5) == {**FAILED, "errors": ["RuntimeError", "1 and 2", True]}
    kind, text, traceback = ended("port in use", 1.5)["errors"]  # type: ignore[misc]
    assert (kind, "in use" in text, traceback) == ("CannotListenError", True, True)
    assert ended("wrong keyword", 1.5)["errors"][0] == "ConfigurationError"  # type: ignore[index]
    assert found["forwarded"] == "hello 192.0.2.1"
    assert "http_timeout" in found["instance"] or "http-timeout" in found["instance"]
    assert found["tidy"] is True
    assert found["nothing"] == "No results available yet."
    assert found["told"] == "as told"
    keys = "asgi client headers http_version method path query_string raw_path root_path scheme server type"
    assert found["noted"] == ["/x", "y=1", keys.split(), "http.request"]
    assert found["failed"] == 500
    assert "'status' of http.response.start must be an int" in found["raised"]
    assert "Traceback" not in done.stderr

"""A load generator on the server: every answer is right, no connection breaks."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.serving import Running, require_program, serve

pytestmark = pytest.mark.system

SECONDS = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("plain:application", tmp_path_factory.mktemp("load")) as running:
        yield running


def load(server: Running, path: str, *options: str) -> str:
    command = [require_program("wrk"), "-t1", "-c32", f"-d{SECONDS}s", *options, server.url + path]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS + 30).stdout


def requests(report: str) -> int:
    assert "Socket errors" not in report, report
    assert "Non-2xx" not in report, report
    found = re.search(r"(\d+) requests in", report)
    assert found is not None, report
    return int(found[1])


@pytest.mark.parametrize("path", ["/hello", "/stream?pieces=4"])
def test_wrk_sees_no_error(server: Running, path: str) -> None:
    assert requests(load(server, path)) > 100
    with server.client() as client:
        assert client.get("/hello").text == "Hello, World!\n"


def test_wrk_posts_without_an_error(server: Running, tmp_path: Path) -> None:
    script = tmp_path / "post.lua"
    script.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", 20000)\n')
    assert requests(load(server, "/count", "-s", str(script))) > 100


def test_wrk_opens_a_connection_for_each_request_without_an_error(server: Running) -> None:
    assert requests(load(server, "/hello", "-H", "Connection: close")) > 100

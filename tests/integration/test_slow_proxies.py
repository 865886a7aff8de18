"""A client that reads slowly behind a real proxy gets everything: the proxy passes its pace on to the server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.proxying import proxy
from tests.support.processes.serving import HOST, Running, require_program, serve

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

SIZE = 6_000_000
RATE = 250_000
WRITE_TIMEOUT = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("slow:application", tmp_path_factory.mktemp("slow"), "--write-timeout", str(WRITE_TIMEOUT)) as running:
        yield running


def download(port: int) -> None:
    """Read slowly with curl, for longer than the server waits for a client that has stopped reading."""
    require_program("curl")
    begun = time.monotonic()
    done = subprocess.run(
        ["curl", "-sS", "--limit-rate", str(RATE), "--output", "/dev/null", "--write-out", "%{size_download}"]
        + [f"http://{HOST}:{port}/"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, str(SIZE), "")
    assert time.monotonic() - begun > 2 * WRITE_TIMEOUT


@pytest.mark.parametrize(
    ("name", "more"),
    [("nginx", "proxy_buffering off;"), ("haproxy", "option http-server-close")],
    ids=["nginx", "haproxy"],
)
def test_curl_behind_a_proxy(server: Running, name: str, more: str, tmp_path: Path) -> None:
    with proxy(name, tmp_path, server.port, more) as port:
        download(port)

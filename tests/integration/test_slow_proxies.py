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

SIZE = 6_000_000  # a kernel with larger buffers tells of progress once in many seconds only
RATE = 250_000
WRITE_TIMEOUT = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("slow:application", tmp_path_factory.mktemp("slow"), "--write-timeout", str(WRITE_TIMEOUT)) as running:
        yield running


def download(port: int) -> None:
    """Read slowly through curl, for longer than the server waits for a client that has stopped reading, then the rest."""
    require_program("curl")
    # curl waits while its output is not read, so that the pace is ours: --limit-rate lets bursts through.
    with subprocess.Popen(
        ["curl", "-sS", "--no-buffer", f"http://{HOST}:{port}/"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as curl:
        assert curl.stdout is not None
        assert curl.stderr is not None
        size = 0
        slow_until = time.monotonic() + 2.5 * WRITE_TIMEOUT
        while time.monotonic() < slow_until:
            size += len(curl.stdout.read(RATE // 10))
            time.sleep(0.1)
        assert 0 < size < SIZE
        while piece := curl.stdout.read(1 << 20):
            size += len(piece)
        assert (curl.wait(10), size, curl.stderr.read()) == (0, SIZE, b"")


@pytest.mark.parametrize(
    ("name", "more"),
    [("nginx", "proxy_buffering off;"), ("haproxy", "option http-server-close")],
    ids=["nginx", "haproxy"],
)
def test_curl_behind_a_proxy(server: Running, name: str, more: str, tmp_path: Path) -> None:
    with proxy(name, tmp_path, server.port, more) as port:
        download(port)

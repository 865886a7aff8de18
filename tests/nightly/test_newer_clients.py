"""Go's net/http and grpc-go of today, built by ``build.sh``: what they send of their own accord is no flood."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.serving import HOST, Running, serve

BINARIES = os.environ.get("NEWER_CLIENTS", "")

pytestmark = pytest.mark.skipif(not BINARIES, reason="NEWER_CLIENTS does not name a directory; see tests/nightly")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("talkative:application", tmp_path_factory.mktemp("newer"), "--access-log", "/dev/null") as running:
        yield running


def client(*command: str) -> str:
    """Run one of the clients, and return what it says."""
    done = subprocess.run(
        [Path(BINARIES, command[0]), *command[1:]], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_go_reads_a_large_body_4_kib_at_a_time(server: Running) -> None:
    assert "bytes 100000000 HTTP/2.0" in client("h2get", "get", f"{server.url}/bytes/100000000")


@pytest.mark.parametrize(("count", "rate"), [("300", "15"), ("1000", "100")])
def test_go_cancels_requests_beside_others(server: Running, count: str, rate: str) -> None:
    assert "fine" in client("h2get", "cancel", f"{server.url}/", count, rate)


def test_go_cancels_all_of_its_requests(server: Running) -> None:
    assert "fine" in client("h2get", "hang", f"{server.url}/", "300", "15")


def test_go_closes_bodies_that_it_does_not_want(server: Running) -> None:
    assert "fine" in client("h2get", "close", f"{server.url}/bytes/1000000", "1000", "100")


@pytest.mark.parametrize("mode", ["stream", "bidi"])
@pytest.mark.parametrize(("count", "rate"), [("2000", "50"), ("10000", "500"), ("10000", "5000"), ("10000", "0")])
def test_grpc_go_streams(server: Running, mode: str, count: str, rate: str) -> None:
    assert "fine" in client("grpcget", mode, f"{HOST}:{server.port}", count, rate)

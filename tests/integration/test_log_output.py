"""Logs that go where nobody reads: the server goes on, and ends."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes.serving import APPS, HOST, serve

pytestmark = pytest.mark.once


if sys.platform == "win32":
    pytest.skip("there is no poll", allow_module_level=True)

# The lines of so many fill any pipe or socket.
REQUESTS = 3000


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one", "workers"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_log_that_nobody_reads_stops_neither_the_server_nor_its_end(kind: str, options: list[str]) -> None:
    reading, writing = os.pipe() if kind == "pipe" else (one.detach() for one in socket.socketpair())
    command = [sys.executable, "-m", "daphne_ng", "-b", HOST, "-p", "0", *options, "worked:application"]
    variables = os.environ | {"PYTHONPATH": str(APPS)}
    process = subprocess.Popen(command, stdout=writing, stderr=writing, env=variables, cwd=APPS)
    os.close(writing)
    try:
        said = b""
        while (listening := re.search(rb"Listening on TCP address \S+:(\d+)\n", said)) is None:
            data = os.read(reading, 1000)
            assert data, said
            said += data
        path = "/" + "x" * 500
        connection = http.client.HTTPConnection(HOST, int(listening[1]), timeout=30)
        for _ in range(REQUESTS):
            connection.request("GET", path)
            assert connection.getresponse().read()
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_a_named_pipe_without_a_reader_is_no_obstacle(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with serve("worked:application", tmp_path, "--access-log", "fifo") as server, server.client() as client:
        client.get("/")
        reading = os.open(tmp_path / "fifo", os.O_RDONLY)
        assert b'"GET /" 200' in os.read(reading, 1000)
        os.close(reading)

"""`daphne_ng.run` as programs use it: a script of their own, with an application or its import string."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes.serving import HOST, Running, serve

pytestmark = pytest.mark.once


PROGRAM = """
import os
import sys

import daphne_ng


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})


if __name__ == "__main__":
    port = int(sys.argv[1])
    if sys.argv[2] == "object":
        daphne_ng.run(app, host="127.0.0.1", port=port)
    else:
        daphne_ng.run("program:app", host="127.0.0.1", port=port, workers=2, server_name="mine")
"""


def written(directory: Path) -> tuple[Path, Path]:
    """Write the program, and return it and another directory to start it from."""
    (directory / "code").mkdir()
    (directory / "elsewhere").mkdir()
    program = directory / "code" / "program.py"
    program.write_text(PROGRAM)
    return program, directory / "elsewhere"


def served(server: Running) -> tuple[int, str]:
    with server.client() as client:
        answer = client.get("/")
    return int(answer.text), answer.headers["server"]


def test_an_application_is_served_as_the_command_line_serves_it(tmp_path: Path) -> None:
    program, elsewhere = written(tmp_path)
    with serve("object", elsewhere, listen=(), program=(sys.executable, str(program), "0")) as server:
        assert served(server) == (server.pid, "daphne")
        server.wait_for_log('"GET /" 200')
    assert "INFO     Starting server at tcp:port=0:interface=127.0.0.1" in server.log


def test_an_import_string_is_served_by_workers_wherever_the_program_is(tmp_path: Path) -> None:
    program, elsewhere = written(tmp_path)
    with serve("string", elsewhere, listen=(), program=(sys.executable, str(program), "0")) as server:
        server.wait_for_log("Worker 2 .* is ready", 60)
        worker, name = served(server)
        assert worker != server.pid
        assert name == "mine"


@pytest.mark.parametrize("kind", ["object", "string"])
def test_an_address_in_use_ends_the_program_with_1(tmp_path: Path, kind: str) -> None:
    program, _ = written(tmp_path)
    with socket.create_server((HOST, 0)) as taken:
        done = subprocess.run(
            [sys.executable, str(program), str(taken.getsockname()[1]), kind],
            capture_output=True,
            text=True,
            env=os.environ,
            timeout=60,
        )

    assert done.returncode == 1
    assert "the address is already in use" in done.stderr

"""What is seen of a server whose application sets up logging its own way."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes.serving import serve

pytestmark = pytest.mark.once


# As in many tutorials: without 'disable_existing_loggers', which is then True.
SET_UP = """
import logging.config

logging.config.dictConfig(
    {
        "version": 1,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"level": "INFO", "handlers": ["console"]},
    }
)
"""
TO_A_FILE = """
import logging.config

logging.config.dictConfig(
    {
        "version": 1,
        "handlers": {"file": {"class": "logging.FileHandler", "filename": "app.log"}},
        "root": {"level": "INFO", "handlers": ["file"]},
    }
)
"""
APPLICATION = """

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        {startup}
    else:
        raise RuntimeError("a bug of mine")


def make():
    return application
"""
FAILS = 'await send({"type": "lifespan.startup.failed", "message": "the database is not there"})'
STARTS = 'await send({"type": "lifespan.startup.complete"})'


def write(directory: Path, set_up: str, startup: str) -> None:
    (directory / "silent.py").write_text(set_up + APPLICATION.replace("{startup}", startup))


def ended(directory: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "daphne_ng", "-p", "0", *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "options", [("silent",), ("--factory", "silent:make"), ("--workers", "2", "silent")], ids=" ".join
)
@pytest.mark.parametrize("set_up", [SET_UP, TO_A_FILE, "import logging; logging.disable()\n"])
def test_a_startup_that_fails_is_told_whatever_became_of_the_log(
    tmp_path: Path, options: tuple[str, ...], set_up: str
) -> None:
    write(tmp_path, set_up, FAILS)

    code, errors = ended(tmp_path, *options)

    assert code == 3
    told = [line for line in errors.splitlines() if "the database is not there" in line]
    # Both workers may come as far.
    assert 1 <= len(told) <= (2 if "--workers" in options else 1)


def test_an_address_in_use_is_told_whatever_became_of_the_log(tmp_path: Path) -> None:
    write(tmp_path, TO_A_FILE, STARTS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, errors = ended(tmp_path, "-p", str(taken.getsockname()[1]), "silent")

    assert code == 1
    assert errors.count("the address is already in use") == 1


@pytest.mark.parametrize("startup", [STARTS, SET_UP.replace("\n", "\n        ").strip() + f"\n        {STARTS}"])
def test_the_traceback_of_a_500_is_seen_however_logging_was_set_up(tmp_path: Path, startup: str) -> None:
    write(tmp_path, SET_UP, startup)
    with serve("silent", tmp_path) as server, server.client() as client:
        assert client.get("/some/path").status_code == 500
        server.wait_for_log("^RuntimeError: a bug of mine")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--ssl-certfile", "missing.pem"), "--ssl-certfile: cannot read 'missing.pem': No such file or directory"),
        (("-e", "ssl:0"), "privateKey= is missing, and Twisted's default, 'server.pem': No such file or directory"),
        (("-e", "txsni:missing:tcp:0"), "txsni: cannot read 'missing': No such file or directory"),
        (("-e", "le:missing:tcp:0"), "missing is not a directory"),
    ],
    ids=str,
)
def test_a_certificate_that_is_missing_is_found_before_a_worker_starts(
    tmp_path: Path, options: tuple[str, str], told: str
) -> None:
    code, errors = ended(tmp_path, "--workers", "2", *options)

    assert code == 1
    assert errors.splitlines()[-1].endswith(told)
    assert "Worker" not in errors

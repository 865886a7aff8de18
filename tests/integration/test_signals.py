"""Signals that were something else when the server started: ignored, blocked, or the application's own.

One process does what the workers of a supervisor do: SIGINT and SIGTERM let the running requests end.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.processes.serving import serve

pytestmark = pytest.mark.once


SERVER = (sys.executable, "-m", "daphne_ng")

_BLOCKING = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"""

BEFORE = {
    # What a shell without job control does to `daphne-ng ... &` in a script.
    "background": ("sh", "-c", 'trap "" INT; exec "$0" "$@"', *SERVER),
    "nohup": ("nohup", *SERVER),
    "ignored": ("sh", "-c", 'trap "" INT TERM HUP USR1 USR2; exec "$0" "$@"', *SERVER),
    "blocked": (sys.executable, "-c", _BLOCKING, *SERVER[1:]),
}
WORKERS = {"alone": (), "workers": ("--workers", "2")}


def drains(directory: Path, number: int, *options: str, program: tuple[str, ...] = SERVER, handlers: str = "") -> str:
    """See that the signal lets a running request end, and the server then ends with 0; return its log."""
    environment = {"HANDLERS": handlers}
    with serve("signalled:application", directory, *options, program=program, environment=environment) as server:
        with httpx.stream("GET", server.url, trust_env=False, timeout=20) as answer:
            parts = answer.iter_raw()
            assert next(parts) == b"begin,"
            server.process.send_signal(number)
            assert b"".join(parts) == b"end"
        assert server.process.wait(20) == 0, server.log
    assert "Traceback" not in server.log, server.log
    return server.log


@pytest.mark.parametrize(
    ("before", "number", "way"),
    [
        ("background", signal.SIGINT, "alone"),
        ("background", signal.SIGINT, "workers"),
        ("ignored", signal.SIGTERM, "alone"),
        ("blocked", signal.SIGTERM, "alone"),
        ("blocked", signal.SIGINT, "workers"),
    ],
)
def test_what_was_ignored_or_blocked_at_the_start_lets_the_requests_end(
    tmp_path: Path, before: str, number: int, way: str
) -> None:
    drains(tmp_path, number, *WORKERS[way], program=BEFORE[before])


@pytest.mark.parametrize(("kind", "way"), [("default", "alone"), ("own", "alone"), ("own", "workers")])
def test_what_the_application_does_to_sigint_and_sigterm_does_not_keep_the_server_from_its_end(
    tmp_path: Path, kind: str, way: str
) -> None:
    log = drains(tmp_path, signal.SIGINT, *WORKERS[way], handlers=f"SIGINT={kind} SIGTERM={kind}")
    assert "the application's handler" not in log


def test_a_server_under_nohup_outlives_its_terminal_and_ends_on_sigterm(tmp_path: Path) -> None:
    with serve("signalled:application", tmp_path, program=BEFORE["nohup"]) as server:
        server.process.send_signal(signal.SIGHUP)
        assert httpx.get(server.url, trust_env=False, timeout=20).text == "begin,end"
        assert server.process.poll() is None


_IMPORTING = """
import sys, time
sys.stderr.write("importing\\n")
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_an_import_that_takes_long_can_be_ended_where_the_signal_was_ignored(
    tmp_path: Path, number: int, code: int
) -> None:
    (tmp_path / "long.py").write_text(_IMPORTING)
    with subprocess.Popen([*BEFORE["ignored"], "long:app"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            while "importing" not in (line := process.stderr.readline()):
                assert line
            process.send_signal(number)
            assert process.wait(20) == code
        finally:
            process.kill()


def test_an_application_that_raises_keyboard_interrupt_ends_the_server_as_ctrl_c_does(tmp_path: Path) -> None:
    with serve("signalled:application", tmp_path) as server:
        server.expect("The application raised KeyboardInterrupt, which ends the server: GET /interrupt")
        with httpx.stream("GET", server.url, trust_env=False, timeout=20) as answer:
            parts = answer.iter_raw()
            assert next(parts) == b"begin,"
            assert httpx.get(f"{server.url}/interrupt", trust_env=False).status_code == 500
            assert b"".join(parts) == b"end"
        assert server.process.wait(20) == 0, server.log
    assert "Traceback" not in server.log, server.log

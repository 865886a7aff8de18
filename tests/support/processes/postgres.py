"""A PostgreSQL server of the test's own: in a temporary directory, on a UNIX socket, not as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes.serving import require_program, wait_for


@contextlib.contextmanager
def postgres() -> Iterator[Path]:
    """Run the server while the ``with`` block does; yields the directory of its socket, libpq's ``host``.

    The only user is ``postgres``, and needs no password.
    """
    # Debian keeps the server's programs out of PATH.
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = versions[-1] if versions else Path(require_program("initdb")).parent
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))  # short enough for a socket, and not below a private one
    as_user: dict[str, Any] = {"cwd": directory, "stdin": subprocess.DEVNULL}
    if os.geteuid() == 0:  # the server refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(directory, account.pw_uid, account.pw_gid)
        as_user |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data = directory / "data"
    try:
        subprocess.run(
            [found / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, **as_user,
        )  # fmt: skip
        options = {"fsync": "off", "max_connections": 300, "shared_buffers": "16MB", "listen_addresses": ""}
        settings = [text for name, value in options.items() for text in ("-c", f"{name}={value}")]
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                [found / "postgres", "-D", data, "-k", directory, *settings], stdout=log, stderr=log, **as_user
            )
        try:
            ready = [found / "pg_isready", "-q", "-h", directory]
            wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL to start", seconds=30)
            yield directory
        finally:
            server.send_signal(signal.SIGINT)  # with SIGTERM it would wait for its clients
            server.wait(10)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Connections:
    """Counts the connections of a program, from one of its own.

    Args:
        host: The directory of the socket.
        program: The ``application_name`` of those to count.
    """

    def __init__(self, host: Path, program: str) -> None:
        psycopg = pytest.importorskip("psycopg")
        self._connection = psycopg.connect(host=str(host), user="postgres", dbname="postgres", autocommit=True)
        self._program = program

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def count(self) -> int:
        """Return how many there are."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        return int(self._connection.execute(query, (self._program,)).fetchone()[0])

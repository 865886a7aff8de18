"""The lock of a directory: one process has it, and it is free when that one has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from daphne_ng.acme.failure import Failure
from daphne_ng.acme.lock import Lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there everybody has it")


def test_one_has_it_at_a_time_and_keeps_it(tmp_path: Path) -> None:
    first, second = (Lock(str(tmp_path / "lock")) for _ in range(2))
    assert not first.held
    assert first.take()
    assert not second.take()
    assert first.take()
    assert (first.held, second.held) == (True, False)
    first.release()
    first.release()
    assert second.take()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_process_that_is_killed_has_it_no_more(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    program = "import sys; from daphne_ng.acme.lock import Lock; lock = Lock(sys.argv[1]); print(lock.take()); input()"
    other = subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline().strip() == b"True"
    lock = Lock(path)
    assert not lock.take()
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert lock.take()


def test_a_child_that_was_forked_does_not_hold_it_for_its_parent(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    program = (
        "import os, sys, time; from daphne_ng.acme.lock import Lock; lock = Lock(sys.argv[1]); lock.take()\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True); os._exit(0)\n"
        "os.close(1); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], stdout=subprocess.PIPE, check=True, timeout=60)
    child = int(done.stdout)
    try:
        assert Lock(path).take()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_file_that_somebody_removed_is_made_again_and_locked_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = Lock(str(path)), Lock(str(path))
    assert first.take()
    path.unlink()
    assert second.take()
    assert not first.take()
    assert not first.held
    second.release()
    assert first.take()


def test_a_file_that_cannot_be_made_is_a_failure_of_all(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot be opened: No such file") as caught:
        Lock(str(tmp_path / "gone" / "lock")).take()
    assert caught.value.everyone


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """In a directory of another user it would have root make a file anywhere."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failure, match="lock cannot be opened"):
        Lock(str(tmp_path / "lock")).take()
    assert not (tmp_path / "elsewhere").exists()

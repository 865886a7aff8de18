"""`daphne_ng.supervisor.command`: what needs a supervisor, and the file of the process id. And the settings' checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.errors import ApplicationLoadError, ConfigurationError
from daphne_ng.serving.process import max_shutdown_seconds, shutdown_limits
from daphne_ng.supervisor.command import needs_supervisor, pid_file, supervise, tell_failure, worker_count
from daphne_ng.supervisor.notify import Notifier
from daphne_ng.supervisor.protocol import Assignment, line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX alone has workers")


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, False),
        ({"workers": "1"}, False),
        ({"workers": "2"}, True),
        ({"reload": True}, True),
        ({"limit_max_requests": 1}, True),
        ({"limit_worker_memory": 1}, True),
        ({"worker_max_age": 1.0}, True),
        ({"user": "nobody"}, True),
        ({"group": "nobody"}, True),
        ({"pid_file": "x", "umask": "022", "worker_timeout": 1.0}, False),
    ],
)
def test_what_needs_a_supervisor(settings: dict[str, Any], needed: bool) -> None:
    assert needs_supervisor(Config(**settings)) is needed


def test_how_many_workers() -> None:
    assert worker_count(Config(workers="3")) == 3
    assert worker_count(Config(workers="auto")) >= 1
    assert worker_count(Config(workers="auto", reload=True)) == 1


@pytest.mark.parametrize("workers", ["0", "-1", "many", "", "1.5", "00", "²", "12345"])
def test_a_wrong_number_of_workers_is_named(workers: str) -> None:
    with pytest.raises(ConfigurationError, match="--workers must be a number from 1 on, or auto"):
        Config(workers=workers)


@pytest.mark.parametrize("umask", ["8", "0o22", "12345", "x"])
def test_a_wrong_umask_is_named(umask: str) -> None:
    with pytest.raises(ConfigurationError, match="--umask must be an octal number"):
        Config(umask=umask)


def test_reload_is_for_one_worker() -> None:
    with pytest.raises(ConfigurationError, match="--reload is for development"):
        Config(reload=True, workers="2")


def test_a_user_that_does_not_exist_is_named_before_anything_is_opened() -> None:
    if os.geteuid():
        expected = "--user can be used by root only"
    else:
        expected = "--user: there is no user 'no-such-user'"
    with pytest.raises(ConfigurationError, match=expected):
        supervise(["tcp:0"], Config(user="no-such-user"), Notifier({}))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can become another user")
def test_reuse_port_is_for_one_user() -> None:
    with pytest.raises(ConfigurationError, match="--user: not with --reuse-port"):
        supervise(["tcp:0"], Config(user="nobody", reuse_port=True), Notifier({}))


def test_a_directory_to_watch_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--reload-dir: .* is not a directory"):
        supervise(["tcp:0"], Config(reload=True, reload_dirs=(str(tmp_path / "x"),)), Notifier({}))


def test_all_limits_together_bound_the_end() -> None:
    config = Config()
    assert max_shutdown_seconds(config) == 30 + 10 + 2 * 5 + 30 + 6
    assert max_shutdown_seconds(config.replace(lifespan_shutdown_timeout=0)) == float("inf")
    short = config.replace(graceful_timeout=0.0, shutdown_application_timeout=2, shutdown_close_timeout=0)
    assert max_shutdown_seconds(short) == 0 + 2 + 2 * 0 + 30 + 6
    assert shutdown_limits(config) == (10, 5)
    assert shutdown_limits(short) == (2, 0)


def test_a_failure_that_the_next_one_would_meet_too_is_told() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    assigned = Assignment(1, writing, 0, []).to_environment()
    other = ApplicationLoadError("importing failed")
    other.__cause__ = OSError(98, "Address already in use")
    tell_failure("", ConfigurationError("this is no worker"))
    tell_failure(assigned, other)
    with pytest.raises(BlockingIOError):
        os.read(reading, 100)
    tell_failure(assigned, ApplicationLoadError("has no attribute 'app'"))
    assert os.read(reading, 100) == line("failed")
    os.close(reading)
    tell_failure(assigned, ApplicationLoadError("the supervisor has gone"))
    os.close(writing)


# -- the file of the process id --------------------------------------------------------------------------------


def test_the_file_holds_the_number_while_the_block_runs(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert path.stat().st_mode & 0o777 == 0o644
    assert not path.exists()
    with pid_file(""):
        pass


def test_a_file_that_was_left_behind_is_no_obstacle_even_if_its_number_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("1\n")
    with pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_file_that_a_process_holds_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    program = (
        "import sys, time; from daphne_ng.supervisor.command import pid_file\n"
        "with pid_file(sys.argv[1]): print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with (
            pytest.raises(ConfigurationError, match=f"pid belongs to process {other.pid}, which runs"),
            pid_file(str(path)),
        ):
            pass
        assert path.read_text() == f"{other.pid}\n"
        other.communicate()
    assert not path.exists()


def test_a_file_that_was_replaced_meanwhile_is_left(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pid_file(str(path)):
        path.unlink()
        path.write_text("2\n")
    assert path.read_text() == "2\n"


def test_what_is_no_ordinary_file_is_named_and_left(tmp_path: Path) -> None:
    """At the end it would be removed, by root: ``--pid /dev/null``."""
    path = tmp_path / "pid"
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="--pid: .*pid is no ordinary file"), pid_file(str(path)):
        pass
    assert path.exists()


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_named_and_not_followed(tmp_path: Path, dangling: bool) -> None:
    """In a directory of another user it may be a link to any file, which root would write over."""
    victim, path = tmp_path / "victim", tmp_path / "pid"
    if not dangling:
        victim.write_text("important")
    path.symlink_to(victim)
    with pytest.raises(ConfigurationError, match="pid is a symbolic link, which is not followed"), pid_file(str(path)):
        pass
    assert path.is_symlink()
    assert not victim.exists() if dangling else victim.read_text() == "important"


def test_a_file_that_has_another_name_is_not_written_to(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "pid"
    victim.write_text("important")
    os.link(victim, path)
    with pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert path.stat().st_nlink == 1
    assert victim.read_text() == "important"


def test_a_file_that_another_has_open_is_replaced(tmp_path: Path) -> None:
    """Who has made it could write another number into it, which is then killed by root."""
    path = tmp_path / "pid"
    with path.open("w") as others:
        with pid_file(str(path)):
            others.write("1\n")
            others.flush()
            assert path.read_text() == f"{os.getpid()}\n"


def test_a_link_to_the_directory_is_followed(tmp_path: Path) -> None:
    """As ``/var/run`` is one to ``/run``."""
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to("run")
    with pid_file(str(tmp_path / "var/pid")):
        assert (tmp_path / "run/pid").read_text() == f"{os.getpid()}\n"


def test_a_file_that_was_made_for_this_user_may_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By root, in a directory that is root's."""
    path = tmp_path / "pid"
    path.write_text("left behind")

    def unlink(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", unlink)
    with pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(ConfigurationError, match="which runs"), pid_file(str(path)):
            pass


def test_of_many_that_start_at_once_one_gets_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("1\n")
    program = (
        "import sys, time; from daphne_ng.supervisor.command import pid_file\n"
        "sys.stdin.readline()\n"
        "with pid_file(sys.argv[1]): print('has it', flush=True); sys.stdin.read()"
    )
    some = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    for one in some:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    running = [one for one in some if one.stdout is not None and one.stdout.readline()]
    assert len(running) == 1
    assert path.read_text() == f"{running[0].pid}\n"
    for one in some:
        said = one.communicate()[1]
        assert one in running or "which runs" in said
    assert not path.exists()


def test_a_file_that_comes_back_whenever_it_is_removed_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns the directory could keep the start busy for ever."""
    path = tmp_path / "pid"
    path.write_text("1\n")
    removals = []
    remove = os.unlink

    def unlink(name: str) -> None:
        removals.append(name)
        assert len(removals) < 1000, "it never ends"
        remove(name)
        path.write_text("1\n")

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(ConfigurationError, match="somebody else makes .*pid again and again"), pid_file(str(path)):
        pass


def test_a_file_on_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(ConfigurationError, match="--pid: .*pid: No space left"), pid_file(str(tmp_path / "pid")):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"--pid: .*: No such file or directory"),
        pid_file(str(tmp_path / "x/y")),
    ):
        pass

"""`daphne_ng.net.sockets.unix_socket`: what is removed, what never is, and when the permissions are right."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from daphne_ng.errors import EndpointError
from daphne_ng.net.sockets import unix_socket
from daphne_ng.net.sockets.unix_socket import PATH_MAX_BYTES, listen


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in the current directory are short enough for sockets."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def listener() -> Any:
    with socket.socket(socket.AF_UNIX) as listener:
        yield listener


def leave_a_dead_one(path: str = "s") -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen(1)


def test_it_listens_and_the_file_is_removed(listener: socket.socket) -> None:
    file = listen(listener, b"s", 5)
    assert file is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("s")
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    file.remove()
    assert os.listdir("..") == ["elsewhere"]
    file.remove()


def test_the_file_of_another_process_or_of_a_successor_stays(listener: socket.socket) -> None:
    file = listen(listener, b"s", 5)
    assert file is not None
    unix_socket.SocketFile(file.path, file.device, file.inode, file.process + 1).remove()
    assert os.path.exists("s")
    os.unlink("s")
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind("s")
        file.remove()
        assert os.path.exists("s")


def test_the_mode_is_never_wider_than_asked_for(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    for name in ("chmod", "chown"):
        real = getattr(os, name)

        def spy(*args: Any, real: Any = real, **kwargs: Any) -> Any:
            seen.append(stat.S_IMODE(os.lstat("s").st_mode))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, spy)
    umask = os.umask(0o027)
    try:
        listen(listener, b"s", 5, mode=0o662, owner=(os.getuid(), os.getgid()))
    finally:
        os.umask(umask)
    assert seen
    if os.uname().sysname == "Linux":
        assert all(mode & ~0o662 == 0 for mode in seen)
    assert stat.S_IMODE(os.stat("s").st_mode) == 0o662


def test_what_cannot_be_given_away_is_removed_again(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(EndpointError, match="cannot be given to that owner: Operation not permitted"):
        listen(listener, b"s", 5, owner=(1, 1))
    assert os.listdir() == []
    assert listener.fileno() == -1


def test_a_dead_socket_is_replaced_only_if_asked(listener: socket.socket) -> None:
    leave_a_dead_one()
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(OSError, match="in use"):
        listen(other, b"s", 5, replace_dead=False)
    assert listen(listener, b"s", 5) is not None


@pytest.mark.parametrize("listens", [True, False])
def test_a_live_socket_is_never_replaced(listener: socket.socket, listens: bool) -> None:
    kind = socket.SOCK_STREAM if listens else socket.SOCK_DGRAM
    with socket.socket(socket.AF_UNIX, kind) as live:
        live.bind("s")
        if listens:
            live.listen(1)
        with pytest.raises(OSError, match="in use") as caught:
            listen(listener, b"s", 5)
        assert caught.value.errno == errno.EADDRINUSE
        assert os.path.exists("s")


def test_a_socket_that_takes_the_place_while_it_is_probed_is_not_removed(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_a_dead_one()
    with socket.socket(socket.AF_UNIX) as successor:
        real = os.lstat

        def lstat(path: Any) -> os.stat_result:
            found = real(path)
            if not successor.getsockname():  # the first look
                os.rename("s", "old")
                successor.bind("s")
                successor.listen(1)
                monkeypatch.setattr(os, "lstat", real)
            return found

        monkeypatch.setattr(os, "lstat", lstat)
        with pytest.raises(OSError, match="in use"):
            listen(listener, b"s", 5)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("s")


def test_what_is_no_socket_is_never_removed(listener: socket.socket) -> None:
    Path("s").write_text("precious")
    with pytest.raises(EndpointError, match="a file that is no socket is in the way"):
        listen(listener, b"s", 5)
    assert Path("s").read_text() == "precious"


@pytest.mark.parametrize("target", ["1", "somewhere"])
def test_the_lock_of_twisted_goes_with_a_dead_socket(listener: socket.socket, target: str) -> None:
    leave_a_dead_one()
    os.symlink(target, "s.lock")
    listen(listener, b"s", 5)
    assert os.path.lexists("s.lock") is (target == "somewhere")


def test_the_directory_is_locked_until_it_listens(listener: socket.socket) -> None:
    locked = []

    class Listener:
        def __getattr__(self, name: str) -> Any:
            return getattr(listener, name)

        def listen(self, backlog: int) -> None:
            probe = os.open(".", os.O_RDONLY)
            try:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked.append(True)
            finally:
                os.close(probe)
            listener.listen(backlog)

    stand_in: Any = Listener()
    listen(stand_in, b"s", 5)
    assert locked == [True]
    directory = os.open(".", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(directory)


def test_a_lock_that_somebody_keeps_delays_only(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_socket, "_LOCK_PATIENCE_SECONDS", 0.02)
    directory = os.open(".", os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        assert listen(listener, b"s", 5) is not None
    finally:
        os.close(directory)


@pytest.mark.parametrize("refused", ["open", "flock"])
def test_a_directory_that_cannot_be_locked_is_used_all_the_same(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EACCES, "no") if refused == "open" else OSError(errno.EBADF, "no")

    monkeypatch.setattr(os if refused == "open" else fcntl, refused, refuse)
    assert listen(listener, b"s", 5) is not None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (b"", "the path is empty"),
        (b"a\0b", "a path cannot hold a NUL character"),
        (b"x" * (PATH_MAX_BYTES + 1), f"it has {PATH_MAX_BYTES + 1} bytes, and {PATH_MAX_BYTES} are allowed"),
    ],
)
def test_a_path_that_is_none_is_refused(listener: socket.socket, path: bytes, reason: str) -> None:
    with pytest.raises(EndpointError, match=reason):
        listen(listener, path, 5)
    assert listener.fileno() == -1


def test_the_longest_path_is_allowed(listener: socket.socket) -> None:
    assert listen(listener, b"x" * PATH_MAX_BYTES, 5) is not None


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="Linux")
def test_an_abstract_socket_has_no_file_and_no_owner(listener: socket.socket) -> None:
    name = b"\0daphne-ng-%d" % os.getpid()
    assert listen(listener, name, 5) is None
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(EndpointError, match="has no owner"):
        listen(other, name, 5, owner=(1, 1))
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(OSError, match="in use"):
        listen(other, name, 5)

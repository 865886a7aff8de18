"""Workers and what is around them: signals, what does not want to end, reload, sockets, users and files."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes.serving import APPS, HOST, LAUNCH, ROOT, SLACK, needs_procfs, serve, wait_for
from tests.support.processes.working import APP, SERVER, Load, Workers, ends_within, start, workers

pytestmark = [needs_procfs, pytest.mark.once, pytest.mark.filterwarnings("ignore::ResourceWarning")]

NOBODY = pwd.getpwnam("nobody")
BLOCKED = r"WARNING +The event loop has been blocked"


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path fits into the address of a UNIX socket, and that anybody can read."""
    with tempfile.TemporaryDirectory(prefix="dng") as path:
        os.chmod(path, 0o755)
        yield Path(path)


# -- what does not want to end ---------------------------------------------------------------------------------

LIMITS = ("--graceful-timeout", "1", "--application-close-timeout", "1", "--lifespan-shutdown-timeout", "1")


@pytest.mark.parametrize("count", [0, 2], ids=["alone", "workers"])
@pytest.mark.parametrize(
    "way",
    ["thread", "swallow", "events", "flood", "generator", pytest.param("block", marks=pytest.mark.system)],
)
def test_nothing_holds_up_the_end(tmp_path: Path, way: str, count: int) -> None:
    """The limits are 1 s for requests, 1 s for those that are cancelled, twice 5 s for connections, 1 s for the lifespan."""
    options = ("--workers", str(count)) if count else ()
    with serve(APP, tmp_path, *LIMITS, *options) as server:
        running = Workers(server)
        server.expect(
            "ignores its cancellation", "took too long", BLOCKED, "does not end", "These threads run", "MainThread"
        )
        server.expect(r"CRITICAL (uvloop|asyncio)_\d:$", "Dropped a connection")
        if count:
            running.wait_ready(count)
        asked = running.ask(f"/{way}")
        time.sleep(0.5)
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        code = server.process.wait(30)
        took = time.monotonic() - began
        print(f"{way}: {took:.1f} s")
        # A process whose loop is blocked has been ended by force. Its supervisor has not.
        assert code == (1 if way == "block" and not count else 0)
        server.process.returncode = 0
        # All limits together, and the supervisor's margin.
        assert took < (26 if way == "block" else 9)
        if way == "thread" and not count:
            assert "stuck_view" in server.log
        asked.close()


def test_a_second_signal_ends_the_workers_at_once_and_a_third_kills(tmp_path: Path) -> None:
    with workers(tmp_path) as running:
        asked = [running.ask("/swallow"), running.ask("/?600")]
        running.server.expect("ignores its cancellation")
        time.sleep(0.3)
        running.signal(signal.SIGTERM)
        running.server.wait_for_log("Waiting for . running request")
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert running.server.process.wait(8 * SLACK) == 0
        assert time.monotonic() - began < 6 * SLACK
        for one in asked:
            one.close()


def test_progress_is_told_every_second(tmp_path: Path) -> None:
    with serve(APP, tmp_path) as server:
        running = Workers(server)
        asked = running.ask("/?2.5")
        time.sleep(0.3)
        assert ends_within(running, 8) == 0
        lines = re.findall(r"Waiting for 1 request and 1 connection, (\d+) seconds left", server.log)
        assert [int(line) for line in lines] == sorted(map(int, lines), reverse=True)
        assert 25 < int(lines[0]) < 30
        assert len(lines) in (1, 2)
        asked.close()


# -- signals ---------------------------------------------------------------------------------------------------


def test_control_c_in_a_terminal_ends_gracefully(tmp_path: Path) -> None:
    """It comes to every process of the group, and the supervisor tells its workers besides: that is once, not twice."""
    command = [*SERVER, "-b", HOST, "-p", "0", "--workers", "2", APP]
    with (tmp_path / "log").open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(APPS)},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    log = tmp_path / "log"
    wait_for(lambda: log.read_text().count("is ready") == 2, "the workers", 20)
    port = int(re.search(r"address \S+:(\d+)", log.read_text())[1])  # type: ignore[index]
    asked = socket.create_connection((HOST, port), 10)
    asked.sendall(b"GET /?1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    assert asked.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert process.wait(10) == 0
    assert "Traceback" not in log.read_text()
    assert "KeyboardInterrupt" not in log.read_text()
    asked.close()


@pytest.mark.parametrize("pause", [0, 0.3], ids=["together", "late"])
def test_a_stop_of_the_whole_unit_by_systemd_is_graceful(tmp_path: Path, pause: float) -> None:
    """KillMode=control-group, systemd's default, sends SIGTERM to workers too."""
    with workers(tmp_path) as running:
        asked = running.ask("/?3")
        time.sleep(0.3 * SLACK)
        workers_running = list(running.running)
        # The one that had nothing to do may be ending, with its handlers given back.
        running.server.expect("which was about to end, was killed by SIGTERM")
        os.kill(running.server.pid, signal.SIGTERM)
        time.sleep(pause)
        for pid in workers_running:
            with contextlib.suppress(ProcessLookupError):  # the one that had nothing to do may have ended
                os.kill(pid, signal.SIGTERM)
        assert asked.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert running.server.process.wait(20) == 0
        asked.close()


def test_usr1_opens_the_access_log_of_every_worker_again(tmp_path: Path) -> None:
    with workers(tmp_path, "--access-log", "access") as running:
        running.fetch("/before")
        wait_for(lambda: "/before" in (tmp_path / "access").read_text(), "a line")
        (tmp_path / "access").rename(tmp_path / "moved")
        running.signal(signal.SIGUSR1)
        wait_for((tmp_path / "access").exists, "a new file")
        time.sleep(0.5)
        for _ in range(10):
            running.fetch("/after")
        wait_for(lambda: (tmp_path / "access").read_text().count("/after") == 10, "the lines")
        assert "/after" not in (tmp_path / "moved").read_text()


def test_usr2_tells_what_every_worker_does(tmp_path: Path) -> None:
    with workers(tmp_path, *LIMITS) as running:
        running.server.expect("ignores its cancellation", r"WARNING +(serving|HTTP|Connection|Task|   )", "GET|POST")
        asked = running.ask("/swallow?x=1")
        listening = running.ask("/listen")
        time.sleep(0.3)
        running.signal(signal.SIGUSR2)
        running.server.wait_for_log(r"2 workers wanted")
        running.server.wait_for_log(r"serving: [12] connections?, [12] applications? running")
        running.server.wait_for_log(r"/swallow, \d\.\d s old")
        running.server.wait_for_log(r"worked\.py:\d+ in swallow")
        running.server.wait_for_log(r"Connection Http1 of 127\.0\.0\.1.*: 0 bytes unsent")
        running.server.wait_for_log(r"Task lifespan")
        running.server.wait_for_log(r"    .* in listen$")
        running.server.wait_for_log(r"    (.* )?in HttpExchange\.receive$")
        listening.close()
        asked.close()


# -- reload ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("watchfiles", [True, False], ids=["watchfiles", "polling"])
def test_reload_serves_the_new_code_and_refuses_nobody(tmp_path: Path, watchfiles: bool) -> None:
    if watchfiles:
        pytest.importorskip("watchfiles")
    else:
        (tmp_path / "watchfiles.py").write_text("raise ImportError\n")
    code = Path(APPS / "worked.py").read_text()
    (tmp_path / "mine.py").write_text(code)
    with workers(tmp_path, "--reload", count=0, app="mine:application", imports=tmp_path) as running:
        running.server.expect("which was to replace", "The workers are not replaced: the new code does not start")
        with Load(running.server.port, kept=2, fresh=2, sockets=2, http2=1) as load:
            load.wait(50)
            time.sleep(0.5)
            (tmp_path / "mine.py").write_text("syntax error\n" + code)
            running.server.wait_for_log("the new code does not start; the old goes on", 20)
            load.wait(50)
            (tmp_path / "mine.py").write_text(code + "\nGREETING = ''\n")
            running.server.wait_for_log("All workers are replaced", 20)
            load.wait(50)
            running.wait_settled(1)
        assert load.failures == {}
        assert len(load.by_pid) == 2
        assert "mine.py changed" in running.log


TERMINAL = """import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"""


@pytest.mark.parametrize("reload", [True, False], ids=["reload", "workers"])
def test_a_terminal_that_is_closed_ends_what_is_being_developed(tmp_path: Path, reload: bool) -> None:
    """A service goes on: SIGHUP is a reload."""
    ours, theirs = os.openpty()
    options = ["-u", "s", "--access-log", "access", *(["--reload"] if reload else ["--workers", "2"]), APP]
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *SERVER[1:], *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{APPS}"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while said.count(b"is ready") < (1 if reload else 2):
        said += os.read(ours, 65536)
    running = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    before = set(running.read_text().split())
    os.close(ours)
    try:
        if not reload:
            wait_for(lambda: len(set(running.read_text().split()) - before) >= 2, "new workers", 20)
            process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "s").exists()


# -- sockets ---------------------------------------------------------------------------------------------------


def test_the_file_of_a_unix_socket_stays_over_rolling_restarts_and_goes_at_the_end(short: Path) -> None:
    path = short / "s"
    with workers(short, listen=("-u", str(path))) as running:
        inode = path.stat().st_ino
        running.roll()
        assert path.stat().st_ino == inode
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        os.kill(running.running[0], signal.SIGKILL)
        running.server.expect("was killed by SIGKILL")
        running.wait_ready(5)
        assert path.stat().st_ino == inode
    assert not path.exists()


def test_sockets_of_systemd_are_handed_down_and_outlive_everything(short: Path) -> None:
    with socket.create_server((HOST, 0)) as inherited:
        program = [sys.executable, LAUNCH, f"{inherited.fileno()}:3", "LISTEN_FDS=1", "LISTEN_PID=@pid", "--", *SERVER]
        options = {"program": program, "inherit": [inherited.fileno()], "listen": ["-e", "systemd:domain=INET:index=0"]}
        with workers(short, **options) as running:
            with Load(running.server.port) as load:
                load.wait()
                running.roll()
            assert load.failures == {}
        # Not shut down: who comes now waits for the next server.
        with socket.create_connection(inherited.getsockname()):
            pass


def test_standard_input_is_handed_down(short: Path) -> None:
    with socket.create_server((HOST, 0)) as inherited:
        program = [sys.executable, LAUNCH, f"{inherited.fileno()}:0", "--", *SERVER]
        options = {"program": program, "inherit": [inherited.fileno()], "listen": ["--fd", "0"]}
        with workers(short, **options) as running:
            running.roll()
            with Load(running.server.port) as load:
                load.wait()
            assert load.failures == {}


def test_tls_and_the_proxy_protocol_are_the_workers_concern(short: Path, pem: Path) -> None:
    import ssl

    endpoint = f"haproxy:ssl:0:privateKey={pem}:certKey={pem}:interface={HOST}"
    with workers(short, "--forwarded-allow-ips", HOST, listen=("-e", endpoint)) as running:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for _ in range(4):
            raw = running.server.connect()
            raw.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
            with context.wrap_socket(raw) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert client.recv(65536).startswith(b"HTTP/1.1 200")
        wait_for(lambda: "192.0.2.1" in running.log, "the access log")


def test_with_reuse_port_every_worker_listens_for_itself(tmp_path: Path) -> None:
    with workers(tmp_path, "--reuse-port") as running:
        wait_for(lambda: {int(running.fetch()) for _ in range(30)} == set(running.running), "both workers")
        with Load(running.server.port, sockets=0) as load:
            load.wait(500)
        assert load.failures == {}
        running.roll()
        assert running.fetch()


def public_python() -> dict[str, Any]:
    """Return the options of `serve` for an interpreter that anybody may run: a virtual environment may be root's alone."""
    done = subprocess.run(
        ["su", "-s", "/bin/sh", "nobody", "-c", f"{sys.executable} -c 'import daphne_ng'"], check=False
    )
    if done.returncode == 0:
        return {}
    places = [str(APPS), str(ROOT), *(place for place in sys.path if place.endswith("site-packages"))]
    python = shutil.which("python3", path="/usr/bin")
    program = [python or "", "-m", "daphne_ng"]
    environment = {"PYTHONPATH": os.pathsep.join(places)}
    command = f"PYTHONPATH={environment['PYTHONPATH']} {python} -c 'import daphne_ng.server'"
    done = subprocess.run(["su", "-s", "/bin/sh", "nobody", "-c", command], check=False)
    if done.returncode:
        pytest.skip("there is no interpreter that another user may run")
    return {"program": program, "environment": environment}


# -- the process -----------------------------------------------------------------------------------------------


def test_the_pid_file_names_the_supervisor_and_goes_with_it(tmp_path: Path) -> None:
    with workers(tmp_path, "--pid", "pid") as running:
        assert int((tmp_path / "pid").read_text()) == running.server.pid
        running.roll()
        os.kill(running.running[0], signal.SIGTERM)
        running.wait_ready(5)
        assert int((tmp_path / "pid").read_text()) == running.server.pid
        done = start(tmp_path, "-p", "0", "--pid", "pid", APP)
        assert done.returncode == 1
        assert f"pid belongs to process {running.server.pid}, which runs" in done.stdout
    assert not (tmp_path / "pid").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("options", [["--user", "nobody"], ["--user", str(NOBODY.pw_uid), "--group", "daemon"]])
def test_workers_run_as_another_user_and_sockets_are_opened_before(short: Path, options: list[str]) -> None:
    listen = ("-b", HOST, "-p", "0", "-u", str(short / "s"))
    with workers(short, *options, "--umask", "027", listen=listen, **public_python()) as running:
        uid, gid, *_ = (said := running.fetch("/identity")).split()
        assert int(uid) == NOBODY.pw_uid
        assert (int(gid) == NOBODY.pw_gid) == ("--group" not in options)
        assert "[0" not in said
        assert f" 27 {NOBODY.pw_dir}" in said
        assert (short / "s").stat().st_uid == 0
        running.roll()
        assert running.fetch()


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_without_standard_input_and_output_serves_and_ends_in_order(tmp_path: Path, count: int) -> None:
    """What is opened first would get their numbers."""
    command = f"exec {sys.executable} -m daphne_ng -u s --workers {count} --access-log access {APP} <&- >&- 2>&-"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{APPS}"}
    process = subprocess.Popen(["sh", "-c", command], cwd=tmp_path, env=environment)
    try:
        wait_for((tmp_path / "s").exists, "the socket", 20)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(os.path.relpath(tmp_path / "s"))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
    finally:
        process.terminate()
        code = process.wait(20)
    assert code == 0


def test_a_key_that_the_user_cannot_read_ends_the_whole_with_the_reason(short: Path, pem: Path) -> None:
    if os.getuid():
        pytest.skip("only root can become another user")
    key = short / "key.pem"
    shutil.copy(pem, key)
    key.chmod(0o600)
    python = public_python()
    environment = os.environ | {"PYTHONPATH": str(APPS)} | python.get("environment", {})
    options = [
        "--workers",
        "2",
        "-e",
        f"ssl:0:privateKey={key}:certKey={key}:interface={HOST}",
        "--user",
        "nobody",
        APP,
    ]
    done = subprocess.run(
        [*python.get("program", SERVER), *options],
        cwd=short,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    done.stdout += done.stderr
    assert done.returncode == 1
    assert "key.pem" in done.stdout
    assert "ermission denied" in done.stdout
    assert "Traceback" not in done.stdout

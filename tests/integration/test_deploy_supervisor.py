"""supervisor runs the server: a program with a UNIX socket, processes that share a socket, and gunicorn beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.processes.deploying import Machine, Pressure, answers, ask, machine, pause, pid_of
from tests.support.processes.serving import HOST, free_port, require_program, wait_for

pytestmark = pytest.mark.system

DAEMON = """
[supervisord]
nodaemon=true
user={user}
logfile={root}/log/supervisord.log
pidfile={root}/supervisord.pid
childlogdir={root}/log

[unix_http_server]
file={root}/ctl

[supervisorctl]
serverurl=unix://{root}/ctl

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

"""


class Supervisor:
    """A supervisord, and its ``supervisorctl``."""

    def __init__(self, here: Machine) -> None:
        self._config = str(here.root / "supervisord.conf")
        self._log = here.log / "supervisord.log"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def control(self, *arguments: str) -> str:
        done = subprocess.run(
            ["supervisorctl", "-c", self._config, *arguments], capture_output=True, text=True, timeout=60
        )
        return done.stdout + done.stderr

    def pids(self) -> dict[str, int]:
        """The running processes, by name."""
        return {
            name: int(pid) for name, pid in re.findall(r"^(\S+) +RUNNING +pid (\d+),", self.control("status"), re.M)
        }

    def running(self, count: int) -> dict[str, int]:
        return wait_for(lambda: len(self.pids()) == count and self.pids(), f"{count} processes to run", 30)


@contextlib.contextmanager
def supervised(here: Machine, programs: str, **environment: str) -> Iterator[Supervisor]:
    config = DAEMON.format(root=here.root, user=here.user) + programs
    (here.root / "supervisord.conf").write_text(config, "utf-8")
    command = [require_program("supervisord"), "-c", str(here.root / "supervisord.conf")]
    with here.started("supervisord", command, (here.root / "ctl").exists, env={**os.environ, **environment}):
        yield Supervisor(here)


@pytest.fixture
def here() -> Iterator[Machine]:
    with machine() as made:
        yield made


def over(path: Path) -> httpx.Client:
    return httpx.Client(base_url="http://localhost", transport=httpx.HTTPTransport(uds=str(path)), timeout=20)


def reachable(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return True
    return False


@contextlib.contextmanager
def asking_slowly(path: Path) -> Iterator[list[int]]:
    """Have a request run while the block does; give who has answered it."""
    answered: list[int] = []
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        pause(0.3)
        yield answered
        head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        answered.append(json.loads(body)["pid"])


def test_a_program_with_a_unix_socket(here: Machine) -> None:
    path = here.root / "run" / "proj" / "proj.sock"
    with supervised(here, here.file("supervisor-unix.conf")) as supervisor:
        first = supervisor.running(1)["proj"]
        wait_for(path.exists, "the socket", 20)
        with over(path) as client:
            assert client.get("/health").json() == {"pid": first}
        # A request that runs is answered before the process ends.
        with asking_slowly(path) as answered:
            assert "proj: started" in supervisor.control("restart", "proj")
        assert answered == [first]
        wait_for(path.exists, "the socket", 20)
        second = supervisor.pids()["proj"]
        assert second != first
        # One that was killed leaves its socket behind, and is started again.
        os.kill(second, 9)
        wait_for(lambda: supervisor.pids().get("proj") not in (None, second), "the next process", 30)
        wait_for(lambda: reachable(path), "the socket", 20)
        assert "proj: stopped" in supervisor.control("stop", "proj")
        assert not path.exists()
    assert "stopped: proj (exit status 0)" in supervisor.log
    assert "exited: proj (terminated by SIGKILL; not expected)" in supervisor.log
    log = (here.log / "proj.log").read_text()
    assert log.count(f"Listening on UNIX socket {path}") == 3
    assert re.search(r'"GET /health HTTP/1\.1" 200|GET /health', log)
    assert "Traceback" not in log


def test_processes_share_a_socket_and_are_restarted_one_by_one_without_a_lost_request(here: Machine) -> None:
    port = free_port()
    text = here.file("supervisor.conf", {"127.0.0.1:8000": f"localhost:{port}"})
    with here.redis() as redis, supervised(here, text, REDIS_URL=redis) as supervisor:
        url = f"http://{HOST}:{port}"
        first = supervisor.running(4)
        assert sorted(first) == [f"proj:proj{number}" for number in range(4)]
        wait_for(lambda: answered_by(url) == {*first.values()}, "every process to answer", 30)
        with Pressure(HOST, port, http=6, websockets=3) as pressure:
            pause(1)
            for name in ("proj:proj0", "proj:proj3"):
                assert f"{name}: started" in supervisor.control("restart", name)
            second = supervisor.running(4)
            wait_for(lambda: answered_by(url) == {*second.values()}, "every new process to answer", 30)
            counted = pressure.result()
        assert counted["failures"] == {}
        assert len({*first.values()} & {*second.values()}) == 2
        assert supervisor.control("stop", "proj:*").count("stopped") == 4
        assert not answers(port)
    assert supervisor.log.count("(exit status 0)") == 6
    for number in range(4):
        log = (here.log / f"proj-{number}.log").read_text()
        assert log.count(f"Listening on TCP address {HOST}:{port}") == (2 if number in (0, 3) else 1)
        assert "GET /health" in log
        assert "Traceback" not in log


def test_processes_may_have_a_socket_each_besides_as_channels_documents(here: Machine) -> None:
    port = free_port()
    socket_of_its_own = f"-u {here.root}/run/proj/daphne%(process_num)d.sock --fd 0"
    text = here.file("supervisor.conf", {"127.0.0.1:8000": f"localhost:{port}", "--fd 0": socket_of_its_own})
    with supervised(here, text) as supervisor:
        pids = supervisor.running(4)
        wait_for(lambda: answered_by(f"http://{HOST}:{port}") == {*pids.values()}, "every process to answer", 30)
        for number in range(4):
            with over(here.root / "run" / "proj" / f"daphne{number}.sock") as client:
                assert client.get("/health").json() == {"pid": pids[f"proj:proj{number}"]}


def answered_by(url: str) -> set[int]:
    """Who answers; the clients come at once, because one alone would often meet the same process."""
    with ThreadPoolExecutor(16) as clients:
        return set(clients.map(pid_of, [url] * 48))


def test_a_program_in_place_of_an_fcgi_program_is_told_what_is_wrong(here: Machine) -> None:
    text = here.file(
        "supervisor.conf",
        {"[fcgi-program:": "[program:", "socket=tcp://127.0.0.1:8000\n": "", "numprocs=4": "numprocs=1"},
    )
    path = here.log / "proj-0.log"
    with supervised(here, text):
        wait_for(lambda: path.exists() and "CRITICAL" in path.read_text(), "the server to complain", 30)
    log = path.read_text()
    line = next(line for line in log.splitlines() if "CRITICAL" in line)
    assert (
        "descriptor 0 is not a socket: supervisor passes one as standard input in an [fcgi-program] section with socket="
        in line
    )
    assert "Traceback" not in log


def test_gunicorn_for_pages_and_the_server_for_websockets(here: Machine) -> None:
    front = free_port()
    config = here.file("nginx-gunicorn.conf", {"listen 80": f"listen {HOST}:{front}"})
    with here.redis() as redis, supervised(here, here.file("supervisor-gunicorn.conf"), REDIS_URL=redis) as supervisor:
        supervisor.running(2)
        for name in ("web", "sockets"):
            wait_for(lambda: reachable(here.root / "run" / "proj" / f"{name}.sock"), name, 30)  # noqa: B023
        with here.nginx(config, port=front) as url:
            said = ask(f"{url}/who/")
            assert (said["server"], said["url"]) == ("wsgi", f"{url}/who/")
            with connect(f"ws://{HOST}:{front}/ws/", proxy=None) as ws:
                hello = json.loads(ws.recv(10))
                assert hello["pid"] == supervisor.pids()["proj:sockets"]
                assert hello["client"] == [HOST, ws.local_address[1]]
                # A view under gunicorn speaks to a WebSocket of ours.
                assert ask(f"{url}/say/", "POST", content="from a view")["pid"] != hello["pid"]
                assert json.loads(ws.recv(10)) == {"pid": hello["pid"], "text": "from a view"}

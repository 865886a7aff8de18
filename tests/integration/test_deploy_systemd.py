"""The units of the documentation: what systemd says of them, and what they start."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.processes.deploying import EXAMPLES, Machine, Pressure, ask, machine, pause, pid_of, stop
from tests.support.processes.serving import HOST, LAUNCH, free_port, require_program

pytestmark = pytest.mark.system

# The unit listens on every address, IPv4 too; a test does not.
LOOPBACK = "::1"
UNITS = ["proj.service", "proj@.service", "activated.socket", "activated.service"]


@pytest.fixture
def here() -> Iterator[Machine]:
    with machine() as made:
        yield made


def unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


def test_every_unit_is_checked() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".service", ".socket")} == set(UNITS)


def test_systemd_finds_nothing_wrong(here: Machine) -> None:
    paths = []
    for name in UNITS:
        path = here.root / name
        path.write_text(here.file(name), "utf-8")
        paths.append(str(path))
    # It complains of a file that systemd could not run, of names and values it does not know, of units that are missing.
    verify = [require_program("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", *paths]
    done = subprocess.run(verify, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    broken = here.root / "proj.service"
    broken.write_text(broken.read_text().replace("TimeoutStopSec=90", "TimeoutStopSec=soon"))
    done = subprocess.run(verify, capture_output=True, text=True)
    assert "Failed to parse time value" in done.stderr


@pytest.mark.parametrize("name", ["proj.service", "proj@.service"])
def test_the_service_tells_systemd_how_it_goes(here: Machine, name: str) -> None:
    port = free_port()
    replace = {"%i -p 8000": f"{HOST} -p {port}"} if name == "proj@.service" else {}
    service = unit(here.file(name, replace))["Service"]
    assert Path(service["WorkingDirectory"]) == here.project
    if "RuntimeDirectory" in service:
        assert here.root.joinpath("run", service["RuntimeDirectory"]).is_dir()
    path = str(here.root / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(20)
        said = ""

        def hears(word: str) -> bool:
            nonlocal said
            while word not in said.split():
                said += systemd.recv(4096).decode() + "\n"
            return True

        assert service["Type"] == "notify"
        # A sign of life each second is asked for, in place of the minute of the unit.
        environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"}
        command = shlex.split(service["ExecStart"])
        with here.started("service", command, lambda: hears("READY=1"), env=environment) as process:
            if name == "proj.service":
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(here.root / "run" / "proj" / "proj.sock"))
            else:
                assert pid_of(f"http://{HOST}:{port}") == process.pid
            assert hears("WATCHDOG=1")
            # ExecReload: the server goes on, with the certificates that are there now.
            said = ""
            assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
            process.send_signal(signal.SIGHUP)
            assert hears("WATCHDOG=1")
            assert process.poll() is None
            said = ""
            assert stop(process) == 0
            assert hears("STOPPING=1")


# systemd-socket-activate is systemd's own parent for tests: it opens the socket, waits for a connection, and executes.
def test_the_socket_starts_the_service_with_the_first_connection(here: Machine) -> None:
    port = free_port()
    listen = unit(here.file("activated.socket", {"ListenStream=8000": f"ListenStream=[{LOOPBACK}]:{port}"}))["Socket"]
    service = unit(here.file("activated.service"))["Service"]
    activate = [require_program("systemd-socket-activate"), "-l", listen["ListenStream"]]
    activate += [f"--fdname={listen['FileDescriptorName']}", *shlex.split(service["ExecStart"])]
    with here.started("activated", activate, lambda: listens(port)) as process:
        assert "Starting server" not in (here.log / "activated.out").read_text()
        url = f"http://[{LOOPBACK}]:{port}"
        assert pid_of(url) == process.pid
        assert ask(f"{url}/who/")["client"] == LOOPBACK
        with connect(f"ws://[{LOOPBACK}]:{port}/ws/", proxy=None) as ws:
            assert json.loads(ws.recv(10))["pid"] == process.pid
        assert stop(process) == 0


def test_no_request_is_lost_when_the_service_is_restarted_and_the_socket_is_not(here: Machine) -> None:
    port = free_port()
    listen = unit(here.file("activated.socket", {"ListenStream=8000": f"ListenStream=[{LOOPBACK}]:{port}"}))["Socket"]
    url = f"http://[{LOOPBACK}]:{port}"
    command = shlex.split(unit(here.file("activated.service"))["Service"]["ExecStart"])
    with socket.create_server((LOOPBACK, port), family=socket.AF_INET6) as shared:
        parent = ["LISTEN_FDS=1", "LISTEN_PID=@pid", f"LISTEN_FDNAMES={listen['FileDescriptorName']}", "--", *command]
        launch = [command[0].replace("daphne-ng", "python"), LAUNCH, f"{shared.fileno()}:3", *parent]

        def serve(number: int) -> subprocess.Popen[bytes]:
            with (here.log / f"{number}.out").open("wb") as log:
                return subprocess.Popen(
                    launch,
                    cwd=here.project,
                    pass_fds=[shared.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

        process = serve(0)
        try:
            with Pressure(LOOPBACK, port, http=6, websockets=3) as pressure:
                assert pid_of(url) == process.pid
                for number in range(1, 4):
                    pause(1)
                    assert stop(process) == 0
                    process = serve(number)
                    assert pid_of(url) == process.pid
                counted = pressure.result()
        finally:
            stop(process)
    assert counted["failures"] == {}
    assert len(counted["pids"]) == 4


def listens(port: int) -> bool:
    # Not by a connection, which would start the service.
    shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True)
    return bool(shown.stdout)

"""A machine in a directory: where the files of ``docs/examples/deploy`` say ``/srv``, ``/run`` and ``/var/log``.

The files are used as they are, but for the names that cannot be had on a machine that runs other things too: those
directories, ports, addresses, and the user. `Machine.file` replaces them, and fails where there is nothing to replace.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.support.processes.serving import HOST, PROJECTS, ROOT, free_port, require_program, wait_for

EXAMPLES = ROOT / "docs" / "examples" / "deploy"
PROJECT = PROJECTS / "deployed" / "proj"
BIN = Path(sys.executable).parent

STOP_SECONDS = 20.0
NGINX = """
daemon off; master_process off; worker_rlimit_nofile 512; pid {root}/nginx.pid; error_log {root}/log/nginx.log info;
events {{ worker_connections 256; }}
http {{ access_log off; {temporary}
{site}
}}
"""

T = TypeVar("T")


class Machine:
    """A project in ``/srv/proj``, with its environment, and places for sockets and logs.

    Args:
        root: What stands for ``/``; short, because the paths of sockets are limited.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.user = pwd.getpwuid(os.getuid())[0]
        self.project = root / "srv" / "proj"
        self.log = root / "log"
        for directory in (root / "run" / "proj", self.project / "static", self.log):
            directory.mkdir(parents=True)
        self.project.joinpath("static", "leaf.txt").write_text("a leaf\n")
        shutil.copytree(PROJECT, self.project / "proj", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(EXAMPLES / "channel_layers.py", self.project / "proj")
        (self.project / ".venv").symlink_to(BIN.parent)

    def file(self, name: str, replace: Mapping[str, object] | None = None) -> str:
        """Return a file of the documentation with this machine's names in it."""
        text = (EXAMPLES / name).read_text("utf-8")
        for old, new in (replace or {}).items():
            assert old in text, (name, old)
            text = text.replace(old, str(new))
        text = text.replace("/var/log/", f"{self.log}/").replace("user=proj", f"user={self.user}")
        return re.sub(
            "(?<![/A-Za-z0-9_.])/(srv|run)/", rf"{self.root}/\1/", text.replace("unix:/run", f"unix:{self.root}/run")
        )

    @contextlib.contextmanager
    def started(
        self, name: str, command: Sequence[str], ready: Callable[[], object], **more: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program, in the project's directory, from the time when `ready` says so; end it with SIGTERM."""
        path = self.log / f"{name}.out"
        with path.open("ab") as log:
            options = {"cwd": self.project, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, **{**options, **more})

        def begun() -> object:
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{path.read_text()}"
            return ready()

        try:
            wait_for(begun, f"{name} to start", 30)
            yield process
        finally:
            stop(process)

    @contextlib.contextmanager
    def nginx(self, *files: str, port: int, prefix: Sequence[str] = ()) -> Iterator[str]:
        """Run nginx with these sites, from the time when it listens on the port; give its URL.

        With a prefix before its command, such as ``ip netns exec NAME``, only its own word is taken for that.
        """
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {self.root / kind};" for kind in kinds)
        config = self.root / "nginx.conf"
        config.write_text(NGINX.format(root=self.root, temporary=temporary, site="\n".join(files)), "utf-8")
        command = [require_program("nginx"), "-p", str(self.root), "-e", str(self.log / "nginx.log"), "-c", str(config)]
        pid = self.root / "nginx.pid"  # written once it listens
        with self.started("nginx", [*prefix, *command], pid.exists if prefix else lambda: answers(port)):
            yield f"http://{HOST}:{port}"

    @contextlib.contextmanager
    def redis(self, host: str = HOST, port: int = 0, prefix: Sequence[str] = ()) -> Iterator[str]:
        """Run a Redis that keeps nothing; give its URL."""
        port = port or free_port()
        command = [
            *prefix,
            require_program("redis-server"),
            "--bind",
            host,
            "--port",
            str(port),
            "--dir",
            str(self.root),
        ]
        command += ["--save", "", "--appendonly", "no", "--protected-mode", "no"]
        log = self.log / "redis.out"
        with self.started("redis", command, lambda: "Ready to accept connections" in log.read_text()):
            yield f"redis://{host}:{port}/0"


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """Make a machine, and remove it."""
    with tempfile.TemporaryDirectory(prefix="dng") as root:
        yield Machine(Path(root))


def stop(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> int:
    """Stop a program as a process manager does, and return its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(seconds)
        raise AssertionError(f"{process.args!r} did not stop in {seconds:g} s") from None


def answers(port: int, host: str = HOST) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def ask(url: str, method: str = "GET", **more: Any) -> Any:
    """Ask over a connection of its own, and return the JSON that comes back."""
    with httpx.Client(trust_env=False, timeout=20) as client:
        response = client.request(method, url, **more)
    assert response.status_code == 200, (url, response.status_code, response.text)
    return response.json()


def pid_of(url: str) -> int:
    """Return the process that answers."""
    return int(ask(f"{url}/health")["pid"])


class Cluster:
    """The servers of ``proj@.service``, one for each address.

    Args:
        here: The machine.
        replace: What the unit says, and what it means here.
        prefixes: What comes before the command of each address, such as ``ip netns exec NAME``.
    """

    def __init__(self, here: Machine, replace: Mapping[str, object], prefixes: Mapping[str, Sequence[str]]) -> None:
        self.hosts = list(prefixes)
        self._here = here
        self._prefixes = prefixes
        service = here.file("proj@.service", replace)
        lines = dict(line.split("=", 1) for line in service.splitlines() if "=" in line)
        name, _, value = lines["Environment"].partition("=")
        self._environment = {**os.environ, name: value}
        self._command = lines["ExecStart"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        for host in self.hosts:
            self.start(host)
        return self

    def __exit__(self, *ignored: object) -> None:
        for process in self.processes.values():
            stop(process)

    def log(self, host: str) -> str:
        """What the servers of an address have written."""
        return (self._here.log / f"{host}.out").read_text()

    def start(self, host: str) -> None:
        """Start the server of an address, and wait until it listens."""
        command = [*self._prefixes[host], *shlex.split(self._command.replace("%i", host))]
        with (self._here.log / f"{host}.out").open("ab") as log:
            self.processes[host] = process = subprocess.Popen(
                command, cwd=self._here.project, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        starts = self.log(host).count("Listening on")

        def listens() -> bool:
            assert process.poll() is None, self.log(host)
            return self.log(host).count("Listening on") > starts

        wait_for(listens, f"the server on {host}", 30)

    def restart_all_under(self, pressure: Pressure, serving: Callable[[int], object]) -> dict[str, Any]:
        """Stop and start the servers one after the other, each when the one before takes requests again.

        Args:
            pressure: Runs meanwhile, and is ended.
            serving: Whether requests come to a process.
        """
        for host in self.hosts:
            pause(1)
            began = time.monotonic()
            assert stop(self.processes[host]) == 0
            print(f"{host} stopped in {time.monotonic() - began:.2f} s")
            self.start(host)
            pid = self.processes[host].pid
            wait_for(lambda: serving(pid), f"requests on {host}", 20, 0.1)  # noqa: B023
        return pressure.result()


class Pressure:
    """`pressure.py` in a process of its own.

    Args:
        command: What comes before it on the command line, such as ``ip netns exec NAME``.
    """

    def __init__(self, host: str, port: int, *, http: int, websockets: int, command: Sequence[str] = ()) -> None:
        counts = [host, str(port), str(http), str(websockets)]
        self._process = subprocess.Popen(
            [*command, sys.executable, str(Path(__file__).with_name("pressure.py")), *counts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Pressure:
        return self

    def __exit__(self, *ignored: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def result(self) -> dict[str, Any]:
        """End it, and return what it has counted."""
        output, _ = self._process.communicate(timeout=60)
        counted: dict[str, Any] = json.loads(output)
        print(counted)
        return counted


def pause(seconds: float) -> None:
    """Let time pass, where what is tested is what happens meanwhile."""
    time.sleep(seconds)

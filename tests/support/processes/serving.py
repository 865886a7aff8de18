"""Servers as processes of their own, for the tests with real frameworks and clients.

`serve` starts ``python -m daphne_ng`` in a directory, waits until it listens, and at the end stops it the way an
operator does: SIGTERM, and the exit code must be 0. What the server or its application complained about in the log
fails the test too, unless the test announced it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from tests.bench import procfs

ROOT = Path(__file__).parents[3]
PROJECTS = ROOT / "tests" / "integration"
APPS = PROJECTS / "apps"
LAUNCH = str(Path(__file__).with_name("launch.py"))
"""Directory of the applications of one module."""
HOST = "127.0.0.1"

START_SECONDS = 60.0
STOP_SECONDS = 30.0
PATIENCE_SECONDS = 20.0
"""How long to wait for what takes no time, where nothing depends on how long it takes."""
# For a run of the tests with other options: those of all servers.
_MORE_OPTIONS = os.environ.get("DAPHNE_NG_TEST_OPTIONS", "").split()

SLACK = 4.0 if os.environ.get("CI") or os.environ.get("PYTEST_XDIST_WORKER") else 1.0
"""How many times longer things may take where others run beside the tests."""

MIB = 1 << 20

T = TypeVar("T")

_LISTENING = re.compile(r"Listening on (?:TCP address \S+:(?P<port>\d+)|UNIX socket (?P<path>.+))$", re.MULTILINE)
# A line of the log at a level that should make somebody look, or what Python prints when nobody can catch. With
# PYTHONDEVMODE asyncio also tells which step took long, which is nobody's fault.
_COMPLAINT = re.compile(
    r"^\S+ \S+ (?:WARNING|ERROR|CRITICAL) (?! *Executing <).*|"
    r"^(?:Exception ignored|Unhandled|\S*Warning:|Fatal Python).*",
    re.MULTILINE,
)


@dataclass
class Running:
    """A server that listens."""

    process: subprocess.Popen[bytes]
    directory: Path
    log_path: Path
    expected: list[re.Pattern[str]] = field(default_factory=list)
    """Complaints that the test brings about on purpose."""
    port: int = 0
    """0 for a UNIX socket."""

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        """What it has written to stdout and stderr so far."""
        return self.log_path.read_text(errors="replace")

    @property
    def complaints(self) -> list[str]:
        """Lines of the log that nobody announced with `expect`."""
        found = [match[0] for match in _COMPLAINT.finditer(self.log)]
        return [line for line in found if not any(pattern.search(line) for pattern in self.expected)]

    def expect(self, *patterns: str) -> None:
        """Announce complaints, by regular expression."""
        self.expected.extend(re.compile(pattern) for pattern in patterns)

    def wait_for_log(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> re.Match[str]:
        """Return the first match of a regular expression in the log.

        Raises:
            AssertionError: It did not come.
        """
        return wait_for(lambda: re.search(pattern, self.log, re.MULTILINE), f"{pattern!r} in the log", seconds)

    def client(self, **options: object) -> httpx.Client:
        """Return a client that keeps one connection and ignores the environment's proxies."""
        defaults: dict[str, object] = {"timeout": 30.0, "limits": httpx.Limits(max_connections=1)}
        return httpx.Client(base_url=self.url, trust_env=False, **(defaults | options))  # type: ignore[arg-type]

    def connect(self, seconds: float = 30.0, receive_buffer: int | None = None) -> socket.socket:
        """Return a connected socket; `receive_buffer` bounds what the kernel reads ahead, in bytes."""
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # before connecting
        connection.settimeout(seconds)
        connection.connect((HOST, self.port))
        return connection

    def stop(self) -> int:
        """Ask it to stop, wait, and return its exit code; kill it if it does not come to an end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            raise AssertionError(f"the server did not stop in {STOP_SECONDS:g} s:\n{self.log}") from None


@contextlib.contextmanager
def serve(
    application: str,
    directory: Path,
    *options: str,
    imports: Path = APPS,
    environment: Mapping[str, str] | None = None,
    listen: Sequence[str] = ("-b", HOST, "-p", "0"),
    program: Sequence[str] = (sys.executable, "-m", "daphne_ng"),
    inherit: Sequence[int] = (),
) -> Iterator[Running]:
    """Run the server while the ``with`` block does.

    Args:
        application: ``module:name``.
        directory: Its current directory, which also gets its log.
        options: More of the command line.
        imports: Where Python finds the module.
        environment: More environment variables.
        listen: The options that say where to listen.
        program: The command line up to its options.
        inherit: Descriptors that the process gets, under the same numbers.

    Raises:
        AssertionError: It did not start, did not end with 0, or complained.
    """
    log_path = directory / "server.log"
    python_path = os.pathsep.join(filter(None, [str(imports), os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, "PYTHONPATH": python_path, **(environment or {})}
    command = [*program, *_MORE_OPTIONS, *listen, *options, application]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=inherit,
        )
    running = Running(process, directory, log_path)
    try:
        listening = wait_for(
            lambda: process.poll() is not None or _LISTENING.search(running.log), "the server to listen", START_SECONDS
        )
        if listening is True:
            raise AssertionError(f"the server ended with {process.returncode} at start:\n{running.log}")
        running.port = int(listening["port"] or 0)
        yield running
    except BaseException:
        with contextlib.suppress(AssertionError):  # the first error is the one to see
            running.stop()
        raise
    code = running.stop()
    assert code == 0, f"the server ended with {code}:\n{running.log}"
    assert running.complaints == [], running.log


def wait_for(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS, interval: float = 0.02) -> T:
    """Return the first true value of `condition`, asked again and again.

    Raises:
        AssertionError: There was none in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(interval)


def free_port(*hosts: str) -> int:
    """Return a port that is free at each of these addresses, for a program that takes no socket and tells no port.

    Not one that the kernel chose: it might give that to another socket before the program listens.
    """
    while True:
        port = _CHOICE.randrange(20_000, 32_000)  # below what any kernel chooses
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for host in hosts or (HOST,):
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                probes.enter_context(socket.create_server((host, port), family=family))
            return port


# Not seeded: tests that run side by side would choose the same.
_CHOICE = random.SystemRandom()


def require_program(name: str) -> str:
    """Return the path of a program that does not come with Python.

    Without it the test is skipped, but where ``CI`` is set it fails: there, a missing program is a broken set-up.
    """
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def require_module(name: str) -> None:
    """Skip the test without a module that `tests/requirements.txt` lists; fail it where ``CI`` is set."""
    if importlib.util.find_spec(name) is None:
        reason = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


needs_procfs = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux /proc")


class MemoryGrowth:
    """How much the memory of a server has grown since construction, at its highest."""

    def __init__(self, server: Running) -> None:
        self._pid = server.pid
        procfs.reset_peak(self._pid)
        self._before = procfs.memory(self._pid).peak

    @property
    def peak(self) -> int:
        """The highest resident size since construction, less the one at construction, in bytes."""
        return procfs.memory(self._pid).peak - self._before

    def check(self, most: int) -> None:
        """Print the peak (``pytest -rP`` shows it), and fail if it is above `most` bytes."""
        peak = self.peak
        print(f"The server's memory grew by {peak / MIB:.2f} MiB at most; {most / MIB:g} MiB are allowed.")
        assert peak <= most

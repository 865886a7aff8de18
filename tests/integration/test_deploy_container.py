"""The Dockerfile of the documentation, without Docker: its commands, in namespaces like a container's.

A process namespace makes the server process 1, a network namespace gives it ``0.0.0.0`` for itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.deploying import BIN, EXAMPLES, Machine, machine, pause
from tests.support.processes.serving import wait_for

pytestmark = pytest.mark.system

ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


def namespaces() -> list[str]:
    """The beginning of a command line that runs its rest as process 1, or skip."""
    unshare = ["unshare", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
    unshare += ["--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    if sys.platform != "linux" or not shutil.which("ip"):
        pytest.skip("namespaces are Linux's, and need iproute2")
    done = subprocess.run([*unshare, "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine allows no namespaces: {done.stderr.strip()}")
    return unshare


@pytest.fixture
def here() -> Iterator[Machine]:
    with machine() as made:
        yield made


def instruction(name: str) -> str:
    found = re.findall(rf"^{name} (.*)$", (EXAMPLES / "Dockerfile").read_text("utf-8"), re.M)
    assert len(found) == 1
    return str(found[0])


def listed(words: str) -> list[str]:
    """The list form of a command, which no shell stands before."""
    command = json.loads(words[words.index("[") :])
    assert all(isinstance(word, str) for word in command)
    return list(command)


class Container:
    """The server as process 1 of its namespaces."""

    def __init__(self, unshare: subprocess.Popen[bytes], log: Path) -> None:
        self.unshare = unshare
        self._log = log
        self.pid = wait_for(self._child, "the process", 20)

    # Its number on this machine: unshare has one child.
    def _child(self) -> int:
        children = Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    @property
    def log(self) -> str:
        return self._log.read_text()

    def inside(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in there, as ``docker exec`` does."""
        user = [] if os.getuid() == 0 else ["--user", "--preserve-credentials"]
        enter = ["nsenter", "--target", str(self.pid), *user, "--net", "--pid"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, env=ENVIRONMENT, timeout=30)

    def signal(self, number: int) -> int:
        os.kill(self.pid, number)
        return self.unshare.wait(20)


@contextlib.contextmanager
def contained(here: Machine, command: list[str], ready: str) -> Iterator[Container]:
    name = f"container-{len(list(here.log.iterdir()))}"
    script = f"ip link set lo up && exec {shlex.join(command)}"
    log = here.log / f"{name}.out"
    start = [*namespaces(), "sh", "-c", script]
    with here.started(name, start, lambda: ready in log.read_text(), env=ENVIRONMENT) as unshare:
        container = Container(unshare, log)
        try:
            yield container
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(container.pid, signal.SIGKILL)
            unshare.wait(20)


def test_the_server_is_process_1_and_ends_in_order(here: Machine) -> None:
    command = listed(instruction("CMD"))
    (port,) = instruction("EXPOSE").split()
    check = listed(instruction("HEALTHCHECK"))
    number = getattr(signal, instruction("STOPSIGNAL"))
    with contained(here, command, "Listening on TCP address 0.0.0.0:8000") as container:
        numbers = re.search("^NSpid:.*$", Path(f"/proc/{container.pid}/status").read_text(), re.M)
        assert numbers is not None
        assert numbers[0].split()[-1] == "1"
        done = container.inside(check)
        assert done.returncode == 0, done.stderr
        # A request that runs when the container is stopped is answered.
        ask = f"import http.client as h; c = h.HTTPConnection('127.0.0.1', {port}); c.request('GET', '/slow'); "
        ask += "print('asked', flush=True); print(c.getresponse().status)"
        user = [] if os.getuid() == 0 else ["--user", "--preserve-credentials"]
        with subprocess.Popen(
            ["nsenter", "--target", str(container.pid), *user, "--net", sys.executable, "-c", ask],
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "asked\n"
            pause(0.3)
            assert container.signal(number) == 0
            assert client.communicate(timeout=20)[0] == "200\n"
    assert "pending application instances" not in container.log
    assert "Traceback" not in container.log


def test_the_health_check_fails_when_nobody_answers(here: Machine) -> None:
    with contained(here, ["sh", "-c", "echo up; exec sleep 60"], "up") as container:
        assert container.inside(listed(instruction("HEALTHCHECK"))).returncode == 1


def test_a_container_that_was_killed_starts_again_on_its_unix_socket(here: Machine) -> None:
    path = here.root / "run" / "proj" / "proj.sock"
    command = ["daphne-ng", "-u", str(path), "proj.asgi:application"]
    for end in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        with contained(here, command, "Listening on UNIX socket") as container:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
            code = container.signal(end)
        assert (code == 0, path.exists()) == (end == signal.SIGTERM, end == signal.SIGKILL)


def test_the_server_can_be_stopped_while_it_starts(here: Machine) -> None:
    (here.project / "proj" / "slow.py").write_text("import time\nprint('imported', flush=True)\ntime.sleep(20)\n")
    with contained(here, ["daphne-ng", "proj.slow:application"], "imported") as container:
        assert container.signal(signal.SIGTERM) == 143

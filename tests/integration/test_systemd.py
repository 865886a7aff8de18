"""What systemd is told, and the sockets that it passes on: by one process, and by a supervisor with workers.

A socket of this process stands for systemd's.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes.serving import HOST, LAUNCH, ROOT, Running, serve, wait_for

pytestmark = pytest.mark.once


if sys.platform != "linux":
    pytest.skip("systemd is Linux's", allow_module_level=True)

APP = "service:application"
EXAMPLES = ROOT / "docs" / "examples"
WORKERS = ("--workers", "2")

both = pytest.mark.parametrize("options", [(), WORKERS], ids=["one process", "workers"])


class System:
    """Receives what a service tells, with the time at which it did."""

    def __init__(self, path: str) -> None:
        self.name = "@" + path[1:] if path.startswith("\0") else path
        self.told: list[tuple[float, dict[str, str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while data := self._socket.recv(65536):
            message = dict(line.split("=", 1) for line in data.decode().split("\n"))
            self.told.append((time.monotonic(), message))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def values(self, name: str) -> list[str]:
        """Every value that a variable was given, in order."""
        return [message[name] for _, message in list(self.told) if name in message]

    def times(self, name: str) -> list[float]:
        return [at for at, message in list(self.told) if name in message]

    @property
    def states(self) -> list[str]:
        """READY, RELOADING and STOPPING, in their order."""
        names = ("READY", "RELOADING", "STOPPING")
        return [name for _, message in list(self.told) for name in names if message.get(name) == "1"]

    def wait(self, name: str, pattern: str, seconds: float = 15.0) -> None:
        wait_for(
            lambda: any(re.search(pattern, value) for value in self.values(name)),
            f"{name}={pattern}, not {self.told}",
            seconds,
        )


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with contextlib.closing(System(str(tmp_path / "notify"))) as system:
        yield system


def told(system: System, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": system.name, **more}


def ask(server: Running, path: str, seconds: float = 20.0) -> bytes:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=seconds)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read()


@contextlib.contextmanager
def asking(server: Running, path: str) -> Iterator[threading.Thread]:
    """Ask in a thread, which ends with the answer."""
    thread = threading.Thread(target=ask, args=(server, path), daemon=True)
    thread.start()
    yield thread
    thread.join(20)
    assert not thread.is_alive()


# -- states ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_is_ready_when_it_listens_and_says_when_it_stops(
    tmp_path: Path, options: tuple[str, ...], abstract: bool
) -> None:
    path = f"\0daphne-ng-test-{time.monotonic_ns()}" if abstract else str(tmp_path / "notify")
    with contextlib.closing(System(path)) as system:
        with serve(APP, tmp_path, *options, environment=told(system)) as server:
            system.wait("READY", "^1$")
            assert ask(server, "/") == b"done"
            assert system.states == ["READY"]
        assert system.states == ["READY", "STOPPING"]


def test_a_service_that_does_not_start_is_never_ready(tmp_path: Path, system: System) -> None:
    with pytest.raises(AssertionError, match="ended with 1 at start"):
        with serve("service:nothing", tmp_path, environment=told(system)):
            pass
    assert "READY" not in system.states


def test_nobody_is_ready_before_the_first_worker_is(tmp_path: Path, system: System) -> None:
    (tmp_path / "late.py").write_text("import time\ntime.sleep(1.5)\nfrom service import application\n")
    with serve("late:application", tmp_path, *WORKERS, environment=told(system)) as server:
        time.sleep(0.5)
        assert system.states == []
        system.wait("READY", "1")
        assert re.search("Worker 1 .* is ready", server.log)


@pytest.mark.parametrize("tls", [False, True])
def test_reading_certificates_again_is_a_reload(tmp_path: Path, system: System, pem: Path, tls: bool) -> None:
    options = ["--ssl-certfile", str(pem), "--ssl-keyfile", str(pem)] if tls else []
    with serve(APP, tmp_path, *options, environment=told(system)) as server:
        system.wait("READY", "1")
        before = time.monotonic_ns() // 1000
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(system.states) == 3, "the end of the reload")
        assert system.states == ["READY", "RELOADING", "READY"]
        assert before <= int(*system.values("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
        assert system.values("STATUS") == ["Serving", "Reading the certificates again", "Serving"]


def test_replacing_the_workers_is_a_reload(tmp_path: Path, system: System) -> None:
    with serve(APP, tmp_path, *WORKERS, environment=told(system)) as server:
        system.wait("STATUS", "^2 of 2 workers ready$")
        before = time.monotonic_ns() // 1000
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(system.states) == 3, "the end of the reload", 20)
        assert system.states == ["READY", "RELOADING", "READY"]
        assert before <= int(*system.values("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
        assert re.search("Worker 4 .* is ready", server.log)


def test_a_reload_that_fails_ends_too(tmp_path: Path, system: System) -> None:
    (tmp_path / "changing.py").write_text("from service import application\n")
    with serve("changing:application", tmp_path, *WORKERS, environment=told(system)) as server:
        server.expect("ERROR .*")
        system.wait("STATUS", "^2 of 2 workers ready$")
        (tmp_path / "changing.py").write_text("1 / 0\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: system.states == ["READY", "RELOADING", "READY"], "the end of the reload", 20)
        wait_for(lambda: system.values("STATUS")[-1] == "2 of 2 workers ready", "the status")
        assert ask(server, "/") == b"done"


def test_the_status_follows_the_workers(tmp_path: Path, system: System) -> None:
    with serve(APP, tmp_path, *WORKERS, environment=told(system)) as server:
        system.wait("STATUS", "^2 of 2 workers ready$")
        server.process.send_signal(signal.SIGTTIN)
        system.wait("STATUS", "^2 of 3 workers ready$")
        system.wait("STATUS", "^3 of 3 workers ready$")
        with asking(server, "/slow/2"):
            time.sleep(0.3)
            server.process.send_signal(signal.SIGHUP)
            system.wait("STATUS", "^Replacing workers, 2 to go; 3 of 3 workers ready$")
            system.wait("STATUS", ", 1 draining$")
        wait_for(lambda: system.values("STATUS")[-1] == "3 of 3 workers ready", "the status", 20)


@both
def test_a_drain_tells_how_it_comes_along_and_asks_for_the_time_that_it_takes(
    tmp_path: Path, system: System, options: tuple[str, ...]
) -> None:
    with serve(APP, tmp_path, *options, environment=told(system)) as server:
        system.wait("READY", "1")
        with asking(server, "/slow/3"):
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
        server.process.wait(10)
    lines = [value for value in system.values("STATUS") if value.startswith("Stopping: ")]
    assert len(lines) >= 3
    assert len(system.values("EXTEND_TIMEOUT_USEC")) == len(lines)
    pattern = r"\d workers? still running" if options else r"\d connections?, \d applications? running"
    assert all(re.fullmatch(f"Stopping: {pattern}", line) for line in lines)
    assert re.search("[12] workers? still running" if options else "1 connection, 1 application running", lines[1])


# -- the watchdog ----------------------------------------------------------------------------------------------


@both
def test_signs_of_life_come_at_half_the_interval(tmp_path: Path, system: System, options: tuple[str, ...]) -> None:
    with serve(APP, tmp_path, *options, environment=told(system, WATCHDOG_USEC="2000000")):
        wait_for(lambda: len(system.times("WATCHDOG")) >= 5, "signs of life", 15)
    times = system.times("WATCHDOG")[:5]
    assert all(later - before < 2.0 for before, later in zip(times, times[1:], strict=False))
    assert 0.7 < (times[-1] - times[0]) / 4 < 1.5


def test_no_signs_of_life_are_sent_for_another_process_or_if_none_are_wanted(tmp_path: Path, system: System) -> None:
    for variables in ({}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}):
        with serve(APP, tmp_path, environment=told(system, **variables)) as server:
            system.wait("READY", "1")
            assert ask(server, "/slow/0.5") == b"done"
    assert system.times("WATCHDOG") == []


def longest_silence(system: System, start: float, end: float) -> float:
    moments = [start, *(at for at in system.times("WATCHDOG") if start < at < end), end]
    return max(later - before for before, later in zip(moments, moments[1:], strict=False))


def test_a_loop_that_is_blocked_gives_no_sign_of_life(tmp_path: Path, system: System) -> None:
    with serve(APP, tmp_path, environment=told(system, WATCHDOG_USEC="400000")) as server:
        system.wait("WATCHDOG", "1")
        start = time.monotonic()
        assert ask(server, "/block/1.5") == b"done"
        assert longest_silence(system, start, time.monotonic()) > 1.4
        count = len(system.times("WATCHDOG"))
        wait_for(lambda: len(system.times("WATCHDOG")) > count + 2, "signs of life")


def test_one_healthy_worker_is_a_sign_of_life_and_none_is_none(tmp_path: Path, system: System) -> None:
    quiet = ("--worker-blocked-warning", "0")
    with serve(APP, tmp_path, *WORKERS, *quiet, environment=told(system, WATCHDOG_USEC="1000000")) as server:
        system.wait("STATUS", "^2 of 2 workers ready$")
        start = time.monotonic()
        with asking(server, "/block/5"):
            pass
        assert longest_silence(system, start, time.monotonic()) < 3
        start = time.monotonic()
        # Who is blocked accepts nobody, so the second request reaches the other.
        with asking(server, "/block/8"):
            time.sleep(0.5)
            with asking(server, "/block/8"):
                pass
        # Workers report once a second, and are believed for three.
        assert longest_silence(system, start, time.monotonic()) > 3.5
        count = len(system.times("WATCHDOG"))
        wait_for(lambda: len(system.times("WATCHDOG")) > count + 2, "signs of life")


# -- what is passed on -----------------------------------------------------------------------------------------


def passing(listener: socket.socket, *variables: str) -> dict[str, Any]:
    """Return the options of `serve` that start the server as systemd starts an activated service."""
    program = (sys.executable, LAUNCH, f"{listener.fileno()}:3", "LISTEN_FDS=1", "LISTEN_PID=@pid", *variables)
    return {"program": (*program, "--", sys.executable, "-m", "daphne_ng"), "inherit": [listener.fileno()]}


@both
def test_processes_of_the_application_are_not_the_service(
    tmp_path: Path, system: System, options: tuple[str, ...]
) -> None:
    variables = told(system, WATCHDOG_USEC="1000000", SERVICE_VARIABLE="any")
    with serve(APP, tmp_path, *options, environment=variables) as server:
        children = ask(server, "/children").decode()
    assert "SERVICE_VARIABLE" in children
    assert not re.search("NOTIFY_SOCKET|WATCHDOG_|DAPHNE_NG_WORKER", children)


@pytest.mark.parametrize("string", ["systemd:name=web", "systemd:domain=INET:index=0"])
def test_a_socket_of_systemd_is_shared_by_workers_and_outlives_them(
    tmp_path: Path, system: System, string: str
) -> None:
    with socket.create_server((HOST, 0)) as listener:
        options = passing(listener, "LISTEN_FDNAMES=web")
        for _ in range(2):
            with serve(APP, tmp_path, *WORKERS, listen=["-e", string], environment=told(system), **options) as server:
                system.wait("STATUS", "^2 of 2 workers ready$")
                server.port = listener.getsockname()[1]
                assert ask(server, "/") == b"done"
                server.process.send_signal(signal.SIGHUP)
                server.wait_for_log("All workers are replaced", 20)
                assert ask(server, "/") == b"done"
                system.told.clear()
            # Nobody accepts, and nobody is refused.
            with socket.create_connection((HOST, server.port), 5):
                pass


# -- units -----------------------------------------------------------------------------------------------------


UNITS = sorted(EXAMPLES.rglob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_services_wait_until_they_are_told(unit: Path) -> None:
    text = unit.read_text("utf-8")
    if "daphne-ng" not in text.partition("ExecStart=")[2].partition("\n")[0]:
        pytest.skip("another program's")
    assert "Type=notify\n" in text
    assert "ExecReload=/bin/kill -HUP $MAINPID\n" in text
    # The supervisor tells its workers. A signal of systemd's own would be their second, which hurries.
    assert "KillMode=mixed\n" in text

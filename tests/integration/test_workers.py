"""Workers: replaced, killed, blocked, scaled and stopped, under load. `working` counts what is lost: it must be nothing."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.processes.serving import APPS, HOST, SLACK, needs_procfs, require_program, serve, wait_for
from tests.support.processes.working import APP, SERVER, Load, Workers, ends_within, start, workers

pytestmark = [needs_procfs, pytest.mark.once, pytest.mark.filterwarnings("ignore::ResourceWarning")]

BLOCKED = r"WARNING +The event loop has been blocked"


# -- nothing is lost -------------------------------------------------------------------------------------------


def test_a_rolling_restart_loses_nothing(tmp_path: Path) -> None:
    with workers(tmp_path) as running:
        first = set(running.running)
        with Load(running.server.port) as load:
            load.wait()
            running.roll()
            load.wait()
        assert load.failures == {}
        assert load.reopened >= 6
        # One more may have been read on each, whose answer had to stand back behind our Close frame.
        heard = [int(line) for path in tmp_path.glob("heard-*") for line in path.read_text().split()]
        assert len(heard) == load.reopened
        assert load.echoed_before_close <= sum(heard) <= load.echoed_before_close + load.reopened
        assert set(running.running).isdisjoint(first)
        assert set(load.by_pid) >= first


PROXY = b"PROXY TCP4 203.0.113.9 192.0.2.7 4321 8443\r\n"


@pytest.mark.parametrize(("tls", "preface"), [(True, b""), (False, PROXY), (True, PROXY)], ids=["tls", "proxy", "both"])
def test_a_rolling_restart_of_what_begins_with_more_loses_nothing(
    tmp_path: Path, pem: Path, tls: bool, preface: bytes
) -> None:
    options = ["--ssl-certfile", str(pem)] if tls else []
    if preface:
        options.append("--proxy-protocol")
    with workers(tmp_path, *options) as running:
        with Load(running.server.port, kept=2, fresh=4, sockets=2, http2=1, tls=tls, preface=preface) as load:
            load.wait()
            running.roll()
            load.wait()
        assert load.failures == {}


@pytest.mark.system
def test_many_rolling_restarts_lose_nothing(tmp_path: Path) -> None:
    with workers(tmp_path) as running, Load(running.server.port, kept=12, fresh=4, sockets=12, http2=3) as load:
        for _ in range(5):
            running.roll()
            load.wait(100)
    assert load.failures == {}


@pytest.mark.system
def test_wrk_sees_no_error_in_rolling_restarts(tmp_path: Path) -> None:
    with workers(tmp_path, "--access-log", os.devnull) as running:
        command = [require_program("wrk"), "-t1", "-c32", "-d8", f"{running.server.url}/"]
        wrk = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            running.roll()
        said = wrk.communicate(timeout=30)[0]
        print(said)
        assert "requests in" in said
        assert "Socket errors" not in said
        assert "Non-2xx" not in said


@pytest.mark.system
def test_h2load_sees_no_error_when_workers_are_added_and_taken_away(tmp_path: Path) -> None:
    """h2load does not come back after GOAWAY, so no worker that it talks to may go: it asks the one that is added too."""
    with workers(tmp_path, "--access-log", os.devnull) as running:
        command = [require_program("h2load"), "-n20000", "-c8", "-m10", f"{running.server.url}/"]
        h2load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.signal(signal.SIGTTIN)
        running.wait_settled(3)
        said = h2load.communicate(timeout=60)[0]
        assert "20000 succeeded, 0 failed, 0 errored" in said


@pytest.mark.system
def test_a_worker_that_has_served_enough_is_replaced_before_it_goes(tmp_path: Path) -> None:
    limits = ("--limit-max-requests", "400", "--limit-max-requests-jitter", "100")
    with workers(tmp_path, *limits) as running:
        with Load(running.server.port) as load:
            running.wait_ready(5, 60)
        assert load.failures == {}
        assert "it has served" in running.log


def test_one_worker_with_a_limit_of_requests_is_replaced_without_a_gap(tmp_path: Path) -> None:
    with workers(tmp_path, "--limit-max-requests", "300", count=0) as running:
        with Load(running.server.port, kept=4, fresh=1, sockets=2, http2=1) as load:
            running.wait_ready(2)
            load.wait(50)
        assert load.failures == {}


def test_a_worker_that_holds_too_much_memory_is_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, "--limit-worker-memory", "120000000", count=1) as running:
        pid = running.running[0]
        for _ in range(4):
            assert int(running.fetch("/grow")) == pid
        running.wait_ready(2)
        running.wait_settled(1)
        assert re.search(r"is replaced: it holds \d+ bytes of memory", running.log)


def test_a_worker_of_age_is_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, "--worker-max-age", "2", count=1) as running, Load(running.server.port, http2=0) as load:
        running.wait_ready(2)
        load.wait(50)
    assert load.failures == {}
    assert "it is older than 2 s" in running.log


def test_workers_are_added_and_taken_away(tmp_path: Path) -> None:
    with workers(tmp_path) as running:
        with Load(running.server.port) as load:
            running.signal(signal.SIGTTIN)
            running.wait_settled(3)
            load.wait()
            for _ in range(3):  # there is always one
                running.signal(signal.SIGTTOU)
                time.sleep(0.1)
            running.wait_settled(1)
            load.wait()
        assert load.failures == {}
        running.wait_settled(1)


def test_the_end_loses_no_request_whose_head_was_read_and_no_frame(tmp_path: Path) -> None:
    """With TERM the listening sockets go, so clients find nobody: the answers to what they had asked must all come."""
    with workers(tmp_path) as running:
        connections = []
        for _ in range(40):
            connection = running.ask("/?1")
            connections.append(connection)
        time.sleep(0.4)  # they are read
        code = ends_within(running, 10)
        assert code == 0
        for connection in connections:
            with connection:
                answer = connection.recv(65536).decode()
                assert answer.startswith("HTTP/1.1 200 OK"), answer
                assert "connection: close" in answer.lower()


@pytest.mark.parametrize("count", [None, 2])
def test_every_request_that_was_read_before_the_end_is_answered_under_load(tmp_path: Path, count: int | None) -> None:
    """What was read is in the access log, and what was answered is counted by the clients: the same number."""
    with workers(tmp_path, "--access-log", "access.log", count=count) as running:
        with Load(running.server.port, kept=8, fresh=4, sockets=4, http2=2) as load:
            load.wait(500)
            load.mortal = True
            assert ends_within(running, 20) == 0
        assert load.failures == {}
        lines = [line for line in (tmp_path / "access.log").read_text().splitlines() if '"WS' not in line]
        assert len(lines) == load.requests
        assert all('" 200 ' in line for line in lines)


@pytest.mark.system
def test_wrk_gets_an_answer_to_every_request_that_was_read_before_the_end(tmp_path: Path) -> None:
    with workers(tmp_path, "--access-log", "access.log") as running:
        command = [require_program("wrk"), "-t1", "-c32", "-d4", f"{running.server.url}/"]
        wrk = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(2)
        assert ends_within(running, 20) == 0
        said = wrk.communicate(timeout=30)[0]
        print(said)
        answered = re.search(r"(\d+) requests in", said)
        assert answered is not None
        assert int(answered[1]) == len((tmp_path / "access.log").read_text().splitlines()) > 1000


@pytest.mark.parametrize(("count", "number"), [(None, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGHUP)])
def test_every_frame_that_was_read_before_our_close_is_delivered(
    tmp_path: Path, count: int | None, number: int
) -> None:
    """The application takes them slowly: most are still with the server when it closes."""
    numbers = [str(one) for one in range(200)]
    with workers(tmp_path, count=count) as running, contextlib.ExitStack() as stack:
        url = f"ws://{HOST}:{running.server.port}/slow"
        sockets = [stack.enter_context(connect(url, proxy=None)) for _ in range(3)]
        for ws in sockets:
            for one in numbers:
                ws.send(one)
        time.sleep(1)  # they are read, and the application has taken half of them at most
        running.signal(number)
        for ws in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                ws.recv(20)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        wait_for(lambda: len(pondered(tmp_path)) == len(sockets), "the applications", 20)
        assert pondered(tmp_path) == [f"1012 {' '.join(numbers)}"] * len(sockets)
        if number == signal.SIGTERM:
            assert running.server.process.wait(20) == 0


def pondered(directory: Path) -> list[str]:
    return [line for path in directory.glob("pondered-*") for line in path.read_text().splitlines()]


def test_who_waits_to_be_accepted_at_the_end_is_served(tmp_path: Path) -> None:
    """All workers are stopped while they cannot accept; the last of them takes the queue."""
    with workers(tmp_path) as running:
        pids = running.running
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        queued = [running.ask("/") for _ in range(20)]
        running.signal(signal.SIGTERM)
        time.sleep(0.5)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for connection in queued:
            with connection:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert running.server.process.wait(20) == 0


def test_a_proxy_whose_header_comes_during_the_end_is_served(tmp_path: Path) -> None:
    with workers(tmp_path, "--proxy-protocol") as running:
        connections = [running.server.connect() for _ in range(4)]
        time.sleep(0.3)  # they are accepted
        running.signal(signal.SIGTERM)
        time.sleep(0.3)
        for connection in connections:
            connection.sendall(PROXY + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for connection in connections:
            with connection:
                answer = connection.recv(65536).lower()
                assert answer.startswith(b"http/1.1 200 ok"), answer
                assert b"connection: close" in answer
        assert running.server.process.wait(20) == 0


# -- workers that fail -----------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_costs_its_own_connections_only(tmp_path: Path) -> None:
    with workers(tmp_path) as running:
        running.server.expect("was killed by SIGKILL")
        victim, other = running.running
        kept: dict[int, http.client.HTTPConnection] = {}
        while set(kept) < {victim, other}:
            client = http.client.HTTPConnection(HOST, running.server.port, timeout=10)
            client.request("GET", "/")
            kept.setdefault(int(client.getresponse().read()), client)
        os.kill(victim, signal.SIGKILL)
        running.wait_ready(3)
        kept[other].request("GET", "/")
        assert int(kept[other].getresponse().read()) == other
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            kept[victim].request("GET", "/")
            kept[victim].getresponse()
        with Load(running.server.port) as load:
            load.wait()
        assert load.failures == {}
        for client in kept.values():
            client.close()


def test_a_worker_that_is_told_to_stop_by_others_is_replaced_at_once(tmp_path: Path) -> None:
    with workers(tmp_path) as running:
        slow = running.ask("/?2")
        time.sleep(0.2)
        for pid in running.running:
            os.kill(pid, signal.SIGTERM)
        began = time.monotonic()
        running.wait_ready(4)
        assert time.monotonic() - began < 5 * SLACK
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 OK")
        running.wait_settled(2)


def test_a_blocked_worker_is_named_with_its_stack_and_replaced(tmp_path: Path) -> None:
    limits = ("--worker-blocked-warning", "1", "--worker-timeout", "3")
    with workers(tmp_path, *limits) as running:
        running.server.expect(BLOCKED, "does not end in time")
        asked = running.ask("/block")
        found = running.server.wait_for_log(BLOCKED, 10)
        wait_for(lambda: "in block" in running.log[found.start() :], "the stack")
        assert "time.sleep" in running.log[found.start() :]
        running.wait_ready(3)
        assert re.search(r"is replaced: nothing was heard of it for \d+ s", running.log)
        with Load(running.server.port) as load:
            load.wait()
            running.wait_settled(2)  # it is killed after a while
        assert load.failures == {}
        asked.close()


def test_a_worker_that_the_system_has_stopped_is_replaced(tmp_path: Path) -> None:
    with workers(tmp_path, "--worker-timeout", "2") as running:
        running.server.expect("does not end in time")
        victim = running.running[0]
        os.kill(victim, signal.SIGSTOP)
        running.wait_ready(3)
        wait_for(lambda: victim not in running.running, "its end", 10)
        running.wait_settled(2)


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    command = [*SERVER, "-p", "0", "--workers", "3", "--worker-blocked-warning", "1", APP]
    environment = os.environ | {"PYTHONPATH": str(APPS)}
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
    wait_for(lambda: log.read_text().count("is ready") == 3, "the workers", 20)
    port = int(re.search(r"address \S+:(\d+)", log.read_text())[1])  # type: ignore[index]
    pids = [int(pid) for pid in re.findall(r"process (\d+)\) is ready", log.read_text())]
    blocked = socket.create_connection((HOST, port))
    blocked.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.5)
    process.kill()
    process.wait()
    wait_for(lambda: sum(map(gone, pids)) >= 2, "the workers' end", 10)
    wait_for(lambda: all(map(gone, pids)), "the blocked worker's end", 15)
    assert "The supervisor has ended" in log.read_text()
    blocked.close()


def test_a_worker_that_does_not_serve_yet_ends_with_its_supervisor(tmp_path: Path) -> None:
    """It has no event loop that could notice."""
    with workers(tmp_path) as running:
        serving = set(running.running)
        (tmp_path / "stuck-import").touch()
        running.signal(signal.SIGHUP)
        (stuck,) = wait_for(lambda: set(running.running) - serving, "the new one")
        wait_for(lambda: b"worked" in Path(f"/proc/{stuck}/cmdline").read_bytes(), "the interpreter")
        time.sleep(1.5)
        running.server.process.kill()
        running.server.process.wait()
        wait_for(lambda: gone(stuck), "its end", 10)
        wait_for(lambda: all(map(gone, serving)), "the others' end", 10)
        running.server.expect("The supervisor has ended")
        running.server.process.returncode = 0


def gone(pid: int) -> bool:
    try:
        return "zombie" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def test_processes_of_the_application_do_not_keep_the_port(tmp_path: Path) -> None:
    """One is started while the application is imported, one is forked then, and one by a request: all live longer."""
    with workers(tmp_path, environment={"HELPER": "1"}) as running:
        running.fetch("/fork")
        address = (HOST, running.server.port)
        assert ends_within(running, 15) == 0
        with socket.create_server(address):
            pass


@pytest.mark.parametrize("count", [None, 2])
def test_a_process_that_a_request_forks_ends_when_it_is_terminated(tmp_path: Path, count: int | None) -> None:
    """As `multiprocessing.Process.terminate` does: the server's handlers are not its own."""
    with workers(tmp_path, count=count) as running:
        for _ in range(3):
            child = int(running.fetch("/fork"))
            os.kill(child, signal.SIGTERM)
            wait_for(lambda pid=child: gone(pid), "the end of the child", 10)
        assert running.fetch()


@pytest.mark.system
def test_workers_that_were_stopped_together_with_their_supervisor_are_not_replaced(tmp_path: Path) -> None:
    """As by Ctrl-Z, or in a container that is frozen for a while."""
    with workers(tmp_path, "--worker-timeout", "3") as running:
        pids = [running.server.pid, *running.running]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(6)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        running.server.wait_for_log(r"The supervisor was stopped for \d+ s")
        time.sleep(2)
        assert [running.server.pid, *running.running] == pids
        assert "is replaced" not in running.log


# -- starting --------------------------------------------------------------------------------------------------


def test_an_application_that_cannot_be_imported_ends_the_whole(tmp_path: Path) -> None:
    done = start(tmp_path, "-p", "0", APP, FAIL_IMPORT="1")
    assert done.returncode == 1
    assert "on purpose" in done.stdout
    assert done.stdout.count("starts") == 1


def test_an_application_that_closes_what_is_not_its_own_is_one_line(tmp_path: Path) -> None:
    done = start(tmp_path, "-p", "0", APP, CLOSE_ALL="1")
    assert done.returncode == 1
    assert "error: the application has closed descriptors of the server: " in done.stdout
    assert "Traceback" not in done.stdout


def test_a_startup_that_fails_ends_the_whole_with_3(tmp_path: Path) -> None:
    done = start(tmp_path, "-p", "0", APP, FAIL_STARTUP="1")
    assert done.returncode == 3
    assert done.stdout.count("The application's startup failed: on purpose") == 1
    assert done.stdout.count("starts") == 1


def test_a_port_in_use_ends_the_whole_before_any_worker(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        done = start(tmp_path, "-p", str(taken.getsockname()[1]), APP)
    assert done.returncode == 1
    assert "the address is already in use" in done.stdout
    assert "starts" not in done.stdout


@pytest.mark.system
def test_workers_that_do_not_start_again_are_given_up(tmp_path: Path) -> None:
    """The first was ready, and what it needs is gone when it dies."""
    (tmp_path / "crash-for-good").touch()
    done = start(tmp_path, "-p", "0", APP)
    assert done.returncode == 1
    assert re.search(r"CRITICAL Worker \d+ \(process \d+\) ended with code 1, as \d+ before it: giving up", done.stdout)
    assert "the next starts in 2.0 s" in done.stdout  # it backs off


@pytest.mark.system
def test_a_client_that_kills_every_worker_does_not_end_the_server(tmp_path: Path) -> None:
    """It repeats its request as soon as somebody takes it; the others are served in between."""
    with workers(tmp_path, count=2) as running:
        running.server.expect("ERROR .* Worker")
        for _ in range(7):
            with contextlib.suppress(httpx.TransportError):
                running.fetch("/die")
        assert running.server.process.poll() is None
        assert int(running.fetch("/")) in running.running


def test_new_code_that_does_not_start_keeps_the_old_workers(tmp_path: Path) -> None:
    with workers(tmp_path) as running:
        running.server.expect("which was to replace", "The workers are not replaced: the new code does not start")
        old = set(running.running)
        (tmp_path / "fail-import").touch()
        with Load(running.server.port) as load:
            running.signal(signal.SIGHUP)
            running.server.wait_for_log("The workers are not replaced: the new code does not start", 20)
            assert set(running.running) == old
            (tmp_path / "fail-import").unlink()
            running.roll()
        assert load.failures == {}
        assert set(running.running).isdisjoint(old)


@pytest.mark.parametrize("moment", ["at once", "importing"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_during_the_start(tmp_path: Path, number: int, moment: str) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.7)\nfrom worked import application\n")
    with serve(
        "slow:application", tmp_path, "--workers", "2", environment={"PYTHONPATH": f"{APPS}:{tmp_path}"}
    ) as server:
        server.expect("The server has not started")
        if moment == "importing":
            time.sleep(0.4)
        server.process.send_signal(number)
        if number in (signal.SIGTERM, signal.SIGINT):
            assert server.process.wait(20) == 0
        else:
            running = Workers(server)
            if number == signal.SIGHUP:
                server.wait_for_log("All workers are replaced", 20)
            running.wait_ready(2)
            running.wait_settled(2)
            assert running.fetch()
        assert "Traceback" not in server.log


# -- in the long run -------------------------------------------------------------------------------------------


def restarts(directory: Path, first: int, last: int) -> None:
    (directory / "small.py").write_text(
        "async def application(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 204})\n"
        "    await send({'type': 'http.response.body'})\n"
    )
    options = ("--lifespan", "off", "--worker-max-age", "100000")
    with workers(directory, *options, count=0, app="small:application", imports=directory) as running:
        counts: dict[int, tuple[int, int]] = {}
        for turn in range(1, last + 1):
            running.roll()
            if turn in (first, last):
                counts[turn] = running.descriptors(), running.memory()
        print(counts)
        (few, before), (many, after) = counts[first], counts[last]
        assert abs(many - few) < 3
        assert after < before * 1.05


@pytest.mark.system
def test_the_supervisor_is_the_same_after_many_restarts(tmp_path: Path) -> None:
    restarts(tmp_path, 3, 20)


@pytest.mark.soak
def test_the_supervisor_is_the_same_after_200_restarts(tmp_path: Path) -> None:
    restarts(tmp_path, 20, 200)


@pytest.mark.system
@pytest.mark.parametrize("option", [(), ("--reuse-port",)], ids=["inherited", "reuse-port"])
def test_how_connections_spread(tmp_path: Path, option: tuple[str, ...]) -> None:
    """For the documentation (``pytest -rP`` shows it); promised is only that both serve."""
    with workers(tmp_path, *option) as running:
        with Load(running.server.port, kept=0, fresh=16, sockets=0, http2=0) as load:
            load.wait(3000)
        one, two = sorted(load.by_pid.values())
        print(f"{option}: 16 at once, a connection for each request: {one} and {two}")
        slow = [running.ask("/?2") for _ in range(100)]
        answers = [int(connection.recv(65536).rpartition(b"\r\n\r\n")[2]) for connection in slow]
        shares = sorted(answers.count(pid) for pid in running.running)
        print(f"{option}: 100 connections, one after the other: {shares}")
        for connection in slow:
            connection.close()
        assert one > 0 and all(shares)

"""Three servers behind nginx, with Redis between them: messages cross, and restarts lose no request."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from tests.support.processes.deploying import Cluster, Machine, Pressure, ask, machine, pause, pid_of
from tests.support.processes.serving import HOST, free_port

pytestmark = pytest.mark.system

HOSTS = {"10.0.0.11": "127.0.0.2", "10.0.0.12": "127.0.0.3", "10.0.0.13": "127.0.0.4"}


@pytest.fixture
def here() -> Iterator[Machine]:
    with machine() as made:
        yield made


@contextlib.contextmanager
def cluster(here: Machine) -> Iterator[tuple[Cluster, int, int]]:
    """The servers, their port, and nginx's."""
    port, front = free_port(*HOSTS.values()), free_port()
    upstreams = {f"{documented}:8000": f"{host}:{port}" for documented, host in HOSTS.items()}
    site = here.file("nginx-scale-out.conf", {"listen 80": f"listen {HOST}:{front}", **upstreams})
    with here.redis() as redis:
        replace = {"redis://10.0.0.10:6379/0": redis, "-p 8000": f"-p {port}", "10.0.0.10": HOST}
        with Cluster(here, replace, {host: () for host in HOSTS.values()}) as servers, here.nginx(site, port=front):
            yield servers, port, front


def test_messages_cross_between_the_servers(here: Machine) -> None:
    with cluster(here) as (servers, port, front), contextlib.ExitStack() as sockets:
        clients = [
            sockets.enter_context(connect(f"ws://{host}:{at}/ws/", proxy=None))
            for host, at in [*((host, port) for host in servers.hosts), (HOST, front)]
        ]
        pids = [json.loads(client.recv(10))["pid"] for client in clients]
        assert len(set(pids)) == 3
        for number, client in enumerate(clients):
            client.send(f"from {number}")
            heard = [json.loads(other.recv(10)) for other in clients]
            assert heard == [{"pid": pid, "text": f"from {number}"} for pid in pids]
        # redis-py waits longer than the layer has Redis wait: nothing is logged, and nothing is lost.
        pause(6)
        clients[0].send("after a silence")
        assert [json.loads(other.recv(10))["text"] for other in clients] == ["after a silence"] * 4
        for client in clients:
            client.close()
        assert not any("Timeout" in servers.log(host) for host in servers.hosts)


def test_restarts_under_load_lose_no_request(here: Machine) -> None:
    with cluster(here) as (servers, port, front):
        with Pressure(HOST, front, http=8, websockets=4) as pressure:

            def serving(pid: int) -> bool:
                return pid in {pid_of(f"http://{HOST}:{front}") for _ in range(6)}

            counted = servers.restart_all_under(pressure, serving)
        said = ask(f"http://{HOST}:{front}/who/")
        assert said["client"] == HOST
        logs = [servers.log(host) for host in servers.hosts]
    assert counted["failures"] == {}
    assert len(counted["pids"]) == 6
    assert counted["reconnected"] > 0
    assert not any("Traceback" in log for log in logs)

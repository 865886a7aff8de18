"""The same three servers on a network of their own: each in a network namespace, with the addresses of the files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.processes.deploying import Cluster, Machine, Pressure, machine
from tests.support.processes.serving import require_program

pytestmark = pytest.mark.netns

FRONT, HOSTS = "10.0.0.10", ("10.0.0.11", "10.0.0.12", "10.0.0.13")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def inside(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


@pytest.fixture
def network() -> Iterator[dict[str, str]]:
    """The namespaces, by address: those of the servers hang on a bridge in that of nginx. The machine's own has none."""
    if sys.platform != "linux" or os.getuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces are Linux's, and need root and iproute2")
    names = {address: f"dng-{os.getpid()}-{address.rpartition('.')[2]}" for address in (FRONT, *HOSTS)}
    with contextlib.ExitStack() as made:
        for name in names.values():
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"this machine allows no network namespaces: {error.stderr.strip()}")
            made.callback(ip, "netns", "delete", name)
            ip("-n", name, "link", "set", "lo", "up")
        front = names[FRONT]
        ip("-n", front, "link", "add", "bridge", "type", "bridge")
        ip("-n", front, "address", "add", f"{FRONT}/24", "dev", "bridge")
        ip("-n", front, "link", "set", "bridge", "up")
        for number, host in enumerate(HOSTS):
            ip(
                "-n",
                front,
                "link",
                "add",
                f"port{number}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                names[host],
            )
            ip("-n", front, "link", "set", f"port{number}", "master", "bridge", "up")
            ip("-n", names[host], "address", "add", f"{host}/24", "dev", "eth0")
            ip("-n", names[host], "link", "set", "eth0", "up")
        yield names


@pytest.fixture
def here() -> Iterator[Machine]:
    with machine() as made:
        yield made


def test_servers_on_three_hosts_are_restarted_under_load_without_a_lost_request(
    here: Machine, network: dict[str, str]
) -> None:
    curl, front = require_program("curl"), inside(network[FRONT])

    def get(path: str, *options: str) -> dict[str, object]:
        command = [*front, curl, "-sS", "--max-time", "20", *options, f"http://{FRONT}{path}"]
        answer: dict[str, object] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return answer

    prefixes = {host: inside(network[host]) for host in HOSTS}
    with here.redis(FRONT, 6379, front), Cluster(here, {}, prefixes) as servers:
        site = here.file("nginx-scale-out.conf")
        with here.nginx(site, port=80, prefix=front):
            with Pressure(FRONT, 80, http=8, websockets=4, command=front) as pressure:

                def serving(pid: int) -> bool:
                    return pid in {get("/health")["pid"] for _ in range(6)}

                counted = servers.restart_all_under(pressure, serving)
            # nginx comes from another host, which the unit names.
            assert get("/who/", "-H", "X-Forwarded-For: 6.6.6.6")["client"] == FRONT
        # A host that is gone does not even refuse: nginx waits for proxy_connect_timeout, and asks the next one.
        ip("-n", network[HOSTS[0]], "link", "set", "eth0", "down")
        with here.nginx(site, port=80, prefix=front):
            answered = {get("/health", "-d", "a POST")["pid"] for _ in range(6)}
            assert answered == {servers.processes[host].pid for host in HOSTS[1:]}
        logs = [servers.log(host) for host in HOSTS]
    assert counted["failures"] == {}
    assert len(counted["pids"]) == 6
    assert not any("Traceback" in log for log in logs)

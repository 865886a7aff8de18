"""nginx in front, over TCP and over a UNIX socket, with the files of the documentation."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.processes.deploying import Machine, answers, ask, machine
from tests.support.processes.serving import HOST, MIB, free_port, wait_for

pytestmark = pytest.mark.system

STRANGER = "127.0.0.2"
FORGED = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "6", "Daphne-Root-Path": "/x"}


@dataclass
class Site:
    machine: Machine
    url: str
    pid: int
    """The server's."""

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def client(self, **more: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=20, **more)  # type: ignore[arg-type]


def sockets_of(pid: int) -> set[str]:
    """What of the process's descriptors is a socket."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(descriptor)
            if target.startswith("socket:"):
                found.add(target)
    return found


@pytest.fixture(scope="module", params=["unix", "tcp"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The site of nginx.conf; the server is started with the command of proj.service, or listens on a port."""
    port, front = free_port(), free_port()
    with machine() as here:
        config = here.file("nginx.conf", {"listen 80": f"listen {HOST}:{front}"})
        command = re.search("^ExecStart=(.*)$", here.file("proj.service"), re.M)
        assert command is not None
        options = shlex.split(command[1])
        path = here.root / "run" / "proj" / "proj.sock"
        ready = path.exists
        if request.param == "tcp":
            options[options.index("-u") : options.index("-u") + 2] = ["-p", str(port)]
            tcp = here.file("nginx-tcp.conf", {"127.0.0.1:8000": f"{HOST}:{port}"})
            config, replaced = re.subn(r"upstream proj \{.*?^\}\n", tcp, config, flags=re.M | re.S)
            assert replaced == 1
            ready = lambda: answers(port)  # noqa: E731
        with here.started("server", options, ready) as server:
            with here.nginx(config, port=front) as url:
                yield Site(here, url, server.pid)


def test_pages_and_the_clients_address(site: Site) -> None:
    with site.client(transport=httpx.HTTPTransport(local_address=STRANGER)) as client:
        said = client.get("/who/", headers=FORGED).json()
    assert said["server"] == "asgi"
    assert (said["client"], said["url"]) == (STRANGER, f"{site.url}/who/")
    assert int(said["port"]) > 1000
    assert said["forwarded_for"] == STRANGER


def test_static_files_are_nginxs(site: Site) -> None:
    with site.client() as client:
        answer = client.get("/static/leaf.txt")
    assert answer.text == "a leaf\n"
    assert answer.headers["server"].startswith("nginx")


def test_connections_to_the_server_are_kept(site: Site) -> None:
    with site.client() as client:
        client.get("/health")
        before = sockets_of(site.pid)
        for _ in range(50):
            assert client.get("/health").status_code == 200
        assert sockets_of(site.pid) == before


def test_a_websocket(site: Site) -> None:
    with connect(f"ws://{site.host}/ws/", proxy=None, source_address=(STRANGER, 0), additional_headers=FORGED) as ws:
        assert json.loads(ws.recv(10))["client"] == [STRANGER, ws.local_address[1]]
        ws.send("x" * 100_000)
        assert json.loads(ws.recv(10))["text"] == "x" * 100_000


def test_an_upload_is_read_while_it_arrives(site: Site) -> None:
    host, port = site.host.split(":")
    with socket.create_connection((host, int(port)), 20) as upload:
        head = f"POST /upload/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {2 * MIB}\r\n\r\n"
        upload.sendall(head.encode())
        upload.sendall(b"x" * MIB)
        wait_for(lambda: ask(f"{site.url}/progress")["received"] == MIB, "the first half", 10)
        upload.sendall(b"x" * MIB)
        assert b'{"received": %d}' % (2 * MIB) in b"".join(iter(lambda: upload.recv(65536), b""))


def test_a_large_upload(site: Site) -> None:
    with site.client() as client:
        assert client.post("/upload/", content=(bytes(MIB) for _ in range(100))).json() == {"received": 100 * MIB}
        # Elsewhere nginx's own limit holds.
        assert client.post("/who/", content=bytes(2 * MIB)).status_code == 413


def test_events_come_as_they_are_sent(site: Site) -> None:
    began = time.monotonic()
    with site.client() as client, client.stream("GET", "/events/") as stream:
        lines = stream.iter_lines()
        assert [next(lines) for _ in range(3)] == ["data: 0", "", "data: 1"]
        assert time.monotonic() - began < 10  # all of them take 20 seconds

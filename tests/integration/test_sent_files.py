"""Files that applications send by pathsend and zerocopysend: on every carrier, to slow readers, and when they change."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.processes.serving import (
    HOST,
    MemoryGrowth,
    Running,
    needs_procfs,
    require_program,
    serve,
    wait_for,
)
from tests.support.tls import write_pem

pytestmark = pytest.mark.once

APPLICATION = "file_app:application"
MIB = 1 << 20
LARGE = os.urandom(3 * MIB + 1)
HUGE_BYTES = 100 * MIB
SLOW_READERS = 50
# What a socket of a client takes before it reads.
RECEIVE_BUFFER = 16384


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "large").write_bytes(LARGE)
    (tmp_path / "small").write_bytes(LARGE[:1000])
    (tmp_path / "empty").touch()
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(HUGE_BYTES)
    return tmp_path


@pytest.fixture
def server(directory: Path) -> Iterator[Running]:
    with serve(APPLICATION, directory) as running:
        yield running


def open_files(server: Running) -> list[str]:
    """What the server has open in its directory, but for its log."""
    found = []
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = str(entry.readlink())
            if target.startswith(str(server.directory)) and not target.endswith(".log"):
                found.append(target)
    return found


def refuses(server: Running) -> bool:
    try:
        socket.create_connection((HOST, server.port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("carrier", ["http/1.0", "http/1.1", "http/2", "tls", "tls and http/2", "unix"])
def test_files_are_sent_by_every_carrier(carrier: str, directory: Path) -> None:
    arguments = {"http/1.0": ["--http1.0"], "http/2": ["--http2-prior-knowledge"]}.get(carrier, ["--http1.1"])
    options: list[str] = []
    listen = ["-b", HOST, "-p", "0"]
    scheme = "http"
    if carrier.startswith("tls"):
        write_pem(directory / "site.pem", HOST)
        options = ["--ssl-certfile", str(directory / "site.pem")]
        arguments = ["--insecure", "--http2" if "http/2" in carrier else "--http1.1"]
        scheme = "https"
    elif carrier == "unix":
        listen = ["-u", str(directory / "socket")]
        arguments = ["--unix-socket", str(directory / "socket")]
    curl = [require_program("curl"), "--disable", "--noproxy", "*", "--silent", "--show-error", "--fail", *arguments]
    with serve(APPLICATION, directory, *options, listen=listen) as running:
        url = f"{scheme}://{HOST}:{running.port or 80}"
        for name, content in {"large": LARGE, "small": LARGE[:1000], "empty": b""}.items():
            ways = {"path": content, "starlette": content}
            if content:  # of which zerocopysend is asked for ten bytes
                ways["zero"] = b"[" + content + b"]"
            for way, expected in ways.items():
                done = subprocess.run([*curl, f"{url}/{way}/{name}"], capture_output=True, timeout=60)
                assert (done.returncode, done.stderr) == (0, b"")
                assert done.stdout == expected
        assert "sent by http.response.pathsend" in running.log


def test_a_range_of_starlette_is_a_part_of_the_file(server: Running) -> None:
    with server.client() as client:
        part = client.get("/starlette/large", headers={"Range": "bytes=1000-2000999"})
    assert (part.status_code, part.content) == (206, LARGE[1000:2001000])


@needs_procfs
def test_slow_readers_of_a_large_file_cost_no_memory(server: Running) -> None:
    with server.client() as client, contextlib.ExitStack() as stack:
        client.get("/path/large").raise_for_status()
        grown = MemoryGrowth(server)
        readers = [stack.enter_context(server.connect(receive_buffer=RECEIVE_BUFFER)) for _ in range(SLOW_READERS)]
        for reader in readers:
            reader.sendall(b"GET /path/huge HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(20):
            for reader in readers:
                assert reader.recv(RECEIVE_BUFFER)
        # They do not keep anybody else waiting.
        assert client.get("/path/large").content == LARGE
        assert len(open_files(server)) == SLOW_READERS
        grown.check(2 * MIB)
    wait_for(lambda: not open_files(server), "the files of clients that have left to be closed")


@needs_procfs
def test_a_file_that_shrinks_ends_its_connection_with_one_line(server: Running) -> None:
    server.expect("Cannot send the rest of")
    path = server.directory / "huge"
    with server.connect(receive_buffer=RECEIVE_BUFFER) as reader:
        reader.sendall(b"GET /path/huge HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.recv(1000).startswith(b"HTTP/1.1 200")
        os.truncate(path, 50 * MIB)
        with pytest.raises(ConnectionResetError):
            while reader.recv(MIB):
                pass
    server.wait_for_log("Cannot send the rest of")
    lines = [line for line in server.log.splitlines() if "Cannot send the rest of" in line]
    assert len(lines) == 1
    assert str(path) in lines[0]
    wait_for(lambda: not open_files(server), "the file to be closed")


@pytest.mark.parametrize("name", ["missing", "directory", "pipe"])
def test_what_is_no_file_is_an_error_and_the_connection_goes_on(name: str, server: Running) -> None:
    server.expect("Exception inside application")
    (server.directory / "directory").mkdir()
    os.mkfifo(server.directory / "pipe")
    with server.client() as client:
        assert client.get(f"/path/{name}").status_code == httpx.codes.INTERNAL_SERVER_ERROR
        assert client.get("/path/small").content == LARGE[:1000]
    assert len([line for line in server.log.splitlines() if "Exception inside application" in line]) == 1
    assert str(server.directory / name) in server.log


def test_a_download_under_way_is_finished_when_the_server_stops(server: Running) -> None:
    with server.connect(receive_buffer=RECEIVE_BUFFER) as reader:
        reader.sendall(b"GET /path/huge HTTP/1.1\r\nHost: x\r\n\r\n")
        head = reader.recv(1000)
        server.process.terminate()
        wait_for(lambda: refuses(server), "the server to accept nothing more")
        taken = len(head.partition(b"\r\n\r\n")[2])
        while part := reader.recv(MIB):
            taken += len(part)
    assert taken == HUGE_BYTES
    assert server.process.wait(20) == 0

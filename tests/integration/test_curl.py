"""curl on the server: versions, keep-alive, Expect, uploads, HEAD, upgrades it did not ask for, UNIX sockets."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes.serving import MIB, Running, require_program, serve

pytestmark = pytest.mark.system

UPLOAD_BYTES = 2 * MIB


@dataclass(frozen=True)
class Result:
    """What one run of curl brought."""

    body: str
    trace: str
    """What ``--verbose`` shows: lines with ``>`` were sent, lines with ``<`` received."""

    @property
    def statuses(self) -> list[int]:
        """Status codes received, interim ones included."""
        return [int(code) for code in re.findall(r"^< HTTP/1\.[01] (\d+)", self.trace, re.MULTILINE)]

    def field(self, name: str) -> str | None:
        """Return the last response header field of this name."""
        found = re.findall(rf"^< {name}: (.*?)\r?$", self.trace, re.MULTILINE | re.IGNORECASE)
        return found[-1] if found else None


def curl(*arguments: str) -> Result:
    """Run curl without the user's configuration and the environment's proxies.

    Raises:
        AssertionError: It did not succeed.
    """
    command = [require_program("curl"), "--disable", "--noproxy", "*", "--no-progress-meter", "--verbose"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0, done.stderr
    return Result(done.stdout, done.stderr)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("plain:application", tmp_path_factory.mktemp("curl")) as running:
        yield running


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory, block: bytes) -> Path:
    path = tmp_path_factory.mktemp("upload") / "noise.bin"
    path.write_bytes(block * (UPLOAD_BYTES // MIB))
    return path


def received(path: Path) -> dict[str, int | str]:
    """Return what the application says of a body that arrived whole."""
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


# -- versions and connections -----------------------------------------------------------------------------------


def test_http_1_0_is_answered_and_closed(server: Running) -> None:
    result = curl("--http1.0", f"{server.url}/scope")
    assert json.loads(result.body)["http_version"] == "1.0"
    assert result.field("connection") == "close"


def test_a_stream_over_http_1_0_ends_with_the_connection(server: Running, tmp_path: Path) -> None:
    output = tmp_path / "stream"
    result = curl("--http1.0", "--output", str(output), f"{server.url}/stream?pieces=20")
    assert result.field("transfer-encoding") is None
    assert output.read_bytes() == b"\xda" * 65536 * 20


def test_http_1_0_with_keep_alive_serves_two_requests(server: Running) -> None:
    url = f"{server.url}/hello"
    result = curl("--http1.0", "-H", "Connection: keep-alive", "-w", "%{num_connects}\n", url, url)
    assert result.body == "Hello, World!\n1\nHello, World!\n0\n"


def test_http_1_1_keeps_the_connection_for_many_requests(server: Running) -> None:
    urls = [f"{server.url}/{path}" for path in ("hello", "stream?pieces=1", "no-such-page", "hello")]
    outputs = [word for _ in urls for word in ("-o", "/dev/null")]
    result = curl("--http1.1", "-w", "%{num_connects} %{http_code}\n", *outputs, *urls)
    assert result.body == "1 200\n0 200\n0 404\n0 200\n"
    assert re.search(r"re-?using existing", result.trace, re.IGNORECASE)


@pytest.mark.parametrize("arguments", [[], ["--data", "leaf"], ["-H", "Transfer-Encoding: chunked", "--data", "leaf"]])
def test_an_upgrade_to_http_2_is_not_taken_up_and_loses_no_body(server: Running, arguments: list[str]) -> None:
    url = f"{server.url}/scope"
    outputs = ["-w", "\n%{http_version} %{num_connects}\n"]
    result = curl("--http2", *outputs, *arguments, url, url)
    assert "> Upgrade: h2c" in result.trace
    assert result.statuses == [200, 200]
    first, first_connection, second, second_connection = result.body.splitlines()
    assert (first_connection, second_connection) == ("1.1 1", "1.1 0")
    for seen in (json.loads(first), json.loads(second)):
        assert seen["http_version"] == "1.1"
        assert seen["received"]["size"] == (4 if arguments else 0)


# -- statuses ---------------------------------------------------------------------------------------------------


def test_every_status_is_told_on_one_connection(server: Running) -> None:
    statuses = [200, 201, 202, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 418, 422, 429, 500, 503, 599]
    urls = [f"{server.url}/status/{status}" for status in statuses]
    outputs = [word for _ in urls for word in ("-o", "/dev/null")]
    result = curl("-w", "%{num_connects} %{http_code} %{size_download}\n", *outputs, *urls)
    assert result.statuses == statuses
    expected = [f"{int(not n)} {status} {0 if status in (204, 304) else 7}" for n, status in enumerate(statuses)]
    assert result.body.splitlines() == expected


@pytest.mark.parametrize("path", ["/hello", "/status/404", "/stream?pieces=2"])
def test_head_is_answered_without_a_body(server: Running, path: str) -> None:
    result = curl("--head", server.url + path, server.url + path)
    assert len(result.statuses) == 2
    assert result.field("date")
    assert result.field("server") == "daphne"
    assert result.field("content-length") == {"/hello": "14", "/status/404": "7"}.get(path)


def test_trailers_are_received(server: Running, tmp_path: Path) -> None:
    dump = tmp_path / "head"
    result = curl("-H", "TE: trailers", "-H", "Connection: TE", "-D", str(dump), f"{server.url}/trailers")
    assert result.body == "summed\n"
    head, _, trailers = dump.read_bytes().partition(b"\r\n\r\n")
    assert b"\r\ntrailer: x-sum" in head
    assert trailers.strip() == b"x-sum: 42"


# -- uploads ----------------------------------------------------------------------------------------------------


def test_an_upload_waits_for_100_continue_and_gets_it(server: Running, upload: Path) -> None:
    started = time.monotonic()
    result = curl(
        *("-H", "Expect: 100-continue", "--expect100-timeout", "30", "-H", "Content-Type: application/octet-stream"),
        *("--data-binary", f"@{upload}", f"{server.url}/count"),
    )
    assert time.monotonic() - started < 10
    assert result.statuses == [100, 200]
    assert json.loads(result.body) == received(upload)


def test_an_upload_that_nobody_wants_is_refused_before_it_is_sent(server: Running, upload: Path) -> None:
    result = curl(
        *("-H", "Expect: 100-continue", "--expect100-timeout", "30", "-w", "%{size_upload}"),
        *("--data-binary", f"@{upload}", f"{server.url}/unread"),
    )
    assert result.statuses == [403]
    assert result.body == "not wanted\n0"
    assert result.field("connection") == "close"


@pytest.mark.parametrize("size", [1000, 60_000, UPLOAD_BYTES])
def test_the_answer_to_an_upload_that_is_not_read_arrives(
    server: Running, upload: Path, size: int, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    part.write_bytes(upload.read_bytes()[:size])
    url = f"{server.url}/unread"
    arguments = ("-H", "Expect:", "-w", "%{http_code}\n", "--data-binary", f"@{part}", url, url)
    # curl stops sending when the answer says that the connection closes.
    assert curl(*arguments).body == "not wanted\n403\n" * 2


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_upload_in_chunks_arrives_whole(server: Running, upload: Path, method: str) -> None:
    url = f"{server.url}/count"
    headers = ("-H", "Transfer-Encoding: chunked", "-H", "Content-Type: application/octet-stream")
    send = ("--upload-file", str(upload)) if method == "PUT" else ("--data-binary", f"@{upload}")
    result = curl(*headers, "-H", "Expect:", *send, url)
    assert "> Transfer-Encoding: chunked" in result.trace
    assert "> Content-Length" not in result.trace
    assert json.loads(result.body) == received(upload)


def test_a_form_with_a_file_arrives(server: Running, upload: Path) -> None:
    result = curl("-F", f"file=@{upload}", "-F", "note=leaf", f"{server.url}/count")
    assert json.loads(result.body)["size"] > UPLOAD_BYTES


# -- UNIX socket ------------------------------------------------------------------------------------------------


def test_a_unix_socket_serves_and_is_removed_at_the_end() -> None:
    require_program("curl")
    # Not below pytest's directory: the path of a socket has about a hundred bytes at most.
    with tempfile.TemporaryDirectory(prefix="daphne-ng-") as name:
        path = Path(name) / "s"
        with serve("plain:application", Path(name), listen=("-u", str(path))):
            result = curl("--unix-socket", str(path), "http://leaf.example/scope")
            seen = json.loads(result.body)
            assert ["host", "leaf.example"] in seen["headers"]
            assert (seen["client"], seen["server"]) == (None, [str(path), None])
        assert not path.exists()

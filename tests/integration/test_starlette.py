"""Starlette on the server: lifespan, streams, files, background tasks, and clients that leave."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.processes.serving import HOST, MIB, SLACK, Running, serve, wait_for

APPLICATION = "starlette_app:application"
FILE_BYTES = 5 * MIB

# An application that does not see that its client has left is given one second.
OPTIONS = ("--application-close-timeout", "1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, block: bytes) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("starlette")
    (directory / "noise.bin").write_bytes(block * (FILE_BYTES // MIB))
    with serve(APPLICATION, directory, *OPTIONS) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(params=["", "/wrapped"], ids=["plain", "behind BaseHTTPMiddleware"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def seen(client: httpx.Client, name: str) -> str | None:
    found: str | None = client.get(f"/seen/{name}").json()
    return found


# -- lifespan ---------------------------------------------------------------------------------------------------


def test_the_state_of_the_lifespan_is_shared_and_copied_for_each_request(client: httpx.Client) -> None:
    first = client.get("/state?name=Ash").json()
    second = client.get("/state?name=Bay").json()
    assert first == {"greeting": "hello", "visitors": ["Ash"], "own": None}
    assert second == {"greeting": "hello", "visitors": ["Ash", "Bay"], "own": None}


def test_a_stopping_server_finishes_what_has_begun_and_then_ends_the_lifespan(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path) as running, running.client() as client, ThreadPoolExecutor(1) as pool:
        assert "the application starts" in running.log
        client.get("/seen/nothing")  # who is connected may ask even while the server stops
        answer = pool.submit(client.get, "/slow")
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        assert answer.result().text == "slow, but sure"
        assert running.process.wait(10) == 0
        ended = running.wait_for_log("the application has ended, having seen slow")
        assert "the application starts" in running.log[: ended.start()]


# -- responses --------------------------------------------------------------------------------------------------


def test_a_stream_arrives_part_by_part(client: httpx.Client, prefix: str) -> None:
    started = time.monotonic()
    headers = {"Accept-Encoding": "identity"}
    with client.stream("GET", f"{prefix}/stream?count=3&every=1", headers=headers) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers.get("x-wrapped") == ("yes" if prefix else None)
        lines = answer.iter_lines()
        assert next(lines) == "line 0"
        assert time.monotonic() - started < 1.9  # the last comes after two seconds
        assert list(lines) == ["line 1", "line 2"]


def test_a_stream_is_compressed_by_the_middleware(client: httpx.Client) -> None:
    answer = client.get("/wrapped/stream?count=200", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text == "".join(f"line {number}\n" for number in range(200))


def test_a_background_task_goes_on_while_the_connection_serves_the_next_request(client: httpx.Client) -> None:
    assert client.get("/background").text == "answered"
    # The client has one connection, so this is the same one.
    assert seen(client, "background") == "running"
    wait_for(lambda: seen(client, "background") == "done", "the task to end")


def test_a_file_is_sent_whole_in_ranges_and_as_a_head(client: httpx.Client, block: bytes, prefix: str) -> None:
    identity = {"Accept-Encoding": "identity"}
    whole = client.get(f"{prefix}/file", headers=identity)
    assert whole.content == block * (FILE_BYTES // MIB)
    assert whole.headers["content-length"] == str(FILE_BYTES)
    part = client.get(f"{prefix}/file", headers={**identity, "Range": "bytes=1000000-1999999"})
    assert part.status_code == 206
    assert part.headers["content-range"] == f"bytes 1000000-1999999/{FILE_BYTES}"
    assert part.content == whole.content[1_000_000:2_000_000]
    several = client.get(f"{prefix}/file", headers={**identity, "Range": "bytes=0-9,100-109"})
    assert several.status_code == 206
    assert whole.content[100:110] in several.content
    beyond = client.get(f"{prefix}/file", headers={**identity, "Range": f"bytes={FILE_BYTES}-"})
    assert beyond.status_code == 416
    head = client.head(f"{prefix}/file", headers=identity)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(FILE_BYTES)


def test_a_static_file_is_not_sent_again_to_a_client_that_has_it(client: httpx.Client) -> None:
    first = client.get("/static/noise.bin")
    again = client.get("/static/noise.bin", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/static/noise.bin").status_code == 200


def test_trailers_reach_a_client_that_accepts_them(server: Running) -> None:
    def fetch(more: bytes) -> bytes:
        with server.connect() as connection:
            connection.sendall(b"GET /trailers HTTP/1.1\r\nHost: x\r\nConnection: close%b\r\n\r\n" % more)
            return b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")[2]

    assert fetch(b", TE\r\nTE: trailers") == b"7\r\nsummed\n\r\n0\r\nx-sum: 42\r\n\r\n"
    assert fetch(b"") == b"7\r\nsummed\n\r\n0\r\n\r\n"


# -- failures ---------------------------------------------------------------------------------------------------


def test_an_exception_is_answered_with_500_and_logged_once(server: Running, client: httpx.Client) -> None:
    server.expect("Exception inside application: this endpoint is broken")
    answer = client.get("/broken")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert client.get("/state?name=x").status_code == 200
    # Once as the line, once as the last one of its traceback.
    assert len(re.findall(r"this endpoint is broken(?: \(GET /broken from \S+\))?$", server.log, re.MULTILINE)) == 2


def test_an_exception_in_a_stream_cuts_the_response_so_that_it_shows(server: Running, client: httpx.Client) -> None:
    # Not behind BaseHTTPMiddleware, which itself ends the response as if it were complete.
    server.expect("Exception inside application: the stream is broken")
    parts = []
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        with client.stream("GET", "/stream?count=2&every=0.1&fail") as answer:
            parts.extend(answer.iter_raw())
    assert b"line 0\n" in parts
    assert client.get("/state?name=x").status_code == 200


# -- clients that leave -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"x" * 200_000], ids=["without a body", "after its body"])
def test_is_disconnected_turns_true(server: Running, client: httpx.Client, body: bytes) -> None:
    # Not behind BaseHTTPMiddleware, where it never does, whatever the server.
    name = f"watch-{len(body)}"
    with server.connect() as connection:
        head = f"POST /watch?name={name} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_for(lambda: seen(client, name) == f"watching after {len(body)} bytes", "the endpoint to watch")
        time.sleep(0.2)
        assert seen(client, name) == f"watching after {len(body)} bytes"
    wait_for(lambda: seen(client, name) == "disconnected", "the endpoint to see it", seconds=SLACK)


def test_an_upload_that_breaks_off_raises_client_disconnect_and_is_no_error(
    server: Running, client: httpx.Client, prefix: str
) -> None:
    sent = b"x" * 500_000
    with server.connect() as connection:
        connection.sendall(
            b"POST %b/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" % prefix.encode() + sent
        )
        wait_for(lambda: seen(client, "upload") == "receiving", "the upload to begin")
    said = wait_for(
        lambda: re.fullmatch(r"ClientDisconnect after (\d+) bytes", seen(client, "upload") or ""), "the end"
    )
    # That nothing is logged as an error, `serve` sees to. Whether there is a line at all depends on whether Starlette
    # tries to answer, and sees the end there.
    assert int(said[1]) <= len(sent)


def test_a_whole_upload_arrives_in_chunks_and_with_a_length(client: httpx.Client, block: bytes, prefix: str) -> None:
    assert client.post(f"{prefix}/upload", content=block * 4).json() == {"size": 4 * MIB}
    assert client.post(f"{prefix}/upload", content=iter([block] * 4)).json() == {"size": 4 * MIB}


@pytest.mark.parametrize("query", ["count=1000&every=0.05", "count=1&hang"], ids=["a busy stream", "a silent stream"])
def test_a_stream_ends_after_its_client(server: Running, client: httpx.Client, prefix: str, query: str) -> None:
    # Starlette leaves it to send() to tell it, which a silent stream does not call: the server ends it in time.
    server.expect(r"GET (/wrapped)?/stream, [\d.]+ s old took too long to shut down and was killed")
    name = f"stream-{len(query)}{prefix.replace('/', '-')}"
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    connection.request("GET", f"{prefix}/stream?name={name}&{query}")
    response = connection.getresponse()
    assert response.readline() == b"line 0\n"
    assert seen(client, name) is None
    response.close()
    connection.close()
    wait_for(lambda: seen(client, name) == "ended", "the stream to end", seconds=3 * SLACK)


# -- WebSockets -------------------------------------------------------------------------------------------------


def ws_url(server: Running, path: str) -> str:
    return f"ws://{HOST}:{server.port}{path}"


def test_a_websocket_route_talks(server: Running, client: httpx.Client, prefix: str) -> None:
    headers = {"X-Choose": "one"}
    url = ws_url(server, f"{prefix}/talk?name=talk{len(prefix)}")
    with connect(url, proxy=None, subprotocols=["two", "one"], additional_headers=headers) as ws:  # type: ignore[list-item]
        assert ws.subprotocol == "one"
        assert ws.response is not None
        assert ws.response.headers["x-greeting"] == "hello"
        ws.send("Grüße")
        assert ws.recv(5) == "Grüße"
        ws.send("bytes")
        assert ws.recv(5) == b"\x00\xff"
        ws.send("json")
        assert ws.recv(5) == '{"word":"json"}'
    wait_for(lambda: seen(client, f"talk{len(prefix)}") == "left", "the endpoint to end")


def test_a_websocket_route_closes_with_code_and_reason(server: Running) -> None:
    with connect(ws_url(server, "/talk"), proxy=None) as ws:
        ws.send("close")
        with pytest.raises(ConnectionClosed):
            ws.recv(5)
        assert (ws.close_code, ws.close_reason) == (4000, "as you wish")


def test_a_websocket_route_that_fails_closes_with_1011(server: Running) -> None:
    server.expect("Exception inside application: this socket is broken")
    with connect(ws_url(server, "/talk"), proxy=None) as ws:
        ws.send("fail")
        with pytest.raises(ConnectionClosed):
            ws.recv(5)
        assert ws.close_code == 1011


def test_a_websocket_route_that_sends_learns_that_its_client_left(server: Running, client: httpx.Client) -> None:
    with connect(ws_url(server, "/talk?name=flood"), proxy=None) as ws:
        ws.send("flood")
        ws.recv(5)
        ws.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: seen(client, "flood") == "WebSocketDisconnect 1006 ", "the endpoint to see it")


@pytest.mark.parametrize("path", ["/no/such/socket", "/state"])
def test_starlette_refuses_a_websocket_that_nobody_serves(server: Running, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        with connect(ws_url(server, path), proxy=None):
            pass
    assert refused.value.response.status_code in (403, 404)


def test_starlettes_denial_response_reaches_the_client(server: Running) -> None:
    with pytest.raises(InvalidStatus) as denied:
        with connect(ws_url(server, "/deny"), proxy=None):
            pass
    answer = denied.value.response
    assert (answer.status_code, answer.headers["x-denied"], answer.body) == (451, "yes", b'{"why":"because"}')


def test_a_websocket_endpoint_hears_and_sees_the_end(server: Running, client: httpx.Client) -> None:
    # Python's own line, which ends the traceback, looks like a warning to who reads the log.
    server.expect("Malformed JSON data received", "JSONDecodeError")
    with connect(ws_url(server, "/loud"), proxy=None) as ws:
        ws.send('{"word": "leaf"}')
        assert ws.recv(5) == '{"loud":"LEAF"}'
        ws.send("no JSON")
        with pytest.raises(ConnectionClosed):
            ws.recv(5)
        assert ws.close_code == 1003
    wait_for(lambda: seen(client, "loud"), "the endpoint to see it")

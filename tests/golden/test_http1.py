"""Requests and their answers as bytes, each named for the RFC example, the CVE or the client that it came from.

The folder says what becomes of the connection: ``kept``, ``closed``, ``refused`` (the last answer is an error, and the
request never reaches the application whole) or ``switched`` (to a WebSocket, which gets what follows the last head). The
answers are those of `Replies`, which repeats what it received.
"""

from __future__ import annotations

import pathlib

import h11
import pytest

from tests.support.h1 import Http1Server, Replies, bytewise, read_responses, request, splits

ROOT = pathlib.Path(__file__).with_name("http1")
VECTORS = [str(path.relative_to(ROOT))[: -len(".request")] for path in sorted(ROOT.glob("*/*.request"))]
STATES = {"kept": ["open"], "closed": ["closed", "half"], "refused": ["half"], "switched": ["open"]}
TRAILING = request(b"/trailing")


def vector(name: str) -> tuple[str, bytes, bytes]:
    path = ROOT / name
    return path.parent.name, *(path.with_name(path.name + suffix).read_bytes() for suffix in (".request", ".response"))


def serve(*parts: bytes) -> Http1Server:
    return Http1Server(Replies(), date=True, server_name="daphne").feed(*parts)


def behind(data: bytes) -> bytes:
    return data.rpartition(b"\r\n\r\n")[2]


def check(server: Http1Server, kind: str, expected: bytes, rest: bytes) -> None:
    assert server.reply == expected
    assert server.switched == (rest if kind == "switched" else None)
    assert server.state in STATES[kind]
    if kind == "refused":
        answered = expected.count(b"HTTP/1.1 200 OK\r\n")
        assert sum(sink.ended for sink in server.sinks) == answered


def test_there_are_vectors_of_each_kind() -> None:
    assert {name.split("/")[0] for name in VECTORS} == set(STATES)


@pytest.mark.parametrize("name", VECTORS)
def test_whole(name: str) -> None:
    kind, data, expected = vector(name)
    check(serve(data), kind, expected, behind(data))


@pytest.mark.parametrize("name", VECTORS)
def test_byte_by_byte(name: str) -> None:
    kind, data, expected = vector(name)
    check(serve(*bytewise(data)), kind, expected, behind(data))


@pytest.mark.parametrize("name", VECTORS)
def test_split_at_every_position(name: str) -> None:
    kind, data, expected = vector(name)
    for parts in splits(data):
        check(serve(*parts), kind, expected, behind(data))


@pytest.mark.parametrize("name", VECTORS)
def test_with_a_request_behind_it(name: str) -> None:
    kind, data, expected = vector(name)
    for parts in ([data + TRAILING], [data, TRAILING], bytewise(data + TRAILING)):
        server = serve(*parts)
        if kind == "kept":
            assert server.targets[-1] == b"/trailing"
            assert server.reply.startswith(expected)
            assert server.reply.endswith(b"GET /trailing 1.1\n")
            assert server.state == "open"
        else:
            assert b"/trailing" not in server.targets
            check(server, kind, expected, behind(data) + TRAILING)


@pytest.mark.parametrize("name", VECTORS)
def test_h11_reads_the_answers(name: str) -> None:
    kind, data, expected = vector(name)
    server = serve(data)
    if kind == "switched":
        before, mark, last = server.reply.rpartition(b"HTTP/1.1 101 ")
        assert all(response.complete for response in read_responses(before, ["GET"], closed=False))
        client = h11.Connection(h11.CLIENT)
        fields = [("host", "test"), ("connection", "upgrade"), ("upgrade", "websocket")]
        client.send(h11.Request(method="GET", target="/", headers=fields))
        client.send(h11.EndOfMessage())
        client.receive_data(mark + last)
        assert client.next_event().status_code == 101
        assert client.next_event() is h11.PAUSED
        assert client.trailing_data == (b"", False)
        return
    # The methods that were sent, also of requests that the application never saw.
    methods = (
        [line.split()[0].decode() for line in data.split(b"\r\n") if b" HTTP/" in line] if kind == "refused" else []
    )
    responses = server.responses(*methods)
    assert all(response.complete for response in responses)
    assert responses[-1].closes is (kind != "kept")

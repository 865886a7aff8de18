"""Port 80."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from daphne_ng.acme.responder import CONNECTIONS_MAX, HEAD_MAX_BYTES, REQUEST_SECONDS, ResponderFactory

PATH = b"/.well-known/acme-challenge/"
ANSWER = "tok-en_1.thumbprint"


class Port:
    """Connections to one factory."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.answers = {"tok-en_1": ANSWER}
        self.factory = ResponderFactory(self.answers, self.clock)

    def connect(self) -> tuple[StringTransport, object]:
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 5000))
        transport = StringTransport()
        protocol.makeConnection(transport)
        return transport, protocol

    def send(self, *parts: bytes) -> bytes:
        transport, protocol = self.connect()
        for part in parts:
            protocol.dataReceived(part)  # type: ignore[attr-defined]
        reply = transport.value()
        assert transport.disconnecting == bool(reply)
        protocol.connectionLost(Failure(ConnectionDone()))  # type: ignore[attr-defined]
        assert not self.factory.connections
        assert self.clock.getDelayedCalls() == []
        return reply


def request(target: bytes, method: bytes = b"GET", host: bytes = b"a.example.org") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nUser-Agent: x\r\nHost: " + host + b"\r\n\r\n"


def status(reply: bytes) -> int:
    return int(reply.split()[1])


def test_a_token_that_is_known_is_answered() -> None:
    reply = Port().send(request(PATH + b"tok-en_1"))
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Connection: close",
        b"Content-Length: 19",
        b"Content-Type: application/octet-stream",
    ]
    assert body == ANSWER.encode()


def test_any_segmentation_gives_the_same_answer() -> None:
    data = request(PATH + b"tok-en_1")
    whole = Port().send(data)
    assert Port().send(*(data[at : at + 1] for at in range(len(data)))) == whole
    assert Port().send(data + data + b"more") == whole  # one request for each connection
    assert Port().send(data.replace(b"\r\n", b"\n")) == whole


def test_head_has_no_body() -> None:
    reply = Port().send(request(PATH + b"tok-en_1", b"HEAD"))
    assert b"Content-Length: 19\r\n" in reply
    assert reply.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("token", [b"other", b"", b"../tok-en_1", b"tok-en_1/", b"tok%2den_1", b"x" * 300])
def test_other_tokens_are_not_found(token: bytes) -> None:
    assert status(Port().send(request(PATH + token))) == 404


def test_a_token_is_not_posted_to() -> None:
    reply = Port().send(request(PATH + b"tok-en_1", b"POST"))
    assert status(reply) == 405
    assert b"Allow: GET, HEAD\r\n" in reply


@pytest.mark.parametrize(
    ("method", "expected"), [(b"GET", 301), (b"HEAD", 301), (b"POST", 308), (b"OPTIONS", 308), (b"PUT", 308)]
)
def test_all_else_is_sent_to_https(method: bytes, expected: int) -> None:
    reply = Port().send(request(b"/shop?item=1&x=%0d%0a", method, b"A.example.org:80"))
    assert status(reply) == expected
    assert b"Location: https://a.example.org/shop?item=1&x=%0d%0a\r\n" in reply


def test_an_address_is_a_host_too() -> None:
    assert b"Location: https://[2001:db8::1]/\r\n" in Port().send(request(b"/", host=b"[2001:db8::1]:80"))


@pytest.mark.parametrize(
    "data",
    [
        request(b"http://a.example.org/"),
        request(b"*", b"OPTIONS"),
        request(b"/ x"),
        request(b"/\x80"),
        request(b"/", host=b"a.example.org/evil"),
        request(b"/", host=b"user@a.example.org"),
        request(b"/", host=b""),
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\n\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    assert status(Port().send(data)) == 400


def test_a_head_that_is_too_large_is_refused_and_no_more_than_that_is_kept() -> None:
    port = Port()
    transport, protocol = port.connect()
    protocol.dataReceived(b"GET / HTTP/1.1\r\nX: " + b"x" * 10 * HEAD_MAX_BYTES)  # type: ignore[attr-defined]
    assert status(transport.value()) == 431
    assert len(protocol._head) == HEAD_MAX_BYTES + 1  # type: ignore[attr-defined]
    protocol.dataReceived(b"x")  # type: ignore[attr-defined]
    assert transport.value().count(b"HTTP/1.1") == 1


def test_who_says_nothing_is_cut_off() -> None:
    port = Port()
    transport, protocol = port.connect()
    port.clock.advance(REQUEST_SECONDS - 1)
    assert not transport.disconnected
    port.clock.advance(2)
    assert transport.disconnected
    protocol.dataReceived(request(b"/"))  # type: ignore[attr-defined]
    assert transport.value() == b""


def test_of_too_many_connections_the_oldest_goes() -> None:
    port = Port()
    open_ones = [port.connect() for _ in range(CONNECTIONS_MAX + 2)]
    assert [transport.disconnected for transport, _ in open_ones] == [True] * 2 + [False] * CONNECTIONS_MAX
    assert len(port.factory.connections) == CONNECTIONS_MAX
    for _, protocol in open_ones:
        protocol.connectionLost(Failure(ConnectionDone()))  # type: ignore[attr-defined]
    assert not port.factory.connections
    assert port.clock.getDelayedCalls() == []

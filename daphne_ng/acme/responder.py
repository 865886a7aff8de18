"""Port 80 for HTTP-01: answers the paths of challenges, and sends all else to https.

Not the server's HTTP: it has to read one request line and one Host field, on a port where everybody tries everything.
So it takes heads of `HEAD_MAX_BYTES`, one request for each connection, `CONNECTIONS_MAX` of these at once, for
`REQUEST_SECONDS` at most, reads no body, and tells of a token only whether it is known. When there are too many
connections the oldest goes: its client has had the most time, and connections that ask nothing keep the authority out
no longer.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from twisted.internet import protocol

from daphne_ng.port.answers import reason_phrase

__all__ = ["Answers", "ResponderFactory"]

HEAD_MAX_BYTES = 8192
CONNECTIONS_MAX = 100
REQUEST_SECONDS = 10.0

_PREFIX = "/.well-known/acme-challenge/"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.[01]")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}", re.ASCII)  # base64url (RFC 8555, 8.3)
_HOST = re.compile(
    rb"\nhost:[ \t]*([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?[ \t]*(?=\r?\n)", re.IGNORECASE
)
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class Answers(Protocol):
    """`daphne_ng.acme.challenges.HttpAnswers`, as seen from here."""

    def get(self, token: str, /) -> str | None:
        """Return the key authorization of a token, or None."""


class _Responder(protocol.Protocol):
    transport: Any

    def __init__(self, factory: ResponderFactory) -> None:
        self.factory: ResponderFactory = factory
        self._head = b""
        self._timer: Any = None
        self._done = False

    def connectionMade(self) -> None:
        connections = self.factory.connections
        if len(connections) >= CONNECTIONS_MAX:
            next(iter(connections))._expire()
        connections[self] = None
        self._timer = self.factory.clock.callLater(REQUEST_SECONDS, self._expire)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.connections.pop(self, None)
        if self._timer.active():
            self._timer.cancel()

    def dataReceived(self, data: bytes) -> None:
        if self._done:
            return  # a body, or a second request
        self._head += data[: HEAD_MAX_BYTES + 1 - len(self._head)]
        end = _HEAD_END.search(self._head)
        if end is not None:
            self._respond(self._head[: end.end()])
        elif len(self._head) > HEAD_MAX_BYTES:
            self._send(431)

    def _expire(self) -> None:
        self._done = True
        self.factory.connections.pop(self, None)
        self.transport.abortConnection()

    def _respond(self, head: bytes) -> None:
        line = _REQUEST_LINE.match(head)
        if line is None or head[line.end() : line.end() + 1] not in (b"\r", b"\n"):
            self._send(400)
            return
        method, target = line[1], line[2]
        path = target.partition(b"?")[0].decode("ascii")
        if path.startswith(_PREFIX):
            self._answer(method, path.removeprefix(_PREFIX))
            return
        hosts = _HOST.findall(head)
        if len(hosts) != 1:
            self._send(400)
            return
        # 308 keeps the method, and some old clients do not know it; for GET it makes no difference.
        status = 301 if method in (b"GET", b"HEAD") else 308
        self._send(status, location=b"https://" + hosts[0].lower() + target)

    def _answer(self, method: bytes, token: str) -> None:
        answer = self.factory.answers.get(token) if _TOKEN.fullmatch(token) else None
        if method not in (b"GET", b"HEAD"):
            self._send(405)
        elif answer is None:
            self._send(404)
        else:
            self._send(200, body=answer.encode("ascii"), with_body=method == b"GET")

    def _send(self, status: int, *, body: bytes = b"", with_body: bool = True, location: bytes = b"") -> None:
        self._done = True
        line = f"HTTP/1.1 {status} {reason_phrase(status)}".encode("ascii")
        fields = [line, b"Connection: close", b"Content-Length: %d" % len(body)]
        if body:
            fields.append(b"Content-Type: application/octet-stream")  # RFC 8555, 8.3
        if location:
            fields.append(b"Location: " + location)
        if status == 405:
            fields.append(b"Allow: GET, HEAD")
        self.transport.write(b"\r\n".join(fields) + b"\r\n\r\n" + (body if with_body else b""))
        self.transport.loseConnection()


class ResponderFactory(protocol.Factory):
    """Makes the protocol of port 80.

    Args:
        answers: Key authorizations by token.
        clock: Anything with ``callLater``.
    """

    noisy = False

    def __init__(self, answers: Answers, clock: Any) -> None:
        self.answers = answers
        self.clock = clock
        self.connections: dict[_Responder, None] = {}
        """The open connections, the oldest first."""

    def buildProtocol(self, addr: Any) -> protocol.Protocol:
        """See ``IProtocolFactory``."""
        return _Responder(self)

"""ASGI's extensions, the state, and QUERY (RFC 10008): over each protocol, on each kind of endpoint."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.errors import UnexpectedMessage
from daphne_ng.server import Server
from tests.support.h2_client import Http2Client, Http2WebSocket
from tests.support.processes.serving import HOST

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning"),  # Twisted's own
]

ENDPOINTS = ["tcp", "unix", "fd", "tls:tcp", "tls:unix", "tls:fd"]
Dial = Callable[..., socket.socket]

TLS_KEYS = {
    "spec_version",
    "server_cert",
    "client_cert_chain",
    "client_cert_name",
    "client_cert_error",
    "tls_version",
    "cipher_suite",
}


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Uses everything that a response can do, and tells of its scope and of the body of its request."""
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["shared"] = 1
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    if scope["type"] == "websocket":
        await receive()
        response = "websocket.http.response"
    else:
        response = "http.response"
        more = True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
    told = {
        "method": scope.get("method"),
        "body": body.decode(),
        "extensions": {name: sorted(value) for name, value in scope["extensions"].items()},
        "state": sorted(scope["state"]),
    }
    with pytest.raises(UnexpectedMessage, match=r"http\.response\.push is not supported: browsers have dropped it"):
        await send({"type": "http.response.push", "path": "/style.css", "headers": []})
    headers = [(b"content-type", b"application/json"), (b"trailer", b"x-sum")]
    await send({"type": f"{response}.start", "status": 418, "headers": headers, "trailers": True})
    await send({"type": f"{response}.early_hint", "links": [b"</style.css>; rel=preload"]})
    await send({"type": f"{response}.body", "body": json.dumps(told).encode(), "more_body": True})
    await send({"type": f"{response}.body", "body": b"\n"})
    await send({"type": f"{response}.trailers", "headers": [(b"x-sum", b"42")]})


@pytest.fixture(scope="module")
def dial(pem: Path) -> Iterator[Dial]:
    """Connect to an endpoint of a server that has one of each kind."""
    with contextlib.ExitStack() as cleanup:
        directory = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="dng"))  # short enough for a socket
        addresses: dict[str, Any] = {}
        strings = []
        for kind in ENDPOINTS:
            tls, _, below = kind.rpartition(":")
            if below == "unix":
                addresses[kind] = f"{directory}/{len(addresses)}"
                string = f"unix:{addresses[kind]}"
            else:
                listener = socket.create_server((HOST, 0))
                addresses[kind] = listener.getsockname()
                if below == "fd":
                    string = f"fd:fileno={listener.detach()}"  # the server closes it
                else:
                    string = f"tcp:{addresses[kind][1]}:interface={HOST}"
                    listener.close()
            strings.append(f"tls:{string}" if tls else string)
        config = Config(ssl_certfile=str(pem), http1_early_hints=True)
        cleanup.enter_context(Server(application, strings, config=config).run_in_thread())

        def connect(kind: str, protocol: str) -> socket.socket:
            address = addresses[kind]
            connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
            connection.settimeout(30)
            connection.connect(address)
            if not kind.startswith("tls:"):
                return connection
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols([protocol])
            return context.wrap_socket(connection)

        yield connect


def check(told: dict[str, Any], kind: str, prefix: str, method: str | None = "GET", body: str = "") -> None:
    expected = {f"{prefix}http.response.{name}": [] for name in ("trailers", "early_hint", "zerocopysend")}
    expected[f"{prefix}http.response.pathsend"] = ["ranges"]
    if prefix:
        expected["websocket.http.response"] = []
    if kind.startswith("tls:"):
        expected["tls"] = sorted(TLS_KEYS)
    assert told == {
        "method": method,
        "body": body,
        "extensions": expected,
        "state": ["server_stopping", "shared"],
    }


UPGRADE = (
    b"Connection: Upgrade, TE\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
ASKED: dict[str, tuple[bytes, str | None, str, str]] = {
    "GET": (b"GET / HTTP/1.1\r\nConnection: close, TE\r\n%b\r\n", "GET", "", ""),
    "QUERY": (
        b"QUERY / HTTP/1.1\r\nConnection: close, TE\r\nContent-Length: 13\r\n%b\r\nselect * from",
        "QUERY",
        "select * from",
        "",
    ),
    "QUERY in chunks": (
        b"QUERY / HTTP/1.1\r\nConnection: close, TE\r\nTransfer-Encoding: chunked\r\n%b\r\n6\r\nselect\r\n0\r\n\r\n",
        "QUERY",
        "select",
        "",
    ),
    "WebSocket": (b"GET / HTTP/1.1\r\n" + UPGRADE + b"%b\r\n", None, "", "websocket."),
}


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("kind", ENDPOINTS)
def test_http_1(dial: Dial, kind: str, what: str) -> None:
    data, method, body, prefix = ASKED[what]
    with dial(kind, "http/1.1") as connection:
        connection.sendall(data % b"Host: localhost\r\nTE: trailers\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    hint, head, rest = answer.split(b"\r\n\r\n", 2)
    assert hint == b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload"
    assert head.startswith(b"HTTP/1.1 418 ")
    size, part, *end = rest.split(b"\r\n")
    assert int(size, 16) == len(part)
    assert end == [b"1", b"\n", b"0", b"x-sum: 42", b"", b""]
    check(json.loads(part), kind, prefix, method, body)


@pytest.mark.parametrize("what", ["GET", "QUERY", "WebSocket"])
@pytest.mark.parametrize("kind", ENDPOINTS)
def test_http_2(dial: Dial, kind: str, what: str) -> None:
    te = (b"te", b"trailers")
    with Http2Client(dial(kind, "h2")) as client:
        if what == "WebSocket":
            response = client.response(Http2WebSocket(client, "/", te).stream)
        else:
            body = b"select" if what == "QUERY" else b""
            response = client.get("/", te, method=what.encode(), body=body)
    assert (response.interim, response.status, response.reset) == ([103], 418, None)
    assert response.trailers == [(b"x-sum", b"42")]
    if what == "WebSocket":
        check(json.loads(response.body), kind, "websocket.", None)
    else:
        check(json.loads(response.body), kind, "", what, body.decode())

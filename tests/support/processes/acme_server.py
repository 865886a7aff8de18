"""A certificate authority for tests: Let's Encrypt's ``pebble``, with a DNS server that knows every name as 127.0.0.1.

Both are Debian's package ``pebble``. `FakeAuthority` is for what pebble cannot do: be rude.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import http.server
import json
import os
import random
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trustme
from cryptography import x509

from tests.support.acme import chain_for
from tests.support.processes.serving import HOST, require_program, wait_for


def free_port() -> int:
    """Return a TCP port that is free now, and that the system gives to nobody who asks for any."""
    for _ in range(100):
        port = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            return port
    raise AssertionError("there is no free port")


@dataclass
class Pebble:
    """An authority that runs."""

    directory: Path
    port: int
    management: int
    ca_file: Path
    tls_port: int
    http_port: int

    @property
    def url(self) -> str:
        """URL of the ACME directory."""
        return f"https://localhost:{self.port}/dir"

    @property
    def options(self) -> tuple[str, ...]:
        """Options of the server."""
        return ("--acme-directory", self.url, "--acme-ca-certs", str(self.ca_file))

    @property
    def log(self) -> str:
        """What pebble has written."""
        return (self.directory / "pebble.log").read_text(errors="replace")

    @property
    def orders(self) -> int:
        """How many orders it has taken."""
        return max(map(int, re.findall(r"There are now (\d+) orders in the db", self.log)), default=0)

    def root(self) -> Path:
        """Return a file with the certificate that everything it issues leads to."""
        path = self.directory / "root.pem"
        with httpx.Client(verify=ssl.create_default_context(cafile=str(self.ca_file)), trust_env=False) as client:
            path.write_bytes(client.get(f"https://localhost:{self.management}/roots/0").content)
        return path


@contextlib.contextmanager
def pebble(
    directory: Path, tls_port: int, http_port: int, validity: int | None = None, **environment: str
) -> Iterator[Pebble]:
    """Run an authority.

    Args:
        directory: For its files.
        tls_port: Where it looks for TLS-ALPN-01, in place of 443.
        http_port: Where it looks for HTTP-01, in place of 80.
        validity: Lifetime of certificates in seconds; years by default.
        environment: More variables, such as ``PEBBLE_WFE_NONCEREJECT``.
    """
    program, names = require_program("pebble"), require_program("pebble-challtestsrv")
    directory.mkdir(exist_ok=True)
    ca = trustme.CA()
    own = ca.issue_cert("localhost", "127.0.0.1")
    ca.cert_pem.write_to_path(str(directory / "ca.pem"))
    own.private_key_pem.write_to_path(str(directory / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    running = Pebble(directory, free_port(), free_port(), directory / "ca.pem", tls_port, http_port)
    dns = free_port()
    config = {
        "listenAddress": f"{HOST}:{running.port}",
        "managementListenAddress": f"{HOST}:{running.management}",
        "certificate": str(directory / "cert.pem"),
        "privateKey": str(directory / "key.pem"),
        "httpPort": http_port,
        "tlsPort": tls_port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    if validity is not None:
        config["certificateValidityPeriod"] = validity
    (directory / "config.json").write_text(json.dumps({"pebble": config}))
    variables = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0", **environment}
    dns_command = [names, "-dns01", f"{HOST}:{dns}", "-management", f"{HOST}:{free_port()}", "-defaultIPv6", ""]
    dns_command += ["-http01", "", "-https01", "", "-tlsalpn01", ""]
    commands = {
        "dns": dns_command,
        "pebble": [program, "-config", str(directory / "config.json"), "-dnsserver", f"{HOST}:{dns}"],
    }
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context((directory / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
        wait_for(lambda: _answers(running.port), "pebble to listen", 60)
        yield running


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


Answer = tuple[int, dict[str, str], bytes]


def problem(kind: str, detail: str, status: int, **headers: str) -> Answer:
    """Make a problem document (RFC 8555, 6.7)."""
    body = json.dumps({"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status})
    return status, {"Content-Type": "application/problem+json", **headers}, body.encode()


def made(fields: dict[str, Any], location: str, status: int = 201) -> Answer:
    """Make an answer with an object, which is somewhere."""
    return status, {"Content-Type": "application/json", "Location": location}, json.dumps(fields).encode()


@dataclass
class FakeAuthority:
    """An HTTPS server that says what a test wants it to say, and notes what it is asked."""

    url: str
    ca_file: Path
    answers: dict[str, Callable[[], Answer] | Answer] = field(default_factory=dict)
    """By path. A directory, nonces and an account are there from the start."""
    asked: list[str] = field(default_factory=list)
    """The paths."""
    payloads: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path, what came with the last request there."""

    @property
    def options(self) -> tuple[str, ...]:
        """Options of the server."""
        return ("--acme-directory", self.url + "/dir", "--acme-ca-certs", str(self.ca_file))


# Of a message (RFC 7515, 7.2.2); the signature is trusted.
def _payload(body: bytes) -> dict[str, Any]:
    text = json.loads(body)["payload"]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))) if text else {}


def issue(fake: FakeAuthority, kind: str, look: Callable[[str, str], None]) -> None:
    """Have a `FakeAuthority` issue certificates of 90 days, to one client at a time.

    Args:
        fake: The authority.
        kind: The type of challenge.
        look: Called with name and token when the client is ready; raises what the client is then told as a problem.
    """
    state: dict[str, Any] = {"orders": 0}

    def order() -> Answer:
        state["orders"] += 1
        state.update(name=fake.payloads["/order"]["identifiers"][0]["value"], authorization="pending", chain=None)
        return at_order()

    def at_order() -> Answer:
        ready = "ready" if state["authorization"] == "valid" else state["authorization"]
        fields = {
            "status": "valid" if state["chain"] else ready,
            "authorizations": [fake.url + "/authz"],
            "finalize": fake.url + "/finalize",
            "certificate": fake.url + "/certificate",
        }
        return made(fields, fake.url + "/order/1")

    def authorization() -> Answer:
        challenge = {"type": kind, "token": f"token-{state['orders']}", "url": fake.url + "/challenge"}
        return made({"status": state["authorization"], "challenges": [challenge]}, "", 200)

    def challenge() -> Answer:
        try:
            look(state["name"], f"token-{state['orders']}")
        except Exception as error:
            return problem("connection", repr(error), 400)
        state["authorization"] = "valid"
        return made({}, "", 200)

    def finalize() -> Answer:
        text = fake.payloads["/finalize"]["csr"]
        request = x509.load_der_x509_csr(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        state["chain"] = chain_for(state["name"], request, dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
        return at_order()

    fake.answers |= {
        "/order": order,
        "/order/1": at_order,
        "/authz": authorization,
        "/challenge": challenge,
        "/finalize": finalize,
        "/certificate": lambda: (200, {"Content-Type": "application/pem-certificate-chain"}, state["chain"]),
    }


@contextlib.contextmanager
def fake_authority(directory: Path) -> Iterator[FakeAuthority]:
    """Run a `FakeAuthority`."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(directory / "fake-ca.pem"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if body:
                fake.payloads[self.path] = _payload(body)
            fake.asked.append(self.path)
            found = fake.answers.get(self.path, problem("malformed", "there is nothing here", 404))
            status, headers, body = found() if callable(found) else found
            self.send_response(status)
            for name, value in {"Replay-Nonce": "bm9uY2U", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = answer

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that stops, or does not trust us

    server = Server((HOST, 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.daemon_threads = True
    url = f"https://localhost:{server.server_address[1]}"
    fake = FakeAuthority(url, directory / "fake-ca.pem")
    paths = {"newNonce": "/nonce", "newAccount": "/account", "newOrder": "/order"}
    fake.answers["/dir"] = made({name: url + path for name, path in paths.items()}, "", 200)
    fake.answers["/nonce"] = 200, {}, b""
    fake.answers["/account"] = made({"status": "valid"}, url + "/account/1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

"""TLS connections that make one request each: the load of the handshake workloads, and what all TLS loads have in common.

The load runs in a process of its own (``python -m tests.bench.handshake``), because OpenSSL reads the configuration
that chooses cipher suite and key exchange only when a process first uses it. `Handshakes` starts that process and is
what the harness uses; `Visitors` is what runs inside.
"""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from OpenSSL import SSL

from . import app
from .client import HOST, head_bytes
from .errors import BenchError

# Longest time without any news from the server.
_STALL_SECONDS = 15.0
_CIPHER = "TLS_AES_128_GCM_SHA256"
_GROUP = "x25519"
# Servers differ in whose order of preference decides and in which OpenSSL (or none) they are linked with. With one
# version, suite and group offered, all do the same cryptographic work. This group because every server has it.
_OPENSSL_CONF = f"""\
openssl_conf = main
[main]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
MinProtocol = TLSv1.3
Ciphersuites = {_CIPHER}
Groups = {_GROUP}
"""
_REQUEST = head_bytes("GET", "/", {"Connection": "close"}, 0)


@dataclass(frozen=True, slots=True)
class Done:
    """What a load completed. Everything that was begun is in it, so all of the server's CPU time belongs to it."""

    count: int
    """Connections: opened, handshake, one right answer, closed by the server."""
    resumed: int
    """How many of them resumed an earlier session."""
    wall: float
    """Seconds from the first connection to the end of the last."""
    cpu: float
    """CPU seconds of the load's process."""


def openssl_environment(directory: Path) -> dict[str, str]:
    """Return the environment for a client linked with OpenSSL: TLS 1.3, AES-128-GCM and X25519 only.

    Args:
        directory: Where the configuration file may be written.
    """
    path = directory / "openssl.cnf"
    path.write_text(_OPENSSL_CONF)
    return {**os.environ, "OPENSSL_CONF": str(path)}


def client_context() -> ssl.SSLContext:
    """Return a context for clients that does not check certificates, which would cost only the client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class Handshakes:
    """The process that makes the connections. A context manager: it is gone after the block."""

    def __init__(self, port: int, directory: Path, *, at_once: int, resume: bool) -> None:
        """Prepare; entering the context starts the process, on the core of this one.

        Args:
            port: On the loopback address.
            directory: Where a configuration file may be written.
            at_once: Connections open at any time.
            resume: Whether each connection after the first resumes the session of the one before, if it can.
        """
        self._environment = openssl_environment(directory)
        self._command = [sys.executable, "-m", __name__, str(port), str(at_once), str(int(resume))]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Handshakes:
        self._process = subprocess.Popen(
            self._command,
            cwd=Path(__file__).parents[__name__.count(".")],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def load(self, seconds: float) -> Done:
        """Connect again and again for `seconds`, and once per place at least; return when all connections are closed.

        Sessions are kept for the next call, so a first one of 0 seconds fetches those that later ones resume.

        Raises:
            BenchError: The handshake failed, or the answer was not the right one.
        """
        process = self._process
        assert process is not None, "entered the context"
        assert process.stdin is not None, "a pipe"
        assert process.stdout is not None, "a pipe"
        with suppress(BrokenPipeError):
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            _, errors = process.communicate()
            raise BenchError(f"the TLS client ended: {errors.strip()[-200:]}")
        found = json.loads(answer)
        if "error" in found:
            raise BenchError(found["error"])
        return Done(**found)


@dataclass(slots=True)
class _Visit:
    """One connection."""

    sock: socket.socket
    tls: SSL.Connection
    certified: bool = False
    """Whether the server proved itself with its certificate: in a full handshake only, never in a resumed one."""
    received: bytes = b""
    ready: bool = False
    """Whether the handshake is over and the request sent."""


def _certified(tls: SSL.Connection, *_: object) -> bool:
    tls.get_app_data().certified = True
    return True


class Visitors:
    """Connections in turn, a fixed number at once, on one epoll.

    pyOpenSSL because it comes with an OpenSSL of its own, whose handshake costs much less than that of 3.0, which many
    systems have: a client that is slower than the server would measure itself.
    """

    def __init__(self, port: int, *, at_once: int, resume: bool) -> None:
        """Prepare; the arguments are those of `Handshakes`."""
        self._port = port
        self._at_once = at_once
        self._resume = resume
        self._sessions: list[SSL.Session] = []
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_verify(SSL.VERIFY_PEER, _certified)

    def load(self, seconds: float) -> Done:
        """See `Handshakes.load`."""
        visits: dict[int, _Visit] = {}
        count = resumed = 0
        cpu, start = time.process_time(), time.monotonic()
        epoll = select.epoll()

        def begin() -> None:
            visit = self._connect()
            visits[visit.sock.fileno()] = visit
            epoll.register(visit.sock.fileno(), select.EPOLLIN)
            _shake_hands(visit)

        try:
            for _ in range(self._at_once):
                begin()
            while visits:
                events = epoll.poll(_STALL_SECONDS)
                if not events:
                    raise BenchError(f"{len(visits)} connections heard nothing for {_STALL_SECONDS:.0f} s")
                for number, _ in events:
                    visit = visits[number]
                    if _advance(visit):
                        continue
                    del visits[number]
                    epoll.unregister(number)
                    count += 1
                    resumed += not visit.certified
                    self._end(visit)
                    if time.monotonic() - start < seconds:
                        begin()
        finally:
            epoll.close()
            for visit in visits.values():
                visit.sock.close()
        return Done(count, resumed, time.monotonic() - start, time.process_time() - cpu)

    def _connect(self) -> _Visit:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.settimeout(_STALL_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect((HOST, self._port))
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise BenchError(f"cannot connect: {error}") from error
        tls = SSL.Connection(self._context, sock)
        tls.set_connect_state()
        if self._sessions:
            tls.set_session(self._sessions.pop())
        visit = _Visit(sock, tls)
        tls.set_app_data(visit)
        return visit

    def _end(self, visit: _Visit) -> None:
        with visit.sock:
            negotiated = visit.tls.get_cipher_name(), visit.tls.get_group_name()
            if negotiated != (_CIPHER, _GROUP):
                raise BenchError(f"cipher suite and group are {negotiated} and not {_CIPHER} and {_GROUP}")
            if visit.received[:13] != b"HTTP/1.1 200 " or not visit.received.endswith(b"\r\n\r\n" + app.HELLO):
                raise BenchError(f"wrong answer after the handshake: {visit.received[:80]!r}")
            # Some servers wait for the answer to their close_notify.
            with suppress(SSL.Error):
                visit.tls.shutdown()
            # In TLS 1.3 tickets come after the handshake; like other clients, this one uses each but once.
            if self._resume and (session := visit.tls.get_session()) is not None:
                self._sessions.append(session)


def _shake_hands(visit: _Visit) -> None:
    """Go on with the handshake and then send the request. Reads nothing after it, so the answer is still an event."""
    try:
        visit.tls.do_handshake()
        visit.tls.sendall(_REQUEST)
    except SSL.WantReadError:
        return
    except SSL.Error as error:
        raise BenchError(f"no handshake: {error}") from error
    visit.ready = True


def _advance(visit: _Visit) -> bool:
    """Read what is there and go on; return whether the connection is not over yet."""
    if not visit.ready:
        _shake_hands(visit)
        return True
    try:
        while True:
            visit.received += visit.tls.recv(4096)
    except SSL.WantReadError:
        return True
    except SSL.ZeroReturnError:
        return False
    except SSL.Error as error:
        if visit.received:
            return False  # without close_notify; `_end` checks the answer
        raise BenchError(f"no answer: {error}") from error


def main() -> None:
    """Serve `Handshakes`: a line of seconds in, a line of JSON out, until the input ends."""
    port, at_once, resume = map(int, sys.argv[1:])
    visitors = Visitors(port, at_once=at_once, resume=bool(resume))
    for line in sys.stdin:
        try:
            answer = asdict(visitors.load(float(line)))
        except BenchError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

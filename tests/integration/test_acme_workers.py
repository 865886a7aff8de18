"""Automatic certificates of several workers: one asks, all answer the authority, and all serve what it has issued."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.integration.test_acme import put
from tests.support.processes.acme_server import FakeAuthority, Pebble, fake_authority, free_port, issue, pebble
from tests.support.processes.serving import HOST, needs_procfs, wait_for
from tests.support.processes.working import Workers, workers

pytestmark = needs_procfs

A, B = "a.example.org", "b.example.org"
PATIENCE = 60.0


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A directory that asks for one certificate."""
    path = tmp_path / "certs"
    path.mkdir()
    (path / f"{A}.pem").touch()
    return path


@contextlib.contextmanager
def serving(certs: Path, port: int, *options: str) -> Iterator[Workers]:
    """Run two workers with an endpoint that asks for certificates."""
    listen = ("-e", f"lets:{certs}:tcp:{port}:interface={HOST}")
    environment = {"NO_PROXY": "*", "no_proxy": "*"}
    with workers(certs.parent, *options, listen=listen, environment=environment) as running:
        yield running


def holder(certs: Path) -> int | None:
    """Return the process that holds the lock of a directory."""
    with contextlib.suppress(FileNotFoundError):
        inode = (certs / ".acme.lock").stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            found = re.search(r"FLOCK +ADVISORY +WRITE +(\d+) +\w+:\w+:(\d+) ", line)
            if found is not None and int(found[2]) == inode:
                return int(found[1])
    return None


@contextlib.contextmanager
def alone(running: Workers, pid: int) -> Iterator[None]:
    """Have one worker accept and no other."""
    others = [other for other in running.running if other != pid]
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def shake_hands(port: int, name: str, context: ssl.SSLContext | None = None) -> tuple[int, int]:
    """Make a request; return the process that answers, and the serial number of its certificate."""
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((HOST, port), PATIENCE) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: tls.recv(4096), b""))
        return int(answer.rpartition(b"\r\n")[2]), serial_of(tls.getpeercert(binary_form=True) or b"")


def serial_of(der: bytes) -> int:
    return x509.load_der_x509_certificate(der).serial_number


def in_place(certs: Path, name: str = A) -> int:
    """Return the serial number of the certificate in a file."""
    return x509.load_pem_x509_certificate((certs / f"{name}.pem").read_bytes()).serial_number


class Looking:
    """What the authority does once it is asked to look: it looks at each worker."""

    def __init__(self, certs: Path, port: int) -> None:
        self.certs, self.port = certs, port
        self.running: Workers | None = None
        self.begun = threading.Event()
        self.seen: list[tuple[int, bool, Any]] = []
        """For each worker: its process, whether it is the one that asks, and what was seen."""

    def __call__(self, name: str, token: str) -> None:
        assert self.begun.wait(20)
        assert self.running is not None
        asking = holder(self.certs)
        for pid in self.running.running:
            with alone(self.running, pid):
                self.seen.append((pid, pid == asking, self.look(name, token)))

    def look(self, name: str, token: str) -> Any:
        raise NotImplementedError


class LookingByTls(Looking):
    def look(self, name: str, token: str) -> Any:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        with pytest.raises(ssl.SSLError):
            self.ask(context, B)
        protocol, der = self.ask(context, name)
        certificate = x509.load_der_x509_certificate(der)
        critical = [extension.oid.dotted_string for extension in certificate.extensions if extension.critical]
        return protocol, critical

    def ask(self, context: ssl.SSLContext, name: str) -> tuple[str | None, bytes]:
        with (
            socket.create_connection((HOST, self.port), 10) as connection,
            context.wrap_socket(connection, server_hostname=name) as tls,
        ):
            return tls.selected_alpn_protocol(), tls.getpeercert(binary_form=True) or b""


class LookingByHttp(Looking):
    def look(self, name: str, token: str) -> Any:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("GET", f"/.well-known/acme-challenge/{token}", headers={"Host": name})
            return connection.getresponse().read().decode().partition(".")[0]
        finally:
            connection.close()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeAuthority]:
    with fake_authority(tmp_path) as authority:
        yield authority


@pytest.mark.parametrize("kind", ["tls-alpn-01", "http-01"])
def test_one_worker_asks_and_every_worker_answers_and_serves(certs: Path, fake: FakeAuthority, kind: str) -> None:
    port, http_port = free_port(), free_port()
    options = ["--acme-challenge", kind, "--acme-http-port", str(http_port), *fake.options]
    looking: Looking = LookingByTls(certs, port) if kind == "tls-alpn-01" else LookingByHttp(certs, http_port)
    issue(fake, kind, looking)
    with serving(certs, port, *options) as running:
        looking.running = running
        looking.begun.set()
        running.server.wait_for_log(f"Got a certificate of {A}", PATIENCE)
        asking = holder(certs)
        # The others first: they find it in the handshake, whether they have looked at the files again or not.
        for pid in sorted(running.running, key=lambda pid: pid == asking):
            with alone(running, pid):
                assert shake_hands(port, A) == (pid, in_place(certs))
        assert len(running.running) == 2
    assert sorted(asked for _, asked, _ in looking.seen) == [False, True]
    expected = ("acme-tls/1", ["1.3.6.1.5.5.7.1.31"]) if kind == "tls-alpn-01" else "token-1"
    assert [seen for _, _, seen in looking.seen] == [expected] * 2
    assert fake.asked.count("/order") == fake.asked.count("/account") == 1
    assert list((certs / ".acme-challenges").iterdir()) == []


def test_when_the_worker_that_asks_ends_another_goes_on(certs: Path, fake: FakeAuthority) -> None:
    """It is not looked at, so the order is not at its end when the worker is."""
    port, over = free_port(), threading.Event()

    def look(name: str, token: str) -> None:
        if fake.asked.count("/order") == 1:
            over.wait(60)

    issue(fake, "tls-alpn-01", look)
    try:
        with serving(certs, port, *fake.options) as running:
            wait_for(lambda: "/challenge" in fake.asked, "the authority to be told", 20)
            first = holder(certs)
            assert first in running.running
            assert len(list((certs / ".acme-challenges").iterdir())) == 1
            running.server.expect("was killed by SIGKILL")
            os.kill(first, signal.SIGKILL)
            running.server.wait_for_log(f"Got a certificate of {A}", PATIENCE)
            second = holder(certs)
            assert second != first
            assert second in running.running
            # A roll retires it, and whoever has the lock then asks for what there is to ask.
            (certs / f"{B}.pem").touch()
            running.roll()
            running.server.wait_for_log(f"Got a certificate of {B}", PATIENCE)
            assert holder(certs) in set(running.running) - {first, second}
            assert shake_hands(port, B)[1] == in_place(certs, B)
            assert running.log.count("Got a certificate of") == 2
    finally:
        over.set()
    assert fake.asked.count("/order") == 3


def test_waits_after_failures_are_those_of_all_workers(certs: Path, fake: FakeAuthority) -> None:
    def look(name: str, token: str) -> None:
        raise ConnectionRefusedError

    issue(fake, "tls-alpn-01", look)
    with serving(certs, free_port(), *fake.options) as running:
        running.server.expect(f"No certificate of {A}", "was killed by SIGKILL")
        running.server.wait_for_log(f"No certificate of {A} from .*: connection: Conn.*trying again in", 20)
        first = holder(certs)
        assert first in running.running
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: holder(certs) not in (None, first), "another to take the lock", PATIENCE)
        running.wait_settled(2)
        running.roll()
        wait_for(lambda: holder(certs) in running.running, "another to take the lock", PATIENCE)
    assert fake.asked.count("/order") == 1


def test_a_worker_is_ready_whether_or_not_the_authority_answers(certs: Path) -> None:
    serial = put(certs, B, age=1)
    port = free_port()
    with serving(certs, port, "--acme-directory", f"https://localhost:{free_port()}/dir") as running:
        running.server.expect("No certificate of any name")
        running.server.wait_for_log("No certificate of any name.*Connection refused", PATIENCE)
        for pid in running.running:
            with alone(running, pid):
                assert shake_hands(port, B) == (pid, serial)
        assert running.log.count("No certificate of any name") == 1


# -- with pebble -------------------------------------------------------------------------------------------------


def trusting(authority: Pebble) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.root()))


class Load:
    """Handshakes without end, several at once, by clients that trust the authority alone."""

    def __init__(self, port: int, name: str, context: ssl.SSLContext) -> None:
        self.seen: dict[int, int] = {}
        """For each process the serial number that it has shown last."""
        self.number = 0
        self.failures: list[Exception] = []
        self._arguments = port, name, context
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(3)]

    def _run(self) -> None:
        while not self._over.wait(0.01):
            try:
                pid, serial = shake_hands(*self._arguments)
                self.seen[pid] = serial
                self.number += 1
            except Exception as error:
                self.failures.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.mark.system
@pytest.mark.timeout(240)
def test_certificates_outlive_the_worker_that_asks_and_are_renewed_without_a_failed_handshake(
    tmp_path: Path, certs: Path
) -> None:
    port = free_port()
    slow = {"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "5"}
    with pebble(tmp_path / "pebble", port, free_port(), validity=45, **slow) as authority:
        with serving(certs, port, *authority.options) as running:
            running.server.expect("was killed by SIGKILL", "ends on", "expired")
            wait_for(lambda: any(certs.glob(".acme-challenges/*")), "a proof", 30)
            first = holder(certs)
            assert first in running.running
            assert "Got a certificate" not in running.log
            os.kill(first, signal.SIGKILL)
            running.server.wait_for_log(f"Got a certificate of {A}", PATIENCE)
            assert holder(certs) not in (None, first)
            running.wait_settled(2, PATIENCE)
            old = in_place(certs)
            context = trusting(authority)
            for pid in running.running:
                with alone(running, pid):
                    assert shake_hands(port, A, context) == (pid, old)
            with Load(port, A, context) as load:
                running.server.wait_for_log(f"(?s)(Got a certificate of {A}.*){{2}}", 90)
                new = in_place(certs)
                pids = set(running.running)
                wait_for(lambda: load.seen == dict.fromkeys(pids, new), "the new certificate everywhere", PATIENCE)
            assert load.failures == []
            assert load.number > 20
        assert 3 <= authority.orders <= 4


@pytest.mark.system
@pytest.mark.timeout(240)
def test_http_01_of_workers_over_a_rolling_restart(tmp_path: Path, certs: Path) -> None:
    port, http_port = free_port(), free_port()
    options = ("--acme-challenge", "http-01", "--acme-http-port", str(http_port))
    with pebble(tmp_path / "pebble", port, http_port) as authority:
        with serving(certs, port, *authority.options, *options) as running:
            running.server.wait_for_log(f"Got a certificate of {A}", PATIENCE)
            with Load(port, A, trusting(authority)) as load:
                (certs / f"{B}.pem").touch()
                running.roll()
                running.server.wait_for_log(f"Got a certificate of {B}", PATIENCE)
                before = load.number
                wait_for(lambda: load.number > before + 20, "handshakes", PATIENCE)
            assert load.failures == []
            for pid in running.running:
                with alone(running, pid):
                    shake_hands(port, B, trusting(authority))
        assert authority.orders == 2
        assert "Attempting to validate w/ HTTP" in authority.log

"""Automatic certificates from a real authority, and from one that misbehaves."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import re
import signal
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from daphne_ng.acme.challenges import HttpAnswers, HttpChallenges
from daphne_ng.acme.client import Session
from daphne_ng.acme.failure import Cancelled, Failure
from daphne_ng.acme.proofs import Proofs
from daphne_ng.acme.storage import Storage
from tests.support.acme import chain_for
from tests.support.processes.acme_server import (
    FakeAuthority,
    Pebble,
    fake_authority,
    free_port,
    issue,
    made,
    pebble,
    problem,
)
from tests.support.processes.serving import HOST, Running, serve, wait_for

A, B = "a.example.org", "b.example.org"


@pytest.fixture
def ports() -> tuple[int, int]:
    """For TLS and for HTTP-01."""
    return free_port(), free_port()


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A directory that asks for one certificate."""
    path = tmp_path / "certs"
    path.mkdir()
    (path / f"{A}.pem").touch()
    return path


@contextlib.contextmanager
def serving(certs: Path, port: int, *options: str, kind: str = "lets") -> Iterator[Running]:
    """Run the server with an endpoint that asks for certificates."""
    endpoint = f"{kind}:{certs}:tcp:{port}:interface={HOST}"
    environment = {"NO_PROXY": "*", "no_proxy": "*"}
    with serve("acme_app", certs.parent, *options, listen=("-e", endpoint), environment=environment) as server:
        yield server


def shake_hands(port: int, name: str, context: ssl.SSLContext | None = None) -> x509.Certificate:
    """Connect, make a request, and return the server's certificate."""
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((HOST, port), 10) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"".join(iter(lambda: tls.recv(4096), b"")).endswith(b"\r\n\r\nhello")
        found = tls.getpeercert(binary_form=True)
        assert found is not None
        return x509.load_der_x509_certificate(found)


def trusting(authority: Pebble) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.root()))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- with pebble -------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_certificates_are_issued_on_the_port_itself(tmp_path: Path, certs: Path, ports: tuple[int, int]) -> None:
    (certs / f"{B}.pem").touch()
    # Every second nonce is refused, as RFC 8555 allows.
    with pebble(tmp_path / "pebble", *ports, PEBBLE_WFE_NONCEREJECT="50") as authority:
        with serving(certs, ports[0], *authority.options) as server:
            server.wait_for_log(f"Got a certificate of {B}", 30)
            for name in (A, B):
                shake_hands(ports[0], name, trusting(authority))
            with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
                shake_hands(ports[0], "c.example.org")
        assert authority.orders == 2
        assert "Attempting to validate w/ HTTP" not in authority.log
    for name in (f"{A}.pem", f"{B}.pem", "client.key"):
        assert mode_of(certs / name) == 0o600


@pytest.mark.system
def test_certificates_are_issued_by_way_of_port_80(tmp_path: Path, certs: Path, ports: tuple[int, int]) -> None:
    with pebble(tmp_path / "pebble", *ports) as authority:
        options = (*authority.options, "--acme-challenge", "http-01", "--acme-http-port", str(ports[1]))
        with serving(certs, ports[0], *options) as server:
            server.wait_for_log(f"Got a certificate of {A}", 30)
            shake_hands(ports[0], A, trusting(authority))
            plain = http.client.HTTPConnection(HOST, ports[1], timeout=10)
            plain.request("GET", "/x?y", headers={"Host": A})
            response = plain.getresponse()
            assert (response.status, response.getheader("Location")) == (301, f"https://{A}/x?y")
            plain.close()
        assert "Attempting to validate w/ HTTP" in authority.log


@pytest.mark.system
def test_a_restart_asks_for_nothing_and_keeps_the_account(tmp_path: Path, certs: Path, ports: tuple[int, int]) -> None:
    with pebble(tmp_path / "pebble", *ports) as authority:
        with serving(certs, ports[0], *authority.options) as server:
            server.wait_for_log(f"Got a certificate of {A}", 30)
            assert "Made an account" in server.log
        before = (certs / f"{A}.pem").read_bytes()
        with serving(certs, ports[0], *authority.options) as server:
            shake_hands(ports[0], A, trusting(authority))
            (certs / f"{B}.pem").touch()
            server.process.send_signal(signal.SIGHUP)  # look now
            server.wait_for_log(f"Got a certificate of {B}", 30)
            assert "Made an account" not in server.log
        assert authority.orders == 2
        assert (certs / f"{A}.pem").read_bytes() == before


@pytest.mark.system
def test_the_key_of_an_account_that_txacme_made_goes_on(tmp_path: Path, certs: Path, ports: tuple[int, int]) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (certs / "client.key").write_bytes(pem)
    with pebble(tmp_path / "pebble", *ports) as authority, serving(certs, ports[0], *authority.options) as server:
        server.wait_for_log(f"Got a certificate of {A}", 30)
    assert (certs / "client.key").read_bytes() == pem


class Load:
    """Handshakes without end, several at once."""

    def __init__(self, port: int, name: str) -> None:
        self.serials: list[int] = []
        self.failures: list[Exception] = []
        self._port, self._name = port, name
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(4)]

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.serials.append(shake_hands(self._port, self._name).serial_number)
            except Exception as error:
                self.failures.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(15)


def put(certs: Path, name: str, age: float) -> int:
    """Put a certificate that was made for 90 days into place; return its serial number."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = chain_for(name, key, dt.datetime.now(dt.UTC) - dt.timedelta(days=age), 90)
    temporary = certs / "temporary"
    temporary.write_bytes(private + chain)
    temporary.rename(certs / f"{name}.pem")
    return x509.load_pem_x509_certificate(chain).serial_number


@pytest.mark.system
def test_a_certificate_near_its_end_is_replaced_without_a_failed_handshake(
    tmp_path: Path, certs: Path, ports: tuple[int, int]
) -> None:
    young = put(certs, A, age=1)
    with pebble(tmp_path / "pebble", *ports) as authority:
        with serving(certs, ports[0], *authority.options) as server, Load(ports[0], A) as load:
            wait_for(lambda: young in load.serials, "handshakes", 10)
            assert authority.orders == 0
            old = put(certs, A, age=70)
            server.process.send_signal(signal.SIGHUP)  # look now
            server.wait_for_log(f"Got a certificate of {A}", 30)
            new = x509.load_pem_x509_certificate((certs / f"{A}.pem").read_bytes()).serial_number
            wait_for(lambda: new in load.serials, "the new certificate", 10)
            wait_for(lambda: set(load.serials[-8:]) == {new}, "nothing but the new certificate", 10)
        assert authority.orders == 1
    assert load.failures == []
    assert set(load.serials) <= {young, old, new}


@pytest.mark.system
def test_certificates_that_live_for_seconds_are_renewed_in_time(
    tmp_path: Path, certs: Path, ports: tuple[int, int]
) -> None:
    with pebble(tmp_path / "pebble", *ports, validity=9) as authority:
        with serving(certs, ports[0], *authority.options) as server:
            server.expect("expired", "ends")
            server.wait_for_log(f"(?s)(Got a certificate of {A}.*){{3}}", 60)
            with Load(ports[0], A) as load:
                time.sleep(0.2)
            assert load.failures == []
            found = shake_hands(ports[0], A, trusting(authority))  # which has not expired
            assert found.not_valid_after_utc > dt.datetime.now(dt.UTC)
        assert 3 <= authority.orders <= 5


@pytest.mark.system
def test_a_port_that_asks_for_client_certificates_answers_the_authority_that_has_none(
    tmp_path: Path, certs: Path, ports: tuple[int, int]
) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    options = ("--ssl-cert-reqs", "required", "--ssl-ca-certs", str(tmp_path / "clients.pem"))
    with pebble(tmp_path / "pebble", *ports) as authority:
        with serving(certs, ports[0], *authority.options, *options) as server:
            server.wait_for_log(f"Got a certificate of {A}", 30)
            context = trusting(authority)
            clients.issue_cert("client.example.org").configure_cert(context)
            shake_hands(ports[0], A, context)
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                shake_hands(ports[0], A, trusting(authority))


@pytest.mark.system
def test_a_proof_that_the_authority_cannot_see_is_told_in_one_line(
    tmp_path: Path, certs: Path, ports: tuple[int, int]
) -> None:
    with pebble(tmp_path / "pebble", free_port(), ports[1]) as authority:  # it looks elsewhere
        with serving(certs, ports[0], *authority.options) as server:
            server.expect(f"No certificate of {A}")
            line = server.wait_for_log(f"^.*No certificate of {A} from .*$", 30)[0]
            assert "Failed to connect to" in line
            assert line.endswith("seconds")
            time.sleep(1)
            assert authority.orders == 1
    assert (certs / f"{A}.pem").read_bytes() == b""


@pytest.mark.system
def test_a_stop_while_the_authority_looks_ends_promptly(tmp_path: Path, certs: Path, ports: tuple[int, int]) -> None:
    slow = {"PEBBLE_VA_NOSLEEP": "0", "PEBBLE_VA_SLEEPTIME": "60"}
    with pebble(tmp_path / "pebble", *ports, **slow) as authority:
        with serving(certs, ports[0], *authority.options) as server:
            wait_for(lambda: "/chalZ/" in authority.log, "the authority to be told", 20)
            begun = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begun < 3


# -- with an authority that misbehaves -----------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeAuthority]:
    with fake_authority(tmp_path) as authority:
        yield authority


def test_a_server_whose_authority_is_down_serves_what_it_has(tmp_path: Path, certs: Path) -> None:
    put(certs, B, age=1)
    with serving(certs, 0, "--acme-directory", f"https://localhost:{free_port()}/dir") as server:
        server.expect("No certificate of any name")
        line = server.wait_for_log("^.*No certificate of any name.*$", 10)[0]
        assert "the authority cannot be reached: Connection refused; trying again in" in line
        shake_hands(server.port, B)


def test_two_processes_of_one_directory_do_not_both_ask(certs: Path, fake: FakeAuthority) -> None:
    lock = Storage(str(certs), fake.url + "/dir").lock
    assert lock.take()
    with serving(certs, 0, *fake.options) as server:
        server.wait_for_log("Another process asks for the certificates in", 10)
        serial = put(certs, A, age=1)
        assert shake_hands(server.port, A).serial_number == serial  # at once
        server.wait_for_log("Replaced the certificate", 10)
        assert fake.asked == []
        (certs / f"{B}.pem").touch()
        lock.release()
        server.process.send_signal(signal.SIGHUP)  # look now
        server.expect("No certificate of")
        wait_for(lambda: "/order" in fake.asked, "the other to ask", 10)


def test_of_two_servers_the_other_goes_on_when_one_stops_in_the_midst_of_an_order(
    tmp_path: Path, certs: Path, fake: FakeAuthority
) -> None:
    over, seen, ports = threading.Event(), [], (free_port(), free_port())

    def look(name: str, token: str) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["acme-tls/1"])
        for port in ports if not seen else ports[1:]:
            with (
                socket.create_connection((HOST, port), 10) as connection,
                context.wrap_socket(connection, server_hostname=name) as tls,
            ):
                seen.append(tls.selected_alpn_protocol())
        if fake.asked.count("/order") == 1:
            over.wait(60)

    issue(fake, "tls-alpn-01", look)
    environment = {"NO_PROXY": "*", "no_proxy": "*"}
    with contextlib.ExitStack() as stack:
        stack.callback(over.set)
        servers = []
        lock = Storage(str(certs), "").lock
        assert lock.take()  # until both listen
        for port in ports:
            directory = tmp_path / str(port)
            directory.mkdir()
            listen = ("-e", f"lets:{certs}:tcp:{port}:interface={HOST}")
            serving = serve("acme_app", directory, *fake.options, listen=listen, environment=environment)
            servers.append(stack.enter_context(serving))
            servers[-1].wait_for_log("Another process asks", 10)
        lock.release()
        servers[0].process.send_signal(signal.SIGHUP)  # look now
        wait_for(lambda: len(seen) == 2, "the authority to look at both", 20)
        assert servers[0].stop() == 0
        servers[1].wait_for_log(f"Got a certificate of {A}", 40)
        shake_hands(ports[1], A)
    assert seen == ["acme-tls/1"] * 3
    assert fake.asked.count("/order") == 2


def test_an_authority_that_is_not_trusted_is_not_spoken_to(certs: Path, fake: FakeAuthority) -> None:
    with serving(certs, 0, "--acme-directory", fake.url + "/dir") as server:
        server.expect("No certificate of any name")
        line = server.wait_for_log("^.*No certificate of any name.*$", 10)[0]
        assert "certificate verify failed" in line
    assert fake.asked == []


def test_a_rate_limit_is_waited_for(certs: Path, fake: FakeAuthority) -> None:
    limit = problem("rateLimited", "too many certificates already issued", 429, **{"Retry-After": "7200"})
    fake.answers["/order"] = limit
    with serving(certs, 0, *fake.options) as server:
        server.expect(f"No certificate of {A}")
        line = server.wait_for_log(f"^.*No certificate of {A}.*$", 10)[0]
        assert f"No certificate of {A} from {fake.url}/dir: rateLimited: too many certificates already issued" in line
        assert "trying again in 2 hours" in line or "trying again in 3 hours" in line
        (certs / "unrelated").touch()
        server.process.send_signal(signal.SIGHUP)  # no way around it
        time.sleep(0.5)
    assert fake.asked.count("/order") == 1


def test_an_authority_that_never_answers_does_not_hold_up_the_stop(certs: Path, fake: FakeAuthority) -> None:
    over = threading.Event()

    def hang() -> Any:
        over.wait(30)
        return problem("malformed", "", 400)

    fake.answers["/nonce"] = hang
    try:
        with serving(certs, 0, *fake.options) as server:
            wait_for(lambda: "/nonce" in fake.asked, "the question", 10)
            begun = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begun < 3
    finally:
        over.set()


def session(fake: FakeAuthority, pause: Callable[[float], None] = lambda seconds: None) -> Session:
    key = ec.generate_private_key(ec.SECP256R1())
    clock = iter(range(0, 100_000, 20))
    return Session(fake.url + "/dir", key, ca_certs=str(fake.ca_file), pause=pause, clock=lambda: float(next(clock)))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def attempt(fake: FakeAuthority, **more: Any) -> Failure:
    made_session = session(fake, **more)
    try:
        with pytest.raises(Failure) as caught:
            made_session.open()
            made_session.issue(A, ec.generate_private_key(ec.SECP256R1()), HttpChallenges(Proofs("/none")))
        return caught.value
    finally:
        made_session.close()


HTML = (200, {"Content-Type": "text/html"}, b"<html>")


@pytest.mark.parametrize(
    ("path", "answer", "text", "everyone"),
    [
        ("/dir", HTML, "not understood", True),
        ("/dir", made({}, "", 200), "not understood: KeyError", True),
        ("/dir", made({"newNonce": 1, "newAccount": 2, "newOrder": 3}, "", 200), "is no ACME directory", True),
        ("/dir", (200, {"Content-Type": "application/json"}, b"[]"), "not understood", True),
        ("/dir", (503, {"Retry-After": "120"}, b"busy"), "answered 503 without an explanation", True),
        ("/dir", made({"meta": {"externalAccountRequired": True}}, "", 200), "not understood|external account", True),
        ("/nonce", (500, {}, b""), "answered 500", True),
        ("/nonce", (200, {"Replay-Nonce": "a"}, b""), "not understood", True),
        ("/account", made({}, ""), "which account is ours", True),
        ("/account", problem("invalidContact", "write to whom?", 400), "invalidContact: write to whom?", True),
        ("/account", problem("badNonce", "again", 400), "badNonce: again", True),
        ("/order", problem("rejectedIdentifier", "not\nyours", 400), "rejectedIdentifier: not yours", False),
        ("/order", problem("serverInternal", "oops", 500), "serverInternal: oops", True),
        ("/order", problem("malformed", "", 400), "^malformed$", False),
        ("/order", (400, {"Content-Type": "application/problem+json"}, b"[]"), "answered 400|not understood", True),
        ("/order", HTML, "not understood", True),
        ("/order", made({}, "/order/1"), "authorizations is not a list", True),
        ("/order", (201, {"Content-Type": "application/json"}, b"7"), "it is no object", True),
        (
            "/authz",
            made({"status": "pending", "challenges": [{"type": "dns-01"}, 3]}, "", 200),
            "not offer http-01",
            False,
        ),
        (
            "/authz",
            made({"status": "pending", "challenges": [{"type": "http-01"}]}, "", 200),
            "token is not a text",
            True,
        ),
        ("/authz", made({"status": "revoked", "challenges": []}, "", 200), "an authorization that is revoked", False),
        ("/order/1", made({"status": "pending"}, "", 200), "still says that it is pending, after 120 seconds", False),
        (
            "/order/1",
            made({"status": "invalid", "error": {"type": "x:caa", "detail": "no"}}, "", 200),
            "caa: no",
            False,
        ),
        ("/order/1", made({"status": "ready"}, "", 200), "finalize is not a text", True),
        ("/order/1", made({"status": "valid"}, "", 200), "certificate is not a text", True),
        ("/order/1", made({"status": "valid", "certificate": "gopher://x"}, "", 200), "cannot be reached", True),
        ("/dir", (200, {"Content-Type": "application/json"}, b"[" * 2_000_000), "does not end", True),
        ("/order", (429, {}, b" " * 2_000_000), "does not end", True),
    ],
)
def test_whatever_the_authority_answers_is_a_failure_that_says_so(
    fake: FakeAuthority, path: str, answer: Any, text: str, everyone: bool
) -> None:
    fake.answers["/order"] = made({"status": "pending", "authorizations": [fake.url + "/authz"]}, fake.url + "/order/1")
    fake.answers["/authz"] = made({"status": "valid"}, "", 200)
    fake.answers["/order/1"] = made({"status": "pending"}, "", 200)
    fake.answers[path] = answer
    failure = attempt(fake)
    assert re.search(text, str(failure)), str(failure)
    assert failure.everyone == everyone
    assert str(failure).isprintable()


def test_a_challenge_that_fails_says_why_and_is_answered_no_more(fake: FakeAuthority, tmp_path: Path) -> None:
    fake.answers["/order"] = made({"status": "pending", "authorizations": [fake.url + "/authz"]}, fake.url + "/order/1")
    challenge = {"type": "http-01", "token": "abc", "url": fake.url + "/challenge"}
    error = {"type": "urn:ietf:params:acme:error:connection", "detail": "refused"}
    answers = iter([{"status": "pending", "challenges": [challenge]}, {"status": "pending"}])
    last = {"status": "invalid", "challenges": [challenge | {"error": error}]}
    fake.answers["/authz"] = lambda: made(next(answers, last), "", 200)
    fake.answers["/challenge"] = made({}, "", 200)
    proofs, given, pauses = Proofs(str(tmp_path)), HttpAnswers(), []
    given.proofs.append(proofs)
    opened = session(fake, pause=lambda seconds: pauses.append(given.get("abc") or ""))
    opened.open()
    with pytest.raises(Failure, match="^connection: refused$"):
        opened.issue(A, ec.generate_private_key(ec.SECP256R1()), HttpChallenges(proofs))
    opened.close()
    assert len(pauses) == 1
    assert pauses[0].startswith("abc.")
    assert given.get("abc") is None


def test_a_proof_is_left_to_others_where_the_server_stops_while_the_authority_looks(
    fake: FakeAuthority, tmp_path: Path
) -> None:
    fake.answers["/order"] = made({"status": "pending", "authorizations": [fake.url + "/authz"]}, fake.url + "/order/1")
    challenge = {"type": "http-01", "token": "abc", "url": fake.url + "/challenge"}
    fake.answers["/authz"] = made({"status": "pending", "challenges": [challenge]}, "", 200)
    fake.answers["/challenge"] = made({}, "", 200)
    proofs = Proofs(str(tmp_path))

    def pause(seconds: float) -> None:
        raise Cancelled

    opened = session(fake, pause=pause)
    opened.open()
    with pytest.raises(Cancelled):
        opened.issue(A, ec.generate_private_key(ec.SECP256R1()), HttpChallenges(proofs))
    opened.close()
    assert (proofs.get("http-01", "abc") or "").startswith("abc.")


def test_a_wait_that_is_asked_for_is_kept_in_seconds_and_as_a_date(fake: FakeAuthority) -> None:
    fake.answers["/dir"] = (503, {"Retry-After": "120"}, b"")
    assert attempt(fake).retry_after == 120
    fake.answers["/dir"] = problem("rateLimited", "", 429, **{"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"})
    failure = attempt(fake)
    assert failure.retry_after > 365 * 86400
    assert failure.rate_limited
    fake.answers["/dir"] = (503, {"Retry-After": "soon"}, b"")
    assert attempt(fake).retry_after == 0


def test_a_stop_is_noticed_while_waiting(fake: FakeAuthority) -> None:
    fake.answers["/order"] = made({"status": "pending", "authorizations": []}, fake.url + "/order/1")
    fake.answers["/order/1"] = made({"status": "pending"}, "", 200)

    def pause(seconds: float) -> None:
        raise Cancelled

    opened = session(fake, pause=pause)
    opened.open()
    with pytest.raises(Cancelled):
        opened.issue(A, ec.generate_private_key(ec.SECP256R1()), HttpChallenges(Proofs("/none")))
    opened.close()

"""TLS as an operator meets it: flags, names, client certificates, files that change, clients that behave badly."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from websockets.sync.client import connect

from daphne_ng.config import Config
from daphne_ng.net.tls.context import challenge_context
from daphne_ng.net.tls.directory import CertificateDirectory
from daphne_ng.server import Server
from tests.integration.apps.tls_app import application
from tests.support.processes.serving import HOST, SLACK, Running, free_port, require_program, serve, wait_for
from tests.support.tls import authority, certificate, context_of, encrypted, replace_file, write_pem

NAMES = ("localhost", "127.0.0.1")
APP = "tls_app:application"


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    write_pem(path, *NAMES)
    return path


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    return path


@contextlib.contextmanager
def serving(*endpoints: str, **settings: Any) -> Iterator[Server]:
    """Serve in a thread; by default where flags would."""
    strings = list(endpoints) or ["tls:tcp:0:interface=127.0.0.1"]
    with Server(application, strings, config=Config(**settings)).run_in_thread() as server:
        yield server


def port_of(server: Server) -> int:
    return server.listening_addresses[0][1]


@contextlib.contextmanager
def connected(
    port: int, context: ssl.SSLContext, name: str | None = "localhost", session: Any = None
) -> Iterator[ssl.SSLSocket]:
    if name is None:
        context.check_hostname = False
    raw = socket.create_connection((HOST, port), timeout=10)
    with raw, context.wrap_socket(raw, server_hostname=name, session=session) as tls:
        yield tls


def ask(tls: ssl.SSLSocket, path: str = "/") -> Any:
    """Send a request on a connection that stays open, and return what the application says."""
    tls.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
    response = http.client.HTTPResponse(tls)
    response.begin()
    assert response.status == 200
    return json.loads(response.read())


def get(port: int, context: ssl.SSLContext, name: str | None = "localhost", path: str = "/") -> Any:
    """Ask once."""
    with connected(port, context, name) as tls:
        return ask(tls, path)


def served_names(port: int, name: str | None) -> list[str]:
    with connected(port, context_of(), name) as tls:
        found: Any = tls.getpeercert()
        return [value for _, value in found["subjectAltName"]]


def refused(port: int, context: ssl.SSLContext, name: str | None = "localhost") -> str:
    """Return the alert with which a handshake ends."""
    with pytest.raises((ssl.SSLError, OSError)) as raised, connected(port, context, name) as tls:
        # Over TLS 1.3 the server's verdict comes behind the client's handshake.
        assert tls.recv(1)
    return str(raised.value)


def subject_of(leaf: Any) -> str:
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).subject.rfc4514_string()


# -- flags ---------------------------------------------------------------------------------------------------


def test_the_flags_make_the_plain_options_listen_with_tls(tmp_path: Path) -> None:
    leaf = certificate(*NAMES)
    (tmp_path / "cert.pem").write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(encrypted(leaf, b"s3cret"))
    (tmp_path / "password").write_text("s3cret\n")
    inherited = socket.socket()
    inherited.bind((HOST, 0))
    inherited.listen()
    port, inherited_port = free_port(), inherited.getsockname()[1]
    options = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem", "--ssl-keyfile-password-file", "password")
    with (
        inherited,
        start(tmp_path, "-b", HOST, "-p", str(port), "-u", "app.sock", "--fd", str(inherited.fileno()), *options,
              inherit=inherited.fileno()) as server,
    ):  # fmt: skip
        for each in (port, inherited_port):
            told = get(each, context_of())
            assert (told["scheme"], told["http_version"]) == ("https", "1.1")
            assert told["tls"]["server_cert"] == leaf.cert_chain_pems[0].bytes().decode()
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "app.sock"))) as client:
            told = client.get("http://localhost/").json()
            assert (told["scheme"], told["tls"]) == ("http", None)
        server.wait_for_log(f"tls:tcp:port={port}")


# As `serve`, with a descriptor passed on and more than one address.
@contextlib.contextmanager
def start(directory: Path, *options: str, inherit: int) -> Iterator[Running]:
    log_path = directory / "server.log"
    apps = Path(__file__).parent / "apps"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "daphne_ng", *options, APP],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(apps), os.environ.get("PYTHONPATH")]))},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[inherit],
        )
    running = Running(process, directory, log_path)
    try:
        wait_for(lambda: process.poll() is not None or running.log.count("Listening on") >= 3, "the server", 30)
        yield running
    finally:
        assert running.stop() == 0, running.log
    assert running.complaints == [], running.log


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--ssl-keyfile", "key.pem"], "--ssl-keyfile needs --ssl-certfile"),
        (["--ssl-cert-reqs", "required"], "--ssl-cert-reqs required needs --ssl-ca-certs"),
        (["--ssl-ca-certs", "ca.pem"], "--ssl-ca-certs needs --ssl-cert-reqs"),
        (["--ssl-certfile", "missing.pem"], "--ssl-certfile: cannot read 'missing.pem': No such file or directory"),
        (["--ssl-cert-dir", "missing"], "--ssl-cert-dir: cannot read 'missing'"),
        (["-e", "tls:tcp:0"], "tls: needs --ssl-certfile or --ssl-cert-dir"),
        (["-e", "txsni:missing:tcp:0"], "txsni: cannot read 'missing'"),
        (
            ["-e", "ssl:0:privateKey=server.pem:extraCertChain=missing"],
            "extraCertChain=missing: No such file or directory",
        ),
        (["-e", "ssl:0:privateKey=server.pem:dhParameters=missing"], "dhParameters=missing: No such file or directory"),
        (["-e", "ssl:0:privateKey=server.pem:dhParameters=server.pem"], "there are no DH parameters in "),
        (["-e", "ssl:0:sslmethod=TLSv1_METHOD"], "sslmethod allows a server no TLS 1.2, the --ssl-min-version, or"),
        (["-e", "ssl:0:sslmethod=TLS_CLIENT_METHOD"], "sslmethod allows a server no TLS 1.2"),
        (["-e", "ssl:0:sslmethod=TLSv1_2_METHOD", "--ssl-min-version", "1.3"], "sslmethod allows a server no TLS 1.3"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, pem: Path, options: list[str], line: str) -> None:
    listen = [] if "-e" in options else ["-b", HOST, "-p", "0"]
    apps = Path(__file__).parent / "apps"
    done = subprocess.run(
        [sys.executable, "-m", "daphne_ng", "-v", "0", *listen, *options, APP],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(apps), os.environ.get("PYTHONPATH")]))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    [told] = [each for each in (done.stdout + done.stderr).splitlines() if each.strip()]
    assert line in told


@pytest.mark.parametrize("endpoint", ["tls", "ssl", "txsni"])
def test_http_1_1_http_2_and_websockets_all_see_the_extension(pem: Path, ca: Path, endpoint: str) -> None:
    leaf = certificate("client@example.org", common_name="A Client")
    (pem.parent / "names").mkdir()
    shutil.copy(pem, pem.parent / "names" / "localhost.pem")
    string = {
        "tls": "tls:tcp:0:interface=127.0.0.1",
        "ssl": f"ssl:0:interface=127.0.0.1:privateKey={pem}",
        "txsni": f"txsni:{pem.parent / 'names'}:tcp:0:interface=127.0.0.1",
    }[endpoint]
    settings = {"ssl_certfile": str(pem)} if endpoint == "tls" else {}
    with serving(string, ssl_cert_reqs="required", ssl_ca_certs=str(ca), **settings) as server:
        url = f"https://localhost:{port_of(server)}"
        told = []
        for http2 in (False, True):
            context = context_of(leaf=leaf)
            with httpx.Client(verify=context, http2=http2, trust_env=False) as client:
                told.append(client.get(url).json())
                assert client.get(url).json() == told[-1]
        with connect(f"wss{url[5:]}", ssl=context_of(leaf=leaf), proxy=None) as ws:
            told.append(json.loads(ws.recv(10)))
    assert [(each["type"], each["scheme"], each["http_version"]) for each in told] == [
        ("http", "https", "1.1"),
        ("http", "https", "2"),
        ("websocket", "wss", "1.1"),
    ]
    for each in told:
        tls = each["tls"]
        assert set(tls) == {
            "spec_version",
            "server_cert",
            "client_cert_chain",
            "client_cert_name",
            "client_cert_error",
            "tls_version",
            "cipher_suite",
        }
        assert tls["spec_version"] == "0.2"
        assert tls["server_cert"] in pem.read_text()
        assert tls["client_cert_chain"][0] == leaf.cert_chain_pems[0].bytes().decode()
        assert tls["client_cert_name"] == subject_of(leaf)
        assert tls["client_cert_error"] is None
        assert tls["tls_version"] == 0x0304
        assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303)


def test_without_tls_there_is_no_extension() -> None:
    with serving("tcp:0:interface=127.0.0.1") as server:
        response = httpx.get(f"http://{HOST}:{port_of(server)}/", trust_env=False)
        assert response.json()["tls"] is None


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted's own
def test_below_a_wrapper_that_tells_nothing_the_extension_is_there(pem: Path) -> None:
    """Twisted's own TLS in a wrapper of somebody else's: nobody tells when the handshake is complete."""
    from twisted.internet.endpoints import TCP4ServerEndpoint
    from twisted.internet.ssl import PrivateCertificate
    from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
    from twisted.protocols.tls import TLSMemoryBIOFactory

    class Wrapper(ProtocolWrapper):
        pass

    class Wrapping(WrappingFactory):
        protocol = Wrapper

        def acceptableProtocols(self) -> list[bytes]:
            return self.wrappedFactory.acceptableProtocols()

    class Endpoint:
        def __init__(self, reactor: Any) -> None:
            self.reactor = reactor

        def listen(self, factory: Any) -> Any:
            options = PrivateCertificate.loadPEM(pem.read_bytes()).options()
            tls = TLSMemoryBIOFactory(options, False, Wrapping(factory), clock=self.reactor)
            return TCP4ServerEndpoint(self.reactor, 0, interface=HOST).listen(tls)

    import daphne_ng.serving.life as module

    original = module.endpoint_from_string
    module.endpoint_from_string = lambda reactor, *more: Endpoint(reactor)
    try:
        with serving("theirs", tls_handshake_timeout=1.5) as server, connected(port_of(server), context_of()) as tls:
            time.sleep(2)  # quiet, but not in its handshake
            assert ask(tls)["tls"]["tls_version"] == 0x0304
    finally:
        module.endpoint_from_string = original


# -- client certificates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reqs", ["none", "optional", "required", "report"])
def test_client_certificates(pem: Path, ca: Path, reqs: str) -> None:
    right, wrong = certificate("c@example.org"), certificate("c@example.org", by="two")
    more = {} if reqs == "none" else {"ssl_ca_certs": str(ca)}
    with serving(ssl_certfile=str(pem), ssl_cert_reqs=reqs, **more) as server:
        port = port_of(server)
        if reqs == "required":
            assert "required" in refused(port, context_of())
        else:
            tls = get(port, context_of())["tls"]
            assert (tls["client_cert_chain"], tls["client_cert_name"], tls["client_cert_error"]) == ([], None, None)
        tls = get(port, context_of(leaf=right))["tls"]
        assert tls["client_cert_name"] == (None if reqs == "none" else subject_of(right))
        assert tls["client_cert_error"] is None
        if reqs in ("optional", "required"):
            assert "unknown ca" in refused(port, context_of(leaf=wrong))
        else:
            tls = get(port, context_of(leaf=wrong))["tls"]
            assert tls["client_cert_name"] == (None if reqs == "none" else subject_of(wrong))
            assert (tls["client_cert_error"] is None) == (reqs == "none")


def test_the_settings_for_clients_hold_for_ssl_strings_too(pem: Path, ca: Path) -> None:
    string = f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    with serving(string, ssl_cert_reqs="required", ssl_ca_certs=str(ca), ssl_min_version="1.3") as server:
        assert "required" in refused(port_of(server), context_of())
        old = context_of(leaf=certificate("c@example.org"))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert "version" in refused(port_of(server), old)


def test_the_example_of_the_documentation(tmp_path: Path, pem: Path, ca: Path) -> None:
    examples = Path(__file__).parents[2] / "docs" / "examples"
    options = ("--ssl-certfile", str(pem), "--ssl-ca-certs", str(ca), "--ssl-cert-reqs", "report")
    right, wrong = certificate("c@example.org", common_name="Ann"), certificate("c@example.org", by="two")
    listen = ("-b", HOST, "-p", "0", *options)
    with serve("client_name:application", tmp_path, imports=examples, listen=listen) as server:
        for leaf, status, text in (
            (right, 200, r"You are CN=Ann,.*\.\n"),
            (wrong, 403, r"Your certificate is refused: unable to get local issuer certificate\.\n"),
            (None, 401, r"You show no certificate\.\n"),
        ):
            with httpx.Client(verify=context_of(leaf=leaf), trust_env=False) as client:
                response = client.get(f"https://localhost:{server.port}/")
                assert response.status_code == status
                assert re.fullmatch(text, response.text), response.text


# -- what is agreed on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["tls", "ssl"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(pem: Path, version: ssl.TLSVersion, endpoint: str) -> None:
    string = "tls:tcp:0:interface=127.0.0.1" if endpoint == "tls" else f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    settings = {"ssl_certfile": str(pem)} if endpoint == "tls" else {}
    with serving(string, **settings) as server:
        context = context_of()
        context.minimum_version = context.maximum_version = version
        with connected(port_of(server), context) as tls:
            first = ask(tls)["tls"]
            session = tls.session
            assert not tls.session_reused
        for _ in range(3):
            with connected(port_of(server), context, session=session) as tls:
                assert tls.session_reused
                assert ask(tls)["tls"] == first
                session = tls.session


def test_the_least_version(pem: Path) -> None:
    with serving(ssl_certfile=str(pem), ssl_min_version="1.3") as server:
        old = context_of()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert "version" in refused(port_of(server), old)
        assert get(port_of(server), context_of())["tls"]["tls_version"] == 0x0304


def test_a_client_without_a_common_protocol_is_told(pem: Path) -> None:
    with serving(ssl_certfile=str(pem)) as server:
        assert "no application protocol" in refused(port_of(server), context_of(alpn=("spdy/3",)))
        with connected(port_of(server), context_of(alpn=("http/1.1", "h2"))) as tls:
            assert tls.selected_alpn_protocol() == "h2"
        with connected(port_of(server), context_of()) as tls:
            assert tls.selected_alpn_protocol() is None
            ask(tls)
    with (
        serving(ssl_certfile=str(pem), http2=False) as server,
        connected(port_of(server), context_of(alpn=("h2", "http/1.1"))) as tls,
    ):
        assert tls.selected_alpn_protocol() == "http/1.1"
        ask(tls)


# -- names ---------------------------------------------------------------------------------------------------


@pytest.fixture
def names(tmp_path: Path) -> Path:
    directory = tmp_path / "names"
    directory.mkdir()
    for name in ("a.test", "*.b.test"):
        write_pem(directory / f"{name}.pem", name)
    return directory


def test_the_name_chooses_the_certificate(names: Path, pem: Path) -> None:
    for string, settings in (
        (f"txsni:{names}:tcp:0:interface=127.0.0.1", {}),
        ("tls:tcp:0:interface=127.0.0.1", {"ssl_cert_dir": str(names)}),
    ):
        with serving(string, **settings) as server:
            port = port_of(server)
            assert served_names(port, "a.test") == ["a.test"]
            assert served_names(port, "www.b.test") == ["*.b.test"]
            assert "unrecognized name" in refused(port, context_of(), "c.test")
            assert "unrecognized name" in refused(port, context_of(), None)
    with serving(ssl_cert_dir=str(names), ssl_certfile=str(pem)) as server:
        port = port_of(server)
        assert served_names(port, "a.test") == ["a.test"]
        assert served_names(port, None) == list(NAMES)
    write_pem(names / "DEFAULT.pem", "default.test")
    with serving(f"txsni:{names}:tcp:0:interface=127.0.0.1") as server:
        assert served_names(port_of(server), None) == ["default.test"]


def test_a_tilde_in_txsni_is_the_users_home(names: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(names.parent))
    with serving("txsni:~/names:tcp:0:interface=127.0.0.1") as server:
        assert served_names(port_of(server), "a.test") == ["a.test"]


def test_a_challenge_is_answered_and_nothing_is_served_over_it(names: Path) -> None:
    with serving(ssl_cert_dir=str(names)) as server:
        assert server._life is not None
        source = server._life.wrappers.tls()
        assert isinstance(source, CertificateDirectory)
        leaf = certificate("a.test", common_name="the answer")
        answer = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
        source.challenges["a.test"] = challenge_context(answer, key)
        with connected(port_of(server), context_of(alpn=("acme-tls/1",)), "a.test") as tls:
            given = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
            assert given.serial_number == answer.serial_number
            tls.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            assert tls.recv(1) == b""
        get(port_of(server), context_of(), "a.test")
        wait_for(lambda: not server.connections, "the connections to end")


# -- files that change -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flags", "directory", "txsni", "ssl", "haproxy"])
def test_files_that_change_are_followed(tmp_path: Path, pem: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    target = pem
    if kind in ("directory", "txsni"):
        target = tmp_path / "names" / "localhost.pem"
        target.parent.mkdir()
        shutil.copy(pem, target)
    string = {
        "flags": "tls:tcp:0:interface=127.0.0.1",
        "directory": "tls:tcp:0:interface=127.0.0.1",
        "txsni": f"txsni:{target.parent}:tcp:0:interface=127.0.0.1",
        "ssl": f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
        "haproxy": f"haproxy:ssl:0:interface=127.0.0.1:privateKey={pem}",
    }[kind]
    settings: dict[str, Any] = {"flags": {"ssl_certfile": str(pem)}, "directory": {"ssl_cert_dir": str(target.parent)}}
    with serving(string, ssl_reload_interval=0.05, **settings.get(kind, {})) as server:
        port = port_of(server)

        def serial() -> int:
            raw = socket.create_connection((HOST, port), timeout=10)
            if kind == "haproxy":
                raw.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 4321 443\r\n")
            with raw, context_of().wrap_socket(raw, server_hostname="localhost") as tls:
                return int(str(tls.getpeercert()["serialNumber"]), 16)  # type: ignore[index]

        first = serial()
        good = target.read_bytes()
        replace_file(target, b"nonsense")
        wait_for(lambda: [r for r in caplog.records if r.levelno == logging.ERROR], "an error in the log")
        time.sleep(0.3)
        errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert len(errors) == 1, errors
        assert "\n" not in errors[0] and str(target) in errors[0]
        assert serial() == first
        caplog.clear()
        write_pem(target, *NAMES)
        wait_for(lambda: serial() != first, "the new certificate")
        told = [r.getMessage() for r in caplog.records if "Replaced" in r.getMessage()]
        assert len(told) == 1, told
        replace_file(target, good)
        wait_for(lambda: serial() == first, "the first certificate")


def test_with_no_interval_only_the_signal_counts(pem: Path) -> None:
    with serving(ssl_certfile=str(pem), ssl_reload_interval=0) as server:
        before = get(port_of(server), context_of())["tls"]["server_cert"]
        write_pem(pem, *NAMES)
        time.sleep(0.3)
        assert get(port_of(server), context_of())["tls"]["server_cert"] == before
        server.reload_certificates()
        wait_for(lambda: get(port_of(server), context_of())["tls"]["server_cert"] != before, "the new certificate")


def test_sighup_under_load_costs_no_request(tmp_path: Path, pem: Path) -> None:
    listen = ("-b", HOST, "-p", "0", "--ssl-certfile", str(pem))
    with serve(APP, tmp_path, listen=listen) as server:
        stop = threading.Event()
        failures: list[BaseException] = []
        seen: list[set[str]] = [set() for _ in range(6)]

        def load(number: int) -> None:
            try:
                while not stop.is_set():
                    if number % 2:
                        with connected(server.port, context_of()) as tls:
                            one = ask(tls)["tls"]["server_cert"]
                            # A connection keeps what it began with.
                            assert [ask(tls, "/slow" if n == 1 else "/")["tls"]["server_cert"] for n in range(3)] == [
                                one
                            ] * 3
                            seen[number].add(one)
                    else:
                        seen[number].add(get(server.port, context_of())["tls"]["server_cert"])
            except BaseException as problem:
                failures.append(problem)

        threads = [threading.Thread(target=load, args=(number,)) for number in range(len(seen))]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: failures or all(seen), "everybody to see the first certificate")
            for count in range(1, 6):
                write_pem(pem, *NAMES)
                os.kill(server.pid, signal.SIGHUP)
                wait_for(lambda: server.log.count("Replaced the certificate") >= count, "a reload")  # noqa: B023
                time.sleep(0.1)
            wait_for(lambda: failures or all(len(certificates) >= 2 for certificates in seen), "another one")
        finally:
            stop.set()
            for thread in threads:
                thread.join(15)
        assert failures == []
        assert all(len(certificates) >= 2 for certificates in seen)
        pem.write_text("nonsense")
        server.expect("Kept the certificate")
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_log("ERROR.*Kept the certificate in .* as it was")
        get(server.port, context_of())


def test_sighup_without_tls_is_harmless(tmp_path: Path) -> None:
    with serve(APP, tmp_path) as server:
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_log("There are no certificates to read again")
        with server.client() as client:
            assert client.get("/").status_code == 200


# -- clients that behave badly -----------------------------------------------------------------------------------


def endings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if "TLS handshake" in record.getMessage()]
    caplog.clear()
    return found


@pytest.mark.parametrize("endpoint", ["tls", "ssl"])
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_handshake_that_does_not_end_is_ended(
    pem: Path, endpoint: str, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    string = "tls:tcp:0:interface=127.0.0.1" if endpoint == "tls" else f"ssl:0:interface=127.0.0.1:privateKey={pem}"
    settings = {"ssl_certfile": str(pem)} if endpoint == "tls" else {}
    with serving(string, tls_handshake_timeout=1.5, **settings) as server:
        with connected(port_of(server), context_of()) as alive:
            with socket.create_connection((HOST, port_of(server)), timeout=10) as silent:
                silent.sendall(said)
                began = time.monotonic()
                with contextlib.suppress(ConnectionResetError):
                    assert silent.recv(1) == b""
                assert 1.4 < time.monotonic() - began < 1.5 + 4 * SLACK
            [told] = endings(caplog)
            assert re.fullmatch(r"Dropped a connection from 127\.0\.0\.1:\d+: the TLS handshake took too long", told)
            ask(alive)


def test_plain_http_on_a_tls_port_ends_cleanly_with_one_line(pem: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(ssl_certfile=str(pem)) as server:
        caplog.clear()
        with socket.create_connection((HOST, port_of(server)), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while part := client.recv(1000):
                answer += part
            assert b"HTTP" not in answer
        wait_for(lambda: not server.connections, "the connection to end")
        [record] = [r for r in caplog.records if r.name.startswith("daphne_ng")]
        assert re.fullmatch(r"The TLS handshake with 127\.0\.0\.1:\d+ failed: http request", record.getMessage()), (
            record.getMessage()
        )


def test_a_scanner_does_not_fill_the_log(pem: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(ssl_certfile=str(pem)) as server:
        for _ in range(60):
            with socket.create_connection((HOST, port_of(server)), timeout=10) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    while client.recv(1000):
                        pass
        wait_for(lambda: not server.connections, "the connections to end")
        assert 20 <= len(endings(caplog)) < 40


def test_who_leaves_before_the_handshake_is_not_worth_a_line(pem: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(ssl_certfile=str(pem)) as server:
        caplog.clear()
        for said in (b"", b"\x16\x03\x01\x02\x00\x01"):
            with socket.create_connection((HOST, port_of(server)), timeout=10) as client:
                client.sendall(said)
                wait_for(lambda: server.connections, "the connection")
            wait_for(lambda: not server.connections, "its end")
        assert [record.getMessage() for record in caplog.records if record.name.startswith("daphne_ng")] == []


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
@pytest.mark.parametrize("endpoint", ["tls:tcp:0:interface=127.0.0.1", None])
def test_clients_that_do_not_answer_close_notify_do_not_hold_up_the_stop(
    pem: Path, alpn: str, endpoint: str | None
) -> None:
    # As pools of connections do, which look at them only when they are used again.
    with contextlib.ExitStack() as clients:
        with serving(
            endpoint or f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
            ssl_certfile=str(pem),
            shutdown_idle_timeout=0.1,
            http2_goaway_timeout=0.2,
            close_timeout=20.0,
        ) as server:
            for _ in range(3):
                tls = clients.enter_context(connected(port_of(server), context_of(alpn=(alpn,))))
                tls.sendall(_H2_BEGIN if alpn == "h2" else b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert tls.recv(1)
            begun = time.monotonic()
        assert time.monotonic() - begun < 4 * SLACK


# The preface, and empty SETTINGS.
_H2_BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4" + bytes(5)


def test_beyond_the_limit_of_connections_the_handshake_has_its_time_too(pem: Path) -> None:
    with serving(ssl_certfile=str(pem), limit_connections=1, tls_handshake_timeout=1.5) as server:
        with connected(port_of(server), context_of()):
            wait_for(lambda: server.connections, "the connection")
            with socket.create_connection((HOST, port_of(server)), timeout=10) as silent:
                began = time.monotonic()
                with contextlib.suppress(ConnectionResetError):
                    assert silent.recv(1) == b""
                assert time.monotonic() - began < 1.5 + 4 * SLACK


# -- other programs ------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_curl_speaks_both_protocols_and_shows_a_certificate(tmp_path: Path, pem: Path, ca: Path) -> None:
    curl = require_program("curl")
    leaf = certificate("c@example.org")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    options = ("--ssl-certfile", str(pem), "--ssl-ca-certs", str(ca), "--ssl-cert-reqs", "optional")
    with serve(APP, tmp_path, listen=("-b", HOST, "-p", "0", *options)) as server:

        def fetch(*more: str) -> Any:
            command = [curl, "--silent", "--show-error", "--fail", "--cacert", str(ca), *more]
            done = subprocess.run(
                [*command, f"https://localhost:{server.port}/"], capture_output=True, check=True, timeout=30
            )
            return json.loads(done.stdout)

        assert fetch("--http1.0")["http_version"] == "1.0"
        assert fetch("--http1.1")["http_version"] == "1.1"
        assert fetch("--no-alpn")["http_version"] == "1.1"
        assert fetch("--http2")["http_version"] == "2"
        assert fetch("--tls-max", "1.2")["tls"]["tls_version"] == 0x0303
        assert fetch("--cert", str(tmp_path / "client.pem"))["tls"]["client_cert_name"] == subject_of(leaf)


@pytest.mark.system
def test_openssl_sees_what_the_documentation_says(names: Path, tmp_path: Path, ca: Path) -> None:
    openssl = require_program("openssl")
    with serve(APP, tmp_path, listen=("-b", HOST, "-p", "0", "--ssl-cert-dir", str(names))) as server:

        def s_client(*more: str, check: bool = True) -> str:
            command = [openssl, "s_client", "-connect", f"{HOST}:{server.port}", "-CAfile", str(ca), *more]
            done = subprocess.run(command, input=b"", capture_output=True, timeout=30)
            assert not check or done.returncode == 0, done.stderr
            return (done.stdout + done.stderr).decode("ascii", "replace")

        told = s_client("-servername", "a.test", "-alpn", "h2,http/1.1", "-verify_return_error")
        assert "ALPN protocol: h2" in told
        assert "Verify return code: 0 (ok)" in told
        assert "Compression: NONE" in told
        assert "TLSv1.3" in told
        old = s_client("-servername", "a.test", "-tls1_2")
        assert "ECDHE-ECDSA-" in old
        assert "Secure Renegotiation IS supported" in old
        assert "unrecognized name" in s_client("-servername", "c.test", check=False)
        session = str(tmp_path / "session")
        assert "New, TLSv1.2" in s_client("-servername", "a.test", "-tls1_2", "-sess_out", session)
        assert "Reused, TLSv1.2" in s_client("-servername", "a.test", "-tls1_2", "-sess_in", session)
        assert "alert protocol version" in s_client("-servername", "a.test", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0",
                                                    check=False)  # fmt: skip


@pytest.mark.system
def test_every_option_of_an_ssl_string_counts(tmp_path: Path, ca: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openssl = require_program("openssl")
    monkeypatch.chdir(tmp_path)
    leaf = authority().create_child_ca().issue_cert("localhost", key_type=trustme.KeyType.RSA)
    leaf.private_key_pem.write_to_path("key.pem")
    first, *chain = leaf.cert_chain_pems
    first.write_to_path("cert.pem")
    Path("chain.pem").write_bytes(b"".join(each.bytes() for each in chain))
    subprocess.run([openssl, "dhparam", "-dsaparam", "-out", "dh.pem", "2048"], capture_output=True, check=True)
    string = "ssl:0:key.pem:cert.pem:TLSv1_2_METHOD:127.0.0.1:7:extraCertChain=chain.pem:dhParameters=dh.pem"
    with serve(APP, tmp_path, listen=("-e", string)) as server:
        server.expect("DeprecationWarning", "Passing ")  # Twisted's, about `method` and pyOpenSSL's objects
        told = []
        for more in ("-verify_return_error", "-cipher=DHE-RSA-AES128-GCM-SHA256"):
            command = [openssl, "s_client", "-connect", f"{HOST}:{server.port}", "-CAfile", str(ca), *more.split("=")]
            done = subprocess.run(command, input=b"", capture_output=True, timeout=30)
            told.append((done.stdout + done.stderr).decode("ascii", "replace"))
    assert "Verify return code: 0 (ok)" in told[0]
    assert "New, TLSv1.2, Cipher is ECDHE-RSA-" in told[0]
    assert "Server Temp Key: DH, 2048 bits" in told[1]


@pytest.mark.system
def test_a_client_cannot_renegotiate(tmp_path: Path, pem: Path, ca: Path) -> None:
    openssl = require_program("openssl")
    with serve(APP, tmp_path, listen=("-b", HOST, "-p", "0", "--ssl-certfile", str(pem))) as server:
        command = [openssl, "s_client", "-connect", f"{HOST}:{server.port}", "-CAfile", str(ca), "-tls1_2"]
        done = subprocess.run(command, input=b"R\n", capture_output=True, timeout=30)
        assert b"no renegotiation" in done.stderr + done.stdout
        get(server.port, context_of())

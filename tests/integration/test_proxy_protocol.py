"""The PROXY protocol on every kind of endpoint, and as haproxy, nginx and curl write it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.h2_client import Http2Client
from tests.support.processes.serving import (
    HOST,
    LAUNCH,
    ROOT,
    SLACK,
    Running,
    free_port,
    require_program,
    serve,
    wait_for,
)

pytestmark = pytest.mark.once


if sys.platform == "win32":
    pytest.skip("descriptors are not passed on Windows", allow_module_level=True)

APP = "addresses:application"
CLIENT, SERVER = ["203.0.113.9", 4321], ["198.51.100.7", 443]
LINE = b"PROXY TCP4 203.0.113.9 198.51.100.7 4321 443\r\n"
BINARY = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\x00\x71\x09\xc6\x33\x64\x07\x10\xe1\x01\xbb"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
# The sender ended its client's TLS.
SECURE = BINARY.replace(b"\x11\0\x0c", b"\x11\0\x14") + b"\x20\0\5\1\0\0\0\0"

Address = str | tuple[str, int]


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the test, which is the current one: names in it are short enough for sockets."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- asking ----------------------------------------------------------------------------------------------------


def context_for(*alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def dial(address: Address, header: bytes = b"") -> socket.socket:
    """Connect and send the header."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(address)
    else:
        sock = socket.create_connection(address, 10)
    sock.sendall(header)
    return sock


def page(sock: socket.socket, tls: bool = False, path: str = "/", **headers: str) -> Any:
    """Ask on a connection for what the application sees, and close it."""
    if tls:
        sock = context_for().wrap_socket(sock, server_hostname="localhost")
    with contextlib.closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = sock
        connection.request("GET", path, headers=headers)
        return json.loads(connection.getresponse().read())


def message(sock: socket.socket, tls: bool = False) -> Any:
    """The same with a WebSocket."""
    context = context_for() if tls else None
    with connect(f"ws{'s' * tls}://localhost/", sock=sock, ssl=context, proxy=None) as ws:
        return json.loads(ws.recv(10))


def over_http2(sock: socket.socket, tls: bool) -> Any:
    """The same over HTTP/2."""
    if tls:
        sock = context_for("h2").wrap_socket(sock, server_hostname="localhost")
    with Http2Client(sock) as client:
        return json.loads(client.get("/").body)


# -- every kind of endpoint ------------------------------------------------------------------------------------


KINDS = {
    "tcp": ["-e", "haproxy:tcp:0:interface=127.0.0.1"],
    "tcp6": ["-e", r"haproxy:tcp6:0:interface=\:\:1"],
    "unix": ["-e", "haproxy:unix:s"],
    "fd": ["-e", "haproxy:fd:fileno={fd}"],
    "systemd": ["-e", "haproxy:systemd:domain=INET:index=0"],
    "ssl": ["-e", "haproxy:ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"],
    "tls": ["-e", "haproxy:tls:tcp:0:interface=127.0.0.1", "--ssl-certfile", "{pem}"],
    "tls first": ["-e", "tls:haproxy:tcp:0:interface=127.0.0.1", "--ssl-certfile", "{pem}"],
    "tls unix": ["-e", "haproxy:tls:unix:s", "--ssl-certfile", "{pem}"],
    "txsni": ["-e", "haproxy:txsni:certificates:tcp:0:interface=127.0.0.1"],
    "flag": ["--proxy-protocol", "-b", HOST, "-p", "0"],
    "flag unix": ["--proxy-protocol", "-u", "s"],
    "flag fd": ["--proxy-protocol", "--fd", "{fd}"],
    "flag ssl": ["--proxy-protocol", "-b", HOST, "-p", "0", "--ssl-certfile", "{pem}"],
    "flag and string": ["--proxy-protocol", "-e", "haproxy:haproxy:tcp:0:interface=127.0.0.1"],
}
TLS = {"ssl", "tls", "tls first", "tls unix", "txsni", "flag ssl"}


@contextlib.contextmanager
def served(kind: str, directory: Path, pem: Path, *options: str) -> Iterator[tuple[Running, Address]]:
    (directory / "certificates").mkdir()
    shutil.copy(pem, directory / "certificates" / "localhost.pem")
    program = [sys.executable, "-m", "daphne_ng"]
    with socket.socket() as inherited:
        inherited.bind((HOST, 0))
        inherited.listen()
        listen = [option.format(fd=inherited.fileno(), pem=pem) for option in KINDS[kind]]
        if kind == "systemd":
            program = [sys.executable, LAUNCH, f"{inherited.fileno()}:3", "LISTEN_PID=@pid"]
            program += ["LISTEN_FDS=1", "--", sys.executable, "-m", "daphne_ng"]
        inherit = [inherited.fileno()]
        with serve(APP, directory, *options, listen=listen, program=program, inherit=inherit) as server:
            inherited.close()
            if not server.port:
                yield server, "s"
            else:
                yield server, ("::1" if kind == "tcp6" else HOST, server.port)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scope_has_the_ends_that_the_header_names(kind: str, short: Path, pem: Path) -> None:
    tls = kind in TLS
    with served(kind, short, pem) as (server, address):
        for header in (LINE, BINARY, SECURE):
            s = "s" * (tls or header is SECURE)
            seen = page(dial(address, header), tls)
            assert (seen["client"], seen["server"], seen["scheme"]) == (CLIENT, SERVER, "http" + s)
            seen = message(dial(address, header), tls)
            assert (seen["client"], seen["server"], seen["scheme"]) == (CLIENT, SERVER, "ws" + s)
            seen = over_http2(dial(address, header), tls)
            assert (seen["client"], seen["http_version"], seen["scheme"]) == (CLIENT, "2", "http" + s)
        # Without it there is no connection, neither plain nor with TLS.
        for begin in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            with dial(address, begin) as stranger, contextlib.suppress(ConnectionResetError):
                assert stranger.recv(100) == b""
        server.wait_for_log("INFO     Closed a connection from .*does not begin with a PROXY protocol header$")
        server.wait_for_log(r"^203\.0\.113\.9:4321 - - ")
        # What the header does not name.
        seen = page(dial(address, LOCAL), tls)
        if isinstance(address, str):
            assert (seen["client"], seen["server"]) == (None, [address, None])
        else:
            assert (seen["client"][0], seen["server"]) == (address[0], [*address])


def test_the_header_of_a_stranger_is_not_believed(short: Path, pem: Path) -> None:
    with served("flag", short, pem, "--forwarded-allow-ips", "127.0.0.2") as (server, address):
        server.expect("Ignored what the PROXY protocol says")
        for header in (LINE, BINARY, SECURE):
            seen = page(dial(address, header))
            assert (seen["client"][0], seen["server"], seen["scheme"]) == (HOST, [*address], "http")
        assert server.log.count("Ignored what the PROXY protocol says") == 1
        with socket.create_connection(address, 10, ("127.0.0.2", 0)) as believed:
            believed.sendall(LINE)
            assert page(believed)["client"] == CLIENT


def test_headers_of_http_are_believed_by_what_the_protocol_says_of_their_sender(short: Path, pem: Path) -> None:
    """A proxy that speaks this protocol passes on what the client sends, unread. So the client may forge it."""
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
    with served("flag", short, pem, "--proxy-headers", "--forwarded-allow-ips", "127.0.0.1,10.0.0.0/8") as found:
        server, address = found
        server.expect("Ignored X-Forwarded-For from 203.0.113.9:4321")
        seen = page(dial(address, LINE), **forged)
        assert (seen["client"], seen["scheme"]) == (CLIENT, "http")
        seen = page(dial(address, SECURE), **forged | {"X-Forwarded-Proto": "http"})
        assert (seen["client"], seen["scheme"]) == (CLIENT, "https")
        # Another trusted proxy, which does read HTTP, before the one of this protocol.
        seen = page(dial(address, LINE.replace(b"203.0.113.9", b"10.1.2.3")), **forged)
        assert (seen["client"][0], seen["scheme"]) == ("6.6.6.6", "https")
        seen = page(dial(address, SECURE.replace(b"\xcb\x00\x71\x09", b"\x0a\1\2\3")), **forged)
        assert (seen["client"][0], seen["scheme"]) == ("6.6.6.6", "https")


def test_a_silent_connection_does_not_delay_the_end(short: Path, pem: Path) -> None:
    with served("flag", short, pem) as (server, address), dial(address) as silent, dial(address, LINE[:7]) as begun:
        assert page(dial(address, LINE))["client"] == CLIENT
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 3 * SLACK
        for connection in (silent, begun):
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""


STOCK = "from twisted.internet import asyncioreactor; asyncioreactor.install(); "
STOCK += "from daphne_ng.cli import CommandLineInterface; CommandLineInterface.entrypoint()"


@pytest.mark.parametrize(
    "listen",
    [["-e", "haproxy:tcp:0:interface=127.0.0.1"], ["--proxy-protocol", "-p", "0"]],
    ids=["string", "flag"],
)
def test_it_works_where_the_global_reactor_is_twisteds_own(short: Path, listen: list[str]) -> None:
    with serve(APP, short, listen=listen, program=[sys.executable, "-c", STOCK]) as server:
        for header in (LINE, BINARY):
            assert page(dial((HOST, server.port), header))["client"] == CLIENT


# -- real proxies ----------------------------------------------------------------------------------------------


def listening(host: str = HOST) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, 0))
    listener.listen()
    return listener


@contextlib.contextmanager
def haproxy(
    directory: Path, mode: str, target: Address, options: str, *, bind: str = "", host: str = HOST, more: str = ""
) -> Iterator[tuple[str, int]]:
    """Run haproxy, and yield where it listens. `options` are those of the server, `bind` those of the listener."""
    where = f"unix@{directory / target}" if isinstance(target, str) else f"{target[0]}:{target[1]}"
    with listening(host) as front:
        text = f"""
global
    ssl-server-verify none
defaults
    mode {mode}
    timeout connect 20s
    timeout client 20s
    timeout server 20s
    timeout check 10s
listen all
    bind fd@{front.fileno()} {bind}
    {more}
    server one {where} {options}
"""
        with running_haproxy(directory, text, front):
            yield front.getsockname()[:2]


@contextlib.contextmanager
def running_haproxy(directory: Path, configuration: str, front: socket.socket) -> Iterator[None]:
    program = require_program("haproxy")
    path, log = directory / "haproxy.cfg", directory / "haproxy.log"
    path.write_text(configuration)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-db", "-f", str(path)], cwd=directory, pass_fds=[front.fileno()],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield
    except BaseException:
        print(log.read_text())
        raise
    finally:
        process.terminate()
        process.wait(10)


SENDERS = [
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl,cert-cn,ssl-cipher,authority",
]


def check_through(front: tuple[str, int], tls: bool, scheme: str) -> None:
    """Ask through a proxy over HTTP and WebSocket: the ends must be those of our connection to the proxy."""
    for ask, kind in ((page, "http"), (message, "ws")):
        sock = dial(front)
        name = sock.getsockname()[:2]
        seen = ask(sock, tls)
        assert (seen["client"], seen["server"], seen["scheme"]) == ([*name], [*front], kind + scheme)


@pytest.mark.system
@pytest.mark.parametrize("mode", ["tcp", "http"])
@pytest.mark.parametrize("kind", ["flag", "unix"])
def test_haproxy(kind: str, mode: str, short: Path, pem: Path) -> None:
    with served(kind, short, pem) as (_, address):
        for sender in SENDERS:
            unique = "unique-id-format id-%[rand(1000)]" if "unique" in sender else ""
            with haproxy(short, mode, address, sender, more=unique) as front:
                check_through(front, False, "")
            with haproxy(short, mode, address, sender, more=unique, bind=f"ssl crt {pem} alpn http/1.1") as front:
                # Only some say that haproxy's client speaks TLS.
                check_through(front, True, "s" * ("ssl" in sender))
            if mode == "tcp":
                # What a browser negotiates with haproxy comes through as it is.
                with haproxy(short, mode, address, sender, more=unique, bind=f"ssl crt {pem} alpn h2") as front:
                    seen = over_http2(dial(front), True)
                    assert (seen["http_version"], seen["scheme"]) == ("2", "http" + "s" * ("ssl" in sender))


@pytest.mark.system
@pytest.mark.parametrize("kind", ["ssl", "tls", "txsni"])
def test_haproxy_before_tls(kind: str, short: Path, pem: Path) -> None:
    with served(kind, short, pem) as (_, address):
        for sender in SENDERS:
            unique = "unique-id-format id-%[rand(1000)]" if "unique" in sender else ""
            # The client's own TLS, passed on unread.
            with haproxy(short, "tcp", address, sender, more=unique) as front:
                check_through(front, True, "s")
                sock = dial(front)
                name = sock.getsockname()
                assert over_http2(sock, True)["client"] == [*name]
            # haproxy's.
            with haproxy(short, "http", address, f"{sender} ssl sni str(localhost)", more=unique) as front:
                check_through(front, False, "s")


@pytest.mark.system
def test_the_configuration_of_the_documentation_works(short: Path, pem: Path) -> None:
    text = (ROOT / "docs" / "examples" / "haproxy-tcp.cfg").read_text("utf-8")
    with served("ssl", short, pem) as (server, _), listening() as front:
        text = text.replace(":8443 ", f":{server.port} ").replace("bind :443", f"bind fd@{front.fileno()}")
        with running_haproxy(short, text, front):
            check_through(front.getsockname(), True, "s")


@pytest.mark.system
def test_the_configuration_of_the_documentation_where_haproxy_ends_tls(short: Path, pem: Path) -> None:
    text = (ROOT / "docs" / "examples" / "haproxy-tls.cfg").read_text("utf-8")
    with served("tcp", short, pem) as (server, _), listening() as front:
        text = text.replace(":8001 ", f":{server.port} ").replace("/etc/haproxy/both.pem", str(pem))
        with running_haproxy(short, text.replace("bind :443", f"bind fd@{front.fileno()}"), front):
            check_through(front.getsockname(), True, "s")
            seen = over_http2(dial(front.getsockname()), True)
            assert (seen["http_version"], seen["scheme"]) == ("2", "https")


@pytest.mark.system
@pytest.mark.parametrize("sender", SENDERS[:2])
def test_haproxy_with_ipv6_before_ipv4(sender: str, short: Path, pem: Path) -> None:
    with served("flag", short, pem) as (_, address), haproxy(short, "tcp", address, sender, host="::1") as front:
        check_through(front, False, "")


@pytest.mark.system
@pytest.mark.parametrize("sender", SENDERS[:2])
def test_connections_of_two_clients_through_haproxy_are_not_mixed_up(sender: str, short: Path, pem: Path) -> None:
    with served("flag", short, pem) as (_, address), haproxy(short, "http", address, sender) as front:
        for _ in range(5):
            for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                sock = socket.create_connection(front, 10, (source, 0))
                assert page(sock)["client"][0] == source


@pytest.mark.system
@pytest.mark.parametrize("sender", SENDERS[:2])
def test_haproxys_own_checks_are_answered(sender: str, short: Path, pem: Path) -> None:
    checks = "option httpchk GET /checked"
    with served("flag", short, pem) as (server, address):
        with haproxy(short, "http", address, f"{sender} check inter 50ms fall 1 rise 1", more=checks) as front:
            server.wait_for_log(r'^127\.0\.0\.1:\d+ - - .*"GET /checked"')
            time.sleep(0.3)
            check_through(front, False, "")  # it is up
            assert "Closed a connection" not in server.log
        # Checks that only connect are no news.
        with haproxy(short, "http", address, f"{sender} check port {server.port} inter 20ms") as front:
            time.sleep(0.3)
            check_through(front, False, "")
            assert "Closed a connection" not in server.log


@pytest.mark.system
@pytest.mark.parametrize("kind", ["flag", "flag ssl"])
def test_nginx_stream(kind: str, short: Path, pem: Path) -> None:
    program = require_program("nginx")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if not module.exists():
        reason = "nginx has no stream module"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    port = free_port()
    with served(kind, short, pem) as (_, address):
        assert isinstance(address, tuple)
        (short / "nginx.conf").write_text(
            f"load_module {module};\ndaemon off; master_process off; pid {short}/nginx.pid; error_log stderr;\n"
            f"events {{}}\nstream {{ server {{ listen {HOST}:{port}; proxy_pass {HOST}:{address[1]};"
            " proxy_protocol on; } }\n"
        )
        nginx = subprocess.Popen([program, "-p", str(short), "-c", str(short / "nginx.conf")])
        try:
            wait_for(lambda: reachable(port), "nginx")
            check_through((HOST, port), kind in TLS, "s" * (kind in TLS))
        finally:
            nginx.terminate()
            nginx.wait(10)


def reachable(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


@pytest.mark.system
@pytest.mark.parametrize("kind", ["tcp", "unix", "ssl", "tls unix"])
def test_curl(kind: str, short: Path, pem: Path) -> None:
    program = require_program("curl")
    with served(kind, short, pem) as (server, address):
        tls = kind in TLS
        command = [program, "--disable", "--noproxy", "*", "-sS", "--insecure", "--haproxy-protocol"]
        if isinstance(address, str):
            command += ["--unix-socket", address]
        command.append(f"http{'s' * tls}://localhost:{server.port or 80}/")
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        assert (seen["scheme"], seen["http_version"]) == ("http" + "s" * tls, "2" if tls else "1.1")
        if isinstance(address, str):
            assert (seen["client"], seen["server"]) == (None, [address, None])  # UNKNOWN, as curl has it
        else:
            assert (seen["client"][0], seen["server"]) == (HOST, [*address])

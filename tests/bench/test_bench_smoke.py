"""The pieces of the harness that need no wrk, and peers only where they are installed. Nothing here asserts a time."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from . import app, files_workloads, h2load, procfs, secure_workloads, websocket_workloads, wrk
from .client import Client
from .errors import BenchError, UnsupportedError
from .handshake import Handshakes
from .http2 import Http2Connection
from .http_workloads import ECHO_BODY, ECHO_HEADERS
from .open_loop import Caller, closed_loop, open_loop, percentile
from .peers import PEERS, Launch, Peer, Protocol, Server, make_certificate, version
from .workload import MIB, Settings
from .workloads import FILES, HTTP2, LATENCY, TLS, WEBSOCKET, WORKLOADS

pytestmark = pytest.mark.once


APPLICATION_SERVERS = [peer for peer in PEERS.values() if peer.program is None]
SHORT = Settings(seconds=0.05, connections=1, warmup=0.0, settle=0.1, idle_connections=8, upload_bytes=16 * MIB)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate")

WRK_OUTPUT = """\
Running 2s test @ http://127.0.0.1:8000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.21ms  210.55us   9.99ms   95.02%
    Req/Sec    53.04k     1.70k   55.13k    80.00%
  Latency Distribution
     50%    1.19ms
     75%    1.25ms
     90%  960.00us
     99%    1.50s
  105523 requests in 2.00s, 14.89MB read
Requests/sec:  52740.53
Transfer/sec:      7.44MB
"""
WRK_TROUBLE = """\
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 17
"""

H2LOAD_OUTPUT = """\
starting benchmark...
spawning thread #0: 16 total client(s). 4800 total requests
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Server Temp Key: X25519 253 bits
Application protocol: h2
progress: 100% done

finished in 276.83ms, 17339.16 req/s, 1.53MB/s
requests: 4800 total, 4800 started, 4800 done, 4800 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 4800 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 433.62KB (444032) total, 281.25KB (288000) headers (space savings 44.44%), 60.94KB (62400) data
                     min         max         mean         sd        +/- sd
time for request:      708us     28.85ms      7.24ms      2.82ms    90.63%
"""

# A whole server in a few lines, for the parts of the harness that want a process to talk to.
FAKE_SERVER = """
import http.server, ssl, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = sys.argv[2].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print(self.path, file=open("access.log", "a"))

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    def shutdown_request(self, sock):
        if isinstance(sock, ssl.SSLSocket):
            try:
                sock = sock.unwrap()
            except OSError:
                pass
        super().shutdown_request(sock)

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 3:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    context.num_tickets = int(sys.argv[5])
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def fake_peer(body: str, *, tickets: int = 2) -> Peer:
    def arguments(launch: Launch) -> list[str]:
        tls = [str(launch.certificate), str(launch.key), str(tickets)] if launch.tls else []
        return ["-c", FAKE_SERVER, str(launch.port), body, *tls]

    return Peer("fake", arguments)


def fake_server(peer: Peer, directory: Path, protocol: Protocol = "http") -> Server:
    core = min(os.sched_getaffinity(0))
    return Server(peer, core=core, directory=directory, access_log=True, protocol=protocol)


# -- wrk --------------------------------------------------------------------------------------------------------


def test_a_report_of_wrk_is_read() -> None:
    report = wrk.parse(WRK_OUTPUT)
    assert (report.requests, report.rate) == (105523, 52740.53)
    assert report.latency == pytest.approx({50: 0.00119, 75: 0.00125, 90: 0.00096, 99: 1.5})
    assert (report.socket_errors, report.bad_statuses) == (0, 0)


def test_errors_in_a_report_of_wrk_are_counted() -> None:
    report = wrk.parse(WRK_OUTPUT + WRK_TROUBLE)
    assert (report.socket_errors, report.bad_statuses) == (4321, 17)


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused\n", WRK_OUTPUT[:300]])
def test_half_a_report_of_wrk_is_an_error(output: str) -> None:
    with pytest.raises(BenchError, match="no report from wrk"):
        wrk.parse(output)


def test_a_script_for_wrk_escapes_what_lua_would_read() -> None:
    text = wrk.script("POST", {"Cookie": 'a="b\\c"'}, b"\x00\n1\xff")
    assert text.splitlines() == [
        'wrk.method = "POST"',
        'wrk.body = "\\000\\0101\\255"',
        'wrk.headers["Cookie"] = "a=\\034b\\092c\\034"',
    ]


# -- h2load -----------------------------------------------------------------------------------------------------


def test_a_report_of_h2load_is_read() -> None:
    report = h2load.parse(H2LOAD_OUTPUT)
    assert (report.requests, report.data) == (4800, 62400)
    assert report.wall == pytest.approx(0.27683)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (H2LOAD_OUTPUT, "", "no report from h2load"),
        ("traffic", "", "no report from h2load"),
        ("4800 succeeded, 0 failed", "4799 succeeded, 1 failed", r"1 failed"),
        ("4800 2xx, 0 3xx, 0 4xx", "4797 2xx, 0 3xx, 3 4xx", "4797 of 4800 responses were 2xx"),
        ("protocol: h2", "protocol: http/1.1", "spoke http/1.1"),
        ("Application protocol: h2\n", "", "unknown protocol"),
    ],
    ids=["empty", "half", "failed", "status", "protocol", "no protocol"],
)
def test_a_report_of_h2load_that_is_not_all_well_is_an_error(old: str, new: str, reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        h2load.parse(H2LOAD_OUTPUT.replace(old, new))


def test_over_http_1_a_status_without_a_reason_is_not_a_failure() -> None:
    output = H2LOAD_OUTPUT.replace("protocol: h2", "protocol: http/1.1")
    output = output.replace("4800 succeeded, 0 failed", "0 succeeded, 4800 failed").replace("4800 2xx", "0 2xx")
    assert h2load.parse(output, "http/1.1").requests == 4800
    for old, new in (("0 5xx", "1 5xx"), ("4800 done", "4799 done"), ("0 errored", "1 errored")):
        with pytest.raises(BenchError, match="0 of 4800 responses were 2xx"):
            h2load.parse(output.replace(old, new), "http/1.1")


# -- /proc ------------------------------------------------------------------------------------------------------


def test_a_stat_line_is_read_past_any_command_name() -> None:
    fields = ["S", "7", "8", "9", *["0"] * 7, "100", "50", "25", "15", *["0"] * 4, "4711", *["0"] * 30]
    stat = procfs.parse_stat("42 (a) b (c)) " + " ".join(fields))
    assert (stat.pid, stat.parent, stat.session, stat.started) == (42, 7, 9, 4711)
    assert stat.reaped == pytest.approx(40 / os.sysconf("SC_CLK_TCK"))


def test_a_line_without_a_command_is_not_a_stat_line() -> None:
    with pytest.raises(ValueError, match="not a stat line"):
        procfs.parse_stat("42 S 7")


def test_memory_is_read_in_bytes_and_absent_fields_are_zero() -> None:
    assert procfs.parse_status("Name:\tx\nVmHWM:\t  200 kB\nVmRSS:\t  100 kB\n") == procfs.Memory(102400, 204800)
    assert procfs.parse_status("Name:\tzombie\n") == procfs.Memory(0, 0)


@linux_only
def test_cpu_time_and_memory_of_a_child_and_its_child_are_seen() -> None:
    # Both burn CPU time until they have seen it spent, then say so and wait to be told to end.
    burn = (
        "import time\nwhile time.process_time() < 0.2: pass\nblock = bytearray(b'x' * (32 << 20))\nprint(flush=True)\n"
    )
    inner = burn + "input()"
    outer = f"import subprocess, sys\nc = subprocess.Popen([sys.executable, '-c', {inner!r}])\n{burn}input()\nc.wait()"
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            for _ in range(2):
                assert child.stdout.readline() == b"\n"
            root, grandchild = procfs.tree(child.pid)
            assert (root.pid, grandchild.parent) == (child.pid, child.pid)
            # 0.2 s each, by their own count. No tick is lost to rounding.
            assert procfs.cpu_seconds(child.pid) >= 0.4
            assert round(procfs.process_seconds(root.pid) * 1e9) % 10**7 != 0
            memory = procfs.memory(child.pid)
            assert memory.peak >= memory.resident >= 64 << 20
            procfs.reset_peak(child.pid)
            window = procfs.Meter(child.pid, min(os.sched_getaffinity(0))).stop()
            assert min(window.cpu, window.wall) >= 0
            assert 0 <= window.foreign <= 1
        finally:
            child.communicate(b"\n\n")
    assert procfs.tree(child.pid) == []
    assert procfs.cpu_seconds(child.pid) == procfs.process_seconds(child.pid) == 0


# -- servers ----------------------------------------------------------------------------------------------------


@linux_only
def test_a_server_is_checked_and_leaves_no_process_behind(tmp_path: Path) -> None:
    with fake_server(fake_peer("Hello, World!"), tmp_path) as server:
        family = procfs.tree(server.pid)
        assert len(family) == 2
        WORKLOADS["hello"].check(server)
        with Client(server.port) as client:
            client.send("GET", "/logged")
            assert client.read_body(client.read_head()) == app.HELLO
            assert client.is_open()
    assert not any(procfs.is_alive(stat) for stat in family)
    assert not client_connects(server.port)
    assert server.log_lines("/logged") == 1


def client_connects(port: int) -> bool:
    try:
        Client(port, timeout=1).close()
    except BenchError:
        return False
    return True


@linux_only
def test_a_wrong_answer_is_an_error_that_shows_both(tmp_path: Path) -> None:
    wrong = pytest.raises(BenchError, match=r"wrong body: .*Goodbye.*Hello")
    with fake_server(fake_peer("Goodbye"), tmp_path) as server, wrong:
        WORKLOADS["hello"].check(server)


@linux_only
def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    peer = Peer("broken", lambda _launch: ["-c", "raise SystemExit('no such thing')"])
    with pytest.raises(BenchError, match="exited with 1 at start: no such thing"):
        fake_server(peer, tmp_path).__enter__()


def test_a_distribution_that_is_not_installed_has_no_version() -> None:
    assert version(Peer("no-such-distribution-anywhere", lambda _launch: []), sys.executable) is None
    assert version(Peer("pytest", lambda _launch: []), sys.executable) == pytest.__version__


@pytest.mark.parametrize("peer", APPLICATION_SERVERS, ids=lambda peer: peer.name)
def test_every_peer_is_told_its_port_and_where_to_log(peer: Peer, tmp_path: Path) -> None:
    launch = Launch(port=54321, directory=tmp_path, access_log=True)
    arguments = peer.arguments(launch)
    configuration = " ".join([*arguments, *(path.read_text() for path in tmp_path.iterdir())])
    assert "54321" in configuration
    assert "127.0.0.1" in configuration
    assert arguments[-1] == "app:application"
    assert peer.logs_to_output or str(launch.log) in configuration


@pytest.mark.parametrize("protocol", ["https", "h2"])
@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_every_peer_is_told_its_port_certificate_and_key(peer: Peer, protocol: Protocol, tmp_path: Path) -> None:
    launch = Launch(port=54321, directory=tmp_path, access_log=False, protocol=protocol)
    arguments = peer.arguments(launch)
    configuration = " ".join([*arguments, *(path.read_text() for path in tmp_path.iterdir())])
    for part in ("54321", "127.0.0.1", str(launch.certificate), str(launch.key)):
        assert part in configuration


@pytest.mark.parametrize("peer", [peer for peer in PEERS.values() if peer.static], ids=lambda peer: peer.name)
def test_a_server_of_files_is_told_their_directory_where_files_are_measured(peer: Peer, tmp_path: Path) -> None:
    for static in (True, False):
        launch = Launch(port=54321, directory=tmp_path, access_log=False, static=static)
        arguments = peer.arguments(launch)
        configuration = " ".join([*arguments, *(path.read_text() for path in tmp_path.iterdir())])
        assert (str(launch.files) in configuration) == (static or peer.program is not None)


def test_a_server_without_application_takes_part_where_files_are_served_and_only_there() -> None:
    assert [name for name in WORKLOADS if WORKLOADS[name].is_for(PEERS["nginx"])] == [
        name for name in FILES if "static" in name
    ]
    assert not WORKLOADS["static1k"].is_for(PEERS["uvicorn"])
    assert WORKLOADS["path1k"].is_for(PEERS["uvicorn"])


@needs_openssl
def test_the_certificate_is_for_the_address_and_its_key_is_in_pkcs_8(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    assert key.read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    ssl.create_default_context(cafile=str(certificate))
    with pytest.raises(BenchError, match="no certificate"):
        make_certificate(tmp_path / "nowhere" / "certificate.pem", key)


@linux_only
@needs_openssl
def test_a_server_without_http2_is_not_supported(tmp_path: Path) -> None:
    code = """
import socket, ssl, sys
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[2], sys.argv[3])
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        context.wrap_socket(listener.accept()[0], server_side=True)
"""
    peer = Peer("old", lambda launch: ["-c", code, str(launch.port), str(launch.certificate), str(launch.key)])
    server = Server(peer, core=min(os.sched_getaffinity(0)), directory=tmp_path, access_log=False, protocol="h2")
    with pytest.raises(UnsupportedError, match="no protocol and not h2"):
        server.__enter__()


@linux_only
def test_a_server_that_lacks_what_http2_needs_is_not_started(tmp_path: Path) -> None:
    peer = Peer("fake", lambda _launch: ["-c", "raise SystemExit"], http2_needs="no-such-distribution-anywhere")
    server = Server(peer, core=min(os.sched_getaffinity(0)), directory=tmp_path, access_log=False, protocol="h2")
    with pytest.raises(UnsupportedError, match="only with no-such-distribution-anywhere"):
        server.__enter__()


# -- TLS handshakes ---------------------------------------------------------------------------------------------


@linux_only
@needs_openssl
def test_handshakes_are_counted_and_resumed_on_demand(tmp_path: Path) -> None:
    with fake_server(fake_peer("Hello, World!"), tmp_path, "https") as server:
        for name in ("tlshello", "tlsfull", "tlsresume"):
            WORKLOADS[name].check(server)
        for resume in (False, True):
            with Handshakes(server.port, tmp_path, at_once=2, resume=resume) as client:
                first = client.load(0)
                assert (first.count, first.resumed) == (2, 0)
                second = client.load(0.05)
                assert second.count >= 2
                assert second.resumed == (second.count if resume else 0)
                assert min(second.wall, second.cpu) > 0


@linux_only
@needs_openssl
def test_a_server_without_tickets_does_not_resume(tmp_path: Path) -> None:
    with fake_server(fake_peer("Hello, World!", tickets=0), tmp_path, "https") as server:
        WORKLOADS["tlsfull"].check(server)
        with pytest.raises(UnsupportedError, match="resumed no session"):
            WORKLOADS["tlsresume"].check(server)


@linux_only
@needs_openssl
def test_a_wrong_answer_after_a_handshake_is_an_error(tmp_path: Path) -> None:
    wrong = pytest.raises(BenchError, match="wrong answer after the handshake")
    with fake_server(fake_peer("Goodbye"), tmp_path, "https") as server, wrong:
        WORKLOADS["tlsfull"].check(server)


@linux_only
def test_a_failed_handshake_is_an_error_and_so_is_a_refused_connection(tmp_path: Path) -> None:
    with fake_server(fake_peer("Hello, World!"), tmp_path) as server:
        with pytest.raises(BenchError, match="no handshake"):
            WORKLOADS["tlsfull"].check(server)
        port = server.port
    with Handshakes(port, tmp_path, at_once=1, resume=False) as client, pytest.raises(BenchError, match="cannot"):
        client.load(0)


# -- the open loop ----------------------------------------------------------------------------------------------


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(1000, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500.0, 990.0, 999.0, 1000.0]
    assert percentile([7.0], 0.5) == 7.0


@contextmanager
def answering(count: int, answer: Callable[[int, socket.socket], None]) -> Iterator[list[Caller]]:
    """Yield callers whose requests are answered in turn by one thread, in one piece or in several."""
    pairs = [socket.socketpair() for _ in range(count)]
    stop_reading, stop = socket.socketpair()

    def serve() -> None:
        number = 0
        with select.epoll() as epoll:
            others = {other.fileno(): other for _, other in pairs}
            for fd in (*others, stop_reading.fileno()):
                epoll.register(fd, select.EPOLLIN)
            while True:
                for fd, _ in epoll.poll(10):
                    if fd == stop_reading.fileno():
                        return
                    if others[fd].recv(4) == b"ping":
                        number += 1
                        answer(number, others[fd])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield [Caller(own, b"ping", 4, b"po", b"ng") for own, _ in pairs]
    finally:
        stop.send(b"x")
        thread.join(10)
        for one in (*(end for pair in pairs for end in pair), stop_reading, stop):
            one.close()


@linux_only
def test_all_that_was_due_while_the_server_stood_still_waited_for_it() -> None:
    def answer(number: int, sock: socket.socket) -> None:
        if number == 20:
            time.sleep(0.2)
        sock.sendall(b"po")
        sock.sendall(b"ng")

    with answering(2, answer) as connections:
        measured = open_loop(connections, 1000, 0.4)
    # 200 fell due meanwhile, evenly, though only two connections were there to wait. A loop that counts from the
    # sending would have found two.
    assert len(measured.took) == len(measured.late) == 400
    assert sum(took > 0.1 for took in measured.took) >= 90


@linux_only
def test_a_closed_loop_counts_what_was_answered() -> None:
    answered = []

    def answer(number: int, sock: socket.socket) -> None:
        answered.append(number)
        sock.sendall(b"pong")

    with answering(3, answer) as connections:
        assert closed_loop(connections, 0.05) > 0
    assert len(answered) >= 3


@linux_only
def test_a_wrong_answer_and_an_end_break_the_open_loop_off() -> None:
    with answering(1, lambda _, sock: sock.sendall(b"pang")) as connections, pytest.raises(BenchError, match="wrong"):
        open_loop(connections, 100, 0.1)
    with (
        answering(1, lambda _, sock: sock.shutdown(socket.SHUT_WR)) as connections,
        pytest.raises(BenchError, match="closed"),
    ):
        open_loop(connections, 100, 0.1)


@linux_only
@pytest.mark.parametrize("name", LATENCY)
def test_a_server_does_the_latency_workloads(name: str, tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    one = WORKLOADS[name]
    with Server(PEERS["daphne-ng"], core=core, directory=tmp_path, access_log=False) as server:
        one.check(server)
        sample = one.measure(server, SHORT)
    assert {metric.key for shown in one.shown for metric in shown.metrics} <= sample.keys()
    assert sample["bulk_moved"] > 0


# -- WebSockets of real servers ---------------------------------------------------------------------------------


@linux_only
@pytest.mark.parametrize("name", WEBSOCKET)
@pytest.mark.parametrize("peer", ["uvicorn", "daphne-ng"])
def test_a_server_does_the_websocket_workloads(
    peer: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"uvicorn": ["uvicorn", "uvloop", "httptools", "websockets"]}.get(peer, [peer])
    for distribution in needed:
        if version(Peer(distribution, lambda _launch: []), sys.executable) is None:
            pytest.skip(f"{distribution} is not installed")
    for constant in ("ECHO_SOCKETS", "FAN_SOCKETS"):
        monkeypatch.setattr(websocket_workloads, constant, 8)
    core = min(os.sched_getaffinity(0))
    with Server(PEERS[peer], core=core, directory=tmp_path, access_log=False) as server:
        WORKLOADS[name].check(server)
        sample = WORKLOADS[name].measure(server, SHORT)
    assert {metric.key for metric in WORKLOADS[name].metrics} <= sample.keys()
    if name in ("wsz4k", "wsz64k"):
        assert sample["compressed"] == 100
        assert sample["wire"] < {"wsz4k": 4096, "wsz64k": 65536}[name] / 2


# -- workers ----------------------------------------------------------------------------------------------------


@linux_only
@pytest.mark.skipif(not shutil.which("wrk"), reason="needs wrk")
@pytest.mark.parametrize("peer", ["uvicorn", "granian", "daphne-ng"])
def test_a_server_runs_with_two_workers(peer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if version(PEERS[peer], sys.executable) is None:
        pytest.skip(f"{peer} is not installed")
    core = min(os.sched_getaffinity(0))
    one = WORKLOADS["workers"]
    before = os.sched_getaffinity(0)
    with Server(PEERS[peer], core=core, directory=tmp_path, access_log=False) as server:
        one.check(server)
        sample = one.measure(server, Settings(seconds=1, connections=4))
    assert {metric.key for metric in one.metrics} <= sample.keys()
    assert sample["socket_errors"] == 0
    assert os.sched_getaffinity(0) == before


def test_a_server_without_workers_is_left_out() -> None:
    server: Any = Server(PEERS["daphne"], core=0, directory=Path(), access_log=False)
    with pytest.raises(UnsupportedError, match="it has no workers"):
        WORKLOADS["workers"].measure(server, Settings(seconds=1, connections=1))


# -- files ------------------------------------------------------------------------------------------------------


@linux_only
@needs_openssl
@pytest.mark.skipif(not all(map(shutil.which, ("wrk", "h2load", "curl"))), reason="needs wrk, h2load and curl")
@pytest.mark.parametrize(
    ("peer", "name"),
    # Of nginx it is the configuration that can be wrong, and a file of 100 KB is only longer than one of 1 KB.
    [("nginx", name) for name in FILES if name.endswith("static1k")]
    + [("daphne-ng", name) for name in FILES if "100k" not in name],
)
def test_a_server_does_the_workloads_of_files(
    peer: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = WORKLOADS[name]
    if version(PEERS[peer], sys.executable) is None:
        pytest.skip(f"{peer} is not installed")
    monkeypatch.setattr(secure_workloads, "H2_STREAMS", 2)
    monkeypatch.setattr(files_workloads, "SLOW_READERS", 2)
    core = min(os.sched_getaffinity(0))
    server = Server(
        PEERS[peer],
        core=core,
        directory=tmp_path,
        access_log=False,
        protocol=one.protocol,
        static=one.static,
    )
    with server:
        one.check(server)
        sample = one.measure(server, SHORT)
    assert {metric.key for metric in one.metrics} <= sample.keys()
    assert sample.get("socket_errors", 0) == 0


@linux_only
def test_a_server_without_pathsend_is_left_out(tmp_path: Path) -> None:
    # This handler knows no method and answers 501, as the application does.
    code = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
BaseHTTPRequestHandler.log_message = lambda *_: None
HTTPServer(("127.0.0.1", int(sys.argv[1])), BaseHTTPRequestHandler).serve_forever()
"""
    peer = Peer("old", lambda launch: ["-c", code, str(launch.port)])
    with fake_server(peer, tmp_path) as server, pytest.raises(UnsupportedError, match="no pathsend"):
        WORKLOADS["path1k"].check(server)


# -- HTTP/2 of real servers -------------------------------------------------------------------------------------


@linux_only
@needs_openssl
@pytest.mark.skipif(not (shutil.which("h2load") and shutil.which("curl")), reason="needs h2load and curl")
@pytest.mark.parametrize("name", [name for name in HTTP2 if name != "h2idle"])
@pytest.mark.parametrize("peer", ["hypercorn", "daphne-ng"])
def test_a_server_does_the_http2_workloads(
    peer: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for distribution in {"hypercorn": ["hypercorn", "uvloop"]}.get(peer, [peer]):
        if version(Peer(distribution, lambda _launch: []), sys.executable) is None:
            pytest.skip(f"{distribution} is not installed")
    monkeypatch.setattr(secure_workloads, "H2_STREAMS", 2)
    one = WORKLOADS[name]
    core = min(os.sched_getaffinity(0))
    with Server(PEERS[peer], core=core, directory=tmp_path, access_log=False, protocol=one.protocol) as server:
        one.check(server)
        sample = one.measure(server, SHORT)
        with pytest.raises(BenchError, match="0 of 1 responses were 2xx"):
            h2load.run(server.port, ["/nowhere"], requests=1, connections=1, streams=1)
    assert {metric.key for metric in one.metrics} | {"client", "foreign"} <= sample.keys()
    assert sample[one.metrics[-1].key] >= 0


@linux_only
def test_a_server_keeps_connections_of_http2_in_cleartext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = WORKLOADS["h2idle"]
    core = min(os.sched_getaffinity(0))
    with Server(PEERS["daphne-ng"], core=core, directory=tmp_path, access_log=False, protocol="h2c") as server:
        one.check(server)
        assert one.measure(server, SHORT).keys() == {"kb_each"}


@linux_only
def test_a_server_without_http2_in_cleartext_is_not_supported(tmp_path: Path) -> None:
    with (
        fake_server(fake_peer("Hello, World!"), tmp_path) as server,
        Http2Connection(server.port) as connection,
        pytest.raises(UnsupportedError, match="in cleartext"),
    ):
        connection.get()


# -- HTTP/1.1 over TLS of real servers --------------------------------------------------------------------------


@linux_only
@needs_openssl
@pytest.mark.parametrize("name", TLS)
@pytest.mark.parametrize("peer", ["uvicorn", "daphne-ng"])
def test_a_server_does_the_tls_workloads(peer: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for distribution in {"uvicorn": ["uvicorn", "uvloop", "httptools"]}.get(peer, [peer]):
        if version(Peer(distribution, lambda _launch: []), sys.executable) is None:
            pytest.skip(f"{distribution} is not installed")
    program = {"tlshello": "wrk", "tlsdownload": "h2load"}.get(name, "openssl")
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    one = WORKLOADS[name]
    core = min(os.sched_getaffinity(0))
    with Server(PEERS[peer], core=core, directory=tmp_path, access_log=False, protocol=one.protocol) as server:
        one.check(server)
        sample = one.measure(server, SHORT)
    assert {metric.key for metric in one.metrics} | {"foreign"} <= sample.keys()
    if name in ("tlsfull", "tlsresume"):
        assert sample["resumed"] == (100 if name == "tlsresume" else 0)


# -- the application --------------------------------------------------------------------------------------------


def run_application(path: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    inbox, sent = list(messages), []

    async def receive() -> dict[str, Any]:
        return inbox.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app.application({"type": "http", "path": path}, receive, send))
    return sent


def test_the_application_echoes_a_body_in_parts_with_six_headers() -> None:
    parts = ({"type": "http.request", "body": body, "more_body": body != b"cd"} for body in (b"ab", b"", b"cd"))
    start, body = run_application("/echo", *parts)
    assert (start["status"], len(start["headers"]), body["body"]) == (200, 6, b"abcd")


def run_websocket(path: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    inbox = [{"type": "websocket.connect"}, *messages, {"type": "websocket.disconnect", "code": 1000}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return inbox.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app.application({"type": "websocket", "path": path}, receive, send))
    return sent


def test_the_application_echoes_text_as_text_and_bytes_as_bytes() -> None:
    text = {"type": "websocket.receive", "text": "a", "bytes": None}
    assert run_websocket("/echo", text, {"type": "websocket.receive", "bytes": b"b"}) == [
        {"type": "websocket.accept"},
        {"type": "websocket.send", "text": "a"},
        {"type": "websocket.send", "bytes": b"b"},
    ]


def test_the_application_sends_a_text_to_all_members_and_refuses_other_paths() -> None:
    sent = run_websocket("/fan", {"type": "websocket.receive", "text": "a"})
    assert [message.get("text") for message in sent] == [None, app.JOINED, "a"]
    assert [message["type"] for message in run_websocket("/nowhere")] == ["websocket.close"]


def test_the_application_answers_all_pages_alike() -> None:
    assert len({*app.PAGES}) == 200
    for path in (*app.PAGES[:2], app.PAGES[-1]):
        assert run_application(path) == run_application("/")


@pytest.mark.parametrize("path", ["/stream", "/fresh"])
def test_the_application_streams_what_it_announces(path: str) -> None:
    start, *bodies = run_application(path)
    assert dict(start["headers"])[b"content-length"] == b"67108864"
    assert sum(len(message.get("body", b"")) for message in bodies) == app.STREAM_BYTES
    assert [message.get("more_body", False) for message in bodies[-2:]] == [True, False]
    assert (bodies[0]["body"] is bodies[1]["body"]) == (path == "/stream")


def test_the_echo_request_is_one_kilobyte_with_ten_headers() -> None:
    assert len(ECHO_BODY) == 1024
    assert json.loads(ECHO_BODY)["id"] == 12345
    assert len(ECHO_HEADERS) == 10

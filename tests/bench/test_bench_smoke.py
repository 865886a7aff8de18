"""The pieces of the harness that need neither peers nor wrk. Nothing here asserts a time."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import app, procfs, wrk
from .__main__ import parse
from .client import Client
from .errors import BenchError
from .peers import PEERS, Launch, Peer, Server, version
from .report import Result, as_json, markdown, ratio, table
from .workloads import ECHO_BODY, ECHO_HEADERS, WORKLOADS, Metric, Workload

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

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

# A whole server in a few lines, for the parts of the harness that want a process to talk to.
FAKE_SERVER = """
import http.server, subprocess, sys

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

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def fake_peer(body: str) -> Peer:
    def arguments(launch: Launch) -> list[str]:
        return ["-c", FAKE_SERVER, str(launch.port), body]

    return Peer("fake", arguments)


def fake_server(peer: Peer, directory: Path) -> Server:
    return Server(peer, core=min(os.sched_getaffinity(0)), directory=directory, access_log=True)


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


# -- /proc ------------------------------------------------------------------------------------------------------


def test_a_stat_line_is_read_past_any_command_name() -> None:
    fields = ["S", "7", "8", "9", *["0"] * 7, "100", "50", "25", "25", *["0"] * 4, "4711", *["0"] * 30]
    stat = procfs.parse_stat("42 (a) b (c)) " + " ".join(fields))
    assert (stat.pid, stat.parent, stat.session, stat.started) == (42, 7, 9, 4711)
    assert stat.cpu == pytest.approx(200 / os.sysconf("SC_CLK_TCK"))


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
            # 0.2 s each; a tick is lost to rounding in each of the four counters.
            assert procfs.cpu_seconds(child.pid) >= 0.3
            memory = procfs.memory(child.pid)
            assert memory.peak >= memory.resident >= 64 << 20
            procfs.reset_peak(child.pid)
            window = procfs.Meter(child.pid, min(os.sched_getaffinity(0))).stop()
            assert min(window.cpu, window.wall) >= 0
            assert 0 <= window.foreign <= 1
        finally:
            child.communicate(b"\n\n")
    assert procfs.tree(child.pid) == []
    assert procfs.cpu_seconds(child.pid) == 0


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


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
def test_every_peer_is_told_its_port_and_where_to_log(peer: Peer, tmp_path: Path) -> None:
    launch = Launch(port=54321, directory=tmp_path, access_log=True)
    arguments = peer.arguments(launch)
    configuration = " ".join([*arguments, *(path.read_text() for path in tmp_path.iterdir())])
    assert "54321" in configuration
    assert "127.0.0.1" in configuration
    assert arguments[-1] == "app:application"
    assert peer.logs_to_output or str(launch.log) in configuration


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


# -- the report -------------------------------------------------------------------------------------------------


def three_servers() -> dict[str, Result]:
    return {
        "uvicorn": Result([{"cpu": 20.0, "rate": 1.0}, {"cpu": 30.0, "rate": 3.0}, {"cpu": 22.0, "rate": 2.0}]),
        "fast": Result([{"cpu": 10.0, "rate": 4.0, "foreign": 0.5}, {"cpu": 12.0, "rate": math.nan}], ["crashed"]),
        "broken": Result([], ["not installed", "not installed"]),
    }


def workload() -> Workload:
    metrics = (Metric("cpu", "CPU", 1), Metric("rate", "rate", 0, ratio=False))
    return Workload("hello", "a summary", metrics, lambda _server: None, lambda _server, _settings: {})


def test_the_median_leaves_out_what_was_not_measured() -> None:
    results = three_servers()
    assert results["uvicorn"].median("cpu") == 22.0
    assert results["fast"].median("cpu") == 11.0
    assert results["fast"].median("rate") == 4.0
    assert results["broken"].median("cpu") is None


def test_a_ratio_needs_both_sides() -> None:
    results = three_servers()
    assert ratio(results, "fast", "cpu", "uvicorn") == 0.5
    assert ratio(results, "broken", "cpu", "uvicorn") is None
    assert ratio(results, "fast", "cpu", "absent") is None


def test_the_table_shows_medians_ratios_and_what_went_wrong() -> None:
    text = table(workload(), three_servers(), {"uvicorn": "1.2.3"}, "uvicorn")
    assert text == (
        "### hello: a summary\n"
        "\n"
        "| server  | version |  CPU |   min–max | × uvicorn | rate |\n"
        "|---------|--------:|-----:|----------:|----------:|-----:|\n"
        "| uvicorn |   1.2.3 | 22.0 | 20.0–30.0 |      1.00 |    2 |\n"
        "| fast    |       – | 11.0 | 10.0–12.0 |      0.50 |    4 |\n"
        "| broken  |       – |  n/a |           |           |  n/a |\n"
        "\n"
        "- fast: crashed\n"
        "- fast: other processes took up to 50% of the server's core\n"
        "- broken: not installed\n"
    )


def test_a_table_without_rows_is_still_a_table() -> None:
    assert markdown(["a", "bc"], []) == "| a | bc |\n|---|---:|"


def test_the_json_report_is_plain_data_without_nan() -> None:
    report = as_json({"hello": workload()}, {"hello": three_servers()}, "uvicorn", {"rounds": 3})
    again = json.loads(json.dumps(report, allow_nan=False))
    fast = again["workloads"]["hello"]["servers"]["fast"]
    assert (again["rounds"], again["baseline"]) == (3, "uvicorn")
    assert (fast["median"], fast["ratio"]["cpu"]) == ({"cpu": 11.0, "rate": 4.0}, 0.5)
    assert (fast["samples"][1], fast["failures"]) == ({"cpu": 12.0, "rate": None}, ["crashed"])


# -- the command line -------------------------------------------------------------------------------------------


@linux_only
def test_the_command_line_chooses_servers_workloads_and_interpreters() -> None:
    options = parse(
        ["--peers", "uvicorn,daphne-ng", "--workloads", "hello", "--python", "/a", "--python", "daphne-ng=/b"]
    )
    assert (options.peers, options.workloads) == (["uvicorn", "daphne-ng"], ["hello"])
    assert options.pythons == {"uvicorn": "/a", "daphne-ng": "/b"}


@linux_only
@pytest.mark.parametrize(
    "arguments",
    [["--peers", "apache"], ["--workloads", "x"], ["--rounds", "0"], ["--seconds", "61"], ["--python", "x=y"]],
)
def test_a_wrong_command_line_exits_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err

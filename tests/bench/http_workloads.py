"""The workloads of HTTP/1.1 in cleartext, and what those of other protocols share with them."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack

from . import app, procfs, wrk
from .client import Client, crc_of
from .errors import BenchError, UnsupportedError
from .handshake import openssl_environment
from .http2 import Http2Connection
from .peers import Server, pinned
from .workload import IDLE_CONNECTIONS, MIB, Goal, Metric, Sample, Settings, Workload, expect

SLOW_READ_SECONDS = 3.0

# A bulk transfer is repeated for --seconds but is never begun after this long, whatever --seconds says.
_BULK_MAX_SECONDS = 60.0

ECHO_BODY = (b'{"id":12345,"name":"benchmark","text":"' + b"lorem ipsum dolor " * 60)[:1022] + b'"}'
ECHO_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "application/json, text/plain, */*",
    "Accept-Language": "en-GB,en;q=0.8,de;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Content-Type": "application/json",
    "Origin": "https://www.example.com",
    "Referer": "https://www.example.com/account/orders?page=2",
    "Cookie": "sessionid=6f1c9d3b7a254e0f8b21; csrftoken=Zk3vQ8s1pT0yLw7uXn5a; theme=dark",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
}
ECHO_RESPONSE_HEADERS = frozenset(
    {"content-type", "content-length", "cache-control", "vary", "x-content-type-options", "x-request-id"}
)


# -- requests, loaded by wrk ------------------------------------------------------------------------------------

REQUEST_METRICS = (
    Metric("cpu_us", "CPU µs/request", 1),
    Metric("rate", "requests/s", 0),
    Metric("p99_ms", "p99 ms", 2),
)


def check_hello(server: Server) -> None:
    """Ask twice for the plaintext."""
    with server.client() as client:
        for _ in range(2):  # the second one shows that the connection is kept
            client.send("GET", "/")
            head = client.read_head()
            expect("status", head.status, 200)
            expect("body", client.read_body(head), app.HELLO)


def _check_echo(server: Server) -> None:
    with Client(server.port) as client:
        for _ in range(2):
            client.send("POST", "/echo", ECHO_HEADERS, ECHO_BODY)
            head = client.read_head()
            expect("status", head.status, 200)
            expect("body", client.read_body(head), ECHO_BODY)
            expect("response headers", sorted(ECHO_RESPONSE_HEADERS - head.headers.keys()), [])


def hello(server: Server, settings: Settings) -> Sample:
    """Measure requests of the plaintext."""
    return load_with_wrk(server, settings, "/")


def _echo(server: Server, settings: Settings) -> Sample:
    return load_with_wrk(server, settings, "/echo", wrk.script("POST", ECHO_HEADERS, ECHO_BODY))


def load_with_wrk(server: Server, settings: Settings, path: str, script: str | None = None) -> Sample:
    """Measure requests of one path, or what the script says."""
    url = f"{server.launch.protocol}://127.0.0.1:{server.port}{path}"
    environment = openssl_environment(server.launch.directory) if server.launch.tls else None
    lua = None
    if script is not None:
        lua = server.launch.directory / "request.lua"
        lua.write_text(script)

    def run(seconds: float) -> wrk.WrkReport:
        return wrk.run(url, seconds=seconds, connections=settings.connections, lua=lua, environment=environment)

    warm = run(settings.warmup)
    meter = procfs.Meter(server.pid, server.core)
    report = run(settings.seconds)
    window = meter.stop()
    if not report.requests:
        raise BenchError("no request was completed")
    return {
        "cpu_us": window.cpu / report.requests * 1e6,
        "rate": report.rate,
        "p99_ms": report.latency.get(99, float("nan")) * 1e3,
        "socket_errors": report.socket_errors,
        "foreign": window.foreign,
        "requests": report.requests,
        "requests_with_warmup": report.requests + warm.requests,
    }


def _check_log(what: str) -> Callable[[Server, Sample], None]:
    def check(server: Server, sample: Sample) -> None:
        lines, requests = server.log_lines(what), int(sample["requests_with_warmup"])
        if lines < requests:
            raise BenchError(f"{lines} lines in the access log for {requests} requests")

    return check


# -- bulk transfers ---------------------------------------------------------------------------------------------

STREAM_CRC = 0
for _ in range(app.PIECES):
    STREAM_CRC = zlib.crc32(app.PIECE, STREAM_CRC)


def check_stream(server: Server) -> None:
    """Compare both long bodies."""
    with server.client() as client:
        for path in ("/stream", "/fresh"):
            client.send("GET", path)
            head = client.read_head()
            expect("status", head.status, 200)
            expect("length", head.length, app.STREAM_BYTES)
            expect("body (CRC-32)", crc_of(client, head), STREAM_CRC)


def _stream(server: Server, settings: Settings) -> Sample:
    with Client(server.port) as client:

        def once() -> int:
            client.send("GET", "/stream")
            return client.drain(client.read_head())

        return bulk(server, settings, once)


def _check_upload(server: Server) -> None:
    with Client(server.port) as client:
        for size in (MIB, 0):
            client.send_upload("/upload", size)
            head = client.read_head()
            expect("status", head.status, 200)
            expect("count", client.read_body(head), b"%d" % size)


def _upload(server: Server, settings: Settings) -> Sample:
    before = memory_before(server)
    with Client(server.port) as client:

        def once() -> int:
            client.send_upload("/upload", settings.upload_bytes)
            expect("count", client.read_body(client.read_head()), b"%d" % settings.upload_bytes)
            return settings.upload_bytes

        sample = bulk(server, settings, once)
    return sample | {"growth_mib": memory_growth(server, before) / MIB}


def bulk(server: Server, settings: Settings, once: Callable[[], int]) -> Sample:
    # A tick of /proc is 10 ms, and a fast server moves 64 MiB in two or three: hence the repetition.
    size = 0
    end = time.monotonic() + min(settings.seconds, _BULK_MAX_SECONDS)
    meter = procfs.Meter(server.pid, server.core)
    while not size or time.monotonic() < end:
        size += once()
    window = meter.stop()
    mib = size / MIB
    return {"cpu_ms_mib": window.cpu / mib * 1e3, "rate_mib": mib / window.wall, "foreign": window.foreign}


# -- memory -----------------------------------------------------------------------------------------------------


def memory_before(server: Server) -> int:
    """Return the resident memory in bytes, from which `memory_growth` counts."""
    procfs.reset_peak(server.pid)
    return procfs.memory(server.pid).resident


def memory_growth(server: Server, before: int) -> int:
    """Return how far it has been above that since."""
    return max(0, procfs.memory(server.pid).peak - before)


def _slow_read(server: Server, _settings: Settings) -> Sample:
    before = memory_before(server)
    # The kernel's receive buffer is bounded, so that it takes the same from every server. `check` was a small request,
    # so the baseline holds no heap left by an earlier 64 MiB.
    with Client(server.port, receive_buffer=128 * 1024) as client:
        client.send("GET", "/fresh")
        time.sleep(SLOW_READ_SECONDS)
        growth = memory_growth(server, before)
        # The client does read in the end, and gets all of it: waiting must not have cost it the response.
        expect("body (CRC-32)", crc_of(client, client.read_head()), STREAM_CRC)
    return {"growth_mib": growth / MIB}


def _idle(server: Server, settings: Settings) -> Sample:
    def opened() -> Client:
        client = Client(server.port)
        client.send("GET", "/")
        expect("body", client.read_body(client.read_head()), app.HELLO)
        return client

    return {"kib_each": bytes_each(server, settings, opened) / 1024}


def bytes_each(server: Server, settings: Settings, opened: Callable[[], Client | Http2Connection]) -> float:
    """Return how much resident memory one more connection takes."""
    # What is imported or allocated once is not the connections' cost. Few, because what these leave to the garbage
    # collector would be taken off it.
    for _ in range(20):
        with opened():
            pass
    time.sleep(settings.settle)
    before = procfs.memory(server.pid).resident
    with ExitStack() as stack:
        clients: list[Client | Http2Connection] = []
        for _ in range(settings.idle_connections):
            clients.append(opened())
            stack.enter_context(clients[-1])
        time.sleep(settings.settle)
        after = procfs.memory(server.pid).resident
        closed = sum(not client.is_open() for client in clients)
    if closed:
        raise BenchError(f"{closed} of {settings.idle_connections} idle connections were closed")
    return (after - before) / settings.idle_connections


BULK_METRICS = (Metric("cpu_ms_mib", "CPU ms/MiB", 3), Metric("rate_mib", "MiB/s", 0))
GROWTH = Metric("growth_mib", "memory growth MiB", 1)

HTTP_WORKLOADS: tuple[Workload, ...] = (
    Workload(
        "hello",
        "GET, 13 bytes of plaintext, keep-alive",
        REQUEST_METRICS,
        check_hello,
        hello,
        goals=(Goal(1.22, 1.00), Goal(0.65, 0.65, of="uvicorn")),
    ),
    Workload(
        "echo",
        "POST of 1 KB with ten browser-like headers, echoed with six response headers",
        REQUEST_METRICS,
        _check_echo,
        _echo,
        goals=(Goal(1.38, 1.02), Goal(0.68, 0.68, of="uvicorn")),
    ),
    Workload(
        "hellolog",
        "as hello, with an access log line per request to a file",
        REQUEST_METRICS,
        check_hello,
        hello,
        access_log=True,
        afterwards=_check_log("GET /"),
        goals=(Goal(1.18, 0.95),),
    ),
    Workload(
        "log",
        "as echo, with an access log line per request to a file",
        REQUEST_METRICS,
        _check_echo,
        _echo,
        access_log=True,
        afterwards=_check_log("/echo"),
    ),
    Workload(
        "stream",
        "response of 64 MiB in pieces of 64 KiB, one connection",
        BULK_METRICS,
        check_stream,
        _stream,
        goals=(Goal(0.70, 0.70),),
    ),
    Workload(
        "upload",
        "request body of 256 MiB, one connection",
        (*BULK_METRICS, GROWTH),
        _check_upload,
        _upload,
        goals=(Goal(0.67, 0.67),),
    ),
    Workload(
        "slowread",
        f"response of 64 MiB to a client that does not read for {SLOW_READ_SECONDS:.0f} s",
        (GROWTH,),
        check_hello,
        _slow_read,
        rounds=2,
    ),
    Workload(
        "idle",
        f"{IDLE_CONNECTIONS} idle keep-alive connections",
        (Metric("kib_each", "KiB/connection", 2),),
        check_hello,
        _idle,
        goals=(Goal(6.0, 6.0, of=None),),
        rounds=2,
    ),
)

# -- workers ----------------------------------------------------------------------------------------------------


# Server and wrk share all cores, so that there is a second one for the second worker.
def _workers(server: Server, settings: Settings) -> Sample:
    if not server.peer.scales:
        raise UnsupportedError("it has no workers")
    server.stop()
    others = sorted(os.sched_getaffinity(0) - {server.core})
    sample: Sample = {}
    with pinned(server.core, *others):
        for workers, key in ((1, "one"), (2, "two")):
            again = Server(
                server.peer,
                python=server.command[0],
                core=server.core,
                directory=server.launch.directory,
                access_log=False,
                workers=workers,
                more_cores=others,
            )
            with again:
                time.sleep(settings.settle)  # the first worker answers before the second is there
                load = load_with_wrk(again, settings, "/")
            sample |= {key: load["rate"], f"cpu_{key}": load["cpu_us"]}
            sample["socket_errors"] = sample.get("socket_errors", 0.0) + load["socket_errors"]
    return sample | {"growth": sample["two"] / sample["one"]}


WORKERS_WORKLOADS = (
    Workload(
        "workers",
        "as `hello`, with one worker and with two, on two cores that the load generator shares",
        (
            Metric("growth", "rate of 2 ÷ rate of 1", 2),
            Metric("one", "requests/s, 1 worker", 0),
            Metric("two", "requests/s, 2 workers", 0),
            Metric("cpu_two", "CPU µs/request, 2 workers", 1),
        ),
        check_hello,
        _workers,
    ),
)

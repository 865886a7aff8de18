"""The workloads: what is asked of a server, how its answer is checked, and what is measured.

Each measurement gets a server that was started for it alone. `check` runs first and raises for a wrong answer, so a
number in the report always belongs to a server that does the work.
"""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from . import app, h2load, procfs, wrk
from .client import Client, crc_of
from .errors import BenchError, UnsupportedError
from .handshake import Handshakes, openssl_environment
from .http2 import Http2Connection
from .latency import LATENCY_WORKLOADS
from .peers import Server, pinned
from .websocket import BINARY, TEXT, Load, Message, Pool, WebSocket, own_messages, plain, visit
from .workload import Goal, Metric, Sample, Settings, Workload, expect

MIB = 1024 * 1024

WARMUP_SECONDS = 0.5
UPLOAD_BYTES = 256 * MIB
IDLE_CONNECTIONS = 5_000
ECHO_SOCKETS = 32
FAN_SOCKETS = 2_000
VISITS_AT_ONCE = 32
HANDSHAKES_AT_ONCE = 32
SLOW_READ_SECONDS = 3.0
H2_CONNECTIONS = 16
H2_STREAMS = 10

# A bulk transfer is repeated for --seconds but is never begun after this long, whatever --seconds says.
_BULK_MAX_SECONDS = 60.0
_SETTLE_SECONDS = 1.0

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
_ECHO_RESPONSE_HEADERS = frozenset(
    {"content-type", "content-length", "cache-control", "vary", "x-content-type-options", "x-request-id"}
)


# -- requests, loaded by wrk ------------------------------------------------------------------------------------

_REQUEST_METRICS = (
    Metric("cpu_us", "CPU µs/request", 1),
    Metric("rate", "requests/s", 0),
    Metric("p99_ms", "p99 ms", 2),
)


def _check_hello(server: Server) -> None:
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
            expect("response headers", sorted(_ECHO_RESPONSE_HEADERS - head.headers.keys()), [])


def _hello(server: Server, settings: Settings) -> Sample:
    return _load(server, settings, "/")


def _echo(server: Server, settings: Settings) -> Sample:
    return _load(server, settings, "/echo", wrk.script("POST", ECHO_HEADERS, ECHO_BODY))


def _load(server: Server, settings: Settings, path: str, script: str | None = None) -> Sample:
    url = f"{server.launch.protocol}://127.0.0.1:{server.port}{path}"
    environment = openssl_environment(server.launch.directory) if server.launch.tls else None
    lua = None
    if script is not None:
        lua = server.launch.directory / "request.lua"
        lua.write_text(script)

    def run(seconds: float) -> wrk.WrkReport:
        return wrk.run(url, seconds=seconds, connections=settings.connections, lua=lua, environment=environment)

    warm = run(WARMUP_SECONDS)
    meter = procfs.Meter(server.pid, server.core)
    report = run(settings.seconds)
    window = meter.stop()
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

_STREAM_CRC = 0
for _ in range(app.PIECES):
    _STREAM_CRC = zlib.crc32(app.PIECE, _STREAM_CRC)


def _check_stream(server: Server) -> None:
    with server.client() as client:
        for path in ("/stream", "/fresh"):
            client.send("GET", path)
            head = client.read_head()
            expect("status", head.status, 200)
            expect("length", head.length, app.STREAM_BYTES)
            expect("body (CRC-32)", crc_of(client, head), _STREAM_CRC)


def _stream(server: Server, settings: Settings) -> Sample:
    with Client(server.port) as client:

        def once() -> int:
            client.send("GET", "/stream")
            return client.drain(client.read_head())

        return _bulk(server, settings, once)


def _check_upload(server: Server) -> None:
    with Client(server.port) as client:
        for size in (MIB, 0):
            client.send_upload("/upload", size)
            head = client.read_head()
            expect("status", head.status, 200)
            expect("count", client.read_body(head), b"%d" % size)


def _upload(server: Server, settings: Settings) -> Sample:
    before = _baseline(server)
    with Client(server.port) as client:

        def once() -> int:
            client.send_upload("/upload", UPLOAD_BYTES)
            expect("count", client.read_body(client.read_head()), b"%d" % UPLOAD_BYTES)
            return UPLOAD_BYTES

        sample = _bulk(server, settings, once)
    return sample | {"growth_mib": _growth(server, before) / MIB}


def _bulk(server: Server, settings: Settings, once: Callable[[], int]) -> Sample:
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


def _baseline(server: Server) -> int:
    procfs.reset_peak(server.pid)
    return procfs.memory(server.pid).resident


def _growth(server: Server, before: int) -> int:
    return max(0, procfs.memory(server.pid).peak - before)


def _slow_read(server: Server, _settings: Settings) -> Sample:
    before = _baseline(server)
    # The kernel's receive buffer is bounded, so that it takes the same from every server. `check` was a small request,
    # so the baseline holds no heap left by an earlier 64 MiB.
    with Client(server.port, receive_buffer=128 * 1024) as client:
        client.send("GET", "/fresh")
        time.sleep(SLOW_READ_SECONDS)
        growth = _growth(server, before)
        # The client does read in the end, and gets all of it: waiting must not have cost it the response.
        expect("body (CRC-32)", crc_of(client, client.read_head()), _STREAM_CRC)
    return {"growth_mib": growth / MIB}


def _idle(server: Server, _settings: Settings) -> Sample:
    def opened() -> Client:
        client = Client(server.port)
        client.send("GET", "/")
        expect("body", client.read_body(client.read_head()), app.HELLO)
        return client

    return {"kib_each": _bytes_each(server, opened) / 1024}


def _bytes_each(server: Server, opened: Callable[[], Client | Http2Connection]) -> float:
    """Return how much resident memory one more connection takes."""
    # What is imported or allocated once is not the connections' cost. Few, because what these leave to the garbage
    # collector would be taken off it.
    for _ in range(20):
        with opened():
            pass
    time.sleep(_SETTLE_SECONDS)
    before = procfs.memory(server.pid).resident
    with ExitStack() as stack:
        clients: list[Client | Http2Connection] = []
        for _ in range(IDLE_CONNECTIONS):
            clients.append(opened())
            stack.enter_context(clients[-1])
        time.sleep(_SETTLE_SECONDS)
        after = procfs.memory(server.pid).resident
        closed = sum(not client.is_open() for client in clients)
    if closed:
        raise BenchError(f"{closed} of {IDLE_CONNECTIONS} idle connections were closed")
    return (after - before) / IDLE_CONNECTIONS


_BULK_METRICS = (Metric("cpu_ms_mib", "CPU ms/MiB", 3), Metric("rate_mib", "MiB/s", 0))
_GROWTH = Metric("growth_mib", "memory growth MiB", 1)

_HTTP: tuple[Workload, ...] = (
    Workload(
        "hello",
        "GET, 13 bytes of plaintext, keep-alive",
        _REQUEST_METRICS,
        _check_hello,
        _hello,
        goals=(Goal(1.22, 1.00), Goal(0.65, 0.65, of="uvicorn")),
    ),
    Workload(
        "echo",
        "POST of 1 KB with ten browser-like headers, echoed with six response headers",
        _REQUEST_METRICS,
        _check_echo,
        _echo,
        goals=(Goal(1.38, 1.02), Goal(0.68, 0.68, of="uvicorn")),
    ),
    Workload(
        "hellolog",
        "as hello, with an access log line per request to a file",
        _REQUEST_METRICS,
        _check_hello,
        _hello,
        access_log=True,
        afterwards=_check_log("GET /"),
        goals=(Goal(1.18, 0.95),),
    ),
    Workload(
        "log",
        "as echo, with an access log line per request to a file",
        _REQUEST_METRICS,
        _check_echo,
        _echo,
        access_log=True,
        afterwards=_check_log("/echo"),
    ),
    Workload(
        "stream",
        "response of 64 MiB in pieces of 64 KiB, one connection",
        _BULK_METRICS,
        _check_stream,
        _stream,
        goals=(Goal(0.70, 0.70),),
    ),
    Workload(
        "upload",
        "request body of 256 MiB, one connection",
        (*_BULK_METRICS, _GROWTH),
        _check_upload,
        _upload,
        goals=(Goal(0.67, 0.67),),
    ),
    Workload(
        "slowread",
        f"response of 64 MiB to a client that does not read for {SLOW_READ_SECONDS:.0f} s",
        (_GROWTH,),
        _check_hello,
        _slow_read,
        rounds=2,
    ),
    Workload(
        "idle",
        f"{IDLE_CONNECTIONS} idle keep-alive connections",
        (Metric("kib_each", "KiB/connection", 2),),
        _check_hello,
        _idle,
        goals=(Goal(6.0, 6.0, of=None),),
        rounds=2,
    ),
)

# -- WebSockets -------------------------------------------------------------------------------------------------

_KIB = 1024
_IDLE_MESSAGE_BYTES = 64
# Long enough that every server compresses it: some leave short ones as they are.
_IDLE_DEFLATE_MESSAGE_BYTES = 512


def _check_websocket(*, deflate: bool = False) -> Callable[[Server], None]:
    def check(server: Server) -> None:
        # The second connection and the order of the closes show that they are not mixed up.
        with WebSocket(server.port, "/echo", deflate=deflate) as one, WebSocket(server.port, "/echo") as other:
            for opcode, size in ((TEXT, 64), (BINARY, 64), (TEXT, 4 * _KIB), (BINARY, 64 * _KIB)):
                for owner, sock in enumerate((one, other)):
                    for message in own_messages(opcode, size, sock.deflate, owner, 2)[:8]:
                        sock.write(message.sent)
                        sock.wait(message)
            one.part()
            message = plain(TEXT, 64, 3)
            other.write(message.sent)
            other.wait(message)
            other.part()

    return check


def _check_opens(*, deflate: bool = False) -> Callable[[Server], None]:
    def check(server: Server) -> None:
        with WebSocket(server.port, "/echo", deflate=deflate) as sock:
            sock.part()

    return check


def _check_fan(server: Server) -> None:
    with Pool() as pool:
        _join(server, pool, 5)
        expect("count", pool.fan_out(0).count, 5)


def _loaded(server: Server, load: Callable[[float], Load], seconds: float) -> tuple[Load, Sample]:
    """Warm up, measure, and return what was completed with the numbers that all these workloads have."""
    load(WARMUP_SECONDS)
    client, meter = time.process_time(), procfs.Meter(server.pid, server.core)
    done = load(seconds)
    window, client = meter.stop(), time.process_time() - client
    return done, {
        "cpu_us": window.cpu / done.count * 1e6,
        "rate": done.count / window.wall,
        "foreign": window.foreign,
        "client": client / window.wall,
        "count": done.count,
    }


def _websocket_echo(opcode: int, size: int, *, deflate: bool = False) -> Callable[[Server, Settings], Sample]:
    def measure(server: Server, settings: Settings) -> Sample:
        with Pool() as pool:
            for owner in range(ECHO_SOCKETS):
                sock = WebSocket(server.port, "/echo", deflate=deflate)
                pool.add(sock, own_messages(opcode, size, sock.deflate, owner, ECHO_SOCKETS))
            done, sample = _loaded(server, pool.ping_pong, settings.seconds)
        return sample | {"wire": done.wire / done.count, "compressed": 100 * done.compressed / done.count}

    return measure


def _join(server: Server, pool: Pool, count: int) -> None:
    messages = [plain(TEXT, 64, tag) for tag in range(2)]  # two, so that an old one is not taken for the new one
    joined = Message.of(TEXT, app.JOINED.encode())
    for _ in range(count):
        sock = WebSocket(server.port, "/fan")
        sock.wait(joined)
        pool.add(sock, messages)


def _websocket_fan(server: Server, settings: Settings) -> Sample:
    with Pool() as pool:
        _join(server, pool, FAN_SOCKETS)
        return _loaded(server, pool.fan_out, settings.seconds)[1]


def _websocket_connect(server: Server, settings: Settings) -> Sample:
    def load(seconds: float) -> Load:
        return visit(server.port, "/echo", seconds, VISITS_AT_ONCE)

    return _loaded(server, load, settings.seconds)[1]


def _websocket_idle(*, deflate: bool = False) -> Callable[[Server, Settings], Sample]:
    size = _IDLE_DEFLATE_MESSAGE_BYTES if deflate else _IDLE_MESSAGE_BYTES

    def measure(server: Server, _settings: Settings) -> Sample:
        prepared: list[Message] = []

        def opened() -> WebSocket:
            sock = WebSocket(server.port, "/echo", deflate=deflate)
            prepared.extend([] if prepared else own_messages(TEXT, size, sock.deflate, 0, 1)[:1])
            sock.write(prepared[0].sent)
            sock.wait(prepared[0])
            return sock

        for _ in range(20):  # few, as in `_idle`
            with opened() as sock:
                sock.part()
        time.sleep(_SETTLE_SECONDS)
        before = procfs.memory(server.pid).resident
        with Pool() as pool:
            for _ in range(IDLE_CONNECTIONS):
                pool.add(opened(), prepared)
            pool.rest(_SETTLE_SECONDS)  # raises for each that is closed
            after = procfs.memory(server.pid).resident
        return {"kb_each": (after - before) / IDLE_CONNECTIONS / 1000}

    return measure


_MESSAGE_METRICS = (
    Metric("cpu_us", "CPU µs/message", 1),
    Metric("rate", "messages/s", 0),
)
_DEFLATE_METRICS = (
    *_MESSAGE_METRICS,
    Metric("wire", "bytes/answer", 0),
    Metric("compressed", "% compressed", 0),
)


def _echo_workload(name: str, opcode: int, size: int, goal: Goal | None = None, *, deflate: bool = False) -> Workload:
    kind = "text" if opcode == TEXT else "binary"
    shown = f"{size} B" if size < _KIB else f"{size // _KIB} KiB"
    return Workload(
        name,
        f"{kind} messages of {shown}, echoed, one in flight on each of {ECHO_SOCKETS} WebSockets"
        + (", permessage-deflate" if deflate else ""),
        _DEFLATE_METRICS if deflate else _MESSAGE_METRICS,
        _check_websocket(deflate=deflate),
        _websocket_echo(opcode, size, deflate=deflate),
        goals=() if goal is None else (goal,),
    )


_IDLE_METRICS = (Metric("kb_each", "kB/socket", 2),)
_WEBSOCKET: tuple[Workload, ...] = (
    _echo_workload("ws64", TEXT, 64, Goal(0.88, 0.82)),
    _echo_workload("ws4k", BINARY, 4 * _KIB, Goal(0.90, 0.85)),
    _echo_workload("ws64k", BINARY, 64 * _KIB, Goal(0.90, 0.90, of="uvicorn")),
    _echo_workload("wsz64", TEXT, 64, deflate=True),
    _echo_workload("wsz4k", TEXT, 4 * _KIB, Goal(1.0, 1.0), deflate=True),
    _echo_workload("wsz64k", TEXT, 64 * _KIB, deflate=True),
    Workload(
        "wsfan",
        f"a text of 64 B from one WebSocket, sent to {FAN_SOCKETS}",
        (
            Metric("cpu_us", "CPU µs/delivery", 2),
            Metric("rate", "deliveries/s", 0),
        ),
        _check_fan,
        _websocket_fan,
    ),
    Workload(
        "wsconnect",
        f"connect, accept and close, {VISITS_AT_ONCE} WebSockets at once",
        (
            Metric("cpu_us", "CPU µs/connection", 1),
            Metric("rate", "connections/s", 0),
        ),
        _check_websocket(),
        _websocket_connect,
        goals=(Goal(1.6, 1.3),),
    ),
    Workload(
        "wsidle",
        f"{IDLE_CONNECTIONS} idle WebSockets that echoed one message of {_IDLE_MESSAGE_BYTES} B",
        _IDLE_METRICS,
        _check_opens(),
        _websocket_idle(),
        goals=(Goal(9.5, 9.5, of=None),),
        rounds=2,
    ),
    Workload(
        "wsidlez",
        f"{IDLE_CONNECTIONS} idle WebSockets with permessage-deflate that echoed one message of "
        f"{_IDLE_DEFLATE_MESSAGE_BYTES} B",
        _IDLE_METRICS,
        _check_opens(deflate=True),
        _websocket_idle(deflate=True),
        rounds=2,
    ),
)
WEBSOCKET = tuple(workload.name for workload in _WEBSOCKET)
"""Names of the WebSocket workloads."""

# -- HTTP/2, loaded by h2load -----------------------------------------------------------------------------------


def _ask_h2(
    server: Server, path: str, headers: Mapping[str, str] | None = None, body: Path | None = None
) -> tuple[Mapping[str, str], Path]:
    status, fields, answer = h2load.ask(server.port, path, server.launch.directory, headers, body)
    expect("status", status, 200)
    return fields, answer


def _check_h2_hello(server: Server) -> None:
    for path in ("/", app.PAGES[0], app.PAGES[-1]):
        expect("body", _ask_h2(server, path)[1].read_bytes(), app.HELLO)


def _check_h2_echo(server: Server) -> None:
    fields, answer = _ask_h2(server, "/echo", ECHO_HEADERS, _echo_file(server))
    expect("body", answer.read_bytes(), ECHO_BODY)
    expect("response headers", sorted(_ECHO_RESPONSE_HEADERS - fields.keys()), [])


def _check_h2_stream(server: Server) -> None:
    _, answer = _ask_h2(server, "/stream")
    expect("body (CRC-32)", zlib.crc32(answer.read_bytes()), _STREAM_CRC)


def _check_h2_upload(server: Server) -> None:
    for size in (MIB, 0):
        _, answer = _ask_h2(server, "/upload", body=_zeros(server, size))
        expect("count", answer.read_bytes(), b"%d" % size)


def _echo_file(server: Server) -> Path:
    path = server.launch.directory / "echo.json"
    path.write_bytes(ECHO_BODY)
    return path


def _zeros(server: Server, size: int) -> Path:
    # A hole: it is read from the page cache as any file, and takes no room on the disk.
    path = server.launch.directory / "zeros"
    with path.open("wb") as file:
        file.truncate(size)
    return path


def _h2_load(
    server: Server,
    settings: Settings,
    paths: Sequence[str],
    answer_bytes: int,
    *,
    connections: int = 1,
    streams: int = 1,
    headers: Mapping[str, str] | None = None,
    body: Path | None = None,
) -> tuple[h2load.H2loadReport, Sample]:
    """Warm up, measure; return h2load's report, and the CPU seconds with what `report.table` looks for."""
    at_once = connections * streams

    def load(requests: int) -> h2load.H2loadReport:
        report = h2load.run(
            server.port,
            paths,
            requests=requests,
            connections=connections,
            streams=streams,
            headers=headers,
            body=body,
            http1=server.launch.protocol == "https",
        )
        expect("size of the answers", report.data, requests * answer_bytes)
        return report

    def lasting(seconds: float) -> int:
        # As many for each stream.
        return at_once * max(1, math.ceil(report.requests / report.wall * seconds / at_once))

    # A number of requests and not a time for h2load: at the end of a time it drops what is in flight, and what a slow
    # server did for those would be missing from the count.
    end = time.monotonic() + WARMUP_SECONDS
    report = load(at_once)
    while time.monotonic() < end:
        report = load(lasting(WARMUP_SECONDS / 2))
    meter = procfs.Meter(server.pid, server.core)
    report = load(lasting(settings.seconds))
    window = meter.stop()
    return report, {"cpu": window.cpu, "foreign": window.foreign, "client": report.client / report.wall}


def _h2_requests(
    server: Server,
    settings: Settings,
    paths: Sequence[str],
    answer_bytes: int,
    headers: Mapping[str, str] | None = None,
    body: Path | None = None,
) -> Sample:
    report, sample = _h2_load(
        server,
        settings,
        paths,
        answer_bytes,
        connections=H2_CONNECTIONS,
        streams=H2_STREAMS,
        headers=headers,
        body=body,
    )
    return sample | {
        "cpu_us": sample["cpu"] / report.requests * 1e6,
        "rate": report.requests / report.wall,
        "requests": report.requests,
    }


def _h2_hello(server: Server, settings: Settings) -> Sample:
    return _h2_requests(server, settings, ["/"], len(app.HELLO))


def _h2_paths(server: Server, settings: Settings) -> Sample:
    return _h2_requests(server, settings, app.PAGES, len(app.HELLO))


def _h2_echo(server: Server, settings: Settings) -> Sample:
    return _h2_requests(server, settings, ["/echo"], len(ECHO_BODY), ECHO_HEADERS, _echo_file(server))


def _h2_bulk(report: h2load.H2loadReport, sample: Sample, size: int) -> Sample:
    mib = report.requests * size / MIB
    return sample | {"rate_mib": mib / report.wall, "cpu_ms_mib": sample["cpu"] / mib * 1e3}


def _h2_stream(server: Server, settings: Settings, streams: int = 1) -> Sample:
    report, sample = _h2_load(server, settings, ["/stream"], app.STREAM_BYTES, streams=streams)
    return _h2_bulk(report, sample, app.STREAM_BYTES)


def _h2_streams(server: Server, settings: Settings) -> Sample:
    return _h2_stream(server, settings, H2_STREAMS)


def _h2_upload(server: Server, settings: Settings) -> Sample:
    before = _baseline(server)
    # The answer is the count, so its length tells a body that was cut off.
    answer_bytes, body = len(b"%d" % UPLOAD_BYTES), _zeros(server, UPLOAD_BYTES)
    report, sample = _h2_load(server, settings, ["/upload"], answer_bytes, body=body)
    return _h2_bulk(report, sample, UPLOAD_BYTES) | {"growth_mib": _growth(server, before) / MIB}


def _check_h2_idle(server: Server) -> None:
    with Http2Connection(server.port) as connection:
        for _ in range(2):
            expect("body", connection.get(), app.HELLO)


def _h2_idle(server: Server, _settings: Settings) -> Sample:
    def opened() -> Http2Connection:
        connection = Http2Connection(server.port)
        expect("body", connection.get(), app.HELLO)
        return connection

    return {"kb_each": _bytes_each(server, opened) / 1000}


_H2_METRICS = (Metric("cpu_us", "CPU µs/request", 1), Metric("rate", "requests/s", 0))
_H2_BULK_METRICS = (Metric("rate_mib", "MiB/s", 0), Metric("cpu_ms_mib", "CPU ms/MiB", 3))
_H2_BULK_GOALS = (Goal(1.0, 1.0, of="hypercorn", at_least=True), Goal(0.5, 0.5, of="granian", at_least=True))


def _h2_workload(
    name: str,
    summary: str,
    metrics: tuple[Metric, ...],
    check: Callable[[Server], None],
    measure: Callable[[Server, Settings], Sample],
    *goals: Goal,
) -> Workload:
    return Workload(name, f"HTTP/2 over TLS, {summary}", metrics, check, measure, goals=goals, protocol="h2")


_H2_LOAD = f"{H2_CONNECTIONS} connections with {H2_STREAMS} streams"
_HTTP2: tuple[Workload, ...] = (
    _h2_workload(
        "h2hello",
        f"GET of one path, 13 bytes of plaintext, {_H2_LOAD}",
        _H2_METRICS,
        _check_h2_hello,
        _h2_hello,
        Goal(1.10, 0.75),
    ),
    _h2_workload(
        "h2paths",
        f"GET of {len(app.PAGES)} paths in turn, 13 bytes of plaintext, {_H2_LOAD}",
        _H2_METRICS,
        _check_h2_hello,
        _h2_paths,
        Goal(1.10, 0.85),
    ),
    _h2_workload(
        "h2echo",
        f"POST of 1 KB with ten browser-like headers, echoed with six response headers, {_H2_LOAD}",
        _H2_METRICS,
        _check_h2_echo,
        _h2_echo,
    ),
    _h2_workload(
        "h2stream",
        "response of 64 MiB in pieces of 64 KiB, one stream",
        _H2_BULK_METRICS,
        _check_h2_stream,
        _h2_stream,
        *_H2_BULK_GOALS,
    ),
    _h2_workload(
        "h2streams",
        f"responses of 64 MiB in pieces of 64 KiB, {H2_STREAMS} streams of one connection at once",
        _H2_BULK_METRICS,
        _check_h2_stream,
        _h2_streams,
        *_H2_BULK_GOALS,
    ),
    _h2_workload(
        "h2upload",
        "request body of 256 MiB, one stream",
        (*_H2_BULK_METRICS, _GROWTH),
        _check_h2_upload,
        _h2_upload,
        *_H2_BULK_GOALS,
    ),
    Workload(
        "h2idle",
        f"{IDLE_CONNECTIONS} idle HTTP/2 connections in cleartext that each made one request",
        (Metric("kb_each", "kB/connection", 2),),
        _check_h2_idle,
        _h2_idle,
        goals=(Goal(14.0, 14.0, of=None),),
        rounds=2,
        protocol="h2c",
    ),
)
HTTP2 = tuple(workload.name for workload in _HTTP2)
"""Names of the HTTP/2 workloads."""

# -- HTTP/1.1 over TLS ------------------------------------------------------------------------------------------


def _handshakes(server: Server, *, resume: bool, at_once: int) -> Handshakes:
    return Handshakes(server.port, server.launch.directory, at_once=at_once, resume=resume)


def _check_full_handshake(server: Server) -> None:
    with _handshakes(server, resume=False, at_once=2) as client:
        expect("number of connections", client.load(0).count, 2)


def _check_resumption(server: Server) -> None:
    with _handshakes(server, resume=True, at_once=1) as client:
        resumed = [client.load(0).resumed for _ in range(3)]
    if resumed == [0, 0, 0]:
        raise UnsupportedError("it resumed no session, each connection cost a full handshake")


def _tls_connect(*, resume: bool) -> Callable[[Server, Settings], Sample]:
    def measure(server: Server, settings: Settings) -> Sample:
        with _handshakes(server, resume=resume, at_once=HANDSHAKES_AT_ONCE) as client:
            client.load(WARMUP_SECONDS)
            meter = procfs.Meter(server.pid, server.core)
            done = client.load(settings.seconds)
            window = meter.stop()
        if done.resumed and not resume:
            raise BenchError(f"{done.resumed} of {done.count} handshakes were not full")
        return {
            "cpu_us": window.cpu / done.count * 1e6,
            "rate": done.count / done.wall,
            "resumed": 100 * done.resumed / done.count,
            "foreign": window.foreign,
            "client": done.cpu / done.wall,
            "count": done.count,
        }

    return measure


_HANDSHAKE_METRICS = (
    Metric("cpu_us", "CPU µs/handshake", 0),
    Metric("rate", "handshakes/s", 0),
)
_TLS: tuple[Workload, ...] = (
    Workload(
        "tlshello",
        "TLS, GET, 13 bytes of plaintext, keep-alive",
        (Metric("cpu_us", "CPU µs/request", 1), *_REQUEST_METRICS[1:]),
        _check_hello,
        _hello,
        goals=(Goal(1.30, 1.15),),
        protocol="https",
    ),
    Workload(
        "tlsdownload",
        "TLS, response of 64 MiB in pieces of 64 KiB, one connection",
        _H2_BULK_METRICS,
        _check_stream,
        _h2_stream,
        goals=(Goal(1.0, 1.0, of="uvicorn", at_least=True),),
        protocol="https",
    ),
    Workload(
        "tlsfull",
        f"full TLS handshake, one GET, close; {HANDSHAKES_AT_ONCE} connections at once",
        _HANDSHAKE_METRICS,
        _check_full_handshake,
        _tls_connect(resume=False),
        protocol="https",
    ),
    Workload(
        "tlsresume",
        f"resumed TLS handshake, one GET, close; {HANDSHAKES_AT_ONCE} connections at once",
        (*_HANDSHAKE_METRICS, Metric("resumed", "% resumed", 1)),
        _check_resumption,
        _tls_connect(resume=True),
        protocol="https",
    ),
)
TLS = tuple(workload.name for workload in _TLS)
"""Names of the workloads of HTTP/1.1 over TLS."""

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
                time.sleep(_SETTLE_SECONDS)  # the first worker answers before the second is there
                load = _load(again, settings, "/")
            sample |= {key: load["rate"], f"cpu_{key}": load["cpu_us"]}
            sample["socket_errors"] = sample.get("socket_errors", 0.0) + load["socket_errors"]
    return sample | {"growth": sample["two"] / sample["one"]}


_WORKERS = (
    Workload(
        "workers",
        "as `hello`, with one worker and with two, on two cores that the load generator shares",
        (
            Metric("growth", "rate of 2 ÷ rate of 1", 2),
            Metric("one", "requests/s, 1 worker", 0),
            Metric("two", "requests/s, 2 workers", 0),
            Metric("cpu_two", "CPU µs/request, 2 workers", 1),
        ),
        _check_hello,
        _workers,
    ),
)

WORKLOADS: dict[str, Workload] = {
    workload.name: workload for workload in (*_HTTP, *_WEBSOCKET, *_HTTP2, *_TLS, *_WORKERS, *LATENCY_WORKLOADS)
}

HTTP = tuple(workload.name for workload in _HTTP)
"""Names of the workloads of HTTP/1.1 in cleartext."""
WORKERS = tuple(workload.name for workload in _WORKERS)
"""Names of the workloads with several workers."""
TABLE = (
    *("hello", "echo", "hellolog", "stream", "upload", "idle"),
    *("tlshello", "h2hello", "h2paths", "h2idle"),
    *("ws64", "ws4k", "ws64k", "wsz4k", "wsconnect", "wsidle"),
)
"""Names of those that are measured if nothing else is asked for, and that the summary shows."""

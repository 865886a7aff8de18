"""The workloads of HTTP/2, and of HTTP/1.1 over TLS."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import app, h2load, procfs
from .errors import BenchError, UnsupportedError
from .handshake import Handshakes
from .http2 import Http2Connection
from .http_workloads import (
    ECHO_BODY,
    ECHO_HEADERS,
    ECHO_RESPONSE_HEADERS,
    GROWTH,
    REQUEST_METRICS,
    STREAM_CRC,
    bytes_each,
    check_hello,
    check_stream,
    hello,
    memory_before,
    memory_growth,
)
from .peers import Server
from .workload import IDLE_CONNECTIONS, MIB, Goal, Metric, Sample, Settings, Workload, expect

H2_CONNECTIONS = 16
H2_STREAMS = 10
HANDSHAKES_AT_ONCE = 32


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
    expect("response headers", sorted(ECHO_RESPONSE_HEADERS - fields.keys()), [])


def _check_h2_stream(server: Server) -> None:
    _, answer = _ask_h2(server, "/stream")
    expect("body (CRC-32)", zlib.crc32(answer.read_bytes()), STREAM_CRC)


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


def h2_load(
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
    end = time.monotonic() + settings.warmup
    report = load(at_once)
    while time.monotonic() < end:
        report = load(lasting(settings.warmup / 2))
    meter = procfs.Meter(server.pid, server.core)
    report = load(lasting(settings.seconds))
    window = meter.stop()
    return report, {"cpu": window.cpu, "foreign": window.foreign, "client": report.client / report.wall}


def h2_requests(
    server: Server,
    settings: Settings,
    paths: Sequence[str],
    answer_bytes: int,
    headers: Mapping[str, str] | None = None,
    body: Path | None = None,
) -> Sample:
    report, sample = h2_load(
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
    return h2_requests(server, settings, ["/"], len(app.HELLO))


def _h2_paths(server: Server, settings: Settings) -> Sample:
    return h2_requests(server, settings, app.PAGES, len(app.HELLO))


def _h2_echo(server: Server, settings: Settings) -> Sample:
    return h2_requests(server, settings, ["/echo"], len(ECHO_BODY), ECHO_HEADERS, _echo_file(server))


def _h2_bulk(report: h2load.H2loadReport, sample: Sample, size: int) -> Sample:
    mib = report.requests * size / MIB
    return sample | {"rate_mib": mib / report.wall, "cpu_ms_mib": sample["cpu"] / mib * 1e3}


def _h2_stream(server: Server, settings: Settings, streams: int = 1) -> Sample:
    report, sample = h2_load(server, settings, ["/stream"], app.STREAM_BYTES, streams=streams)
    return _h2_bulk(report, sample, app.STREAM_BYTES)


def _h2_streams(server: Server, settings: Settings) -> Sample:
    return _h2_stream(server, settings, H2_STREAMS)


def _h2_upload(server: Server, settings: Settings) -> Sample:
    before = memory_before(server)
    # The answer is the count, so its length tells a body that was cut off.
    answer_bytes, body = len(b"%d" % settings.upload_bytes), _zeros(server, settings.upload_bytes)
    report, sample = h2_load(server, settings, ["/upload"], answer_bytes, body=body)
    return _h2_bulk(report, sample, settings.upload_bytes) | {"growth_mib": memory_growth(server, before) / MIB}


def _check_h2_idle(server: Server) -> None:
    with Http2Connection(server.port) as connection:
        for _ in range(2):
            expect("body", connection.get(), app.HELLO)


def _h2_idle(server: Server, settings: Settings) -> Sample:
    def opened() -> Http2Connection:
        connection = Http2Connection(server.port)
        expect("body", connection.get(), app.HELLO)
        return connection

    return {"kb_each": bytes_each(server, settings, opened) / 1000}


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
HTTP2_WORKLOADS: tuple[Workload, ...] = (
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
        (*_H2_BULK_METRICS, GROWTH),
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
            client.load(settings.warmup)
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
TLS_WORKLOADS: tuple[Workload, ...] = (
    Workload(
        "tlshello",
        "TLS, GET, 13 bytes of plaintext, keep-alive",
        (Metric("cpu_us", "CPU µs/request", 1), *REQUEST_METRICS[1:]),
        check_hello,
        hello,
        goals=(Goal(1.30, 1.15),),
        protocol="https",
    ),
    Workload(
        "tlsdownload",
        "TLS, response of 64 MiB in pieces of 64 KiB, one connection",
        _H2_BULK_METRICS,
        check_stream,
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

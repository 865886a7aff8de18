"""The workloads of files: sent by the application by their path, and served without it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack

from . import app, h2load
from .client import Client, Head, crc_of
from .errors import UnsupportedError
from .http_workloads import (
    BULK_METRICS,
    GROWTH,
    REQUEST_METRICS,
    bulk,
    load_with_wrk,
    memory_before,
    memory_growth,
)
from .peers import STATIC, Protocol, Server
from .secure_workloads import H2_CONNECTIONS, H2_STREAMS, h2_load, h2_requests
from .workload import MIB, Goal, Metric, Sample, Settings, Workload, expect

SLOW_READERS = 50
SLOW_SECONDS = 3.0
# What is in the kernel is the same for every server: its receive buffer is bounded.
_RECEIVE_BUFFER = 128 * 1024
_H2_LOAD = f"{H2_CONNECTIONS} connections with {H2_STREAMS} streams"


def make(server: Server, name: str) -> int:
    """Write a file where the server looks for it; return its CRC-32. It is in the page cache then."""
    size, crc = app.FILES[name], 0
    with (server.launch.files / name).open("wb") as file:
        for at in range(0, size, app.PIECE_BYTES):
            # No two pieces are the same, so one that comes twice or in another's place is noticed.
            piece = (at.to_bytes(8, "big") + app.PIECE[8:])[: size - at]
            crc = zlib.crc32(piece, crc)
            file.write(piece)
    return crc


def _is_supported(status: int) -> None:
    if status == 501:
        raise UnsupportedError("it has no pathsend")
    expect("status", status, 200)


def _check_h1(server: Server, path: str, size: int, crc: int) -> None:
    with server.client() as client:
        for _ in range(2):  # the second one shows that the connection is kept
            client.send("GET", path)
            head = client.read_head()
            if head.status == 501:
                client.close()
            _is_supported(head.status)
            expect("length", head.length, size)
            expect("body (CRC-32)", crc_of(client, head), crc)


def _check_h2(server: Server, path: str, size: int, crc: int) -> None:
    status, _, answer = h2load.ask(server.port, path, server.launch.directory)
    _is_supported(status)
    body = answer.read_bytes()
    expect("length", len(body), size)
    expect("body (CRC-32)", zlib.crc32(body), crc)


def _check(name: str, prefix: str) -> Callable[[Server], None]:
    def check(server: Server) -> None:
        crc = make(server, name)
        check_one = _check_h2 if server.launch.protocol == "h2" else _check_h1
        check_one(server, f"{prefix}/{name}", app.FILES[name], crc)

    return check


def _small(name: str, prefix: str) -> Callable[[Server, Settings], Sample]:
    def measure(server: Server, settings: Settings) -> Sample:
        path = f"{prefix}/{name}"
        if server.launch.protocol == "h2":
            return h2_requests(server, settings, [path], app.FILES[name])
        return load_with_wrk(server, settings, path)

    return measure


def _transfer(server: Server, settings: Settings, path: str, size: int) -> Sample:
    if server.launch.protocol != "http":
        report, sample = h2_load(server, settings, [path], size)
        mib = report.requests * size / MIB
        return sample | {"cpu_ms_mib": sample["cpu"] / mib * 1e3, "rate_mib": mib / report.wall}
    with Client(server.port) as client:

        def once() -> int:
            client.send("GET", path)
            return client.drain(client.read_head())

        return bulk(server, settings, once)


def _large(name: str, prefix: str, *, compared: bool) -> Callable[[Server, Settings], Sample]:
    def measure(server: Server, settings: Settings) -> Sample:
        size = app.FILES[name]
        sample = _transfer(server, settings, f"{prefix}/{name}", size)
        if compared:
            copied = _transfer(server, settings, f"/copy/{name}", size)
            sample["of_body"] = sample["cpu_ms_mib"] / copied["cpu_ms_mib"]
        return sample

    return measure


def _slow_readers(prefix: str) -> Callable[[Server, Settings], Sample]:
    def measure(server: Server, settings: Settings) -> Sample:
        path, size = f"{prefix}/100m", app.FILES["100m"]
        before = memory_before(server)
        with ExitStack() as stack:
            heads: list[tuple[Client, Head]] = []
            for _ in range(SLOW_READERS):
                client = stack.enter_context(Client(server.port, receive_buffer=_RECEIVE_BUFFER))
                client.send("GET", path)
                heads.append((client, client.read_head()))
            time.sleep(min(SLOW_SECONDS, 3 * settings.seconds))
            waiting = memory_growth(server, before)
            # Each gets all of it in the end, one after the other, so the last ones wait longest.
            for client, head in heads:
                expect("size", client.drain(head), size)
        return {"growth_mib": memory_growth(server, before) / MIB, "waiting_mib": waiting / MIB}

    return measure


def _requests_metrics(protocol: Protocol) -> tuple[Metric, ...]:
    return REQUEST_METRICS[:2] if protocol == "h2" else REQUEST_METRICS


def _workloads(protocol: Protocol, mark: str, title: str, *, static: bool) -> list[Workload]:
    kind, prefix = ("static", STATIC) if static else ("path", "/file")
    how = "without the application" if static else "by pathsend"
    load = f", {_H2_LOAD}" if protocol == "h2" else ""
    small_goals = (Goal(1.3, 1.3, of="granian"),) if static else ()
    found = [
        Workload(
            f"{mark}{kind}{name}",
            f"{title}file of {text} {how}{load}",
            _requests_metrics(protocol),
            _check(name, prefix),
            _small(name, prefix),
            goals=small_goals if name == "1k" else (),
            protocol=protocol,
            static=static,
        )
        for name, text in (("1k", "1 KB"), ("100k", "100 KB"))
    ]
    of_body = () if static else (Metric("of_body", "CPU ÷ that of body messages", 2),)
    found.append(
        Workload(
            f"{mark}{kind}100m",
            f"{title}file of 100 MB {how}, one connection",
            (*BULK_METRICS, *of_body),
            _check("100m", prefix),
            _large("100m", prefix, compared=not static),
            protocol=protocol,
            static=static,
        )
    )
    return found


def _slow(*, static: bool) -> Workload:
    kind, prefix = ("static", STATIC) if static else ("path", "/file")
    how = "without the application" if static else "by pathsend"
    return Workload(
        f"{kind}slow",
        f"{SLOW_READERS} slow readers of a file of 100 MB {how}: nothing is read for {SLOW_SECONDS:.0f} s, then all of it",
        (GROWTH, Metric("waiting_mib", "of it while nothing is read", 1)),
        _check("1k", prefix),
        _with_file("100m", _slow_readers(prefix)),
        goals=(Goal(2.0, 2.0, of=None),),
        rounds=2,
        static=static,
    )


def _with_file(name: str, measure: Callable[[Server, Settings], Sample]) -> Callable[[Server, Settings], Sample]:
    # The check asks for a small file, so the baseline holds no buffers that an earlier long response left.
    def made(server: Server, settings: Settings) -> Sample:
        make(server, name)
        return measure(server, settings)

    return made


_PROTOCOLS: tuple[tuple[Protocol, str, str], ...] = (
    ("http", "", ""),
    ("https", "tls", "TLS, "),
    ("h2", "h2", "HTTP/2 over TLS, "),
)
FILES_WORKLOADS: tuple[Workload, ...] = (
    *(
        workload
        for protocol, mark, title in _PROTOCOLS
        for static in (False, True)
        for workload in _workloads(protocol, mark, title, static=static)
    ),
    _slow(static=False),
    _slow(static=True),
)

"""The latency workloads: an open loop at fixed shares of what the server can do at most, found in the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from . import app
from .client import Client
from .open_loop import BULK_BYTES_PER_SECOND, Download, Upload, callers, closed_loop, open_loop, percentile
from .peers import Server
from .websocket import TEXT, WebSocket, plain
from .workload import BEST, Goal, Metric, Sample, Settings, Table, Workload, expect

_BULK_MIB = BULK_BYTES_PER_SECOND // (1024 * 1024)


@dataclass(frozen=True, slots=True)
class _Level:
    key: str
    share: float
    """Of the most that the server can do."""
    shown: str
    bulk: bool = False


_LEVELS = (
    _Level("quarter", 0.25, "a quarter"),
    _Level("half", 0.5, "half"),
    _Level("most", 0.75, "three quarters"),
    _Level("bulk", 0.5, "half", bulk=True),
)


def _check(server: Server) -> None:
    with server.client() as client:
        client.send("GET", "/")
        expect("body", client.read_body(client.read_head()), app.HELLO)
    with WebSocket(server.port, "/echo") as websocket:
        message = plain(TEXT, 64, 0)
        websocket.write(message.sent)
        websocket.wait(message)
        websocket.part()


def _measure(*, websocket: bool) -> Callable[[Server, Settings], Sample]:
    def measure(server: Server, settings: Settings) -> Sample:
        with callers(server.port, settings.connections, websocket=websocket) as connections:
            closed_loop(connections, settings.warmup)
            most = closed_loop(connections, settings.seconds)
        sample: Sample = {"most": most}
        for level in _LEVELS:
            sample |= _at(server, settings, level, most * level.share, websocket=websocket)
        return sample

    return measure


def _at(server: Server, settings: Settings, level: _Level, rate: float, *, websocket: bool) -> Sample:
    seconds = settings.seconds
    with callers(server.port, settings.connections, websocket=websocket) as connections, Client(server.port) as asking:
        _collections(asking)
        if level.bulk:
            with closing(Download(server.port)) as download, closing(Upload(server.port)) as upload:
                measured = open_loop(connections, rate, seconds, (download, upload))
                moved = min(download.done, upload.done) / measured.wall / (1024 * 1024)
        else:
            measured, moved = open_loop(connections, rate, seconds), 0.0
        collected = _collections(asking)
    found = {
        "rate": len(measured.took) / measured.wall,
        "p50_ms": percentile(measured.took, 0.5) * 1e3,
        "p99_ms": percentile(measured.took, 0.99) * 1e3,
        "p999_ms": percentile(measured.took, 0.999) * 1e3,
        "late_ms": percentile(measured.late, 0.999) * 1e3,
        "gc_ms": collected["longest"] * 1e3,
        "gc_share": 100 * collected["seconds"] / measured.wall,
        "moved": moved,
    }
    return {f"{level.key}_{key}": value for key, value in found.items()}


def _collections(client: Client) -> dict[str, float]:
    client.send("GET", "/gc")
    taken: dict[str, float] = json.loads(client.read_body(client.read_head()))
    return taken


def _tables(name: str, what: str, unit: str) -> tuple[Table, ...]:
    tables = []
    for level in _LEVELS:
        beside = f", while others download and upload {_BULK_MIB} MiB a second each" if level.bulk else ""
        metrics = [
            Metric(f"{level.key}_p99_ms", "p99 ms", 2),
            Metric(f"{level.key}_p50_ms", "p50 ms", 2),
            Metric(f"{level.key}_p999_ms", "p99.9 ms", 2),
            Metric(f"{level.key}_rate", unit, 0),
            Metric(f"{level.key}_late_ms", "load's own p99.9 ms", 2),
            Metric(f"{level.key}_gc_ms", "longest collection ms", 2),
            Metric(f"{level.key}_gc_share", "% of time in collections", 2),
        ]
        if level.bulk:
            metrics.append(Metric(f"{level.key}_moved", "MiB/s each way", 0))
        tables.append(
            Table(
                f"{name} {level.key}",
                f"{what} at {level.shown} of each server's own most{beside}",
                tuple(metrics),
                (Goal(1.0, 1.0, of=BEST),) if level.key == "half" else (),
            )
        )
    return tuple(tables)


def _workload(name: str, what: str, unit: str, *, websocket: bool) -> Workload:
    tables = _tables(name, what, unit)
    return Workload(
        name,
        f"{what}, one in flight on each connection, as many as the server answers",
        (Metric("most", f"most {unit}", 0),),
        _check,
        _measure(websocket=websocket),
        tables=tables,
    )


LATENCY_WORKLOADS = (
    _workload("lathttp", "GET, 13 bytes of plaintext", "requests/s", websocket=False),
    _workload("latws", "WebSocket messages of 64 B", "messages/s", websocket=True),
)

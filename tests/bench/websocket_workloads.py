"""The workloads of WebSockets."""

from __future__ import annotations

import time
from collections.abc import Callable

from . import app, procfs
from .peers import Server
from .websocket import BINARY, TEXT, Load, Message, Pool, WebSocket, own_messages, plain, visit
from .workload import IDLE_CONNECTIONS, Goal, Metric, Sample, Settings, Workload, expect

ECHO_SOCKETS = 32
FAN_SOCKETS = 2_000
VISITS_AT_ONCE = 32

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


def _loaded(server: Server, load: Callable[[float], Load], settings: Settings) -> tuple[Load, Sample]:
    """Warm up, measure, and return what was completed with the numbers that all these workloads have."""
    load(settings.warmup)
    client, meter = time.process_time(), procfs.Meter(server.pid, server.core)
    done = load(settings.seconds)
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
            done, sample = _loaded(server, pool.ping_pong, settings)
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
        return _loaded(server, pool.fan_out, settings)[1]


def _websocket_connect(server: Server, settings: Settings) -> Sample:
    def load(seconds: float) -> Load:
        return visit(server.port, "/echo", seconds, VISITS_AT_ONCE)

    return _loaded(server, load, settings)[1]


def _websocket_idle(*, deflate: bool = False) -> Callable[[Server, Settings], Sample]:
    size = _IDLE_DEFLATE_MESSAGE_BYTES if deflate else _IDLE_MESSAGE_BYTES

    def measure(server: Server, settings: Settings) -> Sample:
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
        time.sleep(settings.settle)
        before = procfs.memory(server.pid).resident
        with Pool() as pool:
            for _ in range(settings.idle_connections):
                pool.add(opened(), prepared)
            pool.rest(settings.settle)  # raises for each that is closed
            after = procfs.memory(server.pid).resident
        return {"kb_each": (after - before) / settings.idle_connections / 1000}

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
WEBSOCKET_WORKLOADS: tuple[Workload, ...] = (
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

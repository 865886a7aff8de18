"""Command line of the benchmarks: ``python -m tests.bench``, from the root of the checkout."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .errors import BenchError, UnsupportedError
from .peers import OURS, PEERS, Server, version
from .report import Result, as_json, table
from .workloads import HTTP2, IDLE_CONNECTIONS, TLS, WEBSOCKET, WORKLOADS, Settings, Workload

# A server that failed this often in a workload is not asked again in the remaining rounds.
_FAILURES_MAX = 2
# Names that stand for several workloads.
_GROUPS = {
    "http": [name for name in WORKLOADS if name not in (*WEBSOCKET, *HTTP2, *TLS, "workers")],
    "ws": list(WEBSOCKET),
    "h2": list(HTTP2),
    "tls": list(TLS),
}


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked."""

    peers: list[str]
    workloads: list[str]
    rounds: int
    settings: Settings
    pythons: dict[str, str]
    """Interpreter by peer."""
    json: Path | None
    server_core: int
    client_core: int


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure daphne-ng and its peers, one core for each side."
    )
    usual = ",".join(name for name, peer in PEERS.items() if not peer.by_name_only)
    parser.add_argument("--peers", default=usual, metavar="A,B", help="servers (default: %(default)s)")
    parser.add_argument(
        "--workloads",
        default=",".join(WORKLOADS),
        metavar="X,Y",
        help="workloads; http, ws, h2 and tls mean all of that kind (default: all)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (default: %(default)g)")
    parser.add_argument("--connections", type=int, default=64, help="wrk's connections (default: %(default)s)")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="[PEER=]PATH",
        help="interpreter for all servers, or for one; may be repeated (default: the one that runs this)",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the samples and results there too")
    given = parser.parse_args(arguments)
    peers, workloads = given.peers.split(","), []
    for name in given.workloads.split(","):
        workloads += _GROUPS.get(name, [name])
    for what, names, known in (("server", peers, PEERS), ("workload", workloads, WORKLOADS)):
        if unknown := [name for name in names if name not in known]:
            parser.error(f"unknown {what} {', '.join(unknown)}; choose from {', '.join(known)}")
    if not 1 <= given.rounds <= 100:
        parser.error("--rounds must be 1 to 100")
    if not 0 < given.seconds <= 60:
        parser.error("--seconds must be above 0 and at most 60")
    if not 1 <= given.connections <= 1024:
        parser.error("--connections must be 1 to 1024")
    pythons = dict.fromkeys(peers, sys.executable)
    for value in given.python:
        name, _, path = value.rpartition("=")
        if name and name not in PEERS:
            parser.error(f"--python: unknown server {name}")
        pythons.update({name: path} if name else dict.fromkeys(peers, path))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("warning: one core only; server and load share it, so the rates mean nothing", file=sys.stderr)
    return Options(
        peers=list(dict.fromkeys(peers)),
        workloads=list(dict.fromkeys(workloads)),
        rounds=given.rounds,
        settings=Settings(seconds=given.seconds, connections=given.connections),
        pythons=pythons,
        json=given.json,
        server_core=cores[0],
        client_core=cores[-1 if len(cores) < 3 else 1],
    )


def measure(options: Options, workload: Workload, results: dict[str, Result]) -> None:
    """Run all rounds of one workload: every server in turn, then again. Adds to `results` as it goes."""
    for turn in range(options.rounds):
        for peer in options.peers:
            result = results[peer]
            if result.unsupported or len(result.failures) >= _FAILURES_MAX:
                continue
            print(f"{workload.name} {turn + 1}/{options.rounds} {peer}", file=sys.stderr, flush=True)
            try:
                result.samples.append(_once(options, workload, peer))
            except UnsupportedError as error:
                print(f"  skipped: {error}", file=sys.stderr, flush=True)
                result.unsupported = str(error)
            except BenchError as error:
                print(f"  failed: {error}", file=sys.stderr, flush=True)
                result.failures.append(str(error))


def _once(options: Options, workload: Workload, peer: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        server = Server(
            PEERS[peer],
            python=options.pythons[peer],
            core=options.server_core,
            directory=Path(directory),
            access_log=workload.access_log,
            protocol=workload.protocol,
        )
        with server:
            workload.check(server)
            sample = workload.measure(server, options.settings)
        if workload.afterwards is not None:
            workload.afterwards(server, sample)
        return sample


def _raise_file_limit() -> None:
    # Both sides of the idle workload hold one descriptor per connection; servers inherit the limit.
    wanted = IDLE_CONNECTIONS + 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        if limit < wanted:
            print(f"warning: the hard limit is {hard} open files; the idle workloads need {wanted}", file=sys.stderr)


def _terminated(*_: object) -> NoReturn:
    # Leaves through the context managers, which end the server.
    raise SystemExit(143)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit status: 0, or 130 if interrupted (what was measured is still reported)."""
    if sys.platform != "linux":
        print("the benchmarks read /proc and set CPU affinity: Linux only", file=sys.stderr)
        return 2
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminated)
    _raise_file_limit()
    os.sched_setaffinity(0, {options.client_core})
    versions = {peer: version(PEERS[peer], options.pythons[peer]) for peer in options.peers}
    about: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": _cpu_model(), "cores": os.cpu_count(), "kernel": platform.release()},
        "python": platform.python_version(),
        "interpreters": options.pythons,
        "versions": versions,
        "rounds": options.rounds,
        "seconds": options.settings.seconds,
        "connections": options.settings.connections,
    }
    print(
        f"CPython {about['python']}, {about['machine']['cpu']}, {options.rounds} rounds of "
        f"{options.settings.seconds:g} s, {options.settings.connections} connections\n",
        flush=True,
    )
    results: dict[str, dict[str, Result]] = {}
    status = 0
    try:
        for name in options.workloads:
            results[name] = {peer: Result() for peer in options.peers}
            measure(options, WORKLOADS[name], results[name])
            print(table(WORKLOADS[name], results[name], versions, OURS), flush=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
        if any(result.samples for result in results[name].values()):
            print(table(WORKLOADS[name], results[name], versions, OURS), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(WORKLOADS, results, OURS, about), indent=2) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())

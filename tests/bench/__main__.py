"""Command line of the benchmarks: ``python -m tests.bench``, from the root of the checkout."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import page
from .environments import CHECKOUT, Interpreter, prepare
from .errors import BenchError, UnsupportedError
from .peers import PEERS, Server, version
from .report import Result, summary, table, to_json
from .workload import IDLE_CONNECTIONS, Settings, Workload
from .workloads import FILES, HTTP, HTTP2, LATENCY, TABLE, TLS, WEBSOCKET, WORKLOADS

# A server that failed this often in a workload is not asked again in the remaining rounds.
_FAILURES_MAX = 2
# Names that stand for several workloads.
_GROUPS = {
    "table": TABLE,
    "http": HTTP,
    "ws": WEBSOCKET,
    "h2": HTTP2,
    "tls": TLS,
    "latency": LATENCY,
    "files": FILES,
    "all": tuple(WORKLOADS),
}
_ENVIRONMENTS = CHECKOUT / ".bench"


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked."""

    peers: list[str]
    workloads: list[str]
    rounds: int
    settings: Settings
    python: str
    """The interpreter that environments are made from."""
    ready: dict[str, str]
    """Interpreter of those servers that need no environment."""
    environments: Path
    json: Path | None
    page: bool
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
        default="table",
        metavar="X,Y",
        help=f"workloads; {', '.join(_GROUPS)} mean several (default: table)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement (default: %(default)g)")
    parser.add_argument("--connections", type=int, default=64, help="wrk's connections (default: %(default)s)")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="[PEER=]PATH",
        help="interpreter that the servers' environments are made from (default: the one that runs this), or one that "
        "has a server already; may be repeated",
    )
    parser.add_argument(
        "--environments",
        type=Path,
        default=_ENVIRONMENTS,
        metavar="PATH",
        help="where those environments are, and are left (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the samples there too")
    parser.add_argument(
        "--page", action="store_true", help="write the samples, tables and pictures of the documentation's page"
    )
    given = parser.parse_args(arguments)
    peers: list[str] = given.peers.split(",")
    workloads: list[str] = []
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
    python, ready = sys.executable, {}
    for value in given.python:
        name, _, path = value.rpartition("=")
        if name and name not in PEERS:
            parser.error(f"--python: unknown server {name}")
        if name:
            ready[name] = path
        else:
            python = path
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("warning: one core only; server and load share it, so the rates mean nothing", file=sys.stderr)
    return Options(
        peers=list(dict.fromkeys(peers)),
        workloads=list(dict.fromkeys(workloads)),
        rounds=given.rounds,
        settings=Settings(seconds=given.seconds, connections=given.connections),
        python=python,
        ready=ready,
        environments=given.environments.absolute(),
        json=given.json,
        page=given.page,
        server_core=cores[0],
        client_core=cores[-1 if len(cores) < 3 else 1],
    )


def measure(
    options: Options, workload: Workload, pythons: Mapping[str, Interpreter], results: dict[str, Result]
) -> None:
    """Run all rounds of one workload: every server in turn, then again. Adds to `results` as it goes."""
    rounds = min(options.rounds, workload.rounds or options.rounds)
    for peer in results:
        results[peer].unsupported = pythons[peer].missing
    for turn in range(rounds):
        for peer, result in results.items():
            if result.unsupported or len(result.failures) >= _FAILURES_MAX:
                continue
            print(f"{workload.name} {turn + 1}/{rounds} {peer}", file=sys.stderr, flush=True)
            try:
                result.samples.append(_once(options, workload, peer, pythons[peer].path))
            except UnsupportedError as error:
                print(f"  skipped: {error}", file=sys.stderr, flush=True)
                result.unsupported = str(error)
            except BenchError as error:
                print(f"  failed: {error}", file=sys.stderr, flush=True)
                result.failures.append(str(error))


def _once(options: Options, workload: Workload, peer: str, python: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        server = Server(
            PEERS[peer],
            python=python,
            core=options.server_core,
            directory=Path(directory),
            access_log=workload.access_log,
            protocol=workload.protocol,
            static=workload.static,
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
    """Run the benchmarks; return the exit status: 0, 2 if it cannot begin, 130 if interrupted (but reported)."""
    if sys.platform != "linux":
        print("the benchmarks read /proc and set CPU affinity: Linux only", file=sys.stderr)
        return 2
    options = parse(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminated)
    _raise_file_limit()
    made = [peer for peer in options.peers if peer not in options.ready and PEERS[peer].program is None]
    pythons = {peer: Interpreter(path) for peer, path in options.ready.items()}
    pythons |= {peer: _installed(program) for peer in options.peers if (program := PEERS[peer].program) is not None}
    try:
        pythons |= prepare(options.environments, options.python, made)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    versions = {peer: version(PEERS[peer], pythons[peer].path) for peer in options.peers}
    about: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {"cpu": _cpu_model(), "cores": os.cpu_count(), "kernel": platform.release()},
        "python": _version_of(options.python),
        "versions": versions,
        "rounds": options.rounds,
        "seconds": options.settings.seconds,
        "connections": options.settings.connections,
    }
    os.sched_setaffinity(0, {options.client_core})
    print(
        f"CPython {about['python']}, {about['machine']['cpu']}, {options.rounds} rounds of "
        f"{options.settings.seconds:g} s, {options.settings.connections} connections\n",
        flush=True,
    )
    results: dict[str, dict[str, Result]] = {}
    status = 0
    try:
        for name in options.workloads:
            results[name] = {peer: Result() for peer in options.peers if WORKLOADS[name].is_for(PEERS[peer])}
            measure(options, WORKLOADS[name], pythons, results[name])
            _show(name, results, versions)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
        if any(result.samples for result in results[name].values()):
            _show(name, results, versions)
    print(f"### summary\n\n{summary([WORKLOADS[name] for name in results], results)}", flush=True)
    data = to_json(results, about)
    if options.json is not None:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    if options.page and not status:
        page.update(data)
    return status


def _installed(program: str) -> Interpreter:
    return Interpreter(program, None if shutil.which(program) else "not installed")


def _commit() -> str:
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _show(name: str, results: Mapping[str, Mapping[str, Result]], versions: Mapping[str, str | None]) -> None:
    for shown in WORKLOADS[name].shown:
        print(table(shown, results[name], versions), flush=True)


def _version_of(python: str) -> str:
    command = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

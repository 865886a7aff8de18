"""Run the conformance suite against other servers, each in an environment of its own, and keep what comes of it.

    python -m tests.conformance.peers --environments DIRECTORY [NAME...]

writes `docs/reference/conformance.json`; of the servers that are not named, what it has stays. Then
`python docs/generate_conformance.py` writes the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import importlib.metadata
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daphne_ng.testing.conformance import Launcher, Limits, NotStarted, Result, report, run, select
from daphne_ng.testing.conformance.core import CARRIERS, FAILED, PASSED, PROCESS, SKIPPED, TCP, TLS, UNIX

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "reference" / "conformance.json"

# Over TLS everything is checked, because some servers speak HTTP/2 there alone. These are the groups that a UNIX socket
# and several workers can change. Of the lifespan with workers, what is true of each worker: an idle one may start before
# another, and end while a request runs in another.
OF_UNIX = ["scope", "tls", "disconnect", "send", "websocket"]
OF_WORKERS = [
    *("scope", "request"),
    *("lifespan.scope", "lifespan.state", "lifespan.startup", "lifespan.once-per-loop"),
]
WORKERS = "tcp with 2 workers"


@dataclass(frozen=True)
class Peer:
    """A server and its command lines; ``{bin}`` is the directory of its programs."""

    package: str
    requirements: tuple[str, ...]
    server: str
    tls: str
    unix: str
    workers: str = ""
    """The options of `server` that start two workers; empty if it has none."""


PEERS = {
    "daphne-ng": Peer(
        "daphne-ng",
        (),
        "{bin}/python -m daphne_ng --port {port} {app}",
        "{bin}/python -m daphne_ng -e ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={cert} {app}",
        "{bin}/python -m daphne_ng -u {socket} {app}",
        workers="--workers 2",
    ),
    "uvicorn": Peer(
        "uvicorn",
        ("uvicorn[standard]",),
        "{bin}/uvicorn --port {port} {app}",
        "{bin}/uvicorn --port {port} --ssl-keyfile {key} --ssl-certfile {cert} {app}",
        "{bin}/uvicorn --uds {socket} {app}",
        workers="--workers 2",
    ),
    "hypercorn": Peer(
        "hypercorn",
        ("hypercorn",),
        "{bin}/hypercorn -b 127.0.0.1:{port} {app}",
        "{bin}/hypercorn -b 127.0.0.1:{port} --keyfile {key} --certfile {cert} {app}",
        "{bin}/hypercorn -b unix:{socket} {app}",
        workers="--workers 2",
    ),
    "granian": Peer(
        "granian",
        ("granian",),
        "{bin}/granian --interface asgi --port {port} {app}",
        "{bin}/granian --interface asgi --port {port} --ssl-keyfile {key} --ssl-certificate {cert} {app}",
        "{bin}/granian --interface asgi --uds {socket} {app}",
        workers="--workers 2",
    ),
    "h2corn": Peer(
        "h2corn",
        ("h2corn",),
        "{bin}/h2corn -b 127.0.0.1:{port} {app}",
        "{bin}/h2corn -b 127.0.0.1:{port} --keyfile {key} --certfile {cert} {app}",
        "{bin}/h2corn -b unix:{socket} {app}",
        workers="--workers 2",
    ),
    "gunicorn": Peer(
        "gunicorn",
        ("gunicorn[http2]", "h2"),
        "{bin}/gunicorn -k asgi -b 127.0.0.1:{port} {app}",
        "{bin}/gunicorn -k asgi --http-protocols h2,h1 -b 127.0.0.1:{port} --keyfile {key} --certfile {cert} {app}",
        "{bin}/gunicorn -k asgi -b unix:{socket} {app}",
        workers="--workers 2",
    ),
    "peregrine-server": Peer(
        "peregrine-server",
        ("peregrine-server",),
        "{bin}/peregrine --port {port} {app}",
        "{bin}/peregrine --port {port} --tls-key {key} --tls-cert {cert} {app}",
        "{bin}/peregrine --unix {socket} {app}",
        workers="--workers 2",
    ),
    "daphne": Peer(
        "daphne",
        ("daphne", "twisted[tls,http2]"),
        "{bin}/daphne -p {port} {app}",
        "{bin}/daphne -e ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={cert} {app}",
        "{bin}/daphne -u {socket} {app}",
    ),
}


def programs(peer: Peer, directory: Path) -> tuple[Path, str]:
    """Return where a peer's programs are, installing them first, and its version."""
    if not peer.requirements:
        return Path(sys.executable).parent, importlib.metadata.version(peer.package)
    where = directory / peer.package
    if not where.exists():
        subprocess.run([sys.executable, "-m", "venv", where], check=True)
        subprocess.run([where / "bin" / "pip", "install", "--quiet", *peer.requirements], check=True)
    code = f"import importlib.metadata; print(importlib.metadata.version({peer.package!r}))"
    version = subprocess.run([where / "bin" / "python", "-c", code], check=True, capture_output=True, text=True)
    return where / "bin", version.stdout.strip()


def with_workers(peer: Peer) -> str:
    """Return the command line that starts two workers."""
    return peer.server.replace("{app}", f"{peer.workers} {{app}}")


def check(peer: Peer, directory: Path, jobs: int) -> tuple[dict[str, Any], list[Result]]:
    """Return what is published of one peer, and what it is taken from."""
    where, version = programs(peer, directory)
    results: list[Result] = []
    notes: list[str] = []
    of_connections = [name for name in CARRIERS if name != PROCESS]
    parts = [
        (TCP, TCP, peer.server, (), CARRIERS),
        (TLS, TLS, peer.tls, (), of_connections),
        (UNIX, UNIX, peer.unix, OF_UNIX, of_connections),
    ]
    if peer.workers:
        parts.append((WORKERS, TCP, with_workers(peer), OF_WORKERS, CARRIERS))
    for name, site, command, only, carriers in parts:
        launcher = Launcher(site, command.replace("{bin}", str(where)), stop_seconds=10.0)
        try:
            found = run({site: launcher}, select(only), carriers=carriers, jobs=jobs, limits=Limits())
        except NotStarted as error:
            notes.append(f"{name}: did not start: {str(error)[-200:]}")
        else:
            results += [dataclasses.replace(result, site=name) for result in found]
    content = {
        "version": version,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "python": platform.python_version(),
        "requirements": list(peer.requirements),
        "commands": {name: command.replace("{bin}/", "") for name, _, command, _, _ in parts},
        "carriers": sorted({f"{result.carrier} over {result.site}" for result in results}),
        "notes": notes,
        "results": by_statement(results),
    }
    return content, results


def by_statement(results: list[Result]) -> dict[str, dict[str, Any]]:
    """Return for each statement what came of it on all carriers together, and the reasons."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(result.statement for result in results):
        mine = [result for result in results if result.statement == name]
        failed = [result for result in mine if result.outcome == FAILED]
        passed = [result for result in mine if result.outcome == PASSED]
        outcome = FAILED if failed else PASSED if passed else SKIPPED
        entry: dict[str, Any] = {"outcome": outcome}
        if failed:
            entry["failed"] = {f"{result.carrier} over {result.site}": result.reason for result in failed}
            entry["passed"] = [f"{result.carrier} over {result.site}" for result in passed]
        found[name] = entry
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    content = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in options.names or PEERS:
        content[name], results = check(PEERS[name], options.environments, options.jobs)
        print(name, content[name]["version"], report.counts(results), *content[name]["notes"], flush=True)
        ordered = {known: content[known] for known in PEERS if known in content}
        options.output.write_text(json.dumps(ordered, indent=1, ensure_ascii=False, sort_keys=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()

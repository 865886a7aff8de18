"""Run ``h2load`` and read its report; ask for single answers over HTTP/2 with ``curl``."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .client import HOST
from .errors import BenchError, UnsupportedError

_FINISHED = re.compile(r"^finished in ([\d.]+)(us|ms|s|m|h), ", re.MULTILINE)
_REQUESTS = re.compile(
    r"^requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout",
    re.MULTILINE,
)
_STATUSES = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.MULTILINE)
_DATA = re.compile(r"^traffic: .*, \S+ \((\d+)\) data$", re.MULTILINE)
_PROTOCOL = re.compile(r"^Application protocol: (\S+)", re.MULTILINE)
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

# Servers differ in whether their own order of preference or the client's decides. With one suite offered, all encrypt
# the same way; AES-128 because it is the first that h2load and browsers offer.
_CIPHERS = ("--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--ciphers=ECDHE-ECDSA-AES128-GCM-SHA256")
# As browsers: a stream's window of 8 MiB and 16 MiB for the connection (2 ** bits - 1). By default h2load opens 1 GiB,
# with which a server never meets flow control.
_WINDOWS = ("-w", "23", "-W", "24")
# h2load stops by itself; this only bounds one that does not.
_TIMEOUT_SECONDS = 180.0
_PROBE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class H2loadReport:
    """The numbers of one run in which every request was answered with 2xx over the wanted protocol."""

    requests: int
    wall: float
    """Seconds from the first connection to the last answer."""
    data: int
    """Bytes of all bodies that came."""
    client: float = 0.0
    """CPU seconds of h2load itself."""


def parse(output: str, wanted: str = "h2") -> H2loadReport:
    """Read what h2load printed.

    Raises:
        BenchError: It is not a whole report, some requests were not answered with 2xx, or not over the protocol
            `wanted`. For HTTP/1.1, answers without a reason phrase are good: check `H2loadReport.data`.
    """
    finished, requests, statuses, data = (
        pattern.search(output) for pattern in (_FINISHED, _REQUESTS, _STATUSES, _DATA)
    )
    if finished is None or requests is None or statuses is None or data is None:
        raise BenchError(f"no report from h2load: {output.strip()[-200:] or 'empty output'}")
    total, done, succeeded, failed, errored, timeout = map(int, requests.groups())
    good, *bad = map(int, statuses.groups())
    if wanted != "h2" and done == total and not (errored or timeout or any(bad)):
        # It misses the status where the reason phrase is empty, as h11 writes it, and takes the request for failed.
        succeeded = good = done
    if not total or succeeded != total or good != total:
        raise BenchError(
            f"{good} of {total} responses were 2xx ({failed} failed, {errored} errored, {timeout} timeout)"
        )
    # Absent with cleartext only.
    protocol = _PROTOCOL.search(output)
    if protocol is None or protocol[1] != wanted:
        raise BenchError(f"h2load spoke {protocol[1] if protocol else 'an unknown protocol'}, not {wanted}")
    return H2loadReport(total, float(finished[1]) * _UNITS[finished[2]], int(data[1]))


def run(
    port: int,
    paths: Sequence[str],
    *,
    requests: int,
    connections: int,
    streams: int,
    headers: Mapping[str, str] | None = None,
    body: Path | None = None,
    http1: bool = False,
) -> H2loadReport:
    """Ask for `paths` in turn, `requests` times in all, from one thread, over TLS.

    Args:
        port: On the loopback address.
        paths: Each connection asks for all of them, then begins again.
        requests: At least `connections`.
        connections: All opened at the start and kept.
        streams: Requests in flight on each connection.
        headers: Sent with every request, beside those that HTTP/2 demands.
        body: File that every request POSTs; GET without.
        http1: HTTP/1.1 instead of HTTP/2; `streams` must be 1, because it would pipeline.

    Raises:
        BenchError: h2load is missing or failed, or not every response was 2xx.
    """
    command = [_program("h2load"), "-t", "1", "-c", str(connections), "-m", str(streams), "-n", str(requests)]
    command += [*_CIPHERS, *_WINDOWS]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name.lower()}: {value}"]
    command += ["-d", str(body)] if body is not None else []
    command += ["--h1"] if http1 else []
    before = _children_cpu()
    done = _run([*command, *(_url(port, path) for path in paths)], _TIMEOUT_SECONDS)
    report = parse(done, "http/1.1" if http1 else "h2")
    return H2loadReport(report.requests, report.wall, report.data, _children_cpu() - before)


def ask(
    port: int, path: str, directory: Path, headers: Mapping[str, str] | None = None, body: Path | None = None
) -> tuple[int, dict[str, str], Path]:
    """Make one request over HTTP/2; return the status, the header fields (names in lower case) and the body's file.

    Args:
        port: On the loopback address.
        path: What to ask for.
        directory: Where files may be written. The next call overwrites the body.
        headers: Sent beside curl's own.
        body: File to POST; GET without.

    Raises:
        UnsupportedError: The server negotiated another protocol.
        BenchError: curl is missing, cannot speak HTTP/2, or failed.
    """
    head, answer = directory / "head.txt", directory / "answer"
    answer.write_bytes(b"")
    command = [_program("curl"), "--silent", "--show-error", "--insecure", "--noproxy", "*", "--http2"]
    command += ["--max-time", str(_PROBE_SECONDS), "--dump-header", str(head), "--output", str(answer)]
    command += ["--write-out", "%{http_version} %{response_code}"]
    for name, value in (headers or {}).items():
        command += ["--header", f"{name}: {value}"]
    command += ["--data-binary", f"@{body}"] if body is not None else []
    protocol, _, status = _run([*command, _url(port, path)], _PROBE_SECONDS + 5.0).partition(" ")
    if protocol != "2":
        raise UnsupportedError(f"it answered over HTTP/{protocol} and not HTTP/2")
    fields = (line.partition(":") for line in head.read_text("latin-1").splitlines()[1:])
    return int(status), {name.lower(): value.strip() for name, _, value in fields if name}, answer


def _url(port: int, path: str) -> str:
    return f"https://{HOST}:{port}{path}"


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _program(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise BenchError(f"{name} is not installed")
    return program


def _run(command: Sequence[str], seconds: float) -> str:
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name} did not end in time") from None
    if done.returncode:
        raise BenchError(f"{name} failed: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout

"""Run ``wrk`` and read its report."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import BenchError

_REQUESTS = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s*([\d.]+)", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s*(\d+)(?:\.\d+)?%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_BAD_STATUS = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

# wrk stops by itself; this only bounds a wrk that does not.
_GRACE_SECONDS = 30.0
# By then it has its handler of SIGINT.
_SECONDS_MIN = 0.2


@dataclass(frozen=True, slots=True)
class WrkReport:
    """The numbers of one run."""

    requests: int
    rate: float
    """Requests per second."""
    latency: Mapping[int, float]
    """Seconds by percentile; empty when wrk ran without ``--latency``."""
    socket_errors: int
    bad_statuses: int


def parse(output: str) -> WrkReport:
    """Read what ``wrk --latency`` printed.

    Raises:
        BenchError: It is not a whole report.
    """
    requests, rate = _REQUESTS.search(output), _RATE.search(output)
    if requests is None or rate is None:
        raise BenchError(f"no report from wrk: {output.strip()[-200:] or 'empty output'}")
    errors, statuses = _ERRORS.search(output), _BAD_STATUS.search(output)
    return WrkReport(
        requests=int(requests[1]),
        rate=float(rate[1]),
        latency={int(percent): float(value) * _UNITS[unit] for percent, value, unit in _PERCENTILE.findall(output)},
        socket_errors=sum(map(int, errors.groups())) if errors else 0,
        bad_statuses=int(statuses[1]) if statuses else 0,
    )


def script(method: str, headers: Mapping[str, str], body: bytes) -> str:
    """Return the Lua script for one constant request. wrk adds Host and Content-Length itself."""
    lines = [f"wrk.method = {_quoted(method.encode())}", f"wrk.body = {_quoted(body)}"]
    lines += [f"wrk.headers[{_quoted(name.encode())}] = {_quoted(value.encode())}" for name, value in headers.items()]
    return "\n".join(lines) + "\n"


def _quoted(text: bytes) -> str:
    plain = b"".join(b"\\%03d" % byte if byte in b'"\\' or not 32 <= byte < 127 else bytes([byte]) for byte in text)
    return f'"{plain.decode("ascii")}"'


def run(
    url: str,
    *,
    seconds: float,
    connections: int,
    lua: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> WrkReport:
    """Load `url` from one thread for `seconds`, in the given or in this environment.

    Raises:
        BenchError: wrk is missing or failed, or a response was not 2xx or 3xx.
    """
    program = shutil.which("wrk")
    if program is None:
        raise BenchError("wrk is not installed")
    # It takes whole seconds only, but reports at SIGINT as at the end of its time.
    command = [program, "-t", "1", "-c", str(connections), "-d", f"{int(seconds) + 2}s", "--latency"]
    command += ["-s", str(lua)] if lua is not None else []
    with subprocess.Popen(
        [*command, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(seconds, _SECONDS_MIN))
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            raise BenchError("wrk did not end in time") from None
        finally:
            process.kill()
    if process.returncode:
        raise BenchError(f"wrk failed: {(errors or output).strip()[-200:]}")
    report = parse(output)
    if report.bad_statuses:
        raise BenchError(f"{report.bad_statuses} of {report.requests} responses were not 2xx or 3xx")
    return report

"""Run the Autobahn TestSuite against daphne-ng: ``python tests/autobahn/run.py``. See README.md here."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
AGENT = "daphne-ng"

# Outcomes of a case and of its closing handshake that pass. The others are FAILED, UNCLEAN, WRONG CODE, FAILED BY
# CLIENT, and UNIMPLEMENTED, which says that the server did not agree to compression.
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}

START_SECONDS = 30
STOP_SECONDS = 15
INSTALL_SECONDS = 600

# What nobody caught in the server.
COMPLAINT = re.compile(r"^.*(?:Traceback|Unhandled|Exception ignored|never retrieved|never awaited).*$", re.M)


class SuiteError(Exception):
    """The suite did not run to its end."""


def install(environment: Path) -> Path:
    """Make the suite's virtual environment, unless it is there, and return its interpreter."""
    python = environment / "bin" / "python"
    requirements = HERE / "requirements.txt"
    stamp = environment / "requirements.txt"
    wanted = f"# {sys.version}\n{requirements.read_text()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(environment, ignore_errors=True)
    # pip is this interpreter's own. The second command builds source distributions with the setuptools of the first.
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", str(environment)],
        [*pip, "--constraint", str(requirements), "setuptools"],
        [*pip, "--no-build-isolation", "--requirement", str(requirements)],
    ):
        try:
            subprocess.run(command, check=True, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL)
        except (subprocess.SubprocessError, OSError) as error:
            raise SuiteError(f"cannot install the Autobahn TestSuite: {error}") from error
    stamp.write_text(wanted)
    return python


@contextlib.contextmanager
def server(log_path: Path) -> Iterator[str]:
    """Serve the echo application, and stop it at the end.

    Raises:
        SuiteError: It did not start, did not end with 0, or logged an exception that nobody caught.
    """
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "serve.py")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(START_SECONDS) else b""
        if not line.strip().isdigit():
            raise SuiteError(f"the server did not start:\n{log_path.read_text(errors='replace')}")
        yield f"ws://127.0.0.1:{int(line)}"
        if process.poll() is not None:
            raise SuiteError(f"the server ended by itself:\n{log_path.read_text(errors='replace')[-4000:]}")
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise SuiteError(f"the server did not stop in {STOP_SECONDS} s") from None
        if code != 0:
            raise SuiteError(f"the server ended with {code}")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if complaints := COMPLAINT.findall(log_path.read_text(errors="replace")):
        raise SuiteError(f"{len(complaints)} complaints in {log_path.name}, the first: {complaints[0]}")


def fuzz(python: Path, url: str, options: argparse.Namespace, out: Path) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Run the clients until no case is left, and return the cases and their results.

    Raises:
        SuiteError: A client failed, or time is up.
    """
    claims = out / "claims"
    claims.mkdir()
    spec = {
        "servers": [{"agent": AGENT, "url": url}],
        "cases": options.cases,
        "exclude-cases": options.exclude,
        "exclude-agent-cases": {},
        "claims": str(claims),
    }

    def start(name: str, **more: Any) -> subprocess.Popen[bytes]:
        folder = out / name
        folder.mkdir()
        path = folder / "spec.json"
        path.write_text(json.dumps({**spec, **more, "outdir": str(folder)}, indent=2))
        with (folder / "log.txt").open("wb") as log:
            return subprocess.Popen(
                [str(python), "-I", str(HERE / "wstest3.py"), str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    clients: dict[str, subprocess.Popen[bytes]] = {"list": start("list", expect=True)}
    deadline = time.monotonic() + options.timeout
    try:
        wait(clients, out, deadline, "")
        cases: list[str] = json.loads((out / "list" / "cases.json").read_text())
        names = [f"client{i + 1}" for i in range(min(options.clients, len(cases)))]
        clients = {name: start(name) for name in names}
        wait(clients, out, deadline, f"of {len(cases)} cases")
    finally:
        for client in clients.values():
            client.kill()
            client.wait()

    results: dict[str, dict[str, Any]] = {}
    for name in names:
        report = json.loads((out / name / "index.json").read_text()).get(AGENT, {})
        for case, result in report.items():
            results[case] = {**result, "reportfile": out / name / result["reportfile"]}
    return cases, results


def wait(clients: dict[str, subprocess.Popen[bytes]], out: Path, deadline: float, progress: str) -> None:
    """Wait for all clients, and say each minute how far they are.

    Raises:
        SuiteError: A client failed, or time is up.
    """
    told = time.monotonic()
    running = True
    while running:
        time.sleep(0.2)
        running = any(client.poll() is None for client in clients.values())
        for name, client in clients.items():
            log = (out / name / "log.txt").read_text(errors="replace")
            # An exception in a case only reaches the log: the client would wait for ever, or blame the server.
            if client.returncode or "Traceback" in log:
                raise SuiteError(f"{name} of the suite failed ({client.returncode}):\n{log[-4000:]}")
        now = time.monotonic()
        if running and now > deadline:
            raise SuiteError(f"not done in time: {len(os.listdir(out / 'claims'))} {progress} begun")
        if progress and now - told > 60:
            told = now
            print(f"... {len(os.listdir(out / 'claims'))} {progress}", flush=True)


def judge(cases: list[str], results: dict[str, dict[str, Any]], show: bool) -> int:
    """Print the outcomes, and return how many cases failed."""
    failed = 0
    for case in cases:
        result = results.get(case)
        if result is None:
            failed += 1
            print(f"Case {case}: no result")
            continue
        bad = not {result["behavior"], result["behaviorClose"]} <= GOOD
        failed += bad
        if bad or show:
            detail = json.loads(result["reportfile"].read_text())
            print(f"Case {case}: {result['behavior']}, closing {result['behaviorClose']}")
            print(f"    {detail['result']} {detail['resultClose']}")
            print(f"    Report: {result['reportfile']}")
    for title, key in (("Outcomes", "behavior"), ("Closing", "behaviorClose")):
        counts = collections.Counter(result[key] for result in results.values())
        print(f"{title}: " + ", ".join(f"{outcome} {count}" for outcome, count in counts.most_common()))
    for outcome in ("NON-STRICT", "INFORMATIONAL"):
        if named := [case for case in cases if case in results and results[case]["behavior"] == outcome]:
            print(f"{outcome}: {' '.join(named)}")
    return failed


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="PATTERN", help="such as 6.* or 12.1.1")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="PATTERN", help="cases to leave out")
    parser.add_argument("--clients", type=int, default=3, help="fuzzing clients at once (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for all cases (default: %(default)g)")
    parser.add_argument("--url", help="test the server at this ws:// URL instead of starting one")
    parser.add_argument("--show", action="store_true", help="print every case, not only those that failed")
    parser.add_argument("--output", type=Path, help="folder for reports and logs, emptied first (default: temporary)")
    parser.add_argument(
        "--environment", type=Path, help="folder of the suite's virtual environment, kept for next time"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autobahn-")))
        out = (options.output or scratch / "reports").absolute()
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        try:
            python = install((options.environment or scratch / "environment").absolute())
            began = time.monotonic()
            with server(out / "server.log") if options.url is None else contextlib.nullcontext(options.url) as url:
                cases, results = fuzz(python, url, options, out)
            seconds = time.monotonic() - began
        except SuiteError as error:
            print(f"Autobahn TestSuite: {error}", file=sys.stderr)
            return 2
        if not cases:
            print("No case has such a number.", file=sys.stderr)
            return 2
        failed = judge(cases, results, options.show)
        print(f"Autobahn TestSuite: {len(cases)} cases in {seconds:.0f} s")
        print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end what was started
    sys.exit(main())

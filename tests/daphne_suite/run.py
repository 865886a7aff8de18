"""Run Daphne's own tests against daphne-ng: ``python tests/daphne_suite/run.py``. See README.md here."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "4.2.3"

DOWNLOAD_SECONDS = 300
SUITE_SECONDS = 1500

PYTEST_INI = """\
[pytest]
daphne_ng_install_as_daphne = true
"""


class SuiteError(Exception):
    """The suite could not be run."""


def unpack(version: str, directory: Path) -> Path:
    """Get the source distribution of Daphne, and return the directory in which it is unpacked."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "daphne"]
    command += ["--dest", str(directory), f"daphne=={version}"]
    try:
        subprocess.run(command, check=True, timeout=DOWNLOAD_SECONDS, stdin=subprocess.DEVNULL)
        (archive,) = directory.glob("daphne-*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(directory, filter="data")
    except (subprocess.SubprocessError, OSError, ValueError, tarfile.TarError) as error:
        raise SuiteError(f"cannot get the source distribution of Daphne {version}: {error}") from error
    return directory / f"daphne-{version}"


def left_out() -> dict[str, str]:
    """Return the ids that are not run, and why."""
    found = {}
    for line in (HERE / "deselect.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            node, mark, reason = line.partition(" # ")
            if not (mark and reason.strip()):
                raise SuiteError(f"deselect.txt gives no reason for {node}")
            found[node] = reason.strip()
    return found


def pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in the directory of the suite."""
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(directory / "tmp")}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "--collect-only" in arguments else None,
        timeout=SUITE_SECONDS,
        check=False,
    )


def prepare(source: Path, directory: Path) -> None:
    """Put the tests, and nothing else of Daphne, where they will be run."""
    shutil.copytree(source / "tests", directory / "tests")
    (directory / "tmp").mkdir()
    (directory / "pytest.ini").write_text(PYTEST_INI)


def run(directory: Path, skipped: dict[str, str], more: list[str]) -> int:
    """Run the suite, and return the exit code."""
    ignored = [f"--ignore={node}" for node in skipped if "::" not in node]
    collected = pytest(directory, "-q", "--collect-only", *ignored)
    nodes = collected.stdout.split()
    if collected.returncode:
        raise SuiteError(f"the tests cannot be collected:\n{collected.stdout}")
    for node in skipped:
        if node not in nodes and not ("::" not in node and (directory / node).is_file()):
            raise SuiteError(f"deselect.txt names {node}, which does not exist")
    arguments = [*ignored, *(f"--deselect={node}" for node in skipped if "::" in node), *more]
    first = pytest(directory, "-q", *arguments)
    if first.returncode != 1:
        return first.returncode
    # The tests give a server one second for an answer: on a machine that is busy, some need another try.
    print("Once more, those that failed:", flush=True)
    return pytest(directory, "-q", "--last-failed", "--last-failed-no-failures=none", *arguments).returncode


def beside(source: Path, directory: Path) -> int:
    """Run our own tests with Daphne importable, and return the exit code."""
    directory.mkdir()
    shutil.copy(HERE / "beside_daphne.py", directory)
    (directory / "pytest.ini").write_text("[pytest]\n")  # not ours
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "beside_daphne.py"]
    return subprocess.run(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, timeout=SUITE_SECONDS, check=False
    ).returncode


def browse(source: Path, directory: Path) -> int:
    """Run the live project, with a browser and with Daphne importable, and return the exit code."""
    if not (shutil.which("chromium") or shutil.which("google-chrome")) and not os.environ.get("CI"):
        print("Without a browser: neither chromium nor google-chrome is installed", flush=True)
        return 0
    directory.mkdir()
    root = HERE.parents[1]
    variables = {
        "LIVE_DATA": str(directory),
        "LIVE_INSTALL": "none",
        "LIVE_START_METHOD": "spawn",
        "PYTHONPATH": os.pathsep.join([str(source), str(root)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "manage.py", "test", "live"],
        cwd=root / "tests" / "integration" / "live_project",
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        timeout=SUITE_SECONDS,
        check=False,
    ).returncode


@contextlib.contextmanager
def work_directory() -> Iterator[Path]:
    """A directory that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="daphne-suite-") as name:
        yield Path(name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Other arguments are pytest's.")
    parser.add_argument("--version", default=VERSION, help="of Daphne (default: %(default)s)")
    parser.add_argument("--source", type=Path, help="unpacked source distribution, instead of a download")
    options, more = parser.parse_known_args(arguments)
    with work_directory() as directory:
        try:
            source = (options.source or unpack(options.version, directory)).resolve()
            skipped = left_out()
            suite = directory / "suite"
            prepare(source, suite)
            code = run(suite, skipped, more)
            print(f"Left out, with reasons in deselect.txt: {len(skipped)}", flush=True)
            return code or beside(source, directory / "beside") or browse(source, directory / "browse")
        except (SuiteError, subprocess.TimeoutExpired) as error:
            print(f"Daphne's tests: {error}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())

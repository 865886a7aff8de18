"""Ask pip whether versions exist that fit beside daphne-ng: ``python tests/resolution/run.py``. Needs an index.

Each line of `TOGETHER` is what a project may list beside us. pip resolves it, with the metadata of this checkout, and
installs nothing. Requirements that do not exclude each other stand in one line, to save time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300

# What Daphne's own README tells its users to install, beside every Twisted that we take.
TWISTED = ["24.3", "24.11", "25.5", "26.4", "26.10"]

TOGETHER: dict[str, list[str]] = {
    **{f"Twisted {version} with its extras": [f"twisted[conch,http2,serial,tls]~={version}.0"] for version in TWISTED},
    "the usual neighbours, newest": [
        "twisted[all_non_platform]",
        "channels[daphne]",
        "channels-redis",
        "daphne",
        "django",
        "celery",
        "hypercorn",
        "httpx[http2]",
        "uvicorn[standard]",
        "autobahn[twisted]",
        "scrapy",
        "gunicorn",
        "djangorestframework",
    ],
    "Django 4.2, oldest Channels": [
        "django~=4.2.0",
        "channels[daphne]==4.0.0",
        "channels-redis==4.0.0",
        "daphne==4.0.0",
    ],
    "Django 5.2": ["django~=5.2.0", "channels[daphne]~=4.2.0", "channels-redis~=4.2.0"],
    "what pip froze for Daphne years ago": [
        "asgiref==3.6.0",
        "django==4.2",
        "h2==4.1.0",
        "hpack==4.0.0",
        "priority==1.3.0",
        "service-identity==21.1.0",
    ],
    "an old Scrapy": ["scrapy==2.12.0"],
}
EXTRAS = "[acme,env,reload]"


def resolves(requirements: list[str]) -> str:
    """Return why pip finds no versions; empty if it does."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--no-input"]
        # Building what has no wheel, to learn its metadata, would take minutes.
        command += ["--only-binary", ":all:", "--report", f"{directory}/report.json"]
        try:
            done = subprocess.run(
                [*command, *requirements],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no answer in {SECONDS} s"
        if not done.returncode:
            return ""
        lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        return "\n".join(lines) or "pip failed"


def main() -> int:
    """Resolve every line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", nargs="?", help="that of daphne-ng; built from the checkout if it is left out")
    parser.add_argument("--only", default="", help="lines whose name has this in it")
    options = parser.parse_args()
    failed = passed = 0
    with tempfile.TemporaryDirectory() as directory:
        wheel = options.wheel
        if wheel is None:
            build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", directory, str(ROOT)]
            subprocess.run(build, check=True, timeout=SECONDS)
            (wheel,) = map(str, Path(directory).glob("*.whl"))
        for name, requirements in TOGETHER.items():
            if options.only not in name:
                continue
            reason = resolves([f"{wheel}{EXTRAS}", *requirements])
            passed += not reason
            failed += bool(reason)
            print(f"{'FAILED' if reason else 'ok'}: {name}", reason, sep="\n" if reason else "", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())

"""A virtual environment for each server, all of one interpreter, so that none decides which versions another gets.

An environment is made once and used again until what goes into it changes: the list of requirements, the interpreter,
or, for daphne-ng, the source of the checkout.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import BenchError
from .peers import COMPILED, OURS, PEERS

CHECKOUT = Path(__file__).parents[2]

_STAMP = "made-from.json"
_MAKE_SECONDS = 900.0
# The build of the compiled wheel is asked for by this variable.
_COMPILE = {"DAPHNE_NG_COMPILE": "1"}
# What makes daphne-ng faster, as `Peer.needs` has it for the others: libraries that compress WebSocket messages.
_OUR_EXTRAS = "deflate"
_COUNT_EXTENSIONS = """\
import importlib.metadata as m
print(sum(file.suffix in (".so", ".pyd") for file in m.files("daphne-ng") or ()))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Where one server is installed, or why it is not."""

    path: str
    missing: str | None = None
    """The reason for which there is no such server here."""


def prepare(root: Path, python: str, names: Iterable[str]) -> dict[str, Interpreter]:
    """Return the interpreter of each server, whose environment is made first where there is none that fits.

    Args:
        root: Directory of the environments.
        python: Interpreter that they are made from.
        names: Keys of `PEERS`.

    Raises:
        BenchError: There is no such interpreter.
    """
    return {name: _prepare(root / name, python, name) for name in names}


def _prepare(directory: Path, python: str, name: str) -> Interpreter:
    path = directory / "bin" / "python"
    stamp, wanted = directory / _STAMP, _made_from(python, name)
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"making the environment of {name}", file=sys.stderr, flush=True)
        stamp.unlink(missing_ok=True)
        environment = os.environ | (_COMPILE if name == COMPILED else {})
        # A server for which there is no wheel is left out: a build from source would want compilers of three languages.
        what = [f"{CHECKOUT}[{_OUR_EXTRAS}]"] if name in OURS else ["--only-binary", ":all:", *PEERS[name].needs]
        for distribution in PEERS[name].built:
            what += ["--no-binary", distribution]
        for command in (
            [python, "-m", "venv", "--clear", str(directory)],
            [str(path), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what],
        ):
            if reason := _failure(command, environment):
                return Interpreter(str(path), f"not installed: {reason}")
        stamp.write_text(wanted)
    if name == COMPILED and not _extensions(path):
        return Interpreter(str(path), "not measured: the build made no compiled modules")
    return Interpreter(str(path))


def _failure(command: list[str], environment: dict[str, str]) -> str:
    """Run a command; return why it failed, or nothing."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_MAKE_SECONDS, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if not done.returncode:
        return ""
    lines = (done.stderr or done.stdout).strip().splitlines()
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:] or ["it failed without a word"]
    return errors[0].removeprefix("ERROR: ")[:200]


def _extensions(python: Path) -> int:
    done = subprocess.run(
        [str(python), "-P", "-c", _COUNT_EXTENSIONS], capture_output=True, text=True, timeout=30, check=False
    )
    return int(done.stdout or 0)


def _made_from(python: str, name: str) -> str:
    try:
        done = subprocess.run([python, "-VV"], capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        raise BenchError(f"no interpreter: {error}") from None
    stamp = {"python": done.stdout.strip(), "needs": [*PEERS[name].needs, *PEERS[name].built]}
    if name in OURS:
        digest = hashlib.sha256()
        for file in _sources():
            digest.update(f"{file.relative_to(CHECKOUT)} {file.stat().st_size}\n".encode() + file.read_bytes())
        stamp["extras"] = _OUR_EXTRAS
        stamp["source"] = digest.hexdigest()
    return json.dumps(stamp)


def _sources() -> Iterator[Path]:
    yield from (CHECKOUT / "pyproject.toml", CHECKOUT / "setup.py")
    yield from sorted((CHECKOUT / "daphne_ng").rglob("*.py"))

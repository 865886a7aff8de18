"""The command line: which servers, which statements, what is written."""

from __future__ import annotations

import argparse
import datetime as dt
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from daphne_ng.testing.conformance import report, suite
from daphne_ng.testing.conformance.case import Limits
from daphne_ng.testing.conformance.core import (
    HTTP1,
    HTTP2,
    LEVELS,
    PROCESS,
    TCP,
    TLS,
    UNIX,
    WEBSOCKET,
    WEBSOCKET2,
    Result,
)
from daphne_ng.testing.conformance.servers import Launcher, NotStarted

PROTOCOLS = {
    "http1": HTTP1,
    "http2": HTTP2,
    "websocket": WEBSOCKET,
    "websocket2": WEBSOCKET2,
    "process": PROCESS,
}

_EXAMPLE = """\
The command lines may have the placeholders {app}, {host}, {port}, {socket}, {cert}, {key} and {ca}, for example:

  python -m daphne_ng.testing.conformance --server "uvicorn --port {port} {app}"

Exit code: 0 if every statement that must hold does, 1 if one does not, 2 if the server did not start.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    made = argparse.ArgumentParser(
        prog="python -m daphne_ng.testing.conformance",
        description="Check an ASGI server against the specification, statement by statement",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = made.add_argument
    option("--server", metavar="COMMAND", help="command line that serves {app} on {port}")
    option("--tls-server", metavar="COMMAND", help="the same with TLS: {cert}, {key}, and {ca} if it can ask clients")
    option("--unix-server", metavar="COMMAND", help="the same on the UNIX socket {socket}")
    option(
        "--protocols",
        metavar="LIST",
        default=",".join(PROTOCOLS),
        help="what is checked, separated by commas; HTTP/2 is left out if the server does not speak it "
        "(default: %(default)s)",
    )
    option(
        "--only",
        metavar="NAME",
        action="append",
        default=[],
        help="a statement, or a group such as websocket; may be repeated",
    )
    option(
        "--level",
        action="append",
        choices=LEVELS,
        default=[],
        help="check statements of this level only; may be repeated",
    )
    option("--list", action="store_true", help="print the statements and check nothing")
    option("--json", metavar="FILE", type=Path, help="write the results as JSON")
    option("--markdown", metavar="FILE", type=Path, help="write the results as Markdown")
    option("--name", metavar="TEXT", default="", help="the server's name and version, for the reports")
    option("--failures", action="store_true", help="print failures only")
    option("--jobs", metavar="N", type=int, default=4, help="checks at the same time (default: %(default)s)")
    for name, seconds, what in (
        ("--answer-timeout", 5.0, "for what has to come"),
        ("--quiet-time", 0.3, "after which nothing is taken to have come"),
        ("--start-timeout", 30.0, "for the server to answer"),
        ("--stop-timeout", 15.0, "for the server to end"),
    ):
        option(name, metavar="SECONDS", type=float, default=seconds, help=f"{what} (default: %(default)s)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite and return the exit code."""
    made = parser()
    options = made.parse_args(arguments)
    try:
        chosen = suite.select(options.only, options.level)
        carriers = [PROTOCOLS[name.strip()] for name in options.protocols.split(",")]
    except ValueError as error:
        made.error(str(error))
    except KeyError as error:
        made.error(f"no protocol is called {error}")
    if options.list:
        for statement in chosen:
            _print(f"{statement.name}  [{report.level_of(statement)}]  {statement.section}: {statement.sentence}")
        return 0
    commands = {TCP: options.server, TLS: options.tls_server, UNIX: options.unix_server}
    launchers = {
        site: Launcher(site, command, start_seconds=options.start_timeout, stop_seconds=options.stop_timeout)
        for site, command in commands.items()
        if command
    }
    if not launchers:
        made.error("one of --server, --tls-server and --unix-server is needed")
    limits = Limits(options.answer_timeout, options.quiet_time)
    try:
        results = suite.run(launchers, chosen, limits=limits, carriers=carriers, jobs=options.jobs)
    except (NotStarted, OSError) as error:
        _print(f"the server did not start: {error}", error=True)
        return 2
    _write(options, results)
    return 0 if report.passes(results) else 1


def _write(options: argparse.Namespace, results: list[Result]) -> None:
    _print(report.as_text(results, failures=options.failures))
    about = {
        "server": options.name,
        "commands": {"server": options.server, "tls": options.tls_server, "unix": options.unix_server},
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "python": platform.python_version(),
    }
    if options.json:
        options.json.write_text(report.as_json(results, about), "utf-8")
    if options.markdown:
        title = f"ASGI conformance of {options.name}" if options.name else "ASGI conformance"
        options.markdown.write_text(report.as_markdown(results, title), "utf-8")


def _print(text: str, *, error: bool = False) -> None:
    (sys.stderr if error else sys.stdout).write(text + "\n")

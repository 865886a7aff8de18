"""A conformance suite for ASGI servers: every statement of the specification, on real sockets, against any server.

The server is a command line. It serves an application of the suite's own, `daphne_ng.testing.conformance.probe`, which
does what each check tells it and notes what it sees. A client on the other side speaks HTTP/1.1, HTTP/2 and WebSocket,
and is strict about what comes back.

From a shell::

    python -m daphne_ng.testing.conformance --server "uvicorn --port {port} {app}"

In a program: `run` returns a `Result` for each statement on each carrier.

Modules: `core` has what a statement is; `checks` has them all; `case` is what a check works with; `probe` is the
application; `http1`, `http2` and `websocket` are the clients; `servers` starts processes; `suite` runs the checks;
`report` writes.
"""

from __future__ import annotations

from daphne_ng.testing.conformance.case import Limits
from daphne_ng.testing.conformance.core import Failed, Result, Skipped, Statement
from daphne_ng.testing.conformance.servers import Launcher, NotStarted
from daphne_ng.testing.conformance.suite import run, select, statements

__all__ = [
    "Failed",
    "Launcher",
    "Limits",
    "NotStarted",
    "Result",
    "Skipped",
    "Statement",
    "run",
    "select",
    "statements",
]

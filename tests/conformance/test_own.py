"""daphne-ng passes every statement, on every protocol, over TLS, on UNIX sockets and with workers."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from daphne_ng.testing.conformance.case import Limits
from daphne_ng.testing.conformance.core import (
    FAILED,
    HTTP1,
    HTTP2,
    PROCESS,
    SKIPPED,
    TCP,
    TLS,
    UNIX,
    WEBSOCKET,
    WEBSOCKET2,
    Result,
)
from daphne_ng.testing.conformance.servers import Launcher
from daphne_ng.testing.conformance.suite import run, select

pytestmark = pytest.mark.once

OWN = f"{sys.executable} -m daphne_ng"
TLS_ENDPOINT = "ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={cert}"

# What it does not offer; see docs/reference/asgi.md.
SKIPS = {"pathsend.not-there-raises", "push.promise", "tls.client-cert"}


def is_green(results: Sequence[Result]) -> None:
    assert [result for result in results if result.outcome == FAILED] == []
    skipped = {
        result.statement
        for result in results
        if result.outcome == SKIPPED and not result.statement.startswith("early-hint.")
    }
    assert skipped <= SKIPS


def carriers(results: Sequence[Result]) -> set[tuple[str, str]]:
    return {(result.site, result.carrier) for result in results}


def test_on_tcp() -> None:
    results = run({TCP: Launcher(TCP, f"{OWN} --port {{port}} {{app}}")}, limits=Limits(quiet=0.15), jobs=8)
    is_green(results)
    assert carriers(results) == {(TCP, carrier) for carrier in (HTTP1, HTTP2, WEBSOCKET, WEBSOCKET2, PROCESS)}


def test_over_tls_and_on_unix_sockets() -> None:
    # The rest does not know what it is on.
    chosen = select(["scope", "tls", "response", "disconnect", "websocket", "pathsend", "zerocopysend"])
    launchers = {
        TLS: Launcher(TLS, f"{OWN} -e {TLS_ENDPOINT} {{app}}"),
        UNIX: Launcher(UNIX, f"{OWN} -u {{socket}} {{app}}"),
    }
    results = run(launchers, chosen, limits=Limits(quiet=0.15), jobs=8)
    is_green(results)
    wanted = {(site, carrier) for site in launchers for carrier in (HTTP1, HTTP2, WEBSOCKET, WEBSOCKET2)}
    assert carriers(results) == wanted


def test_with_workers() -> None:
    chosen = select(["scope", "lifespan", "request"])
    command = f"{OWN} --workers 2 --port {{port}} {{app}}"
    results = run({TCP: Launcher(TCP, command)}, chosen, limits=Limits(quiet=0.15), jobs=8)
    is_green(results)
    assert carriers(results) == {(TCP, carrier) for carrier in (HTTP1, HTTP2, WEBSOCKET, WEBSOCKET2, PROCESS)}

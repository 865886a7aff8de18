"""Each statement can fail: a fault that is planted in the strict server makes it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daphne_ng.testing.conformance import probe
from daphne_ng.testing.conformance.case import Case, Limits
from daphne_ng.testing.conformance.certificates import Certificates
from daphne_ng.testing.conformance.core import CARRIERS, FAILED, PROCESS, SITES, TLS, UNIX, Statement
from daphne_ng.testing.conformance.servers import Address, Launcher
from daphne_ng.testing.conformance.suite import run_check, statements
from tests.conformance.strict_server import Server, context_of

pytestmark = pytest.mark.nightly

LIMITS = Limits(answer=0.5, quiet=0.05)


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        # Faults leave exceptions behind; a traceback that a thread prints while pytest prints another one is a
        # SystemError in Python 3.11.
        self.loop.set_exception_handler(lambda loop, context: None)
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.end()


@contextlib.contextmanager
def served(loop: Loop, fault: str, site: str, directory: Path) -> Iterator[Address]:
    """The strict server in this process, with a fault."""

    async def start() -> tuple[Server, Any]:
        server = Server(probe.app, fault)
        await server.startup()
        context = certificate = None
        if certificates is not None:
            context = context_of(str(directory / "cert.pem"), str(directory / "key.pem"), str(directory / "ca.pem"))
            certificate = certificates.text("cert")
        path = str(directory / "s") if site == UNIX else None
        return server, await server.listen(0, path, context, certificate)

    async def stop(server: Server, listening: Any) -> None:
        listening.close()
        await server.abandon()

    certificates = Certificates(directory) if site == TLS else None
    server, listening = loop.do(start())
    name = listening.sockets[0].getsockname()
    try:
        yield Address(site, 0 if site == UNIX else name[1], str(directory / "s"), certificates)
    finally:
        loop.do(stop(server, listening))


def first(statement: Statement) -> tuple[str, str]:
    """The site and the carrier that a statement is tried on."""
    site = next(site for site in SITES if site in statement.sites)
    return site, next(carrier for carrier in CARRIERS if carrier in statement.carriers)


IN_PROCESS = [found for found in statements() if PROCESS not in found.carriers and not found.alone]


@pytest.mark.parametrize("statement", IN_PROCESS, ids=lambda statement: statement.name)
def test_a_fault_makes_the_statement_fail(
    statement: Statement, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(probe.DIRECTORY, str(tmp_path))
    site, carrier = first(statement)
    launcher = Launcher(site, "{ca}") if site == TLS else None
    with served(loop, statement.name, site, tmp_path) as address:
        result = run_check(statement, Case(address, tmp_path, carrier, LIMITS, launcher))
    assert result.outcome == FAILED, result
    assert result.reason

"""The strict server passes every statement: so none asks for what cannot be."""

from __future__ import annotations

import os

import pytest

from daphne_ng.testing.conformance.case import Limits
from daphne_ng.testing.conformance.core import PASSED, PROCESS, SKIPPED, TCP, TLS, UNIX
from daphne_ng.testing.conformance.servers import Launcher
from daphne_ng.testing.conformance.suite import run, statements
from tests.conformance import STRICT

pytestmark = pytest.mark.once

# They are about what is not there.
MISSING = {"push.not-there-raises", "pathsend.not-there-raises"}


def test_the_strict_server_passes_every_statement_on_every_carrier_and_site() -> None:
    environment = {"PYTHONPATH": os.getcwd()}
    launchers = {
        TCP: Launcher(TCP, f"{STRICT} --port {{port}} {{app}}", environment=environment),
        TLS: Launcher(
            TLS, f"{STRICT} --port {{port}} --cert {{cert}} --key {{key}} --ca {{ca}} {{app}}", environment=environment
        ),
        UNIX: Launcher(UNIX, f"{STRICT} --unix {{socket}} {{app}}", environment=environment),
    }
    results = run(launchers, limits=Limits(quiet=0.1), jobs=8)
    assert [result for result in results if result.outcome not in (PASSED, SKIPPED)] == []
    assert {result.statement for result in results if result.outcome == SKIPPED} <= MISSING
    seen = {(result.statement, result.site, result.carrier) for result in results}
    wanted = {
        (statement.name, site, carrier)
        for statement in statements()
        for site in statement.sites
        for carrier in statement.carriers
        if carrier != PROCESS or site == TCP
    }
    assert wanted - seen == set()

"""Each statement about processes can fail, and the one about what a server logs."""

from __future__ import annotations

import os

import pytest

from daphne_ng.testing.conformance.case import Case, Limits
from daphne_ng.testing.conformance.core import CARRIERS, FAILED, PROCESS, TCP, Statement
from daphne_ng.testing.conformance.servers import Launcher
from daphne_ng.testing.conformance.suite import run_check, statements
from tests.conformance import STRICT

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize(
    "statement",
    [found for found in statements() if PROCESS in found.carriers or found.alone],
    ids=lambda statement: statement.name,
)
def test_a_fault_makes_the_statement_fail(statement: Statement) -> None:
    carrier = next(carrier for carrier in CARRIERS if carrier in statement.carriers)
    launcher = Launcher(
        TCP,
        f"{STRICT} --port {{port}} --fault {statement.name} {{app}}",
        environment={"PYTHONPATH": os.getcwd()},
        start_seconds=3.0,
        stop_seconds=1.5,
    )
    running = launcher.launch()
    try:
        running.wait_ready(10.0)
        case = Case(running.address, running.directory, carrier, Limits(answer=0.5, quiet=0.05), launcher, running)
        result = run_check(statement, case)
    finally:
        running.end(0.1)
    assert result.outcome == FAILED, result

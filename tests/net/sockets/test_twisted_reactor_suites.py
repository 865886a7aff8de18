"""The reactor suites that ship with Twisted, run against `DaphneReactor` on both kinds of event loop.

``ReactorBuilder`` swaps the class and the dictionary of the global reactor for every test, handles SIGCHLD, and its
suites warn about things of their own. So each module runs in a process of its own: this file, run as a
script, is that process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MODULES = ("test_core", "test_fdset", "test_tcp", "test_time", "test_tls", "test_unix")

# Test methods that cannot pass, and why.
NOT_APPLICABLE = {
    "test_logPrefix": "our transports call their protocol outside Twisted's logging context, on purpose",
    "test_lostFileDescriptor": "epoll forgets a closed descriptor silently; Twisted skips its own asyncio reactor",
}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("module", MODULES)
def test_the_suite_of_twisted_passes(module: str, loop: str, tmp_path: Path) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, module, loop],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,  # the suites leave files behind
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def make_reactor(case: Any) -> Any:
    """Build the reactor for one test; Twisted calls this as a method of the test case."""
    import asyncio

    from daphne_ng.net.reactor import DaphneReactor

    if sys.argv[2] == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    if sys.argv[2] == "stock":
        from twisted.internet.asyncioreactor import AsyncioSelectorReactor

        case.addCleanup(loop.close)
        return AsyncioSelectorReactor(loop)
    case.addCleanup(loop.close)
    return DaphneReactor(loop)


def run_suite(module_name: str) -> bool:
    """Run every reactor-building test case of a module of ``twisted.internet.test``; True if all pass."""
    import importlib
    import unittest
    from unittest import mock

    # The modules here import others that import it, and none of the tests run here uses it.
    sys.modules.setdefault("hamcrest", mock.MagicMock())
    from twisted.internet.test.reactormixins import ReactorBuilder

    # The modules make a test case class for each name in this list while they are imported.
    ReactorBuilder._reactors = ["__main__.make_reactor"]
    ReactorBuilder.timeout = 20  # seconds per test; trial's default is 120
    module = importlib.import_module(f"twisted.internet.test.{module_name}")
    suite = unittest.TestSuite()
    loader = unittest.TestLoader()
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, ReactorBuilder) and hasattr(value, "run"):
            for test in loader.loadTestsFromTestCase(value):
                if sys.argv[2] == "stock" or test._testMethodName not in NOT_APPLICABLE:
                    suite.addTest(test)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2 if "-v" in sys.argv else 1).run(suite)
    return result.testsRun > 0 and result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(not run_suite(sys.argv[1]))

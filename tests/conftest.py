"""Hypothesis profiles; choose one with the environment variable ``HYPOTHESIS_PROFILE``.

* ``default``: few examples, other ones in every run, remembered when they fail.
* ``ci``: the same examples in every run.
* ``fuzz``: many; run by the tox environment of that name.
"""

from __future__ import annotations

import os
import ssl

import pytest
from hypothesis import HealthCheck, settings

from tests.support.locked_tls import LockedSSLSocket

# For every client of the tests.
ssl.SSLContext.sslsocket_class = LockedSSLSocket

settings.register_profile("default", max_examples=150, deadline=None, derandomize=False)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile(
    "fuzz", max_examples=2_500, deadline=None, derandomize=False, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "default")

# Modules that look at whole servers from outside, where the interpreter's version makes no difference to what they
# find: they run on one of several interpreters.
_ONCE = frozenset(
    {
        "test_bench_smoke",
        "test_broken_off",
        "test_django_load",
        "test_docs",
        "test_endpoints",
        "test_global_reactor",
        "test_http2_attacks",
        "test_http2_conformance",
        "test_http2_patience",
        "test_log_output",
        "test_logging",
        "test_memory",
        "test_proxies",
        "test_proxy_protocol",
        "test_reload",
        "test_run",
        "test_run_function",
        "test_runserver",
        "test_server_modes",
        "test_signals",
        "test_slow_readers",
        "test_systemd",
        "test_talkative_clients",
        "test_turns",
        "test_websocket_attacks",
        "test_websocket_endings",
        "test_websocket_memory",
        "test_workers",
        "test_workers_process",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what need not run on every interpreter."""
    for item in items:
        # Properties are of logic alone.
        if item.path.stem in _ONCE or item.path.parent.name == "properties":
            item.add_marker("once")

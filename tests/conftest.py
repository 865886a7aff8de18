"""Hypothesis profiles; choose one with the environment variable ``HYPOTHESIS_PROFILE``.

* ``default``: few examples, other ones in every run, remembered when they fail.
* ``ci``: the same examples in every run.
* ``fuzz``: many; run by the tox environment of that name.
"""

from __future__ import annotations

import os
import ssl

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

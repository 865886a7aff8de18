"""The conformance suite against servers that are known: a strict one, with and without faults, and ours."""

import sys

STRICT = f"{sys.executable} -m tests.conformance.strict_server"
"""Begins a command line of the strict server, in the directory of the checkout."""

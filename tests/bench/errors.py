"""The errors of the harness."""

from __future__ import annotations


class BenchError(Exception):
    """A server could not be measured. The text is the reason that the report shows beside ``n/a``."""


class UnsupportedError(BenchError):
    """The server does not do what the workload needs; asking it again would not help."""

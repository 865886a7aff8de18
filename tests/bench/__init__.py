"""Benchmarks: daphne-ng and its peers serve one application, one core each. Run with ``python -m tests.bench``.

Never a gate on time: see ``README.md`` for what is measured and what the numbers can and cannot say.
"""

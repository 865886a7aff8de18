"""`daphne_ng.sources.options`: the flags that the rule makes."""

from argparse import ArgumentTypeError
from typing import Any

import pytest

from daphne_ng.cli import CommandLineInterface
from daphne_ng.sources.options import header


@pytest.mark.parametrize(
    ("flag", "dest", "value"),
    [
        ("--close-timeout=2s", "close_timeout", 2.0),
        ("--head-max-bytes=64KiB", "head_max_bytes", 65536),
        ("--no-reload", "reload", False),
        ("--date-header", "date_header", True),
        ("--http1-early-hints", "http1_early_hints", True),
        ("--http-timeout=5m", "http_timeout", 300.0),
    ],
)
def test_every_setting_has_a_flag(flag: str, dest: str, value: Any) -> None:
    assert getattr(CommandLineInterface().parser.parse_args([flag]), dest) == value


def test_what_help_leaves_out_makes_no_abbreviation_ambiguous() -> None:
    assert CommandLineInterface().parser.parse_args(["--proxy-p"]).proxy_protocol is True


def test_help_leaves_out_the_rare_ones() -> None:
    assert "--close-timeout" not in CommandLineInterface().parser.format_help()


def test_a_header_has_a_colon() -> None:
    assert header("A:  b ") == (b"A", b"b")
    with pytest.raises(ArgumentTypeError):
        header("A")

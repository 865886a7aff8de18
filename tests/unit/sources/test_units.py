"""`daphne_ng.sources.units`: durations and sizes as text."""

import pytest

from daphne_ng.sources.units import number_type, parse_number


@pytest.mark.parametrize(
    ("text", "kind", "unit", "number"),
    [
        ("30", "float", "seconds", 30.0),
        ("30s", "float", "seconds", 30.0),
        ("300ms", "float", "seconds", 0.3),
        ("1.5 h", "float", "seconds", 5400.0),
        ("5m", "int", "seconds", 300),
        ("1d", "float", "seconds", 86400.0),
        ("64KiB", "int", "bytes", 65536),
        ("64kB", "int", "bytes", 64000),
        ("0.5MiB", "int", "bytes", 524288),
        ("-1", "int", "bytes", -1),
        ("1e3", "float", "seconds", 1000.0),
    ],
)
def test_a_number_may_have_a_unit(text: str, kind: str, unit: str, number: float) -> None:
    found = parse_number(text, kind, unit)
    assert found == number
    assert type(found) is type(number)


@pytest.mark.parametrize(
    ("text", "kind", "unit"),
    [
        ("5m", "float", ""),
        ("5m", "int", "bytes"),
        ("64K", "int", "bytes"),
        ("64kib", "int", "bytes"),
        ("0.3B", "int", "bytes"),
        ("500ms", "int", "seconds"),
        ("-5m", "float", "seconds"),
        ("m", "float", "seconds"),
        ("", "int", "seconds"),
    ],
)
def test_what_is_no_number_of_that_unit_is_refused(text: str, kind: str, unit: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_number(text, kind, unit)


def test_argparse_shows_the_name_of_the_type() -> None:
    assert number_type("float", "seconds").__name__ == "float"
    assert number_type("int", "bytes")("1KiB") == 1024

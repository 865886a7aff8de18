"""`daphne_ng.utils`: what Daphne's module of that name does, for code that imports it."""

from typing import Any

import pytest
from twisted.web.http_headers import Headers

from daphne_ng.utils import (
    HEADER_NAME_RE,
    INVALID_HEADER_VALUE_BYTES,
    header_value,
    import_by_path,
    parse_x_forwarded_for,
)

FORWARDED = {b"X-Forwarded-For": b"10.1.2.3", b"X-Forwarded-Port": b"1234", b"X-Forwarded-Proto": b"https"}


def as_mapping(headers: dict[bytes, bytes]) -> Any:
    return headers


def as_lists(headers: dict[bytes, bytes]) -> Any:
    return {name: [value] for name, value in headers.items()}


def as_twisted(headers: dict[bytes, bytes]) -> Any:
    return Headers(as_lists(headers))


@pytest.mark.parametrize("form", [as_mapping, as_lists, as_twisted])
class TestForwardedFor:
    def test_address_port_and_scheme_are_read(self, form: Any) -> None:
        assert parse_x_forwarded_for(form(FORWARDED)) == (["10.1.2.3", 1234], "https")

    def test_an_address_alone_has_port_zero(self, form: Any) -> None:
        assert parse_x_forwarded_for(form({b"x-forwarded-for": b"10.1.2.3"})) == (["10.1.2.3", 0], None)

    def test_the_first_of_several_addresses_counts(self, form: Any) -> None:
        headers = form({b"X-Forwarded-For": b"1043::a321:0001, 10.0.5.6"})

        assert parse_x_forwarded_for(headers) == (["1043::a321:0001", 0], None)

    def test_a_port_that_is_no_number_is_zero(self, form: Any) -> None:
        assert parse_x_forwarded_for(form(FORWARDED | {b"X-Forwarded-Port": b"http"}))[0] == ["10.1.2.3", 0]

    def test_without_an_address_the_originals_are_returned(self, form: Any) -> None:
        headers = form({b"X-Forwarded-Port": b"1", b"X-Forwarded-Proto": b"https"})

        assert parse_x_forwarded_for(headers) == (None, None)
        assert parse_x_forwarded_for(headers, original_addr=["::1", 80], original_scheme="ws") == (["::1", 80], "ws")

    def test_other_header_names_can_be_given(self, form: Any) -> None:
        headers = form({b"X-Real-IP": b"10.9.9.9"} | FORWARDED)

        assert parse_x_forwarded_for(headers, "X-Real-Ip", None, None, None, "http") == (["10.9.9.9", 0], "http")

    def test_without_a_header_name_nothing_is_read(self, form: Any) -> None:
        assert parse_x_forwarded_for(form(FORWARDED), None, original_addr=["a", 1]) == (["a", 1], None)


def test_a_headers_first_value_counts() -> None:
    assert header_value({b"a": [b"1", b"2"]}, b"a") == "1"
    assert header_value({b"a": "é".encode()}, b"a") == "é"


def test_import_by_path_follows_attributes() -> None:
    import json.decoder

    assert import_by_path("json.decoder:JSONDecoder.decode") is json.decoder.JSONDecoder.decode


@pytest.mark.parametrize(
    ("path", "error"), [("json", ValueError), ("no_such_module:x", ImportError), ("json:nope", AttributeError)]
)
def test_import_by_path_raises_what_python_raises(path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        import_by_path(path)


def test_a_header_name_is_a_token() -> None:
    assert HEADER_NAME_RE.fullmatch(b"X-A_b.c!#$%&'*+^`|~9")
    assert not any(HEADER_NAME_RE.fullmatch(name) for name in (b"", b"a b", b"a:", b"a\n", b"(a)", b"\xe9"))


def test_bytes_that_break_lines_are_invalid_in_values() -> None:
    line_breaks = {byte for byte in range(256) if len(f"a{chr(byte)}b".splitlines()) > 1}

    assert line_breaks - {ord("\r"), ord("\n")} == INVALID_HEADER_VALUE_BYTES

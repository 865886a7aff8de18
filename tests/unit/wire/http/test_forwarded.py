"""`daphne_ng.wire.http.forwarded`: whose word counts, in every spelling."""

from __future__ import annotations

import time
from typing import Any

import pytest

from daphne_ng.config.trust import TrustedPeers
from daphne_ng.utils import parse_x_forwarded_for
from daphne_ng.wire.http.forwarded import HOPS_MAX, Claims, ForwardedFields, parse_node, root_path_of

PROXIES = TrustedPeers("10.0.0.0/8,fd00::/8")
EVERYBODY = TrustedPeers("*")

NOTHING = Claims(None, None, None, None)


def daphne(trusted: TrustedPeers = PROXIES, **more: Any) -> ForwardedFields:
    names = {"address": b"x-forwarded-for", "port": b"x-forwarded-port", "proto": b"x-forwarded-proto"}
    return ForwardedFields(trusted, **{**names, **more})


def client_of(*values: bytes, trusted: TrustedPeers = PROXIES, port: bytes | None = None) -> Any:
    headers = [(b"x-forwarded-for", value) for value in values]
    if port is not None:
        headers.append((b"x-forwarded-port", port))
    claims = daphne(trusted).claims(headers)
    assert claims is not None
    return claims.client


# -- nodes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "node"),
    [
        (b"1.2.3.4", ("1.2.3.4", None)),
        (b"1.2.3.4:567", ("1.2.3.4", 567)),
        (b"1.2.3.4:0", ("1.2.3.4", 0)),
        (b"1.2.3.4:65535", ("1.2.3.4", 65535)),
        (b"1.2.3.4:_hidden", ("1.2.3.4", None)),
        (b"::1", ("::1", None)),
        (b"::1:567", ("::1:567", None)),
        (b"[::1]", ("::1", None)),
        (b"[::1]:567", ("::1", 567)),
        (b"2001:DB8:0:0::1", ("2001:db8::1", None)),
        (b"[2001:db8::1]:_x", ("2001:db8::1", None)),
        (b"::ffff:1.2.3.4", ("1.2.3.4", None)),
        (b"[::ffff:1.2.3.4]:5", ("1.2.3.4", 5)),
        *[
            (text, None)
            for text in [
                b"", b"unknown", b"_gazonk", b"garbage", b"localhost", b"1.2.3", b"1.2.3.4.5", b"1.2.3.256", b"01.2.3.4",
                b"0x7f.0.0.1", b"127.1", b"2130706433", b"1.2.3.4:", b"1.2.3.4:65536", b"1.2.3.4:123456", b"1.2.3.4:-1",
                b"1.2.3.4:8a", b"[1.2.3.4]", b"[::1", b"::1]", b"[::1]x", b"[::1]:", b":::1", b"::1::", b"fe80::1%eth0",
                b"[fe80::1%25eth0]", b"1.2.3.4 ", b" 1.2.3.4", b"1.2.3.4\n", b"\xb9.2.3.4", "١.2.3.4".encode(),
                b"1.2.3.4, 5.6.7.8", b"\"1.2.3.4\"", b"<script>", b"1" * 100_000, b"1.2.3.4:_" + b"x" * 65,
            ]
        ],
    ],
)  # fmt: skip
def test_a_hop_in_every_spelling(text: bytes, node: Any) -> None:
    assert parse_node(text) == node


# -- X-Forwarded-For ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "client"),
    [
        # one proxy, which is our peer
        ([b"1.2.3.4"], "1.2.3.4"),
        # what the client made up stands on the left
        ([b"6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ([b"10.0.0.9, 1.2.3.4"], "1.2.3.4"),
        # a chain of trusted proxies
        ([b"6.6.6.6, 1.2.3.4, 10.0.0.1"], "1.2.3.4"),
        ([b"1.2.3.4,10.0.0.1,fd00::1"], "1.2.3.4"),
        ([b"1.2.3.4, 10.0.0.2:80, [fd00::1]:80"], "1.2.3.4"),
        ([b"1.2.3.4, ::ffff:10.0.0.2"], "1.2.3.4"),
        # everybody in it is a proxy of ours
        ([b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # several lines are one list, in order
        ([b"6.6.6.6", b"1.2.3.4, 10.0.0.1"], "1.2.3.4"),
        ([b"6.6.6.6, 1.2.3.4", b"10.0.0.1"], "1.2.3.4"),
        ([b"1.2.3.4", b""], "1.2.3.4"),
        # quotes, blanks, empty elements
        ([b'"[2001:db8::1]:5"'], "2001:db8::1"),
        ([b" \t 1.2.3.4 \t ,, , "], "1.2.3.4"),
        # the walk ends at what is no address, with the last proxy that is known
        ([b"1.2.3.4, unknown, 10.0.0.1"], "10.0.0.1"),
        ([b"1.2.3.4, _secret, 10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        ([b"1.2.3.4, nonsense"], None),
        ([b'"1.2.3.4, 10.0.0.1'], "10.0.0.1"),
        ([b'"'], None),
        ([b""], None),
        ([b",,,"], None),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy(values: list[bytes], client: str | None) -> None:
    found = client_of(*values)
    assert (found and found[0]) == client


def test_where_everybody_is_trusted_the_leftmost_is_the_client() -> None:
    assert client_of(b"6.6.6.6, 1.2.3.4, 10.0.0.1", trusted=EVERYBODY) == ("6.6.6.6", 0)


@pytest.mark.parametrize(
    ("hop", "port", "expected"),
    [
        (b"1.2.3.4", None, 0),
        (b"1.2.3.4", b"80", 80),
        (b"1.2.3.4", b"80, 81", 81),
        (b"1.2.3.4", b"x", 0),
        (b"1.2.3.4", b"-1", 0),
        (b"1.2.3.4", b"65536", 0),
        (b"1.2.3.4", b"1" * 5000, 0),
        (b"1.2.3.4", "١".encode(), 0),
        (b"1.2.3.4", b"\xb2", 0),
        (b"1.2.3.4:5", b"80", 5),
        (b"[::1]:5", b"80", 5),
        (b"[::1]:_x", b"80", 80),
    ],
)
def test_the_port_of_the_client(hop: bytes, port: bytes | None, expected: int) -> None:
    found = client_of(hop, port=port)
    assert found[1] == expected


def test_a_port_without_an_address_says_nothing() -> None:
    assert daphne().claims([(b"x-forwarded-port", b"80")]) == NOTHING


def test_without_any_of_the_headers_there_is_nothing_to_say() -> None:
    assert daphne().claims([(b"host", b"a"), (b"forwarded", b"for=1.2.3.4"), (b"x-forwarded-host", b"b")]) is None


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        (b"http", "http"), (b"https", "https"), (b"HTTPS", "https"), (b"ws", "http"), (b"wss", "https"),
        (b"https, http", "http"), (b"http,https", "https"), (b"", None), (b"ftp", None), (b"https x", None),
        (b"https,", None), (b"javascript", None),
    ],
)  # fmt: skip
def test_the_scheme_is_the_last_one_and_one_of_ours(value: bytes, scheme: str | None) -> None:
    assert daphne().claims([(b"x-forwarded-proto", value)]) == Claims(None, scheme, None, None)


def test_the_last_line_of_a_single_value_counts() -> None:
    lines = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-proto", b"http")]
    assert daphne().claims(lines) == Claims(None, "http", None, None)


def test_other_names_for_address_and_port() -> None:
    fields = daphne(address=b"x-real-ip", port=b"x-real-port", proto=None)
    headers = [
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"x-forwarded-port", b"6"),
        (b"x-forwarded-proto", b"https"),
        (b"x-real-ip", b"1.2.3.4"),
        (b"x-real-port", b"5"),
    ]
    assert fields.claims(headers) == Claims(("1.2.3.4", 5), None, None, None)


@pytest.mark.parametrize("address", [b"10.1.2.3", b"2001:db8::a321"])
@pytest.mark.parametrize("port", [None, b"1234", b"no number"])
@pytest.mark.parametrize("proto", [None, b"http", b"https"])
def test_one_proxy_says_to_us_what_it_says_to_daphne(address: bytes, port: Any, proto: Any) -> None:
    named = {b"x-forwarded-for": address, b"x-forwarded-port": port, b"x-forwarded-proto": proto}
    headers = {name: value for name, value in named.items() if value is not None}
    theirs, scheme = parse_x_forwarded_for(headers, original_scheme=None)
    claims = daphne().claims([*headers.items()])
    assert claims is not None
    assert claims.client is not None
    assert ([*claims.client], claims.scheme) == (theirs, scheme)


# -- Forwarded ---------------------------------------------------------------------------------------------


def forwarded(*values: bytes, trusted: TrustedPeers = PROXIES, host: bytes | None = None) -> Any:
    fields = ForwardedFields(trusted, forwarded=True, host=host, address=b"x-forwarded-for", proto=b"x-forwarded-proto")
    headers = [(b"forwarded", value) for value in values]
    # These have no say then.
    return fields.claims(
        [*headers, (b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"evil")]
    )


@pytest.mark.parametrize(
    ("values", "client", "scheme"),
    [
        # RFC 7239 section 4
        ([b'for="_gazonk"'], None, None),
        ([b'For="[2001:db8:cafe::17]:4711"'], ("2001:db8:cafe::17", 4711), None),
        ([b"for=192.0.2.60;proto=http;by=203.0.113.43"], ("192.0.2.60", 0), "http"),
        ([b"for=192.0.2.43, for=198.51.100.17"], ("198.51.100.17", 0), None),
        # section 7.1: one list in two lines
        ([b"for=192.0.2.43", b'for="[fd00::17]"'], ("192.0.2.43", 0), None),
        ([b'for=192.0.2.43,for="[fd00::17]",for=unknown'], None, None),
        # the names are case-insensitive, blanks and empty pairs are not minded
        ([b"FOR=1.2.3.4 ;; PROTO=HTTPS ; "], ("1.2.3.4", 0), "https"),
        # quotes around what needs none, and escapes
        ([b'for="1.2.3.4:80";proto="h\\ttps"'], ("1.2.3.4", 80), "https"),
        ([b'for="\\[\\:\\:1\\]"'], ("::1", 0), None),
        # commas and semicolons within quotes
        ([b'for=6.6.6.6, for=1.2.3.4;by="a, b;c=\\"d"'], ("1.2.3.4", 0), None),
        ([b'x=",,,,,,,";for=1.2.3.4'], ("1.2.3.4", 0), None),
        # the scheme is what the client spoke to the first proxy of ours
        ([b"for=1.2.3.4;proto=https, for=10.0.0.1;proto=http"], ("1.2.3.4", 0), "https"),
        ([b"for=1.2.3.4, for=10.0.0.1;proto=https"], ("1.2.3.4", 0), "https"),
        ([b"for=6.6.6.6;proto=https, for=1.2.3.4;proto=http"], ("1.2.3.4", 0), "http"),
        ([b"for=unknown;proto=https"], None, "https"),
        ([b"proto=https"], None, "https"),
        ([b"for=6.6.6.6, proto=https"], None, "https"),
        ([b"for=1.2.3.4;proto=gopher"], ("1.2.3.4", 0), None),
        # a client that tries to swallow what proxies add
        ([b'for="6.6.6.6, for=1.2.3.4'], ("1.2.3.4", 0), None),
        ([b'for="6.6.6.6\\, for=1.2.3.4;proto=https, for="[fd00::1]"'], ("1.2.3.4", 0), "https"),
        ([b'for="6.6.6.6', b"for=1.2.3.4"], ("1.2.3.4", 0), None),
        # what is malformed ends the walk
        ([b"for=1.2.3.4, for = 10.0.0.1"], None, None),
        ([b"for=1.2.3.4, for=[fd00::1]"], None, None),
        ([b"for=1.2.3.4, garbage, for=10.0.0.1"], ("10.0.0.1", 0), None),
        ([b"for=6.6.6.6;for=1.2.3.4"], None, None),
        ([b'for="1.2.3.4'], None, None),
        ([b'for="1.2.3.4\\"'], None, None),
        ([b"for=1.2.3.4, x=" + b"y" * 2000], None, None),
        ([b'for=1.2.3.4;x="' + b"," * 20 + b'"'], None, None),
        ([b""], None, None),
        ([b", ,;,"], None, None),
    ],
)
def test_forwarded_is_walked_from_the_right(values: list[bytes], client: Any, scheme: str | None) -> None:
    assert forwarded(*values) == Claims(client, scheme, None, None)


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"for=1.2.3.4;host=example.com", b"example.com"),
        (b'for=1.2.3.4;host="example.com:8000"', b"example.com:8000"),
        (b'for=1.2.3.4;host=outer, for=10.0.0.1;host="inner"', b"outer"),
        (b"for=6.6.6.6;host=evil, for=1.2.3.4;host=good", b"good"),
        (b'for=1.2.3.4;host="a/b"', None),
        (b'for=1.2.3.4;host=""', None),
    ],
)
def test_forwarded_names_the_host(value: bytes, host: bytes | None) -> None:
    assert forwarded(value, host=b"x-forwarded-host").host == host
    assert forwarded(value).host is None


# -- host and prefix ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"example.com", b"example.com"),
        (b"evil.example, example.com:8000", b"example.com:8000"),
        (b"[::1]:80", b"[::1]:80"),
        (b"", None),
        (b"example.com,", None),
        (b"a/b", None),
        (b"user@host", None),
        (b"a b", None),
        (b"host:port", None),
        (b"host:123456", None),
        (b"a\xe9", None),
    ],
)
def test_the_host_is_the_last_one_if_it_could_be_a_host(value: bytes, host: bytes | None) -> None:
    fields = ForwardedFields(PROXIES, host=b"x-forwarded-host")
    assert fields.claims([(b"x-forwarded-host", value)]) == Claims(None, None, host, None)
    assert daphne().claims([(b"x-forwarded-host", value)]) is None


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        (b"/app", "/app"),
        (b"/app/", "/app"),
        (b"/", ""),
        (b"/a%20b/caf%C3%A9", "/a b/café"),
        ("/café".encode(), "/café"),
        (b"/evil, /app", "/app"),
        (b"/a..b/.c", "/a..b/.c"),
        (b"", None),
        (b"app", None),
        (b"http://evil/", None),
        (b"//evil.example", None),
        (b"/%2Fevil.example", None),
        (b"/\\evil", None),
        (b"/..", None),
        (b"/a/../b", None),
        (b"/a/%2e%2E/b", None),
        (b"/./a", None),
        (b"/a%0d%0aX:y", None),
        (b"/a%00", None),
        (b"/a%7f", None),
        (b"/a%ff", None),
    ],
)
def test_the_prefix_is_a_plain_path(value: bytes, prefix: str | None) -> None:
    fields = ForwardedFields(PROXIES, prefix=b"x-forwarded-prefix")
    assert fields.claims([(b"x-forwarded-prefix", value)]) == Claims(None, None, None, prefix)
    assert daphne().claims([(b"x-forwarded-prefix", value)]) is None


@pytest.mark.parametrize(
    ("value", "root_path"),
    [(b"", ""), (b"/", ""), (b"/a", "/a"), (b"/a/", "/a"), (b"/a%20b%2F", "/a b"), ("/é".encode(), "/é"), (b"/\xff", "/\ufffd")],
)  # fmt: skip
def test_a_root_path_is_decoded_and_ends_without_a_slash(value: bytes, root_path: str) -> None:
    assert root_path_of(value) == root_path


@pytest.mark.parametrize(
    "value", [b"//evil.test", b"/%2fevil.test/", b"/\\evil.test", b"https://evil.test", b"evil", b"/a/../b", b"/a%0d%0ab", b"."]
)  # fmt: skip
def test_a_root_path_that_leads_elsewhere_is_ignored(value: bytes) -> None:
    assert root_path_of(value) is None


# -- bounds ------------------------------------------------------------------------------------------------


def test_no_more_hops_are_looked_at_than_a_request_can_have_come_through() -> None:
    chain = [b"10.0.0.%d" % number for number in range(HOPS_MAX)]
    assert client_of(b", ".join([b"1.2.3.4", *chain[1:]])) == ("1.2.3.4", 0)
    assert client_of(b", ".join([b"1.2.3.4", *chain])) == ("10.0.0.0", 0)
    assert client_of(b", ".join([b"6.6.6.6"] * 5000 + chain)) == ("10.0.0.0", 0)
    elements = [b"for=" + hop for hop in chain]
    assert forwarded(b", ".join([b"for=1.2.3.4", *elements[1:]])).client == ("1.2.3.4", 0)
    assert forwarded(b", ".join([b"for=1.2.3.4", *elements])).client == ("10.0.0.0", 0)
    assert forwarded(*[b"for=1.2.3.4", *elements]).client == ("10.0.0.0", 0)


@pytest.mark.parametrize(
    "value",
    [
        b"," * 65_000,
        b", " * 32_000,
        b'"' * 65_000,
        b'"\\' * 32_000,
        b"a=b;" * 16_000,
        b"a" * 65_000,
        b"a=b," * 16_000,
        b'a="",' * 13_000,
        (b"for=10.0.0.1;x=" + b"y" * 990 + b",") * 64,
        (b"a=" + b" " * 900 + b",") * 70,
        b"10.0.0.1," * 7_000,
    ],
    ids=lambda value: value[:12].decode(),
)
def test_the_worst_header_takes_little_time(value: bytes) -> None:
    begin = time.perf_counter()
    for _ in range(3):
        forwarded(value, trusted=EVERYBODY)
        client_of(value, trusted=EVERYBODY)
    # A head of that size takes some milliseconds to read; a slow machine gets a hundred times as much.
    assert time.perf_counter() - begin < 1.5

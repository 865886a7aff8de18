"""The headers of proxies under arbitrary bytes: nobody on the left has a say, and nothing gets out that is no address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_ng.config.trust import TrustedPeers
from daphne_ng.wire.http.fields import HOST
from daphne_ng.wire.http.forwarded import HOPS_MAX, Claims, ForwardedFields, parse_node

pytestmark = pytest.mark.once


PROXIES = TrustedPeers("10.0.0.0/8,fd00::/8")
FOR, FORWARDED = b"x-forwarded-for", b"forwarded"
X_FORWARDED = ForwardedFields(
    PROXIES, address=FOR, port=b"x-forwarded-port", proto=b"x-forwarded-proto", host=b"x-forwarded-host", prefix=b"x-forwarded-prefix"
)  # fmt: skip
RFC_7239 = ForwardedFields(PROXIES, forwarded=True, host=b"x-forwarded-host")
NAMES = sorted(X_FORWARDED.names | RFC_7239.names | {b"other"})

# What the parsers let into a field value.
TEXT = st.binary(max_size=60).map(lambda value: bytes(byte for byte in value if byte >= 32 and byte != 127))
TRICKY = st.text('",;=\\[]:. for10a', max_size=40).map(str.encode)
HOSTILE = st.one_of(
    TEXT, TRICKY, st.sampled_from([b'for="', b'for="a\\', b"for=10.0.0.1,", b"10.0.0.1", b'"', b"unknown"])
)

PROXY = st.one_of(
    st.builds(lambda number: str(IPv4Address(0x0A000000 + number)), st.integers(0, 0xFFFFFF)),
    st.builds(lambda number: str(IPv6Address((0xFD << 120) + number)), st.integers(0, 1 << 100)),
)
CLIENT = st.one_of(
    st.builds(lambda number: str(IPv4Address(0xC0000000 + number)), st.integers(0, 0xFFFFFF)),
    st.builds(lambda number: str(IPv6Address((0x2001 << 112) + number)), st.integers(0, 1 << 100)),
)
PORT = st.none() | st.integers(0, 65535)


def hop(address: str, port: int | None, bare: bool) -> bytes:
    """Write a node of X-Forwarded-For."""
    text = address if ":" not in address or (bare and port is None) else f"[{address}]"
    return (text if port is None else f"{text}:{port}").encode()


def element(address: str, port: int | None, more: list[tuple[bytes, bytes]], quote_all: bool) -> bytes:
    """Write an element of Forwarded as a proxy would."""

    def quoted(value: bytes, plain: bool = False) -> bytes:
        return value if plain and not quote_all else b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'

    pairs = [b"for=" + quoted(hop(address, port, False), ":" not in address and port is None)]
    return b";".join([*pairs, *[name + b"=" + quoted(value) for name, value in more]])


CHAINS = st.lists(st.tuples(PROXY, PORT, st.booleans()), max_size=5)
EXTRA = st.lists(
    st.tuples(st.sampled_from([b"by", b"secret", b"ext"]), TEXT), max_size=2, unique_by=lambda pair: pair[0]
)
SEPARATORS = st.sampled_from([b",", b", ", b" ,\t", b",,", b", ,"])


def joined(draw: Any, parts: list[bytes], name: bytes) -> list[tuple[bytes, bytes]]:
    """Put list elements into any number of lines."""
    headers: list[tuple[bytes, bytes]] = []
    line = parts[0]
    for part in parts[1:]:
        if draw(st.booleans()):
            headers.append((name, line))
            line = part
        else:
            line += draw(SEPARATORS) + part
    return [*headers, (name, line)]


@given(st.data(), st.lists(HOSTILE, max_size=3), CLIENT, PORT, CHAINS)
def test_what_the_client_writes_into_x_forwarded_for_changes_nothing(
    data: st.DataObject, hostile: list[bytes], client: str, port: int | None, chain: Any
) -> None:
    hops = [hop(client, port, data.draw(st.booleans())), *[hop(*proxy) for proxy in chain]]
    headers = joined(data.draw, [*hostile, *hops], FOR)
    assert X_FORWARDED.claims(headers) == Claims((client, port or 0), None, None, None)


@given(st.data(), st.lists(HOSTILE, max_size=3), CLIENT, PORT, CHAINS)
def test_what_the_client_writes_into_forwarded_changes_nothing(
    data: st.DataObject, hostile: list[bytes], client: str, port: int | None, chain: Any
) -> None:
    proto = data.draw(st.sampled_from([[], [(b"proto", b"https")]]))
    elements = [
        element(address, number, [*more, *data.draw(EXTRA)], data.draw(st.booleans()))
        for address, number, more in [(client, port, proto), *[(*proxy[:2], []) for proxy in chain]]
    ]
    headers = joined(data.draw, [*hostile, *elements], FORWARDED)
    assert RFC_7239.claims(headers) == Claims((client, port or 0), "https" if proto else None, None, None)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.binary(max_size=80), HOSTILE, TRICKY)), max_size=6))
def test_any_bytes_give_an_address_or_nothing(headers: list[tuple[bytes, bytes]]) -> None:
    for fields in (X_FORWARDED, RFC_7239):
        claims = fields.claims(headers)
        assert (claims is None) == (not any(name in fields.names for name, _ in headers))
        if claims is None:
            continue
        if claims.client is not None:
            address, port = claims.client
            assert str(ip_address(address)) == address
            assert 0 <= port < 65536
        assert claims.scheme in (None, "http", "https")
        assert claims.host is None or HOST.fullmatch(claims.host)
        if claims.prefix:
            assert claims.prefix[0] == "/" != claims.prefix[1:2]
            assert claims.prefix[-1] != "/"
            assert not {".", ".."} & {*claims.prefix.split("/")}
            assert all(ord(char) >= 32 for char in claims.prefix)


@given(st.lists(st.one_of(PROXY, CLIENT, st.sampled_from(["unknown", "_x", "", "a,b"])), max_size=80))
def test_the_walk_is_the_one_that_is_described(hops: list[str]) -> None:
    expected = None
    split = [one for text in hops for one in text.split(",") if one]
    for text in split[::-1]:
        node = parse_node(text.encode())
        if node is None:
            break
        expected = (node[0], 0)
        if node[0] not in PROXIES:
            break
    claims = X_FORWARDED.claims([(FOR, ", ".join(hops).encode())])
    assert claims is not None
    if len(split) < HOPS_MAX - 20:  # empty elements are counted too
        assert claims.client == expected


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_networks_hold_what_they_hold(address: Any, base: Any, length: int) -> None:
    network = ip_network((base, min(length, base.max_prefixlen)), strict=False)
    mapped = getattr(address, "ipv4_mapped", None)
    trusted = TrustedPeers(str(network))
    if mapped is None and not (network.version == 6 and network.subnet_of(ip_network("::ffff:0:0/96"))):
        assert (str(address) in trusted) == (address in network)
    if address.version == 4:
        assert (f"::ffff:{address}" in trusted) == (str(address) in trusted)
        assert str(address) in TrustedPeers(f"::ffff:{address}")

"""`daphne_ng.config.trust`: who is in a list of trusted peers."""

from __future__ import annotations

import pytest

from daphne_ng.config.trust import TrustedPeers, plain_address
from daphne_ng.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("", [], ["127.0.0.1", "::1", None, ""]),
        (" , ", [], ["127.0.0.1", None]),
        ("*", ["127.0.0.1", "2001:db8::1", None, "no address"], []),
        ("10.0.0.1,*", ["192.0.2.1", None], []),
        ("unix", [None], ["127.0.0.1", "unix"]),
        ("10.0.0.1", ["10.0.0.1", "::ffff:10.0.0.1", "::FFFF:a00:1"], ["10.0.0.2", "::10.0.0.1", None]),
        ("10.0.0.0/8, 192.0.2.0/255.255.255.0", ["10.255.0.1", "192.0.2.9"], ["11.0.0.1", "192.0.3.1"]),
        ("::1", ["::1", "0:0:0:0:0:0:0:1"], ["127.0.0.1", "::2"]),
        ("2001:db8::/32,::1", ["2001:db8:1::2", "::1"], ["2001:db9::", "1.2.3.4"]),
        ("fe80::/10", ["fe80::1", "fe80::1%eth0"], ["fec0::1"]),
        ("::ffff:10.0.0.0/104", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1"]),
        ("::ffff:10.0.0.1", ["10.0.0.1"], ["10.0.0.2"]),
        ("::/0", ["2001:db8::1"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        ("0.0.0.0/0", ["1.2.3.4", "::ffff:1.2.3.4"], ["2001:db8::1", None]),
        ("127.0.0.0/8,::1,unix", ["127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "::1", None], ["128.0.0.1"]),
        ("127.0.0.1", [], ["garbage", "127.1", "0177.0.0.1", "2130706433", "127.0.0.1:80", ""]),
    ],
)
def test_who_is_trusted(text: str, inside: list[str | None], outside: list[str | None]) -> None:
    trusted = TrustedPeers(text)
    for _ in range(2):  # worked out, then remembered
        assert [peer for peer in inside if peer not in trusted] == []
        assert [peer for peer in outside if peer in trusted] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1, nginx", "--forwarded-allow-ips: 'nginx' does not appear to be an IPv4 or IPv6 network; it takes"),
        ("10.0.0.1/8", "--forwarded-allow-ips: 10.0.0.1/8 has host bits set; the network is 10.0.0.0/8"),
        ("10.0.0.0/33", "'10.0.0.0/33'"),
        ("010.0.0.1", "'010.0.0.1'"),
        ("[::1]", r"'\[::1\]'"),
        ("10.0.0.1:80", "'10.0.0.1:80'"),
        ("unix:/run/a.sock", "'unix:/run/a.sock'"),
        ("10.0.0.*", r"'10.0.0.\*'"),
    ],
)
def test_an_item_that_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TrustedPeers(text)


def test_what_is_remembered_is_bounded() -> None:
    trusted = TrustedPeers("10.0.0.0/8")
    for number in range(5000):
        assert (f"10.0.{number >> 8}.{number & 255}" in trusted) is True
        assert (f"11.0.{number >> 8}.{number & 255}" in trusted) is False
    assert len(trusted._answers) <= 1024


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::ffff:102:304", "1.2.3.4"),
        ("::ffff:1.2.3.4%eth0", "1.2.3.4"),
        ("::1", "::1"),
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:0:1", "0.0.0.1"),
        ("::ffff:nonsense", "::ffff:nonsense"),
        ("::ffff:1:2:3", "::ffff:1:2:3"),
    ],
)
def test_a_mapped_address_is_the_plain_one(text: str, plain: str) -> None:
    assert plain_address(text) == plain

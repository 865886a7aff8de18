"""Trusted peers: those that ``--forwarded-allow-ips`` names.

A trusted peer may say where a request comes from: in the headers of `daphne_ng.wire.http.forwarded`, in
``Daphne-Root-Path``, and in the PROXY protocol.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from daphne_ng.errors import ConfigurationError

__all__ = ["TrustedPeers", "plain_address"]

_MAPPED = IPv6Network("::ffff:0:0/96")
# Answers that are remembered. A server with more peers than that works them all out again.
_ANSWERS_MAX = 1024


class TrustedPeers:
    """A set of peers: addresses, networks, UNIX sockets, or everybody.

    An IPv4 address that is mapped into IPv6 (RFC 4291 section 2.5.5.2), as sockets for both families report it, is that
    IPv4 address. So ``::/0`` is every IPv6 peer and no IPv4 one.

    Args:
        text: Addresses, networks (``10.0.0.0/8``), ``unix`` and ``*``, separated by commas; empty for nobody.

    Raises:
        ConfigurationError: Names the item that is none of them.
    """

    __slots__ = ("_answers", "_networks", "everybody", "unix")

    def __init__(self, text: str) -> None:
        items = [item for item in (part.strip() for part in text.split(",")) if item]
        self.everybody = "*" in items
        """Whether every peer is trusted, whatever its address."""
        self.unix = self.everybody or "unix" in items
        """Whether the peers of UNIX sockets are trusted."""
        self._networks = [_network(item) for item in items if item not in ("*", "unix")]
        self._answers: dict[str, bool] = {}

    def __contains__(self, address: str | None) -> bool:
        """Whether the peer with this address is trusted; None is the peer of a UNIX socket."""
        if address is None:
            return self.unix
        answer = self._answers.get(address)
        if answer is None:
            answer = self.everybody or self._is_in_a_network(address)
            if len(self._answers) >= _ANSWERS_MAX:
                self._answers.clear()
            self._answers[address] = answer
        return answer

    def _is_in_a_network(self, text: str) -> bool:
        try:
            address = _plain(ip_address(text))
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def plain_address(text: str) -> str:
    """Return the IPv4 address that is mapped into this IPv6 address, or the address itself."""
    if not text.startswith("::ffff:"):  # as every system writes it
        return text
    try:
        return str(_plain(ip_address(text)))
    except ValueError:
        return text


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _network(item: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(item)
    except ValueError as error:
        hint = ""
        try:
            hint = f"; the network is {ip_network(item, strict=False)}"
        except ValueError:
            hint = "; it takes addresses, networks, unix and *"
        raise ConfigurationError(f"--forwarded-allow-ips: {error}{hint}") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None  # it is in that network
        return IPv4Network((int(mapped), network.prefixlen - 96))
    return network

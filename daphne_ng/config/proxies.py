"""The settings of proxies: which are believed, and what they may say."""

from __future__ import annotations

from daphne_ng.config.setting import TOKEN, SettingGroup, setting
from daphne_ng.config.trust import TrustedPeers
from daphne_ng.errors import ConfigurationError

__all__ = ["ProxySettings"]


def _check_field_name(label: str, value: str | None) -> None:
    if value and not TOKEN.fullmatch(value.encode("utf-8", "replace")):
        raise ConfigurationError(f"{label}: {value!r} is not a header name")
    if value and "_" in value:
        raise ConfigurationError(f"{label}: {value!r} is never seen: headers with '_' are dropped")


def _check_trusted(label: str, value: str) -> None:
    TrustedPeers(value)  # which names the item that is wrong


class ProxySettings(SettingGroup, heading="Proxies"):
    """Which proxies are believed, and what they may say."""

    proxy_address_header: str | None = setting(
        None,
        "header that names the client's address; set by --proxy-headers",
        set_by="--proxy-headers-host",
        check=_check_field_name,
    )
    proxy_port_header: str | None = setting(
        None,
        "header that names the client's port; set by --proxy-headers",
        set_by="--proxy-headers-port",
        check=_check_field_name,
    )
    proxy_proto_header: str | None = setting(
        None,
        "header that names the client's scheme; set by --proxy-headers",
        check=_check_field_name,
    )
    forwarded_allow_ips = setting(
        "127.0.0.0/8,::1,unix",
        "proxies to believe: addresses, networks, unix for UNIX sockets, or * for every peer; separated by commas",
        flags=("--forwarded-allow-ips",),
        why="What anybody may connect to, anybody may send these headers to.",
        check=_check_trusted,
    )
    proxy_forwarded = setting(
        False,
        "take the client's address and scheme from the Forwarded header (RFC 7239) instead of X-Forwarded-*",
        flags=("--proxy-headers-forwarded",),
        kind="flag",
        why="Never both: a proxy that writes one of them passes the other on as the client sent it.",
    )
    proxy_host = setting(
        False,
        "replace the Host header by what a trusted proxy says the client asked for (X-Forwarded-Host)",
        flags=("--proxy-headers-replace-host",),
        kind="flag",
        why="Off: few proxies set it, and those that do not pass on the client's.",
    )
    proxy_prefix = setting(
        False,
        "take root_path from the X-Forwarded-Prefix header of a trusted proxy",
        flags=("--proxy-headers-prefix",),
        kind="flag",
        why="Off: few proxies set it, and those that do not pass on the client's.",
    )
    root_path_prepend = setting(
        False,
        "put root_path in front of every path, for a proxy that strips the prefix",
        flags=("--root-path-prepend",),
        kind="flag",
        why="ASGI has the path hold the root path; a proxy that does not strip needs nothing.",
    )
    proxy_protocol = setting(
        False,
        "expect the PROXY protocol, version 1 or 2, at the beginning of every connection, and believe trusted peers",
        flags=("--proxy-protocol",),
        kind="flag",
        why="Its specification forbids to guess whether it is spoken.",
    )

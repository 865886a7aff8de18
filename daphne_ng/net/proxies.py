"""What proxies say, applied to requests: the settings for it, and the warnings where nobody is believed."""

from __future__ import annotations

import logging

from daphne_ng._types import Field
from daphne_ng.config import Config
from daphne_ng.config.trust import TrustedPeers
from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wire.http.forwarded import ForwardedFields

__all__ = ["Proxies", "proxies_from"]


def proxies_from(config: Config, trusted: TrustedPeers, log: logging.Logger) -> Proxies | None:
    """Return what reads the headers of proxies, or None if the settings ask for none of them."""
    fields = ForwardedFields(
        trusted,
        address=_name(config.proxy_address_header),
        port=_name(config.proxy_port_header),
        proto=_name(config.proxy_proto_header),
        host=b"x-forwarded-host" if config.proxy_host else None,
        prefix=b"x-forwarded-prefix" if config.proxy_prefix else None,
        forwarded=config.proxy_forwarded,
    )
    return Proxies(fields, log) if fields.names else None


class Proxies:
    """Applies the headers of trusted proxies to requests; of one server.

    Args:
        fields: Reads them.
        log: For the warning.
    """

    __slots__ = ("_fields", "_log", "_warned")

    def __init__(self, fields: ForwardedFields, log: logging.Logger) -> None:
        self._fields = fields
        self._log = log
        self._warned = False

    def apply_claims(self, head: RequestHead, info: ConnectionInfo) -> ConnectionInfo:
        """Return what is known of a request's client, and write host and root path into the head.

        Args:
            head: A request that has not begun.
            info: Its connection.
        """
        if not info.trusted:
            if not self._warned:
                self._warn(head, info)
            return info
        claims = self._fields.claims(head.headers)
        if claims is None:
            return info
        if claims.prefix is not None:
            head.root_path = claims.prefix
        if claims.host is not None:
            head.headers = _with_host(head.headers, claims.host)
        if claims.client is None and claims.scheme is None:
            return info
        return info.claimed(claims.client, claims.scheme)

    # Once per server: anybody can send them.
    def _warn(self, head: RequestHead, info: ConnectionInfo) -> None:
        names = self._fields.names
        for name, _value in head.headers:
            if name in names:
                self._warned = True
                self._log.warning(
                    "Ignored %s from %s, which is no trusted proxy; if it is one, name it with --forwarded-allow-ips",
                    name.decode("latin-1").title(),
                    info.client_name,
                )
                return


def _name(header: str | None) -> bytes | None:
    return header.lower().encode("ascii") if header else None


# A Host has one line at most; HTTP/1.0 may come without.
def _with_host(headers: list[Field], host: bytes) -> list[Field]:
    changed = [(name, host) if name == b"host" else (name, value) for name, value in headers]
    if not any(name == b"host" for name, _value in headers):
        changed.insert(0, (b"host", host))
    return changed

"""What stands between a server's sockets and its protocols, made from the settings: PROXY protocol, TLS, certificates.

One `Security` per server: it makes the parts that endpoint strings ask for, once each, and looks after them while the
server runs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import EndpointError
from daphne_ng.net.listening import ListeningReactor, ListenOptions, Prelude, TlsSource
from daphne_ng.net.reactor import DaphneReactor

__all__ = ["Security"]


class Security:
    """Implements `EndpointSecurity`.

    Args:
        config: The settings.
        protocols: ALPN names, the best first.
        loop: For timers.
    """

    def __init__(self, config: Config, protocols: list[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._protocols = protocols
        self._loop = loop
        self._tls: TlsSource | None = None
        self._prelude: Prelude | None = None

    def reactor(self, reactor: Any) -> Any:
        """Return what endpoints listen on: `reactor` with the socket settings, if it is ours."""
        if not isinstance(reactor, DaphneReactor):
            return reactor
        config = self._config
        options = ListenOptions(
            backlog=config.backlog,
            reuse_port=config.reuse_port,
            tcp_nodelay=config.tcp_nodelay,
            tcp_keepalive=config.tcp_keepalive,
            prelude=self.prelude() if config.proxy_protocol else None,
        )
        return ListeningReactor(reactor, options)

    def start(self) -> None:
        """Look after files that change."""

    def stop(self) -> None:
        """Give the timers back."""

    def reload(self) -> None:
        """Read the certificates again (SIGHUP)."""

    def prelude(self) -> Prelude:
        """See `EndpointSecurity.prelude`."""
        raise EndpointError("the PROXY protocol is not available yet")

    def tls(self) -> TlsSource:
        """See `EndpointSecurity.tls`."""
        raise EndpointError("TLS settings are not available yet")

"""The protocol factory that every endpoint listens with."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from daphne_ng.net.channels.connection import OverloadedConnection, ServerConnection
from daphne_ng.net.context import REFUSALS_MAX, ServerContext

__all__ = ["ServerFactory"]


@implementer(IProtocolNegotiationFactory)
class ServerFactory(Factory):
    """Makes a `ServerConnection` for each client that is accepted."""

    noisy = False

    def __init__(self, context: ServerContext) -> None:
        self.context = context

    def buildProtocol(self, addr: Any) -> Protocol | None:
        """Return the protocol for a new connection, or None to have it closed at once."""
        context = self.context
        if context.full:
            return OverloadedConnection(context) if context.refusing < REFUSALS_MAX else None
        return ServerConnection(context)

    def acceptableProtocols(self) -> list[bytes]:
        """Return the ALPN names. A TLS factory without any fails every client that offers some."""
        return [b"h2", b"http/1.1"] if self.context.config.http2 else [b"http/1.1"]

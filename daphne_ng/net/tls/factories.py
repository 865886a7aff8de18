"""Twisted's context factories as the source of a TLS port's contexts.

Private names of Twisted that this module relies on: ``CertificateOptions._makeTLSConnection`` and
``_acceptableProtocols``; without them a factory stays on Twisted's path, or has no protocols of its own.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakSet

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolNegotiationFactory
from twisted.internet.ssl import CertificateOptions

from daphne_ng.net.sockets.listening import TlsSource

__all__ = ["ContextFactorySource", "makes_connections", "source_of"]


class NoSharedProtocol(SSL.Error):
    """The client offers protocols (ALPN), and none of ours is among them."""


# Contexts may be shared by listeners. They are prepared once.
_prepared: WeakSet[SSL.Context] = WeakSet()


class ContextFactorySource:
    """Asks an ``IOpenSSLContextFactory`` for its context for every connection, as Twisted does.

    A factory may return another one at any time. Each is prepared when it is first seen: sessions can be resumed,
    nothing is renegotiated, idle connections hold no buffers, and ALPN follows the protocol factory that listens. Where
    that does not provide ``IProtocolNegotiationFactory``, ALPN stays as the context has it.

    Args:
        context_factory: The factory.
        factory: The protocol factory that listens.

    Raises:
        Exception: Whatever the factory raises when it is asked for the first time.
    """

    def __init__(self, context_factory: Any, factory: Any) -> None:
        self._context_factory = context_factory
        self._negotiates = IProtocolNegotiationFactory.providedBy(factory)
        self._current: SSL.Context | None = None
        self.context()

    def context(self) -> SSL.Context:
        """See `TlsSource.context`."""
        context: SSL.Context = self._context_factory.getContext()
        if context is not self._current:
            if not isinstance(context, SSL.Context):
                raise TypeError(f"getContext() of {self._context_factory!r} returned no OpenSSL.SSL.Context")
            if context not in _prepared:
                self._prepare(context)
            self._current = context
        return context

    def _prepare(self, context: SSL.Context) -> None:
        try:
            context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
            context.set_mode(SSL.MODE_RELEASE_BUFFERS)
            # OpenSSL bounds the cache at 20 480 sessions.
            context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
            # Without one, sessions of clients that showed a certificate would be refused with an error.
            context.set_session_id(os.urandom(16))
            if self._negotiates:
                context.set_alpn_select_callback(_selector(self._context_factory))
        except ValueError:
            # A context that has connections elsewhere cannot be changed in pyOpenSSL any more: it serves as it is.
            pass
        _prepared.add(context)


def _selector(context_factory: Any) -> Any:
    own = tuple(getattr(context_factory, "_acceptableProtocols", None) or ())

    def select(connection: SSL.Connection, offered: list[bytes]) -> bytes:
        # The context may serve several factories, on Twisted's path too.
        factory: Any = getattr(getattr(connection.get_app_data(), "factory", None), "wrappedFactory", None)
        protocols: tuple[bytes, ...] = own
        if IProtocolNegotiationFactory.providedBy(factory):
            protocols = (*factory.acceptableProtocols(), *own)
        for protocol in protocols:
            if protocol in offered:
                return protocol
        raise NoSharedProtocol([("SSL routines", "", "no application protocol")])

    return select


def makes_connections(context_factory: Any) -> bool:
    """Tell whether `context_factory` must be asked for connections, which are on memory buffers, instead of contexts.

    ``CertificateOptions`` can be asked for both, and makes nothing special of connections.
    """
    if not IOpenSSLServerConnectionCreator.providedBy(context_factory):
        return not hasattr(context_factory, "getContext")
    kind = type(context_factory)
    return any(
        getattr(kind, name, None) is not getattr(CertificateOptions, name, None)
        for name in ("serverConnectionForTLS", "_makeTLSConnection")
    )


def source_of(context_factory: Any, factory: Any) -> TlsSource:
    """Return what a TLS port is to have its contexts from.

    Args:
        context_factory: What was given to ``listenSSL``; a `TlsSource` is used as it is.
        factory: The protocol factory that listens.
    """
    if callable(getattr(context_factory, "context", None)):
        return context_factory  # type: ignore[no-any-return]
    return ContextFactorySource(context_factory, factory)

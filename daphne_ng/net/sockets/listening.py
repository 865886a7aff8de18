"""Listening sockets: their options, and the reactor's face that endpoints are given.

An endpoint string, a third-party one too, ends in one of four calls on a reactor: ``listenTCP``, ``listenUNIX``,
``listenSSL`` or ``adoptStreamPort``. `ListeningReactor` stands before the real reactor and adds to these calls what the
string cannot say: socket options, the PROXY protocol, TLS. So ``haproxy:`` and ``tls:`` around any other string need to
know nothing of it, and the header of the PROXY protocol is read before TLS begins, as its senders write it.

`InheritedEndpoint` is for sockets that another process listens on already.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import AlreadyListened
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import directlyProvides, implementer, providedBy

__all__ = ["Accepted", "InheritedEndpoint", "ListenOptions", "ListeningReactor", "Prelude", "TlsSource"]


class TlsSource(Protocol):
    """Where a TLS port has its contexts from."""

    def context(self) -> SSL.Context:
        """Return the context for a connection that was just accepted; its ALPN and SNI callbacks are set."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection that was accepted and whose ends are known."""

    sock: socket.socket
    peer: Any
    """The peer's address as ``accept()`` gave it."""
    client: Any = None
    """An ``IAddress`` to show as the peer's in place of it, if a proxy named one."""
    server: Any = None
    """An ``IAddress`` to show as ours, if a proxy named one."""
    client_tls: bool = False
    """Whether a proxy said that its client spoke TLS with it."""


class Prelude(Protocol):
    """What happens on a connection before its protocol begins."""

    def begin(self, reactor: Any, accepted: Accepted, serve: Callable[[Accepted], None]) -> None:
        """Take the socket, read what comes before the protocol, and call `serve`, or close the socket.

        Args:
            reactor: Watches the socket meanwhile.
            accepted: The connection.
            serve: Makes the protocol. Not a byte of its data has been read from the socket.
        """

    def port_stopped(self, serve: Callable[[Accepted], None]) -> None:
        """Come to an end soon with sockets that have not come to `serve` yet: the port that it belongs to has stopped.

        `serve` may still be called for them.
        """


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """The options of listening sockets, and the parts between them and the protocol."""

    backlog: int = 2048
    """The backlog of an endpoint that names none. Endpoints parsed from strings pass Twisted's 50 then, so exactly 50
    counts as none."""
    reuse_port: bool = False
    tcp_nodelay: bool = True
    tcp_keepalive: bool = True
    unix_owner: tuple[int, int] | None = None
    """User and group id of UNIX sockets that are made; -1 leaves one as it is."""
    prelude: Prelude | None = None
    tls: TlsSource | None = None

    def replace(self, **changes: Any) -> ListenOptions:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


class ListeningReactor:
    """A `DaphneReactor` as endpoints see it: what they listen on gets `options`. All else passes through.

    Args:
        reactor: The reactor.
        options: For every port.
    """

    replays = False
    """Whether the sockets are those that another process has made."""

    def __init__(self, reactor: Any, options: ListenOptions) -> None:
        self._reactor = reactor
        self.options = options
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def changed(self, **changes: Any) -> ListeningReactor:
        """Return one whose options differ."""
        return ListeningReactor(self._reactor, self.options.replace(**changes))

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See ``IReactorTCP``."""
        return self._reactor.listenTCP(port, factory, backlog, interface, options=self.options)

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: Any = 0) -> Any:
        """See ``IReactorUNIX``."""
        return self._reactor.listenUNIX(address, factory, backlog, mode, wantPID, options=self.options)

    def listenSSL(self, port: Any, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See ``IReactorSSL``."""
        return self._reactor.listenSSL(port, factory, contextFactory, backlog, interface, options=self.options)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See ``IReactorSocket``."""
        return self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory, options=self.options)


@implementer(IStreamServerEndpoint)
class InheritedEndpoint:
    """A listening socket that was made elsewhere.

    Twisted's ``AdoptedStreamServerEndpoint`` is the same, and does harm with the descriptors 0 to 2.

    The descriptor is duplicated and then closed. Those of standard input, output and error become ``/dev/null``
    instead: the next socket or file would get the number, and whatever reads standard input would read from that.

    Args:
        reactor: Provides ``IReactorSocket``.
        fileno: The descriptor. It is made non-blocking, for every process that shares it, and stays so. -1 where the
            reactor knows it.
        family: Its address family.
    """

    def __init__(self, reactor: Any, fileno: int, family: socket.AddressFamily) -> None:
        self.reactor = reactor
        self.fileno = fileno
        self.addressFamily = family
        self._used = False

    def listen(self, factory: Any) -> Deferred[Any]:
        """See ``IStreamServerEndpoint``."""
        if self._used:
            return fail(AlreadyListened())
        self._used = True
        try:
            # Another process may take the connection between the loop's event and accept().
            if self.fileno >= 0:
                os.set_blocking(self.fileno, False)
            port = self.reactor.adoptStreamPort(self.fileno, self.addressFamily, factory)
            if self.fileno >= 0:
                _release_descriptor(self.fileno)
        except Exception:
            return fail()
        return succeed(port)


def _release_descriptor(fileno: int) -> None:
    if fileno > 2:
        os.close(fileno)
        return
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fileno)
    os.close(null)

"""Listening sockets that several processes share: one process makes them, the others take them over.

The endpoint strings are the same in all of these processes. What they end in, the calls of ``listenTCP`` and its like,
is recorded in the first (`RecordingReactor`) and replayed in the others, in the same order (`ReplayingReactor`). So
whatever listens through the reactor can be shared, a third-party endpoint too.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from daphne_ng.errors import EndpointError
from daphne_ng.net.sockets.listening import ListeningReactor, ListenOptions

__all__ = ["RecordingReactor", "ReplayingReactor", "SharedSocket"]

_Reactor = TypeVar("_Reactor", bound=ListeningReactor)


@dataclass(frozen=True, slots=True)
class SharedSocket:
    """One call that was recorded."""

    fileno: int
    """Of the listening socket; -1 if every process makes one for itself."""
    family: int
    port: int = 0
    """Where each process listens then, with SO_REUSEPORT."""
    inherited: bool = False
    """Whether it was somebody else's before: systemd's, for instance, who keeps it."""


@dataclass(slots=True)
class _Recorded:
    shared: SharedSocket
    address: Any
    close: Callable[[], object]


class RecordingReactor(ListeningReactor):
    """Makes the sockets, and leaves them to others: nothing is accepted here.

    Args:
        reactor: A `DaphneReactor`, which need not run.
        options: Those of sockets. TLS and the PROXY protocol are the concern of those who accept.
    """

    def __init__(self, reactor: Any, options: ListenOptions) -> None:
        super().__init__(reactor, options)
        self._recorded: list[_Recorded] = []

    def changed(self, **changes: Any) -> RecordingReactor:
        """See `ListeningReactor.changed`."""
        return _copy_with(self, self.options.replace(**changes | {"prelude": None, "tls": None}))

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See ``IReactorTCP``."""
        listener = super().listenTCP(port, factory, backlog, interface)
        if not self.options.reuse_port:
            return self._record(listener)
        listener.stopReading()
        address = listener.getHost()
        holder = _address_holder(listener.socket)
        listener.connectionLost(Failure(ConnectionDone()))
        shared = SharedSocket(-1, int(holder.family), holder.getsockname()[1])
        self._recorded.append(_Recorded(shared, address, holder.close))
        return listener

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: Any = 0) -> Any:
        """See ``IReactorUNIX``."""
        return self._record(super().listenUNIX(address, factory, backlog, mode, wantPID))

    def listenSSL(self, port: Any, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See ``IReactorSSL``."""
        return self.listenTCP(port, factory, backlog, interface)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See ``IReactorSocket``."""
        return self._record(super().adoptStreamPort(fileDescriptor, addressFamily, factory), inherited=True)

    def _record(self, listener: Any, inherited: bool = False) -> Any:
        listener.stopReading()
        # The workers accept the connections in the queue.
        listener.leaves_queue = True
        sock: socket.socket = listener.socket
        shared = SharedSocket(sock.fileno(), int(sock.family), inherited=inherited)
        close = partial(listener.connectionLost, Failure(ConnectionDone()))
        self._recorded.append(_Recorded(shared, listener.getHost(), close))
        return listener

    @property
    def count(self) -> int:
        """How many sockets there are."""
        return len(self._recorded)

    def sockets(self) -> list[SharedSocket]:
        """Return what was recorded, in its order."""
        return [one.shared for one in self._recorded]

    def addresses(self) -> list[Any]:
        """Return where is listened, as Twisted's ``IAddress``."""
        return [one.address for one in self._recorded]

    def close(self) -> None:
        """Close the sockets here, and remove the files of UNIX sockets that were made here."""
        recorded, self._recorded = self._recorded, []
        for one in recorded:
            one.close()


# The copy is another face of the same sockets, with other options. copy.copy() would ask `__getattr__` of an object
# that is empty yet.
def _copy_with(reactor: _Reactor, options: ListenOptions) -> _Reactor:
    other = object.__new__(type(reactor))
    vars(other).update(vars(reactor), options=options)
    return other


# The socket keeps an address for the processes that listen there with SO_REUSEPORT. It must not listen itself: the
# kernel would give it its share of the connections.
def _address_holder(listener: socket.socket) -> socket.socket:
    holder = socket.socket(listener.family, listener.type)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if listener.family == socket.AF_INET6:
            only = listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        holder.bind(listener.getsockname())
    except BaseException:
        holder.close()
        raise
    return holder


class ReplayingReactor(ListeningReactor):
    """Takes over what another process has recorded, call by call.

    Args:
        reactor: A `DaphneReactor`.
        options: For every port.
        sockets: What was recorded. Every reactor that is made of this one takes from the same.
    """

    replays = True

    def __init__(self, reactor: Any, options: ListenOptions, sockets: Iterable[SharedSocket]) -> None:
        super().__init__(reactor, options)
        self._sockets: Iterator[SharedSocket] = iter(sockets)

    def changed(self, **changes: Any) -> ReplayingReactor:
        """See `ListeningReactor.changed`."""
        return _copy_with(self, self.options.replace(**changes))

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See ``IReactorTCP``."""
        shared = self._next()
        if shared.fileno < 0:
            if shared.family == socket.AF_INET and ":" in interface:
                interface = ""  # the system has no IPv6, as was found out where this was recorded
            return super().listenTCP(shared.port, factory, backlog, interface)
        return self._adopt(shared, factory)

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: Any = 0) -> Any:
        """See ``IReactorUNIX``."""
        return self._adopt(self._next(), factory)

    def listenSSL(self, port: Any, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See ``IReactorSSL``."""
        factory, options = self._reactor.tls_parts(contextFactory, factory, self.options)
        return _copy_with(self, options).listenTCP(port, factory, backlog, interface)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See ``IReactorSocket``; the descriptor of the other process means nothing here."""
        return self._adopt(self._next(), factory)

    def _next(self) -> SharedSocket:
        try:
            return next(self._sockets)
        except StopIteration:
            raise EndpointError("it listens otherwise here than where its socket was made") from None

    def _adopt(self, shared: SharedSocket, factory: Any) -> Any:
        port = super().adoptStreamPort(shared.fileno, shared.family, factory)
        # The port has a duplicate, and closes that.
        os.close(shared.fileno)
        port.inherited = shared.inherited
        # The worker that is free first takes the next connection, and no more than one.
        port.accepts_per_turn = 1
        return port

"""Listening sockets: they accept, and hand each connection through what comes before its protocol.

A port that was adopted never calls ``listen()``, ``chmod()``, ``shutdown()`` or ``unlink()``: its socket belongs to the
process that made it.

Private names of Twisted that this module relies on: ``_preexistingSocket``, ``_shouldShutdown``, ``_realPortNumber``,
``_reservedFD``, ``_buildAddr``, ``_getLogPrefix``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import Any

from twisted.internet import address, error, tcp
from twisted.logger import Logger
from twisted.python import log as twisted_log
from twisted.python.failure import Failure

from daphne_ng.errors import EndpointError
from daphne_ng.net.sockets.listening import Accepted, ListenOptions
from daphne_ng.net.sockets.transports import DirectDescriptor, TCPServer, set_stream_options
from daphne_ng.net.tls.transport import TLSServer

if sys.platform != "win32":
    from twisted.internet import unix

    from daphne_ng.net.sockets import unix_socket
    from daphne_ng.net.sockets.transports import UNIXServer
    from daphne_ng.net.tls.transport import TLSUNIXServer

__all__ = ["TCPPort", "UNIXPort"]

_log = Logger()


class _DirectPort(DirectDescriptor, tcp.Port):
    """Accepting, which TCP and UNIX ports share."""

    transport: Any
    tls_transport: Any
    reactor: Any

    accepts_per_turn = 100
    """Most connections accepted before the loop gets its turn back. 1 spreads connections best over processes that
    share a listener."""

    options = ListenOptions()
    """Set before ``startListening``."""

    leaves_queue = False
    """Whether connections that wait to be accepted stay in the queue when this port stops: other processes share the
    socket. An adopted port begins so."""

    # Twisted sets it in startListening, which an adopted UNIX port does not pass through.
    numberAccepts = 100

    # Closing the last descriptor ends a listener. shutdown() ends it for every process that shares it.
    _shouldShutdown = False

    def read_ready(self) -> None:
        """Accept; see `DirectDescriptor`."""
        try:
            self.doRead()
        except Exception:
            _log.failure("Unhandled error while connections were accepted")

    def doRead(self) -> None:
        """Accept the waiting connections, at most `accepts_per_turn`."""
        accept = self.socket.accept
        # The limit follows the traffic, as Twisted's does: an accept() that finds no connection costs as much as
        # several that find one.
        limit = min(self.numberAccepts, self.accepts_per_turn)
        for accepted in range(limit):
            try:
                connection, peer = accept()
            except BlockingIOError:
                self.numberAccepts = max(1, accepted)
                return
            except OSError:
                # The process is out of descriptors, or the client is gone again: Twisted's own loop meets the same
                # error and knows what to do, down to the descriptor that it keeps in reserve.
                tcp.Port.doRead(self)
                return
            self._start_connection(connection, peer)
            if self.disconnecting or not self.connected:
                return
        self.numberAccepts = limit + 20

    def _start_connection(self, connection: socket.socket, peer: Any) -> None:
        try:
            self._read_prelude(Accepted(connection, peer))
        except Exception:
            _log.failure("Unhandled error while a connection was accepted")
            connection.close()

    # Connections in the queue would be reset when the socket is closed, unless other processes share it.
    def _accept_queued(self) -> None:
        for _ in range(self.options.backlog):
            try:
                connection, peer = self.socket.accept()
            except OSError:
                return
            self._start_connection(connection, peer)

    def _read_prelude(self, accepted: Accepted) -> None:
        prelude = self.options.prelude
        if prelude is None:
            self._serve(accepted)
        else:
            accepted.sock.setblocking(False)
            prelude.begin(self.reactor, accepted, self._serve)

    def _serve(self, accepted: Accepted) -> None:
        raise NotImplementedError

    def _getLogPrefix(self, factory: Any) -> str:
        prefix: str = super()._getLogPrefix(factory)
        return prefix if self.options.tls is None else f"{prefix} (TLS)"

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket, and the connections that have not begun."""
        if not self.leaves_queue:
            self._accept_queued()
        if self.options.prelude is not None:
            self.options.prelude.port_stopped(self._serve)
        tcp.Port.connectionLost(self, reason)

    # The protocol and its transport are made, and brought together.
    def _connect(self, accepted: Accepted, peer: Any, client: Any) -> None:
        connection = accepted.sock
        protocol = self.factory.buildProtocol(client)  # type: ignore[union-attr]
        if protocol is None:
            connection.close()
            return
        session = self.sessionno
        self.sessionno = session + 1
        tls = self.options.tls
        transport: Any
        if tls is None:
            transport = self.transport(connection, protocol, peer, self, session, self.reactor)
        else:
            transport = self.tls_transport(connection, protocol, peer, self, session, self.reactor, tls.context())
        # The addresses are the same objects every time; a proxy's word takes the place of the kernel's.
        transport._peer = client
        transport._host = accepted.server
        transport.client_tls = accepted.client_tls
        try:
            protocol.makeConnection(transport)
        except Exception as exception:
            _log.failure("Unhandled error while a connection was made")
            # The loop watches it already. Closing the socket under it would make uvloop abort the process when the
            # descriptor's number comes round again; this takes it out first.
            transport._disconnect(exception, False)


class TCPPort(_DirectPort):
    """A listening TCP socket, IPv4 or IPv6."""

    transport = TCPServer
    tls_transport = TLSServer

    def startListening(self) -> None:
        """Bind and listen, or take over the adopted socket as it is."""
        adopted = self._preexistingSocket
        if adopted is not None:
            self.leaves_queue = True
            set_stream_options(adopted, self.options)
        super().startListening()

    def createInternetSocket(self) -> socket.socket:
        """Make the socket to listen on, with the options that accepted ones inherit."""
        # Twisted sets SO_REUSEADDR. It stays: without it a restart waits for the connections of the server before to
        # leave TIME_WAIT. On Linux and macOS it lets nobody listen where somebody else listens already.
        listener: socket.socket = super().createInternetSocket()
        set_stream_options(listener, self.options)
        if self.options.reuse_port:
            # Linux spreads connections over all listeners of one user; macOS gives them all to one of them.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.addressFamily == socket.AF_INET6 and _is_wildcard(self.interface):
            # "::" is IPv4 too, whatever the system's default (net.ipv6.bindv6only). OpenBSD refuses.
            with contextlib.suppress(OSError):
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self._ipv4_is_ours())
        return listener

    # A server that listens on "0.0.0.0" and "::" with one port has IPv4 there already.
    def _ipv4_is_ours(self) -> bool:
        return any(
            isinstance(other, TCPPort)
            and other.addressFamily == socket.AF_INET
            and other._realPortNumber == self.port
            and other.interface in ("", "0.0.0.0")
            for other in self.reactor.getReaders()
        )

    def _serve(self, accepted: Accepted) -> None:
        peer = accepted.peer
        if len(peer) == 4 and peer[3]:
            # A link-local address is nothing without its scope, which accept() gives as a number only.
            peer = (socket.getnameinfo(peer, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0], *peer[1:])
        self._connect(accepted, peer, accepted.client or self._buildAddr(peer))


if sys.platform != "win32":

    class UNIXPort(_DirectPort, unix.Port):
        """A listening UNIX stream socket, in the file system or abstract."""

        transport = UNIXServer
        tls_transport = TLSUNIXServer

        # The file that this port has made and is to remove.
        _file: unix_socket.SocketFile | None = None

        def __init__(self, fileName: Any, factory: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(fileName, factory, *args, **kwargs)
            # Twisted keeps it too, under a name that changed between 25.5 and 26.10.
            self._path = address.UNIXAddress(fileName).name or b""

        def startListening(self) -> None:
            """Bind and listen; an adopted socket is taken over as it is: no ``chmod``, no ``listen``.

            `wantPID` does not make a lock file. It means what that is for: to replace a socket on which nobody listens.
            """
            tcp._reservedFD.reserve()
            listener, self._preexistingSocket = self._preexistingSocket, None
            if listener is None:
                try:
                    listener = self.createInternetSocket()
                    self._file = unix_socket.listen(
                        listener, self._path, self.backlog, self.mode, self.options.unix_owner, bool(self.wantPID)
                    )
                except (OSError, EndpointError) as failure:
                    raise error.CannotListenError(None, self._path, failure) from failure
            else:
                self.leaves_queue = True
                listener.setblocking(False)
            name = os.fsdecode(self._path)
            twisted_log.msg(f"{self._getLogPrefix(self.factory)} starting on {name!r}")
            self.factory.doStart()  # type: ignore[union-attr]
            self.connected = True
            self.socket = listener
            self.fileno = listener.fileno  # type: ignore[method-assign]
            self.startReading()

        def connectionLost(self, reason: Failure) -> None:
            """Close the socket. Its file goes only if this process made it and nobody replaced it since."""
            file, self._file = self._file, None
            if file is not None:
                file.remove()
            _DirectPort.connectionLost(self, reason)

        def _serve(self, accepted: Accepted) -> None:
            # The name of a client is empty as a rule.
            self._connect(accepted, accepted.peer, accepted.client or self._buildAddr(accepted.peer or None))


def _is_wildcard(interface: str) -> bool:
    with contextlib.suppress(OSError):
        return not any(socket.inet_pton(socket.AF_INET6, interface))
    return False

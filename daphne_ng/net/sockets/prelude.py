"""The PROXY protocol on a socket that was just accepted: its header is read, and not one byte more.

What follows the header is the connection itself, TLS or HTTP. So the header is looked at with ``MSG_PEEK``, and taken
only as far as it is surely header. While it is incomplete that is everything that has come (`parse`, rule 1). So
nothing stays in the socket that would wake a level-triggered loop again and again, whether it comes in one piece or
byte by byte.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from daphne_ng.errors import ProxyHeaderError
from daphne_ng.net.context import ServerContext
from daphne_ng.net.sockets.listening import Accepted
from daphne_ng.net.sockets.transports import DirectDescriptor
from daphne_ng.port.info import LOCAL_CLIENT
from daphne_ng.wire.proxy_protocol import MAX_BYTES, Address, ProxyHeader, parse

__all__ = ["ProxyProtocol"]

Serve = Callable[[Accepted], None]


class ProxyProtocol:
    """Implements `Prelude` for all ports of one server.

    Connections that wait for their header count as open ones (`ServerContext.waiting`), and have
    ``proxy_protocol_timeout`` seconds.

    Args:
        context: The server. The headers of its trusted peers are believed; anybody else's is read and thrown away.
    """

    def __init__(self, context: ServerContext) -> None:
        self.context = context
        self.timeout = context.config.proxy_protocol_timeout
        self.waiting: set[_Waiting] = set()
        self._warned = False

    def begin(self, reactor: Any, accepted: Accepted, serve: Serve) -> None:
        """See `Prelude.begin`. The header may be there already: then `serve` is called from here."""
        if self.context.refusals_full:
            accepted.sock.close()
            self.closed(accepted, "the server is at its limit of connections")
            return
        waiting = _Waiting(self, reactor, accepted, serve)
        # Proxies send it with their first packet, so that it is often there before the connection is accepted.
        waiting.read_ready()
        if not waiting.ended:
            waiting.watch()

    def port_stopped(self, serve: Serve) -> None:
        """See `Prelude.port_stopped`. They have as long as a connection that is kept for a last request."""
        config = self.context.config
        patience = min(config.shutdown_idle_timeout, config.graceful_timeout)
        for waiting in [waiting for waiting in self.waiting if waiting.serve == serve]:
            if patience:
                waiting.limit(patience)
            else:
                waiting.close()

    def closed(self, accepted: Accepted, why: str, *, noteworthy: bool = True) -> None:
        """Say in the log that a connection was closed before it began."""
        tell = self.context.lines.tell if noteworthy else self.context.log.debug
        tell("Closed a connection from %s: %s", _text(accepted.peer), why)

    def said(self, accepted: Accepted, header: ProxyHeader) -> Accepted:
        """Return the connection with what its header says of it, if it names anybody and its sender is believed."""
        source, destination = header.source, header.destination
        if source is None or destination is None:
            return accepted
        if (accepted.peer[0] if isinstance(accepted.peer, tuple) else None) not in self.context.trusted_peers:
            if not self._warned:
                self._warned = True
                self.context.log.warning(
                    "Ignored what the PROXY protocol says on a connection from %s, which is not a trusted proxy; "
                    "name yours with --forwarded-allow-ips",
                    _text(accepted.peer),
                )
            return accepted
        return Accepted(accepted.sock, accepted.peer, _address(source), _address(destination), header.tls)


class _Waiting(DirectDescriptor):
    """A connection whose header is not complete yet. It ends in `serve`, or closes the socket."""

    def __init__(self, owner: ProxyProtocol, reactor: Any, accepted: Accepted, serve: Serve) -> None:
        self.serve = serve
        self.ended = False
        self._owner = owner
        self._reactor = reactor
        self._accepted = accepted
        self._head = b""
        self._seconds = owner.timeout
        self._timer: Any = None
        self._watched = False

    # -- what the reactor wants of a reader

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._accepted.sock.fileno()

    def logPrefix(self) -> str:
        """Return what Twisted calls it in its log."""
        return "PROXY protocol"

    def connectionLost(self, reason: Any) -> None:
        """Close: the reactor disconnects all that it reads from."""
        self.close()

    # -- reading

    def watch(self) -> None:
        """Have the reactor call when there is more, until the time is over."""
        owner = self._owner
        self._watched = True
        owner.waiting.add(self)
        owner.context.waiting += 1
        self._reactor.addReader(self)
        if self._seconds:
            self._timer = owner.context.loop.call_later(self._seconds, self._timed_out)

    def limit(self, seconds: float) -> None:
        """Shorten the time that is left."""
        loop = self._owner.context.loop
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._seconds = seconds
        self._timer = loop.call_later(seconds, self._timed_out)

    def read_ready(self) -> None:
        """Read as much of the header as has come; see `DirectDescriptor`."""
        try:
            header = self._read()
        except (BlockingIOError, InterruptedError):
            return
        except (ProxyHeaderError, ConnectionError) as error:
            # Load balancers look whether a port is open by connecting and closing, or resetting, many times an hour.
            told = bool(self._head) or isinstance(error, ProxyHeaderError)
            self.close()
            self._owner.closed(self._accepted, str(error), noteworthy=told)
            return
        except Exception as error:  # nothing stands between this method and the loop
            self._owner.context.log.error("Unhandled error while a PROXY header was read", exc_info=error)
            self.close()
            return
        if header is not None:
            self._leave()
            try:
                self.serve(self._owner.said(self._accepted, header))
            except Exception as error:
                self._owner.context.log.error("Unhandled error while a connection was made", exc_info=error)
                self._accepted.sock.close()
            self._owner.context.check_closed()

    # Bytes that surely belong to the header are taken; the header is returned once it is complete.
    def _read(self) -> ProxyHeader | None:
        receive = self._accepted.sock.recv
        head = self._head
        # No header is longer, so parse() finds one of MAX_BYTES complete, or wrong.
        peeked = receive(MAX_BYTES - len(head), socket.MSG_PEEK)
        if not peeked:
            raise ConnectionError("it was closed before the PROXY header was complete")
        header = parse(head + peeked)
        end = len(head) + len(peeked) if header is None else header.size
        # UNIX sockets may hand out less, where descriptors were passed.
        self._head = head = head + receive(end - len(head))
        return header if header is not None and len(head) == header.size else None

    # -- the end

    def _timed_out(self) -> None:
        self._timer = None
        self.close()
        self._owner.closed(self._accepted, f"no PROXY header within {self._seconds:g} s")

    def close(self) -> None:
        """Give the connection up."""
        self._leave()
        self._accepted.sock.close()
        self._owner.context.check_closed()

    # The descriptor leaves the loop before it is closed, or handed on to what watches it from here on.
    def _leave(self) -> None:
        self.ended = True
        if not self._watched:
            return
        self._watched = False
        self._reactor.removeReader(self)
        self._owner.waiting.discard(self)
        self._owner.context.waiting -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _address(address: Address) -> Any:
    if isinstance(address, bytes):
        return UNIXAddress(address or None)
    host, port = address
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


def _text(peer: Any) -> str:
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else LOCAL_CLIENT

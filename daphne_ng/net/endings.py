"""The ways in which a connection ends below the protocol, with TLS in between or without."""

from __future__ import annotations

import select
from typing import Any

from twisted.internet.interfaces import ISSLTransport

from daphne_ng.net.flow import socket_transport

__all__ = ["abort", "close_half", "peer_gone", "release"]

_HALF = getattr(select, "POLLRDHUP", 0)
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL | _HALF


def close_half(transport: Any) -> None:
    """Flush, then end our direction, while the peer's is still read.

    TLS has its own way to say so, close_notify; a FIN without one would make a whole answer look truncated. Twisted's
    TLS transport goes on delivering what the peer sends until the peer has answered.
    """
    if ISSLTransport.providedBy(transport):
        transport.loseConnection()
    else:
        transport.loseWriteConnection()


def abort(transport: Any) -> None:
    """Drop the connection with a reset.

    Through the wrappers, not by them: TLS would send close_notify first, and a response that was cut off, of which only
    the end of the connection tells the end, would look complete.
    """
    socket_transport(transport).abortConnection()


def release(transport: Any) -> None:
    """Close the socket, without waiting for an answer to close_notify. What the kernel holds still goes out."""
    below = socket_transport(transport)
    # A transport with TLS of its own waits in loseConnection(), as wrappers do.
    getattr(below, "release", below.loseConnection)()


def peer_gone(transport: Any, *, half: bool = True) -> bool:
    """Tell whether the peer has closed or reset the connection, without reading from it.

    Args:
        transport: The connection's.
        half: Whether a peer counts as gone that has closed its half, perhaps behind bytes that are still unread.
    """
    below = socket_transport(transport)
    try:
        fd = below.fileno()
    except (AttributeError, OSError):
        return True  # a transport that has lost its connection has no descriptor any more
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, _HALF if half else 0)
    return any(events & _GONE for _fd, events in poll.poll(0))

"""The ways in which a connection ends below the protocol, with TLS in between or without.

A protocol decides when and which (`daphne_ng.wire.ending`); its `Channel` has a method for each, which first takes the
producer away from the transport; here is what a transport makes of it:

===================== =================== ================================ ============================================
of the channel        here                without TLS                      with TLS
===================== =================== ================================ ============================================
`Channel.close`       -                   flush, then close the socket     flush, close_notify, and wait for the peer's
`Channel.finish`      `finish`            the same; our half only while    the same
                                          the peer has much to take yet
`Channel.close_writing` `close_half`      flush, then a FIN; still read    flush, close_notify; still read
`Channel.release`     `release`           close the socket now             the same, the peer's close_notify or not
`Channel.abort`       `abort`             a reset now                      the same, and no close_notify
`Channel.drop`        `abort`             the same, with a line in the log the same
`Channel.break_off`   `abort`             the same                         the same; for a tunnel, its whole connection
===================== =================== ================================ ============================================

A stopping server ends what is left by `release_or_abort`. What is written is flushed by the first three; the write
timeout of `daphne_ng.net.channels.flow` bounds how long that takes. A tunnel (`daphne_ng.net.channels.tunnel`) is a
transport too, and says there what the words mean on a stream of HTTP/2.
"""

from __future__ import annotations

import select
import socket
from typing import Any, Final

from twisted.internet.interfaces import ISSLTransport

from daphne_ng.net.channels.flow import socket_transport, unacknowledged_bytes, unsent_bytes

__all__ = ["abort", "close_half", "finish", "is_ending", "peer_gone", "release", "release_or_abort"]

# An answer that is no longer than this is on its way to the client, or in its kernel, within a round trip.
_SMALL_BYTES: Final = 16 * 1024
_TCP: Final = (socket.AF_INET, socket.AF_INET6)

_HALF: Final = getattr(select, "POLLRDHUP", 0)
_GONE: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL | _HALF


def close_half(transport: Any) -> None:
    """Flush, then end our direction, while the peer's is still read.

    TLS has its own way to say so, close_notify; a FIN without one would make a whole answer look truncated. Twisted's
    TLS transport goes on delivering what the peer sends until the peer has answered.
    """
    if ISSLTransport.providedBy(transport):
        transport.loseConnection()
    else:
        transport.loseWriteConnection()


def finish(transport: Any) -> None:
    """Flush, then close both directions, but while the peer has much to take yet go on reading until it has.

    What comes for a TCP socket that is closed is answered with a reset, and that throws away what the kernel still
    holds for the peer: megabytes, which a slow one has not got. Whoever calls this throws away what is read, and calls
    `release` when nothing is left. TLS goes on reading anyway, and a UNIX socket loses nothing.
    """
    sock = None if ISSLTransport.providedBy(transport) else getattr(transport, "socket", None)
    if sock is not None and sock.family in _TCP and unacknowledged_bytes(transport) > _SMALL_BYTES:
        transport.loseWriteConnection()
        transport.resumeProducing()
    else:
        transport.loseConnection()


def release_or_abort(transport: Any) -> None:
    """Close the socket now; with a reset only if something is cut off."""
    if unsent_bytes(transport):
        abort(transport)
    else:
        release(transport)


def abort(transport: Any) -> None:
    """Drop the connection with a reset.

    Through the wrappers, not by them: TLS would send close_notify first, and a response that was cut off, of which only
    the end of the connection tells the end, would look complete.
    """
    socket_transport(transport).abortConnection()


def release(transport: Any) -> None:
    """Close the socket, without waiting for an answer to close_notify. What the kernel holds still goes out."""
    below = socket_transport(transport)
    # loseConnection() waits: with TLS for the peer, and without for room in the kernel, though nothing is to be sent.
    getattr(below, "release", below.loseConnection)()


def is_ending(transport: Any) -> bool:
    """Tell whether our direction is closed, or will be when everything is sent."""
    return bool(getattr(transport, "ending", False) or getattr(transport, "disconnecting", False))


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

"""One HTTP/2 stream as a Twisted transport, so that a WebSocket runs over it unchanged (RFC 8441).

What the words of a transport mean on a stream (RFC 8441 section 5, RFC 9113 section 8.5):

================================ ===========================================================================
the client's END_STREAM          the end of its half
the client's RST_STREAM          the connection is lost
`Tunnel.loseWriteConnection`     END_STREAM, once all that was written has gone out
`Tunnel.loseConnection`          the same; what the client still sends is nobody's any more
`Tunnel.abortConnection`         RST_STREAM
`Tunnel.pauseProducing`          what comes is kept, and its window is not given back
``pauseProducing`` of a producer more waits in the stream than should
================================ ===========================================================================

As with a socket, data and the end of the connection are never delivered from within a call of the protocol.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any

from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from zope.interface import implementer

from daphne_ng._types import Fields
from daphne_ng.net.channels.flow import socket_transport, unacknowledged_bytes, unsent_bytes
from daphne_ng.net.channels.websocket import WebSocketChannel
from daphne_ng.net.context import ServerContext
from daphne_ng.net.turn import TURN_SECONDS
from daphne_ng.pieces import append_piece, as_bytes
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wire.http2.stream import Http2Stream
from daphne_ng.wire.websocket.handshake import Handshake, WebSocketRequest

__all__ = ["Tunnel", "Turns"]


class Turns:
    """Shares turns of the loop out to the tunnels of one connection.

    On a connection of its own each WebSocket keeps to its turn. A hundred on one would take a hundred turns in one. A
    compressed message of a mebibyte takes 3 ms.

    Args:
        loop: The loop.
    """

    __slots__ = ("_loop", "_queue", "_scheduled", "_spent", "number")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[Callable[[], None]] = deque()
        self._spent = 0.0
        self._scheduled = False
        self.number = 0
        """Changes with every turn in which something was taken."""

    @property
    def over(self) -> bool:
        """Whether this turn is used up, or others wait for theirs."""
        return self._spent >= TURN_SECONDS or bool(self._queue)

    def run(self, callback: Callable[[bytes], None], data: bytes) -> None:
        """Call at once, which counts as part of this turn."""
        begun = perf_counter()
        callback(data)
        self._spent += perf_counter() - begun
        self._schedule()

    def soon(self, callback: Callable[[], None]) -> None:
        """Call on a later turn, in the order of asking."""
        self._queue.append(callback)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        self.number += 1
        self._spent = 0.0
        queue = self._queue
        end = perf_counter() + TURN_SECONDS
        for _ in range(len(queue)):
            queue.popleft()()
            if perf_counter() >= end:
                break
        self._spent = 0.0
        if queue:
            self._schedule()


@implementer(ITransport, IConsumer, IPushProducer)
class Tunnel:
    """The stream of an extended CONNECT: a `TunnelSink` to the connection, a transport to the WebSocket.

    Args:
        context: The server.
        carrier: The transport of the HTTP/2 connection.
        info: What is known of that.
        stream: The stream.
        siblings: All tunnels of the connection; this one adds itself when it begins, and removes itself at its end.
        turns: What they share.
    """

    __slots__ = (
        "_channel",
        "_context",
        "_counted",
        "_delivered_in",
        "_ended",
        "_held",
        "_info",
        "_opened",
        "_paused",
        "_peer_ended",
        "_producer",
        "_producer_paused",
        "_siblings",
        "_stream",
        "_turns",
        "_waiting",
        "_window_kept",
        "carrier",
    )

    def __init__(
        self,
        context: ServerContext,
        carrier: Any,
        info: ConnectionInfo,
        stream: Http2Stream,
        siblings: set[Tunnel],
        turns: Turns,
    ) -> None:
        self._context = context
        self.carrier = carrier
        """The transport of the HTTP/2 connection."""
        self._info = info
        self._stream: Http2Stream | None = stream
        # The same, until it has heard of the end of the application's task.
        self._counted: Http2Stream | None = stream
        self._siblings = siblings
        self._turns = turns
        # `_deliver` will be called.
        self._waiting = False
        self._channel: WebSocketChannel | None = None
        self._producer: Any = None
        self._producer_paused = False
        self._opened = False
        # Our half has ended.
        self._ended = False
        # Reading begins when the handshake has been answered.
        self._paused = True
        self._held: list[Any] = []
        # The turn in which the last frame was delivered as it came.
        self._delivered_in = -1
        # Bytes whose window is kept back.
        self._window_kept = 0
        # The client has ended its half, behind what is held, or before anybody reads.
        self._peer_ended = False

    def ask(self, request: WebSocketRequest) -> bool:
        """Ask the application. False if the handshake has been answered without it."""
        stream = self._stream
        assert stream is not None  # it is new
        handshake = Handshake(request, stream, stream.open_tunnel)
        channel = WebSocketChannel(self._context, self, self._info, None, handshake, self._deliver_to, self._turns.soon)
        self._channel = channel
        self._siblings.add(self)
        if channel.ask(request, self._task_ended):
            return True
        self._lost("the handshake was refused")
        return False

    def shut_down(self) -> None:
        """Close the WebSocket, or do so as soon as it is accepted."""
        if self._channel is not None:
            self._channel.shut_down()

    # -- TunnelSink --------------------------------------------------------------------------------------

    def body_received(self, data: bytes) -> bool:
        """See `RequestSink.body_received`."""
        channel = self._channel
        if channel is None:
            return False  # nobody's: the window may go on
        turns = self._turns
        if self._paused or self._held:
            append_piece(self._held, data)
        elif turns.over or self._delivered_in == turns.number:
            # A read brings many frames. The data behind the first is joined, so that a client that cuts its messages up
            # makes no work of the pieces.
            self._held.append(data)
            self._deliver_soon()
        else:
            self._delivered_in = turns.number
            turns.run(channel.receive_data, data)
            if not self._paused:
                return False
        self._window_kept += len(data)
        return True

    def body_ended(self, trailers: Fields) -> None:
        """See `RequestSink.body_ended`."""
        if self._held or not self._opened:
            # A handshake may still be answered with a response, which takes no more than our half.
            self._peer_ended = True
        elif self._channel is not None:
            self._channel.eof_received()

    def disconnected(self, reason: str, status: int | None = None) -> None:
        """See `RequestSink.disconnected`."""
        self._lost(reason)

    def expired(self) -> None:
        """See `RequestSink.expired`. The WebSocket has time limits of its own."""

    def writable_again(self) -> None:
        """See `TunnelSink.writable_again`."""
        if self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()

    # -- ITransport --------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send `data`, at once or when the windows allow it. May call ``pauseProducing`` of a registered producer."""
        stream = self._stream
        if stream is None or self._ended:
            return
        stream.send(data)
        if self._producer is not None and not self._producer_paused and stream.send_buffer_full:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: list[bytes]) -> None:
        """Send several pieces in their order."""
        self.write(b"".join(iovec))

    def loseWriteConnection(self) -> None:
        """End our half when everything is flushed."""
        if self._stream is not None and not self._ended:
            self._ended = True
            self._stream.finish()

    def loseConnection(self) -> None:
        """End our half when everything is flushed, and take leave; the end is reported on a later turn."""
        if self._stream is None:
            return
        if not self._opened:
            self.abortConnection()
            return
        self.loseWriteConnection()
        self._context.loop.call_soon(self._abandon)

    def abortConnection(self) -> None:
        """Reset the stream; the end is reported on a later turn."""
        if self._stream is not None:
            self._ended = True
            self._stream.reset("the WebSocket was aborted")
            self._context.loop.call_soon(self._lost, "the WebSocket was aborted")

    def getPeer(self) -> Any:
        """The address of the client."""
        return self.carrier.getPeer()

    def getHost(self) -> Any:
        """The address of the server."""
        return self.carrier.getHost()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the kernel has not taken yet.

        Those of the stream, or if it has none those of the connection: what was written here last is behind them.
        """
        if self._stream is None:
            return 0
        return self._stream.buffered or unsent_bytes(self.carrier)

    @property
    def unacknowledged_bytes(self) -> int:
        """Bytes that the client has not acknowledged, those of its other streams included, which share the connection.

        A client that keeps this stream's window closed, and takes those of others, is the connection's to notice
        (`Config.http2_stall_timeout`).
        """
        return self._stream.buffered + unacknowledged_bytes(self.carrier) if self._stream is not None else 0

    def fileno(self) -> int:
        """The descriptor of the connection's socket, by which a client that has left is noticed; -1 after the end."""
        return int(socket_transport(self.carrier).fileno()) if self._stream is not None else -1

    # -- IConsumer ---------------------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See ``IConsumer``. Only push producers are taken."""
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        if not streaming:
            raise NotImplementedError("only push producers are taken")
        self._producer = producer

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        self._producer = None
        self._producer_paused = False

    # -- IPushProducer -----------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing until `resumeProducing`."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Deliver again, from a later turn on."""
        if not self._paused:
            return
        self._paused = False
        if self._held or self._peer_ended:
            self._deliver_soon()
        else:
            self._return_window()

    def stopProducing(self) -> None:
        """Nobody wants any of it any more."""
        self.loseConnection()

    # -- what is behind that -----------------------------------------------------------------------------

    # The handshake has been accepted. What came behind it follows when reading is resumed.
    def _deliver_to(self, channel: WebSocketChannel) -> None:
        self._opened = True

    def _deliver_soon(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._turns.soon(self._deliver)

    def _deliver(self) -> None:
        self._waiting = False
        held = self._held
        end = perf_counter() + TURN_SECONDS
        while held and not self._paused:
            channel = self._channel
            if channel is None:
                return
            # Nothing of the connection is read within this call, so that nothing can overtake the piece.
            channel.receive_data(as_bytes(held.pop(0)))
            if perf_counter() >= end and held and not self._paused:
                self._deliver_soon()
                return
        if self._paused or held:
            return
        self._return_window()
        if self._peer_ended and self._channel is not None:
            self._peer_ended = False
            self._channel.eof_received()

    def _return_window(self) -> None:
        count, self._window_kept = self._window_kept, 0
        if count and self._stream is not None:
            self._stream.consumed(count)

    def _task_ended(self) -> None:
        stream, self._counted = self._counted, None
        if stream is not None:
            stream.task_ended()
        if not self._opened:
            self._lost("the handshake was answered")

    # A call from within `body_received` would come too early: the stream has yet to account for what it delivers.
    def _abandon(self) -> None:
        if self._stream is not None:
            self._stream.abandon()
            self._lost("the WebSocket is closed")

    # The end of everything. What refers to this or to the stream is cut.
    def _lost(self, reason: str) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        self._siblings.discard(self)
        self._held.clear()
        channel.connection_lost(reason)
        self._producer = None
        self._stream = None

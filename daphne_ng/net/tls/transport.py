"""TLS transports: the write-through transports with TLS inside them, instead of Twisted's protocol above them.

To its protocol such a transport is what Twisted's ``TLSMemoryBIOProtocol`` is; how it differs from the transports
without TLS is taken from there, too:

* ``loseConnection()`` flushes, says so with close_notify, and goes on delivering what the peer sends until the peer has
  answered. Reading stays as it is, paused or not. During the handshake it aborts, unless something was written: that
  is sent first. Other than there, a FIN follows: some clients look for nothing else in their pools.
* The peer's close_notify is a clean end of both directions: what was written before is flushed, what is written after
  it is dropped. An end without close_notify may be an attacker's, and is ``ConnectionLost``, however much is unsent.
* There is no half-close besides that, and nothing calls ``readConnectionLost``.

Other than there: ``abortConnection()`` sends no close_notify, so that what was cut off shows; a handshake goes on while
the protocol has paused reading; and after an error the socket is closed only when the alert is on its way, and the
client's last bytes are read.

Bytes go through the `TlsPipe` below: the loop calls it to read, and the protocol writes into it. It calls this class,
its owner, for all that few requests need.

What is written passes two buffers: plaintext in the transport's own, as without TLS, and below it ``sealed`` in the
pipe: ciphertext that the kernel did not take. Plaintext leaves the upper buffer only when all of its ciphertext is
gone, so that all that the upper buffer decides (flush, resume, close) is right as it is. Handshake, alerts and key
updates go into ``sealed`` directly.

Private names of Twisted that this module relies on: those of `daphne_ng.net.sockets.transports`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from OpenSSL import SSL
from twisted.internet import main
from twisted.internet.interfaces import IHandshakeListener, INegotiated, ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from daphne_ng.net.sockets.transports import TCPServer, WriteThrough
from daphne_ng.net.tls.memory import PIECE_BYTES, TlsBuffers, TlsMemory
from daphne_ng.net.tls.pipe import WOULD_BLOCK, TlsPipe
from daphne_ng.port.info import LOCAL_CLIENT

if sys.platform != "win32":
    from daphne_ng.net.sockets.transports import UNIXServer

__all__ = ["TLSServer", "TLSUNIXServer"]

_log = Logger()
logger = logging.getLogger("daphne_ng.net.tls_transport")

# Answers to a peer that asks for them (key updates) and does not read them.
_UNREAD_ANSWERS_BYTES = 64 * 1024

# The time that the client of a failed connection has to close it. Closing with bytes unread would reset the connection,
# and the alert that tells the client why would be lost.
_ALERT_SECONDS = 1.0

# Buffers that a large transfer has made large are given back after so long.
_SHRINK_SECONDS = 1.0

_CLOSED = SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN

# A reactor is one thread, whose connections share buffers.
_buffers: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


class _Tls(WriteThrough):
    """The TLS half of a connection.

    As with Twisted's own, callbacks of a context find the transport as ``app_data`` of the connection, and there what
    they look for: ``factory.wrappedFactory`` and ``abortConnection``.
    """

    TLS = True

    _pipe: TlsPipe
    # The protocol wants no data.
    _paused = False
    # OpenSSL may hold data that no read of the socket will bring.
    _unread = False
    # The peer's close_notify has come.
    _peer_closed = False
    # TLS has failed, for this reason.
    _failure: Failure | None = None
    _alert_timer: Any = None
    _shrink_timer: Any = None

    # To be called before the base class's __init__, which lets the loop watch the socket.
    def _lay_pipe(self, reactor: Any) -> None:
        pipe = self._pipe = TlsPipe(self, reactor.seconds)
        # Bound on the instance: the loop and the protocol call the pipe with nothing in between.
        self.read_ready = pipe.read_ready  # type: ignore[method-assign]
        self.write = pipe.write  # type: ignore[method-assign]

    # To be called after it.
    def _open_tls(self, context: SSL.Context) -> None:
        pipe, reactor = self._pipe, self.reactor
        buffers = _buffers.get(reactor)
        if buffers is None:
            buffers = _buffers[reactor] = TlsBuffers()
        try:
            memory = TlsMemory(context, buffers)
        except BaseException:
            # The port closes the socket.
            self.stopReading()
            raise
        memory.connection.set_app_data(self)
        pipe.memory = memory
        pipe.receive = self.socket.recv
        pipe.send = self.socket.send
        pipe.direct = False
        self._send = self._seal

    # Every method of the base that forbids writing at once, or allows it again, does so to the pipe.
    @property
    def _direct(self) -> bool:
        return self._pipe.direct

    @_direct.setter
    def _direct(self, direct: bool) -> None:
        self._pipe.direct = direct

    # -- what TLS knows

    def getHandle(self) -> Any:
        """The pyOpenSSL ``Connection``; None once the connection is lost."""
        memory = self._pipe.memory
        return memory.connection if memory is not None else None

    def getPeerCertificate(self) -> Any:
        """The peer's certificate, or None."""
        memory = self._pipe.memory
        return memory.connection.get_peer_certificate() if memory is not None else None

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """What was agreed on by ALPN; see ``INegotiated``."""
        memory = self._pipe.memory
        return (memory.connection.get_alpn_proto_negotiated() or None) if memory is not None else None

    @property
    def factory(self) -> Any:
        """For contexts made by Twisted; see the class."""
        return self

    @property
    def wrappedFactory(self) -> Any:
        """The protocol's factory."""
        return getattr(self.server, "factory", None)  # type: ignore[attr-defined]

    # -- reading

    def read_ready(self) -> None:
        """See `TlsPipe.read_ready`; each instance has that in place of this."""
        self._pipe.read_ready()

    doRead = read_ready

    def delivery_failed(self, exception: Exception) -> None:
        """The protocol has raised: the connection is lost."""
        self._protocol_failed(exception, True)

    def flooded(self) -> None:
        """The client sends records that hold no data: it is dropped, with a line in the log."""
        peer = self.getPeer()
        who = f"{peer.host}:{peer.port}" if hasattr(peer, "host") else LOCAL_CLIENT
        # Protocols of others know nothing of it.
        tell = getattr(self.protocol, "tell", logger.info)
        tell("Dropped a connection from %s: its TLS records hold no data", who)
        self.abortConnection()

    def socket_ended(self) -> None:
        """The socket has no more data: the peer has closed it, or it has failed."""
        failure = self._failure
        self._disconnect(main.CONNECTION_LOST if failure is None else failure.value, False)

    def tls_ended(self, end: Exception) -> None:
        """Nothing more will decrypt."""
        if isinstance(end, SSL.ZeroReturnError):
            self._end_cleanly()
        else:
            self._fail(end)

    # The peer has sent close_notify.
    def _end_cleanly(self) -> None:
        self.stopReading()
        self._peer_closed = True
        self._direct = False
        self.disconnecting = 1
        if self._unflushed():
            self.startWriting()
        else:
            why = self._close_notify()
            if why:
                self._disconnect(why, False)

    def _unflushed(self) -> bool:
        return bool(self._pipe.sealed or self.dataBuffer or self._tempDataBuffer)

    def pauseProducing(self) -> None:
        """Deliver nothing until `resumeProducing`. A handshake goes on."""
        self._paused = True
        if self._pipe.established:
            self.stopReading()

    def resumeProducing(self) -> None:
        """Deliver again, never within this call. After ``loseConnection()`` too, until the peer has answered."""
        self._paused = False
        if not self.connected or self._aborting or self._peer_closed:
            return
        self.reactor.addReader(self)
        if self._unread:
            self.reactor.callLater(0, self._decrypt_unread)

    def _decrypt_unread(self) -> None:
        if self._unread and self.connected and not self._paused and not self._aborting:
            self._unread = False
            self._pipe.decrypt_left()

    # -- the handshake

    def shake_hands(self, wire: bytes) -> None:
        """Go on with the handshake, with what has been received."""
        if self._failure is not None:
            return  # the handshake has failed, and its rest is thrown away
        memory = self._pipe.memory
        try:
            complete = memory.handshake(wire)
        except Exception as exception:
            # Callbacks of the context may raise anything.
            self._fail(exception)
            return
        if not self.connected or self._aborting:
            return  # a callback of the context has dropped it
        answer = memory.output()
        if answer:
            self.send_control(answer)
        if complete:
            self._pipe.established = True
            self._handshake_completed()

    def _handshake_completed(self) -> None:
        if self._paused:
            self.stopReading()
        if IHandshakeListener.providedBy(self.protocol):
            try:
                self.protocol.handshakeCompleted()
            except Exception as exception:
                self._protocol_failed(exception, True)
                return
            if not self.connected or self._aborting:
                return
        # The flights of a handshake are larger than most of what follows.
        self._pipe.memory.oversized = True
        self.shrink_later()
        # Data that was written meanwhile goes out, or the end, if that is all.
        self.write_ready()
        if not self.connected or self._aborting:
            return
        if self._unflushed():
            self.startWriting()
        if self._paused:
            # The client's first data may have come with the end of its handshake.
            self._unread = True
        else:
            self._pipe.decrypt_left()

    # -- errors

    # TLS has failed: the client gets the alert that says why, and a moment to see it.
    def _fail(self, exception: Exception) -> None:
        if not isinstance(exception, SSL.Error):
            # The client's doing would be one of those.
            _log.failure("Unhandled error in a callback of a TLS context", Failure(exception))
        # The traceback would hold the transport.
        self._failure = Failure(exception.with_traceback(None))
        pipe = self._pipe
        pipe.established = False
        pipe.direct = False
        self.disconnecting = 1
        self._drop_plaintext()
        alert = pipe.memory.output()
        self._alert_timer = self.reactor.callLater(_ALERT_SECONDS, self._alert_time_over)
        # Bytes that still come are read, and thrown away.
        self.startReading()
        if alert and not pipe.notified:
            self.send_control(alert)
        if not pipe.sealed:
            self._half_close()

    def _half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def _alert_time_over(self) -> None:
        self._alert_timer = None
        if self.connected and not self._aborting:
            self.socket_ended()

    def _drop_plaintext(self) -> None:
        self.dataBuffer = b""
        self.offset = 0
        self._tempDataBuffer = []
        self._tempDataLen = 0
        self._pipe.sealed_plain = 0

    # -- writing

    @property
    def unsent_bytes(self) -> int:
        """Bytes that ``write()`` accepted and the kernel has not taken yet; those that are encrypted, as that."""
        pipe = self._pipe
        return super().unsent_bytes - pipe.sealed_plain + len(pipe.sealed)

    def _may_send_directly(self) -> bool:
        pipe = self._pipe
        return pipe.established and not pipe.sealed and super()._may_send_directly()

    def startWriting(self) -> None:
        """Have `write_ready` called. Before the end of the handshake there may be nothing that it could write."""
        pipe = self._pipe
        if pipe.established or pipe.sealed:
            self.reactor.addWriter(self)

    def write_otherwise(self, data: Any) -> None:
        """Write what the pipe does not take at once: what is large, has to wait, or cannot be written at all."""
        WriteThrough.write(self, data)

    def kernel_full(self, data: bytes) -> None:
        """Keep `data` until the last of its ciphertext is gone."""
        self._buffer_unsent((data,), 0)

    def send_refused(self, refusal: OSError, data: bytes) -> None:
        """The kernel has refused to send: lose the connection on the next turn."""
        self._send_refused(refusal, (data,))

    # Stands for the socket's send(): encrypt, and return how much of `data` the kernel has taken. What it has not taken
    # stays in the pipe, and counts as not accepted until it is gone.
    def _seal(self, data: Any) -> int:
        size, seal = len(data), self._pipe.seal
        if size <= PIECE_BYTES:
            return size if seal(data) else 0
        view = memoryview(data)
        accepted = 0
        while accepted < size:
            piece = view[accepted : accepted + PIECE_BYTES]
            if not seal(piece):
                break
            accepted += len(piece)
        return accepted

    def encryption_refused(self, exception: Exception) -> None:
        """OpenSSL has refused to encrypt: fail on the next turn."""
        self.reactor.callLater(0, self._encryption_failed, exception)

    def _encryption_failed(self, exception: Exception) -> None:
        if self.connected and not self._aborting and self._failure is None:
            self._fail(exception)

    def send_control(self, wire: bytes) -> None:
        """Send an alert, an answer to a key update or the like, behind the ciphertext that waits already."""
        pipe = self._pipe
        if pipe.sealed:
            if len(pipe.sealed) + len(wire) > PIECE_BYTES + PIECE_BYTES // 8 + _UNREAD_ANSWERS_BYTES:
                self.abortConnection()
            else:
                pipe.sealed = memoryview(bytes(pipe.sealed) + wire)
            return
        try:
            sent = pipe.send(wire)
        except OSError as refusal:
            if refusal.errno not in WOULD_BLOCK:
                self._send_refused(refusal, ())
                return
            sent = 0
        if sent < len(wire):
            pipe.sealed = memoryview(wire)[sent:]
            pipe.direct = False
            self.startWriting()

    def doWrite(self) -> Any:
        """Write what is buffered; once it is drained, resume the producer or end our direction."""
        if self._send_failed:
            return main.CONNECTION_LOST
        pipe = self._pipe
        if pipe.sealed:
            try:
                if not pipe.flush():
                    return None
            except OSError:
                return main.CONNECTION_LOST
            self.offset += pipe.sealed_plain
            pipe.sealed_plain = 0
        if not pipe.established:
            self.stopWriting()
            if self._failure is not None:
                self._half_close()
            return None
        if pipe.notified:
            self.stopWriting()
            self._half_close()
            return main.CONNECTION_DONE if self._peer_closed else None
        why = super().doWrite()
        if why or not self._peer_closed or self._unflushed():
            return why
        # The peer has closed, and so a producer is not awaited either.
        return self._close_notify()

    def writeSomeData(self, data: Any) -> Any:
        """See ``FileDescriptor``."""
        if not data:
            return 0
        try:
            return self._seal(data)
        except OSError:
            return main.CONNECTION_LOST

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces in their order, small ones together.

        Raises:
            TypeError: A piece is not ``bytes``.
        """
        chunks = list(iovec)
        if not self._direct:
            super().writeSequence(chunks)
            return
        total = 0
        for chunk in chunks:
            if not isinstance(chunk, bytes):
                raise TypeError("Data must be bytes")
            total += len(chunk)
        if total <= PIECE_BYTES:
            self.write(b"".join(chunks))
            return
        together: list[bytes] = []
        size = 0
        for chunk in chunks:
            if size + len(chunk) > PIECE_BYTES and together:
                self.write(b"".join(together))
                together = []
                size = 0
            together.append(chunk)
            size += len(chunk)
        self.write(together[0] if len(together) == 1 else b"".join(together))

    def _buffer(self, chunks: list[bytes], total: int) -> None:
        # After loseConnection() only a producer that is still registered may write.
        if self._pipe.notified or self._peer_closed or (self.disconnecting and self.producer is None):
            return
        super()._buffer(chunks, total)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See ``IConsumer``."""
        if self._peer_closed or self._failure is not None:
            producer.stopProducing()
        else:
            super().registerProducer(producer, streaming)

    # -- closing

    def loseConnection(self) -> None:
        """Flush, send close_notify, and deliver what the peer sends until it answers; see the module."""
        if not self.connected or self.disconnecting:
            return
        self._direct = False
        self.disconnecting = 1
        if not self._pipe.established and not self._tempDataBuffer:
            self.abortConnection()
        elif self.producer is None:
            self._end_when_flushed()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        if self.disconnecting and self.producer is not None and self.connected:
            self.producer = None
            self._end_when_flushed()
        else:
            super().unregisterProducer()

    # An empty buffer ends at once: the kernel may call a socket writable only when much of its own is empty.
    def _end_when_flushed(self) -> None:
        if not self._pipe.established or self._unflushed():
            self.startWriting()
        elif self._failure is None:
            self._close_notify()

    def loseWriteConnection(self) -> None:
        """TLS has no other half-close than this: see `loseConnection`."""
        self.loseConnection()

    def _postLoseConnection(self) -> Any:
        # A producer may write until it is unregistered.
        return self._close_notify() if self.producer is None else None

    # To be called when everything is flushed. The result is the reason to disconnect now, or None.
    def _close_notify(self) -> Any:
        pipe = self._pipe
        if not pipe.notified:
            pipe.notified = True
            pipe.memory.shutdown()
            farewell = pipe.memory.output()
            if farewell:
                self.send_control(farewell)
            if not pipe.sealed:
                self._half_close()
        return main.CONNECTION_DONE if self._peer_closed and not pipe.sealed else None

    def abortConnection(self) -> None:
        """See `WriteThrough.abortConnection`. There is no close_notify, so that what was cut off shows."""
        self._pipe.open = False
        super().abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and tell the protocol, once."""
        pipe = self._pipe
        memory = pipe.memory
        for name in ("_alert_timer", "_shrink_timer"):
            timer = getattr(self, name)
            if timer is not None:
                setattr(self, name, None)
                timer.cancel()
        pipe.open = False
        super().connectionLost(self._failure or reason)
        if pipe.memory is not None:
            pipe.close()
            if self._failure is None:
                # OpenSSL drops the session of a connection that ends otherwise, and many clients end without a word.
                memory.connection.set_shutdown(_CLOSED)
            memory.connection.set_app_data(None)

    def shrink_later(self) -> None:
        """Give large buffers back when the connection has been quiet for a while."""
        self._pipe.shrinking = True
        self._shrink_timer = self.reactor.callLater(_SHRINK_SECONDS, self._shrink_buffers)

    def _shrink_buffers(self) -> None:
        pipe = self._pipe
        if pipe.sealed:
            self.shrink_later()
        else:
            self._shrink_timer = None
            pipe.shrinking = False
            pipe.memory.shrink()


@implementer(ISSLTransport, INegotiated)
class TLSServer(_Tls, TCPServer):
    """One accepted TCP connection with TLS."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: Any,
        client: Any,
        server: Any,
        sessionno: int,
        reactor: Any,
        context: SSL.Context,
    ) -> None:
        self._lay_pipe(reactor)
        TCPServer.__init__(self, sock, protocol, client, server, sessionno, reactor)
        self._open_tls(context)


if sys.platform != "win32":

    @implementer(ISSLTransport, INegotiated)
    class TLSUNIXServer(_Tls, UNIXServer):
        """One accepted UNIX stream connection with TLS."""

        def __init__(
            self,
            sock: socket.socket,
            protocol: Any,
            client: Any,
            server: Any,
            sessionno: int,
            reactor: Any,
            context: SSL.Context,
        ) -> None:
            self._lay_pipe(reactor)
            UNIXServer.__init__(self, sock, protocol, client, server, sessionno, reactor)
            self._open_tls(context)

        def sendFileDescriptor(self, fileno: int) -> None:
            """Descriptors go beside the bytes, which are TLS's own."""
            raise NotImplementedError("descriptors cannot be passed through TLS")

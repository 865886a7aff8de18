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

What is written passes two buffers: plaintext in the transport's own, as without TLS, and below it ``_sealed``:
ciphertext that the kernel did not take. Plaintext leaves the upper buffer only when all of its ciphertext is gone, so
that all that the upper buffer decides (flush, resume, close) is right as it is. Handshake, alerts and key updates go
into ``_sealed`` directly.

Private names of Twisted that this module relies on: those of `daphne_ng.net.sockets.transports`.
"""

from __future__ import annotations

import contextlib
import errno
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

from daphne_ng.net.sockets.transports import (
    FIRST_READ_BYTES,
    LARGE_READ_BYTES,
    READ_BYTES,
    TCPServer,
    WriteThrough,
)
from daphne_ng.net.tls.memory import PIECE_BYTES, TlsBuffers, TlsMemory
from daphne_ng.port.info import LOCAL_CLIENT

if sys.platform != "win32":
    from daphne_ng.net.sockets.transports import UNIXServer

__all__ = ["TLSServer", "TLSUNIXServer"]

_log = Logger()
logger = logging.getLogger("daphne_ng.net.tls_transport")

# Most that is received with less than an eighth of it being data, beside so much in each second: single keys pressed,
# on a WebSocket with one of TLS 1.2's old ciphers, are a tenth, and go on for hours. At that rate a flood is some 700
# of the smallest records a second.
_BARREN_BYTES_MAX = 256 * 1024
_BARREN_BYTES_PER_SECOND = 16 * 1024

# Answers to a peer that asks for them (key updates) and does not read them.
_UNREAD_ANSWERS_BYTES = 64 * 1024

# The time that the client of a failed connection has to close it. Closing with bytes unread would reset the connection,
# and the alert that tells the client why would be lost.
_ALERT_SECONDS = 1.0

# Buffers that a large transfer has made large are given back after so long.
_SHRINK_SECONDS = 1.0

_CLOSED = SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN

_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS)

# A reactor is one thread, whose connections share buffers.
_buffers: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


class _Tls(WriteThrough):
    """The TLS half of a connection.

    As with Twisted's own, callbacks of a context find the transport as ``app_data`` of the connection, and there what
    they look for: ``factory.wrappedFactory`` and ``abortConnection``.
    """

    TLS = True

    _tls: Any = None
    # The handshake is complete.
    _established = False
    # The protocol wants no data.
    _paused = False
    # OpenSSL may hold data that no read of the socket will bring.
    _unread = False
    # Ciphertext that the kernel has not taken, and how much of the plaintext buffer's front it is.
    _sealed: Any = b""
    _sealed_plain = 0
    # Our close_notify is sent; the peer's has come.
    _notified = False
    _peer_closed = False
    # TLS has failed, for this reason.
    _failure: Failure | None = None
    _alert_timer: Any = None
    _shrink_timer: Any = None

    _send_wire: Any = None
    _barren_bytes = 0.0
    _barren_at = 0.0

    def _open_tls(self, context: SSL.Context) -> None:
        # Called at the end of __init__; reading has begun.
        reactor = self.reactor
        buffers = _buffers.get(reactor)
        if buffers is None:
            buffers = _buffers[reactor] = TlsBuffers()
        try:
            self._tls = TlsMemory(context, buffers)
        except BaseException:
            # The port closes the socket.
            self.stopReading()
            raise
        self._tls.connection.set_app_data(self)
        self._direct = False
        self._send_wire = self.socket.send
        self._recv = self.socket.recv
        self._send = self._seal

    # -- what TLS knows

    def getHandle(self) -> Any:
        """The pyOpenSSL ``Connection``; None once the connection is lost."""
        tls = self._tls
        return tls.connection if tls is not None else None

    def getPeerCertificate(self) -> Any:
        """The peer's certificate, or None."""
        tls = self._tls
        return tls.connection.get_peer_certificate() if tls is not None else None

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """What was agreed on by ALPN; see ``INegotiated``."""
        tls = self._tls
        return (tls.connection.get_alpn_proto_negotiated() or None) if tls is not None else None

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
        """Read once, and deliver all that it decrypts to; see `DirectDescriptor`."""
        try:
            wire = self._recv(self._read_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._socket_ended()
            return
        size = len(wire)
        if not size:
            self._socket_ended()
            return
        if size == self._read_bytes:
            self._read_bytes = READ_BYTES if size < READ_BYTES else LARGE_READ_BYTES
            self._read_was_full = True
        elif self._read_bytes > FIRST_READ_BYTES:
            if self._read_was_full:
                self._read_was_full = False  # this is the rest of it, however short
            elif size < FIRST_READ_BYTES:
                self._read_bytes = FIRST_READ_BYTES
        if self._established:
            self._decrypt(wire)
        else:
            self._shake_hands(wire)

    doRead = read_ready

    def _decrypt(self, wire: bytes) -> None:
        tls = self._tls
        data = tls.decrypt(wire)
        if (self._barren_bytes or len(wire) >= FIRST_READ_BYTES) and self._is_barren(len(wire), len(data)):
            return
        if data:
            try:
                self.protocol.dataReceived(data)
            except Exception as exception:
                self._protocol_failed(exception, True)
                return
        if not self.connected or self._aborting:
            return
        end = tls.end
        if end is None:
            answer = tls.output()
            if answer and not self._notified:
                self._send_control(answer)
            if tls.oversized and self._shrink_timer is None:
                self._shrink_timer = self.reactor.callLater(_SHRINK_SECONDS, self._shrink_buffers)
        elif isinstance(end, SSL.ZeroReturnError):
            self._end_cleanly()
        else:
            self._fail(end)

    # Records that hold next to no data, key updates say, cost the loop a hundred times what data does. After a full
    # read of them the next one is small, so that others have their turns; and a client that sends little else is
    # dropped. What one read leaves incomplete is the next one's data, so it is sums that count.
    def _is_barren(self, wire: int, data: int) -> bool:
        if wire >= FIRST_READ_BYTES and data * 2 < wire:
            self._read_bytes = FIRST_READ_BYTES
        now = self.reactor.seconds()
        forgiven = (now - self._barren_at) * _BARREN_BYTES_PER_SECOND
        self._barren_at = now
        self._barren_bytes = max(0.0, max(0.0, self._barren_bytes - forgiven) + wire - data * 8)
        if self._barren_bytes <= _BARREN_BYTES_MAX:
            return False
        peer = self.getPeer()
        who = f"{peer.host}:{peer.port}" if hasattr(peer, "host") else LOCAL_CLIENT
        # Protocols of others know nothing of it.
        tell = getattr(self.protocol, "tell", logger.info)
        tell("Dropped a connection from %s: its TLS records hold no data", who)
        self.abortConnection()
        return True

    # The socket has no more data: the peer has closed it, or it has failed.
    def _socket_ended(self) -> None:
        failure = self._failure
        self._disconnect(main.CONNECTION_LOST if failure is None else failure.value, False)

    # The peer has sent close_notify.
    def _end_cleanly(self) -> None:
        self.stopReading()
        self._peer_closed = True
        self._direct = False
        self.disconnecting = 1
        if self._sealed or self.dataBuffer or self._tempDataBuffer:
            self.startWriting()
        else:
            why = self._close_notify()
            if why:
                self._disconnect(why, False)

    def pauseProducing(self) -> None:
        """Deliver nothing until `resumeProducing`. A handshake goes on."""
        self._paused = True
        if self._established:
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
            self._decrypt(b"")

    # -- the handshake

    def _shake_hands(self, wire: bytes) -> None:
        if self._failure is not None:
            return  # the handshake has failed, and its rest is thrown away
        tls = self._tls
        try:
            complete = tls.handshake(wire)
        except Exception as exception:
            # Callbacks of the context may raise anything.
            self._fail(exception)
            return
        if not self.connected or self._aborting:
            return  # a callback of the context has dropped it
        answer = tls.output()
        if answer:
            self._send_control(answer)
        if complete:
            self._established = True
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
        self._tls.oversized = True
        self._shrink_timer = self.reactor.callLater(_SHRINK_SECONDS, self._shrink_buffers)
        # Data that was written meanwhile goes out, or the end, if that is all.
        self.write_ready()
        if not self.connected or self._aborting:
            return
        if self._sealed or self.dataBuffer or self._tempDataBuffer:
            self.startWriting()
        if self._paused:
            # The client's first data may have come with the end of its handshake.
            self._unread = True
        else:
            self._decrypt(b"")

    # -- errors

    # TLS has failed: the client gets the alert that says why, and a moment to see it.
    def _fail(self, exception: Exception) -> None:
        if not isinstance(exception, SSL.Error):
            # The client's doing would be one of those.
            _log.failure("Unhandled error in a callback of a TLS context", Failure(exception))
        # The traceback would hold the transport.
        self._failure = Failure(exception.with_traceback(None))
        self._established = False
        self._direct = False
        self.disconnecting = 1
        self._drop_plaintext()
        alert = self._tls.output()
        self._alert_timer = self.reactor.callLater(_ALERT_SECONDS, self._alert_time_over)
        # Bytes that still come are read, and thrown away.
        self.startReading()
        if alert and not self._notified:
            self._send_control(alert)
        if not self._sealed:
            self._half_close()

    def _half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def _alert_time_over(self) -> None:
        self._alert_timer = None
        if self.connected and not self._aborting:
            self._socket_ended()

    def _drop_plaintext(self) -> None:
        self.dataBuffer = b""
        self.offset = 0
        self._tempDataBuffer = []
        self._tempDataLen = 0
        self._sealed_plain = 0

    # -- writing

    @property
    def unsent_bytes(self) -> int:
        """Bytes that ``write()`` accepted and the kernel has not taken yet; those that are encrypted, as that."""
        return super().unsent_bytes - self._sealed_plain + len(self._sealed)

    def _may_send_directly(self) -> bool:
        return self._established and not self._sealed and super()._may_send_directly()

    def startWriting(self) -> None:
        """Have `write_ready` called. Before the end of the handshake there may be nothing that it could write."""
        if self._established or self._sealed:
            self.reactor.addWriter(self)

    # Stands for the socket's send(): encrypt, and return how much of `data` the kernel has taken. What it has not taken
    # stays in _sealed, and counts as not accepted until it is gone.
    def _seal(self, data: Any) -> int:
        size = len(data)
        if size <= PIECE_BYTES:
            return size if self._seal_piece(data, size) else 0
        view = memoryview(data)
        accepted = 0
        while accepted < size:
            piece = view[accepted : accepted + PIECE_BYTES]
            if not self._seal_piece(piece, len(piece)):
                break
            accepted += len(piece)
        return accepted

    def _seal_piece(self, data: Any, size: int) -> bool:
        tls = self._tls
        try:
            wire = tls.encrypt(data)
        except (MemoryError, RecursionError):
            raise  # the application's: it ends the connection
        except Exception as exception:
            # The connection does not end within write(), and the data is dropped.
            self.reactor.callLater(0, self._encryption_failed, exception)
            self._direct = False
            return True
        try:
            sent = self._send_wire(wire)
        except OSError as refusal:
            if refusal.errno not in _WOULD_BLOCK:
                raise
            sent = 0
        if tls.oversized and self._shrink_timer is None:
            self._shrink_timer = self.reactor.callLater(_SHRINK_SECONDS, self._shrink_buffers)
        if sent == len(wire):
            return True
        self._sealed = memoryview(bytes(wire[sent:]))
        self._sealed_plain = size
        return False

    def _encryption_failed(self, exception: Exception) -> None:
        if self.connected and not self._aborting and self._failure is None:
            self._fail(exception)

    # Alerts, answers to key updates and the like go out behind the ciphertext that waits already.
    def _send_control(self, wire: bytes) -> None:
        if self._sealed:
            if len(self._sealed) + len(wire) > PIECE_BYTES + PIECE_BYTES // 8 + _UNREAD_ANSWERS_BYTES:
                self.abortConnection()
            else:
                self._sealed = memoryview(bytes(self._sealed) + wire)
            return
        try:
            sent = self._send_wire(wire)
        except OSError as refusal:
            if refusal.errno not in _WOULD_BLOCK:
                self._send_refused(refusal, ())
                return
            sent = 0
        if sent < len(wire):
            self._sealed = memoryview(wire)[sent:]
            self._direct = False
            self.startWriting()

    # Waiting ciphertext is sent. The result is None once it is gone, else doWrite()'s result, in a tuple.
    def _flush_sealed(self) -> tuple[Any] | None:
        try:
            sent = self._send_wire(self._sealed)
        except OSError as refusal:
            return (None,) if refusal.errno in _WOULD_BLOCK else (main.CONNECTION_LOST,)
        if sent < len(self._sealed):
            self._sealed = self._sealed[sent:]
            return (None,)
        self._sealed = b""
        self.offset += self._sealed_plain
        self._sealed_plain = 0
        return None

    def doWrite(self) -> Any:
        """Write what is buffered; once it is drained, resume the producer or end our direction."""
        if self._send_failed:
            return main.CONNECTION_LOST
        if self._sealed:
            waiting = self._flush_sealed()
            if waiting is not None:
                return waiting[0]
        if not self._established:
            self.stopWriting()
            if self._failure is not None:
                self._half_close()
            return None
        if self._notified:
            self.stopWriting()
            self._half_close()
            return main.CONNECTION_DONE if self._peer_closed else None
        why = super().doWrite()
        if why or not self._peer_closed or self.dataBuffer or self._tempDataBuffer or self._sealed:
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
        if self._notified or self._peer_closed or (self.disconnecting and self.producer is None):
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
        if not self._established and not self._tempDataBuffer:
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
        if not self._established or self._sealed or self.dataBuffer or self._tempDataBuffer:
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
        if not self._notified:
            self._notified = True
            self._tls.shutdown()
            farewell = self._tls.output()
            if farewell:
                self._send_control(farewell)
            if not self._sealed:
                self._half_close()
        return main.CONNECTION_DONE if self._peer_closed and not self._sealed else None

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and tell the protocol, once."""
        tls = self._tls
        for name in ("_alert_timer", "_shrink_timer"):
            timer = getattr(self, name)
            if timer is not None:
                setattr(self, name, None)
                timer.cancel()
        super().connectionLost(self._failure or reason)
        self._send_wire = None
        self._sealed = b""
        self._sealed_plain = 0
        if tls is not None and self._tls is not None:
            self._tls = None
            if self._failure is None:
                # OpenSSL drops the session of a connection that ends otherwise, and many clients end without a word.
                tls.connection.set_shutdown(_CLOSED)
            tls.connection.set_app_data(None)

    def _shrink_buffers(self) -> None:
        if self._sealed:
            self._shrink_timer = self.reactor.callLater(_SHRINK_SECONDS, self._shrink_buffers)
        else:
            self._shrink_timer = None
            self._tls.shrink()


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
            UNIXServer.__init__(self, sock, protocol, client, server, sessionno, reactor)
            self._open_tls(context)

        def sendFileDescriptor(self, fileno: int) -> None:
            """Descriptors go beside the bytes, which are TLS's own."""
            raise NotImplementedError("descriptors cannot be passed through TLS")

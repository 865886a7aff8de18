"""Stream transports and ports that write through and are read without detours.

Stock Twisted buffers every ``write()`` until the next reactor turn (two ``epoll_ctl`` and a turn later) and
calls every reader through its logging context. The classes here keep Twisted's interfaces and its meaning, and
change three things:

1. ``write()`` with nothing buffered sends at once. What the kernel does not take is buffered and flushed from the
   reactor, exactly as in stock Twisted.
2. The reactor calls `DirectDescriptor.read_ready` and `~DirectDescriptor.write_ready` from the event loop, with
   nothing in between. What the stock detour did for safety is done there: an exception is logged and loses the
   connection, so that a level-triggered descriptor can never spin.
3. A failed immediate send loses the connection on the next turn, never inside ``write()``.

The one flag that decides is ``_direct``: true while bytes may go straight to the kernel. A method that makes one of the
conditions in `WriteThrough._may_send_directly` false sets the flag to false; only `WriteThrough.doWrite` (drained)
and `WriteThrough.unregisterProducer` set it to true again, by asking that method. While the flag is false everything
is buffered, so bytes can never overtake each other.

Private names of Twisted that this module relies on, all but the last of them attributes of the classes it extends:
``_tempDataBuffer``, ``_tempDataLen`` (the write buffer), ``_writeDisconnecting``, ``_writeDisconnected`` (half-close),
``_aborting``, ``_sendmsgQueue``, ``_fileDescriptorBufferSize``, ``_ancillaryLevelSOLSOCKETTypeSCMRIGHTS`` (passing
descriptors), ``_postLoseConnection``, ``_closeWriteConnection``, and ``_asyncioEventloop`` of the reactor. The tests
run Twisted's own suites against these classes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Callable, Iterable
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import main, tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from daphne_ng.net.sockets.listening import ListenOptions
from daphne_ng.pieces import append_piece

if sys.platform != "win32":
    from twisted.internet import unix

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProducer

__all__ = ["DirectDescriptor", "TCPServer", "UNIXServer", "WriteThrough", "set_stream_options"]

_log = Logger()

# Twisted's own size of a read (FileDescriptor.bufferSize).
READ_BYTES: Final = 64 * 1024
# recv() allocates what it may get. Most reads are a request head, and a smaller block costs 0.3 us less; the first
# read that fills it switches to the full size.
FIRST_READ_BYTES: Final = 16 * 1024
# Reads of the ordinary size that come full are followed by larger ones: a message of 64 KiB with its framing should not
# take two.
LARGE_READ_BYTES: Final = 128 * 1024

# Room for descriptors beside one read, as much as stock Twisted gives.
_ANCILLARY_BYTES = 4096

# A gathered write up to this size is joined and sent with one plain send(): copying 16 KiB costs less than the
# extra work of sendmsg() on several buffers.
_JOIN_LIMIT_BYTES = 16 * 1024

# POSIX promises 16; Linux and macOS both give 1024. More buffers than that fail with EMSGSIZE.
_IOV_MAX = os.sysconf("SC_IOV_MAX") if hasattr(os, "sysconf") and "SC_IOV_MAX" in os.sysconf_names else 16
if _IOV_MAX <= 0:  # "no limit that I could name"
    _IOV_MAX = 1024

# Linux copies TCP_NODELAY and SO_KEEPALIVE from the listening socket to the accepted one, so that setting them
# once is enough. Other systems do so too, as far as known, but do not document it.
_OPTIONS_ARE_INHERITED = sys.platform == "linux"

_DEFAULTS = ListenOptions()

# Windows has none.
_sendfile: Callable[[int, int, int, int], int] | None = getattr(os, "sendfile", None)
# What is wrong with the connection, and not with the file.
_SEND_ERRORS = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNABORTED})


class DirectDescriptor:
    """A descriptor whose callbacks the reactor registers with the event loop as they are.

    The two methods never raise an `Exception`: nothing stands between them and the loop.
    """

    def read_ready(self) -> None:
        """Read once, deliver, and lose the connection where that is due."""
        raise NotImplementedError

    def write_ready(self) -> None:
        """Write what is buffered, as far as the kernel takes it."""
        raise NotImplementedError


class WriteThrough(DirectDescriptor, tcp.Connection):
    """The raw (never TLS) half of a connection: immediate sends, direct callbacks.

    Once `TCPServer.startTLS` was called, the methods here are what TLS itself writes through; the instance
    then carries Twisted's TLS-aware ones in front of them.
    """

    _direct = False
    # The kernel refused a send; the connection goes on the next turn.
    _send_failed = False
    # Only UNIX transports have a queue of descriptors to pass.
    _sendmsgQueue: Any = ()

    reactor: Any
    protocol: Any
    _read_bytes = FIRST_READ_BYTES
    _read_was_full = False
    _send: Any = None
    _recv: Any = None

    def _open_directly(self) -> None:
        # Bound methods save two look-ups per read and per write. To be called at the end of __init__.
        self._send = self.socket.send
        self._recv = self.socket.recv
        self._direct = True

    def _may_send_directly(self) -> bool:
        # A pull producer is resumed from doWrite only, so that with one registered every write must pass through it.
        return bool(
            self.connected
            and not self.disconnecting
            and not self._writeDisconnecting
            and not self._writeDisconnected
            and not self._aborting
            and not self._send_failed
            and not self.dataBuffer
            and not self._tempDataBuffer
            and not self._sendmsgQueue
            and (self.producer is None or self.streamingProducer)
        )

    # -- reading

    def read_ready(self) -> None:
        """Read up to ``bufferSize`` bytes and deliver them; see `DirectDescriptor`."""
        try:
            data = self._recv(self._read_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._disconnect(main.CONNECTION_LOST, True)
            return
        if not data:
            self._disconnect(main.CONNECTION_DONE, True)
            return
        size = len(data)
        if size == self._read_bytes:
            self._read_bytes = READ_BYTES if size < READ_BYTES else LARGE_READ_BYTES
            self._read_was_full = True
        elif self._read_bytes > FIRST_READ_BYTES:
            if self._read_was_full:
                self._read_was_full = False  # this is the rest of it, however short
            elif size < FIRST_READ_BYTES:
                self._read_bytes = FIRST_READ_BYTES
        try:
            self.protocol.dataReceived(data)
        except Exception as exception:
            self._protocol_failed(exception, True)

    def _protocol_failed(self, exception: Exception, is_read: bool) -> None:
        _log.failure("Unhandled error in {protocol!r}", protocol=type(getattr(self, "protocol", None)).__qualname__)
        self._disconnect(exception, is_read)

    def _disconnect(self, why: Any, is_read: bool) -> None:
        # The reactor removes reader and writer, and turns a clean end of a read into a half-close notification, as it
        # does with the result of doRead and doWrite. connectionLost of an application may raise.
        try:
            self.reactor._disconnectSelectable(self, why, is_read)
        except Exception:
            _log.failure("Unhandled error while a connection was lost")

    def resumeProducing(self) -> None:
        """Start reading again, unless the connection is being closed or aborted."""
        if self.connected and not self.disconnecting and not self._aborting:
            self.reactor.addReader(self)

    # -- writing

    @property
    def unsent_bytes(self) -> int:
        """Bytes that ``write()`` accepted and the kernel has not taken yet."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    @property
    def ending(self) -> bool:
        """Whether our direction is closed, or will be once all is flushed."""
        return bool(self.disconnecting or self._writeDisconnecting or self._writeDisconnected)

    def write(self, data: bytes) -> None:
        """Send `data`, at once as far as the kernel takes it and the rest when it can.

        Never calls ``connectionLost``. May call ``pauseProducing`` of a registered streaming producer.

        Raises:
            TypeError: `data` is not ``bytes``.
        """
        if self._direct and data.__class__ is bytes and data:
            try:
                sent = self._send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as refusal:
                self._send_refused(refusal, (data,))
                return
            if sent != len(data):
                self._buffer_unsent((data,), sent)
        else:
            self._write_buffered(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send several pieces in their order, without joining large ones.

        Raises:
            TypeError: A piece is not ``bytes``.
        """
        chunks = [chunk for chunk in iovec if chunk or not isinstance(chunk, bytes)]
        total = 0
        for chunk in chunks:
            if not isinstance(chunk, bytes):
                raise TypeError("Data must be bytes")
            total += len(chunk)
        if not self._direct or total <= _JOIN_LIMIT_BYTES:
            # The class is named because a subclass or startTLS may have put another write() in front.
            WriteThrough.write(self, b"".join(chunks)) if self._direct else self._buffer(chunks, total)
            return
        while chunks:
            batch = chunks[:_IOV_MAX]
            try:
                sent = self.socket.sendmsg(batch)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as refusal:
                self._send_refused(refusal, chunks)
                return
            whole = 0
            for chunk in batch:
                if sent < len(chunk):
                    self._buffer_unsent(chunks[whole:], sent)
                    return
                sent -= len(chunk)
                whole += 1
            del chunks[:whole]

    def _write_buffered(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if data:
            self._buffer([data], len(data))

    # The pieces go behind those that are buffered already, as with the stock write().
    def _buffer(self, chunks: list[bytes], total: int) -> None:
        if not total or not self.connected or self._writeDisconnected or self._aborting or self._send_failed:
            return
        for chunk in chunks:
            append_piece(self._tempDataBuffer, chunk)
        self._tempDataLen += total
        self._direct = False
        self._maybePauseProducer()
        self.startWriting()

    # The buffer was empty, and the kernel took `sent` bytes of the first chunk. The chunk is kept whole, with an
    # offset, because a copy of the rest of 100 MB would cost more than the few bytes that it frees.
    def _buffer_unsent(self, chunks: tuple[bytes, ...] | list[bytes], sent: int) -> None:
        self._direct = False
        self.dataBuffer = chunks[0]
        self.offset = sent
        if len(chunks) > 1:
            self._tempDataBuffer.extend(chunks[1:])
            self._tempDataLen += sum(map(len, self._tempDataBuffer))
        self._maybePauseProducer()
        self.startWriting()

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send a part of a file with ``sendfile(2)``, as far as the kernel takes it.

        Returns:
            How many bytes went out. 0: none, and the producer is paused until there is room and all that was written
            before is flushed. -1: it cannot be done, and the caller writes what it reads.
        """
        # With TLS the kernel would send what nobody has encrypted.
        if _sendfile is None or self.TLS or self.producer is None or not self.streamingProducer:
            return -1
        if self.ending or self._aborting or self._send_failed or not self.connected:
            return -1
        if not self._direct:
            self._pause_until_drained()
            return 0
        try:
            # 0 is the end of the file, which is nearer than it was: a read will tell.
            return _sendfile(self.socket.fileno(), descriptor, offset, count) or -1
        except (BlockingIOError, InterruptedError):
            self._pause_until_drained()
            return 0
        except OSError as refusal:
            if refusal.errno in _SEND_ERRORS:
                self._send_refused(refusal, ())
                return 0 if self.producerPaused else -1
            return -1  # it cannot be done with this file, or the file cannot be read: again a read will tell

    # The producer is resumed by doWrite(), also when there was nothing to write.
    def _pause_until_drained(self) -> None:
        self._direct = False
        if not self.producerPaused:
            self.producerPaused = True
            self.producer.pauseProducing()  # type: ignore[union-attr]
        self.startWriting()

    def _send_refused(self, refusal: OSError, chunks: tuple[bytes, ...] | list[bytes]) -> None:
        if refusal.errno == errno.ENOBUFS:
            # macOS and the BSDs have no memory for it right now; Twisted's own transport waits too.
            self._buffer_unsent(chunks, 0)
            return
        self._direct = False
        self._send_failed = True
        # The send took the error off the socket, so that a read would now see a clean end.
        self.stopReading()
        self.reactor.callLater(0, self._lose_after_refused_send)

    def _lose_after_refused_send(self) -> None:
        if self.connected:
            self._disconnect(main.CONNECTION_LOST, False)

    def write_ready(self) -> None:
        """Flush; see `DirectDescriptor`."""
        try:
            why = self.doWrite()
        except Exception as exception:
            self._protocol_failed(exception, False)
            return
        if why:
            self._disconnect(why, False)

    def doWrite(self) -> Any:
        """Write the buffer; once it is drained, resume the producer or close. As Twisted's own, and sets `_direct`."""
        if self._send_failed:
            return main.CONNECTION_LOST
        left = len(self.dataBuffer) - self.offset
        if left < self.SEND_LIMIT and self._tempDataBuffer:
            if left:
                self._tempDataBuffer.insert(0, memoryview(self.dataBuffer)[self.offset :])  # type: ignore[arg-type]
            self.dataBuffer = b"".join(self._tempDataBuffer)
            self.offset = 0
            self._tempDataBuffer = []
            self._tempDataLen = 0
        if self.dataBuffer or self._sendmsgQueue:
            data = memoryview(self.dataBuffer)[self.offset :] if self.offset else self.dataBuffer
            sent = self.writeSomeData(data)  # type: ignore[arg-type]
            if not isinstance(sent, int):
                return sent
            self.offset += sent
            if self.offset != len(self.dataBuffer) or self._tempDataBuffer:
                return None
            self.dataBuffer = b""
            self.offset = 0
        self.stopWriting()
        self._direct = self._may_send_directly()
        if self.producer is not None and (not self.streamingProducer or self.producerPaused):
            self.producerPaused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            return self._postLoseConnection()
        elif self._writeDisconnecting:
            # The flag is set before the protocol hears of the end and perhaps calls loseConnection().
            self._writeDisconnected = True
            return self._closeWriteConnection()
        return None

    def _isSendBufferFull(self) -> bool:
        # Twisted's own counts the part of dataBuffer that was sent, too.
        return self.unsent_bytes > self.bufferSize

    # -- producers and closing: the stock methods, keeping `_direct` true to what they change

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See ``IConsumer``. A pull producer switches immediate sends off while it is registered."""
        if not streaming:
            self._direct = False
        FileDescriptor.registerProducer(self, producer, streaming)

    def unregisterProducer(self) -> None:
        """See ``IConsumer``."""
        FileDescriptor.unregisterProducer(self)
        self._direct = self._may_send_directly()

    def loseConnection(self) -> None:
        """Close when everything is flushed; ``connectionLost`` comes on a later turn."""
        if self._direct and self.producer is None:
            # Nothing is left to flush, and what the kernel holds goes out: the next turn will do, whether or not there
            # is room for more.
            self._direct = False
            self.stopReading()
            self.reactor._asyncioEventloop.call_soon(self._lose_flushed)  # callLater() costs ten times as much
            self.disconnecting = 1
            return
        self._direct = False
        if self.connected and not self.disconnecting and self._writeDisconnected:
            # Our half is closed, so nothing is left to flush. Twisted's own would call connectionLost within this call,
            # which may come from TLS in the middle of its own dataReceived.
            self.stopReading()
            self.stopWriting()
            self.disconnecting = 1
            self.reactor.callLater(0, self._lose_closed)
            return
        FileDescriptor.loseConnection(self)

    def _lose_flushed(self) -> None:
        if self.connected and not self._aborting:
            if self.unsent_bytes or self.producer is not None:
                self.startWriting()  # written, or registered, after loseConnection(): doWrite() closes behind it
            else:
                self._disconnect(main.CONNECTION_DONE, False)

    def _lose_closed(self) -> None:
        if self.connected:
            self._disconnect(main.CONNECTION_DONE, False)

    def release(self) -> None:
        """Close now, without waiting for the peer or for room in the kernel. Bytes that the kernel has still go out."""
        if self.connected and not self._aborting:
            self.stopReading()
            self.stopWriting()
            self.disconnecting = 1
            self._direct = False
            self.reactor.callLater(0, self._lose_closed)

    def loseWriteConnection(self) -> None:
        """Close the write side when everything is flushed."""
        self._direct = False
        super().loseWriteConnection()

    def abortConnection(self) -> None:
        """Drop what is buffered and reset the connection; ``connectionLost`` comes on the next turn."""
        self._direct = False
        super().abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and tell the protocol, once."""
        self._direct = False
        self._send = self._recv = None
        super().connectionLost(reason)
        self.dataBuffer = b""
        self.offset = 0
        self._tempDataBuffer = []
        self._tempDataLen = 0

    # -- TLS on a live connection

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        """Put TLS between this transport and its protocol, as ``ITLSTransport`` has it.

        Twisted's own makes a ``TLSMemoryBIOFactory`` without a clock, which imports, and so installs, the global
        reactor; and its inner layer would not write through.
        """
        # Imported late: without pyOpenSSL there is no TLS, and all else works.
        from twisted.internet._newtls import _BypassTLS
        from twisted.protocols.tls import TLSMemoryBIOFactory

        is_client = bool(self._tlsClientDefault) == bool(normal)  # type: ignore[attr-defined]
        producer, streaming = self.producer, self.streamingProducer
        if producer is not None:
            self.unregisterProducer()
        factory = TLSMemoryBIOFactory(ctx, is_client, None, clock=self.reactor)  # type: ignore[arg-type]
        tls = factory.protocol(factory, self.protocol, False)
        self.protocol = tls
        self.getHandle = tls.getHandle  # type: ignore[method-assign]
        self.getPeerCertificate = tls.getPeerCertificate
        directlyProvides(self, ISSLTransport)
        self.TLS = True
        for name in ("write", "writeSequence", "loseConnection", "registerProducer", "unregisterProducer"):
            # The stock methods hand over to `self.protocol`, which is TLS now.
            setattr(self, name, MethodType(getattr(tcp.Connection, name), self))
        tls.makeConnection(_BypassTLS(WriteThrough, self))
        if producer is not None:
            self.registerProducer(producer, streaming)


class TCPServer(WriteThrough, tcp.Server):
    """One accepted TCP connection."""

    # The peer as the port built it, then as getPeer() did.
    _peer: IAddress | None = None
    _host: IAddress | None = None

    def __init__(self, sock: socket.socket, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any):
        tcp.Server.__init__(self, sock, protocol, client, server, sessionno, reactor)
        self._open_directly()
        if not _OPTIONS_ARE_INHERITED:
            set_stream_options(sock, getattr(server, "options", _DEFAULTS))

    def getPeer(self) -> Any:
        """The client's address; the same object every time."""
        if self._peer is None:
            self._peer = tcp.Server.getPeer(self)
        return self._peer

    def getHost(self) -> Any:
        """The server's address; the same object every time, also after the connection was lost."""
        if self._host is None:
            self._host = tcp.Server.getHost(self)
        return self._host


def set_stream_options(sock: socket.socket, options: ListenOptions) -> None:
    """Set the options of TCP sockets, which accepted ones have from their listener or get here."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    # macOS refuses options on a connection that the peer has closed already.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, options.tcp_nodelay)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, options.tcp_keepalive)


if sys.platform != "win32":

    class UNIXServer(WriteThrough, unix.Server):
        """One accepted UNIX stream connection; passes descriptors as the stock transport does."""

        _peer: IAddress | None = None
        _host: IAddress | None = None

        def __init__(self, sock: socket.socket, protocol: Any, client: Any, server: Any, sessionno: int, reactor: Any):
            unix.Server.__init__(self, sock, protocol, client, server, sessionno, reactor)
            self._open_directly()
            self._recv = sock.recvmsg

        def read_ready(self) -> None:
            """Read once, descriptors included, and deliver; see `DirectDescriptor`."""
            try:
                data, ancillary, _, _ = self._recv(READ_BYTES, _ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._disconnect(main.CONNECTION_LOST, True)
                return
            try:
                for level, kind, content in ancillary:
                    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                        # Hands them to the protocol, or closes them and says so in the log.
                        self._ancillaryLevelSOLSOCKETTypeSCMRIGHTS(content)
                if data:
                    self.protocol.dataReceived(data)
                    return
            except Exception as exception:
                self._protocol_failed(exception, True)
                return
            self._disconnect(main.CONNECTION_DONE, True)

        def sendFileDescriptor(self, fileno: int) -> None:
            """Queue a descriptor; it goes with the first byte that is written after this call.

            Stock Twisted also lets it go with bytes written before, in the same turn: here those are gone already.
            """
            self._direct = False
            super().sendFileDescriptor(fileno)

        def _isSendBufferFull(self) -> bool:
            return len(self._sendmsgQueue) > self._fileDescriptorBufferSize or super()._isSendBufferFull()

        def getPeer(self) -> Any:
            """The client's address, or who a proxy says it is; the same object every time."""
            if self._peer is None:
                self._peer = super().getPeer()
            return self._peer

        def getHost(self) -> Any:
            """The server's address; the same object every time."""
            if self._host is None:
                self._host = super().getHost()
            return self._host

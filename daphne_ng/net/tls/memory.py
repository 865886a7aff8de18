"""TLS between two memory buffers: what a TLS transport puts its bytes through.

The transport does the I/O, and so keeps all it knows about sockets; a `TlsMemory` turns what was received into what was
sent, and back. Measured against a pyOpenSSL ``Connection`` that has the socket itself, a small request costs the same
(OpenSSL reads the head and the body of each record with a system call of its own), and a large response less (OpenSSL
sends each record of 16 KiB by itself).

pyOpenSSL's methods allocate, check and convert; with them a request would cost 3 us more. `_DirectMemory` calls the
same functions of the library on buffers that all connections of a reactor share. Private names that it relies on:
pyOpenSSL's ``Connection._ssl``, ``_into_ssl``, ``_from_ssl`` and ``_raise_ssl_error``, and cryptography's ``Binding``,
from which pyOpenSSL itself has its functions. If one of them is gone, `TlsMemory` is `_PublicMemory`, which needs none.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from OpenSSL import SSL

__all__ = ["PIECE_BYTES", "TlsBuffers", "TlsMemory"]

PIECE_BYTES: Final = 128 * 1024
"""Most plaintext that is encrypted at once, and so the most ciphertext that waits for the kernel."""

# A record holds up to 16 KiB. TLS 1.2's largest expansion is far below this.
_RECORD_BYTES: Final = 16 * 1024
_RECORD_OVERHEAD_BYTES: Final = 256

# The largest read of the transport, and what may have been left of a record by the reads before.
_PLAIN_BYTES: Final = 128 * 1024 + 2 * _RECORD_BYTES
_WIRE_BYTES: Final = PIECE_BYTES + (PIECE_BYTES // _RECORD_BYTES + 2) * _RECORD_OVERHEAD_BYTES

# A memory BIO keeps the size it once had. BIOs that may have more than this are exchanged when the connection is quiet.
_SMALL_BYTES: Final = 4 * 1024


class _PublicMemory:
    """With pyOpenSSL's public methods only.

    Args:
        context: The connection's.
        buffers: What the connections of one thread share.
    """

    __slots__ = ("connection", "end", "only_data", "oversized")

    def __init__(self, context: SSL.Context, buffers: Any) -> None:
        self.connection = SSL.Connection(context, None)
        self.connection.set_accept_state()
        self.end: Exception | None = None
        """Why nothing more will come: `SSL.ZeroReturnError` after the peer's close_notify, another exception after an
        error. Set by `decrypt`."""
        self.only_data = False
        """Whether all that `decrypt` took is known to be data, so that neither `end` nor `output` nor `oversized` has
        changed."""
        self.oversized = False
        """Whether `shrink` may have something to give back."""

    def handshake(self, wire: bytes) -> bool:
        """Take what was received and go on with the handshake; True when it is complete.

        Whatever the result, `output` has what is to be sent.

        Raises:
            Exception: The handshake has failed: `SSL.Error`, or what a callback raised.
        """
        self.connection.bio_write(wire)
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def decrypt(self, wire: bytes) -> bytes:
        """Take what was received and return all that it decrypts to; see `end`, and `output`, afterwards."""
        if wire:
            self.connection.bio_write(wire)
        pieces = []
        try:
            while True:
                pieces.append(self.connection.recv(_RECORD_BYTES))
        except SSL.WantReadError:
            pass
        except Exception as end:
            self.end = end.with_traceback(None)  # which would hold the transport
        return b"".join(pieces)

    def encrypt(self, data: Any) -> Any:
        """Take up to `PIECE_BYTES` and return what is to be sent, which is good until the next call.

        Raises:
            SSL.Error: OpenSSL refuses.
        """
        view = memoryview(data)
        sent = 0
        while sent < len(view):
            sent += self.connection.send(view[sent : sent + _RECORD_BYTES])
        return self.output()

    def output(self) -> bytes:
        """Return what is to be sent besides: handshake, alerts, answers to the peer's key updates."""
        pieces = []
        try:
            while True:
                pieces.append(self.connection.bio_read(2 * _RECORD_BYTES))
        except SSL.WantReadError:
            return b"".join(pieces)

    def shutdown(self) -> None:
        """Put close_notify into `output`."""
        with contextlib.suppress(SSL.Error):  # the connection has failed, or is still in its handshake
            self.connection.shutdown()

    def shrink(self) -> None:
        """Give memory back that a large transfer took. Nothing may be waiting in `output`."""


class _DirectBuffers:
    """What the connections of one thread share: nothing in here outlives a call."""

    __slots__ = ("plain", "plain_view", "wire", "wire_view")

    def __init__(self) -> None:
        self.plain = _ffi.new("char[]", _PLAIN_BYTES)
        self.plain_view = _ffi.buffer(self.plain)
        self.wire = _ffi.new("char[]", _WIRE_BYTES)
        self.wire_view = memoryview(_ffi.buffer(self.wire))


class _DirectMemory(_PublicMemory):
    """The same, calling the library's functions on shared buffers."""

    __slots__ = ("_buffers", "_from", "_into", "_ssl", "_whole")

    def __init__(self, context: SSL.Context, buffers: _DirectBuffers) -> None:
        super().__init__(context, buffers)
        connection: Any = self.connection
        self._buffers = buffers
        self._ssl = connection._ssl
        self._into = connection._into_ssl
        self._from = connection._from_ssl
        # The last read was one record of data, with nothing before it: OpenSSL holds no part of another, and owes none
        # an answer.
        self._whole = False
        # Partial writes would have SSL_write return after each record. A memory BIO has room for all of them.
        _lib.SSL_clear_mode(self._ssl, _lib.SSL_MODE_ENABLE_PARTIAL_WRITE)

    def decrypt(self, wire: bytes) -> bytes:
        """See `_PublicMemory.decrypt`."""
        into, size = self._into, len(wire)
        if size and _BIO_write(into, wire, size) != size:
            self.only_data = False
            self.end = MemoryError("OpenSSL has no memory for what was received")
            return b""
        buffers = self._buffers
        total: int = _SSL_read(self._ssl, buffers.plain, _PLAIN_BYTES)
        # Whether the read was one record: RFC 8446 section 5.1 has its length behind three bytes.
        single = total > 0 and 5 < size <= _SMALL_BYTES and size == 5 + (wire[3] << 8) + wire[4]
        if single and self._whole:
            # It held data: there is no more to read, and nothing that OpenSSL would answer. Most requests come so, and
            # each question costs 0.1 us.
            self.only_data = True
            return buffers.plain_view[:total]  # type: ignore[no-any-return]
        self.only_data = False
        if size > _SMALL_BYTES:
            self.oversized = True
        result = total
        # As long as OpenSSL reads ahead nothing (it does not, unless told), what is not in the BIO is not there: a read
        # takes one whole record, and the buffer is larger than that.
        while result > 0 and _BIO_get_mem_data(into, _NULL) > 0:
            result = _SSL_read(self._ssl, buffers.plain + total, _PLAIN_BYTES - total)
            if result > 0:
                total += result
        # OpenSSL answers a key update when it is called again. The caller asks for `output` after this read, and so
        # there is none after the next one, if that brings data and nothing else.
        self._whole = single and result > 0
        if result <= 0:
            self._judge(result)
        return buffers.plain_view[:total] if total > 0 else b""

    # To be called when SSL_read has read nothing: it wants more bytes, or the connection has ended.
    def _judge(self, result: int) -> None:
        if _SSL_get_error(self._ssl, result) == _WANT_READ:
            return
        try:
            self.connection._raise_ssl_error(self._ssl, result)
        except SSL.WantReadError:
            pass
        except Exception as end:
            self.end = end.with_traceback(None)  # which would hold the transport

    def encrypt(self, data: Any) -> Any:
        """See `_PublicMemory.encrypt`."""
        size = len(data)
        if data.__class__ is not bytes:
            data = _ffi.from_buffer(data)
        result = _SSL_write(self._ssl, data, size)
        if result != size:
            self.connection._raise_ssl_error(self._ssl, result)
            raise SSL.Error([("SSL routines", "", "a write was cut short")])
        if size > _SMALL_BYTES:
            self.oversized = True
        buffers = self._buffers
        taken = _BIO_read(self._from, buffers.wire, _WIRE_BYTES)
        if taken == _WIRE_BYTES:
            # The client asked for small records (RFC 6066 section 4).
            return bytes(buffers.wire_view) + self.output()
        return buffers.wire_view[:taken]

    def output(self) -> bytes:
        """See `_PublicMemory.output`."""
        if _BIO_get_mem_data(self._from, _NULL) <= 0:
            return b""
        return super().output()

    def shrink(self) -> None:
        """See `_PublicMemory.shrink`."""
        self.oversized = False
        connection: Any = self.connection
        if _BIO_get_mem_data(self._from, _NULL) > 0:
            return
        into = self._into
        if _BIO_get_mem_data(into, _NULL) <= 0:
            into = _lib.BIO_new(_lib.BIO_s_mem())
        # OpenSSL frees the old BIOs, and knows one that stays by its being the same.
        wbio = _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(self._ssl, into, wbio)
        self._into = connection._into_ssl = into
        self._from = connection._from_ssl = wbio


try:
    from cryptography.hazmat.bindings.openssl.binding import Binding

    _ffi: Final[Any] = Binding.ffi
    _lib: Final[Any] = Binding.lib
    _NULL: Final[Any] = _ffi.NULL
    _BIO_get_mem_data: Final[Any] = _lib.BIO_get_mem_data
    _BIO_read: Final[Any] = _lib.BIO_read
    _BIO_write: Final[Any] = _lib.BIO_write
    _SSL_get_error: Final[Any] = _lib.SSL_get_error
    _SSL_read: Final[Any] = _lib.SSL_read
    _SSL_write: Final[Any] = _lib.SSL_write
    _WANT_READ: Final[Any] = _lib.SSL_ERROR_WANT_READ
    # Every name that is used later, and one connection to try it.
    for _name in ("BIO_new", "BIO_s_mem", "SSL_MODE_ENABLE_PARTIAL_WRITE", "SSL_clear_mode", "SSL_set_bio"):
        getattr(_lib, _name)
    SSL.Connection._raise_ssl_error  # noqa: B018
    _DirectMemory(SSL.Context(SSL.TLS_METHOD), _DirectBuffers()).shrink()
    _is_direct = True
except (ImportError, AttributeError):
    _is_direct = False

TlsMemory: Final[type[_PublicMemory]] = _DirectMemory if _is_direct else _PublicMemory
TlsBuffers: Final[Any] = _DirectBuffers if _is_direct else object

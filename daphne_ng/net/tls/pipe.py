"""The way that the bytes of a TLS connection take, both ways: receive, decrypt, deliver; encrypt, send.

Every request passes a `TlsPipe` twice, so it is no class of Twisted's and has no interface: the loop calls it, and it
calls the protocol. All else is its owner's, the transport (`daphne_ng.net.tls.transport`): the handshake, what waits to
be encrypted, failures, ends, producers, timers.

Rules that bound it:

* One read of the socket for one call of the loop, and one delivery for it.
* ``sealed`` is ciphertext that the kernel has not taken: at most what one piece of plaintext became, and answers to the
  peer behind it. While there is some, nothing is encrypted.
* ``direct`` alone decides whether a write may be encrypted at once. Whoever makes it true has asked the transport's
  ``_may_send_directly``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from daphne_ng.net.sockets.transports import FIRST_READ_BYTES, LARGE_READ_BYTES, READ_BYTES
from daphne_ng.net.tls.memory import PIECE_BYTES

__all__ = ["WOULD_BLOCK", "TlsPipe"]

# Most that is received with less than an eighth of it being data, beside so much in each second: single keys pressed,
# on a WebSocket with one of TLS 1.2's old ciphers, are a tenth, and go on for hours. At that rate a flood is some 700
# of the smallest records a second.
_BARREN_BYTES_MAX: Final = 256 * 1024
_BARREN_BYTES_PER_SECOND: Final = 16 * 1024

WOULD_BLOCK: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS)
"""What the kernel says when it has no room for more, or no memory, for now."""


class TlsPipe:
    """What is received and what is sent, of one connection.

    Args:
        owner: The transport. It has ``protocol``, and the methods that are called here.
        seconds: Tells the time.
    """

    __slots__ = (
        "_barren_at",
        "_barren_bytes",
        "_read_bytes",
        "_read_was_full",
        "_seconds",
        "direct",
        "established",
        "memory",
        "notified",
        "open",
        "owner",
        "receive",
        "sealed",
        "sealed_plain",
        "send",
        "shrinking",
    )

    def __init__(self, owner: Any, seconds: Callable[[], float]) -> None:
        self.owner: Any = owner
        """None when the connection is lost, since each holds the other."""
        self.memory: Any = None
        """A `TlsMemory`: which of the two classes, is known when it is imported. None before and after the
        connection."""
        self.receive: Any = None
        """The socket's ``recv``."""
        self.send: Any = None
        """The socket's ``send``."""
        self.open = True
        """Whether the connection is neither lost nor about to be."""
        self.established = False
        """Whether the handshake is complete, and nothing has failed since."""
        self.direct = False
        """Whether bytes that are written may be encrypted and sent at once."""
        self.notified = False
        """Whether our close_notify is sent, behind which nothing is."""
        self.sealed: Any = b""
        """Ciphertext that the kernel has not taken."""
        self.sealed_plain = 0
        """How much of the front of the transport's buffer it is."""
        self.shrinking = False
        """Whether the transport has a timer to give large buffers back."""
        self._seconds = seconds
        self._read_bytes = FIRST_READ_BYTES
        self._read_was_full = False
        self._barren_bytes = 0.0
        self._barren_at = 0.0

    def is_open(self) -> bool:
        """Tell whether the connection is neither lost nor about to be; to be asked again after each delivery."""
        return self.open

    # -- reading

    def read_ready(self) -> None:
        """Read once, and deliver all that it decrypts to; see `DirectDescriptor`."""
        owner = self.owner
        try:
            wire = self.receive(self._read_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            owner.socket_ended()
            return
        size = len(wire)
        if size == self._read_bytes:
            self._read_bytes = READ_BYTES if size < READ_BYTES else LARGE_READ_BYTES
            self._read_was_full = True
        elif self._read_bytes > FIRST_READ_BYTES:
            if self._read_was_full:
                self._read_was_full = False  # this is the rest of it, however short
            elif size < FIRST_READ_BYTES:
                self._read_bytes = FIRST_READ_BYTES
        if not self.established or not size:
            if size:
                owner.shake_hands(wire)
            else:
                owner.socket_ended()
            return
        memory = self.memory
        data = memory.decrypt(wire)
        if not memory.only_data or self._barren_bytes:
            self._take(size, data)
            return
        try:
            owner.protocol.dataReceived(data)
        except Exception as exception:
            owner.delivery_failed(exception)

    def decrypt_left(self) -> None:
        """Deliver what OpenSSL holds though no read of the socket will bring it."""
        self._take(0, self.memory.decrypt(b""))

    # Deliver what has been decrypted, and do what else it may call for.
    def _take(self, size: int, data: bytes) -> None:
        owner, memory = self.owner, self.memory
        if (self._barren_bytes or size >= FIRST_READ_BYTES) and self._is_barren(size, len(data)):
            owner.flooded()
            return
        if data:
            try:
                owner.protocol.dataReceived(data)
            except Exception as exception:
                owner.delivery_failed(exception)
                return
        if not self.is_open():
            return
        end = memory.end
        if end is not None:
            owner.tls_ended(end)
            return
        answer = memory.output()
        if answer and not self.notified:
            owner.send_control(answer)
        if memory.oversized and not self.shrinking:
            owner.shrink_later()

    # Records that hold next to no data, key updates say, cost the loop a hundred times what data does. After a full
    # read of them the next one is small, so that others have their turns; and a client that sends little else is
    # dropped. What one read leaves incomplete is the next one's data, so it is sums that count.
    def _is_barren(self, wire: int, data: int) -> bool:
        if wire >= FIRST_READ_BYTES and data * 2 < wire:
            self._read_bytes = FIRST_READ_BYTES
        now = self._seconds()
        forgiven = (now - self._barren_at) * _BARREN_BYTES_PER_SECOND
        self._barren_at = now
        self._barren_bytes = max(0.0, max(0.0, self._barren_bytes - forgiven) + wire - data * 8)
        return self._barren_bytes > _BARREN_BYTES_MAX

    # -- writing

    def write(self, data: Any) -> None:
        """Encrypt and send `data`, at once as far as the kernel takes it; see `WriteThrough.write`."""
        if not self.direct or data.__class__ is not bytes or not 0 < len(data) <= PIECE_BYTES:
            # After the end there is no owner, and what is written then is dropped.
            if self.owner is not None:
                self.owner.write_otherwise(data)
            return
        try:
            gone = self.seal(data)
        except OSError as refusal:
            self.owner.send_refused(refusal, data)
            return
        if not gone:
            self.owner.kernel_full(data)

    def seal(self, data: Any) -> bool:
        """Encrypt up to `PIECE_BYTES` and send it; False if some of it is left in ``sealed``.

        Raises:
            OSError: The kernel refuses, not only for now.
        """
        memory = self.memory
        try:
            wire = memory.encrypt(data)
        except (MemoryError, RecursionError):
            raise  # the application's: it ends the connection
        except Exception as exception:
            # The connection does not end within write(), and the data is dropped.
            self.direct = False
            self.owner.encryption_refused(exception)
            return True
        try:
            sent = self.send(wire)
        except OSError as refusal:
            if refusal.errno not in WOULD_BLOCK:
                raise
            sent = 0
        if memory.oversized and not self.shrinking:
            self.owner.shrink_later()
        if sent == len(wire):
            return True
        self.sealed = memoryview(bytes(wire[sent:]))
        self.sealed_plain = len(data)
        return False

    def flush(self) -> bool:
        """Send what is in ``sealed``; False if some of it is left.

        Raises:
            OSError: The kernel refuses, not only for now.
        """
        try:
            sent = self.send(self.sealed)
        except OSError as refusal:
            if refusal.errno not in WOULD_BLOCK:
                raise
            return False
        if sent < len(self.sealed):
            self.sealed = self.sealed[sent:]
            return False
        self.sealed = b""
        return True

    def close(self) -> None:
        """The connection is lost: let go of the socket, and of the transport."""
        self.open = self.direct = self.established = False
        self.receive = self.send = self.owner = self.memory = None
        self.sealed = b""
        self.sealed_plain = 0

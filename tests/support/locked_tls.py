"""A TLS socket of the standard library that two threads may use at once.

OpenSSL's connections are not safe to use from two threads, and CPython 3.11 and 3.12 release their lock while in them.
``websockets.sync`` reads in a thread and writes in another: one handshake of a WebSocket in a thousand was lost by the
client, since session tickets come just as it writes.
"""

from __future__ import annotations

import select
import ssl
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["LockedSSLSocket"]

_T = TypeVar("_T")


class LockedSSLSocket(ssl.SSLSocket):
    """Reads and writes in turn, and waits outside the lock. For `SSLContext.sslsocket_class`."""

    def __new__(cls, *args: Any, **kwargs: Any) -> LockedSSLSocket:
        self = super().__new__(cls, *args, **kwargs)
        self._one_at_a_time = threading.Lock()
        return self

    _one_at_a_time: threading.Lock

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive up to `buflen` bytes."""
        return self._in_turn(lambda: ssl.SSLSocket.recv(self, buflen, flags))

    def send(self, data: Any, flags: int = 0) -> int:
        """Send what fits, and return how much did. `sendall` comes here, too."""
        return self._in_turn(lambda: ssl.SSLSocket.send(self, data, flags))

    def _in_turn(self, operation: Callable[[], _T]) -> _T:
        while True:
            with self._one_at_a_time:
                patience = self.gettimeout()
                self.settimeout(0)
                try:
                    return operation()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                    if patience == 0:
                        raise
                    waiting = select.POLLIN if isinstance(error, ssl.SSLWantReadError) else select.POLLOUT
                finally:
                    if self.fileno() >= 0:
                        self.settimeout(patience)
            poll = select.poll()
            poll.register(self, waiting)
            if not poll.poll(None if patience is None else patience * 1000):
                raise TimeoutError("the read or write operation timed out")

"""TLS transports whose pyOpenSSL ``Connection`` reads and writes the socket itself."""

from __future__ import annotations

from daphne_ng.net.transports import TCPServer, UNIXServer

__all__ = ["TLSServer", "TLSUNIXServer"]


class TLSServer(TCPServer):
    """One accepted TCP connection with TLS."""


class TLSUNIXServer(UNIXServer):
    """One accepted UNIX connection with TLS."""

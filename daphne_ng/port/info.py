"""What is known of a connection, whatever its protocol."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["LOCAL_CLIENT", "ConnectionInfo"]

LOCAL_CLIENT: Final = "a local client"
"""What the log calls a client that has no address, as over a UNIX socket."""


class ConnectionInfo:
    """What all requests of one connection share.

    Attributes:
        scheme: ``http`` or ``https``.
        client: ``[host, port]``, or None where the peer has no address (UNIX sockets).
        server: ``[host, port]``, ``[path, None]`` for a UNIX socket, or None.
        client_text: ``host:port`` for the access log, or None.
        trusted: Whether the peer is a trusted proxy, whose word on a request is believed.
        extensions: Names of the ASGI extensions that this connection supports.
    """

    __slots__ = ("client", "client_text", "extensions", "scheme", "server", "trusted")

    def __init__(
        self,
        scheme: str,
        client: list[Any] | None,
        server: list[Any] | None,
        trusted: bool,
        extensions: dict[str, dict[str, Any]],
    ) -> None:
        self.scheme = scheme
        self.client = client
        self.server = server
        self.client_text = f"{client[0]}:{client[1]}" if client is not None else None
        self.trusted = trusted
        self.extensions = extensions

    @property
    def client_name(self) -> str:
        """``host:port``, or a name for a client without an address: for the lines of the log."""
        return self.client_text or LOCAL_CLIENT

    def claimed(self, client: tuple[str, int] | None, scheme: str | None) -> ConnectionInfo:
        """Return a copy for one request, with what a trusted proxy says; None for what it does not say."""
        info = ConnectionInfo(self.scheme, self.client, self.server, self.trusted, self.extensions)
        if client is not None:
            info.client = [*client]
            info.client_text = f"{client[0]}:{client[1]}"
        if scheme is not None:
            info.scheme = scheme
        return info

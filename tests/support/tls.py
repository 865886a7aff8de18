"""TLS for the tests: an authority that writes PEM files, and handshakes in memory."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

__all__ = ["Client", "authority", "certificate", "context_of", "encrypted", "replace_file", "shake_hands", "write_pem"]

YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


def authority(name: str = "one") -> trustme.CA:
    """Return the authority of this name, the same every time."""
    return _authority(name)


@functools.cache
def _authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=f"Authority {name}")


def certificate(*names: str, by: str = "one", **more: Any) -> trustme.LeafCert:
    """Return a new certificate."""
    return authority(by).issue_cert(*names, **more)


def write_pem(path: Path, *names: str, by: str = "one", **more: Any) -> trustme.LeafCert:
    """Write a new certificate to a file, with its key in front and its chain behind it; all at once."""
    leaf = certificate(*names, by=by, **more)
    replace_file(path, leaf.private_key_and_cert_chain_pem.bytes())
    return leaf


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in a way that nobody sees it half written."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def encrypted(leaf: trustme.LeafCert, password: bytes) -> bytes:
    """Return the key of a certificate as PEM that needs a password."""
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))


def context_of(*, by: str = "one", alpn: tuple[str, ...] = (), leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Return a client's context that trusts an authority, and has a certificate if one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority(by).configure_trust(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if leaf is not None:
        leaf.configure_cert(context)
    return context


class Client:
    """The client's end of a handshake in memory, by the standard library."""

    def __init__(self, context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if name is None:
            context.check_hostname = False
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)

    @property
    def names(self) -> list[str]:
        """The names of the server's certificate."""
        found: Any = self.tls.getpeercert() or {}
        return [value for kind, value in found.get("subjectAltName", ())]


def shake_hands(
    server_context: SSL.Context, context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None
) -> tuple[Client, SSL.Connection]:
    """Do a whole handshake, and one byte from the server so that the client has its tickets.

    Raises:
        ssl.SSLError: The client's error, after everything that the server had to say was delivered.
        SSL.Error: The server's, if the client had none.
    """
    client, server = Client(context, name, session), SSL.Connection(server_context)
    server.set_accept_state()
    failure: SSL.Error | None = None
    done = [False, False]
    for _ in range(10):
        done[0] = done[0] or _step(client.tls.do_handshake)
        data = client.outgoing.read()
        if data:
            server.bio_write(data)
        if failure is None and not done[1]:
            try:
                done[1] = _step(server.do_handshake)
            except SSL.Error as error:
                failure = error
        _deliver(server, client)
        if all(done):
            server.send(b"x")
            _deliver(server, client)
            assert client.tls.read(1) == b"x"
            return client, server
    assert failure is not None
    # What a server thinks of a client's certificate comes after the client's part of TLS 1.3.
    if done[0]:
        client.tls.read(1)
    raise failure


def _step(do_handshake: Callable[[], None]) -> bool:
    try:
        do_handshake()
    except (ssl.SSLWantReadError, SSL.WantReadError):
        return False
    return True


def _deliver(server: SSL.Connection, client: Client) -> None:
    while True:
        try:
            client.incoming.write(server.bio_read(65536))
        except SSL.WantReadError:
            return

"""ASGI's TLS extension (version 0.2) for a connection, from pyOpenSSL's ``Connection``."""

from __future__ import annotations

import contextlib
import functools
import ssl
from typing import Any

from OpenSSL import SSL, crypto

from daphne_ng.net.tls.context import client_certificate_error, reasons

__all__ = ["handshake_complete", "handshake_failure", "tls_extension"]


def tls_extension(connection: Any) -> dict[str, Any]:
    """Return ``scope["extensions"]["tls"]`` for a connection whose handshake is complete.

    Every key of version 0.2, and which version that is: asgiref #590 would leave most of them out of the next one.

    Args:
        connection: What the transport's ``getHandle()`` returns. What it cannot tell is None.
    """
    chain, name, error = _client(connection)
    return {
        "spec_version": "0.2",
        "server_cert": _server_certificate(connection),
        "client_cert_chain": chain,
        "client_cert_name": name,
        "client_cert_error": error,
        "tls_version": _ask(connection, "get_protocol_version"),
        "cipher_suite": _cipher_numbers().get(_ask(connection, "get_cipher_name")),
    }


def handshake_complete(connection: Any) -> bool:
    """Tell whether the client has finished its handshake."""
    return bool(_ask(connection, "get_peer_finished"))


def handshake_failure(reason: BaseException | None) -> str:
    """Return in words why a handshake failed; nothing if the client just left."""
    if not isinstance(reason, SSL.Error) or isinstance(reason, SSL.SysCallError):
        return ""
    words = reasons(reason)
    if words == "callback failed":
        # The only callback that refuses without words of its own: see `build_context`.
        return "there is no certificate for the name that the client asked for"
    return "" if "unexpected eof" in words else words


def _client(connection: Any) -> tuple[list[str], str | None, str | None]:
    leaf = _ask(connection, "get_peer_certificate")
    if leaf is None:
        return [], None, None
    error = client_certificate_error(connection)
    # A server's chain is without the leaf. After a resumption it is empty: a ticket holds only the leaf.
    chain = [_pem(certificate) for certificate in (leaf, *(_ask(connection, "get_peer_cert_chain") or ()))]
    try:
        name = leaf.to_cryptography().subject.rfc4514_string()
    except Exception as malformed:  # OpenSSL reads more than is well-formed: ValueError, InvalidVersion
        name, error = "", error or f"the certificate is malformed: {malformed}"
    return list(dict.fromkeys(chain)), name, error


def _server_certificate(connection: Any) -> str | None:
    certificate = _ask(connection, "get_certificate")
    if certificate is None:
        return None
    return _pem_of(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate))


# A server has few certificates of its own. So ten thousand connections do not hold a copy each.
@functools.lru_cache(maxsize=64)
def _pem_of(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)


def _pem(certificate: Any) -> str:
    return crypto.dump_certificate(crypto.FILETYPE_PEM, certificate).decode("ascii")


# An endpoint of another package may have a handle that is no pyOpenSSL connection.
def _ask(connection: Any, method: str) -> Any:
    with contextlib.suppress(AttributeError):
        return getattr(connection, method)()
    return None


# OpenSSL's names for cipher suites -> their numbers, which pyOpenSSL does not tell. The standard library's OpenSSL may
# be another, but those that both know have the same names. Their upper half says which protocol they are for.
@functools.cache
def _cipher_numbers() -> dict[str, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with contextlib.suppress(ssl.SSLError):
        context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    known = {cipher["name"]: cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}
    return _TLS_1_3 | known


# RFC 8446 appendix B.4. A system's policy may have taken some of them from the standard library.
_TLS_1_3 = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "TLS_AES_128_CCM_SHA256": 0x1304,
    "TLS_AES_128_CCM_8_SHA256": 0x1305,
}

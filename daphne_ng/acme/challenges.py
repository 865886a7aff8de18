"""Proofs that a name is ours: the certificate of TLS-ALPN-01 (RFC 8737), and where the proofs are put.

An authority that is asked for a certificate connects to the name. With TLS-ALPN-01 it offers the one protocol
``acme-tls/1`` and looks at the certificate; with HTTP-01 it asks port 80 for a path.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, MutableMapping
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from daphne_ng.net.tls_context import challenge_context

__all__ = ["HttpChallenges", "Prover", "TlsAlpnChallenges", "challenge_certificate"]

_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_DAY = dt.timedelta(days=1)


class Prover(Protocol):
    """Answers challenges of one type. Called in the keeper's thread."""

    kind: str
    """The challenge's type in ACME."""

    def prove(self, name: str, token: str, key_authorization: str) -> None:
        """Have the challenge answered from now on."""

    def forget(self, name: str, token: str) -> None:
        """Answer it no more."""


def challenge_certificate(
    name: str, key_authorization: str, now: dt.datetime | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate that proves `name`, and its key.

    RFC 8737, 3: "The subjectAltName extension MUST contain a single dNSName entry where the value is the domain name
    being validated", and "a critical acmeIdentifier extension", which holds "the SHA-256 digest of the key
    authorization" as an OCTET STRING.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    now = now or dt.datetime.now(dt.UTC)
    digest = hashlib.sha256(key_authorization.encode("ascii")).digest()
    octet_string = bytes((0x04, len(digest))) + digest  # DER
    # A common name has at most 64 characters, and nobody reads this one.
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME challenge")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(_ACME_IDENTIFIER, octet_string), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


class TlsAlpnChallenges:
    """TLS-ALPN-01, answered by the TLS port itself.

    Args:
        contexts: Where the port looks for a handshake that offers ``acme-tls/1``: by name, in lower case.
        on_loop: Calls a function in the thread in which handshakes happen, and waits for it.
    """

    kind = "tls-alpn-01"

    def __init__(
        self, contexts: MutableMapping[str, SSL.Context], on_loop: Callable[[Callable[[], object]], object]
    ) -> None:
        self._contexts = contexts
        self._on_loop = on_loop

    def prove(self, name: str, token: str, key_authorization: str) -> None:
        """See `Prover`."""
        context = challenge_context(*challenge_certificate(name, key_authorization))
        self._on_loop(lambda: self._contexts.update({name.lower(): context}))

    def forget(self, name: str, token: str) -> None:
        """See `Prover`."""
        self._on_loop(lambda: self._contexts.pop(name.lower(), None))


class HttpChallenges:
    """HTTP-01, answered by `daphne_ng.acme.responder`."""

    kind = "http-01"

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        """Key authorizations by token. One item is set or taken away at a time."""

    def prove(self, name: str, token: str, key_authorization: str) -> None:
        """See `Prover`."""
        self.answers[token] = key_authorization

    def forget(self, name: str, token: str) -> None:
        """See `Prover`."""
        self.answers.pop(token, None)

"""Proofs that a name is ours: the certificate of TLS-ALPN-01 (RFC 8737), and where the proofs are put.

An authority that is asked for a certificate connects to the name. With TLS-ALPN-01 it offers the one protocol
``acme-tls/1`` and looks at the certificate; with HTTP-01 it asks port 80 for a path.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from functools import lru_cache
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from daphne_ng.acme.proofs import Proofs
from daphne_ng.net.tls.context import challenge_context

__all__ = ["HttpAnswers", "HttpChallenges", "Prover", "TlsAlpnAnswers", "TlsAlpnChallenges", "challenge_certificate"]

TLS_ALPN_01, HTTP_01 = "tls-alpn-01", "http-01"

_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_DAY = dt.timedelta(days=1)


class Prover(Protocol):
    """Answers challenges of one type. Called in the keeper's thread."""

    kind: str
    """The challenge's type in ACME."""

    def prove(self, name: str, token: str, key_authorization: str) -> None:
        """Have the challenge answered from now on."""

    def forget(self, name: str, token: str) -> None:
        """Answer it no more. Not called where the server stops while the authority may be looking."""


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
    # A common name has at most 64 characters, and authorities do not read it.
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


# The authority comes several times, from several places; making a key and signing takes most of a handshake's time.
@lru_cache(maxsize=16)
def _context(name: str, key_authorization: str) -> SSL.Context:
    return challenge_context(*challenge_certificate(name, key_authorization))


class TlsAlpnChallenges:
    """TLS-ALPN-01, answered by `TlsAlpnAnswers` on the TLS port itself.

    Args:
        proofs: Where the port looks for them, in this process and in others.
    """

    kind = TLS_ALPN_01

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs

    def prove(self, name: str, token: str, key_authorization: str) -> None:
        """See `Prover`."""
        self._proofs.put(self.kind, name.lower(), key_authorization)

    def forget(self, name: str, token: str) -> None:
        """See `Prover`."""
        self._proofs.remove(self.kind, name.lower())


class TlsAlpnAnswers:
    """What handshakes that offer ``acme-tls/1`` are answered with.

    Args:
        proofs: Those of the port's directory.
    """

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs

    def get(self, name: str, /) -> SSL.Context | None:
        """Return the context for a name that a client asks for, in lower case, if there is a proof of it."""
        authorization = self._proofs.get(TLS_ALPN_01, name)
        return _context(name, authorization) if authorization is not None else None


class HttpChallenges:
    """HTTP-01, answered by `daphne_ng.acme.responder`.

    Args:
        proofs: Where the responder looks for them, in this process and in others.
    """

    kind = HTTP_01

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs

    def prove(self, name: str, token: str, key_authorization: str) -> None:
        """See `Prover`."""
        self._proofs.put(self.kind, token, key_authorization)

    def forget(self, name: str, token: str) -> None:
        """See `Prover`."""
        self._proofs.remove(self.kind, token)


class HttpAnswers:
    """What the paths of HTTP-01 are answered with, whichever directory they are for."""

    def __init__(self) -> None:
        self.proofs: list[Proofs] = []
        """Those of all directories."""

    def get(self, token: str, /) -> str | None:
        """Return the key authorization of a token, or None."""
        found = (proofs.get(HTTP_01, token) for proofs in self.proofs)
        return next((authorization for authorization in found if authorization is not None), None)

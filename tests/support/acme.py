"""Certificates of an authority that exists only in the tests."""

from __future__ import annotations

import datetime as dt
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

NOW = dt.datetime(2027, 1, 15, 8, 0, tzinfo=dt.UTC)


class HasPublicKey(Protocol):
    """A private key, or a request that it has signed."""

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""


_AUTHORITY_KEY = ec.generate_private_key(ec.SECP256R1())
_AUTHORITY_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "An authority")])


def _certificate(
    builder: x509.CertificateBuilder, key: HasPublicKey, begin: dt.datetime, days: float
) -> x509.Certificate:
    return (
        builder.issuer_name(_AUTHORITY_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=days))
        .sign(_AUTHORITY_KEY, hashes.SHA256())
    )


def chain_for(name: str, key: HasPublicKey, begin: dt.datetime = NOW, days: float = 90) -> bytes:
    """Return a certificate of `name` and that of the authority, as PEM."""
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    leaf = x509.CertificateBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    root = x509.CertificateBuilder().subject_name(_AUTHORITY_NAME)
    made = [_certificate(leaf, key, begin, days), _certificate(root, _AUTHORITY_KEY, begin, 3650)]
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in made)

"""Certificates for the TLS site: an authority, a server's and a client's, made for one directory."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

CLIENT_NAME = "CN=conformance client"
"""The subject of the client's certificate, as RFC 4514 writes it."""


class Certificates:
    """Writes ``ca.pem``, ``cert.pem``, ``key.pem``, ``client.pem`` and ``client-key.pem``.

    Args:
        directory: Where to.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = _certificate("conformance authority", authority_key, None, authority_key)
        for name, subject in (("cert", "localhost"), ("client", "conformance client")):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _certificate(subject, key, authority.subject, authority_key)
            (directory / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
            (directory / ("key.pem" if name == "cert" else "client-key.pem")).write_bytes(
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
        (directory / "ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))

    def text(self, name: str) -> str:
        """Return a PEM file."""
        return (self._directory / f"{name}.pem").read_text("ascii")

    def client(self, protocols: tuple[str, ...], *, known: bool) -> ssl.SSLContext:
        """Return the context of a client, with a certificate of its own or without."""
        context = ssl.create_default_context(cafile=str(self._directory / "ca.pem"))
        context.set_alpn_protocols(list(protocols))
        if known:
            context.load_cert_chain(self._directory / "client.pem", self._directory / "client-key.pem")
        return context


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name | None, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if issuer is not None:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())

"""Proofs that a name is ours."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL

from daphne_ng.acme.challenges import (
    HttpAnswers,
    HttpChallenges,
    TlsAlpnAnswers,
    TlsAlpnChallenges,
    challenge_certificate,
)
from daphne_ng.acme.proofs import Proofs
from daphne_ng.net.tls.context import TlsPolicy
from daphne_ng.net.tls.directory import CertificateDirectory

NAME = "a.example.org"
AUTHORIZATION = "token.thumbprint"
ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"


def check(certificate: x509.Certificate, name: str = NAME) -> None:
    """What RFC 8737, section 3, has the authority verify."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(name)]
    extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(ACME_IDENTIFIER))
    assert extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert extension.value.value == b"\x04\x20" + hashlib.sha256(AUTHORIZATION.encode()).digest()
    certificate.verify_directly_issued_by(certificate)


def test_the_certificate_is_that_of_rfc_8737() -> None:
    certificate, key = challenge_certificate(NAME, AUTHORIZATION)
    check(certificate)
    assert certificate.public_key() == key.public_key()


def test_a_name_longer_than_a_common_name_may_be_has_one_too() -> None:
    name = "x" * 60 + ".example.org"
    check(challenge_certificate(name, AUTHORIZATION)[0], name)


def shake_hands(server_context: SSL.Context, name: str, *protocols: bytes) -> tuple[Any, bytes]:
    """Connect in memory; return the server's certificate and the protocol."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos(list(protocols))
    client, server = SSL.Connection(context, None), SSL.Connection(server_context, None)
    client.set_tlsext_host_name(name.encode())
    client.set_connect_state()
    server.set_accept_state()
    waiting = {client, server}
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
                waiting.discard(one)
            except SSL.WantReadError:
                pass
            try:
                other.bio_write(one.bio_read(1 << 16))
            except SSL.WantReadError:
                pass
        if not waiting:
            break
    assert not waiting
    return client.get_peer_certificate(as_cryptography=True), client.get_alpn_proto_negotiated()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_directory_answers_while_the_proof_is_there(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.pem").touch()
    directory = CertificateDirectory(TlsPolicy(), str(tmp_path))
    # Of two processes, one proves and the other is asked.
    directory.challenges = TlsAlpnAnswers(Proofs(str(tmp_path)))
    challenges = TlsAlpnChallenges(Proofs(str(tmp_path)))
    for name in (NAME, "../client.key", "x" * 250):
        with pytest.raises(SSL.Error):
            shake_hands(directory.context(), name, b"acme-tls/1")
    challenges.prove("A.example.org", "token", AUTHORIZATION)
    first, protocol = shake_hands(directory.context(), NAME, b"acme-tls/1")
    check(first)
    assert protocol == b"acme-tls/1"
    assert shake_hands(directory.context(), NAME, b"acme-tls/1")[0] == first  # made once
    challenges.prove(NAME, "another", "another.thumbprint")
    assert shake_hands(directory.context(), NAME, b"acme-tls/1")[0] != first
    challenges.forget("A.example.org", "token")
    challenges.forget("A.example.org", "token")
    with pytest.raises(SSL.Error):
        shake_hands(directory.context(), NAME, b"acme-tls/1")


def test_http_answers_of_every_directory_are_there_until_forgotten(tmp_path: Path) -> None:
    stores = [Proofs(str(tmp_path / name)) for name in ("one", "two")]
    answers = HttpAnswers()
    answers.proofs.extend(stores)
    for number, store in enumerate(stores):
        (tmp_path / ("one", "two")[number]).mkdir()
        challenges = HttpChallenges(store)
        challenges.prove(NAME, f"token{number}", AUTHORIZATION)
        assert answers.get(f"token{number}") == AUTHORIZATION
        assert answers.get("other") is None
        challenges.forget(NAME, f"token{number}")
        challenges.forget(NAME, f"token{number}")
        assert answers.get(f"token{number}") is None


def test_a_proof_of_one_kind_answers_no_other(tmp_path: Path) -> None:
    proofs = Proofs(str(tmp_path))
    HttpChallenges(proofs).prove(NAME, NAME, AUTHORIZATION)
    assert TlsAlpnAnswers(proofs).get(NAME) is None

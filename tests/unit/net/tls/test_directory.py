"""`daphne_ng.net.tls.directory`: a certificate for each name, the answers to challenges, and files that come and go."""

from __future__ import annotations

import datetime as dt
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from daphne_ng.errors import EndpointError
from daphne_ng.net.tls.context import TlsPolicy, challenge_context
from daphne_ng.net.tls.directory import CertificateDirectory
from daphne_ng.net.tls.extension import tls_extension
from daphne_ng.net.tls.sources import CertificateFile, CertificateFiles
from tests.support.tls import YESTERDAY, authority, certificate, context_of, shake_hands, write_pem

BOTH = (b"h2", b"http/1.1")
POLICY = TlsPolicy(protocols=BOTH)
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "server.pem"
    write_pem(path, "a.test")
    return path


def files(pem: Path, **settings: Any) -> CertificateFiles:
    return CertificateFiles(TlsPolicy(protocols=BOTH, **settings), CertificateFile(str(pem)))


def client_of(version: ssl.TLSVersion, **more: Any) -> ssl.SSLContext:
    context = context_of(**more)
    context.minimum_version = context.maximum_version = version
    return context


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno >= level]
    caplog.clear()
    return found


def serial(client: Any) -> int:
    return x509.load_der_x509_certificate(client.tls.getpeercert(binary_form=True)).serial_number


def authorities(tmp_path: Path, by: str = "one") -> None:
    authority(by).cert_pem.write_to_path(str(tmp_path / "ca.pem"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "certificates"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("a.test", "a.test"),
        ("A.Test", "a.test"),
        ("x.b.test", "*.b.test"),
        ("x.c.test", "*.c.test"),
        ("own.b.test", "own.b.test"),
    ],
)
@VERSIONS
def test_the_name_chooses_the_certificate(directory: Path, version: ssl.TLSVersion, asked: str, given: str) -> None:
    for file_name, name in {
        "a.test": "a.test",
        "*.b.test": "*.b.test",
        "own.b.test": "own.b.test",
        "_wildcard_.c.test": "*.c.test",
    }.items():
        write_pem(directory / f"{file_name}.pem", name)
    (directory / ".hidden.pem").write_text("not a certificate")
    (directory / "README").write_text("not a certificate")
    source = CertificateDirectory(POLICY, str(directory))
    assert source.names() == ["*.b.test", "*.c.test", "a.test", "own.b.test"]
    client, connection = shake_hands(source.context(), client_of(version, alpn=("http/1.1", "h2")), asked)
    assert client.names == [given]
    assert client.tls.selected_alpn_protocol() == "h2"
    assert tls_extension(connection)["server_cert"] == ssl.DER_cert_to_PEM_cert(
        client.tls.getpeercert(binary_form=True) or b""
    )


@VERSIONS
def test_an_unknown_name_is_refused_unless_there_is_a_default(
    directory: Path, pem: Path, version: ssl.TLSVersion
) -> None:
    write_pem(directory / "a.test.pem", "a.test")
    source = CertificateDirectory(POLICY, str(directory))
    for name in ("b.test", "deep.a.test", None):
        with pytest.raises(ssl.SSLError, match="unrecognized name"):
            shake_hands(source.context(), client_of(version), name)
    write_pem(directory / "DEFAULT.pem", "default.test", "b.test")
    source.reload()
    assert source.names() == ["a.test"]
    for name in ("b.test", None):
        client, _ = shake_hands(source.context(), client_of(version), name)
        assert client.names == ["default.test", "b.test"]
    own = CertificateDirectory(POLICY, str(directory), CertificateFile(str(pem)))
    client, _ = shake_hands(own.context(), client_of(version), None)
    assert client.names == ["a.test"]


@VERSIONS
def test_sessions_outlive_the_renewal_of_a_name(directory: Path, version: ssl.TLSVersion) -> None:
    write_pem(directory / "a.test.pem", "a.test")
    source = CertificateDirectory(POLICY, str(directory))
    context = client_of(version)
    first, _ = shake_hands(source.context(), context, "a.test")
    again, _ = shake_hands(source.context(), context, "a.test", first.tls.session)
    assert again.tls.session_reused
    write_pem(directory / "a.test.pem", "a.test")
    source.reload()
    renewed, _ = shake_hands(source.context(), context, "a.test", first.tls.session)
    assert renewed.tls.session_reused


def test_a_directory_asks_for_client_certificates_too(directory: Path, tmp_path: Path) -> None:
    authorities(tmp_path)
    write_pem(directory / "a.test.pem", "a.test")
    policy = TlsPolicy(protocols=BOTH, cert_reqs="required", ca_certs=str(tmp_path / "ca.pem"))
    source = CertificateDirectory(policy, str(directory))
    _, connection = shake_hands(source.context(), context_of(leaf=certificate("c@a.test")), "a.test")
    assert tls_extension(connection)["client_cert_chain"]
    with pytest.raises((ssl.SSLError, SSL.Error)):
        shake_hands(source.context(), context_of(), "a.test")
    authorities(tmp_path, "two")
    source.reload()
    shake_hands(source.context(), context_of(leaf=certificate("c@a.test", by="two")), "a.test")
    with pytest.raises((ssl.SSLError, SSL.Error)):
        shake_hands(source.context(), context_of(leaf=certificate("c@a.test")), "a.test")


def challenge(name: str) -> SSL.Context:
    leaf = certificate(name)
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return challenge_context(x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()), key)


@VERSIONS
def test_a_challenge_is_answered_to_those_who_ask_for_it(directory: Path, version: ssl.TLSVersion) -> None:
    (directory / "new.test.pem").write_bytes(b"")
    write_pem(directory / "a.test.pem", "a.test")
    source = CertificateDirectory(POLICY, str(directory))
    assert source.names() == ["a.test", "new.test"]
    assert source.certificate("new.test") is None
    assert source.certificate("a.test") is not None
    asking = client_of(version, alpn=("acme-tls/1",))
    for name in ("a.test", "new.test"):
        with pytest.raises(ssl.SSLError):
            shake_hands(source.context(), asking, name)
    source.challenges["new.test"] = challenge("new.test")
    source.challenges["a.test"] = challenge("a.test")
    client, _ = shake_hands(source.context(), asking, "new.test")
    assert client.tls.selected_alpn_protocol() == "acme-tls/1"
    own = source.certificate("a.test").serial_number
    for alpn in (("h2",), ()):
        client, _ = shake_hands(source.context(), client_of(version, alpn=alpn), "a.test")
        assert serial(client) == own
        with pytest.raises(ssl.SSLError):
            shake_hands(source.context(), client_of(version, alpn=("h2",)), "new.test")
    if version is ssl.TLSVersion.TLSv1_3:
        client, _ = shake_hands(source.context(), asking, "a.test")
        assert serial(client) != own
    else:
        with pytest.raises(ssl.SSLError):
            shake_hands(source.context(), asking, "a.test")


def test_the_first_certificate_of_a_name_is_served_as_soon_as_it_is_there(directory: Path) -> None:
    """Another process has put it there, and nobody has looked at the files since."""
    (directory / "new.test.pem").write_bytes(b"")
    write_pem(directory / "DEFAULT.pem", "a.test")
    source = CertificateDirectory(POLICY, str(directory))
    default = source.certificate("default").serial_number
    unsure = context_of()
    unsure.check_hostname = False
    assert serial(shake_hands(source.context(), unsure, "new.test")[0]) == default
    write_pem(directory / "new.test.pem", "new.test")
    client, _ = shake_hands(source.context(), context_of(), "new.test")
    assert serial(client) == source.certificate("new.test").serial_number != default


def test_a_first_certificate_that_is_wrong_is_read_once(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    (directory / "new.test.pem").write_bytes(b"")
    source = CertificateDirectory(POLICY, str(directory))
    (directory / "new.test.pem").write_bytes(b"wrong")
    for _ in range(3):
        with pytest.raises((ssl.SSLError, SSL.Error)):
            shake_hands(source.context(), context_of(), "new.test")
    assert caplog.text.count("Kept the certificate for 'new.test' as it was") == 1


def test_files_in_a_directory_come_go_and_change_one_by_one(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("a.test", "b.test"):
        write_pem(directory / f"{name}.pem", name)
    source = CertificateDirectory(POLICY, str(directory))
    serials = {name: source.certificate(name).serial_number for name in source.names()}
    write_pem(directory / "b.test.pem", "b.test")
    write_pem(directory / "c.test.pem", "c.test")
    (directory / "a.test.pem").write_text("nonsense")
    source.refresh()
    told = messages(caplog)
    assert len(told) == 2
    assert "a.test" in told[0] and "Kept" in told[0]
    assert "b.test.pem" in told[1] and "c.test.pem" in told[1]
    assert source.certificate("a.test").serial_number == serials["a.test"]
    assert source.certificate("b.test").serial_number != serials["b.test"]
    # The same mistake is not told again for the change of another file.
    (directory / "c.test.pem").unlink()
    source.refresh()
    [told] = messages(caplog)
    assert "c.test" in told and "gone" in told
    with pytest.raises(ssl.SSLError, match="unrecognized name"):
        shake_hands(source.context(), context_of(), "c.test")
    assert source.certificate("a.test").serial_number == serials["a.test"]
    (directory / "a.test.pem").unlink()
    source.refresh()
    assert source.names() == ["b.test"]


def test_names_of_files_cannot_forge_or_flood_the_log(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = CertificateDirectory(POLICY, str(directory))
    names = [f"{number}.test" for number in range(30)]
    for name in (*names, "\n2026 ERROR forged"):
        (directory / f"{name}.pem").write_bytes(certificate("a.test").private_key_and_cert_chain_pem.bytes())
    source.refresh()
    for path in directory.iterdir():
        path.unlink()
    source.refresh()
    replaced, gone = messages(caplog)
    assert "and 21 more" in replaced and "and 21 more" in gone
    assert all(told.isprintable() and len(told) < 3000 for told in (replaced, gone))


def test_a_file_that_is_being_written_keeps_its_certificate(directory: Path) -> None:
    write_pem(directory / "a.test.pem", "a.test")
    source = CertificateDirectory(POLICY, str(directory))
    (directory / "a.test.pem").write_bytes(b"")
    source.reload()
    shake_hands(source.context(), context_of(), "a.test")


def test_a_bad_file_in_a_directory_stops_the_start(directory: Path) -> None:
    (directory / "a.test.pem").write_text("nonsense")
    with pytest.raises(EndpointError, match="--ssl-cert-dir: there is no PEM certificate in '.*a.test.pem'"):
        CertificateDirectory(POLICY, str(directory))


def test_an_expired_certificate_in_a_directory_is_served_with_a_warning(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = YESTERDAY - dt.timedelta(days=9)
    write_pem(directory / "a.test.pem", "a.test", not_before=old, not_after=YESTERDAY)
    source = CertificateDirectory(POLICY, str(directory))
    [told] = messages(caplog, logging.WARNING)
    assert told.startswith("Expired at") and "a.test.pem" in told
    assert source.certificate("a.test") is not None


def test_an_expired_certificate_does_not_replace_a_good_one(
    pem: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pem(directory / "b.test.pem", "b.test")
    sources = [files(pem), CertificateDirectory(POLICY, str(directory), CertificateFile(str(pem)))]
    for path in (pem, directory / "b.test.pem"):
        write_pem(path, "a.test", not_before=YESTERDAY - dt.timedelta(days=9), not_after=YESTERDAY)
    for source in sources:
        source.refresh()
        assert {"Kept" in told and "expired at" in told for told in messages(caplog, logging.WARNING)} == {True}
        shake_hands(source.context(), context_of(), "a.test")
    shake_hands(sources[1].context(), context_of(), "b.test")


def test_a_bad_default_holds_up_no_file_of_the_directory(
    pem: Path, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = CertificateDirectory(POLICY, str(directory), CertificateFile(str(pem)))
    pem.write_text("nonsense")
    for name in ("b.test", "c.test"):
        write_pem(directory / f"{name}.pem", name)
        source.refresh()
        shake_hands(source.context(), context_of(), name)
    shake_hands(source.context(), context_of(), "a.test")
    [told] = messages(caplog, logging.WARNING)
    assert str(pem) in told and "Kept" in told


def test_a_directory_that_vanishes_keeps_what_was_in_it(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pem(directory / "a.test.pem", "a.test")
    source = CertificateDirectory(POLICY, str(directory))
    (directory / "a.test.pem").unlink()
    directory.rmdir()
    source.reload()
    source.reload()
    assert len(messages(caplog, logging.WARNING)) == 1
    shake_hands(source.context(), context_of(), "a.test")


def test_a_file_that_changes_while_it_is_read_for_its_name_and_as_the_default_is_read_again(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem, password = directory / "a.test.pem", tmp_path / "password"
    write_pem(pem, "a.test")
    password.write_text("none\n")
    default = CertificateFile(str(pem), "", str(password))
    source = CertificateDirectory(POLICY, str(directory), default, password_file=str(password))
    read, later = source._read_or_keep, []

    def read_and_replace(*arguments: Any) -> Any:
        found = read(*arguments)
        if not later:
            later.append(write_pem(pem, "a.test"))
        return found

    monkeypatch.setattr(source, "_read_or_keep", read_and_replace)
    write_pem(pem, "a.test")
    source.reload()
    source.reload()
    assert source.certificate("a.test") == source.certificate("default")
    newest = x509.load_pem_x509_certificate(later[0].cert_chain_pems[0].bytes())
    assert source.certificate("a.test") == newest

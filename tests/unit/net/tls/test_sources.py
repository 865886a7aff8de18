"""Certificates from files: which one a client gets, what it may speak, and what happens when the files change."""

from __future__ import annotations

import datetime as dt
import logging
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL, crypto

from daphne_ng.errors import EndpointError
from daphne_ng.net.tls.context import TlsPolicy
from daphne_ng.net.tls.directory import CertificateDirectory
from daphne_ng.net.tls.extension import handshake_complete, handshake_failure, tls_extension
from daphne_ng.net.tls.sources import CertificateFile, CertificateFiles
from tests.support.tls import YESTERDAY, authority, certificate, context_of, encrypted, shake_hands, write_pem

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


# -- what is agreed on -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (("http/1.1", "h2"), "h2"),
        (("http/1.1",), "http/1.1"),
        (("spdy/3", "http/1.1"), "http/1.1"),
        (("http/1.0",), "http/1.0"),
        ((), None),
    ],
)
@VERSIONS
def test_the_servers_order_of_protocols_counts(
    pem: Path, version: ssl.TLSVersion, offered: tuple[str, ...], chosen: str | None
) -> None:
    client, _ = shake_hands(files(pem).context(), client_of(version, alpn=offered), "a.test")
    assert client.tls.selected_alpn_protocol() == chosen


@VERSIONS
def test_a_client_that_shares_no_protocol_is_told_so(pem: Path, version: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLError, match="no application protocol"):
        shake_hands(files(pem).context(), client_of(version, alpn=("spdy/3",)), "a.test")
    # OpenSSL's queue of errors belongs to the thread: what one connection leaves there is the next one's.
    shake_hands(files(pem).context(), client_of(version, alpn=("h2",)), "a.test")


@VERSIONS
def test_the_default_ciphers_have_forward_secrecy_and_authenticate(pem: Path, version: ssl.TLSVersion) -> None:
    connection = SSL.Connection(files(pem).context())
    assert {name.partition("-")[0] for name in connection.get_cipher_list() if not name.startswith("TLS_")} == {"ECDHE"}
    assert all("GCM" in name or "CHACHA20" in name for name in connection.get_cipher_list())
    weak = client_of(ssl.TLSVersion.TLSv1_2)
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:AES128-SHA:AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError, match="handshake failure"):
        shake_hands(files(pem).context(), weak, "a.test")


def test_a_list_of_ciphers_is_in_its_authors_order(pem: Path) -> None:
    source = files(pem, ciphers="ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256")
    context = client_of(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305")
    client, _ = shake_hands(source.context(), context, "a.test")
    cipher = client.tls.cipher()
    assert cipher is not None
    assert cipher[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"


def test_older_than_the_least_version_is_refused(pem: Path) -> None:
    with pytest.raises(ssl.SSLError, match="protocol version"):
        shake_hands(files(pem, min_version="1.3").context(), client_of(ssl.TLSVersion.TLSv1_2), "a.test")
    old = context_of()
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="protocol version"):
        shake_hands(files(pem).context(), old, "a.test")


@VERSIONS
def test_a_session_is_resumed(pem: Path, version: ssl.TLSVersion) -> None:
    server, context = files(pem).context(), client_of(version)
    first, _ = shake_hands(server, context, "a.test")
    assert not first.tls.session_reused
    second, connection = shake_hands(server, context, "a.test", first.tls.session)
    assert second.tls.session_reused
    assert tls_extension(connection)["server_cert"] is not None


@VERSIONS
def test_a_session_is_resumed_with_a_client_certificate_and_keeps_its_name(
    pem: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authorities(tmp_path)
    source = files(pem, cert_reqs="required", ca_certs=str(tmp_path / "ca.pem"))
    context = client_of(version, leaf=certificate("client@a.test"))
    first, before = shake_hands(source.context(), context, "a.test")
    second, after = shake_hands(source.context(), context, "a.test", first.tls.session)
    assert second.tls.session_reused
    assert tls_extension(before)["client_cert_name"] is not None
    assert tls_extension(after)["client_cert_name"] == tls_extension(before)["client_cert_name"]


# -- client certificates -----------------------------------------------------------------------------------


def authorities(tmp_path: Path, by: str = "one") -> None:
    authority(by).cert_pem.write_to_path(str(tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("reqs", "without", "right", "wrong"),
    [
        ("none", True, True, True),
        ("optional", True, True, False),
        ("required", False, True, False),
        ("report", True, True, True),
    ],
)
@VERSIONS
def test_what_is_asked_of_clients(
    pem: Path, tmp_path: Path, version: ssl.TLSVersion, reqs: str, without: bool, right: bool, wrong: bool
) -> None:
    authorities(tmp_path)
    more = {} if reqs == "none" else {"ca_certs": str(tmp_path / "ca.pem")}
    context = files(pem, cert_reqs=reqs, **more).context()
    leaves = {"without": None, "right": certificate("c@a.test"), "wrong": certificate("c@a.test", by="two")}
    for kind, leaf in leaves.items():
        client = client_of(version, leaf=leaf)
        if {"without": without, "right": right, "wrong": wrong}[kind]:
            _, connection = shake_hands(context, client, "a.test")
            extension = tls_extension(connection)
            given = leaf is not None and reqs != "none"
            assert bool(extension["client_cert_chain"]) == given
            assert (extension["client_cert_name"] is not None) == given
            assert (extension["client_cert_error"] is not None) == (given and kind == "wrong")
        else:
            with pytest.raises((ssl.SSLError, SSL.Error)):
                shake_hands(context, client, "a.test")


@VERSIONS
def test_the_extension_tells_all_of_a_connection(pem: Path, tmp_path: Path, version: ssl.TLSVersion) -> None:
    authorities(tmp_path)
    leaf = certificate("c@a.test", common_name="A Client")
    source = files(pem, cert_reqs="optional", ca_certs=str(tmp_path / "ca.pem"))
    client, connection = shake_hands(source.context(), client_of(version, leaf=leaf), "a.test")
    extension = tls_extension(connection)
    der = client.tls.getpeercert(binary_form=True)
    assert der is not None
    assert ssl.PEM_cert_to_DER_cert(extension["server_cert"]) == der
    assert extension["client_cert_chain"][0] == leaf.cert_chain_pems[0].bytes().decode()
    subject = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).subject
    assert extension["client_cert_name"] == subject.rfc4514_string()
    assert extension["client_cert_name"].startswith("CN=A Client,")
    assert extension["client_cert_error"] is None
    assert extension["tls_version"] == {"TLSv1_2": 0x0303, "TLSv1_3": 0x0304}[version.name]
    assert extension["cipher_suite"] in (0x1301, 0x1302, 0x1303, 0xC02B, 0xC02C, 0xCCA9)
    assert handshake_complete(connection)


def test_a_chain_is_told_whole(pem: Path, tmp_path: Path) -> None:
    authorities(tmp_path)
    leaf = authority().create_child_ca().issue_cert("c@a.test")
    source = files(pem, cert_reqs="required", ca_certs=str(tmp_path / "ca.pem"))
    _, connection = shake_hands(source.context(), context_of(leaf=leaf), "a.test")
    assert tls_extension(connection)["client_cert_chain"] == [part.bytes().decode() for part in leaf.cert_chain_pems]


@VERSIONS
def test_a_wrong_certificate_is_not_right_after_a_resumption(
    pem: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authorities(tmp_path)
    context = files(pem, cert_reqs="report", ca_certs=str(tmp_path / "ca.pem")).context()
    client = client_of(version, leaf=certificate("c@a.test", by="two"))
    first, _ = shake_hands(context, client, "a.test")
    second, connection = shake_hands(context, client, "a.test", first.tls.session)
    assert not second.tls.session_reused
    assert "issuer" in tls_extension(connection)["client_cert_error"]


def test_other_authorities_end_the_sessions_of_the_old_ones(pem: Path, tmp_path: Path) -> None:
    authorities(tmp_path)
    source = files(pem, cert_reqs="optional", ca_certs=str(tmp_path / "ca.pem"))
    context = context_of(leaf=certificate("c@a.test"))
    first, _ = shake_hands(source.context(), context, "a.test")
    authorities(tmp_path, "two")
    source.refresh()
    with pytest.raises((ssl.SSLError, SSL.Error)):
        shake_hands(source.context(), context, "a.test", first.tls.session)


def test_a_handle_that_knows_nothing_gives_an_extension_that_says_so() -> None:
    assert tls_extension(object()) == {
        "server_cert": None,
        "client_cert_chain": [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": None,
        "cipher_suite": None,
        "spec_version": "0.2",
    }
    assert not handshake_complete(None)


def test_failures_are_told_in_words_and_departures_are_none() -> None:
    assert handshake_failure(SSL.Error([("SSL routines", "", "http request")])) == "http request"
    assert "no certificate" in handshake_failure(SSL.Error([("SSL routines", "", "callback failed")]))
    for departure in (
        SSL.SysCallError(-1, "Unexpected EOF"),
        SSL.Error([("SSL routines", "", "unexpected eof while reading")]),
        ConnectionError(),
        None,
    ):
        assert handshake_failure(departure) == ""


def test_a_client_certificate_that_only_openssl_can_read_is_told_as_malformed() -> None:
    der = ssl.PEM_cert_to_DER_cert(certificate("a.test").cert_chain_pems[0].bytes().decode())
    version = bytes.fromhex("a003020102")
    assert der.count(version) == 1

    class Handle:
        def get_peer_certificate(self) -> crypto.X509:
            return crypto.load_certificate(crypto.FILETYPE_ASN1, der.replace(version, version[:-1] + b"\x27"))

    found = tls_extension(Handle())
    assert found["client_cert_error"].startswith("the certificate is malformed")
    assert found["client_cert_name"] == ""
    assert len(found["client_cert_chain"]) == 1


# -- files -------------------------------------------------------------------------------------------------


def error(file: CertificateFile, **settings: Any) -> str:
    with pytest.raises(EndpointError) as raised:
        CertificateFiles(TlsPolicy(**settings), file)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_each_mistake_is_told_in_one_line_that_names_setting_and_file(pem: Path, tmp_path: Path) -> None:
    leaf = certificate("a.test")
    names = {name: str(tmp_path / name) for name in ("cert", "key", "locked", "pw", "text", "broken", "ca")}
    Path(names["cert"]).write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    Path(names["key"]).write_bytes(certificate("b.test").private_key_pem.bytes())
    Path(names["locked"]).write_bytes(encrypted(leaf, b"secret"))
    Path(names["pw"]).write_bytes(b"wrong\n")
    Path(names["text"]).write_text("hello")
    Path(names["broken"]).write_text("-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----\n")

    missing = str(tmp_path / "missing.pem")
    assert error(CertificateFile(missing)) == f"--ssl-certfile: cannot read {missing!r}: No such file or directory"
    assert error(CertificateFile(str(tmp_path))).startswith("--ssl-certfile: cannot read")
    assert "no PEM certificate" in error(CertificateFile(names["text"]))
    assert "malformed" in error(CertificateFile(names["broken"]))
    assert "--ssl-keyfile" in error(CertificateFile(names["cert"]))
    assert error(CertificateFile(names["cert"], missing)).startswith("--ssl-keyfile: cannot read")
    assert "no PEM private key" in error(CertificateFile(names["cert"], names["text"]))
    mismatch = error(CertificateFile(names["cert"], names["key"]))
    assert mismatch.startswith("--ssl-keyfile:") and "does not belong" in mismatch and names["key"] in mismatch
    assert "--ssl-keyfile-password-file" in error(CertificateFile(names["cert"], names["locked"]))
    wrong = error(CertificateFile(names["cert"], names["locked"], names["pw"]))
    assert wrong.startswith("--ssl-keyfile-password-file: the password in") and names["pw"] in wrong
    assert error(CertificateFile(str(pem)), ciphers="NONSENSE").startswith("--ssl-ciphers:")
    assert "--ssl-ca-certs" in error(CertificateFile(str(pem)), cert_reqs="optional", ca_certs=missing)
    assert "--ssl-ca-certs" in error(CertificateFile(str(pem)), cert_reqs="optional", ca_certs=names["text"])
    with pytest.raises(EndpointError, match="--ssl-cert-dir: cannot read"):
        CertificateDirectory(POLICY, missing)


def test_the_first_line_of_a_file_is_the_password(tmp_path: Path) -> None:
    leaf = certificate("a.test")
    (tmp_path / "cert").write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    (tmp_path / "key").write_bytes(encrypted(leaf, b"s3cret word"))
    (tmp_path / "pw").write_bytes(b"s3cret word\r\nand a note\n")
    file = CertificateFile(*(str(tmp_path / name) for name in ("cert", "key", "pw")))
    client, _ = shake_hands(CertificateFiles(POLICY, file).context(), context_of(), "a.test")
    assert client.names == ["a.test"]


def test_the_order_in_a_file_does_not_matter(tmp_path: Path) -> None:
    leaf = authority().create_child_ca().issue_cert("a.test")
    parts = [part.bytes() for part in leaf.cert_chain_pems]
    (tmp_path / "pile").write_bytes(b"".join([*reversed(parts), leaf.private_key_pem.bytes()]))
    client, _ = shake_hands(files(tmp_path / "pile").context(), context_of(), "a.test")
    assert client.names == ["a.test"]


def test_new_files_are_taken_for_new_handshakes(pem: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = files(pem)
    before = source.context()
    source.refresh()
    assert source.context() is before
    assert messages(caplog) == []
    write_pem(pem, "a.test", "new.test")
    source.refresh()
    [told] = messages(caplog)
    assert told.startswith("Replaced the certificate in") and str(pem) in told
    client, _ = shake_hands(source.context(), context_of(), "new.test")
    assert client.names == ["a.test", "new.test"]
    shake_hands(before, context_of(), "a.test")


def test_a_file_that_was_touched_keeps_its_context(pem: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    source = files(pem)
    before = source.context()
    os.utime(pem, (1, 1))
    source.refresh()
    assert source.context() is before
    assert messages(caplog) == []
    source.refresh(force=True)
    assert source.context() is before
    assert [message for message in messages(caplog) if "nothing is new" in message]


def test_a_bad_file_keeps_the_old_certificate_and_is_told_once(pem: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = files(pem)
    before = source.context()
    good = pem.read_bytes()
    pem.write_text("nonsense")
    for _ in range(3):
        source.refresh()
    [told] = messages(caplog, logging.WARNING)
    assert str(pem) in told and "--ssl-certfile" in told
    assert source.context() is before
    source.refresh(force=True)
    assert len(messages(caplog, logging.WARNING)) == 1
    pem.unlink()
    source.refresh()
    source.refresh()
    assert len(messages(caplog, logging.WARNING)) == 1
    pem.write_bytes(good)
    source.refresh()
    assert messages(caplog, logging.WARNING) == []
    assert source.context() is before


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    for number in "12":
        write_pem(tmp_path / number, f"{number}.test")
    link = tmp_path / "live"
    link.symlink_to(tmp_path / "1")
    source = files(link)
    link.unlink()
    link.symlink_to(tmp_path / "2")
    source.refresh()
    client, _ = shake_hands(source.context(), context_of(), "2.test")
    assert client.names == ["2.test"]


def test_an_expired_certificate_is_served_with_a_warning_and_can_be_renewed(
    pem: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pem(pem, "a.test", not_before=YESTERDAY - dt.timedelta(days=9), not_after=YESTERDAY)
    source = files(pem)
    [told] = messages(caplog, logging.WARNING)
    assert told.startswith("Expired at") and str(pem) in told
    with pytest.raises(ssl.SSLError, match="expired"):
        shake_hands(source.context(), context_of(), "a.test")
    source.refresh(force=True)
    assert messages(caplog, logging.WARNING) == []
    write_pem(pem, "a.test")
    source.refresh()
    shake_hands(source.context(), context_of(), "a.test")

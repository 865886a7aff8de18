"""The directory of certificates."""

from __future__ import annotations

import datetime as dt
import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from daphne_ng.acme.failure import Failure
from daphne_ng.acme.storage import AccountKey, Storage, is_host_name
from tests.support.acme import NOW, chain_for

ORIGIN = "https://acme.example/dir"
A = "a.example.org"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path), ORIGIN)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_names_are_those_of_the_files(storage: Storage, tmp_path: Path) -> None:
    for name in ("b.example.org.pem", f"{A}.pem", "client.key", ".hidden.pem", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "directory.pem").mkdir()
    assert storage.names() == [A, "b.example.org"]


def test_a_directory_that_is_gone_is_a_failure_of_all(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="No such file") as caught:
        Storage(str(tmp_path / "gone"), ORIGIN).names()
    assert caught.value.everyone


def test_an_empty_file_asks_for_a_certificate(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / f"{A}.pem").write_text(" \n")
    look = storage.inspect(A)
    assert (look.validity, look.kept, look.problem) == (None, False, "")


def test_what_was_written_is_found_again_and_is_a_file_for_its_owner_only(storage: Storage, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = chain_for(A, key)
    validity = storage.write(A, key, chain)
    assert storage.inspect(A).validity == validity
    assert storage.inspect(A).pem in chain
    file = tmp_path / f"{A}.pem"
    assert mode_of(file) == 0o600
    content = file.read_bytes()
    assert content.count(b"BEGIN CERTIFICATE") == 2
    assert content.index(b"PRIVATE KEY") < content.index(b"BEGIN CERTIFICATE")
    assert load_pem_private_key(content, None).public_key() == key.public_key()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{A}.pem"]  # nothing temporary


def test_a_file_is_replaced_in_one_step(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / f"{A}.pem").touch(mode=0o644)
    with (tmp_path / f"{A}.pem").open("rb") as before:
        key = ec.generate_private_key(ec.SECP256R1())
        storage.write(A, key, chain_for(A, key))
        assert before.read() == b""
    assert mode_of(tmp_path / f"{A}.pem") == 0o600


def test_a_chain_for_another_key_name_or_for_nothing_is_refused(storage: Storage, tmp_path: Path) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    with pytest.raises(Failure, match="another name or key"):
        storage.write(A, key, chain_for(A, other))
    with pytest.raises(Failure, match="another name or key"):
        storage.write(A, key, chain_for("b.example.org", key))
    with pytest.raises(Failure, match="no certificate"):
        storage.write(A, key, b"<html>")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_a_failure(storage: Storage, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Failure, match="cannot be written"):
        storage.write(A, key, chain_for(A, key))


def test_a_certificate_from_elsewhere_is_kept_until_its_end(storage: Storage, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / f"{A}.pem").write_bytes(chain_for(A, key))
    look = storage.inspect(A)
    assert look.validity is not None
    assert look.validity.not_before == NOW.timestamp()
    assert look.pem == b""  # its authority is not ours to ask


def test_a_certificate_of_another_acme_directory_is_replaced(storage: Storage, tmp_path: Path) -> None:
    """From the staging server to the real one by changing two letters."""
    key = ec.generate_private_key(ec.SECP256R1())
    Storage(str(tmp_path), "https://staging.example/dir").write(A, key, chain_for(A, key))
    look = storage.inspect(A)
    assert (look.validity, look.kept) == (None, False)


def test_a_certificate_of_another_name_is_replaced(storage: Storage, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / f"{A}.pem").write_bytes(chain_for("b.example.org", key))
    assert storage.inspect(A).validity is None


def test_the_names_of_files_and_certificates_may_differ_in_case(storage: Storage) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert storage.write("A.Example.org", key, chain_for(A, key))
    assert storage.inspect("A.Example.org").validity is not None


def test_a_certificate_that_signed_itself_is_replaced(storage: Storage, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, A)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(A)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / f"{A}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    look = storage.inspect(A)
    assert (look.validity, look.kept) == (None, False)


def test_what_is_no_certificate_is_left_alone(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / f"{A}.pem").write_text("the only copy of something")
    look = storage.inspect(A)
    assert look.kept
    assert f"{A}.pem holds no certificate, and is left alone" in look.problem
    assert storage.inspect("missing.example.org").kept


@pytest.mark.parametrize("name", ["DEFAULT", "*.example.org", "_wildcard_.example.org"])
def test_files_that_are_not_for_one_name_are_their_owners_business(storage: Storage, tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.pem"
    file.write_text("something")
    assert storage.inspect(name).kept
    assert storage.inspect(name).problem == ""
    file.write_text("")
    assert storage.inspect(name).kept
    assert storage.inspect(name).problem == f"No certificate can be asked for by {name}.pem"


@pytest.mark.parametrize("name", ["a.example.org", "A.example", "xn--bcher-kva.example", "1.2.example", "a-b.c-d.ef"])
def test_a_host_name(name: str) -> None:
    assert is_host_name(name)


@pytest.mark.parametrize(
    "name",
    ["localhost", "*.example.org", "b\u00fccher.example", "a..example", ".example.org", "example.org.", "a_b.example"]
    + ["-a.example", "a-.example", "127.0.0.1", "a b.example", "x" * 64 + ".org", "a." * 127 + "org", "", "a.b,c.d"],
)
def test_what_is_no_host_name(name: str) -> None:
    assert not is_host_name(name)


# -- the account's key


def test_the_accounts_key_is_made_once(storage: Storage, tmp_path: Path) -> None:
    key = storage.account_key()
    assert mode_of(tmp_path / "client.key") == 0o600
    again = storage.account_key()
    assert again.public_key() == key.public_key()


def test_the_key_of_txacme_is_taken_over(storage: Storage, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (tmp_path / "client.key").write_bytes(pem)
    found: AccountKey = storage.account_key()
    assert found.public_key() == key.public_key()


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())])
def test_an_accounts_key_of_another_sort_is_a_failure(storage: Storage, tmp_path: Path, key: AccountKey) -> None:
    (tmp_path / "client.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(Failure, match="must hold an RSA key, or an EC key on P-256"):
        storage.account_key()


def test_an_accounts_key_that_cannot_be_read_is_never_overwritten(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "client.key").write_text("precious")
    with pytest.raises(Failure, match="no private key"):
        storage.account_key()
    assert (tmp_path / "client.key").read_text() == "precious"


# -- one process at a time


def test_only_one_process_asks(storage: Storage, tmp_path: Path) -> None:
    other = Storage(str(tmp_path), ORIGIN)
    assert storage.lock.take()
    assert storage.lock.take()
    assert not other.lock.take()
    assert storage.lock.held
    assert not other.lock.held
    storage.lock.release()
    storage.lock.release()
    assert other.lock.take()
    assert storage.names() == []


# -- what workers leave to each other


def test_waits_are_for_the_workers_of_one_supervisor_and_one_authority(storage: Storage, tmp_path: Path) -> None:
    path = str(tmp_path)
    Storage(path, ORIGIN, "1").keep_waits({"some": [1, 2.5]})
    found = Storage(path, ORIGIN, "1").waits()
    assert found is not None
    assert found["some"] == [1, 2.5]
    assert Storage(path, ORIGIN, "2").waits() is None
    assert Storage(path, "https://other.example/dir", "1").waits() is None
    assert storage.waits() is None
    assert mode_of(tmp_path / ".acme.waits") == 0o600
    storage.keep_waits({"of": "nobody"})
    assert Storage(path, ORIGIN, "1").waits() == found


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"run": 1}'])
def test_waits_that_are_not_understood_are_none(tmp_path: Path, content: bytes) -> None:
    storage = Storage(str(tmp_path), ORIGIN, "1")
    assert storage.waits() is None
    (tmp_path / ".acme.waits").write_bytes(content)
    assert storage.waits() is None

"""Certificates and keys in PEM files: reading them, and seeing that they have changed.

What is wrong with a file is told in one line, by `EndpointError`, that names the setting and the file.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from daphne_ng.errors import EndpointError

__all__ = ["Identity", "fingerprint", "list_pem_files", "read_file", "read_identity", "read_password"]

_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)
_CERTIFICATE = re.compile(rb"-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----.+?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate, its key, and the chain that goes out with it."""

    certificate: x509.Certificate
    key: Any
    """A private key of the ``cryptography`` package."""
    chain: tuple[x509.Certificate, ...]
    digest: bytes
    """The same for the same content."""

    @property
    def expires(self) -> dt.datetime:
        """When the certificate ends."""
        return self.certificate.not_valid_after_utc


def read_identity(
    certificate: tuple[str, str], key: tuple[str, str] | None = None, password: tuple[bytes, str] | None = None
) -> Identity:
    """Read a certificate with its key.

    The certificate is the one that the key belongs to; the others of its file are the chain, in their order.

    Args:
        certificate: The setting that names the file, and the file.
        key: The same for the key. None if it is in the certificate's file.
        password: The password, and what it comes from, for a key that needs one.

    Raises:
        EndpointError: A file cannot be read, or does not hold what it should.
    """
    label, path = certificate
    content = read_file(label, path)
    certificates = _certificates(label, path, content)
    key_label, key_path = key or certificate
    key_content = content if key is None else read_file(key_label, key_path)
    private = _private_key(key_label, key_path, key_content, password, inside=key is None)
    public = _public_bytes(private.public_key())
    own = next((one for one in certificates if _public_bytes_of(one) == public), None)
    if own is None:
        raise EndpointError(
            f"{key_label}: the key in {key_path!r} does not belong to the certificate"
            + (f" in {path!r}" if key is not None else "")
        )
    chain = tuple(one for one in certificates if one is not own)
    digest = hashlib.sha256(b"".join(_der(one) for one in (own, *chain)) + public).digest()
    return Identity(own, private, chain, digest)


def read_password(label: str, path: str) -> tuple[bytes, str]:
    """Return the first line of a file, and the file.

    Raises:
        EndpointError: It cannot be read.
    """
    lines = read_file(label, path).splitlines()
    return (lines[0] if lines else b"", path)


def read_file(label: str, path: str) -> bytes:
    """Return what is in a file.

    Raises:
        EndpointError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EndpointError(f"{label}: cannot read {path!r}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise EndpointError(f"{label}: {path!r} is no file name") from error


def list_pem_files(label: str, directory: str) -> dict[str, str]:
    """Return the path of each ``NAME.pem`` in a directory by its ``NAME``, in lower case.

    Raises:
        EndpointError: The directory cannot be read.
    """
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise EndpointError(f"{label}: cannot read {directory!r}: {error.strerror or error}") from error
    return {
        name.removesuffix(".pem").lower(): os.path.join(directory, name)
        for name in names
        if name.endswith(".pem") and not name.startswith(".")
    }


def fingerprint(paths: Iterable[str]) -> tuple[object, ...]:
    """Return what differs once a file has been written, replaced or removed, or has come into being.

    Links are followed, so that one that leads elsewhere now differs too.
    """
    return tuple((path, *_stat(path)) for path in paths)


def _stat(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    # The time of a change of the inode shows a new mode or owner: a file that could not be read may be readable now.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _certificates(label: str, path: str, content: bytes) -> list[x509.Certificate]:
    blocks = [match[0] for match in _CERTIFICATE.finditer(content)]
    if not blocks:
        raise EndpointError(f"{label}: there is no PEM certificate in {path!r}")
    try:
        return [x509.load_pem_x509_certificate(block) for block in blocks]
    except ValueError as error:
        raise EndpointError(f"{label}: a certificate in {path!r} is malformed") from error


def _private_key(label: str, path: str, content: bytes, password: tuple[bytes, str] | None, inside: bool) -> Any:
    found = _KEY.search(content)
    if found is None:
        hint = ": give the file of its key with --ssl-keyfile" if inside and label == "--ssl-certfile" else ""
        raise EndpointError(f"{label}: there is no PEM private key in {path!r}{hint}")
    block = found[0]
    encrypted = b"ENCRYPTED" in block
    if encrypted and password is None:
        raise EndpointError(
            f"{label}: the key in {path!r} has a password: name a file with it by --ssl-keyfile-password-file"
        )
    try:
        return load_pem_private_key(block, password[0] if encrypted and password is not None else None)
    except Exception as error:  # ValueError, UnsupportedAlgorithm, InvalidKey: what is wrong shows in the cause
        if encrypted and password is not None:
            raise EndpointError(
                f"--ssl-keyfile-password-file: the password in {password[1]!r} does not open the key in {path!r}"
            ) from error
        raise EndpointError(f"{label}: the private key in {path!r} is malformed") from error


def _public_bytes(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _public_bytes_of(certificate: x509.Certificate) -> bytes | None:
    try:
        return _public_bytes(certificate.public_key())
    except Exception:  # a key of a kind that cryptography does not know is not ours
        return None


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)

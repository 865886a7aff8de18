"""The directory of an ``le:`` endpoint: NAME.pem files as txsni and txacme have them, and the key of the account.

===============  ==================================================================================
file             holds
===============  ==================================================================================
``NAME.pem``     a comment with the ACME directory, the key, the certificate, its chain; empty asks for one
``client.key``   the key of the account, as PEM, as in txacme
``.acme.lock``   locked by the process that asks for certificates (`daphne_ng.acme.lock`)
``.acme.waits``  what the workers of one supervisor leave to each other: when names may be asked for again
===============  ==================================================================================

`daphne_ng.acme.proofs` has a directory of its own there.

A file is written beside its place, flushed to the disk and renamed, so that a reader sees the old one or the new one,
also after a power failure. All of them are for their owner only (0600).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from daphne_ng.acme.failure import Failure, one_line
from daphne_ng.acme.lock import Lock
from daphne_ng.acme.schedule import Validity

__all__ = ["AccountKey", "FileState", "Storage", "is_host_name", "write_file"]

AccountKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

ACCOUNT_KEY = "client.key"
LOCK = ".acme.lock"
WAITS = ".acme.waits"
SUFFIX = ".pem"

_FILE_MAX_BYTES = 1 << 20
"""Bytes of a file that are read; a chain has a few thousand."""
_ORIGIN = re.compile(rb"^# ACME directory: (\S+)\s*$", re.MULTILINE)
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileState:
    """The content of a NAME.pem file."""

    validity: Validity | None = None
    """None if a certificate is to be asked for."""
    pem: bytes = b""
    """The certificate alone, if the authority that is asked here is known to have issued it."""
    kept: bool = False
    """Whether the file is left alone, whatever it holds."""
    problem: str = ""
    """Why, if somebody should know: a sentence for the log."""


class Storage:
    """One directory.

    Args:
        path: The directory, which exists.
        origin: URL of the ACME directory. A certificate that is known to come from another one is replaced, so that
            going from a staging server to the real one needs no more than that.
        run: The same for all workers of one supervisor, and for nobody else; empty for a server of one process.
    """

    def __init__(self, path: str, origin: str, run: str = "") -> None:
        self.path = path
        self.lock = Lock(os.path.join(path, LOCK))
        """For the process that asks for certificates."""
        self._origin = origin.encode("ascii", "replace")
        self._run = f"{run} {origin}" if run else ""

    def names(self) -> list[str]:
        """Return the names of all NAME.pem files, in order.

        Raises:
            Failure: The directory cannot be read.
        """
        try:
            with os.scandir(self.path) as entries:
                found = [entry.name for entry in entries if entry.name.endswith(SUFFIX) and entry.is_file()]
        except OSError as error:
            raise Failure(f"{self.path} cannot be read: {error.strerror}", everyone=True) from error
        return sorted(name.removesuffix(SUFFIX) for name in found if not name.startswith("."))

    def inspect(self, name: str) -> FileState:
        """Return what the file of `name` holds. Never raises."""
        try:
            with open(self._file(name), "rb") as file:
                content = file.read(_FILE_MAX_BYTES)
        except OSError as error:
            return FileState(kept=True, problem=f"{name}{SUFFIX} cannot be read: {error.strerror}")
        if not is_host_name(name):
            # The owner of DEFAULT.pem, for instance, or of a wildcard looks after it.
            empty = not content.strip()
            return FileState(kept=True, problem=f"No certificate can be asked for by {name}{SUFFIX}" if empty else "")
        if not content.strip():
            return FileState()
        try:
            certificate = x509.load_pem_x509_certificate(content)
            names = _names_of(certificate)
        except ValueError as error:
            return FileState(
                kept=True, problem=f"{name}{SUFFIX} holds no certificate, and is left alone: {one_line(error)}"
            )
        origin = _ORIGIN.search(content)
        if _signed_itself(certificate) or name.lower() not in names or (origin and origin[1] != self._origin):
            return FileState()
        return FileState(_validity(certificate), certificate.public_bytes(Encoding.PEM) if origin else b"")

    def write(self, name: str, key: ec.EllipticCurvePrivateKey, chain: bytes) -> Validity:
        """Put a certificate into place.

        Args:
            name: Its name.
            key: Its key.
            chain: The certificate and its chain, as PEM, as the authority sent them.

        Raises:
            Failure: The chain is not what was asked for, or the file cannot be written.
        """
        try:
            certificates = x509.load_pem_x509_certificates(chain)
            names = _names_of(certificates[0])
        except ValueError as error:
            raise Failure(f"what was sent is no certificate: {error}") from error
        first = certificates[0]
        if _public(first.public_key()) != _public(key.public_key()) or name.lower() not in names:
            raise Failure("what was sent is the certificate of another name or key")
        parts = [b"# ACME directory: " + self._origin + b"\n", _private(key)]
        parts += [certificate.public_bytes(Encoding.PEM) for certificate in certificates]
        write_file(self._file(name), b"".join(parts))
        return _validity(first)

    def account_key(self) -> AccountKey:
        """Return the key of the account; make one if there is none yet.

        Raises:
            Failure: The file cannot be read or written, or holds another sort of key.
        """
        path = os.path.join(self.path, ACCOUNT_KEY)
        try:
            with open(path, "rb") as file:
                content = file.read(_FILE_MAX_BYTES)
        except FileNotFoundError:
            key = ec.generate_private_key(ec.SECP256R1())
            write_file(path, _private(key))
            return key
        except OSError as error:
            raise Failure(f"{path} cannot be read: {error.strerror}", everyone=True) from error
        try:
            loaded = load_pem_private_key(content, password=None)
        except (ValueError, TypeError) as error:
            raise Failure(f"{path} holds no private key: {error}", everyone=True) from error
        if isinstance(loaded, rsa.RSAPrivateKey) or (
            isinstance(loaded, ec.EllipticCurvePrivateKey) and isinstance(loaded.curve, ec.SECP256R1)
        ):
            return loaded
        raise Failure(f"{path} must hold an RSA key, or an EC key on P-256", everyone=True)

    def waits(self) -> dict[str, Any] | None:
        """Return what `keep_waits` was given last by a worker of the same supervisor. Raises nothing."""
        if not self._run:
            return None
        try:
            with open(os.path.join(self.path, WAITS), "rb") as file:
                found = json.loads(file.read(_FILE_MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and found.get("run") == self._run else None

    def keep_waits(self, waits: dict[str, Any]) -> None:
        """Leave something, which goes into JSON, to the worker that takes the lock next.

        A restart begins anew: somebody may have mended what was wrong.

        Raises:
            Failure: The file cannot be written.
        """
        if self._run:
            write_file(os.path.join(self.path, WAITS), json.dumps(waits | {"run": self._run}).encode("ascii"))

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name + SUFFIX)


def write_file(path: str, content: bytes) -> None:
    """Put a file for its owner only into place, in one step.

    Raises:
        Failure: It cannot be written.
    """
    directory, temporary = os.path.dirname(path), ""
    try:
        # The file is made with 0600, and its name is not taken for a certificate's.
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(directory)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise Failure(f"{path} cannot be written: {error.strerror}", everyone=True) from error


def is_host_name(name: str) -> bool:
    """Whether a certificate of `name` can be asked for: a host name with a dot, in ASCII, and no wildcard."""
    labels = name.lower().split(".")
    return (
        len(name) <= 253
        and len(labels) > 1
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {name.lower() for name in names.get_values_for_type(x509.DNSName)}


# A self-signed certificate is a beginning: clients do not trust it, and it may be replaced.
def _signed_itself(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _validity(certificate: x509.Certificate) -> Validity:
    return Validity(
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        certificate.serial_number,
    )


def _public(key: object) -> bytes:
    dump = getattr(key, "public_bytes")  # noqa: B009 - every sort of public key has it, and no base class says so
    result: bytes = dump(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return result


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _sync_directory(path: str) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""TLS: where the contexts of a port come from, and how they follow their files.

A source hands out the context for the connection that was just accepted (`TlsSource.context`); a connection keeps its
context when the source has a newer one. `Reloadable.refresh` looks at the files, in any thread. An error in a file is
raised at the start; later it is logged, and the source keeps what it has.

* `CertificateFiles`: one certificate, from the settings.
* `StringCertificate`: the certificate that an ``ssl:`` string of Twisted's names.
* `daphne_ng.net.tls.directory`: a certificate for each name that clients may ask for (SNI).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

from daphne_ng.errors import EndpointError
from daphne_ng.net.tls.certificates import Identity, fingerprint, read_file, read_identity, read_password
from daphne_ng.net.tls.context import TlsPolicy, build_context

__all__ = [
    "CertificateFile",
    "CertificateFiles",
    "Reloadable",
    "ReloadingSource",
    "StringCertificate",
    "authorities_digest",
    "authority_files",
    "check_expiry",
]

logger = logging.getLogger("daphne_ng.net.tls")


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """The settings that name one certificate."""

    certfile: str
    keyfile: str = ""
    password_file: str = ""

    @property
    def paths(self) -> list[str]:
        """Every file that is named."""
        return [path for path in (self.certfile, self.keyfile, self.password_file) if path]

    def read(self) -> Identity:
        """Return what the files hold.

        Raises:
            EndpointError: See `read_identity`.
        """
        return read_identity(
            ("--ssl-certfile", self.certfile),
            ("--ssl-keyfile", self.keyfile) if self.keyfile else None,
            read_password("--ssl-keyfile-password-file", self.password_file) if self.password_file else None,
        )


class Reloadable(Protocol):
    """A source whose files may change."""

    def refresh(self, force: bool = False) -> None:
        """Read again what has changed, and log how that went. May be called in any thread; raises nothing.

        Args:
            force: Read all of it, whether or not anything seems to have changed.
        """


class ReloadingSource:
    """What the sources share: when the files are read again, and what is logged about it.

    Args:
        words: What is served, for the log.
    """

    def __init__(self, words: str) -> None:
        self._words = words
        self._lock = threading.Lock()
        self._fingerprint_read: tuple[object, ...] = ()

    def refresh(self, force: bool = False) -> None:
        """See `Reloadable.refresh`."""
        with self._lock:
            try:
                # Taken before the files are read: a change meanwhile will be seen the next time.
                fingerprint_now = self._fingerprint_or_error()
                if fingerprint_now == self._fingerprint_read and not force:
                    return
                self._fingerprint_read = fingerprint_now
                report = self._load(force)
            except EndpointError as error:
                logger.error("Kept %s as it was: %s", self._words, error)
            except Exception:
                logger.exception("Kept %s as it was", self._words)
            else:
                if report:
                    logger.info("Replaced %s", report)
                elif force:
                    logger.info("Read %s again: nothing is new", self._words)

    # The error is the state of a directory that cannot be listed: it is logged once, and again when it changes.
    def _fingerprint_or_error(self) -> tuple[object, ...]:
        try:
            return self._fingerprint()
        except EndpointError as error:
            return (str(error),)

    # The constructors call it: every error of the first reading is raised.
    def _initial_load(self) -> None:
        self._fingerprint_read = self._fingerprint()
        self._load(True)

    # A source returns a value that differs once one of its files has changed.
    def _fingerprint(self) -> tuple[object, ...]:
        raise NotImplementedError

    # A source reads its files, those that have not changed only with `force`, and returns in words what is new.
    def _load(self, force: bool) -> str:
        raise NotImplementedError


class _Single(ReloadingSource):
    """A source of one context."""

    _context: SSL.Context
    _digest = b""
    _identity: Identity | None = None

    def context(self) -> SSL.Context:
        """See `TlsSource.context`."""
        return self._context

    def _replace(self, digest: bytes, build: Callable[[], SSL.Context], identity: Identity) -> str:
        # The same content keeps its context, and with it the key of the sessions.
        if digest == self._digest:
            return ""
        check_expiry(self._words, identity, self._identity)
        self._context = build()
        self._digest = digest
        self._identity = identity
        return f"{self._words}, which ends at {identity.expires:%Y-%m-%d %H:%M} UTC"


class CertificateFiles(_Single):
    """The certificate that the settings name, for all clients.

    Args:
        policy: What all contexts have in common.
        file: The certificate.

    Raises:
        EndpointError: It cannot be used.
    """

    def __init__(self, policy: TlsPolicy, file: CertificateFile) -> None:
        super().__init__(f"the certificate in {file.certfile!r}")
        self._policy = policy
        self._file = file
        self._initial_load()

    def _fingerprint(self) -> tuple[object, ...]:
        return fingerprint([*self._file.paths, *authority_files(self._policy)])

    def _load(self, force: bool) -> str:
        identity = self._file.read()
        digest = identity.digest + authorities_digest(self._policy)
        return self._replace(digest, lambda: build_context(self._policy, identity), identity)


@implementer(IOpenSSLContextFactory)
class StringCertificate(_Single):
    """The certificate that an ``ssl:`` string names, in place of the context factory that Twisted made of it.

    Args:
        policy: What all contexts have in common.
        description: The string.
        parse: Makes Twisted's context factory (``CertificateOptions``) of it, again each time.
        paths: The files that it names.

    Raises:
        EndpointError: It cannot be used.
    """

    def __init__(self, policy: TlsPolicy, description: str, parse: Callable[[], Any], paths: Iterable[str]) -> None:
        super().__init__(f"the certificate of {description}")
        self._policy = policy
        self._parse = parse
        self._paths = [*paths, *authority_files(policy)]
        self._initial_load()

    def getContext(self) -> SSL.Context:
        """See ``IOpenSSLContextFactory``."""
        return self._context

    def _fingerprint(self) -> tuple[object, ...]:
        return fingerprint(self._paths)

    def _load(self, force: bool) -> str:
        options = self._parse()
        certificate = options.certificate.to_cryptography()
        chain = tuple(extra.to_cryptography() for extra in options.extraCertChain)
        identity = Identity(certificate, options.privateKey.to_cryptography_key(), chain, b"")
        dh_parameters = options.dhParameters._dhFile.path if options.dhParameters is not None else ""
        contents = [read_file("ssl", path) for path in self._paths]
        digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).digest()
        return self._replace(
            digest,
            lambda: build_context(self._policy, identity, method=options.method, dh_parameters=dh_parameters),
            identity,
        )


def check_expiry(words: str, identity: Identity, before: Identity | None) -> None:
    """Log a certificate that has expired, and refuse it where it would replace a valid one.

    An expired certificate is of little use; a server that does not start because of it is of none.

    Args:
        words: What messages call the certificate.
        identity: The certificate that has been read.
        before: The certificate in use; None at the start.

    Raises:
        EndpointError: The certificate has expired, and the one in use has not.
    """
    now = dt.datetime.now(dt.UTC)
    if identity.expires >= now:
        return
    if before is not None and before.expires >= now:
        raise EndpointError(f"{words} expired at {identity.expires:%Y-%m-%d %H:%M} UTC, and the one in use has not")
    logger.warning("Expired at %s UTC, so that clients refuse it: %s", f"{identity.expires:%Y-%m-%d %H:%M}", words)


def authority_files(policy: TlsPolicy) -> list[str]:
    """Return the files with the authorities of client certificates."""
    return [policy.ca_certs] if policy.ca_certs else []


def authorities_digest(policy: TlsPolicy) -> bytes:
    """Return what is the same for the same authorities.

    Raises:
        EndpointError: A file cannot be read.
    """
    return b"".join(hashlib.sha256(read_file("--ssl-ca-certs", path)).digest() for path in authority_files(policy))

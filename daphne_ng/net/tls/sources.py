"""TLS: where the contexts of a port come from, and how they follow their files.

A source hands out the context for the connection that was just accepted (`TlsSource.context`); what has begun keeps the
one it has. `Reloadable.refresh` looks at the files, in any thread. What it finds wrong then it logs, and goes on with
what it has; what is wrong at the start is raised.

* `CertificateFiles`: one certificate, from the settings.
* `CertificateDirectory`: one for each name that clients may ask for (SNI), and answers to ACME's TLS-ALPN-01.
* `StringCertificate`: what an ``ssl:`` string of Twisted's says.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

from daphne_ng.errors import EndpointError
from daphne_ng.net.tls.certificates import (
    Identity,
    fingerprint,
    list_pem_files,
    read_file,
    read_identity,
    read_password,
)
from daphne_ng.net.tls.context import (
    ACME_TLS_ALPN,
    TlsSettings,
    build_context,
    challenge_context,
)

__all__ = [
    "ACME_TLS_ALPN",
    "CertificateDirectory",
    "CertificateFile",
    "CertificateFiles",
    "Challenges",
    "Reloadable",
    "StringCertificate",
    "TlsSettings",
    "challenge_context",
]

logger = logging.getLogger("daphne_ng.net.tls")

DEFAULT = "default"
"""``DEFAULT.pem`` is for every name that has no file of its own, and for clients that ask for none."""


# Most files that one line of the log names.
_NAMED = 10


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


class Challenges(Protocol):
    """Answers to ACME's TLS-ALPN-01; a ``dict`` is one. Asked in handshakes, with names that anybody may send."""

    def get(self, name: str, /) -> SSL.Context | None:
        """Return the answer for a name in lower case, or None."""


class _Source:
    """What the sources share: when to read again, and what to say about it.

    Args:
        words: What is served, for the log.
    """

    def __init__(self, words: str) -> None:
        self._words = words
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] = ()

    def refresh(self, force: bool = False) -> None:
        """See `Reloadable.refresh`."""
        with self._lock:
            try:
                # Taken before the files are read: what changes meanwhile will be seen the next time.
                seen = self._look()
                if seen == self._seen and not force:
                    return
                self._seen = seen
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

    # A directory that cannot be listed is a state like any other.
    def _look(self) -> tuple[object, ...]:
        try:
            return self._fingerprint()
        except EndpointError as error:
            return (str(error),)

    def _first(self) -> None:
        self._seen = self._fingerprint()
        self._load(True)

    # What differs once a file has changed.
    def _fingerprint(self) -> tuple[object, ...]:
        raise NotImplementedError

    # Read everything; return what is new, in words.
    def _load(self, force: bool) -> str:
        raise NotImplementedError


class _Single(_Source):
    """One context."""

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
        _look_at_end(self._words, identity, self._identity)
        self._context = build()
        self._digest = digest
        self._identity = identity
        return f"{self._words}, which ends at {identity.expires:%Y-%m-%d %H:%M} UTC"


class CertificateFiles(_Single):
    """The certificate that the settings name, for all clients.

    Args:
        settings: What all contexts have in common.
        file: The certificate.

    Raises:
        EndpointError: It cannot be used.
    """

    def __init__(self, settings: TlsSettings, file: CertificateFile) -> None:
        super().__init__(f"the certificate in {file.certfile!r}")
        self._settings = settings
        self._file = file
        self._first()

    def _fingerprint(self) -> tuple[object, ...]:
        return fingerprint([*self._file.paths, *_authorities(self._settings)])

    def _load(self, force: bool) -> str:
        identity = self._file.read()
        digest = identity.digest + _digest_of_authorities(self._settings)
        return self._replace(digest, lambda: build_context(self._settings, identity), identity)


@implementer(IOpenSSLContextFactory)
class StringCertificate(_Single):
    """What an ``ssl:`` string says, in place of the context factory that Twisted made of it.

    Args:
        settings: What all contexts have in common.
        description: The string.
        parse: Makes Twisted's context factory (``CertificateOptions``) of it, again each time.
        paths: The files that it names.

    Raises:
        EndpointError: It cannot be used.
    """

    def __init__(self, settings: TlsSettings, description: str, parse: Callable[[], Any], paths: Iterable[str]) -> None:
        super().__init__(f"the certificate of {description}")
        self._settings = settings
        self._parse = parse
        self._paths = [*paths, *_authorities(settings)]
        self._first()

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
            lambda: build_context(self._settings, identity, method=options.method, dh_parameters=dh_parameters),
            identity,
        )


class CertificateDirectory(_Source):
    """A directory of ``NAME.pem`` files, each with key, certificate and chain; the name that clients ask for chooses.

    ``*.example.org.pem``, or ``_wildcard_.example.org.pem`` where a file system will not have the asterisk, is for all
    names with one more label. ``DEFAULT.pem``, or the certificate of the settings, is for what has no file. Without
    either such a client is refused. A file that is empty declares a name whose certificate is still to come, and is
    looked at again in every handshake that asks for it.

    For ACME: `names` are those to have certificates for, `certificate` tells what a name has, `reload` takes a new file
    into use, and `challenges` has the answers to TLS-ALPN-01 by name, made with `challenge_context`. They are given
    to clients that offer ``acme-tls/1`` over TLS 1.3. With TLS 1.2 OpenSSL settles on a certificate before it lets one
    see what the client offers, so there only a name without a certificate of its own gets its answer.

    Args:
        settings: What all contexts have in common.
        path: The directory.
        default: The certificate of the settings.
        label: What names the directory, for messages.
        password_file: File with the password of the keys that have one.

    Raises:
        EndpointError: The directory, or a file in it, cannot be used.
    """

    def __init__(
        self,
        settings: TlsSettings,
        path: str,
        default: CertificateFile | None = None,
        *,
        label: str = "--ssl-cert-dir",
        password_file: str = "",
    ) -> None:
        super().__init__(f"the certificates in {path!r}")
        self.path = path
        self.challenges: Challenges = {}
        """Answers to TLS-ALPN-01, by name. To be changed on the loop's thread."""
        self._settings = settings
        self._default = default
        self._label = label
        self._password_file = password_file
        self._entry: SSL.Context | None = None
        self._authorities = b""
        self._files: dict[str, object] = {}
        # By name in lower case; replaced as a whole, never changed.
        self._served: dict[str, _Served] = {}
        self._names: list[str] = []
        # Files of names that have no certificate yet.
        self._awaited: dict[str, str] = {}
        self._first()

    # -- for ACME ------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the ``NAME`` of every file except the default's, in lower case; an empty file's too."""
        return list(self._names)

    def certificate(self, name: str) -> Any:
        """Return the certificate that is served for a name of `names`, as ``cryptography`` has it, or None."""
        served = self._served.get(name.lower())
        return served.identity.certificate if served is not None else None

    def reload(self) -> None:
        """Take changed files into use now; what is wrong with one is logged, and it stays as it was."""
        self.refresh()

    # -- contexts ------------------------------------------------------------------------------------------

    def context(self) -> SSL.Context:
        """See `TlsSource.context`. It has no certificate; the one to use is set when the name is known."""
        assert self._entry is not None  # made by the constructor
        return self._entry

    def _choose(self, connection: SSL.Connection) -> bool:
        name = _server_name(connection)
        found = self._served.get(name) or self._come_meanwhile(name)
        served = self._served
        challenge = self.challenges.get(name) if found is None else None
        if challenge is not None and connection.get_protocol_version() < SSL.TLS1_3_VERSION:
            _lead_to(connection, challenge)
            return True
        if found is None:
            _, dot, parent = name.partition(".")
            found = (served.get(f"*.{parent}") if dot else None) or served.get(DEFAULT)
        if found is None:
            # OpenSSL asks before it shows what the client offers. With a certificate or not, an answer is coming.
            return challenge is not None
        connection.set_context(found.context)
        return True

    # Another process may have put the first certificate of a name into place since the files were looked at, and the
    # client may know. Reading it here takes a moment, once.
    def _come_meanwhile(self, name: str) -> _Served | None:
        path = self._awaited.get(name)
        if path is None or fingerprint([path, self._password_file]) == self._files.get(path):
            return None
        self.refresh()
        return self._served.get(name)

    def _answer(self, connection: SSL.Connection) -> bool:
        challenge = self.challenges.get(_server_name(connection))
        # With TLS 1.2 the certificate is settled by now; OpenSSL must not have it taken away.
        if challenge is None or connection.get_protocol_version() < SSL.TLS1_3_VERSION:
            return False
        _lead_to(connection, challenge)
        return True

    # -- files ---------------------------------------------------------------------------------------------

    def _fingerprint(self) -> tuple[object, ...]:
        paths = list(list_pem_files(self._label, self.path).values())
        extra = self._default.paths if self._default is not None else []
        return fingerprint([*paths, *extra, self._password_file, *_authorities(self._settings)])

    def _load(self, force: bool) -> str:
        files = list_pem_files(self._label, self.path)
        authorities = _digest_of_authorities(self._settings)
        entry = self._entry
        if entry is None or authorities != self._authorities:
            # Sessions that the old authorities allowed end with the key of the old context.
            entry = build_context(self._settings, None, answer=self._answer, choose=self._choose)
        old = self._served
        seen: dict[str, object] = {}
        served: dict[str, _Served] = {}
        news = []
        for file_name, path in files.items():
            name = _canonical(file_name)
            if name == DEFAULT and self._default is not None:
                continue
            before = old.get(name)
            seen[path] = fingerprint([path, self._password_file])
            if force or seen[path] != self._files.get(path):
                identity = self._tried(name, path, before, partial(self._read, path, before))
            else:
                identity = before.identity if before is not None else None
            if identity is not None:
                served[name] = self._serve(identity, before, entry)
                if before is None or before.identity.digest != identity.digest:
                    news.append(path)
        if self._default is not None:
            before = old.get(DEFAULT)
            seen[""] = fingerprint(self._default.paths)
            if force or before is None or seen[""] != self._files.get(""):
                identity = self._tried(DEFAULT, self._default.certfile, before, self._default.read)
            else:
                identity = before.identity
            if identity is not None:
                served[DEFAULT] = self._serve(identity, before, entry)
                if before is None or before.identity.digest != identity.digest:
                    news.append(self._default.certfile)
        gone = [name for name in old if name not in served]
        self._entry, self._authorities, self._files, self._served = entry, authorities, seen, served
        declared = {_canonical(name): path for name, path in files.items()}
        self._names = sorted(declared.keys() - {DEFAULT})
        self._awaited = {name: path for name, path in declared.items() if name not in served}
        reports = [f"the certificates in {_some(news)}"] if news else []
        if gone:
            reports.append(f"nothing for {_some(gone)}, whose files are gone")
        return " and ".join(reports)

    def _read(self, path: str, before: _Served | None) -> Identity | None:
        label = self._label
        if not read_file(label, path).strip():
            if before is not None:
                # Somebody is writing it.
                raise EndpointError(f"{label}: {path!r} is empty")
            return None
        password = None
        if self._password_file:
            password = read_password("--ssl-keyfile-password-file", self._password_file)
        return read_identity((label, path), None, password)

    # A file that is wrong stops the start. Later the others must not wait for it.
    def _tried(
        self, name: str, path: str, before: _Served | None, read: Callable[[], Identity | None]
    ) -> Identity | None:
        try:
            identity = read()
            if identity is not None and (before is None or before.identity.digest != identity.digest):
                _look_at_end(f"the certificate in {path!r}", identity, before.identity if before is not None else None)
                build_context(self._settings, identity)  # OpenSSL may refuse it
            return identity
        except EndpointError as error:
            if self._entry is None:
                raise
            logger.error("Kept the certificate for %r as it was: %s", name, error)
            return before.identity if before is not None else None

    def _serve(self, identity: Identity, before: _Served | None, entry: SSL.Context) -> _Served:
        if before is not None and before.identity.digest == identity.digest and entry is self._entry:
            return before
        return _Served(identity, build_context(self._settings, identity, answer=self._answer, chosen_by=entry))


@dataclass(frozen=True, slots=True, eq=False)
class _Served:
    identity: Identity
    context: SSL.Context


# A certificate that has expired is of little use, but a server that does not start because of it is of none. What it
# must not do is take the place of one that is good.
def _look_at_end(words: str, identity: Identity, before: Identity | None) -> None:
    now = dt.datetime.now(dt.UTC)
    if identity.expires >= now:
        return
    if before is not None and before.expires >= now:
        raise EndpointError(f"{words} expired at {identity.expires:%Y-%m-%d %H:%M} UTC, and the one in use has not")
    logger.warning("Expired at %s UTC, so that clients refuse it: %s", f"{identity.expires:%Y-%m-%d %H:%M}", words)


# There may be thousands, and names of files may hold anything.
def _some(names: list[str]) -> str:
    words = ", ".join(map(repr, names[:_NAMED]))
    return words if len(names) <= _NAMED else f"{words} and {len(names) - _NAMED} more"


def _canonical(file_name: str) -> str:
    return file_name.replace("_wildcard_.", "*.", 1) if file_name.startswith("_wildcard_.") else file_name


def _server_name(connection: SSL.Connection) -> str:
    name = connection.get_servername() or b""
    return name.decode("ascii", "replace").lower().removesuffix(".")


# The context of a challenge does not hold the one that leads to it (see build_context), so the connection does.
def _lead_to(connection: Any, challenge: SSL.Context) -> None:
    connection.led_from = connection.get_context()
    connection.set_context(challenge)


def _authorities(settings: TlsSettings) -> list[str]:
    return [settings.ca_certs] if settings.ca_certs else []


def _digest_of_authorities(settings: TlsSettings) -> bytes:
    return b"".join(hashlib.sha256(read_file("--ssl-ca-certs", path)).digest() for path in _authorities(settings))

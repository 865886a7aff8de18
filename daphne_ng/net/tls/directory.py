"""TLS: a certificate for each name that clients may ask for (SNI), and answers to ACME's TLS-ALPN-01."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from OpenSSL import SSL

from daphne_ng.errors import EndpointError
from daphne_ng.net.tls.certificates import (
    Identity,
    fingerprint,
    list_pem_files,
    read_file,
    read_identity,
    read_password,
)
from daphne_ng.net.tls.context import TlsPolicy, build_context
from daphne_ng.net.tls.sources import (
    CertificateFile,
    ReloadingSource,
    authorities_digest,
    authority_files,
    check_expiry,
)

__all__ = ["DEFAULT", "CertificateDirectory", "Challenges"]

logger = logging.getLogger("daphne_ng.net.tls")

DEFAULT = "default"
"""``DEFAULT.pem`` is for every name that has no file of its own, and for clients that ask for none."""

# Most files that one line of the log names.
_NAMED_MAX = 10


class Challenges(Protocol):
    """Answers to ACME's TLS-ALPN-01; a ``dict`` is one. Asked in handshakes, with names that anybody may send."""

    def get(self, name: str, /) -> SSL.Context | None:
        """Return the answer for a name in lower case, or None."""


@dataclass(frozen=True, slots=True, eq=False)
class _Served:
    """A certificate in use, and the context that hands it out."""

    identity: Identity
    context: SSL.Context


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where the certificate of a name comes from."""

    name: str
    path: str
    """The file that messages name."""
    fingerprint: tuple[object, ...]
    """What differs once one of its files has changed."""
    read: Callable[[], Identity | None]
    """Returns None for a file that is empty; raises `EndpointError`."""


class CertificateDirectory(ReloadingSource):
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
        policy: What all contexts have in common.
        path: The directory.
        default: The certificate of the settings.
        label: What names the directory, for messages.
        password_file: File with the password of the keys that have one.

    Raises:
        EndpointError: The directory, or a file in it, cannot be used.
    """

    def __init__(
        self,
        policy: TlsPolicy,
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
        self._policy = policy
        self._default = default
        self._label = label
        self._password_file = password_file
        self._entry: SSL.Context | None = None
        self._authorities = b""
        # Names, and their files as they were read. A default may be the file of a name too, read at another moment.
        self._fingerprints: set[tuple[str, tuple[object, ...]]] = set()
        # By name in lower case; replaced as a whole, never changed.
        self._served: dict[str, _Served] = {}
        self._names: list[str] = []
        # Files of names that have no certificate yet.
        self._awaited: dict[str, str] = {}
        self._initial_load()

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

    def _choose_certificate(self, connection: SSL.Connection) -> bool:
        name = _server_name(connection)
        found = self._served.get(name) or self._read_awaited(name)
        served = self._served
        challenge = self.challenges.get(name) if found is None else None
        if challenge is not None and connection.get_protocol_version() < SSL.TLS1_3_VERSION:
            _switch_to_challenge(connection, challenge)
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
    def _read_awaited(self, name: str) -> _Served | None:
        path = self._awaited.get(name)
        if path is None or (name, fingerprint([path, self._password_file])) in self._fingerprints:
            return None
        self.refresh()
        return self._served.get(name)

    def _answer_challenge(self, connection: SSL.Connection) -> bool:
        challenge = self.challenges.get(_server_name(connection))
        # With TLS 1.2 the certificate is settled by now; OpenSSL must not have it taken away.
        if challenge is None or connection.get_protocol_version() < SSL.TLS1_3_VERSION:
            return False
        _switch_to_challenge(connection, challenge)
        return True

    # -- files ---------------------------------------------------------------------------------------------

    def _fingerprint(self) -> tuple[object, ...]:
        paths = list(list_pem_files(self._label, self.path).values())
        extra = self._default.paths if self._default is not None else []
        return fingerprint([*paths, *extra, self._password_file, *authority_files(self._policy)])

    def _load(self, force: bool) -> str:
        files = list_pem_files(self._label, self.path)
        authorities = authorities_digest(self._policy)
        entry = self._entry
        if entry is None or authorities != self._authorities:
            # Sessions that the old authorities allowed end with the key of the old context.
            entry = build_context(self._policy, None, answer=self._answer_challenge, choose=self._choose_certificate)
        fingerprints = set()
        served: dict[str, _Served] = {}
        news = []
        for origin in self._origins(files):
            before = self._served.get(origin.name)
            state = (origin.name, origin.fingerprint)
            fingerprints.add(state)
            if force or state not in self._fingerprints:
                identity = self._read_or_keep(origin, before)
            else:
                identity = before.identity if before is not None else None
            if identity is not None:
                served[origin.name] = self._serve(identity, before, entry)
                if not _is_same(identity, before):
                    news.append(origin.path)
        gone = [name for name in self._served if name not in served]
        self._entry, self._authorities, self._fingerprints, self._served = entry, authorities, fingerprints, served
        declared = {_canonical(name): path for name, path in files.items()}
        self._names = sorted(declared.keys() - {DEFAULT})
        self._awaited = {name: path for name, path in declared.items() if name not in served}
        reports = [f"the certificates in {_abbreviated(news)}"] if news else []
        if gone:
            reports.append(f"nothing for {_abbreviated(gone)}, whose files are gone")
        return " and ".join(reports)

    # The certificate of the settings takes the place of DEFAULT.pem.
    def _origins(self, files: dict[str, str]) -> Iterator[_Origin]:
        for file_name, path in files.items():
            name = _canonical(file_name)
            if name != DEFAULT or self._default is None:
                yield _Origin(name, path, fingerprint([path, self._password_file]), partial(self._read, path))
        default = self._default
        if default is not None:
            yield _Origin(DEFAULT, default.certfile, fingerprint(default.paths), default.read)

    def _read(self, path: str) -> Identity | None:
        label = self._label
        if not read_file(label, path).strip():
            return None
        password = None
        if self._password_file:
            password = read_password("--ssl-keyfile-password-file", self._password_file)
        return read_identity((label, path), None, password)

    # A wrong file stops the start. Later its name keeps the certificate that it has, and the other names do not wait.
    def _read_or_keep(self, origin: _Origin, before: _Served | None) -> Identity | None:
        try:
            identity = origin.read()
            if identity is None:
                if before is not None:  # the file is being written
                    raise EndpointError(f"{self._label}: {origin.path!r} is empty")
            elif not _is_same(identity, before):
                words = f"the certificate in {origin.path!r}"
                check_expiry(words, identity, before.identity if before is not None else None)
                build_context(self._policy, identity)  # OpenSSL may refuse it
            return identity
        except EndpointError as error:
            if self._entry is None:
                raise
            logger.error("Kept the certificate for %r as it was: %s", origin.name, error)
            return before.identity if before is not None else None

    def _serve(self, identity: Identity, before: _Served | None, entry: SSL.Context) -> _Served:
        if before is not None and _is_same(identity, before) and entry is self._entry:
            return before
        return _Served(identity, build_context(self._policy, identity, answer=self._answer_challenge, chosen_by=entry))


def _is_same(identity: Identity, before: _Served | None) -> bool:
    return before is not None and before.identity.digest == identity.digest


# There may be thousands of files, and their names may hold anything.
def _abbreviated(names: list[str]) -> str:
    words = ", ".join(map(repr, names[:_NAMED_MAX]))
    return words if len(names) <= _NAMED_MAX else f"{words} and {len(names) - _NAMED_MAX} more"


def _canonical(file_name: str) -> str:
    return file_name.replace("_wildcard_.", "*.", 1) if file_name.startswith("_wildcard_.") else file_name


def _server_name(connection: SSL.Connection) -> str:
    name = connection.get_servername() or b""
    return name.decode("ascii", "replace").lower().removesuffix(".")


# The context of a challenge does not hold the one that leads to it (see build_context), so the connection does.
def _switch_to_challenge(connection: Any, challenge: SSL.Context) -> None:
    connection.switched_from = connection.get_context()
    connection.set_context(challenge)

"""Keepers made from the settings, one for each directory that an endpoint names."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from OpenSSL import SSL

from daphne_ng.acme.challenges import HttpAnswers, HttpChallenges, Prover, TlsAlpnAnswers, TlsAlpnChallenges
from daphne_ng.acme.client import Session
from daphne_ng.acme.keeper import Issuer, Keeper, Pause
from daphne_ng.acme.proofs import Proofs
from daphne_ng.acme.responder import ResponderFactory
from daphne_ng.acme.storage import AccountKey, Storage
from daphne_ng.config import Config
from daphne_ng.endpoints import listen_for_challenges
from daphne_ng.errors import EndpointError
from daphne_ng.net.tls.directory import Challenges

__all__ = ["PRODUCTION", "STAGING", "Automatic", "Directory"]

logger = logging.getLogger("daphne_ng.acme.automatic")

PRODUCTION = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


class Directory(Protocol):
    """`daphne_ng.net.tls.directory.CertificateDirectory`, as seen from here."""

    challenges: Challenges

    def context(self) -> SSL.Context:
        """See ``TlsSource``."""

    def reload(self) -> object:
        """Take changed files into use, for new handshakes. May be called in any thread; raises nothing."""


class Automatic:
    """All automatic certificates of one server.

    Args:
        config: The settings.
        make_directory: Makes what reads the certificates of a directory.
        run: See `Storage`.
    """

    def __init__(self, config: Config, make_directory: Callable[[str], Directory], run: str = "") -> None:
        self._config = config
        self._make_directory = make_directory
        self._run = run
        self._directories: dict[str, tuple[str, Directory]] = {}
        self._keepers: list[Keeper] = []
        self._http: HttpAnswers | None = None
        self._ports: list[Any] = []

    def source(self, reactor: Any, path: str, staging: bool) -> Directory:
        """Return the TLS of a directory.

        Args:
            reactor: A `ListeningReactor`, for the port of http-01.
            path: The directory; ``~`` is the user's home.
            staging: Whether it is Let's Encrypt's staging server that is asked, unless the settings name another.

        Raises:
            EndpointError: The directory or a setting is wrong, or the port of http-01 cannot be listened on.
        """
        url = self._config.acme_directory or (STAGING if staging else PRODUCTION)
        path = os.path.realpath(os.path.expanduser(path))
        if path in self._directories:
            other, directory = self._directories[path]
            if other != url:
                raise EndpointError(f"{path} is used for both {other} and {url}")
            return directory
        self._check(path, url)
        directory = self._make_directory(path)
        self._directories[path] = url, directory
        proofs = Proofs(path)
        # Proofs are answered however this process proves names: another that shares the directory may use TLS-ALPN-01.
        directory.challenges = TlsAlpnAnswers(proofs)
        prover: Prover
        if self._config.acme_challenge == HttpChallenges.kind:
            self._listen(reactor).proofs.append(proofs)
            prover = HttpChallenges(proofs)
        else:
            prover = TlsAlpnChallenges(proofs)

        def connect(key: AccountKey, pause: Pause) -> Issuer:
            config = self._config
            return Session(url, key, email=config.acme_email, ca_certs=config.acme_ca_certs, pause=pause)

        storage = Storage(path, url, self._run)
        self._keepers.append(Keeper(storage, connect, prover, proofs, directory.reload, url))
        return directory

    def start(self) -> None:
        """Begin to ask for certificates. To be called when the endpoints listen."""
        for keeper in self._keepers:
            keeper.start()

    def check(self) -> None:
        """Look at the directories now."""
        for keeper in self._keepers:
            keeper.check()

    def stop(self) -> None:
        """Stop asking, and close the port of http-01. Returns at once."""
        for keeper in self._keepers:
            keeper.stop()
        for port in self._ports:
            port.stopListening()
        self._ports.clear()

    def _check(self, path: str, url: str) -> None:
        if not os.path.isdir(path):
            raise EndpointError(f"{path} is not a directory")
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise EndpointError(f"{path} must be readable and writable")
        if not url.startswith("https://"):
            raise EndpointError(f"--acme-directory: {url} should begin with https://")
        authority = self._config.acme_ca_certs
        if authority and not os.access(authority, os.R_OK):
            raise EndpointError(f"--acme-ca-certs: {authority} cannot be read")

    def _listen(self, reactor: Any) -> HttpAnswers:
        if self._http is None:
            self._http = answers = HttpAnswers()
            factory = ResponderFactory(answers, reactor)
            listener = listen_for_challenges(reactor, self._config.acme_http_port, factory)
            self._ports.append(listener)
            # The process that has made the socket says so; its workers do not repeat it.
            level = logging.DEBUG if getattr(reactor, "replays", False) else logging.INFO
            logger.log(level, "Answering http-01 challenges on port %d", listener.getHost().port)
        return self._http

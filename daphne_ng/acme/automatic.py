"""Keepers made from the settings, one for each directory that an endpoint names."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.error import CannotListenError

from daphne_ng.acme.challenges import HttpChallenges, Prover, TlsAlpnChallenges
from daphne_ng.acme.client import Session
from daphne_ng.acme.keeper import Issuer, Keeper, Pause
from daphne_ng.acme.responder import ResponderFactory
from daphne_ng.acme.storage import AccountKey, Storage
from daphne_ng.config import Config
from daphne_ng.errors import EndpointError

__all__ = ["PRODUCTION", "STAGING", "Automatic", "Directory"]

logger = logging.getLogger(__name__)

PRODUCTION = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

LOOP_SECONDS = 5.0


class Directory(Protocol):
    """`daphne_ng.net.tls.CertificateDirectory`, as seen from here."""

    challenges: MutableMapping[str, SSL.Context]

    def context(self) -> SSL.Context:
        """See ``TlsSource``."""

    def reload(self) -> object:
        """Take changed files into use, for new handshakes. May be called in any thread; raises nothing."""


class Automatic:
    """All automatic certificates of one server.

    Args:
        config: The settings.
        loop: Where handshakes happen.
        make_directory: Makes what reads the certificates of a directory.
    """

    def __init__(
        self, config: Config, loop: asyncio.AbstractEventLoop, make_directory: Callable[[str], Directory]
    ) -> None:
        self._config = config
        self._loop = loop
        self._make_directory = make_directory
        self._directories: dict[str, tuple[str, Directory]] = {}
        self._keepers: list[Keeper] = []
        self._http: HttpChallenges | None = None
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
        prover: Prover
        if self._config.acme_challenge == HttpChallenges.kind:
            prover = self._listen(reactor)
        else:
            prover = TlsAlpnChallenges(directory.challenges, self._on_loop)

        def connect(key: AccountKey, pause: Pause) -> Issuer:
            config = self._config
            return Session(url, key, email=config.acme_email, ca_certs=config.acme_ca_certs, pause=pause)

        self._keepers.append(Keeper(Storage(path, url), connect, prover, directory.reload, url))
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

    # Called in a keeper's thread. A loop that is busy for long is not waited for, and one that has ended not at all.
    def _on_loop(self, function: Callable[[], object]) -> None:
        done = threading.Event()

        def call() -> None:
            function()
            done.set()

        with contextlib.suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(call)
            done.wait(LOOP_SECONDS)

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

    def _listen(self, reactor: Any) -> HttpChallenges:
        if self._http is not None:
            return self._http
        self._http = http = HttpChallenges()
        port = self._config.acme_http_port
        plain = reactor.changed(prelude=None, tls=None)  # whatever wraps the endpoint is not spoken here
        factory = ResponderFactory(http.answers, plain)
        try:
            try:
                listener = plain.listenTCP(port, factory, interface="::")  # with IPv4, where the system lets it
            except (CannotListenError, OSError):
                listener = plain.listenTCP(port, factory)
        except (CannotListenError, OSError, OverflowError) as error:
            cause = getattr(error, "socketError", error)
            reason = getattr(cause, "strerror", None) or cause
            raise EndpointError(f"--acme-http-port: cannot listen on port {port}: {reason}") from error
        self._ports.append(listener)
        logger.info("Answering http-01 challenges on port %d", listener.getHost().port)
        return http

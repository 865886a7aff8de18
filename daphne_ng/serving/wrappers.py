"""The wrappers between a server's sockets and its protocols: the PROXY protocol's prelude, and TLS with certificates.

One `ServerWrappers` per server makes the wrappers that endpoint strings name (``haproxy:``, ``tls:``, ``txsni:``,
``le:``, ``ssl:``) from the settings, each once, and reads certificate files again while the server runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

from daphne_ng.config import Config
from daphne_ng.errors import EndpointError
from daphne_ng.net.context import ServerContext
from daphne_ng.net.reactor import DaphneReactor
from daphne_ng.net.sockets.listening import ListeningReactor, ListenOptions, Prelude, TlsSource
from daphne_ng.net.sockets.prelude import ProxyProtocol
from daphne_ng.net.tls.certificates import list_pem_files
from daphne_ng.net.tls.context import TlsPolicy
from daphne_ng.net.tls.directory import CertificateDirectory
from daphne_ng.net.tls.sources import CertificateFile, CertificateFiles, Reloadable, StringCertificate

__all__ = ["ServerWrappers"]

logger = logging.getLogger("daphne_ng.security")


class ServerWrappers:
    """Implements `EndpointWrappers`.

    Args:
        config: The settings.
        protocols: ALPN names, the best first.
        loop: For timers.
        context: The server; the PROXY protocol needs one, which counts the connections that wait for its header.
        run: The identifier of the supervisor's run; empty for a server of one process.
    """

    def __init__(
        self,
        config: Config,
        protocols: list[bytes],
        loop: asyncio.AbstractEventLoop,
        context: ServerContext | None = None,
        run: str = "",
    ) -> None:
        self._config = config
        self._protocols = protocols
        self._loop = loop
        self._context = context
        self._run = run
        self.tls_policy = TlsPolicy(
            protocols=tuple(protocols),
            ciphers=config.ssl_ciphers,
            min_version=config.ssl_min_version,
            cert_reqs=config.ssl_cert_reqs,
            ca_certs=config.ssl_ca_certs,
        )
        """The settings of every TLS context."""
        self._tls: TlsSource | None = None
        self._directories: dict[str, CertificateDirectory] = {}
        self._sources: list[Reloadable] = []
        self._started = False
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Future[None] | None = None
        self._read_again = False
        self._prelude: Prelude | None = None
        self._automatic: Any = None

    def reactor(self, reactor: DaphneReactor) -> ListeningReactor:
        """Return the reactor that endpoints listen on: `reactor` with the socket settings."""
        config = self._config
        options = ListenOptions(
            backlog=config.backlog,
            reuse_port=config.reuse_port,
            tcp_nodelay=config.tcp_nodelay,
            tcp_keepalive=config.tcp_keepalive,
            prelude=self.prelude() if config.proxy_protocol else None,
        )
        return ListeningReactor(reactor, options)

    def automatic(self, reactor: Any, directory: str, staging: bool) -> TlsSource:
        """See `EndpointWrappers.automatic`."""
        if self._automatic is None:
            try:
                from daphne_ng.acme.automatic import Automatic
            except ImportError as error:
                raise EndpointError(
                    f"automatic certificates need an extra: pip install 'daphne-ng[acme]' ({error})"
                ) from error
            self._automatic = Automatic(
                self._config, lambda path: self.directory(path, "the directory of certificates"), self._run
            )
        source: TlsSource = self._automatic.source(reactor, directory, staging)
        return source

    def listening(self) -> None:
        """Begin to ask for certificates, now that the endpoints listen for the challenges."""
        if self._automatic is not None:
            self._automatic.start()

    def start(self) -> None:
        """Look from time to time for certificate files that have changed."""
        self._started = True
        self._poll_later()

    def stop(self) -> None:
        """Cancel the timers."""
        self._started = self._read_again = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._automatic is not None:
            self._automatic.stop()

    def reload(self) -> None:
        """Read the certificates again (SIGHUP), for the handshakes that begin from then on."""
        if not self._started:
            return
        if self._sources:
            self._refresh(force=True)
        else:
            logger.info("There are no certificates to read again")
        if self._automatic is not None:
            self._automatic.check()

    def follow(self, source: Reloadable) -> None:
        """Have a source look at its files from time to time."""
        self._sources.append(source)
        self._poll_later()

    def prelude(self) -> Prelude:
        """See `EndpointWrappers.prelude`."""
        if self._prelude is None:
            assert self._context is not None  # only a server's endpoints ask
            self._prelude = ProxyProtocol(self._context)
        return self._prelude

    def tls(self) -> TlsSource:
        """See `EndpointWrappers.tls`."""
        if self._tls is None:
            config, default = self._config, self._default_certificate()
            if config.ssl_cert_dir:
                self._tls = directory = self.directory(config.ssl_cert_dir, "--ssl-cert-dir")
                if default is None and not list_pem_files("--ssl-cert-dir", directory.path):
                    logger.warning(
                        "--ssl-cert-dir: there is no .pem file in %r; every client is refused until there is one",
                        directory.path,
                    )
            elif default is not None:
                files = CertificateFiles(self.tls_policy, default)
                self.follow(files)
                self._tls = files
            else:
                raise EndpointError("tls: needs --ssl-certfile or --ssl-cert-dir")
        return self._tls

    def directory(self, path: str, label: str) -> CertificateDirectory:
        """See `EndpointWrappers.directory`."""
        path = os.path.expanduser(path)
        known = self._directories.get(path)
        if known is None:
            known = CertificateDirectory(
                self.tls_policy,
                path,
                self._default_certificate(),
                label=label,
                password_file=self._config.ssl_keyfile_password,
            )
            self._directories[path] = known
            self.follow(known)
        return known

    def string(self, description: str, parse: Callable[[], Any], paths: Iterable[str]) -> Any:
        """See `EndpointWrappers.string`."""
        source = StringCertificate(self.tls_policy, description, parse, paths)
        self.follow(source)
        return source

    def _default_certificate(self) -> CertificateFile | None:
        config = self._config
        if not config.ssl_certfile:
            return None
        return CertificateFile(config.ssl_certfile, config.ssl_keyfile, config.ssl_keyfile_password)

    # -- files that change -----------------------------------------------------------------------------------

    def _poll_later(self) -> None:
        interval = self._config.ssl_reload_interval
        if self._started and self._timer is None and self._sources and interval:
            self._timer = self._loop.call_later(interval, self._poll)

    def _poll(self) -> None:
        self._refresh(force=False).add_done_callback(self._polled)

    def _polled(self, job: asyncio.Future[None]) -> None:
        self._timer = None
        self._poll_later()

    # A thread reads the files: a file may be on another machine, and a large key takes a while to check. There is one
    # such thread at a time: however many signals come meanwhile, all files are read once more.
    def _refresh(self, *, force: bool) -> asyncio.Future[None]:
        if self._reading is not None:
            self._read_again = self._read_again or force
            return self._reading
        sources = list(self._sources)

        def refresh() -> None:
            for source in sources:
                source.refresh(force)

        self._reading = job = self._loop.run_in_executor(None, refresh)
        job.add_done_callback(self._refreshed)
        return job

    def _refreshed(self, job: asyncio.Future[None]) -> None:
        self._reading = None
        if self._read_again:
            self._read_again = False
            self._refresh(force=True)

"""Opening every listening socket once, for workers to share."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.protocol import Factory

from daphne_ng.config import Config
from daphne_ng.endpoints import describe_listen_error, endpoint_from_string, listen_for_challenges
from daphne_ng.errors import ConfigurationError, EndpointError
from daphne_ng.net.reactor import DaphneReactor
from daphne_ng.net.sockets.listening import ListenOptions
from daphne_ng.net.sockets.sharing import RecordingReactor, SharedSocket

__all__ = ["SharedSockets"]

logger = logging.getLogger("daphne_ng.supervisor.sockets")


class SharedSockets:
    """The listening sockets of a supervisor.

    Args:
        endpoints: Endpoint strings.
        config: The settings of sockets are read.

    Raises:
        ConfigurationError: One cannot be listened on, or cannot be shared.
    """

    def __init__(self, endpoints: Iterable[str], config: Config) -> None:
        # This reactor makes sockets and never runs. Its loop is the plain one, which needs no other thread.
        self._loop = asyncio.new_event_loop()
        self._reactor = DaphneReactor(self._loop)
        options = ListenOptions(
            backlog=config.backlog,
            reuse_port=config.reuse_port,
            tcp_nodelay=config.tcp_nodelay,
            tcp_keepalive=config.tcp_keepalive,
        )
        self._recorder = RecordingReactor(self._reactor, options)
        self._wrappers = _CheckedOnly(config, self._loop)
        try:
            for description in endpoints:
                self._open(description)
        except BaseException:
            self.close()
            raise

    def _open(self, description: str) -> None:
        before = 0
        failures: list[Any] = []
        try:
            endpoint = endpoint_from_string(self._recorder, description, self._wrappers)
            before = self._recorder.count
            endpoint.listen(Factory()).addErrback(failures.append)
        except Exception as error:
            raise ConfigurationError(describe_listen_error(error, description)) from error
        if failures:
            failure = failures[0].value
            raise ConfigurationError(describe_listen_error(failure, description)) from failure
        if self._recorder.count == before:
            raise ConfigurationError(
                f"--workers: endpoint {description!r} opens its sockets by itself, so that they cannot be shared"
            )

    @property
    def shared(self) -> list[SharedSocket]:
        """What workers are given."""
        return self._recorder.sockets()

    def announce(self) -> None:
        """Log where is listened."""
        for address in self._recorder.addresses():
            if hasattr(address, "port"):
                logger.info("Listening on TCP address %s:%s", address.host, address.port)
            elif getattr(address, "name", None):
                logger.info("Listening on UNIX socket %s", os.fsdecode(address.name).replace("\0", "@"))

    def close(self) -> None:
        """Stop listening, and remove the files of UNIX sockets. May be called twice."""
        self._recorder.close()
        self._reactor.close()
        self._loop.close()


# Certificates and the PROXY protocol are the workers' concern; ports are not. Files that cannot be read are found here,
# before there are workers to say so one after the other.
class _CheckedOnly:
    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._loop = loop
        # As `daphne_ng.acme.automatic`, which needs an extra: one for all, before the first endpoint listens.
        self._challenges_port = config.acme_http_port if config.acme_challenge == "http-01" else None

    def prelude(self) -> Any:
        return None

    def tls(self) -> Any:
        self._files().tls()

    def directory(self, path: str, label: str) -> Any:
        self._files().directory(path, label)

    # The keys that are read are thrown away: a supervisor has no use for them.
    def _files(self) -> Any:
        from daphne_ng.serving.wrappers import ServerWrappers  # only where there is TLS: it brings much along

        return ServerWrappers(self._config, [], self._loop)

    def string(self, description: str, parse: Callable[[], Any], paths: Iterable[str]) -> Any:
        return parse()

    def automatic(self, reactor: Any, directory: str, staging: bool) -> Any:
        if not os.path.isdir(os.path.expanduser(directory)):
            raise EndpointError(f"{directory} is not a directory")
        port, self._challenges_port = self._challenges_port, None
        if port is not None:
            listen_for_challenges(reactor, port, Factory())

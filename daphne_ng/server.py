"""The server: Daphne's interface, and the ways to run it.

* ``Server(...).run()`` blocks and owns the process, as Daphne's does; ``stop()`` ends it from inside.
* ``await server.serve()``, or ``async with server:``, inside an asyncio program.
* ``server.start_on(reactor)`` and ``server.finish()`` on a Twisted reactor that runs already.
* ``with server.run_in_thread():`` beside other code, for the tests of other projects.

Each of them brings a reactor (`daphne_ng.serving.modes`) to a life of the server (`daphne_ng.serving.life`): start,
service, end.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from daphne_ng._types import AnyApplication
from daphne_ng.config import Config, check_alone
from daphne_ng.errors import ApplicationLoadError, ConfigurationError
from daphne_ng.net import reactor as reactors
from daphne_ng.serving.hooks import ServerHooks
from daphne_ng.serving.life import EXIT_LISTEN, ServerLife
from daphne_ng.serving.loading import check_application
from daphne_ng.serving.logconfig import enable_loggers, log_end
from daphne_ng.serving.modes import EXIT_LIFESPAN, Embedding, Run, serving_in_thread
from daphne_ng.serving.running import ReactorOfRun

__all__ = ["EXIT_LIFESPAN", "EXIT_LISTEN", "Server"]

logger = logging.getLogger("daphne_ng.server")

# Server's keyword -> Config's field, where Daphne's constructor has them.
_KEYWORDS = {
    "http_timeout": "http_timeout",
    "websocket_timeout": "websocket_timeout",
    "websocket_connect_timeout": "websocket_connect_timeout",
    "ping_interval": "ping_interval",
    "ping_timeout": "ping_timeout",
    "root_path": "root_path",
    "proxy_forwarded_address_header": "proxy_address_header",
    "proxy_forwarded_port_header": "proxy_port_header",
    "proxy_forwarded_proto_header": "proxy_proto_header",
    "websocket_handshake_timeout": "websocket_handshake_timeout",
    "websocket_max_message_size": "websocket_max_message_size",
    "websocket_max_frame_size": "websocket_max_frame_size",
    "application_close_timeout": "application_close_timeout",
    "server_name": "server_name",
}


class Server:
    """An ASGI server on Twisted endpoints.

    The positional and keyword names are Daphne's, with its defaults. `config` carries every other setting; where
    both say something, a keyword that differs from its default wins.

    Args:
        application: The ASGI application, as version 3 or 2.
        endpoints: Twisted endpoint strings to listen on.
        signal_handlers: Whether `run` handles SIGINT, SIGTERM and SIGHUP.
        action_logger: Called as ``action_logger(protocol, action, details)`` for each request.
        request_buffer_size: Accepted for Daphne's callers; the body is streamed in the parts in which it arrives.
        ready_callable: Called without arguments once every endpoint listens.
        config: The settings.

    Raises:
        ConfigurationError: A setting is wrong, or the application is none.
    """

    def __init__(
        self,
        application: AnyApplication,
        endpoints: list[str] | None = None,
        signal_handlers: bool = True,
        action_logger: Callable[[str, str, dict[str, Any]], None] | None = None,
        http_timeout: float | None = None,
        request_buffer_size: int = 8192,
        websocket_timeout: float = 86400,
        websocket_connect_timeout: float = 20,
        ping_interval: float = 20,
        ping_timeout: float = 30,
        root_path: str = "",
        proxy_forwarded_address_header: str | None = None,
        proxy_forwarded_port_header: str | None = None,
        proxy_forwarded_proto_header: str | None = None,
        verbosity: int = 1,
        websocket_handshake_timeout: float = 5,
        websocket_max_message_size: int = 1024 * 1024,
        websocket_max_frame_size: int = 1024 * 1024,
        application_close_timeout: float = 10,
        ready_callable: Callable[[], object] | None = None,
        server_name: str = "daphne",
        *,
        config: Config | None = None,
    ) -> None:
        given = locals()
        enable_loggers()  # the application has been imported
        changes = {
            field: given[keyword]
            for keyword, field in _KEYWORDS.items()
            if config is None or given[keyword] != _DEFAULTS[keyword]
        }
        self.config = (config or Config()).replace(**changes)
        for keyword, field in _KEYWORDS.items():
            setattr(self, keyword, getattr(self.config, field))
        if isinstance(application, str):
            raise ApplicationLoadError(
                f"application {application!r}: a Server takes the application itself; daphne_ng.run() imports it"
            )
        self.application = check_application(application)
        if self.config.static:
            from daphne_ng.static.application import check_directories

            check_directories(self.config)
        self.endpoints = endpoints or []
        self.signal_handlers = signal_handlers
        self.action_logger = action_logger
        self.request_buffer_size = request_buffer_size
        self.verbosity = verbosity
        self.ready_callable = ready_callable
        self.abort_start = False
        """Whether the server stopped before it served."""
        self.exit_code = 0
        """What the process should exit with after `run`."""
        self.hooks = ServerHooks()
        """What the owner of the process gives the server; to be set before the start."""
        self.listeners: list[Any] = []
        """The listening ports."""
        self.listening_addresses: list[tuple[str, int]] = []
        """``(host, port)`` of every TCP endpoint."""
        self._life: ServerLife | None = None
        self._embedding: Embedding | None = None
        if not self.endpoints:
            log_end(logger, logging.ERROR, "No endpoints. This server will not listen on anything.")
            sys.exit(1)

    # -- Daphne's interface ------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until stopped. Blocks; `exit_code` and `abort_start` tell how it went.

        In the main thread, SIGINT, SIGTERM and SIGHUP are handled meanwhile; in any other `stop` ends it. It may be
        called again when it has returned, and in several threads at a time.

        Raises:
            ReactorError: A reactor runs that cannot serve, or an event loop does.
            ConfigurationError: A setting is for more processes than this one.
        """
        self._check_alone()
        with ReactorOfRun(self.config) as reactor:
            Run(self, reactor, self._new_life).run()

    def stop(self) -> None:
        """Stop the server: at once before it runs, gracefully afterwards. May be called from any thread."""
        life = self._life
        if life is None:
            self.abort_start = True
            return
        with contextlib.suppress(RuntimeError):  # closed: it has ended
            life.loop.call_soon_threadsafe(self._request_stop)

    def hurry(self) -> None:
        """Stop at once, as after a second signal. May be called from any thread."""
        life = self._life
        if life is not None:
            with contextlib.suppress(RuntimeError):  # closed: it has ended
                life.loop.call_soon_threadsafe(life.hurry.set)
        self.stop()

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function on the server's loop; at once if that does not run. May be called by a signal handler."""
        life = self._life
        if life is None or life.loop.is_closed() or not life.loop.is_running():
            function()
        else:
            life.loop.call_soon_threadsafe(function)

    def reload_certificates(self) -> None:
        """Read the files of TLS certificates again, as SIGHUP does. May be called from any thread.

        New handshakes get what was read. A file that is wrong is logged, and what it replaces stays in use.
        """
        life = self._life
        if life is not None and life.wrappers is not None:
            with contextlib.suppress(RuntimeError):  # closed: it has ended
                life.loop.call_soon_threadsafe(life.reload)

    @property
    def connections(self) -> set[Any]:
        """The open connections."""
        return set(self._life.context.connections) if self._life is not None else set()

    @property
    def requests_served(self) -> int:
        """How many requests and WebSockets the application was started for."""
        return self._life.runner.started if self._life is not None else 0

    def describe(self) -> Iterator[str]:
        """Yield lines of text: every application, connection and task, and where it waits.

        For a log, and safe in a signal handler.
        """
        if self._life is None:
            yield "The server has not started"
        else:
            yield from self._life.describe()

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Start the application for one request. Called only where a subclass overrides it.

        Args:
            protocol: The exchange that is to be served.
            scope: Its scope, which an override may change or replace.
        """
        assert self._life is not None  # there is no request before the start
        protocol.scope = scope
        self._life.runner.start(protocol)
        return protocol

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Hand one action to the action logger."""
        if self.action_logger is not None:
            self.action_logger(protocol, action, details)

    def listen_success(self, port: Any) -> None:
        """Note a port that listens."""
        host: Any = port.getHost() if hasattr(port, "getHost") else None
        # A supervisor, which has made the sockets, logs them once for all workers.
        level = logging.INFO if self.hooks.sockets is None else logging.DEBUG
        if hasattr(host, "host") and hasattr(host, "port"):
            self.listening_addresses.append((host.host, host.port))
            logger.log(level, "Listening on TCP address %s:%s", host.host, host.port)
        elif getattr(host, "name", None):
            # The name of an abstract socket begins with a NUL byte, which tools show as @.
            logger.log(level, "Listening on UNIX socket %s", os.fsdecode(host.name).replace("\0", "@"))

    def listen_error(self, failure: Any) -> None:
        """Report a port that cannot listen, and give up."""
        text = failure if isinstance(failure, str) else failure.getErrorMessage()
        log_end(logger, logging.CRITICAL, f"Listen failure: {text}")
        self.exit_code = EXIT_LISTEN
        self.abort_start = True

    # -- inside an asyncio program -----------------------------------------------------------------------

    async def serve(self) -> None:
        """Serve on the running loop until `stop` or `shutdown`, or until cancelled.

        Raises:
            LifespanError: The application's startup failed.
            ConfigurationError: An endpoint cannot be listened on.
        """
        if not self.abort_start:
            await self._serve(lambda: None)

    async def shutdown(self) -> None:
        """Stop gracefully and return when everything has ended."""
        if self._life is not None:
            self._request_stop()
            await self._life.finish()

    async def __aenter__(self) -> Server:
        if self.abort_start:
            raise ConfigurationError("the server was stopped before it started")
        self._check_alone()
        self._embedding = embedding = Embedding()
        try:
            await self._start(embedding.reactor)
        except BaseException:
            await embedding.leave()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._embedding is not None  # made on entering
        try:
            await self.shutdown()
        finally:
            await self._embedding.leave()

    async def _serve(self, ready: Callable[[], object]) -> None:
        async with self:
            ready()
            assert self._life is not None  # made on entering
            await self._life.stop_requested.wait()

    # -- on a reactor that runs already ------------------------------------------------------------------

    def start_on(self, reactor: Any) -> Deferred[None]:
        """Start on a running reactor. The server finishes by itself before that reactor stops.

        Returns:
            Fires when every endpoint listens; fails with `LifespanError` or `ConfigurationError`.
        """
        self._check_alone()

        async def start() -> None:
            await self._start(reactor)
            reactor.addSystemEventTrigger("before", "shutdown", self.finish)

        return Deferred.fromFuture(reactors.event_loop_of(reactor).create_task(start()))

    def finish(self) -> Deferred[None]:
        """Stop gracefully. Fires when everything has ended."""
        if self._life is None:
            return maybeDeferred(lambda: None)
        return Deferred.fromFuture(self._life.loop.create_task(self._life.finish()))

    # -- in a thread -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def run_in_thread(self, timeout: float = 30.0) -> Iterator[Server]:
        """Serve from a thread with a loop of its own while the ``with`` block runs.

        Args:
            timeout: Seconds for the start and for the end.

        Raises:
            LifespanError, ConfigurationError: The server did not start.
            TimeoutError: It did not start or end in time.
        """
        with serving_in_thread(self._serve, self.stop, self.config.loop, timeout):
            yield self

    # -- its life ----------------------------------------------------------------------------------------

    def _check_alone(self) -> None:
        if not self.hooks.manages_processes:
            check_alone(self.config)

    def _new_life(
        self,
        reactor: Any,
        generator_abandoned: Callable[[], None] | None = None,
        interrupted: Callable[[], None] | None = None,
    ) -> ServerLife:
        logs = self.action_logger is not None or type(self).log_action is not Server.log_action
        creates = type(self).create_application is not Server.create_application
        self._life = life = ServerLife(
            self,
            reactor,
            create_application=self.create_application if creates else None,
            log_action=self.log_action if logs else None,
            generator_abandoned=generator_abandoned,
            interrupted=interrupted,
        )
        return life

    # On the loop, where the life of a new run may have begun since `stop` was called.
    def _request_stop(self) -> None:
        assert self._life is not None  # the callers have looked
        self._life.stop_requested.set()

    # For a caller that wants an exception if the server does not serve.
    async def _start(self, reactor: Any) -> None:
        life = self._new_life(reactor)
        try:
            await life.start()
            if self.abort_start:
                raise ConfigurationError(life.listen_failure or "the server was stopped before it started")
        except BaseException:
            await life.finish()
            raise


_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(Server.__init__).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}


# Daphne has it as an attribute of the module: the loop that its reactor runs on.
def __getattr__(name: str) -> Any:
    if name == "twisted_loop":
        return reactors.event_loop_of(reactors.install())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

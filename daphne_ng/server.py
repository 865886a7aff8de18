"""The server: endpoints, lifespan and connections put together, and the ways to run it.

* ``Server(...).run()`` blocks and owns the process, as Daphne's does; ``stop()`` ends it from inside.
* ``await server.serve()``, or ``async with server:``, inside an asyncio program.
* ``server.start_on(reactor)`` and ``server.finish()`` on a Twisted reactor that runs already.
* ``with server.run_in_thread():`` beside other code, for the tests of other projects.

All of them are `_start` and `_finish` on some reactor.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from daphne_ng._types import AnyApplication
from daphne_ng.asgi.exchange import Exchange, lines_of_stack
from daphne_ng.asgi.lifespan import Lifespan
from daphne_ng.asgi.runner import Runner
from daphne_ng.config import Config, check_alone
from daphne_ng.endpoints import describe_listen_error, endpoint_from_string
from daphne_ng.errors import ApplicationLoadError, ConfigurationError, LifespanError
from daphne_ng.net import reactor as reactors
from daphne_ng.net.context import ServerContext
from daphne_ng.net.factory import ServerFactory
from daphne_ng.net.sockets.loops import new_event_loop
from daphne_ng.net.sockets.sharing import ReplayingReactor, SharedSocket
from daphne_ng.serving import process as owning
from daphne_ng.serving.actions import Actions
from daphne_ng.serving.draining import Drain
from daphne_ng.serving.loading import check_application
from daphne_ng.serving.logconfig import asyncio_debug, configure_twisted_log, enable_loggers, log_end
from daphne_ng.serving.running import ReactorOfRun, RunSignals, await_end, hand_on
from daphne_ng.serving.sources import Security
from daphne_ng.wording import counted, http2_support

__all__ = ["EXIT_LIFESPAN", "EXIT_LISTEN", "Server"]

logger = logging.getLogger("daphne_ng.server")

EXIT_LISTEN = 1
"""Exit code when an endpoint cannot be listened on."""
EXIT_LIFESPAN = 3
"""Exit code when the application's startup failed."""

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
        self.listen_failed: Callable[[Exception], None] | None = None
        """Called with the error when an endpoint cannot be listened on, in place of `listen_error`."""
        self.shared_sockets: list[SharedSocket] | None = None
        """What the endpoints listen on, if another process has made the sockets."""
        self.shared_run = ""
        """The same for all workers of one supervisor, and for nobody else; empty for a server of one process."""
        self.stopping_callable: Callable[[], object] | None = None
        """Called without arguments when the server begins to stop."""
        self.hard_end: owning.ExitWatchdog | None = None
        """Ends the process if its end takes longer than all limits together: the command line's."""
        self.alone = True
        """Whether nobody sees to the settings of processes: then they are refused."""
        self.around_reload: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
        """Returns a context in which certificates are read again."""
        self.listeners: list[Any] = []
        """The listening ports."""
        self.listening_addresses: list[tuple[str, int]] = []
        """``(host, port)`` of every TCP endpoint."""
        self._reactor: Any = None
        self._beside: reactors.DaphneReactor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: ServerContext | None = None
        self._runner: Runner | None = None
        self._lifespan: Lifespan | None = None
        self._security: Security | None = None
        self._stop_requested: asyncio.Event | None = None
        self._hurry: asyncio.Event | None = None
        self._finished: asyncio.Task[None] | None = None
        self._stopping = False
        self._listen_failure = ""
        self._embedding: tuple[Any, bool, bool] = (None, False, False)
        self._thread_error: BaseException | None = None
        self._littered: Callable[[], None] | None = None
        self._signals: RunSignals | None = None
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
            if reactors.is_running(reactor):
                self._run_beside(reactor)
            else:
                self._run_whole(reactor)

    def _check_alone(self) -> None:
        if self.alone:
            check_alone(self.config)

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> RunSignals:
        if asyncio_debug(self.verbosity):
            loop.set_debug(True)
        if self.config.asgi_threads is None:
            owning.size_executor(loop, owning.threads_of_environment())
        owning.relax_collector()
        self._littered = owning.GarbageSweep(loop).schedule
        self._signals = signals = RunSignals(self)
        signals.take()
        return signals

    # On a reactor that nobody runs yet.
    def _run_whole(self, reactor: Any) -> None:
        loop = reactors.event_loop_of(reactor)
        asyncio.set_event_loop(loop)
        if self.abort_start:
            return
        configure_twisted_log(self.verbosity)
        signals = self._prepare(loop)
        main = loop.create_task(self._run_main(reactor), name="server")
        try:
            reactor.run(installSignalHandlers=bool(signals))
        finally:
            # Twisted leaves its own in place. What may keep the process now, such as a thread of the application that
            # never ends, must give way to the next signal.
            self._end_run()
        owning.end_tasks(loop)
        if main.done() and not main.cancelled():
            main.result()

    # On a reactor that runs in another thread, and goes on afterwards. Its owner may be about to begin Twisted's log.
    def _run_beside(self, reactor: Any) -> None:
        loop = reactors.event_loop_of(reactor)
        if self.abort_start:
            return
        self._prepare(loop).stop_server()
        ended: Future[None] = Future()

        async def main() -> None:
            configure_twisted_log(self.verbosity)
            reactor.addSystemEventTrigger("before", "shutdown", self._end_beside, ended)
            await self._start_or_say_why(reactor)
            if not self.abort_start:
                assert self._stop_requested is not None  # made by the start
                await self._stop_requested.wait()
            await self._finish()

        reactor.callFromThread(lambda: hand_on(loop.create_task(main(), name="server"), ended))
        try:
            await_end(ended, reactor)
        finally:
            self._end_run()

    # The reactor stops, and its loop with it: by then whoever waits in another thread must have been told.
    def _end_beside(self, ended: Future[None]) -> Deferred[None]:
        assert self._loop is not None  # the reactor runs on it

        async def end() -> None:
            await self._finish()
            await asyncio.wrap_future(ended)

        return Deferred.fromFuture(self._loop.create_task(end()))

    def _end_run(self) -> None:
        assert self._signals is not None  # made by `_prepare`
        self._signals.give_back()
        self._signals = self._littered = None
        if self.hard_end is not None:
            self.hard_end.disarm()

    def stop(self) -> None:
        """Stop the server: at once before it runs, gracefully afterwards. May be called from any thread."""
        loop = self._loop
        if loop is None:
            self.abort_start = True
            return
        with contextlib.suppress(RuntimeError):  # closed: it has ended
            loop.call_soon_threadsafe(self._request_stop)

    def hurry(self) -> None:
        """Stop at once, as after a second signal. May be called from any thread."""
        if self._loop is not None and self._hurry is not None:
            with contextlib.suppress(RuntimeError):  # closed: it has ended
                self._loop.call_soon_threadsafe(self._hurry.set)
        self.stop()

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function on the server's loop; at once if that does not run. May be called by a signal handler."""
        if self._loop is None or self._loop.is_closed() or not self._loop.is_running():
            function()
        else:
            self._loop.call_soon_threadsafe(function)

    def reload_certificates(self) -> None:
        """Read the files of TLS certificates again, as SIGHUP does. May be called from any thread.

        New handshakes get what was read. A file that is wrong is logged, and what it replaces stays in use.
        """
        if self._loop is not None and self._security is not None:
            with contextlib.suppress(RuntimeError):  # closed: it has ended
                self._loop.call_soon_threadsafe(self._reload)

    def _reload(self) -> None:
        assert self._security is not None  # the caller has looked
        with self.around_reload():
            self._security.reload()

    @property
    def connections(self) -> set[Any]:
        """The open connections."""
        return set(self._context.connections) if self._context is not None else set()

    @property
    def requests_served(self) -> int:
        """How many requests and WebSockets the application was started for."""
        return self._runner.started if self._runner is not None else 0

    def describe(self) -> Iterator[str]:
        """Yield lines of text: every application, connection and task, and where it waits.

        For a log, and safe in a signal handler.
        """
        context, runner = self._context, self._runner
        if context is None or runner is None:
            yield "The server has not started"
            return
        state = "stopping" if self._draining else "serving"
        applications = counted(len(runner.exchanges), "application")
        yield f"{state}: {counted(len(context.connections), 'connection')}, {applications} running"
        for exchange in list(runner.exchanges):
            yield exchange.describe()
            if exchange.task is not None:
                yield from lines_of_stack(exchange.task)
        for connection in list(context.connections):
            yield connection.describe()
        serving = {exchange.task for exchange in list(runner.exchanges)}
        for task in asyncio.all_tasks(self._loop) - serving:
            yield f"Task {task.get_name()}"
            yield from lines_of_stack(task)

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Start the application for one request. Called only where a subclass overrides it.

        Args:
            protocol: The exchange that is to be served.
            scope: Its scope, which an override may change or replace.
        """
        assert self._runner is not None  # there is no request before the start
        protocol.scope = scope
        self._runner.start(protocol)
        return protocol

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Hand one action to the action logger."""
        if self.action_logger is not None:
            self.action_logger(protocol, action, details)

    def listen_success(self, port: Any) -> None:
        """Note a port that listens."""
        host: Any = port.getHost() if hasattr(port, "getHost") else None
        # The process that has made the sockets says so once for all workers.
        level = logging.INFO if self.shared_sockets is None else logging.DEBUG
        if hasattr(host, "host") and hasattr(host, "port"):
            self.listening_addresses.append((host.host, host.port))
            logger.log(level, "Listening on TCP address %s:%s", host.host, host.port)
        elif getattr(host, "name", None):
            # Abstract ones begin with a NUL byte; tools show it so.
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
        if self.abort_start:
            return
        async with self:
            assert self._stop_requested is not None  # made by the start
            await self._stop_requested.wait()

    async def shutdown(self) -> None:
        """Stop gracefully and return when everything has ended."""
        self._request_stop()
        await self._finish()

    async def __aenter__(self) -> Server:
        if self.abort_start:
            raise ConfigurationError("the server was stopped before it started")
        self._check_alone()
        reactor, private = _reactor_for(asyncio.get_running_loop())
        attached = not reactor.running
        if attached:
            reactor.attach()
        self._embedding = (reactor, attached, private)
        try:
            await self._start(reactor)
            if self.abort_start:
                raise ConfigurationError(self._listen_failure or "the server was stopped before it started")
        except BaseException:
            await self._finish()
            await self._leave_reactor()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        try:
            await self._finish()
        finally:
            await self._leave_reactor()

    async def _leave_reactor(self) -> None:
        reactor, attached, private = self._embedding
        if attached:
            await reactor.detach()
            if private:
                reactor.close()

    # -- on a reactor that runs already ------------------------------------------------------------------

    def start_on(self, reactor: Any) -> Deferred[None]:
        """Start on a running reactor. The server finishes by itself before that reactor stops.

        Returns:
            Fires when every endpoint listens; fails with `LifespanError` or `ConfigurationError`.
        """
        self._check_alone()
        loop = reactors.event_loop_of(reactor)

        async def start() -> None:
            try:
                await self._start(reactor)
                if self.abort_start:
                    raise ConfigurationError(self._listen_failure or "the server was stopped before it started")
            except BaseException:
                await self._finish()
                raise
            reactor.addSystemEventTrigger("before", "shutdown", self.finish)

        return Deferred.fromFuture(loop.create_task(start()))

    def finish(self) -> Deferred[None]:
        """Stop gracefully. Fires when everything has ended."""
        if self._loop is None:
            return maybeDeferred(lambda: None)
        return Deferred.fromFuture(self._loop.create_task(self._finish()))

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
        ready = threading.Event()
        self._thread_error = None

        async def main() -> None:
            async with self:
                ready.set()
                assert self._stop_requested is not None  # made by the start
                await self._stop_requested.wait()

        def target() -> None:
            loop = new_event_loop(self.config.loop)
            try:
                loop.run_until_complete(main())
            except BaseException as error:
                self._thread_error = error
            finally:
                owning.end_tasks(loop)
                loop.close()
                ready.set()

        thread = threading.Thread(target=target, name="daphne-ng", daemon=True)
        thread.start()
        if not ready.wait(timeout):
            self.stop()
            raise TimeoutError("the server did not start in time")
        if self._thread_error is not None:
            raise self._thread_error
        try:
            yield self
        finally:
            self.stop()
            thread.join(timeout)
        if thread.is_alive():
            raise TimeoutError("the server did not end in time")
        if self._thread_error is not None:
            raise self._thread_error

    # -- start -------------------------------------------------------------------------------------------

    async def _start(self, reactor: Any) -> None:
        loop = asyncio.get_running_loop()
        config = self.config
        self._reactor = reactor
        self._loop = loop
        if not isinstance(reactor, reactors.DaphneReactor):
            # Listens for it, so that every endpoint has our transports.
            self._beside = reactors.DaphneReactor(loop)
            self._beside.attach()
        self._stop_requested = asyncio.Event()
        self._hurry = asyncio.Event()
        self._finished = None
        self._stopping = False
        self._listen_failure = ""
        self.listeners.clear()
        self.listening_addresses.clear()
        owning.size_executor(loop, config.asgi_threads)
        self._runner = runner = Runner(self.application, config, loop, logger)
        runner.littered = self._littered
        runner.interrupted = self._signals.interrupt if self._signals else None
        logs = self.action_logger is not None or type(self).log_action is not Server.log_action
        actions = Actions(self.log_action, loop, logger)
        self._context = context = ServerContext(config, runner, logger, actions.record_refused if logs else None)
        if logs:
            runner.record = actions.record
            runner.record_websocket = actions.record_websocket
        attach = getattr(self.action_logger, "attach", None)
        if attach is not None:
            attach(loop.call_later)
        if type(self).create_application is not Server.create_application:
            context.start_application = self._create_application
        self._lifespan = Lifespan(self.application, config.lifespan, logger)
        try:
            await self._lifespan.startup(config.lifespan_startup_timeout)
        finally:
            enable_loggers()  # it may have been what sets up logging
        runner.state = self._lifespan.state
        context.start_clock()
        factory = ServerFactory(context)
        logger.info("HTTP/2 support %s", http2_support(config.http2, config.h2c))
        self._security = security = Security(config, factory.acceptableProtocols(), loop, context, self.shared_run)
        security.start()
        listening: Any = None
        for description in self.endpoints:
            if self._draining:
                self.abort_start = True  # told to stop meanwhile
                return
            logger.info("Configuring endpoint %s", description)
            try:
                if listening is None:
                    listening = security.reactor(self._beside or reactor)
                    if self.shared_sockets is not None:
                        listening = ReplayingReactor(self._beside or reactor, listening.options, self.shared_sockets)
                endpoint: Any = endpoint_from_string(listening, str(description), security)
                port = await endpoint.listen(factory).asFuture(loop)
            except Exception as error:
                self._listen_failure = describe_listen_error(error, str(description))
                logger.debug("What the endpoint raised:", exc_info=error)
                if self.listen_failed is None:
                    self.listen_error(self._listen_failure)
                else:
                    self.exit_code = EXIT_LISTEN
                    self.abort_start = True
                    self.listen_failed(error)
                return
            self.listeners.append(port)
            self.listen_success(port)
        security.listening()
        if self.ready_callable is not None:
            self.ready_callable()

    async def _run_main(self, reactor: Any) -> None:
        assert self._signals is not None  # made by `_prepare`
        self._signals.bound(reactor)
        # After the first signal Twisted waits for this; a second one hurries.
        reactor.addSystemEventTrigger("before", "shutdown", self._before_shutdown)
        await self._start_or_say_why(reactor)
        if self.abort_start:
            self._stop_reactor()
            return
        assert self._stop_requested is not None  # made by the start
        await self._stop_requested.wait()
        self._stop_reactor()

    async def _start_or_say_why(self, reactor: Any) -> None:
        try:
            await self._start(reactor)
        except LifespanError as error:
            log_end(logger, logging.ERROR, str(error))
            self.exit_code = EXIT_LIFESPAN
            self.abort_start = True
        except Exception as error:
            log_end(logger, logging.ERROR, "The server could not start", error)
            self.exit_code = 1
            self.abort_start = True

    def _stop_reactor(self) -> None:
        if self._reactor is not None and self._reactor.running and not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def _request_stop(self) -> None:
        if self._stop_requested is not None:
            self._stop_requested.set()

    def _create_application(self, exchange: Exchange) -> None:
        assert self._loop is not None  # requests run on it
        exchange.began_at = self._loop.time()
        try:
            self.create_application(exchange, exchange.scope)
        except Exception:
            logger.exception("create_application failed for %s", exchange.describe())
        if exchange.task is None:
            # The override declined; the client gets an answer all the same.
            self._loop.call_soon(exchange.cancel, "the server declined the request")

    def _decline(self, exchange: Exchange) -> None:
        assert self._loop is not None  # requests run on it
        exchange.began_at = self._loop.time()
        self._loop.call_soon(exchange.cancel, "the server is shutting down")

    # -- end ---------------------------------------------------------------------------------------------

    def _before_shutdown(self) -> Deferred[None]:
        assert self._loop is not None  # the reactor runs on it
        self._stopping = True
        if self._signals is not None:
            self._signals.bound_end(owning.max_shutdown_seconds(self.config))
            self._signals.hurry()
        return Deferred.fromFuture(self._loop.create_task(self._finish()))

    @property
    def _draining(self) -> bool:
        return self._finished is not None

    async def _finish(self) -> None:
        if self._loop is None:
            return
        if self._finished is None:
            self._request_stop()
            self._finished = self._loop.create_task(self._drain(), name="drain")
        await asyncio.shield(self._finished)

    async def _drain(self) -> None:
        context, runner, lifespan, hurry = self._context, self._runner, self._lifespan, self._hurry
        # The start made them all.
        assert context is not None
        assert runner is not None
        assert lifespan is not None
        assert hurry is not None
        if self.stopping_callable is not None:
            self.stopping_callable()
        if self._security is not None:
            self._security.stop()
        await Drain(self.config, context, runner, lifespan, hurry, self._decline).run(self.listeners)
        context.stop_clock()
        detach = getattr(self.action_logger, "detach", None)
        if detach is not None:
            detach()
        beside, self._beside = self._beside, None
        if beside is not None:
            await beside.detach()
            beside.close()


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


# The reactor that serves on this running loop, and whether it is ours to close.
def _reactor_for(loop: asyncio.AbstractEventLoop) -> tuple[Any, bool]:
    installed = reactors.current()
    if installed is not None and getattr(installed, "_asyncioEventloop", None) is loop:
        return installed, False
    return reactors.DaphneReactor(loop), True

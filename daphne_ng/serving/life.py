"""One life of a server: it starts the application and listens, serves, and drains. One place for all ways to run.

A life belongs to one reactor and one event loop. `daphne_ng.server.Server` makes a new one at each start, and keeps the
last, which tells of connections and requests when it is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from daphne_ng._types import ASGIApplication
from daphne_ng.asgi.exchange import Exchange, stack_lines, stack_of
from daphne_ng.asgi.lifespan import Lifespan
from daphne_ng.asgi.runner import Runner
from daphne_ng.config import Config
from daphne_ng.endpoints import describe_listen_error, endpoint_from_string
from daphne_ng.net.context import ServerContext
from daphne_ng.net.factory import ServerFactory
from daphne_ng.net.reactor import DaphneReactor
from daphne_ng.net.sockets.sharing import ReplayingReactor
from daphne_ng.serving.actions import Actions
from daphne_ng.serving.draining import Drain
from daphne_ng.serving.hooks import ServerHooks
from daphne_ng.serving.logconfig import enable_loggers
from daphne_ng.serving.process import size_executor
from daphne_ng.serving.wrappers import ServerWrappers
from daphne_ng.stopping import StopNotice, context_of_server, server_starts, server_stops
from daphne_ng.wording import counted, http2_support

if TYPE_CHECKING:
    from daphne_ng.static.application import StaticFiles

__all__ = ["EXIT_LISTEN", "LivingServer", "ServerLife"]

logger = logging.getLogger("daphne_ng.server")

EXIT_LISTEN = 1
"""Exit code when an endpoint cannot be listened on."""


class LivingServer(Protocol):
    """The part of `daphne_ng.server.Server` that its life reads and tells."""

    application: ASGIApplication
    config: Config
    endpoints: list[str]
    hooks: ServerHooks
    action_logger: Any
    ready_callable: Callable[[], object] | None
    listeners: list[Any]
    listening_addresses: list[tuple[str, int]]
    abort_start: bool
    exit_code: int

    def listen_success(self, port: Any) -> None:
        """Note a port that listens."""

    def listen_error(self, failure: Any) -> None:
        """Report a port that cannot listen."""


class ServerLife:
    """A server from its start to its end. Made on the event loop that serves.

    Args:
        server: The server, which is told of its ports, and of a start that failed.
        reactor: A running reactor on this loop.
        create_application: An override of `Server.create_application`; None has the runner start applications.
        log_action: Called as ``log_action(protocol, action, details)`` for each request; None if nobody listens.
        generator_abandoned: Called when an application leaves an asynchronous generator behind.
        interrupted: Called when an application raises `KeyboardInterrupt`.
    """

    def __init__(
        self,
        server: LivingServer,
        reactor: Any,
        *,
        create_application: Callable[[Any, dict[str, Any]], Any] | None = None,
        log_action: Callable[[str, str, dict[str, Any]], None] | None = None,
        generator_abandoned: Callable[[], None] | None = None,
        interrupted: Callable[[], None] | None = None,
    ) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self.reactor = reactor
        self.stop_requested = asyncio.Event()
        """Set when the server is to stop; whoever runs it then calls `finish`."""
        self.hurry = asyncio.Event()
        """Set when the server is to stop at once."""
        self.listen_failure = ""
        """Why the server does not listen, for an error message; empty if it does."""
        self.wrappers: ServerWrappers | None = None
        self._server = server
        self._config = config = server.config
        self._hooks = server.hooks
        self._create = create_application
        # Listens in place of a reactor that is not ours, so that every endpoint has our transports.
        self._own_reactor: DaphneReactor | None = None
        self._listening: Any = None
        self._drain: asyncio.Task[None] | None = None
        server.listeners.clear()
        server.listening_addresses.clear()
        size_executor(loop, config.asgi_threads)
        self._notice = notice = StopNotice()
        serving = context_of_server(notice)
        application = server.application
        self._static: StaticFiles | None = None
        if config.static:
            from daphne_ng.static.application import StaticFiles

            application = self._static = StaticFiles(application, config, loop.time)
        self.runner = runner = serving.run(Runner, application, config, loop, logger)
        runner.generator_abandoned = generator_abandoned
        runner.interrupted = interrupted
        record_refused = None
        if log_action is not None:
            actions = Actions(log_action, loop, logger)
            runner.record = actions.record
            runner.record_websocket = actions.record_websocket
            record_refused = actions.record_refused
        self.context = context = ServerContext(config, runner, logger, record_refused)
        if create_application is not None:
            context.start_application = self._start_by_override
        self._lifespan = Lifespan(server.application, config.lifespan, logger, notice, serving)

    # -- start -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the application and listen. Afterwards the server's `abort_start` tells whether it serves.

        Call `finish` in any case.

        Raises:
            LifespanError: The application's startup failed.
        """
        server_starts(self._notice)
        if not isinstance(self.reactor, DaphneReactor):
            self._own_reactor = DaphneReactor(self.loop)
            self._own_reactor.attach()
        attach = getattr(self._server.action_logger, "attach", None)
        if attach is not None:
            attach(self.loop.call_later)
        try:
            await self._lifespan.startup(self._config.lifespan_startup_timeout)
        finally:
            enable_loggers()  # the application may set up logging in its startup
        self.runner.state = self._lifespan.state
        self.context.start_clock()
        factory = ServerFactory(self.context)
        logger.info("HTTP/2 support %s", http2_support(self._config.http2, self._config.h2c))
        self.wrappers = wrappers = ServerWrappers(
            self._config, factory.acceptableProtocols(), self.loop, self.context, self._hooks.run_id
        )
        wrappers.start()
        if await self._listen_on_all(wrappers, factory):
            wrappers.listening()
            for told in (self._hooks.ready, self._server.ready_callable):
                if told is not None:
                    told()

    async def _listen_on_all(self, wrappers: ServerWrappers, factory: ServerFactory) -> bool:
        server = self._server
        for description in server.endpoints:
            if self.draining:
                server.abort_start = True  # told to stop meanwhile
                return False
            logger.info("Configuring endpoint %s", description)
            try:
                port = await self._listen(str(description), wrappers, factory)
            except Exception as error:
                self._listen_failed(error, str(description))
                return False
            server.listeners.append(port)
            server.listen_success(port)
        return True

    async def _listen(self, description: str, wrappers: ServerWrappers, factory: ServerFactory) -> Any:
        if self._listening is None:
            reactor = self._own_reactor or self.reactor
            self._listening = wrappers.reactor(reactor)
            if self._hooks.sockets is not None:
                self._listening = ReplayingReactor(reactor, self._listening.options, list(self._hooks.sockets))
        endpoint: Any = endpoint_from_string(self._listening, description, wrappers)
        return await endpoint.listen(factory).asFuture(self.loop)

    def _listen_failed(self, error: Exception, description: str) -> None:
        self.listen_failure = describe_listen_error(error, description)
        logger.debug("What the endpoint raised:", exc_info=error)
        if self._hooks.listen_failed is None:
            self._server.listen_error(self.listen_failure)
        else:
            self._server.exit_code = EXIT_LISTEN
            self._server.abort_start = True
            self._hooks.listen_failed(error)

    # -- service -----------------------------------------------------------------------------------------

    def _start_by_override(self, exchange: Exchange[Any]) -> None:
        assert self._create is not None  # otherwise the runner starts applications
        exchange.began_at = self.loop.time()
        try:
            self._create(exchange, exchange.scope)
        except Exception:
            logger.exception("create_application failed for %s", exchange.describe())
        if exchange.task is None:
            # The override declined; the client gets an answer all the same.
            self.loop.call_soon(exchange.cancel, "the server declined the request")

    def reload(self) -> None:
        """Read the files of certificates again."""
        assert self.wrappers is not None  # the caller has looked
        with self._hooks.reloading():
            self.wrappers.reload()

    def describe(self) -> Iterator[str]:
        """Yield lines of text: every application, connection and task, and where it waits."""
        context, runner = self.context, self.runner
        state = "stopping" if self.draining else "serving"
        applications = counted(len(runner.exchanges), "application")
        yield f"{state}: {counted(len(context.connections), 'connection')}, {applications} running"
        for exchange in list(runner.exchanges):
            yield exchange.describe()
            if exchange.task is not None:
                yield from stack_lines(exchange.stack())
        for connection in list(context.connections):
            yield connection.describe()
        serving = {exchange.task for exchange in list(runner.exchanges)}
        for task in asyncio.all_tasks(self.loop) - serving:
            yield f"Task {task.get_name()}"
            coroutine = task.get_coro()
            stack = stack_of(coroutine)
            yield from stack_lines(stack)
            if not stack:
                # A compiled coroutine, as that of a `receive` for which the application has made a task, has no frame.
                yield f"    in {getattr(coroutine, '__qualname__', coroutine)}"

    # -- end ---------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether the end has begun, or is over."""
        return self._drain is not None

    async def finish(self) -> None:
        """Stop gracefully and return when everything has ended. May be called again; a cancelled call stops nothing."""
        if self._drain is None:
            self.stop_requested.set()
            self._drain = self.loop.create_task(self._end(), name="drain")
        await asyncio.shield(self._drain)

    async def _end(self) -> None:
        if self._hooks.stopping is not None:
            self._hooks.stopping()
        if self.wrappers is not None:
            self.wrappers.stop()
        drain = Drain(self._config, self.context, self.runner, self._lifespan, self.hurry, self._decline, self._notify)
        await drain.run(self._server.listeners)
        self.context.stop_clock()
        if self._static is not None:
            self._static.close()
        self.runner.file_readers.close()
        detach = getattr(self._server.action_logger, "detach", None)
        if detach is not None:
            detach()
        own, self._own_reactor = self._own_reactor, None
        if own is not None:
            await own.detach()
            own.close()

    # Both, whoever waited for which.
    def _notify(self) -> bool:
        awaited = server_stops(self._notice)
        return self._lifespan.notify() or awaited

    def _decline(self, exchange: Exchange[Any]) -> None:
        exchange.began_at = self.loop.time()
        self.loop.call_soon(exchange.cancel, "the server is shutting down")

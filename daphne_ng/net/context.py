"""What all connections of a running server share, and the one place where an exchange is made."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Final, Protocol

from daphne_ng.asgi.exchange import Exchange
from daphne_ng.asgi.http import HttpExchange
from daphne_ng.asgi.runner import Runner
from daphne_ng.asgi.scope import http_scope, prepending, websocket_scope
from daphne_ng.asgi.websocket import WebSocketExchange
from daphne_ng.config import Config
from daphne_ng.config.trust import TrustedPeers
from daphne_ng.files import FILES
from daphne_ng.net.client_lines import ClientLines
from daphne_ng.net.proxies import proxies_from
from daphne_ng.net.turn import Turn
from daphne_ng.port import RequestSink, ResponsePort, WebSocketPort, WebSocketSink
from daphne_ng.port.answers import error_answer
from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wire.http.defaults import ResponseDefaults
from daphne_ng.wire.http2.engine import h2_is_tested
from daphne_ng.wire.websocket.handshake import WebSocketRequest

__all__ = ["REFUSALS_MAX", "OpenConnection", "ServerContext"]

REFUSALS_MAX: Final = 100
"""Most connections beyond the limit that are being refused at once: even telling them of the limit is bounded."""

_AT_THE_LIMIT: Final = "The server is at its limit of concurrent requests."
_OVERLOADED: Final = error_answer(503, _AT_THE_LIMIT, ((b"retry-after", b"1"),))


class OpenConnection(Protocol):
    """A connection as the server sees it; `daphne_ng.net.channels.connection.ServerConnection` implements it."""

    def describe(self) -> str:
        """Name the connection in a log line."""

    def shut_down(self) -> None:
        """Finish what has begun, then close."""

    def release(self) -> None:
        """Close the socket if only the client's end is missing."""

    def abort(self) -> None:
        """End the connection now."""


class ServerContext:
    """Shared by every connection of one server.

    Args:
        config: The settings.
        runner: Runs the application.
        log: Logger for what concerns connections.
        refused: Called as ``refused(info, status, detail, head)`` for each request answered without the application;
            without a head where none could be read.
    """

    def __init__(
        self,
        config: Config,
        runner: Runner,
        log: logging.Logger,
        refused: Callable[[ConnectionInfo, int, str, RequestHead | None], None] | None = None,
    ) -> None:
        self.config = config
        self.runner = runner
        self.loop: asyncio.AbstractEventLoop = runner.loop
        self.clock = self.loop.time
        self.log = log
        self.defaults = ResponseDefaults(config.server_name, config.headers, config.date_header)
        self.turn = Turn(self.loop)
        """What reading HTTP/2 takes of a turn of the loop, on all connections."""
        self.connections: set[OpenConnection] = set()
        self.ending = False
        """Whether the server is stopping: connections and WebSockets that begin now are told so."""
        self.refusing = 0
        """Connections beyond the limit that are being told so."""
        self.waiting = 0
        """Connections whose proxy has not said yet whose they are; they count against the limit."""
        files: dict[str, dict[str, Any]] = {}
        if FILES:
            files = {"http.response.pathsend": {"ranges": True}, "http.response.zerocopysend": {}}
        self.extensions_http1: dict[str, dict[str, Any]] = {"http.response.trailers": {}, **files}
        if config.http1_early_hints:
            self.extensions_http1["http.response.early_hint"] = {}
        self.extensions_http2: dict[str, dict[str, Any]] = {
            "http.response.trailers": {},
            "http.response.early_hint": {},
            **files,
        }
        self.start_application: Callable[[Exchange[Any]], None] = runner.start
        # The module of the engines loads Autobahn, which takes its time: it is imported when a server starts.
        from daphne_ng.net.channels.engine import EngineFactory

        self.engines = EngineFactory(config, log)
        if config.http2_plain_path and not h2_is_tested():
            log.info("The plain path of HTTP/2 is off: it was not tested with the version of h2 that is installed.")
        self._refused = refused
        self._limit = config.limit_concurrency
        self.trusted_peers = TrustedPeers(config.forwarded_allow_ips)
        self._proxies = proxies_from(config, self.trusted_peers, log)
        # Whether there is more to look at before a request begins than its Daphne-Root-Path.
        self._checks_requests = self._proxies is not None or self._limit > 0
        self._root_path = config.root_path.rstrip("/")
        self._http_scope, self._websocket_scope = http_scope, websocket_scope
        if config.root_path_prepend:
            self._http_scope, self._websocket_scope = prepending(http_scope), prepending(websocket_scope)
        self._warned_of_root_path = False
        self.lines = ClientLines(log, self.loop, config.client_lines_burst, config.client_lines_rate)
        """Writes what any client can have in the log."""
        runner.tell_of_client = self.lines.tell
        self._date_timer: asyncio.TimerHandle | None = None
        self._all_closed: asyncio.Event | None = None

    # -- time --------------------------------------------------------------------------------------------

    def start_clock(self) -> None:
        """Keep the Date header right, by one timer for the whole server."""
        now = time.time()
        self.defaults.set_date(formatdate(now, usegmt=True))
        # A little past the turn of the second, so that the next reading is surely beyond it.
        self._date_timer = self.loop.call_later(1.001 - now % 1.0, self.start_clock)

    def stop_clock(self) -> None:
        """Stop the timer, and tell what the log has left out."""
        self.lines.sum_up()
        if self._date_timer is not None:
            self._date_timer.cancel()
            self._date_timer = None

    # -- exchanges ---------------------------------------------------------------------------------------

    def begin(
        self,
        head: RequestHead,
        info: ConnectionInfo,
        port: ResponsePort,
        task_ended: Callable[[], None] | None = None,
    ) -> RequestSink | None:
        """Start an exchange, or answer 503 if too many run. None if the port has been used to answer.

        Args:
            head: The request.
            info: Its connection.
            port: Where the answer goes.
            task_ended: See `Exchange.task_ended`; never called where None is returned.
        """
        runner = self.runner
        if self._checks_requests or head.root_path is not None:
            admitted = self._admit(head, info, port)
            if admitted is None:
                return None
            info = admitted
        scope = self._http_scope(head, info, self._root_path, runner.state)
        exchange = HttpExchange(runner, head, info, port, scope)
        if task_ended is not None:
            exchange.task_ended = task_ended
        self.start_application(exchange)
        return exchange

    def begin_websocket(
        self,
        request: WebSocketRequest,
        info: ConnectionInfo,
        port: WebSocketPort,
        task_ended: Callable[[], None] | None = None,
    ) -> WebSocketSink | None:
        """Start the exchange of a handshake, as `begin` does for a request."""
        runner, head = self.runner, request.head
        if self._checks_requests or head.root_path is not None:
            admitted = self._admit(head, info, port.response)
            if admitted is None:
                return None
            info = admitted
        scope = self._websocket_scope(head, info, self._root_path, runner.state, request.subprotocols)
        exchange = WebSocketExchange(runner, head, info, port, scope, request.subprotocols)
        if task_ended is not None:
            exchange.task_ended = task_ended
        self.start_application(exchange)
        return exchange

    # Return the client's info for a request that may begin; None if the request has been refused.
    def _admit(self, head: RequestHead, info: ConnectionInfo, response: ResponsePort) -> ConnectionInfo | None:
        if self._proxies is not None:
            info = self._proxies.apply_claims(head, info)
        if self._limit and len(self.runner.exchanges) >= self._limit:
            response.start(503, *_OVERLOADED, True, False)
            self.refused(info, 503, _AT_THE_LIMIT, head)
            return None
        # The warning comes once per server: a scanner that sends the field should not fill the log.
        if head.root_path is not None and not info.trusted and not self._warned_of_root_path:
            self._warned_of_root_path = True
            self.log.warning(
                "Ignored Daphne-Root-Path from %s, which is no trusted proxy; if it is one, name it with "
                "--forwarded-allow-ips; --root-path sets it for every request",
                info.client_name,
            )
        return info

    def refused(
        self,
        info: ConnectionInfo,
        status: int,
        detail: str,
        head: RequestHead | None = None,
        *,
        begun: bool = False,
        again: bool = False,
    ) -> None:
        """Report a request that was answered without the application; `again` if not the first of its connection."""
        if head is not None and self._proxies is not None:
            info = self._proxies.apply_claims(head, info)
        tell = self.log.debug if again else self.lines.tell
        tell("Refused a request from %s: %d %s", info.client_name, status, detail)
        if self._refused is not None and not begun:
            self._refused(info, status, detail, head)

    # -- connections -------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the connection limit is reached."""
        limit = self.config.limit_connections
        return bool(limit) and len(self.connections) + self.waiting >= limit

    @property
    def refusals_full(self) -> bool:
        """Whether there is no room left for connections that would only be told of the limit."""
        limit = self.config.limit_connections
        return bool(limit) and len(self.connections) + self.waiting + self.refusing >= limit + REFUSALS_MAX

    def forget(self, connection: OpenConnection) -> None:
        """Forget a connection that is closed."""
        self.connections.discard(connection)
        self.check_closed()

    def check_closed(self) -> None:
        """See whether that was the last, after a connection was closed or has ceased to wait."""
        if self._all_closed is not None and not self.connections and not self.waiting:
            self._all_closed.set()

    async def wait_closed(self, timeout: float) -> bool:
        """Wait until no connection is open; tell whether that came about within `timeout` seconds."""
        if not self.connections and not self.waiting:
            return True
        self._all_closed = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                await self._all_closed.wait()
        except TimeoutError:
            return False
        finally:
            self._all_closed = None
        return True

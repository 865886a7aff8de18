"""What action loggers are told: the details of each request and each WebSocket, by Daphne's names and a few more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import time
from typing import Any, Final

from daphne_ng.asgi.http import HttpExchange
from daphne_ng.asgi.websocket import WebSocketExchange
from daphne_ng.port.answers import CLIENT_LEFT
from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo

__all__ = ["Actions"]

# The beginnings of lines that are remembered: one for each client of the current second, each some 60 bytes.
_OPENINGS_MAX: Final = 1024


class Actions:
    """Calls an action logger; a failure of it is logged, and is nobody else's concern.

    Where the lines of answered requests go to a stream as they are (`AccessLogGenerator.writes_plainly`), they are put
    together here, without details that nobody would read.

    Args:
        log_action: Called as ``log_action(protocol, action, details)``.
        loop: Whose clock measures.
        log: For failures.
    """

    def __init__(
        self,
        log_action: Callable[[str, str, dict[str, Any]], None],
        loop: asyncio.AbstractEventLoop,
        log: logging.Logger,
    ) -> None:
        self._log_action = log_action
        self._loop = loop
        self._log = log
        plainly = getattr(log_action, "writes_plainly", None)
        self._lines: Any = log_action if plainly is not None and plainly() else None
        self._openings: dict[str | None, str] = {}
        self._since = 0.0
        self._until = 0.0

    def record(self, exchange: HttpExchange) -> None:
        """Tell of a request that was answered, or whose client has left."""
        head = exchange.head
        status = exchange.status
        try:
            if self._lines is not None:
                # The same line as AccessLogGenerator.write_entry() makes of the details below.
                request = f"{head.method} {head.target.decode('latin-1')}"
                # Printable ASCII is what need not be escaped, but for these two. A pattern costs more than four looks.
                if not request.isascii() or not request.isprintable() or '"' in request or "\\" in request:
                    request = self._lines.escape_request(request)
                size = exchange.body_bytes_sent
                code = CLIENT_LEFT if status is None else status
                opening = self._opening(exchange.info.client_text)
                self._lines.stream.write(
                    f'{opening}{request}" {code} {size}\n' if size else f'{opening}{request}" {code} -\n'
                )
                return
            self._log_action(
                "http",
                "complete",
                {
                    "path": head.target.decode("latin-1"),
                    "status": CLIENT_LEFT if status is None else status,
                    "method": head.method,
                    "client": exchange.info.client_text,
                    "time_taken": self._loop.time() - exchange.began_at,
                    "size": exchange.body_bytes_sent,
                    "http_version": head.http_version,
                },
            )
        except Exception:
            self._log.exception("The access log failed")

    # The beginning of a line, up to the request.
    def _opening(self, client: str | None) -> str:
        now = time()
        if not self._since <= now < self._until:
            self._openings.clear()
            self._since = float(int(now))
            self._until = self._since + 1.0
        known = self._openings.get(client)
        if known is not None:
            return known
        if len(self._openings) >= _OPENINGS_MAX:
            self._openings.clear()
        opening: str = self._lines.opening(client, self._since)
        self._openings[client] = opening
        return opening

    def record_websocket(self, exchange: WebSocketExchange, action: str) -> None:
        """Tell of what happened to a WebSocket."""
        head = exchange.head
        details: dict[str, Any] = {
            "path": head.raw_path.decode("latin-1"),
            "client": exchange.info.client_text,
            "http_version": head.http_version,
        }
        if action != "connecting":
            details["time_taken"] = self._loop.time() - exchange.began_at
        if exchange.code is not None:
            details["code"] = exchange.code
            details["bytes_received"] = exchange.bytes_received
            details["bytes_sent"] = exchange.bytes_sent
            if exchange.status is not None:
                details["status"] = exchange.status
        try:
            self._log_action("websocket", action, details)
        except Exception:
            self._log.exception("The access log failed")

    def record_refused(self, info: ConnectionInfo, status: int, detail: str, head: RequestHead | None) -> None:
        """Tell of a request that was answered without the application."""
        try:
            self._log_action(
                "http",
                "complete",
                {
                    "path": head.target.decode("latin-1") if head is not None else "-",
                    "status": status,
                    "method": head.method if head is not None else "-",
                    "client": info.client_text,
                    "time_taken": 0.0,
                    "size": 0,
                    "http_version": head.http_version if head is not None else "",
                },
            )
        except Exception:
            self._log.exception("The access log failed")

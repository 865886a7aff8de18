"""A project's own runserver, which replaces everything that Daphne's lets it replace."""

import os
from typing import Any

from daphne_ng.management.commands.runserver import Command as Runserver
from daphne_ng.server import Server


class OwnServer(Server):
    """Says what it gets."""

    def __init__(self, application: Any, endpoints: Any = None, signal_handlers: bool = True, **more: Any) -> None:
        super().__init__(application, endpoints, signal_handlers, **more)
        print("own server", sorted(more), flush=True)


class Command(Runserver):
    """Overrides every point that Daphne has."""

    server_cls = OwnServer
    protocol = "gopher"
    default_port = os.environ.get("OWNSERVER_PORT", "8000")

    def get_application(self, options: Any) -> Any:
        """Wrap the project's application."""
        application = super().get_application(options)

        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            if scope.get("path") == "/own":
                await send({"type": "http.response.start", "status": 299})
                await send({"type": "http.response.body", "body": b"own"})
            else:
                await application(scope, receive, send)

        return wrapped

    def log_action(self, protocol: str, action: str, details: Any) -> None:
        """Print instead of logging."""
        print("own log", protocol, action, details["path"], flush=True)

"""A project's own runserver with a loop of its own, after Daphne's: it makes the server itself."""

from typing import Any

from daphne_ng.endpoints import build_endpoint_description_strings
from daphne_ng.management.commands.runserver import Command as Runserver


class Command(Runserver):
    """Serves with what Daphne's command has put on itself by then."""

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Serve."""

        def ready() -> None:
            port = server.listening_addresses[0][1]
            self.stdout.write(f"Starting development server at http://{self.addr}:{port}/\n")
            self.stdout.write("Quit the server with CONTROL-C.\n")

        server = self.server_cls(
            application=self.get_application(options),
            endpoints=build_endpoint_description_strings(host=self.addr, port=self.port),
            signal_handlers=not options["use_reloader"],
            action_logger=self.log_action,
            http_timeout=self.http_timeout,
            root_path="",
            websocket_handshake_timeout=self.websocket_handshake_timeout,
            websocket_max_message_size=self.websocket_max_message_size,
            websocket_max_frame_size=self.websocket_max_frame_size,
            ready_callable=ready,
        )
        server.run()

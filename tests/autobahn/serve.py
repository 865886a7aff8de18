"""Serve the echo application on a free port of 127.0.0.1, write the port to stdout, and stop at SIGTERM.

Without the limits that some cases go beyond on purpose: messages of 16 MiB, and of 65536 fragments. Everything else
is the default.
"""

from __future__ import annotations

import sys

from app import application

from daphne_ng.config import Config
from daphne_ng.server import Server

config = Config(
    lifespan="off",
    websocket_max_message_size=0,
    websocket_max_frame_size=0,
    websocket_max_fragments=0,
)


def ready() -> None:
    print(server.listening_addresses[0][1], flush=True)


server = Server(application, endpoints=["tcp:0:interface=127.0.0.1"], config=config, ready_callable=ready)
server.run()
sys.exit(server.exit_code)

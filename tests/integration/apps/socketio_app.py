"""Socket.IO as an ASGI application."""

from __future__ import annotations

from typing import Any

import socketio

# A client that polls waits, when it leaves, until its last poll has timed out, whatever the server: after both of these.
server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=[], ping_interval=0.5, ping_timeout=1.5)
application = socketio.ASGIApp(server)


@server.on("repeat")
async def repeat(sid: str, data: Any) -> Any:
    """Answer with what came."""
    return data


@server.on("say")
async def say(sid: str, text: str) -> None:
    """Tell everybody."""
    await server.emit("said", text)


@server.on("transport")
async def transport(sid: str) -> str:
    """Tell which transport the client uses now."""
    return str(server.transport(sid))

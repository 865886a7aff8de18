import asyncio

ends = asyncio.Event()


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"I wait.\n", "more_body": True})
        await ends.wait()
        await send({"type": "http.response.body", "body": b"The server is stopping.\n"})
    else:
        raise ValueError(f"this application does not serve {scope['type']}")


async def lifespan(scope, receive, send):
    await receive()  # lifespan.startup
    noticed = "lifespan.shutdown.notice" in scope.get("extensions", {})
    await send({"type": "lifespan.startup.complete", "shutdown_notice": noticed})
    if noticed:
        await receive()  # lifespan.shutdown.notice: requests still run
        ends.set()
    await receive()  # lifespan.shutdown: there are none any more
    await send({"type": "lifespan.shutdown.complete"})

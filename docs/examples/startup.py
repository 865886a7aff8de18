async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "http":
        body = f"{scope['state']['greeting']}\n".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})
    else:
        raise ValueError(f"this application does not serve {scope['type']}")


async def lifespan(scope, receive, send):
    await receive()  # lifespan.startup
    scope["state"]["greeting"] = "Hello from the startup."
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})

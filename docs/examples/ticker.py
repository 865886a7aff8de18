from daphne_ng import stopping


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(f"this application does not serve {scope['type']}")
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for tick in range(60):
        # Raises a kind of OSError once the client has left; daphne-ng takes it as the end of the request.
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % tick, "more_body": True})
        if await stopping.wait_stopping(timeout=1):
            break
    await send({"type": "http.response.body", "body": b""})

async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(f"this application does not serve {scope['type']}")
    name = scope["path"].strip("/") or "world"
    body = f"Hello, {name}!\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

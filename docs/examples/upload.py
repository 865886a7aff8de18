import hashlib


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(f"this application does not serve {scope['type']}")
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return  # the client left before its upload was complete
        digest.update(message["body"])
        more = message["more_body"]
    body = f"{digest.hexdigest()}\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})

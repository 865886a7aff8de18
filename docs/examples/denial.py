async def application(scope, receive, send):
    if scope["type"] != "websocket":
        raise ValueError(f"this application does not serve {scope['type']}")
    await receive()  # websocket.connect
    headers = dict(scope["headers"])
    if not same_origin(headers):
        await send({"type": "websocket.close"})  # 403 without a word
        return
    if b"authorization" not in headers:
        await deny(scope, send, 401, [(b"www-authenticate", b"Basic")], b"Who are you?\n")
        return
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "Welcome."})


def same_origin(headers):
    # Only browsers send it, and any page may open a WebSocket to any host.
    origin = headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2].lower() == headers[b"host"].lower()


async def deny(scope, send, status, headers, body):
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})  # a server without the extension answers 403
        return
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})

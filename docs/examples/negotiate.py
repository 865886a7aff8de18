SPOKEN = ("chat.v2", "chat.v1")


async def application(scope, receive, send):
    if scope["type"] != "websocket":
        raise ValueError(f"this application does not serve {scope['type']}")
    await receive()  # websocket.connect
    subprotocol = next((name for name in SPOKEN if name in scope["subprotocols"]), None)
    if subprotocol is None:
        await send({"type": "websocket.close"})  # 403
        return
    headers = [(b"set-cookie", b"seen=1; Path=/; SameSite=Strict")]
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
    await send({"type": "websocket.send", "text": f"We speak {subprotocol}."})
    await send({"type": "websocket.close", "code": 4000, "reason": "That was all."})

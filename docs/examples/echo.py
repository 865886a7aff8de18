async def application(scope, receive, send):
    if scope["type"] != "websocket":
        raise ValueError(f"this application does not serve {scope['type']}")
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})

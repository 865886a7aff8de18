import asyncio

outboxes = set()


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await chat(scope["path"].strip("/") or "somebody", receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"Open the console of the browser.\n"})
    else:
        raise ValueError(f"this application does not serve {scope['type']}")


async def chat(name, receive, send):
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    outbox = asyncio.Queue(maxsize=100)
    outboxes.add(outbox)
    tell_all(f"{name} is here")
    try:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(write(outbox, send))
            while (message := await receive())["type"] == "websocket.receive":
                tell_all(f"{name}: {message.get('text', '')}")
            writer.cancel()
    finally:
        outboxes.discard(outbox)
        tell_all(f"{name} has left")


async def write(outbox, send):
    while True:
        await send({"type": "websocket.send", "text": await outbox.get()})


def tell_all(text):
    for outbox in outboxes:
        if not outbox.full():  # whoever reads too slowly misses some
            outbox.put_nowait(text)

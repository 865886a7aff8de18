"""Django, a consumer of Channels, and plain ASGI for what has to be seen while it is under way."""

import asyncio
import json
import os

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
django = get_asgi_application()
received = 0


class Everybody(AsyncWebsocketConsumer):
    """What one says all hear, with the process that passed it on to them."""

    async def connect(self):
        await self.channel_layer.group_add("all", self.channel_name)
        await self.accept()
        await self.send(json.dumps({"pid": os.getpid(), "client": self.scope["client"]}))

    async def disconnect(self, code):
        await self.channel_layer.group_discard("all", self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("all", {"type": "said", "text": text_data})

    async def said(self, event):
        await self.send(json.dumps({"pid": os.getpid(), "text": event["text"]}))


sockets = URLRouter([path("ws/", Everybody.as_asgi())])


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await sockets(scope, receive, send)
    elif scope["path"] in PAGES:
        await PAGES[scope["path"]](receive, send)
    else:
        await django(scope, receive, send)


async def answer(send, content):
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


async def health(receive, send):
    await answer(send, {"pid": os.getpid()})


async def slow(receive, send):
    await asyncio.sleep(1)
    await answer(send, {"pid": os.getpid()})


async def upload(receive, send):
    global received
    received, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        received += len(message["body"])
        more = message["more_body"]
    await answer(send, {"received": received})


async def progress(receive, send):
    await answer(send, {"received": received})


async def events(receive, send):
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(100):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.sleep(0.2)
    await send({"type": "http.response.body", "body": b""})


PAGES = {
    "/health": health,
    "/slow": slow,
    "/upload/": upload,
    "/progress": progress,
    "/events/": events,
}

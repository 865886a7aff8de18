"""Channels' consumers, one of each kind."""

from typing import Any

from channels.db import database_sync_to_async
from channels.exceptions import DenyConnection, StopConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from django.urls import path

from guestbook.models import Entry

# The last disconnect of each kind, for ``/closed``.
closed: dict[str, Any] = {}


class Sync(WebsocketConsumer):
    """Runs in threads, and writes what it hears into the guestbook."""

    def connect(self) -> None:
        """Accept with what the client offers."""
        offered = self.scope["subprotocols"]
        self.accept(offered[0] if offered else None, headers=[(b"x-kind", b"sync")])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Write text down; send bytes back."""
        if bytes_data is not None:
            self.send(bytes_data=bytes_data[::-1])
        elif text_data == "close":
            self.close(4001, "as you wish")
        else:
            Entry.objects.create(name="socket", text=text_data)
            self.send(text_data=f"{Entry.objects.filter(name='socket').count()} written")

    def disconnect(self, code: int) -> None:
        """Note the code."""
        closed["sync"] = code


class Json(JsonWebsocketConsumer):
    """The same with JSON."""

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Answer."""
        self.send_json({"heard": content})


class Room(AsyncWebsocketConsumer):
    """Everybody in a room hears everybody."""

    async def connect(self) -> None:
        """Join the room."""
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Tell the room."""
        await self.channel_layer.group_send(self.room, {"type": "room.said", "text": text_data})

    async def room_said(self, event: dict[str, str]) -> None:
        """Hear what was said."""
        await self.send(text_data=event["text"])

    async def disconnect(self, code: int) -> None:
        """Leave the room, and say so."""
        await self.channel_layer.group_discard(self.room, self.channel_name)
        await self.channel_layer.group_send(self.room, {"type": "room.said", "text": f"somebody left with {code}"})


class AsyncJson(AsyncJsonWebsocketConsumer):
    """Tells who asks, and how the others were closed."""

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Answer."""
        if content == "fail":
            raise RuntimeError("this consumer is broken")
        entries = await database_sync_to_async(Entry.objects.count)()
        await self.send_json({"user": str(self.scope["user"]), "closed": closed, "entries": entries})


class Members(AsyncWebsocketConsumer):
    """For those who are logged in."""

    async def connect(self) -> None:
        """Refuse everybody else, in one of Channels' ways."""
        if self.scope["user"].is_authenticated:
            await self.accept()
            await self.send(f"hello {self.scope['user']}")
        elif self.scope["query_string"] == b"deny":
            raise DenyConnection
        elif self.scope["query_string"] == b"stop":
            raise StopConsumer
        else:
            await self.close()


websocket_urlpatterns = [
    path("ws/sync", Sync.as_asgi()),
    path("ws/json", Json.as_asgi()),
    path("ws/room/<str:room>", Room.as_asgi()),
    path("ws/asyncjson", AsyncJson.as_asgi()),
    path("ws/members", Members.as_asgi()),
]

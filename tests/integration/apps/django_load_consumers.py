"""Consumers of Channels that use the database, for `django_load`."""

from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import URLRouter
from django.urls import path
from django_load import counts, query


class Async(AsyncWebsocketConsumer):
    """Queries for every message, and when it is left."""

    async def connect(self) -> None:
        """Query, and accept."""
        await database_sync_to_async(query)()
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Query, and answer."""
        await database_sync_to_async(query)()
        await self.send(text_data)

    async def disconnect(self, code: int) -> None:
        """Query, and count."""
        await database_sync_to_async(query)()
        counts["left"] += 1


class Sync(WebsocketConsumer):
    """The same, in a thread."""

    def connect(self) -> None:
        """Query, and accept."""
        query()
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Query, and answer."""
        query()
        self.send(text_data)

    def disconnect(self, code: int) -> None:
        """Query, and count."""
        query()
        counts["left"] += 1


websockets: Any = URLRouter([path("async", Async.as_asgi()), path("sync", Sync.as_asgi())])

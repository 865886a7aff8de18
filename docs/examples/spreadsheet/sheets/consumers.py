import json
import re
from uuid import uuid4

from asgiref.sync import async_to_sync
from channels.generic.websocket import JsonWebsocketConsumer

from .models import CELL, TEXT_MAX, Sheet

NAME_MAX = 20


class SheetConsumer(JsonWebsocketConsumer):
    """One tab that shows a sheet. Tabs with the same sheet are a group, and hear of each other's edits."""

    group = None

    async def __call__(self, scope, receive, send):
        # disconnect() is left out when the client goes away while something is being sent to it.
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.leave()

    def connect(self):
        slug = self.scope["url_route"]["kwargs"]["slug"]
        self.sheet = Sheet.objects.filter(slug=slug).first()
        if self.sheet is None:
            self.close()
            return
        self.me = {"id": uuid4().hex, "name": "", "cell": ""}
        self.group = f"sheet.{slug}"
        # First the group, then the snapshot: an edit in between comes twice, and the page knows it by its revision.
        async_to_sync(self.channel_layer.group_add)(self.group, self.channel_name)
        self.accept()
        self.send_sheet()

    def disconnect(self, code):
        async_to_sync(self.leave)()

    async def leave(self):
        group, self.group = self.group, None
        if group is None:
            return
        await self.channel_layer.group_discard(group, self.channel_name)
        left = {"type": "tell", "message": {"type": "left", "id": self.me["id"]}}
        await self.channel_layer.group_send(group, left)

    def receive_json(self, content):
        match content:
            case {"type": "edit", "number": int(number), "cell": str(cell), "text": str(text)} if (
                re.fullmatch(CELL, cell) and len(text) <= TEXT_MAX
            ):
                revision = self.sheet.write(cell, text)
                edit = {"type": "edit", "revision": revision, "cell": cell, "text": text}
                self.tell_group({**edit, "by": self.me, "number": number})
            case {"type": "presence", "name": str(name), "cell": str(cell)} if (
                re.fullmatch(CELL, cell) and name.strip() and len(name) <= NAME_MAX
            ):
                newcomer = not self.me["name"]
                self.me |= {"name": name.strip(), "cell": cell}
                self.tell_group({"type": "presence", "who": self.me})
                if newcomer:
                    event = {"type": "who.is.here", "asks": self.channel_name}
                    async_to_sync(self.channel_layer.group_send)(self.group, event)
            case {"type": "resync"}:
                self.send_sheet()
            case _:
                self.close(4400, "not understood")

    @classmethod
    def decode_json(cls, text_data):
        """Return None for what is not JSON, or not Unicode (half a surrogate pair)."""
        try:
            content = json.loads(text_data)
            json.dumps(content, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return None
        return content

    def send_sheet(self):
        revision, cells = self.sheet.snapshot()
        self.send_json({"type": "sheet", "you": self.me["id"], "revision": revision, "cells": cells})

    def tell_group(self, message):
        async_to_sync(self.channel_layer.group_send)(self.group, {"type": "tell", "message": message})

    def tell(self, event):
        self.send_json(event["message"])

    def who_is_here(self, event):
        if self.me["name"] and event["asks"] != self.channel_name:
            answer = {"type": "tell", "message": {"type": "presence", "who": self.me}}
            async_to_sync(self.channel_layer.send)(event["asks"], answer)

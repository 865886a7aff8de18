import json

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.utils import timezone

from .models import GONE, TEXT_MAX, Message, Room

SIGNED_OUT = 4401
NOT_UNDERSTOOD = 4400


def group_of_user(user):
    return f"user.{user.pk}"


class RoomConsumer(AsyncJsonWebsocketConsumer):
    """One tab of a user in a room."""

    tab = None

    async def __call__(self, scope, receive, send):
        # disconnect() is left out when the client goes away while something is being sent to it.
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.leave()

    async def connect(self):
        self.user = self.scope["user"]
        self.room = await Room.objects.filter(slug=self.scope["url_route"]["kwargs"]["slug"]).afirst()
        if not self.user.is_authenticated or self.room is None:
            await self.close()  # before accept(): the handshake is answered with 403
            return
        self.group = f"room.{self.room.slug}"
        # First the group, then the history: a message in between comes twice, and the page knows it by its id.
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.channel_layer.group_add(group_of_user(self.user), self.channel_name)
        await self.room.tabs.filter(seen_at__lt=timezone.now() - GONE).adelete()
        self.tab = await self.room.tabs.acreate(user=self.user, channel=self.channel_name)
        await self.accept()
        await self.send_json({"type": "history", "you": self.user.username, "messages": await self.room.history()})
        await self.channel_layer.group_send(self.group, {"type": "people.changed"})

    async def disconnect(self, code):
        await self.leave()

    async def leave(self):
        tab, self.tab = self.tab, None
        if tab is None:
            return
        await tab.adelete()
        await self.channel_layer.group_discard(group_of_user(self.user), self.channel_name)
        await self.channel_layer.group_discard(self.group, self.channel_name)
        await self.channel_layer.group_send(self.group, {"type": "people.changed"})

    async def receive_json(self, content):
        match content:
            case {"type": "say", "text": str(text), "key": str(key)} if (
                text.strip() and len(text) <= TEXT_MAX and 0 < len(key) <= 40
            ):
                await self.say(text.strip(), key)
            case {"type": "writing"}:
                await self.tell_room({"type": "writing", "author": self.user.username})
            case {"type": "here"}:
                await self.tab.asave()
            case _:
                await self.close(NOT_UNDERSTOOD, "not understood")

    @classmethod
    async def decode_json(cls, text_data):
        """Return None for what is not JSON, or not Unicode (half a surrogate pair)."""
        try:
            content = json.loads(text_data)
            json.dumps(content, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return None
        return content

    async def say(self, text, key):
        message, new = await Message.objects.select_related("author").aget_or_create(
            author=self.user, key=key, defaults={"room": self.room, "text": text}
        )
        said = {"type": "message", **message.as_json()}
        if new:
            await self.tell_room(said)
        else:
            await self.send_json(said)

    async def tell_room(self, message):
        await self.channel_layer.group_send(self.group, {"type": "tell", "message": message})

    async def tell(self, event):
        await self.send_json(event["message"])

    async def people_changed(self, event):
        # Asked for by each tab rather than sent with the event: of two events that overtake each other, the last one
        # to arrive still shows what is so.
        await self.send_json({"type": "people", "names": await self.room.people()})

    async def signed_out(self, event):
        await self.close(SIGNED_OUT, "signed out")

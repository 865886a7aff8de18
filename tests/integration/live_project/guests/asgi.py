"""Django, and a synchronous consumer."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "guests.settings")
pages = get_asgi_application()

from channels.generic.websocket import WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path

from guests.models import Guest


class Greeter(WebsocketConsumer):
    """Writes down who says what their name is."""

    def receive(self, text_data: str = "", bytes_data: bytes = b"") -> None:
        """Greet."""
        Guest.objects.create(name=text_data)
        self.send(f"Hello, {text_data}, number {Guest.objects.count()}!")


sockets = AllowedHostsOriginValidator(URLRouter([path("ws", Greeter.as_asgi())]))
application = ProtocolTypeRouter({"http": pages, "websocket": sockets})

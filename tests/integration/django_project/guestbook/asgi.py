"""The application: Django, and in front of it the static files of the admin; beside it Channels' consumers."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "guestbook.settings")

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

application = ASGIStaticFilesHandler(get_asgi_application())

# After Django has been set up.
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator

from guestbook.consumers import websocket_urlpatterns

with_channels = ProtocolTypeRouter(
    {
        "http": application,
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)

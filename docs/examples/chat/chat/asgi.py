import os

from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")
django_application = get_asgi_application()

# These need Django to be set up.
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from rooms.urls import websocket_urlpatterns

application = ProtocolTypeRouter(
    {
        # In production the web server in front serves what collectstatic gathers.
        "http": ASGIStaticFilesHandler(django_application) if settings.DEBUG else django_application,
        # A page of another site could open a WebSocket here with the user's cookies: its origin is looked at first.
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)

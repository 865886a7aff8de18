import os

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpRequest, JsonResponse
from django.urls import path


def who(request: HttpRequest) -> JsonResponse:
    """Who answers, and what of the request has come through."""
    return JsonResponse(
        {
            "pid": os.getpid(),
            "server": "asgi" if hasattr(request, "scope") else "wsgi",
            "method": request.method,
            "url": request.build_absolute_uri(),
            "client": request.META["REMOTE_ADDR"],
            "port": request.META.get("REMOTE_PORT"),
            "forwarded_for": request.META.get("HTTP_X_FORWARDED_FOR"),
            "read": len(request.body),
        }
    )


def say(request: HttpRequest) -> JsonResponse:
    """Tell every WebSocket, whichever process it is in."""
    text = request.body.decode()
    async_to_sync(get_channel_layer().group_send)("all", {"type": "said", "text": text})
    return JsonResponse({"pid": os.getpid()})


urlpatterns = [path("who/", who), path("say/", say)]

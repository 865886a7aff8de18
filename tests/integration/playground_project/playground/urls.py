"""Pages, each for something that a development server must cope with."""

import asyncio
import time
from collections.abc import AsyncIterator

from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path

from daphne_ng import stopping
from playground.words import GREETING


def index(request: HttpRequest) -> HttpResponse:
    """Greet."""
    return HttpResponse(GREETING, content_type="text/plain")


def whence(request: HttpRequest) -> HttpResponse:
    """Tell where the request came from, as Django sees it."""
    return JsonResponse(
        {
            "client": request.META["REMOTE_ADDR"],
            "port": request.META.get("REMOTE_PORT"),
            "scheme": request.scheme,
            "script": request.META["SCRIPT_NAME"],
            "path": request.path,
            "asgi": hasattr(request, "scope"),
        }
    )


def status(request: HttpRequest, code: int) -> HttpResponse:
    """Answer with a status."""
    return HttpResponse(status=code)


async def events(request: HttpRequest) -> HttpResponseBase:
    """Send an event now and then, for ever."""

    async def stream() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: tick\n\n"
                await asyncio.sleep(0.1)
        finally:
            print("stream ended", flush=True)

    return StreamingHttpResponse(stream(), content_type="text/event-stream")


async def until(request: HttpRequest) -> HttpResponseBase:
    """Send an event, and another when the server stops."""

    async def stream() -> AsyncIterator[bytes]:
        yield b"data: tick\n\n"
        await stopping.wait_stopping()
        yield b"data: last\n\n"

    return StreamingHttpResponse(stream(), content_type="text/event-stream")


async def slow(request: HttpRequest) -> HttpResponse:
    """Take a long time."""
    await asyncio.sleep(600)
    return HttpResponse()


def stuck(request: HttpRequest) -> HttpResponse:
    """Never come back."""
    print("stuck", flush=True)
    time.sleep(600)
    return HttpResponse()


urlpatterns = [
    path("", index),
    path("whence", whence),
    path("status/<int:code>", status),
    path("events", events),
    path("until", until),
    path("slow", slow),
    path("stuck", stuck),
]

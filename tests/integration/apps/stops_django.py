"""Django behind Channels, which have no lifespan: a stream, and a view that waits in a thread."""

from collections.abc import AsyncIterator

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

from daphne_ng import stopping

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="only a test")


async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def stream() -> AsyncIterator[bytes]:
        yield b"data: begun\n\n"
        await stopping.wait_stopping()
        yield b"data: ended\n\n"
        print("the stream is over", flush=True)

    return StreamingHttpResponse(stream(), content_type="text/event-stream")


def thread(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"stopping": stopping.wait_stopping_in_thread(60)})


urlpatterns = [path("events", events), path("thread", thread)]
application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("", AsyncWebsocketConsumer.as_asgi())])}
)

import asyncio
from pathlib import Path

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connections
from django.http import StreamingHttpResponse
from django.urls import path

from daphne_ng import stopping

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="only an example")

FILE = Path(__file__)


async def download(request):
    async def pieces():
        file = await asyncio.to_thread(FILE.open, "rb")
        try:
            while piece := await asyncio.to_thread(file.read, 65536):
                yield piece
        finally:
            file.close()

    stat = await asyncio.to_thread(FILE.stat)
    headers = {"Content-Length": str(stat.st_size)}
    return StreamingHttpResponse(pieces(), content_type="application/octet-stream", headers=headers)


async def events(request):
    # Whatever is to be read from the database first goes here. Then its connection is given back.
    await sync_to_async(connections.close_all)()

    async def numbers():
        try:
            for number in range(3600):
                yield f"data: {number}\n\n"
                if await stopping.wait_stopping(timeout=1):
                    break
        finally:
            print("The stream has ended.")  # also when the client has left, or the server stops

    return StreamingHttpResponse(numbers(), content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


urlpatterns = [path("download", download), path("events", events)]
application = get_asgi_application()

from pathlib import Path

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse
from django.urls import path
from django.utils.decorators import async_only_middleware

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[f"{__name__}.stream_files"],  # the last of yours
    ROOT_URLCONF=__name__,
    SECRET_KEY="only an example",
)

FILE = Path(__file__)


@async_only_middleware
def stream_files(get_response):
    async def middleware(request):
        response = await get_response(request)
        if response.streaming and not response.is_async:
            if isinstance(response, FileResponse):
                response.block_size = 65536  # instead of 4096: each piece is fetched from a thread
            response.streaming_content = pieces(response.streaming_content)
        return response

    return middleware


async def pieces(parts):
    while (part := await sync_to_async(next)(parts, None)) is not None:
        yield part


def download(request):
    return FileResponse(FILE.open("rb"), as_attachment=True)


urlpatterns = [path("download", download)]
application = get_asgi_application()

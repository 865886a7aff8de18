import os
from pathlib import Path

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[f"{__name__}.name_files"],  # the first of yours
    ROOT_URLCONF=__name__,
    SECRET_KEY="only an example",
)

FILE = Path(__file__)


def name_files(get_response):
    """Answer with the path of a file in place of the file, where the server can send it."""

    def middleware(request):
        response = get_response(request)
        extensions = getattr(request, "scope", {}).get("extensions", {})
        file = getattr(response, "file_to_stream", None)
        if "http.response.pathsend" not in extensions or not isinstance(getattr(file, "name", None), str):
            return response
        named = HttpResponse(status=response.status_code, headers=response.headers)
        named.cookies = response.cookies
        request.scope["send_path"] = os.path.abspath(file.name)  # not a header: those may come from elsewhere
        response.close()
        return named

    return middleware


def send_files(application):
    """Have the server send the files that such responses name."""

    async def wrapper(scope, receive, send):
        async def send_path(message):
            if message["type"] == "http.response.body" and "send_path" in scope:
                message = {"type": "http.response.pathsend", "path": scope["send_path"]}
            await send(message)

        await application(scope, receive, send_path)

    return wrapper


def download(request):
    return FileResponse(FILE.open("rb"), as_attachment=True)


urlpatterns = [path("download", download)]
application = send_files(get_asgi_application())

"""Views, sync and async, one for each thing that a server must carry for Django."""

import asyncio
import hashlib
import itertools
import threading
import time
from collections.abc import AsyncIterator

from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt

from guestbook.models import Entry

PIECE = 64 * 1024
_FILLING = bytes(range(256)) * (PIECE // 256)

# What happened to views whose client left: name -> time.monotonic() of the end.
_ends: dict[str, float] = {}


class EntryForm(ModelForm):
    """The form of the guest book."""

    class Meta:
        model = Entry
        fields = ["name", "text"]


def index(request: HttpRequest) -> HttpResponse:
    """Show the book; take an entry, and send the browser back with a redirect."""
    form = EntryForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        return redirect("index")
    return render(request, "guestbook/index.html", {"form": form, "entries": Entry.objects.order_by("written")})


@csrf_exempt
async def echo(request: HttpRequest, rest: str) -> JsonResponse:
    """Tell what arrived, and set a few headers and cookies."""
    response = JsonResponse(
        {
            "method": request.method,
            "rest": rest,
            "path": request.path,
            "path_info": request.path_info,
            "script_name": request.META["SCRIPT_NAME"],
            "query": list(request.GET.lists()),
            "query_string": request.META["QUERY_STRING"],
            "headers": dict(request.headers),
            "cookies": request.COOKIES,
            "body": request.body.decode(),
            "form": list(request.POST.lists()),
            "reverse": reverse("echo", args=["there"]),
            "absolute": request.build_absolute_uri(),
        }
    )
    response["X-Repeated"] = request.headers.get("X-Word", "")
    response.set_cookie("first", "1")
    response.set_cookie("second", "2", httponly=True)
    return response


@csrf_exempt
def upload(request: HttpRequest) -> JsonResponse:
    """Hash an uploaded file from where Django's upload handler has put it."""
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for chunk in file.chunks(1 << 20):
        digest.update(chunk)
    return JsonResponse(
        {
            "name": file.name,
            "type": file.content_type,
            "size": file.size,
            "sha256": digest.hexdigest(),
            "on_disk": hasattr(file, "temporary_file_path"),
            "note": request.POST["note"],
        }
    )


async def download(request: HttpRequest) -> StreamingHttpResponse:
    """Stream numbered pieces of 64 KiB."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(int(request.GET["pieces"])):
            yield number.to_bytes(8, "big") + _FILLING[8:]

    return StreamingHttpResponse(pieces(), content_type="application/octet-stream")


async def events(request: HttpRequest) -> StreamingHttpResponse:
    """Stream events until the client leaves: one, or with ``?every=SECONDS`` one after another."""
    every = request.GET.get("every")

    async def stream() -> AsyncIterator[str]:
        try:
            for number in itertools.count(1):
                yield f"data: {number}\n\n"
                if every is None:
                    await asyncio.Event().wait()
                else:
                    await asyncio.sleep(float(every))
        finally:
            _ends[request.GET["name"]] = time.monotonic()

    return StreamingHttpResponse(stream(), content_type="text/event-stream")


async def slow(request: HttpRequest) -> HttpResponse:
    """Answer after a minute, for clients that will have left by then."""
    try:
        await asyncio.sleep(60)
    finally:
        _ends[request.GET["name"]] = time.monotonic()
    return HttpResponse("late")


def witness(request: HttpRequest, name: str) -> JsonResponse:
    """Tell how long ago the view of this name ended, in seconds; null while it has not."""
    ended = _ends.get(name)
    return JsonResponse({"ago": None if ended is None else time.monotonic() - ended})


def sleep(request: HttpRequest) -> HttpResponse:
    """Block a thread for a while."""
    time.sleep(float(request.GET["seconds"]))
    return HttpResponse("slept")


async def where(request: HttpRequest) -> JsonResponse:
    """Tell which thread async views run in: the one of the event loop."""
    return JsonResponse({"main": threading.current_thread() is threading.main_thread()})


def broken(request: HttpRequest) -> HttpResponseBase:
    """Fail."""
    raise RuntimeError("this view is broken")

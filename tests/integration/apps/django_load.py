"""A Django project in one module, for what load does to it: database connections, long responses, clients that leave.

What it counts is told at ``/counts``, in front of Django, so that asking changes nothing.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import django
from django.conf import settings

DATA = Path(os.environ.get("LOAD_DATA", "."))
POSTGRES = os.environ.get("LOAD_POSTGRES")
MAX_AGE = os.environ.get("LOAD_MAX_AGE", "0")
PIECE = 64 * 1024

_DATABASE: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": DATA / "load.sqlite3",
    "CONN_MAX_AGE": None if MAX_AGE == "None" else int(MAX_AGE),
}
if POSTGRES:
    _DATABASE |= {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "HOST": POSTGRES,
        "USER": "postgres",
        "OPTIONS": {"application_name": "load"},
    }
    if os.environ.get("LOAD_POOL"):
        _DATABASE["OPTIONS"]["pool"] = {"min_size": 0, "max_size": int(os.environ["LOAD_POOL"]), "max_idle": 1}

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": _DATABASE},
    USE_TZ=True,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    FILE_UPLOAD_TEMP_DIR=DATA,
    LOGGING={"version": 1, "disable_existing_loggers": False},
)
django.setup()

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished, request_started
from django.db import connection, connections
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import path

counts: Counter[str] = Counter()
ends: dict[str, float] = {}
"""What ended when: name -> time.monotonic()."""


def count(what: str) -> Any:
    """Return a receiver that counts a signal."""

    def counted(**_: object) -> None:
        counts[what] += 1

    return counted


request_started.connect(count("started"), weak=False)
request_finished.connect(count("finished"), weak=False)


def query() -> None:
    """Use the database, so that this thread has a connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    counts["queries"] += 1


aquery = sync_to_async(query)


def ended(request: HttpRequest) -> None:
    """Note that a view has ended."""
    if "name" in request.GET:
        ends[request.GET["name"]] = time.monotonic()
    counts["ended"] += 1


# -- views ------------------------------------------------------------------------------------------------------


def sync(request: HttpRequest) -> HttpResponse:
    """Query, and block the thread for a while."""
    query()
    time.sleep(float(request.GET.get("seconds", 0)))
    ended(request)
    return HttpResponse("done")


async def poll(request: HttpRequest) -> HttpResponse:
    """Query, and wait for a while."""
    try:
        await aquery()
        await asyncio.sleep(float(request.GET.get("seconds", 60)))
    except asyncio.CancelledError:
        counts["cancelled"] += 1
        raise
    finally:
        ended(request)
    return HttpResponse("done")


async def events(request: HttpRequest) -> HttpResponseBase:
    """Query, and send events: one, or with ``?every=SECONDS`` one after another."""
    await aquery()
    if "release" in request.GET:
        await sync_to_async(connections.close_all)()
    every = request.GET.get("every")

    async def stream() -> AsyncIterator[str]:
        try:
            for number in itertools.count(1):
                yield f"data: {number}\n\n"
                if every is None:
                    await asyncio.Event().wait()
                else:
                    await asyncio.sleep(float(every))
        except asyncio.CancelledError:
            counts["cancelled"] += 1
            raise
        finally:
            ended(request)

    return StreamingHttpResponse(stream(), content_type="text/event-stream")


async def stream(request: HttpRequest) -> HttpResponseBase:
    """Query, and stream pieces of 64 KiB, as many as are taken."""
    await aquery()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for _ in range(int(request.GET["pieces"])):
                counts["pieces"] += 1
                yield bytes(PIECE)
        finally:
            ended(request)

    return StreamingHttpResponse(pieces())


def sync_stream(request: HttpRequest) -> HttpResponseBase:
    """Query, and stream from a synchronous generator, which Django gathers before it sends."""
    query()

    def pieces() -> Iterator[bytes]:
        for _ in range(int(request.GET["pieces"])):
            counts["pieces"] += 1
            time.sleep(float(request.GET.get("every", 0)))
            yield bytes(PIECE)

    return StreamingHttpResponse(pieces())


class CountedFile:
    """A file that tells when it is closed."""

    def __init__(self, name: Path) -> None:
        self._file = name.open("rb")
        self.name = str(name)

    def read(self, size: int = -1) -> bytes:
        """Read."""
        counts["pieces"] += 1
        return self._file.read(size)

    def close(self) -> None:
        """Close, and say so."""
        counts["closed files"] += 1
        self._file.close()


def file(request: HttpRequest) -> HttpResponseBase:
    """Query, and answer with a file."""
    query()
    return FileResponse(CountedFile(DATA / request.GET["name"]))


async def afile(request: HttpRequest) -> HttpResponseBase:
    """Query, and stream a file as the documentation has it."""
    await aquery()
    opened = CountedFile(DATA / request.GET["name"])

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while piece := await asyncio.to_thread(opened.read, PIECE):
                yield piece
        finally:
            opened.close()

    return StreamingHttpResponse(pieces(), content_type="application/octet-stream")


urlpatterns = [
    path("sync", sync),
    path("poll", poll),
    path("events", events),
    path("stream", stream),
    path("sync-stream", sync_stream),
    path("file", file),
    path("afile", afile),
]


# -- the application --------------------------------------------------------------------------------------------


def state() -> dict[str, Any]:
    """Return what ``/counts`` tells."""
    database = str(DATA / "load.sqlite3")
    opened = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            opened += os.readlink(f"/proc/self/fd/{number}") == database
        except OSError:
            continue
    now = time.monotonic()
    return {
        **counts,
        "threads": threading.active_count(),
        "collector": gc.get_threshold()[0],
        "sqlite": opened,
        "ago": {name: now - at for name, at in ends.items()},
    }


_django = get_asgi_application()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Tell the counts, or let Django answer."""
    if scope["type"] == "http" and scope["path"] == "/counts":
        body = json.dumps(state()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
    elif scope["type"] == "websocket":
        from django_load_consumers import websockets

        await websockets(scope, receive, send)
    else:
        await _django(scope, receive, send)

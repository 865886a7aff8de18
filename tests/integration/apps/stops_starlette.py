"""Starlette: a stream that waits for the notice in the state of its request."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"greeting": "hello"}
    print("the lifespan is over", flush=True)


async def events(request: Request) -> StreamingResponse:
    assert request.state.greeting == "hello"

    async def stream() -> AsyncIterator[bytes]:
        yield b"data: begun\n\n"
        await request.state.server_stopping
        yield b"data: ended\n\n"
        print("the stream is over", flush=True)

    return StreamingResponse(stream(), media_type="text/event-stream")


application = Starlette(routes=[Route("/events", events)], lifespan=lifespan)

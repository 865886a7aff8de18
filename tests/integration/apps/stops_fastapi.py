"""FastAPI: an event stream that another makes, and an endpoint that waits in a thread."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from daphne_ng import stopping


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    print("the lifespan is over", flush=True)


application = FastAPI(lifespan=lifespan)


async def endless() -> AsyncIterator[bytes]:
    try:
        yield b"data: begun\n\n"
        await asyncio.sleep(3600)
    finally:
        print("the stream is over", flush=True)


async def stream() -> AsyncIterator[bytes]:
    async for item in stopping.until_stopping(endless()):
        yield item
    yield b"data: ended\n\n"


@application.get("/events")
async def events() -> StreamingResponse:
    return StreamingResponse(stream(), media_type="text/event-stream")


@application.get("/thread")
def thread() -> dict[str, bool]:
    return {"stopping": stopping.wait_stopping_in_thread(60)}

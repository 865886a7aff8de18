"""Litestar: a stream that waits for the notice, and the hook of its shutdown."""

from collections.abc import AsyncIterator

from litestar import Litestar, get
from litestar.response import Stream

from daphne_ng import stopping


async def stream() -> AsyncIterator[bytes]:
    yield b"data: begun\n\n"
    await stopping.wait_stopping()
    yield b"data: ended\n\n"
    print("the stream is over", flush=True)


@get("/events", sync_to_thread=False)
def events() -> Stream:
    return Stream(stream(), media_type="text/event-stream")


@get("/thread", sync_to_thread=True)
def thread() -> dict[str, bool]:
    return {"stopping": stopping.wait_stopping_in_thread(60)}


async def over() -> None:
    print("the lifespan is over", flush=True)


application = Litestar(route_handlers=[events, thread], on_shutdown=[over])

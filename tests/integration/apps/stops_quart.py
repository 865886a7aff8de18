"""Quart: a stream that waits for the notice, and the hook of its shutdown."""

from collections.abc import AsyncIterator

from quart import Quart, Response

from daphne_ng import stopping

application = Quart(__name__)


@application.route("/events")
async def events() -> Response:
    async def stream() -> AsyncIterator[bytes]:
        yield b"data: begun\n\n"
        await stopping.wait_stopping()
        yield b"data: ended\n\n"
        print("the stream is over", flush=True)

    response = Response(stream(), mimetype="text/event-stream")
    response.timeout = None
    return response


@application.route("/thread")
def thread() -> dict[str, bool]:
    return {"stopping": stopping.wait_stopping_in_thread(60)}


@application.after_serving
async def over() -> None:
    print("the lifespan is over", flush=True)

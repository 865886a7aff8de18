import asyncio

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from daphne_ng import stopping

app = FastAPI()


async def numbers():
    for number in range(3600):
        yield f"data: {number}\n\n"
        await asyncio.sleep(1)


@app.get("/events")
async def events():
    return StreamingResponse(stopping.until_stopping(numbers()), media_type="text/event-stream")


@app.get("/poll")
async def poll(request: Request):
    # Without an import: absent where another server serves.
    notice = getattr(request.state, "server_stopping", None)
    ended = notice is not None and await notice.wait(timeout=30)
    return {"news": None, "ask": "elsewhere" if ended else "again"}

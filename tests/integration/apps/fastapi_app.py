"""A FastAPI application with a lifespan, a database that is none, uploads and streams."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import (
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    HTTPException,
    Query,
    Request,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from fastapi.requests import HTTPConnection
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field

logger = logging.getLogger(__name__)


class Plant(BaseModel):
    """What is stored."""

    name: str = Field(min_length=1)
    leaves: int = Field(ge=0)


class Session:
    """Stands for a database session: open while a request uses it."""

    def __init__(self) -> None:
        self.open = True


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the store, and log what is in it at the end."""
    app.state.plants = {}
    app.state.sessions_closed = 0
    yield
    logger.info("the store closes with %s", sorted(app.state.plants))


application = FastAPI(lifespan=lifespan)


async def session(connection: HTTPConnection) -> AsyncIterator[Session]:
    """Open a session for one request or WebSocket."""
    opened = Session()
    try:
        yield opened
    finally:
        opened.open = False
        connection.app.state.sessions_closed += 1


@application.post("/plants", status_code=201)
async def create(plant: Plant, request: Request, opened: Annotated[Session, Depends(session)]) -> Plant:
    """Store a plant."""
    assert opened.open
    request.app.state.plants[plant.name] = plant
    return plant


@application.get("/plants/{name}")
def read(name: str, request: Request) -> Plant:
    """Return a plant; a sync function, which FastAPI runs in a thread."""
    assert threading.current_thread() is not threading.main_thread()
    try:
        plant: Plant = request.app.state.plants[name]
    except KeyError:
        raise HTTPException(404, "no such plant") from None
    return plant


@application.delete("/plants/{name}", status_code=204)
async def delete(name: str, request: Request) -> None:
    """Remove a plant."""
    del request.app.state.plants[name]


@application.get("/sessions")
async def sessions(request: Request) -> int:
    """Tell how many sessions were closed."""
    closed: int = request.app.state.sessions_closed
    return closed


@application.post("/photo")
async def photo(photo: Annotated[UploadFile, File()], title: Annotated[str, Form()]) -> dict[str, str | int | None]:
    """Hash an uploaded file."""
    digest, size = hashlib.sha256(), 0
    while part := await photo.read(1 << 20):
        digest.update(part)
        size += len(part)
    return {"title": title, "name": photo.filename, "size": size, "sha256": digest.hexdigest()}


@application.post("/later")
async def later(tasks: BackgroundTasks, plant: Plant, request: Request) -> str:
    """Store a plant after the answer."""

    async def store() -> None:
        await asyncio.sleep(0.3)
        request.app.state.plants[plant.name] = plant

    tasks.add_task(store)
    return "later"


@application.get("/count")
async def count(to: int) -> StreamingResponse:
    """Stream numbers."""

    def numbers() -> object:
        for number in range(to):
            yield f"{number}\n"

    return StreamingResponse(numbers(), media_type="text/plain")  # type: ignore[arg-type]


async def visitor(
    websocket: WebSocket, cookie: Annotated[str | None, Cookie()] = None, token: Annotated[str | None, Query()] = None
) -> str:
    """Tell who it is by cookie or token, or refuse."""
    if cookie is None and token is None:
        raise WebSocketException(code=1008, reason="who are you?")
    return cookie or token or ""


@application.websocket("/garden/{plant}")
async def garden(
    websocket: WebSocket,
    plant: str,
    who: Annotated[str, Depends(visitor)],
    opened: Annotated[Session, Depends(session)],
    times: int = 1,
) -> None:
    """Repeat, for as long as the client stays; the session is open all the time."""
    if plant == "nettle":
        await websocket.send_denial_response(PlainTextResponse("it stings\n", 423))
        return
    await websocket.accept()
    try:
        while True:
            text = await websocket.receive_text()
            assert opened.open
            if text == "weed":
                raise WebSocketException(code=4004, reason="no weeds")
            for _ in range(times):
                await websocket.send_json({"who": who, "plant": plant, "text": text})
    except WebSocketDisconnect as error:
        websocket.app.state.plants[f"{plant}-{who}"] = Plant(name=f"closed with {error.code}", leaves=0)

import asyncio

from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.routing import Route

from daphne_ng import stopping


async def numbers():
    for number in range(3600):
        yield {"data": number}
        await asyncio.sleep(1)


async def events(request):
    return EventSourceResponse(stopping.until_stopping(numbers()))


application = Starlette(routes=[Route("/events", events)])

"""Files as response bodies: ``http.response.pathsend`` and ``http.response.zerocopysend``.

A small file is read and sent as any body is. Of a larger one the port sends what it can straight from the descriptor
(`ResponsePort.send_file`), and the rest is read in bounded pieces as the client takes them.
"""

from __future__ import annotations

import asyncio
from sys import getrecursionlimit, setrecursionlimit
from typing import Any

from daphne_ng._types import Headers
from daphne_ng.asgi.exchange import BURST_MAX_BYTES, SPARE_FRAMES, Exchange
from daphne_ng.errors import DaphneError
from daphne_ng.files import PIECE_BYTES, SLICE_BYTES, FileBody
from daphne_ng.port import ResponsePort

__all__ = ["has_length", "send_rest"]


def has_length(headers: Headers) -> bool:
    """Tell whether there is a Content-Length, or something that the port is going to refuse."""
    try:
        return any(name.lower() == b"content-length" for name, _value in headers)
    except (AttributeError, TypeError, ValueError):
        return True


async def _has_room(exchange: Exchange[Any], port: ResponsePort) -> bool:
    waiter = port.writable()
    while waiter is not None:
        await waiter
        if exchange.is_over():
            return False
        waiter = port.writable()
    return True


# A call of the port stands in a ``try`` of this very frame: see `Exchange._break_off`.
async def send_rest(exchange: Exchange[Any], port: ResponsePort, file: FileBody) -> bool:
    """Send what is left of a file as parts of a body that go on.

    Returns:
        Whether all of it was sent; if not, the exchange is over.

    Raises:
        BodyLengthMismatch: See `ResponsePort.body`.
        FileShortened, OSError: The file cannot be read to its end.
    """
    direct = True
    burst = 0
    while await _has_room(exchange, port):
        if not file.left:
            return True
        data = b""
        if direct:
            await file.warm()
        else:
            data = await file.read(PIECE_BYTES)
        if exchange.is_over():
            break
        try:
            if direct:
                sent = port.send_file(file.descriptor, file.offset, min(SLICE_BYTES, file.left))
                direct = sent >= 0
                sent = max(sent, 0)
                file.took(sent)
            else:
                port.body(data, False)
                sent = len(data)
        except DaphneError:
            raise
        except BaseException:
            setrecursionlimit(getrecursionlimit() + SPARE_FRAMES)
            exchange._break_off()
            setrecursionlimit(getrecursionlimit() - SPARE_FRAMES)
            raise
        burst += sent
        if burst >= BURST_MAX_BYTES:
            burst = 0
            await asyncio.sleep(0)
            if exchange.is_over():
                break
    return False

"""One request on a connection of HTTP/1.1, from its head to the end of its body."""

from __future__ import annotations

from typing import Any

from daphne_ng._types import Fields
from daphne_ng.pieces import append_piece
from daphne_ng.port import RequestSink
from daphne_ng.port.head import RequestHead

__all__ = ["Http1Message"]


class Http1Message:
    """One request on the connection: its head, and its body until an exchange takes it over."""

    # Defaults on the class, as in `RequestHead`.
    sink: RequestSink | None = None
    parts: Any = ()
    """Body parts that came before the exchange."""
    body_bytes = 0
    """Body bytes parsed so far."""
    chunk_raw_bytes = 0
    """Bytes read of a chunked body, its framing included."""
    trailer_bytes = 0
    ended = False
    ordinary = False
    """Whether its head has no special fields but the `daphne_ng.wire.http1.head_memo.ORDINARY` ones."""
    trailers: Fields = ()

    def __init__(self, head: RequestHead) -> None:
        self.head = head

    def add_part(self, data: bytes) -> None:
        """Keep a body part for the exchange to come."""
        if self.parts:
            append_piece(self.parts, data)
        else:
            self.parts = [data]

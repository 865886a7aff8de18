"""Uploads of the demo: counted and hashed while they arrive, never kept, with their progress as server-sent events."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from daphne_ng.demo.exchange import Clock, Exchange
from daphne_ng.demo.streams import event

__all__ = [
    "UPLOAD_ENTRIES",
    "UPLOAD_EXPIRES",
    "UPLOAD_LONGEST_PAUSE",
    "UPLOAD_SLOW_RATE",
    "Upload",
    "Uploads",
    "progress_events",
    "receive_upload",
]

UPLOAD_ENTRIES = 100
"""Uploads whose progress can be asked for; beyond it the one idle longest is forgotten."""
UPLOAD_EXPIRES = 60.0
"""Seconds after which an idle upload is forgotten."""
UPLOAD_SLOW_RATE = 4_000_000
"""Bytes a second that ``/upload?pace=slow`` reads, to make back-pressure visible on a fast link."""
UPLOAD_LONGEST_PAUSE = 1.0
"""Seconds, at most, between two reads of a slow upload, whatever the size of a chunk."""
PROGRESS_INTERVAL = 0.1
"""Seconds between two looks at an upload."""
PROGRESS_WAITING_LOOKS = 300
"""Looks at an upload that does not begin: 30 seconds."""
PROGRESS_LOOKS = 36_000
"""Looks at any upload: an hour."""


@dataclass(slots=True)
class Upload:
    """What is known of one upload. The body itself is never kept."""

    state: Literal["waiting", "receiving", "complete", "aborted"] = "waiting"
    """``waiting``: somebody watches, but the upload has not begun."""
    expected: int | None = None
    """Content-Length in bytes, if there was one."""
    received: int = 0
    """Bytes that ``receive()`` has handed over."""
    chunks: int = 0
    """Messages they came in, empty ones not counted."""
    touched: float = 0.0
    """Monotonic time of the last change."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will change."""
        return self.state in ("complete", "aborted")

    def report(self) -> dict[str, str | int | None]:
        """Return what a progress event says."""
        return {"state": self.state, "bytes": self.received, "total": self.expected, "chunks": self.chunks}


class Uploads:
    """The uploads by id, idle longest first; at most `UPLOAD_ENTRIES`, each for `UPLOAD_EXPIRES` after its last change.

    An upload that is forgotten goes on; only its progress can no longer be asked for.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._entries: OrderedDict[str, Upload] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def watch(self, upload_id: str) -> Upload:
        """Return the upload of this id, which may be still to come."""
        self._expire()
        return self._entries.get(upload_id) or self._add(upload_id)

    def begin(self, upload_id: str) -> Upload | None:
        """Return the upload to count into, or None while another one of this id is running."""
        self._expire()
        upload = self._entries.get(upload_id)
        if upload is not None and upload.state == "receiving":
            return None
        if upload is None or upload.finished:
            upload = self._add(upload_id)
        upload.state = "receiving"
        return upload

    def touch(self, upload_id: str, upload: Upload) -> None:
        """Note a change, so that the upload is not forgotten yet."""
        upload.touched = self._monotonic()
        if self._entries.get(upload_id) is upload:
            self._entries.move_to_end(upload_id)

    def _add(self, upload_id: str) -> Upload:
        self._entries.pop(upload_id, None)
        while len(self._entries) >= UPLOAD_ENTRIES:
            self._entries.popitem(last=False)
        upload = self._entries[upload_id] = Upload(touched=self._monotonic())
        return upload

    def _expire(self) -> None:
        deadline = self._monotonic() - UPLOAD_EXPIRES
        while self._entries and next(iter(self._entries.values())).touched <= deadline:
            self._entries.popitem(last=False)


async def progress_events(clock: Clock, upload: Upload) -> AsyncGenerator[bytes, None]:
    """Yield a report whenever the upload has changed, and a last one named ``end``."""
    reported = None
    for look in range(PROGRESS_LOOKS):
        if upload.finished or (upload.state == "waiting" and look >= PROGRESS_WAITING_LOOKS):
            break
        report = upload.report()
        if report != reported:
            reported = report
            yield event(report, name="progress")
        await clock.sleep(PROGRESS_INTERVAL)
    yield event(upload.report(), name="end")


def _content_length(exchange: Exchange) -> int | None:
    text = exchange.header(b"content-length")
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


async def receive_upload(exchange: Exchange, uploads: Uploads, clock: Clock) -> None:
    """Serve one upload: read its body to the end, and answer with its size and hash."""
    upload_id = exchange.query.get("id", "")
    if not re.fullmatch(r"[\w-]{0,64}", upload_id, re.ASCII):
        await exchange.refuse(HTTPStatus.BAD_REQUEST)
        return
    # Without an id nobody can ask for the progress, so nothing is remembered.
    upload = uploads.begin(upload_id) if upload_id else Upload("receiving")
    if upload is None:
        await exchange.refuse(HTTPStatus.CONFLICT)
        return
    try:
        result = await _count(exchange, uploads, upload_id, upload, clock)
    finally:
        upload.state = "aborted" if upload.state == "receiving" else upload.state
    if result is not None:
        await exchange.respond(HTTPStatus.OK, "application/json", json.dumps(result).encode() + b"\n")


# Reads the body to its end; None if the client left before.
async def _count(
    exchange: Exchange, uploads: Uploads, upload_id: str, upload: Upload, clock: Clock
) -> dict[str, str | int | float] | None:
    digest = hashlib.sha256()
    started = clock.monotonic()
    slow = exchange.query.get("pace") == "slow"
    upload.expected = _content_length(exchange)
    while (message := await exchange.receive())["type"] == "http.request":
        body = message.get("body", b"")
        digest.update(body)
        upload.received += len(body)
        upload.chunks += bool(body)
        uploads.touch(upload_id, upload)
        if not message.get("more_body", False):
            upload.state = "complete"
            seconds = round(clock.monotonic() - started, 3)
            return {"bytes": upload.received, "sha256": digest.hexdigest(), "chunks": upload.chunks, "seconds": seconds}
        if slow:
            pause = upload.received / UPLOAD_SLOW_RATE - (clock.monotonic() - started)
            if pause > 0:
                await clock.sleep(min(pause, UPLOAD_LONGEST_PAUSE))
    return None

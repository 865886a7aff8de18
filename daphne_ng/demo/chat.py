"""The chat of the demo: a room in which every WebSocket hears what one says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from daphne_ng.demo.exchange import Exchange, converse
from daphne_ng.demo.page import protocol_name

__all__ = [
    "CHAT_FRAME_LENGTH",
    "CHAT_HISTORY",
    "CHAT_MEMBERS",
    "CHAT_NAME_LENGTH",
    "CHAT_OUTBOX",
    "CHAT_TEXT_LENGTH",
    "Chat",
    "Post",
]

CHAT_MEMBERS = 100
"""Open sockets; one more is refused."""
CHAT_HISTORY = 50
"""Messages that a new tab is shown."""
CHAT_OUTBOX = 256
"""Messages waiting for one socket. Above `CHAT_MEMBERS`, for each who comes or goes makes one message."""
CHAT_FRAME_LENGTH = 4096
"""Characters in a WebSocket message: room for the longest text, escaped as JSON six for one."""
CHAT_TEXT_LENGTH = 500
"""Characters in what is said."""
CHAT_NAME_LENGTH = 32
"""Characters in a name; the rest is cut off."""

# RFC 6455 section 7.4.1, and the IANA registry for 1013.
GOING_AWAY = 1001
MESSAGE_TOO_BIG = 1009
TRY_AGAIN_LATER = 1013


@dataclass(slots=True, eq=False)
class Member:
    """One open socket of the chat."""

    outbox: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(CHAT_OUTBOX))
    """Messages on their way to the socket."""
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when the server wants the socket closed; the result is the close code."""

    def deliver(self, text: str) -> None:
        """Queue a message. A socket too slow for that is ended; its tab comes back and reads the history."""
        try:
            self.outbox.put_nowait(text)
        except asyncio.QueueFull:
            self.end(TRY_AGAIN_LATER)

    def end(self, code: int) -> None:
        """Have the socket closed with ``code``, if it is not ending already."""
        if not self.ended.done():
            self.ended.set_result(code)


@dataclass(frozen=True, slots=True)
class Post:
    """Something said."""

    name: str
    text: str

    @classmethod
    def parse(cls, frame: str) -> Post | None:
        """Read ``{"name": ..., "text": ...}``; None if it is anything else, or the text is empty or too long."""
        try:
            data = json.loads(frame)
        except (ValueError, RecursionError):  # brackets nested a thousand deep fit into a frame
            return None
        if not isinstance(data, dict):
            return None
        name, text = data.get("name"), data.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            return None
        name, text = " ".join(name.split())[:CHAT_NAME_LENGTH], text.strip()
        return cls(name or "Anonymous", text) if 0 < len(text) <= CHAT_TEXT_LENGTH else None


class Chat:
    """The chat room: what one socket says, every socket hears."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._members: set[Member] = set()
        self._history: deque[dict[str, object]] = deque(maxlen=CHAT_HISTORY)
        self._closed = False

    def open(self) -> None:
        """Admit sockets (again)."""
        self._closed = False

    def close(self) -> None:
        """Close every socket and admit no more."""
        self._closed = True
        for member in self._members:
            member.end(GOING_AWAY)

    async def serve(self, exchange: Exchange) -> None:
        """Speak the WebSocket side of ASGI for one socket, from connect to disconnect."""
        await exchange.receive()  # websocket.connect
        if self._closed or len(self._members) >= CHAT_MEMBERS or not same_origin(exchange):
            await exchange.send({"type": "websocket.close"})
            return
        member = Member()
        self._join(member, protocol_name(exchange.scope))
        try:
            await exchange.send({"type": "websocket.accept"})
            present = await converse(self._listen(exchange, member), self._speak(exchange, member), member.ended)
        finally:
            self._leave(member)
        if present and member.ended.done():
            await exchange.send({"type": "websocket.close", "code": member.ended.result()})

    def _join(self, member: Member, protocol: str) -> None:
        self._members.add(member)
        member.deliver(json.dumps({"type": "welcome", "protocol": protocol, "history": list(self._history)}))
        self._announce()

    def _leave(self, member: Member) -> None:
        self._members.discard(member)
        self._announce()

    def _announce(self) -> None:
        self._broadcast({"type": "online", "count": len(self._members)})

    def _broadcast(self, data: dict[str, object]) -> None:
        text = json.dumps(data)  # in ASCII: a lone surrogate in what a client says stays an escape
        for member in self._members:
            member.deliver(text)

    async def _listen(self, exchange: Exchange, member: Member) -> None:
        while (message := await exchange.receive())["type"] == "websocket.receive":
            self._hear(member, message.get("text") or "", message.get("bytes") or b"")

    def _hear(self, member: Member, text: str, data: bytes) -> None:
        if max(len(text), len(data)) > CHAT_FRAME_LENGTH:
            member.end(MESSAGE_TOO_BIG)
        elif post := Post.parse(text):
            said: dict[str, object] = {"type": "message", "time": self._now(), **dataclasses.asdict(post)}
            self._history.append(said)
            self._broadcast(said)
        else:
            detail = f"A message is JSON with a name and a text of 1 to {CHAT_TEXT_LENGTH} characters."
            member.deliver(json.dumps({"type": "error", "detail": detail}))

    async def _speak(self, exchange: Exchange, member: Member) -> None:
        while True:
            await exchange.send({"type": "websocket.send", "text": await member.outbox.get()})


def same_origin(exchange: Exchange) -> bool:
    """Whether a WebSocket comes from this page's own origin, or from no browser at all.

    Browsers let any page open a socket to any host (RFC 6455 section 10.2); without this check a foreign
    page could read the chat.
    """
    origin = exchange.header(b"origin")
    if origin is None:
        return True
    return origin.partition("://")[2].lower() == (exchange.header(b"host") or "").lower()

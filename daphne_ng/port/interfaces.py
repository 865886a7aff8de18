"""The port: small synchronous interfaces, in pairs, between any protocol and the application.

The theory of it:

* A protocol (HTTP/1.1, HTTP/2) knows bytes, framing and time. The bridge in ``asgi/`` knows
  messages, tasks and the application. Neither knows the other; each sees one of these interfaces.
* Every method returns at once. The only places that wait are ``receive()`` on an empty inbox and the
  awaitable that `ResponsePort.writable` hands out, so one exchange can never block another.
* Facts are past tense (`RequestSink.body_received`), commands imperative (`ResponsePort.start`).

Call order of an HTTP exchange, which ``tests/contract`` checks for every implementation::

    start  body*  [trailers]        with end=True on the last of start/body, or trailers() instead;
                                    send_file in place of a body that is not the last
    reset                           at any time before the end, instead of the rest
    break_off                       at any time, and afterwards nothing
    consumed, informational         before the end; informational only before start
    abandon                         at most once, after the end, if the request body has not been read whole

Call order of a WebSocket, checked there too: either the handshake is answered with an HTTP response, through
`WebSocketPort.response`, or

    accept  message*  close         after closed() of the sink, nothing
    consumed                        at any time between accept and close
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from daphne_ng._types import Fields, Headers

__all__ = ["RequestSink", "ResponsePort", "WebSocketPort", "WebSocketSink"]


class ResponsePort(Protocol):
    """What an exchange may tell its protocol."""

    body_bytes_sent: int
    """Body bytes of this response put on the wire, without framing. For the access log."""

    def start(self, status: int, headers: Headers, body: bytes, end: bool, trailers: bool) -> None:
        """Send the head together with the first part of the body.

        Args:
            status: 200 to 999.
            headers: The application's, in order; framing and hop-by-hop fields are the protocol's.
            body: May be empty.
            end: The body, and with it the response, is complete.
            trailers: `trailers` will end the response, not a body part.

        Raises:
            InvalidHeader: Nothing was written; another start is allowed.
            BodyLengthMismatch: The body was cut at the Content-Length, and the response has ended.
        """

    def body(self, data: bytes, end: bool) -> None:
        """Send a further part of the body.

        Raises:
            BodyLengthMismatch: The body was cut at the Content-Length, and the response has ended.
        """

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send a part of a file as a further part of the body, with no copy of it, as far as it is taken at once.

        Args:
            descriptor: Of a regular file, open as long as the call.
            offset: Where the part begins, in bytes.
            count: The most to send, at least 1.

        Returns:
            How many bytes were sent. 0: none, and `writable` tells when there is room. -1: this response cannot, now or
            ever, and what is read from the file goes through `body`.
        """

    def trailers(self, headers: Headers) -> None:
        """End the response with trailer fields (dropped where the client did not ask for any).

        Raises:
            InvalidHeader: Nothing was written; the response has not ended.
        """

    def informational(self, status: int, headers: Headers) -> None:
        """Send an interim response: 100 Continue or 103 Early Hints."""

    def reset(self, reason: str) -> None:
        """End the exchange so that the client cannot take the response for a complete one."""

    def break_off(self) -> None:
        """Drop the whole connection: a call of this port raised what it should not, in the middle of its work.

        A recursion that is too deep, a lack of memory, an interrupt. What stands on the wire nobody knows.
        """

    def consumed(self, count: int) -> None:
        """Report that `count` body bytes left the inbox. Called only after a pause was asked for."""

    def abandon(self) -> None:
        """Report, after the response has ended, that no one will read the rest of the request body."""

    def writable(self) -> Awaitable[object] | None:
        """Return what to wait for before sending more, or `None` if there is room now."""

    def when_flushed(self, report: Callable[[int], int]) -> bool:
        """Tell, after the response has ended, whether much of it still waits here, and may be cut off yet.

        Args:
            report: Called then, once, with how many bytes of what was sent last are lost, when nothing waits any more
                or the connection is gone. Returns how many of them are none of its own.
        """


class RequestSink(Protocol):
    """What a protocol tells the exchange that serves a request."""

    def body_received(self, data: bytes) -> bool:
        """Take a part of the request body.

        Returns:
            True if reading should pause until `ResponsePort.consumed` says otherwise.
        """

    def body_ended(self, trailers: Fields) -> None:
        """The request body is complete."""

    def disconnected(self, reason: str, status: int | None = None) -> None:
        """The exchange cannot be answered any more; called at most once.

        Args:
            reason: For the application's log.
            status: What the protocol answers in the application's stead, if it still can.
        """

    def expired(self) -> None:
        """The application's time (``--http-timeout``) is over: answer 503 or reset, and cancel it."""


class WebSocketPort(Protocol):
    """What a WebSocket exchange may tell its protocol."""

    response: ResponsePort
    """Answers the handshake with an ordinary response instead. Not to be touched after `accept`."""
    bytes_received: int
    """Payload of the messages received, as the application sees it. For the access log."""
    bytes_sent: int
    """Payload of the messages sent, as the application sees it. For the access log."""

    def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Complete the handshake.

        Args:
            subprotocol: One of those that the client offered, or None.
            headers: Further fields of the response, in order; those of the handshake itself are the protocol's.

        Raises:
            InvalidHeader: Nothing was written; another `accept` is allowed.
        """

    def message(self, payload: bytes, text: bool) -> None:
        """Send one message, which may be empty.

        Args:
            payload: UTF-8 if `text`.
            text: Send it as a text message, not as a binary one.
        """

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake. What the client still sends is thrown away.

        The sink hears of nothing afterwards, `closed` included: it knows already.

        Args:
            code: 1000 to 4999, one that may stand in a Close frame (RFC 6455 section 7.4).
            reason: Cut after 123 bytes of UTF-8.
        """

    def break_off(self) -> None:
        """See `ResponsePort.break_off`."""

    def consumed(self) -> None:
        """Report that there is room in the inbox again. Called only after a pause was asked for."""

    def writable(self) -> Awaitable[object] | None:
        """Return what to wait for before sending more, or `None` if there is room now."""


class WebSocketSink(Protocol):
    """What a protocol tells the exchange that serves a WebSocket."""

    def message_received(self, message: bytes | str, size: int) -> bool:
        """Take one whole message.

        Args:
            message: Text as str, binary as bytes.
            size: Length of its payload in bytes.

        Returns:
            True if reading should pause until `WebSocketPort.consumed`.
        """

    def closed(self, code: int, reason: str) -> None:
        """The WebSocket is over, before or after `accept`; called at most once.

        Args:
            code: The close code as in RFC 6455 section 7.1.5: 1005 if the client's Close frame had none, 1006 if there
                was no Close frame; or the code with which the server itself ended it.
            reason: The reason that came or went with it, or empty.
        """

    def expired(self) -> None:
        """The application's time for `WebSocketPort.accept` is over: answer 403, and end."""

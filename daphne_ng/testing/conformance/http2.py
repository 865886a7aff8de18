"""A blocking HTTP/2 client on h2. What the server may not send raises `Broken`."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from daphne_ng.testing.conformance.exchange import Broken, Fields, Response, Wire

_WINDOW = 1 << 20


class Http2Connection:
    """A connection with its streams.

    Args:
        connection: The socket, connected; over TLS with the ALPN protocol ``h2``.
        authority: The value of ``:authority``.
        scheme: The value of ``:scheme``.
    """

    def __init__(self, connection: socket.socket, authority: bytes, scheme: bytes) -> None:
        self.wire = Wire(connection)
        self.socket = connection
        self.authority = authority
        self.scheme = scheme
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.streams: dict[int, Http2Exchange] = {}
        self.pushed: list[Any] = []
        """Events of push promises."""
        self.tunnels = False
        """Whether the server takes extended CONNECT (RFC 8441)."""
        self.settled = False
        """Whether the server's SETTINGS have come."""
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(_WINDOW)
        self.flush()

    def flush(self) -> None:
        """Send what h2 has to send."""
        if data := self.h2.data_to_send():
            self.wire.write(data)

    def stream(self) -> Http2Exchange:
        """Return a new stream."""
        return Http2Exchange(self)

    def settle(self, seconds: float) -> None:
        """Wait for the server's SETTINGS. Raises `Broken` or TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self.settled:
            if not self.step(deadline):
                raise Broken("the connection ended before SETTINGS")

    def step(self, deadline: float) -> bool:
        """Read once; return whether the connection goes on. Raises `Broken` or TimeoutError."""
        alive = self.wire.fill(deadline)
        data = bytes(self.wire.buffer)
        self.wire.buffer.clear()
        try:
            for event in self.h2.receive_data(data) if data else ():
                self._on(event)
        except h2.exceptions.ProtocolError as error:
            raise Broken(f"no HTTP/2: {error}") from error
        self.flush()
        if not alive:
            self._over()
        return alive

    def _over(self) -> None:
        for stream in self.streams.values():
            stream.response.ended = True

    def _on(self, event: Any) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settled = True
            connect = event.changed_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL)
            self.tunnels = self.tunnels or bool(connect and connect.new_value)
        elif isinstance(event, h2.events.PushedStreamReceived):
            self.pushed.append(event)
        elif isinstance(event, h2.events.ConnectionTerminated) and event.error_code:
            self._over()
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if stream is not None:
            stream.on(event)


class Http2Exchange:
    """One stream. See `daphne_ng.testing.conformance.exchange.Exchange`.

    Args:
        connection: It goes on after the stream, unless `close` is called.
    """

    def __init__(self, connection: Http2Connection) -> None:
        self.connection = connection
        self.socket = connection.socket
        self.response = Response(on_length=True)
        self.reading = True
        """Whether what comes is credited to the windows at once."""
        self._number = 0

    def request(
        self, method: str, target: bytes, headers: Fields = (), body: bytes = b"", *, more: bool = False
    ) -> None:
        """Send the head, and the body or its first part."""
        pseudo = [
            (b":method", method.encode()),
            (b":scheme", self.connection.scheme),
            (b":path", target),
            (b":authority", self.connection.authority),
        ]
        self.open([*pseudo, *headers], end=not body and not more)
        if body:
            self.send(body, more=more)

    def open(self, fields: Fields, *, end: bool) -> None:
        """Send a head as it is."""
        self._number = self.connection.h2.get_next_available_stream_id()
        self.connection.streams[self._number] = self
        self.connection.h2.send_headers(self._number, list(fields), end_stream=end)
        self.connection.flush()

    def send(self, data: bytes, *, more: bool = True) -> None:
        """Send another part of the body, as the windows allow; give up when the stream is over."""
        engine = self.connection.h2
        deadline = time.monotonic() + 10.0
        try:
            while data:
                size = min(engine.local_flow_control_window(self._number), engine.max_outbound_frame_size, len(data))
                if size:
                    engine.send_data(self._number, data[:size])
                    data = data[size:]
                    self.connection.flush()
                elif self.response.ended or not self.connection.step(deadline):
                    return
            if not more:
                engine.end_stream(self._number)
                self.connection.flush()
        except (h2.exceptions.ProtocolError, TimeoutError):
            return

    def push(self, size: int, seconds: float) -> int:
        """Send bytes until the windows have been shut for a while; return how many went."""
        engine, sent = self.connection.h2, 0
        try:
            while sent < size:
                room = min(engine.local_flow_control_window(self._number), engine.max_outbound_frame_size)
                if room:
                    engine.send_data(self._number, bytes(room))
                    sent += room
                    self.connection.flush()
                elif not self.connection.step(time.monotonic() + seconds):
                    break
        except (h2.exceptions.ProtocolError, TimeoutError):
            pass
        return sent

    def on(self, event: Any) -> None:
        """Take what h2 says of this stream."""
        response = self.response
        if isinstance(event, h2.events.InformationalResponseReceived):
            response.interim.append(_head(event.headers))
        elif isinstance(event, h2.events.ResponseReceived):
            response.status, response.headers = _head(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            response.body += event.data or b""
            size = event.flow_controlled_length or 0
            if self.reading and size and not response.ended:
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    self.connection.h2.acknowledge_received_data(size, self._number)
        elif isinstance(event, h2.events.TrailersReceived):
            response.trailers = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
        elif isinstance(event, h2.events.StreamEnded):
            response.ended = response.complete = True
        elif isinstance(event, h2.events.StreamReset):
            # NO_ERROR after a whole response asks for no more of the request's body.
            response.ended = True

    def read_head(self, seconds: float) -> Response:
        """Wait for the final head; interim ones are kept."""
        deadline = time.monotonic() + seconds
        while not self.response.status:
            if self.response.ended or not self.connection.step(deadline):
                raise Broken("the stream ended before a response")
        return self.response

    def read_body(self, size: int, seconds: float) -> Response:
        """Wait until the body has this many bytes, or has ended."""
        deadline = time.monotonic() + seconds
        self.read_head(seconds)
        while not self.response.ended and len(self.response.body) < size:
            self.connection.step(deadline)
        return self.response

    def read_all(self, seconds: float) -> Response:
        """Wait for the end of the response."""
        deadline = time.monotonic() + seconds
        self.read_head(seconds)
        while not self.response.ended:
            self.connection.step(deadline)
        return self.response

    def quiet(self, seconds: float) -> bool:
        """Return whether nothing comes on this stream for a while; frames of the connection do not count."""
        deadline = time.monotonic() + seconds
        seen = self._seen()
        with contextlib.suppress(TimeoutError):
            while self._seen() == seen and self.connection.step(deadline):
                pass
        return self._seen() == seen and not self.response.ended

    def _seen(self) -> tuple[int, int, int, bool]:
        response = self.response
        return response.status, len(response.body), len(response.interim), response.ended

    def reset(self) -> None:
        """Send RST_STREAM; the connection goes on."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.connection.h2.reset_stream(self._number, h2.errors.ErrorCodes.CANCEL)
        self.connection.flush()

    def close(self) -> None:
        """Close the connection with FIN."""
        self.connection.wire.close()


def _head(headers: Any) -> tuple[int, list[tuple[bytes, bytes]]]:
    fields = [(bytes(name), bytes(value)) for name, value in headers or ()]
    status = next((value for name, value in fields if name == b":status"), b"0")
    return int(status), [(name, value) for name, value in fields if not name.startswith(b":")]

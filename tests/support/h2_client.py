"""A blocking HTTP/2 client on h2's own state machine, for servers on real sockets; WebSocket over it with wsproto.

It checks what it reads as strictly as h2 does: anything the server may not send raises.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import wsproto.connection
import wsproto.events

Fields = Iterable[tuple[bytes, bytes]]

PATIENCE_SECONDS = 20.0


@dataclass
class Response:
    """What one stream has brought so far."""

    interim: list[int] = field(default_factory=list)
    status: int | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    """Error code of RST_STREAM."""

    def field(self, name: bytes) -> bytes | None:
        """Return the first header field of this name."""
        return next((value for key, value in self.headers if key == name), None)


class Http2Client:
    """One connection.

    Args:
        connection: The socket, connected, with TLS or without.
        acknowledge: Whether what is received is credited to the windows at once.
        settings: Initial settings that differ from h2's.
    """

    def __init__(
        self, connection: socket.socket, *, acknowledge: bool = True, settings: dict[Any, int] | None = None
    ) -> None:
        self.socket = connection
        connection.settimeout(PATIENCE_SECONDS)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        # To h2 a connection is over with GOAWAY, but the streams that are open go on (RFC 9113 section 6.8).
        machine: Any = self.h2.state_machine
        event = h2.connection.ConnectionInputs.RECV_GOAWAY
        machine._transitions = {
            **machine._transitions,
            **{(state, event): (None, state) for state in h2.connection.ConnectionState},
        }
        self._acknowledge = acknowledge
        self.responses: dict[int, Response] = {}
        self.goaway: tuple[int, int] | None = None
        """Error code and last stream of the last GOAWAY."""
        self.closed = False
        self.authority = b"localhost"
        if settings:
            self.h2.local_settings.update(settings)
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> Http2Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Send what h2 has to send."""
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def request(
        self, path: str, *fields: tuple[bytes, bytes], method: bytes = b"GET", body: bytes = b"", end: bool = True
    ) -> int:
        """Send a request, as much of its body as the windows allow, and return its stream."""
        stream = self.h2.get_next_available_stream_id()
        scheme = b"https" if isinstance(self.socket, ssl.SSLSocket) else b"http"
        head = [
            (b":method", method), (b":scheme", scheme), (b":authority", self.authority), (b":path", path.encode()),
            *fields,
        ]  # fmt: skip
        self.responses[stream] = Response()
        self.h2.send_headers(stream, head, end_stream=end and not body)
        self.flush()
        if body:
            self.send(stream, body, end)
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        """Send data, waiting for window where there is none."""
        view = memoryview(data)
        while view:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                self.read()
                continue
            self.h2.send_data(stream, bytes(view[:room]))
            view = view[room:]
            self.flush()
        if end:
            self.h2.end_stream(stream)
            self.flush()

    def read(self) -> None:
        """Take what one read brings."""
        data = self.socket.recv(65536)
        if not data:
            self.closed = True
            return
        self.feed(data)

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        for event in self.h2.receive_data(data):
            self._note(event)
        self.flush()

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Read until `condition` is true, and return what it gives."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (value := condition()):
            assert not self.closed, f"the server closed the connection before {what}: {self.responses}, {self.goaway}"
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            self.read()
        return value

    def response(self, stream: int) -> Response:
        """Wait for the end of a stream."""
        response = self.responses[stream]
        self.wait(lambda: response.ended or response.reset is not None, f"the end of stream {stream}")
        return response

    def get(self, path: str, *fields: tuple[bytes, bytes], **more: Any) -> Response:
        """Send a request and wait for the whole response."""
        return self.response(self.request(path, *fields, **more))

    def wait_closed(self) -> None:
        """Read until the server closes the connection."""
        self.wait(lambda: self.closed, "the end of the connection")

    def _note(self, event: h2.events.Event) -> None:
        response = self.responses.get(getattr(event, "stream_id", None) or 0, Response())
        match event:
            case h2.events.InformationalResponseReceived():
                response.interim.append(int(dict(event.headers)[b":status"]))
            case h2.events.ResponseReceived():
                response.headers = list(event.headers)
                response.status = int(dict(event.headers)[b":status"])
            case h2.events.DataReceived():
                response.body += event.data
                if self._acknowledge and event.flow_controlled_length and response.reset is None:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                response.trailers = list(event.headers)
            case h2.events.StreamEnded():
                response.ended = True
            case h2.events.StreamReset():
                response.reset = int(event.error_code)
            case h2.events.ConnectionTerminated():
                self.goaway = (int(event.error_code or 0), event.last_stream_id or 0)


class Http2WebSocket:
    """A WebSocket on a stream of `client` (RFC 8441)."""

    def __init__(self, client: Http2Client, path: str, *fields: tuple[bytes, bytes]) -> None:
        self.client = client
        client.wait(
            lambda: client.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL),
            "SETTINGS_ENABLE_CONNECT_PROTOCOL",
        )
        self.stream = client.h2.get_next_available_stream_id()
        client.responses[self.stream] = self.response = Response()
        scheme = b"https" if isinstance(client.socket, ssl.SSLSocket) else b"http"
        head = [
            (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", scheme),
            (b":authority", client.authority), (b":path", path.encode()), (b"sec-websocket-version", b"13"), *fields,
        ]  # fmt: skip
        client.h2.send_headers(self.stream, head)
        client.flush()
        client.wait(
            lambda: self.response.status is not None or self.response.reset is not None, "the answer to the handshake"
        )
        self._ws = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
        self._events: list[Any] = []

    def send(self, message: str | bytes) -> None:
        """Send one message."""
        event = (
            wsproto.events.TextMessage(message) if isinstance(message, str) else wsproto.events.BytesMessage(message)
        )
        self.client.send(self.stream, self._ws.send(event))

    def close(self, code: int = 1000) -> None:
        """Send a Close frame."""
        self.client.send(self.stream, self._ws.send(wsproto.events.CloseConnection(code)))

    def end(self) -> None:
        """End our half of the stream."""
        self.client.h2.end_stream(self.stream)
        self.client.flush()

    def event(self) -> Any:
        """Return the next event; pings are answered."""
        while True:
            if self._events:
                event = self._events.pop(0)
                if isinstance(event, wsproto.events.Ping):
                    self.client.send(self.stream, self._ws.send(event.response()))
                    continue
                return event
            body = self.response.body
            if not body:
                self.client.wait(
                    lambda: self.response.body or self.response.ended or self.response.reset is not None, "a frame"
                )
                assert body, f"the stream ended: {self.response}"
            self._ws.receive_data(bytes(body))
            body.clear()
            self._events.extend(self._ws.events())

    def message(self) -> str | bytes:
        """Return the next message, whole."""
        event = self.event()
        assert isinstance(event, wsproto.events.Message), event
        data = event.data
        while not event.message_finished:
            event = self.event()
            assert isinstance(event, wsproto.events.Message), event
            data += event.data
        return data


def connect(port: int, *, tls: bool = False, alpn: tuple[str, ...] = ("h2",), **options: Any) -> socket.socket:
    """Return a socket to a server on this machine.

    Args:
        port: Its port.
        tls: Whether to speak TLS, without checking the certificate.
        alpn: The protocols to offer.
        options: Attributes of the SSLContext to set.
    """
    raw = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    if not tls:
        return raw
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    for name, value in options.items():
        setattr(context, name, value)
    return context.wrap_socket(raw, server_hostname="localhost")

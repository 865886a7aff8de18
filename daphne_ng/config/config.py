"""One frozen `Config`, and the one place that describes every setting.

The command line, Django's options and ``Server(**kwargs)`` all end in a `Config`. Each field carries its
own flags, help, unit, default and reason, so that ``--help`` and the reference page are generated from
the same words. A field without flags is a rare limit: it can be set from Python only.

A timeout or limit of ``0`` (or ``None`` where Daphne has it so) switches that limit off, except for the times that are
granted at an end (`graceful_timeout`, `close_timeout`, `drain_timeout`, `drain_pause_timeout`, `http2_goaway_timeout`,
`application_close_timeout` and those whose names begin with ``shutdown_``): there 0 is "now".
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daphne_ng.config.endpoints import EndpointSettings, check_sockets, check_tls
from daphne_ng.config.processes import check_processes
from daphne_ng.config.setting import Setting, check_type, label_of, setting
from daphne_ng.config.trust import TrustedPeers
from daphne_ng.errors import ConfigurationError

__all__ = ["Config", "Setting", "settings"]

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(EndpointSettings):
    """Every setting of the server, validated. See `settings` for what each means."""

    # -- responses ---------------------------------------------------------------------------------------
    root_path: str = setting(
        "",
        "Application",
        "ASGI root_path: where the application is mounted; the flag is percent-decoded",
        flags=("--root-path",),
    )
    server_name: str = setting(
        "daphne",
        "Responses",
        "value of the Server response header",
        flags=("-s", "--server-name"),
        why="Daphne's own default; monitoring matches on it.",
    )
    headers: tuple[tuple[bytes, bytes], ...] = setting(
        (),
        "Responses",
        "a response header to add unless the application set it, as NAME:VALUE; may be repeated",
        flags=("--header",),
        kind="headers",
    )
    date_header: bool = setting(
        True,
        "Responses",
        "send no Date header",
        flags=("--no-date-header",),
        kind="no-flag",
        why="RFC 9110 section 6.6.1 asks every origin server with a clock to send it.",
    )
    http1_early_hints: bool = setting(
        False,
        "Responses",
        "send 103 Early Hints over HTTP/1.1 too",
        why="A proxy that does not know 103 may take it for the final response, so it is off.",
    )

    # -- timeouts ----------------------------------------------------------------------------------------
    http_timeout: float | None = setting(
        None,
        "Timeouts",
        "time for the application to answer: 503 if nothing was sent, an aborted connection otherwise",
        flags=("-t", "--http-timeout"),
        unit="seconds",
        minimum=0,
        kind="int",
        why="Off, as in Daphne: streams and long polls are ordinary uses.",
    )
    head_timeout: float = setting(
        20.0,
        "Timeouts",
        "time for a request head to arrive whole; further bytes do not extend it",
        flags=("--head-timeout",),
        unit="seconds",
        minimum=0,
        why="Long enough for a phone on a bad network, short enough to starve slowloris.",
    )
    body_timeout: float = setting(
        60.0,
        "Timeouts",
        "longest pause between two parts of a request body",
        flags=("--body-timeout",),
        unit="seconds",
        minimum=0,
        why="The read timeout that nginx and Apache use.",
    )
    keep_alive_timeout: float = setting(
        75.0,
        "Timeouts",
        "time that an idle connection is kept",
        flags=("--keep-alive-timeout",),
        unit="seconds",
        minimum=0,
        why="Longer than the 60 s of nginx and of cloud balancers: the proxy closes first, and no request is lost.",
    )
    write_timeout: float = setting(
        60.0,
        "Timeouts",
        "longest time in which a client may take less of a response than --write-min-rate asks for, in its middle as "
        "at its end; 0 for any length",
        flags=("--write-timeout",),
        unit="seconds",
        minimum=0,
        why="nginx's send_timeout.",
    )
    write_min_rate: float = setting(
        240.0,
        "Timeouts",
        "least that a client must take while something is left for it, on average over --write-timeout; 0 for one byte "
        "in that time",
        flags=("--write-min-rate",),
        unit="bytes per second",
        minimum=0,
        why="What Kestrel and IIS ask for. A modem was ten times as fast; without a floor a byte a minute would hold a "
        "connection for ever.",
    )
    paused_read_timeout: float = setting(
        300.0,
        "Timeouts",
        "longest time that an application may leave a request body unread while reading is paused",
        unit="seconds",
        minimum=0,
        why="While reading is paused nobody can see that the client has left, so the pause is bounded.",
    )
    drain_timeout: float = setting(
        30.0,
        "Timeouts",
        "longest time to read and discard what a client still sends after an answer that ends the connection",
        unit="seconds",
        minimum=0,
        why="Many clients look for the answer when they have sent everything; closing earlier makes the kernel answer "
        "with a reset that can destroy it. nginx's lingering_time.",
    )
    drain_pause_timeout: float = setting(
        5.0,
        "Timeouts",
        "longest pause in that: a client that sends nothing for so long has read its answer, or will not",
        unit="seconds",
        minimum=0,
        why="nginx's lingering_timeout.",
    )
    close_timeout: float = setting(
        5.0,
        "Timeouts",
        "time for the client's part in an ending: to answer a Close frame or a close_notify; and, when the server "
        "stops, to take what is left for it",
        unit="seconds",
        minimum=0,
        why="A few round trips on a bad network. A client that is still taking bytes has --write-timeout instead.",
    )
    tls_handshake_timeout: float = setting(
        10.0,
        "Timeouts",
        "time for a TLS handshake",
        unit="seconds",
        minimum=0,
    )
    application_close_timeout: float = setting(
        10,
        "Timeouts",
        "time that an application has to end after its client left, before it is cancelled",
        flags=("--application-close-timeout",),
        unit="seconds",
        minimum=0,
        kind="int",
        why="Daphne's default.",
    )
    graceful_timeout: float = setting(
        30.0,
        "Timeouts",
        "time that running requests have to end when the server stops, before they are cancelled",
        flags=("--graceful-timeout",),
        unit="seconds",
        minimum=0,
        why="The grace period that container platforms use.",
    )
    shutdown_idle_timeout: float = setting(
        2.0,
        "Timeouts",
        "time that an idle HTTP/1.1 connection has for one more request when the server stops; never longer than "
        "graceful_timeout",
        unit="seconds",
        minimum=0,
        why="A proxy may be sending a request just now. It is served, and told that it was the last.",
    )
    shutdown_application_timeout: float | None = setting(
        None,
        "Timeouts",
        "time that applications have to end when the server stops, once they are cancelled; None for "
        "application_close_timeout",
        unit="seconds",
        minimum=0,
        why="The development server and the servers of tests end sooner, and have the usual patience until then.",
    )
    shutdown_close_timeout: float | None = setting(
        None,
        "Timeouts",
        "time that connections and ports have to close when the server stops; None for close_timeout",
        unit="seconds",
        minimum=0,
        why="As for shutdown_application_timeout.",
    )

    # -- limits ------------------------------------------------------------------------------------------
    request_line_max_bytes: int = setting(
        8190,
        "Limits",
        "longest request target (414)",
        flags=("--limit-request-line",),
        unit="bytes",
        minimum=16,
        why="Apache's LimitRequestLine.",
    )
    head_max_bytes: int = setting(
        65536,
        "Limits",
        "largest request head (431)",
        flags=("--limit-request-head",),
        unit="bytes",
        minimum=64,
        why="Room for large cookies and tokens; hyper and Node allow 16 to 400 KiB.",
    )
    head_max_fields: int = setting(
        200,
        "Limits",
        "most header fields in a request (431)",
        flags=("--limit-request-fields",),
        minimum=1,
        why="Twice what Apache allows, far above what browsers send.",
    )
    body_max_bytes: int = setting(
        0,
        "Limits",
        "largest request body (413); 0 for no limit",
        flags=("--limit-request-body",),
        unit="bytes",
        minimum=0,
        why="Bodies are streamed, so the application or the proxy decides.",
    )
    pipelined_max: int = setting(
        16,
        "Limits",
        "requests read ahead on one connection before reading pauses",
        flags=("--limit-pipelined",),
        minimum=1,
        why="Enough for the clients that still pipeline.",
    )
    trailer_max_bytes: int = setting(
        8192, "Limits", "largest trailer section of a request body", unit="bytes", minimum=0
    )
    trailer_max_fields: int = setting(32, "Limits", "most trailer fields of a request body", minimum=0)
    chunk_overhead_max_bytes: int = setting(
        65536,
        "Limits",
        "most framing (chunk sizes and extensions) beyond five bytes per byte of a chunked body",
        unit="bytes",
        minimum=1024,
        why="Chunk extensions carry nothing that anyone reads; without a bound they are a free bandwidth sink.",
    )
    drain_max_bytes: int = setting(
        65536,
        "Limits",
        "most unread body of an answered request, known by its Content-Length, that is read to keep a connection; "
        "with more to come, or with chunks, the response says that it closes",
        unit="bytes",
        minimum=0,
        why="Sending further takes a client longer than a new connection.",
    )
    limit_connections: int = setting(
        0,
        "Limits",
        "most open connections (503 beyond); 0 for no limit",
        flags=("--limit-connections",),
        minimum=0,
    )
    limit_concurrency: int = setting(
        0,
        "Limits",
        "most requests whose application runs at once (503 beyond); 0 for no limit",
        flags=("--limit-concurrency",),
        minimum=0,
    )
    client_lines_burst: int = setting(
        20,
        "Limits",
        "most lines of a kind at once that clients can have in the log at INFO by what they do wrong",
        flags=("--client-lines-burst",),
        minimum=1,
        why="What one looks at. The rest is counted, and the count is told.",
    )
    client_lines_rate: float = setting(
        1.0,
        "Limits",
        "such lines of a kind per second for ever",
        flags=("--client-lines-rate",),
        minimum=0,
        kind="float",
        why="A bad request costs a client 40 bytes; 20,000 a second would be 200 GB of log a day.",
    )
    inbox_high_bytes: int = setting(
        65536,
        "Limits",
        "unread body, or unread messages of a WebSocket, at which reading pauses",
        unit="bytes",
        minimum=1,
        why="One read of the transport.",
    )
    inbox_low_bytes: int = setting(
        16384,
        "Limits",
        "unread body, or unread messages of a WebSocket, at which reading resumes",
        unit="bytes",
        minimum=0,
    )

    require_host: bool = setting(
        True,
        "Limits",
        "refuse HTTP/1.1 requests without a Host header (400)",
        why="RFC 9112 section 3.2 says so. Daphne's own test client sends none.",
    )

    # -- lifespan ----------------------------------------------------------------------------------------
    lifespan: str = setting(
        "auto",
        "Application",
        "run the ASGI lifespan protocol: auto ignores applications without it, on requires it",
        flags=("--lifespan",),
        choices=("auto", "on", "off"),
    )
    asgi_threads: int | None = setting(
        None,
        "Application",
        "threads for synchronous code: the size of the event loop's default executor; without it ASGI_THREADS, or "
        "asyncio's own size, 4 more than processors and at most 32",
        flags=("--asgi-threads",),
        minimum=1,
        kind="int",
        why="asyncio's own. Django's synchronous views and the ORM do not run in it: "
        "[how to run Django](../how-to/django-production.md#threads).",
    )
    lifespan_startup_timeout: float = setting(
        60.0,
        "Timeouts",
        "time for the application's lifespan startup",
        flags=("--lifespan-startup-timeout",),
        unit="seconds",
        minimum=0,
    )
    lifespan_shutdown_timeout: float = setting(
        30.0,
        "Timeouts",
        "time for the application's lifespan shutdown",
        flags=("--lifespan-shutdown-timeout",),
        unit="seconds",
        minimum=0,
    )

    # -- WebSocket ---------------------------------------------------------------------------------------
    websocket_timeout: float = setting(
        86400,
        "WebSocket",
        "longest life of a WebSocket; 0 or negative for no limit",
        flags=("--websocket_timeout", "--websocket-timeout"),
        unit="seconds",
        kind="int",
        why="Daphne's default.",
    )
    websocket_connect_timeout: float = setting(
        5,
        "WebSocket",
        "time for the application to accept a WebSocket (403); 0 or negative for no limit",
        flags=("--websocket_connect_timeout", "--websocket-connect-timeout"),
        unit="seconds",
        kind="int",
        why="The default of Daphne's command line; its Server class has 20.",
    )
    websocket_handshake_timeout: float = setting(
        5,
        "WebSocket",
        "time for a WebSocket handshake, whichever of the two is shorter; 0 or negative for no limit",
        unit="seconds",
        kind="int",
        why="Daphne's default; its command line sets it with `--websocket_connect_timeout`.",
    )
    websocket_max_message_size: int = setting(
        1024 * 1024,
        "WebSocket",
        "largest incoming message after decompression (1009); 0 for no limit",
        flags=("--websocket-max-message-size",),
        unit="bytes",
        minimum=0,
        why="Daphne's default since 4.2.2.",
    )
    websocket_max_frame_size: int = setting(
        1024 * 1024,
        "WebSocket",
        "largest incoming frame (1009); 0 for no limit",
        flags=("--websocket-max-frame-size",),
        unit="bytes",
        minimum=0,
        why="Daphne's default since 4.2.2.",
    )
    websocket_max_fragments: int = setting(
        1024,
        "WebSocket",
        "most frames of one incoming message (1008), beside one for each 256 bytes of it; 0 for no limit",
        minimum=0,
        why="Smaller fragments cost more than they carry.",
    )
    websocket_control_burst: int = setting(
        100,
        "WebSocket",
        "most pings and pongs that a client may send at once (1008), beside one for each 32 bytes in messages",
        minimum=1,
        why="Far above what any client needs; each ping costs an answer.",
    )
    websocket_control_rate: float = setting(
        10.0,
        "WebSocket",
        "pings and pongs per second that a client may send for ever",
        minimum=0,
        kind="float",
        why="Libraries ping every 20 to 60 seconds.",
    )
    websocket_compression: bool = setting(
        True,
        "WebSocket",
        "agree to permessage-deflate when a client offers it",
        flags=("--websocket-compression", "--no-websocket-compression"),
        kind="switch",
        why="Every browser offers it. Nothing is kept between messages, so that idle sockets stay small.",
    )
    websocket_compression_window_bits: int = setting(
        12,
        "WebSocket",
        "base-two logarithm of the compression window, for both directions where the client allows it",
        minimum=9,
        why="4 KiB hold most messages; 15 would cost eight times the memory for each message under way.",
    )
    websocket_compression_level: int = setting(
        1,
        "WebSocket",
        "level of compression, 1 (fast) to 9 (small)",
        minimum=1,
        why="Level 6, the usual one, takes twice the time to save some 5 % of the bytes of a message of 4 KiB of JSON.",
    )
    websocket_compression_memory_level: int = setting(
        5,
        "WebSocket",
        "memory level of the compressor, 1 to 9",
        minimum=1,
    )
    websocket_compression_min_bytes: int = setting(
        256,
        "WebSocket",
        "smallest message that is sent compressed",
        unit="bytes",
        minimum=0,
        why="Below that the time costs more than the bytes.",
    )
    ping_interval: float = setting(
        20,
        "WebSocket",
        "idle time before a keepalive ping; 0 for none",
        flags=("--ping-interval",),
        unit="seconds",
        minimum=0,
        kind="int",
        why="Daphne's default.",
    )
    ping_timeout: float = setting(
        30,
        "WebSocket",
        "time for the answer to a keepalive ping; 0 to wait for ever",
        flags=("--ping-timeout",),
        unit="seconds",
        minimum=0,
        kind="int",
        why="Daphne's default.",
    )

    # -- HTTP/2 ------------------------------------------------------------------------------------------
    http2: bool = setting(
        True,
        "HTTP/2",
        "speak HTTP/2 with the TLS clients that ask for it (ALPN)",
        flags=("--http2", "--no-http2"),
        kind="switch",
        why="Every browser asks for it.",
    )
    h2c: bool = setting(
        True,
        "HTTP/2",
        "speak HTTP/2 without TLS too, with clients that begin with it (prior knowledge)",
        flags=("--h2c", "--no-h2c"),
        kind="switch",
        why="Proxies use it, and whoever does not begin with it never notices.",
    )
    http2_max_concurrent_streams: int = setting(
        100,
        "HTTP/2",
        "most requests at once on one connection; more are refused, and may be sent again",
        flags=("--http2-max-concurrent-streams",),
        minimum=1,
        why="RFC 9113 recommends no fewer; browsers do not use more.",
    )
    http2_max_continuation_frames: int = setting(
        8,
        "HTTP/2",
        "most CONTINUATION frames of one request head, beside one for each KiB of it",
        minimum=0,
        why="Three hold the largest head that is allowed, in frames as large as they may be; floods need thousands.",
    )
    http2_reset_burst: int = setting(
        200,
        "HTTP/2",
        "most streams that a client may reset, or have us reset, at once; each response pays for one more",
        minimum=1,
        why="A browser that leaves a page cancels a hundred requests; Rapid Reset needs thousands. No less than "
        "--http2-max-concurrent-streams counts.",
    )
    http2_reset_rate: float = setting(
        20.0,
        "HTTP/2",
        "streams per second that a client may reset for ever, beside one for each response",
        minimum=0,
        kind="float",
        why="Each key pressed in a search field cancels the request for the one before; nobody types that fast.",
    )
    http2_control_burst: int = setting(
        100,
        "HTTP/2",
        "most frames that carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA) that a client may send "
        "at once, beside those that its requests and our DATA pay for",
        minimum=1,
        why="Far above what any client needs that answers nothing of ours; each costs work.",
    )
    http2_control_rate: float = setting(
        10.0,
        "HTTP/2",
        "such frames per second that a client may send for ever",
        minimum=0,
        kind="float",
        why="Clients that ask for signs of life do so a few times a minute.",
    )
    http2_stall_timeout: float = setting(
        60.0,
        "HTTP/2",
        "longest time that a client may keep a window closed, or open it for less than --write-min-rate, while a "
        "response waits for it",
        unit="seconds",
        minimum=0,
        why="As write_timeout, which does not see a client that reads and opens no window.",
    )
    http2_ping_interval: float = setting(
        0.0,
        "HTTP/2",
        "time after which a connection on which nothing arrives is asked for a sign of life, and as long again before "
        "it is dropped",
        unit="seconds",
        minimum=0,
        why="Off: TCP keepalive finds the dead ones, and phones sleep longer without.",
    )
    http2_goaway_timeout: float = setting(
        1.0,
        "HTTP/2",
        "time that a client has to answer the PING that comes with the first GOAWAY, and to close behind the last one",
        unit="seconds",
        minimum=0,
        why="Some round trips. What is lost after it has not been worked on, and the client may send it again.",
    )
    http2_max_requests: int = setting(
        0,
        "HTTP/2",
        "most requests on one connection before it is ended in good order",
        minimum=0,
        why="Off: a connection does not get worse with use. Some balance load with it.",
    )
    http2_window_max_bytes: int = setting(
        1024 * 1024,
        "HTTP/2",
        "largest window of a stream; each begins with 65,535 bytes and grows while the application keeps up",
        unit="bytes",
        minimum=65535,
        why="100 Mbit/s over a path of 80 ms.",
    )
    http2_connection_buffer_max_bytes: int = setting(
        4 * 1024 * 1024,
        "HTTP/2",
        "what the streams of a connection hold beyond their inboxes at which it is given no more window",
        unit="bytes",
        minimum=65535,
        why="Room for some sixty streams whose applications read nothing, so that one slow upload delays no other.",
    )

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigurationError: Names the setting (by its flag where it has one) and the rule.
        """
        for name, known in settings():
            value = getattr(self, name)
            label = label_of(name, known)
            check_type(label, value, _TYPES[name])
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
            if known.choices and value not in known.choices:
                raise ConfigurationError(f"{label} must be one of {', '.join(known.choices)}, not {value!r}")
            if name in _NUMBERS and value is not None:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise ConfigurationError(f"{label} must be a number, not {value!r}")
                if isinstance(value, float) and not math.isfinite(value):
                    raise ConfigurationError(f"{label} must be a finite number, not {value!r}")
                if known.minimum is not None and value < known.minimum:
                    raise ConfigurationError(f"{label} must be at least {known.minimum:g}, not {value:g}")
        if self.asgi_threads is not None and not isinstance(self.asgi_threads, int):
            raise ConfigurationError(f"--asgi-threads must be a whole number, not {self.asgi_threads:g}")
        if self.websocket_compression_window_bits > 15:
            raise ConfigurationError("websocket_compression_window_bits must be at most 15")
        for name in ("websocket_compression_level", "websocket_compression_memory_level"):
            if getattr(self, name) > 9:
                raise ConfigurationError(f"{name} must be at most 9")
        if self.inbox_low_bytes > self.inbox_high_bytes:
            raise ConfigurationError("inbox_low_bytes must not exceed inbox_high_bytes")
        try:
            name_bytes = self.server_name.encode("latin-1")
        except UnicodeEncodeError:
            raise ConfigurationError("--server-name must be Latin-1 text") from None
        if re.search(rb"[\x00-\x1f\x7f]", name_bytes):
            raise ConfigurationError("--server-name must not hold control characters")
        check_processes(self)
        check_sockets(self)
        check_tls(self)
        TrustedPeers(self.forwarded_allow_ips)
        if self.root_path and (self.root_path[0] != "/" or re.search(r"[\x00-\x1f\x7f]", self.root_path)):
            raise ConfigurationError("--root-path must begin with a slash, and must not hold control characters")
        for name, flag in _PROXY_HEADERS.items():
            header_name = getattr(self, name)
            if header_name and not _TOKEN.fullmatch(header_name.encode("utf-8", "replace")):
                raise ConfigurationError(f"{flag}: {header_name!r} is not a header name")
            if header_name and "_" in header_name:
                raise ConfigurationError(f"{flag}: {header_name!r} is never seen: headers with '_' are dropped")
        for header, value in self.headers:
            if not _TOKEN.fullmatch(header):
                raise ConfigurationError(f"--header: {header.decode('latin-1')!r} is not a header name")
            if re.search(rb"[\x00\r\n]", value):
                raise ConfigurationError(f"--header: the value of {header.decode('latin-1')} holds a control character")
            if header.lower() in (b"content-length", b"transfer-encoding", b"connection", b"date"):
                raise ConfigurationError(f"--header: {header.decode('latin-1')} is the server's own to set")

    def replace(self, **changes: Any) -> Config:
        """Return a copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)


def settings() -> Iterator[tuple[str, Setting]]:
    """Yield every field's name and description, in the order of the class."""
    yield from _SETTINGS


_SETTINGS: tuple[tuple[str, Setting], ...] = tuple(
    (entry.name, entry.metadata["setting"]) for entry in dataclasses.fields(Config)
)

# By their defaults. Numbers are checked by their limits; workers, which may be one, by `check_processes`.
_TYPES = {entry.name: type(entry.default) for entry in dataclasses.fields(Config)} | {"workers": int}


# Where no flag says them as they are.
_PROXY_HEADERS = {
    "proxy_address_header": "--proxy-headers-host",
    "proxy_port_header": "--proxy-headers-port",
    "proxy_proto_header": "proxy_proto_header",
}

# Those with a least value, or whose default or kind is one.
_NUMBERS = frozenset(
    entry.name
    for entry in dataclasses.fields(Config)
    if entry.metadata["setting"].minimum is not None
    or entry.metadata["setting"].kind in ("int", "float")
    or type(entry.default) in (int, float)
)

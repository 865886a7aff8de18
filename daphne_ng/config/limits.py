"""The settings of size and number for every protocol."""

from __future__ import annotations

from daphne_ng.config.setting import SettingGroup, setting

__all__ = ["LimitSettings"]


class LimitSettings(SettingGroup, heading="Limits"):
    """Limits of size and number for every protocol."""

    request_line_max_bytes = setting(
        8190,
        "longest request target (414)",
        flags=("--limit-request-line",),
        unit="bytes",
        minimum=16,
        why="Apache's LimitRequestLine.",
    )
    head_max_bytes = setting(
        65536,
        "largest request head (431)",
        flags=("--limit-request-head",),
        unit="bytes",
        minimum=64,
        why="Room for large cookies and tokens; hyper and Node allow 16 to 400 KiB.",
    )
    head_max_fields = setting(
        200,
        "most header fields in a request (431)",
        flags=("--limit-request-fields",),
        minimum=1,
        why="Twice what Apache allows, far above what browsers send.",
    )
    body_max_bytes = setting(
        0,
        "largest request body (413); 0 for no limit",
        flags=("--limit-request-body",),
        unit="bytes",
        minimum=0,
        why="Bodies are streamed, so the application or the proxy decides.",
    )
    pipelined_max = setting(
        16,
        "requests read ahead on one connection before reading pauses",
        flags=("--limit-pipelined",),
        minimum=1,
        why="Enough for the clients that still pipeline.",
    )
    trailer_max_bytes = setting(8192, "largest trailer section of a request body", unit="bytes", minimum=0)
    trailer_max_fields = setting(32, "most trailer fields of a request body", minimum=0)
    chunk_overhead_max_bytes = setting(
        65536,
        "most framing (chunk sizes and extensions) beyond five bytes per byte of a chunked body",
        unit="bytes",
        minimum=1024,
        why="Chunk extensions carry nothing that anyone reads; without a bound they are a free bandwidth sink.",
    )
    drain_max_bytes = setting(
        65536,
        "most unread body of an answered request, known by its Content-Length, that is read to keep a connection; "
        "with more to come, or with chunks, the response says that it closes",
        unit="bytes",
        minimum=0,
        why="Sending further takes a client longer than a new connection.",
    )
    limit_connections = setting(
        0,
        "most open connections (503 beyond); 0 for no limit",
        flags=("--limit-connections",),
        minimum=0,
    )
    limit_concurrency = setting(
        0,
        "most requests whose application runs at once (503 beyond); 0 for no limit",
        flags=("--limit-concurrency",),
        minimum=0,
    )
    client_lines_burst = setting(
        20,
        "most lines of a kind at once that clients can have in the log at INFO by what they do wrong",
        flags=("--client-lines-burst",),
        minimum=1,
        why="What one looks at. The rest is counted, and the count is told.",
    )
    client_lines_rate = setting(
        1.0,
        "such lines of a kind per second for ever",
        flags=("--client-lines-rate",),
        minimum=0,
        kind="float",
        why="A bad request costs a client 40 bytes; 20,000 a second would be 200 GB of log a day.",
    )
    inbox_high_bytes = setting(
        65536,
        "unread body, or unread messages of a WebSocket, at which reading pauses",
        unit="bytes",
        minimum=1,
        why="One read of the transport.",
    )
    inbox_low_bytes = setting(
        16384,
        "unread body, or unread messages of a WebSocket, at which reading resumes",
        unit="bytes",
        minimum=0,
    )
    require_host = setting(
        True,
        "refuse HTTP/1.1 requests without a Host header (400)",
        why="RFC 9112 section 3.2 says so. Daphne's own test client sends none.",
    )

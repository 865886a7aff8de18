"""The settings of HTTP/2 (RFC 9113)."""

from __future__ import annotations

from daphne_ng.config.setting import SettingGroup, setting

__all__ = ["Http2Settings"]


class Http2Settings(SettingGroup, heading="HTTP/2"):
    """Streams, windows, and what a client may do for nothing."""

    http2 = setting(
        True,
        "speak HTTP/2 with the TLS clients that ask for it (ALPN)",
        flags=("--http2", "--no-http2"),
        kind="switch",
        why="Every browser asks for it.",
    )
    h2c = setting(
        True,
        "speak HTTP/2 without TLS too, with clients that begin with it (prior knowledge)",
        flags=("--h2c", "--no-h2c"),
        kind="switch",
        why="Proxies use it, and whoever does not begin with it never notices.",
    )
    http2_plain_path = setting(
        True,
        "serve what is ordinary on a stream of HTTP/2 without the h2 library, which stays the judge of all else",
        flags=("--http2-plain-path", "--no-http2-plain-path"),
        kind="switch",
        why="A fifth less CPU for a request. Off if a fault is suspected there; off by itself with an h2 it was not "
        "tested with.",
    )
    http2_max_concurrent_streams = setting(
        100,
        "most requests at once on one connection; more are refused, and may be sent again",
        flags=("--http2-max-concurrent-streams",),
        minimum=1,
        why="RFC 9113 recommends no fewer; browsers do not use more.",
    )
    http2_max_continuation_frames = setting(
        8,
        "most CONTINUATION frames of one request head, beside one for each KiB of it",
        minimum=0,
        why="Three hold the largest head that is allowed, in frames as large as they may be; floods need thousands.",
    )
    http2_reset_burst = setting(
        200,
        "most streams that a client may reset, or have us reset, at once; each response pays for one more",
        minimum=1,
        why="A browser that leaves a page cancels a hundred requests; Rapid Reset needs thousands. No less than "
        "--http2-max-concurrent-streams counts.",
    )
    http2_reset_rate = setting(
        20.0,
        "streams per second that a client may reset for ever, beside one for each response",
        minimum=0,
        kind="float",
        why="Each key pressed in a search field cancels the request for the one before; nobody types that fast.",
    )
    http2_control_burst = setting(
        100,
        "most frames that carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA) that a client may send "
        "at once, beside those that its requests and our DATA pay for",
        minimum=1,
        why="Far above what any client needs that answers nothing of ours; each costs work.",
    )
    http2_control_rate = setting(
        10.0,
        "such frames per second that a client may send for ever",
        minimum=0,
        kind="float",
        why="Clients that ask for signs of life do so a few times a minute.",
    )
    http2_stall_timeout = setting(
        60.0,
        "longest time that a client may keep a window closed, or open it for less than --write-min-rate, while a "
        "response waits for it",
        unit="seconds",
        minimum=0,
        why="As write_timeout, which does not see a client that reads and opens no window.",
    )
    http2_ping_interval = setting(
        0.0,
        "time after which a connection on which nothing arrives is asked for a sign of life, and as long again before "
        "it is dropped",
        unit="seconds",
        minimum=0,
        why="Off: TCP keepalive finds the dead ones, and phones sleep longer without.",
        zero="never",
    )
    http2_goaway_timeout = setting(
        1.0,
        "time that a client has to answer the PING that comes with the first GOAWAY, and to close behind the last one",
        unit="seconds",
        minimum=0,
        why="Some round trips. What is lost after it has not been worked on, and the client may send it again.",
        zero="at once",
    )
    http2_max_requests = setting(
        0,
        "most requests on one connection before it is ended in good order",
        minimum=0,
        why="Off: a connection does not get worse with use. Some balance load with it.",
    )
    http2_window_max_bytes = setting(
        1024 * 1024,
        "largest window of a stream; each begins with 65,535 bytes and grows while the application keeps up",
        unit="bytes",
        minimum=65535,
        why="100 Mbit/s over a path of 80 ms.",
    )
    http2_connection_buffer_max_bytes = setting(
        4 * 1024 * 1024,
        "what the streams of a connection hold beyond their inboxes at which it is given no more window",
        unit="bytes",
        minimum=65535,
        why="Room for some sixty streams whose applications read nothing, so that one slow upload delays no other.",
    )
